"""The plan of a run: which points remain, in which order, who takes which, and how long that takes.

    python scheduler.py --surf_file SURFACE.h5                       # what remains of a run
    python scheduler.py --surf_file SURFACE.h5 --ranks 4 --seconds_per_point 0.5
    python scheduler.py --x=-1:1:51 --y=-1:1:51 --ranks 4            # of a run that has not begun
    python scheduler.py ... --seconds_per_point 0.5 0.5 1.5 0.5      # ranks of different speed

Seconds per point: what a run says on its way, or `plot_surface.py ... --check`. Nothing is written.
Scripts that were written for the original program can import its functions from this file.
"""

import json

import numpy as np

from losslandscape import command
from losslandscape.command import positive_float, positive_int
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid
from losslandscape.files.journal import Journal
from losslandscape.files.layouts import read_surface
from losslandscape.forecast import forecast_shares
from losslandscape.messages import answer
from losslandscape.original_api import get_job_indices, get_unplotted_indices  # noqa: F401
from losslandscape.original_api import split_indices as split_inds
from losslandscape.scheduler import levels_of


def make_parser():
    parser = command.Parser(description=__doc__)
    parser.add_argument("--surf_file", "-f", default="", metavar="FILE",
                        help="a surface file that is to be finished")
    parser.add_argument("--x", metavar="MIN:MAX:NUM",
                        help="x coordinates of a run that has not begun (-1:1:51)")
    parser.add_argument("--y", metavar="MIN:MAX:NUM",
                        help="y coordinates; without it the plot is 1-D")
    parser.add_argument("--ranks", type=positive_int,
                        help="number of processes (1, or as many as speeds are given)")
    parser.add_argument("--seconds_per_point", type=positive_float, nargs="+", default=[], metavar="S",
                        help="of every rank, or of each")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    return parser


def main(argv=None):
    args = make_parser().parse_args(argv)
    grid, missing = read_what_is_missing(args.surf_file, args.x, args.y)
    ranks, seconds = speeds_of_ranks(args.ranks, args.seconds_per_point)

    plan = make_plan(grid, missing, ranks, seconds)
    if args.json:
        answer(json.dumps(plan, indent=1))
    else:
        answer("\n".join(plan_in_words(plan, grid, args.surf_file)))


# ---------------------------------------------------------------- what is asked for


def read_what_is_missing(surf_file, x, y):
    """(Grid, numbers of the points that remain) of a surface file, or of a grid without any results.

    A point remains if one of the file's values is not computed there.
    """
    if not surf_file:
        if x is None and y is None:
            raise InputError(
                "expected --surf_file FILE, or a grid such as --x=-1:1:51 --y=-1:1:51; give one")
        grid = Grid.parse(x or "-1:1:51", y)
        return grid, np.arange(grid.size)
    if x is not None or y is not None:
        raise InputError("expected --surf_file or a grid with --x and --y, got both; leave one out")

    surface = read_surface(surf_file)
    masks = surface.computed

    # results of a run that goes on, or was killed, which the file does not hold yet
    for point, values in Journal(surf_file, surface).read():
        for name in values:
            masks[name].flat[point] = True

    computed = np.zeros(surface.grid.shape, bool)
    if masks:
        computed = np.logical_and.reduce(list(masks.values()))
    return surface.grid, np.flatnonzero(~computed)


def speeds_of_ranks(ranks, seconds):
    """(number of ranks, seconds per point of each; [] where they are not known)."""
    if len(seconds) <= 1:
        ranks = ranks or 1
        return ranks, seconds * ranks
    if ranks is not None and ranks != len(seconds):
        raise InputError(f"expected --seconds_per_point with one number, or {ranks}, one for each "
                         f"of the --ranks; got {len(seconds)}")
    return len(seconds), seconds


# ---------------------------------------------------------------- the plan


def make_plan(grid, missing, ranks, seconds):
    """The plan as a dict of plain numbers.

        points, remaining    of the grid, and those that are not computed
        levels               how many points remain in each, coarse to fine
        slices               (first, last, count) of every rank in the original: contiguous
        shares               how many points every rank will take
        seconds              until the last point is done; None where --seconds_per_point is not given

    missing: point numbers, ascending. seconds: per point, of each rank, or [].
    """
    slices = []
    for part in split_inds(len(missing), ranks):
        points = missing[part].tolist()
        first = last = None
        if points:
            first, last = points[0], points[-1]
        slices.append([first, last, len(points)])

    levels = levels_of(grid.shape, missing.tolist())
    shares, duration = forecast_shares(levels, seconds or [1.0] * ranks)
    if not seconds:
        duration = None
    return {
        "points": grid.size,
        "remaining": len(missing),
        "levels": [len(level) for level in levels],
        "slices": slices,
        "shares": shares,
        "seconds": duration,
    }


def plan_in_words(plan, grid, surf_file):
    """The plan as lines of text."""
    lines = [f"grid {grid}: {plan['points']} points, {plan['remaining']} remain"]
    if surf_file:
        lines.insert(0, surf_file)
    if plan["remaining"] == 0:
        return lines

    # a curve has one level
    if len(plan["levels"]) > 1:
        lines += ["", "from coarse to fine, a picture of the whole plane after each level:"]
        done = plan["points"] - plan["remaining"]
        for number, count in enumerate(plan["levels"], 1):
            done += count
            percent = 100 * done / plan["points"]
            lines.append(f"  level {number}: {count:8} points, then {percent:5.1f} % are done")

    lines += ["", "rank    takes    (the original: a slice of its own)"]
    for rank, share in enumerate(plan["shares"]):
        first, last, count = plan["slices"][rank]
        original = "nothing"
        if count > 0:
            original = f"{count} points, {first} to {last}"
        lines.append(f"{rank:4}{share:9}    ({original})")
    lines.append("ranks take points when they have time, a slow one fewer")

    # how long
    lines.append("")
    if plan["seconds"] is None:
        lines.append("--seconds_per_point says how long it takes")
    else:
        lines.append(f"time: {time_in_words(plan['seconds'])}")
    return lines


def time_in_words(seconds):
    """'45 s', '12 min', '3 h 20 min', '2 d 4 h'."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


if __name__ == "__main__":
    command.run(main)
