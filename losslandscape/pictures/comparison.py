"""Several surfaces side by side on one scale, their flatness in numbers below each.

    plot_2d_compare(["SHORTCUTS.h5", "NO_SHORTCUTS.h5"], vmax=10)

The way the paper compares networks with and without shortcuts (Li et al. 2018, figure 5).
"""

import math
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.names import picture_file_name
from losslandscape.flatness import measures
from losslandscape.pictures.frame import OTHER_ASPECT, colour_bar, has_equal_units
from losslandscape.pictures.marks import hatch_panel, mark_points
from losslandscape.pictures.mathtext import typed_text
from losslandscape.pictures.panel import make_panel, read_2d, refuse_single_line
from losslandscape.pictures.scales import choose_scale
from losslandscape.pictures.style import (
    COLUMN,
    PAGE,
    bad_handles,
    new_figure,
    note,
    share_done,
    style,
    write_figures,
)
from losslandscape.pictures.surfaces import fill_contours
from losslandscape.pictures.words import labels_for, number, value_label

# inches
TICK_LABELS = 0.45  # left of the axes
TITLE_LINE = 0.15
TEXT_LINE = 0.14
BAR_AND_LEGEND = 0.65  # at the bottom of the figure


@style()
def plot_2d_compare(surf_files, surf_name="train_loss", vmin=None, vmax=None, vlevel=None,
                    show=False, *, log=False, fmt="pdf", labels=(), output="", title=None):
    """Write filled contours of several surfaces side by side on one scale; returns [its path].

    vmin, vmax, vlevel, log: see `plot_2d_contour`. labels: titles of the panels.
    output: name of the figure, by default FIRST_FILE_SURFNAME_2dcompare.pdf.

    Below each panel stand the numbers of flatness.py. Raises InputError for files that can't be
    drawn.
    """
    names = labels_for(surf_files, labels)
    surfaces = [read_2d(path) for path in surf_files]
    panels = []
    for surface, path, name in zip(surfaces, surf_files, names, strict=True):
        panels.append(make_panel(surface, surface.get(surf_name), surf_name, path, title=name))
        refuse_single_line(surface, path)

    scale = choose_scale(panels, vmin, vmax, vlevel, log)
    texts = [flatness_text(surface, surf_name) for surface in surfaces]
    tiles = arrange(panels, texts, title)
    figure = new_figure(tiles.width, tiles.height, show, layout="none")

    kinds, marks = set(), {}
    for i, (panel, text) in enumerate(zip(panels, texts, strict=True)):
        ax = figure.add_axes(tiles.place(i))
        kinds.update(hatch_panel(ax, panel, cells=False))
        filled = fill_contours(ax, panel, scale)
        for mark in mark_points(ax, panel):
            # each panel has a minimum of its own, so the legend names no value
            marks[mark.get_label().partition(",")[0]] = mark
        label_panel(ax, panel, text)

    bar = colour_bar(figure, filled, value_label(surf_name), filled.levels, orientation="horizontal",
                     cax=figure.add_axes((0.15, 0.56 / tiles.height, 0.7, 0.09 / tiles.height)))
    bar.ax.xaxis.labelpad = 2
    if title:
        figure.suptitle(typed_text(title), y=1 - 0.03 / tiles.height, va="top")
    for patch in bad_handles(kinds):
        marks[patch.get_label()] = patch
    if marks:
        figure.legend(marks.values(), marks.keys(), loc="lower center", ncols=len(marks))

    path = output or picture_file_name(surf_files[0], "2dcompare", fmt, surf_name)
    return write_figures({path: figure}, show)


# ---------------------------------------------------------------- arrangement


@dataclass(frozen=True)
class Tiles:
    """Where the panels of a comparison lie, row by row; all sizes in inches."""

    columns: int
    width: float  # of the figure
    height: float
    tile_width: float  # of a panel with its tick labels
    tile_height: float  # of a panel with title and text
    axes_height: float
    above_axes: float  # room for the title of a panel
    top: float  # room for the title of the figure

    def place(self, number_of_panel):
        """(left, bottom, width, height) of the axes of a panel, as shares of the figure."""
        row, column = divmod(number_of_panel, self.columns)
        left = column * self.tile_width + TICK_LABELS
        tile_top = self.height - self.top - row * self.tile_height
        bottom = tile_top - self.above_axes - self.axes_height
        width, height = self.tile_width - TICK_LABELS, self.axes_height
        return left / self.width, bottom / self.height, width / self.width, height / self.height


def arrange(panels, texts, title):
    """Tiles for the panels with the texts below them: up to three columns, two for 4 panels."""
    columns = min(len(panels), 3)
    if len(panels) == 4:
        columns = 2
    rows = math.ceil(len(panels) / columns)
    width = {1: COLUMN, 2: 0.75 * PAGE, 3: PAGE}[columns]
    tile_width = (width - 0.1) / columns

    # all axes are as high as the highest needs
    ratio = max(drawn_ratio(panel) for panel in panels)
    axes_height = (tile_width - TICK_LABELS) * ratio
    above_axes = 0.1 + TITLE_LINE * max_lines(panel.title for panel in panels)
    below_axes = 0.3 + TEXT_LINE * max_lines(texts)
    tile_height = above_axes + axes_height + below_axes

    top = 0.0
    if title:
        top = 0.2
    height = top + rows * tile_height + BAR_AND_LEGEND
    return Tiles(columns, width, height, tile_width, tile_height, axes_height, above_axes, top)


def data_ratio(panel):
    """Height over width of the panel, in units of the data."""
    return np.ptp(panel.y) / np.ptp(panel.x)


def drawn_ratio(panel):
    """Height over width of the panel on paper."""
    ratio = data_ratio(panel)
    if has_equal_units(ratio):
        return ratio
    return OTHER_ASPECT


def max_lines(texts):
    """The number of lines of the longest text."""
    return max(text.count("\n") + 1 for text in texts)


def label_panel(ax, panel, text):
    """Title above, the text below the axes; equal units unless one axis is much longer."""
    aspect = "auto"
    if has_equal_units(data_ratio(panel)):
        aspect = "equal"
    ax.set_aspect(aspect)
    ax.set_title(panel.title)
    ax.locator_params(nbins=5)
    ax.set_xlabel(text, fontsize=7)


# ---------------------------------------------------------------- numbers


def flatness_text(surface, name):
    """A few lines on the flatness of a finished surface; '' where it can't be measured."""
    if share_done(surface.get(name)) < 1:  # missing points count as outside of a basin
        return "flatness: once all points are computed"
    try:
        measured = measures(surface, name)
    except InputError as error:
        note(f"no flatness numbers: {error}")
        return ""

    basin, sharpness = measured["basins"][-1], measured["sharpness"]
    area = 100 * basin["area_fraction"]
    parts = [
        f"{value_label(name)} at centre {measured['centre']['loss']:.3g}",
        rf"basin ($\tau$ = {basin['tau']:g}) {area:.2g} % of the plane",
    ]
    if sharpness["percent"] is not None:
        percent = number(float(f"{sharpness['percent']:.3g}"))
        parts.append(rf"$\epsilon$-sharpness ({sharpness['epsilon']:g}) {percent} %")
    if measured["convex"]["share"] is not None:
        parts.append(f"convex {100 * measured['convex']['share']:.0f} %")
    return "\n".join(parts)
