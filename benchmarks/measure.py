"""What does a measure cost beside the user's function itself? A bare loop and this program, alternating.

    python benchmarks/measure.py                            one process
    mpirun -n 2 python benchmarks/measure.py                two, which share the points in both cases
    python benchmarks/measure.py --rounds 40 --output benchmarks/results/measure_NAME.json

(a) a bare loop: the network is placed, the function is called, its number is read; ranks take every n-th point
(b) this program: the same within the walk of losslandscape/scheduler.py, with random streams that begin anew, a
    network that is put back, names and numbers that are checked. With --file the results are saved meanwhile, too,
    which takes 1 % of the time by a law of its own (losslandscape/files/store.py)

The functions are of three sizes: a norm of the weights (some milliseconds), the loss of a batch, the norm of its
gradient. A round is a few points of each, in the order a b b a; the number that counts is the median over the rounds of
b / a, with its quartiles, in seconds and, where the machine is busy otherwise, in seconds of the processor. The last
line is one JSON document, with hardware and versions.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from machine import hardware  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from losslandscape import ranks, scheduler  # noqa: E402
from losslandscape.data.datasets import load_dataset  # noqa: E402
from losslandscape.data.splits import Split  # noqa: E402
from losslandscape.files.grid import Grid  # noqa: E402
from losslandscape.files.layouts import Directions  # noqa: E402
from losslandscape.files.store import SurfaceStore  # noqa: E402
from losslandscape.measuring.guard import GuardedPlane  # noqa: E402
from losslandscape.measuring.own_function import UserFunction, context_on  # noqa: E402
from losslandscape.measuring.own_measurement import MeasureEvaluator  # noqa: E402
from losslandscape.networks.models import MODELS  # noqa: E402
from losslandscape.weight_space import WeightPlane, create_random_direction  # noqa: E402


@torch.no_grad()
def weights(net, context):
    return {"value": sum(p.double().square().sum() for p in net.parameters())}


@torch.no_grad()
def loss(net, context):
    [(inputs, targets)] = context.data["train"]
    return {"value": cross_entropy(net(inputs), targets)}


def gradient(net, context):
    [(inputs, targets)] = context.data["train"]
    slopes = torch.autograd.grad(cross_entropy(net(inputs), targets), list(net.parameters()))
    return {"value": sum(slope.square().sum() for slope in slopes).sqrt()}


FUNCTIONS = {"weights": (weights, 50), "loss": (loss, 10), "gradient": (gradient, 6)}  # and points of a block


class Comparison:
    """One function on one network: both ways of measuring the points of a block."""

    def __init__(self, world, name, function, count, args):
        self.world, self.name, self.function = world, name, function
        self.points = list(range(count * world.size))
        self.grid = Grid.parse(f"-1:1:{len(self.points)}")
        train = load_dataset("digits", splits=("train",)).train
        split = Split(train.inputs[:args.images], train.targets[:args.images])

        torch.manual_seed(0)
        net = MODELS[args.model]().eval()
        line = Directions([tensor.numpy() for tensor in create_random_direction(net)])
        self.context = context_on("cpu", {"train": split}, world.rank, batch_size=args.images)
        self.net, self.plane = net, WeightPlane(net, line)
        self.guarded = GuardedPlane(net, self.plane, self.context)
        self.evaluator = MeasureEvaluator(self.guarded, UserFunction("--measure", name, function), ["value"], None, 128)

    def bare(self):
        values = []
        for point in self.points[self.world.rank::self.world.size]:
            self.plane.place(*self.grid.point(point))
            values.append(float(self.function(self.net, self.context)["value"].detach()))
        self.world.meet()
        return values

    def walk(self, store):
        def measure(point, idle):
            self.guarded.place(*self.grid.point(point))
            return self.evaluator(("measure",), idle)

        if self.world.rank == 0:
            scheduler.walk(self.world, [self.points], measure, store.record, store.save)
        else:
            scheduler.walk(self.world, [self.points], measure, None, None)
        self.world.meet()

    def seconds_of_round(self, path):
        """(of the bare loop, of the walk), see `timed`: each twice, in the order a b b a.

        path: of the surface file; '' where the results stay in memory.
        """
        store = Memory()
        if self.world.rank == 0 and path:
            store = SurfaceStore(path, self.grid, ["value"], "", {"created": "now"})
        first, second = timed(self.bare), timed(self.walk, store)
        third, fourth = timed(self.walk, store), timed(self.bare)
        store.close()
        return first + fourth, second + third


class Memory:
    """A surface store that writes nothing."""

    def __init__(self):
        self.values = {}

    def record(self, point, values):
        self.values[point] = values

    def save(self):
        pass

    def close(self):
        pass


def timed(call, *arguments):
    """(seconds, CPU seconds of this process) of a call, as an array."""
    start, cpu = time.perf_counter(), time.process_time()
    call(*arguments)
    return np.array([time.perf_counter() - start, time.process_time() - cpu])


def row_of(comparison, rounds):
    """Quartiles of the ratios over the rounds, and milliseconds of a point."""
    points = 2 * len(comparison.points) / comparison.world.size  # of this rank in a round
    bare, walk = (np.array(seconds) for seconds in zip(*rounds, strict=True))  # (rounds, 2)
    row = {"function": comparison.name, "points": round(points * len(rounds))}
    for i, kind in enumerate(("wall", "cpu")):
        row[kind] = {
            "ratio": np.quantile(walk[:, i] / bare[:, i], (0.25, 0.5, 0.75)).round(4).tolist(),
            "ms_per_point": round(1000 * float(np.median(bare[:, i])) / points, 3),
            "ms_more": round(1000 * float(np.median(walk[:, i] - bare[:, i])) / points, 3),
        }
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--file", action="store_true", help="save the results meanwhile")
    parser.add_argument("--output")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    world = ranks.connect()

    result = {
        "benchmark": "measure", "hardware": hardware(), "model": args.model, "images": args.images,
        "rounds": args.rounds, "ranks": world.size, "threads": args.threads,
        "file": args.file, "rows": []}
    with world.guard(), tempfile.TemporaryDirectory() as folder:
        for name, (function, count) in FUNCTIONS.items():
            comparison = Comparison(world, name, function, count, args)
            comparison.seconds_of_round("")  # warm
            paths = [f"{folder}/{name}_{number}.h5" if args.file else "" for number in range(args.rounds)]
            rounds = [comparison.seconds_of_round(path) for path in paths]
            row = row_of(comparison, rounds)
            result["rows"].append(row)
            if world.rank == 0:
                print(row, flush=True)

    if world.rank == 0:
        document = json.dumps(result)
        if args.output:
            Path(args.output).write_text(document + "\n")
        print(document)


if __name__ == "__main__":
    main()
