"""Is my plot right? What `plot_surface.py --check` says before hours are spent: in words, and with what to do.

Every check yields (verdict, words): "ok", "note" for what to know, "look" for what makes a picture misleading. A
minute at most: where the data are many, all but the loss at the centre is measured on the first ones.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from losslandscape.data.splits import samples_in, to_device
from losslandscape.estimation.probes import share_for
from losslandscape.estimation.surface import reason_against_samples
from losslandscape.measuring.criteria import OWN_LOSS_NAME
from losslandscape.measuring.devices import dtype_of
from losslandscape.measuring.evaluator import norms_of
from losslandscape.measuring.measurement import LossMeasurement
from losslandscape.measuring.noise import begin_streams, undisturbed
from losslandscape.measuring.outputs import call_network, full_precision, own_loss_in
from losslandscape.measuring.own_loss import target_argument

PART_SECONDS = 0.25  # of one evaluation on the part of the data that the checks take
FULL_CENTRE_SECONDS = 20.0  # of the evaluation on all data, beyond which the centre too is measured on the part
COARSE_POINTS = {1: 13, 2: 7}  # per axis of the coarse picture, by the number of dimensions
USUAL_TOLERANCE = 0.01  # whose cost is told where none was asked for
WARM_UP_SAMPLES = 64
PLAIN_SAMPLES = 256  # that are evaluated without any of our means, at most
# how far that may be away, relative to the loss, by the precision of the evaluation
PLAIN_TOLERANCES = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2}


@dataclass(frozen=True)
class Subject:
    """What is checked. build(data) -> evaluator of `net`, which `plane` moves."""

    net: torch.nn.Module
    plane: object  # WeightPlane
    build: Callable
    data: dict  # {split: Split or Batches}
    grid: object
    info: dict  # what the checkpoint recorded: epoch, accuracy, ...
    recipe: object  # how the directions are made
    points: int  # of the full run, all repeats together
    ranks: int
    vmax: float  # the highest contour of the picture
    measurement: object  # LossMeasurement, fitted to network and data
    precision: str = "fp32"  # a key of PLAIN_TOLERANCES
    tolerance: float | None = None  # as asked for; None where it was not


@dataclass(frozen=True)
class DataPart:
    """As many of the first samples as are evaluated in PART_SECONDS."""

    data: dict
    evaluator: object
    seconds_per_sample: float


def all_checks(subject):
    """Yield (verdict, words) of all checks."""
    yield from check_network(subject.net, subject.measurement.fit)
    yield from check_normalization(subject.recipe)
    yield from loss_in_words(subject.measurement)
    part = choose_part(subject)
    yield from check_plainly(subject)
    yield from check_centre(subject, part)
    yield from check_range(subject, part)
    yield from check_step(subject, part)
    yield estimate_cost(subject, part.seconds_per_sample)
    yield from cost_of_tolerance(subject, part)


def print_report(subject):
    """Print the report; returns the number of things to look at."""
    return print_findings(all_checks(subject))


def print_findings(findings):
    """Print (verdict, words) one by one, and a summary; returns the number of things to look at."""
    worries = 0
    for verdict, words in findings:
        print(f"{verdict:5} {words}", flush=True)
        worries += verdict == "look"

    if worries == 0:
        print("nothing speaks against this plot")
    else:
        things = "thing" if worries == 1 else "things"
        print(f"{worries} {things} to look at before you compute the surface")
    return worries


# ---------------------------------------------------------------- network and directions


def check_network(net, fit):
    """Does the network repeat itself, and has its batch norm seen data?"""
    training = [name or "the network" for name, module in net.named_modules() if module.training]
    if training:
        yield "look", f"{training[0]} is in train mode: dropout and batch norm change the loss from pass to pass"
    elif fit.noise_seed is None:
        yield "ok", "the network is in eval mode, and network, loss and metric repeat themselves"
    else:
        yield "ok", f"what draws random numbers draws the same ones at every point (--noise_seed {fit.noise_seed})"

    norms = norms_of(net)
    untrained = [norm for norm in norms if (norm.running_mean == 0).all() and (norm.running_var == 1).all()]
    if untrained:
        yield "look", (
            f"{len(untrained)} of {len(norms)} batch norms have the statistics of a new network (mean 0, variance 1): "
            "is this the trained checkpoint? --bn recalibrate computes them from the data")
    elif norms:
        yield "ok", f"{len(norms)} batch norms with statistics from training"


def check_normalization(recipe):
    """Are random directions scaled to the weights?"""
    for letter, axis in (("x", recipe.x), ("y", recipe.y)):
        if axis is None or axis.model_file:
            continue
        if axis.norm in ("filter", "layer"):
            yield "ok", f"{letter} direction with --{letter}norm {axis.norm}"
        else:
            yield "look", (
                f"the {letter} direction is random and not scaled to the weights: give --{letter}norm filter, or the "
                "picture says little (Li et al. 2018, section 4)")
        if axis.ignore != "biasbn" and axis.norm:
            yield "note", (
                f"biases and batch norm move along themselves on the {letter} axis; the paper's pictures have "
                f"--{letter}ignore biasbn")


# ---------------------------------------------------------------- measured on a part of the data


def choose_part(subject):
    """DataPart of about PART_SECONDS, timed at the centre."""
    subject.plane.place(0.0)
    names = list(subject.data)
    few = first_samples(subject.data, WARM_UP_SAMPLES)
    evaluator = subject.build(few)
    evaluator(names)  # warms up

    start = time.perf_counter()
    evaluator(names)
    seconds_per_sample = (time.perf_counter() - start) / number_of_samples(few)

    count = max(WARM_UP_SAMPLES, int(PART_SECONDS / seconds_per_sample / len(names)))
    data = first_samples(subject.data, count)
    return DataPart(data, subject.build(data), seconds_per_sample)


# ---------------------------------------------------------------- the loss


def loss_in_words(measurement):
    """What the loss is, and what it depends on."""
    fit = measurement.fit
    words = f"the loss is {measurement.loss_name}"
    if fit.loss.name == OWN_LOSS_NAME:
        words = "the loss is the network's own"
    if fit.loss.formula:
        words += f": {fit.loss.formula}"
    if not fit.batches:
        yield "ok", f"{words}; it does not depend on the batch size"
    else:
        yield "note", f"{words}; it depends on the batches: {fit.batches}"
    if fit.metric is not None and fit.metric.formula:
        yield "note", f"{fit.metric.name}: {fit.metric.formula}"
    for remark in fit.remarks:
        yield "note", remark


@torch.no_grad()
def check_plainly(subject):
    """Is the loss of a few samples what the network gives for them by itself, unfolded and in one pass?

    Where the network computes a loss of its own, is it that one?
    """
    subject.plane.place(0.0)
    fit, tolerance = subject.measurement.fit, PLAIN_TOLERANCES[subject.precision]
    for name, split in first_samples(subject.data, PLAIN_SAMPLES).items():
        evaluated = subject.build({name: split})([name])[f"{name}_loss"]
        plain, own = plain_losses(subject.net, split, fit)
        beside = f"the loss of {len(split)} {name} samples: {evaluated:.7g}"

        others = [("the network as it is, in one pass", plain)]
        if own is not None:
            others.append(("the network's own loss", own))
        for words, other in others:
            if not math.isfinite(other) or abs(evaluated - other) <= tolerance * max(abs(other), 1e-6):
                yield "ok", f"{beside}; {words}: {other:.7g}"
            else:
                yield "look", f"{beside}; {words}: {other:.7g}; they should be the same"


def plain_losses(net, split, fit):
    """(loss by the network as it is, mean of its own losses or None) over a few samples.

    All samples in one batch, except where the results depend on the batches.
    """
    device, dtype = next(net.parameters()).device, dtype_of(net)

    def ready(tensor):
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    batch_size = fit.batch_size or len(split)
    sums, weights, own_losses = [], [], []
    with undisturbed([device]):
        if fit.noise_seed is not None:
            begin_streams(fit.noise_seed)
        for inputs, targets in split.batches(batch_size):
            inputs, targets = to_device(inputs, device, ready), to_device(targets, device)
            output = call_network(net, inputs, targets, fit.loss.targets_as)
            if isinstance(output, torch.Tensor):
                output = full_precision(output)
            sums.append(float(fit.loss.sums(output, targets, net).double().sum()))
            of_samples = fit.loss.weights(targets)
            weights.append(samples_in(targets) if of_samples is None else float(of_samples.double().sum()))
            if fit.loss.name == OWN_LOSS_NAME:
                own_losses.append(own_loss_of(net, split, inputs, targets))

    # that of several batches is another mean
    own = own_losses[0] if len(own_losses) == 1 else None
    return sum(sums) / sum(weights), own


def own_loss_of(net, split, inputs, targets):
    """The loss that the network itself computes of a batch."""
    argument = target_argument(net, split.target_name, inputs)
    return float(own_loss_in(call_network(net, inputs, targets, argument)))


def tolerance_name(precision):
    """The key of PLAIN_TOLERANCES of a precision as it is recorded."""
    if precision in PLAIN_TOLERANCES:
        return precision
    return "tf32"  # torch's default on CUDA


# ---------------------------------------------------------------- the data


def number_of_samples(data):
    return sum(len(split) for split in data.values())


def first_samples(data, count):
    """The first `count` samples of every split (whole batches, where it comes in batches)."""
    part = {}
    for name, split in data.items():
        part[name] = split.first(count)
    return part


def loss_of(evaluator, names):
    """The loss that the picture is of: the first split's."""
    return evaluator(names)[f"{names[0]}_loss"]


