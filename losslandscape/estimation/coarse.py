"""The points of a grid that are computed on all data: a coarse lattice, from which others are seen."""

import math

import numpy as np

from losslandscape import scheduler

NEIGHBOURS = {1: 4, 2: 9}  # coarse points that a point is regressed on, by the number of dimensions


def coarse_points(shape):
    """Point numbers of the coarse lattice of a grid, with its centre; (n,) or (ny, nx).

    In 2-D the coarsest level of scheduler.coarse_to_fine, on a line every 2^k-th point likewise: at
    least 5 along an axis (51 x 51: 7 x 7, 2 % of the points; 51: 7).
    """
    if len(shape) == 2:
        return scheduler.coarse_to_fine(shape)[0].tolist()
    [count] = shape
    middle = scheduler.coarse_to_fine((count, count))[0] // count  # rows of a square grid
    return np.unique(middle).tolist()


def nearest(point, coarse, shape):
    """The coarse points that are nearest to a point, the nearest first: numbers.

    Distances are counted in steps of the grid; of equal ones the lower number comes first.
    """
    steps = np.stack(np.unravel_index(coarse, shape), -1)  # (n, dimensions)
    place = np.array(np.unravel_index(point, shape))
    squares = np.square(steps - place).sum(1)
    order = np.argsort(squares, kind="stable")[: NEIGHBOURS[len(shape)]]
    return [coarse[i] for i in order]


def centre_of(shape):
    """The number of the point in the middle of a grid; the coarse lattice has it."""
    return int(np.ravel_multi_index([n // 2 for n in shape], shape))


def share_of_work(shape):
    """The share of a grid's points that the coarse lattice has."""
    return len(coarse_points(shape)) / math.prod(shape)
