"""Labels of 2-D figures: what the axes are, and the levels written on contour lines."""

from dataclasses import dataclass

import numpy as np

from losslandscape.files.layouts import read_directions
from losslandscape.pictures.style import need
from losslandscape.pictures.words import number

POINTS_PER_INCH = 72.0
SPACING = 2  # points on paper between two points of a contour line
LABEL_SIZE = 7  # points, of the text
RADIUS = 0.75 * LABEL_SIZE  # of the circles that stand for the text; they cover its corners
BENDS = (0.25 * LABEL_SIZE, 0.45 * LABEL_SIZE)  # how far a line may leave its chord below a label
MAX_LABELS = 14
MIN_LABELS = 3  # with fewer, a line in the corner says what the levels are


# ---------------------------------------------------------------- axes


def axis_labels(dir_file):
    """Labels of the x and y axis; of a PCA direction file the variance that each axis explains."""
    if dir_file:
        ratio = read_directions(dir_file).extra.get("explained_variance_ratio_")
        if ratio is not None and np.shape(ratio) == (2,):
            return f"1st PC: {100 * ratio[0]:.2f} %", f"2nd PC: {100 * ratio[1]:.2f} %"
    return r"first direction, $\alpha$", r"second direction, $\beta$"


def label_axes(ax, labels):
    """Write the labels of the x and y axis; about 5 ticks each."""
    x_label, y_label = labels
    ax.locator_params(nbins=5)
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)


# ---------------------------------------------------------------- levels on contour lines
#
# matplotlib's own labels pile up where lines are dense, which is the rule around a sharp minimum.
# Here a label is written only where it stays clear of other lines, labels and marks. A candidate is
# a nearly straight stretch of a line, and its text is taken as a row of circles.
# All lengths are in points on paper.


@dataclass
class Segment:
    """A connected piece of a contour line, as points (n, 2) about SPACING apart; one label each."""

    level: float
    points: np.ndarray
    is_labelled: bool = False


@dataclass(frozen=True)
class Stretches:
    """C nearly straight stretches of the segments of one level."""

    segments: list  # of each, the Segment that it is a part of
    middles: np.ndarray  # (C, 2)
    chords: np.ndarray  # (C, 2) unit vectors

    def circles(self, width):
        """Centres (C, n, 2) of a row of circles that covers a text of that width."""
        count = max(2, int(width / RADIUS) + 1)
        along = np.linspace(-0.5, 0.5, count) * width
        return self.middles[:, None] + along[:, None] * self.chords[:, None]

    def steepness(self):
        """Angles (C,) to the horizontal, 0 to pi / 2."""
        return np.abs(np.arctan2(self.chords[:, 1], np.abs(self.chords[:, 0])))


def label_contours(ax, lines):
    """Write the level on some of the contour lines, where the text stays clear of all else.

    Where hardly any label fits, a line in the corner says what the levels are. Returns the labels.
    """
    ax.figure.draw_without_rendering()  # the layout decides where things are
    segments = segments_of(ax, lines)
    other_lines = {}
    for level in lines.levels:
        other_lines[level] = clearance_from([s.points for s in segments if s.level != level])
    obstacles = [on_paper(ax, line.get_xydata()) for line in ax.lines]  # marks, paths; then labels

    # circles must stay inside of [[x0, y0], [x1, y1]]
    frame = ax.get_window_extent().get_points() * points_per_pixel(ax)
    frame += [[RADIUS + 2], [-RADIUS - 2]]

    # a second round, less strict, for other pieces of the lines
    texts = []
    for most_bend in BENDS:
        for index in spread_order(len(lines.levels)):
            level = lines.levels[index]
            width = text_width(number(level))
            stretches = straight_stretches(segments, level, width, most_bend)
            if len(texts) >= MAX_LABELS or not stretches.segments:
                continue

            circles = stretches.circles(width)
            room = np.minimum(
                other_lines[level](circles) - RADIUS, clearance_from(obstacles)(circles) - 2 * RADIUS)
            room[((circles < frame[0]) | (circles > frame[1])).any((1, 2))] = 0
            best = roomiest(room, stretches.steepness())
            if best is None:
                continue

            texts.append(write_level(ax, level, stretches.middles[best], stretches.chords[best]))
            stretches.segments[best].is_labelled = True
            obstacles.append(circles[best])

    if len(texts) < min(MIN_LABELS, len(lines.levels)):
        boxed_text(ax, 0.02, 0.02, levels_in_words(lines.levels), transform=ax.transAxes)
    return texts


