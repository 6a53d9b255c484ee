"""The three file layouts: directions, surfaces, projections. The only module that imports h5py.

    direction file   xdirection/0, 1, ...   ydirection/0, 1, ...   one float32 array per tensor
    surface file     dir_file, xcoordinates (nx,), ycoordinates (ny,),
                     train_loss, train_acc, ...   (ny, nx) float64
                     computed/NAME                (ny, nx) bool: which points of NAME are results
    projection file  proj_xcoord, proj_ycoord     (n,), one number per checkpoint

All carry an attribute `provenance`: JSON that says from what the file was made.

Nothing that is read is believed: shapes and sizes are checked before the values are read, texts and
provenance after it. Whatever is wrong becomes an InputError that names the file.
"""

import contextlib
import json
import os
from dataclasses import dataclass, field

import h5py
import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import provenance as provenances
from losslandscape.files.atomic import write_file
from losslandscape.files.grid import MAX_POINTS, NOT_COMPUTED, Grid, Surface

# What a point that is not computed holds in a file, for readers that know no mask. We look at it
# only in files of the original, which have none.
STORED_NOT_COMPUTED = -1.0
STORED_NOT_COMPUTED_BY_NAME = {"min_eig": 1.0}

MAX_VALUES = 20 * MAX_POINTS  # of one data set: a tensor may be larger than a grid
MAX_TEXT = 10**5  # characters of a text; paths have at most some thousands

# ---------------------------------------------------------------- surfaces


def read_surface(path):
    """Surface from a file of ours or of the original.

    The original stored non-square arrays with the shape (nx, ny), though filled in the order of
    (ny, nx); they are repaired. Raises InputError.
    """
    with _open_hdf5(path, "surface file") as f:
        grid = _read_grid(f)
        values, computed = {}, {}
        for name, node in f.items():
            if node is None:
                raise InputError(f"expected values as {name!r} in {path}, found a link that leads "
                                 "nowhere; the file is damaged")
            is_values = isinstance(node, h5py.Dataset)
            if is_values and name not in ("xcoordinates", "ycoordinates", "dir_file"):
                values[name], computed[name] = _read_values(f, name, grid)
        return Surface(grid, values, computed, _read_dir_file(f), _read_provenance(f))


def write_surface(path, surface):
    """Write the whole surface; the file at `path` is replaced at once. Raises InputError."""

    def fill(f):
        f["dir_file"] = surface.dir_file
        f["xcoordinates"] = surface.grid.x
        if surface.grid.y is not None:
            f["ycoordinates"] = surface.grid.y
        for name, values in surface.values.items():
            mask = surface.computed[name]
            f[name] = np.where(mask, values, STORED_NOT_COMPUTED)  # (ny, nx)
            f[f"computed/{name}"] = mask

    _write_hdf5(path, fill, surface.provenance)


def _read_grid(f):
    axes = [_read_axis(f, "xcoordinates")]
    if "ycoordinates" in f:
        axes.append(_read_axis(f, "ycoordinates"))

    grid = Grid(*axes)
    if grid.size > MAX_VALUES:
        raise InputError(f"expected a grid of at most {MAX_VALUES} points in {f.filename}, "
                         f"got {grid.size}; the file is damaged")
    return grid


def _read_axis(f, name):
    """(n,) float64 coordinates, which rise or fall from point to point."""
    axis = _read_array(f, name).astype(float)
    if axis.ndim != 1 or len(axis) == 0:
        raise InputError(f"expected one-dimensional {name} in {f.filename}; the file is damaged")

    steps = np.diff(axis)
    if not np.isfinite(axis).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise InputError(f"expected finite numbers that rise or fall as {name} in {f.filename}; "
                         "the file is damaged")
    return axis


def _read_values(f, name, grid):
    """(values, computed) of `name`, both of the shape of the grid."""
    shape = f[name].shape
    if shape not in (grid.shape, grid.shape[::-1]):
        raise InputError(f"expected {name!r} of shape {grid.shape} in {f.filename}, got {shape}; "
                         "the file is damaged")
    values = _read_array(f, name).astype(float).reshape(grid.shape)  # (ny, nx)

    if f"computed/{name}" in f:
        computed = _read_array(f, f"computed/{name}", grid.shape, kinds="bui").astype(bool)
    else:
        computed = values != STORED_NOT_COMPUTED_BY_NAME.get(name, STORED_NOT_COMPUTED)
    return np.where(computed, values, NOT_COMPUTED), computed


def _read_dir_file(f):
    """The name of the direction file; '' where the file does not say it."""
    if "dir_file" not in f:
        return ""
    node = f["dir_file"]
    is_text = isinstance(node, h5py.Dataset) and h5py.check_string_dtype(node.dtype) is not None
    if not is_text or node.shape not in ((), (1,)) or node.dtype.itemsize > MAX_TEXT:
        raise InputError(f"expected a text as 'dir_file' in {f.filename}; the file is damaged")

    dir_file = node.asstr(errors="surrogateescape")[()]
    if node.shape == (1,):
        dir_file = dir_file[0]
    if len(dir_file) > MAX_TEXT:
        raise InputError(f"expected a text of at most {MAX_TEXT} characters as 'dir_file' in "
                         f"{f.filename}, got {len(dir_file)}; the file is damaged")
    return dir_file


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
    with _open_hdf5(path, "direction file") as f:
        if "xdirection" not in f:
            raise InputError(
                f"expected a group 'xdirection' in {path}, found {sorted(f)[:5]}; "
                "give a direction file (or leave --dir_file out to make one)")
        x, y = _read_direction(f, "xdirection"), None
        if "ydirection" in f:
            y = _read_direction(f, "ydirection")

        extra = {
            name: _read_array(f, name) for name, node in f.items() if isinstance(node, h5py.Dataset)
        }
        shares = extra.get("explained_variance_ratio_")
        if shares is not None and shares.shape != (2,):
            raise InputError(f"expected 2 numbers as 'explained_variance_ratio_' in {path}; "
                             "the file is damaged")
        return Directions(x, y, _read_provenance(f), extra)


