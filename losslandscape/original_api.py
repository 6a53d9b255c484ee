"""What scripts written for the original program call: its names and arguments, by our means.

net_plotter.py, scheduler.py and mpi4pytorch.py hand these functions on. New code takes
losslandscape.weight_space, losslandscape.scheduler and losslandscape.ranks instead.
"""

from dataclasses import fields

import numpy as np
import torch

from losslandscape import ranks
from losslandscape.choices import DirectionChoice, NetworkChoice
from losslandscape.files.layouts import STORED_NOT_COMPUTED, read_directions
from losslandscape.scheduler import split_inds
from losslandscape.weight_space import (
    NORMS,
    normalize_direction,
    setup_direction,
)

# ---------------------------------------------------------------- net_plotter: tensors


def get_weights(net):
    """[tensor] of the parameters, which share their memory with the network."""
    return [parameter.data for parameter in net.parameters()]


def set_weights(net, weights, directions=None, step=None):
    """Put the parameters at `weights`, or at weights + step * direction.

    directions: [x] with a number as step, or [x, y] with two numbers; x and y are lists of tensors.
    """
    _set_tensors(list(net.parameters()), weights, directions, step)


def set_states(net, states, directions=None, step=None):
    """Put the state-dict entries at `states` (a dict, or its values), moved as in `set_weights`."""
    own = net.state_dict()
    if isinstance(states, dict):
        states = [states[name] for name in own]
    _set_tensors(list(own.values()), states, directions, step)


def _set_tensors(tensors, origin, directions, step):
    """Write origin + sum of step * direction into the tensors."""
    axes = directions or []
    if not axes:
        steps = []
    elif len(axes) == 1 and np.ndim(step) == 0:
        steps = [step]
    else:
        steps = list(step)

    with torch.no_grad():
        for i, (tensor, start) in enumerate(zip(tensors, origin, strict=True)):
            point = start.detach().to(tensor.device, torch.float32)
            for axis, length in zip(axes, steps, strict=True):
                offset = torch.as_tensor(axis[i]).to(tensor.device, torch.float32)
                point = point + float(length) * offset
            tensor.copy_(point)


def get_random_weights(weights):
    """One Gaussian tensor per weight, of its shape and on its device; drawn on the CPU."""
    return [torch.randn(weight.shape).to(weight.device) for weight in weights]


def get_random_states(states):
    """One Gaussian tensor per entry of a state dict."""
    return get_random_weights(list(states.values()))


def get_diff_weights(weights, weights2):
    """weights2 - weights, tensor by tensor."""
    return [end - start for start, end in zip(weights, weights2, strict=True)]


def get_diff_states(states, states2):
    """states2 - states, entry by entry, in the order of `states`."""
    return [states2[name] - start for name, start in states.items()]


# ---------------------------------------------------------------- net_plotter: normalization, in place


def normalize_in_place(direction, weights, norm="filter"):
    """Scale one tensor of a direction to that of the weights; norm: a key of weight_space.NORMS.

    Each number of a one-dimensional tensor is a filter of its own.
    """
    if direction.dim() < 2:
        direction, weights = direction.view(-1, 1), weights.view(-1, 1)
    direction.copy_(NORMS[norm](direction, weights))


def normalize_directions_for_weights(direction, weights, norm="filter", ignore="biasbn"):
    """Normalize a whole direction: [tensor], beside the parameters."""
    normalized = normalize_direction(direction, weights, norm, ignore)
    for tensor, values in zip(direction, normalized, strict=True):
        tensor.copy_(values)


def normalize_directions_for_states(direction, states, norm="filter", ignore="ignore"):
    """Normalize a whole direction: [tensor], beside a state dict; any `ignore` means 'biasbn'."""
    ignore = "biasbn" if ignore else ""
    normalize_directions_for_weights(direction, list(states.values()), norm, ignore)


def ignore_biasbn(directions):
    """Set the tensors of fewer than two dimensions to zero."""
    for tensor in directions:
        if tensor.dim() < 2:
            tensor.zero_()


# ---------------------------------------------------------------- net_plotter: direction files


