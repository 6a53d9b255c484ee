"""Flatness of a loss surface in numbers.

    python flatness.py S.h5                                   a table on stdout
    python flatness.py A.h5 B.h5 --surf_name test_loss        several surfaces side by side
    python flatness.py A.h5 --tau 0.1 1 --epsilon 0.2 --json  one JSON document, to read by machine

What is measured, f being the surface and c the grid point of the checkpoint (0, 0):

    loss at the centre         f(c)
    basin of threshold tau     the part of {f <= f(c) + tau} that is connected to c: its width (1-D),
                               its share of the plane (2-D)
    sharpness                  100 (max f - f(c)) / (1 + f(c)) over the box of radius epsilon around c
    curvature at the centre    second derivative along each axis, with an error estimate
    locally convex             share of the points whose finite-difference Hessian has no negative
                               eigenvalue

Distances are in the coordinates of the plot. With filter-normalized directions 1 is the length of
the weights, filter by filter, which is what makes the numbers of two networks comparable (Li et al.
2018, section 4). They describe the line or plane that was drawn, nothing else: a plane can miss the
sharp directions. A basin of a handful of points is not resolved by the grid; compute a finer surface
before you compare.

A grid without a point at 0 (an even count) is measured around its point nearest to 0, and the output
says so. Points that are not computed, NaN or infinite lie outside every basin and have no curvature;
the output counts them.

The numbers of an estimated surface (--tolerance) have a +- for the samples that were drawn, one
standard error; that of curvature comes after the error of the differences.
"""

import json
import math

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.estimation.spread import measures_with_errors
from losslandscape.files.layouts import read_surface
from losslandscape.flatness import EPSILON, TAUS
from losslandscape.messages import answer, printable


def make_parser():
    parser = Parser(description=__doc__)
    parser.add_argument("surf_files", nargs="*", metavar="S.h5", help="surface files, 1-D or 2-D")
    parser.add_argument("--surf_file", "-f", nargs="+", default=[], metavar="S.h5",
                        help="the same, as a flag")
    parser.add_argument("--surf_name", default="",
                        help="which values: train_loss, test_loss, train_err, ... "
                             "(default: train_loss, or what each file has)")
    parser.add_argument("--tau", type=float, nargs="+", default=list(TAUS),
                        help="basin thresholds above the centre")
    parser.add_argument("--epsilon", type=float, default=EPSILON, help="radius of the sharpness box")
    parser.add_argument("--json", action="store_true",
                        help="print one JSON document instead of the table")
    return parser


def main(argv=None):
    args = make_parser().parse_args(argv)
    paths = args.surf_files + args.surf_file
    if not paths:
        raise InputError("expected surface files, got none; for example flatness.py SURFACE.h5")

    results = {path: measure_file(path, args.surf_name, args.tau, args.epsilon) for path in paths}
    if args.json:
        documents = [{"surf_file": path} | json_value(measured) for path, measured in results.items()]
        answer(json.dumps(documents, indent=1))
    else:
        answer(comparison_table(results))


def measure_file(path, name, taus, epsilon):
    """The measures of a surface file; name '' is the main one of the file. Raises InputError."""
    try:
        surface = read_surface(path)
        return measures_with_errors(surface, name or surface.main_name, taus, epsilon)
    except InputError as error:
        if path in str(error):
            raise
        raise InputError(f"{path}: {error}") from None


def json_value(value):
    """The value with texts in the place of NaN and infinity, which JSON has not."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


# ---------------------------------------------------------------- the table


def comparison_table(results):
    """{file: measures} as text: one row per measure, one column per file, notes below."""
    letters = [column_letter(i) for i in range(len(results))]
    columns = [measures_in_words(measured) for measured in results.values()]
    names = sorted({measured["name"] for measured in results.values()})

    # a row for every measure that one of the files has
    cells = [[", ".join(names), *letters]]
    all_rows = {}
    for column in columns:
        all_rows |= column
    for row in all_rows:
        cells.append([row, *(column.get(row, "-") for column in columns)])

    lines = []
    for letter, path in zip(letters, results, strict=True):
        lines.append(f"{letter}: {printable(path, math.inf)}")
    lines.append("")
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())

    notes = notes_below(list(results.values()))
    if notes:
        lines += ["", *notes]
    return "\n".join(lines)


def column_letter(i):
    """A, B, ..., Z, #27, #28, ..."""
    if i < 26:
        return chr(ord("A") + i)
    return f"#{i + 1}"


