"""Directions in weight space, and how a network is moved along them.

A direction is a list of tensors with the shapes of the network's parameters (`weights`) or of its state-dict entries
(`states`: with the running statistics of batch norm). `setup_direction` makes or reads a direction file;
`WeightPlane.place(x, y)` puts the network at origin + x * dx + y * dy.

Random directions come from torch's global CPU generator, seeded with 123 + idx *before* the network is built, and are
drawn after it was: so they equal those of the original code.
"""

import hashlib
import os
import re
from dataclasses import dataclass, replace

import numpy as np
import torch

from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.files.store import refuse_mismatch

SEED = 123

# ---------------------------------------------------------------- normalization


def _filters(d):
    """Norm of each slice along dimension 0, shaped to broadcast against d."""
    return d.flatten(1).norm(dim=1).view(-1, *[1] * (d.dim() - 1))  # (filters, 1, ..., 1)


# direction d, weights w, both of >= 2 dimensions -> normalized direction (Li et al. 2018, section 4)
NORMS = {
    "": lambda d, w: d,
    "filter": lambda d, w: d * (_filters(w) / (_filters(d) + 1e-10)),
    "layer": lambda d, w: d * (w.norm() / d.norm()),
    "weight": lambda d, w: d * w,
    "dfilter": lambda d, w: d / (_filters(d) + 1e-10),
    "dlayer": lambda d, w: d / d.norm(),
}
IGNORES = ("", "biasbn")
DIR_TYPES = ("weights", "states")


def normalize_direction(direction, weights, norm="filter", ignore="biasbn"):
    """Normalized copy of a list of tensors.

    norm (a key of NORMS) applies to tensors of two or more dimensions: 'filter' gives each filter d[i] the norm of the
    matching filter of the weights, d[i] * |w[i]| / |d[i]| (Li et al. 2018, section 4).
    Tensors of fewer dimensions (biases, batch norm) become zero with ignore='biasbn', else the weights' own values.
    """
    normalized = []
    for d, w in zip(direction, weights, strict=True):
        w = w.detach().float()
        if d.dim() > 1:
            normalized.append(NORMS[norm](d, w))
        else:
            normalized.append(torch.zeros_like(w) if ignore == "biasbn" else w.clone())
    return normalized


def tensors_of(net, dir_type):
    """The tensors that a direction moves: parameters (weights), or all state-dict entries (states)."""
    return list(net.parameters()) if dir_type == "weights" else list(net.state_dict(keep_vars=True).values())


def names_of(net, dir_type):
    """The names of the tensors of `tensors_of`, in the same order."""
    return [name for name, _ in net.named_parameters()] if dir_type == "weights" else list(net.state_dict())


def moving(net, dir_type, params="", freeze=""):
    """[bool] for the tensors of `tensors_of`: which move when only those of `params`, and none of `freeze`, may.

    Both are regular expressions that the names are searched for; a tied weight has several. Raises InputError where
    none is left.
    """
    names, also = names_of(net, dir_type), {}
    for name, tensor in net.named_parameters(remove_duplicate=False):
        also.setdefault(id(tensor), []).append(name)

    def found(pattern, name, tensor):
        return any(re.search(pattern, known) for known in [name, *also.get(id(tensor), [])])

    chosen = [(not params or found(params, *pair)) and not (freeze and found(freeze, *pair))
              for pair in zip(names, tensors_of(net, dir_type), strict=True)]
    if not any(chosen):
        some = ", ".join(names[:3] + ["..."] * (len(names) > 4) + names[3:][-1:])
        raise InputError(f"expected --params and --freeze to leave some of the {len(names)} tensors of the network, "
                         f"--params {params!r} --freeze {freeze!r} leave none; their names are {some}")
    return chosen


def create_random_direction(net, dir_type="weights", ignore="biasbn", norm="filter"):
    """A Gaussian direction, normalized; one float32 draw per tensor, in order, from torch's global generator."""
    weights = tensors_of(net, dir_type)
    return normalize_direction([torch.randn(w.shape) for w in weights], weights, norm, ignore)


def create_target_direction(net, net2, dir_type="weights"):
    """The direction from one network to another: weights (or states) of net2 minus those of net."""
    return [b.detach().float() - a.detach().float()
            for a, b in zip(tensors_of(net, dir_type), tensors_of(net2, dir_type), strict=True)]


# ---------------------------------------------------------------- what a direction is made from


@dataclass(frozen=True)
class Axis:
    """One axis: random with this norm and ignore, or towards `model_file`."""

    norm: str = ""
    ignore: str = ""
    model_file: str = ""


