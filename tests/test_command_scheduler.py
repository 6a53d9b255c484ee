"""The plan of a run, and the functions of the original's scheduler."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scheduler
from losslandscape import forecast
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.journal import Journal
from losslandscape.files.layouts import write_surface
from losslandscape.scheduler import coarse_to_fine
from tests.conftest import GOLDEN, refused, run


def plan_of(capsys, *words):
    scheduler.main([*map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def half_done(path):
    """A surface file of 5 x 3 points; only 7 have a loss, and 5 of them an accuracy."""
    grid = Grid.parse("-1:1:5", "-1:1:3")
    values, computed = {}, {}
    for name, count in (("train_loss", 7), ("train_acc", 5)):
        values[name] = np.where(np.arange(15) < count, 0.5, np.nan).reshape(3, 5)
        computed[name] = np.arange(15).reshape(3, 5) < count
    surface = Surface(grid, values, computed, "d.h5", {"model": "resnet20"})
    write_surface(path, surface)
    return surface


def test_a_run_of_51_by_51_points_on_four_ranks():
    done = run("scheduler.py", "--x=-1:1:51", "--y=-1:1:51", "--ranks", 4, "--seconds_per_point", 0.5)
    assert done.returncode == 0, done.stderr
    for words in ("2601 points, 2601 remain", "49 points, then   1.9 %", "100.0 % are done", "time: 5 min",
                  "   0      651    (651 points, 0 to 650)", "   3      650    (650 points, 1951 to 2600)"):
        assert words in done.stdout


def test_what_remains_of_a_file_is_what_lacks_a_value_there_and_in_the_journal(tmp_path, capsys):
    path = tmp_path / "s.h5"
    surface = half_done(path)
    before = path.read_bytes()
    plan = plan_of(capsys, "--surf_file", path, "--ranks", 4)
    assert (plan["points"], plan["remaining"], sum(plan["levels"])) == (15, 10, 10)
    assert plan["slices"] == [[5, 7, 3], [8, 10, 3], [11, 12, 2], [13, 14, 2]]
    assert sorted(plan["shares"], reverse=True) == [3, 3, 2, 2] and plan["seconds"] is None

    Journal(str(path), surface).append([(14, {"train_loss": 1.0, "train_acc": 2.0}), (13, {"train_loss": 1.0})])
    assert plan_of(capsys, "--surf_file", path)["remaining"] == 9
    assert path.read_bytes() == before


def test_files_of_the_original_are_planned_and_a_finished_one_has_nothing_left(capsys):
    (finished,) = GOLDEN.glob("*ynorm=filter.h5_*5].h5")
    assert plan_of(capsys, "--surf_file", finished, "--ranks", 3)["remaining"] == 0
    scheduler.main(["--surf_file", str(finished), "--ranks", "3"])
    assert "25 points, 0 remain" in capsys.readouterr().out


def test_slow_ranks_take_fewer_points_and_the_time_is_near_the_ideal(capsys):
    plan = plan_of(capsys, "--x=-1:1:200", "--seconds_per_point", 1, 1, 3, 1)
    assert plan["shares"][2] < min(plan["shares"][rank] for rank in (0, 1, 3)) / 2
    ideal = 200 / (3 + 1 / 3)
    assert ideal <= plan["seconds"] <= ideal + 3


@given(st.lists(st.floats(0.2, 5), min_size=1, max_size=6), st.integers(1, 40))
def test_a_large_run_is_shared_out_as_the_simulation_would(seconds, side):
    levels = coarse_to_fine((side, side))
    shares, duration = forecast.forecast_shares(levels, seconds)
    limit, forecast.MAX_SIMULATED = forecast.MAX_SIMULATED, 0
    try:
        quick_shares, quick_duration = forecast.forecast_shares(levels, seconds)
    finally:
        forecast.MAX_SIMULATED = limit
    assert sum(shares) == sum(quick_shares) == side * side
    assert abs(duration - quick_duration) <= 0.05 * duration + 2 * max(seconds)


@pytest.mark.parametrize("seconds, words", [
    (3.14159, "3.14 s"), (119, "119 s"), (121, "2 min"), (7199, "2 h 0 min"), (8000, "2 h 13 min"),
    (3600 * 50, "2 d 2 h")])
def test_times_are_told_in_words(seconds, words):
    assert scheduler.time_in_words(seconds) == words


@pytest.mark.parametrize("words", [
    (), ("--surf_file", "missing.h5"), ("--x=1:-1:5",), ("--surf_file", "s.h5", "--x=-1:1:5"), ("--ranks", "0"),
    ("--x=-1:1:5", "--ranks", "3", "--seconds_per_point", "1", "2"), ("--x=-1:1:5", "--seconds_per_point", "nan")])
def test_bad_input_is_one_line_and_exit_code_2(words):
    assert refused(run("scheduler.py", *words))


# ---------------------------------------------------------------- for scripts that import the original's names


class Communicator:
    def __init__(self, rank, size):
        self.Get_rank, self.Get_size = lambda: rank, lambda: size


def test_indices_are_split_into_contiguous_slices():
    assert [part.tolist() for part in scheduler.split_inds(9, 4)] == [[0, 1, 2], [3, 4], [5, 6], [7, 8]]
    assert [len(part) for part in scheduler.split_inds(0, 3)] == [0, 0, 0]


def test_what_is_not_computed_is_minus_one_or_masked_and_comes_row_by_row_with_its_coordinates():
    x, y = np.array([0.0, 1, 2]), np.array([5.0, 6])
    values = np.array([[-1.0, 0, np.nan], [3, -1, -0.5]])
    indices, coordinates = scheduler.get_unplotted_indices(values, x, y)
    assert indices.tolist() == [0, 4] and coordinates.tolist() == [[0, 5], [1, 6]]
    masked = np.ma.masked_array(values, mask=np.isnan(values))
    assert scheduler.get_unplotted_indices(masked, x, y)[0].tolist() == [0, 2, 4]
    indices, coordinates = scheduler.get_unplotted_indices(np.array([1, -1, -1.0]), x)
    assert indices.tolist() == [1, 2] and coordinates.tolist() == [1, 2]


def test_the_ranks_of_a_communicator_share_the_points():
    x = np.arange(9.0)
    parts = [scheduler.get_job_indices(np.full(9, -1.0), x, None, Communicator(rank, 4)) for rank in range(4)]
    assert np.concatenate([indices for indices, _, _ in parts]).tolist() == list(range(9))
    assert [counts for _, _, counts in parts] == [[3, 2, 2, 2]] * 4
    indices, coordinates, counts = scheduler.get_job_indices(np.full(9, -1.0), x, None, None)
    assert len(indices) == len(coordinates) == 9 and counts == [9]
