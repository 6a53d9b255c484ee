"""A grid of points, and the values on it."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from losslandscape.errors import InputError

NOT_COMPUTED = -1.0  # what a point holds before it is computed (readers of the original's files expect it)
MAX_POINTS = 10**7  # of a grid; about 1 GB of memory while they are computed


@dataclass(frozen=True)
class Grid:
    """The points of a plot: x (nx,) and, for a 2-D plot, y (ny,).

    Values on a 2-D grid have shape (ny, nx): row = y. Points are numbered in row-major order of that shape.
    """

    x: np.ndarray  # (nx,)
    y: np.ndarray | None = None  # (ny,)

    @classmethod
    def parse(cls, x, y=None):
        """Grid from the texts of --x and --y, 'min:max:count' with finite min < max and an integer count >= 1."""
        axes = [limits(flag, text) for flag, text in (("--x", x), ("--y", y)) if text is not None]
        points = math.prod(count for _, _, count in axes)
        if points > MAX_POINTS:
            raise InputError(f"expected a grid of at most {MAX_POINTS} points, got {points}; take fewer")
        return cls(*(np.linspace(*axis) for axis in axes))

    @property
    def shape(self):
        return (len(self.x),) if self.y is None else (len(self.y), len(self.x))

    @property
    def size(self):
        return int(np.prod(self.shape))

    def point(self, index):
        """Coordinates (x, y) of point number `index`; y is 0.0 on a 1-D grid."""
        row, column = divmod(index, len(self.x))
        return float(self.x[column]), 0.0 if self.y is None else float(self.y[row])

    def __str__(self):
        return "x".join(f"[{axis[0]},{axis[-1]},{len(axis)}]" for axis in (self.x, self.y) if axis is not None)


def limits(flag, text):
    """(min, max, count) of 'min:max:count'; raises InputError for anything else."""
    example = f"expected {flag}=min:max:count with min < max and count >= 1, for example {flag}=-1:1:51"
    parts = text.split(":")
    try:
        low, high = float(parts[0]), float(parts[1])
        count = int(parts[2])
    except (ValueError, IndexError):
        raise InputError(f"{example}; got {text!r}") from None
    if len(parts) != 3 or not (np.isfinite([low, high]).all() and low < high and count >= 1):
        raise InputError(f"{example}; got {text!r}")
    if count > MAX_POINTS:
        raise InputError(f"expected at most {MAX_POINTS} points along {flag}, got {count}; take fewer")
    return low, high, count


ERRORS = {"train_err": "train_acc", "test_err": "test_acc"}  # what is 100 - accuracy


@dataclass(frozen=True)
class Surface:
    """Values on a grid. `values[name]` and `computed[name]` have the shape of the grid."""

    grid: Grid
    values: dict = field(default_factory=dict)  # name -> (ny, nx) float64
    computed: dict = field(default_factory=dict)  # name -> (ny, nx) bool
    dir_file: str = ""
    provenance: dict = field(default_factory=dict)

    def with_values(self, names):
        """The same surface with room for `names` where it has none yet."""
        new = [name for name in names if name not in self.values]
        shape = self.grid.shape
        return replace(
            self,
            values=self.values | {name: np.full(shape, NOT_COMPUTED) for name in new},
            computed=self.computed | {name: np.zeros(shape, bool) for name in new},
        )

    @property
    def main_name(self):
        """What to draw when nothing is asked for: train_loss, another loss, max_eig, or whatever comes first."""
        wanted = ("train_loss", *(name for name in self.values if name.endswith("_loss")), "max_eig", *self.values)
        return next((name for name in wanted if name in self.values), "train_loss")

    def get(self, name):
        """Masked array (ny, nx) of `name`; uncomputed points are masked, NaN and inf are results.

        `train_err` and `test_err` are 100 - accuracy, in percent, where the file has the accuracy and no such name.
        """
        source = ERRORS.get(name, name) if name not in self.values else name
        if source not in self.values:
            names = sorted(self.values) + [error for error, acc in ERRORS.items() if acc in self.values]
            raise InputError(f"expected one of {', '.join(names)} as the name of a surface, got {name!r}")
        values = np.ma.masked_array(self.values[source], mask=~self.computed[source])
        return values if source == name else 100.0 - values
