"""A DataLoader is evaluated on what it yields: a plain loop over it gives the same number."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)
from torch.utils.data.distributed import DistributedSampler

from losslandscape.data.splits import Batches, Split, apply, as_split, samples_in, split_hash
from losslandscape.errors import InputError
from losslandscape.measuring.evaluator import Evaluator

RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(30, 4, generator=RANDOM)
Y = torch.randint(0, 3, (30,), generator=RANDOM)
DATA = TensorDataset(X, Y)
TEXTS = [torch.randint(1, 9, (3 + i * i % 23,), generator=RANDOM) for i in range(30)]


class Texts(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, i):
        return TEXTS[i], Y[i]


class Reader(nn.Module):
    """The mean over all positions, padding included: the longest text of a batch matters."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 5), nn.Linear(5, 3)

    def forward(self, tokens):
        return self.head(self.embed(tokens).mean(1))


def pad(examples):
    texts, labels = zip(*examples, strict=True)
    return pad_sequence(texts, batch_first=True), torch.stack(labels)


def centred(examples):
    """Every row depends on the batch that it is in."""
    inputs, labels = default_collate(examples)
    return inputs - inputs.mean(0), labels


def network(form):
    torch.manual_seed(1)
    return (Reader() if form == "texts" else nn.Linear(4, 3)).eval()


@torch.no_grad()
def plain_loop(net, loader):
    """(mean loss over the samples that a loader yields, their number)."""
    total, count = 0.0, 0
    for inputs, targets in loader:
        total += float(nn.functional.cross_entropy(apply(net, inputs), targets, reduction="sum"))
        count += len(targets)
    return total / count, count


def evaluated(net, split):
    return Evaluator([net], {"train": split}, "crossentropy", 7)(["train"])["train_loss"]


class InChunks:
    """A batch sampler of a list of lists; `shuffle` changes the order of the batches."""

    def __init__(self, batches, shuffle=False):
        self.batches, self.shuffle = batches, shuffle

    def __iter__(self):
        order = list(self.batches)
        if self.shuffle:
            random.shuffle(order)
        return iter(order)

    def __len__(self):
        return len(self.batches)


BUCKETS = [[0, 7, 14], [1, 8], [2, 9, 16, 23], [3], [29, 5]]


class Stream(IterableDataset):
    def __init__(self, size=30, data=DATA):
        self.size, self.data = size, data

    def __iter__(self):
        return (self.data[i] for i in range(self.size))


LOADERS = {
    "plain": lambda: DataLoader(DATA, 8),
    "a subset in a random order": lambda: DataLoader(DATA, 8, sampler=SubsetRandomSampler(range(5, 25))),
    "a sampler that repeats": lambda: DataLoader(DATA, 8, sampler=[3, 3, 3, 29]),
    "numpy numbers": lambda: DataLoader(DATA, 8, sampler=np.array([4, 2, 2])),
    "shuffle": lambda: DataLoader(DATA, 8, shuffle=True),
    "shuffle with a generator": lambda: DataLoader(DATA, 8, shuffle=True, generator=torch.Generator().manual_seed(3)),
    "drop_last": lambda: DataLoader(DATA, 8, drop_last=True),
    "shuffle and drop_last of nothing": lambda: DataLoader(DATA, 10, shuffle=True, drop_last=True),
    "the share of a process": lambda: DataLoader(DATA, 8, sampler=DistributedSampler(DATA, 3, 1)),
    "batch_sampler": lambda: DataLoader(DATA, batch_sampler=BUCKETS),
    "batch_sampler that shuffles": lambda: DataLoader(DATA, batch_sampler=InChunks(BUCKETS, shuffle=True)),
    "torch's batch_sampler": lambda: DataLoader(DATA, batch_sampler=BatchSampler(range(30), 8, drop_last=True)),
    "a subset": lambda: DataLoader(Subset(DATA, range(20)), 8),
    "batch_size=None": lambda: DataLoader([(X[i:i + 9], Y[i:i + 9]) for i in range(0, 30, 9)], batch_size=None),
    "stream": lambda: DataLoader(Stream(), 8),
    "stream and drop_last": lambda: DataLoader(Stream(), 8, drop_last=True),
    "worker processes": lambda: DataLoader(DATA, 8, num_workers=1, shuffle=True),
    "persistent worker processes": lambda: DataLoader(DATA, 8, num_workers=1, persistent_workers=True),
    "own collation": lambda: DataLoader(DATA, 8, collate_fn=lambda examples: default_collate(examples)),
    "collation that mixes": lambda: DataLoader(DATA, 8, collate_fn=centred),
    "collation that mixes, dropping": lambda: DataLoader(DATA, 8, collate_fn=centred, drop_last=True),
    "collation that mixes buckets": lambda: DataLoader(DATA, batch_sampler=BUCKETS, collate_fn=centred),
    "stream that mixes": lambda: DataLoader(Stream(), 8, collate_fn=centred),
    "list that mixes": lambda: DataLoader(list(zip(X, Y, strict=True)), 8, collate_fn=centred),
    "texts": lambda: DataLoader(Texts(), 8, collate_fn=pad),
    "texts of a part": lambda: DataLoader(Texts(), 8, sampler=range(3, 20), collate_fn=pad),
    "texts in buckets": lambda: DataLoader(Texts(), batch_sampler=BUCKETS, collate_fn=pad),
    "texts as a stream": lambda: DataLoader(Stream(data=Texts()), 8, collate_fn=pad),
}


