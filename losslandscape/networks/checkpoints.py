"""Checkpoints, read without running code that they may hold.

    checkpoint = read_checkpoint("model_300.t7")
    checkpoint.state_dict    {name: tensor on the CPU}
    checkpoint.info          {"epoch": 300, "acc": 94.1, ...}

A checkpoint is a file of torch.save (of any version) or .safetensors, the index of several such
files, or a folder (see folders.py). It holds weights, alone or as an entry of a dict, and perhaps
several times: those of the network, their average, those of another network. Which of them are
meant is seen from the network (see `Checkpoint.candidates` and loading.py), or chosen by a key.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from losslandscape.errors import InputError
from losslandscape.messages import printable
from losslandscape.networks import folders
from losslandscape.networks.fit import is_weight, size_in_words
from losslandscape.networks.formats import (
    cannot_read,
    open_file,
    read_safetensors,
    read_torch,
    run_pickle,
)
from losslandscape.networks.pickles import Inert, survey

__all__ = ["Checkpoint", "cannot_read", "checkpoint_hash", "read_checkpoint", "read_torch"]

# under which of these a dict keeps its weights, the likeliest first; averages come last
STATE_DICT_NAMES = (
    "state_dict", "model_state_dict", "model", "net", "module", "model_state", "weights", "params",
    "network", "state_dict_ema", "model_ema", "ema", "ema_state_dict",
)  # fmt: skip
PARTS_OF_AVERAGES = ("ema", "swa", "averag")  # in names of entries that hold averaged weights

MAX_CANDIDATES = 100  # of a file
CANDIDATE_DEPTH = 3  # of dicts in each other that are searched for weights
MAX_PARTS = 10**5  # of a network: layers, blocks, ...
MAX_DEPTH = 100  # of parts in parts


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    candidates: {key: {name: value}}, everything that may be weights, the likeliest first. key: of
    the entry of the file, 'a.b' of an entry in an entry, '' where the file itself is the dict. The
    values are tensors on the CPU, or of anything else an Inert that says what it is.
    """

    path: str
    candidates: dict
    content: object = None  # all that was read
    metadata: dict = field(default_factory=dict)  # texts that stand beside the content
    adapter: dict = field(default_factory=dict)  # the configuration of an adapter of PEFT

    @property
    def key(self):
        """The key of the likeliest weights."""
        return next(iter(self.candidates))

    @property
    def state_dict(self):
        """{name: tensor} of the likeliest weights, without regard to a network."""
        return self.candidates[self.key]

    @property
    def info(self):
        """Everything but those weights: epoch, acc, ..."""
        if not isinstance(self.content, Mapping):
            return self.metadata
        top_key = self.key.partition(".")[0]
        rest = {
            key: value for key, value in self.content.items()
            if key != top_key and not (self.key == "" and is_weight(value))
        }  # fmt: skip
        return self.metadata | rest

    @property
    def foreign_objects(self):
        """Names of the classes beside the weights whose objects were not made."""
        return survey(self.info)

    def chosen(self, key):
        """The same with the weights of one key alone; raises InputError where there are none.

        key: of a candidate, or what the names of the tensors that are meant begin with.
        """
        if not key:
            return self
        if key in self.candidates:
            return self.narrowed({key: self.candidates[key]})

        prefix = key.rstrip(".") + "."
        for name, entries in self.candidates.items():
            part = {
                entry.removeprefix(prefix): value for entry, value in entries.items()
                if entry.startswith(prefix)
            }  # fmt: skip
            if part:
                return self.narrowed({name: part})
        raise InputError(
            f"expected weights under --checkpoint_key {key} in {self.path}, got none; "
            f"there are {candidates_in_words(self.candidates)}")

    def narrowed(self, candidates):
        return Checkpoint(self.path, candidates, self.content, self.metadata, self.adapter)


def read_checkpoint(path, trust_pickle=False, key="", classes=None):
    """Checkpoint at `path`. Values may stay in the file until they are used.

    `trust_pickle`: read a file that has no weights for the safe reader, or asks for code, by
    running pickle, which runs any code that the file asks for; never the default.
    key: --checkpoint_key. classes: a module with classes for pickle, see formats.run_pickle.

    Raises InputError where there is no file, or no weights in it.
    """
    path = os.fspath(path)
    content, metadata, adapter = _read_content(path, trust_pickle, classes)
    candidates = find_candidates(content)
    if not candidates and trust_pickle and survey(content):
        content = run_pickle(path, classes)
        candidates = find_candidates(content)
    if not candidates:
        raise _without_weights(path, content)
    return Checkpoint(path, candidates, content, metadata, adapter).chosen(key)


