"""What an estimated surface costs, and how wrong it is: --tolerance beside the truth on all data.

    python benchmarks/tolerance.py --model resnet20 --model_file MODEL.t7 --dataset DATA.npz --points 25 \\
        --json benchmarks/results/NAME.json

One surface is computed with one tolerance after the other, each going on from the last, as a user would. The truth is
computed on all data at random points that are not of the coarse lattice. Of each tolerance: evaluations of samples, all
stages together, as a share of those of the full surface; seconds of the whole commands; errors at those of the random
points that are estimated (not computed on all data, for the goal or for the audit); and the share of them within two
standard errors, in this one draw of the samples. `redrawn_coverage` is the same over many draws, from the losses of all
samples at the random points and around them. Beside them, at the cost of that tolerance: the first samples of a random
order at every point, and a spline of the logarithm through the coarse lattice (whose cost is its own).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch
from machine import hardware
from scipy.interpolate import RectBivariateSpline

from losslandscape import weight_space
from losslandscape.choices import DataChoice, Hardware, NetworkChoice
from losslandscape.estimation.coarse import coarse_points
from losslandscape.estimation.survey import Goal, Population, Survey
from losslandscape.files.layouts import read_directions, read_surface
from losslandscape.measuring.copies import use_memory_format
from losslandscape.measuring.evaluator import Evaluator

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = ["train_loss", "train_acc"]


def main():
    args = make_parser().parse_args()
    folder = tempfile.mkdtemp(prefix="tolerance")
    stages = [compute(args, folder, tolerance) for tolerance in args.tolerances]
    truth = Truth(args, folder, stages[-1]["surface"])

    result = {
        "hardware": hardware(), "ranks": args.ranks, "model": args.model, "points": args.points,
        "images": truth.population.count, "truth_points": len(truth.points),
        "losses": [float(truth.losses.min()), float(truth.losses.max())],
        "seconds_per_full_point": truth.seconds_per_point,
        "spline": spline(truth, stages[-1]["surface"]), "tolerances": {},
    }  # fmt: skip
    seconds = evaluations = 0
    for stage in stages:
        seconds += stage["seconds"]
        evaluations = stage["surface"].provenance["estimation"]["samples"]
        entry = {"seconds": seconds, "evaluations": evaluations}
        entry["share_of_evaluations"] = evaluations / (args.points**2 * truth.population.count)
        entry |= errors_of(truth, stage["surface"])
        entry["audit"] = stage["surface"].provenance["audit"]["train"]
        entry["plain_subset_at_this_cost"] = plain_subset(truth, evaluations // args.points**2)
        result["tolerances"][str(stage["tolerance"])] = entry
    result["redrawn_coverage"] = truth.redrawn_coverage(args.tolerances, args.draws)

    print(json.dumps(result, indent=1))
    if args.json:
        with open(args.json, "w") as f:
            json.dump(result, f, indent=1)


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--model_file", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--points", type=int, default=25, help="per axis")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[0.05, 0.02, 0.01, 0.005])
    parser.add_argument("--truth", type=int, default=60, help="random points that are computed on all data")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--json", default="")
    return parser


def compute(args, folder, tolerance):
    """Run the command; {tolerance, seconds, surface}."""
    axis = f"-1:1:{args.points}"
    command = [
        sys.executable, os.path.join(ROOT, "plot_surface.py"), "--model", args.model, "--model_file", args.model_file,
        "--dataset", args.dataset, f"--x={axis}", f"--y={axis}", "--xnorm", "filter", "--xignore", "biasbn",
        "--ynorm", "filter", "--yignore", "biasbn", "--batch_size", "128", "--tolerance", str(tolerance),
        "--dir_file", f"{folder}/directions.h5", "--surf_file", f"{folder}/surface.h5"]  # fmt: skip
    if args.ranks > 1:
        command = ["mpirun", "-n", str(args.ranks), *command]
    start, before = time.perf_counter(), cpu_seconds()
    subprocess.run(command, check=True)
    return {
        "tolerance": tolerance, "seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - before,
        "surface": read_surface(f"{folder}/surface.h5")}  # fmt: skip


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Truth:
    """Losses of all samples at random points, and at the coarse points around them."""

    def __init__(self, args, folder, surface):
        data = DataChoice(dataset=args.dataset).load(("train",), Hardware())["train"]
        net = NetworkChoice(model=args.model, model_file=args.model_file).load(quiet=True)
        net = use_memory_format(net, torch.channels_last)
        plane = weight_space.WeightPlane(net, read_directions(f"{folder}/directions.h5"), "weights")
        evaluator = Evaluator([net], {"train": data}, batch_size=128)
        self.grid, self.population = surface.grid, Population.of("train", data, NAMES)
        self.data = data

        coarse = set(coarse_points(self.grid.shape))
        others = [point for point in range(self.grid.size) if point not in coarse]
        self.points = sorted(np.random.default_rng(0).choice(others, args.truth, replace=False).tolist())
        self.samples, self.means = {}, {}
        start = time.perf_counter()
        for point in [*self.points, *sorted(coarse)]:
            plane.place(*self.grid.point(point))
            self.means[point] = evaluator(["train"])
            self.samples[point] = evaluator.of_samples("train")
        self.seconds_per_point = (time.perf_counter() - start) / len(self.means)
        self.losses = np.array([self.means[point]["train_loss"] for point in self.points])

    def redrawn_coverage(self, tolerances, draws):
        """{tolerance: what happens at the points over many draws of the samples}."""
        return {str(tolerance): self._redrawn(tolerance, draws) for tolerance in tolerances}

    def _redrawn(self, tolerance, draws):
        errors, within, samples = [], [], []
        for seed in range(draws):
            survey, order = self._survey(tolerance, seed)
            for point in self.points:
                count = self._estimate(survey, order, point)
                samples.append(count)
                if count == self.population.count:
                    continue
                estimate = survey.estimates("train", point)["train_loss"]
                truth = self.means[point]["train_loss"]
                within.append(abs(estimate.mean - truth) <= 2 * estimate.error)
                errors.append(abs(estimate.mean - truth) / truth)
        return {"draws": draws, "estimates": len(errors), "samples": float(np.mean(samples)),
                "within_two_standard_errors": float(np.mean(within)), **in_percent(errors)}

    def _survey(self, tolerance, seed):
        """(Survey that knows the coarse points, order of its samples) of another draw."""
        from losslandscape.estimation.subsets import drawing_order, strata_of
        from losslandscape.files.grid import Surface

        strata = strata_of(self.data.targets, self.population.count)
        order = drawing_order(strata, self.population.count, seed=1000 + seed)
        kinds = self.population.names
        population = Population("train", self.population.count, order, strata[order], kinds)
        survey = Survey(self.grid, [population], Goal(tolerance), Surface(self.grid))
        for task in survey.tasks():
            values = {name: self.samples[task.point][name][order[:task.keep]] for name in NAMES}
            survey.take_in(task, (self.means[task.point], values))
        return survey, order

    def _estimate(self, survey, order, point):
        """Let a point have what it asks for; how many samples that was."""
        while (task := survey.next_task("train", point)) is not None:
            if task.stop == self.population.count:
                return task.stop
            values = {name: self.samples[point][name][order[task.start:task.stop]] for name in NAMES}
            survey.take_in(task, ({}, values))
        return survey.count("train", point)


def errors_of(truth, surface):
    """Errors of a surface at those of the random points that it has estimated."""
    errors, within = [], []
    for point, loss in zip(truth.points, truth.losses, strict=True):
        if surface.values["samples"].flat[point] == truth.population.count:
            continue
        difference = abs(surface.values["train_loss"].flat[point] - loss)
        errors.append(difference / loss)
        within.append(difference <= 2 * surface.values["train_loss_se"].flat[point])
    return {"estimated": len(errors), "within_two_standard_errors": float(np.mean(within)), **in_percent(errors)}


def plain_subset(truth, count):
    """Errors of the mean of the first samples of a random order."""
    drawn = np.random.default_rng(1).permutation(truth.population.count)[:count]
    errors = []
    for point, loss in zip(truth.points, truth.losses, strict=True):
        errors.append(abs(truth.samples[point]["train_loss"][drawn].mean(dtype=float) - loss) / loss)
    return {"samples": int(count), **in_percent(errors)}


def spline(truth, surface):
    """Errors of a bicubic spline of the logarithm through the coarse lattice."""
    points = np.array(coarse_points(surface.grid.shape))
    rows, columns = (np.unique(numbers) for numbers in np.unravel_index(points, surface.grid.shape))
    values = np.log(surface.values["train_loss"][np.ix_(rows, columns)])
    curve = RectBivariateSpline(surface.grid.y[rows], surface.grid.x[columns], values)
    errors = []
    for point, loss in zip(truth.points, truth.losses, strict=True):
        x, y = surface.grid.point(point)
        errors.append(abs(np.exp(curve(y, x)[0, 0]) - loss) / loss)
    return {"share_of_evaluations": len(points) / surface.grid.size, **in_percent(errors)}


def in_percent(errors):
    if len(errors) == 0:
        return {}
    return {
        "median_percent": 100 * float(np.median(errors)), "95_percent": 100 * float(np.quantile(errors, 0.95)),
        "largest_percent": 100 * float(np.max(errors))}  # fmt: skip


if __name__ == "__main__":
    main()
