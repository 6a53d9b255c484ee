"""Small data files as the readers of losslandscape/data expect them, and hostile ones."""

import functools
import gzip
import os
import pickle
import shutil
import socket
import struct
import tarfile

import numpy as np
import pytest

from losslandscape.data import cifar, idx
from losslandscape.data.datasets import DATASETS
from losslandscape.errors import InputError


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


class Bomb:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def make_file(path):
    """A call that leaves a proof when a pickle is run."""
    return Bomb(open, str(path), "w")


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


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def images_and_labels(count=6, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, channels, 8, 10), np.uint8), np.arange(count) % 4


X, Y = images_and_labels()

F = X.astype(np.float32)
