"""The figures of a 2-D surface: contours, filled contours, heat map, 3-D figure.

    plot_2d_contour("SURFACE.h5", "train_loss")     all that the grid gives
    plot_2d_eig_ratio("SURFACE.h5")                 maps of the ratio of the Hessian's eigenvalues
"""

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.names import picture_file_name
from losslandscape.pictures.curves import eig_ratio
from losslandscape.pictures.frame import colour_bar, fit_frame, new_frame
from losslandscape.pictures.labels import axis_labels, label_axes, label_contours
from losslandscape.pictures.marks import hatch_panel, mark_points
from losslandscape.pictures.panel import cell_edges, make_panel, panel_box, read_2d
from losslandscape.pictures.relief import surface_figure
from losslandscape.pictures.scales import Scale, choose_scale, drawable, line_colours, log_levels
from losslandscape.pictures.style import COLOUR_MAP, note, style, write_figures
from losslandscape.pictures.words import value_label

# ---------------------------------------------------------------- contours


def draw_contours(ax, panel, scale):
    """Contour lines, labelled where a label covers no other line."""
    lines = ax.contour(panel.x, panel.y, drawable(panel, scale), levels=scale.levels,
                       cmap=line_colours(), norm=scale.norm(), linewidths=0.9)
    label_contours(ax, lines)
    return lines


def fill_contours(ax, panel, scale):
    """Filled contours with thin lines between; beyond the levels, at either end, one more colour."""
    z = drawable(panel, scale)

    # a band needs two levels
    levels = scale.levels
    if len(levels) < 2:
        levels = np.unique([scale.low, *levels, scale.high])
    if len(levels) < 2:
        levels = np.array([scale.low, scale.high])

    filled = ax.contourf(panel.x, panel.y, z, levels=levels, cmap=COLOUR_MAP, norm=scale.norm(),
                         extend="both")
    filled.set_edgecolor("face")  # else viewers show hairlines between the bands
    filled.set_linewidth(0.3)
    ax.contour(panel.x, panel.y, z, levels=levels, colors="white", linestyles="solid",
               linewidths=0.35, alpha=0.6)
    return filled


# ---------------------------------------------------------------- the figures
#
# Each takes (panel, scale, (x label, y label), show) and ignores options of the 3-D figure.


def contour_figure(panel, scale, labels, show, **_):
    """Labelled contour lines."""
    figure, ax = new_frame(panel_box(panel), show)
    label_axes(ax, labels)
    kinds = hatch_panel(ax, panel, cells=False)
    fit_frame(figure, ax, mark_points(ax, panel), kinds, panel.title)
    draw_contours(ax, panel, scale)
    return figure


def contourf_figure(panel, scale, labels, show, **_):
    """Filled contours with a colour bar."""
    figure, ax = new_frame(panel_box(panel), show)
    label_axes(ax, labels)
    kinds = hatch_panel(ax, panel, cells=False)
    filled = fill_contours(ax, panel, scale)
    bar = colour_bar(figure, filled, value_label(panel.name), filled.levels)
    fit_frame(figure, ax, mark_points(ax, panel), kinds, panel.title, bar)
    return figure


def heat_figure(panel, scale, labels, show, bar_label=None, zero_line=False, **_):
    """One cell per point, its centre at the coordinates.

    zero_line: add the contour where the sign changes. bar_label: of the colour bar, by default the
    name of the values.
    """
    figure, ax = new_frame(panel_box(panel, cells=True), show)
    label_axes(ax, labels)
    mesh = ax.pcolormesh(cell_edges(panel.x), cell_edges(panel.y), drawable(panel, scale),
                         cmap=COLOUR_MAP, norm=scale.norm(), rasterized=True)
    kinds = hatch_panel(ax, panel, cells=True)

    ticks = None
    if scale.log:
        ticks = log_levels(scale.low, scale.high)
    bar_label = bar_label or value_label(panel.name)
    bar = colour_bar(figure, mesh, bar_label, ticks, extend=scale.extend(panel.finite))

    handles = mark_points(ax, panel)
    if zero_line:
        handles += draw_zero_line(ax, panel)
    fit_frame(figure, ax, handles, kinds, panel.title, bar)
    return figure


def draw_zero_line(ax, panel):
    """The contour where the sign changes; returns its legend entries, none where it never does."""
    if not (panel.has_quads and (panel.finite < 0).any() and (panel.finite > 0).any()):
        return []
    z = np.ma.masked_invalid(panel.z)
    ax.contour(panel.x, panel.y, z, levels=[0], colors="black", linestyles="--", linewidths=0.9)
    return ax.plot([], [], color="black", linestyle="--", linewidth=0.9, label="0")