def check_centre(subject, part):
    """The loss at the centre beside what the checkpoint recorded."""
    total = number_of_samples(subject.data)
    all_data = part.seconds_per_sample * total < FULL_CENTRE_SECONDS
    subject.plane.place(0.0)
    evaluator = part.evaluator
    on = f" on the first {number_of_samples(part.data)} of {total} samples"
    if all_data:
        evaluator = subject.build(subject.data)
        on = ""

    results = evaluator(list(subject.data))
    if not all(map(math.isfinite, results.values())):
        yield "look", f"at the centre{on}: {numbers_in_words(results)}; the network does not work on these data"
        return

    recorded = comparable_results(subject.info, results)
    if not recorded:
        yield "note", (
            f"at the centre{on}: {numbers_in_words(results)}; the checkpoint recorded none of these to compare with")
        return

    # a part of the data has a loss of its own
    tolerance = 1e-3 if all_data else 0.3
    differs = any(abs(results[name] - value) > tolerance * max(abs(value), 1.0) for name, value in recorded.items())
    beside = ", ".join(f"{name} {results[name]:.6g} (recorded: {value:.6g})" for name, value in recorded.items())
    if differs:
        yield "look", (
            f"at the centre{on}: {beside}; other data, another normalization (--raw_data), another loss or another "
            "network than in training?")
    else:
        yield "ok", f"at the centre{on}: {beside}"


