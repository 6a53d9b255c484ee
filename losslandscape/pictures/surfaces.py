# ruff: noqa
"""Figures of a surface."""

import os
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.pictures import style as figures
from losslandscape.pictures.panel import *
from losslandscape.pictures.panel import Plane, from_coarse
from losslandscape.pictures.scales import *
from losslandscape.pictures.labels import *
from losslandscape.pictures.labels import _text_width


def edges(axis):
    """Borders (n + 1,) of the cells whose centres are the coordinates (n,)."""
    if len(axis) == 1:
        return np.array([axis[0] - 0.5, axis[0] + 0.5])
    middle = (axis[1:] + axis[:-1]) / 2
    return np.concatenate([[1.5 * axis[0] - 0.5 * axis[1]], middle, [1.5 * axis[-1] - 0.5 * axis[-2]]])


def hatch_bad(ax, plane, cells):
    """Hatch the points without a value: their cells in a heat map, else the quads that have one for a corner."""
    from matplotlib.collections import PolyCollection

    for kind, where in plane.bad.items():
        rectangles = bad_rectangles(plane, where, cells)
        ax.add_collection(PolyCollection(rectangles, **figures.BAD[kind], linewidth=0, zorder=0.8, label=kind),
                          autolim=False)
    return list(plane.bad)


def bad_rectangles(plane, where, cells):
    """[(4, 2)] corners of the cells of the points `where`, or of the quads that have one of them for a corner."""
    if cells:
        x, y, rows, columns = edges(plane.x), edges(plane.y), *np.nonzero(where)
    else:
        quads = where[:-1, :-1] | where[1:, :-1] | where[:-1, 1:] | where[1:, 1:]
        x, y, rows, columns = plane.x, plane.y, *np.nonzero(quads)
    return [[(x[j], y[i]), (x[j + 1], y[i]), (x[j + 1], y[i + 1]), (x[j], y[i + 1])]
            for i, j in zip(rows, columns, strict=True)]


def mark_points(ax, plane, centre=True):
    """Mark the trained model at (0, 0) and the best point; returns the legend entries."""
    handles = []
    halo = {"linestyle": "none", "clip_on": False, "zorder": 5}
    if centre and plane.x[0] <= 0 <= plane.x[-1] and plane.y[0] <= 0 <= plane.y[-1]:
        handles += ax.plot(0, 0, marker="+", color="black", markersize=6, markeredgewidth=1.0, label="centre", **halo)
    kind = extremum(plane.name)
    values = plane.z[plane.computed & np.isfinite(plane.z)]
    if kind and len(values) and values.min() < values.max():
        best = np.nanargmin if kind == "minimum" else np.nanargmax
        index = np.unravel_index(best(np.where(plane.computed, plane.z, np.nan)), plane.z.shape)
        handles += ax.plot(plane.x[index[1]], plane.y[index[0]], marker="o", color="black", markersize=5.5,
                           markerfacecolor="none", markeredgewidth=0.8,
                           label=f"{kind}, {figures.number(plane.z[index])}", **halo)
    from matplotlib.patheffects import withStroke

    for handle in handles:
        handle.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
    return handles


def extremum(name):
    """Which point is the best one: 'minimum' of a loss or error, 'maximum' of an accuracy, None if unknown."""
    base, statistic = figures.of_repeats(name)
    if statistic == "iqr":
        return None
    return "minimum" if base.endswith(("_loss", "_err")) else "maximum" if base.endswith("_acc") else None


def canvas(limits, show):
    """(figure, axes) for the x and y range `limits`."""
    figure = figures.new_figure(figures.COLUMN, figures.COLUMN, show, layout="none")
    ax = figure.add_axes((0.2, 0.2, 0.6, 0.6))
    ax.set_xlim(*limits[:2])
    ax.set_ylim(*limits[2:])
    return figure, ax


def box(plane, cells=False):
    """x and y range of the points, or of their cells."""
    x, y = (edges(plane.x), edges(plane.y)) if cells else (plane.x, plane.y)
    return x[0], x[-1], y[0], y[-1]


