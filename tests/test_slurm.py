"""Jobs under a real Slurm of one node, which this file starts (tests/slurm.py); without it they skip, in words."""

import os
import pty
import random
import re
import select
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from losslandscape.files.layouts import read_surface
from losslandscape.processes import ancestors, is_running
from tests import slurm
from tests.conftest import ROOT
from tests.jobs import (
    SECONDS,
    Job,
    Walk,
    assert_nothing_left_over,
    assert_same_surface,
    small_inputs,
    surface_flags,
)

SECONDS_TO_START = 40  # after which MPI's start hangs


@pytest.fixture(scope="module")
def cluster():
    try:
        with slurm.cluster() as started:
            yield started
    except slurm.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def folder(tmp_path):
    small_inputs(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """(the surface of one run that nothing disturbed, the seconds that it took)"""
    folder = tmp_path_factory.mktemp("whole")
    small_inputs(folder)
    job = Job(folder, "mpich", seconds=0)
    assert job.finish() == 0, job.said()
    return read_surface(job.file), time.monotonic() - job.started


def walk_of(cluster, folder, ranks=3, **options):
    """A Walk of several ranks under srun, all of which have come through MPI's start.

    MPICH's start was once seen to wait for ever, all ranks within MPI_Init: then it is started again.
    """
    for _ in range(3):
        walk = Walk(folder, "slurm", ranks, environment=cluster.environment, **options)
        if not walk.hangs_in_start(SECONDS_TO_START):
            return walk
        clear(cluster)
    pytest.fail("MPI does not start")


# ---------------------------------------------------------------- batch jobs


def script_of_the_docs(folder, seconds):
    """The job script of docs/long_runs.md for two tasks and no GPU, computing the surface of small_inputs()."""
    text = (ROOT / "docs" / "long_runs.md").read_text()
    script = re.search(r"```\n(#!/bin/bash\n.*?)```", text, re.S)[1]
    resources = "--nodes=2 --ntasks-per-node=4 --gpus-per-node=4"
    command = "python plot_surface.py --mpi --cuda ..."
    assert resources in script and command in script
    words = [sys.executable, ROOT / "tests" / "dying.py", "none", 0, seconds, folder, "--", *surface_flags(folder)]
    script = script.replace(resources, "--ntasks=2").replace(command, shlex.join(map(str, words)))
    file = Path(folder) / "job.sh"
    file.write_text(script)
    return file


def submit(cluster, folder, seconds=0.2, *options):
    """(number of a job with the script of the docs, file of what it says)"""
    said = Path(folder) / "said"
    number = cluster.submit(script_of_the_docs(folder, seconds), *options, "--output", said, cwd=ROOT)
    return number, said


def wait_until_measuring(folder, ranks=2, seconds=60):
    end = time.monotonic() + seconds
    while len(list(Path(folder).glob("ready.*"))) < ranks:
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_requeued_and_finished(cluster, number, said, folder, uninterrupted, seconds=60):
    """A job that is interrupted by SIGUSR1 within so many seconds is started again, and ends well."""
    end = time.monotonic() + seconds
    while cluster.describe(number).get("Restarts") != "1":
        assert time.monotonic() < end, said.read_text()
        time.sleep(0.1)
    assert cluster.describe(number)["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "COMPLETED")
    description = cluster.wait_for_state(number, "COMPLETED", seconds=240)  # perhaps interrupted again
    assert description["ExitCode"] == "0:0"
    text = said.read_text()
    assert "interrupted by SIGUSR1" in text and "done before" in text and "surface file:" in text, text
    assert_same_surface(folder / "s.h5", uninterrupted)
    assert_nothing_left_over(folder)


def test_the_job_script_of_the_docs_is_requeued_and_computes_the_surface_of_one_run(cluster, folder, whole_run):
    number, said = submit(cluster, folder)
    wait_until_measuring(folder)
    time.sleep(0.5)
    cluster.run("scancel", "--signal=USR1", number)  # what --signal=USR1@60 does, without the wait
    assert_requeued_and_finished(cluster, number, said, folder, whole_run[0])


@pytest.mark.long
def test_a_job_whose_time_is_nearly_up_is_requeued(cluster, folder, whole_run):
    """The real --signal, which Slurm sends up to a minute early."""
    number, said = submit(cluster, folder, 5, "--time=2", "--signal=USR1@60")
    assert_requeued_and_finished(cluster, number, said, folder, whole_run[0], seconds=150)


@pytest.mark.long
def test_a_job_whose_time_runs_out_has_saved(cluster, folder):
    number, said = submit(cluster, folder, 5, "--time=1", "--signal=USR2@0", "--no-requeue")
    cluster.wait_for_state(number, "TIMEOUT", "FAILED", "CANCELLED", seconds=240)
    assert "interrupted by SIGTERM" in said.read_text(), said.read_text()
    assert read_surface(folder / "s.h5").computed["train_loss"].any()
    assert_nothing_left_over(folder)


def test_a_cancelled_job_has_saved_and_leaves_nothing(cluster, folder):
    number, said = submit(cluster, folder)
    wait_until_measuring(folder)
    time.sleep(0.5)
    cluster.run("scancel", number)
    cluster.wait_for_state(number, "CANCELLED")
    cluster.wait_for(lambda: not cluster.run("squeue", "--noheader").stdout.strip())
    progress = re.search(r"interrupted by SIGTERM on .*: (\d+) of 40 points", said.read_text())
    assert progress, said.read_text()
    assert int(progress[1]) == read_surface(folder / "s.h5").computed["train_loss"].sum() > 0
    assert_nothing_left_over(folder)


# ---------------------------------------------------------------- the end of a step


@pytest.mark.parametrize("name, target, options", [
    ("SIGUSR1", "launcher", []), ("SIGUSR1", 1, []), ("SIGTERM", 0, []), ("SIGUSR1", 2, ["--kill-on-bad-exit=1"])])
def test_srun_passes_on_the_code_of_an_interrupted_job(cluster, tmp_path, name, target, options):
    walk = walk_of(cluster, tmp_path, points=1000, seconds=0.1, launcher_options=options)
    walk.wait_until_measuring()
    walk.signal(name, target)
    expected = 128 + getattr(signal, name)
    assert walk.finish(SECONDS) == expected, walk.said()
    assert walk.codes() == dict.fromkeys(range(3), expected) and walk.results_file.exists()


@pytest.mark.parametrize("mode, code", [("input", 2), ("exception", 1)])
def test_srun_passes_on_the_code_of_a_failure(cluster, tmp_path, mode, code):
    walk = walk_of(cluster, tmp_path, points=1000, mode=mode, victim=1)
    assert walk.finish(SECONDS + 5) == code and walk.codes() == dict.fromkeys(range(3), code), walk.said()


def test_a_rank_that_dies_ends_the_step_though_srun_would_go_on(cluster, tmp_path):
    walk = walk_of(cluster, tmp_path, points=10_000, mode="kill", victim=1)
    walk.wait_until_measuring()
    assert walk.finish(2 * SECONDS) not in (0, 138)
    assert walk.said().count("rank 1 on ") == 1 and "has died" in walk.said()
    assert walk.results_file.exists()


def test_with_patience_a_step_with_a_stopped_rank_ends_with_code_0(cluster, tmp_path):
    walk = walk_of(cluster, tmp_path, mode="stop", victim=1, silent=1, patience=2)
    assert walk.finish() == 0, walk.said()
    walk.assert_complete()


def stepd_of(pid):
    """The pid of the slurmstepd that started a rank."""
    return next(parent for parent, name in ancestors(pid) if name.startswith("slurmstepd"))


def test_ranks_end_in_order_when_slurmstepd_is_killed(cluster, folder):
    """Slurm starts the job anew then; those that went on would hold the file."""
    job = Job(folder, "slurm", seconds=0.2, environment=cluster.environment)
    job.wait_until_measuring()
    time.sleep(0.5)
    os.kill(stepd_of(job.pids()[0]), signal.SIGKILL)
    end = time.monotonic() + 2 * SECONDS
    while any(map(is_running, job.pids().values())):
        assert time.monotonic() < end, job.said()
        time.sleep(0.1)
    job.assert_nothing_lost()
    assert read_surface(job.file).computed["train_loss"].any()
    assert_nothing_left_over(folder)
    job.process.kill()
    clear(cluster)


def clear(cluster):
    """End all jobs, as an administrator would."""
    cluster.run("scancel", "--user", "root", "--signal=KILL", "--full")
    cluster.run("scancel", "--user", "root")
    cluster.run("scontrol", "update", f"NodeName={cluster.host}", "State=RESUME")
    cluster.wait_for(lambda: not cluster.run("squeue", "--noheader").stdout.strip())


# ---------------------------------------------------------------- how a process was started


def in_terminal(cluster, command, text="", seconds=60):
    """What a command shows in a terminal of its own while `text` is typed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvpe(command[0], command, cluster.environment)
    os.write(terminal, text.encode())
    shown = b""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and select.select([terminal], [], [], end - time.monotonic())[0]:
            shown += os.read(terminal, 4096)
    except OSError:  # it has ended
        pass
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown.decode(errors="replace")


def test_a_process_in_the_shell_of_a_step_of_several_tasks_runs_alone(cluster, tmp_path):
    command = shlex.join([sys.executable, "tests/walking.py", str(tmp_path), "6", "0.01"])
    shown = in_terminal(
        cluster, ["srun", "-n", "4", "--pty", "bash", "--norc", "-i"],
        f"cd {ROOT}\n{command}\n{command} < /dev/null > {tmp_path}/log 2>&1\ncat {tmp_path}/log\nexit\n")
    assert shown.count("finished\r\n") == 2, shown
    assert (tmp_path / "code.0").read_text() == "0"


def test_a_script_with_a_terminal_runs_with_all_its_tasks(cluster, tmp_path):
    script = tmp_path / "script.sh"
    command = shlex.join([sys.executable, "tests/walking.py", str(tmp_path), "6", "0.01"])
    script.write_text(f"#!/bin/bash\ncd {ROOT}\n{command}\nexit 0\n")
    script.chmod(0o755)
    in_terminal(cluster, ["srun", "-n", "3", "--pty", str(script)])
    assert len(list(tmp_path.glob("code.*"))) == 3


def test_tasks_that_mpi_does_not_join_are_refused(cluster, tmp_path):
    """They would write the same file. One task is one process, with or without MPI."""
    command = [sys.executable, "tests/walking.py", tmp_path, "6", "0.01"]
    several = cluster.run("srun", "--mpi=none", "-n", "2", *command, cwd=ROOT)
    assert several.returncode == 2 and several.stderr.count("error: the launcher started 2 processes") == 1
    one = cluster.run("srun", "--mpi=none", "-n", "1", *command, cwd=ROOT)
    assert one.returncode == 0 and "finished" in one.stdout


# ---------------------------------------------------------------- jobs that are killed


def kill_at_random(cluster, folder, whole_run, runs, seed):
    """Kill so many steps of two ranks at random moments; nothing is lost at any. Returns the counts of targets."""
    choose = random.Random(seed)
    uninterrupted, usual = whole_run
    counts = dict.fromkeys(["launcher", "slurmstepd", "all", 0, 1, "had ended"], 0)
    for _ in range(runs):
        job = Job(folder, "slurm", seconds=0.02, environment=cluster.environment,
                  launcher_options=["--kill-on-bad-exit=1"])
        time.sleep(choose.uniform(0.3, 1.2) * usual)
        target = choose.choice(["launcher", "slurmstepd", "all", 0, 1])
        pids = job.pids()
        doomed = [pids.get(target, job.process.pid)]
        if target == "all":
            doomed = list(pids.values())
        elif target == "slurmstepd" and 0 in pids and is_running(pids[0]):
            doomed = [stepd_of(pids[0])]
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it was faster
                pass
        if target in ("launcher", "slurmstepd"):
            clear(cluster)
        code = job.finish(3 * SECONDS, f"killed: {target}")
        clear(cluster)
        job.assert_nothing_lost()
        has_ended = "surface file:" in job.said()
        if target != "slurmstepd":  # without it srun may say 0 of a step that was killed
            assert has_ended or code != 0, job.said()
        counts["had ended" if has_ended else target] += 1
        if has_ended:
            assert_same_surface(job.file, uninterrupted)
            assert_nothing_left_over(folder)
            job.file.unlink()
            (folder / "saved").unlink()
    return counts


def assert_resumed_equals(cluster, folder, uninterrupted):
    job = Job(folder, "slurm", seconds=0, environment=cluster.environment)
    assert job.finish() == 0, job.said()
    assert_same_surface(job.file, uninterrupted)
    assert_nothing_left_over(folder)


def test_steps_killed_at_random_moments_lose_nothing(cluster, folder, whole_run):
    kill_at_random(cluster, folder, whole_run, 2, seed=0)
    assert_resumed_equals(cluster, folder, whole_run[0])


@pytest.mark.long
def test_60_steps_killed_at_random_moments_lose_nothing(cluster, folder, whole_run):
    print(kill_at_random(cluster, folder, whole_run, 60, seed=1))
    assert_resumed_equals(cluster, folder, whole_run[0])
