"""The numbers of flatness.py with the standard errors of an estimated surface carried into them.

    measures_with_errors(surface, "train_loss")     as flatness.measures, and `sampling_error` beside
                                                    every basin, sharpness and curvature

The errors of the points are known one by one, not how they go together: they come from one draw of
samples, so neighbours are alike, but by how much depends on the network. So both extremes are tried,
errors that are independent from point to point, and errors that are one and the same everywhere (in
units of their size), and the larger spread of a measure counts: curvature suffers from the first,
basins from the second. The centre is computed on all data, so errors are those of the rise above it.
"""

import numpy as np

from losslandscape.files.grid import ERRORS, Surface
from losslandscape.flatness import EPSILON, TAUS, measures

DRAWS = 40  # of independent errors: a standard error is known to 11 %
SEED = 11


def measures_with_errors(surface, name="train_loss", taus=TAUS, epsilon=EPSILON):
    """flatness.measures of a surface; where it is estimated with `sampling_error`, a standard error.

    The error stands in every entry of `basins`, in `sharpness`, and in every axis of `curvature`.
    """
    measured = measures(surface, name, taus, epsilon)
    errors = errors_of_rise(surface, name)
    if errors is None:
        return measured

    random = np.random.Generator(np.random.PCG64(SEED))
    values = np.ma.filled(surface.get(name).astype(float), np.nan)

    def numbers_with(shift):
        shifted = Surface(
            surface.grid, {name: values + shift * errors}, {name: np.isfinite(values)})
        return [number for _, number in measured_numbers(measures(shifted, name, taus, epsilon))]

    independent = [numbers_with(random.standard_normal(values.shape)) for _ in range(DRAWS)]
    common = [numbers_with(shift) for shift in (-1.0, 1.0)]
    for i, (entry, _) in enumerate(measured_numbers(measured)):
        of_draws = np.array([numbers[i] for numbers in independent], float)
        low, high = (np.array(numbers[i], float) for numbers in common)
        entry["sampling_error"] = float(max(of_draws.std(ddof=1), abs(high - low) / 2))
    return measured


def errors_of_rise(surface, name):
    """Standard errors (ny, nx) of the rise above the centre; None where there are none above 0."""
    errors = surface.values.get(f"{name}_rise_se")
    if errors is None:
        errors = surface.values.get(f"{ERRORS.get(name, name)}_se")
    if errors is None or not (errors > 0).any():
        return None
    return np.where(np.isfinite(errors), errors, 0.0)


def measured_numbers(measured):
    """[(entry of a dict of measures, its number)]: basins, sharpness and curvatures, in order."""
    numbers = []
    for basin in measured["basins"]:
        numbers.append((basin, basin.get("width", basin.get("area_fraction"))))
    numbers.append((measured["sharpness"], measured["sharpness"]["percent"]))
    for bend in measured["curvature"].values():
        numbers.append((bend, bend["value"]))
    return [(entry, np.nan if number is None else number) for entry, number in numbers]
