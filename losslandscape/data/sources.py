"""Whatever gives examples or batches -> batches in a fixed order, the same ones at every pass.

    source_of(data, reading)        Source of a data set, an iterable or a DataLoader

What a DataLoader yields is what is evaluated: the examples that its sampler lists, collated by its
collate_fn, in its own batches. Only batches that are plain stacks of their examples, each in a row
of its own, may be joined and cut anew. A sampler that lists the same examples in another order at
every pass is read in ascending order; one that lists others is refused.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    default_collate,
    default_convert,
)

from losslandscape.data.batch_forms import TARGETS, pair
from losslandscape.data.digests import are_equal
from losslandscape.data.inputs import is_object, joined
from losslandscape.data.samplers import (
    batched_numbers,
    batches_of_sampler,
    fixed_batches,
    fixed_numbers,
)
from losslandscape.data.stacking import Stacked, is_example, stack_examples
from losslandscape.errors import InputError

FORMS = (
    "(inputs, targets) tensors, a data set with __len__ and __getitem__ that gives "
    "(input, target), or batches (inputs, targets) that can be read again and again, as from a "
    "DataLoader")
TRACEBACK = "Original Traceback"  # in what torch says about an exception in another process
COMPARED_EXAMPLES = 32  # of a data set that is read example by example, between two passes


@dataclass(frozen=True)
class Reading:
    """How the examples of one source are read."""

    name: str  # of the source, for messages
    data_split: int = 1
    split_idx: int = 0
    batch_size: int = 128
    threads: int = 0
    memory: float = float("inf")  # bytes


@dataclass(frozen=True)
class Source:
    """Batches in a fixed order.

    batches     as they are given, at every pass
    streamed    the same, where they are read at every pass: by other processes, if there are any
    first       the first ones, to be compared between two passes
    count       of examples; None where it is not known before all are read
    are_rows    every example is a row of its own: batches may be joined, and cut anew
    divided     only the requested part of the data is in it
    note        what the user should know about its order
    """

    batches: Iterable
    streamed: Iterable
    first: Iterable
    count: int | None = None
    are_rows: bool = True
    divided: bool = False
    note: str = ""


def source_of(data, reading):
    """Source of whatever a user gives; raises InputError where it can't be read again and again."""
    _refuse_unreadable(data, reading.name)
    if isinstance(data, DataLoader):
        return _of_loader(data, reading)
    if is_map_style(data):
        return _of_examples(data, reading)
    return _of_entries(data, reading)


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


def is_map_style(data):
    """Has `data` a length and numbered examples? A list or a tuple may be one of batches."""
    numbered = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return numbered and not isinstance(data, list | tuple)


def with_plain_errors(batches):
    """The batches; what is raised in the processes of a DataLoader is told in one line."""
    try:
        yield from batches
    except Exception as error:
        if TRACEBACK not in str(error):
            raise
        raise InputError(_reason_in_process(error)) from None


def _reason_in_process(error):
    """What an exception says that comes out of a process, with a traceback before its message."""
    words = str(error)
    if isinstance(error, InputError):
        # it is one line already, and ends with the mark of a line break
        return words.rpartition("losslandscape.errors.InputError: ")[2][:-1]

    place = ""
    lines = re.findall(r'File "(.+)", line (\d+)', words)
    if lines:
        file, number = lines[-1]
        place = f" ({os.path.basename(file)}, line {number})"
    return (
        "expected the data set to work in the processes of its DataLoader, it fails with "
        f"{words.strip().splitlines()[-1]}{place}; correct it")


def _refuse_unreadable(data, name):
    """Raise InputError unless `data` gives examples by number or batches at every pass."""
    if isinstance(data, Iterator):
        description = "an iterator, which is spent after one pass"
    elif isinstance(data, str | bytes | torch.Tensor | np.ndarray):
        description = type(data).__name__
    elif is_object(data) and callable(getattr(data, "to_dict", None)):
        description = f"{type(data).__name__} without {', '.join(TARGETS)}"
    elif isinstance(data, Mapping):
        description = f"{type(data).__name__} of {', '.join(map(str, data))}"
    elif is_map_style(data) or isinstance(data, Iterable):
        return
    else:
        description = type(data).__name__
    raise InputError(f"expected {FORMS} from {name}, got {description}; return one of these")


