"""A film of optimizer paths, epoch by epoch, over the contours of a surface.

What stands still is drawn once; a frame adds the paths up to its epoch and the title.
"""

import io

import numpy as np

from losslandscape.files.names import picture_file_name
from losslandscape.pictures.epochs import colour_of_run
from losslandscape.pictures.frame import fit_frame, new_frame
from losslandscape.pictures.labels import axis_labels, label_axes
from losslandscape.pictures.marks import hatch_panel, mark_points
from losslandscape.pictures.overwrite import MAKER, replace_outputs
from losslandscape.pictures.panel import make_panel, panel_box, read_2d
from losslandscape.pictures.path_tables import common_unit, read_path_table
from losslandscape.pictures.paths import (
    draw_paths,
    is_inside,
    joined_box,
    path_box,
    path_names,
    widened,
)
from losslandscape.pictures.scales import choose_scale
from losslandscape.pictures.style import need, style
from losslandscape.pictures.surfaces import draw_contours
from losslandscape.pictures.words import number

MAX_FRAMES = 150
FILM_SECONDS = 8.0
FRAME_SECONDS = (0.06, 0.7)  # shortest, longest
PAUSE_SECONDS = 2.5  # on the last frame
DOTS_PER_INCH = 160
COLOURS_OF_GIF = 256


@style()
def animate(
    proj_files, dir_file, surf_file="", surf_name="train_loss", vmin=None, vmax=None, vlevel=None,
    *, log=False, labels=(),
):  # fmt: skip
    """Write a GIF of the paths, epoch by epoch, over the contours of `surf_file` if one is given.

    PROJ_FILE_SURFNAME_2dcontour_proj.gif, or PROJ_FILE.gif; returns its path in a list. Above the
    picture: the epoch and, for a single run, the losses and the distance from the plane. At most
    MAX_FRAMES frames, about FILM_SECONDS, then a pause.
    """
    tables = [read_path_table(file) for file in proj_files]
    names = path_names(proj_files, labels)
    if surf_file:
        surface = read_2d(surf_file)
        panel = make_panel(surface, surface.get(surf_name), surf_name, surf_file)
        scale = choose_scale([panel], vmin, vmax, vlevel, log)
        backdrop = backdrop_with_contours(tables, dir_file, names, panel, scale)
        output = picture_file_name(proj_files[0], "2dcontour_proj", "gif", surf_name)
    else:
        backdrop = empty_backdrop(tables, dir_file, names)
        output = f"{proj_files[0]}.gif"

    frames = draw_frames(*backdrop, tables, epochs_of_frames(tables))
    replace_outputs({output: as_gif(frames)})
    return [output]


# ---------------------------------------------------------------- what stands still


def empty_backdrop(tables, dir_file, names):
    """(figure, axes, [lines of each run]) of the paths alone.

    Nothing of the lines and the title is seen yet: they belong to the frames.
    """
    figure, ax = new_frame(widened(path_box(tables)), show=False)
    figure.set_dpi(DOTS_PER_INCH)
    label_axes(ax, axis_labels(dir_file))
    ax.grid(True)

    handles, lines = draw_moving_paths(ax, tables, names)
    fit_frame(figure, ax, handles, [], longest_title(tables))
    add_heads(ax, lines)
    return figure, ax, lines


def backdrop_with_contours(tables, dir_file, names, panel, scale):
    """The same over the contours of a surface; the axes grow where a path leaves it."""
    limits = panel_box(panel)
    path = path_box(tables)
    if not is_inside(path, limits):
        limits = widened(joined_box(path, limits))
    figure, ax = new_frame(limits, show=False)
    figure.set_dpi(DOTS_PER_INCH)
    label_axes(ax, axis_labels(dir_file))
    kinds = hatch_panel(ax, panel, cells=False)

    handles, lines = draw_moving_paths(ax, tables, names)
    handles = handles + mark_points(ax, panel, centre=False)
    fit_frame(figure, ax, handles, kinds, longest_title(tables))
    if len(scale.levels):
        draw_contours(ax, panel, scale)
    add_heads(ax, lines)
    return figure, ax, lines


def longest_title(tables):
    """As many lines as the titles of the frames have: makes room for them."""
    if len(tables) > 1:
        return common_unit(tables)
    return f"{common_unit(tables)}\nloss"


def draw_moving_paths(ax, tables, names):
    """Draw the paths; returns (legend entries, [lines of each run])."""
    first = len(ax.lines)
    handles = draw_paths(ax, tables, names)
    drawn = ax.lines[first:]
    lines_per_run = len(drawn) // len(tables)
    lines = [drawn[i : i + lines_per_run] for i in range(0, len(drawn), lines_per_run)]
    return handles, lines


