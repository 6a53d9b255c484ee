"""What a network takes, and what its output is compared with: tensors (N, ...), nested at will.

    apply(net, inputs)                  net(inputs), net(*inputs) or net(**inputs)
    each(value, function)               with function(tensor) in place of every tensor
    to_device(value, device, ready)     the same, and objects are moved
    samples_in(targets)                 how many samples they are of

A value is a tensor, or a tuple or dict of values; or, in a batch that can't be cut,

    SampleList       a list of one value for each sample, where their shapes differ
    an object       with a method to(device): a graph, a packed sequence; a network gets it whole
    a constant      of the batch: None, a flag, a number
"""

import copy
from collections import UserDict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

CONSTANTS = bool | int | float | complex | None


class SampleList(list):
    """One value for each sample of a batch, where their shapes differ: a network gets the list."""


def is_object(value):
    """Does `value` move itself to a device? Dicts don't, though some have such a method."""
    if isinstance(value, torch.Tensor | nn.Module | type | dict | UserDict):
        return False
    return callable(getattr(value, "to", None))


def leaves(value):
    """The tensors of `value`, but for those of objects, as a list."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, CONSTANTS) or is_object(value):
        return []
    if isinstance(value, Mapping):
        value = value.values()

    tensors = []
    for entry in value:
        tensors.extend(leaves(entry))
    return tensors


def each(value, function: Callable):
    """`value` with every tensor replaced by function(tensor); objects and constants stay."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, CONSTANTS) or is_object(value):
        return value
    if isinstance(value, Mapping):
        return {key: each(entry, function) for key, entry in value.items()}
    return rebuilt(value, [each(entry, function) for entry in value])


def rebuilt(value, entries):
    """Other entries in a sequence of the type of `value`: a SampleList, a named or a plain tuple."""
    if isinstance(value, SampleList):
        return SampleList(entries)
    if hasattr(value, "_make"):
        return value._make(entries)
    return tuple(entries)


def to_device(value, device, ready: Callable | None = None):
    """`value` on a device: ready(tensor) of every tensor, which moves it, and copies of objects.

    ready: None for tensor.to(device).
    """
    if isinstance(value, torch.Tensor):
        if ready is None:
            return value.to(device, non_blocking=True)
        return ready(value)
    if isinstance(value, CONSTANTS):
        return value
    if is_object(value):
        # some move in place, and some return nothing
        moving = copy.copy(value)
        moved = moving.to(device)
        if moved is None:
            return moving
        return moved
    if isinstance(value, Mapping):
        return {key: to_device(entry, device, ready) for key, entry in value.items()}
    return rebuilt(value, [to_device(entry, device, ready) for entry in value])


def apply(net, inputs):
    """The output of `net`: tuples are positional arguments, dicts keyword arguments.

    An object is handed on as a copy, in which a network may set attributes of its own.
    """
    if isinstance(inputs, torch.Tensor):
        return net(inputs)
    if is_object(inputs):
        return net(copy.copy(inputs))
    if isinstance(inputs, Mapping):
        return net(**inputs)
    if isinstance(inputs, SampleList):
        return net(list(inputs))
    return net(*inputs)


def samples_in(targets):
    """How many samples targets are of: tensors (N, ...), in a tuple or dict, or a list of N."""
    if isinstance(targets, torch.Tensor | SampleList):
        return len(targets)
    return next(len(tensor) for tensor in leaves(targets) if tensor.dim() > 0)


def shapes(value):
    """The shapes of the tensors of a batch, in words."""
    return ", ".join(str(tuple(tensor.shape)) for tensor in leaves(value))


def size_in_bytes(value):
    """How much memory the tensors of `value` take, those of objects included."""
    tensors = [leaf for _, leaf in named_leaves(value) if isinstance(leaf, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def joined(values):
    """One value of those of several batches, joined along the samples.

    Raises ValueError, or torch's RuntimeError, where they have other forms or shapes, or hold what
    can't be joined.
    """
    first = values[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(values)
    if isinstance(first, CONSTANTS):
        if any(type(value) is not type(first) or value != first for value in values):
            raise ValueError("a constant that differs from one batch to the next")
        return first
    if isinstance(first, SampleList) or is_object(first):
        raise ValueError(f"{type(first).__name__} in a batch")

    if isinstance(first, Mapping):
        if any(value.keys() != first.keys() for value in values):
            raise ValueError("batches of several fields")
        return {name: joined([value[name] for value in values]) for name in first}
    return rebuilt(first, [joined(entries) for entries in zip(*values, strict=True)])


def are_rows_of(value, count):
    """Has every tensor of `value` a row for each of `count` samples, and is there nothing else?"""
    if isinstance(value, torch.Tensor):
        return value.dim() > 0 and len(value) == count
    if isinstance(value, CONSTANTS):
        return True
    if isinstance(value, SampleList) or is_object(value):
        return False
    entries = value.values() if isinstance(value, Mapping) else value
    return all(are_rows_of(entry, count) for entry in entries)


def named_leaves(value, path=""):
    """(path, leaf) of all tensors, arrays, words and constants of `value`, those of objects too."""
    yield from _walk(value, path, ())


def _walk(value, path, around):
    """As `named_leaves`; around: ids of the values that hold `value`, for these may go in circles."""
    if isinstance(value, torch.Tensor | np.ndarray | str | CONSTANTS):
        yield path, value
        return
    if id(value) in around:
        return
    around = (*around, id(value))
    if is_object(value):
        value = contents(value)

    entries = []
    if isinstance(value, Mapping):
        entries = value.items()
    elif isinstance(value, list | tuple):
        entries = enumerate(value)
    for name, entry in entries:
        yield from _walk(entry, f"{path}.{name}", around)


def contents(value):
    """What an object holds, {name: value}, as far as it can be seen."""
    if isinstance(value, Mapping):
        return dict(value.items())
    if hasattr(value, "_asdict"):
        return value._asdict()
    if callable(getattr(value, "to_dict", None)):
        return value.to_dict()
    return getattr(value, "__dict__", {})
