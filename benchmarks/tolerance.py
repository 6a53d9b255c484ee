"""What an estimated surface costs, and how wrong it is: --tolerance beside the truth on all data, over many draws.

    python benchmarks/tolerance.py --model resnet20 --model_file MODEL.t7 --dataset DATA.npz --points 17 \\
        --matrix LOSSES.npz --json benchmarks/results/NAME.json

The losses of all samples are computed at all points of a plane (and kept in --matrix: hours for a large one). Then the
plan of the program (estimation/survey.py) is carried out on them over and over, with another draw of the samples each
time: what it evaluates as a share of the full surface, without the check at the end; how wrong the estimated points are
(those not computed on all data); the share of them within two standard errors, and that of the worst and the best draw.
Beside them, at the same cost: the first samples of a random order at every point; and a spline of the logarithm through
the coarse lattice, at its own cost.
"""

import argparse
import json
import os
import sys
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch
from machine import hardware
from scipy.interpolate import RectBivariateSpline

from losslandscape import directions, weight_space
from losslandscape.choices import DataChoice, Hardware, NetworkChoice
from losslandscape.estimation.coarse import coarse_points
from losslandscape.estimation.subsets import drawing_order
from losslandscape.estimation.survey import Goal, Population, Survey
from losslandscape.files.grid import Grid, Surface
from losslandscape.measuring.copies import use_memory_format
from losslandscape.measuring.evaluator import Evaluator

KINDS = {"train_loss": "loss", "train_acc": "acc"}


def main():
    args = make_parser().parse_args()
    plane = Plane.read_or_compute(args)
    result = {
        "hardware": hardware(), "model": args.model, "points": args.points, "images": plane.count,
        "draws": args.draws, "losses": [float(plane.losses.min()), float(plane.losses.max())],
        "spline_through_coarse_points": spline(plane), "tolerances": {},
    }  # fmt: skip
    for tolerance in args.tolerances:
        for accuracy in (None, 100.0):
            entry = many_draws(plane, Goal(tolerance, accuracy=accuracy), args.draws)
            name = f"{tolerance:g}" if accuracy is None else f"{tolerance:g}, the loss alone"
            result["tolerances"][name] = entry
            print(name, json.dumps(entry), flush=True)

    print(json.dumps(result, indent=1))
    if args.json:
        with open(args.json, "w") as f:
            json.dump(result, f, indent=1)


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--model_file", default="")
    parser.add_argument("--dataset", default="", help="its training part")
    parser.add_argument("--points", type=int, default=17, help="per axis")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[0.05, 0.02, 0.01, 0.005])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--matrix", default="", help="FILE.npz: losses of all samples, read where it exists")
    parser.add_argument("--json", default="")
    return parser


class Plane:
    """All samples at all points: values {name: (points, N) float32}, means {name: (points,)}, labels (N,)."""

    def __init__(self, points, losses, is_right, labels):
        self.grid = Grid.parse(f"-1:1:{points}", f"-1:1:{points}")
        self.values = {"train_loss": losses, "train_acc": 100.0 * is_right.astype(np.float32)}
        self.means = {name: values.mean(1, dtype=float) for name, values in self.values.items()}
        self.losses, self.count = self.means["train_loss"], losses.shape[1]
        self.classes = np.unique(labels, return_inverse=True)[1]

    @classmethod
    def read_or_compute(cls, args):
        if args.matrix and os.path.exists(args.matrix):
            with np.load(args.matrix) as f:
                return cls(args.points, f["l"], f["a"], f["y"])
        losses, is_right, labels = compute(args)
        if args.matrix:
            np.savez(args.matrix, l=losses, a=is_right, y=labels)
        return cls(args.points, losses, is_right, labels)


