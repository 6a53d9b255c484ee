"""Directions in weight space, and how a network is moved along them.

A direction is a list of tensors with the shapes of the network's parameters (dir_type 'weights'), or
of its state-dict entries ('states': with the running statistics of batch norm).

    net = build_seeded(build, idx)                    the network, and the stream of its directions
    directions = setup_direction(path, recipe, ...)   reads a direction file, or makes it
    plane = WeightPlane(net, directions)
    plane.place(x, y)                                 the network is at origin + x * dx + y * dy

Random directions come from torch's global CPU generator, seeded with 123 + idx *before* the network
is built, and are drawn after it was: so they equal those of the original code.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from losslandscape.errors import InputError
from losslandscape.files.layouts import Directions, read_directions, write_directions
from losslandscape.files.names import direction_file_name, whole_direction_name
from losslandscape.files.provenance import MATTERS_FOR_DIRECTIONS, refuse_mismatch
from losslandscape.measuring.copies import memory_is_shared

SEED = 123

# ---------------------------------------------------------------- normalization


def filter_norms(tensor):
    """Norm of each filter, a slice along dimension 0, shaped to broadcast against the tensor."""
    norms = tensor.flatten(1).norm(dim=1)  # (filters,)
    return norms.view(-1, *[1] * (tensor.dim() - 1))  # (filters, 1, ..., 1)


def as_drawn(direction, weights):
    return direction


def filter_of_weights(direction, weights):
    return direction * (filter_norms(weights) / (filter_norms(direction) + 1e-10))


def layer_of_weights(direction, weights):
    return direction * (weights.norm() / direction.norm())


def each_weight(direction, weights):
    return direction * weights


def unit_filter(direction, weights):
    return direction / (filter_norms(direction) + 1e-10)


def unit_layer(direction, weights):
    return direction / direction.norm()


# --xnorm, --ynorm: function(direction, weights) of two tensors of the same shape, which has two or
# more dimensions -> the normalized direction (Li et al. 2018, section 4)
NORMS = {
    "": as_drawn,
    "filter": filter_of_weights,
    "layer": layer_of_weights,
    "weight": each_weight,
    "dfilter": unit_filter,
    "dlayer": unit_layer,
}
IGNORES = ("", "biasbn")
DIR_TYPES = ("weights", "states")


def normalize_direction(direction, weights, norm="filter", ignore="biasbn"):
    """Normalized copy of a list of tensors.

    norm (a key of NORMS) applies to tensors of two or more dimensions: 'filter' gives each filter
    d[i] the norm of the matching filter of the weights, d[i] * |w[i]| / |d[i]| (Li et al. 2018,
    section 4). Tensors of fewer dimensions (biases, batch norm) become zero with ignore='biasbn',
    else the weights' own values.
    """
    normalize = NORMS[norm]
    normalized = []
    for d, w in zip(direction, weights, strict=True):
        w = as_float32(w)
        if d.dim() > 1:
            normalized.append(normalize(d, w))
        elif ignore == "biasbn":
            normalized.append(torch.zeros_like(w))
        else:
            normalized.append(w.clone())
    return normalized


# ---------------------------------------------------------------- what a direction moves


def tensors_of(net, dir_type):
    """The tensors that a direction moves: parameters (weights), or state-dict entries (states)."""
    if dir_type == "weights":
        return list(net.parameters())
    return list(net.state_dict(keep_vars=True).values())


def names_of(net, dir_type):
    """The names of the tensors of `tensors_of`, in the same order."""
    if dir_type == "weights":
        return [name for name, _ in net.named_parameters()]
    return list(net.state_dict())


def movable(net, dir_type, params="", freeze=""):
    """[bool] for the tensors of `tensors_of`: may it move?

    params, freeze: regular expressions; only tensors with a name that matches `params`, and with
    none that matches `freeze`, may. A tied weight has several names. Raises InputError where none
    is left.
    """
    names = names_of(net, dir_type)

    # tied weights: parameters() and state_dict() differ in how often they list them
    names_of_tensor = {}
    for name, tensor in net.named_parameters(remove_duplicate=False):
        names_of_tensor.setdefault(id(tensor), []).append(name)

    may_move = []
    for name, tensor in zip(names, tensors_of(net, dir_type), strict=True):
        all_names = [name, *names_of_tensor.get(id(tensor), [])]
        chosen = not params or _any_matches(params, all_names)
        frozen = bool(freeze) and _any_matches(freeze, all_names)
        may_move.append(chosen and not frozen)

    if not any(may_move):
        raise InputError(
            f"expected --params and --freeze to leave some of the {len(names)} tensors of the "
            f"network, --params {params!r} --freeze {freeze!r} leave none; their names are "
            f"{_examples(names)}")
    return may_move


def _any_matches(pattern, names):
    return any(re.search(pattern, name) for name in names)


def _examples(names):
    """The first three names and the last."""
    if len(names) <= 4:
        return ", ".join(names)
    return ", ".join([*names[:3], "...", names[-1]])


# ---------------------------------------------------------------- new directions


def create_random_direction(net, dir_type="weights", ignore="biasbn", norm="filter"):
    """A Gaussian direction, normalized: [float32 tensor].

    One draw per tensor, in order, from torch's global generator.
    """
    weights = tensors_of(net, dir_type)
    direction = [draw_like(w) for w in weights]
    return normalize_direction(direction, weights, norm, ignore)


def draw_like(weight):
    """Gaussian numbers in the shape of a tensor, float32; of a complex one real and imaginary parts."""
    if weight.is_complex():
        return torch.randn(weight.shape, dtype=torch.complex64)
    return torch.randn(weight.shape)


def as_float32(tensor):
    """A tensor in the precision of directions: float32, or complex64."""
    if tensor.is_complex():
        return tensor.detach().to(torch.complex64)
    return tensor.detach().float()


def create_target_direction(net, net2, dir_type="weights"):
    """The direction from one network to another: weights (or states) of net2 minus those of net."""
    pairs = zip(tensors_of(net, dir_type), tensors_of(net2, dir_type), strict=True)
    return [as_float32(end) - as_float32(start) for start, end in pairs]


@dataclass(frozen=True)
class Axis:
    """How one axis is made: random with this norm and ignore, or towards `model_file`."""

    norm: str = ""
    ignore: str = ""
    model_file: str = ""


@dataclass(frozen=True)
class Recipe:
    """How the directions of a plot are made; `y` is None for a 1-D plot.

    Raises InputError for choices that don't go together.
    """

    model_file: str
    x: Axis
    y: Axis | None = None
    dir_type: str = "weights"
    same_dir: bool = False
    idx: int = 0
    params: str = ""  # see `movable`
    freeze: str = ""
    checkpoint_key: str = ""  # which weights of the files

    def __post_init__(self):
        _check_pattern("--params", self.params)
        _check_pattern("--freeze", self.freeze)
        if not self.model_file:
            raise InputError(
                "expected --model_file, the trained network at the origin of the plot")
        if self.y is None and self.same_dir:
            raise InputError(
                "--same_dir is about the y direction: give --y=min:max:count as well")
        if self.y and self.same_dir and self.y.model_file:
            raise InputError(
                "--same_dir and --model_file3 both define the y direction; give one of them")

    def file_name(self):
        """Name of the direction file, the original's byte for byte where a file can have it."""
        return direction_file_name(*self._parts_of_name())

    def whole_file_name(self):
        """The same, however long."""
        return whole_direction_name(*self._parts_of_name())

    def _parts_of_name(self):
        return (
            self.model_file, self.dir_type, self.x, self.y, self.same_dir, self.params, self.freeze,
            self.idx, self.checkpoint_key)


