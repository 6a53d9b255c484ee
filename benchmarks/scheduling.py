"""How well the scheduler shares points, what it costs rank 0, and what other designs would do. Evaluations sleep.

    python benchmarks/scheduling.py [--ranks 64] [--output FILE]

1. `unequal`: 4 ranks, the third 3 times slower (50 and 150 ms per point, 400 points). The ideal time is points / sum of
   the rates that the ranks had (on a busy machine a sleep is longer than asked for); the bound is 5 % and one point of
   the slow rank more.
2. `many`: RANKS ranks, oversubscribed, 100 ms and 40 points each. `overhead`: processor time of rank 0 per point of the
   job, its own sleeping evaluations and its polling included (an upper bound); `answering`: wall time of rank 0 within
   idle() per point, which on a crowded machine holds the time in which others have the core. Rank 0 is saturated when
   the others report one point per `overhead`: R ranks of S seconds per point need R < S / overhead.
3. Designs, in jobs of 4 ranks: as 1, the same with rank 0 as the slow one, and `short`, 5 ms per point and 200 ms on
   rank 0, whose batches take 50 ms; and `busy`, rank 0 computing for 0.25 s in the interpreter, in calls of some
   10 us as kernels are launched, while 3 others report a point every 20 ms: by how much that takes longer than alone
   (medians of about 30 and of 20, before and after).
     between batches   scheduler.py: rank 0 answers within its points; read-ahead grows with its longest silence
     between points    rank 0 answers between its points, read-ahead of one point
     counter           a one-sided fetch-and-add hands out points, results are sent to rank 0
     thread            a thread on rank 0 answers, read-ahead of one point

Prints a table; the last line is one JSON document. --output FILE keeps it.
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


def evaluation(own, batch, rank):
    """measure(point, idle) that takes `own` seconds, in batches of `batch`; and the seconds spent within idle().

    It returns the rank, and how long it took without idle().
    """
    answering = [0.0]

    def measure(point, idle):
        start, already = time.monotonic(), answering[0]
        end = start + own
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(batch, left))
            before = time.monotonic()
            idle()
            answering[0] += time.monotonic() - before
        return rank, time.monotonic() - start - (answering[0] - already)

    return measure, answering


def between_batches(world, points, measure, record):
    from losslandscape import scheduler

    scheduler.walk(world, [range(points)], measure, record, lambda: None)


def between_points(world, points, measure, record):
    from losslandscape import scheduler

    scheduler.MAX_POINTS_AHEAD, scheduler.TICK = 2, 1e6
    silent = measure if world.rank else lambda point, idle: measure(point, lambda: None)
    scheduler.walk(world, [range(points)], silent, record, lambda: None)


def counter(world, points, measure, record):
    import numpy as np
    from mpi4py import MPI

    window = MPI.Win.Allocate(8 if world.rank == 0 else 0, 8, comm=world.comm)
    if world.rank == 0:
        np.frombuffer(window.tomemory(), "i8")[:] = 0
    world.comm.Barrier()
    one, got, recorded = np.ones(1, "i8"), np.zeros(1, "i8"), 0
    window.Lock_all()

    def drain():
        nonlocal recorded
        while world.rank == 0 and (arrived := world.receive()) is not None:
            record(*arrived[1])
            recorded += 1

    while True:
        window.Fetch_and_op(one, got, 0)
        window.Flush(0)
        if got[0] >= points:
            break
        value = measure(int(got[0]), drain)
        if world.rank:
            world.send(0, (int(got[0]), value))
        else:
            record(int(got[0]), value)
            recorded += 1
    while world.rank == 0 and recorded < points:
        drain()
        time.sleep(0.0005)
    window.Unlock_all()
    window.Free()


def service_thread(world, points, measure, record):
    import threading

    from losslandscape import scheduler

    if world.rank:
        scheduler.walk(world, [range(points)], measure, record, lambda: None)
        return
    pool, lock, ended = scheduler.Pool([range(points)], world.size), threading.Lock(), threading.Event()

    def feed(rank):
        some = []
        while pool.ahead(rank) < 2 and (point := pool.take(rank, time.monotonic())) is not None:
            some.append(point)
        if some:
            world.send(rank, some)

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
    while pool.remaining or pool.taken:
        with lock:
            start = time.monotonic()
            point = pool.take(0, start)
        if point is None:
            time.sleep(0.0005)
            continue
        value = measure(point, lambda: None)
        with lock:
            record(point, value)
            pool.done(0, point, time.monotonic() - start, time.monotonic())
    ended.set()
    thread.join()
    for rank in range(1, world.size):
        world.send(rank, [])


DESIGNS = {"between batches": between_batches, "between points": between_points, "counter": counter,
           "thread": service_thread}


def busy(calls):
    """Small calls, as of kernels that are launched: a measure(point, idle), with idle() every 10 ms or so."""
    import numpy as np

    small = np.ones((48, 48), np.float32)

    def measure(point, idle):
        last = time.monotonic()
        for _ in range(calls):
            small @ small
            if time.monotonic() - last > SLICE:
                idle()
                last = time.monotonic()
        return 0, 0.0

    return measure


def rank_main(design, points, seconds, batches):
    """One rank of a job of `points` points, with seconds[rank % len] per point; rank 0 prints what it measured."""
    sys.modules["torch"] = types.ModuleType("torch")  # not needed here, and 64 imports of it would take minutes
    from losslandscape import ranks as mpi4pytorch
    from losslandscape import scheduler  # noqa: F401  here, and not within the time that is measured

    world = mpi4pytorch.connect()
    recorded = []
    measure, answering = evaluation(seconds[world.rank % len(seconds)], batches[world.rank % len(batches)], world.rank)
    alone, longer = [], None

    def time_alone():
        for _ in range(10 if longer is not None else 0):
            start = time.monotonic()
            busy(calls)(0, lambda: None)
            alone.append(time.monotonic() - start)

    if seconds[0] is None and world.rank == 0:
        longer, calls, start = [], 1000, time.monotonic()
        busy(calls)(0, lambda: None)
        calls = int(0.25 * calls / (time.monotonic() - start))
        time_alone()

        def measure(point, idle):
            start = time.monotonic()
            busy(calls)(point, idle)
            longer.append(time.monotonic() - start)
            return 0, longer[-1]

    world.bcast()
    start, used = time.monotonic(), time.process_time()
    DESIGNS[design](world, points, measure, lambda point, found: recorded.append(found))
    if world.rank == 0:
        end = time.monotonic()
        used = time.process_time() - used
        time_alone()
        took = [[seconds for r, seconds in recorded if r == rank] for rank in range(world.size)]
        each = [sum(t) / max(1, len(t)) for t in took]
        ideal = points / sum(1 / s for s in each if s)
        print(json.dumps({
            "ideal_s": ideal, "bound_s": 1.05 * ideal + max(each),
            "seconds": end - start, "overhead_ms": 1e3 * used / points,
            "answering_ms": 1e3 * answering[0] / points,
            "longer": longer and statistics.median(longer) / statistics.median(alone),
            "points_of_ranks": list(map(len, took))}))
    world.bcast()


def job(ranks, points, seconds, design="between batches", batches=(SLICE,)):
    """What rank 0 of an mpirun of this script measured."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["mpirun", "-n", str(ranks), sys.executable, __file__, "--rank",
         json.dumps([design, points, seconds, batches])],
        capture_output=True, text=True, timeout=500, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(done.args)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