def finish(figure, ax, handles, kinds, title, bar=None):
    """Title, a legend below the axes, where it hides nothing, and the layout.

    The axes get the whole width that labels and colour bar leave, with equal units on both (unless one is over 3 times
    as long); the height of the figure follows. matplotlib's own layouts leave a rim around axes of a fixed shape.
    """
    handles = handles + figures.bad_handles(kinds)
    if title:
        ax.set_title(title)
    width, legend_height, pad = figures.COLUMN, 0.0, 0.04  # inches, as all below
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(handles=handles, loc="lower center", ncols=columns)
        size = legend.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        if size.width <= width or columns == 1:
            legend_height = size.height
            break
        legend.remove()
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    ratio = (y1 - y0) / (x1 - x0)
    ratio = ratio if 1 / 3 <= ratio <= 3 else 0.75
    gap, thick = (0.07, 0.1) if bar else (0.0, 0.0)
    left = right = top = bottom = 0.4
    for _ in range(3):  # the tick labels depend on the size, and the size on the tick labels
        inner = width - left - right - gap - thick
        height = bottom + inner * ratio + top + legend_height
        figure.set_size_inches(width, height)
        ax.set_position((left / width, (bottom + legend_height) / height, inner / width, inner * ratio / height))
        if bar:
            bar.ax.set_position(((left + inner + gap) / width, (bottom + legend_height) / height, thick / width,
                                 inner * ratio / height))
        to_inches = figure.dpi_scale_trans.inverted()
        frame = ax.get_window_extent().transformed(to_inches)
        whole = ax.get_tightbbox(for_layout_only=True).transformed(to_inches)
        left, bottom, top = frame.x0 - whole.x0 + pad, frame.y0 - whole.y0 + pad, whole.y1 - frame.y1 + pad
        right = whole.x1 - frame.x1 + pad
        if bar:
            beside = bar.ax.get_tightbbox(for_layout_only=True).transformed(to_inches)
            right = max(right, beside.x1 - frame.x1 - gap - thick + pad)
            top = max(top, beside.y1 - frame.y1 + pad)


def draw_contours(ax, plane, scale, labels=True):
    """Contour lines, labelled where a label covers no other line."""
    lines = ax.contour(plane.x, plane.y, drawable(plane, scale), levels=scale.levels, cmap=line_colours(),
                       norm=scale.norm(), linewidths=0.9)
    if labels:
        label_contours(ax, lines)
    return lines


def fill_contours(ax, plane, scale):
    """Filled contours with thin lines between them; what lies beyond the outer levels gets a colour of its own."""
    z = drawable(plane, scale)
    levels = scale.levels
    ends = (scale.low, scale.high)
    if len(levels) < 2:
        levels = np.unique([ends[0], *levels, ends[1]])
    if len(levels) < 2:
        levels = np.array([ends[0], ends[1]])
    filled = ax.contourf(plane.x, plane.y, z, levels=levels, cmap=figures.COLOUR_MAP, norm=scale.norm(), extend="both")
    filled.set_edgecolor("face")  # else viewers show hairlines between the bands
    filled.set_linewidth(0.3)
    ax.contour(plane.x, plane.y, z, levels=levels, colors="white", linewidths=0.35, alpha=0.6)
    return filled


def contour_figure(plane, scale, labels, show, **_):
    figure, ax = canvas(box(plane), show)
    label_axes(ax, labels)
    kinds = hatch_bad(ax, plane, cells=False)
    finish(figure, ax, mark_points(ax, plane), kinds, plane.title)
    draw_contours(ax, plane, scale)
    return figure


def contourf_figure(plane, scale, labels, show, **_):
    figure, ax = canvas(box(plane), show)
    label_axes(ax, labels)
    kinds = hatch_bad(ax, plane, cells=False)
    filled = fill_contours(ax, plane, scale)
    bar = colour_bar(figure, filled, figures.plain_name(plane.name), filled.levels)
    finish(figure, ax, mark_points(ax, plane), kinds, plane.title, bar)
    return figure


ZERO_LINE = {"colors": "black", "linestyles": "--", "linewidths": 0.9}


def heat_figure(plane, scale, labels, show, label=None, zero_line=False, **_):
    """One cell per point, its centre at the coordinates; `zero_line` adds the contour where the sign changes."""
    figure, ax = canvas(box(plane, cells=True), show)
    label_axes(ax, labels)
    mesh = ax.pcolormesh(edges(plane.x), edges(plane.y), drawable(plane, scale), cmap=figures.COLOUR_MAP,
                         norm=scale.norm(), rasterized=True)
    kinds = hatch_bad(ax, plane, cells=True)
    bar = colour_bar(figure, mesh, label or figures.plain_name(plane.name),
                     log_levels(scale.low, scale.high) if scale.log else None, extend=scale.extend(plane.finite))
    handles = mark_points(ax, plane)
    if zero_line and min(plane.z.shape) > 1 and (plane.finite < 0).any() and (plane.finite > 0).any():
        ax.contour(plane.x, plane.y, np.ma.masked_invalid(plane.z), levels=[0], **ZERO_LINE)
        handles += ax.plot([], [], color=ZERO_LINE["colors"], linestyle="--", linewidth=0.9, label="0")
    finish(figure, ax, handles, kinds, plane.title, bar)
    return figure


