"""MNIST and Fashion-MNIST: found where they usually lie, padded; damaged files are refused."""

import gzip
import os
import struct

import numpy as np
import pytest
import torch

from losslandscape.data import cifar
from losslandscape.data.datasets import DATASETS, load_dataset, prepare
from tests import datafiles
from tests.conftest import GOLDEN
from tests.datafiles import error_of, idx_bytes, write_idx

no_network = datafiles.no_network


DEBIAN = "/usr/share/datasets/fashion-mnist"


@pytest.mark.parametrize("name, folder", [
    ("mnist", "."), ("mnist", "raw"), ("mnist", "MNIST/raw"), ("mnist", "mnist"),
    ("fashion_mnist", "."), ("fashion_mnist", "raw"), ("fashion_mnist", "FashionMNIST/raw"),
    ("fashion_mnist", "fashion-mnist"), ("fashion_mnist", "fashion_mnist"),
])
@pytest.mark.parametrize("style", ["gz", "plain", "dotted"])
def test_idx_files_are_found_padded_and_normalized(tmp_path, no_network, name, folder, style):
    written = write_idx(tmp_path / folder, gz=style == "gz", dotted=style == "dotted")
    prepare(name, str(tmp_path))
    data = load_dataset(name, str(tmp_path))
    (mean,), (std,) = DATASETS[name].mean, DATASETS[name].std
    for part, split in (("train", data.train), ("test", data.test)):
        images, labels = written[part]
        assert split.inputs.shape == (5, 3, 32, 32)
        pixels = (split.inputs.double() * std + mean) * 255  # normalization undone
        assert torch.allclose(pixels[:, :, 2:30, 2:30], torch.tensor(images)[:, None].double(), atol=1e-4)
        assert torch.equal(split.inputs[:, 0], split.inputs[:, 2])
        border = torch.ones(32, 32, dtype=bool)
        border[2:30, 2:30] = False
        assert torch.equal(split.inputs[:, :, border], data.black[None, :, None].expand(5, 3, int(border.sum())))
        assert split.targets.tolist() == labels.tolist()
    assert data.flip == (name == "fashion_mnist")


def test_files_of_the_two_mnists_side_by_side_are_not_mixed_up(tmp_path):
    digits, clothes = write_idx(tmp_path / "MNIST/raw", seed=1), write_idx(tmp_path / "FashionMNIST/raw", seed=2)
    for name, written in (("mnist", digits), ("fashion_mnist", clothes)):
        assert load_dataset(name, str(tmp_path)).train.targets.tolist() == written["train"][1].tolist()


@pytest.mark.parametrize("image", [
    b"", b"\x00\x00\x08", b"\x00\x00\x0d\x03" + bytes(12), b"\x1f\x8b", b"\x1f\x8b\x08\x00garbage of some length",
    idx_bytes(np.zeros((5, 28, 28), np.uint8))[:-1],
    idx_bytes(np.zeros((5, 28, 28), np.uint8)) + b"x",
    gzip.compress(idx_bytes(np.ones((5, 28, 28), np.uint8)), mtime=0)[:-9],
    gzip.compress(idx_bytes(np.ones((5, 28, 28), np.uint8)), mtime=0)[:-8] + bytes(8),  # wrong checksum
    gzip.compress(idx_bytes(np.zeros((5, 28, 28), np.uint8)) + bytes(10**6), mtime=0),
    b"\x00\x00\x08\x03" + b"\xff" * 12 + bytes(100),  # claims 8e28 bytes
    b"\x00\x00\x08\x03" + struct.pack(">3I", 10**6, 28, 28) + bytes(100),
    idx_bytes(np.zeros((5, 32, 32), np.uint8)),
    idx_bytes(np.zeros((4, 28, 28), np.uint8)),  # 5 labels
    idx_bytes(np.zeros((0, 28, 28), np.uint8)),
])
def test_a_damaged_idx_file_is_refused_in_one_line(tmp_path, image):
    write_idx(tmp_path, gz=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(image)
    assert "train" in error_of(load_dataset, "mnist", str(tmp_path))
    assert len(load_dataset("mnist", str(tmp_path), splits=("test",)).test) == 5  # the other part is not touched


@pytest.mark.skipif(not os.path.isdir(DEBIAN), reason="the Debian package dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist_agrees_with_the_golden_inputs(tmp_path, no_network):
    # they are training images 400 to 599 and the first 100 test images, normalized with CIFAR-10's constants
    prepare("fashion_mnist", str(tmp_path))
    data = load_dataset("fashion_mnist", str(tmp_path), raw_data=True)
    golden = np.load(os.path.join(GOLDEN, "data.npz"))
    mean, std = (np.array(v)[:, None, None] for v in (cifar.MEAN, cifar.STD))
    for split, which, part in ((data.train, slice(400, 600), "train"), (data.test, slice(0, 100), "test")):
        expected = (split.inputs[which].numpy() - mean) / std
        np.testing.assert_allclose(golden[f"x_{part}"], expected, atol=1e-6)
        assert golden[f"y_{part}"].tolist() == split.targets[which].tolist()
    assert (len(data.train), len(data.test)) == (60000, 10000)
    inner = data.train.inputs[:, 0, 2:30, 2:30].numpy()
    constants = round(float(inner.mean(dtype=np.float64)), 4), round(float(inner.std(dtype=np.float64)), 4)
    assert constants == (*DATASETS["fashion_mnist"].mean, *DATASETS["fashion_mnist"].std)