def measures_in_words(measured):
    """{row of the table: text} of one surface."""
    centre = measured["centre"]
    position = ", ".join(f"{letter}={centre[letter]:.4g}" for letter in "xy" if letter in centre)
    if not centre["exact"]:
        position += " (!)"
    rows = {"loss at the centre": number_in_words(centre["loss"]), "centre": position}

    for basin in measured["basins"]:
        rows |= basin_in_words(basin)
    rows |= sharpness_in_words(measured["sharpness"])
    for letter, bend in measured["curvature"].items():
        rows[f"curvature along {letter}"] = curvature_in_words(bend)

    rows["locally convex"] = percent_in_words(measured["convex"]["share"])
    counts = (measured["points"], measured["uncomputed"], measured["not_finite"])
    rows["points: all, uncomputed, not finite"] = ", ".join(str(count) for count in counts)
    return rows


def basin_in_words(basin):
    """{row: text} of one basin."""
    points = f"{basin['points']} points"
    if basin["points"] == 1:
        points = "1 point"

    if "width" in basin:
        width = number_in_words(basin["width"])
        if basin["reaches_edge"]:
            width = f">={width}"
        width += sampling_in_words(basin)
        return {f"width of the basin, tau={basin['tau']:g}": f"{width} ({points})"}

    if basin["reaches_edge"]:
        points += ", cut off"
    share = percent_in_words(basin["area_fraction"]) + sampling_in_words(basin, 100, " %")
    return {f"basin, share of the plane, tau={basin['tau']:g}": f"{share} ({points})"}


def sharpness_in_words(sharpness):
    """{row: text}, with the reach where it is not epsilon."""
    row = f"sharpness, epsilon={sharpness['epsilon']:g}"
    if sharpness["percent"] is None:
        return {row: "-"}

    text = f"{number_in_words(sharpness['percent'])} %" + sampling_in_words(sharpness, unit=" %")
    if not math.isclose(sharpness["reach"], sharpness["epsilon"]):
        text += f" (reach {sharpness['reach']:.4g})"
    return {row: text}


def curvature_in_words(bend):
    text = number_in_words(bend["value"])
    if bend["error"] is not None:
        text += f" +- {number_in_words(bend['error'], 2)}"
    return text + sampling_in_words(bend)


def sampling_in_words(entry, factor=1.0, unit=""):
    """' +- 0.2 %', the error of a measure from the samples that were drawn; '' where all were."""
    error = entry.get("sampling_error")
    if error is None or not math.isfinite(error):
        return ""
    return f" +- {number_in_words(factor * error, 2)}{unit}"


def percent_in_words(share):
    if share is None:
        return "-"
    return f"{number_in_words(100 * share)} %"


def number_in_words(value, digits=4):
    if value is None:
        return "-"
    return f"{value:.{digits}g}"


def notes_below(measured):
    """Sentences about what the numbers of some surfaces don't tell."""
    notes = []
    if not all(surface["centre"]["exact"] for surface in measured):
        notes.append("(!) the grid has no point at 0: measured around the nearest point; "
                     "take an odd count.")

    if any(surface["centre"]["loss"] < 0 for surface in measured):
        notes.append("a loss below 0 at the centre: sharpness, relative to 1 + f(c), does not "
                     "compare there, and - stands where that is not above 0.")

    reaches = [surface["sharpness"]["reach"] for surface in measured]
    if None in reaches:
        notes.append("sharpness -: no grid point within epsilon of the centre; "
                     "take a larger --epsilon or finer grid.")
    if len({number_in_words(reach) for reach in reaches}) > 1:
        notes.append("the grids reach differently far into the sharpness box: "
                     "these numbers do not compare.")

    if any(surface["uncomputed"] or surface["not_finite"] for surface in measured):
        notes.append("points that are not computed or not finite count as outside the basin.")
    return notes


if __name__ == "__main__":
    run(main)
