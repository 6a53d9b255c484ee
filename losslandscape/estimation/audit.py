"""Some estimated points, drawn at random, are computed on all data and compared: an error bar one can trust.

    tasks(survey)       what is to be measured for it
    in_json(survey)     what it gives, per split
    audit_in_words(entry)     '26 points checked: median error 0.5 %, largest 2.1 %, 25 within two standard errors'
"""

import math

import numpy as np

from losslandscape.estimation.survey import Task

SHARE = 0.01  # of the points are checked,
FEWEST, MOST = 10, 40  # and at least, at most so many
SEED = 1977


def audited_points(survey, split, most=None):
    """The points that are checked: the first estimated ones in a random order of all points."""
    loss = survey.populations[split].loss
    estimated = set()
    for point in survey.estimated_points(split):
        if math.isfinite(survey.estimates(split, point)[loss].mean):
            estimated.add(point)

    count = min(MOST, max(FEWEST, math.ceil(SHARE * survey.grid.size)))
    if most is not None:
        count = min(count, most)
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(survey.grid.size)
    return [point for point in order.tolist() if point in estimated][:count]


def tasks(survey, most=None):
    """[Task] of the points that are still to be measured on all data; most: how many points at most."""
    needed = []
    for split, population in survey.populations.items():
        for point in audited_points(survey, split, most):
            if not survey.is_exact(split, point):
                needed.append(Task(point, split, 0, population.count))
    return needed


def in_json(survey):
    """{split: entry} of the checked points: how far the estimated losses were from those of all data."""
    entries = {}
    for split, population in survey.populations.items():
        errors, within = [], 0
        for point in audited_points(survey, split):
            if not survey.is_exact(split, point):
                continue
            estimate = survey.estimates(split, point)[population.loss]
            truth = survey.exact(split, point)[population.loss]
            difference = abs(estimate.mean - truth)
            within += bool(difference <= 2 * estimate.error)
            errors.append(difference / max(abs(truth), 1e-300))
        if errors:
            entries[split] = {
                "points": len(errors),
                "median_error": float(np.median(errors)),
                "largest_error": float(max(errors)),
                "within_two_standard_errors": within,
            }
    return entries


def audit_in_words(entry):
    """One line about the checked points of a split."""
    return (
        f"{entry['points']} points checked: median error {100 * entry['median_error']:.2g} %, largest "
        f"{100 * entry['largest_error']:.2g} %, {entry['within_two_standard_errors']} within two standard errors")
