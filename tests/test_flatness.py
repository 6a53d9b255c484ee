"""The measures of flatness: exact on surfaces whose answer is known."""

import json

import numpy as np
import pytest

from losslandscape import flatness
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import write_surface
from tests.conftest import GOLDEN, run

CURVE = "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,7].h5"


def surface(f, x="-1:1:41", y=None, missing=None):
    """Surface of train_loss = f(x[, y]); `missing` marks the points that are not computed."""
    grid = Grid.parse(x, y)
    values = f(grid.x) if y is None else f(*np.meshgrid(grid.x, grid.y))
    values = np.broadcast_to(np.asarray(values, float), grid.shape).copy()
    points = np.meshgrid(*(axis for axis in (grid.x, grid.y) if axis is not None))
    computed = np.ones(grid.shape, bool) if missing is None else ~missing(*points)
    values[~computed] = -1
    arrays = {"train_loss": values, "train_acc": 100 - values}
    return Surface(grid, arrays, dict.fromkeys(arrays, computed))


def basin(found):
    return found["basins"][0]


# ---------------------------------------------------------------- basins


@pytest.mark.parametrize("tau", [0.05, 0.13, 0.5, 0.99])
@pytest.mark.parametrize("slope", [1.0, 2.5])
def test_width_of_a_v_shaped_valley_is_two_tau_over_the_slope(tau, slope):
    found = basin(flatness.measures(surface(lambda x: 3 + slope * np.abs(x)), taus=[tau]))
    assert found["width"] == pytest.approx(2 * tau / slope, rel=1e-12)
    assert not found["reaches_edge"]


def test_width_does_not_jump_a_barrier_to_the_next_valley():
    two_valleys = surface(lambda x: np.minimum(np.abs(x), np.abs(x - 0.6)))
    assert basin(flatness.measures(two_valleys, taus=[0.1]))["width"] == pytest.approx(0.2)
    assert basin(flatness.measures(two_valleys, taus=[0.31]))["width"] == pytest.approx(0.62 + 0.6)


@pytest.mark.parametrize("tau", [0.08, 0.33, 0.7])
@pytest.mark.parametrize("shape", ["-1:1:41 -1:1:41", "-1:1:21 -2:2:61", "-1:3:41 -1:1:11"])
def test_area_of_a_pyramid_is_exact(tau, shape):
    """|x| + |y| <= tau is a diamond, and |x| + |y| is linear in every triangle."""
    x, y = shape.split()
    diamond = surface(lambda x, y: 1 + np.abs(x) + np.abs(y), x, y)
    rectangle = np.ptp(diamond.grid.x) * np.ptp(diamond.grid.y)
    found = basin(flatness.measures(diamond, taus=[tau]))
    assert found["area_fraction"] == pytest.approx(2 * tau**2 / rectangle, rel=1e-12)
    assert not found["reaches_edge"]


def test_area_of_a_half_plane_is_exact_at_any_level():
    slope = surface(lambda x, y: x, "-1:1:11", "0:1:4")
    for tau in (0.03, 0.5, 0.77):
        found = basin(flatness.measures(slope, taus=[tau]))
        assert found["area_fraction"] == pytest.approx((1 + tau) / 2, rel=1e-12)
        assert found["reaches_edge"]


def test_area_of_a_bowl_converges_to_the_disc_with_second_order():
    errors = []
    for n in (21, 41, 81):
        bowl = surface(lambda x, y: x**2 + y**2, f"-1:1:{n}", f"-1:1:{n}")
        errors.append(abs(basin(flatness.measures(bowl, taus=[0.5]))["area_fraction"] - np.pi * 0.5 / 4))
    assert errors[0] < 0.01
    assert errors[1] < errors[0] / 3 and errors[2] < errors[1] / 3


def test_area_does_not_jump_a_ridge_to_another_basin():
    def twin(x, y):
        return np.minimum(np.abs(x) + np.abs(y), np.abs(x - 0.6) + np.abs(y))

    assert basin(flatness.measures(surface(twin, y="-1:1:41"), taus=[0.2]))["area_fraction"] == pytest.approx(0.02)
    joined = basin(flatness.measures(surface(twin, y="-1:1:41"), taus=[0.35]))["area_fraction"]
    assert joined == pytest.approx((2 * 2 * 0.35**2 - 2 * 0.05**2) / 4)


