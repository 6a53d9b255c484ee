"""What others give as a batch, and what it becomes: (inputs, targets), see inputs.py.

    (inputs, targets)               a pair
    (inputs, targets, weight, ...)  the network gets the first, the loss the others as a tuple
    {"labels": targets, ...}        a dict with a key of TARGETS; the others are the inputs
    an object with .to(device)      that holds its targets as .y, .labels, ...: a graph, say

Targets are a tensor, or a tuple or dict of them, or a list with one entry for each sample. Text in
a dict, or behind the targets of a tuple, is left out.
"""

import re
from collections.abc import Mapping

from losslandscape.data.inputs import (
    CONSTANTS,
    SampleList,
    each,
    is_object,
    leaves,
    rebuilt,
    shapes,
)
from losslandscape.data.values import (
    as_tensor,
    as_tensors_of_targets,
    is_array,
    is_numbers,
    is_text,
    type_in_words,
)
from losslandscape.errors import InputError

# keys (or attributes) of the targets in a batch that is a dict (or an object)
TARGETS = ("targets", "labels", "label", "y", "target", "label_ids")


def pair(batch):
    """(inputs, targets) of a batch, see BatchReader.read."""
    return BatchReader().read(batch)


class BatchReader:
    """Reads the batches of one source, all of them in the same way.

    target_name     the key or attribute that held the targets; '' for pairs and tuples
    left_out        {field: type in words} of what is text
    """

    def __init__(self):
        self.target_name = ""
        self.left_out = {}
        self._meanings = {}  # of lists: "columns" or "samples", once a batch leaves no doubt

    def read(self, batch):
        """(inputs, targets) of a batch.

        Raises InputError, which names the field and its type, for what is none.
        """
        if is_object(batch):
            inputs, targets = batch, self._targets_of_object(batch)
        elif isinstance(batch, Mapping):
            inputs, targets = self._of_mapping(batch)
        else:
            inputs, targets = self._of_sequence(batch)
        targets = each(targets, as_tensors_of_targets)

        targets = self._with_lists("targets", targets, _lengths(inputs))
        inputs = self._with_lists("inputs", inputs, _lengths(targets))
        _refuse_uneven_batch(inputs, targets)
        return inputs, targets

    # ------------------------------------------------------------ forms of a batch

    def _of_mapping(self, batch):
        key = target_key(batch)
        if key is None:
            raise InputError(
                f"expected one of {', '.join(TARGETS)} in a batch, got the keys "
                f"{', '.join(map(str, batch))}; rename the targets")
        self.target_name = key

        fields = {name: value for name, value in batch.items() if name != key}
        inputs = self._as_values(fields, "")
        if all(isinstance(value, CONSTANTS) for value in inputs.values()):
            types = [f"{name} ({type_in_words(value)})" for name, value in fields.items()]
            raise InputError(
                f"expected tensors beside {key!r} in a batch, got "
                f"{', '.join(types) or 'nothing'}; convert them to tensors")
        return inputs, self._as_values(batch[key], key)

    def _targets_of_object(self, batch):
        name = target_key(batch)
        if name is None:
            raise InputError(
                f"expected one of {', '.join(TARGETS)} in a {type(batch).__name__}, got none; "
                "set it, or return pairs (inputs, targets)")
        self.target_name = name

        if isinstance(batch, Mapping):
            return self._as_values(batch[name], name)
        return self._as_values(getattr(batch, name), name)

    def _of_sequence(self, batch):
        is_list_of_dicts = isinstance(batch, list) and all(isinstance(e, Mapping) for e in batch)
        if not isinstance(batch, tuple | list) or len(batch) < 2 or is_list_of_dicts:
            size = ""
            if hasattr(batch, "__len__"):
                size = f" of {len(batch)}"
            raise InputError(
                f"expected batches (inputs, targets), got {type_in_words(batch)}{size}; "
                "return pairs")

        # file names, say, may stand behind the targets
        entries = list(batch[:2])
        for i, entry in enumerate(batch[2:], start=3):
            if is_text(entry):
                self.left_out[f"entry {i}"] = type_in_words(entry)
            else:
                entries.append(entry)

        inputs = self._as_values(entries[0], "the inputs")
        if len(entries) == 2:
            return inputs, self._as_values(entries[1], "the targets")
        return inputs, self._as_values(tuple(entries[1:]), "the targets")

    # ------------------------------------------------------------ values

    def _as_values(self, value, field):
        """`value` with arrays and lists of numbers made tensors, without the text in dicts."""
        if is_array(value) or is_numbers(value):
            return as_tensor(value, field)
        if isinstance(value, CONSTANTS) or is_object(value):
            return value

        if isinstance(value, Mapping):
            values = {}
            for name, entry in value.items():
                path = f"{field}[{name!r}]" if field else str(name)
                if is_text(entry):
                    # of a list of one entry for each sample it is named once
                    self.left_out[re.sub(r"\[\d+\]", "[...]", path)] = type_in_words(entry)
                else:
                    values[name] = self._as_values(entry, path)
            return values

        if isinstance(value, tuple | list) and not is_text(value):
            entries = [self._as_values(entry, f"{field}[{i}]") for i, entry in enumerate(value)]
            return rebuilt(value, entries)
        raise InputError(
            f"expected tensors or arrays as inputs and targets, got {type_in_words(value)} in "
            f"{field}; convert it to a tensor")

    def _with_lists(self, part, value, lengths):
        """A tuple as a SampleList, where it has one entry for each sample; other values stay.

        part: "inputs" or "targets". lengths: of how many samples the other part may be.
        """
        if type(value) is not tuple or len(value) == 0:
            return value
        are_records = all(isinstance(entry, dict) or is_object(entry) for entry in value)
        if part == "targets" and are_records:
            return SampleList(value)

        # tensors of one length may stand for all samples each, or be those of one sample each
        own_lengths = {len(tensor) for tensor in leaves(value) if tensor.dim() > 0}
        fits_as_columns = not own_lengths or not lengths or bool(own_lengths & lengths)
        if part == "targets" and len(own_lengths) > 1:
            fits_as_columns = False
        fits_as_samples = len(value) in lengths

        if fits_as_samples and not fits_as_columns:
            self._meanings[part] = "samples"
        elif fits_as_columns and not fits_as_samples:
            self._meanings[part] = "columns"
        if fits_as_samples and self._meanings.get(part) == "samples":
            return SampleList(value)
        return value


