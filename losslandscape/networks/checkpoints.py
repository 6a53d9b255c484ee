"""Checkpoints, read without running code that they may hold.

    checkpoint = read_checkpoint("model_300.t7")
    checkpoint.state_dict    {name: tensor on the CPU}
    checkpoint.info          {"epoch": 300, "acc": 94.1, ...}

A checkpoint is a file of torch.save (of any version) that holds a state dict, alone or as an entry
of a dict (see STATE_DICT_NAMES), or a .safetensors file. Reading is four steps, each a function:
open the file, find the state dict in its content, check the entries, clean their names.
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

import numpy as np
import torch
from torch import nn

from losslandscape.errors import InputError

__all__ = ["Checkpoint", "cannot_read", "checkpoint_hash", "read_checkpoint", "read_torch"]

# under which of these a dict keeps its state dict; the first one counts
STATE_DICT_NAMES = ("state_dict", "model_state_dict", "model", "net")

DATA_PARALLEL_PREFIX = "module."  # nn.DataParallel puts it before every name

# how the files of torch.save begin
ZIP_MARK = b"PK\x03\x04"
PICKLE_MARK = b"\x80"  # before PyTorch 1.6
TAR_MARK = b"ustar"  # before PyTorch 0.2
TAR_MARK_OFFSET = 257


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file."""

    state_dict: dict  # name -> tensor on the CPU, without the prefix of data-parallel training
    info: dict = field(default_factory=dict)  # everything else: epoch, acc, ...


def read_checkpoint(path, trust_pickle=False, mmap=False):
    """Checkpoint of the file at `path`.

    `trust_pickle`: read a file that holds more than tensors and plain values by running pickle,
    which runs any code that the file asks for; never the default.
    `mmap`: values stay in the file (where its format allows) until they are used, and have whatever
    memory format they have in the file.

    Raises InputError where there is no file, or no weights in it.
    """
    path = os.fspath(path)
    content, metadata = _read_content(path, trust_pickle, mmap)

    entries, rest = _find_state_dict(content)
    _check_entries(entries, path)
    state_dict = _strip_prefix(entries, path)

    if not mmap:
        # plain strides, for the last bits of a convolution may depend on those of its weights
        state_dict = {name: value.contiguous() for name, value in state_dict.items()}
    return Checkpoint(state_dict, metadata | rest)


def checkpoint_hash(path):
    """SHA-256 of the bytes of a file, as 64 hexadecimal digits."""
    with _open_for_reading(path) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def cannot_read(path, reason):
    """The InputError of a file that is no usable checkpoint."""
    return InputError(
        f"expected a checkpoint at {path}, can't read one ({reason}); "
        "give the file of a trained model")


# ---------------------------------------------------------------- from a file to weights


def _read_content(path, trust_pickle, mmap):
    """(the object that the file holds, metadata beside it)."""
    if path.endswith(".safetensors"):
        return _read_safetensors(path)
    return read_torch(path, trust_pickle, mmap), {}


def _find_state_dict(content):
    """(state dict or whatever stands in its place, the other entries of `content`)."""
    rest = {}
    if isinstance(content, Mapping):
        for name in STATE_DICT_NAMES:
            if isinstance(content.get(name), Mapping | nn.Module):
                rest = {key: value for key, value in content.items() if key != name}
                content = content[name]
                break

    # a whole network, which only pickle can read
    if isinstance(content, nn.Module):
        content = content.state_dict()
    return content, rest


def _check_entries(entries, path):
    """Raise InputError unless `entries` is a dict of tensors by name, with at least one."""
    if not isinstance(entries, Mapping):
        raise cannot_read(path, f"it holds {type(entries).__name__}, no weights")
    if not entries:
        raise cannot_read(path, "it holds an empty dict, no weights")

    for key, value in entries.items():
        if not isinstance(key, str) or not _is_plain_tensor(value):
            names = ", ".join(repr(name) for name in STATE_DICT_NAMES)
            raise cannot_read(
                path, f"its entry {key!r} is no plain tensor, or its weights aren't under {names}")


def _is_plain_tensor(value):
    """Whether `value` is a dense tensor of plain numbers with its values on the CPU."""
    if not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"


def _strip_prefix(entries, path):
    """{name without the prefix of data-parallel training: tensor without gradient}."""
    state_dict = {}
    for key, value in entries.items():
        state_dict[key.removeprefix(DATA_PARALLEL_PREFIX)] = value.detach()

    if len(state_dict) != len(entries):
        raise cannot_read(
            path, f"some keys stand in it with and without the prefix {DATA_PARALLEL_PREFIX}")
    return state_dict


# ---------------------------------------------------------------- formats of files


