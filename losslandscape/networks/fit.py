"""Which entry of a file is which tensor of a network? Compared are names and shapes.

    placement = place(expected, entries, path)       names of the file -> names of the network
    mismatch = compare(expected, placement.entries)  empty where they fit

Names differ although the weights are the same: wrappers for training put their own names in between
(`module.` of DataParallel, `_orig_mod.` of torch.compile, ...), and a network that was a part of
another one, such as the `model` of a Lightning module, has the name of that part before all others.
"""

from collections import Counter
from dataclasses import dataclass

import torch

from losslandscape.errors import InputError
from losslandscape.messages import printable

# An entry of batch norm that evaluation doesn't use; PyTorch before 0.4.1 did not save it.
BATCH_COUNTER = "num_batches_tracked"

# what wrappers put into names, anywhere in them and in any order
WRAPPER_NAMES = {
    "module",  # DataParallel, DistributedDataParallel, AveragedModel, DeepSpeed
    "_module",  # Opacus
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",  # activation checkpointing
    "_forward_module",  # Lightning Fabric
}

# last parts of names of what wrappers store beside the weights
WRAPPER_ENTRIES = {"n_averaged", "_extra_state"}


@dataclass(frozen=True)
class Placement:
    """The entries of a file under the names of a network."""

    entries: dict
    prefix: str = ""  # that was taken away from the names of the file
    left_out: tuple = ()  # names of the file outside of that prefix


@dataclass(frozen=True)
class Mismatch:
    """The names in which a state dict differs from that of a network; empty where it fits."""

    missing: tuple = ()
    unexpected: tuple = ()
    misshaped: tuple = ()

    def __bool__(self):
        return bool(self.missing or self.unexpected or self.misshaped)

    def describe(self, expected, state_dict):
        """The differences in words: how many, and the first with both shapes."""
        first = (*self.misshaped, *self.missing, *self.unexpected)[0]
        shapes = f"expected {_shape_of(first, expected)}, got {_shape_of(first, state_dict)}"
        return (
            f"{len(self.missing)} keys are missing, {len(self.unexpected)} unexpected, "
            f"{len(self.misshaped)} of another shape (first: {printable(first)}, {shapes})")


def compare(expected, state_dict):
    """Mismatch of `state_dict` with `expected`, the state dict of a network; names in their order.

    Nothing is missing where a batch counter is (it keeps its value), or where the tensor of a
    missing name stands in `state_dict` under another one: with tied weights one tensor of
    `expected` has several names, and a file may hold it once. To see that, make `expected` with
    keep_vars=True.
    """
    supplied = {id(tensor) for name, tensor in expected.items() if name in state_dict}
    missing = [
        name for name, tensor in expected.items()
        if id(tensor) not in supplied and not name.endswith(BATCH_COUNTER)
    ]
    unexpected = [name for name in state_dict if name not in expected]
    misshaped = [
        name for name, tensor in expected.items()
        if name in state_dict and _shape_of(name, state_dict) != _shape_of(name, expected)
    ]
    return Mismatch(tuple(missing), tuple(unexpected), tuple(misshaped))


def _shape_of(name, state_dict):
    if name not in state_dict:
        return "nothing"
    shape = getattr(state_dict[name], "shape", None)
    if shape is None:
        return kind_of(state_dict[name])
    return str(tuple(shape))


def kind_of(value):
    """What a value of a file is, in a word or two: 'int', 'quantized tensor'."""
    return printable(getattr(value, "name", "") or type(value).__name__)


# ---------------------------------------------------------------- names


def name_without_wrappers(name):
    """A name without what wrappers put into it: features.module.0.weight -> features.0.weight."""
    parts = [part for part in name.split(".") if part not in WRAPPER_NAMES]
    return ".".join(parts) or name


def place(expected, entries, source):
    """Placement of the entries of a file, {name: value}, in a network with tensors `expected`.

    Names may differ by those of wrappers, and by one prefix that all names of the file (or of the
    network) have: the one under which most of the network is found, none if that is as good. Only
    a minor part of a file may lie outside of the prefix. The result need not fit: see `compare`.

    source: the file, for the message. Raises InputError where several parts of the file fit, and
    where one that fits is a minor part of it.
    """
    names = _Names(expected, entries, source)
    without_prefix = names.under("")
    if not compare(expected, without_prefix.entries):
        return without_prefix

    placements = [names.under(prefix) for prefix in names.best_prefixes()]
    by_names = [each for each in placements if fits_by_names(expected, each)]
    by_shapes = [each for each in by_names if not compare(expected, each.entries)]
    fitting = by_shapes or by_names
    if fitting and not have_same_values(fitting):
        raise _ambiguous(fitting, source)

    if fitting:
        _refuse_minor_part(fitting[0], entries, source)
        return fitting[0]
    if placements:
        return placements[0]
    return without_prefix


