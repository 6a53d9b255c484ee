"""One or many processes, one or many devices.

The only module that imports mpi4py, and only with more than one process. A run is a `World` of
`size` ranks; one process is a world of size 1, with the same methods. What a rank prints, and how a
job ends, is decided in this module:

    world = connect()
    world.on_root(f)     rank 0 calls f(); every rank gets its result, or raises its error
    world.together(f)    every rank calls f(); if any fails, all raise
    with world.guard():  an InputError is printed once and all ranks exit with code 2; a signal ends
                         all with 128 + signal; any other exception on any rank with code 1

Ranks end by themselves, in order: one that wants to end the job says so to rank 0, rank 0 saves,
then tells all to end, and each finalizes MPI and exits with the same code. So the code is what every
launcher passes on. MPI_Abort is for a job in which a rank does not answer; under srun its code is
137, whatever was asked for.
"""

import contextlib
import math
import os
import signal
import socket
import sys
import time
import traceback
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from losslandscape import interruption, processes
from losslandscape.errors import InputError
from losslandscape.interruption import Interrupted
from losslandscape.launchers import launched, launcher
from losslandscape.messages import say

WALK, MEETING, END = range(3)  # what a message is about: its tag

SECONDS_TO_END = 10  # in which a rank must answer when the job is to end
SECONDS_TO_SAVE = 600  # that the others wait while rank 0 saves
SECONDS_TO_WAKE = 1  # after which a rank that does not answer may be stopped, and is continued
SECONDS_TO_PASS_ON = 0.3  # launchers drop what they have not yet passed on when a job is aborted
SECONDS_BETWEEN_LOOKS = 2  # whether launcher and neighbour live
SECONDS_UNTIL_TOLD = 60  # that rank 0 waits for another before it says so
PAUSE = 0.001  # seconds between two looks for messages

MEMORY_SHARE = 0.5  # of what a host has free: for data
MEMORY_IF_UNKNOWN = 8 << 30  # bytes, taken as free where the system does not say

# ---------------------------------------------------------------- how the processes were started


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
        with processes.dying_with_parent():  # MPI's start would wait for ever for a dead launcher
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        fail(f"expected mpi4py and an MPI library for {size} processes ({reason}); "
             "pip install mpi4py mpich")

    comm = MPI.COMM_WORLD
    if comm.size != size:
        fail(f"the launcher started {size} processes, but mpi4py's MPI ({MPI.get_vendor()[0]}) "
             f"sees {comm.size}; start it with the mpirun (or srun --mpi=...) of that MPI, or as one "
             "process (srun -n 1)")
    return World(comm, comm.Split_type(MPI.COMM_TYPE_SHARED))


def mpi_library():
    """Name and version of the MPI library of this process; call it in a world of several ranks."""
    from mpi4py import MPI

    return " ".join(MPI.Get_library_version().split()[:3]).rstrip(",\0")


# ---------------------------------------------------------------- the processes of a run


class RankFailed(Exception):
    """Another rank failed; the message is its traceback."""


class Ended(BaseException):
    """Rank 0 has told this rank that the job ends."""


class _Alone:
    """The communicator of a world of size 1."""

    def bcast(self, value):
        return value

    def allgather(self, value):
        return [value]


@dataclass(frozen=True)
class _Process:
    """What a rank is to the system of its host."""

    host: str
    pid: int
    start: str  # see processes.start_of

    @classmethod
    def own(cls):
        return cls(socket.gethostname(), os.getpid(), processes.own_start())

    def is_visible(self):
        """Is it a process of this host (and container)?"""
        return self.host == socket.gethostname() and processes.start_of(self.pid) == self.start != ""


