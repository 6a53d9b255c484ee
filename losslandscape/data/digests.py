"""Have two passes, two ranks or two runs seen the same data? Hashes of values, whatever their form.

Tensors alone are hashed by shape, type and values, in order; what has a form of its own (targets in
a dict, lists of one entry for each sample, objects, constants) by its names, too.
"""

import hashlib

import numpy as np
import torch

from losslandscape.data.inputs import CONSTANTS, SampleList, is_object, named_leaves

# integers in place of types that NumPy lacks, by their size in bytes
INTEGERS = {1: torch.int8, 2: torch.int16}
NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)


def add_batch(digest, inputs, targets):
    """Add a batch to a hash."""
    _add_value(digest, inputs, named=_has_form(inputs))
    _add_value(digest, targets, named=not isinstance(targets, torch.Tensor))


def are_equal(first, second):
    """Are two batches (inputs, targets) equal, value for value?"""
    hashes = []
    for batch in (first, second):
        digest = hashlib.sha256()
        for part in batch:
            _add_value(digest, part, named=True)
        hashes.append(digest.hexdigest())
    return hashes[0] == hashes[1]


def _has_form(inputs):
    """Are inputs more than tensors in tuples and dicts?"""
    if isinstance(inputs, torch.Tensor):
        return False
    if isinstance(inputs, SampleList | CONSTANTS) or is_object(inputs):
        return True
    if isinstance(inputs, dict):
        inputs = inputs.values()
    return any(map(_has_form, inputs))


def _add_value(digest, value, named):
    """Add the leaves of `value` to a hash. named: with their paths in it."""
    for path, leaf in named_leaves(value):
        if named:
            digest.update(f"{path}\n".encode())
        if isinstance(leaf, torch.Tensor):
            _add_tensor(digest, leaf)
        elif isinstance(leaf, np.ndarray):
            digest.update(f"{leaf.shape} {leaf.dtype} {leaf.tolist()!r}\n".encode())
        else:
            digest.update(f"{leaf!r}\n".encode())


def _add_tensor(digest, tensor):
    """Add shape, type and values of a tensor to a hash."""
    tensor = tensor.detach().cpu()
    if tensor.layout != torch.strided:  # within an object
        tensor = tensor.to_dense()
    tensor = tensor.contiguous()

    if tensor.is_floating_point() and tensor.dtype not in NUMPY_FLOATS:
        tensor = tensor.view(INTEGERS[tensor.element_size()])

    array = tensor.numpy()
    digest.update(f"{array.shape} {array.dtype}\n".encode())
    digest.update(array.reshape(-1).view(np.uint8))  # no copy