FIGURES = {
    "2dcontour": contour_figure,
    "2dcontourf": contourf_figure,
    "2dheat": heat_figure,
    "3dsurface": surface_figure,
}
NEED_QUADS = ("2dcontour", "2dcontourf", "3dsurface")
NEED_LEVELS = ("2dcontour", "2dcontourf")


# ---------------------------------------------------------------- all figures of a file


@style()
def plot_2d_contour(surf_file, surf_name="train_loss", vmin=None, vmax=None, vlevel=None,
                    show=False, *, zlim=None, log=False, dir_file="", fmt="pdf", title=None):
    """Write the four figures of `surf_name` beside the surface file; returns their paths.

    vmin, vmax, vlevel: first and last contour level, and the step between. None means 0.1, 10 and
        0.5 for a loss of at least 0 (less where the data end earlier), else round numbers from the
        data.
    zlim: top of the 3-D figure. None means 10 for such a loss.
    log: levels, colours and height are even in the logarithm.
    dir_file: PCA directions, for the labels of the axes.
    fmt: pdf, png or svg. title: None describes what is drawn.

    Figures that the grid can't give (contours of a single row) are left out with a note. Raises
    InputError for files and limits that can't be drawn.
    """
    surface = read_2d(surf_file)
    panel = make_panel(surface, surface.get(surf_name), surf_name, surf_file, title)
    labels = axis_labels(dir_file)
    if zlim is not None and not np.isfinite(zlim):
        raise InputError(f"expected a finite --zlim, got {zlim}")

    scale = choose_scale([panel], vmin, vmax, vlevel, log)
    figures = {}
    for kind in possible_figures(panel, scale):
        path = picture_file_name(surf_file, kind, fmt, surf_name)
        figures[path] = FIGURES[kind](panel, scale, labels, show, zlim=zlim, log=log)
    return write_figures(figures, show)


def possible_figures(panel, scale):
    """The keys of FIGURES that the panel gives; notes say which are left out, and why."""
    if len(panel.finite) == 0:
        note(f"no value of {panel.name} is finite; only the heat map is drawn, hatched")
        return ["2dheat"]

    kinds = list(FIGURES)
    if not panel.has_quads:
        left_out = [kind for kind in kinds if kind in NEED_QUADS]
        kinds = [kind for kind in kinds if kind not in NEED_QUADS]
        if left_out:
            rows, columns = panel.z.shape
            note(f"a grid of {columns} x {rows} points gives no {', '.join(left_out)}; "
                 "compute at least 2 rows and 2 columns for these")

    if len(scale.levels) == 0:
        for kind in [kind for kind in kinds if kind in NEED_LEVELS]:
            note(f"{panel.name} has a single value, there is no contour to draw; "
                 f"{kind} is left out")
            kinds.remove(kind)
    return kinds


@style()
def plot_2d_eig_ratio(surf_file, show=False, *, fmt="pdf", title=None):
    """Write maps of |min_eig / max_eig| and min_eig / max_eig of the Hessian; returns their paths.

    The first is near 0 where the loss is convex in all directions (Li et al. 2018, section 6,
    figure 7). Raises InputError for a file without eigenvalues.
    """
    surface = read_2d(surf_file)
    smallest, largest = surface.get("min_eig"), surface.get("max_eig")
    symbol = r"\lambda_\mathrm{min}\,/\,\lambda_\mathrm{max}"

    figures = {}
    for kind, bar_label in (("abs_ratio", f"$|{symbol}|$"), ("ratio", f"${symbol}$")):
        is_absolute = kind == "abs_ratio"
        ratio = eig_ratio(smallest, largest, is_absolute)
        panel = make_panel(surface, ratio, "eig_ratio", surf_file, title)
        path = picture_file_name(surf_file, f"min_eig_max_eig_{kind}_heat_sns", fmt)
        figures[path] = heat_figure(panel, ratio_scale(panel, is_absolute), axis_labels(""), show,
                                    bar_label=bar_label, zero_line=not is_absolute)
    return write_figures(figures, show)


def ratio_scale(panel, starts_at_0):
    """Colours from the smallest value, or from 0, to the largest; no contours."""
    low, high = 0.0, 1.0
    if len(panel.finite) > 0:
        low, high = float(panel.finite.min()), float(panel.finite.max())
    if starts_at_0:
        low = 0.0
    if high <= low:
        high = low + 1.0
    return Scale(np.array([]), low, high, log=False)
