"""The mean over all samples from a few: laws of the estimator, and how often its error bars hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losslandscape.estimation.regression import regression_estimate, widening
from losslandscape.estimation.subsets import SMALLEST, drawing_order, ladder, strata_of

RNG = np.random.default_rng(0)
N = 4000


def population(kind, size=N, seed=0):
    """(values (N,), regressors (N, 2), strata (N,)): losses as they are at a point and at two others."""
    random = np.random.default_rng(seed)
    strata = random.integers(10, size=size)
    base = random.gamma(0.5, 2.0, size) + 0.2 * strata
    x = np.stack([base * random.uniform(0.5, 1.5, size), base + random.normal(size=size)], -1)
    noise = {
        "normal": random.normal(size=size),
        "skewed": random.exponential(size=size),
        "heavy": random.lognormal(0, 1.0, size),
        "by class": strata + 0.1 * random.normal(size=size),
    }[kind]
    return base + noise, x, strata


def share_within_two_errors(kind, count, repeats=400):
    values, x, strata = population(kind)
    hits = 0
    for seed in range(repeats):
        drawn = drawing_order(strata, N, seed)[:count]
        estimate = regression_estimate(values[drawn], x[drawn], x.mean(0), N, strata[drawn])
        hits += abs(estimate.mean - values.mean()) <= 2 * estimate.error
    return hits / repeats


@pytest.mark.parametrize("kind", ["normal", "skewed", "heavy", "by class"])
@pytest.mark.parametrize("count", [128, 512])
def test_two_standard_errors_hold_95_percent(kind, count):
    """400 draws know a share of 95 % to 1.1 points."""
    assert 0.92 <= share_within_two_errors(kind, count) <= 0.99


def test_the_error_is_that_of_many_draws():
    values, x, strata = population("normal")
    estimates = []
    for seed in range(300):
        drawn = drawing_order(strata, N, seed)[:256]
        estimates.append(regression_estimate(values[drawn], x[drawn], x.mean(0), N, strata[drawn]))
    spread = np.std([estimate.mean for estimate in estimates])
    assert np.mean([estimate.error for estimate in estimates]) == pytest.approx(spread, rel=0.12)
    assert np.mean([estimate.mean for estimate in estimates]) == pytest.approx(values.mean(), abs=4 * spread / 17)


@given(st.integers(1, 300), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_a_subset_that_is_the_whole_gives_exactly_the_mean(count, regressors):
    values, x = RNG.lognormal(size=count), RNG.normal(size=(count, regressors))
    estimate = regression_estimate(values, x, x.mean(0), count)
    assert estimate.mean == values.mean() and estimate.error == 0


def test_the_error_shrinks_to_nothing_with_the_rest_of_the_population():
    """The correction for a finite population: of all but one sample hardly anything is left to chance."""
    values, x, _ = population("normal")
    errors = [regression_estimate(values[:n], x[:n], x.mean(0), N).error for n in (128, 512, 2000, N - 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]
    whole = regression_estimate(values[:2000], x[:2000], x.mean(0), 10**9).error
    assert errors[2] == pytest.approx(whole * np.sqrt(0.5), rel=1e-5)


def test_a_regressor_that_is_the_value_itself_leaves_no_error():
    values, x, _ = population("heavy")
    x = np.stack([3 * values + 1, x[:, 0]], -1)
    estimate = regression_estimate(values[:128], x[:128], x.mean(0), N)
    assert estimate.mean == pytest.approx(values.mean(), rel=1e-10) and estimate.error < 1e-10


@pytest.mark.parametrize("columns", [
    lambda x: np.stack([x[:, 0], 2 * x[:, 0], x[:, 0] + 1], -1),  # collinear
    lambda x: np.stack([x[:, 0], np.full(len(x), 7.0)], -1),  # constant
    lambda x: np.stack([x[:, 0], np.full(len(x), 1e30)], -1),
    lambda x: x[:, :1] * 1e-25,
    lambda x: x[:, :1] * 1e25,
], ids=["collinear", "constant", "constant and large", "small", "large"])
def test_regressors_that_say_nothing_new_change_nothing(columns):
    values, x, _ = population("normal")
    other = columns(x)
    plain = regression_estimate(values[:200], x[:200, :1], x[:, :1].mean(0), N)
    estimate = regression_estimate(values[:200], other[:200], other.mean(0), N)
    assert estimate.mean == pytest.approx(plain.mean, rel=1e-9)
    assert estimate.error == pytest.approx(plain.error, rel=1e-6)


def test_without_regressors_it_is_the_mean_of_the_subset():
    values, _, _ = population("normal")
    estimate = regression_estimate(values[:500], np.zeros((500, 0)), np.zeros(0), N)
    assert estimate.mean == pytest.approx(values[:500].mean())
    expected = values[:500].std(ddof=1) * np.sqrt((1 - 500 / N) / 500)
    assert estimate.error == pytest.approx(expected, rel=0.01)


def test_units_do_not_matter():
    values, x, strata = population("skewed")
    arguments = x[:128], x.mean(0), N, strata[:128]
    one, million = (regression_estimate(scale * values[:128], *arguments) for scale in (1, 1e6))
    assert million.mean == pytest.approx(1e6 * one.mean) and million.error == pytest.approx(1e6 * one.error)


@pytest.mark.parametrize("count", [2, 3, 9, 11, 25])
def test_few_samples_have_a_finite_estimate_and_a_wide_error(count):
    values, x, _ = population("normal")
    x = np.tile(x, 5)  # more regressors than samples
    estimate = regression_estimate(values[:count], x[:count], x.mean(0), N)
    assert np.isfinite(estimate.mean) and estimate.error > 0


def test_a_single_sample_says_nothing_about_the_error():
    assert regression_estimate(np.ones(1), np.zeros((1, 1)), np.zeros(1), N).error == np.inf


def test_constant_values_have_no_error():
    estimate = regression_estimate(np.full(128, 3.5), np.zeros((128, 2)), np.zeros(2), N)
    assert estimate.mean == 3.5 and estimate.error == 0


def test_an_error_that_hangs_on_one_sample_is_widened():
    normal = np.square(RNG.normal(size=1000))
    alone = np.append(np.zeros(999), 1.0)
    assert widening(normal, 0) == pytest.approx(1, abs=0.01)
    assert widening(alone, 0) == pytest.approx(4.527 / 2, rel=0.01)  # Student's t with 2 degrees of freedom
    assert widening(normal[:5], 0) > 1.2


# ---------------------------------------------------------------- subsets


@given(st.integers(1, 3000), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_an_order_is_a_permutation_whose_beginnings_hold_every_class_in_proportion(count, classes, seed):
    strata = np.random.default_rng(seed).integers(classes, size=count)
    order = drawing_order(strata, count, seed)
    assert sorted(order) == list(range(count))
    for size in (count // 7, count // 2):
        drawn = np.bincount(strata[order[:size]], minlength=classes)
        shares = np.bincount(strata, minlength=classes) * size / count
        assert np.abs(drawn - shares).max() <= 1 + np.sqrt(classes)


def test_every_sample_is_as_likely_as_any_other():
    """Also of small classes: else the plain mean of a subset would be biased."""
    strata = np.repeat([0, 1, 2], [3, 40, 157])
    drawn = np.zeros(200)
    for seed in range(2000):
        drawn[drawing_order(strata, 200, seed)[:50]] += 1
    for stratum in range(3):
        assert drawn[strata == stratum].mean() / 2000 == pytest.approx(0.25, abs=0.02)


def test_the_order_is_the_same_every_time():
    strata = RNG.integers(10, size=500)
    assert np.array_equal(drawing_order(strata, 500), drawing_order(strata, 500))
    assert sorted(drawing_order(None, 500)) == list(range(500))


@given(st.integers(0, 10**6))
def test_subsets_are_doubled_up_to_half_of_the_samples(count):
    sizes = ladder(count)
    assert all(2 * a == b for a, b in zip(sizes, sizes[1:], strict=False))
    assert all(SMALLEST <= size <= count / 2 for size in sizes)
    assert not sizes or 2 * sizes[-1] > count / 2


def test_numbers_and_labels_of_their_own_are_no_classes():
    assert strata_of(RNG.normal(size=20), 20) is None
    assert strata_of(np.arange(20), 20) is None
    assert strata_of(np.zeros((20, 3), int), 20) is None
    assert strata_of(np.array([7, -100] * 10), 20).tolist() == [1, 0] * 10
