"""The path of an optimizer through weight space: PCA of its checkpoints, and their projection on a plane.

    runs = [find_checkpoints("trained_nets/NAME")]
    path = open_path(runs, "resnet56", "weights")        # reads every file once: its hash, and that it fits
    directions = pca(path)                               # a plane: two unit vectors
    found = project(path, directions)                    # coordinates of every checkpoint, and how far it is from it

The origin is the last checkpoint of the first run: rows of the PCA are theta_e - theta_origin, and coordinates (x, y)
stand for the network theta_origin + x * dx + y * dy, as in a surface whose --model_file is that checkpoint.

Checkpoints stay in their files and are read in parts, so memory does not grow with their number: 300 checkpoints of 25
million parameters take less than 2 GB.
"""

import os
import re
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from losslandscape import directions as net_plotter
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.networks import loading as model_loader

AT_ONCE = 192 * 2**20  # float32 values of all checkpoints together that are held at a time (768 MB)
WIDEST = 4 * 2**20  # ... and of one checkpoint, in float64
FLAT = 1e-6  # second singular value over the first, below which the checkpoints lie on a line


# ---------------------------------------------------------------- the checkpoints


@dataclass(frozen=True)
class Run:
    """The checkpoints of a training run, in epoch order."""

    folder: str
    epochs: tuple
    files: tuple


def find_checkpoints(folder, prefix="model_", suffix=".t7", start_epoch=0, max_epoch=300, save_epoch=1):
    """Run of the checkpoints FOLDER/PREFIX + epoch + SUFFIX that exist.

    Epochs start_epoch, start_epoch + save_epoch, ... up to max_epoch, and the last one that exists in that range
    whether or not save_epoch leads to it: it is the trained network, and the origin. Raises InputError if none exists.
    """
    if start_epoch > max_epoch:
        raise InputError(f"expected --start_epoch up to --max_epoch, got {start_epoch} and {max_epoch}")
    if not os.path.isdir(folder):
        raise InputError(f"expected the folder of a training run as --model_folder, found none at {folder!r}")
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"can't read the folder {folder} ({error.strerror}); make it readable") from None
    found = {}
    for name in names:
        match = re.fullmatch(re.escape(prefix) + r"(\d+)" + re.escape(suffix), name)
        if match and start_epoch <= int(match[1]) <= max_epoch:
            if int(match[1]) in found:
                raise InputError(f"expected one checkpoint of epoch {int(match[1])} in {folder}, "
                                 f"found {found[int(match[1])]} and {name}; move one away")
            found[int(match[1])] = name
    last = max(found, default=None)
    epochs = sorted(e for e in found if (e - start_epoch) % save_epoch == 0 or e == last)
    if not epochs:
        there = f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}" if names else "nothing"
        raise InputError(f"expected checkpoints {prefix}E{suffix} in {folder}, E from {start_epoch} to {max_epoch}, "
                         f"found none (there is {there}); check --prefix, --suffix, --start_epoch and --max_epoch")
    return Run(folder, tuple(epochs), tuple(os.path.join(folder, found[epoch]) for epoch in epochs))


