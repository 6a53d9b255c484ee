"""Data sets by name: a fixed order, parts that are disjoint, no network where files are."""


import numpy as np
import pytest
import torch

from losslandscape.data.datasets import (
    DATASETS,
    DataRequest,
    load_dataset,
    load_request,
    prepare,
    split_hash,
)
from losslandscape.data.named import NamedSet
from tests import datafiles
from tests.datafiles import error_of, tree, write_cifar, write_idx

no_network = datafiles.no_network


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("raw_data", [False, True])
def test_every_named_set_gives_a_fixed_order_black_and_only_the_parts_asked_for(tmp_path, name, raw_data):
    if name.startswith("cifar"):
        write_cifar(tmp_path, name)
    elif name != "digits":
        write_idx(tmp_path)
    both, again = (load_dataset(name, str(tmp_path), raw_data) for _ in range(2))
    for part in ("train", "test"):
        alone = load_dataset(name, str(tmp_path), raw_data, splits=(part,))
        assert {split_hash(getattr(data, part)) for data in (both, again, alone)} == {split_hash(getattr(both, part))}
        assert (alone.train is None) == (part == "test") and (alone.test is None) == (part == "train")
    assert both.black.shape == (3,) and both.name == name and both.num_classes == DATASETS[name].num_classes
    if raw_data:
        assert both.train.inputs.min() >= 0 and both.train.inputs.max() <= 1 and not both.black.any()
    else:
        assert (both.train.inputs.amin((0, 2, 3)) >= both.black).all() and (both.black < 0).all()


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_are_disjoint_equal_and_those_of_the_legacy_generator(tmp_path, parts):
    count = 23
    np.savez(tmp_path / "d.npz", x_train=np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1),
             y_train=np.arange(count), x_test=np.zeros((4, 1, 1, 1), np.float32), y_test=np.arange(4))
    loaded = [load_dataset(str(tmp_path / "d.npz"), data_split=parts, split_idx=i) for i in range(parts)]
    found = [data.train.targets.tolist() for data in loaded]
    assert {len(part) for part in found} == {count // parts}
    assert len(set().union(*found)) == parts * (count // parts)
    assert all(data.train.inputs.flatten().tolist() == part for data, part in zip(loaded, found, strict=True))
    assert all(len(data.test) == 4 and data.num_classes == count for data in loaded)  # parts of the training set only
    if parts > 1:
        assert found[0] == np.random.RandomState(0).permutation(count)[:count // parts].tolist()
    else:
        assert found[0] == list(range(count))


def test_data_split_holds_for_named_sets_too(tmp_path):
    write_cifar(tmp_path)
    whole = load_dataset("cifar10", str(tmp_path)).train
    chosen = torch.from_numpy(np.random.RandomState(0).permutation(15)[5:10])
    part = load_dataset("cifar10", str(tmp_path), data_split=3, split_idx=1).train
    assert torch.equal(part.inputs, whole.inputs[chosen]) and torch.equal(part.targets, whole.targets[chosen])


@pytest.mark.parametrize("data_split, split_idx", [(1, 1), (3, 3), (3, -1), (0, 0), (-2, 0)])
def test_a_part_that_does_not_exist_is_refused(data_split, split_idx):
    assert "split_idx" in error_of(load_dataset, "digits", data_split=data_split, split_idx=split_idx)


def test_more_parts_than_images_are_refused():
    assert "at most 1500" in error_of(load_dataset, "digits", data_split=1501)


@pytest.mark.parametrize("name, hint", [
    ("cifar", "did you mean cifar10"), ("CIFAR10", "did you mean cifar10"), ("", "check the name"),
    ("fashion-mnist", "did you mean fashion_mnist"), ("quux", "check the name"), ("data.npy", "FILE.npz"),
])
def test_an_unknown_name_lists_the_names(name, hint):
    for call in (load_dataset, prepare):
        message = error_of(call, name, "/nonexistent")
        assert hint in message and all(known in message for known in DATASETS)


@pytest.mark.parametrize("kwargs", [
    {"name": "missing.npz"}, {"name": "digits", "trainloader": "missing.pt"},
    {"name": "cifar10", "datapath": "missing"}, {"name": "mnist", "datapath": "missing"},
])
def test_a_missing_file_is_named(tmp_path, monkeypatch, kwargs):
    monkeypatch.chdir(tmp_path)
    assert "missing" in error_of(load_dataset, **kwargs)
    assert tree(tmp_path) == []


def test_load_dataset_never_downloads(tmp_path, no_network):
    for name in ("cifar10", "cifar100", "mnist"):
        assert str(tmp_path) in error_of(load_dataset, name, str(tmp_path))
    assert tree(tmp_path) == []


def test_a_new_set_is_a_named_set_in_the_table(monkeypatch, tmp_path):
    def read_stripes(datapath, part):
        images = np.zeros((4, 1, 32, 32), np.uint8)  # (N, C, H, W)
        images[:, :, ::2] = 255
        return images, np.arange(4)

    stripes = NamedSet(num_classes=4, flip=True, mean=(0.5,), std=(0.25,), read=read_stripes)
    monkeypatch.setitem(DATASETS, "stripes", stripes)

    prepare("stripes", str(tmp_path))
    data = load_dataset("stripes", str(tmp_path), data_split=2)
    assert data.train.inputs.shape == (2, 3, 32, 32) and len(data.test) == 4
    assert data.train.inputs.unique().tolist() == [-2, 2] and data.black.tolist() == [-2] * 3


@pytest.mark.parametrize("choices", [{}, {"splits": ("test",)}, {"raw_data": True}])
def test_a_request_and_the_arguments_of_load_dataset_are_the_same(choices):
    by_request = load_request(DataRequest("digits", **choices))
    by_arguments = load_dataset("digits", **choices)
    assert split_hash(by_request.test) == split_hash(by_arguments.test)