@pytest.mark.parametrize("memory", [float("inf"), 40], ids=["held", "streamed"])
@pytest.mark.parametrize("form", LOADERS)
def test_the_loss_is_that_of_a_plain_loop_over_the_loader(form, memory):
    net = network(form.split()[0])
    expected, count = plain_loop(net, LOADERS[form]())
    split = as_split(LOADERS[form](), "it", memory=memory, batch_size=11)
    assert len(split) == count
    for _ in range(2):
        assert evaluated(net, split) == pytest.approx(expected, rel=1e-6)


def test_twenty_of_thirty_are_twenty():
    """The mean over all thirty is another one."""
    net = network("images")
    loader = DataLoader(DATA, 8, sampler=SubsetRandomSampler(range(20)))
    expected, _ = plain_loop(net, DataLoader(Subset(DATA, range(20)), 8))
    over_all, _ = plain_loop(net, DataLoader(DATA, 8))
    assert evaluated(net, as_split(loader, "it")) == pytest.approx(expected, rel=1e-6)
    assert abs(over_all - expected) > 1e-3


def test_padding_is_that_of_the_loaders_own_batches():
    """Padded to the longest of all, the texts have another loss."""
    net = network("texts")
    expected, _ = plain_loop(net, LOADERS["texts"]())
    all_at_once, _ = plain_loop(net, DataLoader(Texts(), 30, collate_fn=pad))
    split = as_split(LOADERS["texts"](), "it", batch_size=30)
    assert isinstance(split, Batches) and evaluated(net, split) == pytest.approx(expected, rel=1e-6)
    assert abs(all_at_once - expected) > 1e-3


@pytest.mark.parametrize("form", [form for form in LOADERS if "mixes" not in form and not form.startswith("texts")])
def test_plain_stacks_are_joined_so_that_they_can_be_cut_anew(form):
    assert isinstance(as_split(LOADERS[form](), "it"), Split)


@pytest.mark.parametrize("form", [form for form in LOADERS if "mixes" in form or form.startswith("texts")])
def test_batches_whose_rows_depend_on_each_other_are_kept(form):
    sizes = [len(targets) for _, targets in LOADERS[form]()]
    split = as_split(LOADERS[form](), "it", batch_size=11)
    assert isinstance(split, Batches) and [len(targets) for _, targets in split.batches()] == sizes


def test_everything_in_a_random_order_is_everything_in_order():
    for loader in (LOADERS["shuffle"](), DataLoader(DATA, 8, sampler=RandomSampler(DATA))):
        split = as_split(loader, "it")
        assert torch.equal(split.inputs, X) and torch.equal(split.targets, Y)


def test_a_shuffled_loader_that_pads_does_so_in_ascending_order():
    loader = DataLoader(Texts(), 8, shuffle=True, collate_fn=pad)
    batches = list(as_split(loader, "it").batches())
    for (inputs, targets), (expected, labels) in zip(batches, LOADERS["texts"](), strict=True):
        assert torch.equal(inputs, expected) and torch.equal(targets, labels)


