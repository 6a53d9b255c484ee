"""How well the scheduler shares points, what it costs rank 0, and what other designs would do.

    python benchmarks/scheduling.py [--ranks 64] [--output FILE]

Evaluations sleep.

1. `unequal`: 4 ranks, the third 3 times slower (50 and 150 ms per point, 400 points). The ideal time
   is points / sum of the rates that the ranks had (on a busy machine a sleep is longer than asked
   for); the bound is 5 % and one point of the slow rank more.
2. `many`: RANKS ranks, oversubscribed, 100 ms and 40 points each. `overhead`: processor time of
   rank 0 per point of the job, its own sleeping evaluations and its polling included (an upper
   bound); `answering`: wall time of rank 0 within idle() per point, which on a crowded machine holds
   the time in which others have the core. Rank 0 is saturated when the others report one point per
   `overhead`: R ranks of S seconds per point need R < S / overhead.
3. Designs, in jobs of 4 ranks: as 1, the same with rank 0 as the slow one, and `short`, 5 ms per
   point and 200 ms on rank 0, whose batches take 50 ms; and `busy`, rank 0 computing for 0.25 s in
   the interpreter, in calls of some 10 us as kernels are launched, while 3 others report a point
   every 20 ms: by how much that takes longer than alone (medians of about 30 and of 20, before and
   after).
     between batches   ours: rank 0 answers within its points; read-ahead grows with its silence
     between points    rank 0 answers between its points, read-ahead of one point
     counter           a one-sided fetch-and-add hands out points, results are sent to rank 0
     thread            a thread on rank 0 answers, read-ahead of one point

Prints a table; the last line is one JSON document. --output FILE writes it to a file, too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

SLICE = 0.01  # seconds between two calls of idle(), as between two batches
BUSY_SECONDS = 0.25  # of a point of the job `busy` on rank 0
CALLS_TO_CALIBRATE = 1000

# jobs of 4 ranks: points, seconds per point of each rank, seconds per batch
JOBS = {
    "unequal": (400, (0.05, 0.05, 0.15, 0.05), (SLICE,)),
    "slow rank 0": (400, (0.15, 0.05, 0.05, 0.05), (SLICE,)),
    "short": (2000, (0.2, 0.005, 0.005, 0.005), (0.05, 0.005, 0.005, 0.005)),
}
BUSY_JOB = (1200, (None, 0.02, 0.02, 0.02))  # None: rank 0 computes

# ---------------------------------------------------------------- evaluations


class SleepingEvaluation:
    """measure(point, idle) that takes some seconds, in batches, and returns (rank, seconds).

    The seconds that it returns are without those within idle(), which add up in `answering`.
    """

    def __init__(self, rank, seconds, batch):
        self.rank, self.seconds, self.batch = rank, seconds, batch
        self.answering = 0.0

    def __call__(self, point, idle):
        start, answered_before = time.monotonic(), self.answering
        end = start + self.seconds
        while True:
            left = end - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(self.batch, left))
            before = time.monotonic()
            idle()
            self.answering += time.monotonic() - before
        return self.rank, time.monotonic() - start - (self.answering - answered_before)


class BusyEvaluation:
    """Small calls, as of kernels that are launched: some BUSY_SECONDS, with idle() every 10 ms or so.

    `seconds` holds how long each point took.
    """

    answering = 0.0

    def __init__(self):
        import numpy as np

        self.operand = np.ones((48, 48), np.float32)
        self.calls = CALLS_TO_CALIBRATE
        self.seconds = []
        self(0, lambda: None)
        self.calls = int(BUSY_SECONDS * CALLS_TO_CALIBRATE / self.seconds.pop())

    def __call__(self, point, idle):
        start = last = time.monotonic()
        for _ in range(self.calls):
            self.operand @ self.operand
            if time.monotonic() - last > SLICE:
                idle()
                last = time.monotonic()
        self.seconds.append(time.monotonic() - start)
        return 0, self.seconds[-1]

    def alone(self, count=10):
        """Seconds of some points while nobody wants an answer."""
        shared, self.seconds = self.seconds, []
        for _ in range(count):
            self(0, lambda: None)
        alone, self.seconds = self.seconds, shared
        return alone


# ---------------------------------------------------------------- designs


def between_batches(world, points, measure, record):
    from losslandscape.scheduler import walk

    walk(world, [range(points)], measure, record, lambda: None)


def between_points(world, points, measure, record):
    from losslandscape import scheduler

    scheduler.MAX_POINTS_AHEAD, scheduler.TICK = 2, 1e6

    def silent(point, idle):
        return measure(point, lambda: None)

    if world.rank > 0:
        silent = measure
    scheduler.walk(world, [range(points)], silent, record, lambda: None)


def counter(world, points, measure, record):
    import numpy as np
    from mpi4py import MPI

    # one number on rank 0: the next point
    window = MPI.Win.Allocate(8 if world.rank == 0 else 0, 8, comm=world.comm)
    if world.rank == 0:
        np.frombuffer(window.tomemory(), "i8")[:] = 0
    world.comm.Barrier()
    one, number = np.ones(1, "i8"), np.zeros(1, "i8")
    recorded = 0
    window.Lock_all()

    def drain():
        nonlocal recorded
        while world.rank == 0 and (arrived := world.receive()) is not None:
            record(*arrived[1])
            recorded += 1

    while True:
        window.Fetch_and_op(one, number, 0)
        window.Flush(0)
        point = int(number[0])
        if point >= points:
            break
        value = measure(point, drain)
        if world.rank > 0:
            world.send(0, (point, value))
        else:
            record(point, value)
            recorded += 1

    while world.rank == 0 and recorded < points:
        drain()
        time.sleep(0.0005)
    window.Unlock_all()
    window.Free()


def service_thread(world, points, measure, record):
    import threading

    from losslandscape.scheduler import Pool, walk

    if world.rank > 0:
        walk(world, [range(points)], measure, record, lambda: None)
        return

    pool = Pool([range(points)], world.size)
    lock, ended = threading.Lock(), threading.Event()

    def feed(rank):
        batch = []
        while pool.ahead(rank) < 2:
            point = pool.take(rank, time.monotonic())
            if point is None:
                break
            batch.append(point)
        if batch:
            world.send(rank, batch)

    def serve():
        while not ended.is_set():
            with lock:
                while (arrived := world.receive()) is not None:
                    rank, (_, (point, value, seconds)) = arrived
                    record(point, value)
                    pool.done(rank, point, seconds, time.monotonic())
                for rank in range(1, world.size):
                    feed(rank)
            time.sleep(0.0005)

    thread = threading.Thread(target=serve)
    thread.start()
    while pool.open:
        with lock:
            start = time.monotonic()
            point = pool.take(0, start)
        if point is None:
            time.sleep(0.0005)
            continue
        value = measure(point, lambda: None)
        with lock:
            record(point, value)
            end = time.monotonic()
            pool.done(0, point, end - start, end)
    ended.set()
    thread.join()
    for rank in range(1, world.size):
        world.send(rank, [])


DESIGNS = {
    "between batches": between_batches,
    "between points": between_points,
    "counter": counter,
    "thread": service_thread,
}

# ---------------------------------------------------------------- one job


def rank_main(design, points, seconds, batches):
    """One rank of a job of `points` points; rank 0 prints what it measured as JSON.

    seconds, batches: of rank r the element r % len.
    """
    # not needed by the scheduler, and 64 imports of it would take minutes
    sys.modules["torch"] = types.ModuleType("torch")
    from losslandscape import scheduler  # noqa: F401  not within the time that is measured
    from losslandscape.ranks import connect

    world = connect()
    results = []  # (rank, seconds) of each point
    is_busy = seconds[0] is None and world.rank == 0
    alone = []
    if is_busy:
        measure = BusyEvaluation()
        alone += measure.alone()
    else:
        own_seconds = seconds[world.rank % len(seconds)]
        measure = SleepingEvaluation(world.rank, own_seconds, batches[world.rank % len(batches)])

    def record(point, result):
        results.append(result)

    world.bcast()
    start, cpu_start = time.monotonic(), time.process_time()
    DESIGNS[design](world, points, measure, record)
    elapsed, cpu_seconds = time.monotonic() - start, time.process_time() - cpu_start

    if world.rank == 0:
        report = summary(results, world.size, elapsed)
        report["overhead_ms"] = 1e3 * cpu_seconds / points
        report["answering_ms"] = 1e3 * measure.answering / points
        report["longer"] = None
        if is_busy:
            alone += measure.alone()
            report["longer"] = statistics.median(measure.seconds) / statistics.median(alone)
        print(json.dumps(report))
    world.bcast()


def summary(results, size, elapsed):
    """What the (rank, seconds) of all points say about the sharing."""
    per_point = []
    counts = []
    for rank in range(size):
        of_rank = [seconds for other, seconds in results if other == rank]
        counts.append(len(of_rank))
        per_point.append(sum(of_rank) / max(1, len(of_rank)))
    ideal = len(results) / sum(1 / seconds for seconds in per_point if seconds > 0)
    return {
        "ideal_s": ideal,
        "bound_s": 1.05 * ideal + max(per_point),
        "seconds": elapsed,
        "points_of_ranks": counts,
    }


def job(ranks, points, seconds, design="between batches", batches=(SLICE,)):
    """What rank 0 of an mpirun of this script measured."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    arguments = json.dumps([design, points, seconds, batches])
    done = subprocess.run(
        ["mpirun", "-n", str(ranks), sys.executable, __file__, "--rank", arguments],
        capture_output=True, text=True, timeout=500,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(done.args)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------- all jobs


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--output", help="write the JSON document there")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        rank_main(*json.loads(args.rank))
        return

    from machine import hardware

    document = {"benchmark": "scheduling", "hardware": hardware(), "ranks": args.ranks}
    document |= measure_sharing(args.ranks)
    print()
    document["designs"] = measure_designs()

    text = json.dumps(document)
    print(f"\n{text}")
    if args.output:
        Path(args.output).parent.mkdir(exist_ok=True)
        Path(args.output).write_text(text + "\n")


def measure_sharing(ranks):
    """Jobs 1 and 2: prints a table; their results."""
    unequal = job(4, *JOBS["unequal"][:2])
    many = job(ranks, ranks * 40, (0.1,))
    print(f"{'':10}{'ranks':>6}{'points':>8}{'ideal s':>9}{'bound s':>9}{'took s':>8}"
          f"{'overhead ms':>13}{'answering ms':>14}")
    for name, result in (("unequal", unequal), ("many", many)):
        shares = result["points_of_ranks"]
        print(f"{name:10}{len(shares):6}{sum(shares):8}{result['ideal_s']:9.2f}"
              f"{result['bound_s']:9.2f}{result['seconds']:8.2f}{result['overhead_ms']:13.3f}"
              f"{result['answering_ms']:14.3f}")

    saturating = {s: int(1e3 * s / many["overhead_ms"]) for s in (0.1, 1.0, 10.0)}
    limits = [f"{count} ranks of {s:g} s per point" for s, count in saturating.items()]
    print(f"rank 0 would be saturated by {', '.join(limits)}")
    return {"unequal": unequal, "many": many, "saturating_ranks": saturating}


def measure_designs():
    """Jobs 3: prints a table; {design: {job: result}}."""
    heading = "".join(f"{name:>20}" for name in JOBS)
    print(f"seconds (ideal)  {heading}{'busy takes longer':>20}")
    designs = {}
    for design in DESIGNS:
        results = {}
        cells = []
        for name, (points, seconds, batches) in JOBS.items():
            result = results[name] = job(4, points, seconds, design, batches)
            cells.append(f"{result['seconds']:13.2f} ({result['ideal_s']:.2f})")
        results["busy"] = job(4, *BUSY_JOB, design)
        longer = 100 * (results["busy"]["longer"] - 1)
        print(f"{design:17}{''.join(cells)}{longer:18.0f} %", flush=True)
        designs[design] = results
    return designs


if __name__ == "__main__":
    main()
