"""Flatness of a loss surface in numbers.

    python flatness.py S.h5                                   a table on stdout
    python flatness.py A.h5 B.h5 --surf_name test_loss        several surfaces side by side
    python flatness.py A.h5 --tau 0.1 1 --epsilon 0.2 --json  one JSON document, to read by machine

What is measured, f being the surface and c the grid point of the checkpoint (0, 0):

    loss at the centre         f(c)
    basin of threshold tau     the part of {f <= f(c) + tau} that is connected to c: its width (1-D), its share of
                               the plane (2-D)
    sharpness                  100 (max f - f(c)) / (1 + f(c)) over the box of radius epsilon around c
    curvature at the centre    second derivative along each axis, with an error estimate
    locally convex             share of the points whose finite-difference Hessian has no negative eigenvalue

Distances are in the coordinates of the plot. With filter-normalized directions 1 is the length of the weights, filter
by filter, which is what makes the numbers of two networks comparable (Li et al. 2018, section 4). They describe the
line or plane that was drawn, nothing else: a plane can miss the sharp directions. A basin of a handful of points is
not resolved by the grid; compute a finer surface before you compare.

A grid without a point at 0 (an even count) is measured around its point nearest to 0, and the output says so: a loss
that was computed, rather than one that was interpolated. Points that are not computed, NaN or infinite lie outside
every basin and have no curvature; the output counts them.
"""

import math
import re
from functools import partial
from itertools import product

import numpy as np

from losslandscape.errors import InputError

TAUS = (0.1, 0.5, 1.0)
EPSILON = 0.2  # reached exactly by the usual grids of 11, 21, 51 and 101 points on [-1, 1]


def measures(surface, name="train_loss", taus=TAUS, epsilon=EPSILON):
    """All measures of one surface as a dict of plain numbers; None stands where a measure is not defined.

        name, dimensions (1 or 2), points, uncomputed, not_finite (NaN or inf among the computed ones)
        centre     {x, y (2-D), loss, exact}: `exact` is False when the grid has no point at 0
        basins     one {tau, width (1-D) or area_fraction (2-D), reaches_edge, points} per threshold: `points` of the
                   grid lie in the basin
        sharpness  {epsilon, reach, percent}: `reach` is how far the grid points of the box reach
        curvature  {x: {value, error}, y: ... (2-D)}
        convex     {share, points}: `points` have a full neighbourhood of finite values

    Raises InputError for an unknown name, an accuracy, a grid that is uneven, too small or without 0 in its range,
    and a centre that is not computed or not finite.
    """
    accuracy = re.fullmatch(r"(.+)_acc(_low|_high|_iqr)?", name)
    if accuracy:
        raise InputError(f"expected a loss or an error, whose minima have a width; got {name!r}; take "
                         f"{accuracy[1]}_{'err' if accuracy[1] in ('train', 'test') else 'loss'}")
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise InputError(f"expected a radius epsilon > 0, got {epsilon}; for example 0.2")
    for tau in taus:
        if not (tau > 0 and math.isfinite(tau)):
            raise InputError(f"expected thresholds tau > 0, got {tau}; for example 0.1 0.5 1")
    masked = surface.get(name)
    grid = surface.grid
    axes = [axis for axis in (grid.x, grid.y) if axis is not None]
    steps = [_step(axis, letter) for axis, letter in zip(axes, "xy", strict=False)]
    values = np.ma.filled(masked.astype(float), np.nan)  # (ny, nx) or (nx,)

    centre = _centre(axes, values, np.ma.getmaskarray(masked), name)
    loss = float(values[centre])
    position = [float(axis[i]) for axis, i in zip(axes, centre[::-1], strict=True)]
    basins = []
    measure = partial(basin_width, grid.x) if len(axes) == 1 else basin_area
    for tau in taus:
        size, edge, count = measure(values, centre, tau)
        key = "width" if len(axes) == 1 else "area_fraction"
        basins.append({"tau": tau, key: size, "reaches_edge": edge, "points": count})
    share, points = convex_share(values, steps)
    reach, percent = sharpness(axes, values, centre, epsilon)
    lines = [values] if len(axes) == 1 else [values[centre[0]], values[:, centre[1]]]
    curvatures = [curvature(line, i, step) for line, i, step in zip(lines, centre[::-1], steps, strict=True)]
    return {
        "name": name,
        "dimensions": len(axes),
        "points": values.size,
        "uncomputed": int(np.ma.count_masked(masked)),
        "not_finite": int((~np.isfinite(masked.compressed())).sum()),
        "centre": dict(zip("xy", position, strict=False)) | {
            "loss": loss,
            "exact": all(abs(p) <= 1e-6 * step for p, step in zip(position, steps, strict=True)),
        },
        "basins": basins,
        "sharpness": {"epsilon": epsilon, "reach": reach, "percent": percent},
        "curvature": {letter: {"value": value, "error": error}
                      for letter, (value, error) in zip("xy", curvatures, strict=False)},
        "convex": {"share": share, "points": points},
    }


