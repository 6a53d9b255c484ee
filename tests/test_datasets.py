"""Data sets: fixed order, right numbers, no network where files are, no file's code run, one-line errors."""

import ast
import functools
import gzip
import hashlib
import http.server
import io
import math
import os
import pickle
import random
import shutil
import socket
import struct
import tarfile
import threading
import urllib.request
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision

from losslandscape.data import cifar, digits, idx
from losslandscape.data.datasets import DATASETS, Split, load_dataset, prepare, split_hash
from losslandscape.errors import InputError

GOLDEN = os.path.join(os.path.dirname(__file__), "golden")
DEBIAN = "/usr/share/datasets/fashion-mnist"


def error_of(call, *args, **kwargs):
    """The message of the InputError that the call must raise: one line of reasonable length."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def tree(folder):
    return sorted(os.path.join(root, name) for root, folders, files in os.walk(folder) for name in folders + files)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# ---------------------------------------------------------------- CIFAR


def python2_pickle(labels_key, images, labels):
    """The bytes that Python 2 wrote with protocol 2: its strings have opcodes that Python 3 can't write."""

    def text(value):
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    dtype = (b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R("
             + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb")
    array = (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R("
             + number(1) + number(images.shape[0]) + number(images.shape[1]) + b"\x86" + dtype + b"\x89"
             + text(images.tobytes()) + b"tb")
    return (b"\x80\x02}(" + text(b"batch_label") + text(b"a batch") + text(labels_key.encode()) + b"]("
            + b"".join(map(number, labels)) + b"e" + text(b"data") + array
            + text(b"filenames") + b"](" + text(b"a.png") + b"e" + b"u.")


def python3_pickle(labels_key, images, labels, protocol):
    return pickle.dumps({"data": images, labels_key: list(labels), "filenames": ["a.png"]}, protocol)


WRITERS = {"python 2": python2_pickle} | {
    f"python 3, protocol {protocol}": functools.partial(python3_pickle, protocol=protocol) for protocol in (2, 3, 4, 5)}


# as the archives of Krizhevsky have them
CIFAR_FILES = {
    "cifar10": ("cifar-10-batches-py", "labels", {
        "train": ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        "test": ["test_batch"],
    }),
    "cifar100": ("cifar-100-python", "fine_labels", {"train": ["train"], "test": ["test"]}),
}


def write_cifar(datapath, name="cifar10", count=3, write=python2_pickle):
    """Small CIFAR files below `datapath`; returns {part: (images (N, 3, 32, 32), labels)} in the order of the files."""
    rng = np.random.default_rng(0)
    folder, labels_key, parts = CIFAR_FILES[name]
    folder = datapath / folder
    folder.mkdir(parents=True)
    written = {}
    for part, files in parts.items():
        images = rng.integers(0, 256, (len(files), count, 3072), np.uint8)
        labels = rng.integers(0, DATASETS[name].num_classes, (len(files), count))
        for file, x, y in zip(files, images, labels, strict=True):
            (folder / file).write_bytes(write(labels_key, x, y.tolist()))
        written[part] = images.reshape(-1, 3, 32, 32), labels.ravel()
    return written


def archive_of(datapath, name="cifar10"):
    """Pack the folder of `name` into its .tar.gz and remove it."""
    layout = cifar.LAYOUTS[name]
    with tarfile.open(datapath / layout.archive, "w:gz") as archive:
        archive.add(datapath / layout.folder, layout.folder)
    shutil.rmtree(datapath / layout.folder)
    return datapath / layout.archive


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("writer", WRITERS)
def test_cifar_batches_are_read_in_order_and_normalized_as_torchvision_does(tmp_path, no_network, name, writer):
    written = write_cifar(tmp_path, name, write=WRITERS[writer])
    transform = torchvision.transforms.Compose([
        torchvision.transforms.ToTensor(),
        torchvision.transforms.Normalize(np.array([125.3, 123.0, 113.9]) / 255, np.array([63.0, 62.1, 66.7]) / 255),
    ])
    prepare(name, str(tmp_path))
    data = load_dataset(name, str(tmp_path))
    for part, split in (("train", data.train), ("test", data.test)):
        images, labels = written[part]
        assert torch.equal(split.inputs, torch.stack([transform(image.transpose(1, 2, 0)) for image in images]))
        assert torch.equal(split.targets, torch.tensor(labels))
        assert split.inputs.is_contiguous() and split.inputs.dtype == torch.float32
        assert len(split) == len(labels) and split.targets.dtype == torch.int64
    assert torch.equal(data.black, transform(np.zeros((1, 1, 3), np.uint8)).flatten())
    assert data.num_classes == int(name.removeprefix("cifar")) and data.flip


def test_folder_its_parent_and_the_archive_give_the_same_data(tmp_path, no_network):
    write_cifar(tmp_path)
    folders = tmp_path, tmp_path / "cifar-10-batches-py"
    hashes = {split_hash(load_dataset("cifar10", str(folder)).train) for folder in folders}
    archive = archive_of(tmp_path)
    prepare("cifar10", str(tmp_path))
    data = load_dataset("cifar10", str(tmp_path))
    assert hashes == {split_hash(data.train)} and len(data.test) == 3
    assert tree(tmp_path) == [str(archive)]  # nothing was unpacked


class Bomb:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def make_file(path):
    """A call that leaves a proof when a pickle is run."""
    return Bomb(open, str(path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_code_in_a_cifar_batch_is_never_run(tmp_path, protocol):
    proof = tmp_path / "proof"
    images = np.zeros((2, 3072), np.uint8)
    batch = pickle.dumps({"data": images, "labels": [0, 1], "more": make_file(proof)}, protocol)
    pickle.loads(batch)
    assert proof.exists()  # the ordinary reader does run it
    proof.unlink()
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(batch)
    message = error_of(load_dataset, "cifar10", str(tmp_path))
    assert "data_batch_2" in message and "io.open" in message
    assert not proof.exists()


@pytest.mark.parametrize("batch", [
    b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93K\x00\x85\x81.",  # numpy.ndarray by NEWOBJ
    b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",  # an attribute of an admitted class
    b"\x80\x04\x8c\x05numpy\x8c\x06memmap\x93.",
    b"(S'touch proof'\nios\nsystem\n.",  # the INST opcode
    b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R.",  # arrays of objects
    b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
    b"\x80\x02\x8e" + struct.pack("<Q", 10**15) + b"abc.",  # claims a petabyte
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\xff\xff\xff\x7f\x85c_codecs\nencode\n"
    b"X\x01\x00\x00\x00bX\x06\x00\x00\x00latin1\x86R\x87R.",  # an array of 2^31 bytes that are not in the file
    b"Ppersistent\n.",
    b"]q\x00h\x00a.",  # a list that holds itself
    b"", b"\x80", b"not a pickle", b"N.", b"}.",
])
def test_a_hostile_or_damaged_cifar_batch_is_refused_in_one_line(tmp_path, monkeypatch, batch):
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(batch)
    before = tree(tmp_path)
    assert "test_batch" in error_of(load_dataset, "cifar10", str(tmp_path))
    assert tree(tmp_path) == before


def test_what_a_pickle_does_to_its_readers_names_is_gone_at_the_next_file(tmp_path):
    written = write_cifar(tmp_path)
    # sets attributes on the function that stands for numpy.dtype
    attack = b"\x80\x02cnumpy\ndtype\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b."
    with pytest.raises(InputError):
        cifar.read_batch(attack, "labels", "attack")
    assert torch.equal(load_dataset("cifar10", str(tmp_path)).test.targets, torch.tensor(written["test"][1]))


@pytest.mark.parametrize("images, labels, hint", [
    (np.zeros((2, 3071), np.uint8), [0, 1], "3072"),
    (np.zeros((2, 3072), np.int64), [0, 1], "uint8"),
    (np.zeros((2, 3072), np.uint8), [0], "2 labels"),
    (np.zeros((2, 3072), np.uint8), [0, 10], "0 .. 9"),
    (np.zeros((2, 3072), np.uint8), [0, -1], "0 .. 9"),
    (np.zeros((2, 3072), np.uint8), [0, 0.5], "integers"),
    (np.zeros((2, 3072), np.uint8), [0, 10**30], "integers"),
    (np.zeros((0, 3072), np.uint8), [], "at least one example"),
    ([[0]], [0], "CIFAR batch"),
])
def test_wrong_arrays_in_a_cifar_batch_are_named(tmp_path, images, labels, hint):
    write_cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps({"data": images, "labels": labels}, 4))
    assert hint in error_of(load_dataset, "cifar10", str(tmp_path))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_archive_is_named(tmp_path, kept):
    write_cifar(tmp_path)
    archive = archive_of(tmp_path)
    image = archive.read_bytes()
    archive.write_bytes(image[:int(kept * len(image))])
    assert archive.name in error_of(load_dataset, "cifar10", str(tmp_path), splits=("train", "test"))


def test_an_archive_without_the_batches_is_named(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz"):
        pass
    assert "data_batch_1" in error_of(load_dataset, "cifar10", str(tmp_path))


# ---------------------------------------------------------------- MNIST, Fashion-MNIST, digits


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, gz=True, seed=0, count=5, dotted=False):
    """Small idx files in `folder`; returns {part: (images (N, 28, 28), labels)}."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for part, names in idx.IDX_FILES.items():
        written[part] = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count).astype(np.uint8)
        for name, array in zip(names, written[part], strict=True):
            image = idx_bytes(array)
            name = name.replace("-idx", ".idx") if dotted else name
            (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(image) if gz else image)
    return written


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


def test_digits_are_scikit_learns_in_order_enlarged_linearly(no_network):
    from sklearn.datasets import load_digits

    prepare("digits", "/nonexistent")
    data = load_dataset("digits", raw_data=True)
    digits = load_digits()
    assert (len(data.train), len(data.test), data.num_classes) == (1500, 297, 10)
    assert torch.cat([data.train.targets, data.test.targets]).tolist() == digits.target.tolist()
    at = (np.arange(32) + 0.5) / 4 - 0.5  # where the centres of the small pixels lie among those of the 8 large ones
    enlarge = np.stack([np.interp(at, np.arange(8), row) for row in np.eye(8)], axis=1)  # (32, 8)
    expected = enlarge @ (digits.images / 16) @ enlarge.T  # (1797, 32, 32)
    np.testing.assert_allclose(torch.cat([data.train.inputs, data.test.inputs])[:, 1], expected, atol=1e-6)


def test_digits_are_found_wherever_scikit_learn_keeps_them_and_missed_without_it(monkeypatch):
    usual = load_dataset("digits").train
    elsewhere = SimpleNamespace(origin="/nowhere/__init__.py")
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda _: elsewhere)
    other = load_dataset("digits").train
    assert torch.equal(usual.inputs, other.inputs) and torch.equal(usual.targets, other.targets)
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda _: None)
    assert "pip install scikit-learn" in error_of(load_dataset, "digits")


def test_constants_of_digits_are_those_of_the_training_part():
    raw = load_dataset("digits", raw_data=True, splits=("train",)).train.inputs.double()
    spec = DATASETS["digits"]
    assert (round(float(raw.mean()), 4), round(float(raw.std()), 4)) == (*spec.mean, *spec.std)
    normalized = load_dataset("digits").train.inputs.double()
    torch.testing.assert_close((raw - spec.mean[0]) / spec.std[0], normalized, atol=1e-6, rtol=0)


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


# ---------------------------------------------------------------- --data_split


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


# ---------------------------------------------------------------- FILE.npz


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def images_and_labels(count=6, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, channels, 8, 10), np.uint8), np.arange(count) % 4


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "f8"])
@pytest.mark.parametrize("raw_data", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_float_inputs_of_an_npz_are_used_as_they_are(tmp_path, dtype, raw_data, compressed):
    x = np.random.default_rng(0).normal(size=(5, 2, 8, 9)).astype(dtype)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "d.npz", x_train=np.asfortranarray(x),
                                                      y_train=np.array([[3], [0], [1], [1], [0]], np.int32))
    data = load_dataset(str(tmp_path / "d.npz"), raw_data=raw_data)
    assert torch.equal(data.train.inputs, torch.from_numpy(x.astype("f4")))
    assert data.train.inputs.is_contiguous() and data.test is None
    assert data.train.targets.tolist() == [3, 0, 1, 1, 0] and data.num_classes == 4
    assert data.black.tolist() == [0, 0] and not data.flip


def test_the_golden_npz_is_used_as_it_is():
    path = os.path.join(GOLDEN, "data.npz")
    golden, data = np.load(path), load_dataset(path)
    for part, split in (("train", data.train), ("test", data.test)):
        assert np.array_equal(split.inputs, golden[f"x_{part}"]) and np.array_equal(split.targets, golden[f"y_{part}"])


@pytest.mark.parametrize("raw_data", [False, True])
def test_layouts_of_uint8_images_agree(tmp_path, raw_data):
    x, y = images_and_labels()
    grey = x[:, :1]
    files = {
        "colour": [x, x.transpose(0, 2, 3, 1)],
        "grey": [grey, grey.transpose(0, 2, 3, 1), grey[:, 0]],
    }
    for kind, arrays in files.items():
        paths = [save_npz(tmp_path / f"{kind}{i}.npz", x_train=a, y_train=y) for i, a in enumerate(arrays)]
        assert len({split_hash(load_dataset(path, raw_data=raw_data).train) for path in paths}) == 1
    data = load_dataset(str(tmp_path / "grey0.npz"), raw_data=raw_data)
    assert data.train.inputs.shape == (6, 3, 8, 10) and data.black.shape == (3,)
    assert torch.equal(data.train.inputs[:, 0], data.train.inputs[:, 1])


def test_uint8_images_are_normalized_by_the_whole_training_set(tmp_path):
    x, y = images_and_labels(40)
    x[:, 1] //= 3
    x_test, y_test = images_and_labels(7, seed=1)
    path = save_npz(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test + 1)
    data = load_dataset(path)
    scaled = x / 255
    mean, std = scaled.mean((0, 2, 3), keepdims=True), scaled.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(data.train.inputs, (scaled - mean) / std, atol=2e-6)
    np.testing.assert_allclose(data.test.inputs, (x_test / 255 - mean) / std, atol=2e-6)
    np.testing.assert_allclose(data.black, (-mean / std).ravel(), atol=2e-6)
    raw = load_dataset(path, raw_data=True)
    np.testing.assert_allclose(raw.test.inputs, x_test / 255, atol=1e-7)
    assert not raw.black.any()
    part = load_dataset(path, data_split=4)  # a part, or the test set alone, is normalized as in the whole
    chosen = np.random.RandomState(0).permutation(40)[:10]
    assert torch.equal(part.train.inputs, data.train.inputs[torch.from_numpy(chosen)])
    alone = load_dataset(path, splits=("test",))
    assert alone.train is None and split_hash(alone.test) == split_hash(data.test)
    assert alone.num_classes == data.num_classes == 5  # over both sets


def test_a_constant_channel_is_centred_not_divided_by_zero(tmp_path):
    path = save_npz(tmp_path / "d.npz", x_train=np.full((2, 8, 8), 7, np.uint8), y_train=np.array([0, 1]))
    assert load_dataset(path).train.inputs.abs().max() < 1e-6


X, Y = images_and_labels()
F = X.astype(np.float32)
BAD_NPZ = {
    "no labels": (dict(x_train=F), "y_train"),
    "no inputs": (dict(y_train=Y), "x_train"),
    "other names": (dict(images=F, labels=Y), "images"),
    "nothing": (dict(), "x_train"),
    "half a test set": (dict(x_train=F, y_train=Y, x_test=F), "y_test"),
    "too few labels": (dict(x_train=F, y_train=Y[:-1]), "5 and 6"),
    "labels of the test set": (dict(x_train=F, y_train=Y, x_test=F, y_test=Y[:2]), "test labels"),
    "negative label": (dict(x_train=F, y_train=Y - 1), "-1"),
    "float labels": (dict(x_train=F, y_train=Y + 0.0), "integers"),
    "bool labels": (dict(x_train=F, y_train=Y > 0), "integers"),
    "one-hot labels": (dict(x_train=F, y_train=np.eye(6, dtype=int)), "(6, 6)"),
    "scalar label": (dict(x_train=F, y_train=np.array(3)), "integers"),
    "huge label": (dict(x_train=F, y_train=np.array([2**64 - 1] * 6, np.uint64)), "18446744073709551615"),
    "empty": (dict(x_train=F[:0], y_train=Y[:0]), "N >= 1"),
    "empty images": (dict(x_train=F[:, :, :0], y_train=Y), "(6, 3, 0, 10)"),
    "flat inputs": (dict(x_train=F.reshape(6, -1), y_train=Y), "(N, C, H, W)"),
    "5-D inputs": (dict(x_train=F[None], y_train=Y), "(N, C, H, W)"),
    "grey float images": (dict(x_train=F[:, 0], y_train=Y), "(N, C, H, W)"),
    "float channels last": (dict(x_train=F.transpose(0, 2, 3, 1), y_train=Y), "transpose"),
    "five channels": (dict(x_train=np.zeros((6, 5, 8, 10), np.uint8), y_train=Y), "1 or 3 channels"),
    "ambiguous": (dict(x_train=np.zeros((6, 3, 8, 3), np.uint8), y_train=Y), "either"),
    "int64 images": (dict(x_train=X.astype(np.int64), y_train=Y), "int64"),
    "complex": (dict(x_train=F.astype(np.complex64), y_train=Y), "complex64"),
    "objects": (dict(x_train=np.array([None] * 6), y_train=Y), "numeric"),
    "text": (dict(x_train=F, y_train=np.array(list("abcdef"))), "numeric"),
    "records": (dict(x_train=np.zeros(6, "f4,f4"), y_train=Y), "numeric"),
    "two types": (dict(x_train=X, y_train=Y, x_test=F, y_test=Y), "one type"),
    "two sizes": (dict(x_train=F, y_train=Y, x_test=F[:, :, 1:], y_test=Y), "one type and shape"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_a_bad_npz_is_refused_in_one_line_that_names_the_fault(tmp_path, case):
    arrays, hint = BAD_NPZ[case]
    path = save_npz(tmp_path / "d.npz", **arrays)
    message = error_of(load_dataset, path)
    assert hint in message and path in message


def test_pickled_arrays_in_an_npz_are_not_run(tmp_path):
    proof = tmp_path / "proof"
    path = save_npz(tmp_path / "d.npz", x_train=np.array([make_file(proof)] * 6, dtype=object), y_train=Y)
    error_of(load_dataset, path)
    assert not proof.exists()
    np.load(path, allow_pickle=True)["x_train"]
    assert proof.exists()  # there was something to run


def test_uint8_test_images_and_float_training_images_do_not_go_together(tmp_path):
    path = save_npz(tmp_path / "d.npz", x_train=F, y_train=Y, x_test=X, y_test=Y)
    assert "one type" in error_of(load_dataset, path, splits=("test",))


@pytest.mark.parametrize("shape", ["(1000000000000, 3, 32, 32)", "(-1, 3, 32, 32)", "(100000, 3, 8, 10)"])
@pytest.mark.parametrize("consistent", [False, True])  # the zip's directory tells the same lie
def test_a_claimed_size_takes_no_memory(tmp_path, shape, consistent):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(960))
        y = io.BytesIO()
        np.save(y, Y)
        archive.writestr("y_train.npy", y.getvalue())
        if consistent:
            claimed = 10 + len(header) + 4 * abs(math.prod(ast.literal_eval(shape)))
            archive.getinfo("x_train.npy").file_size = claimed
    assert "claims shape" in error_of(load_dataset, str(tmp_path / "d.npz"))


@pytest.mark.parametrize("kept", [0, 3, 200, -300, -30])
def test_a_cut_npz_is_refused(tmp_path, kept):
    path = tmp_path / "d.npz"
    save_npz(path, x_train=F, y_train=Y)
    image = path.read_bytes()
    path.write_bytes(image[:kept])
    assert str(path) in error_of(load_dataset, str(path))


def test_a_changed_byte_in_an_npz_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x_train=F, y_train=Y)
    image = bytearray(path.read_bytes())
    original = split_hash(load_dataset(str(path)).train)
    rng, refused = random.Random(0), 0
    for _ in range(150):
        changed = image.copy()
        changed[rng.randrange(len(image))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            assert split_hash(load_dataset(str(path)).train) == original
        except InputError:
            refused += 1
    assert refused > 75


def test_a_missing_part_is_refused_when_it_was_asked_for(tmp_path):
    path = save_npz(tmp_path / "d.npz", x_train=F, y_train=Y)
    assert load_dataset(path).test is None
    for splits in (("test",), ("train", "test")):
        assert "x_test" in error_of(load_dataset, path, splits=splits)


def test_inputs_that_are_not_finite_are_warned_about_once(tmp_path, capsys):
    x = F.astype(np.float64)
    x[1, 0, 0, 0], x[4, 2] = np.nan, 1e300  # beyond float32
    path = save_npz(tmp_path / "d.npz", x_train=x, y_train=Y)
    load_dataset(path)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "2 of 6 train inputs" in captured.err and captured.out == ""
    load_dataset(path, quiet=True)
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- --trainloader, --testloader


def save(path, saved):
    torch.save(saved, path)
    return str(path)


def test_every_form_of_saved_tensors_gives_the_same_data(tmp_path):
    x, y = torch.from_numpy(F), torch.from_numpy(Y)
    forms = [(x, y), [x, y], {"inputs": x, "targets": y}, {"x": x, "y": y, "more": 1}, {"images": x, "labels": y.int()},
             [(x[:4], y[:4]), (x[4:], y[4:])], ([x[:5], y[:5]], [x[5:], y[5:]]), [(x, y)], (x.double(), y[:, None])]
    for trust_pickle in (False, True):
        for i, form in enumerate(forms):
            path = save(tmp_path / f"{i}.pt", form)
            data = load_dataset("cifar10", "/nonexistent", trainloader=path, testloader=path, trust_pickle=trust_pickle)
            assert torch.equal(data.train.inputs, x) and torch.equal(data.train.targets, y)
            assert split_hash(data.train) == split_hash(data.test)
            assert data.num_classes == 10  # --dataset cifar10 has ten, though only four are seen here
    bf16 = load_dataset("own", trainloader=save(tmp_path / "b.pt", (x.bfloat16(), y))).train.inputs
    assert torch.equal(bf16, x.bfloat16().float())
    old = str(tmp_path / "old.pt")
    torch.save((x, y), old, _use_new_zipfile_serialization=False)
    own = load_dataset("own", trainloader=old)
    assert torch.equal(own.train.inputs, x) and own.num_classes == 4 and own.test is None


def test_saved_uint8_images_are_treated_like_those_of_an_npz(tmp_path):
    path = save(tmp_path / "d.pt", (torch.from_numpy(X), torch.from_numpy(Y)))
    npz = save_npz(tmp_path / "d.npz", x_train=X, y_train=Y)
    assert split_hash(load_dataset("own", trainloader=path).train) == split_hash(load_dataset(npz).train)
    assert "--trainloader" in error_of(load_dataset, "own", testloader=path, splits=("test",))
    load_dataset("own", testloader=path, splits=("test",), raw_data=True)


def test_a_saved_test_set_does_not_stand_in_for_a_training_set(tmp_path):
    path = save(tmp_path / "d.pt", (torch.from_numpy(F), torch.from_numpy(Y)))
    assert "--trainloader" in error_of(load_dataset, "digits", testloader=path)
    assert len(load_dataset("digits", testloader=path, splits=("test",)).test) == 6


class Flipping(torch.utils.data.Dataset):
    """Random augmentation."""

    def __len__(self):
        return len(Y)

    def __getitem__(self, i):
        return torch.from_numpy(F[i]) + torch.randn(()), int(Y[i])


def test_a_pickled_loader_needs_trust_and_is_read_in_order(tmp_path):
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(F), torch.from_numpy(Y))
    path = save(tmp_path / "d.pt", torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=True))
    assert "--trust_pickle" in error_of(load_dataset, "digits", trainloader=path)
    data = load_dataset("digits", trainloader=path, trust_pickle=True)
    assert np.array_equal(data.train.inputs, F) and data.train.targets.tolist() == Y.tolist()
    bare = save(tmp_path / "d2.pt", dataset)
    assert split_hash(load_dataset("own", trainloader=bare, trust_pickle=True).train) == split_hash(data.train)


def test_random_augmentation_in_a_pickled_loader_is_refused(tmp_path):
    path = save(tmp_path / "d.pt", torch.utils.data.DataLoader(Flipping()))
    assert "augmentation" in error_of(load_dataset, "digits", trainloader=path, trust_pickle=True)


@pytest.mark.parametrize("old", [False, True])
def test_code_in_saved_tensors_is_not_run_without_trust(tmp_path, old):
    proof = tmp_path / "proof"
    path = str(tmp_path / "d.pt")
    torch.save((torch.from_numpy(F), make_file(proof)), path, _use_new_zipfile_serialization=not old)
    assert "--trust_pickle" in error_of(load_dataset, "digits", trainloader=path)
    assert not proof.exists()
    error_of(load_dataset, "digits", trainloader=path, trust_pickle=True)
    assert proof.exists()  # with trust it runs: that is what the flag says


TX, TY = torch.from_numpy(F), torch.from_numpy(Y)
BAD_SAVED = {
    "one tensor": TX, "three": (TX, TY, TY), "empty list": [], "other keys": {"a": TX, "b": TY}, "number": 3,
    "lengths": (TX, TY[:3]), "float labels": (TX, TY.double()), "negative": (TX, TY - 1), "flat": (TX.flatten(1), TY),
    "empty": (TX[:0], TY[:0]), "lists": (F.tolist(), Y.tolist()), "state dict": {"fc.weight": TX},
    "ragged batches": [(TX, TY), (TX[:, :, 1:], TY)], "integers": (TX.long(), TY), "sparse": (TX.to_sparse(), TY),
    "complex": (TX.to(torch.complex64), TY), "batches of one": [(TX,), (TY,)],
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("case", BAD_SAVED)
@pytest.mark.parametrize("trust_pickle", [False, True])
def test_bad_saved_tensors_are_refused_in_one_line(tmp_path, case, trust_pickle):
    path = save(tmp_path / "d.pt", BAD_SAVED[case])
    assert path in error_of(load_dataset, "own", trainloader=path, trust_pickle=trust_pickle)


@pytest.mark.parametrize("image", [b"", b"garbage", b"PK\x03\x04 not a zip", b"\x80\x02}."])
@pytest.mark.parametrize("trust_pickle", [False, True])
def test_a_file_that_torch_save_did_not_write_is_refused(tmp_path, image, trust_pickle):
    (tmp_path / "d.pt").write_bytes(image)
    assert "d.pt" in error_of(load_dataset, "own", trainloader=str(tmp_path / "d.pt"), trust_pickle=trust_pickle)


def test_a_cut_file_of_saved_tensors_is_refused(tmp_path):
    path = tmp_path / "d.pt"
    save(path, (TX, TY))
    image = path.read_bytes()
    for kept in (1, 100, len(image) // 2, len(image) - 10):
        path.write_bytes(image[:kept])
        assert "d.pt" in error_of(load_dataset, "own", trainloader=str(path))


# ---------------------------------------------------------------- names, downloads, hashes


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


@pytest.mark.parametrize("name, expected", [("cifar10", "data_batch_5"), ("cifar100", "cifar-100-python.tar.gz"),
                                            ("mnist", "t10k-labels-idx1-ubyte")])
def test_a_failed_download_names_the_files_and_leaves_nothing(tmp_path, monkeypatch, name, expected):
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for variable in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)
    message = error_of(prepare, name, str(tmp_path / "a" / "b"))
    assert expected in message and str(tmp_path / "a" / "b") in message
    assert tree(tmp_path) == []


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(folder, URL) of an HTTP server on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{served.server_address[1]}/"
        served.shutdown()
        thread.join()


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_absent_files_are_downloaded_once_and_then_used_without_network(tmp_path, monkeypatch, server):
    folder, url = server
    written = write_idx(folder)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(p.name, md5(p)) for p in sorted(folder.iterdir())])
    datapath = tmp_path / "new" / "data"
    prepare("mnist", str(datapath))
    data = load_dataset("mnist", str(datapath))
    assert data.train.targets.tolist() == written["train"][1].tolist()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["data"]  # no temporary folder is left
    shutil.rmtree(folder)
    prepare("mnist", str(datapath))


def test_an_incomplete_folder_is_completed_by_a_download(tmp_path, monkeypatch, server):
    folder, url = server
    datapath = tmp_path / "data"
    written = write_cifar(datapath)
    names = {"filename": "batches.meta", "key": "label_names"}
    (datapath / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": list("0123456789")}))
    archive = shutil.move(archive_of(datapath), folder)
    shutil.rmtree(datapath)
    (datapath / "cifar-10-batches-py").mkdir(parents=True)
    (datapath / "cifar-10-batches-py" / "test_batch").write_bytes(b"cut short")
    dataset = torchvision.datasets.CIFAR10
    monkeypatch.setattr(dataset, "url", url + os.path.basename(archive))
    monkeypatch.setattr(dataset, "tgz_md5", md5(folder / os.path.basename(archive)))
    monkeypatch.setattr(dataset, "train_list", [[name, None] for name, _ in dataset.train_list])
    monkeypatch.setattr(dataset, "test_list", [[name, None] for name, _ in dataset.test_list])
    monkeypatch.setattr(dataset, "meta", names | {"md5": None})
    prepare("cifar10", str(datapath), splits=("test",))  # this part is there, good or bad
    assert "test_batch" in error_of(load_dataset, "cifar10", str(datapath), splits=("test",))
    prepare("cifar10", str(datapath))
    assert torch.equal(load_dataset("cifar10", str(datapath)).test.targets, torch.tensor(written["test"][1]))
    assert os.listdir(datapath) == ["cifar-10-batches-py"]


def test_a_file_as_datapath_is_refused_before_any_download(tmp_path, no_network):
    (tmp_path / "file").touch()
    assert "expected a folder" in error_of(prepare, "cifar10", str(tmp_path / "file"))


def test_load_dataset_never_downloads(tmp_path, no_network):
    for name in ("cifar10", "cifar100", "mnist"):
        assert str(tmp_path) in error_of(load_dataset, name, str(tmp_path))
    assert tree(tmp_path) == []


def test_the_hash_tells_values_order_shape_and_labels_apart():
    inputs, targets = torch.arange(24.0).reshape(2, 3, 2, 2), torch.tensor([0, 1])
    others = [inputs.flip(0), inputs.reshape(2, 3, 1, 4), torch.nextafter(inputs, inputs + 1), -inputs]
    splits = [Split(inputs, targets), Split(inputs, targets.flip(0)), *(Split(other, targets) for other in others)]
    assert len({split_hash(split) for split in splits}) == len(splits)
    strided = inputs.transpose(2, 3).contiguous().transpose(2, 3)
    for same in (inputs.clone(), strided):
        assert split_hash(Split(same, targets.clone())) == split_hash(splits[0])