class _Names:
    """The names of a file and of a network, without what wrappers put into them."""

    def __init__(self, expected, entries, source):
        self.entries = entries
        self.source = source
        self.plain = name_without_wrappers
        if len({name_without_wrappers(name) for name in expected}) < len(expected):
            self.plain = str  # the network itself has names of wrappers
        self.expected = {name: self.plain(name) for name in expected}

        self.keys = {}  # plain name -> names in the file
        for key in entries:
            if key in expected or key.rpartition(".")[2] not in WRAPPER_ENTRIES:
                self.keys.setdefault(self.plain(key), []).append(key)

    def best_prefixes(self):
        """Prefixes under which more of the network is found than under none, and at least half.

        The shortest first. One that ends in '|' is taken away from the names of the network.
        """
        plain_names = set(self.expected.values())
        counts = Counter({"": sum(name in self.keys for name in plain_names)})
        for name in self.keys:
            for prefix, rest in _splits(name):
                if rest in plain_names:
                    counts[prefix] += 1

        # of the network: only one that all its names have
        for prefix, _ in _splits(next(iter(plain_names))):
            if all(name.startswith(prefix) for name in plain_names):
                rests = [name.removeprefix(prefix) for name in plain_names]
                counts[f"{prefix}|"] = sum(rest in self.keys for rest in rests)

        most = max(counts.values())
        if counts[""] == most or 2 * most < len(plain_names):
            return []
        return sorted((prefix for prefix in counts if counts[prefix] == most), key=len)

    def under(self, prefix):
        """Placement with a prefix taken away from the names of the file, or of the network."""
        of_file, of_network = prefix, ""
        if prefix.endswith("|"):
            of_file, of_network = "", prefix[:-1]

        placed, used = {}, set()
        for name, plain in self.expected.items():
            keys = self.keys.get(of_file + plain.removeprefix(of_network), [])
            if len(keys) > 1:
                raise InputError(
                    f"expected every tensor once in {self.source}, got {printable(keys[0])} and "
                    f"{printable(keys[1])}, which differ by the name of a wrapper; "
                    "save one of them")
            if keys:
                placed[name] = self.entries[keys[0]]
                used.add(keys[0])

        # what remains belongs to the network if it has the prefix, else to what it was a part of
        left_out = []
        for plain, keys in self.keys.items():
            for key in keys:
                if key in used or not is_weight(self.entries[key]):
                    continue
                if plain.startswith(of_file):
                    placed[of_network + plain.removeprefix(of_file)] = self.entries[key]
                else:
                    left_out.append(key)
        return Placement(placed, of_file, tuple(left_out))


def is_weight(value):
    """Whether an entry of a file is a tensor, whatever its kind."""
    return hasattr(value, "shape") or "tensor" in getattr(value, "name", "")


def count_values(entries):
    """The number of values of all tensors of {name: tensor}."""
    return sum(value.numel() for value in entries.values() if isinstance(value, torch.Tensor))


def _splits(name):
    """('a.', 'b.c'), ('a.b.', 'c') of 'a.b.c'."""
    parts = name.split(".")
    for i in range(1, len(parts)):
        yield ".".join(parts[:i]) + ".", ".".join(parts[i:])


def fits_by_names(expected, placement):
    """Whether nothing is missing and nothing unexpected, whatever the shapes."""
    mismatch = compare(expected, placement.entries)
    return not mismatch.missing and not mismatch.unexpected


def have_same_values(placements):
    """Whether all placements have the same tensors; one alone has."""
    first, *others = (placement.entries for placement in placements)
    return all(
        torch.is_tensor(value) and torch.is_tensor(other.get(name))
        and torch.equal(value, other[name])
        for other in others for name, value in first.items()
    )  # fmt: skip


def _ambiguous(placements, source):
    sizes = [
        f"{placement.prefix!r} ({size_in_words(placement.entries)})" for placement in placements]
    return InputError(
        f"expected weights of one network in {source}, got several that fit: "
        f"{', '.join(sizes)}; choose with --checkpoint_key {placements[0].prefix}")


def _refuse_minor_part(placement, entries, source):
    """Raise InputError unless what is left out of a file is little, and no layer of a sequence."""
    left_out = {name: entries[name] for name in placement.left_out}
    is_layer = placement.prefix.rstrip(".").rpartition(".")[2].isdigit()
    if not left_out:
        return
    if is_layer or count_values(left_out) > count_values(placement.entries):
        raise InputError(
            f"expected the weights of one network in {source}, got those of a larger one: what "
            f"begins with {placement.prefix!r} fits, but {names_in_words(placement.left_out)} "
            "would be left out; build the whole network, or, if this part is meant, give "
            f"--checkpoint_key {placement.prefix}")


def size_in_words(entries):
    """'62 tensors, 272474 values'"""
    return f"{len(entries)} tensors, {count_values(entries)} values"


def names_in_words(names, most=3):
    """'a, b, c and 4 more'"""
    words = ", ".join(printable(name) for name in names[:most])
    if len(names) > most:
        words += f" and {len(names) - most} more"
    return words
