"""The path of an optimizer through weight space: PCA and projection of its checkpoints.

    runs = [find_checkpoints("trained_nets/NAME")]
    path = open_path(runs, "resnet56", "weights")   # reads every file once: does it fit?
    directions = pca(path)                          # a plane: two unit vectors
    projection = project(path, directions)          # coordinates of every checkpoint, its distance

The origin is the last checkpoint of the first run: rows of the PCA are theta_e - theta_origin,
and coordinates (x, y) stand for the network theta_origin + x * dx + y * dy, as in a surface whose
--model_file is that checkpoint.

Checkpoints stay in their files and are read in parts, so memory does not grow with their number:
300 checkpoints of 25 million parameters take less than 2 GB.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from losslandscape.errors import InputError
from losslandscape.files.layouts import Directions
from losslandscape.messages import say
from losslandscape.networks.checkpoints import checkpoint_hash, read_checkpoint
from losslandscape.networks.loading import architecture, check_kinds, weights_for
from losslandscape.weight_space import check_shapes

# values that are held at a time: of all checkpoints together (768 MB in float32), and of one
VALUES_HELD = 192 * 2**20
VALUES_HELD_OF_ONE = 4 * 2**20
GRAM_COLUMNS = 2**14  # columns of the rows that are multiplied at a time
LINE = 1e-6  # second singular value over the first, below which the checkpoints lie on a line
PARALLEL = 1e-12  # squared sine of the angle between two axes, below which they are parallel


# ---------------------------------------------------------------- the checkpoints


@dataclass(frozen=True)
class OptimizerPath:
    """Checkpoints of one or several runs as points of one space.

    There are n of them, one run after the other, each in epoch order.
    """

    files: tuple  # n paths
    epochs: np.ndarray  # (n,)
    runs: np.ndarray  # (n,) number of the run
    origin: int  # which file is the origin: the last of the first run
    net: torch.nn.Module  # the network on torch's meta device: shapes without values
    dir_type: str
    hashes: np.ndarray  # (n, 32) uint8, SHA-256 of the files
    trust_pickle: bool = False
    checkpoint_key: str = ""  # which weights of the files

    @property
    def names(self):
        """Names of the tensors, in the order of a direction file."""
        if self.dir_type == "weights":
            return [name for name, _ in self.net.named_parameters()]
        return list(self.net.state_dict())

    @property
    def tensors(self):
        """{name: tensor without values} of what makes up a point, in the same order.

        Counters (num_batches_tracked) do not: no evaluation uses them, and they are so large that
        a PCA of the states would see nothing else.
        """
        state = self.net.state_dict()
        return {name: state[name] for name in self.names if state[name].is_floating_point()}

    @property
    def origin_file(self):
        """The file of the checkpoint at the origin."""
        return self.files[self.origin]

    @property
    def origin_hash(self):
        """The SHA-256 of that file, as 64 hexadecimal digits."""
        return bytes(self.hashes[self.origin]).hex()

    def read(self, i):
        """{name: tensor} of checkpoint i, tied ones under each of their names.

        The values stay in the file until they are used.
        """
        checkpoint = read_checkpoint(self.files[i], self.trust_pickle, self.checkpoint_key)
        saved = weights_for(self.net, checkpoint).entries
        tensors = self.net.state_dict(keep_vars=True)

        # a file may hold a tied tensor once, under any of its names
        saved_tensor = {}
        for name, tensor in tensors.items():
            if name in saved:
                saved_tensor[id(tensor)] = saved[name]

        state = {}
        for name, tensor in tensors.items():
            if name in saved:
                state[name] = saved[name]
            elif id(tensor) in saved_tensor:
                state[name] = saved_tensor[id(tensor)]
        return state

    @property
    def provenance(self):
        """The network at the origin and what of it is moved, for the provenance of files."""
        origin = {
            "checkpoint": self.origin_hash,
            "model_file": self.origin_file,
            "dir_type": self.dir_type,
        }
        if self.checkpoint_key:
            origin["checkpoint_key"] = self.checkpoint_key
        return origin

    def made_of(self):
        """Arrays by name that say which checkpoints a file was made from."""
        return {"epoch": self.epochs, "run": self.runs, "checkpoint_hash": self.hashes}


def open_path(runs, model, dir_type="weights", trust_pickle=False, checkpoint_key=""):
    """OptimizerPath of the checkpoints of TrainingRuns.

    Every file is read once, for its hash and to see that it is of this network.

    model: a name as --model, or an Architecture. Raises InputError, which names the file, for one
    that can't be read or is of another network.
    """
    model = architecture(model)
    files = tuple(file for run in runs for file in run.files)
    origin = len(runs[0].files) - 1
    read = partial(read_checkpoint, trust_pickle=trust_pickle, key=checkpoint_key)
    net = model.blueprint(read(files[origin]))

    hashes, said = [], set()
    for file in progress_bar(files, "checkpoints"):
        checkpoint = read(file)
        weights = weights_for(net, checkpoint)
        model.check_weights(net, weights.entries, file)
        check_kinds(net, weights.entries, file)
        hashes.append(list(bytes.fromhex(checkpoint_hash(file))))

        # the files of a run have the same peculiarities: they are said of the first
        peculiarities = (weights.key, weights.prefix, weights.left_out)
        if peculiarities not in said:
            said.add(peculiarities)
            for line in weights.in_words(checkpoint):
                say(line)

    epochs = np.concatenate([run.epochs for run in runs])
    run_numbers = np.repeat(range(len(runs)), [len(run.files) for run in runs])
    hashes = np.array(hashes, np.uint8)
    return OptimizerPath(
        files, epochs, run_numbers, origin, net, dir_type, hashes, trust_pickle, checkpoint_key
    )


def progress_bar(items, label):
    """A bar on a terminal, if it takes more than a moment."""
    return tqdm(items, desc=label, disable=None, delay=2, leave=False)


# ---------------------------------------------------------------- PCA


def pca(path, ignore=""):
    """The plane in which the checkpoints vary most: Directions of two unit vectors.

    Centered PCA of the rows theta_e - theta_origin (Li et al. 2018, section 7), from the n x n
    Gram matrix of the centered rows: with G u = s^2 u the axis is
    sum_e u_e (theta_e - theta_origin) / s, in the tensors' shapes. Nothing larger than two axes and
    a part of the rows is ever in memory. With ignore='biasbn' tensors of fewer than 2 dimensions
    count as zero.

    `extra` holds explained_variance_ratio_, explained_variance_ (s^2 / (n - 1)) and
    singular_values_ (s), (2,) each, as scikit-learn's PCA defines them, and epoch (n,), run (n,),
    checkpoint_hash (n, 32): what the PCA is of.

    Signs: seen from the origin, the checkpoint that is farthest along x has a negative
    coordinate, the one farthest along y a positive one. So a path runs from left to right, and
    bends upwards.

    Raises InputError unless there are three checkpoints that do not lie on a line.
    """
    n = len(path.files)
    if n < 3:
        raise InputError(
            "expected at least 3 checkpoints to span a plane, "
            f"found {n} ({', '.join(path.files)}); "
            "check --start_epoch, --max_epoch and --save_epoch, or give a plane with --dir_file"
        )
    tensors = path.tensors
    if ignore == "biasbn":
        tensors = {name: tensor for name, tensor in tensors.items() if tensor.dim() > 1}

    # the two largest eigenvalues of the Gram matrix; eigh gives them in ascending order
    eigenvalues, eigenvectors = np.linalg.eigh(gram(path, tensors))
    eigenvalues = np.maximum(eigenvalues, 0)
    singular = np.sqrt(eigenvalues[[-1, -2]])  # (2,)
    u = eigenvectors[:, [-1, -2]]  # (n, 2)
    if singular[1] <= LINE * singular[0]:
        arrangement = "are all the same" if singular[0] == 0 else "lie on a line"
        raise InputError(
            "expected checkpoints that span a plane, "
            f"but the {n} from {path.files[0]} on {arrangement}; "
            "give others, or a plane with --dir_file"
        )

    # eigenvectors have no sign of their own
    coordinates = u * singular  # (n, 2)
    coordinates = coordinates - coordinates[path.origin]
    for k, side in ((0, -1), (1, 1)):
        farthest = np.abs(coordinates[:, k]).argmax()
        u[:, k] *= side * np.sign(coordinates[farthest, k])

    sums = combine(path, tensors, u / singular)
    variances = eigenvalues / (n - 1)
    extra = {
        "explained_variance_ratio_": variances[[-1, -2]] / variances.sum(),
        "explained_variance_": variances[[-1, -2]],
        "singular_values_": singular,
    }
    x, y = unit_axis(path, sums, 0), unit_axis(path, sums, 1)
    return Directions(x, y, extra=extra | path.made_of())


def gram(path, tensors):
    """(n, n) float64 inner products of the centered rows, over `tensors`.

    Every pair of checkpoints meets, yet the files are read only once: in parts, the same part of
    all of them at a time. Differences from the origin are taken in float64, held in float32, and
    multiplied in float64.
    """
    n = len(path.files)
    values_per_part = min(max(VALUES_HELD // n, 1), VALUES_HELD_OF_ONE)
    parts = list(parts_of(tensors, values_per_part))

    total = np.zeros((n, n))
    for part in progress_bar(parts, "Gram matrix"):
        base = read_part(path.read(path.origin), part)
        rows = np.empty((n, len(base)), np.float32)
        for i, file in enumerate(path.files):
            rows[i] = read_part(path.read(i), part) - base
            check_finite(rows[i], file)

        for first in range(0, len(base), GRAM_COLUMNS):
            columns = rows[:, first : first + GRAM_COLUMNS].astype(np.float64)  # (n, GRAM_COLUMNS)
            columns -= columns.mean(0)
            total += columns @ columns.T
    return total


def parts_of(tensors, size):
    """Yield the tensors in parts of about `size` values: lists of (name, first row, last row)."""
    part, room = [], size
    for name, tensor in tensors.items():
        rows = len(tensor) if tensor.dim() else 1
        width = tensor.numel() // max(rows, 1)
        first = 0
        while first < rows:
            last = min(rows, first + max(1, room // max(width, 1)))
            part.append((name, first, last))
            room -= (last - first) * width
            first = last
            if room <= 0 or first < rows:
                yield part
                part, room = [], size
    if part:
        yield part


def read_part(state, part):
    """A part of the tensors as a flat float64 array; only its rows are read from the file."""
    rows = []
    for name, first, last in part:
        tensor = state[name]
        if tensor.dim() == 0:  # a number counts as one row
            tensor = tensor.reshape(1)
        rows.append(tensor[first:last].double().reshape(-1).numpy())
    return np.concatenate(rows)


def check_finite(values, file):
    """Raises InputError where numbers that follow from a checkpoint's weights are not finite."""
    if not np.isfinite(values).all():
        raise InputError(
            f"expected finite weights in {file}, found NaN or inf; "
            "leave it out with --max_epoch"
        )


