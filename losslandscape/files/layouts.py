"""The three file layouts: directions, surfaces, projections.

    direction file   xdirection/0, 1, ...   ydirection/0, 1, ...   one float32 array per tensor
    surface file     dir_file, xcoordinates (nx,), ycoordinates (ny,),
                     train_loss, train_acc, ...   (ny, nx) float64
                     computed/NAME                (ny, nx) bool: which points of NAME are results
    projection file  proj_xcoord, proj_ycoord     (n,), one number per checkpoint

All carry an attribute `provenance`: JSON that says from what the file was made.

Nothing that is read is believed, see hdf5.py: whatever is wrong becomes an InputError that names the
file.
"""

import os
from dataclasses import dataclass, field

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.grid import MAX_POINTS, NOT_COMPUTED, Grid, Surface
from losslandscape.files.hdf5 import NUMBERS, fixed_text, open_hdf5, write_hdf5
from losslandscape.files.opening import refuse_special

# What a point that is not computed holds in a file, for readers that know no mask. We look at it
# only in files of the original, which have none.
STORED_NOT_COMPUTED = -1.0
STORED_NOT_COMPUTED_BY_NAME = {"min_eig": 1.0}

MAX_PATH = 10**5  # characters of the name of a file; there are systems that allow thousands

# ---------------------------------------------------------------- surfaces


def read_surface(path):
    """Surface from a file of ours or of the original.

    The original stored non-square arrays with the shape (nx, ny), though filled in the order of
    (ny, nx); they are repaired. Raises InputError.
    """
    with open_hdf5(path, "surface file") as f:
        grid = _read_grid(f)
        values, computed = {}, {}
        for name, is_data_set in f.members().items():
            if is_data_set and name not in ("xcoordinates", "ycoordinates", "dir_file"):
                values[name], computed[name] = _read_values(f, name, grid)

        dir_file = ""  # a file that does not say it
        if "dir_file" in f:
            dir_file = f.text("dir_file", MAX_PATH)
        return Surface(grid, values, computed, dir_file, f.provenance())


def write_surface(path, surface):
    """Write the whole surface; a surface file at `path` is replaced at once.

    Raises InputError, also where there is something else.
    """
    refuse_other_file(path, "xcoordinates", "a surface file")

    def fill(f):
        f["dir_file"] = fixed_text(surface.dir_file)
        f["xcoordinates"] = surface.grid.x
        if surface.grid.y is not None:
            f["ycoordinates"] = surface.grid.y
        for name, values in surface.values.items():
            mask = surface.computed[name]
            f[name] = np.where(mask, values, STORED_NOT_COMPUTED)  # (ny, nx)
            f[f"computed/{name}"] = mask

    write_hdf5(path, fill, surface.provenance)


def _read_grid(f):
    axes = [_read_axis(f, "xcoordinates")]
    if "ycoordinates" in f:
        axes.append(_read_axis(f, "ycoordinates"))

    grid = Grid(*axes)
    if grid.size > MAX_POINTS:
        raise InputError(f"expected a grid of at most {MAX_POINTS} points in {f.path}, "
                         f"got {grid.size}; the file is damaged")
    return grid


def _read_axis(f, name):
    """(n,) float64 coordinates, which rise or fall from point to point."""
    axis = f.numbers(name).astype(float)
    if axis.ndim != 1 or len(axis) == 0:
        raise InputError(f"expected one-dimensional {name} in {f.path}; the file is damaged")

    steps = np.diff(axis)
    if not np.isfinite(axis).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise InputError(f"expected finite numbers that rise or fall as {name} in {f.path}; "
                         "the file is damaged")
    return axis


def _read_values(f, name, grid):
    """(values, computed) of `name`, both of the shape of the grid."""
    shape = f.shape(name)
    if shape not in (grid.shape, grid.shape[::-1]):
        raise InputError(f"expected {name!r} of shape {grid.shape} in {f.path}, got {shape}; "
                         "the file is damaged")
    values = f.numbers(name).astype(float).reshape(grid.shape)  # (ny, nx)

    if f"computed/{name}" in f:
        computed = f.numbers(f"computed/{name}", grid.shape, kinds="bui").astype(bool)
    else:
        computed = values != STORED_NOT_COMPUTED_BY_NAME.get(name, STORED_NOT_COMPUTED)
    return np.where(computed, values, NOT_COMPUTED), computed


# ---------------------------------------------------------------- directions