@dataclass(frozen=True)
class Path:
    """Checkpoints of one or several runs as points of one space: n files, one run after the other, in epoch order."""

    files: tuple  # n paths
    epochs: np.ndarray  # (n,)
    runs: np.ndarray  # (n,) number of the run
    origin: int  # which file is the origin: the last of the first run
    net: torch.nn.Module  # the network on torch's meta device: shapes without values
    dir_type: str
    hashes: np.ndarray  # (n, 32) uint8, SHA-256 of the files
    trust_pickle: bool = False

    @property
    def names(self):
        """Names of the tensors, in the order of a direction file."""
        net = self.net
        return [name for name, _ in net.named_parameters()] if self.dir_type == "weights" else list(net.state_dict())

    @property
    def tensors(self):
        """{name: tensor without values} of what makes up a point, in the same order.

        Counters (num_batches_tracked) do not: no evaluation uses them, and as numbers in the 100 000s they would be
        all that a PCA of the states sees.
        """
        state = self.net.state_dict()
        return {name: state[name] for name in self.names if state[name].is_floating_point()}

    def read(self, i):
        """{name: tensor} of checkpoint i, tied ones under each name; values stay in the file until they are used."""
        state = model_loader.read_checkpoint(self.files[i], self.trust_pickle, mmap=True).state_dict
        stored = {}  # a file may hold a tied tensor once
        tensors = self.net.state_dict(keep_vars=True)
        for name, tensor in tensors.items():
            if name in state:
                stored[id(tensor)] = state[name]
        return {name: state[name] if name in state else stored[id(tensor)] for name, tensor in tensors.items()
                if name in state or id(tensor) in stored}


def open_path(runs, model, dir_type="weights", trust_pickle=False):
    """Path of the checkpoints of `runs`; every file is read once, for its hash and to see that it is of this network.

    Raises InputError, which names the file, for one that can't be read or is of another network.
    """
    files = tuple(file for run in runs for file in run.files)
    read = partial(model_loader.read_checkpoint, trust_pickle=trust_pickle, mmap=True)
    origin = len(runs[0].files) - 1
    model = model_loader.architecture(model)
    state = read(files[origin]).state_dict
    net = model.blueprint(state)
    expected = net.state_dict()
    hashes = []
    for file in _progress(files, "checkpoints"):
        state = read(file).state_dict
        model.check_fit(net, state, file)
        for name, value in state.items():
            if value.is_floating_point() != expected[name].is_floating_point():
                raise InputError(f"expected {name} in {file} as {expected[name].dtype}, got {value.dtype}; "
                                 "give the checkpoints of a training run")
        hashes.append(list(bytes.fromhex(model_loader.checkpoint_hash(file))))
    return Path(
        files, np.concatenate([run.epochs for run in runs]), np.repeat(range(len(runs)), [len(r.files) for r in runs]),
        origin, net, dir_type, np.array(hashes, np.uint8), trust_pickle)


def _rows(tensor, first, last):
    """Flat float64 (k,) of tensor[first:last]; a number counts as one row. Only these rows are read from the file."""
    return (tensor.reshape(1) if tensor.dim() == 0 else tensor)[first:last].double().reshape(-1).numpy()


def _whole(tensor):
    return tensor.double().numpy()


def _progress(items, what):
    """A bar on a terminal, if it takes more than a moment."""
    return tqdm(items, desc=what, disable=None, delay=2, leave=False)


# ---------------------------------------------------------------- PCA


