"""Scales of 2-D figures: levels are readable, limits are the user's, no picture is empty."""

import numpy as np
import pytest
from matplotlib.colors import LogNorm

from losslandscape.pictures.scales import Scale, log_levels, thinned, top_that_shows
from losslandscape.pictures.surfaces import plot_2d_contour
from tests.drawing import contour_lines, heat_mesh, save_surface, uneven_bowl

pytest_plugins = "tests.caught_figures"


def test_a_loss_gets_the_usual_levels(tmp_path, drawn, only, capsys):
    only("2dcontour")
    path = str(tmp_path / "s.h5")
    surface = save_surface(path, uneven_bowl)
    plot_2d_contour(path)
    z = surface.values["train_loss"]
    usual = np.round(np.arange(0.1, 10.01, 0.5), 6)
    assert np.allclose(contour_lines(drawn["2dcontour.pdf"]).levels, usual[(usual > z.min()) & (usual < z.max())])
    assert capsys.readouterr().err == ""


def test_levels_and_colours_asked_for_are_respected(tmp_path, drawn, only):
    only("2dcontour", "2dheat")
    path = str(tmp_path / "s.h5")
    save_surface(path, uneven_bowl)
    plot_2d_contour(path, vmin=1, vmax=3, vlevel=0.25)
    lines = contour_lines(drawn["2dcontour.pdf"])
    assert np.allclose(lines.levels, np.arange(1, 3.01, 0.25))
    mesh = heat_mesh(drawn["2dheat.pdf"])
    assert (mesh.norm.vmin, mesh.norm.vmax) == (1, 3)
    assert mesh.colorbar.extend == "both"


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("decades, factor", [(0.2, 1e4), (3, 1e-6), (3, 1), (3, 1e4), (12, 1e-6)])
def test_any_range_of_losses_gets_readable_levels(decades, factor, log, tmp_path, drawn, only, capsys):
    only("2dcontour", "2dheat")
    path = str(tmp_path / "s.h5")
    surface = save_surface(path, lambda x, y: factor * 10 ** (decades * (x**2 + y**2) / 2))
    plot_2d_contour(path, log=log)
    z, lines = surface.values["train_loss"], contour_lines(drawn["2dcontour.pdf"])
    assert 3 <= len(lines.levels) <= 25
    assert z.min() < lines.levels[0] and lines.levels[-1] < z.max()
    assert all(len(p.vertices) for p in lines.get_paths())
    labels = [t for t in drawn["2dcontour.pdf"].axes[0].texts]
    assert labels and not any("e-" in t.get_text() or "e+" in t.get_text() for t in labels)
    if log and decades > 1:
        assert isinstance(heat_mesh(drawn["2dheat.pdf"]).norm, LogNorm)
        ratios = lines.levels[1:] / lines.levels[:-1]
        assert ratios.max() / ratios.min() < 2.1  # even in the logarithm, but for rounding to 1, 2, 5
    if not log:  # the usual levels are left only where they show (almost) nothing, and then it is said
        usual = np.arange(0.1, 10.01, 0.5)
        few = ((usual > z.min()) & (usual < z.max())).sum() < 3
        assert ("levels chosen from the data" in capsys.readouterr().err) == few


def test_limits_that_leave_the_picture_empty_are_reported_and_replaced(tmp_path, drawn, only, capsys):
    only("2dcontour")
    path = str(tmp_path / "s.h5")
    save_surface(path, uneven_bowl)
    plot_2d_contour(path, vmin=50, vmax=80, vlevel=5)
    assert len(contour_lines(drawn["2dcontour.pdf"]).levels) >= 3
    assert "levels from 50 to 80 in steps of 5 leave the picture empty" in capsys.readouterr().err


def test_a_log_scale_of_zero_and_negative_values_is_drawn(tmp_path, drawn, capsys, recwarn):
    path = str(tmp_path / "s.h5")
    save_surface(path, lambda x, y: np.maximum(x, 0) * 5, "-1:1:5", "-1:1:5")
    assert len(plot_2d_contour(path, log=True)) == 4
    # zeros are below the scale, not missing
    assert not np.ma.getmaskarray(heat_mesh(drawn["2dheat.pdf"]).get_array()).any()
    save_surface(path, lambda x, y: x - 2, "-1:1:5", "-1:1:5")
    assert len(plot_2d_contour(path, log=True)) == 4
    assert "needs values above 0" in capsys.readouterr().err
    assert not [str(w.message) for w in recwarn if "Log scale" in str(w.message)]