def read_torch(path, trust_pickle=False, mmap=False):
    """The object that torch.save wrote to `path`, on the CPU.

    Only tensors, numbers, texts and their containers are read. A file that needs more is refused,
    or, with `trust_pickle`, read by pickle, which runs any code that the file asks for. Raises
    InputError.
    """
    mark = _check_format(path)
    mmap = mmap and mark == ZIP_MARK  # the other formats can't be mapped

    # first without running code, whether or not the file is trusted
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as: this file may not be readable
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # whatever a damaged file makes the reader raise
        if not _asks_for_code(error):
            raise cannot_read(path, _first_sentence(error)) from None
        if not trust_pickle:
            raise _untrusted(path, error) from None

    try:
        # latin1 reads the numbers of files written by Python 2; it makes no difference to others
        return torch.load(path, map_location="cpu", weights_only=False, encoding="latin1")
    except Exception as error:  # also whatever the code of the file raises
        raise cannot_read(path, f"{type(error).__name__}: {_first_sentence(error)}") from None


def _check_format(path):
    """The mark with which the file begins; raises InputError unless it is one of torch.save's."""
    with _open_for_reading(path) as f:
        head = f.read(TAR_MARK_OFFSET + len(TAR_MARK))
    if not head:
        raise cannot_read(path, "the file is empty")

    for mark in (ZIP_MARK, PICKLE_MARK):
        if head.startswith(mark):
            return mark
    if head[TAR_MARK_OFFSET:] == TAR_MARK:
        return TAR_MARK
    raise cannot_read(path, "this is no file of torch.save")


def _asks_for_code(error):
    """Whether the safe reader refused the file, and not merely failed to read it."""
    if isinstance(error, pickle.UnpicklingError | UnicodeDecodeError):
        return True
    return "weights_only" in str(error)


def _untrusted(path, error):
    """The InputError of a file that only pickle can read."""
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code:
        reason = f"asks for the Python object {code[1]}"
    else:
        reason = "can't be read as plain tensors"
    return InputError(
        f"expected only tensors, numbers and texts in {path}, but it {reason}; if you trust who "
        "made the file, --trust_pickle reads it, which runs any code that it holds")


def _read_safetensors(path):
    """({name: tensor}, metadata) of a .safetensors file. Raises InputError."""
    try:
        from safetensors import safe_open
    except ImportError:
        raise InputError(f"safetensors is needed to read {path}; pip install safetensors") from None

    with _open_for_reading(path) as f:
        if not f.read(1):
            raise cannot_read(path, "the file is empty")

    try:
        with safe_open(path, framework="pt", device="cpu") as f:
            tensors = {key: f.get_tensor(key) for key in f.keys()}
            return tensors, dict(f.metadata() or {})
    except Exception as error:  # the library's own class, or OSError
        raise cannot_read(path, _first_sentence(error)) from None


@contextlib.contextmanager
def _open_for_reading(path):
    """open(path, "rb"), in which every OSError becomes an InputError."""
    try:
        with open(path, "rb") as f:
            yield f
    except OSError as error:
        raise cannot_read(path, error.strerror or error) from None


def _first_sentence(error):
    """The first sentence of an error of torch or safetensors; the rest is advice to programmers."""
    line = next(iter(str(error).splitlines()), "")
    line = re.sub(r"^\[enforce fail[^]]*\][ .]*", "", line)  # torch names a line of its own source
    sentence = re.split(r"\. | \(Could", line)[0]
    return textwrap.shorten(sentence, 120, placeholder=" ...") or type(error).__name__


# ---------------------------------------------------------------- numbers of numpy in old files


NUMBER_TYPE = re.compile(r"[biuf]\d{1,2}")  # names of numpy types: b1, i8, u1, f4, ...


class _NumpyType:
    """Stands in for numpy.dtype in a pickle: remembers its name and byte order, no more."""

    def __init__(self, name="", *_):
        self.name = name
        self.byte_order = ""

    def __setstate__(self, state):
        self.byte_order = state[1]


def _python_number(numpy_type, data):
    """Stands in for numpy's constructor of scalars: a plain Python number."""
    is_number = isinstance(numpy_type, _NumpyType) and NUMBER_TYPE.fullmatch(str(numpy_type.name))
    if not is_number:
        raise pickle.UnpicklingError("a scalar that isn't a number")

    byte_order = "="
    if numpy_type.byte_order in ("<", ">"):
        byte_order = numpy_type.byte_order

    if isinstance(data, str):  # in files written by Python 2
        data = data.encode()
    dtype = np.dtype(numpy_type.name).newbyteorder(byte_order)
    return np.frombuffer(bytes(data), dtype, count=1)[0].item()


# Old training scripts saved numpy numbers as `acc` or `epoch`. Allowing numpy's own functions would
# tie this to the installed numpy (the classes behind a dtype have moved); these stand-ins work for
# files of any version.
NUMPY_SCALARS = [
    (_NumpyType, "numpy.dtype"),
    (_python_number, "numpy.core.multiarray.scalar"),
    (_python_number, "numpy._core.multiarray.scalar"),
]
