"""What a precision costs in accuracy: losses at points of a plane against those of the same network in float64.

    python benchmarks/precision.py [--model resnet20 --model_file tests/golden/model_6.t7]       on the CPU
    python benchmarks/precision.py --cuda --model resnet56 --model_file MODEL.t7 --dataset cifar10

At the points (r, 0), (0, r) and (r, r) of a filter-normalized plane, r from 0 to 1, as far as the loss is below 10. The
reference is the network itself, unfolded, in float64. The data are the first --images training images. Images/s is that
of the evaluation at these points, with the batch size that is fastest. Prints a table; the last line is one JSON
document. --output FILE keeps it.
"""

import argparse
import copy
import json
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from machine import hardware  # noqa: E402

from losslandscape.data.datasets import load_dataset  # noqa: E402
from losslandscape.data.splits import Split  # noqa: E402
from losslandscape.files.layouts import Directions  # noqa: E402
from losslandscape.measuring.criteria import crossentropy  # noqa: E402
from losslandscape.measuring.evaluator import Evaluator  # noqa: E402
from losslandscape.networks.loading import load_net  # noqa: E402
from losslandscape.weight_space import WeightPlane, create_random_direction, seed_everything  # noqa: E402

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
RADII = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
POINTS = sorted({point for r in RADII for point in ((r, 0.0), (0.0, r), (r, r))})
LIMIT = 10.0


def random_axis(net):
    return [tensor.numpy() for tensor in create_random_direction(net)]


def losses(net, directions, split, precision, points, batch_size=None):
    """(losses at the points, seconds per point, batch size)."""
    plane = WeightPlane(net, directions)
    evaluator = Evaluator([net], {"train": split}, batch_size=batch_size, precision=precision)
    plane.place(0.0)
    evaluator(["train"])  # warms up, and captures graphs on CUDA

    start = time.perf_counter()
    results = []
    for point in points:
        plane.place(*point)
        results.append(evaluator(["train"])["train_loss"])
    seconds = (time.perf_counter() - start) / len(points)
    return np.array(results), seconds, evaluator.batch_size


def reference(net, directions, split, points):
    """Losses in float64: every weight is placed in float64, and the network is run as it is."""
    exact = copy.deepcopy(net).double()
    origin = [p.detach().clone() for p in exact.parameters()]
    results = []
    for x, y in points:
        with torch.no_grad():
            for p, w, dx, dy in zip(exact.parameters(), origin, directions.x, directions.y, strict=True):
                p.copy_(w + x * torch.from_numpy(dx).to(w) + y * torch.from_numpy(dy).to(w))

            total = 0.0
            for inputs, targets in split.batches(64):
                logits = exact(inputs.to(origin[0]))
                total += crossentropy(logits, targets.to(logits.device)).sum().item()
        results.append(total / len(split))
    return np.array(results)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--model_file", default=str(GOLDEN / "model_6.t7"))
    parser.add_argument("--dataset", default=str(GOLDEN / "data.npz"))
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--output")
    args = parser.parse_args()

    device = torch.device("cuda" if args.cuda else "cpu")
    data = load_dataset(args.dataset, splits=("train",)).train
    split = Split(data.inputs[:args.images], data.targets[:args.images])
    seed_everything()
    net = load_net(args.model, args.model_file).to(device)
    on_cpu = copy.deepcopy(net).cpu()
    directions = Directions(random_axis(on_cpu), random_axis(on_cpu))

    # the points where a loss means something
    exact = reference(net, directions, split, POINTS)
    points = [point for point, loss in zip(POINTS, exact, strict=True) if loss < LIMIT]
    exact = exact[exact < LIMIT]

    rows = []
    print(f"{len(points)} points with losses from {exact.min():.3g} to {exact.max():.3g}, {len(split)} images")
    print(f"{'precision':12}{'batch':>7}{'images/s':>10}{'median rel. error':>19}{'largest':>10}{'at the minimum':>16}")
    precisions = ["fp32", "bf16"]
    if args.cuda:
        precisions.insert(1, "tf32")
    for precision in precisions:
        moved = copy.deepcopy(net).to(memory_format=torch.channels_last)
        results, seconds, batch = losses(moved, directions, split, precision, points)
        errors = np.abs(results - exact) / exact
        row = {
            "precision": precision,
            "batch": batch,
            "images_per_s": len(split) / seconds,
            "median": float(np.median(errors)),
            "largest": float(errors.max()),
            "at_minimum": float(errors[points.index((0.0, 0.0))]),
        }
        rows.append(row)
        print(f"{precision:12}{batch:7}{row['images_per_s']:10.0f}{row['median']:19.1e}"
              f"{row['largest']:10.1e}{row['at_minimum']:16.1e}", flush=True)

    text = json.dumps({"benchmark": "precision", "hardware": hardware(args.cuda), "model": args.model,
                       "images": len(split), "points": points, "losses": exact.tolist(), "rows": rows})
    print(text)
    if args.output:
        Path(args.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