@pytest.mark.parametrize("values, ends", [
    ([1, 2], "neither"), ([0, 1], "min"), ([2, 3], "max"), ([0, 3], "both"), ([np.nan, 0], "min"), ([], "neither"),
])  # fmt: skip
def test_the_colour_bar_has_an_arrow_where_values_go_on_beyond_it(values, ends):
    assert Scale(np.array([]), 1, 2, log=False).extend(np.array(values)) == ends


@pytest.mark.parametrize("low, high", [(1, 2), (0.3, 7), (1e-8, 1e8), (1e-300, 1e300), (5, 5)])
def test_levels_of_a_log_scale_lie_in_the_range_and_rise(low, high):
    levels = log_levels(low, high)
    assert (levels >= low * (1 - 1e-9)).all() and (levels <= high * (1 + 1e-9)).all()
    assert (np.diff(levels) > 0).all() and len(levels) <= 40


@pytest.mark.parametrize("total", [0, 1, 5, 12, 13, 25, 1000])
def test_ticks_are_thinned_to_what_fits_beginning_with_the_first(total):
    ticks = thinned(np.arange(total), 12)
    assert len(ticks) <= 12 and list(ticks[:1]) == list(range(total))[:1]
    assert len(set(np.diff(ticks))) <= 1


# ---------------------------------------------------------------- losses below 0


@pytest.mark.parametrize("lowest", [-2.8, -12, -1e5])
@pytest.mark.parametrize("steepness", [1, 8])
def test_a_loss_below_0_has_levels_where_most_of_its_values_are(lowest, steepness, tmp_path, drawn, only, capsys):
    only("2dcontour", "2dheat")
    path = str(tmp_path / "s.h5")
    surface = save_surface(path, lambda x, y: lowest + np.expm1(steepness * (x**2 + 1.3 * y**2)))
    plot_2d_contour(path)
    z, levels = surface.values["train_loss"], contour_lines(drawn["2dcontour.pdf"]).levels
    assert len(levels) >= 5
    assert (z < levels[0]).mean() <= 0.5  # not all of the picture is one colour
    mesh = heat_mesh(drawn["2dheat.pdf"])
    assert mesh.norm.vmin == pytest.approx(z.min()) and (z > mesh.norm.vmax).mean() < 0.6
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "train_loss goes below 0, from" in lines[0] and "chosen from the data" in lines[0]


def test_limits_for_a_loss_below_0_are_the_users(tmp_path, drawn, only, capsys):
    only("2dcontour", "2dheat")
    path = str(tmp_path / "s.h5")
    surface = save_surface(path, lambda x, y: uneven_bowl(x, y) - 12)
    plot_2d_contour(path, vmax=-5, vlevel=1)
    low = surface.values["train_loss"].min()
    assert np.allclose(contour_lines(drawn["2dcontour.pdf"]).levels, low + np.arange(1, 7))
    assert heat_mesh(drawn["2dheat.pdf"]).norm.vmax == -5 and capsys.readouterr().err == ""


def test_white_lines_between_filled_contours_below_0_are_not_dashed(tmp_path, drawn, only):
    only("2dcontourf")
    path = str(tmp_path / "s.h5")
    save_surface(path, lambda x, y: uneven_bowl(x, y) - 12)
    plot_2d_contour(path)
    white = contour_lines(drawn["2dcontourf.pdf"])
    assert {pattern for _, pattern in white.get_linestyle()} == {None}


def test_values_without_a_logarithm_are_told(tmp_path, drawn, only, capsys):
    only("2dheat")
    path = str(tmp_path / "s.h5")
    save_surface(path, lambda x, y: x + 0 * y, "-1:1:5", "-1:1:5")
    plot_2d_contour(path, log=True)
    assert "15 of 25 values of train_loss are 0 or less and have no logarithm" in capsys.readouterr().err


@pytest.mark.parametrize("z", [
    [3.0], [1, 1, 1], [0, 1, 2, 3], [0] * 9 + [5], [0, 1e-3, 2e-3, 1e9], [-5] * 4 + [1e9] * 4,
])  # fmt: skip
def test_the_top_that_shows_most_values_is_one_of_their_range(z):
    z = np.array(z, float)
    top = top_that_shows(z)
    assert z.min() <= top <= z.max()
    assert (z < z.min() + (top - z.min()) / 10).mean() <= 0.5
