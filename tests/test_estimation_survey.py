"""What is measured next at a point: the plan of an estimated surface, on populations that are known whole."""

import numpy as np
import pytest
import torch

from losslandscape.data.splits import Split
from losslandscape.errors import InputError
from losslandscape.estimation import audit
from losslandscape.estimation.coarse import centre_of, coarse_points, nearest
from losslandscape.estimation.probes import share_for
from losslandscape.estimation.survey import Goal, Population, Survey
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.provenance import check_provenance
from losslandscape.files.samples import SampleFile, SampleRecord

N = 1500
NAMES = ["train_loss", "train_acc"]
GRID = Grid.parse("-1:1:9", "-1:1:9")


def losses_and_hits(seed=0):
    """(81, N) losses of samples that rise away from the centre, each at its own pace, and whether they are right."""
    random = np.random.default_rng(seed)
    easy, pace = random.gamma(0.4, 1.0, N), random.gamma(2.0, 1.0, N)
    x, y = np.meshgrid(GRID.x, GRID.y)
    radius = np.hypot(x, 0.7 * y).ravel()[:, None]
    losses = 0.05 + easy * (1 + radius) + pace * radius**2 + 0.2 * random.gamma(1.0, 1.0, (81, N))
    return losses.astype(np.float32), 100.0 * (losses < 1.5).astype(np.float32)


def survey_of(losses, hits, goal, seed=None, surface=None):
    """(Survey, function that measures a task) of a made population."""
    split = Split(torch.zeros(N, 1), torch.arange(N) % 10)
    population = Population.of("train", split, NAMES)
    if seed is not None:
        order = np.random.default_rng(seed).permutation(N)
        population = Population("train", N, order, None, population.names)
    values = {"train_loss": losses, "train_acc": hits}

    def measure(task):
        drawn = {name: values[name][task.point][population.order] for name in NAMES}
        if task.stop < N:
            return {}, {name: drawn[name][task.start:task.stop] for name in NAMES}
        means = {name: float(drawn[name].astype(float).mean()) for name in NAMES}
        return means, {name: drawn[name][:task.keep] for name in NAMES if task.keep}

    return Survey(GRID, [population], goal, surface or Surface(GRID)), measure


def finish(survey, measure, order=lambda tasks: tasks):
    while tasks := survey.tasks():
        for task in order(tasks):
            survey.take_in(task, measure(task))
    return survey


def table(survey):
    return [survey.results("train", point) for point in range(GRID.size)]


def test_the_coarse_lattice_comes_first_and_whole():
    survey, _ = survey_of(*losses_and_hits(), Goal(0.02))
    tasks = survey.tasks()
    assert [task.point for task in tasks] == coarse_points(GRID.shape)
    assert all(task.stop == N and task.keep == 512 for task in tasks)


def test_every_error_ends_within_the_goal():
    survey = finish(*survey_of(*losses_and_hits(), Goal(0.02)))
    for results in table(survey):
        assert results["train_loss_se"] <= 0.02 * results["train_loss"]
        assert results["train_acc_se"] <= 1.0  # percentage points
    assert {results["samples"] for results in table(survey)} <= {128, 256, 512, N}


def test_two_standard_errors_hold_95_percent_of_the_points_over_many_draws():
    """The stopping rule looks at its own luck; here is what that costs. 40 draws of 56 points."""
    losses, hits = losses_and_hits()
    within = []
    for seed in range(40):
        survey = finish(*survey_of(losses, hits, Goal(0.02), seed))
        for point in survey.estimated_points("train"):
            estimate = survey.estimates("train", point)["train_loss"]
            within.append(abs(estimate.mean - losses[point].astype(float).mean()) <= 2 * estimate.error)
    assert len(within) > 1000
    assert 0.92 <= np.mean(within) <= 0.98


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_in_which_results_arrive_changes_nothing(seed):
    random = np.random.default_rng(seed)
    expected = table(finish(*survey_of(*losses_and_hits(), Goal(0.02))))
    shuffled = finish(*survey_of(*losses_and_hits(), Goal(0.02)), order=lambda tasks: random.permutation(tasks))
    assert table(shuffled) == expected


def test_a_smaller_tolerance_measures_only_what_is_missing():
    survey, measure = survey_of(*losses_and_hits(), Goal(0.05))
    finish(survey, measure)
    before = [survey.count("train", point) for point in range(GRID.size)]
    survey.goal = Goal(0.01)
    measured = []

    def noted(task):
        measured.append(task)
        return measure(task)

    finish(survey, noted)
    assert measured and all(task.stop == N or task.start >= before[task.point] for task in measured)
    assert table(survey) == table(finish(*survey_of(*losses_and_hits(), Goal(0.01))))