def pca(path, ignore=""):
    """The plane in which the checkpoints vary most: h5_util.Directions of two unit vectors in the tensors' shapes.

    Centered PCA of the rows theta_e - theta_origin (Li et al. 2018, section 7), from the n x n Gram matrix of the
    centered rows: with G u = s^2 u the axis is sum_e u_e (theta_e - theta_origin) / s. Nothing larger than two axes and
    a part of the rows is ever in memory. With ignore='biasbn' tensors of fewer than 2 dimensions count as zero.

    `extra` holds explained_variance_ratio_, explained_variance_ (s^2 / (n - 1)) and singular_values_ (s), (2,) each, as
    scikit-learn's PCA defines them, and epoch (n,), run (n,), checkpoint_hash (n, 32): what the PCA is of.

    Signs: seen from the origin, the checkpoint that is farthest along x has a negative coordinate, the one farthest
    along y a positive one. So a path runs from left to right, and bends upwards.

    Raises InputError unless there are three checkpoints that do not lie on a line.
    """
    n = len(path.files)
    if n < 3:
        raise InputError(f"expected at least 3 checkpoints to span a plane, found {n} ({', '.join(path.files)}); check "
                         "--start_epoch, --max_epoch and --save_epoch, or give a plane with --dir_file")
    tensors = {name: t for name, t in path.tensors.items() if t.dim() > 1 or ignore != "biasbn"}
    values, vectors = np.linalg.eigh(gram(path, tensors))  # ascending
    singular, u = np.sqrt(np.maximum(values[:-3:-1], 0)), vectors[:, :-3:-1]  # (2,), (n, 2)
    if singular[1] <= FLAT * singular[0]:
        what = "are all the same" if singular[0] == 0 else "lie on a line"
        raise InputError(f"expected checkpoints that span a plane, but the {n} from {path.files[0]} on {what}; "
                         "give others, or a plane with --dir_file")
    coordinates = u * singular  # (n, 2)
    coordinates = coordinates - coordinates[path.origin]
    farthest = coordinates[np.abs(coordinates).argmax(0), (0, 1)]
    u = u * np.sign(farthest) * (-1, 1)
    sums = combine(path, tensors, u / singular)
    shapes = path.net.state_dict()
    axes = [[sums[name][k] if name in sums else np.zeros(shapes[name].shape) for name in path.names] for k in (0, 1)]
    norms = [np.sqrt(sum(np.vdot(a, a) for a in axis)) for axis in axes]  # 1 up to rounding
    x, y = ([(a / norm).astype(np.float32) for a in axis] for axis, norm in zip(axes, norms, strict=True))
    variances = np.maximum(values, 0) / (n - 1)
    extra = {
        "explained_variance_ratio_": variances[:-3:-1] / variances.sum(),
        "explained_variance_": variances[:-3:-1],
        "singular_values_": singular,
        **made_of(path),
    }
    return h5_util.Directions(x, y, extra=extra)


def made_of(path):
    """Arrays that say which checkpoints a file was made from."""
    return {"epoch": path.epochs, "run": path.runs, "checkpoint_hash": path.hashes}


