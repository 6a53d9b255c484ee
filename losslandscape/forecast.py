"""How a run will go: the scheduler's pool in thought, with ranks of known speed and no traffic.

    forecast = simulate(levels, [0.5, 0.5, 1.5])     three ranks, one of them three times slower
    forecast.seconds                                 until the last point is done
    forecast.points[rank]                            [point number], in the order of the rank
"""

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np

from losslandscape.scheduler import Pool

MAX_SIMULATED = 400_000  # points times ranks: some 3 s


@dataclass(frozen=True)
class Forecast:
    """Who takes which points, and how long it takes."""

    seconds: float
    points: list  # of each rank: [point number]


def simulate(levels, seconds, ahead=2):
    """Forecast of ranks with these seconds per point.

    levels: lists of point numbers, see scheduler.coarse_to_fine. ahead: how many a rank holds.
    """
    size = len(seconds)
    pool = Pool(levels, size)
    held = [deque() for _ in range(size)]
    points = [[] for _ in range(size)]
    events = []  # heap of (when a point is done, rank)

    def feed(rank, now):
        while pool.ahead(rank) < ahead:
            point = pool.take(rank, now)
            if point is None:
                return
            if not held[rank]:
                heapq.heappush(events, (now + seconds[rank], rank))
            held[rank].append(point)
            points[rank].append(point)

    for rank in range(size):
        feed(rank, 0.0)

    now = 0.0
    while events:
        now, rank = heapq.heappop(events)
        pool.done(rank, held[rank].popleft(), seconds[rank], now)
        if held[rank]:
            heapq.heappush(events, (now + seconds[rank], rank))

        # the rank itself, and those that had been refused a point
        feed(rank, now)
        for other in range(size):
            if pool.remaining > 0 and pool.ahead(other) < ahead:
                feed(other, now)
    return Forecast(now, points)


def forecast_shares(levels, seconds):
    """([number of points of each rank], seconds until the last point is done).

    seconds: per point, of each rank. Simulated; where that would take long, points are shared in
    proportion to the speeds, which is the same up to one point of the slowest rank.
    """
    count = sum(len(level) for level in levels)
    if count * len(seconds) <= MAX_SIMULATED:
        forecast = simulate(levels, seconds)
        return [len(points) for points in forecast.points], forecast.seconds

    speeds = 1 / np.asarray(seconds)
    ends = np.round(count * np.cumsum(speeds) / speeds.sum()).astype(int)
    shares = np.diff(ends, prepend=0).tolist()
    return shares, max(share * s for share, s in zip(shares, seconds, strict=True))
