"""How far surfaces are from the user's own loops: each case of tests/plain_loops.py, on each path.

    python benchmarks/plain_loops.py
    python benchmarks/plain_loops.py --cases Cnn Padding --paths command streamed
    python benchmarks/plain_loops.py --output benchmarks/results/plain_loops_cpu.json

A number is the largest relative difference of all values, at all points of a plane (the centre, a
moved point, corners), from ten lines of plain PyTorch in float64; with a `!` where it is more than
the case allows. Where a run is refused, the table says `refused`, and the JSON document has the
line. `ranks` is the command line under mpirun with two processes. On CUDA where there is one.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import torch  # noqa: E402
from machine import hardware  # noqa: E402

from losslandscape.errors import InputError  # noqa: E402
from tests.conftest import run  # noqa: E402
from tests.loop_paths import (  # noqa: E402
    NEAR,
    PATHS,
    command_line,
    differences,
    origin_of,
    result_of,
    tolerance_at,
)
from tests.plain_loops import CASES  # noqa: E402
from tests.test_mpi import SEVERAL  # noqa: E402

LIBRARIES = ("torchvision", "transformers", "timm", "peft", "torch_geometric")
COLUMNS = (*PATHS, "ranks")


# ---------------------------------------------------------------- one case, one path


def measure(case, compute, folder):
    """What `compare` gives, or {"refused": line}, or {"failed": line}, of a case on a path."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            return compare(case, compute(case, folder))
    except (SystemExit, InputError) as error:
        return ended(error, said.getvalue())
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def compare(case, results):
    """{"near": .., "far": .., "within": ..}: the largest differences; are they within tolerance?"""
    largest = {"near": 0.0, "far": 0.0}
    within = True
    for result in results:
        for point, difference in differences(case, result).items():
            place = "near" if max(map(abs, point)) <= NEAR else "far"
            largest[place] = max(largest[place], difference)
            within = within and bool(difference <= tolerance_at(case, point))
    return largest | {"within": within}


def ended(error, said):
    """What a run that ended without a surface said, in one line."""
    if isinstance(error, InputError):
        return {"refused": str(error)}
    line = said.strip().splitlines()[-1]
    if error.code == 2:
        return {"refused": line.removeprefix("error: ")}
    return {"failed": line}


def compute_on_ranks(cases, folder):
    """{name: surface file} of the command line on two ranks: all cases in one job."""
    lines = {}
    for case in cases:
        place = folder / case.__name__ / "ranks"
        place.mkdir(parents=True)
        if case.has_file:
            origin_of(case, place)
        lines[case.__name__] = [*command_line(case, place), "--surf_file", str(place / "ranks.h5")]

    run("-c", SEVERAL, json.dumps(list(lines.values())), ranks=2, timeout=1800)
    return {name: Path(flags[-1]) for name, flags in lines.items()}


def read_of_ranks(surf_file):
    """As a path: the surface that two ranks have computed."""

    def path(case, folder):
        if not surf_file.exists():
            raise InputError("see the command line")
        return [result_of(case, surf_file)]

    return path


def in_words(entry):
    """An entry of the table."""
    if entry is None:
        return ""
    for ending in ("refused", "failed"):
        if ending in entry:
            return ending
    mark = "" if entry["within"] else " !"
    return f"{max(entry['near'], entry['far']):.1e}{mark}"


# ---------------------------------------------------------------- the table


def is_installed(case):
    return all(importlib.util.find_spec(package) for package in case.needs)


def versions():
    """{package: version} of the libraries that the cases use."""
    installed = {}
    for package in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def commit():
    """The commit of this clone."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def print_row(name, entries):
    cells = [f"{in_words(entries.get(column)):>14}" for column in COLUMNS]
    print(f"{name:32}" + "".join(cells), flush=True)


def summary(rows):
    """{path: largest differences of all cases on it}."""
    largest = {}
    for column in COLUMNS:
        entries = [row[column] for row in rows.values() if column in row]
        computed = [entry for entry in entries if "near" in entry]
        if computed:
            largest[column] = {
                "near": max(entry["near"] for entry in computed),
                "far": max(entry["far"] for entry in computed),
                "cases": len(computed),
                "refusals": sum("refused" in entry for entry in entries),
            }
    return largest


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="NAME")
    parser.add_argument("--paths", nargs="+", default=list(COLUMNS), choices=COLUMNS)
    parser.add_argument("--output", help="a file for the JSON document")
    args = parser.parse_args()
    cases = [CASES[name] for name in args.cases if is_installed(CASES[name])]

    print(f"{'case':32}" + "".join(f"{column:>14}" for column in COLUMNS))
    rows = {}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        on_ranks = {}
        if "ranks" in args.paths:
            on_ranks = compute_on_ranks([case for case in cases if not case.refused], folder)

        for case in cases:
            name = case.__name__
            place = folder / name
            place.mkdir(exist_ok=True)
            paths = [path for path in case.paths if path in args.paths]
            rows[name] = {path: measure(case, PATHS[path], place) for path in paths}
            if name in on_ranks:
                rows[name]["ranks"] = measure(case, read_of_ranks(on_ranks[name]), place)
            print_row(name, rows[name])

    largest = summary(rows)
    print_row("largest", {column: entry | {"within": True} for column, entry in largest.items()})
    text = json.dumps({
        "benchmark": "plain_loops",
        "hardware": hardware(torch.cuda.is_available()),
        "versions": versions(),
        "commit": commit(),
        "seconds": round(time.perf_counter() - start, 1),
        "largest": largest,
        "rows": rows,
    }, indent=1)
    if args.output:
        Path(args.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
