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

from losslandscape.criteria import LOSSES, choose_metric, logits_of, loss_function, metric_function
from losslandscape.data.splits import Batches, Split, apply, each, shapes
from losslandscape.errors import InputError
from losslandscape.evaluator import check_repeatable, norms_of

PART_SECONDS = 0.25  # of one evaluation on the part of the data that the checks take
FULL_CENTRE_SECONDS = 20.0  # of the evaluation on all data, beyond which the centre too is measured on the part
COARSE_POINTS = {1: 13, 2: 7}  # per axis of the coarse picture, by the number of dimensions
WARM_UP_SAMPLES = 64


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


@dataclass(frozen=True)
class DataPart:
    """As many of the first samples as are evaluated in PART_SECONDS."""

    data: dict
    evaluator: object
    seconds_per_sample: float


def all_checks(subject):
    """Yield (verdict, words) of all checks."""
    yield from check_network(subject.net)
    yield from check_normalization(subject.recipe)
    part = choose_part(subject)
    yield from check_centre(subject, part)
    yield from check_range(subject, part)
    yield from check_step(subject, part)
    yield estimate_cost(subject, part.seconds_per_sample)


def print_report(subject):
    """Print the report; returns the number of things to look at."""
    worries = 0
    for verdict, words in all_checks(subject):
        print(f"{verdict:5} {words}", flush=True)
        worries += verdict == "look"

    if worries == 0:
        print("nothing speaks against this plot")
    else:
        things = "thing" if worries == 1 else "things"
        print(f"{worries} {things} to look at before you compute the surface")
    return worries


# ---------------------------------------------------------------- network and directions


def check_network(net):
    """Does the network repeat itself, and has its batch norm seen data?"""
    training = [name or "the network" for name, module in net.named_modules() if module.training]
    if training:
        yield "look", f"{training[0]} is in train mode: dropout and batch norm change the loss from pass to pass"
    else:
        yield "ok", "the network is in eval mode and repeats itself"

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


def number_of_samples(data):
    return sum(len(split) for split in data.values())


def first_samples(data, count):
    """The first `count` samples of every split (whole batches, where it comes in batches)."""
    part = {}
    for name, split in data.items():
        if isinstance(split, Split):
            part[name] = split.part(slice(0, count))
            continue
        batches, samples = [], 0
        for inputs, targets in split.batches():
            batches.append((inputs, targets))
            samples += len(targets)
            if samples >= count:
                break
        part[name] = Batches(batches, samples, held=True)
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


def estimate_cost(subject, seconds_per_sample):
    """(verdict, words) about how long the full run takes."""
    seconds = seconds_per_sample * number_of_samples(subject.data) * subject.points / subject.ranks
    if seconds < 120:
        duration = f"{seconds:.0f} s"
    elif seconds < 7200:
        duration = f"{seconds / 60:.0f} min"
    else:
        duration = f"{seconds / 3600:.1f} h"
    ranks = "1 rank" if subject.ranks == 1 else f"{subject.ranks} ranks"
    return "note", f"the full run: {subject.points} points, about {duration} on {ranks} like this one"


# ---------------------------------------------------------------- at every run, before its first point


def first_line(error):
    """The first line of what an exception says, or its type."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def check_fit(net, data, loss_name, metric_name="", tell=True):
    """The name of the metric to evaluate; raises InputError unless network, data and loss fit, and repeat themselves.

    data: {split: Split or Batches}; eight samples of each are tried. metric_name: as --metric, '' for accuracy where
    the targets are classes. tell: say in a warning what is no error.
    """
    metric = metric_name
    loss = loss_function(loss_name)
    own_dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)

    for name, split in data.items():
        inputs, targets = next(iter(split.batches(8)))
        inputs = each(inputs, lambda t: t[:8].to(own_dtype if t.is_floating_point() else t.dtype))
        targets = targets[:8]

        output = output_for(net, inputs, name)
        check_labels(output, split, name, loss_name)
        check_repeatable(net, inputs, output, tell)

        # the loss takes what the network gives
        try:
            loss(output, targets)
        except (RuntimeError, IndexError, TypeError, AttributeError) as error:
            raise InputError(f"expected outputs and targets for --loss_name {loss_name}, but it fails on them "
                             f"({first_line(error)}); check --loss_name (torch.nn:MSELoss for numbers)") from None

        # and so does the metric
        metric = choose_metric(metric, output, targets)
        measure = metric_function(metric)
        if measure is not None:
            measure(output, targets)
    return metric


def output_for(net, inputs, split_name):
    """What the network gives for a few samples; raises InputError where it fails on them."""
    try:
        with torch.no_grad():
            return apply(net, inputs)
    except Exception as error:  # a network of the user's may raise anything
        shape = tuple(inputs.shape[1:]) if isinstance(inputs, torch.Tensor) else shapes(inputs)
        raise InputError(f"expected a network for inputs of shape {shape} ({split_name} set), but it fails on them "
                         f"({first_line(error)}); check --model and --dataset") from None


def check_labels(output, split, split_name, loss_name):
    """Raises InputError where a label is beyond the network's outputs."""
    if loss_name not in LOSSES or isinstance(split, Batches):
        return
    logits = logits_of(output)
    targets = split.targets
    if targets.dim() != 1 or logits.dim() != 2 or targets.is_floating_point():
        return

    largest, classes = int(targets.max()), logits.shape[1]
    if largest >= classes:
        raise InputError(f"expected labels below {classes}, the number of outputs of the network, got {largest} "
                         f"in the {split_name} set; check --dataset and --model_file")
