"""Scales of 2-D figures: which contour levels are drawn, and which values have which colour.

    scale = choose_scale([panel], vmin=0.1, vmax=10, vlevel=0.5)

Several panels can share one scale. A loss has usual levels; anything else, and a log scale, gets
round numbers from the data.
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from losslandscape.errors import InputError
from losslandscape.pictures.style import COLOUR_MAP, note
from losslandscape.pictures.words import in_percent, is_loss

LOSS_RANGE = (0.1, 10.0, 0.5)  # the usual --vmin, --vmax, --vlevel for a loss
MIN_USUAL_LEVELS = 3  # of the usual levels, inside of the data; fewer show almost nothing
MIN_USUAL_SHARE = 0.05  # of the points, between the usual levels; with fewer the rest is empty
MAX_LEVELS = 1000
WIDE_RATIO = 100  # data that go over a larger ratio get a log scale of their own accord

# leading digits of the levels of a log scale: (up to this many decades, digits)
LOG_DIGITS = (
    (1.3, (1, 1.5, 2, 3, 4, 5, 7)),
    (4, (1, 2, 5)),
    (8, (1, 3)),
    (np.inf, (1,)),
)
MIN_LOG_DECADES = 0.7  # below, levels are evenly spaced
MAX_LOG_DECADES = 16  # above, decades are left out


@dataclass(frozen=True)
class Scale:
    """Contour levels (those that lie inside the data) and the range of the colours."""

    levels: np.ndarray
    low: float
    high: float
    log: bool

    def norm(self):
        """matplotlib's map from values to the range of the colours."""
        from matplotlib.colors import LogNorm, Normalize

        if self.log:
            return LogNorm(self.low, self.high)
        return Normalize(self.low, self.high)

    def extend(self, z):
        """Which ends of the colour bar get an arrow because values z go on beyond it."""
        goes_below = (z < self.low).any()
        goes_above = (z > self.high).any()
        if goes_below and goes_above:
            return "both"
        if goes_below:
            return "min"
        if goes_above:
            return "max"
        return "neither"


# ---------------------------------------------------------------- the choice


def choose_scale(panels, vmin=None, vmax=None, vlevel=None, log=False):
    """Scale for the panels together.

    None means 0.1, 10 and 0.5 for a loss of at least 0, and values from the data for others and on
    a log scale. Where the levels leave the picture empty, a note says so and the data choose.
    Raises InputError for limits that make no levels.
    """
    check_levels(vmin, vmax, vlevel)
    z = np.concatenate([panel.finite for panel in panels])
    if len(z) == 0:
        return Scale(np.array([]), 0.0, 1.0, False)

    name = panels[0].name
    if log:
        z, log = with_logarithm(z, name)

    # the limits of the user, completed by the usual ones; else those of the data
    limits = Limits(vmin, vmax, vlevel)
    has_usual_levels = is_loss(name) and not log and z.min() >= 0
    if limits.requested or has_usual_levels:
        scale = scale_from_limits(name, z, limits, has_usual_levels, log)
        if scale is not None:
            return scale
    elif is_loss(name) and not log:
        note(f"{name} goes below 0, from {z.min():.4g} to {z.max():.4g}: "
             "levels chosen from the data")
    return scale_from_data(name, z, log)


def with_logarithm(z, name):
    """(values (n,) that a log scale begins with, whether it is one); notes say what is left out."""
    positive = z[z > 0]
    if len(positive) == 0:
        note(f"a log scale needs values above 0, {name} has none; the scale is linear")
        return z, False
    if len(positive) < len(z):
        note(f"{len(z) - len(positive)} of {len(z)} values of {name} are 0 or less and have no "
             "logarithm; they are drawn below all others")
    return positive, True


@dataclass(frozen=True)
class Limits:
    """What the user asks for, None where nothing: first and last level, and the step between."""

    vmin: float | None
    vmax: float | None
    vlevel: float | None

    @property
    def requested(self):
        return (self.vmin, self.vmax, self.vlevel) != (None, None, None)


def check_levels(vmin, vmax, vlevel):
    """Raises InputError unless vmin < vmax and vlevel > 0, all finite; each may be None."""
    for flag, value in (("--vmin", vmin), ("--vmax", vmax), ("--vlevel", vlevel)):
        if value is not None and not np.isfinite(value):
            raise InputError(f"expected a finite number for {flag}, got {value}")
    if vlevel is not None and vlevel <= 0:
        raise InputError(f"expected --vlevel above 0, got {vlevel:g}; for example 0.5")
    if vmin is not None and vmax is not None and not vmin < vmax:
        raise InputError(f"expected --vmin below --vmax, got {vmin:g} and {vmax:g}")