def test_whole_plane_below_the_threshold_has_area_fraction_one():
    found = basin(flatness.measures(surface(lambda x, y: 0 * x + 2, y="-1:1:3"), taus=[0.1]))
    assert (found["area_fraction"], found["reaches_edge"], found["points"]) == (1.0, True, 123)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_are_walls(bad):
    curve = surface(lambda x: np.where(np.isclose(np.abs(x), 0.5), bad, 0.0))
    assert basin(flatness.measures(curve))["width"] == pytest.approx(0.9)  # up to the last point before each wall
    ring = surface(lambda x, y: np.where(np.isclose(np.maximum(np.abs(x), np.abs(y)), 0.5), bad, 0.0), y="-1:1:41")
    found = flatness.measures(ring)
    assert basin(found)["area_fraction"] == pytest.approx(0.9**2 / 4)
    assert found["not_finite"] == 80 and found["uncomputed"] == 0


def test_uncomputed_points_are_walls_and_are_counted():
    half = surface(lambda x, y: 0 * x + 1, y="-1:1:41", missing=lambda x, y: x > 0.5 + 1e-9)
    found = flatness.measures(half)
    assert basin(found)["area_fraction"] == pytest.approx(0.75)  # not 1: the -1 of an uncomputed point is no loss
    assert found["uncomputed"] == 10 * 41


# ---------------------------------------------------------------- sharpness


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.5, 1.0])
def test_sharpness_of_a_bowl_is_its_value_at_the_corner_of_the_box(epsilon):
    bowl = surface(lambda x, y: 0.5 + 3 * x**2 + y**2, y="-1:1:41")
    found = flatness.measures(bowl, epsilon=epsilon)["sharpness"]
    assert found["percent"] == pytest.approx(100 * 4 * epsilon**2 / 1.5)
    assert found["reach"] == pytest.approx(epsilon)
    curve = flatness.measures(surface(lambda x: 0.5 + 3 * x**2), epsilon=epsilon)["sharpness"]
    assert curve["percent"] == pytest.approx(100 * 3 * epsilon**2 / 1.5)


def test_sharpness_between_grid_lines_says_how_far_it_reached():
    found = flatness.measures(surface(lambda x: x**2), epsilon=0.12)["sharpness"]
    assert found["reach"] == pytest.approx(0.1) and found["percent"] == pytest.approx(1.0)


def test_sharpness_is_undefined_without_points_in_the_box_or_below_minus_one():
    coarse = surface(lambda x, y: x**2 + y**2, y="-1:1:3")
    assert flatness.measures(coarse, epsilon=0.2)["sharpness"] == {"epsilon": 0.2, "reach": None, "percent": None}
    assert flatness.measures(surface(lambda x: x**2 - 2))["sharpness"]["percent"] is None


def test_sharpness_is_infinite_with_an_infinite_loss_and_ignores_nan_and_uncomputed_points():
    def bowl(bad):
        return surface(lambda x: np.where(np.isclose(x, 0.1), bad, x**2), missing=lambda x: np.isclose(x, -0.2))

    assert flatness.measures(bowl(np.inf))["sharpness"]["percent"] == np.inf
    assert flatness.measures(bowl(np.nan))["sharpness"]["percent"] == pytest.approx(4.0)


# ---------------------------------------------------------------- curvature


@pytest.mark.parametrize("power", [2, 3, 4, 5])
def test_curvature_is_exact_for_polynomials_up_to_the_fifth_degree(power):
    found = flatness.measures(surface(lambda x: 1 + 3 * x**2 - x + 7 * x**power))["curvature"]["x"]
    assert found["value"] == pytest.approx(6 + 14 * (power == 2), rel=1e-8)


def test_curvature_of_a_quadratic_is_its_hessian_diagonal_with_no_error():
    tilted = surface(lambda x, y: 2 * x**2 + 0.5 * y**2 + 3 * x * y, "-1:1:21", "-3:3:31")
    found = flatness.measures(tilted)["curvature"]
    assert found["x"]["value"] == pytest.approx(4) and found["y"]["value"] == pytest.approx(1)
    assert found["x"]["error"] < 1e-10 and found["y"]["error"] < 1e-10


@pytest.mark.parametrize("f, exact", [(np.cos, -1.0), (np.exp, 1.0), (lambda x: 1 / (1 + 4 * x**2), -8.0)])
def test_error_estimate_bounds_the_error_and_shrinks_with_the_grid(f, exact):
    estimates = []
    for n in (21, 41):
        found = flatness.measures(surface(f, f"-1:1:{n}"))["curvature"]["x"]
        assert abs(found["value"] - exact) <= found["error"]
        estimates.append(found["error"])
    assert estimates[1] < estimates[0] / 3