def test_offsets_into_a_joined_text_are_never_joined():
    """Texts of one word each: as many words as texts, and yet no row for each."""

    def collate(examples):
        return (torch.cat([text[:1] for text, _ in examples]), torch.arange(len(examples))), torch.stack(
            [label for _, label in examples])

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(9, 5), nn.Linear(5, 3)

        def forward(self, text, offsets):
            return self.head(self.bag(text, offsets))

    net = Bag().eval()
    loader = DataLoader(Texts(), 8, collate_fn=collate)
    expected, _ = plain_loop(net, loader)
    split = as_split(loader, "it")
    assert isinstance(split, Batches) and evaluated(net, split) == pytest.approx(expected, rel=1e-6)


# ---------------------------------------------------------------- what changes is refused


class Endless:
    def __iter__(self):
        while True:
            yield 0


CHANGING = {
    "weighted": (lambda: WeightedRandomSampler(torch.ones(30), 30), "WeightedRandomSampler draws others"),
    "some of all": (lambda: RandomSampler(DATA, num_samples=20), "torch.utils.data.Subset"),
    "with replacement": (lambda: RandomSampler(DATA, replacement=True), "leave the sampler out"),
    "endless": (Endless, "sampler that ends"),
}


@pytest.mark.parametrize("case", CHANGING)
def test_a_sampler_that_lists_others_each_time_is_refused_with_the_cure(case):
    make_sampler, words = CHANGING[case]
    for collate in (None, pad):
        with pytest.raises(InputError, match=words) as error:
            as_split(DataLoader(DATA, 8, sampler=make_sampler(), collate_fn=collate), "it")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("loader, words", [
    (DataLoader(DATA, 8, shuffle=True, drop_last=True), "drops 6 others each time; give it drop_last=False"),
    (DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 8, drop_last=True)), "drop_last=False"),
    (DataLoader(DATA, batch_sampler=[]), "at least one batch"),
    (DataLoader(DATA, 50, drop_last=True), "at least one batch"),
    (DataLoader(Stream(0), 8), "at least one batch"),
    (DataLoader(DATA, 8, sampler=[]), "at least one batch"),
    (DataLoader(DATA, 8, collate_fn=lambda e: (torch.rand(len(e), 4), torch.zeros(len(e)).long())), "augmentation"),
])
def test_loaders_that_have_no_value_of_their_own_are_refused(loader, words):
    with pytest.raises(InputError, match=words) as error:
        as_split(loader, "it")
    assert "\n" not in str(error.value)


def test_random_augmentation_in_worker_processes_is_refused():
    class Noisy(Texts):
        def __getitem__(self, i):
            return X[i] + torch.rand(4), Y[i]

    with pytest.raises(InputError, match="augmentation"):
        as_split(DataLoader(Noisy(), 8, num_workers=1), "it")


@pytest.mark.parametrize("processes", [0, 1])
def test_what_fails_in_another_process_is_told_in_one_line(processes):
    class Damaged(Texts):
        def __getitem__(self, i):
            if i == 17:
                raise OSError("disk gone")
            return X[i], Y[i]

    loader = DataLoader(Damaged(), 4, num_workers=processes)
    with pytest.raises((InputError, OSError), match="disk gone") as error:
        as_split(loader, "it")
    assert "\n" not in str(error.value)
    if processes:
        assert "OSError: disk gone (test_data_loaders.py, line" in str(error.value)


def test_examples_that_can_not_be_stacked_in_another_process_are_told_in_one_line():
    examples = [(torch.ones(3), 0), (torch.ones(4), 1)]
    with pytest.raises(InputError, match=r"^expected examples of one shape.*collate_fn=\.\.\.\)$"):
        as_split(DataLoader(examples, batch_size=None, num_workers=1), "it")