def write_directions(path, directions):
    """Write directions as float32 (those of complex weights as complex64). Raises InputError."""

    def fill(f):
        for axis, arrays in (("xdirection", directions.x), ("ydirection", directions.y)):
            for i, array in enumerate(arrays or []):
                dtype = np.complex64 if np.iscomplexobj(array) else np.float32
                f[f"{axis}/{i}"] = np.asarray(array, dtype)
        for name, array in directions.extra.items():
            f[name] = array

    _write_hdf5(path, fill, directions.provenance)


def _read_direction(f, axis):
    """The arrays of one axis, in order."""
    group = f[axis]
    if not isinstance(group, h5py.Group) or set(group) != {str(i) for i in range(len(group))}:
        raise InputError(f"expected data sets 0, 1, ... in {axis!r} of {f.filename}; "
                         "the file is damaged")
    return [_read_array(f, f"{axis}/{i}", kinds="fiubc") for i in range(len(group))]


# ---------------------------------------------------------------- projections


def read_projection(path):
    """(arrays by name, provenance) of a projection file: n checkpoints as points of a plane.

    Arrays have n rows; `proj_xcoord` and `proj_ycoord`, (n,) and finite, are always among them.
    Raises InputError.
    """
    with _open_hdf5(path, "projection file") as f:
        arrays = {}
        for name, node in f.items():
            if isinstance(node, h5py.Dataset) and node.dtype.kind in "fiub":
                arrays[name] = _read_array(f, name)

        for name in ("proj_xcoord", "proj_ycoord"):
            if name not in arrays or arrays[name].ndim != 1:
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
        return arrays, _read_provenance(f)


def write_projection(path, arrays, provenance):
    """Write arrays by name, `proj_xcoord` and `proj_ycoord` among them. Raises InputError."""

    def fill(f):
        for name, array in arrays.items():
            f[name] = array

    _write_hdf5(path, fill, provenance)


# ---------------------------------------------------------------- what all three have in common

READ_ERRORS = (OSError, KeyError, TypeError, ValueError, RuntimeError, MemoryError)


def names_in_file(path):
    """Names of the data sets and groups at the top of an HDF5 file. Raises InputError."""
    with _open_hdf5(path, "direction, surface or projection file") as f:
        return set(f)


@contextlib.contextmanager
def _open_hdf5(path, kind):
    """Open a file for reading; whatever is wrong with it becomes an InputError that names it."""
    if not os.path.exists(path):
        raise InputError(f"expected a {kind} at {path}, found nothing there; check the name")
    try:
        # files are never changed in place: no lock is needed, and file systems without locks work
        with h5py.File(path, "r", locking=False) as f:
            yield f
    except InputError:
        raise
    except READ_ERRORS as error:
        reason = type(error).__name__
        if str(error):
            reason = str(error).splitlines()[0]
        raise InputError(f"expected a {kind}, but {path} can't be read as one ({reason}); "
                         "give another file, or delete it and compute it again") from None


def _write_hdf5(path, fill, provenance):
    """Build an HDF5 file in memory with `fill(f)`, then write it whole."""
    provenances.check_provenance(provenance, path)
    with h5py.File("memory", "w", driver="core", backing_store=False) as f:
        fill(f)
        f.attrs["provenance"] = json.dumps(provenance)
        f.flush()
        image = f.id.get_file_image()
    write_file(path, image)


def _read_provenance(f):
    """The provenance of a file, {} for those of the original, which have none."""
    text = f.attrs.get("provenance", "{}")
    if isinstance(text, bytes):
        text = text.decode()
    return provenances.from_json(str(text), f.filename)


def _read_array(f, name, shape=None, kinds="fiub"):
    """Data set `name` as a numeric array in the machine's byte order.

    shape: what it must have; kinds: of numpy dtypes that it may have. Both, and the size, are
    checked before anything is read.
    """
    node = f.get(name)
    if not isinstance(node, h5py.Dataset) or node.dtype.kind not in kinds:
        raise InputError(f"expected a numeric data set {name!r} in {f.filename}, found none; "
                         "is this the right file?")
    if shape is not None and node.shape != shape:
        raise InputError(f"expected {name!r} of shape {shape} in {f.filename}, got {node.shape}; "
                         "the file is damaged")
    if node.size > MAX_VALUES:
        raise InputError(f"expected at most {MAX_VALUES} values in {name!r} of {f.filename}, "
                         f"got {node.size}; the file is damaged")
    array = np.asarray(node[()])
    return array.astype(array.dtype.newbyteorder("="), copy=False)