@dataclass(frozen=True)
class Recipe:
    """How the directions of a plot are made; `y` is None for a 1-D plot."""

    model_file: str
    x: Axis
    y: Axis | None = None
    dir_type: str = "weights"
    same_dir: bool = False
    idx: int = 0
    params: str = ""  # see `moving`
    freeze: str = ""

    def __post_init__(self):
        for flag, pattern in (("--params", self.params), ("--freeze", self.freeze)):
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"expected {flag} as a regular expression, got {pattern!r} ({error}); "
                                 f"for example {flag} 'layer3|linear'") from None
        if not self.model_file:
            raise InputError("expected --model_file, the trained network at the origin of the plot")
        if self.y is None and self.same_dir:
            raise InputError("--same_dir is about the y direction: give --y=min:max:count as well")
        if self.y and self.same_dir and self.y.model_file:
            raise InputError("--same_dir and --model_file3 both define the y direction; give one of them")

    def file_name(self):
        """Name of the direction file, the original's byte for byte."""
        name = _stem(self.model_file, self.x.model_file)
        if self.y and self.y.model_file:
            name += "_" + _label(self.y.model_file, self.model_file)
        name += "_" + self.dir_type
        name += h5_util.option_suffix(("xignore", self.x.ignore), ("xnorm", self.x.norm))
        if self.y:
            name += h5_util.option_suffix(
                ("yignore", self.y.ignore), ("ynorm", self.y.norm), ("same_dir", self.same_dir))
        return name + h5_util.option_suffix(
            ("params", _plain(self.params)), ("freeze", _plain(self.freeze)), ("idx", self.idx)) + ".h5"


def _plain(pattern):
    """A regular expression as a part of a file name; where it had to be changed, its hash tells it from others."""
    plain = re.sub(r"[^\w.,^$+-]+", "-", pattern)[:40]
    return plain if plain == pattern else f"{plain}-{hashlib.sha256(pattern.encode()).hexdigest()[:6]}"


def _stem(file1, file2):
    """The first part of the name: MODEL_FILE, or both files when x runs from one to the other.

    In one folder: FILE1_BASE2. In two: DIR1_BASE1_DIR2_BASE2 with DIR2 below the longest common folder, so that
    r/a/m.t7 and r/b/m.t7 give r/a_m.t7_b_m.t7, in the common folder.
    """
    if not file2:
        return file1
    if os.path.dirname(file1) == os.path.dirname(file2):
        return f"{file1}_{os.path.basename(file2)}"
    return f"{'_'.join(filter(None, os.path.split(file1)))}_{_label(file2, file1)}"


def _label(file, origin):
    """BASE of a file in the folder of `origin`, else DIR_BASE with DIR below the longest common folder."""
    folder, base = os.path.split(file)
    if folder == os.path.dirname(origin):
        return base
    shared = os.path.commonprefix([origin, file]).rpartition("/")[0]
    return "_".join(filter(None, (folder[len(shared):].strip("/").replace("/", "_"), base)))


def surface_name(dir_file, grid_text, options):
    """Name of the surface file: the direction file, the grid, and what is not at its default.

    grid_text: '[xmin,xmax,xnum]' (+ 'x[ymin,ymax,ynum]'); options: (name, value) pairs, see h5_util.option_suffix.
    """
    return f"{dir_file}_{grid_text}{h5_util.option_suffix(*options)}.h5"


# ---------------------------------------------------------------- making and reading direction files


def seed_everything(idx=0):
    """Call before the network is built: its initialization draws from the same stream as the directions."""
    torch.manual_seed(SEED + idx)


def setup_direction(path, recipe, net, load_other, provenance, check=True, write=True):
    """Read the directions at `path`, or make them by `recipe` and, with `write`, write them there.

    net: the network at the origin, freshly built after `seed_everything`; load_other(model_file): builds and loads
    another one. provenance: {checkpoint: hash, ...}; with `check`, a file made from another checkpoint is refused.
    Returns h5_util.Directions. Raises InputError where the file does not fit the network.
    """
    if os.path.exists(path):
        directions = h5_util.read_directions(path)
        if check:
            refuse_mismatch(path, directions.provenance, provenance)
        check_fit(path, directions, net, recipe.dir_type, need_y=recipe.y is not None)
        return restrict(directions, net, recipe)
    x = _make(recipe.x, net, load_other, recipe.dir_type)
    y = None
    if recipe.y:
        y = x if recipe.same_dir else _make(recipe.y, net, load_other, recipe.dir_type)
    directions = restrict(h5_util.Directions(_arrays(x), y and _arrays(y), provenance), net, recipe)
    if write:
        h5_util.write_directions(path, directions)
    return directions


def restrict(directions, net, recipe):
    """The directions with zeros for what --params and --freeze exclude; what is drawn for the rest stays the same."""
    if not (recipe.params or recipe.freeze):
        return directions
    chosen = moving(net, recipe.dir_type, recipe.params, recipe.freeze)
    axes = [axis and [a if move else np.zeros_like(a) for a, move in zip(axis, chosen, strict=True)]
            for axis in (directions.x, directions.y)]
    if any(axis and not any(a.any() for a in axis) for axis in axes):
        raise InputError(f"expected --params {recipe.params!r} --freeze {recipe.freeze!r} to leave a direction that is "
                         "not zero; biases and batch norm alone do not move with --xignore biasbn")
    return replace(directions, x=axes[0], y=axes[1])