def combine(path, tensors, coefficients):
    """Sum over the checkpoints of coefficients (n, 2) times theta_e - theta_origin.

    Returns {name: (2, *shape) float64}.
    """
    origin = path.read(path.origin)
    sums = {name: np.zeros((2, *tensor.shape)) for name, tensor in tensors.items()}
    for i in progress_bar(range(len(path.files)), "axes"):
        for name, displacement in displacements(path.read(i), origin, tensors):
            sums[name][0] += coefficients[i, 0] * displacement
            sums[name][1] += coefficients[i, 1] * displacement
    return sums


def displacements(state, origin, names):
    """(name, theta_e - theta_origin) of each tensor, in float64."""
    for name in names:
        yield name, state[name].double().numpy() - origin[name].double().numpy()


def unit_axis(path, sums, k):
    """Axis number k of `combine` as a list of float32 arrays, of norm 1 all together.

    Tensors that the PCA left out are zero.
    """
    shapes = path.net.state_dict()
    axis = []
    for name in path.names:
        if name in sums:
            axis.append(sums[name][k])
        else:
            axis.append(np.zeros(shapes[name].shape))
    norm = np.sqrt(sum(np.vdot(array, array) for array in axis))  # 1 up to rounding
    return [(array / norm).astype(np.float32) for array in axis]