def _refuse_nothing(name, part="batch"):
    raise InputError(f"expected at least one {part} from {name}, got none; give more")


# ---------------------------------------------------------------- numbered examples, iterables


def _of_examples(examples, reading):
    """Of a data set with a length and numbered examples, stacked by us."""
    count = len(examples)
    if count == 0:
        _refuse_nothing(reading.name, "example")
    return _of_rows(DataLoader(examples, collate_fn=stack_examples), range(count), reading)


def _of_entries(entries, reading):
    """Of what can be iterated: over batches, or over single examples."""
    first = next(iter(entries), None)
    if first is None:
        _refuse_nothing(reading.name)
    if not is_example(first):
        return Source(entries, entries, entries)
    if isinstance(entries, list | tuple):
        return _of_examples(_Numbered(entries), reading)
    batches = Stacked(entries, reading.batch_size)
    return Source(batches, batches, batches)


class _Numbered:
    """The entries of a list or a tuple as a data set."""

    def __init__(self, entries):
        self.entries = entries

    def __len__(self):
        return len(self.entries)

    def __getitem__(self, number):
        return self.entries[number]


# ---------------------------------------------------------------- DataLoaders


def _of_loader(loader, reading):
    """Of a DataLoader: its examples, and unless these are plain stacks its batches."""
    if isinstance(loader.dataset, IterableDataset) or decides_on_its_own(loader):
        return _of_iterable_loader(loader, reading)
    if loader.batch_sampler is None:
        return _of_unbatched_loader(loader, reading)

    # the numbers of its batches, each a list
    list_batches = fixed_batches
    has_plain_sampler = type(loader.batch_sampler) is BatchSampler
    if has_plain_sampler:
        list_batches = batches_of_sampler
    batches, are_always_these = list_batches(loader.batch_sampler, loader.dataset, reading.name)
    numbers = list(itertools.chain.from_iterable(batches))
    if not numbers:
        _refuse_nothing(reading.name)

    if loader.collate_fn is default_collate:
        _refuse_lists_of_numbers(loader, numbers[0], reading.name)
        return _of_rows(loader, numbers, reading)

    # its own collation, in its own batches
    are_rows = is_plain_stack(loader, numbers)
    divided = reading.data_split > 1
    if divided:
        if not has_plain_sampler and not are_rows:
            raise InputError(
                f"expected batches of independent rows from {reading.name} for --data_split, got "
                "those of a batch_sampler whose collate_fn pads or mixes them; leave --data_split "
                "out, or return a smaller set")
        numbers = _part_of(numbers, reading)
        size = getattr(loader.batch_sampler, "batch_size", None)
        batches = batched_numbers(numbers, size or reading.batch_size)

    first = _first(batches)
    if are_rows:
        return _numbered_source(loader, batches, first, reading, len(numbers), True, divided)
    source = _numbered_source(loader, batches, first, reading, None, False, divided)
    if are_always_these:
        return source
    return replace(source, note=(
        f"the DataLoader of {reading.name} shuffles what its collate_fn pads, mixes or joins: where "
        "the loss depends on the batches, it is that of one fixed listing"))


def decides_on_its_own(loader):
    """Has the class of a DataLoader another way of iterating?"""
    ways = ("__iter__", "_get_iterator")
    return any(getattr(type(loader), way) is not getattr(DataLoader, way) for way in ways)


def _of_rows(loader, numbers, reading):
    """Of examples by number, whose collation is known to stack them: cut as we like."""
    divided = reading.data_split > 1
    if divided:
        numbers = _part_of(numbers, reading)
    batches = batched_numbers(numbers, reading.batch_size)
    first = [list(numbers[:COMPARED_EXAMPLES])]
    return _numbered_source(loader, batches, first, reading, len(numbers), True, divided)


def _of_unbatched_loader(loader, reading):
    """Of a DataLoader with batch_size=None: each number gives an example, or a batch."""
    numbers = fixed_numbers(loader.sampler, loader.dataset, reading.name)
    if not numbers:
        _refuse_nothing(reading.name)
    batches = _with_settings(loader, 0, batch_size=None, sampler=numbers)
    if is_example(next(iter(batches))):
        examples = _Converted(loader.dataset, loader.collate_fn)
        stacking = _with_settings(loader, 0, dataset=examples, collate_fn=stack_examples)
        return _of_rows(stacking, numbers, reading)

    streamed = _with_settings(loader, reading.threads, batch_size=None, sampler=numbers)
    return Source(batches, streamed, batches, are_rows=loader.collate_fn is default_convert)