def numbers_in_words(results):
    return ", ".join(f"{name} {number:.6g}" for name, number in results.items())


def comparable_results(info, results):
    """{name: number} of what a checkpoint recorded under the names of the results; its `acc` is the test accuracy."""
    recorded = {}
    for name, value in info.items():
        if isinstance(value, int | float) and name in results:
            recorded[name] = float(value)
    accuracy = info.get("acc")
    if isinstance(accuracy, int | float) and "test_acc" in results:
        recorded.setdefault("test_acc", float(accuracy))
    return recorded


def check_range(subject, part):
    """How much of the picture is above the highest contour, and a range that would show more."""
    losses, radii, size = coarse_picture(subject, part)
    axes = axes_of(subject.grid)
    flags = " and ".join(f"--{letter}" for letter in "xy"[:len(axes)])

    above = ~(losses <= subject.vmax)  # NaN is above, too
    summary = f"{100 * above.mean():.0f} % of a coarse picture ({size} points) is above {subject.vmax:g}"
    if above.mean() > 0.5:
        smallest_radius = radii[above].min()
        if smallest_radius <= 0:
            smallest_radius = 1.0
        limit = largest_coordinate(axes[0]) * smallest_radius
        yield "look", (
            f"{summary}: the valley is small in it; try {flags} within about {limit:.2g} of 0, or --log")
        return

    centre = losses[radii.argmin()]
    if np.isfinite(losses).all() and losses.max() - losses.min() < 0.05 * max(abs(centre), 1e-3):
        yield "look", (
            f"the loss hardly changes in this range ({losses.min():.4g} to {losses.max():.4g}): widen {flags}, or "
            "check that the directions are not zero")
        return
    yield "ok", f"{summary}; losses from {np.nanmin(losses):.4g} to {np.nanmax(losses):.4g}"


def axes_of(grid):
    """[x] or [x, y] coordinates."""
    if grid.y is None:
        return [grid.x]
    return [grid.x, grid.y]


def largest_coordinate(axis):
    return max(abs(axis[0]), abs(axis[-1]))