def _make(axis, net, load_other, dir_type):
    if not axis.model_file:
        return create_random_direction(net, dir_type, axis.ignore, axis.norm)
    other = load_other(axis.model_file)
    return create_target_direction(net, other, dir_type)


def _arrays(direction):
    return [d.numpy() for d in direction]


def check_fit(path, directions, net, dir_type, need_y):
    """Raises InputError unless the directions have the shapes of the network's tensors, and a y axis if need be."""
    if need_y and directions.y is None:
        raise InputError(f"expected x and y directions in {path}, found x only; "
                         "leave --y out, or give another --dir_file")
    shapes = [tuple(t.shape) for t in tensors_of(net, dir_type)]
    for axis, arrays in (("xdirection", directions.x), ("ydirection", directions.y)):
        if arrays is None:
            continue
        if len(arrays) != len(shapes):
            raise InputError(f"expected {len(shapes)} tensors in {axis} of {path} ({dir_type} of this network), "
                             f"got {len(arrays)}; check --model and --dir_type")
        for i, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
            if array.shape != shape:
                raise InputError(f"expected tensor {i} of {axis} in {path} to have shape {shape}, got {array.shape}; "
                                 "check --model and --dir_type")


def directions_hash(directions):
    """sha256 of the contents of both axes."""
    digest = hashlib.sha256()
    for arrays in (directions.x, directions.y or []):
        for array in arrays:
            digest.update(str(array.shape).encode())
            digest.update(memoryview(array).cast("B") if array.size else b"")
    return digest.hexdigest()


def cosine(directions):
    """Cosine similarity of the x and the y direction, all tensors taken as one vector."""
    x, y = (torch.cat([torch.as_tensor(a).reshape(-1).double() for a in axis])
            for axis in (directions.x, directions.y))
    return float(torch.nn.functional.cosine_similarity(x, y, dim=0))


# ---------------------------------------------------------------- moving a network


class WeightPlane:
    """A network whose tensors can be put at origin + x * dx + y * dy.

    Origin and directions lie in flat float32 buffers on the network's device; the network's own tensors become views
    of one flat buffer, so that a point is placed by two in-place passes over contiguous memory, with no allocation,
    whatever the number of tensors. Four-dimensional tensors keep their memory format (a channels-last convolution
    weight stays so). Tensors of another floating dtype keep it: the sum is taken in float32 and rounded to it once.
    Integer tensors (num_batches_tracked) are moved likewise and rounded towards zero. A tensor that appears twice (tied
    weights) moves once; one whose directions are zero (--freeze, biasbn) is left alone.
    """

    def __init__(self, net, directions, dir_type="weights"):
        tensors = tensors_of(net, dir_type)
        axes = [directions.x] + ([directions.y] if directions.y is not None else [])
        seen = {}
        for i, tensor in enumerate(tensors):
            if any(torch.as_tensor(axis[i]).any() for axis in axes):
                seen.setdefault(id(tensor), i)
        keep = sorted(seen.values()) or [0]
        tensors = [tensors[i].data for i in keep]
        device = tensors[0].device
        self._origin = torch.cat([_flat(t).float() for t in tensors])  # (n,)
        self._axes = [
            torch.cat([_flat(torch.as_tensor(axis[i]).to(device, torch.float32), like=t)
                       for i, t in zip(keep, tensors, strict=True)])
            for axis in axes
        ]  # each (n,)
        self._point = self._origin.clone()  # (n,)
        self._rounded = []  # (tensor, view of the point) for tensors that are not float32
        owners = tensors_of(net, dir_type)
        start = 0
        for i, tensor in zip(keep, tensors, strict=True):
            view = _shaped(self._point[start:start + tensor.numel()], like=tensor)
            start += tensor.numel()
            if tensor.dtype == torch.float32:
                owners[i].data = view
            else:
                self._rounded.append((owners[i].data, view))

    def place(self, x, y=0.0):
        """Put the network at (x, y). At (0, 0) the tensors are the checkpoint's, bit for bit."""
        torch.add(self._origin, self._axes[0], alpha=x, out=self._point)
        if len(self._axes) == 2 and y != 0.0:
            self._point.add_(self._axes[1], alpha=y)
        for tensor, view in self._rounded:
            tensor.copy_(view)


def _channels_last(tensor):
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _flat(tensor, like=None):
    """The elements in the order in which `like` (default: the tensor itself) lies in memory."""
    if _channels_last(tensor if like is None else like):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1)


def _shaped(flat, like):
    """A view of the flat elements with the shape and memory format of `like`."""
    if _channels_last(like):
        n, c, h, w = like.shape
        return flat.view(n, h, w, c).permute(0, 3, 1, 2)
    return flat.view(like.shape)


Plane = WeightPlane  # the former name
