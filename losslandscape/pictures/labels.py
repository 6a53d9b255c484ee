# ruff: noqa
"""Labels."""

import os
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.pictures import style as figures
from losslandscape.pictures.scales import line_colours, drawable


def label_axes(ax, labels):
    ax.locator_params(nbins=5)
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])


def axis_labels(dir_file):
    """Axis labels; with a PCA direction file the share of the variance that each axis explains."""
    if dir_file:
        ratio = h5_util.read_directions(dir_file).extra.get("explained_variance_ratio_")
        if ratio is not None and np.shape(ratio) == (2,):
            return tuple(f"{place} PC: {100 * r:.2f} %" for place, r in zip(("1st", "2nd"), ratio, strict=True))
    return r"first direction, $\alpha$", r"second direction, $\beta$"


def colour_bar(figure, mappable, label, levels=None, **kwargs):
    """Colour bar with at most 12 of the levels as ticks; without `cax`, in axes that `finish` puts in place."""
    if "cax" not in kwargs:
        kwargs["cax"] = figure.add_axes((0.85, 0.2, 0.03, 0.6))
    if levels is not None:
        kwargs |= {"ticks": levels[:: -(-len(levels) // 12)], "format": lambda level, _: figures.number(level)}
    bar = figure.colorbar(mappable, **kwargs)
    if levels is not None:
        bar.minorticks_off()
    bar.set_label(label)
    bar.outline.set_linewidth(0.6)
    return bar


def label_contours(ax, lines, size=7, most=14):
    """Write the level on the lines, only where the text stays clear of other lines, labels and marks.

    matplotlib's own labels pile up where lines are dense, which is the rule around a sharp minimum. A candidate is a
    nearly straight stretch of a line; its text is taken as a row of circles; all distances are in points on paper.
    Where hardly any label fits, a line in the corner says what the levels are. Returns the texts.
    """
    ax.figure.draw_without_rendering()  # the layout decides where things are
    to_points = 72.0 / ax.figure.dpi
    radius = 0.75 * size  # the circles cover the corners of the text's box

    def on_paper(polygon):  # (n, 2) points about 2 pt apart
        corners = ax.transData.transform(polygon) * to_points
        length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
        at = np.linspace(0, length[-1], int(length[-1] / 2) + 2)
        return np.stack([np.interp(at, length, c) for c in corners.T], -1)

    segments = [(level, on_paper(polygon)) for level, path in zip(lines.levels, lines.get_paths(), strict=True)
                for polygon in path.to_polygons(closed_only=False)]
    every = np.concatenate([points for _, points in segments] or [np.empty((0, 2))])
    owner = np.concatenate([np.full(len(points), level) for level, points in segments] or [[]])
    taken = np.concatenate([on_paper(line.get_xydata()) for line in ax.lines] or [np.empty((0, 2))])  # marks, paths
    frame = ax.get_window_extent().get_points() * to_points + [[radius + 2], [-radius - 2]]  # [[x0, y0], [x1, y1]]
    # every 8th level first, then every 4th, ...: labels spread over the whole range; a second round for other lines,
    # one label for each
    order = sorted(range(len(lines.levels)), key=lambda i: (-((i & -i) or 64), i))
    others = {level: _distance_to(every[owner != level]) for level in lines.levels}
    texts = []
    for bend in (0.25, 0.45):
        for level in lines.levels[order]:
            text = figures.number(level)
            width = _text_width(text, size)
            which, middles, chords = _straight_stretches(segments, level, width, bend * size)  # of C candidates
            if not len(which) or len(texts) >= most:
                continue
            along = np.linspace(-0.5, 0.5, max(2, int(width / radius) + 1)) * width
            rows = middles[:, None] + along[:, None] * chords[:, None]  # (C, circles, 2)
            room = np.minimum(others[level](rows) - radius, _distance_to(taken)(rows) - 2 * radius)  # (C,)
            room[(rows < frame[0]).any((1, 2)) | (rows > frame[1]).any((1, 2))] = 0
            steep = np.abs(np.arctan2(chords[:, 1], np.abs(chords[:, 0])))  # level text reads best
            score = np.where(room > 0, np.minimum(room, 2 * size) - 0.5 * size * steep, -np.inf)
            best = score.argmax()
            if room[best] <= 0:
                continue
            segments[which[best]] = (None, segments[which[best]][1])
            taken = np.concatenate([taken, rows[best]])
            x, y = ax.transData.inverted().transform(middles[best] / to_points)
            angle = (np.degrees(np.arctan2(*chords[best][::-1])) + 90) % 180 - 90  # never upside down
            texts.append(_boxed(ax, x, y, text, size, rotation=angle, rotation_mode="anchor", ha="center", va="center"))
    if len(texts) < min(3, len(lines.levels)):
        _boxed(ax, 0.02, 0.02, _levels_in_words(lines.levels), size, transform=ax.transAxes)
    return texts


def _text_width(text, size):
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=size, prop=FontProperties()).get_extents().width + 0.3 * size


def _straight_stretches(segments, level, width, most_bend):
    """Stretches of the lines of `level`, `width` long, that leave their chord by at most `most_bend`.

    Returns the number of the segment (C,), the middle (C, 2) and the unit chord (C, 2) of each.
    """
    half = max(1, int(width / 4))  # the points are 2 pt apart
    which, middles, chords = [], [], []
    for number, (own, points) in enumerate(segments):
        if own != level:
            continue
        for i in range(half, len(points) - half, max(2, half // 2)):
            start, end = points[i - half], points[i + half]
            length = np.hypot(*(end - start))
            if length < 0.8 * 4 * half:
                continue
            chord = (end - start) / length
            away = points[i - half : i + half] - start
            bend = chord[0] * away[:, 1] - chord[1] * away[:, 0]
            if np.abs(bend).max() <= most_bend:
                which.append(number)
                middles.append((start + end) / 2 + np.array([-chord[1], chord[0]]) * bend.mean())
                chords.append(chord)
    return np.array(which), np.array(middles), np.array(chords)


def _distance_to(points):
    """Function of rows (C, n, 2) that gives the smallest distance (C,) of each row to the points (m, 2)."""
    if not len(points):
        return lambda rows: np.full(len(rows), np.inf)
    tree = figures.need("scipy.spatial").cKDTree(points)
    return lambda rows: tree.query(rows)[0].min(axis=1)


def _boxed(ax, x, y, text, size, **placing):
    box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    made = ax.text(x, y, text, fontsize=size, color="0.1", clip_on=True, bbox=box, zorder=4, **placing)
    made.set_in_layout(False)
    return made


def _levels_in_words(levels):
    """'levels 0.1 to 9.6, step 0.5', or all of them where they are few."""
    if len(levels) <= 4:
        return "levels " + ", ".join(map(figures.number, levels))
    step = np.diff(levels)
    even = f", step {figures.number(step[0])}" if np.allclose(step, step[0]) else ""
    return f"levels {figures.number(levels[0])} to {figures.number(levels[-1])}{even}"