def scale_from_limits(name, z, limits, has_usual_levels, log):
    """Scale of the user's limits, completed by the usual ones; None, and a note, if it is empty.

    z: (n,) values. has_usual_levels: the limits are completed by those of a loss, not of the data.
    """
    low, high = float(z.min()), float(z.max())
    usual_bottom, usual_top, usual_step = low, high, None
    if has_usual_levels:
        usual_bottom, usual_top, usual_step = LOSS_RANGE
    bottom = value_or(limits.vmin, usual_bottom)
    top = value_or(limits.vmax, usual_top)
    step = value_or(limits.vlevel, usual_step)
    if log and bottom <= 0:
        raise InputError(f"expected --vmin above 0 with --log, got {bottom:g}")

    # colours go no further than the data, unless the user says so
    first = value_or(limits.vmin, max(bottom, low))
    last = value_or(limits.vmax, min(top, high))

    fewest, smallest_share = MIN_USUAL_LEVELS, MIN_USUAL_SHARE
    if limits.requested:
        fewest, smallest_share = 1, 0.0
    levels = inside(levels_between(bottom, top, step, log), low, high)
    share = ((first <= z) & (z <= last)).mean()
    if len(levels) >= fewest and share >= smallest_share and first < last:
        return Scale(levels, first, last, log)

    if low < high:
        steps = ""
        if step and not log:
            steps = f" in steps of {step:g}"
        extent = "almost the whole"
        if limits.requested:
            extent = "the"
        note(f"levels from {bottom:g} to {top:g}{steps} leave {extent} picture empty "
             f"({name} goes from {low:.4g} to {high:.4g}); levels chosen from the data")
    return None


def scale_from_data(name, z, log):
    """Scale of the range of the data; logarithmic where it is wide and no percentage, too."""
    low, high = float(z.min()), float(z.max())
    is_wide = low > 0 and high > WIDE_RATIO * low
    if is_wide and not in_percent(name):
        log = True
    if is_loss(name) and not log:
        high = top_that_shows(z)
    levels = inside(levels_between(low, high, None, log), low, high)

    if low == high:  # a range of colours needs a width
        width = abs(low)
        if width == 0:
            width = 1.0
        high = low + width
    return Scale(levels, low, high, log)


def top_that_shows(z):
    """The top of ten even levels that leave at most half of the values (n,) below the first.

    It is the largest value, unless a few values are so large that all others would look the same.
    """
    low, top = float(z.min()), float(z.max())
    while (z < low + (top - low) / 10).mean() > 0.5:
        top = float(np.quantile(z[z < top], 0.75))
    return top


def value_or(value, default):
    """`value`, or `default` where it is None."""
    if value is None:
        return default
    return value


# ---------------------------------------------------------------- levels


def levels_between(bottom, top, step, log):
    """Levels from bottom to top: `step` apart; round numbers with `log` or without a step."""
    if log:
        return log_levels(bottom, top)
    if bottom >= top:
        return np.array([])
    if step:
        return stepped_levels(bottom, top, step)
    return linear_levels(bottom, top)


def inside(levels, low, high):
    """The levels between low and high, both excluded."""
    return levels[(levels > low) & (levels < high)]


def stepped_levels(bottom, top, step):
    """bottom, bottom + step, ... up to and with top."""
    count = (top - bottom) / step
    if count > MAX_LEVELS:
        raise InputError(
            f"expected at most {MAX_LEVELS} contour levels, --vmin {bottom:g} --vmax {top:g} "
            f"--vlevel {step:g} make {count:.3g}; take a larger --vlevel")
    return bottom + step * np.arange(int(count + 1e-9) + 1)


def linear_levels(low, high):
    """About ten round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(10, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)


def log_levels(low, high):
    """Round numbers from low to high (both above 0), about evenly spaced in the logarithm."""
    decades = 0.0
    if high > low:
        decades = np.log10(high) - np.log10(low)  # the ratio may be too large for a float

    if decades < MIN_LOG_DECADES:
        levels = linear_levels(low, high)
    else:
        digits = next(digits for limit, digits in LOG_DIGITS if decades < limit)
        step = max(1, np.ceil(decades / MAX_LOG_DECADES))
        exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1, step)
        levels = np.array([digit * 10.0**power for power, digit in product(exponents, digits)])

    rounding = 1e-9
    return levels[(levels >= low * (1 - rounding)) & (levels <= high * (1 + rounding))]


def thinned(levels, count):
    """Every n-th level, so that at most `count` are left: for ticks, which must not touch."""
    step = max(1, math.ceil(len(levels) / count))
    return levels[::step]


# ---------------------------------------------------------------- colours


def line_colours():
    """The colour map without its brightest fifth, which thin lines on white paper would lose."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps[COLOUR_MAP](np.linspace(0, 0.8, 256)))


def drawable(panel, scale):
    """z (ny, nx) as matplotlib takes it: NaN is masked.

    On a log scale values of 0 or less lie below all others: masked, they would look unknown.
    """
    z = np.ma.masked_invalid(panel.z)
    if not scale.log:
        return z
    smallest = panel.finite[panel.finite > 0].min()
    return np.maximum(z, 0.5 * smallest)
