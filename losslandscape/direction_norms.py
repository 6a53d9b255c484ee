"""How long directions are, tensor by tensor, and the angle between them.

    norms_table(directions)                    the tensors by number
    norms_table(directions, names, weights)    by name, and relative to the norms of the weights
    angle(directions)                          in degrees
"""

import math

import numpy as np

from losslandscape.errors import InputError
from losslandscape.messages import printable


def norm(arrays):
    """Euclidean norm of some arrays, taken as one vector; in float64."""
    squares = [np.square(np.asarray(array, float)).sum() for array in arrays]
    return math.sqrt(sum(squares))


def angle(directions):
    """Angle between the axes in degrees, 0 to 180; None where one of them is zero.

    2 atan2(|u - v|, |u + v|) of the unit vectors u and v, which keeps its digits where the axes are
    nearly parallel, as the cosine does not (Kahan, How Futile are Mindless Assessments of Roundoff
    in Floating-Point Computation?, 2006, section 12).

    Raises InputError where there is one axis only, or the axes have different shapes.
    """
    if directions.y is None:
        raise InputError("expected two directions for an angle, got one; give --dimensions 2")
    if [np.shape(dx) for dx in directions.x] != [np.shape(dy) for dy in directions.y]:
        raise InputError("expected x and y directions of the same shapes; the file is damaged")

    x_norm, y_norm = norm(directions.x), norm(directions.y)
    if x_norm == 0 or y_norm == 0:
        return None
    unit_x = [np.asarray(dx, float) / x_norm for dx in directions.x]
    unit_y = [np.asarray(dy, float) / y_norm for dy in directions.y]
    difference = norm([u - v for u, v in zip(unit_x, unit_y, strict=True)])
    total = norm([u + v for u, v in zip(unit_x, unit_y, strict=True)])
    return math.degrees(2 * math.atan2(difference, total))


def norms_table(directions, names=None, weights=None):
    """Lines of text: a heading, one line per tensor, and the norms of the whole directions.

    names: of the tensors; without them their numbers. weights: the tensors of the network at the
    origin, as arrays; with them the norms are given relative to the weights', too.
    """
    count = len(directions.x)
    if names is None:
        names = [str(i) for i in range(count)]
    axes = {"dx": directions.x}
    if directions.y is not None and len(directions.y) == count:
        axes["dy"] = directions.y

    heading = ["tensor", "shape", *(f"|{axis}|" for axis in axes)]
    if weights is not None:
        heading += [f"|{axis}|/|w|" for axis in axes]

    rows = [heading]
    for i in range(count):
        row = [printable(names[i]), shape_in_words(directions.x[i])]
        pieces = [[arrays[i]] for arrays in axes.values()]
        rows.append(row + norm_cells(pieces, weights and [weights[i]]))
    rows.append(["all", f"{count} tensors", *norm_cells(list(axes.values()), weights)])
    return aligned(rows)


def norm_cells(axes, weights):
    """The norm of each axis (a list of arrays), then its ratio to the norm of the weights, if any."""
    lengths = [norm(arrays) for arrays in axes]
    cells = [f"{length:.4g}" for length in lengths]
    if weights is None:
        return cells

    own = norm(weights)
    for length in lengths:
        if own == 0:
            cells.append("-")
        else:
            cells.append(f"{length / own:.4g}")
    return cells


def shape_in_words(array):
    """'16x3x3x3'; 'number' for a tensor without dimensions."""
    return "x".join(str(n) for n in np.shape(array)) or "number"


def aligned(rows):
    """Rows of cells as lines: the first two columns flush left, numbers flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(cells))
    return lines