def _check_pattern(flag, pattern):
    """Raises InputError unless `pattern` is a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"expected {flag} as a regular expression, got {pattern!r} ({error}); "
            f"for example {flag} 'layer3|linear'") from None


# ---------------------------------------------------------------- direction files


def seed_everything(idx=0):
    """Call before the network is built: that draws from the same stream as the directions."""
    torch.manual_seed(SEED + idx)


def build_seeded(build, idx=0):
    """build() after the seed of experiment `idx`; the stream that follows is that of its directions.

    A network that seeds the generator itself must not decide which directions are drawn: all
    experiments would get the same ones. The seed is then set once more.
    """
    seed_everything(idx)
    net = build()
    if torch.initial_seed() != SEED + idx:
        seed_everything(idx)
    return net


def setup_direction(path, recipe, net, load_other, provenance, check=True, write=True):
    """Read the directions at `path`, or make them by `recipe` and, with `write`, write them there.

    net: the network at the origin, as `build_seeded` gives it.
    load_other(model_file): builds and loads the network that an axis leads to.
    provenance: {checkpoint: hash, ...}; with `check`, a file made from anything else is refused.

    Returns layouts.Directions. Raises InputError where the file does not fit the network.
    """
    if Path(path).exists():
        directions = read_directions(path)
        if check:
            refuse_mismatch(
                path, directions.provenance, provenance, MATTERS_FOR_DIRECTIONS, "--dir_file")
        check_shapes(path, directions, net, recipe.dir_type, need_y=recipe.y is not None)
        return restrict(directions, net, recipe)

    directions = make_directions(recipe, net, load_other, provenance)
    if write:
        write_directions(path, directions)
    return directions


def make_directions(recipe, net, load_other, provenance):
    """layouts.Directions made by `recipe`; see `setup_direction`."""

    def make_axis(axis):
        if axis.model_file:
            direction = create_target_direction(net, load_other(axis.model_file), recipe.dir_type)
        else:
            direction = create_random_direction(net, recipe.dir_type, axis.ignore, axis.norm)
        return [tensor.numpy() for tensor in direction]

    x = make_axis(recipe.x)
    y = None
    if recipe.same_dir:
        y = x
    elif recipe.y is not None:
        y = make_axis(recipe.y)
    refuse_zero("x", x, recipe.x)
    if y is not None:
        refuse_zero("y", y, recipe.y)
    return restrict(Directions(x, y, provenance), net, recipe)


def refuse_zero(letter, arrays, axis):
    """Raises InputError where nothing moves along an axis: the picture would be flat."""
    if not _is_zero(arrays):
        return
    if axis.model_file:
        raise InputError(
            f"expected {axis.model_file} to differ from --model_file, they have the same weights; "
            f"give another network for the {letter} direction")
    raise InputError(
        f"expected parameters of two or more dimensions, which --{letter}ignore biasbn leaves to move; "
        f"this network has none; leave --{letter}ignore out")


def restrict(directions, net, recipe):
    """The directions with zeros in the tensors that --params and --freeze exclude.

    Numbers for excluded tensors are drawn all the same, so the others are those of the whole
    direction. Raises InputError where nothing is left that moves.
    """
    if not recipe.params and not recipe.freeze:
        return directions

    may_move = movable(net, recipe.dir_type, recipe.params, recipe.freeze)
    x = _zeroed_unless(may_move, directions.x)
    y = None
    if directions.y is not None:
        y = _zeroed_unless(may_move, directions.y)

    if _is_zero(x) or (y is not None and _is_zero(y)):
        raise InputError(
            f"expected --params {recipe.params!r} --freeze {recipe.freeze!r} to leave a direction "
            "that is not zero; biases and batch norm alone do not move with --xignore biasbn")
    return replace(directions, x=x, y=y)


def _zeroed_unless(may_move, arrays):
    """The arrays, with zeros in the place of those that may not move."""
    restricted = []
    for array, moves in zip(arrays, may_move, strict=True):
        restricted.append(array if moves else np.zeros_like(array))
    return restricted


def _is_zero(arrays):
    return not any(array.any() for array in arrays)


def check_shapes(path, directions, net, dir_type, need_y):
    """Raises InputError unless the directions have the shapes of the network's tensors.

    path: the name of the directions in messages. need_y: a y direction must be there, too.
    """
    if need_y and directions.y is None:
        raise InputError(f"expected x and y directions in {path}, found x only; "
                         "leave --y out, or give another --dir_file")

    tensors = tensors_of(net, dir_type)
    for name, arrays in (("xdirection", directions.x), ("ydirection", directions.y)):
        if arrays is None:
            continue
        if len(arrays) != len(tensors):
            raise InputError(
                f"expected {len(tensors)} tensors in {name} of {path} ({dir_type} of this network), "
                f"got {len(arrays)}; check --model and --dir_type")
        for i, (array, tensor) in enumerate(zip(arrays, tensors, strict=True)):
            shape = tuple(tensor.shape)
            if array.shape != shape:
                raise InputError(
                    f"expected tensor {i} of {name} in {path} to have shape {shape}, "
                    f"got {array.shape}; check --model and --dir_type")
            if np.iscomplexobj(array) and not tensor.is_complex():
                raise InputError(
                    f"expected real numbers in tensor {i} of {name} in {path}, got complex ones; "
                    "check --model and --dir_type")


def directions_hash(directions):
    """SHA-256 of the contents of both axes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for arrays in (directions.x, directions.y or []):
        for array in arrays:
            digest.update(str(array.shape).encode())
            if array.size > 0:
                digest.update(memoryview(array).cast("B"))
    return digest.hexdigest()


