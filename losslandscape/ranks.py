"""One or many processes, one or many devices.

The only module that imports mpi4py, and only with more than one process. A run is a `World` of
`size` ranks; one process is a world of size 1, with the same methods. What a rank prints, and how a
job ends, is decided in this module:

    world = connect()
    world.on_root(f)     rank 0 calls f(); every rank gets its result, or raises its error
    world.together(f)    every rank calls f(); if any fails, all raise
    with world.guard():  an InputError is printed once and all ranks exit with code 2; any other
                         exception on any rank ends the whole job at once, with another exit code
"""

import contextlib
import os
import socket
import sys
import time
import traceback
from pathlib import Path

import torch

from losslandscape.errors import InputError

# what launchers tell the processes that they start: (number of processes, own number)
LAUNCHERS = {
    "MPICH or Slurm PMI-2": ("PMI_SIZE", "PMI_RANK"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "MVAPICH": ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
}

SECONDS_TO_PASS_ON = 0.3  # launchers drop what they have not yet passed on when a job is aborted
SECONDS_TO_END = 5  # in which a launcher ends the processes of an aborted job
MEMORY_SHARE = 0.5  # of what a host has free: for data
MEMORY_IF_UNKNOWN = 8 << 30  # bytes, taken as free where the system does not say

# ---------------------------------------------------------------- how the processes were started


def launcher():
    """Name of the launcher of this process, a key of LAUNCHERS; '' without one."""
    for name, (size, _) in LAUNCHERS.items():
        if os.environ.get(size, "").isdigit():
            return name
    return ""


def launched():
    """(number of processes, own number) as the launcher says; (1, 0) without a launcher."""
    if not launcher():
        return 1, 0
    size, rank = LAUNCHERS[launcher()]
    return int(os.environ[size]), int(os.environ.get(rank, "0"))


def connect():
    """The World of this run: MPI's where a launcher started more than one process, else one process.

    Whether --mpi was given makes no difference: as separate runs, the processes would all write the
    same file. Raises InputError where MPI does not see what was launched.
    """
    size, number = launched()
    if size == 1:
        return World()

    def fail(message):
        if number > 0:  # the process with number 0 says it for all
            sys.exit(2)
        raise InputError(message)

    try:
        from mpi4py import MPI
        from mpi4py.util import pkl5
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        fail(f"expected mpi4py and an MPI library for {size} processes ({reason}); "
             "pip install mpi4py mpich")

    comm = MPI.COMM_WORLD
    if comm.size != size:
        fail(f"the launcher started {size} processes, but mpi4py's MPI ({MPI.get_vendor()[0]}) "
             f"sees {comm.size}; start it with the mpirun (or srun --mpi=...) of that MPI")
    return World(comm, comm.Split_type(MPI.COMM_TYPE_SHARED), pkl5.Intracomm(comm))


def mpi_library():
    """Name and version of the MPI library of this process; call it in a world of several ranks."""
    from mpi4py import MPI

    return " ".join(MPI.Get_library_version().split()[:3]).rstrip(",\0")


# ---------------------------------------------------------------- the processes of a run


class RankFailed(Exception):
    """Another rank failed; the message is its traceback."""


class _Alone:
    """The communicator of a world of size 1."""

    def bcast(self, value):
        return value

    def allgather(self, value):
        return [value]

    def iprobe(self):
        return False


class World:
    """The processes of this run: `rank` of `size`, and `local_rank` of `local_size` on this host.

    comm: MPI's communicator of all ranks; node: of those on this host; large: of all ranks, for
    messages of any size. Without them, one process.
    """

    def __init__(self, comm=None, node=None, large=None):
        self.rank, self.size = 0, 1
        if comm is not None:
            self.rank, self.size = comm.rank, comm.size
        self.local_rank, self.local_size = 0, 1
        if node is not None:
            self.local_rank, self.local_size = node.rank, node.size

        self.comm = comm or _Alone()
        self._node = node or _Alone()
        self._large = large or self.comm
        self._pending = []  # isend requests, held until they are done

    # ------------------------------------------------------------ collective

    def _wait(self):
        """A barrier that sleeps: MPI's own spins and takes a core from the ranks that still work."""
        if self.size > 1:
            request = self.comm.Ibarrier()
            while not request.Test():
                time.sleep(0.001)

    def bcast(self, value=None):
        """`value` of rank 0 on every rank."""
        self._wait()
        return self._large.bcast(value)

    def on_root(self, function, *args, **kwargs):
        """function(*args, **kwargs) on rank 0.

        Every rank returns its result, or raises its InputError.
        """
        result, error = None, None
        if self.rank == 0:
            try:
                result = function(*args, **kwargs)
            except InputError as caught:
                error = caught

        result, error = self.bcast((result, error))
        if error is not None:
            raise _agreed(error)
        return result

    def only_root(self, function, *args, **kwargs):
        """Like on_root, but the result stays on rank 0; the others return None."""
        result = None

        def call():
            nonlocal result
            result = function(*args, **kwargs)

        self.on_root(call)
        return result

    def together(self, function, *args, **kwargs):
        """function(*args, **kwargs) on every rank.

        If it raises InputError on some of them, every rank raises the first.
        """
        result, error = None, None
        try:
            result = function(*args, **kwargs)
        except InputError as caught:
            error = caught

        self._wait()
        errors = [other for other in self.comm.allgather(error) if other is not None]
        if errors:
            raise _agreed(errors[0])
        return result

    # ------------------------------------------------------------ messages without a collective

    def send(self, rank, message):
        """Send to `rank` and go on."""
        self._pending = [request for request in self._pending if not request.Test()]
        self._pending.append(self.comm.isend(message, dest=rank))

    def receive(self):
        """(rank, message) of a message that has arrived, or None."""
        # twice: a look of MPICH's moves the messages that have come since the last call, but does
        # not see them yet
        if not self.comm.iprobe() and not self.comm.iprobe():
            return None
        from mpi4py import MPI

        status = MPI.Status()
        message = self.comm.recv(status=status)
        return status.source, message

    # ------------------------------------------------------------ how a job ends

    @contextlib.contextmanager
    def guard(self):
        """The body of a script; the module's docstring says what becomes of exceptions."""
        try:
            yield
        except InputError as error:
            if not getattr(error, "agreed", False):  # only this rank knows
                self.abort(f"error: {error}", 2)
            if self.rank == 0:
                print(f"error: {error}", file=sys.stderr)
            self._wait()
            sys.exit(2)
        except RankFailed as failed:
            self.abort(str(failed))
        except SystemExit:
            raise
        except KeyboardInterrupt:  # outside of the walk over the grid, which has its own way to stop
            self.abort("interrupted", 130)
        except BaseException:
            host = socket.gethostname()
            self.abort(f"rank {self.rank} on {host} failed:\n{traceback.format_exc()}")
        self._wait()

    def abort(self, message, code=1):
        """Print `message` and end every rank at once."""
        print(message.rstrip(), file=sys.stderr, flush=True)
        sys.stdout.flush()
        if self.size == 1:
            sys.exit(code)

        time.sleep(SECONDS_TO_PASS_ON)
        self.comm.Abort(code)

        # MPICH's Abort returns before its launcher has ended this process; the caller must not go on
        time.sleep(SECONDS_TO_END)
        os._exit(code)

    # ------------------------------------------------------------ hardware

    def share_threads(self):
        """Give this rank its share of the cores of its host; returns the number of its threads.

        The cores are those that the ranks of this host may run on, taken together: a launcher may
        have bound each to one. torch alone gets this wrong both ways: one thread under MPICH's
        mpirun, all cores per rank under others. OMP_NUM_THREADS, where the user set it, is
        respected.
        """
        cores = set().union(*self._node.allgather(own_cores()))
        threads = max(1, len(cores) // self.local_size)
        if os.environ.get("OMP_NUM_THREADS", "").isdigit():
            threads = max(1, int(os.environ["OMP_NUM_THREADS"]))
        torch.set_num_threads(threads)
        return threads

    def share_memory(self):
        """Bytes that this rank may fill with data: its share of half of what its host has free."""
        return int(MEMORY_SHARE * free_memory()) // self.local_size

    def devices(self, cuda, ngpu=1):
        """[torch.device] of this rank: the CPU, or `ngpu` GPUs of its host.

        The rank within the host counts: the first takes the first GPUs, and so on. Raises
        InputError where there are fewer than `ngpu`.
        """
        if not cuda:
            return [torch.device("cpu")]

        count = 0
        if torch.cuda.is_available():
            count = torch.cuda.device_count()
        if count == 0:
            raise InputError(
                f"expected a CUDA device for --cuda, found none on {socket.gethostname()}; "
                "leave --cuda out to run on the CPU")
        if ngpu > count:
            raise InputError(f"expected at least {ngpu} GPUs for --ngpu {ngpu}, found {count} on "
                             f"{socket.gethostname()}; lower --ngpu")

        first = self.local_rank * ngpu
        return [torch.device("cuda", (first + i) % count) for i in range(ngpu)]

    def thread_hint(self):
        """A sentence where Open MPI has bound a run of one process to fewer cores than there are.

        '' elsewhere.
        """
        all_cores = {_core_of(cpu) for cpu in range(os.cpu_count() or 1)}
        allowed = own_cores()
        is_bound = len(allowed) < len(all_cores) and launcher() == "Open MPI"
        if self.size > 1 or not is_bound:
            return ""
        return (f"the launcher bound this run to {len(allowed)} of {len(all_cores)} cores; "
                "mpirun --bind-to none frees them")


def _agreed(error):
    """Mark an error that every rank raises at the same place."""
    error.agreed = True
    return error


# ---------------------------------------------------------------- hardware of a host


def own_cores():
    """The physical cores that this process may run on: a set of names."""
    cpus = range(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
    return {_core_of(cpu) for cpu in cpus}


def _core_of(cpu):
    """The physical core of a logical CPU: two threads of one core don't convolve faster than one."""
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        return (folder / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def free_memory():
    """Bytes of memory that this host has free."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return 1024 * int(line.split()[1])
    return MEMORY_IF_UNKNOWN