def _step(axis, letter):
    """Spacing of an axis; InputError unless it is even, ascending and has 0 in its range."""
    if len(axis) < 2:
        raise InputError(f"expected at least 2 points along {letter}, got {len(axis)}; compute a finer surface")
    step = (axis[-1] - axis[0]) / (len(axis) - 1)
    if not (step > 0 and np.allclose(np.diff(axis), step, rtol=1e-6, atol=0)):
        raise InputError(f"expected ascending, evenly spaced {letter} coordinates, got {axis[:3]}...; "
                         "compute the surface on a regular grid")
    if not axis[0] - 1e-6 * step <= 0 <= axis[-1] + 1e-6 * step:
        raise InputError(f"expected 0, the checkpoint, between the limits of {letter}, got [{axis[0]}, {axis[-1]}]; "
                         "compute a surface around 0")
    return float(step)


def _centre(axes, values, mask, name):
    """Index of the grid point nearest to 0; of equally near ones the lowest, so that mirrored surfaces agree."""
    near = []
    for axis in axes:
        distance = np.abs(axis)
        near.append(np.flatnonzero(distance <= distance.min() * (1 + 1e-6) + 1e-12))
    candidates = list(product(*(indices.tolist() for indices in near[::-1])))  # (row, column)
    for index in candidates:
        if mask[index]:
            raise InputError(f"expected {name} at the centre, but that point is not computed yet; resume the run first")
    centre = min(candidates, key=lambda index: (np.isnan(values[index]), values[index]))
    if not np.isfinite(values[centre]):
        raise InputError(f"expected a finite {name} at the centre, got {values[centre]}; "
                         "there is no minimum to measure")
    return centre


def basin_width(x, values, centre, tau):
    """(width, reaches_edge, points) of the basin of a curve.

    The width is the length of the connected part of {x : f(x) <= f(c) + tau} that contains c, where f is the piecewise
    linear interpolant of the points: exact for piecewise linear curves, O(h^2) for smooth ones. Where `reaches_edge`,
    the basin goes on beyond the plot and the width is a lower bound.

    Source: the extent of the region of low loss around a minimum as a measure of flatness, Hochreiter and Schmidhuber,
    Flat Minima, Neural Computation 1997; here along one line.
    """
    (i,) = centre
    level = values[i] + tau
    width, reaches_edge, points = 0.0, False, 1
    for step in (-1, 1):
        j = i
        while 0 <= j + step < len(x) and values[j + step] <= level:  # False for NaN
            j += step
            points += 1
        width += abs(x[j] - x[i])
        if not 0 <= j + step < len(x):
            reaches_edge = True
        elif np.isfinite(values[j + step]):
            width += abs(x[j + step] - x[j]) * (level - values[j]) / (values[j + step] - values[j])
    return float(width), reaches_edge, points


