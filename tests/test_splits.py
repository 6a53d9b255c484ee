"""Whatever a user's function gives becomes examples in a fixed order, or is refused."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from losslandscape.data import splits
from losslandscape.data.splits import Batches, Split, as_split
from losslandscape.errors import InputError

X = torch.arange(30.0).view(10, 3)  # (10, 3)
Y = torch.arange(10) % 4


class Examples(Dataset):
    """A map-style data set; `noise` makes it differ from one reading to the next."""

    def __init__(self, noise=0.0):
        self.noise = noise

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return X[i] + self.noise * torch.rand(3), int(Y[i])


class Streamed(IterableDataset):
    def __iter__(self):
        return iter([(X[i], Y[i]) for i in range(10)])


class Again:
    """Batches of a list, at every pass; shuffled ones come in another order each time."""

    def __init__(self, batches, shuffle=False):
        self.batches, self.shuffle = batches, shuffle

    def __iter__(self):
        order = torch.randperm(len(self.batches)).tolist() if self.shuffle else range(len(self.batches))
        return iter([self.batches[i] for i in order])


PIECES = [(X[i:i + 4], Y[i:i + 4]) for i in (0, 4, 8)]
SAME = {
    "tensors": (X, Y),
    "arrays": (X.numpy(), Y.numpy()),
    "doubles and short integers": (X.numpy().astype(float), Y.numpy().astype(np.int16)),
    "map-style": Examples(),
    "loader": DataLoader(Examples(), batch_size=4),
    "loader that shuffles": DataLoader(Examples(), batch_size=4, shuffle=True),
    "list of batches": PIECES,
    "re-iterable": Again(PIECES),
    "iterable data set": DataLoader(Streamed(), batch_size=4),
    "dicts": Again([{"labels": y, "x": x} for x, y in PIECES]),
}


@pytest.mark.parametrize("form", SAME)
def test_every_form_gives_the_same_examples_in_the_same_order(form):
    split = as_split(SAME[form], "it")
    assert isinstance(split, Split) and len(split) == 10
    inputs = split.inputs["x"] if form == "dicts" else split.inputs
    assert inputs.dtype == torch.float32 and split.targets.dtype == torch.int64
    assert torch.equal(inputs, X) and torch.equal(split.targets, Y)


@pytest.mark.parametrize("form", ["map-style", "loader", "re-iterable"])
def test_what_does_not_fit_is_read_at_every_pass_and_is_the_same(form):
    split = as_split(SAME[form], "it", memory=40, batch_size=3)
    assert isinstance(split, Batches) and not split.held and len(split) == 10
    for _ in range(2):
        assert torch.equal(torch.cat([inputs for inputs, _ in split.batches()]), X)
    assert splits.split_hash(split) == splits.split_hash(split)


def test_batches_of_different_lengths_are_kept_as_they_are():
    padded = [(torch.ones(2, 5), torch.zeros(2)), (torch.ones(1, 7), torch.zeros(1))]
    split = as_split(padded, "it")
    assert isinstance(split, Batches) and split.held and len(split) == 3
    assert [tuple(inputs.shape) for inputs, _ in split.batches()] == [(2, 5), (1, 7)]


def test_tuples_and_dicts_are_positional_and_keyword_arguments():
    def net(a, b):
        return a - 2 * b

    for inputs in ((X, 3 * X), {"b": 3 * X, "a": X}):
        split = as_split((inputs, Y), "it")
        assert torch.equal(splits.apply(net, split.inputs), -5 * X)
        assert torch.equal(splits.apply(net, split.part(slice(2, 5)).inputs), -5 * X[2:5])


@pytest.mark.parametrize("form", ["tensors", "map-style", "loader", "list of batches", "iterable data set"])
def test_parts_of_the_training_data_are_disjoint_and_those_of_named_data_sets(form):
    parts = [as_split(SAME[form], "it", data_split=3, split_idx=i) for i in range(3)]
    order = np.random.RandomState(0).permutation(10)
    assert [p.inputs[:, 0].div(3).int().tolist() for p in parts] == [order[i:i + 3].tolist() for i in (0, 3, 6)]
    assert len(as_split(SAME[form], "it", part="test", data_split=3)) == 10


@pytest.mark.parametrize("given, words", [
    (iter(PIECES), "iterator, which is spent"),
    ((pair for pair in PIECES), "spent after one pass"),
    (7, "got int"), (None, "got NoneType"), ("text", "got str"), ({"x": X}, "got dict"), (X, "got Tensor"),
    ([], "at least one batch"),
    (Again([]), "at least one batch"),
    ([1, 2], "batches .inputs, targets."),
    ([(X,)], "of 1; return pairs"),
    (Again([{"x": X}]), "rename the targets"),
    ((X, Y[:5]), "as many inputs as targets"),
    ((X[:0], Y[:0]), "at least one"),
    (([["a"]], Y), "tensors or arrays"),
    ((np.array(["a"] * 10), Y), "an array of <U1"),
    (Examples(noise=1.0), "random augmentation off"),
    (Again([(X[i:i + 1], Y[i:i + 1]) for i in range(10)], shuffle=True), "shuffling"),
    (TensorDataset(X[:0], Y[:0]), "at least one example"),
])
def test_anything_else_is_refused_with_what_to_do(given, words):
    torch.manual_seed(0)
    with pytest.raises(InputError, match=words) as error:
        as_split(given, "it")
    assert "\n" not in str(error.value)


def test_padded_batches_can_not_be_divided():
    padded = [(torch.ones(3, 5), torch.zeros(3)), (torch.ones(3, 7), torch.zeros(3))]
    with pytest.raises(InputError, match="leave --data_split out"):
        as_split(Again(padded), "it", data_split=2)


def test_the_hash_knows_values_order_and_types():
    base = splits.split_hash(Split(X, Y))
    others = [Split(X + 1e-3, Y), Split(X.flip(0), Y.flip(0)), Split(X.double(), Y), Split(X, Y + 1), Split((X, X), Y)]
    assert len({base, *map(splits.split_hash, others)}) == 6


def test_the_hash_tells_values_order_shape_and_labels_apart():
    inputs, targets = torch.arange(24.0).reshape(2, 3, 2, 2), torch.tensor([0, 1])
    others = [inputs.flip(0), inputs.reshape(2, 3, 1, 4), torch.nextafter(inputs, inputs + 1), -inputs]
    given = [Split(inputs, targets), Split(inputs, targets.flip(0)), *(Split(other, targets) for other in others)]
    assert len({splits.split_hash(split) for split in given}) == len(given)
    strided = inputs.transpose(2, 3).contiguous().transpose(2, 3)
    for same in (inputs.clone(), strided):
        assert splits.split_hash(Split(same, targets.clone())) == splits.split_hash(given[0])
