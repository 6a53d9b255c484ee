"""Numbers, arrays and text as they come from others, and the tensors that are made of them."""

import numbers

import numpy as np
import torch

from losslandscape.errors import InputError

NUMBERS = "biufc"  # kinds of NumPy's types


def is_array(value):
    """Is `value` a tensor or a NumPy array?"""
    return isinstance(value, torch.Tensor | np.ndarray)


def is_text(value):
    """Is `value` a word, or a list or an array of words?"""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "US" or (value.dtype.kind == "O" and is_text(value.tolist()))
    if isinstance(value, tuple | list):
        return len(value) > 0 and all(map(is_text, value))
    return isinstance(value, str | bytes)


def is_number(value):
    """Is `value` a number of Python or of NumPy, or a tensor or array of no dimensions?"""
    if is_array(value):
        return value.ndim == 0
    return isinstance(value, numbers.Number | np.number | np.bool_)


def is_numbers(value):
    """Is `value` a list of numbers, or of such lists?"""
    if not isinstance(value, tuple | list) or len(value) == 0:
        return False
    return all(map(is_number, value)) or all(map(is_numbers, value))


def dimensions_of(value):
    """0 for a number, 1 for a list of numbers, ...; None for what is neither.

    Of a dict or a tuple they are those of its first entry.
    """
    if is_array(value):
        return value.ndim
    if is_number(value):
        return 0
    if isinstance(value, list) and is_numbers(value):
        return 1 + dimensions_of(value[0])
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list) and len(value) > 0:
        return dimensions_of(value[0])
    return None


def type_in_words(value):
    """'list of str', 'an array of <U1', 'PngImageFile': the type of a value."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    name = type(value).__name__
    if isinstance(value, tuple | list) and len(value) > 0:
        return f"{name} of {type(value[0]).__name__}"
    return name


def as_tensor(value, field):
    """A dense tensor on the CPU of a tensor, an array or a list of numbers; doubles become floats.

    Raises InputError, which names `field`, for anything else.
    """
    if isinstance(value, tuple | list):
        value = _array_of(value, field)
    if isinstance(value, np.ndarray):
        value = _native(value, field)

    tensor = torch.as_tensor(value).detach().cpu()
    if tensor.layout != torch.strided or tensor.is_nested:
        raise InputError(
            f"expected dense tensors as inputs and targets, got one of layout {tensor.layout} in "
            f"{field}; convert it with .to_dense()")
    if tensor.dtype == torch.float64:
        return tensor.float()
    if tensor.dtype == torch.complex128:
        return tensor.to(torch.complex64)
    return tensor


def as_tensors_of_targets(tensor):
    """Integers of any size as int64; other tensors as they are."""
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        return tensor
    return tensor.long()


def _array_of(value, field):
    """An array or a tensor of a list of numbers, or of lists of numbers of one length."""
    try:
        if isinstance(value[0], torch.Tensor):
            return torch.stack(list(map(torch.as_tensor, value)))
        return np.array(value)
    except ValueError:
        raise InputError(
            f"expected lists of one length in {field}, got lists of several; pad them, as with "
            "DataLoader(data, batch_size=..., collate_fn=...)") from None


def _native(array, field):
    """The array as torch can take it, copied where it must be."""
    if array.dtype.kind not in NUMBERS:
        raise InputError(
            f"expected numbers as inputs and targets, got {type_in_words(array)} in {field}; "
            "convert it")
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    is_reversed = any(stride < 0 for stride in array.strides)
    is_read_only = not array.flags.writeable and not isinstance(array, np.memmap)
    if is_reversed or is_read_only:
        return array.copy()
    return array
