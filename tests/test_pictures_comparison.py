"""Surfaces side by side: one scale, and the flatness of each."""

import numpy as np
import pytest
from matplotlib.contour import QuadContourSet

import plot_2D
from losslandscape import flatness
from losslandscape.pictures.comparison import plot_2d_compare
from tests.drawing import coarse_points, save_surface, uneven_bowl

pytest_plugins = "tests.caught_figures"


def test_a_comparison_has_one_scale_and_the_flatness_of_each(tmp_path, drawn_files):
    paths = [str(tmp_path / f"resnet56{name}_weights.h5") for name in ("", "_noshort")]
    surfaces = [
        save_surface(paths[0], uneven_bowl),
        save_surface(paths[1], lambda x, y: 3 * uneven_bowl(x, y) + np.sin(9 * x)),
    ]
    plot_2D.main(["--compare", *paths])
    assert list(drawn_files) == [f"{paths[0]}_train_loss_2dcompare.pdf"]
    (figure,) = drawn_files.values()
    panels = figure.axes[:2]
    filled = [[c for c in ax.collections if isinstance(c, QuadContourSet) and c.filled][0] for ax in panels]
    assert np.array_equal(filled[0].levels, filled[1].levels)
    assert (filled[0].norm.vmin, filled[0].norm.vmax) == (filled[1].norm.vmin, filled[1].norm.vmax)
    assert [ax.get_title() for ax in panels] != [panels[0].get_title()] * 2
    for ax, surface in zip(panels, surfaces, strict=True):
        assert ax.get_aspect() == 1
        measured = flatness.measures(surface, "train_loss")
        text = ax.get_xlabel()
        assert f"at centre {measured['centre']['loss']:.3g}" in text
        assert f"{100 * measured['basins'][-1]['area_fraction']:.2g} % of the plane" in text
        assert f"convex {100 * measured['convex']['share']:.0f} %" in text


def test_an_unfinished_surface_is_compared_without_flatness_numbers(tmp_path, drawn):
    paths = [str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]
    save_surface(paths[0], uneven_bowl)
    save_surface(paths[1], uneven_bowl, computed=coarse_points((21, 21), 4))
    plot_2d_compare(paths, labels=["whole", "part"])
    first, second = drawn["2dcompare.pdf"].axes[:2]
    assert "basin" in first.get_xlabel() and "basin" not in second.get_xlabel()
    assert second.get_title() == "part\n5.6 % of the points, interpolated"


@pytest.mark.parametrize("count", range(1, 8))
def test_panels_of_a_comparison_lie_inside_the_figure_and_apart(count, tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save_surface(path, uneven_bowl, "-1:1:3", "-1:1:5")
    plot_2d_compare([path] * count, labels=[f"no. {i}" for i in range(count)], title="a title")
    figure = drawn["2dcompare.pdf"]
    figure.draw_without_rendering()
    frames = [ax.get_tightbbox() for ax in figure.axes]  # the panels and the colour bar
    assert len(frames) == count + 1
    for i, frame in enumerate(frames):
        assert figure.bbox.x0 <= frame.x0 and frame.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= frame.y0 and frame.y1 <= figure.bbox.y1
        assert not any(frame.overlaps(other) for other in frames[:i])