def surface_figure(plane, scale, labels, show, zlim=None, log=False, **_):
    """The surface in perspective, lit from the upper left; values above the top of the axis are cut off there.

    Values that span decades are drawn as their logarithms: losses, which are cut instead, only where that is asked for.
    """
    import matplotlib
    from matplotlib.colors import LightSource
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    log = scale.log and (log or not figures.is_loss(plane.name))
    z = plane.z
    if log:
        z = np.log10(np.where(z > 0, z, z[z > 0].min(initial=np.inf)), where=~np.isnan(z), out=np.full(z.shape, np.nan))
    low, high = float(np.nanmin(z)), float(np.nanmax(z))
    bottom, top, cut = height_range(plane.name, low, high, zlim, log)
    x, y, z = refined(plane.x, plane.y, z)  # before it is cut, so that the rim lies where the surface crosses the top
    z = np.minimum(z, top)  # NaN stays NaN

    below = 0.2 if plane.bad else 0.0  # inches, for the legend
    height = 2.7 + below + 0.13 * plane.title.count("\n")
    figure = figures.new_figure(figures.COLUMN, height, show, layout="none")
    ax = figure.add_axes((-0.04, (0.12 + below) / height, 0.97, 2.5 / height), projection="3d", computed_zorder=False)
    share = (z - bottom) / (top - bottom)
    face = (share[1:, 1:] + share[1:, :-1] + share[:-1, 1:] + share[:-1, :-1]) / 4  # one per quad
    light = LightSource(azdeg=225, altdeg=55).hillshade(0.5 * np.nan_to_num(share), dx=1 / len(x), dy=1 / len(y))
    colours = matplotlib.colormaps[figures.COLOUR_MAP](face)
    colours[..., :3] = np.clip(colours[..., :3] * (0.65 + 0.45 * light[1:, 1:, None]), 0, 1)
    colours[..., 3] = np.isfinite(face)
    surface = ax.plot_surface(*np.meshgrid(x, y), z, color="none", shade=False, rstride=1, cstride=1, linewidth=0,
                              antialiased=False, rasterized=True, zorder=3)
    # given as `facecolors`, matplotlib would take them one by one: seconds. It leaves out quads without a finite corner
    there = np.isfinite(z)
    there = there[1:, 1:] | there[1:, :-1] | there[:-1, 1:] | there[:-1, :-1]
    surface.set_facecolor(colours[there])
    surface.set_label("surface")
    for kind, where in plane.bad.items():
        corners = [[(px, py, bottom) for px, py in rectangle] for rectangle in bad_rectangles(plane, where, False)]
        ax.add_collection3d(Poly3DCollection(corners, **figures.BAD[kind], linewidth=0, zorder=2, label=kind))
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    ax.set_zlim(bottom, top)
    ax.set_box_aspect((1, 1, 0.75), zoom=0.95)
    ax.view_init(elev=32, azim=-55)
    unit = format_height(ax.zaxis, bottom, top, log)
    written = ax.zaxis.get_ticklabels()
    for label in written:
        label.set_horizontalalignment("left")  # centred, the long ones run over the axis
    widest = max(_text_width(label.get_text(), 7) for label in written)  # points
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.pane.set_facecolor("white")
        axis.pane.set_edgecolor("0.8")
        axis._axinfo["grid"].update(linewidth=0.4, color="0.88")
        axis.set_tick_params(pad=-5 if axis is ax.zaxis else -3)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(4, prune="both"))  # those in the corners would collide
    ax.set_xlabel(labels[0], labelpad=-4)
    ax.set_ylabel(labels[1], labelpad=-4)
    cut_at = figures.number(float(f"{10.0**top if log else top:.6g}"))
    ax.set_zlabel(figures.plain_name(plane.name) + unit + (f" (cut at {cut_at})" if cut else ""),
                  labelpad=0.6 * widest - 11)
    if plane.title:
        figure.suptitle(plane.title, y=0.98)
    handles = figures.bad_handles(plane.bad)
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=3)
    return figure


