"""Eigenvalues at the ends of the spectrum of a symmetric map, and its trace, from products with vectors alone.

    lanczos(product, start)                     # the largest and the smallest eigenvalue
    trace(product, like, samples=30)            # mean and standard error

product(v, idle) -> H v, for v (n,); idle() may be called meanwhile.
"""

from dataclasses import dataclass

import numpy as np
import torch

from losslandscape.errors import InputError

# An eigenvalue is done when its residual |H u - theta u| is at most tol * max(|theta|, FLOOR * |H|). Without a floor, a
# smallest eigenvalue of about 0 (a convex point) would never be done; with it, min/max is right to FLOOR * tol.
FLOOR = 0.01
TOL = 1e-2
MOST = 200  # products
BASIS_BYTES = 1 << 30  # of the Krylov basis; beyond it the basis is compressed (never below SMALLEST_BASIS vectors)
LARGEST_BASIS, SMALLEST_BASIS = 80, 12


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues at the ends: `low` ascending, `high` descending, each with the residuals |H u - theta u|, |u| = 1.

    A symmetric matrix has an eigenvalue within the residual of theta; the error itself is of the order residual^2 / gap
    to the next one. `converged`: all residuals are within the tolerance. NaN throughout where H is not finite.
    """

    low: np.ndarray
    high: np.ndarray
    low_residuals: np.ndarray
    high_residuals: np.ndarray
    converged: bool
    products: int


def lanczos(product, start, low=1, high=1, tol=TOL, most=MOST, basis_bytes=BASIS_BYTES, idle=lambda: None):
    """The `low` smallest and `high` largest eigenvalues of a symmetric map, from one Krylov space: a Spectrum.

    product(v, idle) -> H v; start (n,). Stops as soon as every residual is at most tol * max(|theta|, FLOOR * |H|), at
    the latest after `most` products. The thick-restart Lanczos method of Wu & Simon (2000) with full orthogonalization:
    where the basis is full, the Ritz vectors nearest to both ends stay. Of equal eigenvalues some may be left out.

    ARPACK (scipy's eigsh with which='BE') looks at the residuals only after it has filled its basis, at 20 products,
    and needs about twice as many; benchmarks/hessian.py compares them.
    """
    n = start.numel()
    wanted = min(low + high, n)
    fits = min(LARGEST_BASIS, basis_bytes // (n * start.element_size()))
    rows = min(n, most, max(fits, SMALLEST_BASIS, 3 * wanted))
    basis = start.new_empty(rows, n)  # orthonormal rows
    projected = np.zeros((rows, rows))  # basis H basis^T
    tiny = 10 * torch.finfo(start.dtype).eps
    norm = float(start.norm())
    if not np.isfinite(norm):
        return _nothing(low, high, 0)
    q, j = start / norm, 0
    for products in range(1, most + 1):
        basis[j] = q
        j += 1
        w = product(q, idle)
        w, column = _orthogonalize(w, basis[:j])
        *column, beta = torch.cat([column, w.norm()[None]]).tolist()
        if not np.isfinite([*column, beta]).all():
            return _nothing(low, high, products)
        projected[j - 1, :j] = projected[:j, j - 1] = column
        theta, u = np.linalg.eigh(projected[:j, :j])  # ascending
        residuals = beta * np.abs(u[-1])
        scale = np.abs(theta).max()
        at_low, at_high = np.arange(min(low, j)), np.arange(j)[::-1][:high]
        ends = np.union1d(at_low, at_high)
        within = residuals[ends] <= tol * np.maximum(np.abs(theta[ends]), FLOOR * scale)
        converged = bool(within.all()) and (j >= wanted)
        if converged or j == n:
            converged = True
            break
        if j == rows:
            q, j = w / beta, _compress(basis, projected, theta, u, low, high)
        elif beta > tiny * scale:
            q = w / beta
        else:  # the space is invariant, and holds too few eigenvectors: go on with another direction
            q = torch.randn(n, generator=torch.Generator().manual_seed(j)).to(start)
            q = _orthogonalize(q / q.norm(), basis[:j])[0]
            q /= q.norm()
    return Spectrum(theta[at_low], theta[at_high], residuals[at_low], residuals[at_high], converged, products)


def _orthogonalize(w, basis):
    """(part of w orthogonal to the rows of `basis`, the coefficients of the rest). Twice is enough (Kahan, Parlett)."""
    coefficients = basis @ w  # (j,)
    w = torch.addmv(w, basis.T, coefficients, alpha=-1)
    again = basis @ w
    return torch.addmv(w, basis.T, again, alpha=-1), coefficients + again


def _compress(basis, projected, theta, u, low, high):
    """Put the Ritz vectors nearest to the wanted ends into the first rows of `basis`; returns how many."""
    rows = len(basis)
    k = rows // 2
    at_low = round(k * low / (low + high))
    kept = np.r_[0:at_low, rows - (k - at_low):rows]
    mix = torch.from_numpy(u[:, kept].T.copy()).to(basis)  # (k, rows)
    width = max(1, (1 << 24) // rows)  # by strips, so that no second basis is needed
    for start in range(0, basis.shape[1], width):
        strip = basis[:, start:start + width]
        strip[:k] = mix @ strip
    projected[:] = 0
    projected[:k, :k] = np.diag(theta[kept])
    return k


def _nothing(low, high, products):
    nan = [np.full(count, np.nan) for count in (low, high, low, high)]
    return Spectrum(*nan, converged=False, products=products)


def trace(product, like, samples=30, idle=lambda: None):
    """(trace of H, its standard error), by `samples` >= 2 products with random signs (Hutchinson 1990).

    E[v H v] = trace for independent v_i = +-1; the standard error is the samples' deviation over sqrt(samples). The
    signs are the same at every call. like: a vector (n,) whose dtype and device the signs take.
    """
    if samples < 2:
        raise InputError(f"expected at least 2 samples for the trace and its standard error, got {samples}")
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(samples):
        v = torch.randint(2, like.shape, generator=generator).mul_(2).sub_(1).to(like)
        found.append(float((v @ product(v, idle)).double()))
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(samples))
