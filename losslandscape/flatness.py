"""Flatness of a loss surface in numbers.

    measures(surface)                                     all of them, as a dict
    basin_width, basin_area, sharpness, curvature, convex_share      each one

With f the surface and c the grid point of the checkpoint (0, 0):

    loss at the centre         f(c)
    basin of threshold tau     the part of {f <= f(c) + tau} that is connected to c: its width (1-D),
                               its share of the plane (2-D)
    sharpness                  100 (max f - f(c)) / (1 + f(c)) over the box of radius epsilon around c
    curvature at the centre    second derivative along each axis, with an error estimate
    locally convex             share of the points whose finite-difference Hessian has no negative
                               eigenvalue

A grid without a point at 0 (an even count) is measured around its point nearest to 0: a loss that
was computed, rather than one that was interpolated. Points that are not computed, NaN or infinite
lie outside every basin and have no curvature.
"""

import math
import re
from functools import partial
from itertools import product

import numpy as np

from losslandscape.errors import InputError

TAUS = (0.1, 0.5, 1.0)
LARGEST = 1e150  # of coordinates: its square, by which curvature divides, is still a number
EPSILON = 0.2  # reached exactly by the usual grids of 11, 21, 51 and 101 points on [-1, 1]


def measures(surface, name="train_loss", taus=TAUS, epsilon=EPSILON):
    """All measures of one surface as a dict of plain numbers; None where a measure is not defined.

        name, dimensions (1 or 2), points, uncomputed, not_finite (NaN or inf among the computed)
        centre     {x, y (2-D), loss, exact}: `exact` is False when the grid has no point at 0
        basins     one {tau, width (1-D) or area_fraction (2-D), reaches_edge, points} per
                   threshold: `points` of the grid lie in the basin
        sharpness  {epsilon, reach, percent}: `reach` is how far the grid points of the box reach
        curvature  {x: {value, error}, y: ... (2-D)}
        convex     {share, points}: `points` have a full neighbourhood of finite values

    Raises InputError for an unknown name, an accuracy, a grid that is uneven, too small or without 0
    in its range, and a centre that is not computed or not finite.
    """
    check_measurable(name, taus, epsilon)
    masked = surface.get(name)
    axes = surface.grid.axes
    steps = [step_of_axis(axis, letter) for axis, letter in zip(axes, "xy", strict=False)]
    values = np.ma.filled(masked.astype(float), np.nan)  # (ny, nx) or (nx,)
    centre = find_centre(axes, values, np.ma.getmaskarray(masked), name)

    share, points = convex_share(values, steps)
    reach, percent = sharpness(axes, values, centre, epsilon)
    return {
        "name": name,
        "dimensions": len(axes),
        "points": values.size,
        "uncomputed": int(np.ma.count_masked(masked)),
        "not_finite": int((~np.isfinite(masked.compressed())).sum()),
        "centre": centre_measures(axes, steps, values, centre),
        "basins": [basin_measures(axes, values, centre, tau) for tau in taus],
        "sharpness": {"epsilon": epsilon, "reach": reach, "percent": percent},
        "curvature": curvature_measures(values, centre, steps),
        "convex": {"share": share, "points": points},
    }


def check_measurable(name, taus, epsilon):
    """Raises InputError unless `name` may have a minimum with a width, and the lengths are positive."""
    accuracy = re.fullmatch(r"(.+)_acc(_low|_high|_iqr)?", name)
    if accuracy:
        split = accuracy[1]
        better = f"{split}_loss"
        if split in ("train", "test"):
            better = f"{split}_err"
        raise InputError("expected a loss or an error, whose minima have a width; "
                         f"got {name!r}; take {better}")

    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise InputError(f"expected a radius epsilon > 0, got {epsilon}; for example 0.2")
    for tau in taus:
        if not (tau > 0 and math.isfinite(tau)):
            raise InputError(f"expected thresholds tau > 0, got {tau}; for example 0.1 0.5 1")


def centre_measures(axes, steps, values, centre):
    """{x, y (2-D), loss, exact} of the grid point `centre`."""
    position = {}
    is_exact = True
    for letter, axis, step, index in zip("xy", axes, steps, centre[::-1], strict=False):
        position[letter] = float(axis[index])
        if abs(axis[index]) > 1e-6 * step:
            is_exact = False
    return position | {"loss": float(values[centre]), "exact": is_exact}


