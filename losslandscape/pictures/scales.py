# ruff: noqa
"""Levels and colours of 2-D figures."""

import os
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.pictures import style as figures


LOSS_RANGE = (0.1, 10.0, 0.5)  # the usual --vmin, --vmax, --vlevel for a loss


LOSS_TOP = 10.0  # the usual --zlim for a loss


MOST_LEVELS = 1000


@dataclass(frozen=True)
class Scale:
    """Contour levels (those that lie inside the data) and the range of the colours."""

    levels: np.ndarray
    low: float
    high: float
    log: bool

    def norm(self):
        from matplotlib.colors import LogNorm, Normalize

        return (LogNorm if self.log else Normalize)(self.low, self.high)

    def extend(self, z):
        """Which ends of the colour bar get an arrow because values go on beyond it."""
        below, above = bool((z < self.low).any()), bool((z > self.high).any())
        return (("neither", "max"), ("min", "both"))[below][above]


def choose_scale(planes, vmin=None, vmax=None, vlevel=None, log=False):
    """Scale for the planes together. None: 0.1, 10, 0.5 for a loss; from the data for others and on a log scale.

    Where the levels asked for leave the picture empty, a note says so and the data choose.
    """
    check_range(vmin, vmax, vlevel)
    z = np.concatenate([p.finite for p in planes])
    if not len(z):
        return Scale(np.array([]), 0.0, 1.0, False)
    name = planes[0].name
    if log and not (z > 0).any():
        figures.note(f"a log scale needs values above 0, {name} has none; the scale is linear")
        log = False
    if log:
        z = z[z > 0]
    low, high = float(z.min()), float(z.max())
    given = not (vmin is None and vmax is None and vlevel is None)
    usual = LOSS_RANGE if figures.is_loss(name) and not log else (None, None, None)
    if given or usual[0] is not None:
        bottom, top, step = (v if v is not None else u for v, u in zip((vmin, vmax, vlevel), usual, strict=True))
        bottom, top = low if bottom is None else bottom, high if top is None else top
        if log and bottom <= 0:
            raise InputError(f"expected --vmin above 0 with --log, got {bottom:g}")
        if log:
            levels = log_levels(bottom, top)
        elif bottom >= top:
            levels = np.array([])
        elif step:
            levels = stepped_levels(bottom, top, step)
        else:
            levels = linear_levels(bottom, top)
        inside = levels[(levels > low) & (levels < high)]
        ends = (max(bottom, low) if vmin is None else bottom, min(top, high) if vmax is None else top)
        if len(inside) >= (1 if given else 3) and ends[0] < ends[1]:
            return Scale(inside, *ends, log)
        if low < high:
            text = f"levels from {bottom:g} to {top:g}" + (f" in steps of {step:g}" if step and not log else "")
            figures.note(f"{text} leave {'the' if given else 'almost the whole'} picture empty "
                         f"({name} goes from {low:.4g} to {high:.4g}); levels chosen from the data")
    log = log or (low > 0 and high / low > 100 and not figures.in_percent(name))
    levels = log_levels(low, high) if log else linear_levels(low, high)
    return Scale(levels[(levels > low) & (levels < high)], low, high if high > low else low + (abs(low) or 1.0), log)


def check_range(vmin, vmax, vlevel):
    for flag, value in (("--vmin", vmin), ("--vmax", vmax), ("--vlevel", vlevel)):
        if value is not None and not np.isfinite(value):
            raise InputError(f"expected a finite number for {flag}, got {value}")
    if vlevel is not None and vlevel <= 0:
        raise InputError(f"expected --vlevel above 0, got {vlevel:g}; for example 0.5")
    if vmin is not None and vmax is not None and not vmin < vmax:
        raise InputError(f"expected --vmin below --vmax, got {vmin:g} and {vmax:g}")


def stepped_levels(bottom, top, step):
    """bottom, bottom + step, ... up to and with top."""
    count = (top - bottom) / step
    if count > MOST_LEVELS:
        raise InputError(f"expected at most {MOST_LEVELS} contour levels, --vmin {bottom:g} --vmax {top:g} "
                         f"--vlevel {step:g} make {count:.3g}; take a larger --vlevel")
    return bottom + step * np.arange(int(count + 1e-9) + 1)


def linear_levels(low, high):
    """About ten round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(10, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)


def log_levels(low, high):
    """Round numbers that are about evenly spaced in the logarithm, between low and high (both above 0)."""
    decades = np.log10(high / low) if high > low else 0.0
    if decades < 0.7:
        levels = linear_levels(low, high)
    else:
        digits = next(d for most, d in ((1.3, (1, 1.5, 2, 3, 4, 5, 7)), (4, (1, 2, 5)), (8, (1, 3)), (np.inf, (1,)))
                      if decades < most)
        exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1, max(1, np.ceil(decades / 16)))
        levels = np.array([d * 10.0**e for e in exponents for d in digits])
    return levels[(levels >= low * (1 - 1e-9)) & (levels <= high * (1 + 1e-9))]


def line_colours():
    """The colour map without its brightest fifth, which thin lines on white paper would lose."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps[figures.COLOUR_MAP](np.linspace(0, 0.8, 256)))


def drawable(plane, scale):
    """z as matplotlib takes it: NaN masked, and on a log scale values of 0 or less below all others (not left out)."""
    z = np.ma.masked_invalid(plane.z)
    return np.maximum(z, 0.5 * plane.finite[plane.finite > 0].min()) if scale.log else z


def height_range(name, low, high, zlim, log):
    """(bottom, top, cut) of the z axis in its own units (log10 with `log`); `cut`: the surface goes on above it."""
    if zlim is None and figures.is_loss(name) and not log and low < LOSS_TOP < high:
        zlim = LOSS_TOP
    top = high if zlim is None else np.log10(zlim) if log and zlim > 0 else -np.inf if log else zlim
    if top <= low < high:
        figures.note(f"no {name} is below --zlim {zlim:g}; the axis goes up to the highest")
        top = high
    bottom = min(0.0, low) if not log and low < 0.25 * top else low
    return bottom, top if top > bottom else bottom + 1.0, top < high


def format_height(axis, bottom, top, log):
    """Ticks of the z axis; returns the power of ten that its label names: long numbers would run into the label."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    if log:
        levels = log_levels(10.0**bottom, 10.0**top)
        levels = levels[:: -(-len(levels) // 5)]
        axis.set_major_locator(FixedLocator(np.log10(levels)))
        axis.set_major_formatter(lambda value, _: figures.number(float(f"{10.0**value:.6g}")))
        return ""
    power = int(np.floor(np.log10(max(abs(top), abs(bottom)))))
    power = power if not -3 < power < 4 else 0
    axis.set_major_locator(MaxNLocator(4))
    axis.set_major_formatter(lambda value, _: f"{value / 10.0**power:g}")
    return rf" ($\times 10^{{{power}}}$)" if power else ""