@pytest.mark.parametrize("loader, expected", [
    (lambda: DataLoader(Texts(), 8, shuffle=True, collate_fn=pad), "shuffles what its collate_fn pads"),
    (lambda: DataLoader(Texts(), batch_sampler=InChunks(BUCKETS, shuffle=True), collate_fn=pad), "one fixed listing"),
    (LOADERS["shuffle"], ""), (LOADERS["texts"], ""), (LOADERS["batch_sampler that shuffles"], ""),
])
def test_shuffling_is_mentioned_where_it_matters(capsys, loader, expected):
    as_split(loader(), "it")
    told = capsys.readouterr().err
    assert expected in told and bool(told) == bool(expected)


# ---------------------------------------------------------------- reproducible, undisturbing


@pytest.mark.parametrize("form", ["shuffle", "batch_sampler that shuffles", "a subset in a random order"])
def test_reading_does_not_depend_on_random_numbers_nor_change_them(form):
    hashes = set()
    for seed in range(3):
        torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)
        expected = torch.rand(1), random.random(), np.random.rand()
        torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)
        hashes.add(split_hash(as_split(LOADERS[form](), "it")))
        assert (torch.rand(1), random.random(), np.random.rand()) == expected
    assert len(hashes) == 1


def test_worker_settings_are_those_of_the_loader(tmp_path):
    """A data set that is opened by worker_init_fn alone."""

    class Opened(Dataset):
        is_open = False

        def __len__(self):
            return 30

        def __getitem__(self, i):
            assert self.is_open
            return X[i], Y[i]

    def open_it(number):
        torch.utils.data.get_worker_info().dataset.is_open = True

    loader = DataLoader(Opened(), 8, num_workers=1, worker_init_fn=open_it, collate_fn=centred)
    for memory in (float("inf"), 40):
        split = as_split(loader, "it", memory=memory)
        assert len(split) == 30 and sum(len(targets) for _, targets in split.batches()) == 30


# ---------------------------------------------------------------- --data_split


@pytest.mark.parametrize("form", [
    "plain", "drop_last", "batch_sampler", "batch_size=None", "stream", "own collation", "a subset in a random order"])
def test_parts_of_a_loader_are_disjoint_parts_of_what_it_yields(form):
    whole = as_split(LOADERS[form](), "it")
    order = np.random.RandomState(0).permutation(len(whole))
    size = len(whole) // 3
    for i in range(3):
        part = as_split(LOADERS[form](), "it", data_split=3, split_idx=i)
        expected = whole.part(order[i * size:(i + 1) * size])
        assert torch.equal(part.inputs, expected.inputs) and torch.equal(part.targets, expected.targets)
    assert len(as_split(LOADERS[form](), "it", part="test", data_split=3)) == len(whole)


def test_a_part_of_padded_texts_is_padded_by_the_loader():
    numbers = np.random.RandomState(0).permutation(30)[10:20].tolist()
    part = as_split(LOADERS["texts"](), "it", data_split=3, split_idx=1)
    expected = DataLoader(Subset(Texts(), numbers), 8, collate_fn=pad)
    for (inputs, targets), (inputs_of_subset, labels) in zip(part.batches(), expected, strict=True):
        assert torch.equal(inputs, inputs_of_subset) and torch.equal(targets, labels)


def test_a_part_of_a_stream_that_does_not_fit_as_a_whole_is_held():
    part = as_split(LOADERS["stream"](), "it", data_split=3, memory=30 * 16 / 2)
    assert isinstance(part, Split) and len(part) == 10
    with pytest.raises(InputError, match="raise --data_split"):
        as_split(LOADERS["stream"](), "it", data_split=3, memory=50)


@pytest.mark.parametrize("form", ["texts in buckets", "texts as a stream", "collation that mixes buckets"])
def test_batches_that_depend_on_each_other_can_not_be_divided(form):
    with pytest.raises(InputError, match="leave --data_split out"):
        as_split(LOADERS[form](), "it", data_split=2)


def test_a_loader_of_another_kind_is_iterated_as_it_is():
    class Repeating(DataLoader):
        """Keeps its workers: what it yields is known to its own __iter__ alone."""

        def __iter__(self):
            for inputs, targets in super().__iter__():
                yield inputs * 2, targets

    net = network("images")
    loader = Repeating(DATA, 8)
    expected, count = plain_loop(net, loader)
    split = as_split(loader, "it")
    assert len(split) == count == samples_in(split.targets)
    assert evaluated(net, split) == pytest.approx(expected, rel=1e-6)