def test_at_tolerance_zero_every_point_is_computed_on_all_data():
    losses, hits = losses_and_hits()
    survey = finish(*survey_of(losses, hits, Goal(0.0)))
    for point, results in enumerate(table(survey)):
        assert results["train_loss"] == pytest.approx(losses[point].astype(float).mean(), rel=1e-12)
        assert results["samples"] == N and results["train_loss_se"] == 0


def test_one_nan_makes_a_mean_nan_without_all_data():
    losses, hits = losses_and_hits()
    survey, measure = survey_of(losses, hits, Goal(0.02))
    losses[1][survey.populations["train"].order[5]] = np.nan
    finish(survey, measure)
    results = survey.results("train", 1)
    assert np.isnan(results["train_loss"]) and results["samples"] == 128


@pytest.mark.parametrize("value", [np.inf, 1e35])
def test_infinite_and_huge_losses_are_computed_on_all_data(value):
    losses, hits = losses_and_hits()
    survey, measure = survey_of(losses, hits, Goal(0.5))
    losses[1][survey.populations["train"].order[5]] = value
    finish(survey, measure)
    assert survey.results("train", 1)["samples"] == N


def test_beside_a_coarse_point_that_diverges_all_data_are_computed():
    """A subset may miss the one sample that diverges."""
    losses, hits = losses_and_hits()
    losses[0][7] = np.nan
    survey = finish(*survey_of(losses, hits, Goal(0.5)))
    assert survey.results("train", 1)["samples"] == N
    assert survey.results("train", 75)["samples"] < N


def test_losses_that_are_all_the_same_are_computed_on_all_data():
    losses, hits = losses_and_hits()
    losses[1] = 2.5
    survey = finish(*survey_of(losses, hits, Goal(0.05)))
    assert survey.results("train", 1) | {"train_acc": 0, "train_acc_se": 0} == {
        "train_loss": 2.5, "train_loss_se": 0, "train_loss_rise_se": 0, "train_acc": 0, "train_acc_se": 0,
        "samples": N}


def test_a_perfect_accuracy_of_a_subset_has_an_error():
    losses, hits = losses_and_hits()
    hits[:] = 100
    survey = finish(*survey_of(losses, hits, Goal(0.05)))
    results = survey.results("train", 1)
    assert results["samples"] < N and 0 < results["train_acc_se"] <= 2.5


def test_points_of_an_ordinary_run_count_as_computed():
    surface = Surface(GRID).with_values(NAMES)
    for name in NAMES:
        surface.values[name].flat[[1, 40]] = 3.0
        surface.computed[name].flat[[1, 40]] = True
    survey, measure = survey_of(*losses_and_hits(), Goal(0.05), surface=surface)
    finish(survey, measure)
    assert survey.results("train", 1) | {"x": 0} == {
        "train_loss": 3.0, "train_loss_se": 0, "train_loss_rise_se": 0, "train_acc": 3.0, "train_acc_se": 0,
        "samples": N, "x": 0}


def test_checked_points_are_the_same_after_a_restart():
    survey, measure = survey_of(*losses_and_hits(), Goal(0.05))
    finish(survey, measure)
    tasks = audit.tasks(survey)
    assert len(tasks) == audit.FEWEST
    for task in tasks[:4]:
        survey.take_in(task, measure(task))
    assert [task.point for task in audit.tasks(survey)] == [task.point for task in tasks[4:]]
    for task in tasks[4:]:
        survey.take_in(task, measure(task))
    entry = audit.in_json(survey)["train"]
    assert entry["points"] == audit.FEWEST and entry["within_two_standard_errors"] >= 6


def test_a_budget_goes_first_where_the_error_is_largest():
    survey, measure = survey_of(*losses_and_hits(), Goal(0.0, on_budget=True))
    for _ in range(3):
        for task in survey.refinements():
            survey.take_in(task, measure(task))
    tasks = survey.refinements()
    excess = [survey.excess("train", task.point) for task in tasks]
    assert excess == sorted(excess, reverse=True) and excess[0] > 0


# ---------------------------------------------------------------- coarse points


@pytest.mark.parametrize("shape, count", [((51, 51), 49), ((51,), 7), ((5,), 5), ((401,), 7), ((3, 3), 9), ((1,), 1)])
def test_the_coarse_lattice_has_the_centre_and_few_points(shape, count):
    points = coarse_points(shape)
    assert len(points) == count and centre_of(shape) in points


def test_the_nearest_coarse_points_surround_a_point():
    coarse = coarse_points((9, 9))
    assert nearest(10, coarse, (9, 9))[:4] == [0, 2, 18, 20]
    assert len(nearest(10, coarse, (9, 9))) == 9


