"""The CIFAR files -> uint8 arrays, without running code.

The "python version" of CIFAR-10 and CIFAR-100 (Krizhevsky 2009) is a folder, or a .tar.gz of it, of pickled dicts:
images (n, 3072) uint8, row by row, red then green then blue, and a list of labels. Unpickling a file runs whatever the
file says, so it is read by an unpickler that knows arrays, bytes, text, numbers, lists and dicts and nothing else.
"""

import io
import os
import pickle
import re
import tarfile
import zlib
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError


@dataclass(frozen=True)
class Layout:
    folder: str
    archive: str
    files: dict  # part -> names of its files, in order
    labels: str  # key of the labels


LAYOUTS = {
    "cifar10": Layout("cifar-10-batches-py", "cifar-10-python.tar.gz",
                      {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}, "labels"),
    "cifar100": Layout("cifar-100-python", "cifar-100-python.tar.gz",
                       {"train": ["train"], "test": ["test"]}, "fine_labels"),
}


def one_line(error):
    """What someone else's exception says, fit for a message of one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def expected(name):
    """In words: the files that `name` is made of."""
    layout = LAYOUTS[name]
    files = ", ".join(file for part in layout.files.values() for file in part)
    return f"the folder {layout.folder} ({files}) or {layout.archive}"


def find(name, datapath, parts=("train", "test")):
    """The folder or the archive that holds `parts`, below `datapath` or `datapath` itself; None where there is none."""
    layout = LAYOUTS[name]
    files = [file for part in parts for file in layout.files[part]]
    for folder in (os.path.join(datapath, layout.folder), datapath):
        if all(os.path.isfile(os.path.join(folder, file)) for file in files):
            return folder
    archive = os.path.join(datapath, layout.archive)
    return archive if os.path.isfile(archive) else None


def read(name, datapath, part):
    """Images (N, 3, 32, 32) uint8 and labels (N,) of `part`, in the order of the files; raises InputError."""
    layout = LAYOUTS[name]
    found = find(name, datapath, (part,))
    if found is None:
        raise InputError(f"expected {expected(name)} in {datapath}, found neither; put one of them there")
    images, labels = [], []
    for path, image in _contents(found, layout, layout.files[part]):
        x, y = _batch(image, layout.labels, path)
        images.append(x)
        labels.append(y)
    return np.concatenate(images).reshape(-1, 3, 32, 32), np.concatenate(labels)


def _contents(found, layout, files):
    """[(path for messages, bytes)] of `files`, from a folder or straight out of the archive (nothing is unpacked)."""
    try:
        if os.path.isdir(found):
            contents = []
            for file in files:
                path = os.path.join(found, file)
                with open(path, "rb") as f:
                    contents.append((path, f.read()))
            return contents
        images = {}
        with tarfile.open(found, "r:gz") as archive:
            for member in archive:
                file = os.path.basename(member.name)
                if file in files and member.isfile():
                    images[file] = archive.extractfile(member).read()
                if len(images) == len(files):
                    break
    except (OSError, EOFError, tarfile.TarError, zlib.error, MemoryError) as error:
        raise InputError(f"can't read {found} ({one_line(error)}); delete it and fetch it again") from None
    missing = [file for file in files if file not in images]
    if missing:
        raise InputError(f"expected {layout.folder}/{missing[0]} in {found}, found none; delete it and fetch it again")
    return [(f"{found}: {file}", images[file]) for file in files]


def _batch(image, labels_key, path):
    """Images (n, 3072) uint8 and labels (n,) of one pickled batch."""
    try:
        batch = _Unpickler(io.BytesIO(image), encoding="bytes").load()
        batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        images, labels = batch["data"], batch[labels_key]
        images = images.value if isinstance(images, _Array) else images
        labels = labels.value if isinstance(labels, _Array) else np.array(labels)
        if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
            raise ValueError(f"expected images (n, 3072) uint8, got {images.shape} {images.dtype}")
        if labels.shape != (len(images),):
            raise ValueError(f"expected {len(images)} labels, got {labels.shape}")
    # a damaged pickle can raise anything: it is a program that has been cut or scrambled
    except Exception as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{path} is no CIFAR batch ({reason}); delete it and fetch it again") from None
    return images, labels


class _Dtype:
    """Stands in for numpy.dtype in a pickle: integer types only."""

    def __init__(self, code):
        code = code.decode() if isinstance(code, bytes) else code
        if not re.fullmatch("[iu][1248]", code):
            raise pickle.UnpicklingError(f"expected arrays of integers, got {code!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state):
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.value = self.value.newbyteorder(order)


class _Array:
    """Stands in for numpy.ndarray in a pickle: a view on the pickle's own bytes, so its size can't be made up."""

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data, dtype, shape, order):
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order=order)
        return self


def _encode(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"expected bytes written as latin1, got {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Knows the few names that numpy arrays and bytes are pickled under, and gives stand-ins for them.

    Everything is made anew for each name, so that a pickle can't change what the next one is read with.
    """

    def find_class(self, module, name):
        numpy_name = (re.sub(r"^numpy\.core\.", "numpy._core.", module), name)  # numpy 1 and 2
        if numpy_name == ("numpy._core.multiarray", "_reconstruct"):
            return lambda *_: _Array()
        if numpy_name == ("numpy._core.numeric", "_frombuffer"):  # pickle protocol 5
            return lambda data, dtype, shape, order: _Array().fill(data, dtype, shape, order)
        if numpy_name == ("numpy", "dtype"):
            return lambda code, *_: _Dtype(code)
        if numpy_name == ("numpy", "ndarray"):
            return "ndarray"  # only ever an argument of _reconstruct
        if numpy_name == ("_codecs", "encode"):  # how Python 3 writes bytes in the protocols of Python 2
            return lambda text, encoding: _encode(text, encoding)
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which a batch of images has no need of")
