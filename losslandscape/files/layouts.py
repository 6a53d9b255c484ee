"""The three file layouts: directions, surfaces, projections. The only module that imports h5py.

    direction file   xdirection/0, 1, ...   ydirection/0, 1, ...       one float32 array per tensor
    surface file     dir_file, xcoordinates (nx), ycoordinates (ny), train_loss, train_acc, ...  (ny, nx) float64
                     computed/NAME (ny, nx) bool: which points of NAME are results; the others hold -1
    projection file  proj_xcoord, proj_ycoord                          one number per checkpoint

All carry an attribute `provenance`: JSON that says from what the file was made.
A file is written whole to a sibling and moved into place, so that at every moment its name leads to a complete file.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import socket
import tempfile
from dataclasses import dataclass, field, replace

import h5py
import numpy as np

from losslandscape.errors import InputError

NOT_COMPUTED = -1.0  # what a point holds before it is computed (readers of the original's files expect it)
OLD_SENTINELS = {"min_eig": 1.0}  # files without a mask: the value that marks an uncomputed point where it isn't -1
MAX_POINTS = 10**7  # of a grid; about 1 GB of memory while they are computed


@dataclass(frozen=True)
class Grid:
    """The points of a plot: x (nx,) and, for a 2-D plot, y (ny,).

    Values on a 2-D grid have shape (ny, nx): row = y. Points are numbered in row-major order of that shape.
    """

    x: np.ndarray  # (nx,)
    y: np.ndarray | None = None  # (ny,)

    @classmethod
    def parse(cls, x, y=None):
        """Grid from the texts of --x and --y, 'min:max:count' with finite min < max and an integer count >= 1."""
        axes = [limits(flag, text) for flag, text in (("--x", x), ("--y", y)) if text is not None]
        points = math.prod(count for _, _, count in axes)
        if points > MAX_POINTS:
            raise InputError(f"expected a grid of at most {MAX_POINTS} points, got {points}; take fewer")
        return cls(*(np.linspace(*axis) for axis in axes))

    @property
    def shape(self):
        return (len(self.x),) if self.y is None else (len(self.y), len(self.x))

    @property
    def size(self):
        return int(np.prod(self.shape))

    def point(self, index):
        """Coordinates (x, y) of point number `index`; y is 0.0 on a 1-D grid."""
        row, column = divmod(index, len(self.x))
        return float(self.x[column]), 0.0 if self.y is None else float(self.y[row])

    def __str__(self):
        return "x".join(f"[{axis[0]},{axis[-1]},{len(axis)}]" for axis in (self.x, self.y) if axis is not None)


def limits(flag, text):
    """(min, max, count) of 'min:max:count'; raises InputError for anything else."""
    example = f"expected {flag}=min:max:count with min < max and count >= 1, for example {flag}=-1:1:51"
    parts = text.split(":")
    try:
        low, high = float(parts[0]), float(parts[1])
        count = int(parts[2])
    except (ValueError, IndexError):
        raise InputError(f"{example}; got {text!r}") from None
    if len(parts) != 3 or not (np.isfinite([low, high]).all() and low < high and count >= 1):
        raise InputError(f"{example}; got {text!r}")
    if count > MAX_POINTS:
        raise InputError(f"expected at most {MAX_POINTS} points along {flag}, got {count}; take fewer")
    return low, high, count


ERRORS = {"train_err": "train_acc", "test_err": "test_acc"}  # what is 100 - accuracy


@dataclass(frozen=True)
class Surface:
    """Values on a grid. `values[name]` and `computed[name]` have the shape of the grid."""

    grid: Grid
    values: dict = field(default_factory=dict)  # name -> (ny, nx) float64
    computed: dict = field(default_factory=dict)  # name -> (ny, nx) bool
    dir_file: str = ""
    provenance: dict = field(default_factory=dict)

    def with_values(self, names):
        """The same surface with room for `names` where it has none yet."""
        new = [name for name in names if name not in self.values]
        shape = self.grid.shape
        return replace(
            self,
            values=self.values | {name: np.full(shape, NOT_COMPUTED) for name in new},
            computed=self.computed | {name: np.zeros(shape, bool) for name in new},
        )

    @property
    def main_name(self):
        """What to draw when nothing is asked for: train_loss, another loss, max_eig, or whatever comes first."""
        wanted = ("train_loss", *(name for name in self.values if name.endswith("_loss")), "max_eig", *self.values)
        return next((name for name in wanted if name in self.values), "train_loss")

    def get(self, name):
        """Masked array (ny, nx) of `name`; uncomputed points are masked, NaN and inf are results.

        `train_err` and `test_err` are 100 - accuracy, in percent, where the file has the accuracy and no such name.
        """
        source = ERRORS.get(name, name) if name not in self.values else name
        if source not in self.values:
            names = sorted(self.values) + [error for error, acc in ERRORS.items() if acc in self.values]
            raise InputError(f"expected one of {', '.join(names)} as the name of a surface, got {name!r}")
        values = np.ma.masked_array(self.values[source], mask=~self.computed[source])
        return values if source == name else 100.0 - values


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


def write_file(path, image):
    """Write the bytes `image` to a sibling of `path`, flush it to the disk, then move it into place.

    Raises InputError where the folder can't be written; the file that was there before is then untouched.
    """
    target = os.path.realpath(path)  # a link stays a link: the file may lie on a larger disk
    folder = os.path.dirname(target)
    temporary = None
    try:
        if os.path.islink(target):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        # a short name of its own: `path` may be as long as the file system allows
        prefix = _temporary_prefix(target)
        descriptor, temporary = tempfile.mkstemp(prefix=f"{prefix}{os.getpid()}.", suffix=TEMPORARY, dir=folder)
        with os.fdopen(descriptor, "wb") as f:
            f.write(image)
            f.flush()
            os.fsync(f.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files
        os.replace(temporary, target)
        _remove_leftovers(folder, prefix)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise InputError(f"can't write {path} ({error.strerror or error}); make room or choose another place") from None
    with contextlib.suppress(OSError):  # some file systems can't sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


TEMPORARY = ".tmp~"


def _temporary_prefix(target):
    """What the names of temporary files for `target` begin with, among the processes that can see each other's pids."""
    with contextlib.suppress(OSError):
        target += os.readlink("/proc/self/ns/pid")
    return f".{hashlib.sha256(f'{socket.gethostname()} {target}'.encode()).hexdigest()[:12]}."


