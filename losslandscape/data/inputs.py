"""What a network takes: a tensor (N, ...), or a tuple or dict of them, nested as deep as one likes.

    apply(net, inputs)          net(inputs), net(*inputs) or net(**inputs)
    pair(batch)                 (inputs, targets) of whatever a loader gives as a batch
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from losslandscape.errors import InputError

TARGETS = ("targets", "labels", "label", "y")  # keys of the targets in a batch that is a dict


def leaves(inputs):
    """The tensors of `inputs`, as a list."""
    if isinstance(inputs, torch.Tensor):
        return [inputs]
    if isinstance(inputs, Mapping):
        inputs = inputs.values()

    tensors = []
    for entry in inputs:
        tensors.extend(leaves(entry))
    return tensors


def each(inputs, function: Callable):
    """`inputs` with every tensor replaced by function(tensor)."""
    if isinstance(inputs, torch.Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {key: each(value, function) for key, value in inputs.items()}
    return tuple(each(value, function) for value in inputs)


def apply(net, inputs):
    """The output of `net`: tuples are positional arguments, dicts keyword arguments."""
    if isinstance(inputs, torch.Tensor):
        return net(inputs)
    if isinstance(inputs, Mapping):
        return net(**inputs)
    return net(*inputs)


def shapes(inputs):
    """The shapes of the tensors of a batch, in words."""
    return ", ".join(str(tuple(tensor.shape)) for tensor in leaves(inputs))


def size_in_bytes(inputs):
    """How much memory the tensors of `inputs` take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in leaves(inputs))


# ---------------------------------------------------------------- what others give


def pair(batch):
    """(inputs, targets) of a batch: of a pair, or of a dict with a key of TARGETS."""
    if isinstance(batch, Mapping):
        key = next((key for key in TARGETS if key in batch), None)
        if key is None:
            raise InputError(
                f"expected one of {', '.join(TARGETS)} in a batch, got the keys "
                f"{', '.join(map(str, batch))}; rename the targets")
        inputs = {other: value for other, value in batch.items() if other != key}
        return as_tensors(inputs), as_targets(batch[key])

    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        size = ""
        if hasattr(batch, "__len__"):
            size = f" of {len(batch)}"
        raise InputError(
            f"expected batches (inputs, targets), got {type(batch).__name__}{size}; return pairs")
    return as_tensors(batch[0]), as_targets(batch[1])


def is_array(value):
    """Is `value` a tensor or a NumPy array?"""
    return isinstance(value, torch.Tensor | np.ndarray)


def as_tensors(inputs):
    """`inputs` with arrays made tensors on the CPU; doubles become float32."""
    if isinstance(inputs, Mapping):
        return {key: as_tensors(value) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(as_tensors(value) for value in inputs)
    return _one_tensor(inputs)


def as_targets(value):
    """Targets (N, ...) as a tensor; integers of any size become int64."""
    tensor = _one_tensor(value)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        return tensor
    return tensor.long()


def _one_tensor(value):
    if not is_array(value):
        raise InputError(
            f"expected tensors or arrays as inputs and targets, got {type(value).__name__}; "
            "convert them")
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        raise InputError(
            f"expected numbers as inputs and targets, got an array of {value.dtype}; convert it")

    tensor = torch.as_tensor(value).detach().cpu()
    if tensor.dtype == torch.float64:
        return tensor.float()
    return tensor
