"""How this process was started: by which launcher, as which of how many.

    launcher()      'Open MPI', 'srun', ..., or '' for a process that was started alone
    launched()      (number of processes, own number)
"""

import os

# what launchers tell the processes that they start: (number of processes, own number). The first
# that is there counts: mpirun within a step of Slurm leaves the variables of the step as they are
LAUNCHERS = {
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "MVAPICH": ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    "MPICH or Slurm PMI-2": ("PMI_SIZE", "PMI_RANK"),
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
}


def launcher():
    """Name of the launcher of this process, a key of LAUNCHERS; '' without one."""
    if _is_in_shell_of_step():
        return ""
    return _named_by_variables()


def launched():
    """(number of processes, own number) as the launcher says; (1, 0) without a launcher."""
    name = launcher()
    if not name:
        return 1, 0
    size, rank = LAUNCHERS[name]
    return int(os.environ[size]), int(os.environ.get(rank, "0"))


def _named_by_variables():
    for name, (size, _) in LAUNCHERS.items():
        if os.environ.get(size, "").isdigit():
            return name
    return ""


def _is_in_shell_of_step():
    """Was this process started by hand, in the shell that `srun --pty` opened?

    The shell has the variables of a step of, say, 4 tasks, and hands them on; but the shells of the
    other tasks ended at once, for want of a terminal. A program that srun itself started, also by
    way of a script, is in the process group of its task; a shell with a terminal gives every
    command a group of its own. Only the first task has the terminal: so at most one process takes
    itself for such a one, and no two of them can write the same file.
    """
    if not _has_variables_of_step() or "SLURM_PTY_PORT" not in os.environ:
        return False
    if os.environ.get("SLURM_PROCID") != "0":
        return False
    try:
        group_of_task = os.getpgid(int(os.environ["SLURM_TASK_PID"]))
    except (KeyError, ValueError):
        return False
    except ProcessLookupError:
        return True  # the shell has ended; what was started in it goes on
    return os.getpgrp() != group_of_task


def _has_variables_of_step():
    """Do the variables come from a step of Slurm, rather than from an mpirun within it?"""
    name = _named_by_variables()
    step = f"{os.environ.get('SLURM_JOB_ID')}.{os.environ.get('SLURM_STEP_ID')}"
    return name == "srun" or (name != "" and os.environ.get("PMI_JOBID") == step)