# ---------------------------------------------------------------- projection


def project(path, directions):
    """Coordinates of every checkpoint in the plane through the origin, and its distance from it.

    (x, y) is the point of the plane nearest to the checkpoint: the least-squares solution of
    theta_e - theta_origin = x * dx + y * dy, whatever the lengths of the axes and the angle
    between them. Returns arrays (n,): proj_xcoord, proj_ycoord; distance, the norm of what is
    left; distance_to_origin, the norm of theta_e - theta_origin; relative_distance, the one over
    the other, 0 (in the plane) to 1 (0 at the origin). Norms are taken over all tensors, those
    that a PCA ignored included. Raises InputError if the axes are parallel.
    """
    tensors = path.tensors
    axes = {
        name: (dx, dy)
        for name, dx, dy in zip(path.names, directions.x, directions.y, strict=True)
        if name in tensors
    }
    products = products_of(axes)

    origin = path.read(path.origin)
    n = len(path.files)
    coordinates, distance, length = np.zeros((n, 2)), np.zeros(n), np.zeros(n)
    for i in progress_bar(range(n), "projection"):
        state = path.read(i)
        along, squared_length = along_axes(state, origin, axes)
        check_finite(squared_length, path.files[i])
        coordinates[i] = np.linalg.solve(products, along)
        length[i] = np.sqrt(squared_length)
        distance[i] = distance_to(state, origin, axes, *coordinates[i])

    return {
        "proj_xcoord": coordinates[:, 0],
        "proj_ycoord": coordinates[:, 1],
        "distance": distance,
        "distance_to_origin": length,
        "relative_distance": np.divide(distance, length, out=np.zeros(n), where=length > 0),
    }