def test_curvature_without_the_points_it_needs_is_none():
    assert flatness.measures(surface(lambda x: x**2, "0:1:11"))["curvature"]["x"] == {"value": None, "error": None}
    three = flatness.measures(surface(lambda x: x**2, "-1:1:3"))["curvature"]["x"]
    assert (three["value"], three["error"]) == (2.0, None)
    gap = flatness.measures(surface(lambda x: np.where(x > 0, np.nan, x**2)))["curvature"]["x"]
    assert gap == {"value": None, "error": None}


# ---------------------------------------------------------------- convexity


@pytest.mark.parametrize("f, share", [
    (lambda x, y: x**2 + y**2, 1.0),
    (lambda x, y: -(x**2) - y**2, 0.0),
    (lambda x, y: x**2 - y**2, 0.0),  # a saddle
    (lambda x, y: 5e3 + 300 * x - 0.1 * y, 1.0),  # a plane: no curvature but rounding
    (lambda x, y: 1e4 * (x - 2 * y) ** 2, 1.0),  # a trough across the axes: one eigenvalue is 0
    (lambda x, y: x**2 + y**2 + 2.1 * x * y, 0.0),  # convex along both axes, yet not convex
    (lambda x, y: np.where(x < 0, 1, -1) * x**2 + y**2, 19 / 39),  # convex where x < 0
])
def test_convex_share_of_known_surfaces(f, share):
    found = flatness.measures(surface(f, y="-1:1:31"))["convex"]
    assert found["points"] == 39 * 29
    assert found["share"] == pytest.approx(share, abs=1e-12 if share in (0, 1) else 1 / 39)


def test_convex_share_of_a_curve_is_where_its_second_derivative_is_positive():
    assert flatness.measures(surface(np.exp))["convex"]["share"] == 1
    assert flatness.measures(surface(lambda x: np.sin(np.pi * x), "-1:1:42"))["convex"]["share"] == 0.5


def test_points_beside_a_gap_are_not_judged_for_convexity():
    hole = surface(lambda x, y: np.where((np.abs(x) + np.abs(y - 0.5)) < 1e-9, np.nan, x**2 + y**2), y="-1:1:41")
    assert flatness.measures(hole)["convex"] == {"share": 1.0, "points": 39 * 39 - 9}
    assert flatness.measures(surface(lambda x: x**2, "-1:1:2"))["convex"] == {"share": None, "points": 0}


# ---------------------------------------------------------------- the centre


def test_centre_of_an_odd_grid_is_the_point_at_zero():
    found = flatness.measures(surface(lambda x, y: 7 + x - y, "-0.5:1.5:5", "-1:3:9"))
    assert found["centre"] == {"x": 0.0, "y": 0.0, "loss": 7.0, "exact": True}


def test_centre_of_an_even_grid_is_the_nearest_point_whichever_way_the_axis_runs():
    right = flatness.measures(surface(lambda x: 1 + (x - 0.3) ** 2, "-1:1:10"))
    left = flatness.measures(surface(lambda x: 1 + (x + 0.3) ** 2, "-1:1:10"))
    assert not right["centre"]["exact"]
    assert right["centre"]["x"] == pytest.approx(1 / 9) and left["centre"]["x"] == pytest.approx(-1 / 9)
    assert right["centre"]["loss"] == left["centre"]["loss"]
    assert basin(right)["width"] == pytest.approx(basin(left)["width"])


@pytest.mark.parametrize("bad, words", [
    (lambda: flatness.measures(surface(lambda x: x, missing=lambda x: np.abs(x) < 1e-9)), "not computed"),
    (lambda: flatness.measures(surface(lambda x: np.where(np.abs(x) < 1e-9, np.nan, x))), "finite"),
    (lambda: flatness.measures(surface(lambda x: np.where(np.abs(x) < 1e-9, np.inf, x))), "finite"),
    (lambda: flatness.measures(surface(lambda x: x, "1:2:11")), "between the limits of x"),
    (lambda: flatness.measures(surface(lambda x, y: x, y="-2:-1:11")), "between the limits of y"),
    (lambda: flatness.measures(surface(lambda x, y: x, y="0:1:1")), "at least 2 points along y"),
    (lambda: flatness.measures(surface(lambda x: x), "test_loss"), "test_loss"),
    (lambda: flatness.measures(surface(lambda x: x), "train_acc"), "train_err"),
    (lambda: flatness.measures(surface(lambda x: x), taus=[0.1, -1]), "tau > 0"),
    (lambda: flatness.measures(surface(lambda x: x), epsilon=0), "epsilon > 0"),
    (lambda: flatness.measures(Surface(Grid(np.array([-1, 0, 0.5])), {"train_loss": np.ones(3)},
                                       {"train_loss": np.ones(3, bool)})), "evenly spaced"),
])
def test_what_cannot_be_measured_is_refused_with_its_reason(bad, words):
    with pytest.raises(InputError, match=words):
        bad()


