"""Examples in a fixed order: what is evaluated at every point.

    Split(inputs, targets)      held as tensors, sliced into batches
    Batches(source, count)      come in batches, from memory or read again at every pass

`inputs` is a tensor (N, ...), or a tuple or dict of them (see inputs.py), and so are `targets`.
`as_split(source, ...)` makes one of the two of whatever a user's function or file gives.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from losslandscape.data.batch_forms import BatchReader, pair, target_key
from losslandscape.data.digests import add_batch, are_equal
from losslandscape.data.inputs import (
    SampleList,
    apply,
    are_rows_of,
    each,
    is_object,
    joined,
    leaves,
    samples_in,
    shapes,
    size_in_bytes,
    to_device,
)
from losslandscape.data.sources import FORMS, Reading, chosen, source_of, with_plain_errors
from losslandscape.data.values import is_array, is_text
from losslandscape.errors import InputError

__all__ = [
    "FORMS", "Batches", "SampleList", "Split", "apply", "as_split", "chosen", "each", "is_object",
    "leaves", "pair", "samples_in", "shapes", "split_hash", "to_device"]

COMPARED_ROWS = 256  # whose order and values are compared between two passes, and hashed
SECONDS_BEFORE_A_NOTE = 60  # of reading what may never end


@dataclass(frozen=True)
class Split:
    """Examples held as tensors, in a fixed order.

    target_name: the key (or attribute) under which the batches held their targets, '' for pairs.
    """

    inputs: torch.Tensor | tuple | dict  # (N, ...) each
    targets: torch.Tensor | tuple | dict  # (N, ...) each
    target_name: str = ""

    def __len__(self):
        return samples_in(self.targets)

    @property
    def nbytes(self):
        """The memory of the inputs."""
        return size_in_bytes(self.inputs)

    def part(self, selection):
        """The examples of a slice or of an array of numbers."""

        def selected(tensor):
            return tensor[selection]

        return Split(each(self.inputs, selected), each(self.targets, selected), self.target_name)

    def first(self, count):
        """The first `count` examples, as a Split."""
        return self.part(slice(count))

    def batches(self, batch_size):
        """(inputs, targets) of each batch."""
        for start in range(0, len(self), batch_size):
            batch = self.part(slice(start, start + batch_size))
            yield batch.inputs, batch.targets


@dataclass(frozen=True)
class Batches:
    """Examples that come in batches of their own size, the same ones at every pass.

    target_name: as in Split.
    """

    source: Iterable  # of whatever `read` takes
    count: int  # examples
    held: bool  # in memory
    target_name: str = ""
    read: Callable = pair  # an entry of `source` -> (inputs, targets)

    def __len__(self):
        return self.count

    def first(self, count):
        """The first batches that hold `count` examples, as Batches that are held."""
        batches, samples = [], 0
        for inputs, targets in self.batches():
            batches.append((inputs, targets))
            samples += samples_in(targets)
            if samples >= count:
                break
        return Batches(batches, samples, True, self.target_name, read=_as_it_is)

    def batches(self, batch_size=None):
        """(inputs, targets) of each batch; their size is that of the source, not `batch_size`."""
        for batch in with_plain_errors(self.source):
            yield self.read(batch)


def _as_it_is(batch):
    return batch


# ---------------------------------------------------------------- of whatever a user gives


def as_split(
        source, name, part="train", data_split=1, split_idx=0, batch_size=128, threads=0,
        memory=float("inf"), quiet=False):
    """Split, or Batches where the examples don't fit into `memory` bytes or can't be cut anew.

    source                  see sources.FORMS and batch_forms.py
    name                    of the source, for messages
    part                    "train" or "test": only training examples are divided
    data_split, split_idx   see datasets.load_dataset
    batch_size, threads     how a data set that does not fit is read
    quiet                   no notes about what is left out

    Raises InputError for anything else, and where two readings of the first examples differ.
    """
    if isinstance(source, Split | Batches):
        return source
    if part != "train":
        data_split, split_idx = 1, 0
    reading = Reading(name, data_split, split_idx, batch_size, threads, memory)
    reader = BatchReader()

    notes = []
    if is_whole(source):
        split = _of_whole(source, reader, reading)
    else:
        batches = source_of(source, reading)
        notes.append(batches.note)
        split = _of_source(batches, reader, reading)

    if reader.left_out:
        fields = ", ".join(f"{field} ({kind})" for field, kind in reader.left_out.items())
        notes.append(f"text is left out of {name}: {fields}")
    for note in notes:
        if note and not quiet:
            print(f"note: {note}", file=sys.stderr)
    return split


# ---------------------------------------------------------------- all at once


def is_whole(source):
    """Is `source` all examples at once: arrays, a dict of them, or one graph?"""
    if is_object(source):
        return not isinstance(source, Dataset) and target_key(source) is not None
    if isinstance(source, Mapping):
        return target_key(source) is not None and all(map(_is_column, source.values()))
    if not isinstance(source, tuple | list) or len(source) < 2:
        return False

    # a list of pairs is one of batches, a tuple of two is a pair
    if all(map(is_array, source[1:])):
        return is_array(source[0]) or isinstance(source, tuple)
    return isinstance(source, tuple) and len(source) == 2 and all(map(_is_column, source))


def _is_column(value):
    """Is `value` an array with dimensions or a list of words, or made of such?"""
    if is_array(value):
        return value.ndim > 0
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list) and len(value) > 0:
        return is_text(value) or all(map(_is_column, value))
    return False


def _of_whole(source, reader, reading):
    """Split of all examples at once; Batches of one batch where they can't be cut."""
    inputs, targets = reader.read(source)
    if is_object(inputs) and reading.data_split == 1:
        return Batches(
            [(inputs, targets)], samples_in(targets), True, reader.target_name, read=_as_it_is)

    split = Split(inputs, targets, reader.target_name)
    _refuse_uneven(split, reading.name)
    if reading.data_split == 1:
        return split
    return split.part(chosen(len(split), reading.data_split, reading.split_idx))