def target_key(batch):
    """The key or attribute of the targets of a dict or an object; None where there is none."""
    for name in TARGETS:
        if isinstance(batch, Mapping):
            if name in batch:
                return name
        elif getattr(batch, name, None) is not None:
            return name
    return None


# ---------------------------------------------------------------- how many samples?


def _lengths(value):
    """Of how many samples a part of a batch may be, as a set; empty for objects."""
    if isinstance(value, SampleList):
        return {len(value)}
    lengths = {len(tensor) for tensor in leaves(value) if tensor.dim() > 0}
    if type(value) is tuple:
        lengths.add(len(value))
    return lengths


def _refuse_uneven_batch(inputs, targets):
    """Raise InputError unless targets agree on a number of samples that the inputs have, too."""
    lengths = {len(tensor) for tensor in leaves(targets) if tensor.dim() > 0}
    if isinstance(targets, SampleList):
        lengths = {len(targets)}
    if not lengths:
        raise InputError(
            "expected targets (N, ...), one for each sample of a batch, got "
            f"{type_in_words(targets)} without dimensions; give batches of examples")

    input_lengths = _lengths(inputs)
    if len(lengths) > 1 or (input_lengths and not lengths & input_lengths):
        raise InputError(
            f"expected as many inputs as targets, got inputs of shape {shapes(inputs) or '()'} "
            f"and targets {shapes(targets)} in a batch; give one for each (examples that are no "
            "batches: give a DataLoader of them)")
