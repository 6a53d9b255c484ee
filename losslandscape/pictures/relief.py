"""The 3-D figure: a surface in perspective, lit from the upper left.

Values above the top of the axis are cut off there: the loss of a network grows so steeply away from
the minimum that everything of interest would lie flat on the floor otherwise.
"""

from dataclasses import dataclass

import numpy as np

from losslandscape.pictures.labels import text_width
from losslandscape.pictures.marks import any_corner, bad_rectangles
from losslandscape.pictures.scales import MIN_USUAL_SHARE, log_levels, thinned
from losslandscape.pictures.style import (
    COLOUR_MAP,
    COLUMN,
    bad_handles,
    hatch_bad,
    new_figure,
    note,
)
from losslandscape.pictures.words import is_loss, number, value_label

LOSS_TOP = 10.0  # the usual --zlim for a loss
GRID_LINES = 150  # of the drawn surface along each axis: smooth, and quick to draw
MAX_HEIGHT_TICKS = 5


@dataclass(frozen=True)
class HeightAxis:
    """The z axis in its own units: the values or, with `log`, their log10."""

    bottom: float
    top: float
    is_cut: bool  # the surface goes on above the top
    log: bool

    @property
    def power(self):
        """The power of ten that the label names, as long numbers would run into it; 0 for none."""
        if self.log:
            return 0
        power = int(np.floor(np.log10(max(abs(self.top), abs(self.bottom)))))
        if -3 < power < 4:
            return 0
        return power

    def value_at(self, height):
        """The value at a height of the axis, without the rounding errors of the logarithm."""
        value = height
        if self.log:
            value = 10.0**height
        return float(f"{value:.6g}")

    def label(self, name):
        """'train loss (cut at 10)', 'largest eigenvalue (times 10^4)'."""
        text = value_label(name)
        if self.power:
            text += rf" ($\times 10^{{{self.power}}}$)"
        if self.is_cut:
            text += f" (cut at {number(self.value_at(self.top))})"
        return text


def surface_figure(panel, scale, labels, show, zlim=None, log=False):
    """The surface in perspective; zlim: top of the axis.

    Values that span decades are drawn as their logarithms; losses, which are cut instead, only with
    `log`.
    """
    log = scale.log and (log or not is_loss(panel.name))
    heights = panel.z
    if log:
        heights = logarithms(panel.z)
    if zlim is None and not log:
        zlim = usual_top(panel, scale)
    axis = height_axis(panel.name, float(np.nanmin(heights)), float(np.nanmax(heights)), zlim, log)

    # refined before it is cut, so that the rim lies where the surface crosses the top
    x, y, z = refined(panel.x, panel.y, heights)
    z = np.minimum(z, axis.top)  # NaN stays NaN

    figure, ax = relief_axes(panel, show)
    draw_relief(ax, x, y, z, axis)
    floor = {}
    for kind, mask in panel.bad.items():
        floor[kind] = on_floor(bad_rectangles(panel, mask, cells=False), axis)
    hatch_bad(ax, floor, zorder=2)

    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    ax.set_zlim(axis.bottom, axis.top)
    ax.set_box_aspect((1, 1, 0.75), zoom=0.95)
    ax.view_init(elev=32, azim=-55)
    label_relief(ax, axis, labels, panel.name)

    if panel.title:
        figure.suptitle(panel.title, y=0.98)
    handles = bad_handles(panel.bad)
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=3)
    return figure


# ---------------------------------------------------------------- heights


def logarithms(z):
    """log10 of z (ny, nx); values of 0 or less count as the smallest above 0, NaN stays."""
    smallest = z[z > 0].min(initial=np.inf)
    positive = np.where(z > 0, z, smallest)
    return np.log10(positive, where=~np.isnan(z), out=np.full(z.shape, np.nan))


def usual_top(panel, scale):
    """10 for a loss, or the top of the scale where it goes below 0; None for no cut."""
    z = panel.finite
    if not is_loss(panel.name) or z.min() == z.max():
        return None
    if z.min() < 0:
        return scale.high
    if z.max() > LOSS_TOP and (z < LOSS_TOP).mean() >= MIN_USUAL_SHARE:
        return LOSS_TOP
    return None


def height_axis(name, low, high, zlim, log):
    """HeightAxis for heights from low to high, in its units.

    zlim: its top in units of the values, None for the highest.
    """
    if zlim is None:
        top = high
    elif not log:
        top = zlim
    elif zlim > 0:
        top = np.log10(zlim)
    else:
        top = -np.inf

    if top <= low < high:
        note(f"no {name} is below --zlim {zlim:g}; the axis goes up to the highest")
        top = high

    # an axis that begins at 0 shows how high the lowest point lies, unless all would be flat
    bottom = low
    if not log and low < 0.25 * top:
        bottom = min(0.0, low)

    is_cut = top < high
    if top <= bottom:
        top = bottom + 1.0
    return HeightAxis(bottom, top, is_cut, log)


def refined(x, y, z, lines=GRID_LINES):
    """The same surface with about `lines` grid lines along each axis, linear in between."""
    fine_y, z = refined_rows(y, z, lines)
    fine_x, transposed = refined_rows(x, z.T, lines)
    return fine_x, fine_y, transposed.T


