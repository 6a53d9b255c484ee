"""Labels on contour lines: readable, and on top of nothing."""

import itertools

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from losslandscape.pictures.labels import levels_in_words, spread_order
from losslandscape.pictures.surfaces import plot_2d_contour
from losslandscape.pictures.words import number
from tests.drawing import contour_lines, save_surface, uneven_bowl

pytest_plugins = "tests.caught_figures"


@pytest.mark.parametrize("f", [
    uneven_bowl,
    lambda x, y: 0.01 * np.exp(np.minimum(10 * (x**2 + y**2), 12)) + np.abs(y),
    lambda x, y: 3 + 2 * np.sin(6 * x + y) * np.cos(5 * y) + x**2,
], ids=["bowl", "needle", "waves"])  # fmt: skip
def test_contour_labels_touch_neither_each_other_nor_another_line(f, tmp_path, drawn, only):
    only("2dcontour")
    path = str(tmp_path / "s.h5")
    save_surface(path, f, "-1:1:41", "-1:1:41")
    plot_2d_contour(path)
    figure = drawn["2dcontour.pdf"]
    ax, lines = figure.axes[0], contour_lines(figure)
    figure.draw_without_rendering()
    labels = {}
    for text in ax.texts:
        if not text.get_text().startswith("levels"):
            box = text.get_bbox_patch()
            labels[text] = box.get_path().transformed(box.get_transform())
    assert len(labels) >= 3 or any(text.get_text().startswith("levels 0.1 to") for text in ax.texts)
    for a, b in itertools.combinations(labels.values(), 2):
        assert not a.intersects_path(b, filled=True)
    for text, box in labels.items():
        for level, line in zip(lines.levels, lines.get_paths(), strict=True):
            for polygon in line.to_polygons(closed_only=False):
                dense = ax.transData.transform(Outline(polygon).interpolated(60).vertices)
                assert number(level) == text.get_text() or not box.contains_points(dense).any()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 20, 64, 100])
def test_each_level_has_its_turn_and_the_first_ones_are_spread_over_all(count):
    order = spread_order(count)
    assert sorted(order) == list(range(count))
    for turns in range(2, count + 1):
        largest_gap = max(np.diff([*sorted(order[:turns]), count]))
        assert largest_gap <= 4 * count / turns


@pytest.mark.parametrize("levels, words", [
    ([1], "levels 1"), ([0.5, 1, 2], "levels 0.5, 1, 2"), (np.arange(0.1, 9.7, 0.5), "levels 0.1 to 9.6, step 0.5"),
    ([1, 2, 5, 10, 20], "levels 1 to 20"),
])  # fmt: skip
def test_levels_are_said_in_words_where_labels_find_no_room(levels, words):
    assert levels_in_words(np.array(levels)) == words
