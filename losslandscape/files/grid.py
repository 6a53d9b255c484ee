"""A grid of points in the plane of a plot, and the values on it.

Values on a 2-D grid have shape (ny, nx): row = y. Points are numbered in row-major order of that
shape.

"No value" has one encoding: where a point of NAME is not computed, `surface.computed[NAME]` is
False, and `surface.get(NAME)`, which is what pictures draw, is masked. NaN and inf are results.
`surface.values[NAME]` holds NaN at such a point, so that nobody takes it for a number; but only the
mask says that it is not computed.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from losslandscape.errors import InputError

MAX_POINTS = 10**7  # of a grid; about 1 GB of memory while they are computed
NOT_COMPUTED = math.nan  # fills `values` where nothing is computed; never compared with, see above
ERRORS = {"train_err": "train_acc", "test_err": "test_acc"}  # error = 100 - accuracy, in percent


@dataclass(frozen=True)
class Grid:
    """The points of a plot: x (nx,) and, for a 2-D plot, y (ny,)."""

    x: np.ndarray  # (nx,)
    y: np.ndarray | None = None  # (ny,)

    @classmethod
    def parse(cls, x, y=None):
        """Grid from the texts of --x and --y, 'min:max:count'; see `limits`. Raises InputError."""
        axes = [limits("--x", x)]
        if y is not None:
            axes.append(limits("--y", y))

        points = math.prod(count for _, _, count in axes)
        if points > MAX_POINTS:
            raise InputError(
                f"expected a grid of at most {MAX_POINTS} points, got {points}; take fewer")
        return cls(*(np.linspace(low, high, count) for low, high, count in axes))

    @property
    def axes(self):
        """(x,) or (x, y)."""
        if self.y is None:
            return (self.x,)
        return (self.x, self.y)

    @property
    def shape(self):
        """Shape of values on the grid: (nx,) or (ny, nx)."""
        return tuple(len(axis) for axis in reversed(self.axes))

    @property
    def size(self):
        """Number of points."""
        return math.prod(self.shape)

    def point(self, number):
        """Coordinates (x, y) of a point; y is 0.0 on a 1-D grid."""
        row, column = divmod(number, len(self.x))
        y = 0.0
        if self.y is not None:
            y = float(self.y[row])
        return float(self.x[column]), y

    def close_to(self, other):
        """Do both grids have the same points, up to rounding?"""
        return self.shape == other.shape and all(
            np.allclose(ours, theirs, rtol=0, atol=1e-12)
            for ours, theirs in zip(self.axes, other.axes, strict=True))

    def __str__(self):
        """'[xmin,xmax,xnum]' or '[xmin,xmax,xnum]x[ymin,ymax,ynum]', as in file names."""
        return "x".join(f"[{axis[0]},{axis[-1]},{len(axis)}]" for axis in self.axes)


def limits(flag, text):
    """(min, max, count) of 'min:max:count' with finite min < max and an integer count >= 1.

    flag: its name, for the message. Raises InputError for anything else.
    """
    expected = (f"expected {flag}=min:max:count with min < max and count >= 1, "
                f"for example {flag}=-1:1:51; got {text!r}")
    try:
        low, high, count = text.split(":")
        low, high, count = float(low), float(high), int(count)
    except ValueError:
        raise InputError(expected) from None

    if not (math.isfinite(low) and math.isfinite(high) and low < high and count >= 1):
        raise InputError(expected)
    if count > MAX_POINTS:
        raise InputError(
            f"expected at most {MAX_POINTS} points along {flag}, got {count}; take fewer")
    return low, high, count


@dataclass(frozen=True)
class Surface:
    """Values on a grid. `values[name]` and `computed[name]` have the shape of the grid."""

    grid: Grid
    values: dict = field(default_factory=dict)  # name -> (ny, nx) float64
    computed: dict = field(default_factory=dict)  # name -> (ny, nx) bool
    dir_file: str = ""
    provenance: dict = field(default_factory=dict)  # see provenance.py

    def with_values(self, names):
        """The same surface with room for `names` where it has none yet."""
        shape = self.grid.shape
        values, computed = dict(self.values), dict(self.computed)
        for name in names:
            if name not in values:
                values[name] = np.full(shape, NOT_COMPUTED)
                computed[name] = np.zeros(shape, bool)
        return replace(self, values=values, computed=computed)

    @property
    def main_name(self):
        """What to draw when nothing is chosen.

        Without losses the first result of --measure; else train_loss, another loss, max_eig, or the
        first.
        """
        measured = [name for name in self.provenance.get("measure_names", ()) if name in self.values]
        if measured and "loss" not in self.provenance:
            return measured[0]
        losses = [name for name in self.values if name.endswith("_loss")]
        for name in ("train_loss", *losses, "max_eig", *self.values):
            if name in self.values:
                return name
        return "train_loss"

    def get(self, name):
        """Masked array (ny, nx) of `name`, without the points that are not computed.

        NaN and inf are results. `train_err` and `test_err` are 100 - accuracy, in percent, where the
        surface has the accuracy and no such name. Raises InputError for a name that it does not
        have.
        """
        if name in self.values:
            return np.ma.masked_array(self.values[name], mask=~self.computed[name])

        accuracy = ERRORS.get(name)
        if accuracy in self.values:
            return 100.0 - self.get(accuracy)

        names = sorted(self.values)
        names += [error for error, accuracy in ERRORS.items() if accuracy in self.values]
        raise InputError(
            f"expected one of {', '.join(names)} as the name of a surface, got {name!r}")
