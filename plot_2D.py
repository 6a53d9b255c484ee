"""Draw 2-D surfaces: contours, filled contours, heat map, 3-D figure; optimizer paths; comparisons.

    python plot_2D.py --surf_file SURFACE.h5 --surf_name train_loss      # ..._train_loss_2dcontour.pdf and three more
    python plot_2D.py --surf_file SURFACE.h5 --log --format png          # levels spaced evenly in the logarithm
    python plot_2D.py --surf_file SURFACE.h5 --proj_file PROJ.h5 --dir_file DIRECTIONS.h5    # a path over the contours
    python plot_2D.py --proj_file PROJ.h5 --dir_file DIRECTIONS.h5       # the path alone
    python plot_2D.py --compare SHORTCUTS.h5 NO_SHORTCUTS.h5 --vmax 10   # side by side on one scale, flatness below

--surf_name is any value of the file: train_loss, train_acc, train_err, test_loss, ..., max_eig, min_eig, or a metric of
your own; of the summary of repeats also train_loss_low, train_loss_high and train_loss_iqr.
A file with max_eig and min_eig gives maps of their ratio as well. A file that is still being computed is drawn from the
points that are there, and the title says how many.
"""

import os
from dataclasses import dataclass

import numpy as np

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.pictures import style as figures

LOSS_RANGE = (0.1, 10.0, 0.5)  # the usual --vmin, --vmax, --vlevel for a loss
LOSS_TOP = 10.0  # the usual --zlim for a loss
MOST_LEVELS = 1000


@dataclass(frozen=True)
class Plane:
    """What is drawn: z (ny, nx) is finite or NaN; `bad` says why a point is NaN ({kind: mask (ny, nx)})."""

    x: np.ndarray  # (nx,)
    y: np.ndarray  # (ny,)
    z: np.ndarray  # (ny, nx), row = y
    computed: np.ndarray  # (ny, nx) bool; the other values of z are interpolated
    bad: dict
    name: str
    title: str

    @property
    def finite(self):
        return self.z[np.isfinite(self.z)]


@dataclass(frozen=True)
class Scale:
    """Contour levels (those that lie inside the data) and the range of the colours."""

    levels: np.ndarray
    low: float
    high: float
    log: bool

    def norm(self):
        from matplotlib.colors import LogNorm, Normalize

        return (LogNorm if self.log else Normalize)(self.low, self.high)

    def extend(self, z):
        """Which ends of the colour bar get an arrow because values go on beyond it."""
        below, above = bool((z < self.low).any()), bool((z > self.high).any())
        return (("neither", "max"), ("min", "both"))[below][above]


# ---------------------------------------------------------------- what is drawn


def read_2d(path):
    """Surface of a 2-D file with increasing coordinates."""
    surface = h5_util.read_surface(path)
    if surface.grid.y is None:
        raise InputError(f"expected a 2-D surface, {path} has the 1-D grid {surface.grid}; use plot_1D.py")
    for axis in (surface.grid.x, surface.grid.y):
        if not (np.isfinite(axis).all() and (np.diff(axis) > 0).all()):
            raise InputError(f"expected increasing coordinates in {path}; the file is damaged")
    return surface


def make_plane(surface, values, name, path, title=None):
    """Plane of the masked array `values` (ny, nx); what is not computed comes from the finished coarse points."""
    computed = ~np.ma.getmaskarray(values)
    if not computed.any():
        raise InputError(f"nothing of {name} is computed yet in {path}; run plot_surface.py on it first")
    filled = values if computed.all() else from_coarse(surface.grid, values)
    if title is None:
        model = surface.provenance.get("model")
        title = figures.heading(model if isinstance(model, str) else "", figures.plain_name(name).removesuffix(" (%)"))
    title += unfinished(values, filled) if title else ""
    z = np.ma.masked_invalid(filled).filled(np.nan)
    return Plane(surface.grid.x, surface.grid.y, z, computed, figures.bad_points(filled), name, title)


def unfinished(values, filled):
    """A second line, '12 % of the points, interpolated', or '' where all points are computed."""
    share = figures.share_done(values)
    if share == 1:
        return ""
    return f"\n{figures.percent(share)} of the points" + (", interpolated" if filled is not values else "")