def _refuse_uneven(split, name):
    """Raise InputError unless there are examples, and a row of inputs and targets for each."""
    count = samples_in(split.targets)
    if count > 0 and are_rows_of(split.inputs, count) and are_rows_of(split.targets, count):
        return
    raise InputError(
        f"expected as many inputs as targets, and at least one, from {name}, "
        f"got inputs of shape {shapes(split.inputs) or '()'} and targets "
        f"{shapes(split.targets) or '()'}; give one for each")


# ---------------------------------------------------------------- in batches


def _of_source(source, reader, reading):
    """Split or Batches of batches in a fixed order, held in memory where they fit."""
    # two readings of the first ones must agree
    first = _first_batches(source.first, reader)
    if not first:
        raise InputError(f"expected at least one batch from {reading.name}, got none; give more")
    second = _first_batches(source.first, reader)
    if len(first) != len(second) or not all(map(are_equal, first, second)):
        raise InputError(
            "expected the same examples in the same order at every pass over "
            f"{reading.name}, but the second differs from the first; switch shuffling and random "
            "augmentation off")

    if reading.data_split > 1 and not source.divided:
        return _part_of_rows(source, reader, reading)

    # is it known beforehand that they don't fit?
    if source.count is not None:
        size = sum(size_in_bytes(inputs) for inputs, _ in first)
        samples = sum(samples_in(targets) for _, targets in first)
        if size / samples * source.count > reading.memory:
            return _streamed(source, source.count, reader)
    batches, count = _held_batches(source, reader, reading)
    if batches is None:
        return _streamed(source, count, reader)
    return _gathered(batches, source.are_rows, reader, reading.name)


def _streamed(source, count, reader):
    return Batches(source.streamed, count, False, reader.target_name, read=reader.read)


def _first_batches(batches, reader, rows=COMPARED_ROWS):
    """The batches that hold the first `rows` examples, as a list of (inputs, targets)."""
    entries, count = [], 0
    for entry in with_plain_errors(batches):
        entries.append(entry)
        count += samples_in(reader.read(entry)[1])
        if count >= rows:
            break

    # a later batch may have cleared up what the lists of the first ones are
    return [reader.read(entry) for entry in entries]


def _held_batches(source, reader, reading):
    """(all batches, number of examples); None in place of the batches where they don't fit."""
    start = time.monotonic()
    is_told = False
    batches, count, size = [], 0, 0
    for entry in with_plain_errors(source.batches):
        inputs, targets = reader.read(entry)
        count += samples_in(targets)
        size += size_in_bytes(inputs)
        if size <= reading.memory:
            batches.append((inputs, targets))
        else:
            batches.clear()

        if not is_told and time.monotonic() - start > SECONDS_BEFORE_A_NOTE:
            is_told = True
            print(
                f"note: still reading {reading.name}, {count} examples so far; does it end?",
                file=sys.stderr)
    if size > reading.memory:
        return None, count
    return batches, count


def _gathered(batches, are_rows, reader, name):
    """Split of all batches, or Batches held in memory where they can't be joined."""
    count = 0
    for inputs, targets in batches:
        samples = samples_in(targets)
        if samples == 0:
            _refuse_uneven(Split(inputs, targets), name)
        count += samples
        are_rows = are_rows and are_rows_of(inputs, samples) and are_rows_of(targets, samples)

    if are_rows:
        try:
            inputs = joined([inputs for inputs, _ in batches])
            targets = joined([targets for _, targets in batches])
            return Split(inputs, targets, reader.target_name)
        except (RuntimeError, ValueError):  # texts padded to the longest of their batch, say
            pass
    return Batches(batches, count, True, reader.target_name, read=_as_it_is)


def _part_of_rows(source, reader, reading):
    """Split of the rows of batches that --data_split and --split_idx ask for."""
    _, count = _held_batches(source, reader, Reading(reading.name, memory=0))
    numbers = chosen(count, reading.data_split, reading.split_idx)
    is_chosen = torch.zeros(count, dtype=torch.bool)
    is_chosen[numbers] = True

    # the rows in the order in which they come
    parts, size, start = [], 0, 0
    for entry in with_plain_errors(source.batches):
        inputs, targets = reader.read(entry)
        samples = samples_in(targets)
        are_rows = are_rows_of(inputs, samples) and are_rows_of(targets, samples)
        if not (source.are_rows and are_rows):
            _refuse_to_divide(reading.name)
        rows = is_chosen[start:start + samples]
        part = Split(inputs, targets).part(rows)
        parts.append((part.inputs, part.targets))
        size += size_in_bytes(part.inputs)
        start += samples
        if size > reading.memory:
            raise InputError(
                f"expected part {reading.split_idx} of {reading.data_split} of {reading.name} to "
                f"fit into {reading.memory:.3g} bytes of memory, it does not; raise --data_split, "
                "or give a data set with __len__ and __getitem__")

    split = _gathered(
        [part for part in parts if samples_in(part[1])], True, reader, reading.name)
    if not isinstance(split, Split):
        _refuse_to_divide(reading.name)

    # in the order of all other data sets
    order = torch.from_numpy(numbers).argsort().argsort()
    return split.part(order)


def _refuse_to_divide(name):
    raise InputError(
        f"expected batches of independent rows of one shape from {name} for --data_split, got "
        "others; leave --data_split out, or return a smaller set")


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
        batches = split.first(COMPARED_ROWS).batches()

    for inputs, targets in batches:
        add_batch(digest, inputs, targets)
    return digest.hexdigest()
