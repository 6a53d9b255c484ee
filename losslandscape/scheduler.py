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

A rank that stands still (losslandscape/silence.py) is told, and its points are given to the others.
Its results are welcome if they come after all.
"""

import heapq
import signal
import time
from collections import deque

import numpy as np

from losslandscape import interruption
from losslandscape.messages import say
from losslandscape.ranks import RankFailed
from losslandscape.silence import SILENT_SECONDS, Silence

MAX_POINTS_AHEAD = 64
TICK = 1.0  # seconds that the others, the disk and a signal wait at most for a batch
PAUSE = 0.0005  # seconds between two looks for messages where there is nothing else to do
SECONDS_BETWEEN_SIGNS = 5.0  # of life, for those who have nothing else to send
SECONDS_BETWEEN_LOOKS = 1.0  # for ranks that stand still
SECONDS_FOR_SIGNAL = 0.2  # that a signal may be later than what it did to other processes

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
                self._shares.append(_shared(level, size))
        self.remaining = sum(len(level) for level in levels)  # that nobody holds
        self.open = self.remaining  # that have no result

        self._seconds = [None] * size  # per point of each rank, a running mean
        self._running = [deque() for _ in range(size)]  # (point, when it started or will start)

        # ranks that stand still
        self._present = list(range(size))  # all the others
        self._has_result = {}  # of every point that was taken back from one: {point: bool}
        self._returned = set()  # points that were taken back, and that nobody holds now

    def ahead(self, rank):
        """How many points `rank` holds: the one it works on and those after it."""
        return len(self._running[rank])

    def take(self, rank, now):
        """The next point for `rank`.

        None where the others will do the rest sooner, or nothing remains.
        """
        if self.remaining == 0 or rank not in self._present or not self._is_worthwhile(rank, now):
            return None

        point = self._pop(rank)
        while self._has_result.get(point):  # it was taken back, and reported after all
            point = self._pop(rank)

        self._returned.discard(point)
        self._running[rank].append((point, now))
        self.remaining -= 1
        return point

    def _pop(self, rank):
        while not any(self._shares[0]):
            self._shares.pop(0)
        shares = self._shares[0]
        if shares[rank]:
            return shares[rank].popleft()
        return max(shares, key=len).pop()

    def done(self, rank, point, seconds, now):
        """`rank` has reported `point`, which took `seconds`; False where another has done so before."""
        running = self._running[rank]
        if running and running[0][0] == point:
            running.popleft()
            if running:
                running[0] = (running[0][0], now)  # it starts the next one now
            self._learn_speed(rank, seconds)
        elif point not in self._has_result:
            raise RuntimeError(f"rank {rank} reported point {point}, which it does not hold")

        if self._has_result.get(point):
            return False
        if point in self._has_result:
            self._has_result[point] = True
        if point in self._returned:
            self._returned.remove(point)
            self.remaining -= 1
        self.open -= 1
        return True

    def _learn_speed(self, rank, seconds):
        before = self._seconds[rank]
        if before is None:
            self._seconds[rank] = seconds
        else:
            self._seconds[rank] = 0.7 * before + 0.3 * seconds

    # ------------------------------------------------------------ ranks that stand still

    def is_present(self, rank):
        """Does `rank` get points?"""
        return rank in self._present

    def take_back(self, rank):
        """Let the others have the points of `rank`, which stands still."""
        self._present.remove(rank)
        points = [point for point, _ in self._running[rank] if not self._has_result.get(point)]
        self._running[rank].clear()

        self._has_result.update(dict.fromkeys(points, False))
        self._returned.update(points)
        self._shares.insert(0, _shared(points, len(self._running)))
        self.remaining += len(points)

    def welcome_back(self, rank):
        """`rank` goes on, and gets points again."""
        self._present.append(rank)
        self._present.sort()

    # ------------------------------------------------------------ who is to get a point

    def _is_worthwhile(self, rank, now):
        """Would `rank` get one of the remaining points from a scheduler that thinks ahead?

        Such a one always picks the rank that would be the first to finish.
        """
        if self._seconds[rank] is None and self._running[rank]:
            return False  # one point first: it may be slow

        # far from the end there is work for everybody
        seconds = self._expected_seconds()
        rate = sum(1 / max(seconds[other], 1e-9) for other in self._present)  # points per second
        if self.remaining / rate > (len(self._running[rank]) + 1) * seconds[rank]:
            return True

        # hand out the rest in thought, each point to the rank that would finish it first
        finish = []
        for other in self._present:
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


def _shared(points, size):
    """[deque of point numbers], one per rank."""
    return [deque(share.tolist()) for share in split_inds(points, size)]


# ---------------------------------------------------------------- long batches


class _LeaveBatch(BaseException):
    """Leaves a batch in the middle; no `except Exception` of a user's network holds it up."""