def coarse_picture(subject, part):
    """(losses (n,), their distances from the centre as shares of the largest coordinates (n,), 'nx x ny')."""
    axes = axes_of(subject.grid)
    names = list(part.data)
    count = COARSE_POINTS[len(axes)]
    coarse = [np.linspace(axis[0], axis[-1], min(count, len(axis))) for axis in axes]
    ys = coarse[1] if len(axes) == 2 else [0.0]

    losses, radii = [], []
    for y in ys:
        for x in coarse[0]:
            subject.plane.place(float(x), float(y))
            losses.append(loss_of(part.evaluator, names))
            radii.append(max(abs(x) / largest_coordinate(axes[0]), abs(y) / largest_coordinate(axes[-1])))
    size = " x ".join(str(len(axis)) for axis in coarse)
    return np.array(losses), np.array(radii), size


def check_step(subject, part):
    """Is the minimum resolved by the grid?"""
    names = list(part.data)
    subject.plane.place(0.0)
    centre = loss_of(part.evaluator, names)

    for letter, axis in (("x", subject.grid.x), ("y", subject.grid.y)):
        if axis is None or len(axis) < 2:
            continue

        # is the network on the grid?
        step = float(axis[1] - axis[0])
        if not np.isclose(axis, 0, atol=1e-9 * abs(step)).any():
            if axis[0] < 0 < axis[-1]:
                yield "note", f"no grid point lies at {letter} = 0, where the network is: take an odd number of points"
            else:
                yield "note", f"the network (at 0) lies outside --{letter}"
            continue

        # how much does one step to either side change?
        sides = []
        for signed_step in (-step, step):
            x, y = (signed_step, 0.0) if letter == "x" else (0.0, signed_step)
            subject.plane.place(x, y)
            sides.append(loss_of(part.evaluator, names))
        yield judge_step(letter, step, centre, sides)


def judge_step(letter, step, centre, sides):
    """(verdict, words) about one step of the grid; sides: the losses to the left and to the right."""
    rise = max(sides) - centre
    if not math.isfinite(rise) or rise > max(1.0, abs(centre)):
        return "look", (
            f"one step in {letter} ({step:.3g}) takes the loss from {centre:.4g} to {max(sides):.4g}: the minimum "
            f"falls between the grid points; take a smaller range or more points in --{letter}")
    if min(sides) < centre - 1e-3 * max(1.0, abs(centre)):
        return "note", (
            f"one step in {letter} lowers the loss from {centre:.4g} to {min(sides):.4g}: the network is not at a "
            "minimum of this line")
    return "ok", f"one step in {letter} ({step:.3g}) changes the loss from {centre:.4g} to {max(sides):.4g}"


def cost_of_tolerance(subject, part):
    """What share of that a tolerance takes: the one that was asked for, or 1 %."""
    if type(subject.measurement) is not LossMeasurement or subject.measurement.bn != "frozen":
        return
    if subject.tolerance == 0 or reason_against_samples(subject.measurement.fit, subject.data):
        return
    tolerance = subject.tolerance or USUAL_TOLERANCE
    name = next(iter(subject.data))
    names = list(part.data)

    def losses_at(point):
        subject.plane.place(*subject.grid.point(point))
        part.evaluator(names)
        return part.evaluator.of_samples(name)[f"{name}_loss"].astype(float)

    share = share_for(tolerance, subject.grid, len(subject.data[name]), losses_at)
    if share == 1:
        yield "note", f"--tolerance {tolerance:g} would take as long: the samples are few, or differ much"
    else:
        yield "note", (
            f"--tolerance {tolerance:g} would take about {100 * share:.0f} % of that, with error bars, by the first "
            f"{len(part.data[name])} samples")


def estimate_cost(subject, seconds_per_sample):
    """(verdict, words) about how long the full run takes."""
    seconds = seconds_per_sample * number_of_samples(subject.data) * subject.points
    return cost_in_words(seconds, subject.points, subject.ranks)


def cost_in_words(seconds, points, size):
    """(verdict, words) about a run of so many seconds of work, shared by `size` ranks."""
    seconds /= size
    if seconds < 120:
        duration = f"{seconds:.0f} s"
    elif seconds < 7200:
        duration = f"{seconds / 60:.0f} min"
    else:
        duration = f"{seconds / 3600:.1f} h"
    ranks = "1 rank" if size == 1 else f"{size} ranks"
    return "note", f"the full run: {points} points, about {duration} on {ranks} like this one"
