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

from losslandscape import evaluator as evaluation
from losslandscape.data.splits import Batches, Split, apply, each, shapes
from losslandscape.errors import InputError

SECONDS = 0.25  # of one evaluation on the part of the data that the checks take
ENOUGH = 20.0  # seconds of the evaluation on all data, beyond which the centre too is measured on the part
COARSE = {1: 13, 2: 7}  # points per axis of the coarse picture, by the number of dimensions


@dataclass(frozen=True)
class Subject:
    """What is checked. build(data) -> evaluator of `net`, which `plane` moves; info: what the checkpoint recorded."""

    net: torch.nn.Module
    plane: object
    build: Callable
    data: dict
    grid: object
    info: dict
    recipe: object
    points: int  # of the full run, all repeats together
    ranks: int
    vmax: float


def report(subject):
    """Yield (verdict, words) of all checks."""
    yield from check_network(subject.net)
    yield from check_normalization(subject.recipe)
    part, each, evaluator = choose_part(subject)
    yield from check_centre(subject, part, each)
    yield from check_range(subject, evaluator, part)
    yield from check_step(subject, evaluator, part)
    yield from estimate_cost(subject, each)


def print_report(subject):
    """Print the report; returns the number of things to look at."""
    worries = 0
    for verdict, words in report(subject):
        print(f"{verdict:5} {words}", flush=True)
        worries += verdict == "look"
    print(f"{worries} thing{'s' * (worries != 1)} to look at before you compute the surface" if worries else
          "nothing speaks against this plot")
    return worries


def check_network(net):
    training = [name or "the network" for name, module in net.named_modules() if module.training]
    if training:
        yield "look", f"{training[0]} is in train mode: dropout and batch norm change the loss from pass to pass"
    else:
        yield "ok", "the network is in eval mode and repeats itself"
    norms = evaluation.norms_of(net)
    fresh = [n for n in norms if bool((n.running_mean == 0).all()) and bool((n.running_var == 1).all())]
    if fresh:
        yield "look", (f"{len(fresh)} of {len(norms)} batch norms have the statistics of a new network (mean 0, "
                       "variance 1): is this the trained checkpoint? --bn recalibrate computes them from the data")
    elif norms:
        yield "ok", f"{len(norms)} batch norms with statistics from training"


def check_normalization(recipe):
    for letter, axis in (("x", recipe.x), ("y", recipe.y)):
        if axis is None or axis.model_file:
            continue
        if axis.norm in ("filter", "layer"):
            yield "ok", f"{letter} direction with --{letter}norm {axis.norm}"
        else:
            yield "look", (f"the {letter} direction is random and not scaled to the weights: give --{letter}norm "
                           "filter, or the picture says little (Li et al. 2018, section 4)")
        if axis.ignore != "biasbn" and axis.norm:
            yield "note", (f"biases and batch norm move along themselves on the {letter} axis; the paper's pictures "
                           f"have --{letter}ignore biasbn")


# ---------------------------------------------------------------- measured


def choose_part(subject):
    """(part of the data that takes about SECONDS, seconds per sample, evaluator of the part)."""
    subject.plane.place(0.0)
    evaluator = subject.build(first_samples(subject.data, 64))
    names = list(subject.data)
    evaluator(names)  # warms up
    start = time.perf_counter()
    evaluator(names)
    some = sum(len(split) for split in first_samples(subject.data, 64).values())
    each = (time.perf_counter() - start) / some
    part = first_samples(subject.data, max(64, int(SECONDS / each / len(names))))
    return part, each, subject.build(part)


def first_samples(data, count):
    """The first `count` samples of every split (whole batches, where it comes in batches)."""
    part = {}
    for name, split in data.items():
        if isinstance(split, Split):
            part[name] = split.part(slice(count))
            continue
        taken, seen = [], 0
        for batch in split.batches():
            taken.append(batch)
            seen += len(batch[1])
            if seen >= count:
                break
        part[name] = Batches(taken, seen, held=True)
    return part


def value(evaluator, names):
    """The loss that the picture is of: the first split's."""
    return evaluator(names)[f"{names[0]}_loss"]


def check_centre(subject, part, each):
    """The loss at the centre beside what the checkpoint recorded."""
    total = sum(map(len, subject.data.values()))
    whole = each * total < ENOUGH
    subject.plane.place(0.0)
    found = subject.build(subject.data if whole else part)(list(subject.data))
    on = "" if whole else f" on the first {sum(map(len, part.values()))} of {total} samples"
    told = ", ".join(f"{name} {number:.6g}" for name, number in found.items())
    if not all(map(math.isfinite, found.values())):
        yield "look", f"at the centre{on}: {told}; the network does not work on these data"
        return
    recorded = {key: float(v) for key, v in subject.info.items() if isinstance(v, int | float) and key in found}
    if "acc" in subject.info and "test_acc" in found and isinstance(subject.info["acc"], int | float):
        recorded.setdefault("test_acc", float(subject.info["acc"]))
    if not recorded:
        yield "note", f"at the centre{on}: {told}; the checkpoint recorded none of these to compare with"
        return
    slack = 1e-3 if whole else 0.3
    off = {k: v for k, v in recorded.items() if abs(found[k] - v) > slack * max(abs(v), 1.0)}
    told = ", ".join(f"{k} {found[k]:.6g} (recorded: {v:.6g})" for k, v in recorded.items())
    if off:
        yield "look", (f"at the centre{on}: {told}; other data, another normalization (--raw_data), another loss or "
                       "another network than in training?")
    else:
        yield "ok", f"at the centre{on}: {told}"