def compute(args):
    """(losses (points, N), is it right (points, N), labels (N,)) on filter-normalized directions."""
    data = DataChoice(dataset=args.dataset).load(("train",), Hardware())["train"]
    net = NetworkChoice(model=args.model, model_file=args.model_file).load(quiet=True)
    axes = directions(net)
    net = use_memory_format(net, torch.channels_last)
    plane = weight_space.WeightPlane(net, axes, "weights")
    evaluator = Evaluator([net], {"train": data}, batch_size=128)
    grid = Grid.parse(f"-1:1:{args.points}", f"-1:1:{args.points}")
    losses = np.zeros((grid.size, len(data)), np.float32)
    is_right = np.zeros((grid.size, len(data)), np.uint8)
    start = time.perf_counter()
    for point in range(grid.size):
        plane.place(*grid.point(point))
        evaluator(["train"])
        of_samples = evaluator.of_samples("train")
        losses[point], is_right[point] = of_samples["train_loss"], of_samples["train_acc"] > 0
    print(f"{grid.size} points in {time.perf_counter() - start:.0f} s", flush=True)
    return losses, is_right, data.targets.numpy()


def many_draws(plane, goal, draws):
    """What happens over many draws of the samples."""
    errors, work, shares, samples = [], [], [], []
    within = 0
    plain = []
    for seed in range(draws):
        survey, order = one_draw(plane, goal, 1000 + seed)
        hits, count = 0, 0
        for point in range(plane.grid.size):
            samples.append(survey.count("train", point))
            if survey.is_exact("train", point):
                continue
            estimate, truth = survey.estimates("train", point)["train_loss"], plane.losses[point]
            errors.append(abs(estimate.mean - truth) / truth)
            hits += abs(estimate.mean - truth) <= 2 * estimate.error
            count += 1
        within += hits
        shares.append(hits / max(count, 1))
        work.append(survey.samples_evaluated() / (plane.grid.size * plane.count))
        drawn = order[: int(work[-1] * plane.count)]
        means = plane.values["train_loss"][:, drawn].mean(1, dtype=float)
        plain += (np.abs(means - plane.losses) / plane.losses).tolist()
    return {
        "share_of_work": float(np.mean(work)), "samples_per_point": float(np.mean(samples)),
        "estimated_points_per_draw": len(errors) / draws, **in_percent(errors),
        "within_two_standard_errors": within / max(len(errors), 1),
        "within_in_single_draws": [min(shares), max(shares)],
        "plain_subset_at_this_cost": in_percent(plain),
    }  # fmt: skip


def one_draw(plane, goal, seed):
    """(Survey whose goal is reached, order of its samples)."""
    order = drawing_order(plane.classes, plane.count, seed)
    population = Population("train", plane.count, order, plane.classes[order], KINDS)
    survey = Survey(plane.grid, [population], goal, Surface(plane.grid))
    while tasks := survey.tasks():
        for task in tasks:
            part = order[task.start : task.stop]
            means = {}
            if task.stop == plane.count:
                part = order[: task.keep]
                means = {name: float(plane.means[name][task.point]) for name in KINDS}
            values = {name: plane.values[name][task.point][part] for name in KINDS}
            survey.take_in(task, (means, values if len(part) else {}))
    return survey, order


def spline(plane):
    """Errors of a bicubic spline of the logarithm through the coarse lattice, at the other points."""
    points = np.array(coarse_points(plane.grid.shape))
    rows, columns = (np.unique(numbers) for numbers in np.unravel_index(points, plane.grid.shape))
    values = plane.losses.reshape(plane.grid.shape)
    curve = RectBivariateSpline(
        plane.grid.y[rows], plane.grid.x[columns], np.log(values[np.ix_(rows, columns)]))
    smooth = np.exp(curve(plane.grid.y, plane.grid.x)).ravel()
    others = np.setdiff1d(np.arange(plane.grid.size), points)
    errors = np.abs(smooth - plane.losses)[others] / plane.losses[others]
    return {"share_of_work": len(points) / plane.grid.size, **in_percent(errors)}


def in_percent(errors):
    if len(errors) == 0:
        return {}
    return {
        "median_percent": 100 * float(np.median(errors)), "95_percent": 100 * float(np.quantile(errors, 0.95)),
        "largest_percent": 100 * float(np.max(errors))}  # fmt: skip


if __name__ == "__main__":
    main()