def checkpoint_hash(path):
    """SHA-256 of all bytes of a checkpoint, as 64 hexadecimal digits.

    Of several files it is that of their names and hashes.
    """
    files = folders.files_of(os.fspath(path))
    hashes = []
    for file in files:
        with open_file(file) as f:
            hashes.append(hashlib.file_digest(f, "sha256").hexdigest())
    if len(files) == 1:
        return hashes[0]

    lines = [
        f"{os.path.basename(file)} {digest}\n" for file, digest in zip(files, hashes, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read_content(path, trust_pickle, classes):
    """(the object that a file or folder holds, metadata beside it, configuration of an adapter)."""

    def read_file(file):
        if file.endswith(".safetensors"):
            return read_safetensors(file)
        return read_torch(file, trust_pickle, classes), {}

    if folders.is_of_several_files(path):
        return folders.read_folder(path, read_file)
    return *read_file(path), {}


# ---------------------------------------------------------------- weights in what was read


def find_candidates(content):
    """{key: {name: value}} of everything in `content` that may be weights, the likeliest first."""
    candidates = {}
    _collect(content, "", candidates)

    def rank(key):
        if key in STATE_DICT_NAMES:
            return (is_average(key), STATE_DICT_NAMES.index(key))
        return (is_average(key), len(STATE_DICT_NAMES) + key.count("."))

    return {key: candidates[key] for key in sorted(candidates, key=rank)}


def is_average(key):
    """Whether an entry of this name holds averages of the weights over the steps of training."""
    return any(part in key.lower() for part in PARTS_OF_AVERAGES)


def _collect(value, key, candidates):
    """Put the weights in `value`, and in dicts in it, into `candidates`."""
    if len(candidates) >= MAX_CANDIDATES or key.startswith("optim"):
        return
    entries = weights_of(value)
    if entries:
        candidates[key] = entries
    if isinstance(value, Mapping) and (not key or key.count(".") + 1 < CANDIDATE_DEPTH):
        for name, part in value.items():
            if isinstance(name, str) and isinstance(part, Mapping | nn.Module | Inert):
                _collect(part, f"{key}.{name}" if key else name, candidates)


def weights_of(value):
    """{name: tensor or what stands for one} of a state dict or a whole network; empty for others.

    A dict counts as one if it holds a tensor.
    """
    if isinstance(value, nn.Module):  # which only pickle can read
        value = value.state_dict()
    elif isinstance(value, Inert):
        value = tensors_of_module(value)
    if not isinstance(value, Mapping):
        return {}

    entries = {
        name: as_weight(entry) for name, entry in value.items()
        if isinstance(name, str) and not isinstance(entry, Mapping)
    }  # fmt: skip
    if not any(is_weight(entry) for entry in entries.values()):
        return {}
    return entries


def tensors_of_module(module):
    """The state dict of a pickled network whose class is not run, as {name: tensor}.

    module: its Inert. Networks keep their tensors in dicts of their own: `_parameters`, `_buffers`
    without the `_non_persistent_buffers_set`, and those of the networks in `_modules`. Empty for
    one that holds itself, or others beyond MAX_PARTS and MAX_DEPTH.
    """
    tensors = {}
    waiting = [("", 0, module)]
    for _ in range(MAX_PARTS):
        if not waiting:
            return tensors
        prefix, depth, part = waiting.pop()
        transient = part.state.get("_non_persistent_buffers_set")
        if not isinstance(transient, set):
            transient = ()

        for group in ("_parameters", "_buffers"):
            for name, tensor in _dict_in(part.state, group).items():
                if tensor is not None and (group == "_parameters" or name not in transient):
                    tensors[f"{prefix}{name}"] = tensor

        # the first of its parts comes next, as in state_dict()
        inner = [
            (f"{prefix}{name}.", depth + 1, value)
            for name, value in _dict_in(part.state, "_modules").items() if isinstance(value, Inert)
        ]  # fmt: skip
        if depth > MAX_DEPTH:
            return {}
        waiting += reversed(inner)
    return {}


def _dict_in(state, name):
    value = state.get(name)
    if isinstance(value, dict):
        return value
    return {}


def as_weight(value):
    """A tensor without gradient; of what is none, an Inert that says what it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    if not isinstance(value, torch.Tensor):
        return value

    reason = reason_against(value)
    if reason:
        return Inert(reason)
    return value.detach()


def reason_against(tensor):
    """What a tensor is that can't be moved along a direction, in words; '' for a plain one."""
    if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
        return "lazy tensor without values"
    if tensor.is_nested:
        return "nested tensor"
    if tensor.is_quantized:
        return "quantized tensor"
    if tensor.layout != torch.strided:
        return "sparse tensor"
    if tensor.device.type == "meta":
        return "tensor without values"
    return ""


# ---------------------------------------------------------------- in words


def candidates_in_words(candidates):
    """'state_dict (62 tensors, 272474 values), ema (...)'"""
    return ", ".join(
        f"{printable(key) or 'the whole file'} ({size_in_words(entries)})"
        for key, entries in candidates.items())


def _without_weights(path, content):
    """The InputError of a file without weights."""
    names = survey(content)
    if names:
        class_name = printable(names[0])
        return cannot_read(
            path, f"it holds an object of {class_name}, no weights",
            "save its weights, torch.save(net.state_dict(), 'weights.pt'), or, if you trust who "
            "made the file, --trust_pickle reads it, which runs any code that it holds")

    if isinstance(content, Mapping):
        keys = ", ".join(printable(key) for key in content if isinstance(key, str))
        return cannot_read(path, f"it holds a dict without tensors ({keys or 'empty'})")
    return cannot_read(path, f"it holds {type(content).__name__}, no weights")