def basin_measures(axes, values, centre, tau):
    """{tau, width (1-D) or area_fraction (2-D), reaches_edge, points} of one basin."""
    if len(axes) == 1:
        name, measure = "width", partial(basin_width, axes[0])
    else:
        name, measure = "area_fraction", basin_area
    size, reaches_edge, points = measure(values, centre, tau)
    return {"tau": tau, name: size, "reaches_edge": reaches_edge, "points": points}


def curvature_measures(values, centre, steps):
    """{letter: {value, error}} along the axes through the centre."""
    if values.ndim == 1:
        lines = [values]
    else:
        row, column = centre
        lines = [values[row], values[:, column]]

    measured = {}
    for letter, line, index, step in zip("xy", lines, centre[::-1], steps, strict=False):
        value, error = curvature(line, index, step)
        measured[letter] = {"value": value, "error": error}
    return measured


# ---------------------------------------------------------------- the grid and its centre


def step_of_axis(axis, letter):
    """Spacing of an axis; InputError unless it is even, ascending and has 0 in its range."""
    if len(axis) < 2:
        raise InputError(f"expected at least 2 points along {letter}, got {len(axis)}; "
                         "compute a finer surface")

    if not (np.isfinite(axis).all() and np.abs(axis).max() <= LARGEST):
        raise InputError(f"expected {letter} coordinates of at most {LARGEST:g}, "
                         f"got [{axis[0]}, {axis[-1]}]; compute a smaller plot")
    step = (axis[-1] - axis[0]) / (len(axis) - 1)
    if 0 < step < 1 / LARGEST:
        raise InputError(f"expected {letter} coordinates at least {1 / LARGEST:g} apart, "
                         f"got {step:.2g}; compute a larger plot")
    if not (step > 0 and np.allclose(np.diff(axis), step, rtol=1e-6, atol=0)):
        raise InputError(f"expected ascending, evenly spaced {letter} coordinates, "
                         f"got {axis[:3]}...; compute the surface on a regular grid")
    if not axis[0] - 1e-6 * step <= 0 <= axis[-1] + 1e-6 * step:
        raise InputError(f"expected 0, the checkpoint, between the limits of {letter}, "
                         f"got [{axis[0]}, {axis[-1]}]; compute a surface around 0")
    return float(step)


def find_centre(axes, values, mask, name):
    """Index of the grid point nearest to 0.

    Of equally near ones the lowest, so that mirrored surfaces agree. Raises InputError where one of
    them is not computed, or the lowest is not finite.
    """
    near = []  # of each axis: the numbers of the points nearest to 0
    for axis in axes:
        distance = np.abs(axis)
        is_near = distance <= distance.min() * (1 + 1e-6) + 1e-12
        near.append(np.flatnonzero(is_near).tolist())

    candidates = list(product(*reversed(near)))  # (row, column)
    for index in candidates:
        if mask[index]:
            raise InputError(f"expected {name} at the centre, but that point is not computed yet; "
                             "resume the run first")

    centre = min(candidates, key=lambda index: (np.isnan(values[index]), values[index]))
    if not np.isfinite(values[centre]):
        raise InputError(f"expected a finite {name} at the centre, got {values[centre]}; "
                         "there is no minimum to measure")
    return centre


# ---------------------------------------------------------------- basins


def basin_width(x, values, centre, tau):
    """(width, reaches_edge, points) of the basin of a curve.

    The width is the length of the connected part of {x : f(x) <= f(c) + tau} that contains c, where
    f is the piecewise linear interpolant of the points: exact for piecewise linear curves, O(h^2)
    for smooth ones. Where `reaches_edge`, the basin goes on beyond the plot and the width is a lower
    bound.

    Source: the extent of the region of low loss around a minimum as a measure of flatness,
    Hochreiter and Schmidhuber, Flat Minima, Neural Computation 1997; here along one line.
    """
    (start,) = centre
    level = values[start] + tau
    width, reaches_edge, points = 0.0, False, 1
    for direction in (-1, 1):
        # the last point of the basin on this side
        last = start
        while 0 <= last + direction < len(x) and values[last + direction] <= level:  # not for NaN
            last += direction
            points += 1
        width += abs(x[last] - x[start])

        # and the part of the next interval that lies below the level
        outside = last + direction
        if not 0 <= outside < len(x):
            reaches_edge = True
        elif np.isfinite(values[outside]):
            rise = values[outside] - values[last]
            width += abs(x[outside] - x[last]) * (level - values[last]) / rise
    return float(width), reaches_edge, points