class World:
    """The processes of this run: `rank` of `size`, and `local_rank` of `local_size` on this host.

    comm: MPI's communicator of all ranks; node: of those on this host. Without them, one process.
    patience: seconds after which a silent rank is given up; none ever is where it is infinite.
    """

    def __init__(self, comm=None, node=None):
        self.rank, self.size = 0, 1
        if comm is not None:
            self.rank, self.size = comm.rank, comm.size
        self.local_rank, self.local_size = 0, 1
        if node is not None:
            self.local_rank, self.local_size = node.rank, node.size
        self.comm = comm or _Alone()
        node = node or _Alone()

        # who is where
        self._peers = self.comm.allgather(_Process.own())
        ranks_here = node.allgather(self.rank)
        self._cores_here = set().union(*node.allgather(own_cores()))
        self._watch = _Watch(self._peers, self.rank, ranks_here)

        # messages, apart from those of whoever else uses `comm`
        self._line = None
        if comm is not None:
            self._line = comm.Dup()
        self._pending = []  # isend requests, held until they are done
        self._inbox = deque()  # (rank, number of the last meeting before it was sent, message)

        # meetings
        self._meeting = 0  # number of the last one
        self._arrived = dict.fromkeys(range(self.size), 0)  # rank -> number of its last meeting
        self._opened = 0  # number of the last meeting that all have come to
        self._everyone = self.comm  # the communicator of all who are not lost
        self._large = None  # the same, for messages of any size

        # ranks that don't answer
        self.patience = math.inf
        self.lost = set()  # given up
        self._excluded = set()  # given up, and left out of the communicator
        self._retired = set()  # these know that they are
        self._dead = set()

        # the end
        self._is_ending = False  # this rank takes part in it, or leads it
        self._is_stopping = False  # rank 0 has announced the end
        self._seconds_to_save = SECONDS_TO_SAVE
        self._verdict = None  # the exit code
        self._goodbyes = set()  # ranks that have ended

    @property
    def others(self):
        """[rank] of all but rank 0 that are not given up."""
        return [rank for rank in range(1, self.size) if rank not in self.lost]

    def name(self, rank):
        """'rank 3 on node7'."""
        return f"rank {rank} on {self._peers[rank].host}"

    # ------------------------------------------------------------ collective

    def meet(self):
        """Wait until every rank has come this far, asleep: MPI's barrier would take a core from others.

        Rank 0 says whom it waits for, and goes on without one that is silent for `patience`.
        """
        interruption.raise_noted()
        if self.size == 1:
            return

        self._meeting += 1
        if self.rank > 0:
            self._post(0, MEETING, self._meeting)
            while self._opened < self._meeting:
                self._wait_a_little()
        else:
            self._wait_for_others()
            for rank in self.others:
                self._post(rank, MEETING, (self._meeting, self.lost))
        if self.lost != self._excluded or self._large is None:
            self._regroup()

    def _wait_for_others(self):
        start = time.monotonic()
        seconds_until_told = min(SECONDS_UNTIL_TOLD, self.patience)
        while True:
            absent = [rank for rank in self.others if self._arrived[rank] < self._meeting]
            if not absent:
                return

            waited = time.monotonic() - start
            if waited > self.patience:
                for rank in absent:
                    self.give_up(rank, waited)
            elif waited > seconds_until_told:
                names = ", ".join(self.name(rank) for rank in absent)
                say(f"waiting for {names} since {waited:.0f} s")
                seconds_until_told *= 4
            self._wait_a_little()

    def _wait_a_little(self):
        time.sleep(PAUSE)
        self._take_in()
        interruption.raise_noted()

    def _regroup(self):
        """Make the communicators of all who are not lost; only these need to call it."""
        from mpi4py.util import pkl5

        if self.lost:
            present = [rank for rank in range(self.size) if rank not in self.lost]
            group = self.comm.Get_group().Incl(present)
            self._everyone = self.comm.Create_group(group, len(self.lost))
        self._large = pkl5.Intracomm(self._everyone)
        self._excluded = set(self.lost)

    def bcast(self, value=None):
        """`value` of rank 0 on every rank."""
        self.meet()
        if self.size == 1:
            return value
        return self._large.bcast(value)

    def allgather(self, value):
        """[value of each rank] on every rank."""
        self.meet()
        return self._everyone.allgather(value)

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

        errors = [other for other in self.allgather(error) if other is not None]
        if errors:
            raise _agreed(errors[0])
        return result

    # ------------------------------------------------------------ messages without a collective

    def send(self, rank, message):
        """Send to `rank` and go on."""
        self._post(rank, WALK, (self._meeting, message))

    def receive(self):
        """(rank, message) of a message that has arrived, or None.

        Those that were sent before the last meeting are dropped: a rank that stood still sends them.
        """
        self._take_in()
        while self._inbox and self._inbox[0][1] <= self._meeting:
            rank, meeting, message = self._inbox.popleft()
            if meeting == self._meeting:
                return rank, message
        return None

    def _post(self, rank, tag, content):
        self._pending = [request for request in self._pending if not request.Test()]
        self._pending.append(self._line.isend(content, dest=rank, tag=tag))

    def _take_in(self):
        """Sort what has arrived. Raises what ends the job: see _hear_of_end."""
        self._watch_over()
        # twice: a look of MPICH's moves the messages that have come since the last call, but does
        # not see them yet
        while self._line is not None and (self._line.iprobe() or self._line.iprobe()):
            from mpi4py import MPI

            status = MPI.Status()
            content = self._line.recv(status=status)
            if status.source in self._excluded and self.rank == 0:
                self._retire(status.source)
            if status.tag == WALK:
                self._inbox.append((status.source, *content))
            elif status.tag == END:
                self._hear_of_end(status.source, *content)
            elif self.rank == 0:
                self._arrived[status.source] = content
            else:
                self._opened, self.lost = content

    # ------------------------------------------------------------ ranks that don't answer

    def give_up(self, rank, seconds):
        """Go on without a rank that was silent for so long; rank 0 calls it."""
        say(f"{self.name(rank)} is given up: silent for {seconds:.0f} s")
        self.lost.add(rank)

    def take_back(self, rank):
        """A rank that was given up since the last meeting has answered: it belongs to us again."""
        self.lost.discard(rank)

    def _retire(self, rank):
        """Let a rank that answers too late wait for the end of the job, asleep."""
        if rank not in self._retired:
            self._retired.add(rank)
            self._post(rank, END, ("stop", math.inf))

    def _watch_over(self):
        """Raise what ends the job where the launcher or another rank of this host has died."""
        if self._is_ending or not self._watch.is_due():
            return
        if self._watch.launcher_has_ended():
            raise Interrupted("SIGHUP", f"{socket.gethostname()}, whose launcher has ended")

        rank = self._watch.dead_neighbour()
        if rank is not None and rank not in self.lost:
            self._dead.add(rank)
            raise RankFailed(f"{self.name(rank)} has died")

    # ------------------------------------------------------------ how a job ends

    @contextlib.contextmanager
    def guard(self):
        """The body of a script; the module's docstring says what becomes of exceptions."""
        with interruption.raised():
            try:
                yield
                self.meet()
                self._dismiss_lost_ranks()
            except SystemExit:
                raise
            except BaseException as error:
                self._end_by(error)

    def announce_end(self):
        """Rank 0 is about to save and to end the job: nobody is to work on, or to lose patience."""
        if self.rank == 0 and not self._is_stopping:
            self._is_stopping = True
            interruption.ignore()
            for rank in range(1, self.size):
                self._post(rank, END, ("stop", SECONDS_TO_SAVE))

    def _end_by(self, error):
        """End the job because of an exception."""
        self._is_ending = True
        interruption.ignore(for_good=self.size > 1)
        message, code, reason = self._in_words(error)
        if self.rank > 0:
            if getattr(error, "agreed", False) or isinstance(error, Ended):
                reason = None  # rank 0 knows
            self._leave(message, code, reason)

        say(message.rstrip())
        self.announce_end()
        if self._dead or not self._send_home(range(1, self.size), code):
            self.abort(code)
        sys.exit(code)

    def _in_words(self, error):
        """(what is printed, exit code, what rank 0 is told) of an exception."""
        here = f"rank {self.rank} on {socket.gethostname()}"
        if isinstance(error, Interrupted):
            message = f"interrupted by {error}"
            if error.progress:
                message += f": {error.progress}"
            return message, error.code, ("interrupted", (error.name, error.host))
        if isinstance(error, KeyboardInterrupt):
            content = ("SIGINT", socket.gethostname())
            return "interrupted", 128 + signal.SIGINT, ("interrupted", content)
        if isinstance(error, InputError):
            return f"error: {error}", 2, ("input", str(error))
        if isinstance(error, (RankFailed, Ended)):
            return str(error), 1, ("failed", (str(error), self._dead))
        text = f"{here} failed:\n{''.join(traceback.format_exception(error))}"
        return text, 1, ("failed", (text, set()))

    def _hear_of_end(self, source, kind, content):
        """A message about the end of the job has come: on rank 0 from another, or from rank 0."""
        if kind == "goodbye":
            self._goodbyes.add(source)
        elif kind == "stop":
            self._is_stopping, self._seconds_to_save = True, content
        elif kind == "end":
            self._is_stopping, self._verdict = True, content

        if self._is_ending or kind == "goodbye":
            return
        if self.rank > 0:
            raise Ended
        if source in self.lost:  # it goes alone
            return
        if kind == "interrupted":
            raise Interrupted(*content)
        if kind == "input":
            raise InputError(content)
        text, dead = content
        self._dead |= dead
        raise RankFailed(text)

    def _leave(self, message, code, reason):
        """Tell rank 0 why the job must end, wait until it says so, and end."""
        if reason is not None:
            self._post(0, END, reason)
            if 0 in self._dead or not self._wait_until(lambda: self._is_stopping, SECONDS_TO_END):
                say(f"{message.rstrip()}\n{self.name(0)} does not answer")
                self.abort(code)

        if not self._wait_until(lambda: self._verdict is not None, self._seconds_to_save):
            self.abort(code)
        self._post(0, END, ("goodbye", None))
        sys.exit(self._verdict)

    def _send_home(self, ranks, code):
        """Tell ranks to end with `code`; False where one of them does not."""
        for rank in ranks:
            self._post(rank, END, ("end", code))
        if self._wait_until(lambda: self._goodbyes.issuperset(ranks), SECONDS_TO_WAKE):
            return True

        # perhaps one was stopped; whoever works is not disturbed by this signal
        for rank in set(ranks) - self._goodbyes:
            if self._peers[rank].is_visible():
                with contextlib.suppress(OSError):
                    os.kill(self._peers[rank].pid, signal.SIGCONT)
        return self._wait_until(lambda: self._goodbyes.issuperset(ranks), SECONDS_TO_END)

    def _wait_until(self, is_so, seconds):
        """Take in messages until is_so(); False where that takes longer than `seconds`."""
        end = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > end:
                return False
            time.sleep(PAUSE)
            self._take_in()
        return True

    def _dismiss_lost_ranks(self):
        """At the end of a job whose work is done: end the ranks that were given up, too."""
        if self.rank > 0 or not self.lost:
            return
        self._is_ending = True
        if not self._send_home(sorted(self.lost), 0):
            names = ", ".join(self.name(rank) for rank in sorted(self.lost))
            say(f"the work is done; {names} must be ended by force")
            self.abort(0)

    def abort(self, code):
        """End every rank by force."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
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
        import torch

        threads = max(1, len(self._cores_here) // self.local_size)
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
        import torch

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


class _Watch:
    """Looks now and then whether the launcher lives, and the next rank on this host.

    mpirun ends a job in which one of its children dies. srun does not (unless it is told to with
    --kill-on-bad-exit), and nobody does when what started the ranks, such as slurmstepd, is killed:
    they would go on without anybody, or wait for a dead one for ever.
    """

    def __init__(self, peers, rank, ranks_here):
        self._parent = None
        if launcher():
            self._parent = os.getppid()
        self._next = ranks_here[(ranks_here.index(rank) + 1) % len(ranks_here)]
        self._neighbour = None
        if self._next != rank and peers[self._next].is_visible():
            self._neighbour = peers[self._next]
        self._last_look = time.monotonic()

    def is_due(self):
        now = time.monotonic()
        if now - self._last_look < SECONDS_BETWEEN_LOOKS:
            return False
        self._last_look = now
        return True

    def launcher_has_ended(self):
        return self._parent is not None and os.getppid() != self._parent

    def dead_neighbour(self):
        """The number of the next rank on this host if it has died, else None."""
        neighbour = self._neighbour
        if neighbour is not None and processes.has_ended(neighbour.pid, neighbour.start):
            return self._next
        return None


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
