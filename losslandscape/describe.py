"""What a direction, surface or projection file is, in words.

    losslandscape describe FILE ...        what it is, how complete, and made from what
    python -m losslandscape describe FILE ...
"""

import math
import re

import numpy as np

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.files.layouts import (
    names_in_file,
    read_directions,
    read_projection,
    read_surface,
)
from losslandscape.messages import answer, printable

# keys of the provenance in words, in the order in which they are listed; others follow
PROVENANCE_WORDS = {
    "model": "network",
    "model_file": "model file",
    "model_folder": "model folder",
    "checkpoint": "its contents",
    "checkpoint2": "contents of model file 2",
    "checkpoint3": "contents of model file 3",
    "directions": "contents of the directions",
    "params": "only these parameters move",
    "freeze": "these do not move",
    "dir_type": "direction type",
    "dataset": "data set",
    "train_data": "training data",
    "test_data": "test data",
    "loss": "loss",
    "bn": "batch-norm statistics",
    "model_code": "code of the network",
    "loss_code": "code of the loss",
    "metric_code": "code of the metric",
    "measure": "measure",
    "measure_code": "code of the measure",
    "measure_names": "its results",
    "measure_seed": "seed of its random numbers",
    "measure_data": "its data",
    "measure_batch_size": "in batches of",
    "place": "done at every point",
    "place_code": "code of that",
    "precision": "precision",
    "batch_size": "batch size",
    "command": "command",
    "host": "on host",
    "created": "at",
    "versions": "versions",
}


def describe(path):
    """What a direction, surface or projection file is, how complete, and made from what.

    Some lines of text. Raises InputError for any other file.
    """
    names = names_in_file(path)
    if "xcoordinates" in names:
        surface = read_surface(path)
        lines, provenance = surface_in_words(surface), surface.provenance
    elif "xdirection" in names:
        directions = read_directions(path)
        lines, provenance = directions_in_words(directions), directions.provenance
    elif "proj_xcoord" in names:
        arrays, provenance = read_projection(path)
        lines = projection_in_words(arrays)
    else:
        raise InputError(
            "expected a direction, surface or projection file, "
            f"found {sorted(names)[:5]} in {path}; name another one")
    lines += provenance_in_words(provenance)
    return "\n".join(printable(line, math.inf) for line in lines)


def surface_in_words(surface):
    """Lines about size, values and completeness."""
    grid = surface.grid
    size = " x ".join(str(len(axis)) for axis in grid.axes)
    limits = ", ".join(
        f"{letter} from {axis[0]:g} to {axis[-1]:g}"
        for letter, axis in zip("xy", grid.axes, strict=False))
    lines = [f"surface file, {len(grid.axes)}-D: {size} points, {limits}"]

    width = max((len(name) for name in surface.values), default=0)
    for name in surface.values:
        lines.append(f"  {name:{width}}  {values_in_words(surface.get(name))}")

    masks = surface.computed.values()
    if masks and all(mask.all() for mask in masks):
        lines.append("complete")
    else:
        lines.append("not complete: the command that made it goes on from there")
    lines.append(f"directions: {surface.dir_file or 'not recorded'}")
    return lines


def values_in_words(values):
    """How much of a masked array is computed, and its range."""
    computed = values.compressed()
    finite = computed[np.isfinite(computed)]
    words = f"{computed.size} of {values.size} points computed"
    if finite.size > 0:
        words += f"; {finite.min():.6g} to {finite.max():.6g}"
    if finite.size < computed.size:
        words += f"; {computed.size - finite.size} not finite"
    return words


def directions_in_words(directions):
    """Lines about the number, the size and the norm of the directions."""
    lines = ["direction file: 1 direction"]
    axes = [directions.x]
    if directions.y is not None:
        lines = ["direction file: 2 directions"]
        axes.append(directions.y)

    for letter, axis in zip("xy", axes, strict=False):
        size = sum(array.size for array in axis)
        with np.errstate(all="ignore"):  # any number may stand in a file
            squares = [np.square(np.abs(array).astype(float)).sum() for array in axis]
        norm = sum(squares) ** 0.5
        lines.append(f"  {letter}  {len(axis)} tensors, {size} numbers, norm {norm:.6g}")

    if "explained_variance_ratio_" in directions.extra:
        shares = directions.extra["explained_variance_ratio_"]
        percent = ", ".join(f"{100 * share:.2f} %" for share in shares)
        lines.append(
            f"  principal components of a training run; they explain {percent} of its variance")
    return lines


def projection_in_words(arrays):
    """Lines about a path in a plane."""
    x, y = arrays["proj_xcoord"], arrays["proj_ycoord"]
    lines = [f"projection file: a path of {len(x)} checkpoints"]
    if len(x) > 0:
        lines.append(
            f"  x from {x.min():.6g} to {x.max():.6g}, y from {y.min():.6g} to {y.max():.6g}")
    return lines


def provenance_in_words(provenance):
    """Lines that say from what a file was made."""
    if not provenance:
        return ["made from: not recorded, as in files of the original code"]

    keys = [key for key in PROVENANCE_WORDS if key in provenance]
    keys += sorted(provenance.keys() - PROVENANCE_WORDS.keys())
    words = {key: PROVENANCE_WORDS.get(key, key) for key in keys}
    width = max(len(text) for text in words.values())
    lines = [f"  {words[key]:{width}}  {entry_in_words(provenance[key])}" for key in keys]
    return ["made from:", *lines]


def entry_in_words(entry):
    """A JSON value as text; a SHA-256 by its first digits."""
    if isinstance(entry, dict):
        return ", ".join(f"{key} {entry_in_words(value)}" for key, value in entry.items())
    if isinstance(entry, list):
        return ", ".join(map(entry_in_words, entry))
    text = str(entry)
    if re.fullmatch("[0-9a-f]{64}", text):
        return f"sha256 {text[:16]}..."
    return text


def main(argv=None):
    parser = Parser(description="Say what a direction, surface or projection file is.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    for path in parser.parse_args(argv).files:
        answer(f"{printable(path, math.inf)}\n{describe(path)}")


if __name__ == "__main__":
    run(main)