def basin_area(values, centre, tau):
    """(area_fraction, reaches_edge, points) of the basin of a surface (ny, nx) on a regular grid.

    The share of the rectangle that is covered by the connected part of {f <= f(c) + tau} that
    contains c. f is linear on the four triangles of each grid cell that meet in the cell's middle,
    where f is the mean of the four corners: area and connection are those of this surface, with no
    favoured diagonal. Exact for surfaces that are linear in each triangle, O(h^2) for smooth ones. A
    cell with a corner that is not a finite number lies outside.

    Source: as `basin_width`, in a plane.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    heights, triangles = triangulate(values)
    level = values[centre] + tau

    # the vertices below the level, joined by the edges between them, are connected as the region is
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = edges[(heights[edges] <= level).all(1)]
    graph = coo_array((np.ones(len(edges), bool), edges.T), shape=(heights.size,) * 2)
    _, component = connected_components(graph, directed=False)
    start = np.ravel_multi_index(centre, values.shape)
    is_inside = (component == component[start]) & (heights <= level)  # per vertex

    triangles_inside = triangles[is_inside[triangles].any(1)]
    covered = _share_below(np.sort(heights[triangles_inside], axis=1), level).sum()

    basin = is_inside[:values.size].reshape(values.shape)  # of the vertices that are grid points
    on_edge = basin[0].any() or basin[-1].any() or basin[:, 0].any() or basin[:, -1].any()
    return float(covered / len(triangles)), bool(on_edge), int(basin.sum())


def triangulate(values):
    """(heights, triangles) of a surface (ny, nx); four triangles per cell, of equal areas.

    heights: (ny nx + (ny-1)(nx-1),), of the grid points in row-major order, then of the middles of
    the cells; infinite where they are not finite. triangles: (4 (ny-1)(nx-1), 3) vertex numbers.
    """
    ny, nx = values.shape
    f = np.where(np.isfinite(values), values, np.inf)
    with np.errstate(over="ignore"):
        middles = (f[:-1, :-1] + f[:-1, 1:] + f[1:, 1:] + f[1:, :-1]) / 4  # (ny-1, nx-1)
    heights = np.concatenate([f.ravel(), middles.ravel()])

    # the corners of each cell, around it
    point = np.arange(ny * nx).reshape(ny, nx)
    corners = [point[:-1, :-1], point[:-1, 1:], point[1:, 1:], point[1:, :-1]]
    middle = ny * nx + np.arange(middles.size).reshape(middles.shape)

    triangles = []
    for first, second in ((0, 1), (1, 2), (2, 3), (3, 0)):
        vertices = np.stack([corners[first], corners[second], middle], axis=-1)
        triangles.append(vertices.reshape(-1, 3))
    return heights, np.concatenate(triangles)


def _share_below(sorted_heights, level):
    """Share of each triangle on which a linear function is at most `level`.

    sorted_heights: (n, 3), its heights a <= b <= c at the corners. An infinite corner leaves 0, the
    limit.
    """
    lowest, middle, highest = sorted_heights.T
    share = np.zeros(len(sorted_heights))
    share[highest <= level] = 1
    is_cut = (lowest <= level) & (level < highest) & np.isfinite(highest)

    # the level cuts off the lowest corner
    near_lowest = is_cut & (level < middle)
    a, b, c = sorted_heights[near_lowest].T
    share[near_lowest] = (level - a) / (b - a) * ((level - a) / (c - a))

    # or all but the highest
    near_highest = is_cut & (middle <= level)
    a, b, c = sorted_heights[near_highest].T
    share[near_highest] = 1 - (c - level) / (c - a) * ((c - level) / (c - b))
    return share


# ---------------------------------------------------------------- sharpness, curvature, convexity


def sharpness(axes, values, centre, epsilon):
    """(reach, percent) with percent = 100 (max f - f(c)) / (1 + f(c)).

    The maximum is over the grid points with |x - cx|, |y - cy| <= epsilon. `reach` is how far those
    points reach, along the axis where they reach least: two surfaces compare only at the same reach.
    Both are None when the box holds no grid point but the centre along some axis; percent is None
    too where f(c) <= -1. NaN and uncomputed points are left out of the maximum; an infinite loss
    makes it infinite.

    Source: Keskar et al., On Large-Batch Training for Deep Learning, ICLR 2017, metric 2.1; their
    box around all weights is replaced by the box in the plotted line or plane, whose coordinates are
    relative to the weights already.
    """
    reach = math.inf
    inside = []  # of each axis: (n,) bool
    for axis, index in zip(axes, centre[::-1], strict=True):
        offset = np.abs(axis - axis[index])
        is_near = offset <= epsilon * (1 + 1e-9)
        inside.append(is_near)
        reach = min(reach, float(offset[is_near].max()))
    if reach == 0:
        return None, None

    box = values[np.ix_(*reversed(inside))]
    loss = values[centre]
    if loss <= -1:
        return reach, None
    return reach, float(100 * (np.nanmax(box) - loss) / (1 + loss))


def curvature(line, i, step):
    """(value, error) of the second derivative of `line` (n,) at point i.

    D(h) = (f(c + h) - 2 f(c) + f(c - h)) / h^2 has the error h^2 f''''/12 + O(h^4), so with the
    steps h and 2h Richardson's extrapolation (4 D(h) - D(2h)) / 3 cancels the first term: exact up
    to fifth-degree polynomials. The error estimate is by how much it moved: |D(h) - D(2h)| / 3, an
    estimate of the error of D(h) itself. Where the points at 2h are missing the value is D(h) and
    the error None; where those at h are missing both are None.

    Source: Richardson, Phil. Trans. R. Soc. A 210, 1911; as in Press et al., Numerical Recipes,
    section 5.7.
    """
    differences = []  # D(h), D(2h)
    for k in (1, 2):
        if i - k < 0 or i + k >= len(line):
            break
        difference = (line[i + k] - 2 * line[i] + line[i - k]) / (k * step) ** 2
        if not np.isfinite(difference):
            break
        differences.append(float(difference))

    if len(differences) == 0:
        return None, None
    if len(differences) == 1:
        return differences[0], None
    d1, d2 = differences
    return (4 * d1 - d2) / 3, abs(d1 - d2) / 3


def convex_share(values, steps):
    """(share, points): share of the inner points where the surface is locally convex.

    points: how many could be judged, those with neighbours that are finite numbers; share is None
    when there are none. Convex means that the smallest eigenvalue of the Hessian is >= 0, less the
    rounding error of the differences (so that a plane and a trough count as convex).

    Source: Li et al. 2018, section 6: curvature in a plane is a weighted average of the curvatures
    of the full loss, so a point that is not convex here is not convex in the full space either; the
    converse does not hold.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if values.ndim == 1:
            smallest, tolerance = second_derivative(values, *steps)
        else:
            smallest, tolerance = smallest_eigenvalue(values, *steps)
        is_judged = np.isfinite(smallest) & np.isfinite(tolerance)
        is_convex = smallest >= -tolerance

    points = int(is_judged.sum())
    if points == 0:
        return None, 0
    return float(is_convex[is_judged].mean()), points


ROUNDING = 16 * np.finfo(float).eps  # of a difference of values, relative to the largest of them


def second_derivative(values, h):
    """(f'', its rounding error), both (n-2,), at the inner points of a curve (n,)."""
    before, middle, after = values[:-2], values[1:-1], values[2:]
    derivative = (after - 2 * middle + before) / h**2
    size = np.max([np.abs(before), np.abs(middle), np.abs(after)], axis=0, initial=0)
    return derivative, ROUNDING * size / h**2


def smallest_eigenvalue(values, hx, hy):
    """(smaller eigenvalue of the Hessian, its rounding error), both (ny-2, nx-2).

    At the inner points of a surface (ny, nx), by central differences over the 3 x 3 neighbours:
    f_xy = (f(+,+) - f(+,-) - f(-,+) + f(-,-)) / (4 hx hy).
    """
    middle = values[1:-1, 1:-1]
    xx = (values[1:-1, 2:] - 2 * middle + values[1:-1, :-2]) / hx**2
    yy = (values[2:, 1:-1] - 2 * middle + values[:-2, 1:-1]) / hy**2
    xy = (values[2:, 2:] - values[2:, :-2] - values[:-2, 2:] + values[:-2, :-2]) / (4 * hx * hy)
    smallest = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)

    # the largest absolute value among the neighbours
    ny, nx = values.shape
    size = np.zeros_like(middle)
    for row, column in product(range(3), range(3)):
        neighbours = values[row:ny - 2 + row, column:nx - 2 + column]
        size = np.maximum(size, np.abs(neighbours))
    return smallest, ROUNDING * size / min(hx, hy) ** 2
