"""Flatness of a loss surface in numbers.

    python flatness.py S.h5                                   a table on stdout
    python flatness.py A.h5 B.h5 --surf_name test_loss        several surfaces side by side
    python flatness.py A.h5 --tau 0.1 1 --epsilon 0.2 --json  one JSON document, to read by machine

What is measured, f being the surface and c the grid point of the checkpoint (0, 0):

    loss at the centre         f(c)
    basin of threshold tau     the part of {f <= f(c) + tau} that is connected to c: its width (1-D), its share of
                               the plane (2-D)
    sharpness                  100 (max f - f(c)) / (1 + f(c)) over the box of radius epsilon around c
    curvature at the centre    second derivative along each axis, with an error estimate
    locally convex             share of the points whose finite-difference Hessian has no negative eigenvalue

Distances are in the coordinates of the plot. With filter-normalized directions 1 is the length of the weights, filter
by filter, which is what makes the numbers of two networks comparable (Li et al. 2018, section 4). They describe the
line or plane that was drawn, nothing else: a plane can miss the sharp directions. A basin of a handful of points is
not resolved by the grid; compute a finer surface before you compare.

A grid without a point at 0 (an even count) is measured around its point nearest to 0, and the output says so: a loss
that was computed, rather than one that was interpolated. Points that are not computed, NaN or infinite lie outside
every basin and have no curvature; the output counts them.
"""

import argparse
import json
import math
import sys

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.files.layouts import read_surface
from losslandscape.flatness import EPSILON, TAUS, measures

# ---------------------------------------------------------------- the command


def _number(value, digits=4):
    return "-" if value is None else f"{value:.{digits}g}"


def _rows(found):
    """(label, text) pairs of one surface, the rows of the table."""
    centre = found["centre"]
    at = ", ".join(f"{letter}={centre[letter]:.4g}" for letter in "xy" if letter in centre)
    rows = [("loss at the centre", _number(centre["loss"])), ("centre", at + ("" if centre["exact"] else " (!)"))]
    for basin in found["basins"]:
        count = f"{basin['points']} point{'s' * (basin['points'] > 1)}"
        if "width" in basin:
            at_least = ">=" if basin["reaches_edge"] else ""
            rows.append((f"width of the basin, tau={basin['tau']:g}", f"{at_least}{_number(basin['width'])} ({count})"))
        else:
            edge = ", cut off" if basin["reaches_edge"] else ""
            rows.append((f"basin, share of the plane, tau={basin['tau']:g}",
                         f"{_number(100 * basin['area_fraction'])} % ({count}{edge})"))
    sharp = found["sharpness"]
    reach = "" if sharp["reach"] is None or math.isclose(sharp["reach"], sharp["epsilon"]) else \
        f" (reach {sharp['reach']:.4g})"
    rows.append((f"sharpness, epsilon={sharp['epsilon']:g}",
                 "-" if sharp["percent"] is None else f"{_number(sharp['percent'])} %{reach}"))
    for letter, bend in found["curvature"].items():
        error = "" if bend["error"] is None else f" +- {_number(bend['error'], 2)}"
        rows.append((f"curvature along {letter}", _number(bend["value"]) + error))
    share = found["convex"]["share"]
    rows.append(("locally convex", "-" if share is None else f"{_number(100 * share)} %"))
    rows.append(("points: all, uncomputed, not finite",
                 f"{found['points']}, {found['uncomputed']}, {found['not_finite']}"))
    return rows


def table(results):
    """The measures of {file: measures} as text: one row per measure, one column per file, notes below."""
    columns = [dict(_rows(found)) for found in results.values()]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    letters = [_letter(i) for i in range(len(columns))]
    names = {found["name"] for found in results.values()}
    cells = [[", ".join(sorted(names)), *letters]]
    cells += [[label, *(column.get(label, "-") for column in columns)] for label in labels]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [f"{letter}: {path}" for letter, path in zip(letters, results, strict=True)] + [""]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    notes = []
    if any(not found["centre"]["exact"] for found in results.values()):
        notes.append("(!) the grid has no point at 0: measured around the nearest point; take an odd count.")
    if any(found["sharpness"]["reach"] is None for found in results.values()):
        notes.append("sharpness -: no grid point within epsilon of the centre; take a larger --epsilon or finer grid.")
    if len({_number(found["sharpness"]["reach"]) for found in results.values()}) > 1:
        notes.append("the grids reach differently far into the sharpness box: these numbers do not compare.")
    if any(found["uncomputed"] or found["not_finite"] for found in results.values()):
        notes.append("points that are not computed or not finite count as outside the basin.")
    return "\n".join(lines + ([""] + notes if notes else []))


def _letter(i):
    return chr(ord("A") + i) if i < 26 else f"#{i + 1}"


def _plain(value):
    """JSON has no infinity: it becomes the text "inf"."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def main(argv=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("surf_files", nargs="+", metavar="S.h5", help="surface files, 1-D or 2-D")
    parser.add_argument("--surf_name", default="", help="which values: train_loss, test_loss, train_err, ... (default: "
                                                        "train_loss, or what each file has)")
    parser.add_argument("--tau", type=float, nargs="+", default=list(TAUS), help="basin thresholds above the centre")
    parser.add_argument("--epsilon", type=float, default=EPSILON, help="radius of the sharpness box")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    args = parser.parse_args(argv)

    results = {}
    for path in args.surf_files:
        try:
            surface = read_surface(path)
            results[path] = measures(surface, args.surf_name or surface.main_name, args.tau, args.epsilon)
        except InputError as error:
            raise InputError(str(error) if path in str(error) else f"{path}: {error}") from None
    if args.json:
        print(json.dumps([{"surf_file": path} | _plain(found) for path, found in results.items()], indent=1))
    else:
        print(table(results))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a file name that the terminal can't show
    run(main)