def name_direction_file(args):
    """Name of the direction file.

    args: an object with the flags of plot_surface.py as attributes; one that is missing, or None,
    has its default.
    """
    flags = vars(args)
    if flags.get("dir_file"):
        return flags["dir_file"]
    return _recipe(flags).file_name()


def setup_direction_of_flags(args, dir_file, net):
    """Make the direction file at `dir_file` unless it is there; args as for `name_direction_file`.

    Nothing is seeded here: the caller does torch.manual_seed(123) before building the network.
    """
    network = _from_flags(NetworkChoice, vars(args))

    def load_other(path):
        return network.load_other(path, net)

    setup_direction(dir_file, _recipe(vars(args)), net, load_other, provenance={}, check=False)


def load_directions(dir_file):
    """[x] or [x, y] of a direction file, lists of tensors."""
    directions = read_directions(dir_file)
    axes = [directions.x]
    if directions.y is not None:
        axes.append(directions.y)
    return [[torch.as_tensor(array) for array in axis] for axis in axes]


def _recipe(flags):
    choice = _from_flags(DirectionChoice, flags)
    network = _from_flags(NetworkChoice, flags)
    return choice.recipe(network, choice.idx, two_axes=bool(flags.get("y")))


def _from_flags(kind, flags):
    """An instance of a dataclass of losslandscape.choices, from the flags that are given."""
    names = [entry.name for entry in fields(kind) if flags.get(entry.name) is not None]
    return kind(**{name: flags[name] for name in names})


# ---------------------------------------------------------------- scheduler


def split_indices(num_inds, nproc):
    """[array] of the numbers 0 .. num_inds - 1, in contiguous slices.

    The first num_inds % nproc slices have one more.
    """
    return split_inds(np.arange(num_inds), nproc)


def get_unplotted_indices(vals, xcoordinates, ycoordinates=None):
    """(indices, coordinates) of the points that are not computed yet.

    vals: (nx,) or (ny, nx); a point is not computed where it holds -1, or where the array is masked.
    indices: (n,), row-major. coordinates: (n,) x in 1-D, else (n, 2) with columns x, y.
    """
    missing = np.ma.getmaskarray(vals) | (np.ma.getdata(vals) == STORED_NOT_COMPUTED)
    indices = np.flatnonzero(missing.ravel())

    x = np.asarray(xcoordinates)
    if ycoordinates is None:
        return indices, x[indices]
    rows, columns = np.divmod(indices, len(x))
    return indices, np.column_stack([x[columns], np.asarray(ycoordinates)[rows]])


def get_job_indices(vals, xcoordinates, ycoordinates, comm):
    """(indices, coordinates, counts): the points of this rank, and how many every rank has.

    comm: an mpi4py communicator, or None for one process. See `get_unplotted_indices`.
    """
    indices, coordinates = get_unplotted_indices(vals, xcoordinates, ycoordinates)
    rank, size = 0, 1
    if comm is not None:
        rank, size = comm.Get_rank(), comm.Get_size()

    slices = split_indices(len(indices), size)
    own = slices[rank]
    return indices[own], coordinates[own], [len(part) for part in slices]


# ---------------------------------------------------------------- mpi4pytorch


def setup_MPI():
    """The communicator of all ranks, or None where there is one process."""
    world = ranks.connect()
    if world.size == 1:
        return None
    return world.comm


def barrier(comm):
    """Wait for all ranks."""
    if comm is not None:
        comm.Barrier()


def broadcast(comm, value=None):
    """`value` of rank 0, on every rank."""
    if comm is None:
        return value
    return comm.bcast(value)


def reduce_max(comm, array, display_info=False):
    """The largest of all ranks, element by element, on every rank; NaN where a rank has NaN."""
    return _reduced(comm, array, np.max)


def reduce_min(comm, array, display_info=False):
    """The smallest of all ranks, element by element, on every rank; NaN where a rank has NaN."""
    return _reduced(comm, array, np.min)


def _reduced(comm, array, function):
    if comm is None:
        return array
    return function(comm.allgather(np.asarray(array)), axis=0)