def refined(x, y, z, lines=150):
    """The same surface with more grid lines, linear in between, and with fewer where there are over `lines`."""
    for axis in (0, 1):
        old = (y, x)[axis]
        parts = lines // (len(old) - 1)
        count = parts * (len(old) - 1) + 1 if parts else lines + 1
        at = np.interp(np.linspace(0, len(old) - 1, count), np.arange(len(old)), old)
        right = np.clip(np.searchsorted(old, at), 1, len(old) - 1)
        share = (at - old[right - 1]) / (old[right] - old[right - 1])
        share = share[:, None] if axis == 0 else share
        before, after = np.take(z, right - 1, axis), np.take(z, right, axis)
        # a NaN neighbour with no share does not count
        z = np.where(share == 0, before, np.where(share == 1, after, before + share * (after - before)))
        x, y = (x, at) if axis == 0 else (at, y)
    return x, y, z


FIGURES = {"2dcontour": contour_figure, "2dcontourf": contourf_figure, "2dheat": heat_figure,
           "3dsurface": surface_figure}  # fmt: skip


NEED_QUADS = ("2dcontour", "2dcontourf", "3dsurface")


NEED_LEVELS = ("2dcontour", "2dcontourf")


@figures.style()
def plot_2d_contour(surf_file, surf_name="train_loss", vmin=None, vmax=None, vlevel=None, show=False, *, zlim=None,
                    log=False, dir_file="", fmt="pdf", title=None):
    """Write the four figures of `surf_name` beside the surface file; returns their paths.

    vmin, vmax, vlevel: first, last contour level and step; None means 0.1, 10 and 0.5 for a loss (less where the data
    end earlier) and round numbers from the data otherwise. zlim: top of the 3-D figure, None means 10 for a loss.
    Figures that the grid can't give (contours of a single row) are left out with a note.
    """
    surface = read_2d(surf_file)
    shown = make_plane(surface, surface.get(surf_name), surf_name, surf_file, title)
    labels = axis_labels(dir_file)
    if zlim is not None and not np.isfinite(zlim):
        raise InputError(f"expected a finite --zlim, got {zlim}")
    if not len(shown.finite):
        figures.note(f"no value of {surf_name} is finite; only the heat map is drawn, hatched")
    chosen = choose_scale([shown], vmin, vmax, vlevel, log)
    left_out, made = [], {}
    for name, draw in FIGURES.items():
        if (min(shown.z.shape) < 2 and name in NEED_QUADS) or (not len(shown.finite) and name != "2dheat"):
            left_out.append(name)
        elif name in NEED_LEVELS and not len(chosen.levels):
            figures.note(f"{surf_name} has a single value, there is no contour to draw; {name} is left out")
        else:
            made[name] = draw(shown, chosen, labels, show, zlim=zlim, log=log)
    if left_out and len(shown.finite):
        figures.note(f"a grid of {shown.z.shape[1]} x {shown.z.shape[0]} points gives no {', '.join(left_out)}; "
                     "compute at least 2 rows and 2 columns for these")
    written = [figures.save(figure, f"{surf_file}_{surf_name}_{name}.{fmt}") for name, figure in made.items()]
    if show:
        figures.show_windows()
    return written


@figures.style()
def plot_2d_eig_ratio(surf_file, show=False, *, fmt="pdf", title=None):
    """Write maps of |min_eig / max_eig| and min_eig / max_eig of the Hessian; returns their paths.

    The first is near 0 where the loss is convex in all directions (Li et al. 2018, section 6, figure 7).
    """
    surface = read_2d(surf_file)
    smallest, largest = surface.get("min_eig"), surface.get("max_eig")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.ma.getdata(smallest) / np.ma.getdata(largest)
    mask = np.ma.getmaskarray(smallest) | np.ma.getmaskarray(largest)
    written = []
    symbol = r"\lambda_\mathrm{min}\,/\,\lambda_\mathrm{max}"
    for suffix, values, label in (("abs_ratio", np.abs(ratio), f"$|{symbol}|$"), ("ratio", ratio, f"${symbol}$")):
        shown = make_plane(surface, np.ma.masked_array(values, mask), "eig_ratio", surf_file, title)
        ends = (float(shown.finite.min()), float(shown.finite.max())) if len(shown.finite) else (0.0, 1.0)
        low = 0.0 if suffix == "abs_ratio" else ends[0]
        colours = Scale(np.array([]), low, ends[1] if ends[1] > low else low + 1.0, False)
        figure = heat_figure(shown, colours, axis_labels(""), show, label=label, zero_line=suffix == "ratio")
        written.append(figures.save(figure, f"{surf_file}_min_eig_max_eig_{suffix}_heat_sns.{fmt}"))
    if show:
        figures.show_windows()
    return written