def cosine(directions):
    """Cosine similarity of the x and the y direction, all tensors taken as one vector."""
    x, y = _as_one_vector(directions.x), _as_one_vector(directions.y)
    return float(torch.nn.functional.cosine_similarity(x, y, dim=0))


def _as_one_vector(arrays):
    """(n,) float64; of complex numbers real and imaginary parts."""
    parts = []
    for array in arrays:
        tensor = torch.as_tensor(array)
        parts.append(_in_memory_order(tensor, like=tensor).double())
    return torch.cat(parts)


# ---------------------------------------------------------------- moving a network


class WeightPlane:
    """A network whose tensors can be put at origin + x * dx + y * dy.

    Origin and directions lie in flat buffers on the network's device, float32 (float64 where the
    network has such tensors), and the network's own tensors become views of one flat buffer: a point
    is placed by two in-place passes over contiguous memory, with no allocation, whatever the number
    of tensors.

    A tensor whose memory is held elsewhere, too (`self.w2 = self.w.data`), keeps it, and the point is
    copied there: the other holder follows.

    Four-dimensional tensors keep their memory format (a channels-last convolution weight stays so).
    Complex ones are pairs of real numbers. Tensors of another dtype than the buffer's keep theirs: the
    sum is rounded to it once. Integer tensors (num_batches_tracked) are moved likewise and rounded
    towards zero. A tensor that appears twice (tied weights) moves once; one whose directions are zero
    (--freeze, biasbn) is left alone.
    """

    def __init__(self, net, directions, dir_type="weights"):
        axes = [directions.x]
        if directions.y is not None:
            axes.append(directions.y)
        all_tensors = tensors_of(net, dir_type)
        moved = _moved_tensors(all_tensors, axes)
        shared = [memory_is_shared(all_tensors[i]) for i in moved]
        tensors = [all_tensors[i].data for i in moved]
        self.moved = [all_tensors[i] for i in moved]  # all others stay as they are
        dtype = _buffer_dtype(tensors)

        # flat copies of the origin and of the directions, each (n,)
        self._origin = torch.cat([_in_memory_order(t, like=t).to(dtype) for t in tensors])
        self._axes = []
        for axis in axes:
            parts = []
            for i, tensor in zip(moved, tensors, strict=True):
                part = torch.as_tensor(axis[i]).to(tensor.device)
                parts.append(_in_memory_order(part, like=tensor).to(dtype))
            self._axes.append(torch.cat(parts))

        # the buffer that holds the point; the network's tensors become views of it
        self._point = self._origin.clone()  # (n,)
        self._copied = []  # (tensor, view of the point) for those that keep dtype or memory
        self._viewing = []  # those that are views of the point
        start = 0
        for i, tensor, is_shared in zip(moved, tensors, shared, strict=True):
            end = start + _count_numbers(tensor)
            view = _view_with_shape(self._point[start:end], like=tensor)
            start = end
            if is_shared or tensor.dtype != view.dtype:
                self._copied.append((tensor, view))
            else:
                all_tensors[i].data = view
                self._viewing.append(all_tensors[i])

    def place(self, x, y=0.0):
        """Put the network at (x, y). At (0, 0) the tensors are the checkpoint's, bit for bit."""
        torch.add(self._origin, self._axes[0], alpha=x, out=self._point)
        if len(self._axes) == 2 and y != 0.0:
            self._point.add_(self._axes[1], alpha=y)
        for tensor, view in self._copied:
            tensor.copy_(view)

    def release(self):
        """Put the network back to the origin, each tensor in memory of its own."""
        self.place(0.0)
        for tensor in self._viewing:
            tensor.data = tensor.data.clone()


