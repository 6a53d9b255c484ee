"""The mean over all samples, from a few of them, and how wrong it can be.

At a point of a grid the loss of every sample is a number; the surface is of their mean. Measured on
n of N samples, and known at other points (the regressors) on all of them, it is

    mean = mean_n(y) + b . (mean_N(x) - mean_n(x)),    b from the least-squares fit of y on x over the n

the regression estimator of survey sampling (Cochran 1977, chapter 7; Sarndal, Swensson and Wretman
1992, chapter 6). What x explains of y costs nothing; what is left, the residuals e, makes the
standard error

    se^2 = (1 - n / N) / n^2 * sum (g e)^2 / (1 - h)

with the weights g that make the estimate a sum of y (mean = sum g y / n) and the leverages h, which
undo that a fit makes its own residuals small. 1 - n / N is the correction for a finite population:
of the whole set the mean is known.

Where the n are drawn in proportion from every class, only what differs within a class is left to
chance, and the means of g e over the classes are taken from it (Cochran 1977, chapter 5).

The standard error is an estimate too, from few samples, and worse where few of them carry it. It is
widened by the quantile of Student's t with the degrees of freedom that the residuals themselves give
(Satterthwaite 1946), so that two standard errors on either side hold what two of a normal
distribution do, 95.4 %.
"""

from dataclasses import dataclass

import numpy as np

TWO_SIGMA = 0.9772498680518208  # of a normal distribution lies below two standard deviations
RANK_TOLERANCE = 1e-6  # singular values below this share of the largest are rounding
SAMPLES_PER_REGRESSOR = 10  # with fewer the fit follows its own samples
SAMPLES_PER_CLASS = 8  # with fewer their means say little
MIN_DEGREES_OF_FREEDOM = 1.0


@dataclass(frozen=True)
class Estimate:
    """A mean over all samples and its standard error, both in units of the values."""

    mean: float
    error: float


def regression_estimate(values, regressors, means, population, strata=None):
    """Estimate of the mean over `population` samples from n of them.

    values: (n,) finite numbers of a simple random subset, without replacement.
    regressors: (n, p) of the same samples, known on all; the nearest first. means: (p,) of all.
    strata: (n,) the classes of the samples, 0 to C - 1, where these are drawn in proportion.

    Of the whole set the mean is exact, and the error 0; of a single sample the error is infinite.
    Constant and collinear regressors are borne; of few samples only the first regressors are used.
    """
    values = np.asarray(values, np.float64)
    count = len(values)
    mean = values.mean()
    if count >= population:
        return Estimate(float(mean), 0.0)
    if count < 2:
        return Estimate(float(mean), np.inf)

    used = min(len(means), count // SAMPLES_PER_REGRESSOR)
    x = np.asarray(regressors, np.float64)[:, :used]  # (n, p)
    basis, step = _basis_and_step(x, np.asarray(means, np.float64)[:used])
    projections = basis.T @ (values - mean)  # (r,)
    residuals = values - mean - basis @ projections  # (n,)

    weights = 1.0 + count * (basis @ step)  # (n,), g
    leverages = 1.0 / count + np.square(basis).sum(1)
    terms = weights * residuals / np.sqrt(np.maximum(1.0 - leverages, 1.0 / count))
    squares, fitted = _squares_within(terms, strata)
    variance = (1.0 - count / population) * squares.sum() / count**2
    error = np.sqrt(variance) * widening(squares, basis.shape[1] + fitted)
    return Estimate(float(mean + projections @ step), float(error))


def _basis_and_step(x, means):
    """An orthonormal basis (n, r) of the regressors less their means, and how far the means are off.

    The second is (r,): mean_N(x) - mean_n(x) in terms of the basis, so that a fit of y changes the
    estimate by (basis.T @ y) . step.
    """
    centred = x - x.mean(0)
    size = np.linalg.norm(centred, axis=0)
    varies = size > RANK_TOLERANCE * np.sqrt(len(x)) * np.abs(x).max(0, initial=0.0)
    scaled = centred[:, varies] / size[varies]
    off = (means - x.mean(0))[varies] / size[varies]

    basis, singular, axes = np.linalg.svd(scaled, full_matrices=False)
    if singular.size == 0:
        return np.zeros((len(x), 0)), np.zeros(0)
    kept = singular > RANK_TOLERANCE * singular[0]
    return basis[:, kept], axes[kept] @ off / singular[kept]


def _squares_within(terms, strata):
    """(squares (n,) of what is left to chance of each term, how many class means were taken from them).

    strata: None, or with few samples per class: all of a term is left to chance.
    """
    if strata is None:
        return np.square(terms), 0
    counts = np.bincount(strata)
    classes = np.count_nonzero(counts)
    if len(terms) < SAMPLES_PER_CLASS * classes:
        return np.square(terms), 0

    # a class of one sample says nothing about what differs within it
    means = np.bincount(strata, terms) / np.maximum(counts, 1)
    means[counts == 1] = 0.0
    lost = np.where(counts > 1, counts / np.maximum(counts - 1, 1), 1.0)  # to its own mean
    return np.square(terms - means[strata]) * lost[strata], int(classes) - 1


def widening(squares, fitted):
    """By what a standard error grows that a sum of n squares has been estimated from.

    The quantile of Student's t beside that of the normal distribution. Equal squares of normal
    residuals give n - 1 - fitted degrees of freedom, one that is far above all others gives 2.
    """
    from scipy.special import stdtrit

    count, total = len(squares), squares.sum()
    if total == 0:
        return 1.0
    spread = np.square(squares).sum() - total**2 / count
    degrees = count - 1.0 - fitted
    if spread > 0:
        degrees = min(degrees, 2.0 * total**2 / spread)
    return float(stdtrit(max(degrees, MIN_DEGREES_OF_FREEDOM), TWO_SIGMA)) / 2.0
