"""Marks on a panel: hatched areas without a value, the trained model, the best point."""

import numpy as np

from losslandscape.pictures.panel import cell_edges
from losslandscape.pictures.style import hatch_bad
from losslandscape.pictures.words import number, of_repeats

# ---------------------------------------------------------------- areas without a value


def hatch_panel(ax, panel, cells):
    """Hatch the points without a value; returns the kinds of them, for the legend.

    cells: see `bad_rectangles`.
    """
    areas = {kind: bad_rectangles(panel, mask, cells) for kind, mask in panel.bad.items()}
    return hatch_bad(ax, areas)


def bad_rectangles(panel, mask, cells):
    """Corners [(4, 2)] of the areas of the points in the mask (ny, nx).

    cells: the area of a point is its cell, as in a heat map, or else the quads around it.
    """
    if cells:
        x, y = cell_edges(panel.x), cell_edges(panel.y)
        rows, columns = np.nonzero(mask)
    else:
        x, y = panel.x, panel.y
        rows, columns = np.nonzero(any_corner(mask))

    corners = []
    for row, column in zip(rows, columns, strict=True):
        left, right = x[column], x[column + 1]
        bottom, top = y[row], y[row + 1]
        corners.append([(left, bottom), (right, bottom), (right, top), (left, top)])
    return corners


def any_corner(mask):
    """Quads (ny - 1, nx - 1) with at least one corner in the mask (ny, nx)."""
    return mask[:-1, :-1] | mask[1:, :-1] | mask[:-1, 1:] | mask[1:, 1:]


# ---------------------------------------------------------------- points


def mark_points(ax, panel, centre=True):
    """Mark the best point and, with `centre`, the trained model at (0, 0); returns the entries."""
    from matplotlib.patheffects import withStroke

    look = {"color": "black", "linestyle": "none", "clip_on": False, "zorder": 5}
    handles = []
    if centre and panel.x[0] <= 0 <= panel.x[-1] and panel.y[0] <= 0 <= panel.y[-1]:
        cross = {"marker": "+", "markersize": 6, "markeredgewidth": 1.0}
        handles += ax.plot(0, 0, label="centre", **cross, **look)

    best = best_point(panel)
    if best is not None:
        row, column = best
        label = f"{extremum(panel.name)}, {number(panel.z[best])}"
        ring = {"marker": "o", "markersize": 5.5, "markerfacecolor": "none", "markeredgewidth": 0.8}
        handles += ax.plot(panel.x[column], panel.y[row], label=label, **ring, **look)

    for handle in handles:
        handle.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
    return handles


def best_point(panel):
    """(row, column) of the best computed point; None where no point is better than the others."""
    kind = extremum(panel.name)
    z = np.where(panel.computed, panel.z, np.nan)  # (ny, nx)
    finite = z[np.isfinite(z)]
    if kind is None or len(finite) == 0 or finite.min() == finite.max():
        return None

    if kind == "minimum":
        best = np.nanargmin(z)
    else:
        best = np.nanargmax(z)
    return np.unravel_index(best, z.shape)


def extremum(name):
    """The best point: 'minimum' of a loss or error, 'maximum' of an accuracy, None if unknown."""
    base, statistic = of_repeats(name)
    if statistic == "iqr":
        return None
    if base.endswith(("_loss", "_err")):
        return "minimum"
    if base.endswith("_acc"):
        return "maximum"
    return None
