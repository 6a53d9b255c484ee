"""What a tolerance will cost, from a few points on a part of the data: for --check."""

import numpy as np

from losslandscape.estimation import audit
from losslandscape.estimation.coarse import coarse_points, nearest
from losslandscape.estimation.regression import regression_estimate
from losslandscape.estimation.subsets import SMALLEST

PROBES = 5  # points
SEED = 7
ENDLESS = 10**12  # samples of a population of which a part is nothing
DOUBLING = 1.4  # what subsets that are doubled have beyond what is needed, on average


def share_for(tolerance, grid, count, losses_at):
    """The share of the work of a full surface that a tolerance will take, from 0 to about 1.

    count: samples of the data set. losses_at(point) -> (n,) losses of the first n of them. Points
    are drawn at random and regressed on the coarse points around them, as the run will do.
    """
    coarse = coarse_points(grid.shape)
    others = sorted(set(range(grid.size)) - set(coarse))
    if not others or count < 2 * SMALLEST:
        return 1.0
    random = np.random.Generator(np.random.PCG64(SEED))
    probes = random.choice(others, min(PROBES, len(others)), replace=False).tolist()

    losses = {}
    for point in probes:
        for needed in (point, *nearest(point, coarse, grid.shape)):
            if needed not in losses:
                losses[needed] = losses_at(needed)
    shares = []
    for point in probes:
        around = [losses[near] for near in nearest(point, coarse, grid.shape)]
        shares.append(samples_for(tolerance, losses[point], around, count) / count)

    checked = min(audit.MOST, max(audit.FEWEST, audit.SHARE * grid.size))
    points = len(coarse) + len(others) * np.mean(shares) + min(checked, len(others))
    return float(min(points / grid.size, 1.0))


def samples_for(tolerance, values, regressors, count):
    """How many of `count` samples bring the error of a mean within the tolerance."""
    if not all(np.isfinite(losses).all() for losses in (values, *regressors)):
        return count
    x = np.stack(regressors, -1)  # (n, p)
    estimate = regression_estimate(values, x, x.mean(0), ENDLESS)
    variance = estimate.error**2 * len(values)
    if variance == 0:
        return SMALLEST
    needed = DOUBLING / ((tolerance * estimate.mean) ** 2 / variance + 1 / count)
    if needed > count / 2:
        return count
    return max(SMALLEST, needed)
