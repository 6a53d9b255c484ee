"""Paths of optimizers: projected training runs, alone or over the contours of a surface.

    plot_trajectory(["PROJ.h5"], "DIRECTIONS.h5")
    plot_contour_trajectory("SURFACE.h5", "DIRECTIONS.h5", ["PROJ.h5"])

A box is (left, right, bottom, top), the range of x and of y.
"""

import os

import numpy as np

from losslandscape.files.names import picture_file_name
from losslandscape.pictures.frame import fit_frame, new_frame
from losslandscape.pictures.labels import axis_labels, label_axes
from losslandscape.pictures.marks import hatch_panel, mark_points
from losslandscape.pictures.mathtext import typed_text
from losslandscape.pictures.panel import make_panel, panel_box, read_2d, refuse_single_line
from losslandscape.pictures.path_tables import common_unit, read_path_table
from losslandscape.pictures.scales import choose_scale
from losslandscape.pictures.style import note, style, write_figures
from losslandscape.pictures.surfaces import draw_contours
from losslandscape.pictures.words import labels_for

# none of them is in the colour map
PATH_COLOURS = ("#C1272D", "#E08A00", "#D64FA0", "#000000", "#7A3E00", "#6A6A6A")
MARGIN = 0.06  # around a path, of its width
STRAIGHT_MARGIN = 0.1  # of a path that is nearly straight, of its length
STRAIGHT = 0.15  # a path narrower than this share of its length is nearly straight
MANY_CHECKPOINTS = 60  # from here on the dots of a path are small


# ---------------------------------------------------------------- figures


@style()
def plot_contour_trajectory(surf_file, dir_file, proj_file, surf_name="train_loss", vmin=None,
                            vmax=None, vlevel=None, show=False, *, log=False, fmt="pdf", labels=(),
                            output="", title=None):
    """Write the contours with one or several optimizer paths over them; returns [its path].

    proj_file: one projection file or a list. labels: names of several, for the legend.
    vmin, vmax, vlevel, log: see `plot_2d_contour`.
    output: name of the figure, by default PROJ_FILE_SURFNAME_2dcontour_proj.pdf.

    The axes grow where a path leaves the surface, so that all of it is seen. Raises InputError for
    files that can't be drawn.
    """
    proj_files = as_list(proj_file)
    names = path_names(proj_files, labels)
    tables = [read_path_table(file) for file in proj_files]
    surface = read_2d(surf_file)
    panel = make_panel(surface, surface.get(surf_name), surf_name, surf_file, title)
    refuse_single_line(surface, surf_file)
    scale = choose_scale([panel], vmin, vmax, vlevel, log)

    surface_box = panel_box(panel)
    box = surface_box
    paths = path_box(tables)
    if not is_inside(paths, surface_box):
        box = joined_box(surface_box, widened(paths))
        advise_larger_grid(widened(paths), panel.z.shape)

    figure, ax = new_frame(box, show)
    label_axes(ax, axis_labels(dir_file))
    kinds = hatch_panel(ax, panel, cells=False)
    if box != surface_box:
        draw_rim(ax, surface_box)
    handles = draw_paths(ax, tables, names)
    handles += mark_points(ax, panel, centre=False)
    fit_frame(figure, ax, handles, kinds, panel.title)
    if len(scale.levels) > 0:
        draw_contours(ax, panel, scale)

    path = output or picture_file_name(proj_files[0], "2dcontour_proj", fmt, surf_name)
    return write_figures({path: figure}, show)


@style()
def plot_trajectory(proj_file, dir_file="", show=False, *, fmt="pdf", labels=(), output="",
                    title=None):
    """Write the optimizer path, or several, alone to PROJ_FILE.pdf; returns [path of the figure].

    proj_file, labels: see `plot_contour_trajectory`. output: another name, by default that of the
    first path. Raises InputError for files that can't be drawn.
    """
    proj_files = as_list(proj_file)
    names = path_names(proj_files, labels)
    tables = [read_path_table(file) for file in proj_files]
    figure, ax = new_frame(widened(path_box(tables)), show)
    ax.grid(True)
    label_axes(ax, axis_labels(dir_file))
    fit_frame(figure, ax, draw_paths(ax, tables, names), [], typed_text(title or ""))
    return write_figures({output or f"{proj_files[0]}.{fmt}": figure}, show)


def as_list(paths):
    """[path] of a single path, and a list of several as it is."""
    if isinstance(paths, (str, os.PathLike)):
        return [paths]
    return list(paths)