class _Converted:
    """The examples of a data set as a DataLoader with batch_size=None converts them."""

    def __init__(self, examples, convert):
        self.examples, self.convert = examples, convert

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, number):
        return self.convert(self.examples[number])


def _of_iterable_loader(loader, reading):
    """Of a DataLoader that decides on its own what it yields."""
    first = next(iter(loader), None)
    if first is None:
        _refuse_nothing(reading.name)
    if is_example(first):
        batches = Stacked(loader, reading.batch_size)
        return Source(batches, batches, batches)

    are_rows = loader.collate_fn in (default_collate, default_convert)
    if not are_rows and loader.batch_size is not None:
        are_rows = is_plain_stack(loader)
    return Source(loader, loader, loader, are_rows=are_rows)


def _numbered_source(loader, batches, first, reading, count, are_rows, divided):
    """Source of lists of numbers, read as the loader reads them."""
    return Source(
        batches=_with_settings(loader, 0, batch_sampler=batches),
        streamed=_with_settings(loader, reading.threads, batch_sampler=batches),
        first=_with_settings(loader, 0, batch_sampler=first),
        count=count, are_rows=are_rows, divided=divided)


def _with_settings(loader, threads, **changes):
    """A DataLoader with the settings of `loader`, in another order.

    threads: processes that read, where the loader has none of its own.
    """
    settings = {"dataset": loader.dataset, "collate_fn": loader.collate_fn}
    processes = loader.num_workers or threads
    if processes > 0:
        settings |= {
            "num_workers": processes,
            "persistent_workers": loader.persistent_workers or loader.num_workers == 0,
            "prefetch_factor": loader.prefetch_factor,
            "worker_init_fn": loader.worker_init_fn,
            "multiprocessing_context": loader.multiprocessing_context,
            "timeout": loader.timeout,
        }
    # torch draws from it at every pass, which must not change the user's random numbers
    return DataLoader(**settings | changes, generator=torch.Generator().manual_seed(0))


def _part_of(numbers, reading):
    """The numbers that --data_split and --split_idx ask for."""
    return [numbers[i] for i in chosen(len(numbers), reading.data_split, reading.split_idx)]


def _first(batches):
    """The first batches that hold COMPARED_EXAMPLES numbers."""
    first, count = [], 0
    for batch in batches:
        first.append(batch)
        count += len(batch)
        if count >= COMPARED_EXAMPLES:
            break
    return first


def _refuse_lists_of_numbers(loader, number, name):
    """Raise InputError where torch makes a list of tensors of a Hugging Face data set's lists."""
    dataset = loader.dataset
    if not type(dataset).__module__.startswith("datasets."):
        return
    example = dataset[number]
    for field, value in example.items():
        if isinstance(value, list):
            raise InputError(
                f"expected tensors from {name}, got {field!r} as a list, of which torch's "
                f"collation makes {len(value)} tensors; give the data set .with_format('torch')")


# ---------------------------------------------------------------- is a collation a plain stack?


def is_plain_stack(loader, numbers=None):
    """Does the collation of a loader give every example a row of its own, whatever is beside it?

    Tried on three examples: the batch of them must be the batches of one each, joined. numbers: of
    the examples that it reads; None: those that its data set gives first.
    """
    try:
        batch = pair(loader.collate_fn(_three_examples(loader.dataset, numbers)))
        single_batches = []
        for example in _three_examples(loader.dataset, numbers):
            single_batches.append(pair(loader.collate_fn([example])))
        stacked = joined(single_batches)
    except Exception:  # of a collation that takes no single example, or is no stack at all
        return False
    return are_equal(batch, stacked)


def _three_examples(dataset, numbers):
    """Up to three examples of a data set, from its whole length, read anew."""
    if numbers is None:
        return list(itertools.islice(iter(dataset), 3))
    numbers = [numbers[0], numbers[len(numbers) // 2], numbers[-1]]
    if hasattr(dataset, "__getitems__"):
        return dataset.__getitems__(numbers)
    return [dataset[number] for number in numbers]
