"""The three file layouts: directions, surfaces, projections. The only module that imports h5py.

    direction file   xdirection/0, 1, ...   ydirection/0, 1, ...       one float32 array per tensor
    surface file     dir_file, xcoordinates (nx), ycoordinates (ny), train_loss, train_acc, ...  (ny, nx) float64
                     computed/NAME (ny, nx) bool: which points of NAME are results; the others hold -1
    projection file  proj_xcoord, proj_ycoord                          one number per checkpoint

All carry an attribute `provenance`: JSON that says from what the file was made.
A file is written whole to a sibling and moved into place, so that at every moment its name leads to a complete file.
"""

import contextlib
import json
import os
import tempfile  # noqa: F401
from dataclasses import dataclass, field

import h5py
import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.atomic import write_file
from losslandscape.files.grid import ERRORS, MAX_POINTS, NOT_COMPUTED, Grid, Surface, limits  # noqa: F401
from losslandscape.files.names import option_suffix, repeats  # noqa: F401

OLD_SENTINELS = {"min_eig": 1.0}  # files without a mask: the value that marks an uncomputed point where it isn't -1


# ---------------------------------------------------------------- reading and writing


@contextlib.contextmanager
def _open(path, what):
    """Open an HDF5 file for reading; whatever is wrong with it becomes an InputError that names it."""
    if not os.path.exists(path):
        raise InputError(f"expected a {what} at {path}, found nothing there; check the name")
    try:
        # the files are never changed in place, so no lock is needed, and file systems without locks work
        with h5py.File(path, "r", locking=False) as f:
            yield f
    except InputError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"expected a {what}, but {path} can't be read as one ({reason}); "
                         "give another file, or delete it and compute it again") from None


def _write(path, fill):
    """Build an HDF5 file in memory with `fill(f)`, then write it whole."""
    with h5py.File("memory", "w", driver="core", backing_store=False) as f:
        fill(f)
        f.flush()
        image = f.id.get_file_image()
    write_file(path, image)


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _provenance(f):
    try:
        found = json.loads(_text(f.attrs.get("provenance", "{}")))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"expected JSON in the attribute provenance of {f.filename}; delete the file")
    return found


def _array(f, name, shape=None):
    """Data set `name` as a finite-sized numeric array; `shape` is checked before anything is read."""
    node = f.get(name)
    if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "fiub":
        raise InputError(f"expected a numeric data set {name!r} in {f.filename}, found none; is this the right file?")
    if shape is not None and node.shape != shape:
        raise InputError(f"expected {name!r} of shape {shape} in {f.filename}, got {node.shape}; the file is damaged")
    if node.size > 20 * MAX_POINTS:
        raise InputError(f"{name!r} in {f.filename} claims {node.size} values; the file is damaged")
    return node[()]


def read_surface(path):
    """Surface from a file of ours or of the original; its non-square arrays (stored nx, ny) are repaired."""
    with _open(path, "surface file") as f:
        axes = [_array(f, "xcoordinates").astype(float)]
        if "ycoordinates" in f:
            axes.append(_array(f, "ycoordinates").astype(float))
        if any(axis.ndim != 1 or len(axis) == 0 for axis in axes):
            raise InputError(f"expected one-dimensional coordinates in {path}; the file is damaged")
        grid = Grid(*axes)
        values, computed = {}, {}
        for name, node in f.items():
            if node is None:
                raise InputError(f"expected values as {name!r} in {path}, found a link that leads nowhere; "
                                 "the file is damaged")
            if name in ("xcoordinates", "ycoordinates", "dir_file") or not isinstance(node, h5py.Dataset):
                continue
            if node.shape == grid.shape:
                values[name] = _array(f, name).astype(float)  # (ny, nx)
            elif node.shape == grid.shape[::-1]:
                values[name] = _array(f, name).astype(float).ravel().reshape(grid.shape)  # holds (ny, nx) order
            else:
                raise InputError(f"expected {name!r} of shape {grid.shape} in {path}, got {node.shape}; "
                                 "the file is damaged")
            if f"computed/{name}" in f:
                computed[name] = _array(f, f"computed/{name}", grid.shape).astype(bool)
            else:
                computed[name] = values[name] != OLD_SENTINELS.get(name, NOT_COMPUTED)
        dir_file = _text(f["dir_file"][()]) if "dir_file" in f else ""
        return Surface(grid, values, computed, dir_file, _provenance(f))


def write_surface(path, surface):
    """Write the whole surface; the file at `path` is replaced at once."""

    def fill(f):
        f["dir_file"] = surface.dir_file
        f["xcoordinates"] = surface.grid.x
        if surface.grid.y is not None:
            f["ycoordinates"] = surface.grid.y
        for name, array in surface.values.items():
            f[name] = np.where(surface.computed[name], array, NOT_COMPUTED)  # (ny, nx)
            f[f"computed/{name}"] = surface.computed[name]
        f.attrs["provenance"] = json.dumps(surface.provenance)

    _write(path, fill)


@dataclass(frozen=True)
class Directions:
    """One or two axes: a list of arrays each, one per parameter (weights) or per state-dict entry (states).

    `extra`: further named arrays of the file, such as the explained variance of a PCA.
    """

    x: list
    y: list | None = None
    provenance: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)


def read_directions(path):
    """Directions from a file of ours or of the original."""
    with _open(path, "direction file") as f:
        if "xdirection" not in f:
            raise InputError(f"expected a group 'xdirection' in {path}, found {sorted(f)[:5]}; "
                             "give a direction file (or leave --dir_file out to make one)")
        axes = []
        for axis in ("xdirection", "ydirection"):
            if axis in f:
                if not isinstance(f[axis], h5py.Group) or set(f[axis]) != {str(i) for i in range(len(f[axis]))}:
                    raise InputError(f"expected data sets 0, 1, ... in {axis!r} of {path}; the file is damaged")
                axes.append([_array(f, f"{axis}/{i}") for i in range(len(f[axis]))])
        extra = {name: _array(f, name) for name, node in f.items() if isinstance(node, h5py.Dataset)}
        return Directions(*axes, provenance=_provenance(f), extra=extra)


def write_directions(path, directions):
    """Write directions as float32."""

    def fill(f):
        for axis, arrays in (("xdirection", directions.x), ("ydirection", directions.y)):
            for i, array in enumerate(arrays or []):
                f[f"{axis}/{i}"] = np.asarray(array, np.float32)
        for name, array in directions.extra.items():
            f[name] = array
        f.attrs["provenance"] = json.dumps(directions.provenance)

    _write(path, fill)


def read_projection(path):
    """(arrays by name, provenance) of a projection file; `proj_xcoord` and `proj_ycoord` are always there."""
    with _open(path, "projection file") as f:
        found = {name: _array(f, name) for name, node in f.items()
                 if isinstance(node, h5py.Dataset) and node.dtype.kind in "fiub"}
        for name in ("proj_xcoord", "proj_ycoord"):
            if name not in found or found[name].ndim != 1:
                raise InputError(f"expected a one-dimensional {name!r} in {path}; give a projection file")
        if found["proj_xcoord"].shape != found["proj_ycoord"].shape:
            raise InputError(f"expected as many x as y coordinates in {path}; the file is damaged")
        return found, _provenance(f)


def write_projection(path, arrays, provenance):
    """Write arrays by name; `proj_xcoord` and `proj_ycoord` must be among them."""

    def fill(f):
        for name, array in arrays.items():
            f[name] = array
        f.attrs["provenance"] = json.dumps(provenance)

    _write(path, fill)
