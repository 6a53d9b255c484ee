"""Which points remain, who takes which, when.

`Pool` is the decision (no MPI in it): equal ranks share every level evenly by `split_inds`; a rank
whose share is done takes from the rank that has most left, and near the end only a rank that would
be the first to finish gets a point. `walk` is the traffic: every rank holds its next points ahead of
need, and reports results with one small message each. There is no collective per point.

Rank 0 works too, and answers the others between two *batches* of its own point, not between its
points: `measure` calls `idle()` that often, and the read-ahead grows with rank 0's longest silence.
benchmarks/scheduling.py compares designs. Answers between points with one point of read-ahead lose
up to a factor of 16 where rank 0 is the slow one. A one-sided counter and a service thread on rank 0
are as quick as this, within 2 % (and the thread's fight for the interpreter lock is lost in the
noise, 10 %). But the counter knows nothing of speeds and levels, and needs a second way for results;
the thread needs an MPI that threads may call at once, and locks around results, saves and signals.
So neither is used. Where a batch takes longer than TICK, a timer calls idle() within it: the disk
and a preemption notice can't wait.
"""

import heapq
import signal
import socket
import time
import traceback
from collections import deque

import numpy as np

from losslandscape.errors import InputError
from losslandscape.ranks import RankFailed

# a preempted job gets one of these some time before the kill
SIGNALS = {number.name: number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
MAX_POINTS_AHEAD = 64
TICK = 1.0  # seconds that the others, the disk and a signal wait at most for a batch
PAUSE = 0.0005  # seconds between two looks for messages where there is nothing else to do

# ---------------------------------------------------------------- which points, in which order


def split_inds(indices, nproc):
    """[array] of `nproc` contiguous near-equal slices of some numbers.

    The first len(indices) % nproc have one more: 9 on 4 ranks are 3, 2, 2, 2.
    """
    return np.array_split(np.asarray(indices), nproc)


def coarse_to_fine(shape):
    """[array of point numbers] of a (ny, nx) grid: its levels, from coarse to fine.

    Every 2^k-th row and column first, then every 2^(k-1)-th, ... Row and column numbers are counted
    from the middle, so that the centre of the plane and its axes are in the first level, which has
    at least 5 x 5 points (51 x 51: 7 x 7, 2 % of the work). A 1-D grid, shape (nx,), is one level.
    """
    if len(shape) == 1:
        return [np.arange(shape[0])]

    # the largest power of two that divides both the row's and the column's distance from the middle
    rows, columns = (_power_of_two_in(np.arange(n) - n // 2) for n in shape)
    power = np.minimum.outer(rows, columns).ravel()  # (ny * nx,)

    # coarser lattices than that of the first level belong to it
    intervals = (min(shape) - 1) // 4
    coarsest = 2 ** max(0, intervals.bit_length() - 1)
    power = np.minimum(power, coarsest)
    return [np.flatnonzero(power == step) for step in np.unique(power)[::-1]]


def _power_of_two_in(numbers):
    """The largest power of two that divides each number; a very large one for 0."""
    return np.where(numbers == 0, 1 << 30, numbers & -numbers)


def levels_of(shape, missing):
    """[list of point numbers]: the levels of a grid, with those points that are in `missing`."""
    missing = set(missing)
    return [[p for p in level.tolist() if p in missing] for level in coarse_to_fine(shape)]


# ---------------------------------------------------------------- who takes which


class Pool:
    """The points that nobody has taken yet.

    levels: lists of point numbers; a level is handed out before the next. size: number of ranks.
    """

    def __init__(self, levels, size):
        self._shares = []  # of every level: [deque of point numbers], one per rank
        for level in levels:
            if len(level) > 0:
                shares = split_inds(level, size)
                self._shares.append([deque(share.tolist()) for share in shares])
        self.remaining = sum(len(level) for level in levels)

        self._seconds = [None] * size  # per point of each rank, a running mean
        self._running = [deque() for _ in range(size)]  # (point, when it started or will start)

    def ahead(self, rank):
        """How many points `rank` holds: the one it works on and those after it."""
        return len(self._running[rank])

    @property
    def taken(self):
        """How many points the ranks hold."""
        return sum(len(points) for points in self._running)

    def take(self, rank, now):
        """The next point for `rank`.

        None where the others will do the rest sooner, or nothing remains.
        """
        if self.remaining == 0 or not self._is_worthwhile(rank, now):
            return None

        while not any(self._shares[0]):
            self._shares.pop(0)
        shares = self._shares[0]
        if shares[rank]:
            point = shares[rank].popleft()
        else:
            point = max(shares, key=len).pop()

        self._running[rank].append((point, now))
        self.remaining -= 1
        return point

    def done(self, rank, point, seconds, now):
        """`rank` has reported `point`, which took `seconds`."""
        running = self._running[rank]
        first, _ = running.popleft()
        if first != point:
            raise RuntimeError(f"rank {rank} reported point {point}, expected {first}")
        if running:
            running[0] = (running[0][0], now)  # it starts the next one now

        before = self._seconds[rank]
        if before is None:
            self._seconds[rank] = seconds
        else:
            self._seconds[rank] = 0.7 * before + 0.3 * seconds

    def _is_worthwhile(self, rank, now):
        """Would `rank` get one of the remaining points from a scheduler that thinks ahead?

        Such a one always picks the rank that would be the first to finish.
        """
        if self._seconds[rank] is None and self._running[rank]:
            return False  # one point first: it may be slow

        # far from the end there is work for everybody
        seconds = self._expected_seconds()
        rate = sum(1 / max(s, 1e-9) for s in seconds)  # points per second of all ranks
        if self.remaining / rate > (len(self._running[rank]) + 1) * seconds[rank]:
            return True

        # hand out the rest in thought, each point to the rank that would finish it first
        finish = []
        for other in range(len(seconds)):
            end = self._busy_for(other, seconds[other], now) + seconds[other]
            finish.append((end, self.ahead(other), other != rank, seconds[other], other))
        heapq.heapify(finish)
        for _ in range(self.remaining):
            end, held, is_other, per_point, first = finish[0]
            if first == rank:
                return True
            heapq.heapreplace(finish, (end + per_point, held + 1, is_other, per_point, first))
        return False

    def _expected_seconds(self):
        """Seconds per point of each rank; one without a measurement counts as the others' mean."""
        measured = [seconds for seconds in self._seconds if seconds is not None]
        mean = 0.0  # without any measurement all ranks are equal
        if measured:
            mean = float(np.mean(measured))
        return [mean if seconds is None else seconds for seconds in self._seconds]

    def _busy_for(self, rank, seconds, now):
        """How long `rank`, with so many seconds per point, will work on the points that it holds."""
        running = self._running[rank]
        if not running:
            return 0.0
        _, started = running[0]
        return max(0.0, seconds - (now - started)) + seconds * (len(running) - 1)


# ---------------------------------------------------------------- signals


class Interrupted(Exception):
    """A signal asked the job to end; everything computed has been recorded."""

    def __init__(self, name, host):
        super().__init__(f"{name} on {host}")
        self.name = name
        self.code = 128 + SIGNALS[name]


class _LeaveBatch(BaseException):
    """Leaves a batch in the middle; no `except Exception` of a user's network holds it up."""


class _Signals:
    """Within the block a signal is only noted; `check()` raises it, where it can be handled.

    Not in the main thread (a notebook's worker, say) signals are left alone, and so is an alarm that
    the caller has set.
    """

    def __enter__(self):
        self._noted = None  # the name of a signal that has come
        self._old_handlers = {}
        self._has_timer = False
        self._idle = None  # what a tick calls: something while a batch runs, else None
        self._last_idle = 0.0  # when it was called last
        self._error = None  # what it raised within a tick
        try:
            for name, number in SIGNALS.items():
                self._old_handlers[number] = signal.signal(number, self._note(name))
            if signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:
                self._old_handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._tick)
                signal.siginterrupt(signal.SIGALRM, False)  # reading and writing go on after a tick
                self._has_timer = True
        except ValueError:  # not the main thread
            pass
        return self

    def __exit__(self, *_):
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    def _note(self, name):
        def handler(*_):
            self._noted = name

        return handler

    def check(self):
        """Raise Interrupted if a signal has come."""
        if self._noted is not None:
            raise Interrupted(self._noted, socket.gethostname())

    def attend(self, measure, point, idle):
        """measure(point, idle), with idle() called every TICK even if `measure` does not."""
        if not self._has_timer:
            return measure(point, idle)

        def watched_idle():
            """idle(), and no tick within it."""
            self._idle = None
            try:
                idle()
            finally:
                self._last_idle, self._idle = time.monotonic(), watched_idle

        self._last_idle, self._idle = time.monotonic(), watched_idle
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
        try:
            try:
                return measure(point, watched_idle)
            finally:
                self._idle = None
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _LeaveBatch:
            raise self._error from None

    def _tick(self, *_):
        """The timer rings: call idle() unless the batch has done so lately."""
        if self._idle is None or time.monotonic() - self._last_idle < 0.9 * TICK:
            return
        try:
            self._idle()
        except Exception as error:
            self._error = error
            raise _LeaveBatch from None


# ---------------------------------------------------------------- the traffic


def walk(world, levels, measure, record, save):
    """Measure every point of `levels` once, on all ranks of `world`.

    measure(point, idle) -> any picklable value, on every rank; it calls idle() at least every few
                            batches (a batch that takes longer than TICK is interrupted for it)
    record(point, value)    on rank 0, as soon as a result is there
    save()                  on rank 0, often; it decides itself whether it is time to write

    Raises on rank 0: Interrupted after a signal on any rank, whatever `measure` raises, RankFailed
    with the other rank's traceback when another rank fails; all that was reported is recorded by
    then.
    """
    with _Signals() as signals:
        if world.rank == 0:
            _Leader(world, levels, record, save, signals).run(measure)
        else:
            _Follower(world, signals).run(measure)


class _Leader:
    """Rank 0: hands out points, takes in results, and measures points of its own."""

    def __init__(self, world, levels, record, save, signals):
        self.world = world
        self.pool = Pool(levels, world.size)
        self.record, self.save = record, save
        self.signals = signals
        self.others = range(1, world.size)
        self.seconds = {}  # rank -> seconds per point, rather too low than too high
        self.longest_silence = 0.0  # seconds between two calls of serve(), fading
        self.last_served = time.monotonic()

    def run(self, measure):
        """Until every point is recorded."""
        for rank in self.others:
            self.feed(rank, self.last_served)

        while self.pool.remaining or self.pool.taken:
            start = time.monotonic()
            point = self.pool.take(0, start)
            if point is None:  # the others hold the rest, or will get it
                for rank in self.others:
                    self.feed(rank, start)
                self.serve()
                time.sleep(PAUSE)
                continue

            value = self.signals.attend(measure, point, self.serve)
            end = time.monotonic()
            self.record(point, value)
            self.pool.done(0, point, end - start, end)
            self.serve()

        for rank in self.others:
            self.world.send(rank, [])  # nothing more to come

    def feed(self, rank, now):
        """Send `rank` points, as many as it needs until rank 0 will have time again."""
        enough = 2
        if self.seconds.get(rank):
            enough += int(self.longest_silence / self.seconds[rank])
        enough = min(MAX_POINTS_AHEAD, enough)

        points = []
        while self.pool.ahead(rank) < enough:
            point = self.pool.take(rank, now)
            if point is None:
                break
            points.append(point)
        if points:
            self.world.send(rank, points)

    def serve(self):
        """Answer all messages that have arrived, look for signals, and let the disk have its turn."""
        now = time.monotonic()
        self.longest_silence = max(0.9 * self.longest_silence, now - self.last_served)
        self.last_served = now

        while (arrived := self.world.receive()) is not None:
            rank, (kind, content) = arrived
            if kind == "interrupted":
                raise Interrupted(*content)
            if kind == "input":
                raise InputError(content)
            if kind == "failed":
                raise RankFailed(content)
            self.take_in(rank, *content, now)
            self.feed(rank, now)

        self.signals.check()
        self.save()

    def take_in(self, rank, point, value, seconds, now):
        """A result of another rank."""
        # the lower of the last and the mean: a rank must not be left without work because one of its
        # points was held up
        mean = 0.7 * self.seconds.get(rank, seconds) + 0.3 * seconds
        self.seconds[rank] = min(seconds, mean)
        self.record(point, value)
        self.pool.done(rank, point, seconds, now)


class _Follower:
    """Any other rank: measures the points that rank 0 sends."""

    def __init__(self, world, signals):
        self.world = world
        self.signals = signals
        self.queue = deque()  # of points
        self.has_all = False  # rank 0 has no more points for this rank

    def run(self, measure):
        """Until rank 0 has no more points; whatever goes wrong is told rank 0."""
        try:
            while not self.has_all or self.queue:
                self.pull()
                if not self.queue:
                    time.sleep(PAUSE)
                    continue
                start = time.monotonic()
                value = self.signals.attend(measure, self.queue[0], self.pull)
                seconds = time.monotonic() - start
                self.world.send(0, ("result", (self.queue.popleft(), value, seconds)))
        except Interrupted as interrupted:
            self.end_job("interrupted", (interrupted.name, socket.gethostname()))
        except InputError as error:
            self.end_job("input", str(error))
        except Exception:
            host = socket.gethostname()
            trace = traceback.format_exc()
            self.end_job("failed", f"rank {self.world.rank} on {host} failed:\n{trace}")

    def pull(self):
        """Take in the points that have arrived; an empty list says that there are no more."""
        self.signals.check()
        while (arrived := self.world.receive()) is not None:
            _, points = arrived
            self.queue.extend(points)
            if not points:
                self.has_all = True

    def end_job(self, kind, content):
        """Leave it to rank 0 to save and to end the job; if it can't within 5 s, end it."""
        self.world.send(0, (kind, content))
        time.sleep(5)
        self.world.abort(f"rank {self.world.rank}: {content}")
