"""What a plane hides of an optimizer's path, against the epoch: distances, and losses if known."""

import numpy as np

from losslandscape.files.names import picture_file_name
from losslandscape.pictures.path_tables import common_unit, read_path_table
from losslandscape.pictures.paths import PATH_COLOURS, path_names
from losslandscape.pictures.style import COLUMN, new_figure, style, write_figures

LOOKS = {  # of what is drawn
    "true_loss": {"linestyle": "-", "marker": "o", "label": "checkpoint"},
    "plane_loss": {
        "linestyle": "--", "marker": "o", "markerfacecolor": "white",
        "label": "its shadow in the plane",
    },
    "distance": {"linestyle": "-", "marker": "o", "label": "to the plane"},
    "distance_to_origin": {"linestyle": ":", "marker": "", "label": "to the origin"},
}  # fmt: skip
LOSSES = ("true_loss", "plane_loss")
DISTANCES = ("distance", "distance_to_origin")
AXIS_LABELS = {LOSSES: "train loss", DISTANCES: "distance"}
MARKED_POINTS = 60  # up to so many, each point has a marker
LOG_RANGE = 30  # largest over smallest loss from which the axis is logarithmic

# heights in inches
PANEL_HEIGHT = 1.45
EPOCHS_HEIGHT = 0.55  # of the axis of the epochs
LEGEND_HEIGHT = 0.15  # of the names of several runs


@style()
def plot_against_epoch(proj_files, labels=(), fmt="pdf"):
    """Write what the plane hides against the epoch: distances, and above them losses if known.

    To PROJ_FILE_loss.pdf, or PROJ_FILE_distance.pdf without losses; several runs go into the
    figure of the first. Returns its path in a list.
    """
    tables = [read_path_table(file) for file in proj_files]
    run_names = path_names(proj_files, labels)
    panels, kind = [DISTANCES], "distance"
    if any(evaluated_points(table).any() for table in tables):
        panels, kind = [LOSSES, DISTANCES], "loss"

    figure = epochs_figure(tables, panels, run_names)
    return write_figures({picture_file_name(proj_files[0], kind, fmt): figure}, show=False)


def epochs_figure(tables, panels, run_names):
    """The panels of several runs; tables: of `read_path_table`, one per run."""
    height = EPOCHS_HEIGHT + PANEL_HEIGHT * len(panels)
    if len(tables) > 1:
        height += LEGEND_HEIGHT
    figure = new_figure(COLUMN, height)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]

    marker_size = 3
    if max(len(table["epoch"]) for table in tables) > MARKED_POINTS:
        marker_size = 0
    for ax, names in zip(axes, panels, strict=True):
        draw_panel(ax, tables, names, marker_size)
    axes[-1].set_xlabel(common_unit(tables))
    axes[-1].xaxis.get_major_locator().set_params(integer=True)

    if len(tables) > 1:
        handles = [legend_entry(name, color=colour_of_run(i)) for i, name in enumerate(run_names)]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(run_names), 3))
    return figure


def draw_panel(ax, tables, names, marker_size):
    """Losses or distances of all runs, their scale and their legend."""
    drawn = []
    for i, table in enumerate(tables):
        for name in names:
            epochs, values = points_of(table, name)
            if values is not None:
                colour = colour_of_run(i)
                drawn.append(draw_against_epoch(ax, epochs, values, name, colour, marker_size))

    # the gap between checkpoint and plane
    if names == LOSSES and len(tables) == 1:
        epochs, true = points_of(tables[0], "true_loss")
        _, in_plane = points_of(tables[0], "plane_loss")
        look = {"color": colour_of_run(0), "alpha": 0.15, "linewidth": 0}
        ax.fill_between(epochs, only_finite(true), only_finite(in_plane), **look)

    # the scale
    finite = np.concatenate([np.empty(0), *drawn])
    low, high = finite.min(initial=np.inf), finite.max(initial=0)
    if names == LOSSES and low > 0 and high > LOG_RANGE * low:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=min(0, low))

    ax.set_ylabel(AXIS_LABELS[names])
    ax.grid(True)
    add_legend(ax, tables, names, marker_size)


def add_legend(ax, tables, names, marker_size):
    """What the kinds of lines are; the colour is that of the run where there is only one."""
    look = {"color": "0.3", "linewidth": 1, "markersize": marker_size}
    if len(tables) == 1:
        look["color"] = colour_of_run(0)

    handles = [legend_entry(**look, **LOOKS[name]) for name in names]
    if any(has_bad_points(table, name) for table in tables for name in names):
        cross = {"linestyle": "", "marker": "x", "markersize": 4}
        handles.append(legend_entry("NaN or inf", **look | cross))

    ax.legend(handles=handles, loc="best", frameon=True, framealpha=0.85, edgecolor="none")


def colour_of_run(i):
    """The colour of run number `i`, as that of its path."""
    return PATH_COLOURS[i % len(PATH_COLOURS)]


def legend_entry(label, **look):
    """A line that is in the legend only."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def evaluated_points(table):
    """(n,) bool: the checkpoints whose losses are known."""
    return table.get("evaluated", np.zeros(len(table["proj_xcoord"]), bool))


def points_of(table, name):
    """(epochs, values) of what a table holds under that name; values is None if it holds nothing.

    A checkpoint that was not evaluated has no loss, which is not a loss of NaN.
    """
    epochs, values = table["epoch"], table.get(name)
    if name in LOSSES and values is not None:
        known = evaluated_points(table)
        return epochs[known], values[known]
    return epochs, values


def has_bad_points(table, name):
    """Whether NaN or inf are among the values of that name."""
    _, values = points_of(table, name)
    return values is not None and not np.isfinite(values).all()


def only_finite(values):
    """The values, NaN where they are infinite."""
    return np.where(np.isfinite(values), values, np.nan)


def draw_against_epoch(ax, epochs, values, name, colour, marker_size):
    """One line; a value that can't be drawn gets a cross at the top. Returns the finite values."""
    look = {"color": colour, "linewidth": 1, "markersize": marker_size, **LOOKS[name]}
    ax.plot(epochs, only_finite(values), **look)

    bad = ~np.isfinite(values)
    top = np.full(bad.sum(), 0.95)  # in parts of the height of the axes
    ax.plot(epochs[bad], top, "x", color=colour, markersize=4, transform=ax.get_xaxis_transform())
    return values[~bad]