# ---------------------------------------------------------------- the file of samples


def test_samples_come_back_from_their_file_and_half_a_record_does_not_count(tmp_path):
    surface = Surface(GRID, provenance={"model": "net"})
    file = SampleFile(tmp_path / "s.h5", surface, "order")
    values = {"train_loss": np.array([0.5, np.nan, np.inf], np.float32), "train_acc": np.float32([0, 100, 100])}
    assert list(file.read()) == []
    file.append([SampleRecord(3, "train", 0, 3, values)])
    file.append([SampleRecord(4, "train", 3, 6, values)])

    whole = (tmp_path / "s.h5_samples.bin").read_bytes()
    for cut in (0, 1, 20):
        (tmp_path / "s.h5_samples.bin").write_bytes(whole[:len(whole) - cut])
        again = SampleFile(tmp_path / "s.h5", surface, "order")
        records = list(again.read())
        assert [record.point for record in records] == [3, 4][:2 - (cut > 0)]
        for name in values:
            assert np.array_equal(records[0].values[name], values[name], equal_nan=True)
        again.append([SampleRecord(5, "train", 0, 3, values)])
        assert [record.point for record in SampleFile(tmp_path / "s.h5", surface, "order").read()][-1] == 5


@pytest.mark.parametrize("other", [
    (Surface(GRID, provenance={"model": "other"}), "order"),
    (Surface(Grid.parse("-1:1:5", "-1:1:9"), provenance={"model": "net"}), "order"),
    (Surface(GRID, provenance={"model": "net"}), "another order"),
])
def test_samples_of_something_else_are_not_read(tmp_path, other):
    values = {"train_loss": np.zeros(3, np.float32)}
    SampleFile(tmp_path / "s.h5", Surface(GRID, provenance={"model": "net"}), "order").append(
        [SampleRecord(3, "train", 0, 3, values)])
    assert list(SampleFile(tmp_path / "s.h5", *other).read()) == []


def test_any_bit_of_a_file_of_samples_may_be_damaged(tmp_path):
    surface = Surface(GRID)
    path = tmp_path / "s.h5_samples.bin"
    SampleFile(tmp_path / "s.h5", surface, "order").append(
        [SampleRecord(3, "train", 0, 3, {"train_loss": np.zeros(3, np.float32)})])
    image = path.read_bytes()
    for place in range(len(image)):
        path.write_bytes(image[:place] + bytes([image[place] ^ 4]) + image[place + 1:])
        assert list(SampleFile(tmp_path / "s.h5", surface, "order").read()) == []


@pytest.mark.parametrize("provenance", [
    {"estimation": 3}, {"estimation": {}}, {"estimation": {"samples": 5, "share_of_work": "much"}},
    {"estimation": {"samples": 5, "share_of_work": 1.0, "tolerance": "0.01"}}, {"audit": []},
    {"audit": {"train": 3}}, {"audit": {"train": {"points": 3}}},
])
def test_a_provenance_that_says_nonsense_is_refused(provenance):
    with pytest.raises(InputError, match="in the provenance of S.h5"):
        check_provenance(provenance, "S.h5")


# ---------------------------------------------------------------- what it will cost


def test_the_cost_of_a_tolerance_is_foreseen_within_a_factor():
    losses, hits = losses_and_hits()
    for tolerance in (0.1, 0.02):
        survey = finish(*survey_of(losses, 0 * hits + 100 * (losses < 0), Goal(tolerance)))
        cost = survey.samples_evaluated() / (GRID.size * N)
        expected = share_for(tolerance, GRID, N, lambda point: losses[point][:200].astype(float))
        assert 0.6 * cost < expected - audit.FEWEST / GRID.size < 1.7 * cost


def test_few_samples_and_losses_that_diverge_take_all_the_work():
    losses, _ = losses_and_hits()
    assert share_for(0.01, GRID, 200, lambda point: losses[point]) == 1
    assert share_for(0.01, GRID, N, lambda point: np.full(100, np.inf)) == 1


def test_an_accuracy_has_a_tolerance_of_its_own():
    losses, hits = losses_and_hits()
    work = {}
    for accuracy in (0.8, None, 100):
        survey = finish(*survey_of(losses, hits, Goal(0.05, accuracy=accuracy)))
        work[accuracy] = survey.samples_evaluated()
        largest = max(results["train_acc_se"] for results in table(survey))
        assert largest <= (accuracy or 2.5)
        assert survey.in_json(0.05)["accuracy_points"] == (accuracy or 2.5)
    assert work[0.8] > work[None] >= work[100]