def test_error_surfaces_are_measured_as_losses_are():
    found = flatness.measures(surface(lambda x: 10 + 50 * np.abs(x)), "train_err", taus=[5])
    assert found["centre"]["loss"] == pytest.approx(10) and basin(found)["width"] == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["train_acc", "train_acc_low", "test_acc_high", "train_top5_acc"])
def test_what_is_better_when_higher_is_refused(name):
    curve = surface(lambda x: 1 - np.abs(x))
    with pytest.raises(InputError, match="expected a loss or an error"):
        flatness.measures(Surface(curve.grid, {name: curve.values["train_loss"]}, {name: curve.computed["train_loss"]}),
                          name)


# ---------------------------------------------------------------- the command


def command(*args):
    return run("flatness.py", *args)


def test_command_prints_what_the_function_measures(tmp_path):
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    write_surface(one, surface(lambda x, y: 1 + np.abs(x) + np.abs(y), y="-1:1:41"))
    write_surface(two, surface(lambda x: np.where(x > 0.9, np.inf, x**2), "-1:1:42"))
    found = json.loads(command(one, two, "--tau", 0.5, 3, "--epsilon", 1, "--json").stdout)
    assert [item["surf_file"] for item in found] == [str(one), str(two)]
    assert [b["tau"] for b in found[0]["basins"]] == [0.5, 3.0]
    assert found[0]["basins"][0]["area_fraction"] == pytest.approx(2 * 0.5**2 / 4)
    assert found[1]["sharpness"]["percent"] == "inf"  # JSON has no infinity

    text = command(one, two, "--tau", 0.5).stdout
    assert f"A: {one}" in text and f"B: {two}" in text
    assert "12.5 %" in text
    assert "no point at 0" in text and "not finite" in text


@pytest.mark.parametrize("name", ["test_loss", "train_mae"])
def test_command_measures_what_the_file_has_when_nothing_is_asked_for(name, tmp_path):
    curve = surface(lambda x: 0.5 + np.abs(x))
    values, computed = curve.values["train_loss"], curve.computed["train_loss"]
    write_surface(tmp_path / "s.h5", Surface(curve.grid, {name: values}, {name: computed}))
    (found,) = json.loads(command(tmp_path / "s.h5", "--json").stdout)
    assert found["name"] == name and found["centre"]["loss"] == pytest.approx(0.5)


def test_command_takes_its_files_as_a_flag_too():
    assert command("--surf_file", GOLDEN / CURVE).stdout == command(GOLDEN / CURVE).stdout != ""


def test_command_reads_the_files_of_the_original():
    found = json.loads(command(GOLDEN / CURVE, "--json").stdout)[0]
    assert found["centre"]["loss"] == pytest.approx(0.33778512, rel=1e-4) and found["points"] == 7


@pytest.mark.parametrize("args", [("nothing.h5",), (GOLDEN / CURVE, "--surf_name", "bogus"), (GOLDEN / "data.npz",), (),
                                  (GOLDEN / CURVE, "--tau", "x"), (GOLDEN / CURVE, "--tau", "nan")])
def test_bad_input_is_one_line_and_exit_code_2(args):
    result = command(*args)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("lowest, is_told", [(-0.5, True), (-20, True), (0.0, False), (0.5, False)])
def test_sharpness_of_a_loss_below_0_is_said_not_to_compare(lowest, is_told, tmp_path):
    write_surface(tmp_path / "s.h5", surface(lambda x: lowest + x**2))
    assert ("sharpness, relative to 1 + f(c), does not compare" in command(tmp_path / "s.h5").stdout) == is_told


def test_a_name_with_an_escape_sequence_is_harmless_in_the_table(tmp_path):
    path = tmp_path / "s\x1b[31m\n.h5"
    write_surface(path, surface(lambda x: 0.5 + x**2))
    assert "s?[31m?.h5" in command(path).stdout
