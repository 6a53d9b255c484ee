"""How much does the plane matter? The surfaces of repeated experiments in one: median, quartiles, and one number.

    python plot_surface.py ... --repeats 5 --plot                     computes 5 planes, --idx 0 to 4, and their summary
    losslandscape repeats S.h5 S_idx=1.h5 S_idx=2.h5                  the summary of surfaces that are there
    python -m losslandscape repeats S.h5 S_idx=1.h5 S_idx=2.h5        the same from a clone

The summary is a surface file, FIRST_FILE + `_repeats=K.h5`. Each NAME of the surfaces holds the median there, NAME_low
and NAME_high the quartiles, and NAME_iqr their difference: where it is large, the plane decides what is seen.
"""

import numpy as np

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.files.grid import Surface
from losslandscape.files.layouts import read_surface, write_surface
from losslandscape.files.names import summary_file_name
from losslandscape.messages import tell

LOW, MEDIAN, HIGH = 0.25, 0.5, 0.75


def spread(surfaces, name="train_loss"):
    """How much the surfaces differ, beside how much they rise: mean of the interquartile range / mean of the rise.

    Both means are over the grid points where all values are finite; the rise is the median minus its smallest value. 0:
    every plane looks the same. 1: planes differ as much as a plane varies. NaN where nothing rises.
    """
    stack = stacked_values(surfaces, name)  # (K, ny, nx)
    finite = np.isfinite(stack).all(axis=0)
    if not finite.any():
        return float("nan")

    low, median, high = np.quantile(stack[:, finite], (LOW, MEDIAN, HIGH), axis=0)
    rise = (median - median.min()).mean()
    if rise <= 0:
        return float("nan")
    return float((high - low).mean() / rise)


def summarize(surfaces, paths=()):
    """Surface of the medians, quartiles and interquartile ranges of surfaces on one grid; see the head of this file.

    A point is computed where all repeats have it. NaN where the repeat in question is not finite. Raises InputError
    where grids or values differ.
    """
    first = surfaces[0]
    check_grids(surfaces, paths)
    names = [
        name for name in first.values
        if not is_about_estimate(name) and all(name in surface.values for surface in surfaces)
    ]
    if not names:
        raise InputError("expected repeats with a value in common, got none; give surfaces of the same measurement")

    values, computed = {}, {}
    for name in names:
        # the statistics of one value
        with np.errstate(invalid="ignore"):  # inf - inf
            low, median, high = np.quantile(stacked_values(surfaces, name), (LOW, MEDIAN, HIGH), axis=0)
            statistics = {name: median, f"{name}_low": low, f"{name}_high": high, f"{name}_iqr": high - low}

        # computed where all repeats are
        in_all = np.logical_and.reduce([surface.computed[name] for surface in surfaces])
        values |= statistics
        computed |= dict.fromkeys(statistics, in_all)

    provenance = {key: value for key, value in first.provenance.items() if key not in ("directions", "centre")}
    provenance["repeats"] = [str(path) for path in paths] or len(surfaces)
    provenance["spread"] = {name: spread(surfaces, name) for name in names}
    return Surface(first.grid, values, computed, first.dir_file, provenance)


def is_about_estimate(name):
    """Is a value of a surface an error, or a number of samples, of an estimate? See losslandscape/estimation."""
    return name.endswith("_se") or name in ("samples", "test_samples")


def check_grids(surfaces, paths):
    """Raises InputError unless all surfaces have the grid of the first."""
    grid = surfaces[0].grid
    for number, surface in enumerate(surfaces):
        if not surface.grid.close_to(grid):
            name = paths[number] if paths else f"surface {number}"
            raise InputError(f"expected repeats on one grid, got {grid} and {surface.grid} in {name}")


def stacked_values(surfaces, name):
    """(K, ny, nx) values of K surfaces."""
    return np.stack([surface.values[name] for surface in surfaces])


def write(paths):
    """(path of the summary, lines about it) of the surface files at `paths`, one per repeat."""
    if len(paths) < 2:
        raise InputError(f"expected at least 2 surface files, got {len(paths)}; compute repeats with --repeats K")

    summary = summarize([read_surface(path) for path in paths], paths)
    summary_file = summary_file_name(paths[0], len(paths))
    write_surface(summary_file, summary)

    lines = [f"summary of {len(paths)} planes: {summary_file}"]
    for name, number in summary.provenance["spread"].items():
        lines.append(
            f"  {name}: the planes differ by {100 * number:.1f} % of how much the median varies (interquartile range)")
    return summary_file, lines


def main(argv=None):
    parser = Parser(description=__doc__)
    parser.add_argument("surf_files", nargs="+", metavar="S.h5", help="surface files of one experiment, one per plane")
    _, lines = write(parser.parse_args(argv).surf_files)
    tell("\n".join(lines))


if __name__ == "__main__":
    run(main)
