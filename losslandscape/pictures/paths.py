# ruff: noqa
"""Optimizer paths."""

import os
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.pictures import style as figures
from losslandscape.pictures.surfaces import *


def draw_paths(ax, proj_files, names):
    """Draw each projected path with its start and end; returns legend entries."""
    handles, epochs = [], set()
    for i, (path, name) in enumerate(zip(proj_files, names, strict=True)):
        found, _ = h5_util.read_projection(path)
        x, y = found["proj_xcoord"], found["proj_ycoord"]
        epochs.add((found["epoch"][0], found["epoch"][-1]) if np.shape(found.get("epoch")) == x.shape else None)
        look = {"color": PATH_COLOURS[i % len(PATH_COLOURS)], "zorder": 6, "clip_on": False}
        ax.plot(x, y, linewidth=2.2, color="white", zorder=5.5)
        handles += ax.plot(x, y, marker=".", markersize=3.5 if len(x) <= 60 else 2, linewidth=1.0, label=name, **look)
        ends = {"markeredgecolor": "black", "markeredgewidth": 0.5, "linestyle": "none"}
        ax.plot(x[:1], y[:1], marker="s", markersize=4.5, label="_start", **ends, **look)
        ax.plot(x[-1:], y[-1:], marker="*", markersize=8, label="_end", **ends, **look)
    from matplotlib.lines import Line2D

    first, last = epochs.pop() or (None, None) if len(epochs) == 1 else (None, None)
    for marker, size, label, epoch in (("s", 4.5, "start", first), ("*", 8, "end", last)):
        label += "" if epoch is None else f", epoch {epoch}"
        handles.append(Line2D([], [], linestyle="none", marker=marker, markersize=size, color="0.6",
                              markeredgecolor="black", markeredgewidth=0.5, label=label))
    return handles


PATH_COLOURS = ("#C1272D", "#E08A00", "#D64FA0", "#000000", "#7A3E00", "#6A6A6A")  # none of them in the colour map


def path_box(proj_files):
    """x and y range of the paths; InputError for one without points or with points that aren't finite."""
    points = []
    for path in proj_files:
        found, _ = h5_util.read_projection(path)
        xy = np.stack([found["proj_xcoord"], found["proj_ycoord"]], -1).astype(float)  # (checkpoints, 2)
        if not len(xy) or not np.isfinite(xy).all():
            raise InputError(f"expected at least one finite coordinate pair in {path}; project the checkpoints again")
        points.append(xy)
    points = np.concatenate(points)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return x0, x1, y0, y1


def widened(box, share=0.06):
    """The box with a margin; a box without width gets one."""
    x0, x1, y0, y1 = box
    size = max(x1 - x0, y1 - y0) or 1.0
    dx, dy = share * max(x1 - x0, 0.15 * size), share * max(y1 - y0, 0.15 * size)
    if y1 - y0 < 0.15 * size:
        dy = 0.1 * size
    if x1 - x0 < 0.15 * size:
        dx = 0.1 * size
    return x0 - dx, x1 + dx, y0 - dy, y1 + dy


def as_list(paths):
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


@figures.style()
def plot_contour_trajectory(surf_file, dir_file, proj_file, surf_name="train_loss", vmin=None, vmax=None, vlevel=None,
                            show=False, *, log=False, fmt="pdf", labels=(), output="", title=None):
    """Write the contours with one or several optimizer paths over them to PROJ_FILE_SURFNAME_2dcontour_proj.pdf.

    proj_file: one path or a list. The axes grow where a path leaves the surface, so that all of it is seen.
    """
    proj_files = as_list(proj_file)
    names = figures.labels_for(proj_files, labels) if len(proj_files) > 1 else list(labels) or ["optimizer path"]
    surface = read_2d(surf_file)
    shown = make_plane(surface, surface.get(surf_name), surf_name, surf_file, title)
    if min(shown.z.shape) < 2:
        raise InputError(f"expected at least 2 rows and 2 columns for contours, {surf_file} has {surface.grid}")
    chosen = choose_scale([shown], vmin, vmax, vlevel, log)
    inner, path = box(shown), path_box(proj_files)
    whole = inner
    if path[0] < inner[0] or path[1] > inner[1] or path[2] < inner[2] or path[3] > inner[3]:
        grown = widened(path)
        whole = (min(inner[0], grown[0]), max(inner[1], grown[1]), min(inner[2], grown[2]), max(inner[3], grown[3]))
        x, y = (f"{low:.3g}:{high:.3g}:{n}" for low, high, n in (grown[:2] + shown.z.shape[1:],
                                                                 grown[2:] + shown.z.shape[:1]))
        figures.note(f"the path leaves the surface; to have contours below all of it compute --x={x} --y={y}")
    figure, ax = canvas(whole, show)
    label_axes(ax, axis_labels(dir_file))
    kinds = hatch_bad(ax, shown, cells=False)
    if whole != inner:
        ax.plot(*np.array(box(shown))[[[0, 1, 1, 0, 0], [2, 2, 3, 3, 2]]], color="0.6", linewidth=0.6, label="_surface")
    handles = draw_paths(ax, proj_files, names)
    finish(figure, ax, handles + mark_points(ax, shown, centre=False), kinds, shown.title)
    if len(chosen.levels):
        draw_contours(ax, shown, chosen)
    written = [figures.save(figure, output or f"{proj_files[0]}_{surf_name}_2dcontour_proj.{fmt}")]
    if show:
        figures.show_windows()
    return written


@figures.style()
def plot_trajectory(proj_file, dir_file="", show=False, *, fmt="pdf", labels=(), output="", title=None):
    """Write the optimizer path alone to PROJ_FILE.pdf; several paths go into the figure of the first."""
    proj_files = as_list(proj_file)
    names = figures.labels_for(proj_files, labels) if len(proj_files) > 1 else list(labels) or ["optimizer path"]
    figure, ax = canvas(widened(path_box(proj_files)), show)
    ax.grid(True)
    label_axes(ax, axis_labels(dir_file))
    finish(figure, ax, draw_paths(ax, proj_files, names), [], title)
    written = [figures.save(figure, output or f"{proj_files[0]}.{fmt}")]
    if show:
        figures.show_windows()
    return written
