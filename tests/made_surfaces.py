"""Surfaces with known values, for the tests of exports."""

import numpy as np

from losslandscape.files.grid import Grid, Surface


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


def wall(x, y):
    """A high bowl with NaN in one corner and infinite values along one side."""
    return np.where(x > 0.9, np.inf, np.where((x < -0.9) & (y < -0.9), np.nan, 100 * bowl(x, y)))


# a name that would run as code, or break the page, if it were not treated as text
HOSTILE = """</script><script>hacked = 1</script><img src=x onerror="hacked = 2"> "q" 'a' & ö 山 @@DATA@@"""


def surface_with_all(f, x="-1:1:9", y="-1:1:7", gaps=(), **provenance):
    """All four arrays, and one with a hostile name, from a loss f(x, y); `gaps` are (row, column) not computed."""
    grid = Grid.parse(x, y)
    loss = np.asarray(f(*np.meshgrid(grid.x, grid.y)), float)
    values = {
        "train_loss": loss,
        "test_loss": loss + 1,
        "train_acc": 100 * np.exp(-np.abs(loss)),
        "test_acc": 90 * np.exp(-np.abs(loss)),
        "<b onclick=x>": -loss,
    }
    computed = np.ones(grid.shape, bool)
    for index in gaps:
        computed[index] = False
    return Surface(grid, values, dict.fromkeys(values, computed), provenance=provenance)


def bowl_named(*names):
    """A surface with arrays of these names, all of them a bowl."""
    loss = surface_of(bowl)
    values, computed = loss.values["train_loss"], loss.computed["train_loss"]
    return Surface(loss.grid, dict.fromkeys(names, values), dict.fromkeys(names, computed))