def add_heads(ax, lines):
    """Give each run a dot for where it is, and leave its lines and the title to the frames."""
    for i, lines_of_run in enumerate(lines):
        look = {"color": colour_of_run(i), "markeredgecolor": "black", "markeredgewidth": 0.5}
        place = {"label": "_head", "zorder": 7, "clip_on": False}
        lines_of_run += ax.plot([], [], "o", markersize=5, **look, **place)
        for line in lines_of_run:
            line.set_animated(True)
    ax.title.set_animated(True)


# ---------------------------------------------------------------- what moves


def epochs_of_frames(tables):
    """The epochs of all runs, evenly thinned out to at most MAX_FRAMES."""
    epochs = np.unique(np.concatenate([epochs_of(table) for table in tables]))
    if len(epochs) <= MAX_FRAMES:
        return epochs
    positions = np.linspace(0, len(epochs) - 1, MAX_FRAMES).round().astype(int)
    return epochs[np.unique(positions)]


def epochs_of(table):
    """The epochs of a path; 0, 1, 2, ... for files of the original, which don't tell."""
    return table.get("epoch", np.arange(len(table["proj_xcoord"])))


def draw_frames(figure, ax, lines, tables, epochs):
    """[(height, width, 3) uint8] of the epochs; lines: of each run."""
    canvas = figure.canvas
    canvas.draw()  # all but the animated artists
    background = canvas.copy_from_bbox(figure.bbox)
    all_lines = [line for lines_of_run in lines for line in lines_of_run]
    from_back_to_front = sorted(all_lines, key=lambda line: line.get_zorder())

    frames = []
    for epoch in epochs:
        canvas.restore_region(background)
        for lines_of_run, table in zip(lines, tables, strict=True):
            cut_lines(lines_of_run, table, epoch)
        for line in from_back_to_front:
            ax.draw_artist(line)
        ax.title.set_text(frame_title(tables, epoch))
        ax.draw_artist(ax.title)
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return frames


def cut_lines(lines, table, epoch):
    """Let the lines of a run show its path up to an epoch: a dot at its head, a star at its end."""
    x, y = table["proj_xcoord"], table["proj_ycoord"]
    done = int((epochs_of(table) <= epoch).sum())
    nothing = slice(0, 0)
    head = end = nothing
    if done == len(x):
        end = slice(done - 1, done)
    elif done > 0:
        head = slice(done - 1, done)

    parts = {"_start": slice(min(done, 1)), "_head": head, "_end": end}
    for line in lines:
        part = parts.get(line.get_label(), slice(done))
        line.set_data(x[part], y[part])


def frame_title(tables, epoch):
    """'epoch 4, 87 % out of the plane' and, below, the losses; of several runs the epoch alone."""
    text = f"{common_unit(tables)} {epoch}"
    if len(tables) > 1:
        return text

    table = tables[0]
    i = int(np.flatnonzero(epochs_of(table) == epoch)[0])
    if "relative_distance" in table and table["distance_to_origin"][i] > 0:
        text += f", {100 * table['relative_distance'][i]:.0f} % out of the plane"
    if "evaluated" in table and table["evaluated"][i]:
        true, in_plane = (short_loss(table[name][i]) for name in ("true_loss", "plane_loss"))
        text += f"\nloss {true}, in the plane {in_plane}"
    return text


def short_loss(loss):
    """Three digits, or 'nan' and 'inf'."""
    loss = float(f"{loss:.3g}")
    return number(loss) if np.isfinite(loss) else str(loss)


def as_gif(frames):
    """The bytes of a GIF that repeats for ever.

    All frames have one palette, or the background would flicker.
    """
    height, width = frames[0].shape[:2]
    strip = need("PIL.Image").fromarray(np.concatenate(frames)).quantize(COLOURS_OF_GIF)
    images = [strip.crop((0, i * height, width, (i + 1) * height)) for i in range(len(frames))]

    seconds = np.clip(FILM_SECONDS / len(images), *FRAME_SECONDS)
    durations = [int(1000 * seconds)] * (len(images) - 1) + [int(1000 * PAUSE_SECONDS)]
    gif = io.BytesIO()
    images[0].save(
        gif, "GIF", save_all=True, append_images=images[1:], loop=0, duration=durations,
        comment=MAKER.encode())
    return gif.getvalue()
