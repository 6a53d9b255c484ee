"""The frame of a 2-D figure: axes with equal units, a colour bar beside and a legend below them.

    figure, ax = new_frame(panel_box(panel), show=False)
    ...                                            draw
    fit_frame(figure, ax, handles, kinds, title)   title, legend, and the sizes of everything

The axes are as wide as the column allows; matplotlib's own layouts leave a rim around axes of a
fixed shape.
"""

from dataclasses import dataclass

from losslandscape.pictures.scales import thinned
from losslandscape.pictures.style import COLUMN, bad_handles, new_figure
from losslandscape.pictures.words import number

# inches
PAD = 0.04
BAR_GAP = 0.07
BAR_WIDTH = 0.1

MAX_BAR_TICKS = 12
MAX_ASPECT = 3  # up to so many times as long as the other, axes have equal units
OTHER_ASPECT = 0.75  # height over width of the axes beyond


@dataclass(frozen=True)
class Margins:
    """Room around the axes for labels and ticks, in inches."""

    left: float
    right: float
    bottom: float
    top: float


def new_frame(box, show):
    """(figure, axes) for the x and y range `box`, (left, right, bottom, top)."""
    left, right, bottom, top = box
    figure = new_figure(COLUMN, COLUMN, show, layout="none")
    ax = figure.add_axes((0.2, 0.2, 0.6, 0.6))
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    return figure, ax


def has_equal_units(ratio):
    """Whether axes of that height over width, in units of the data, get equal units on both."""
    return 1 / MAX_ASPECT <= ratio <= MAX_ASPECT


def fit_frame(figure, ax, handles, kinds, title, bar=None):
    """Title, a legend below the axes, where it hides nothing, and the sizes of everything.

    The axes get the whole width that labels and colour bar leave; the height of the figure follows.
    handles: entries of the legend; kinds: of hatched areas, which follow them; bar: the colour bar.
    """
    if title:
        ax.set_title(title)
    legend_height = add_legend_below(figure, handles + bad_handles(kinds))

    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    ratio = (y1 - y0) / (x1 - x0)
    if not has_equal_units(ratio):
        ratio = OTHER_ASPECT

    # the tick labels depend on the size, and the size on the tick labels
    margins = Margins(0.4, 0.4, 0.4, 0.4)
    for _ in range(3):
        place_axes(figure, ax, bar, margins, ratio, legend_height)
        margins = measured_margins(figure, ax, bar)


def add_legend_below(figure, handles):
    """A legend at the bottom, in as many columns as fit; returns its height in inches."""
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(handles=handles, loc="lower center", ncols=columns)
        size = legend.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        if size.width <= COLUMN or columns == 1:
            return size.height
        legend.remove()
    return 0.0


def place_axes(figure, ax, bar, margins, ratio, legend_height):
    """Size of the figure and places of its axes; ratio: height over width of these."""
    gap, bar_width = 0.0, 0.0
    if bar:
        gap, bar_width = BAR_GAP, BAR_WIDTH

    width = COLUMN - margins.left - margins.right - gap - bar_width
    height = width * ratio
    total = margins.bottom + height + margins.top + legend_height
    figure.set_size_inches(COLUMN, total)

    bottom = margins.bottom + legend_height
    ax.set_position((margins.left / COLUMN, bottom / total, width / COLUMN, height / total))
    if bar:
        left = margins.left + width + gap
        bar.ax.set_position((left / COLUMN, bottom / total, bar_width / COLUMN, height / total))


def measured_margins(figure, ax, bar):
    """The Margins that the labels and ticks of the axes need as they are placed now."""
    to_inches = figure.dpi_scale_trans.inverted()
    frame = ax.get_window_extent().transformed(to_inches)
    whole = ax.get_tightbbox(for_layout_only=True).transformed(to_inches)

    right = whole.x1 - frame.x1
    top = whole.y1 - frame.y1
    if bar:
        bar_whole = bar.ax.get_tightbbox(for_layout_only=True).transformed(to_inches)
        right = max(right, bar_whole.x1 - frame.x1 - BAR_GAP - BAR_WIDTH)
        top = max(top, bar_whole.y1 - frame.y1)
    return Margins(frame.x0 - whole.x0 + PAD, right + PAD, frame.y0 - whole.y0 + PAD, top + PAD)


def colour_bar(figure, mappable, label, levels=None, **options):
    """Colour bar with at most 12 of the levels as ticks.

    Without `cax` it stands in axes that `fit_frame` puts in place.
    """
    if "cax" not in options:
        options["cax"] = figure.add_axes((0.85, 0.2, 0.03, 0.6))
    if levels is not None:
        options["ticks"] = thinned(levels, MAX_BAR_TICKS)
        options["format"] = lambda level, _: number(level)

    bar = figure.colorbar(mappable, **options)
    if levels is not None:
        bar.minorticks_off()
    bar.set_label(label)
    bar.outline.set_linewidth(0.6)
    return bar
