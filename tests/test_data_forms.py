"""Batches in the forms that others give: dicts, triples, lists, graphs, text, unbatched examples."""

from collections import UserDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from losslandscape.data.splits import (
    Batches,
    SampleList,
    Split,
    apply,
    as_split,
    each,
    pair,
    samples_in,
    split_hash,
    to_device,
)
from losslandscape.errors import InputError

X = torch.arange(30.0).view(10, 3)  # (10, 3)
Y = torch.arange(10) % 4
W = torch.linspace(0, 1, 10)


class Again:
    """The same entries at every pass."""

    def __init__(self, entries):
        self.entries = entries

    def __iter__(self):
        return iter(self.entries)


class Records(Dataset):
    """Examples that are dicts, or whatever `make` makes of a number."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return self.make(i)


def gathered(split):
    """All targets of a split, as a list of leaves."""
    return [targets for _, targets in split.batches(3)]


def refusal(source, **choices):
    with pytest.raises(InputError) as error:
        as_split(source, "it", **choices)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- targets of many forms


PARTS = [slice(0, 4), slice(4, 8), slice(8, 10)]
TARGETS = {
    "dict": {"class": Y, "weight": W},
    "tuple": (Y, W),
    "nested": {"a": (Y, W), "b": X},
}


def cut(value, part):
    return each(value, lambda tensor: tensor[part])


@pytest.mark.parametrize("form", TARGETS)
@pytest.mark.parametrize("given", ["whole", "list of batches", "iterable", "examples", "loader"])
def test_targets_in_dicts_and_tuples_stay_so_and_are_cut_together(form, given):
    targets = TARGETS[form]
    examples = Records(lambda i: (X[i], cut(targets, i)))
    sources = {
        "whole": (X, targets),
        "list of batches": [(X[part], cut(targets, part)) for part in PARTS],
        "iterable": Again([(X[part], cut(targets, part)) for part in PARTS]),
        "examples": examples,
        "loader": DataLoader(examples, 4),
    }
    split = as_split(sources[given], "it")
    assert isinstance(split, Split) and len(split) == 10 and split.target_name == ""
    same = all_equal(split.targets, targets)
    assert same and type(split.targets) is type(targets)
    assert samples_in(split.part(slice(2, 5)).targets) == 3
    assert [samples_in(part) for part in gathered(split)] == [3, 3, 3, 1]


def all_equal(first, second):
    pairs = []
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        pairs = [(first[key], second[key]) for key in first]
    elif isinstance(first, tuple | list):
        pairs = list(zip(first, second, strict=True))
    else:
        return torch.equal(first, second)
    return all(all_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("source", [
    (X, Y, W), [X, Y, W], [(X[part], Y[part], W[part]) for part in PARTS],
    Records(lambda i: (X[i], int(Y[i]), float(W[i]))),
    DataLoader(Records(lambda i: (X[i], int(Y[i]), float(W[i]))), 4),
    Again([(X[i], int(Y[i]), float(W[i])) for i in range(10)]),
])
def test_the_loss_gets_a_third_entry_as_a_second_target(source):
    split = as_split(source, "it")
    assert torch.equal(split.inputs, X)
    assert torch.equal(split.targets[0], Y) and torch.allclose(split.targets[1], W)


def test_a_pair_of_one_tensor_each_says_nothing(capsys):
    split = as_split([(X, Y)], "it")
    assert isinstance(split.targets, torch.Tensor) and capsys.readouterr() == ("", "")


def test_named_tuples_keep_their_names():
    Boxes = namedtuple("Boxes", "centre size")
    split = as_split(DataLoader(Records(lambda i: (X[i], Boxes(X[i], W[i]))), 4), "it")
    assert torch.equal(split.targets.centre, X) and torch.equal(split.part(slice(2)).targets.size, W[:2])


# ---------------------------------------------------------------- detection: a list for each sample


SIZES = [4, 5, 3, 3, 6, 3, 3]
IMAGES = [torch.full((3, size, size + 1), float(i)) for i, size in enumerate(SIZES)]
RECORDS = [{"boxes": torch.ones(1 + i % 3, 4), "labels": torch.ones(1 + i % 3, dtype=torch.int32), "image_id": i}
           for i in range(len(SIZES))]


class Detector(nn.Module):
    """Takes a list of images, as those of torchvision do, and gives a dict for each."""

    def forward(self, images):
        assert type(images) is list and all(image.dim() == 3 for image in images)
        return [{"score": image.mean()} for image in images]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_lists_of_images_and_records_come_as_they_are(size):
    """Three images of three channels are no three inputs."""

    def as_lists(examples):
        return tuple(zip(*examples, strict=True))

    loader = DataLoader(list(zip(IMAGES, RECORDS, strict=True)), size, collate_fn=as_lists)
    split = as_split(loader, "it")
    assert isinstance(split, Batches) and len(split) == 7
    for (inputs, targets), (images, records) in zip(split.batches(), loader, strict=True):
        assert isinstance(targets, SampleList) and samples_in(targets) == len(records)
        assert len(apply(Detector(), inputs)) == len(images)
        for target, record in zip(targets, records, strict=True):
            assert torch.equal(target["boxes"], record["boxes"])
        assert targets[0]["image_id"] == records[0]["image_id"] and targets[0]["labels"].dtype == torch.int64
    assert split_hash(split) == split_hash(as_split(loader, "it"))


def test_text_in_the_record_of_each_sample_is_named_once(capsys):
    batch = (IMAGES, [{"boxes": torch.ones(2, 4), "file": f"{i}.png"} for i in range(7)])
    as_split([batch], "it")
    assert capsys.readouterr().err == "note: text is left out of it: the targets[...]['file'] (str)\n"


def test_lists_of_images_with_one_label_each():
    def collate(examples):
        return [image for image, _ in examples], [record["image_id"] for _, record in examples]

    for size in (2, 3, 5):
        split = as_split(DataLoader(list(zip(IMAGES, RECORDS, strict=True)), size, collate_fn=collate), "it")
        assert torch.equal(torch.cat(gathered(split)), torch.arange(7))
        assert [len(apply(Detector(), inputs)) for inputs, _ in split.batches()][0] == size


# ---------------------------------------------------------------- dicts


@pytest.mark.parametrize("key", ["labels", "label", "targets", "y", "target"])
@pytest.mark.parametrize("kind", [dict, UserDict])
def test_the_key_of_the_targets_is_kept(key, kind):
    batches = [kind({"x": X[part], key: Y[part]}) for part in PARTS]
    examples = DataLoader(Records(lambda i: {"x": X[i], key: Y[i]}))
    for source in (batches, Again(batches), kind({"x": X, key: Y}), examples):
        split = as_split(source, "it")
        assert split.target_name == key and torch.equal(split.inputs["x"], X) and torch.equal(split.targets, Y)
        assert split.part(slice(3)).target_name == split.first(3).target_name == key
    streamed = as_split(Again(batches), "it", memory=1)
    assert streamed.target_name == streamed.first(2).target_name == key


@pytest.mark.parametrize("quiet", [False, True])
def test_text_is_left_out_of_dicts_and_named_once(capsys, quiet):
    batches = [{"x": X[part], "text": ["word"] * len(Y[part]), "id": np.array(["a"] * len(Y[part])), "labels": Y[part]}
               for part in PARTS]
    for memory in (float("inf"), 1):
        split = as_split(batches, "it", memory=memory, quiet=quiet)
        for _ in range(2):
            assert all(list(inputs) == ["x"] for inputs, _ in split.batches(4))
        expected = "" if quiet else "note: text is left out of it: text (list of str), id (an array of <U1)\n"
        assert capsys.readouterr().err == expected


def test_file_names_behind_the_targets_are_left_out(capsys):
    loader = DataLoader(Records(lambda i: (X[i], int(Y[i]), f"{i}.png")), 4)
    split = as_split(loader, "it")
    assert torch.equal(split.inputs, X) and torch.equal(split.targets, Y)
    assert "entry 3" in capsys.readouterr().err


def test_constants_of_a_batch_are_keyword_arguments():
    def net(x, scale, mask=None, add=False):
        assert mask is None and add is True
        return x * scale

    batches = [{"x": X[part], "scale": 2, "mask": None, "add": True, "labels": Y[part]} for part in PARTS]
    split = as_split(batches, "it")
    assert torch.equal(apply(net, split.inputs), 2 * X)
    batches[1]["scale"] = 3  # no constant of all
    kept = as_split(batches, "it")
    assert isinstance(kept, Batches) and [inputs["scale"] for inputs, _ in kept.batches()] == [2, 3, 2]


# ---------------------------------------------------------------- objects that move themselves


@dataclass
class Graph:
    """Nodes of several graphs; `to` moves it in place, as that of PyTorch Geometric does."""

    x: torch.Tensor
    y: torch.Tensor
    graph: torch.Tensor

    def to(self, device):
        self.x, self.y, self.graph = (tensor.to(device) for tensor in (self.x, self.y, self.graph))
        return self


def graphs():
    return [Graph(torch.ones(2 * n, 3) * n, torch.arange(n), torch.arange(n).repeat(2)) for n in (3, 4, 2)]


def test_an_object_goes_to_the_network_as_it_is():
    split = as_split(Again(graphs()), "it")
    assert isinstance(split, Batches) and len(split) == 9 and split.target_name == "y"
    for (inputs, targets), graph in zip(split.batches(), graphs(), strict=True):
        assert isinstance(inputs, Graph) and torch.equal(targets, graph.y)
        assert torch.equal(apply(lambda batch: batch.x, inputs), graph.x)
        moved = to_device(inputs, "meta")
        assert moved.x.device.type == "meta" and inputs.x.device.type == "cpu"


def test_a_network_may_set_attributes_of_an_object():
    def net(batch):
        batch.x = batch.x + 1
        return batch.x

    split = as_split(graphs(), "it")
    sums = [[float(apply(net, inputs).sum()) for inputs, _ in split.batches()] for _ in range(2)]
    assert sums[0] == sums[1]


def test_objects_are_hashed_and_compared():
    hashes = {split_hash(as_split(graphs(), "it")) for _ in range(2)}
    for change in ("x", "y", "graph"):
        others = graphs()
        setattr(others[1], change, getattr(others[1], change) + 1)
        hashes.add(split_hash(as_split(others, "it")))
    assert len(hashes) == 4

    class Noisy:
        def __iter__(self):
            return iter([Graph(torch.rand(2, 3), torch.zeros(1), torch.zeros(2))])

    assert "augmentation" in refusal(Noisy())


def test_objects_beside_targets_and_in_dicts():
    packed = [pack_sequence([torch.ones(3), torch.ones(2)]), pack_sequence([torch.ones(5)])]
    targets = [Y[:2], Y[2:3]]
    for batches in (list(zip(packed, targets, strict=True)),
                    [{"input": one, "labels": labels} for one, labels in zip(packed, targets, strict=True)]):
        split = as_split(batches, "it")
        assert isinstance(split, Batches) and len(split) == 3
        lengths = [len((inputs["input"] if isinstance(inputs, dict) else inputs).data) for inputs, _ in split.batches()]
        assert lengths == [5, 5]


def test_graphs_of_pytorch_geometric():
    pytest.importorskip("torch_geometric")
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader as GraphLoader
    from torch_geometric.nn import GCNConv, global_mean_pool

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = GCNConv(3, 8), nn.Linear(8, 2)

        def forward(self, data):
            data.x = self.conv(data.x, data.edge_index).relu()
            return self.head(global_mean_pool(data.x, data.batch))

    torch.manual_seed(0)
    examples = []
    for i in range(11):
        nodes = 3 + i % 4
        edges = torch.randint(0, nodes, (2, 6))
        examples.append(Data(x=torch.randn(nodes, 3), edge_index=edges, y=torch.tensor(i % 2), name=f"graph {i}"))
    net = Net().eval()

    def mean_loss(batches):
        losses = []
        with torch.no_grad():
            for inputs, targets in batches:
                losses.append(nn.functional.cross_entropy(apply(net, inputs), targets, reduction="none"))
        return torch.cat(losses).mean()

    plain = GraphLoader(examples, batch_size=4)
    expected = mean_loss((batch.clone(), batch.y) for batch in plain)
    for loader in (plain, GraphLoader(examples, batch_size=4, shuffle=True)):
        split = as_split(loader, "it")
        assert len(split) == 11 and split.target_name == "y"
        for _ in range(2):
            assert torch.isclose(mean_loss(split.batches()), expected, rtol=1e-6)
    assert split_hash(split) == split_hash(as_split(plain, "it"))
    assert "torch_geometric.loader.DataLoader" in refusal(Records(lambda i: examples[i]))
    assert "got none" in refusal([Data(x=torch.ones(2, 3))])
    assert "Data without targets" in refusal(Data(x=torch.ones(2, 3)))

    # one graph, with a target for each node
    one = Data(x=torch.ones(5, 3), edge_index=torch.zeros(2, 0).long(), y=torch.arange(5))
    whole = as_split(one, "it")
    assert len(whole) == 5 and len(list(whole.batches())) == 1


# ---------------------------------------------------------------- examples that are no batches


class Stream(IterableDataset):
    def __init__(self, examples):
        self.examples = examples

    def __iter__(self):
        return iter(self.examples)


EXAMPLES = {
    "pairs": [(X[i], int(Y[i])) for i in range(10)],
    "arrays": [(X[i].numpy(), np.int64(Y[i])) for i in range(10)],
    "lists": [(X[i].tolist(), Y[i]) for i in range(10)],
    "dicts": [{"x": X[i], "labels": Y[i], "text": "word"} for i in range(10)],
    "dicts of lists": [{"x": X[i].tolist(), "label": int(Y[i])} for i in range(10)],
}


@pytest.mark.parametrize("form", EXAMPLES)
@pytest.mark.parametrize("source", [list, tuple, Again, Stream, lambda e: DataLoader(Stream(e), batch_size=None),
                                    lambda e: DataLoader(e, batch_size=None, shuffle=True)])
def test_single_examples_are_batched(form, source):
    for memory in (float("inf"), 50):
        split = as_split(source(EXAMPLES[form]), "it", batch_size=4, memory=memory)
        inputs = [inputs["x"] if isinstance(inputs, dict) else inputs for inputs, _ in split.batches(4)]
        assert [len(part) for part in inputs] == [4, 4, 2]
        assert torch.equal(torch.cat(inputs), X) and torch.equal(torch.cat([y for _, y in split.batches(4)]), Y)


@pytest.mark.parametrize("source, words", [
    ([(torch.ones(3), 0), (torch.ones(4), 1)], "(3,) and (4,) in entry 1 of an example; pad them"),
    ([{"ids": [1, 2], "label": 0}, {"ids": [1], "label": 0}], "(1,) and (2,) in 'ids'"),
    ([{"ids": [1, 2], "label": 0}, {"label": 0}], "lacks 'ids'"),
    ([{"ids": [1, 2], "label": 0}, {"ids": None, "label": 0}], "got NoneType in 'ids'"),
    (Records(lambda i: {"picture": object(), "label": 0}), "got object in 'picture'"),
    (Records(lambda i: (object(), 0)), "got object in entry 1 of an example"),
    ([(torch.ones(3, 4, 4), torch.ones(4, 4).long())], "give a DataLoader"),
])
def test_examples_that_can_not_be_batched_are_refused(source, words):
    assert words in refusal(source)


# ---------------------------------------------------------------- Hugging Face data sets


def test_hugging_face_data_sets_with_and_without_a_format():
    datasets = pytest.importorskip("datasets")
    columns = {"input_ids": X.int().tolist(), "score": W.tolist(), "text": ["word"] * 10, "label": Y.tolist()}
    data = datasets.Dataset.from_dict(columns)
    forms = [data, data.with_format("torch"), data.with_format("numpy"), DataLoader(data.with_format("torch"), 4),
             data.to_iterable_dataset(), data.to_iterable_dataset().with_format("torch"),
             DataLoader(data.to_iterable_dataset().with_format("torch"), 4)]
    for source in forms:
        split = as_split(source, "it")
        assert isinstance(split, Split) and split.target_name == "label"
        assert list(split.inputs) == ["input_ids", "score"]
        assert torch.equal(split.inputs["input_ids"], X.long()) and torch.equal(split.targets, Y)
        assert split.inputs["score"].dtype == torch.float32 and torch.allclose(split.inputs["score"], W)
    assert len({split_hash(as_split(source, "it")) for source in forms}) == 1
    assert len(as_split(data, "it", data_split=2)) == 5
    assert ".with_format('torch')" in refusal(DataLoader(data, 4))
    assert "DatasetDict of train, test" in refusal(datasets.DatasetDict(train=data, test=data))


def test_examples_of_a_language_model_are_no_batches():
    datasets = pytest.importorskip("datasets")
    tokens = torch.arange(40).view(8, 5)
    data = datasets.Dataset.from_dict({"input_ids": tokens.tolist(), "labels": tokens.tolist()})
    for source in (data, data.to_iterable_dataset(), data.with_format("torch"), list(data.with_format("torch"))):
        split = as_split(source, "it")
        assert torch.equal(split.inputs["input_ids"], tokens) and torch.equal(split.targets, tokens)


def test_the_padding_of_a_hugging_face_collator_is_kept():
    datasets, transformers = pytest.importorskip("datasets"), pytest.importorskip("transformers")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"[PAD]": 0, "a": 1}, "a")), pad_token="[PAD]")
    data = datasets.Dataset.from_dict({
        "input_ids": [[1] * (1 + i % 5) for i in range(10)], "label": Y.tolist()})
    loader = DataLoader(data, 4, collate_fn=transformers.DataCollatorWithPadding(tokenizer))
    split = as_split(loader, "it")
    assert isinstance(split, Batches) and split.target_name == "labels" and len(split) == 10
    for (inputs, targets), batch in zip(split.batches(), loader, strict=True):
        assert torch.equal(inputs["input_ids"], batch["input_ids"]) and torch.equal(targets, batch["labels"])
        assert torch.equal(inputs["attention_mask"], batch["attention_mask"])


def test_pictures_of_a_data_set_are_named_by_field_and_type():
    datasets, image = pytest.importorskip("datasets"), pytest.importorskip("PIL.Image")
    pictures = [image.new("RGB", (4, 4)) for _ in range(3)]
    data = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 0]})
    assert "PngImageFile in 'image'" in refusal(data)
    split = as_split(data.with_format("torch"), "it")
    assert split.inputs["image"].shape == (3, 3, 4, 4)


def test_samples_of_a_webdataset(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "0.tar")) as writer:
        for i in range(10):
            writer.write({"__key__": f"{i:03}", "x.pth": X[i], "cls": int(Y[i])})
    data = webdataset.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False, empty_check=False).decode()
    pairs = data.to_tuple("x.pth", "cls")
    for source in (pairs, pairs.batched(4), webdataset.WebLoader(pairs.batched(4), batch_size=None)):
        split = as_split(source, "it")
        assert torch.equal(split.inputs, X) and torch.equal(split.targets, Y)


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize("source, words", [
    (Again([{"x": ["a"], "labels": Y[:1]}]), "got x (list of str)"),
    (Again([(X, None)]), "got NoneType"),
    (Again([(X, {"a": object()})]), "got object in the targets['a']"),
    (Again([{"x": X, "other": [object()], "labels": Y}]), "got object in other[0]"),
    (Again([(["a", "b"], Y[:2])]), "got list of str in the inputs"),
    (Again([(X, Y[:4])]), "as many inputs as targets"),
    (Again([(X, (Y, W[:4]))]), "as many inputs as targets"),
    ((X, (Y, W[:4])), "as many inputs as targets"),
    ((X[:4], {"a": Y}), "as many inputs as targets"),
    (Again([[{"x": X}, {"x": X}]]), "got list of dict of 2"),
    (Again([(X.to_sparse(), Y)]), "convert it with .to_dense()"),
    (Again([{"x": X, "words": [[1, 2], [3]], "labels": Y}]), "pad them"),
    ({"train": X, "test": X}, "got dict of train, test"),
    (nn.Linear(2, 2), "got Linear"),
])
def test_what_can_not_be_read_is_named_by_field_and_type(source, words):
    assert words in refusal(source)


# ---------------------------------------------------------------- the hash


def test_the_hash_knows_targets_of_every_form():
    sources = [(X, (Y, W)), (X, (W, Y)), (X, {"a": Y, "b": W}), (X, {"b": Y, "a": W}), (X, Y), (X, (Y, W + 1)),
               (X, {"a": Y, "b": W + 1})]
    assert len({split_hash(as_split(source, "it")) for source in sources}) == len(sources)


def test_two_passes_are_compared_in_all_that_they_hold():
    class Changing:
        def __init__(self, make):
            self.make, self.passes = make, 0

        def __iter__(self):
            self.passes += 1
            return iter([self.make(self.passes)])

    for make in (
            lambda i: (X, {"a": Y + i}), lambda i: (X, (Y, W + i)), lambda i: (X, Y, W + i),
            lambda i: {"x": X, "scale": i, "labels": Y}, lambda i: ([X[0], X], [{"a": Y}, {"a": Y + i}]),
            lambda i: Graph(X + i, Y, Y)):
        assert "differs from the first" in refusal(Changing(make))


def test_a_hash_of_tensors_is_as_it_was():
    """Surface files remember it: a run that was begun is taken up again."""
    assert split_hash(Split(X, Y))[:12] == "568ca52464fd"
    assert split_hash(Split({"a": X, "b": (Y, X)}, Y))[:12] == "8410985703ff"
    assert split_hash(Split(X.bfloat16(), W))[:12] == "420b9c940e61"


def test_a_batch_that_was_read_is_read_again_as_the_same():
    for batch in ((X, (Y, W)), {"x": X, "labels": {"a": Y}}, (IMAGES, RECORDS), (graphs()[0], Y[:3])):
        once = pair(batch)
        again = pair(once)
        assert samples_in(again[1]) == samples_in(once[1]) and type(again[1]) is type(once[1])
        assert type(again[0]) is type(once[0])


def test_a_collated_batch_is_what_torch_makes_of_it():
    """Without a loader, examples are stacked as torch's own collation does it."""
    examples = [(X[i], {"a": int(Y[i]), "b": (W[i], X[i].numpy())}) for i in range(10)]
    expected = pair(default_collate(examples))
    split = as_split(Records(examples.__getitem__), "it")
    assert torch.equal(split.inputs, expected[0])
    assert all_equal(split.targets, expected[1])