def from_coarse(grid, values):
    """Masked array (ny, nx) with the gaps filled from the finest finished level of a coarse-to-fine run.

    Level k holds the rows and columns whose number, counted from the middle, is a multiple of 2^k. Starting at the
    finest level that is complete, each finer one keeps its computed points and gets the rest by linear interpolation
    (of the logarithm where all values are above 0, because losses span decades). A point whose nearest computed point
    is NaN or inf takes that value. Without a complete level (at least 2 x 2 points) `values` is returned as it is.
    """
    mask, data = np.ma.getmaskarray(values), np.ma.getdata(values).astype(float)
    finite = np.isfinite(data) & ~mask
    step, lines = 1, None
    while step < max(mask.shape):
        step *= 2
        lines = [np.arange(n // 2 % step, n, step) for n in mask.shape]
        if not mask[np.ix_(*lines)].any():
            break
    else:
        return values
    if min(map(len, lines)) < 2 or not finite.any():
        return values

    def nearest(known):  # for each point the value of the nearest known one
        transform = figures.need("scipy.ndimage").distance_transform_edt
        return data[tuple(transform(~known, return_distances=False, return_indices=True))]

    interpolator = figures.need("scipy.interpolate").RegularGridInterpolator
    positive = (data[finite] > 0).all()
    smooth = np.where(finite, data, nearest(finite))
    smooth = np.log(smooth) if positive else smooth
    level = smooth[np.ix_(*lines)]
    while step > 1:
        step //= 2
        finer = [np.arange(n // 2 % step, n, step) for n in mask.shape]
        points = tuple(axis[i] for axis, i in zip((grid.y, grid.x), lines, strict=True))
        at = np.stack(np.meshgrid(grid.y[finer[0]], grid.x[finer[1]], indexing="ij"), -1)
        # the border lies outside the coarse points: fill_value=None carries the slope on
        between = interpolator(points, level, bounds_error=False, fill_value=None)(at)
        here = np.ix_(*finer)
        level, lines = np.where(mask[here], between, smooth[here]), finer
    claim = nearest(~mask)
    filled = np.where(np.isfinite(claim), np.exp(level) if positive else level, claim)
    return np.ma.masked_array(np.where(mask, filled, data), np.zeros(mask.shape, bool))


# ---------------------------------------------------------------- scales


def choose_scale(planes, vmin=None, vmax=None, vlevel=None, log=False):
    """Scale for the planes together. None: 0.1, 10, 0.5 for a loss; from the data for others and on a log scale.

    Where the levels asked for leave the picture empty, a note says so and the data choose.
    """
    check_range(vmin, vmax, vlevel)
    z = np.concatenate([p.finite for p in planes])
    if not len(z):
        return Scale(np.array([]), 0.0, 1.0, False)
    name = planes[0].name
    if log and not (z > 0).any():
        figures.note(f"a log scale needs values above 0, {name} has none; the scale is linear")
        log = False
    if log:
        z = z[z > 0]
    low, high = float(z.min()), float(z.max())
    given = not (vmin is None and vmax is None and vlevel is None)
    usual = LOSS_RANGE if figures.is_loss(name) and not log else (None, None, None)
    if given or usual[0] is not None:
        bottom, top, step = (v if v is not None else u for v, u in zip((vmin, vmax, vlevel), usual, strict=True))
        bottom, top = low if bottom is None else bottom, high if top is None else top
        if log and bottom <= 0:
            raise InputError(f"expected --vmin above 0 with --log, got {bottom:g}")
        if log:
            levels = log_levels(bottom, top)
        elif bottom >= top:
            levels = np.array([])
        elif step:
            levels = stepped_levels(bottom, top, step)
        else:
            levels = linear_levels(bottom, top)
        inside = levels[(levels > low) & (levels < high)]
        ends = (max(bottom, low) if vmin is None else bottom, min(top, high) if vmax is None else top)
        if len(inside) >= (1 if given else 3) and ends[0] < ends[1]:
            return Scale(inside, *ends, log)
        if low < high:
            text = f"levels from {bottom:g} to {top:g}" + (f" in steps of {step:g}" if step and not log else "")
            figures.note(f"{text} leave {'the' if given else 'almost the whole'} picture empty "
                         f"({name} goes from {low:.4g} to {high:.4g}); levels chosen from the data")
    log = log or (low > 0 and high / low > 100 and not figures.in_percent(name))
    levels = log_levels(low, high) if log else linear_levels(low, high)
    return Scale(levels[(levels > low) & (levels < high)], low, high if high > low else low + (abs(low) or 1.0), log)


def check_range(vmin, vmax, vlevel):
    for flag, value in (("--vmin", vmin), ("--vmax", vmax), ("--vlevel", vlevel)):
        if value is not None and not np.isfinite(value):
            raise InputError(f"expected a finite number for {flag}, got {value}")
    if vlevel is not None and vlevel <= 0:
        raise InputError(f"expected --vlevel above 0, got {vlevel:g}; for example 0.5")
    if vmin is not None and vmax is not None and not vmin < vmax:
        raise InputError(f"expected --vmin below --vmax, got {vmin:g} and {vmax:g}")


def stepped_levels(bottom, top, step):
    """bottom, bottom + step, ... up to and with top."""
    count = (top - bottom) / step
    if count > MOST_LEVELS:
        raise InputError(f"expected at most {MOST_LEVELS} contour levels, --vmin {bottom:g} --vmax {top:g} "
                         f"--vlevel {step:g} make {count:.3g}; take a larger --vlevel")
    return bottom + step * np.arange(int(count + 1e-9) + 1)


def linear_levels(low, high):
    """About ten round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(10, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)


def log_levels(low, high):
    """Round numbers that are about evenly spaced in the logarithm, between low and high (both above 0)."""
    decades = np.log10(high / low) if high > low else 0.0
    if decades < 0.7:
        levels = linear_levels(low, high)
    else:
        digits = next(d for most, d in ((1.3, (1, 1.5, 2, 3, 4, 5, 7)), (4, (1, 2, 5)), (8, (1, 3)), (np.inf, (1,)))
                      if decades < most)
        exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1, max(1, np.ceil(decades / 16)))
        levels = np.array([d * 10.0**e for e in exponents for d in digits])
    return levels[(levels >= low * (1 - 1e-9)) & (levels <= high * (1 + 1e-9))]


# ---------------------------------------------------------------- parts of a figure


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


def line_colours():
    """The colour map without its brightest fifth, which thin lines on white paper would lose."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps[figures.COLOUR_MAP](np.linspace(0, 0.8, 256)))


def drawable(plane, scale):
    """z as matplotlib takes it: NaN masked, and on a log scale values of 0 or less below all others (not left out)."""
    z = np.ma.masked_invalid(plane.z)
    return np.maximum(z, 0.5 * plane.finite[plane.finite > 0].min()) if scale.log else z


def draw_contours(ax, plane, scale, labels=True):
    """Contour lines, labelled where a label covers no other line."""
    lines = ax.contour(plane.x, plane.y, drawable(plane, scale), levels=scale.levels, cmap=line_colours(),
                       norm=scale.norm(), linewidths=0.9)
    if labels:
        label_contours(ax, lines)
    return lines


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


# ---------------------------------------------------------------- the four figures of a surface


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


def height_range(name, low, high, zlim, log):
    """(bottom, top, cut) of the z axis in its own units (log10 with `log`); `cut`: the surface goes on above it."""
    if zlim is None and figures.is_loss(name) and not log and low < LOSS_TOP < high:
        zlim = LOSS_TOP
    top = high if zlim is None else np.log10(zlim) if log and zlim > 0 else -np.inf if log else zlim
    if top <= low < high:
        figures.note(f"no {name} is below --zlim {zlim:g}; the axis goes up to the highest")
        top = high
    bottom = min(0.0, low) if not log and low < 0.25 * top else low
    return bottom, top if top > bottom else bottom + 1.0, top < high


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


def format_height(axis, bottom, top, log):
    """Ticks of the z axis; returns the power of ten that its label names: long numbers would run into the label."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    if log:
        levels = log_levels(10.0**bottom, 10.0**top)
        levels = levels[:: -(-len(levels) // 5)]
        axis.set_major_locator(FixedLocator(np.log10(levels)))
        axis.set_major_formatter(lambda value, _: figures.number(float(f"{10.0**value:.6g}")))
        return ""
    power = int(np.floor(np.log10(max(abs(top), abs(bottom)))))
    power = power if not -3 < power < 4 else 0
    axis.set_major_locator(MaxNLocator(4))
    axis.set_major_formatter(lambda value, _: f"{value / 10.0**power:g}")
    return rf" ($\times 10^{{{power}}}$)" if power else ""


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


# ---------------------------------------------------------------- eigenvalues


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


# ---------------------------------------------------------------- optimizer paths


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


# ---------------------------------------------------------------- comparison


def flatness_text(surface, name):
    """A few lines on the flatness of a finished surface; '' where flatness.py can't measure it."""
    import flatness

    if figures.share_done(surface.get(name)) < 1:  # missing points count as outside of a basin
        return "flatness: once all points are computed"
    try:
        found = flatness.measures(surface, name)
    except InputError as error:
        figures.note(f"no flatness numbers: {error}")
        return ""
    basin = found["basins"][-1]
    parts = [f"{figures.plain_name(name)} at centre {found['centre']['loss']:.3g}",
             rf"basin ($\tau$ = {basin['tau']:g}) {100 * basin['area_fraction']:.2g} % of the plane"]
    if found["sharpness"]["percent"] is not None:
        percent = figures.number(float(f"{found['sharpness']['percent']:.3g}"))
        parts.append(rf"$\epsilon$-sharpness ({found['sharpness']['epsilon']:g}) {percent} %")
    if found["convex"]["share"] is not None:
        parts.append(f"convex {100 * found['convex']['share']:.0f} %")
    return "\n".join(parts)


@figures.style()
def plot_2d_compare(surf_files, surf_name="train_loss", vmin=None, vmax=None, vlevel=None, show=False, *, log=False,
                    fmt="pdf", labels=(), output="", title=None):
    """Write filled contours of several surfaces side by side on one scale, their flatness below each.

    The way the paper compares networks with and without shortcuts (Li et al. 2018, figure 5). The numbers are those of
    flatness.py. Written to FIRST_FILE_SURFNAME_2dcompare.pdf.
    """
    names = figures.labels_for(surf_files, labels)
    surfaces = [read_2d(path) for path in surf_files]
    planes = []
    for surface, path, name in zip(surfaces, surf_files, names, strict=True):
        planes.append(make_plane(surface, surface.get(surf_name), surf_name, path, title=name))
        if min(planes[-1].z.shape) < 2:
            raise InputError(f"expected at least 2 rows and 2 columns for contours, {path} has {surface.grid}")
    chosen = choose_scale(planes, vmin, vmax, vlevel, log)
    below = [flatness_text(surface, surf_name) for surface in surfaces]
    columns = min(len(planes), 2 if len(planes) in (2, 4) else 3)
    rows = -(-len(planes) // columns)
    width = {1: figures.COLUMN, 2: 0.75 * figures.PAGE}.get(columns, figures.PAGE)  # inches, as all sizes here
    each = (width - 0.1) / columns  # a panel with its tick labels, 0.45 wide
    shape = [np.ptp(p.y) / np.ptp(p.x) for p in planes]
    tall = (each - 0.45) * max(s if 1 / 3 <= s <= 3 else 0.75 for s in shape)
    above, under = (0.1 + 0.15 * max(p.title.count("\n") + 1 for p in planes),
                    0.3 + 0.14 * max(text.count("\n") + 1 for text in below))
    top = 0.2 if title else 0.0
    height = top + rows * (above + tall + under) + 0.65
    figure = figures.new_figure(width, height, show, layout="none")
    kinds, marks = set(), {}
    for i, (shown, text) in enumerate(zip(planes, below, strict=True)):
        row, column = divmod(i, columns)
        y = height - top - row * (above + tall + under) - above - tall
        ax = figure.add_axes(((column * each + 0.45) / width, y / height, (each - 0.45) / width, tall / height))
        kinds |= set(hatch_bad(ax, shown, cells=False))
        filled = fill_contours(ax, shown, chosen)
        # each panel has a minimum of its own, so the legend names no value
        marks |= {mark.get_label().partition(",")[0]: mark for mark in mark_points(ax, shown)}
        ax.set_title(shown.title)
        ax.set_aspect("equal" if 1 / 3 <= shape[i] <= 3 else "auto")
        ax.locator_params(nbins=5)
        ax.set_xlabel(text, fontsize=7)
    bar = colour_bar(figure, filled, figures.plain_name(surf_name), filled.levels, orientation="horizontal",
                     cax=figure.add_axes((0.15, 0.56 / height, 0.7, 0.09 / height)))
    bar.ax.xaxis.labelpad = 2
    if title:
        figure.suptitle(title, y=1 - 0.03 / height, va="top")
    marks |= {patch.get_label(): patch for patch in figures.bad_handles(kinds)}
    if marks:
        figure.legend(marks.values(), marks.keys(), loc="lower center", ncols=len(marks))
    written = [figures.save(figure, output or f"{surf_files[0]}_{surf_name}_2dcompare.{fmt}")]
    if show:
        figures.show_windows()
    return written


# ---------------------------------------------------------------- command line


def main(argv=None):
    parser = Parser(description=__doc__.split("\n\n")[0], epilog="Figures are written beside the surface file.")
    parser.add_argument("--surf_file", "-f", default="", metavar="FILE", help="2-D surface")
    parser.add_argument("--dir_file", default="", metavar="FILE", help="PCA directions, for the labels of the axes")
    parser.add_argument("--proj_file", nargs="+", default=[], metavar="FILE", help="projected optimizer paths")
    parser.add_argument("--surf_name", default="", help="what to draw (default train_loss, or what the file has)")
    parser.add_argument("--vmax", type=float, default=None, help="highest contour (default 10 for a loss)")
    parser.add_argument("--vmin", type=float, default=None, help="lowest contour (default 0.1 for a loss)")
    parser.add_argument("--vlevel", type=float, default=None, help="step between contours (default 0.5 for a loss)")
    parser.add_argument("--zlim", type=float, default=None, help="top of the 3-D figure (default 10 for a loss)")
    parser.add_argument("--log", action="store_true", help="log-spaced levels, log colours, log height")
    parser.add_argument("--compare", nargs="+", default=[], metavar="FILE", help="surfaces side by side on one scale")
    figures.add_arguments(parser)
    args = parser.parse_args(argv)

    modes = bool(args.compare) + bool(args.surf_file or args.proj_file)
    if modes == 0:
        raise InputError("expected --surf_file FILE, --proj_file FILE or --compare FILE FILE, got none; see --help")
    if modes == 2:
        raise InputError("expected --compare without --surf_file and --proj_file; give all surfaces to --compare")
    if args.output:
        if not (args.compare or args.proj_file):
            raise InputError("expected --output only with --compare or --proj_file, which draw a single figure")
        figures.format_of(args.output)
    first = args.surf_file or next(iter(args.compare), "")
    surface = read_2d(first) if first else None
    name = args.surf_name or (surface.main_name if surface else "")
    levels = {"surf_name": name, "vmin": args.vmin, "vmax": args.vmax, "vlevel": args.vlevel, "log": args.log}
    common = {"show": args.show, "fmt": args.format, "title": args.title}
    single = common | {"labels": args.label, "output": args.output}
    if args.compare:
        written = plot_2d_compare(args.compare, **levels, **single)
    elif args.proj_file and args.surf_file:
        written = plot_contour_trajectory(args.surf_file, args.dir_file, args.proj_file, **levels, **single)
    elif args.proj_file:
        written = plot_trajectory(args.proj_file, args.dir_file, **single)
    else:
        has_eigenvalues = {"min_eig", "max_eig"} <= surface.values.keys()
        written = []
        if args.surf_name or not has_eigenvalues or figures.is_loss(name):
            written += plot_2d_contour(args.surf_file, **levels, zlim=args.zlim, dir_file=args.dir_file, **common)
        if has_eigenvalues:
            written += plot_2d_eig_ratio(args.surf_file, **common)
    print("\n".join(written))


if __name__ == "__main__":
    run(main)