def gram(path, tensors):
    """(n, n) float64 inner products of the centered rows, over `tensors`.

    Every pair of checkpoints meets, yet the files are read only once: in parts, the same part of all of them at a time.
    Differences from the origin are taken in float64, held in float32, and multiplied in float64.
    """
    n = len(path.files)
    total = np.zeros((n, n))
    for part in _progress(list(_parts(tensors, min(max(AT_ONCE // n, 1), WIDEST))), "Gram matrix"):
        base = _flat(path.read(path.origin), part)
        rows = np.empty((n, len(base)), np.float32)
        for i, file in enumerate(path.files):
            rows[i] = _flat(path.read(i), part) - base
            if not np.isfinite(rows[i]).all():
                raise InputError(f"expected finite weights in {file}, found NaN or inf; leave it out with --max_epoch")
        for start in range(0, len(base), 2**14):
            some = rows[:, start:start + 2**14].astype(np.float64)  # (n, up to 2^14)
            some -= some.mean(0)
            total += some @ some.T
    return total


def _parts(tensors, columns):
    """Lists of (name, first row, last row), each of about `columns` values, which together are all of the tensors."""
    part, room = [], columns
    for name, tensor in tensors.items():
        count = len(tensor) if tensor.dim() else 1
        width = tensor.numel() // max(count, 1)
        first = 0
        while first < count:
            last = min(count, first + max(1, room // max(width, 1)))
            part.append((name, first, last))
            room -= (last - first) * width
            first = last
            if room <= 0 or first < count:
                yield part
                part, room = [], columns
    if part:
        yield part


def _flat(state, part):
    return np.concatenate([_rows(state[name], first, last) for name, first, last in part])


def combine(path, tensors, coefficients):
    """{name: (2, *shape) float64}: sum over the checkpoints of coefficient (n, 2) times (theta_e - theta_origin)."""
    origin = path.read(path.origin)
    sums = {name: np.zeros((2, *tensor.shape)) for name, tensor in tensors.items()}
    for i in _progress(range(len(path.files)), "axes"):
        state = path.read(i)
        for name, found in sums.items():
            difference = _whole(state[name]) - _whole(origin[name])
            for k in (0, 1):
                found[k] += coefficients[i, k] * difference
    return sums


# ---------------------------------------------------------------- projection


def project(path, directions):
    """Coordinates of every checkpoint in the plane through the origin, and what the plane leaves out.

    (x, y) is the point of the plane nearest to the checkpoint: the least-squares solution of
    theta_e - theta_origin = x * dx + y * dy, whatever the lengths of the axes and the angle between them.
    Returns arrays (n,): proj_xcoord, proj_ycoord; distance, the norm of what is left; distance_to_origin, the norm of
    theta_e - theta_origin; relative_distance, the one over the other, 0 (in the plane) to 1 (0 at the origin). Norms
    are taken over all tensors, those that a PCA ignored included. Raises InputError if the axes are parallel.
    """
    tensors, names = path.tensors, path.names
    axes = {name: (x, y) for name, x, y in zip(names, directions.x, directions.y, strict=True) if name in tensors}
    products = np.zeros((2, 2))
    for pair in axes.values():
        both = np.stack(pair).reshape(2, -1).astype(np.float64)
        products += both @ both.T
    xx, yy = np.diag(products)
    if not (np.isfinite(products).all() and xx * yy - products[0, 1] ** 2 > 1e-12 * xx * yy):
        raise InputError("expected two axes that are not parallel in the direction file; give another --dir_file")
    origin = path.read(path.origin)
    n = len(path.files)
    coordinates, left, length = np.zeros((n, 2)), np.zeros(n), np.zeros(n)
    for i in _progress(range(n), "projection"):
        state, file = path.read(i), path.files[i]
        against = np.zeros(2)
        for name, pair in axes.items():
            difference = _whole(state[name]) - _whole(origin[name])
            length[i] += np.vdot(difference, difference)
            against += [np.vdot(axis.astype(np.float64), difference) for axis in pair]
        if not np.isfinite(length[i]):
            raise InputError(f"expected finite weights in {file}, found NaN or inf; leave it out with --max_epoch")
        coordinates[i] = x, y = np.linalg.solve(products, against)
        for name, (dx, dy) in axes.items():  # not length^2 - ..., which loses half of the digits near the plane
            rest = _whole(state[name]) - _whole(origin[name]) - x * dx.astype(np.float64) - y * dy.astype(np.float64)
            left[i] += np.vdot(rest, rest)
    left, length = np.sqrt(left), np.sqrt(length)
    return {
        "proj_xcoord": coordinates[:, 0],
        "proj_ycoord": coordinates[:, 1],
        "distance": left,
        "distance_to_origin": length,
        "relative_distance": np.divide(left, length, out=np.zeros(n), where=length > 0),
    }


def check_directions(file, directions, path):
    """Raises InputError unless the directions are two axes with the shapes of the path's tensors."""
    net_plotter.check_fit(file, directions, path.net, path.dir_type, need_y=False)
    if directions.y is None:
        raise InputError(f"expected x and y directions in {file}, found x only; give another --dir_file")


# ---------------------------------------------------------------- a grid that contains a path


def projections_of(dir_file):
    """The projection files that belong to a direction file: DIR_FILE_proj_cos.h5, or one for each of several runs."""
    folder, base = os.path.split(dir_file)
    names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    return sorted(os.path.join(folder, name) for name in names
                  if name.startswith(f"{base}_") and name.endswith("proj_cos.h5"))


def limits_around(low, high, points=51):
    """'min:max:count' that contains [low, high]: multiples of a round step, 0 among them; at most `points` of them."""
    finest = (high - low) / (points - 3)
    unit = 10.0 ** np.floor(np.log10(finest))
    step = next(unit * m for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if unit * m >= finest * (1 - 1e-9))
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    return f"{first * step:.10g}:{last * step:.10g}:{last - first + 1}"