@dataclass(frozen=True)
class Directions:
    """One or two axes: a list of arrays each, one per parameter or, for states, state-dict entry.

    `extra`: further named arrays of the file, such as the explained variance of a PCA.
    """

    x: list
    y: list | None = None
    provenance: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)


def read_directions(path):
    """Directions from a file of ours or of the original. Raises InputError."""
    with open_hdf5(path, "direction file") as f:
        members = f.members()
        if "xdirection" not in members:
            raise InputError(
                f"expected a group 'xdirection' in {path}, found {sorted(members)[:5]}; "
                "give a direction file (or leave --dir_file out to make one)")
        x, y = _read_direction(f, "xdirection"), None
        if "ydirection" in members:
            y = _read_direction(f, "ydirection")

        data_sets = [name for name in members if members[name]]
        extra = {name: f.numbers(name) for name in data_sets}
        shares = extra.get("explained_variance_ratio_")
        if shares is not None and shares.shape != (2,):
            raise InputError(f"expected 2 numbers as 'explained_variance_ratio_' in {path}; "
                             "the file is damaged")
        return Directions(x, y, f.provenance(), extra)


def write_directions(path, directions):
    """Write directions as float32, those of complex weights as complex64; see `write_surface`."""
    refuse_other_file(path, "xdirection", "a direction file")

    def fill(f):
        for axis, arrays in (("xdirection", directions.x), ("ydirection", directions.y)):
            for i, array in enumerate(arrays or []):
                dtype = np.complex64 if np.iscomplexobj(array) else np.float32
                f[f"{axis}/{i}"] = np.asarray(array, dtype)
        for name, array in directions.extra.items():
            f[name] = array

    write_hdf5(path, fill, directions.provenance)


def _read_direction(f, axis):
    """The arrays of one axis, in order."""
    members = f.members(axis)
    if set(members) != {str(i) for i in range(len(members))}:
        raise InputError(f"expected data sets 0, 1, ... in {axis!r} of {f.path}; "
                         "the file is damaged")
    kinds = NUMBERS + "c"  # those of complex weights are complex
    return [f.numbers(f"{axis}/{i}", kinds=kinds) for i in range(len(members))]


# ---------------------------------------------------------------- projections


def read_projection(path):
    """(arrays by name, provenance) of a projection file: n checkpoints as points of a plane.

    Arrays have n >= 1 rows; `proj_xcoord` and `proj_ycoord`, (n,) and finite, are always among
    them. Raises InputError.
    """
    with open_hdf5(path, "projection file") as f:
        arrays = {}
        for name, is_data_set in f.members().items():
            if is_data_set and f.kind(name) in NUMBERS:
                arrays[name] = f.numbers(name)

        for name in ("proj_xcoord", "proj_ycoord"):
            if name not in arrays or arrays[name].ndim != 1 or len(arrays[name]) == 0:
                raise InputError(f"expected a one-dimensional {name!r} in {path}; "
                                 "give a projection file")
            if not np.isfinite(arrays[name]).all():
                raise InputError(f"expected finite numbers as {name!r} in {path}; "
                                 "the file is damaged")

        count = len(arrays["proj_xcoord"])
        for name, array in arrays.items():
            if array.shape[:1] != (count,):
                raise InputError(f"expected {count} rows (checkpoints) in {name!r} of {path}, "
                                 f"got shape {array.shape}; the file is damaged")
        return arrays, f.provenance()


def write_projection(path, arrays, provenance):
    """Write arrays by name, `proj_xcoord` and `proj_ycoord` among them; see `write_surface`."""
    refuse_other_file(path, "proj_xcoord", "a projection file")

    def fill(f):
        for name, array in arrays.items():
            f[name] = array

    write_hdf5(path, fill, provenance)


# ---------------------------------------------------------------- any of the three


def names_in_file(path):
    """Names of the data sets and groups at the top of an HDF5 file. Raises InputError."""
    with open_hdf5(path, "direction, surface or projection file") as f:
        return set(f.members())


def refuse_other_file(path, mark, kind):
    """Raises InputError if something is at `path` that must not be replaced: a trained model, say.

    mark: the name in an HDF5 file by which those are known that may be; kind: they, in words.
    """
    refuse_special(path, "choose another name")
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return
    try:
        may_be_replaced = mark in names_in_file(path)
    except InputError:
        may_be_replaced = False
    if not may_be_replaced:
        raise InputError(f"expected the name of a new file, or of {kind} to replace, got {path}, "
                         "which is something else; choose another name")
