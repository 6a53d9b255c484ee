"""Surfaces with known values, for the tests of exports."""

import numpy as np

from losslandscape.files.grid import Grid
from losslandscape.files.layouts import Surface


def surface_of(f, x="-1:1:9", y="-1:1:7", missing=None):
    """Surface with train_loss = f(x, y); points where missing(x, y) is true are not computed."""
    grid = Grid.parse(x, y)
    xx, yy = np.meshgrid(grid.x, grid.y)
    values = np.broadcast_to(np.asarray(f(xx, yy), float), grid.shape).copy()
    computed = np.ones(grid.shape, bool)
    if missing is not None:
        computed = ~missing(xx, yy)
    values[~computed] = -1
    return Surface(grid, {"train_loss": values}, {"train_loss": computed})


def bowl(x, y):
    return 0.2 + x**2 + 2 * y**2


def middle(x, y):
    """Is this the point (0, 0)?"""
    return np.isclose(x, 0) & np.isclose(y, 0)
