"""Single examples -> a batch, where no collation of the user's own does it.

An example is a pair (input, target), a tuple (input, target, weight, ...), or a dict with a key of
batch_forms.TARGETS. Its numbers, lists of numbers, arrays and tensors are stacked; a list of
numbers is a vector.
"""

from collections.abc import Mapping

import torch

from losslandscape.data.batch_forms import target_key
from losslandscape.data.inputs import is_object
from losslandscape.data.values import (
    as_tensor,
    dimensions_of,
    is_array,
    is_number,
    is_numbers,
    is_text,
    type_in_words,
)
from losslandscape.errors import InputError

DIMENSIONS = {"input_ids": 1, "pixel_values": 3}  # of one example, in a dict


def is_example(entry):
    """Is `entry` of a source a single example, and no batch: is its target a number?"""
    if is_object(entry):
        return False
    if isinstance(entry, Mapping):
        for name, dimensions in DIMENSIONS.items():
            if name in entry and dimensions_of(entry[name]) == dimensions:
                return True
        key = target_key(entry)
        return key is not None and dimensions_of(entry[key]) == 0
    if isinstance(entry, tuple | list) and len(entry) >= 2:
        return dimensions_of(entry[1]) == 0
    return False


def stack_examples(examples):
    """One batch of a list of examples.

    Raises InputError, which names the field and its type, for what has several shapes or is no
    number, array or tensor.
    """
    if isinstance(examples[0], tuple | list):
        return _stacked_entries(examples, "an example")
    return _stacked(examples, "an example")


class Stacked:
    """The examples of an iterable, stacked to batches of `size`, at every pass."""

    def __init__(self, examples, size):
        self.examples, self.size = examples, size

    def __iter__(self):
        waiting = []
        for example in self.examples:
            waiting.append(example)
            if len(waiting) == self.size:
                yield stack_examples(waiting)
                waiting = []
        if waiting:
            yield stack_examples(waiting)


def _stacked(entries, field):
    """Entries of one field of several examples as one value."""
    first = entries[0]
    if is_text(first):
        return list(entries)
    if is_array(first) or is_number(first) or (isinstance(first, list) and is_numbers(first)):
        return _stacked_tensors(entries, field)

    # field by field
    if isinstance(first, Mapping):
        stacked = {}
        for name in first:
            stacked[name] = _stacked([_entry_of(entry, name) for entry in entries], repr(name))
        return stacked
    if isinstance(first, tuple | list):
        return _stacked_entries(entries, field)

    advice = "convert it to a tensor, or give a DataLoader with a collate_fn"
    if type(first).__module__.startswith("torch_geometric"):
        advice = "give torch_geometric.loader.DataLoader(data, batch_size=...)"
    raise InputError(
        f"expected tensors, arrays or numbers, got {type_in_words(first)} in {field}; {advice}")


def _stacked_entries(sequences, field):
    """Sequences of several examples as a tuple of their entries, each stacked."""
    stacked = []
    for i in range(len(sequences[0])):
        column = [_entry_of(sequence, i) for sequence in sequences]
        stacked.append(_stacked(column, f"entry {i + 1} of {field}"))
    return tuple(stacked)


def _entry_of(example, name):
    try:
        return example[name]
    except (KeyError, IndexError, TypeError):
        raise InputError(
            f"expected the same fields in every example, but one lacks {name!r} "
            f"({type_in_words(example)}); give it to all") from None


def _stacked_tensors(entries, field):
    """(N, ...) of N numbers, tensors, arrays or lists of numbers of one shape."""
    if not all(isinstance(entry, torch.Tensor) for entry in entries):
        for entry in entries:
            if not (is_array(entry) or is_number(entry) or is_numbers(entry)):
                raise InputError(
                    f"expected tensors, arrays or numbers, got {type_in_words(entry)} in {field}; "
                    "convert it to a tensor")

        # numbers make one tensor at once
        if not any(is_array(entry) or is_numbers(entry) for entry in entries):
            return as_tensor(list(entries), field)
        entries = [as_tensor(entry, field) for entry in entries]

    sizes = {entry.shape for entry in entries}
    if len(sizes) > 1:
        smallest, largest = tuple(min(sizes)), tuple(max(sizes))
        raise InputError(
            f"expected examples of one shape, got {smallest} and {largest} in {field}; "
            "pad them: DataLoader(data, batch_size=..., collate_fn=...)")
    return as_tensor(torch.stack(entries), field)
