"""What a 2-D figure shows: one value of a surface, on increasing coordinates.

    surface = read_2d("SURFACE.h5")
    panel = make_panel(surface, surface.get("train_loss"), "train_loss", "SURFACE.h5")

A file that is still being computed can be drawn: where a coarse level of a coarse-to-fine run is
complete, the points between are interpolated, and the title says how many are computed.
"""

from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.layouts import read_surface
from losslandscape.pictures.extremes import drawable_numbers, refuse_undrawable_axes
from losslandscape.pictures.mathtext import typed_text
from losslandscape.pictures.style import bad_points, need, share_done
from losslandscape.pictures.words import error_words, heading, percent, plain_name

# ---------------------------------------------------------------- a panel


@dataclass(frozen=True)
class Panel:
    """What is drawn: z is finite or NaN, and `bad` says why a point is NaN."""

    x: np.ndarray  # (nx,)
    y: np.ndarray  # (ny,)
    z: np.ndarray  # (ny, nx), row = y
    computed: np.ndarray  # (ny, nx) bool; the other values of z are interpolated
    bad: dict  # {kind of `style.BAD`: mask (ny, nx)}
    name: str
    title: str

    @property
    def finite(self):
        """The finite values, in one dimension."""
        return self.z[np.isfinite(self.z)]

    @property
    def has_quads(self):
        """Whether there are at least 2 rows and 2 columns, as contours and the 3-D figure need."""
        return min(self.z.shape) >= 2


def read_2d(path):
    """Surface of a 2-D file with increasing coordinates; InputError for any other file."""
    surface = read_surface(path)
    if surface.grid.y is None:
        raise InputError(f"expected a 2-D surface, {path} has the 1-D grid {surface.grid}; "
                         "use plot_1D.py")

    refuse_undrawable_axes(surface, path)
    return surface


def make_panel(surface, values, name, path, title=None):
    """Panel of the masked array `values` (ny, nx), with gaps filled from finished coarse points.

    name: of the values. title: None for the network and the name. Raises InputError, which names
    `path`, where nothing is computed yet.
    """
    computed = ~np.ma.getmaskarray(values)
    if not computed.any():
        raise InputError(f"nothing of {name} is computed yet in {path}; "
                         "run plot_surface.py on it first")

    values = drawable_numbers(values, name)
    filled = values
    if not computed.all():
        filled = from_coarse(surface.grid, values)

    if title is None:
        title = default_title(surface, name)
    else:
        title = typed_text(title)
    if title:
        title += progress_line(values, is_interpolated=filled is not values)

    z = np.ma.masked_invalid(filled).filled(np.nan)
    return Panel(surface.grid.x, surface.grid.y, z, computed, bad_points(filled), name, title)


def default_title(surface, name):
    """'resnet56, train loss'."""
    model = surface.provenance.get("model")
    if not isinstance(model, str):  # the provenance of a file may hold anything
        model = ""
    return heading(model, plain_name(name).removesuffix(" (%)"), error_words(surface, name))


def progress_line(values, is_interpolated):
    """A line for the title, '12 % of the points, interpolated'; '' where all are computed."""
    share = share_done(values)
    if share == 1:
        return ""
    line = f"\n{percent(share)} of the points"
    if is_interpolated:
        line += ", interpolated"
    return line


def refuse_single_line(surface, path):
    """Raises InputError unless the surface has the rows and columns that contours need."""
    if min(surface.grid.shape) < 2:
        raise InputError("expected at least 2 rows and 2 columns for contours, "
                         f"{path} has {surface.grid}")


# ---------------------------------------------------------------- coordinates


def cell_edges(axis):
    """Borders (n + 1,) of the cells whose centres are the coordinates (n,)."""
    if len(axis) == 1:
        return np.array([axis[0] - 0.5, axis[0] + 0.5])
    middles = (axis[1:] + axis[:-1]) / 2
    first = 1.5 * axis[0] - 0.5 * axis[1]
    last = 1.5 * axis[-1] - 0.5 * axis[-2]
    return np.concatenate([[first], middles, [last]])


def panel_box(panel, cells=False):
    """(left, right, bottom, top) of the points, or of their cells."""
    x, y = panel.x, panel.y
    if cells:
        x, y = cell_edges(x), cell_edges(y)
    return x[0], x[-1], y[0], y[-1]


# ---------------------------------------------------------------- unfinished surfaces


def from_coarse(grid, values):
    """Fill the gaps of a masked array (ny, nx) from the finest finished level of the run.

    Starting at the finest level that is complete, each finer one keeps its computed points and gets
    the rest by linear interpolation (of the logarithm where all values are above 0, because losses
    span decades). A point whose nearest computed point is NaN or inf takes that value. Without a
    complete level of at least 2 x 2 points `values` is returned as it is.
    """
    mask = np.ma.getmaskarray(values)  # (ny, nx), as all arrays here
    data = np.ma.getdata(values).astype(float)
    finite = np.isfinite(data) & ~mask
    step = finest_finished_step(mask)
    if step is None or not finite.any():
        return values
    lines = level_lines(mask.shape, step)
    if min(len(numbers) for numbers in lines) < 2:
        return values

    # NaN and inf would spread through the interpolation; the nearest finite value stands in
    known = np.where(finite, data, value_of_nearest(data, finite))
    in_logarithm = (data[finite] > 0).all()
    if in_logarithm:
        known = np.log(known)

    # from level to finer level, down to all points
    level = known[np.ix_(*lines)]
    while step > 1:
        step //= 2
        finer_lines = level_lines(mask.shape, step)
        between = interpolated(grid, level, lines, finer_lines)
        finer_points = np.ix_(*finer_lines)
        level = np.where(mask[finer_points], between, known[finer_points])
        lines = finer_lines
    if in_logarithm:
        level = np.exp(level)

    nearest = value_of_nearest(data, ~mask)
    filled = np.where(np.isfinite(nearest), level, nearest)
    filled = np.where(mask, filled, data)
    return np.ma.masked_array(filled, np.zeros(mask.shape, bool))


def level_lines(shape, step):
    """[row numbers, column numbers] of a level: every step-th, counted from the middle."""
    return [np.arange(count // 2 % step, count, step) for count in shape]


def finest_finished_step(mask):
    """How many lines apart the points of the finest complete level are; None without one."""
    step = 1
    while step < max(mask.shape):
        step *= 2
        if not mask[np.ix_(*level_lines(mask.shape, step))].any():
            return step
    return None


def value_of_nearest(data, known):
    """The value of the nearest point in the mask `known` (ny, nx); a known point has its own."""
    transform = need("scipy.ndimage").distance_transform_edt
    rows, columns = transform(~known, return_distances=False, return_indices=True)
    return data[rows, columns]


def interpolated(grid, level, lines, finer_lines):
    """Values on the finer lines, linear between those of `level`, which stand on `lines`."""
    rows, columns = lines
    finer_rows, finer_columns = finer_lines
    points = np.meshgrid(grid.y[finer_rows], grid.x[finer_columns], indexing="ij")

    # the border may lie outside the coarse points: fill_value=None carries the slope on
    interpolator = need("scipy.interpolate").RegularGridInterpolator
    between = interpolator(
        (grid.y[rows], grid.x[columns]), level, bounds_error=False, fill_value=None)
    return between(np.stack(points, -1))