def path_names(proj_files, labels):
    """Names of the paths for the legend: the user's, or what tells the files apart."""
    if len(proj_files) == 1 and not labels:
        return ["optimizer path"]
    return labels_for(proj_files, labels)


def advise_larger_grid(box, shape):
    """Say which --x and --y cover the box with as many points, (ny, nx), as the surface has."""
    left, right, bottom, top = box
    rows, columns = shape
    x = f"{left:.3g}:{right:.3g}:{columns}"
    y = f"{bottom:.3g}:{top:.3g}:{rows}"
    note(f"the path leaves the surface; to have contours below all of it compute --x={x} --y={y}")


# ---------------------------------------------------------------- drawing


def draw_paths(ax, tables, names):
    """Draw each projected path with its start and end; returns the legend entries.

    tables: of `read_path_table`, one per path.
    """
    handles = []
    for i, (table, name) in enumerate(zip(tables, names, strict=True)):
        handles += draw_path(ax, table, name, PATH_COLOURS[i % len(PATH_COLOURS)])
    return handles + end_handles(common_epochs(tables), common_unit(tables))


def draw_path(ax, table, name, colour):
    """Draw a path with a square at its start and a star at its end; returns [legend entry]."""
    x, y = table["proj_xcoord"], table["proj_ycoord"]  # (checkpoints,)
    dot_size = 3.5
    if len(x) > MANY_CHECKPOINTS:
        dot_size = 2

    # on a white band, to stand out from the contours
    ax.plot(x, y, linewidth=2.2, color="white", zorder=5.5)
    look = {"color": colour, "zorder": 6, "clip_on": False}
    handles = ax.plot(x, y, marker=".", markersize=dot_size, linewidth=1.0, label=name, **look)
    ax.plot(x[:1], y[:1], label="_start", **look, **START, **END_LOOK)
    ax.plot(x[-1:], y[-1:], label="_end", **look, **END, **END_LOOK)
    return handles


START = {"marker": "s", "markersize": 4.5}
END = {"marker": "*", "markersize": 8}
END_LOOK = {"markeredgecolor": "black", "markeredgewidth": 0.5, "linestyle": "none"}


def end_handles(epochs, unit):
    """Grey legend entries of the start and the end of all paths.

    epochs: (first, last) or None. unit: what they count, 'epoch' or 'step'.
    """
    from matplotlib.lines import Line2D

    start, end = "start", "end"
    if epochs is not None:
        first, last = epochs
        start, end = f"start, {unit} {first}", f"end, {unit} {last}"
    return [
        Line2D([], [], color="0.6", label=start, **START, **END_LOOK),
        Line2D([], [], color="0.6", label=end, **END, **END_LOOK),
    ]


def common_epochs(tables):
    """(first, last) epoch where all paths have the same, else None; old files name no epochs."""
    ranges = set()
    for table in tables:
        epochs = table.get("epoch")
        if epochs is None:
            return None
        ranges.add((table["unit"], epochs[0], epochs[-1]))

    if len(ranges) > 1:
        return None
    _, first, last = ranges.pop()
    return first, last


def draw_rim(ax, box):
    """A thin line around the box."""
    left, right, bottom, top = box
    corners_x = [left, right, right, left, left]
    corners_y = [bottom, bottom, top, top, bottom]
    ax.plot(corners_x, corners_y, color="0.6", linewidth=0.6, label="_surface")


# ---------------------------------------------------------------- boxes


def path_box(tables):
    """Box of all the paths."""
    points = [
        np.stack([table["proj_xcoord"], table["proj_ycoord"]], -1).astype(float)  # (checkpoints, 2)
        for table in tables
    ]
    points = np.concatenate(points)
    left, bottom = points.min(axis=0)
    right, top = points.max(axis=0)
    return left, right, bottom, top


def widened(box, share=MARGIN):
    """The box with a margin; a box without width gets one."""
    left, right, bottom, top = box
    width, height = right - left, top - bottom
    length = max(width, height)
    if length == 0:
        length = 1.0

    dx, dy = share * width, share * height
    if width < STRAIGHT * length:
        dx = STRAIGHT_MARGIN * length
    if height < STRAIGHT * length:
        dy = STRAIGHT_MARGIN * length
    return left - dx, right + dx, bottom - dy, top + dy


def is_inside(inner, outer):
    """Whether the box `inner` lies in the box `outer`, borders included."""
    left, right, bottom, top = inner
    return outer[0] <= left and right <= outer[1] and outer[2] <= bottom and top <= outer[3]


def joined_box(a, b):
    """The smallest box around two boxes."""
    return min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3])