def products_of(axes):
    """(2, 2) inner products of the axes, {name: (dx, dy)}; InputError if they are parallel."""
    products = np.zeros((2, 2))
    for pair in axes.values():
        both = np.stack(pair).reshape(2, -1).astype(np.float64)  # (2, values of the tensor)
        products += both @ both.T

    xx, yy = np.diag(products)
    xy = products[0, 1]
    if not (np.isfinite(products).all() and xx * yy - xy**2 > PARALLEL * xx * yy):
        raise InputError(
            "expected two axes that are not parallel in the direction file; "
            "give another --dir_file"
        )
    return products


def along_axes(state, origin, axes):
    """(inner products (2,) of theta_e - theta_origin with the axes, its squared norm)."""
    along, squared_length = np.zeros(2), 0.0
    for name, displacement in displacements(state, origin, axes):
        squared_length += np.vdot(displacement, displacement)
        along += [np.vdot(axis.astype(np.float64), displacement) for axis in axes[name]]
    return along, squared_length


def distance_to(state, origin, axes, x, y):
    """Norm of theta_e - theta_origin - x * dx - y * dy.

    The difference of the two squared norms would lose half of the digits near the plane.
    """
    squared = 0.0
    for name, displacement in displacements(state, origin, axes):
        dx, dy = axes[name]
        rest = displacement - x * dx.astype(np.float64) - y * dy.astype(np.float64)
        squared += np.vdot(rest, rest)
    return np.sqrt(squared)


def check_directions(file, directions, path):
    """Raises InputError unless these are two axes with the shapes of the path's tensors."""
    check_shapes(file, directions, path.net, path.dir_type, need_y=False)
    if directions.y is None:
        raise InputError(
            f"expected x and y directions in {file}, found x only; "
            "give another --dir_file"
        )


# ---------------------------------------------------------------- a grid that contains a path


def limits_around(low, high, points=51):
    """'min:max:count' of a grid that contains [low, high].

    Its points are multiples of a round step, 0 among them; there are at most `points`.
    """
    finest = (high - low) / (points - 3)
    unit = 10.0 ** np.floor(np.log10(finest))
    round_steps = [unit * multiple for multiple in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)]
    step = min(width for width in round_steps if width >= finest * (1 - 1e-9))

    first = int(np.floor(low / step + 1e-9))
    last = int(np.ceil(high / step - 1e-9))
    return f"{first * step:.10g}:{last * step:.10g}:{last - first + 1}"
