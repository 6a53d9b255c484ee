"""Examples in a fixed order: what is evaluated at every point.

    Split(inputs, targets)      held as tensors, sliced into batches
    Batches(source, count)      come in batches, from memory or read again at every pass

`inputs` is a tensor (N, ...), or a tuple or dict of them, which a network takes as positional or keyword arguments.
`as_split(found, ...)` makes one of the two of whatever a user's function or file gives.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from losslandscape.errors import InputError

TARGETS = ("targets", "labels", "label", "y")  # under which a batch that is a dict holds its targets
FORMS = ("(inputs, targets) tensors, a data set with __len__ and __getitem__ that gives (input, target), or batches "
         "(inputs, targets) that can be read again and again, as from a DataLoader")
LOOK = 256  # examples whose order and values are checked


# ---------------------------------------------------------------- inputs: a tensor, or a tuple or dict of tensors


def leaves(inputs):
    """The tensors of `inputs`."""
    if isinstance(inputs, torch.Tensor):
        return [inputs]
    return [t for part in (inputs.values() if isinstance(inputs, Mapping) else inputs) for t in leaves(part)]


def each(inputs, function: Callable):
    """`inputs` with every tensor replaced by function(tensor)."""
    if isinstance(inputs, torch.Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {key: each(value, function) for key, value in inputs.items()}
    return tuple(each(value, function) for value in inputs)


def apply(net, inputs):
    """net(inputs), net(*inputs) or net(**inputs)."""
    if isinstance(inputs, torch.Tensor):
        return net(inputs)
    return net(**inputs) if isinstance(inputs, Mapping) else net(*inputs)


def shapes(inputs):
    """The shapes of the tensors of a batch, in words."""
    return ", ".join(str(tuple(t.shape)) for t in leaves(inputs))


@dataclass(frozen=True)
class Split:
    """Examples held as tensors, in a fixed order."""

    inputs: torch.Tensor | tuple | dict  # (N, ...) each
    targets: torch.Tensor  # (N, ...)

    def __len__(self):
        return len(self.targets)

    @property
    def nbytes(self):
        return sum(t.numel() * t.element_size() for t in leaves(self.inputs))

    def part(self, which):
        """The examples of a slice or of an array of numbers."""
        return Split(each(self.inputs, lambda t: t[which]), self.targets[which])

    def batches(self, batch_size):
        """(inputs, targets) of each batch."""
        for start in range(0, len(self), batch_size):
            found = self.part(slice(start, start + batch_size))
            yield found.inputs, found.targets


@dataclass(frozen=True)
class Batches:
    """Examples that come in batches of their own size: the same ones in the same order at every pass."""

    source: Iterable  # of (inputs, targets)
    count: int
    held: bool  # in memory

    def __len__(self):
        return self.count

    def batches(self, batch_size=None):
        try:
            for batch in self.source:
                yield pair(batch)
        except InputError as error:  # from a process of a DataLoader it comes with a traceback before it
            last_line = str(error).strip().splitlines()[-1]
            raise InputError(last_line.removeprefix("losslandscape.errors.InputError: ")) from None


# ---------------------------------------------------------------- making them


def as_split(found, what, part="train", data_split=1, split_idx=0, batch_size=128, threads=0, memory=float("inf")):
    """Split, or Batches where the examples do not fit into `memory` bytes or their shapes differ.

    found: FORMS. what: its name, for messages. data_split, split_idx: see dataloader.load_dataset; of the training set
    only. batch_size, threads: how a data set that does not fit is read. Raises InputError for anything else, and where
    two readings of the first examples differ.
    """
    parts = data_split if part == "train" else 1
    if isinstance(found, Split | Batches):
        return found
    if isinstance(found, tuple) and len(found) == 2 and _is_array(found[1]):
        split = _checked(Split(each_array(found[0]), _targets(found[1])), what)
        return split.part(chosen(len(split), parts, split_idx)) if parts > 1 else split
    collate = default_collate
    if isinstance(found, DataLoader) and not isinstance(found.dataset, IterableDataset):
        collate, found = found.collate_fn or default_collate, found.dataset  # in order, whatever its sampler
    examples = hasattr(found, "__getitem__") and hasattr(found, "__len__") and not isinstance(found, list)
    refused = Iterator | str | bytes | Mapping | torch.Tensor | np.ndarray
    if isinstance(found, refused) or not (examples or isinstance(found, Iterable)):
        once = "an iterator, which is spent after one pass" if isinstance(found, Iterator) else type(found).__name__
        raise InputError(f"expected {FORMS} from {what}, got {once}; return one of these")
    if examples:
        return _from_examples(found, what, parts, split_idx, collate, batch_size, threads, memory)
    if parts > 1:
        raise InputError(f"expected a data set with __len__ and __getitem__ from {what} for --data_split, got batches; "
                         "leave --data_split out, or return a smaller set")
    return _from_batches(found, what, memory)


def chosen(count, data_split, split_idx):
    """Numbers of the examples of part `split_idx` of `data_split`: permutation(N)[i*n:(i+1)*n], n = N // k, seed 0."""
    n = count // data_split
    if n == 0:
        raise InputError(f"expected --data_split of at most {count}, the number of training examples, got {data_split}"
                         "; take fewer parts")
    return np.random.RandomState(0).permutation(count)[split_idx * n:(split_idx + 1) * n]