def refined_rows(axis, z, lines):
    """(coordinates, z) with about `lines` rows, linear between those of z (n, m) at `axis` (n,)."""
    # each gap is divided into as many equal parts as fit
    parts = lines // (len(axis) - 1)
    count = lines + 1
    if parts:
        count = parts * (len(axis) - 1) + 1
    fine = np.interp(np.linspace(0, len(axis) - 1, count), np.arange(len(axis)), axis)

    right = np.clip(np.searchsorted(axis, fine), 1, len(axis) - 1)
    share = (fine - axis[right - 1]) / (axis[right] - axis[right - 1])
    share = share[:, None]
    before, after = z[right - 1], z[right]

    # a NaN neighbour without a share does not count
    between = before + share * (after - before)
    between = np.where(share == 1, after, between)
    return fine, np.where(share == 0, before, between)


def on_floor(rectangles, axis):
    """The corners [(4, 2)] as [(4, 3)] at the bottom of the axis."""
    points = []
    for corners in rectangles:
        points.append([(x, y, axis.bottom) for x, y in corners])
    return points


# ---------------------------------------------------------------- drawing


def relief_axes(panel, show):
    """(figure, axes) with room for the title and, where there is one, the legend."""
    legend_height = 0.0  # inches, as all sizes here
    if panel.bad:
        legend_height = 0.2
    height = 2.7 + legend_height + 0.13 * panel.title.count("\n")

    figure = new_figure(COLUMN, height, show, layout="none")
    place = (-0.04, (0.12 + legend_height) / height, 0.97, 2.5 / height)
    return figure, figure.add_axes(place, projection="3d", computed_zorder=False)


def draw_relief(ax, x, y, z, axis):
    """The lit surface z (ny, nx), without the quads that have no finite corner."""
    look = {"color": "none", "shade": False, "linewidth": 0, "antialiased": False, "zorder": 3}
    surface = ax.plot_surface(*np.meshgrid(x, y), z, rstride=1, cstride=1, rasterized=True, **look)
    surface.set_label("surface")

    # given as `facecolors`, matplotlib would take them one by one: seconds.
    # It leaves out quads without a finite corner
    surface.set_facecolor(lit_colours(z, axis)[any_corner(np.isfinite(z))])


def lit_colours(z, axis):
    """Colours (ny - 1, nx - 1, 4) of the quads: by height, and darker away from the light."""
    import matplotlib
    from matplotlib.colors import LightSource

    share = (z - axis.bottom) / (axis.top - axis.bottom)  # (ny, nx), 0 to 1
    quads = (share[1:, 1:] + share[1:, :-1] + share[:-1, 1:] + share[:-1, :-1]) / 4

    rows, columns = z.shape
    sun = LightSource(azdeg=225, altdeg=55)
    relief = 0.5 * np.nan_to_num(share)
    light = sun.hillshade(relief, dx=1 / columns, dy=1 / rows)  # (ny, nx), 0 to 1
    brightness = 0.65 + 0.45 * light[1:, 1:, None]

    colours = matplotlib.colormaps[COLOUR_MAP](quads)
    colours[..., :3] = np.clip(colours[..., :3] * brightness, 0, 1)
    colours[..., 3] = np.isfinite(quads)
    return colours


def label_relief(ax, axis, labels, name):
    """Ticks and labels of the three axes; numbers touch neither an axis nor its label."""
    from matplotlib.ticker import MaxNLocator

    set_height_ticks(ax.zaxis, axis)
    tick_labels = ax.zaxis.get_ticklabels()
    for label in tick_labels:
        label.set_horizontalalignment("left")  # centred, the long ones run over the axis
    widest = max(text_width(label.get_text()) for label in tick_labels)  # points

    for each in (ax.xaxis, ax.yaxis, ax.zaxis):
        each.pane.set_facecolor("white")
        each.pane.set_edgecolor("0.8")
        each._axinfo["grid"].update(linewidth=0.4, color="0.88")
        each.set_tick_params(pad=-3)
    ax.zaxis.set_tick_params(pad=-5)
    for each in (ax.xaxis, ax.yaxis):
        each.set_major_locator(MaxNLocator(4, prune="both"))  # those in the corners would collide

    ax.set_xlabel(labels[0], labelpad=-4)
    ax.set_ylabel(labels[1], labelpad=-4)
    ax.set_zlabel(axis.label(name), labelpad=0.6 * widest - 11)


def set_height_ticks(zaxis, axis):
    """About 4 ticks; with `log` at round values."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    if axis.log:
        levels = thinned(log_levels(10.0**axis.bottom, 10.0**axis.top), MAX_HEIGHT_TICKS)
        zaxis.set_major_locator(FixedLocator(np.log10(levels)))
        zaxis.set_major_formatter(lambda height, _: number(axis.value_at(height)))
    else:
        unit = 10.0**axis.power
        zaxis.set_major_locator(MaxNLocator(4))
        zaxis.set_major_formatter(lambda value, _: f"{value / unit:g}")
