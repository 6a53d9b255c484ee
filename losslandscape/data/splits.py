"""Examples in a fixed order: what is evaluated at every point.

    Split(inputs, targets)      held as tensors, sliced into batches
    Batches(source, count)      come in batches, from memory or read again at every pass

`inputs` is a tensor (N, ...), or a tuple or dict of them (see inputs.py).
`as_split(source, ...)` makes one of the two of whatever a user's function or file gives.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from losslandscape.data.inputs import (
    apply,
    as_targets,
    as_tensors,
    each,
    is_array,
    leaves,
    pair,
    shapes,
    size_in_bytes,
)
from losslandscape.errors import InputError

__all__ = [
    "FORMS", "Batches", "Split", "apply", "as_split", "chosen", "each", "leaves", "pair", "shapes",
    "split_hash"]

FORMS = (
    "(inputs, targets) tensors, a data set with __len__ and __getitem__ that gives "
    "(input, target), or batches (inputs, targets) that can be read again and again, as from a "
    "DataLoader")
CHECKED_EXAMPLES = 256  # whose order and values are compared between two passes, and hashed
COMPARED_EXAMPLES = 32  # of a data set that is read example by example


@dataclass(frozen=True)
class Split:
    """Examples held as tensors, in a fixed order."""

    inputs: torch.Tensor | tuple | dict  # (N, ...) each
    targets: torch.Tensor  # (N, ...)

    def __len__(self):
        return len(self.targets)

    @property
    def nbytes(self):
        """The memory of the inputs."""
        return size_in_bytes(self.inputs)

    def part(self, selection):
        """The examples of a slice or of an array of numbers."""
        return Split(each(self.inputs, lambda tensor: tensor[selection]), self.targets[selection])

    def batches(self, batch_size):
        """(inputs, targets) of each batch."""
        for start in range(0, len(self), batch_size):
            batch = self.part(slice(start, start + batch_size))
            yield batch.inputs, batch.targets


@dataclass(frozen=True)
class Batches:
    """Examples that come in batches of their own size, the same ones at every pass."""

    source: Iterable  # of (inputs, targets)
    count: int  # examples
    held: bool  # in memory

    def __len__(self):
        return self.count

    def batches(self, batch_size=None):
        """(inputs, targets) of each batch; their size is that of the source, not `batch_size`."""
        try:
            for batch in self.source:
                yield pair(batch)
        except InputError as error:
            # from a process of a DataLoader it comes with a traceback before it, all in one line
            _, traceback, message = str(error).rpartition("losslandscape.errors.InputError: ")
            if traceback:
                message = message.removesuffix("?")  # the printable form of its last line's end
            raise InputError(message) from None


# ---------------------------------------------------------------- of whatever a user gives


@dataclass(frozen=True)
class _Reading:
    """How the examples of one source are read."""

    name: str  # of the source, for messages
    data_split: int
    split_idx: int
    batch_size: int
    threads: int
    memory: float  # bytes


def as_split(
        source, name, part="train", data_split=1, split_idx=0, batch_size=128, threads=0,
        memory=float("inf")):
    """Split, or Batches where the examples do not fit into `memory` bytes or their shapes differ.

    source                  see FORMS
    name                    of the source, for messages
    part                    "train" or "test": only training examples are divided
    data_split, split_idx   see datasets.load_dataset
    batch_size, threads     how a data set that does not fit is read

    Raises InputError for anything else, and where two readings of the first examples differ.
    """
    if isinstance(source, Split | Batches):
        return source
    if part != "train":
        data_split, split_idx = 1, 0
    reading = _Reading(name, data_split, split_idx, batch_size, threads, memory)

    if isinstance(source, tuple) and len(source) == 2 and is_array(source[1]):
        return _from_tensors(source, reading)

    # a loader's data set is read in order, whatever its sampler
    collate = default_collate
    if isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset):
        collate = source.collate_fn or default_collate
        source = source.dataset

    _refuse_unreadable(source, name)
    if _is_map_style(source):
        return _from_examples(source, collate, reading)
    return _from_batches(source, reading)


def chosen(count, data_split, split_idx):
    """Numbers of the examples of part `split_idx` of `data_split`: (N // data_split,) integers.

    permutation(N)[i*n:(i+1)*n], n = N // data_split, of NumPy's legacy generator seeded 0.
    """
    size = count // data_split
    if size == 0:
        raise InputError(
            f"expected --data_split of at most {count}, the number of training examples, "
            f"got {data_split}; take fewer parts")
    order = np.random.RandomState(0).permutation(count)
    return order[split_idx * size:(split_idx + 1) * size]


def _is_map_style(source):
    """Has `source` a length and numbered examples? A list is one of batches."""
    numbered = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return numbered and not isinstance(source, list)


def _refuse_unreadable(source, name):
    """Raise InputError unless `source` gives examples by number or batches at every pass."""
    if isinstance(source, Iterator):
        description = "an iterator, which is spent after one pass"
    elif isinstance(source, str | bytes | Mapping | torch.Tensor | np.ndarray):
        description = type(source).__name__
    elif _is_map_style(source) or isinstance(source, Iterable):
        return
    else:
        description = type(source).__name__
    raise InputError(f"expected {FORMS} from {name}, got {description}; return one of these")


def _refuse_changing(name):
    raise InputError(
        f"expected the same examples in the same order at every pass over {name}, but the second "
        "differs from the first; switch shuffling and random augmentation off")


def _refuse_uneven(split, name):
    """Raise InputError unless there are examples, and as many targets as inputs."""
    counts = set()
    for tensor in [*leaves(split.inputs), split.targets]:
        counts.add(len(tensor) if tensor.dim() else 0)
    if len(counts) != 1 or counts == {0}:
        raise InputError(
            f"expected as many inputs as targets, and at least one, from {name}, "
            f"got inputs of shape {shapes(split.inputs) or '()'} and targets "
            f"{tuple(split.targets.shape)}; give one for each")


def _are_equal(first, second):
    """Are two batches equal, value for value?"""
    first_tensors = [*leaves(first[0]), first[1]]
    second_tensors = [*leaves(second[0]), second[1]]
    if len(first_tensors) != len(second_tensors):
        return False
    for a, b in zip(first_tensors, second_tensors, strict=True):
        if a.shape != b.shape or not torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)):
            return False
    return True


def _from_tensors(source, reading):
    split = Split(as_tensors(source[0]), as_targets(source[1]))
    _refuse_uneven(split, reading.name)
    if reading.data_split == 1:
        return split
    return split.part(chosen(len(split), reading.data_split, reading.split_idx))


def _from_examples(examples, collate: Callable, reading):
    """Of a data set with a length and numbered examples."""
    count = len(examples)
    if count == 0:
        raise InputError(f"expected at least one example from {reading.name}, got none; give more")
    if reading.data_split > 1:
        numbers = chosen(count, reading.data_split, reading.split_idx)
        examples = Subset(examples, numbers.tolist())
        count = len(examples)

    def first_batch():
        return pair(collate([examples[i] for i in range(compared)]))

    # two readings of the first examples must agree
    compared = min(count, COMPARED_EXAMPLES)
    inputs, targets = first_batch()
    if not _are_equal((inputs, targets), first_batch()):
        _refuse_changing(reading.name)

    # held in memory, unless it would not fit
    if size_in_bytes(inputs) / compared * count <= reading.memory:
        loader = DataLoader(examples, reading.batch_size, collate_fn=collate)
        return _gathered(loader, reading.name)
    loader = DataLoader(
        examples, reading.batch_size, shuffle=False, collate_fn=collate,
        num_workers=reading.threads, persistent_workers=reading.threads > 0)
    return Batches(loader, count, held=False)


def _from_batches(source, reading):
    """Of what gives batches at every pass: held in memory where they fit."""
    if reading.data_split > 1:
        raise InputError(
            f"expected a data set with __len__ and __getitem__ from {reading.name} for "
            "--data_split, got batches; leave --data_split out, or return a smaller set")

    # two readings of the first batches must agree
    first = _first_batches(source)
    second = _first_batches(source)
    if not first:
        raise InputError(f"expected at least one batch from {reading.name}, got none; give more")
    if len(first) != len(second) or not all(map(_are_equal, first, second)):
        _refuse_changing(reading.name)

    # hold them as long as they fit; go on to count the examples where they don't
    used, count, held = 0, 0, []
    for inputs, targets in map(pair, source):
        count += len(targets)
        used += size_in_bytes(inputs)
        if used <= reading.memory:
            held.append((inputs, targets))
        else:
            held.clear()
    if used > reading.memory:
        return Batches(source, count, held=False)
    return _gathered(held, reading.name)


def _first_batches(source, examples=CHECKED_EXAMPLES):
    """The batches that hold the first `examples` examples, as a list of (inputs, targets)."""
    batches, count = [], 0
    for batch in source:
        inputs, targets = pair(batch)
        batches.append((inputs, targets))
        count += len(targets)
        if count >= examples:
            break
    return batches


def _gathered(source, name):
    """Split of all batches, or Batches held in memory where they can't be joined."""
    batches = [pair(batch) for batch in source]
    for inputs, targets in batches:
        _refuse_uneven(Split(inputs, targets), name)

    try:
        inputs = _join_inputs([inputs for inputs, _ in batches])
        targets = torch.cat([targets for _, targets in batches])
    except (RuntimeError, ValueError):  # texts padded to the longest of their batch, say
        count = sum(len(targets) for _, targets in batches)
        return Batches(batches, count, held=True)
    return Split(inputs, targets)


def _join_inputs(inputs):
    """One value of the inputs of several batches, joined along the examples."""
    if isinstance(inputs[0], torch.Tensor):
        return torch.cat(inputs)
    if isinstance(inputs[0], Mapping):
        return {key: _join_inputs([entry[key] for entry in inputs]) for key in inputs[0]}
    return tuple(_join_inputs(list(entries)) for entries in zip(*inputs, strict=True))


# ---------------------------------------------------------------- did two runs see the same data?


def split_hash(split):
    """sha256 (hex) of shapes, types and values of a split, in order.

    Of batches that are read again at every pass: of their number of examples and the first ones.
    """
    digest = hashlib.sha256()
    if isinstance(split, Split):
        batches = [(split.inputs, split.targets)]
    elif split.held:
        batches = split.batches()
    else:
        digest.update(f"{len(split)} examples\n".encode())
        batches = _first_batches(split.batches())

    for inputs, targets in batches:
        for tensor in [*leaves(inputs), targets]:
            _update(digest, tensor)
    return digest.hexdigest()


def _update(digest, tensor):
    """Add shape, type and values of a tensor to a hash."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:  # numpy has none
        tensor = tensor.view(torch.int16)
    array = tensor.numpy()
    digest.update(f"{array.shape} {array.dtype}\n".encode())
    digest.update(array.reshape(-1).view(np.uint8))  # no copy