def pair(batch):
    """(inputs, targets) of a batch: a pair, or a dict that holds the targets under one of TARGETS."""
    if isinstance(batch, Mapping):
        name = next((name for name in TARGETS if name in batch), None)
        if name is None:
            raise InputError(f"expected one of {', '.join(TARGETS)} in a batch, got the keys "
                             f"{', '.join(map(str, batch))}; rename the targets")
        inputs = {key: value for key, value in batch.items() if key != name}
        return each_array(inputs), _targets(batch[name])
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        size = f" of {len(batch)}" if hasattr(batch, "__len__") else ""
        raise InputError(f"expected batches (inputs, targets), got {type(batch).__name__}{size}; return pairs")
    return each_array(batch[0]), _targets(batch[1])


def each_array(inputs):
    """`inputs` with arrays made tensors; doubles become float32."""
    if isinstance(inputs, Mapping):
        return {key: each_array(value) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(each_array(value) for value in inputs)
    return _tensor(inputs)


def _is_array(value):
    return isinstance(value, torch.Tensor | np.ndarray)


def _tensor(value):
    if not _is_array(value):
        raise InputError(f"expected tensors or arrays as inputs and targets, got {type(value).__name__}; convert them")
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        raise InputError(f"expected numbers as inputs and targets, got an array of {value.dtype}; convert it")
    tensor = torch.as_tensor(value).detach().cpu()
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _targets(value):
    tensor = _tensor(value)
    return tensor if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool else tensor.long()


def _checked(split, what):
    """`split`, if it has examples, and as many targets as inputs."""
    counts = {len(t) if t.dim() else 0 for t in [*leaves(split.inputs), split.targets]}
    if len(counts) != 1 or counts == {0}:
        raise InputError(f"expected as many inputs as targets, and at least one, from {what}, got inputs of shape "
                         f"{shapes(split.inputs) or '()'} and targets {tuple(split.targets.shape)}; give one for each")
    return split


def _same(a, b):
    """Are two batches equal, value for value?"""
    a, b = ([*leaves(inputs), targets] for inputs, targets in (a, b))
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.equal(torch.nan_to_num(x), torch.nan_to_num(y)) for x, y in zip(a, b, strict=True))


def refuse_change(what):
    return InputError(f"expected the same examples in the same order at every pass over {what}, but the second differs "
                      "from the first; switch shuffling and random augmentation off")


def _from_examples(examples, what, parts, split_idx, collate, batch_size, threads, memory):
    count = len(examples)
    if count == 0:
        raise InputError(f"expected at least one example from {what}, got none; give more")
    if parts > 1:
        examples = Subset(examples, chosen(count, parts, split_idx).tolist())
        count = len(examples)

    def batch(stop):
        return pair(collate([examples[i] for i in range(stop)]))

    few = batch(min(count, 32))
    if not _same(few, batch(min(count, 32))):
        raise refuse_change(what)
    each_bytes = sum(t.numel() * t.element_size() for t in leaves(few[0])) / min(count, 32)
    loader = DataLoader(examples, batch_size, shuffle=False, collate_fn=collate, num_workers=threads,
                        persistent_workers=threads > 0)
    if each_bytes * count > memory:
        return Batches(loader, count, held=False)
    return _gathered(DataLoader(examples, batch_size, collate_fn=collate), what)


def _from_batches(source, what, memory):
    """Held in memory as far as it reaches; else read again at every pass."""
    def beginning():
        found = []
        for batch in source:
            found.append(pair(batch))
            if sum(len(targets) for _, targets in found) >= LOOK:
                break
        return found

    first, second = beginning(), beginning()
    if not first:
        raise InputError(f"expected at least one batch from {what}, got none; give more")
    if len(first) != len(second) or not all(map(_same, first, second)):
        raise refuse_change(what)
    used, count, held = 0, 0, []
    for inputs, targets in map(pair, source):
        count += len(targets)
        if held is not None:
            held.append((inputs, targets))
            used += sum(t.numel() * t.element_size() for t in leaves(inputs))
            if used > memory:
                held = None
    return _gathered(held, what) if held is not None else Batches(source, count, held=False)


def _gathered(source, what):
    """Split of all batches, or Batches held in memory where they can't be joined."""
    batches = [pair(batch) for batch in source]
    for batch in batches:
        _checked(Split(*batch), what)
    try:
        return Split(_joined([inputs for inputs, _ in batches]), torch.cat([targets for _, targets in batches]))
    except (RuntimeError, ValueError):  # texts padded to the longest of their batch, say
        return Batches(batches, sum(len(targets) for _, targets in batches), held=True)


def _joined(inputs):
    if isinstance(inputs[0], torch.Tensor):
        return torch.cat(inputs)
    if isinstance(inputs[0], Mapping):
        return {key: _joined([part[key] for part in inputs]) for key in inputs[0]}
    return tuple(_joined(list(parts)) for parts in zip(*inputs, strict=True))


def split_hash(split):
    """sha256 (hex) of shapes, types and values of a split, in order: says whether two runs saw the same data.

    Of batches that are read again at every pass: of their number of examples and the first LOOK of them.
    """
    digest = hashlib.sha256()
    if isinstance(split, Split):
        batches = [(split.inputs, split.targets)]
    elif split.held:
        batches = split.batches()
    else:
        digest.update(f"{len(split)} examples\n".encode())
        seen = itertools.accumulate(len(targets) for _, targets in split.batches())
        batches = itertools.islice(split.batches(), 1 + sum(1 for n in itertools.takewhile(lambda n: n < LOOK, seen)))
    for inputs, targets in batches:
        for tensor in [*leaves(inputs), targets]:
            tensor = tensor.detach().cpu().contiguous()
            if tensor.dtype == torch.bfloat16:  # numpy has none
                tensor = tensor.view(torch.int16)
            array = tensor.numpy()
            digest.update(f"{array.shape} {array.dtype}\n".encode())
            digest.update(array.reshape(-1).view(np.uint8))  # no copy
    return digest.hexdigest()
