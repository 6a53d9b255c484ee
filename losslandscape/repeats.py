"""How much does the plane matter? The surfaces of repeated experiments in one: median, quantiles, and one number.

    python plot_surface.py ... --repeats 5 --plot             computes 5 planes, --idx 0 to 4, and their summary
    python repeats.py S.h5 S_idx=1.h5 S_idx=2.h5              the summary of surfaces that are there

The summary is a surface file, FIRST_FILE + `_repeats=K.h5`. Each NAME of the surfaces holds the median there, NAME_low
and NAME_high the quartiles, and NAME_iqr their difference: where it is large, the plane decides what is seen.
"""

import numpy as np

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util

QUARTILES = 0.25, 0.75


def spread(surfaces, name="train_loss"):
    """How much the surfaces differ, beside how much they rise: mean of the interquartile range / mean of the rise.

    Both means are over the grid points where all values are finite; the rise is the median minus its smallest value. 0:
    every plane looks the same. 1: planes differ as much as a plane varies. NaN where nothing rises.
    """
    stack = _stack(surfaces, name)  # (K, ny, nx)
    there = np.isfinite(stack).all(0)
    if not there.any():
        return float("nan")
    low, middle, high = np.quantile(stack[:, there], (QUARTILES[0], 0.5, QUARTILES[1]), axis=0)
    rise = (middle - middle.min()).mean()
    return float((high - low).mean() / rise) if rise > 0 else float("nan")


def summarize(surfaces, paths=()):
    """Surface of the medians, quartiles and interquartile ranges of surfaces on one grid; see the head of this file.

    A point is computed where all repeats have it. NaN where the repeat in question is not finite. Raises InputError
    where grids or values differ.
    """
    first = surfaces[0]
    for path, surface in zip(paths or [""] * len(surfaces), surfaces, strict=True):
        same = surface.grid.shape == first.grid.shape and all(
            np.allclose(a, b) for a, b in ((surface.grid.x, first.grid.x), (surface.grid.y, first.grid.y))
            if a is not None)
        if not same:
            raise InputError(f"expected repeats on one grid, got {first.grid} and {surface.grid} in {path}")
    names = [name for name in first.values if all(name in s.values for s in surfaces)]
    if not names:
        raise InputError("expected repeats with a value in common, got none; give surfaces of the same measurement")
    values, computed = {}, {}
    for name in names:
        mask = np.logical_and.reduce([s.computed[name] for s in surfaces])
        with np.errstate(invalid="ignore"):  # inf - inf
            low, middle, high = np.quantile(_stack(surfaces, name), (QUARTILES[0], 0.5, QUARTILES[1]), axis=0)
            found = {name: middle, f"{name}_low": low, f"{name}_high": high, f"{name}_iqr": high - low}
        values |= found
        computed |= {key: mask for key in found}
    numbers = {name: spread(surfaces, name) for name in names}
    provenance = {key: value for key, value in first.provenance.items() if key not in ("directions", "centre")} | {
        "repeats": list(map(str, paths)) or len(surfaces), "spread": numbers}
    return h5_util.Surface(first.grid, values, computed, first.dir_file, provenance)


def _stack(surfaces, name):
    return np.stack([s.values[name] for s in surfaces])


def write(paths):
    """(path of the summary, lines about it) of the surface files at `paths`, one per repeat."""
    if len(paths) < 2:
        raise InputError(f"expected at least 2 surface files, got {len(paths)}; compute repeats with --repeats K")
    summary = summarize([h5_util.read_surface(path) for path in paths], paths)
    path = f"{paths[0]}_repeats={len(paths)}.h5"
    h5_util.write_surface(path, summary)
    lines = [f"summary of {len(paths)} planes: {path}"]
    for name, number in summary.provenance["spread"].items():
        lines.append(f"  {name}: the planes differ by {100 * number:.1f} % of how much the median varies "
                     "(interquartile range)")
    return path, lines


def main(argv=None):
    parser = Parser(description=__doc__.split("\n\n")[0])
    parser.add_argument("surf_files", nargs="+", metavar="S.h5", help="surface files of one experiment, one per plane")
    print("\n".join(write(parser.parse_args(argv).surf_files)[1]))


if __name__ == "__main__":
    run(main)
