"""CIFAR-10 and CIFAR-100: their files -> uint8 arrays, without running code.

The "python version" of the two (Krizhevsky 2009) is a folder, or a .tar.gz of it, of pickled dicts:
images (n, 3072) uint8, row by row, red then green then blue, and a list of labels. Unpickling a
file runs whatever the file says, so it is read by an unpickler that knows arrays, bytes, text,
numbers, lists and dicts and nothing else.
"""

import io
import os
import pickle
import re
import tarfile
import zlib
from dataclasses import dataclass
from functools import partial

import numpy as np

from losslandscape.data.named import NamedSet
from losslandscape.data.reasons import reason_of
from losslandscape.errors import InputError

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """The files of one of the two sets."""

    folder: str
    archive: str
    files: dict  # part -> names of its files, in order
    labels: str  # key of the labels

    def __str__(self):
        files = [file for part in self.files.values() for file in part]
        return f"the folder {self.folder} ({', '.join(files)}) or {self.archive}"


LAYOUTS = {
    "cifar10": Layout(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        files={"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]},
        labels="labels",
    ),
    "cifar100": Layout(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        files={"train": ["train"], "test": ["test"]},
        labels="fine_labels",
    ),
}


def find_cifar(name, datapath, parts=("train", "test")):
    """The folder or the archive of `parts`: `datapath` itself or below it; None: there is none."""
    layout = LAYOUTS[name]
    files = [file for part in parts for file in layout.files[part]]
    for folder in (os.path.join(datapath, layout.folder), datapath):
        if all(os.path.isfile(os.path.join(folder, file)) for file in files):
            return folder

    archive = os.path.join(datapath, layout.archive)
    if os.path.isfile(archive):
        return archive
    return None


def read_cifar(name, datapath, part):
    """Images (N, 3, 32, 32) uint8 and labels (N,) of `part`, in the order of the files."""
    layout = LAYOUTS[name]
    place = find_cifar(name, datapath, (part,))
    if place is None:
        raise InputError(f"expected {layout} in {datapath}, found neither; put one of them there")

    images, labels = [], []
    for path, content in _contents(place, layout, layout.files[part]):
        batch_images, batch_labels = read_batch(content, layout.labels, path)
        images.append(batch_images)
        labels.append(batch_labels)
    return np.concatenate(images).reshape(-1, 3, 32, 32), np.concatenate(labels)


def _contents(place, layout, files):
    """[(path for messages, bytes)] of `files`, from a folder or straight out of the archive."""
    try:
        if os.path.isdir(place):
            return _folder_contents(place, files)
        contents = _archive_contents(place, files)
    except (OSError, EOFError, tarfile.TarError, zlib.error, MemoryError) as error:
        raise InputError(
            f"can't read {place} ({reason_of(error)}); delete it and fetch it again") from None

    missing = [file for file in files if file not in contents]
    if missing:
        raise InputError(
            f"expected {layout.folder}/{missing[0]} in {place}, found none; "
            "delete it and fetch it again")
    return [(f"{place}: {file}", contents[file]) for file in files]


def _folder_contents(folder, files):
    contents = []
    for file in files:
        path = os.path.join(folder, file)
        with open(path, "rb") as stream:
            contents.append((path, stream.read()))
    return contents


def _archive_contents(path, files):
    """{file: bytes} of those of `files` that the archive has; nothing is unpacked to the disk."""
    contents = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            file = os.path.basename(member.name)
            if file in files and member.isfile():
                contents[file] = archive.extractfile(member).read()
            if len(contents) == len(files):
                break
    return contents


# ---------------------------------------------------------------- a pickle that is not run


def read_batch(content, labels_key, path):
    """Images (n, 3072) uint8 and labels (n,) of one pickled batch; `path`: for messages."""
    try:
        entries = {}
        for key, value in _Unpickler(io.BytesIO(content), encoding="bytes").load().items():
            entries[_text(key)] = value
        images = _array(entries["data"])
        labels = _array(entries[labels_key])

        if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != PIXELS:
            raise ValueError(f"expected images (n, 3072) uint8, got {images.shape} {images.dtype}")
        if labels.shape != (len(images),):
            raise ValueError(f"expected {len(images)} labels, got {labels.shape}")
    # a damaged pickle can raise anything: it is a program that has been cut or scrambled
    except Exception as error:
        reason = reason_of(error)
        if isinstance(error, KeyError):
            reason = f"no entry {error}"
        raise InputError(
            f"{path} is no CIFAR batch ({reason}); delete it and fetch it again") from None
    return images, labels


def _text(value):
    """Text of text, or of the bytes that Python 2 wrote for it."""
    if isinstance(value, bytes):
        return value.decode()
    return value


def _array(value):
    """The array of an entry: of images as they were pickled, or of a list of labels."""
    if isinstance(value, _Array):
        return value.value
    return np.asarray(value)


class _Dtype:
    """Stands in for numpy.dtype in a pickle: integer types only."""

    def __init__(self, code):
        code = _text(code)
        if not re.fullmatch("[iu][1248]", code):
            raise pickle.UnpicklingError(f"expected arrays of integers, got {code!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state):
        self.value = self.value.newbyteorder(_text(state[1]))


class _Array:
    """Stands in for numpy.ndarray in a pickle.

    A view on the pickle's own bytes: the size that the pickle says is not believed.
    """

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, data = state
        self.fill(data, dtype, shape, "F" if is_fortran else "C")

    def fill(self, data, dtype, shape, order):
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order=order)
        return self


def _encode(text, encoding):
    """Stands in for _codecs.encode: how Python 3 writes bytes in the protocols of Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"expected bytes written as latin1, got {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Knows the few names that arrays and bytes are pickled under, and gives stand-ins for them.

    Everything is made anew for each name, so that a pickle can't change what the next one is read
    with.
    """

    def find_class(self, module, name):
        module = re.sub(r"^numpy\.core\.", "numpy._core.", module)  # numpy 1 and 2
        if (module, name) == ("numpy._core.multiarray", "_reconstruct"):
            return lambda *_: _Array()
        if (module, name) == ("numpy._core.numeric", "_frombuffer"):  # pickle protocol 5
            return lambda data, dtype, shape, order: _Array().fill(data, dtype, shape, order)
        if (module, name) == ("numpy", "dtype"):
            return lambda code, *_: _Dtype(code)
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"  # only ever an argument of _reconstruct
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: _encode(text, encoding)
        raise pickle.UnpicklingError(
            f"it wants to call {module}.{name}, which a batch of images has no need of")


# ---------------------------------------------------------------- the two sets

# CIFAR-10's constants, as in the experiments of Li et al. 2018; CIFAR-100 is normalized with the
# same ones
MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)


CIFAR10 = NamedSet(
    num_classes=10,
    flip=True,
    mean=MEAN,
    std=STD,
    read=partial(read_cifar, "cifar10"),
    find=partial(find_cifar, "cifar10"),
    expected=str(LAYOUTS["cifar10"]),
    download="CIFAR10",
)
CIFAR100 = NamedSet(
    num_classes=100,
    flip=True,
    mean=MEAN,
    std=STD,
    read=partial(read_cifar, "cifar100"),
    find=partial(find_cifar, "cifar100"),
    expected=str(LAYOUTS["cifar100"]),
    download="CIFAR100",
)