def _remove_leftovers(folder, prefix):
    """Remove the temporary files of processes that were killed while they wrote the same file."""
    for name in os.listdir(folder):
        if name.startswith(prefix) and name.endswith(TEMPORARY):
            with contextlib.suppress(ValueError, PermissionError, FileNotFoundError):
                pid = int(name[len(prefix):].split(".")[0])
                try:
                    os.kill(pid, 0)
                except ProcessLookupError:
                    os.unlink(os.path.join(folder, name))


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


# ---------------------------------------------------------------- file names


def option_suffix(*parts):
    """'_name=value' for every (name, value) whose value is set, '_name' where it is True."""
    return "".join(f"_{name}" if value is True else f"_{name}={value}" for name, value in parts if value)


def repeats(surface_file):
    """The files of the repeats of a surface (--idx 1, 2, ...), in order: {idx: path}.

    `..._xnorm=filter.h5_[-1.0,1.0,51].h5` has the repeats `..._xnorm=filter_idx=N.h5_[-1.0,1.0,51].h5`.
    """
    folder, base = os.path.split(surface_file)
    head, _, tail = re.sub(r"_idx=\d+(?=\.h5_\[)", "", base).rpartition(".h5_[")
    found = {}
    for name in os.listdir(folder or "."):
        match = re.fullmatch(re.escape(head) + r"(?:_idx=(\d+))?" + re.escape(".h5_[" + tail), name)
        if match:
            found[int(match[1] or 0)] = os.path.join(folder, name)
    return dict(sorted(found.items()))