def _moved_tensors(tensors, axes):
    """Numbers of the tensors that move: where a direction is not zero, tied ones once."""
    numbers = []
    seen = set()
    for i, tensor in enumerate(tensors):
        moves = any(torch.as_tensor(axis[i]).any() for axis in axes)
        if moves and id(tensor) not in seen:
            seen.add(id(tensor))
            numbers.append(i)
    return numbers or [0]  # at least one, so that the buffers have a device


def _buffer_dtype(tensors):
    """float64 where some tensor has that precision, else float32."""
    if any(tensor.dtype in (torch.float64, torch.complex128) for tensor in tensors):
        return torch.float64
    return torch.float32


def _count_numbers(tensor):
    """How many real numbers a tensor holds."""
    if tensor.is_complex():
        return 2 * tensor.numel()
    return tensor.numel()


def _is_channels_last(tensor):
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _in_memory_order(tensor, like):
    """The real numbers of a tensor, (n,), in the order in which those of `like` lie in memory."""
    if like.is_complex():
        return torch.view_as_real(tensor.to(like.dtype).resolve_conj()).reshape(-1)
    if _is_channels_last(like):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1)


def _view_with_shape(flat, like):
    """A view of the flat numbers with the shape and memory format of `like`."""
    if like.is_complex():
        return torch.view_as_complex(flat.view(*like.shape, 2))
    if _is_channels_last(like):
        n, c, h, w = like.shape
        return flat.view(n, h, w, c).permute(0, 3, 1, 2)
    return flat.view(like.shape)