def basin_area(values, centre, tau):
    """(area_fraction, reaches_edge, points) of the basin of a surface (ny, nx) on a regular grid.

    The share of the rectangle that is covered by the connected part of {f <= f(c) + tau} that contains c. Here f is
    linear on the four triangles of each grid cell that meet in the cell's middle, where f is the mean of the four
    corners: area and connection are those of this surface, with no favoured diagonal. Exact for surfaces that are
    linear in each triangle, O(h^2) for smooth ones. A cell with a corner that is not a finite number lies outside.

    Source: as `basin_width`, in a plane.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ny, nx = values.shape
    f = np.where(np.isfinite(values), values, np.inf)
    level = f[centre] + tau
    with np.errstate(over="ignore"):
        middle = (f[:-1, :-1] + f[:-1, 1:] + f[1:, 1:] + f[1:, :-1]) / 4  # (ny-1, nx-1)
    heights = np.concatenate([f.ravel(), middle.ravel()])
    corner = np.arange(ny * nx).reshape(ny, nx)
    ring = [corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]]
    hub = ny * nx + np.arange(middle.size).reshape(middle.shape)
    triangles = np.concatenate([np.stack([a, b, hub], -1).reshape(-1, 3)
                                for a, b in zip(ring, ring[1:] + ring[:1], strict=True)])  # (4 (ny-1)(nx-1), 3)
    # the vertices below the level, joined by the edges between them, are connected as the region itself is
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = edges[(heights[edges] <= level).all(1)]
    graph = coo_array((np.ones(len(edges), bool), edges.T), shape=(heights.size,) * 2)
    _, label = connected_components(graph, directed=False)
    inside = (label == label[corner[centre]]) & (heights <= level)  # per vertex
    triangles = triangles[inside[triangles].any(1)]
    covered = _share_below(np.sort(heights[triangles], axis=1), level).sum()
    basin = inside[: ny * nx].reshape(ny, nx)
    edge = basin[0].any() or basin[-1].any() or basin[:, 0].any() or basin[:, -1].any()
    return float(covered / (4 * middle.size)), bool(edge), int(basin.sum())


def _share_below(sorted_heights, level):
    """Share of each triangle on which the linear function with corner heights a <= b <= c is at most `level`."""
    lowest, middle, highest = sorted_heights.T
    share = np.zeros(len(sorted_heights))
    share[highest <= level] = 1
    cut = (lowest <= level) & (level < highest) & np.isfinite(highest)  # an infinite corner leaves 0, the limit
    a, b, c = sorted_heights[cut & (level < middle)].T
    share[cut & (level < middle)] = (level - a) / (b - a) * ((level - a) / (c - a))
    a, b, c = sorted_heights[cut & (middle <= level)].T
    share[cut & (middle <= level)] = 1 - (c - level) / (c - a) * ((c - level) / (c - b))
    return share


def sharpness(axes, values, centre, epsilon):
    """(reach, percent): 100 (max f - f(c)) / (1 + f(c)) over the grid points with |x - cx|, |y - cy| <= epsilon.

    `reach` is how far those points reach, along the axis where they reach least: two surfaces compare only at the same
    reach. Both are None when the box holds no grid point but the centre along some axis; percent is None too where
    f(c) <= -1. NaN and uncomputed points are left out of the maximum; an infinite loss makes it infinite.

    Source: Keskar et al., On Large-Batch Training for Deep Learning, ICLR 2017, metric 2.1; their box around all
    weights is replaced by the box in the plotted line or plane, whose coordinates are relative to the weights already.
    """
    offsets = [np.abs(axis - axis[i]) for axis, i in zip(axes, centre[::-1], strict=True)]
    inside = [offset <= epsilon * (1 + 1e-9) for offset in offsets]
    reach = min(float(offset[mask].max()) for offset, mask in zip(offsets, inside, strict=True))
    if reach == 0:
        return None, None
    box = values[np.ix_(*inside[::-1])]
    loss = values[centre]
    return reach, float(100 * (np.nanmax(box) - loss) / (1 + loss)) if loss > -1 else None


def curvature(line, i, step):
    """(value, error) of the second derivative of `line` (n,) at point i.

    D(h) = (f(c + h) - 2 f(c) + f(c - h)) / h^2 has the error h^2 f''''/12 + O(h^4), so with the steps h and 2h
    Richardson's extrapolation (4 D(h) - D(2h)) / 3 cancels the first term: exact up to fifth-degree polynomials. The
    error estimate is what it moved: |D(h) - D(2h)| / 3, an estimate of the error of D(h) itself. Where the points at 2h
    are missing the value is D(h) and the error None; where those at h are missing both are None.

    Source: Richardson, Phil. Trans. R. Soc. A 210, 1911; as in Press et al., Numerical Recipes, section 5.7.
    """
    differences = []
    for k in (1, 2):
        if i - k < 0 or i + k >= len(line):
            break
        difference = (line[i + k] - 2 * line[i] + line[i - k]) / (k * step) ** 2
        if not np.isfinite(difference):
            break
        differences.append(float(difference))
    if not differences:
        return None, None
    if len(differences) == 1:
        return differences[0], None
    d1, d2 = differences
    return (4 * d1 - d2) / 3, abs(d1 - d2) / 3


def convex_share(values, steps):
    """(share, points): share of the inner points where the surface is locally convex, and how many could be judged.

    The Hessian at a point comes from central differences over its 3 x 3 neighbours, f_xy = (f(+,+) - f(+,-) - f(-,+)
    + f(-,-)) / (4 hx hy); convex means that its smaller eigenvalue is >= 0, less the rounding error of the differences
    (so that a plane and a trough count as convex). On a curve: f'' >= 0. Points with a neighbour that is not a finite
    number are not judged; share is None when none is left.

    Source: Li et al. 2018, section 6: curvature in a plane is a weighted average of the curvatures of the full loss,
    so a point that is not convex here is not convex in the full space either; the converse does not hold.
    """
    noise = 16 * np.finfo(float).eps
    with np.errstate(invalid="ignore", over="ignore"):
        if values.ndim == 1:
            (h,) = steps
            smallest = (values[2:] - 2 * values[1:-1] + values[:-2]) / h**2
            size = np.max([np.abs(values[:-2]), np.abs(values[1:-1]), np.abs(values[2:])], axis=0, initial=0)
            tolerance = noise * size / h**2
        else:
            hx, hy = steps
            middle = values[1:-1, 1:-1]
            xx = (values[1:-1, 2:] - 2 * middle + values[1:-1, :-2]) / hx**2  # (ny-2, nx-2)
            yy = (values[2:, 1:-1] - 2 * middle + values[:-2, 1:-1]) / hy**2
            xy = (values[2:, 2:] - values[2:, :-2] - values[:-2, 2:] + values[:-2, :-2]) / (4 * hx * hy)
            smallest = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
            size = np.max([np.abs(values[j : values.shape[0] - 2 + j, i : values.shape[1] - 2 + i])
                           for i in range(3) for j in range(3)], axis=0)
            tolerance = noise * size / min(hx, hy) ** 2
        judged = np.isfinite(smallest) & np.isfinite(size)
        points = int(judged.sum())
        return (float((smallest >= -tolerance)[judged].mean()), points) if points else (None, 0)
