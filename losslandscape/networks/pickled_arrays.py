"""NumPy's numbers and arrays in pickles, made without NumPy's own constructors.

Allowing those would tie the reader to the installed NumPy (the modules that a pickle names have
moved between versions), and an array of objects may hold anything. These stand-ins work for files
of any version, and make numbers, texts and arrays of them.
"""

import pickle
import re

import numpy as np
import torch

NUMBER_OR_TEXT = re.compile(r"[biufcSU]\d{1,9}")  # names of types: b1, i8, f4, c16, S20, U7, ...


class ArrayType:
    """Stands for a numpy.dtype: remembers its name and byte order."""

    __slots__ = ("name", "byte_order")

    def __init__(self, name="", *_):
        self.name = name
        self.byte_order = "="

    def __repr__(self):
        return f"<numpy type {self.name}>"

    def set_state(self, state):
        """state: (version, byte order, ...)."""
        if state[1] in ("<", ">"):
            self.byte_order = state[1]

    @property
    def dtype(self):
        """The numpy.dtype; raises UnpicklingError unless it is of numbers or texts."""
        if not NUMBER_OR_TEXT.fullmatch(str(self.name)):
            raise pickle.UnpicklingError(f"numpy values of type {str(self.name):.20}")
        return np.dtype(self.name).newbyteorder(self.byte_order)


def is_plain(array_type):
    """Whether a type is of numbers or texts."""
    if not isinstance(array_type, ArrayType):
        return False
    return bool(NUMBER_OR_TEXT.fullmatch(str(array_type.name)))


def make_scalar(array_type, data=b""):
    """A plain Python number or text."""
    if not is_plain(array_type):
        return Unreadable(array_type)
    if isinstance(data, str):  # in files written by Python 2
        data = data.encode("latin1")
    return np.frombuffer(data, array_type.dtype, count=1)[0].item()


def make_empty(*_):
    """An array that its state will fill: see `fill`."""
    return np.zeros(0, np.uint8)


def make_array(data, array_type, shape, order="C"):
    """An array as protocol 5 writes it: a buffer and its type."""
    if not is_plain(array_type):
        return Unreadable(array_type)
    return np.frombuffer(bytes(data), array_type.dtype).reshape(shape, order=order)


def make_tensor_of_array(array, dtype, *_):
    """A tensor of a device that hands its values on as an array."""
    return torch.from_numpy(np.array(array)).to(dtype)


def is_pickled_array(value):
    return isinstance(value, np.ndarray | Unreadable)


def fill(array, state):
    """Give an empty array its values; state: (version, shape, type, Fortran order?, bytes)."""
    _, shape, array_type, is_fortran, data = state

    # what is neither number nor text stays empty
    if isinstance(array, Unreadable) or not is_plain(array_type):
        return
    if isinstance(data, str):
        data = data.encode("latin1")
    dtype = array_type.dtype
    size = dtype.itemsize * int(np.prod(shape, dtype=float))
    if not isinstance(data, bytes) or len(data) != size:
        raise pickle.UnpicklingError("an array whose bytes don't fit its shape")
    array.__setstate__((1, tuple(shape), dtype, bool(is_fortran), data))


class Unreadable:
    """Stands for numpy values that are neither numbers nor texts, such as dates and objects."""

    __slots__ = ("type",)

    def __init__(self, array_type):
        self.type = array_type

    def __repr__(self):
        return f"<numpy value of {self.type}>"


BUILDERS = {
    "numpy.dtype": ArrayType,
    "numpy.core.multiarray.scalar": make_scalar,
    "numpy._core.multiarray.scalar": make_scalar,
    "numpy.core.multiarray._reconstruct": make_empty,
    "numpy._core.multiarray._reconstruct": make_empty,
    "numpy.core.numeric._frombuffer": make_array,
    "numpy._core.numeric._frombuffer": make_array,
}