def check_range(subject, evaluator, part):
    """How much of the picture is above the highest contour, and a range that would show more."""
    grid, names = subject.grid, list(part)
    axes = [grid.x] + ([grid.y] if grid.y is not None else [])
    count = COARSE[len(axes)]
    coarse = [np.linspace(axis[0], axis[-1], min(count, len(axis))) for axis in axes]
    radius, loss = [], []
    for y in coarse[1] if len(axes) == 2 else [0.0]:
        for x in coarse[0]:
            subject.plane.place(float(x), float(y))
            loss.append(value(evaluator, names))
            radius.append(max(abs(x) / max(abs(axes[0][0]), abs(axes[0][-1])),
                              abs(y) / max(abs(axes[-1][0]), abs(axes[-1][-1]))))
    loss, radius = np.array(loss), np.array(radius)
    high = ~(loss <= subject.vmax)
    share, flags = high.mean(), " and ".join(["--x", "--y"][:len(axes)])
    size = " x ".join(str(len(c)) for c in coarse)
    seen = f"{100 * share:.0f} % of a coarse picture ({size} points) is above {subject.vmax:g}"
    if share > 0.5:
        inner = radius[high].min()
        fit = 1.0 if inner <= 0 else inner
        limits = max(abs(axes[0][0]), abs(axes[0][-1])) * fit
        yield "look", f"{seen}: the valley is small in it; try {flags} within about {limits:.2g} of 0, or --log"
        return
    centre = loss[radius.argmin()]
    if np.isfinite(loss).all() and loss.max() - loss.min() < 0.05 * max(abs(centre), 1e-3):
        yield "look", (f"the loss hardly changes in this range ({loss.min():.4g} to {loss.max():.4g}): widen {flags}, "
                       "or check that the directions are not zero")
        return
    yield "ok", f"{seen}; losses from {np.nanmin(loss):.4g} to {np.nanmax(loss):.4g}"


def check_step(subject, evaluator, part):
    """Is the minimum resolved by the grid?"""
    names = list(part)
    subject.plane.place(0.0)
    centre = value(evaluator, names)
    for letter, axis in (("x", subject.grid.x), ("y", subject.grid.y)):
        if axis is None or len(axis) < 2:
            continue
        step = float(axis[1] - axis[0])
        if not np.isclose(axis, 0, atol=1e-9 * abs(step)).any():
            if axis[0] < 0 < axis[-1]:
                yield "note", f"no grid point lies at {letter} = 0, where the network is: take an odd number of points"
            else:
                yield "note", f"the network (at 0) lies outside --{letter}"
            continue
        sides = []
        for sign in (-1, 1):
            subject.plane.place(*((sign * step, 0.0) if letter == "x" else (0.0, sign * step)))
            sides.append(value(evaluator, names))
        rise = max(sides) - centre
        if not math.isfinite(rise) or rise > max(1.0, abs(centre)):
            yield "look", (f"one step in {letter} ({step:.3g}) takes the loss from {centre:.4g} to {max(sides):.4g}: "
                           "the minimum falls between the grid points; take a smaller range or more points in "
                           f"--{letter}")
        elif min(sides) < centre - 1e-3 * max(1.0, abs(centre)):
            yield "note", (f"one step in {letter} lowers the loss from {centre:.4g} to {min(sides):.4g}: the network "
                           "is not at a minimum of this line")
        else:
            yield "ok", f"one step in {letter} ({step:.3g}) changes the loss from {centre:.4g} to {max(sides):.4g}"


def estimate_cost(subject, each):
    seconds = each * sum(map(len, subject.data.values())) * subject.points / subject.ranks
    told = (f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else
            f"{seconds / 3600:.1f} h")
    yield "note", (f"the full run: {subject.points} points, about {told} on "
                   f"{subject.ranks} rank{'s' * (subject.ranks > 1)} like this one")


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
    loss = evaluation.loss_function(loss_name)
    own_dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)

    for name, split in data.items():
        inputs, targets = next(iter(split.batches(8)))
        inputs = each(inputs, lambda t: t[:8].to(own_dtype if t.is_floating_point() else t.dtype))
        targets = targets[:8]

        output = output_for(net, inputs, name)
        check_labels(output, split, name, loss_name)
        evaluation.check_repeatable(net, inputs, output, tell)

        # the loss takes what the network gives
        try:
            loss(output, targets)
        except (RuntimeError, IndexError, TypeError, AttributeError) as error:
            raise InputError(f"expected outputs and targets for --loss_name {loss_name}, but it fails on them "
                             f"({first_line(error)}); check --loss_name (torch.nn:MSELoss for numbers)") from None

        # and so does the metric
        metric = evaluation.choose_metric(metric, output, targets)
        metric_function = evaluation.metric_function(metric)
        if metric_function is not None:
            metric_function(output, targets)
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
    if loss_name not in evaluation.LOSSES or isinstance(split, Batches):
        return
    logits = evaluation.logits_of(output)
    targets = split.targets
    if targets.dim() != 1 or logits.dim() != 2 or targets.is_floating_point():
        return

    largest, classes = int(targets.max()), logits.shape[1]
    if largest >= classes:
        raise InputError(f"expected labels below {classes}, the number of outputs of the network, got {largest} "
                         f"in the {split_name} set; check --dataset and --model_file")