def roomiest(room, steepness):
    """Number of the best of C candidates: much room around it, and nearly level, which reads best.

    room: (C,) distances from the text to anything else; steepness: (C,) angles to the horizontal.
    None where no candidate has room.
    """
    score = np.minimum(room, 2 * LABEL_SIZE) - 0.5 * LABEL_SIZE * steepness
    score[room <= 0] = -np.inf
    best = score.argmax()
    if room[best] <= 0:
        return None
    return best


def write_level(ax, level, middle, chord):
    """Write the level of a contour line along the chord, never upside down."""
    x, y = ax.transData.inverted().transform(middle / points_per_pixel(ax))
    direction = np.degrees(np.arctan2(chord[1], chord[0]))
    angle = (direction + 90) % 180 - 90
    return boxed_text(ax, x, y, number(level), rotation=angle, rotation_mode="anchor",
                      ha="center", va="center")


def spread_order(count):
    """0 to count - 1, multiples of a large power of two first, then those of its half, and so on.

    The first labels lie on levels that are far apart, the others between them: 0, 4, 2, 1, 3 for 5.
    """
    step = 1
    while step < count:
        step *= 2

    order = []
    while step >= 1:
        order += [index for index in range(0, count, step) if index not in order]
        step //= 2
    return order


# ---------------------------------------------------------------- geometry on paper


def points_per_pixel(ax):
    """How many points on paper a pixel of the figure is."""
    return POINTS_PER_INCH / ax.figure.dpi


def on_paper(ax, polygon):
    """A line (n, 2) in coordinates of the data as points (m, 2) on paper, about SPACING apart."""
    corners = ax.transData.transform(polygon) * points_per_pixel(ax)
    steps = np.hypot(*np.diff(corners, axis=0).T)
    length = np.concatenate([[0], np.cumsum(steps)])
    samples = np.linspace(0, length[-1], int(length[-1] / SPACING) + 2)
    return np.stack([np.interp(samples, length, coordinate) for coordinate in corners.T], -1)


def segments_of(ax, lines):
    """[Segment] of all contour lines."""
    segments = []
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        for polygon in path.to_polygons(closed_only=False):
            segments.append(Segment(level, on_paper(ax, polygon)))
    return segments


def straight_stretches(segments, level, width, most_bend):
    """Stretches of the lines of `level`, `width` long, at most `most_bend` away from their chords.

    Segments that have a label already give none.
    """
    half = max(1, int(width / (2 * SPACING)))  # in points of the segment
    shortest = 0.8 * 2 * SPACING * half
    owners, middles, chords = [], [], []
    for segment in segments:
        if segment.level != level or segment.is_labelled:
            continue

        points = segment.points
        for i in range(half, len(points) - half, max(2, half // 2)):
            start, end = points[i - half], points[i + half]
            length = np.hypot(*(end - start))
            if length < shortest:
                continue

            chord = (end - start) / length
            away = points[i - half : i + half] - start
            bend = chord[0] * away[:, 1] - chord[1] * away[:, 0]  # signed distances from the chord
            if np.abs(bend).max() <= most_bend:
                normal = np.array([-chord[1], chord[0]])
                owners.append(segment)
                middles.append((start + end) / 2 + normal * bend.mean())
                chords.append(chord)
    return Stretches(owners, np.array(middles), np.array(chords))


def clearance_from(lines):
    """Function of C rows of points, (C, n, 2): their distances (C,) from the lines [(m, 2)]."""
    if not lines:
        return lambda rows: np.full(len(rows), np.inf)
    tree = need("scipy.spatial").cKDTree(np.concatenate(lines))
    return lambda rows: tree.query(rows)[0].min(axis=1)


# ---------------------------------------------------------------- text


def text_width(text):
    """Width in points of a text of LABEL_SIZE, with a little room around it."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    outline = TextPath((0, 0), text, size=LABEL_SIZE, prop=FontProperties())
    return outline.get_extents().width + 0.3 * LABEL_SIZE


def boxed_text(ax, x, y, text, **placing):
    """Text on a white box, which hides the line below it."""
    box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    look = {"fontsize": LABEL_SIZE, "color": "0.1", "clip_on": True, "bbox": box, "zorder": 4}
    label = ax.text(x, y, text, **look, **placing)
    label.set_in_layout(False)
    return label


def levels_in_words(levels):
    """'levels 0.1 to 9.6, step 0.5', or all of them where they are few."""
    if len(levels) <= 4:
        return "levels " + ", ".join(number(level) for level in levels)

    words = f"levels {number(levels[0])} to {number(levels[-1])}"
    step = np.diff(levels)
    if np.allclose(step, step[0]):
        words += f", step {number(step[0])}"
    return words
