"""The ends of the spectrum of a symmetric map H, and its trace, from products with vectors alone.

    lanczos(product, start)                     # the largest and the smallest eigenvalue
    trace(product, like, samples=30)            # mean and standard error

product(v, idle) -> H v, both (n,); it may call idle() meanwhile.
"""

from dataclasses import dataclass

import numpy as np
import torch

from losslandscape.errors import InputError

# An eigenvalue is done when its residual |H u - theta u| is at most
#
#     tol * max(|theta|, FLOOR * |H|)
#
# Without a floor, a smallest eigenvalue of about 0 (a convex point) would never be done; with it,
# min/max is right to FLOOR * tol.
FLOOR = 0.01
TOLERANCE = 1e-2
MAX_PRODUCTS = 200

# The Krylov basis takes at most so many bytes, and is compressed when it is full;
# but it always has SMALLEST_BASIS vectors.
BASIS_BYTES = 1 << 30
LARGEST_BASIS, SMALLEST_BASIS = 80, 12
STRIP_ELEMENTS = 1 << 24  # that a compression mixes at a time


# ---------------------------------------------------------------- the ends of the spectrum


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues at the ends: `low` ascending, `high` descending.

    Each has its residual |H u - theta u|, |u| = 1. A symmetric matrix has an eigenvalue within
    the residual of theta; the error itself is of the order residual^2 / gap to the next one.
    `converged`: all residuals are within the tolerance. `products`: how many it took. NaN
    throughout where H is not finite.
    """

    low: np.ndarray
    high: np.ndarray
    low_residuals: np.ndarray
    high_residuals: np.ndarray
    converged: bool
    products: int


def lanczos(product, start, low=1, high=1, tol=TOLERANCE, max_products=MAX_PRODUCTS,
            basis_bytes=BASIS_BYTES, idle=lambda: None):
    """The `low` smallest and `high` largest eigenvalues of a symmetric map: a Spectrum.

    product(v, idle) -> H v; start (n,). Stops as soon as every residual is at most tol *
    max(|theta|, FLOOR * |H|), at the latest after `max_products` products. The thick-restart
    Lanczos method of Wu & Simon (2000), one Krylov space for both ends, with full
    orthogonalization: where the basis is full, the Ritz vectors nearest to both ends stay. Of
    equal eigenvalues some may be left out.

    ARPACK (scipy's eigsh with which='BE') looks at the residuals only after it has filled its
    basis, at 20 products, and needs about twice as many; benchmarks/hessian.py compares them.
    """
    norm = float(start.norm())
    if not np.isfinite(norm):
        return not_finite(low, high, products=0)

    space = KrylovSpace(start, low, high, max_products, basis_bytes)
    direction = start / norm
    for products in range(1, max_products + 1):
        space.extend(direction, product, idle)
        if not space.is_finite:
            return not_finite(low, high, products)

        spectrum = space.spectrum(tol, products)
        if spectrum.converged:
            break
        direction = space.next_direction()
    return spectrum


def not_finite(low, high, products):
    """The Spectrum of a map that is not finite."""
    return Spectrum(
        np.full(low, np.nan), np.full(high, np.nan), np.full(low, np.nan), np.full(high, np.nan),
        converged=False, products=products)


# ---------------------------------------------------------------- the space


class KrylovSpace:
    """The space of start, H start, H^2 start, ...: an orthonormal basis, and H in it.

    basis: (rows, n), the dtype and device of `start`; its first `count` rows are filled.
    projected: (rows, rows) float64, basis H basis^T.
    theta, vectors: the eigenvalues of `projected`, ascending, and its eigenvectors (columns).
    residuals: |H u - theta u| of the Ritz vectors u that they stand for.
    remainder, remainder_norm: the part of the last product that lies outside of the space.
    """

    def __init__(self, start, low, high, max_products, basis_bytes):
        self.low, self.high = low, high
        self.size = start.numel()
        rows_in_memory = min(LARGEST_BASIS, basis_bytes // (self.size * start.element_size()))
        rows = max(rows_in_memory, SMALLEST_BASIS, 3 * self.wanted_count)
        rows = min(rows, self.size, max_products)
        self.basis = start.new_empty(rows, self.size)
        self.projected = np.zeros((rows, rows))
        self.count = 0
        self.is_finite = True

    @property
    def wanted_count(self):
        """How many eigenvalues are wanted, and exist."""
        return min(self.low + self.high, self.size)

    def extend(self, direction, product, idle):
        """Append a unit vector (n,) orthogonal to the basis, and solve the projected problem."""
        self.basis[self.count] = direction
        self.count += 1
        last = self.count - 1

        # H direction = basis^T column + remainder
        image = product(direction, idle)
        remainder, column = orthogonalize(image, self.basis[:self.count])

        # one transfer from the device for all numbers
        *column, norm = torch.cat([column, remainder.norm()[None]]).tolist()
        self.is_finite = bool(np.isfinite([*column, norm]).all())
        if not self.is_finite:
            return

        self.projected[last, :self.count] = column
        self.projected[:self.count, last] = column
        self.theta, self.vectors = np.linalg.eigh(self.projected[:self.count, :self.count])
        self.residuals = norm * np.abs(self.vectors[-1])
        self.remainder, self.remainder_norm = remainder, norm

    def spectrum(self, tol, products):
        """The ends of the spectrum as far as they are known after so many products."""
        lowest = np.arange(min(self.low, self.count))
        highest = np.arange(self.count)[::-1][:self.high]

        # is each of the ends within its tolerance?
        ends = np.union1d(lowest, highest)
        sizes = np.maximum(np.abs(self.theta[ends]), FLOOR * self.norm)
        within = self.residuals[ends] <= tol * sizes
        converged = bool(within.all()) and self.count >= self.wanted_count
        whole_space = self.count == self.size

        return Spectrum(
            self.theta[lowest], self.theta[highest],
            self.residuals[lowest], self.residuals[highest],
            converged or whole_space, products)

    @property
    def norm(self):
        """|H| as far as it is known: the largest absolute eigenvalue."""
        return np.abs(self.theta).max()

    def next_direction(self):
        """The unit vector (n,) to go on with; makes room for it where the basis is full."""
        if self.count == len(self.basis):
            self.compress()
            return self.remainder / self.remainder_norm

        rounding = 10 * torch.finfo(self.basis.dtype).eps * self.norm
        if self.remainder_norm > rounding:
            return self.remainder / self.remainder_norm

        # the space is invariant, and holds too few eigenvectors: go on with another direction
        generator = torch.Generator().manual_seed(self.count)
        direction = torch.randn(self.size, generator=generator).to(self.basis)
        direction = direction / direction.norm()
        direction, _ = orthogonalize(direction, self.basis[:self.count])
        return direction / direction.norm()

    def compress(self):
        """Keep only the Ritz vectors nearest to the wanted ends, half as many as there are rows."""
        rows = len(self.basis)
        count = rows // 2
        from_below = round(count * self.low / (self.low + self.high))
        from_above = count - from_below
        nearest = np.concatenate([np.arange(from_below), np.arange(rows - from_above, rows)])

        # by strips, so that no second basis is needed
        mix = torch.from_numpy(self.vectors[:, nearest].T.copy()).to(self.basis)  # (count, rows)
        width = max(1, STRIP_ELEMENTS // rows)
        for start in range(0, self.size, width):
            strip = self.basis[:, start:start + width]
            strip[:count] = mix @ strip

        # in the basis of Ritz vectors H is diagonal
        self.projected[:] = 0
        self.projected[:count, :count] = np.diag(self.theta[nearest])
        self.count = count


def orthogonalize(vector, basis):
    """(part of `vector` orthogonal to the rows of `basis` (j, n), coefficients (j,) of the rest).

    Twice is enough (Kahan, Parlett).
    """
    coefficients = basis @ vector  # (j,)
    vector = torch.addmv(vector, basis.T, coefficients, alpha=-1)
    corrections = basis @ vector
    vector = torch.addmv(vector, basis.T, corrections, alpha=-1)
    return vector, coefficients + corrections


# ---------------------------------------------------------------- the trace


def trace(product, like, samples=30, idle=lambda: None):
    """(trace of H, its standard error), by products with random signs (Hutchinson 1990).

    E[v H v] = trace for independent v_i = +-1; the standard error is the samples' deviation over
    sqrt(samples). The signs are the same at every call. like: a vector (n,) whose dtype and
    device the signs take. Raises InputError for fewer than 2 samples.
    """
    if samples < 2:
        raise InputError(
            f"expected at least 2 samples for the trace and its standard error, got {samples}")

    generator = torch.Generator().manual_seed(1)
    estimates = []
    for _ in range(samples):
        signs = torch.randint(2, like.shape, generator=generator).mul_(2).sub_(1).to(like)
        estimates.append(float((signs @ product(signs, idle)).double()))
    standard_error = np.std(estimates, ddof=1) / np.sqrt(samples)
    return float(np.mean(estimates)), float(standard_error)
