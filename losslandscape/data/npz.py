"""FILE.npz: x_train, y_train, and x_test, y_test where there is a test set."""

import io
import math
import os
import zipfile
from functools import partial

import numpy as np

from losslandscape.data.arrays import Arrays, load_arrays
from losslandscape.data.idx import DEFLATE_LIMIT
from losslandscape.data.reasons import reason_of
from losslandscape.data.request import PARTS
from losslandscape.errors import InputError
from losslandscape.messages import printable

SHOWN_NAMES = 8  # of the arrays of a file that are not the ones that are expected
SHOWN_LETTERS = 40  # of each

# Of a zip file's methods, those that are unpacked piece by piece; bzip2 and lzma take gigabytes for
# the first byte of a file of some kB.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MAX_HEADER = 10_000  # bytes; those of numbers have some hundred
FREE_BYTES = 256 << 20  # of an array, however small its file is
MAX_RATIO = 100  # of a larger array to its file; images of digits have 5

HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def is_npz(name):
    """Does --dataset name such a file?"""
    return name.lower().endswith(".npz")


def load_npz(request):
    """Data of the file; raises InputError, which names what is wrong."""
    path = request.name
    sources = {}
    for part in _parts_of(path):
        sources[part] = Arrays(
            path,
            partial(read_array, path, f"x_{part}"),
            partial(read_array, path, f"y_{part}"))
    return load_arrays(request, path, sources)


def _parts_of(path):
    """The parts that the file holds."""
    if not os.path.isfile(path):
        raise InputError(f"expected a data set at {path}, found no file there; check the name")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception as error:  # a damaged zip can raise anything
        raise InputError(
            f"can't read {path} as .npz ({reason_of(error)}); write it with numpy.savez") from None

    # a part that has one of its two arrays must have the other; training data there must be
    parts = [part for part in PARTS if f"x_{part}" in names or f"y_{part}" in names]
    expected = []
    for part in parts or ["train"]:
        expected += [f"x_{part}", f"y_{part}"]
    missing = [name for name in expected if name not in names]
    if missing:
        shown = [printable(name, SHOWN_LETTERS) for name in names[:SHOWN_NAMES]]
        raise InputError(
            f"expected x_train, y_train (and x_test, y_test) in {path}, {' and '.join(missing)} "
            f"missing, found {shown}; add what is missing")
    return parts


def read_array(path, name):
    """Array `name` of the file.

    Its header is checked against the size of the file before memory is taken for it, and no pickle
    in it is read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(f"{name}.npy")
            if entry.compress_type not in METHODS:
                raise InputError(
                    f"expected {name} in {path} stored or deflated, got another compression; "
                    "write the file with numpy.savez_compressed")
            with archive.open(entry) as file:
                head = io.BytesIO(file.read(MAX_HEADER))
            version = np.lib.format.read_magic(head)
            shape, _, dtype = HEADER_READERS[version](head)
            size = head.tell() + dtype.itemsize * math.prod(shape)

            if dtype.kind not in "biuf":
                raise InputError(
                    f"expected numbers in {name} of {path}, got {dtype}; "
                    "save it as a numeric array")
            packed = min(entry.compress_size, os.path.getsize(path))
            largest = min(DEFLATE_LIMIT * packed, FREE_BYTES + MAX_RATIO * packed)
            if min(shape, default=0) < 0 or size != entry.file_size or size > largest:
                raise InputError(
                    f"{name} of {path} claims shape {shape}, which the file does not hold; "
                    "it is damaged")

            with archive.open(entry) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # a damaged zip, or header, can raise anything
        raise InputError(
            f"can't read {name} of {path} ({reason_of(error)}); "
            "write the file with numpy.savez again") from None
