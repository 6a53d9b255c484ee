"""Which points remain, who takes which, when.

`Pool` is the decision (no MPI in it): equal ranks share every level evenly by `split_inds`; a rank whose share is done
takes from the rank that has most left, and near the end only a rank that would be the first to finish gets a point.
`walk` is the traffic: every rank holds its next points ahead of need and reports results with one small message each.
There is no collective per point.

Rank 0 works too, and answers the others between two *batches* of its own point, not between its points: `measure` calls
`idle()` that often, and the read-ahead grows with rank 0's longest silence. benchmarks/scheduling.py compares designs:
answers between points with one point of read-ahead lose up to a factor of 16 where rank 0 is the slow one. A one-sided
counter and a service thread on rank 0 are as quick as this, within 2 % (and the thread's fight for the interpreter lock
is lost in the noise, 10 %). But the counter knows nothing of speeds and levels, and needs a second way for results; the
thread needs an MPI that threads may call at once, and locks around results, saves and signals. So neither is here.
Where a batch takes longer than TICK, a timer calls idle() within it: the disk and a preemption notice can't wait.
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
MOST_AHEAD = 64
TICK = 1.0  # seconds that the others, the disk and a signal wait at most for a batch


def split_inds(indices, nproc):
    """`nproc` contiguous near-equal slices; the first len(indices) % nproc have one more (9 on 4: 3, 2, 2, 2)."""
    return np.array_split(np.asarray(indices), nproc)


def coarse_to_fine(shape):
    """Levels of point numbers of a (ny, nx) grid: every 2^k-th row and column first, then every 2^(k-1)-th, ...

    Row and column numbers are counted from the middle, so that the centre of the plane and its axes are in the first
    level, which has at least 5 x 5 points (51 x 51: 7 x 7, 2 % of the work). A 1-D grid, shape (nx,), is one level.
    """
    if len(shape) == 1:
        return [np.arange(shape[0])]
    steps = [np.arange(n) - n // 2 for n in shape]
    # the largest power of two that divides both the row's and the column's distance from the middle
    power = np.minimum.outer(*(np.where(s == 0, 1 << 30, s & -s) for s in steps)).ravel()  # (ny * nx,)
    top = 1 << max(0, ((min(shape) - 1) // 4).bit_length() - 1)
    power = np.minimum(power, top)
    return [np.flatnonzero(power == p) for p in sorted(set(power.tolist()), reverse=True)]


class Pool:
    """The points that nobody has taken yet.

    levels: lists of point numbers; a level is handed out before the next. size: number of ranks.
    """

    def __init__(self, levels, size):
        self._shares = [[deque(share.tolist()) for share in split_inds(level, size)] for level in levels if len(level)]
        self._size = size
        self._seconds = [None] * size  # per point, a running mean
        self._running = [deque() for _ in range(size)]  # (point, when it started or will start)
        self.remaining = sum(len(share) for shares in self._shares for share in shares)

    def ahead(self, rank):
        """How many points `rank` holds: the one it works on and those after it."""
        return len(self._running[rank])

    @property
    def taken(self):
        return sum(map(len, self._running))

    def take(self, rank, now):
        """The next point for `rank`, or None where the others will do the rest sooner (or nothing remains)."""
        if not self.remaining or not self._worthwhile(rank, now):
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
        first, _ = self._running[rank].popleft()
        if first != point:
            raise RuntimeError(f"rank {rank} reported point {point}, expected {first}")
        if self._running[rank]:
            self._running[rank][0] = (self._running[rank][0][0], now)  # it starts the next one now
        old = self._seconds[rank]
        self._seconds[rank] = seconds if old is None else 0.7 * old + 0.3 * seconds

    def _worthwhile(self, rank, now):
        """Would `rank` be given one of the remaining points by a scheduler that always picks the first to finish?"""
        if self._seconds[rank] is None and self._running[rank]:
            return False  # one point first: it may be slow
        known = [s for s in self._seconds if s is not None]
        guess = float(np.mean(known)) if known else 0.0  # without any measurement all ranks are equal
        speeds = [s if s is not None else guess for s in self._seconds]
        rate = sum(1 / max(s, 1e-9) for s in speeds)
        if self.remaining / rate > (len(self._running[rank]) + 1) * speeds[rank]:
            return True  # far from the end
        finish = []
        for r, seconds in enumerate(speeds):
            busy = 0.0
            if self._running[r]:
                busy = max(0.0, seconds - (now - self._running[r][0][1])) + seconds * (len(self._running[r]) - 1)
            finish.append((busy + seconds, len(self._running[r]), r != rank, seconds, r))
        heapq.heapify(finish)
        for _ in range(self.remaining):
            at, held, other, seconds, r = finish[0]
            if r == rank:
                return True
            heapq.heapreplace(finish, (at + seconds, held + 1, other, seconds, r))
        return False


class Interrupted(Exception):
    """A signal asked the job to end; everything computed has been recorded."""

    def __init__(self, name, where):
        super().__init__(f"{name} on {where}")
        self.code = 128 + SIGNALS[name]


class _Late(BaseException):
    """Leaves a batch in the middle; no `except Exception` of somebody's network holds it up."""


