"""What a direction, surface or projection file is, in words.

    losslandscape describe FILE ...        what it is, how complete, and made from what
    python -m losslandscape describe FILE ...
"""

import re

import numpy as np

from losslandscape.command import Parser, run
from losslandscape.errors import InputError
from losslandscape.files import layouts
from losslandscape.files.layouts import read_directions, read_projection, read_surface

# keys of the provenance, in the order in which they are told; others follow under their own names
WORDS = {
    "model": "network", "model_file": "model file", "model_folder": "model folder",
    "checkpoint": "its contents", "checkpoint2": "contents of model file 2", "checkpoint3": "contents of model file 3",
    "directions": "contents of the directions", "params": "only these parameters move", "freeze": "these do not move",
    "dir_type": "direction type", "dataset": "data set",
    "train_data": "training data", "test_data": "test data", "loss": "loss", "bn": "batch-norm statistics",
    "model_code": "code of the network", "loss_code": "code of the loss",
    "precision": "precision", "batch_size": "batch size", "command": "command", "host": "on host", "created": "at",
    "versions": "versions",
}


def describe(path):
    """What a direction, surface or projection file is, how complete, and made from what: some lines of text.

    Raises InputError for any other file.
    """
    with layouts._open(path, "direction, surface or projection file") as f:
        keys = set(f)
    if "xcoordinates" in keys:
        surface = read_surface(path)
        lines, provenance = _surface_words(surface), surface.provenance
    elif "xdirection" in keys:
        directions = read_directions(path)
        lines, provenance = _directions_words(directions), directions.provenance
    elif "proj_xcoord" in keys:
        arrays, provenance = read_projection(path)
        x, y = arrays["proj_xcoord"], arrays["proj_ycoord"]
        lines = [f"projection file: a path of {len(x)} checkpoints"]
        if len(x):
            lines += [f"  x from {x.min():.6g} to {x.max():.6g}, y from {y.min():.6g} to {y.max():.6g}"]
    else:
        raise InputError(f"expected a direction, surface or projection file, found {sorted(keys)[:5]} in {path}; "
                         "is this the right file?")
    if not provenance:
        return "\n".join([*lines, "made from: not recorded, as in files of the original code"])
    known = [key for key in WORDS if key in provenance] + sorted(provenance.keys() - WORDS.keys())
    width = max(len(WORDS.get(key, key)) for key in known)
    told = [f"  {WORDS.get(key, key):{width}}  {_value_words(provenance[key])}" for key in known]
    return "\n".join([*lines, "made from:", *told])


def _surface_words(surface):
    grid = surface.grid
    limits = ", ".join(f"{name} from {axis[0]:g} to {axis[-1]:g}"
                       for name, axis in (("x", grid.x), ("y", grid.y)) if axis is not None)
    lines = [f"surface file, {len(grid.shape)}-D: {' x '.join(map(str, grid.shape[::-1]))} points, {limits}"]
    width = max(map(len, surface.values), default=0)
    for name in surface.values:
        found = surface.get(name).compressed()
        finite = found[np.isfinite(found)]
        spread = f"; {finite.min():.6g} to {finite.max():.6g}" if finite.size else ""
        odd = f"; {found.size - finite.size} not finite" if finite.size < found.size else ""
        lines.append(f"  {name:{width}}  {found.size} of {grid.size} points computed{spread}{odd}")
    complete = bool(surface.computed) and all(mask.all() for mask in surface.computed.values())
    lines.append("complete" if complete else "not complete: the command that made it goes on from there")
    return lines + [f"directions: {surface.dir_file or 'not recorded'}"]


def _directions_words(directions):
    axes = [axis for axis in (directions.x, directions.y) if axis is not None]
    lines = [f"direction file: {len(axes)} direction{'s' * (len(axes) > 1)}"]
    for name, axis in zip("xy", axes, strict=False):
        norm = float(np.sqrt(sum(np.square(np.asarray(a, float)).sum() for a in axis)))
        lines.append(f"  {name}  {len(axis)} tensors, {sum(a.size for a in axis)} numbers, norm {norm:.6g}")
    if "explained_variance_ratio_" in directions.extra:
        shares = ", ".join(f"{100 * share:.2f} %" for share in directions.extra["explained_variance_ratio_"])
        lines.append(f"  principal components of a training run; they explain {shares} of its variance")
    return lines


def _value_words(value):
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value_words(v)}" for key, v in value.items())
    text = str(value)
    return f"sha256 {text[:16]}..." if re.fullmatch("[0-9a-f]{64}", text) else text


def main(argv=None):
    parser = Parser(description="Say what a direction, surface or projection file is.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    for path in parser.parse_args(argv).files:
        print(f"{path}\n{describe(path)}")


if __name__ == "__main__":
    run(main)
