import numpy as np
import pytest
import torch

from losslandscape.measuring.lanczos import lanczos, trace
from tests.oracles import anywhere, symmetric, times


@pytest.mark.parametrize("max_products", [2, 4, 8, 16, 40])
@pytest.mark.parametrize("seed", range(4))
def test_an_eigenvalue_lies_within_the_residual_converged_or_not(max_products, seed):
    values = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) ** 3
    found = lanczos(times(symmetric(values, seed)), anywhere(200), max_products=max_products, tol=1e-4)
    for theta, residual in zip([*found.low, *found.high], [*found.low_residuals, *found.high_residuals], strict=True):
        assert (values - theta).abs().min() <= residual * (1 + 1e-9) + 1e-12
    scale = np.abs([*found.low, *found.high])
    within = np.array([*found.low_residuals, *found.high_residuals]) <= 1e-4 * np.maximum(scale, 0.01 * scale.max())
    assert found.converged == within.all() and found.products <= max_products


def test_without_enough_products_it_says_that_it_did_not_converge():
    matrix = symmetric(torch.linspace(-1, 1, 300))
    few, many = (lanczos(times(matrix), anywhere(300), max_products=most, tol=1e-3) for most in (5, 300))
    assert not few.converged and few.products == 5 and max(few.high_residuals[0], few.low_residuals[0]) > 1e-3
    assert many.converged and many.products < 300
    assert many.high[0] == pytest.approx(1, abs=1e-3) and many.low[0] == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize("ends", [(1, 1), (0, 3), (3, 0), (2, 3)])
def test_a_compressed_basis_finds_what_a_whole_one_finds(ends):
    values = torch.linspace(-3, 10, 300, dtype=torch.float64)
    matrix = symmetric(values)
    whole = lanczos(times(matrix), anywhere(300), *ends, tol=1e-5, max_products=300)
    compressed = lanczos(times(matrix), anywhere(300), *ends, tol=1e-5, max_products=300, basis_bytes=15 * 300 * 8)
    assert whole.converged and compressed.converged and compressed.products > 15
    for found in (whole, compressed):
        np.testing.assert_allclose(found.low, values[:ends[0]], rtol=1e-6)
        np.testing.assert_allclose(found.high, values.flip(0)[:ends[1]], rtol=1e-6)


@pytest.mark.parametrize("values, low, high", [
    ([0.0] * 20, 0, 0), ([3.0] * 20, 3, 3), ([-2.0], -2, -2), ([5.0] * 10 + [-1.0] * 10, -1, 5),
    ([-4, -3, -3.5], -4, -3), ([1e-30, -1e-30, 0, 0], -1e-30, 1e-30), ([1e30, -1e20, 0, 1], -1e20, 1e30),
])
def test_degenerate_spectra(values, low, high):
    """Multiple eigenvalues, a zero Hessian, one parameter, only negative ones, tiny and huge ones."""
    found = lanczos(times(torch.diag(torch.tensor(values, dtype=torch.float64))), anywhere(len(values)))
    assert found.converged
    assert found.low[0] == pytest.approx(low, rel=1e-2, abs=1e-4 * abs(high))
    assert found.high[0] == pytest.approx(high, rel=1e-2)


def test_a_space_with_fewer_eigenvectors_than_asked_for_is_left():
    """From one start vector a Krylov space holds one eigenvector per eigenvalue: here three, and five are wanted."""
    matrix = symmetric([7.0] * 3 + [2.0] * 3 + [0.0] * 30)
    assert lanczos(times(matrix), anywhere(36), 0, 2).high.tolist() == pytest.approx([7, 2])
    found = lanczos(times(matrix), anywhere(36), 0, 5, tol=1e-6)
    assert found.converged and len(found.high) == 5
    assert all(min(abs(theta - value) for value in (7, 2, 0)) < 1e-6 for theta in found.high)
    assert {round(theta) for theta in found.high} >= {7, 2}


def test_more_ends_than_parameters_gives_all_there_are():
    found = lanczos(times(torch.diag(torch.tensor([1.0, 2, 3]))), torch.ones(3), 0, 10)
    assert found.converged and found.high.tolist() == pytest.approx([3, 2, 1])


# ---------------------------------------------------------------- trace


def test_the_trace_of_a_diagonal_matrix_is_exact_and_without_error():
    matrix = torch.diag(torch.arange(20, dtype=torch.float64))
    assert trace(times(matrix), anywhere(20), 5) == (190.0, 0.0)


def test_the_trace_lies_within_its_standard_error_and_the_error_falls_with_the_samples():
    values = torch.linspace(-1, 5, 60, dtype=torch.float64)
    shares = []
    for seed in range(40):
        value, error = trace(times(symmetric(values, seed)), anywhere(60), 20)
        shares.append(abs(value - float(values.sum())) < 2 * error)
    assert np.mean(shares) > 0.8  # 94 % if it were normal
    matrix = symmetric(values)
    assert trace(times(matrix), anywhere(60), 900)[1] < 0.4 * trace(times(matrix), anywhere(60), 30)[1]