JOBS = {  # of 4 ranks: points, seconds per point, seconds per batch
    "unequal": (400, (0.05, 0.05, 0.15, 0.05), (SLICE,)),
    "slow rank 0": (400, (0.15, 0.05, 0.05, 0.05), (SLICE,)),
    "short": (2000, (0.2, 0.005, 0.005, 0.005), (0.05, 0.005, 0.005, 0.005)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--output", help="keep the JSON document here")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        rank_main(*json.loads(args.rank))
        return
    from machine import hardware

    found_on = hardware()
    unequal = job(4, *JOBS["unequal"][:2])
    many = job(args.ranks, args.ranks * 40, (0.1,))
    print(f"{'':10}{'ranks':>6}{'points':>8}{'ideal s':>9}{'bound s':>9}{'took s':>8}"
          f"{'overhead ms':>13}{'answering ms':>14}")
    for name, found in (("unequal", unequal), ("many", many)):
        shares = found["points_of_ranks"]
        print(f"{name:10}{len(shares):6}{sum(shares):8}{found['ideal_s']:9.2f}{found['bound_s']:9.2f}"
              f"{found['seconds']:8.2f}{found['overhead_ms']:13.3f}{found['answering_ms']:14.3f}")
    most = {s: int(1e3 * s / many["overhead_ms"]) for s in (0.1, 1.0, 10.0)}
    print("rank 0 would be saturated by " + ", ".join(f"{r} ranks of {s:g} s per point" for s, r in most.items()))

    print(f"\nseconds (ideal)  {''.join(f'{name:>20}' for name in JOBS)}{'busy takes longer':>20}")
    designs = {}
    for design in DESIGNS:
        found = {name: job(4, points, seconds, design, batches) for name, (points, seconds, batches) in JOBS.items()}
        found["busy"] = job(4, 1200, (None, 0.02, 0.02, 0.02), design)
        cells = "".join(f"{f['seconds']:13.2f} ({f['ideal_s']:.2f})" for name, f in found.items() if name in JOBS)
        print(f"{design:17}{cells}{100 * (found['busy']['longer'] - 1):18.0f} %", flush=True)
        designs[design] = found
    print(flush=True)
    text = json.dumps({"benchmark": "scheduling", "hardware": found_on, "ranks": args.ranks, "unequal": unequal,
                       "many": many, "saturating_ranks": most, "designs": designs})
    print(text)
    if args.output:
        Path(args.output).parent.mkdir(exist_ok=True)
        Path(args.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