class _Signals:
    """Within the block a signal is only noted; `check()` raises it as Interrupted where it can be handled."""

    def __enter__(self):
        self.seen = None
        self._old = {}
        try:
            for name, number in SIGNALS.items():
                self._old[number] = signal.signal(number, lambda *_, name=name: setattr(self, "seen", name))
            self._ticks = signal.getsignal(signal.SIGALRM) == signal.SIG_DFL  # else somebody needs it
            if self._ticks:
                self._old[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._tick)
                signal.siginterrupt(signal.SIGALRM, False)  # reading and writing go on after a tick
        except ValueError:  # not the main thread (a notebook's worker, say): leave signals alone
            self._ticks = False
        self._idle = None
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def check(self):
        if self.seen:
            raise Interrupted(self.seen, socket.gethostname())

    def attend(self, measure, point, idle):
        """measure(point, idle), with idle() called every TICK even if `measure` does not."""
        if not self._ticks:
            return measure(point, idle)

        def between():
            """idle(), and no tick within it."""
            self._idle = None
            try:
                idle()
            finally:
                self._called, self._idle = time.monotonic(), between

        self._called, self._idle = time.monotonic(), between
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
        try:
            try:
                return measure(point, between)
            finally:
                self._idle = None
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _Late:
            raise self._error from None

    def _tick(self, *_):
        if self._idle is None or time.monotonic() - self._called < 0.9 * TICK:
            return
        try:
            self._idle()
        except Exception as error:
            self._error = error
            raise _Late from None


def walk(world, levels, measure, record, save):
    """Measure every point of `levels` once, on all ranks of `world`.

    measure(point, idle) -> any picklable value, on every rank; it calls idle() at least every few batches (a batch that
                            takes longer than TICK is interrupted for it)
    record(point, value)    on rank 0, as soon as a result is there
    save()                  on rank 0, often; it decides itself whether it is time to write

    Raises on rank 0: Interrupted after a signal on any rank, whatever `measure` raises, RankFailed with the other
    rank's traceback when another rank fails; all that was reported is recorded by then.
    """
    with _Signals() as signals:
        if world.rank:
            _follow(world, measure, signals)
        else:
            _lead(world, Pool(levels, world.size), measure, record, save, signals)


def _lead(world, pool, measure, record, save, signals):
    workers = range(1, world.size)
    slowest_answer = 0.0  # seconds between two calls of serve(): how far ahead the others must be fed
    last = time.monotonic()
    seconds = {}

    def feed(rank, now):
        per_point = seconds.get(rank)
        enough = 2 if not per_point else min(MOST_AHEAD, 2 + int(slowest_answer / per_point))
        points = []
        while pool.ahead(rank) < enough and (point := pool.take(rank, now)) is not None:
            points.append(point)
        if points:
            world.send(rank, points)

    def serve():
        nonlocal slowest_answer, last
        now = time.monotonic()
        slowest_answer = max(0.9 * slowest_answer, now - last)
        last = now
        while (arrived := world.receive()) is not None:
            rank, (kind, content) = arrived
            if kind == "result":
                point, value, took = content
                # the lower of the last and the mean: a point that was held up must not leave the rank without work
                seconds[rank] = min(took, 0.7 * seconds.get(rank, took) + 0.3 * took)
                record(point, value)
                pool.done(rank, point, took, now)
            elif kind == "interrupted":
                raise Interrupted(*content)
            else:
                raise (InputError if kind == "input" else RankFailed)(content)
            feed(rank, now)
        signals.check()
        save()

    for rank in workers:
        feed(rank, last)
    while pool.remaining or pool.taken:
        now = time.monotonic()
        point = pool.take(0, now)
        if point is None:  # the others hold or will get the rest
            for rank in workers:
                feed(rank, now)
            serve()
            time.sleep(0.0005)
            continue
        value = signals.attend(measure, point, serve)
        end = time.monotonic()
        record(point, value)
        pool.done(0, point, end - now, end)
        serve()
    for rank in workers:
        world.send(rank, [])


def _follow(world, measure, signals):
    queue = deque()
    ended = False

    def pull():
        nonlocal ended
        signals.check()
        while (arrived := world.receive()) is not None:
            queue.extend(arrived[1])
            ended = ended or not arrived[1]

    try:
        while not ended or queue:
            pull()
            if not queue:
                time.sleep(0.0005)
                continue
            start = time.monotonic()
            value = signals.attend(measure, queue[0], pull)
            world.send(0, ("result", (queue.popleft(), value, time.monotonic() - start)))
    except Interrupted as interrupted:
        _tell(world, "interrupted", (str(interrupted).split(" on ")[0], socket.gethostname()))
    except InputError as error:
        _tell(world, "input", str(error))
    except Exception:
        _tell(world, "failed", f"rank {world.rank} on {socket.gethostname()} failed:\n{traceback.format_exc()}")


def _tell(world, kind, content):
    """Leave it to rank 0 to save and to end the job; if rank 0 can't within 5 s, the caller's world ends it."""
    world.send(0, (kind, content))
    time.sleep(5)
    world.abort(f"rank {world.rank}: {content}")
