"""How well the scheduler shares points, and what it costs rank 0. The evaluation sleeps: no network, no data.

    python benchmarks/scheduling.py [--ranks 64] [--output FILE]

1. `unequal`: 4 ranks, the third 3 times slower (50 and 150 ms per point, 400 points). The ideal time is points / sum of
   the rates; the bound is 5 % and one point of the slow rank more.
2. `many`: RANKS ranks, oversubscribed, 100 ms and 40 points each. `overhead`: processor time of rank 0 per point of the
   job, its own sleeping evaluations and its polling included (an upper bound); `answering`: wall time of rank 0 within
   idle() per point, which on a crowded machine holds the time in which others have the core.

On paper: rank 0 is saturated when the others report one point per `overhead`, so R ranks of S seconds per point need
R < S / overhead. Prints a table; the last line is one JSON document. --output FILE keeps it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

SLICE = 0.01  # seconds between two calls of idle(), as between two batches


def rank_main(points, seconds):
    """One rank of a job of `points` points, with seconds[rank % len] per point; rank 0 prints what it measured."""
    sys.modules["torch"] = types.ModuleType("torch")  # not needed here, and 64 imports of it would take minutes
    import mpi4pytorch
    import scheduler

    world = mpi4pytorch.connect()
    own = seconds[world.rank % len(seconds)]
    answering, recorded = 0.0, []

    def measure(point, idle):
        nonlocal answering
        end = time.monotonic() + own
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(SLICE, left))
            before = time.monotonic()
            idle()
            answering += time.monotonic() - before
        return world.rank

    world.bcast()
    start, used = time.monotonic(), time.process_time()
    scheduler.walk(world, [range(points)], measure, lambda point, rank: recorded.append(rank), lambda: None)
    if world.rank == 0:
        print(json.dumps({
            "seconds": time.monotonic() - start, "overhead_ms": 1e3 * (time.process_time() - used) / points,
            "answering_ms": 1e3 * answering / points,
            "points_of_ranks": [recorded.count(rank) for rank in range(world.size)]}))
    world.bcast()


def job(ranks, points, seconds):
    """What rank 0 of an mpirun of this script measured."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["mpirun", "-n", str(ranks), sys.executable, __file__, "--rank", json.dumps([points, seconds])],
        capture_output=True, text=True, timeout=500, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(done.args)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


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
    speeds, points = [0.05, 0.05, 0.15, 0.05], 400
    unequal = job(4, points, speeds)
    unequal["ideal_s"] = points / sum(1 / s for s in speeds)
    unequal["bound_s"] = 1.05 * unequal["ideal_s"] + max(speeds)
    each, second = 40, 0.1
    many = job(args.ranks, args.ranks * each, [second])
    many["ideal_s"] = each * second
    print(f"{'':10}{'ranks':>6}{'points':>8}{'ideal s':>9}{'bound s':>9}{'took s':>8}"
          f"{'overhead ms':>13}{'answering ms':>14}")
    for name, ranks, n, found in (("unequal", 4, points, unequal), ("many", args.ranks, args.ranks * each, many)):
        bound = f"{found['bound_s']:9.2f}" if "bound_s" in found else f"{'':9}"
        print(f"{name:10}{ranks:6}{n:8}{found['ideal_s']:9.2f}{bound}{found['seconds']:8.2f}"
              f"{found['overhead_ms']:13.3f}{found['answering_ms']:14.3f}")
    most = {s: int(1e3 * s / many["overhead_ms"]) for s in (0.1, 1.0, 10.0)}
    print("rank 0 would be saturated by " + ", ".join(f"{r} ranks of {s:g} s per point" for s, r in most.items()))
    text = json.dumps({"benchmark": "scheduling", "hardware": found_on, "ranks": args.ranks,
                       "unequal": unequal, "many": many, "saturating_ranks": most})
    print(text)
    if args.output:
        Path(args.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
