"""Checkpoints, read without running code that they may hold.

A checkpoint is a file of torch.save (any version) that holds a state dict, alone or as an entry of a dict
(`state_dict`, `model_state_dict`, `model`, `net`), or a .safetensors file.
"""

import contextlib
import hashlib
import os
import pickle
import re
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from losslandscape.errors import InputError

STATE_NAMES = ("state_dict", "model_state_dict", "model", "net")  # where dicts keep their state dict


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    state_dict: dict  # name -> tensor on the CPU, without the prefix `module.` of data-parallel training
    info: dict = field(default_factory=dict)  # everything else: epoch, acc, ...


# ---------------------------------------------------------------- reading without running code


class _DType:
    """Stands in for numpy.dtype in a pickle: remembers its name and byte order, and can do nothing else."""

    def __init__(self, name="", *_):
        self.name, self.order = name, ""

    def __setstate__(self, state):
        self.order = state[1]


def _scalar(dtype, data):
    """Stands in for numpy's constructor of scalars: a plain Python number."""
    import numpy as np

    if not isinstance(dtype, _DType) or not re.fullmatch(r"[biuf]\d{1,2}", str(dtype.name)):
        raise pickle.UnpicklingError("a scalar that isn't a number")
    order = dtype.order if dtype.order in ("<", ">") else "="
    data = data.encode() if isinstance(data, str) else bytes(data)  # text in files written by Python 2
    return np.frombuffer(data, np.dtype(dtype.name).newbyteorder(order), count=1)[0].item()


# Old training scripts saved numpy numbers as `acc` or `epoch`. Allowing numpy's own functions would tie this to the
# numpy version at hand (the classes behind a dtype have moved); these stand-ins work for files of any version.
NUMPY_SCALARS = [
    (_DType, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]


def _cannot_read(path, reason):
    return InputError(f"expected a checkpoint at {path}, can't read one ({reason}); give the file of a trained model")


@contextlib.contextmanager
def _open(path):
    try:
        with open(path, "rb") as f:
            yield f
    except OSError as error:
        raise _cannot_read(path, error.strerror or error) from None


def _first_line(error):
    line = next(iter(str(error).splitlines()), "")
    line = re.sub(r"^\[enforce fail[^]]*\][ .]*", "", line)  # torch names a line of its own source
    sentence = re.split(r"\. | \(Could", line)[0]  # the rest is advice to programmers
    return textwrap.shorten(sentence, 120, placeholder=" ...") or type(error).__name__


def read_torch(path, trust_pickle=False, mmap=False):
    """The object that torch.save wrote to `path`, on the CPU.

    Only tensors, numbers, texts and their containers are read. A file that needs more is refused, or, with
    `trust_pickle`, read by pickle, which runs any code that the file asks for. Raises InputError.
    """
    with _open(path) as f:
        head = f.read(262)
    if not head:
        raise _cannot_read(path, "the file is empty")
    # zip archive, bare pickles (before PyTorch 1.6), tar archive (before 0.2)
    if not (head.startswith((b"PK\x03\x04", b"\x80")) or head[257:262] == b"ustar"):
        raise _cannot_read(path, "this is no file of torch.save")
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as: this file may not be readable
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and head.startswith(b"PK"))
    except Exception as error:  # whatever a damaged file makes the reader raise
        refused = isinstance(error, pickle.UnpicklingError | UnicodeDecodeError) or "weights_only" in str(error)
        if not refused:
            raise _cannot_read(path, _first_line(error)) from None
        if not trust_pickle:
            code = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"asks for the Python object {code[1]}" if code else "can't be read as plain tensors"
            raise InputError(
                f"expected only tensors, numbers and texts in {path}, but it {what}; if you trust who made the file, "
                "--trust_pickle reads it, which runs any code that it holds"
            ) from None
    try:
        # latin1 reads the numbers of files written by Python 2; it makes no difference to others
        return torch.load(path, map_location="cpu", weights_only=False, encoding="latin1")
    except Exception as error:  # also whatever the code of the file raises
        raise _cannot_read(path, f"{type(error).__name__}: {_first_line(error)}") from None


def _read_safetensors(path):
    """(state dict, metadata) of a .safetensors file."""
    try:
        from safetensors import safe_open
    except ImportError:
        raise InputError(f"safetensors is needed to read {path}; pip install safetensors") from None
    with _open(path) as f:
        if not f.read(1):
            raise _cannot_read(path, "the file is empty")
    try:
        with safe_open(path, framework="pt", device="cpu") as f:
            return {key: f.get_tensor(key) for key in f.keys()}, dict(f.metadata() or {})
    except Exception as error:  # the library has one exception class of its own, and passes OSError on
        raise _cannot_read(path, _first_line(error)) from None


def read_checkpoint(path, trust_pickle=False, mmap=False):
    """Checkpoint from a file; see the head of this module for the layouts. Raises InputError.

    `trust_pickle`: read files that hold more than tensors and plain values by running pickle; never the default.
    `mmap`: values stay in the file (where its format allows) until they are used, in whatever memory format it has.
    """
    path = os.fspath(path)
    if path.endswith(".safetensors"):
        state, info = _read_safetensors(path)
    else:
        state, info = read_torch(path, trust_pickle, mmap), {}
        for name in STATE_NAMES:
            if isinstance(state, Mapping) and isinstance(state.get(name), Mapping | nn.Module):
                info = {key: value for key, value in state.items() if key != name}
                state = state[name]
                break
        if isinstance(state, nn.Module):  # a whole network, which only pickle can read
            state = state.state_dict()
    if not isinstance(state, Mapping) or not state:
        raise _cannot_read(path, f"it holds {'an empty dict' if state == {} else type(state).__name__}, no weights")
    weights = {}
    for key, value in state.items():
        if not isinstance(key, str) or not _is_plain(value):
            raise _cannot_read(path, f"its entry {key!r} is no plain tensor, or its weights aren't under "
                                     f"{', '.join(map(repr, STATE_NAMES))}")
        # plain strides: the last bits of a convolution may depend on the memory format of its weights
        weights[key.removeprefix("module.")] = value.detach() if mmap else value.detach().contiguous()
    if len(weights) != len(state):
        raise _cannot_read(path, "some keys are there with and without the prefix module.")
    return Checkpoint(weights, info)


def _is_plain(value):
    return (isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized
            and value.device.type == "cpu")


def checkpoint_hash(path):
    """SHA-256 of the bytes of a file, as 64 hexadecimal digits."""
    with _open(path) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
