# ruff: noqa
"""What a 2-D figure shows."""

import os
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.pictures import style as figures


@dataclass(frozen=True)
class Plane:
    """What is drawn: z (ny, nx) is finite or NaN; `bad` says why a point is NaN ({kind: mask (ny, nx)})."""

    x: np.ndarray  # (nx,)
    y: np.ndarray  # (ny,)
    z: np.ndarray  # (ny, nx), row = y
    computed: np.ndarray  # (ny, nx) bool; the other values of z are interpolated
    bad: dict
    name: str
    title: str

    @property
    def finite(self):
        return self.z[np.isfinite(self.z)]


def read_2d(path):
    """Surface of a 2-D file with increasing coordinates."""
    surface = h5_util.read_surface(path)
    if surface.grid.y is None:
        raise InputError(f"expected a 2-D surface, {path} has the 1-D grid {surface.grid}; use plot_1D.py")
    for axis in (surface.grid.x, surface.grid.y):
        if not (np.isfinite(axis).all() and (np.diff(axis) > 0).all()):
            raise InputError(f"expected increasing coordinates in {path}; the file is damaged")
    return surface


def make_plane(surface, values, name, path, title=None):
    """Plane of the masked array `values` (ny, nx); what is not computed comes from the finished coarse points."""
    computed = ~np.ma.getmaskarray(values)
    if not computed.any():
        raise InputError(f"nothing of {name} is computed yet in {path}; run plot_surface.py on it first")
    filled = values if computed.all() else from_coarse(surface.grid, values)
    if title is None:
        model = surface.provenance.get("model")
        title = figures.heading(model if isinstance(model, str) else "", figures.plain_name(name).removesuffix(" (%)"))
    title += unfinished(values, filled) if title else ""
    z = np.ma.masked_invalid(filled).filled(np.nan)
    return Plane(surface.grid.x, surface.grid.y, z, computed, figures.bad_points(filled), name, title)


def unfinished(values, filled):
    """A second line, '12 % of the points, interpolated', or '' where all points are computed."""
    share = figures.share_done(values)
    if share == 1:
        return ""
    return f"\n{figures.percent(share)} of the points" + (", interpolated" if filled is not values else "")


def from_coarse(grid, values):
    """Masked array (ny, nx) with the gaps filled from the finest finished level of a coarse-to-fine run.

    Level k holds the rows and columns whose number, counted from the middle, is a multiple of 2^k. Starting at the
    finest level that is complete, each finer one keeps its computed points and gets the rest by linear interpolation
    (of the logarithm where all values are above 0, because losses span decades). A point whose nearest computed point
    is NaN or inf takes that value. Without a complete level (at least 2 x 2 points) `values` is returned as it is.
    """
    mask, data = np.ma.getmaskarray(values), np.ma.getdata(values).astype(float)
    finite = np.isfinite(data) & ~mask
    step, lines = 1, None
    while step < max(mask.shape):
        step *= 2
        lines = [np.arange(n // 2 % step, n, step) for n in mask.shape]
        if not mask[np.ix_(*lines)].any():
            break
    else:
        return values
    if min(map(len, lines)) < 2 or not finite.any():
        return values

    def nearest(known):  # for each point the value of the nearest known one
        transform = figures.need("scipy.ndimage").distance_transform_edt
        return data[tuple(transform(~known, return_distances=False, return_indices=True))]

    interpolator = figures.need("scipy.interpolate").RegularGridInterpolator
    positive = (data[finite] > 0).all()
    smooth = np.where(finite, data, nearest(finite))
    smooth = np.log(smooth) if positive else smooth
    level = smooth[np.ix_(*lines)]
    while step > 1:
        step //= 2
        finer = [np.arange(n // 2 % step, n, step) for n in mask.shape]
        points = tuple(axis[i] for axis, i in zip((grid.y, grid.x), lines, strict=True))
        at = np.stack(np.meshgrid(grid.y[finer[0]], grid.x[finer[1]], indexing="ij"), -1)
        # the border lies outside the coarse points: fill_value=None carries the slope on
        between = interpolator(points, level, bounds_error=False, fill_value=None)(at)
        here = np.ix_(*finer)
        level, lines = np.where(mask[here], between, smooth[here]), finer
    claim = nearest(~mask)
    filled = np.where(np.isfinite(claim), np.exp(level) if positive else level, claim)
    return np.ma.masked_array(np.where(mask, filled, data), np.zeros(mask.shape, bool))
