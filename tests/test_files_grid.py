"""Laws of grids, and of the one encoding of "no value"."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from losslandscape.errors import InputError
from losslandscape.files.grid import MAX_POINTS, Grid, Surface, limits
from tests.stores import surface

COUNTS = st.integers(1, 9)


@given(COUNTS, st.one_of(st.none(), COUNTS))
def test_points_are_numbered_in_the_order_of_values_on_the_grid(nx, ny):
    x, y = np.linspace(-1, 1, nx), None
    if ny is not None:
        y = np.linspace(-3, 3, ny)
    grid = Grid(x, y)

    mesh = np.meshgrid(x, [0.0] if y is None else y)
    expected = np.stack(mesh, axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal([grid.point(number) for number in range(grid.size)], expected)
    assert grid.size == math.prod(grid.shape) and grid.shape == ((nx,) if ny is None else (ny, nx))


def test_a_grid_is_printed_as_in_file_names():
    assert str(Grid.parse("-1:1:51")) == "[-1.0,1.0,51]"
    assert str(Grid.parse("-1:1:51", "0:2:3")) == "[-1.0,1.0,51]x[0.0,2.0,3]"


@pytest.mark.parametrize("text", ["", "1", "0:1", "0:1:2:3", "1:0:5", "0:0:5", "0:1:0", "0:1:-1", "0:1:2.5", "a:b:c",
                                  "nan:1:5", "0:nan:5", "-inf:1:5", "0:inf:5", "0:1:"])
def test_limits_that_are_none_are_refused_with_an_example(text):
    with pytest.raises(InputError, match="--x=min:max:count .*for example --x=-1:1:51; got"):
        limits("--x", text)


def test_a_grid_that_does_not_fit_into_memory_is_refused():
    for axes in ((f"0:1:{MAX_POINTS + 1}",), ("0:1:4000", "0:1:4000")):
        with pytest.raises(InputError, match="take fewer"):
            Grid.parse(*axes)


def test_grids_match_if_their_points_are_the_same_up_to_rounding():
    grid = Grid.parse("-1:1:3", "-1:1:2")
    assert grid.close_to(Grid(grid.x + 1e-15, grid.y))
    for other in (("-1:1:4", "-1:1:2"), ("-1:2:3", "-1:1:2"), ("-1:1:3", "-1:1.001:2"), ("-1:1:3",), ("-1:1:6",)):
        assert not grid.close_to(Grid.parse(*other)) and not Grid.parse(*other).close_to(grid)


def test_a_point_is_masked_if_and_only_if_it_is_not_computed_whatever_its_value():
    grid = Grid.parse("-1:1:5")
    computed = np.array([True, True, True, False, False])
    values = np.array([-1.0, np.nan, np.inf, 3.0, np.nan])
    shown = Surface(grid, {"train_loss": values}, {"train_loss": computed}).get("train_loss")
    assert shown.mask.tolist() == (~computed).tolist()
    np.testing.assert_array_equal(shown.compressed(), [-1.0, np.nan, np.inf])


def test_new_values_are_not_computed_and_those_that_are_there_stay():
    old = surface((2, 3), 5.0)
    new = old.with_values(["train_loss", "train_acc"])
    assert (new.get("train_loss") == 5.0).all() and new.get("train_acc").mask.all()
    assert np.isnan(new.values["train_acc"]).all() and "train_acc" not in old.values


def test_an_error_is_100_minus_the_accuracy_unless_the_surface_has_its_own():
    accuracy = surface((1, 2), 75.0, "test_acc")
    assert accuracy.get("test_err").tolist() == [[25.0, 25.0]]
    accuracy.computed["test_acc"][0, 0] = False
    assert accuracy.get("test_err").mask.tolist() == [[True, False]]
    assert surface((1, 1), 3.0, "test_err").get("test_err").tolist() == [[3.0]]


def test_a_name_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(InputError, match="one of test_acc, test_err as .* got 'train_loss'"):
        surface((1, 1), name="test_acc").get("train_loss")


@pytest.mark.parametrize("names, main", [
    (["test_loss", "train_loss", "max_eig"], "train_loss"),
    (["max_eig", "test_loss"], "test_loss"),
    (["min_eig", "max_eig"], "max_eig"),
    (["energy", "force"], "energy"),
    ([], "train_loss"),
])
def test_the_main_name_is_a_loss_an_eigenvalue_or_the_first(names, main):
    assert Surface(Grid.parse("0:1:2")).with_values(names).main_name == main