class _AllDone(BaseException):
    """Every point has its result: whoever works on one (another was quicker) can stop."""


class _Ticks:
    """A timer that calls idle() within a batch that takes long.

    Not in the main thread (a notebook's worker, say) there is none, and an alarm that the caller has
    set is left alone.
    """

    def __enter__(self):
        self._has_timer = False
        self._idle = None  # what a tick calls: something while a batch runs, else None
        self._last_idle = 0.0  # when it was called last
        self._error = None  # what it raised within a tick
        try:
            if signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:
                signal.signal(signal.SIGALRM, self._tick)
                signal.siginterrupt(signal.SIGALRM, False)  # reading and writing go on after a tick
                self._has_timer = True
        except ValueError:  # not the main thread
            pass
        return self

    def __exit__(self, *_):
        if self._has_timer:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def attend(self, measure, point, idle):
        """measure(point, idle), with idle() called every TICK even if `measure` does not."""
        try:
            if not self._has_timer:
                return measure(point, idle)
            return self._measure_with_timer(measure, point, idle)
        except Exception:
            # a signal to the whole job ends the processes of a data loader, too, which then fails
            time.sleep(SECONDS_FOR_SIGNAL)
            interruption.raise_noted()
            raise

    def _measure_with_timer(self, measure, point, idle):
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

    Raises Interrupted after a signal, and whatever `measure` raises. Where another rank does, rank 0
    raises the like (RankFailed with a traceback) and the others ranks.Ended; on rank 0 all that was
    reported is recorded by then.
    """
    with interruption.postponed(), _Ticks() as ticks:
        if world.rank == 0:
            _Leader(world, levels, record, save, ticks).run(measure)
        else:
            _Follower(world, ticks).run(measure)


class _Leader:
    """Rank 0: hands out points, takes in results, and measures points of its own."""

    def __init__(self, world, levels, record, save, ticks):
        self.world = world
        self.pool = Pool(levels, world.size)
        self.record, self.save = record, save
        self.ticks = ticks
        self.seconds = {}  # rank -> seconds per point, rather too low than too high
        self.longest_silence = 0.0  # seconds between two calls of serve(), fading
        self.last_served = self.last_look = self.last_sign = time.monotonic()
        self.own_point = None  # the one that rank 0 works on
        self.silence = Silence(world.size, self.last_served)
        for rank in world.lost:
            self.pool.take_back(rank)

    def run(self, measure):
        """Until every point is recorded."""
        for rank in self.world.others:
            self.feed(rank, self.last_served)

        while self.pool.open:
            start = time.monotonic()
            point = self.pool.take(0, start)
            if point is None:  # the others hold the rest, or will get it
                for rank in self.world.others:
                    self.feed(rank, start)
                self.serve()
                time.sleep(PAUSE)
                continue
            self.measure(measure, point, start)
            self.serve()

        for rank in self.world.others:
            self.world.send(rank, ("done", None))

    def measure(self, measure, point, start):
        """A point of rank 0's own, and those of the others meanwhile."""
        self.own_point = point
        self.silence.began(0, start)
        try:
            value = self.ticks.attend(measure, point, self.serve)
        except _AllDone:
            return
        finally:
            self.own_point = None

        end = time.monotonic()
        self.silence.reported(0, end - start, end)
        if not self.pool.is_present(0):
            self.pool.welcome_back(0)
        if self.pool.done(0, point, end - start, end):
            self.record(point, value)

    def feed(self, rank, now):
        """Send `rank` points, as many as it needs until rank 0 will have time again."""
        enough = 2
        if self.seconds.get(rank):
            enough += int(self.longest_silence / self.seconds[rank])
        enough = min(MAX_POINTS_AHEAD, enough)
        if self.pool.ahead(rank) == 0:
            self.silence.began(rank, now)

        points = []
        while self.pool.ahead(rank) < enough:
            point = self.pool.take(rank, now)
            if point is None:
                break
            points.append(point)
        if points:
            self.world.send(rank, ("points", points))

    def serve(self):
        """Answer all messages that have arrived, look for signals, and let the disk have its turn."""
        now = time.monotonic()
        away = now - self.last_served
        if away > max(SECONDS_BETWEEN_SIGNS, 3 * self.longest_silence):
            self.silence.pause(away)  # this rank itself was stopped, or worked on a long batch
        self.longest_silence = max(0.9 * self.longest_silence, away)
        self.last_served = now

        while (arrived := self.world.receive()) is not None:
            rank, (kind, content) = arrived
            self.silence.heard(rank, now)
            if kind == "result":
                if not self.pool.is_present(rank):
                    self.welcome_back(rank)
                self.take_in(rank, *content, now)
                self.feed(rank, now)

        interruption.raise_noted()
        if now - self.last_look > SECONDS_BETWEEN_LOOKS:
            self.last_look = now
            self.look_after_others(now)
        self.save()
        if self.own_point is not None and self.pool.open == 0:
            raise _AllDone

    def take_in(self, rank, point, value, seconds, now):
        """A result of another rank."""
        # the lower of the last and the mean: a rank must not be left without work because one of its
        # points was held up
        mean = 0.7 * self.seconds.get(rank, seconds) + 0.3 * seconds
        self.seconds[rank] = min(seconds, mean)
        self.silence.reported(rank, seconds, now)
        if self.pool.done(rank, point, seconds, now):
            self.record(point, value)

    # ------------------------------------------------------------ ranks that stand still

    def look_after_others(self, now):
        """Tell that this rank is alive, and take points from ranks that stand still."""
        if self.world.size == 1:
            return
        if now - self.last_sign > SECONDS_BETWEEN_SIGNS:
            self.last_sign = now
            for rank in range(1, self.world.size):
                self.world.send(rank, ("alive", None))

        self.silence.heard(0, now)
        for rank in [0, *self.world.others]:
            seconds = self.silence.seconds(rank, now, min(SILENT_SECONDS, self.world.patience))
            holds_points = self.pool.ahead(rank) > 0
            if holds_points and self.pool.is_present(rank) and seconds > 0:
                self.take_points_from(rank, seconds, now)
            is_hopeless = self.silence.seconds(rank, now, self.world.patience) > 0
            if rank > 0 and is_hopeless and not self.pool.is_present(rank):
                self.world.give_up(rank, seconds)

    def take_points_from(self, rank, seconds, now):
        usual = ""
        if self.silence.usual(rank) is not None:
            usual = f" (a point takes {self.silence.usual(rank):.2g} s)"
        self.pool.take_back(rank)
        say(f"{self.world.name(rank)} has been silent for {seconds:.0f} s{usual}: "
            "the others take over its points")
        for other in self.world.others:
            self.feed(other, now)

    def welcome_back(self, rank):
        """A rank that stood still has sent a result: it is to forget the points that others have."""
        self.world.take_back(rank)
        self.pool.welcome_back(rank)
        self.world.send(rank, ("forget", None))
        say(f"{self.world.name(rank)} is back")


