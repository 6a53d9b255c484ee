"""The whole command, start-up included: one process, and mpirun -n N, on the same cores.

    python benchmarks/end_to_end.py [--points 61] [--ranks 1 2 4] [--repeats 3] [--model resnet20]

Each run computes a new 1-D surface over the 1500 training digits. `start-up` is the time of the same command for a
single point (point included: an upper bound). `total` compares the rates of the points after start-up with one process
that has all cores; `whole` compares the times of the whole commands. Runs alternate; medians.
Prints a table; the last line is one JSON document. --output FILE keeps it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import torch  # noqa: E402
from machine import hardware  # noqa: E402

from losslandscape.networks.models import MODELS  # noqa: E402


def command(ranks, folder, model, points):
    launcher = ["mpirun", "-n", str(ranks)] if ranks else []
    surface = os.path.join(folder, f"{ranks}_{points}_{time.monotonic_ns()}.h5")
    return [*launcher, sys.executable, str(ROOT / "plot_surface.py"), "--model", model, "--dataset", "digits",
            "--model_file", os.path.join(folder, "model.t7"), f"--x=-1:1:{points}", "--xnorm", "filter",
            "--xignore", "biasbn", "--surf_file", surface, "--batch_size", "64"]


def seconds(ranks, folder, model, points):
    """Wall time of one whole command."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    start = time.perf_counter()
    subprocess.run(command(ranks, folder, model, points), check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=61)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--output")
    args = parser.parse_args()
    runs = [0, *args.ranks]  # 0: without mpirun
    one, all_points = ({ranks: [] for ranks in runs} for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"state_dict": MODELS[args.model]().state_dict()}, os.path.join(folder, "model.t7"))
        for _ in range(args.repeats):
            for ranks in runs:
                one[ranks].append(seconds(ranks, folder, args.model, 1))
                all_points[ranks].append(seconds(ranks, folder, args.model, args.points))
    start_up = {ranks: statistics.median(times) for ranks, times in one.items()}
    whole = {ranks: statistics.median(times) for ranks, times in all_points.items()}
    rate = {ranks: (args.points - 1) / (whole[ranks] - start_up[ranks]) for ranks in runs}
    print(f"{'':22}{'start-up s':>11}{'whole s':>9}{'points/s':>10}{'total':>8}{'whole':>8}")
    for ranks in runs:
        name = f"mpirun -n {ranks}" if ranks else "one process"
        print(f"{name:22}{start_up[ranks]:11.2f}{whole[ranks]:9.2f}{rate[ranks]:10.2f}{rate[ranks] / rate[0]:8.2f}"
              f"{whole[0] / whole[ranks]:8.2f}")
    text = json.dumps({"benchmark": "end_to_end", "hardware": hardware(), "model": args.model, "points": args.points,
                       "images": 1500, "repeats": args.repeats, "start_up_s": one, "whole_s": all_points,
                       "total": {ranks: rate[ranks] / rate[0] for ranks in runs}})
    print(text)
    if args.output:
        Path(args.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
