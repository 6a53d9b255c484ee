"""Is my plot of a measure right? What `plot_surface.py --measure ... --check` says before hours are spent.

As in checks.py, every check yields (verdict, words). The function is called some twenty times at most.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from losslandscape import checks
from losslandscape.choices import Job

COARSE_POINTS = {1: 7, 2: 3}  # per axis of the coarse picture, by the number of dimensions


@dataclass(frozen=True)
class MeasuredSubject:
    """What is checked: a network that `plane`, a GuardedPlane, moves and `evaluator` measures."""

    net: torch.nn.Module
    plane: object
    evaluator: object  # MeasureEvaluator
    job: Job
    recipe: object  # how the directions are made
    ranks: int


def print_measure_report(subject):
    """Print the report; returns the number of things to look at."""
    return checks.print_findings(all_measure_checks(subject))


def all_measure_checks(subject):
    """Yield (verdict, words) of all checks. Raises InputError where the measure can't be used."""
    start = time.perf_counter()
    centre = subject.evaluator.trial()
    seconds = (time.perf_counter() - start) / 2
    yield "ok", f"{subject.job.measurement.measure} gives the same numbers at two calls"
    yield judge_centre(centre)

    yield from checks.check_normalization(subject.recipe)
    yield from judge_range(coarse_values(subject), centre)
    yield checks.cost_in_words(
        seconds * number_of_points(subject.job), number_of_points(subject.job), subject.ranks)


def number_of_points(job):
    return job.grid.size * job.directions.repeats


def judge_centre(centre):
    """(verdict, words) about the numbers at the centre."""
    words = f"at the centre: {checks.numbers_in_words(centre)}"
    if all(map(math.isfinite, centre.values())):
        return "ok", words
    return "look", f"{words}; is this the trained network?"


def coarse_values(subject):
    """{name: (n,)} on a coarse grid."""
    grid = subject.job.grid
    count = COARSE_POINTS[len(grid.axes)]
    coarse = [np.linspace(axis[0], axis[-1], min(count, len(axis))) for axis in grid.axes]
    ys = coarse[1] if len(coarse) == 2 else [0.0]

    rows = []
    for y in ys:
        for x in coarse[0]:
            subject.plane.place(float(x), float(y))
            rows.append(subject.evaluator())
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def judge_range(values, centre):
    """Yield (verdict, words) about how much each number changes in the range of the picture."""
    for name, numbers in values.items():
        finite = numbers[np.isfinite(numbers)]
        if finite.size == 0:
            yield "look", f"{name} is finite at none of {numbers.size} points: take a smaller range"
            continue

        low, high = finite.min(), finite.max()
        words = f"{name} from {low:.4g} to {high:.4g} at {numbers.size} points of a coarse picture"
        if finite.size < numbers.size:
            yield "note", f"{words}, not finite at {numbers.size - finite.size} of them"
        elif low == high == centre[name]:
            yield "look", f"{words}: it does not change; does the function use the network that it gets?"
        else:
            yield "ok", words