class _Follower:
    """Any other rank: measures the points that rank 0 sends."""

    def __init__(self, world, ticks):
        self.world = world
        self.ticks = ticks
        self.queue = deque()  # of points
        self.is_over = False  # every point has its result
        self.is_measuring = False
        self.last_sign = self.last_heard = time.monotonic()
        self.has_complained = False

    def run(self, measure):
        """Until rank 0 says that all is done."""
        while True:
            self.pull()
            if self.is_over:
                return
            if not self.queue:
                time.sleep(PAUSE)
                continue

            point = self.queue.popleft()
            start = time.monotonic()
            self.is_measuring = True
            try:
                value = self.ticks.attend(measure, point, self.pull)
            except _AllDone:
                return
            finally:
                self.is_measuring = False
            self.last_sign = time.monotonic()
            self.world.send(0, ("result", (point, value, self.last_sign - start)))

    def pull(self):
        """Take in the messages that have arrived, and give a sign of life."""
        interruption.raise_noted()
        now = time.monotonic()
        while not self.is_over and (arrived := self.world.receive()) is not None:
            _, (kind, points) = arrived
            self.last_heard = now
            if kind == "points":
                self.queue.extend(points)
            elif kind == "forget":
                self.queue.clear()
            elif kind == "done":
                self.is_over = True

        if now - self.last_sign > SECONDS_BETWEEN_SIGNS:
            self.last_sign = now
            self.world.send(0, ("alive", None))
        if self.is_over and self.is_measuring:
            raise _AllDone
        if not self.is_measuring and not self.queue:
            self.watch_leader(now)

    def watch_leader(self, now):
        """Say that rank 0 stands still; with patience, end the job: it alone can write the file."""
        silent = now - self.last_heard
        if silent > self.world.patience + self.world.rank:  # not all at once
            raise RankFailed(
                f"{self.world.name(0)}, which holds the file, has been silent for {silent:.0f} s; "
                "the same command goes on from what is saved")
        if silent > SILENT_SECONDS and self.world.rank == 1 and not self.has_complained:
            self.has_complained = True
            say(f"{self.world.name(0)}, which holds the file, has been silent for {silent:.0f} s: "
                "all wait for it")
