"""MNIST and Fashion-MNIST: idx files, gzipped or not.

An idx file is 0, 0, 8 (for uint8), the number of dimensions, the sizes as big-endian int32, and the
data.
"""

import gzip
import math
import os
import zlib
from functools import partial

import numpy as np

from losslandscape.data.named import SIDE, NamedSet
from losslandscape.data.reasons import reason_of
from losslandscape.errors import InputError

IMAGE_SIDE = 28  # pixels
DEFLATE_LIMIT = 1032  # the largest factor by which deflate can make data smaller
GZIP_MAGIC = b"\x1f\x8b"

# part -> names of the files of its images and its labels
IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
EXPECTED = ", ".join([*IDX_FILES["train"], *IDX_FILES["test"]]) + " (or the same with .gz)"

# Below --datapath, in this order: the folder of the data set's own name comes first, because the
# files of the two have the same names. An absolute folder stays as it is.
MNIST_FOLDERS = ("MNIST/raw", "mnist", "raw", "")
FASHION_FOLDERS = (
    "FashionMNIST/raw", "fashion-mnist", "fashion_mnist", "raw", "",
    "/usr/share/datasets/fashion-mnist")


def find_idx(folders, datapath, parts):
    """{part: [path of images, path of labels]} from the first folder that has them all, or None."""
    for folder in folders:
        paths = {}
        for part in parts:
            images, labels = IDX_FILES[part]
            place = os.path.join(datapath, folder)
            paths[part] = [_path_of(place, images), _path_of(place, labels)]
        if all(None not in both for both in paths.values()):
            return paths
    return None


def _path_of(folder, name):
    """The path of an idx file in `folder` under one of its spellings; None where there is none."""
    dotted = name.replace("-idx", ".idx")  # as it is called after some programs unpacked it
    for spelling in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        path = os.path.join(folder, spelling)
        if os.path.isfile(path):
            return path
    return None


def read_mnist(folders, datapath, part):
    """Images with a black border of 2, (N, 1, 32, 32) uint8, and labels (N,)."""
    paths = find_idx(folders, datapath, (part,))
    if paths is None:
        raise InputError(
            f"expected {' and '.join(IDX_FILES[part])} (or the same with .gz) in {datapath}, "
            "found them neither there nor in its usual subfolders; put them there")

    images_path, labels_path = paths[part]
    images = read_idx(images_path, 3)  # (N, 28, 28)
    labels = read_idx(labels_path, 1)  # (N,)
    if images.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE):
        raise InputError(
            f"expected images of 28x28 in {images_path}, got {images.shape[1:]}; "
            "give the original file")

    border = (SIDE - IMAGE_SIDE) // 2
    images = np.pad(images[:, None], ((0, 0), (0, 0), (border, border), (border, border)))
    return images, labels


def read_idx(path, dimensions):
    """The uint8 array of an idx file; InputError unless it has so many dimensions."""
    expected = f"expected an idx file of {dimensions}-dimensional uint8 data at {path}"
    header_size = 4 + 4 * dimensions
    try:
        with open(path, "rb") as file:
            is_gzipped = file.read(2) == GZIP_MAGIC
        open_it = gzip.open if is_gzipped else open
        with open_it(path, "rb") as file:
            # the shape, which is believed only as far as the file can hold it
            header = file.read(header_size)
            if len(header) < header_size or header[:4] != bytes((0, 0, 8, dimensions)):
                raise InputError(
                    f"{expected}, it begins with {header[:4].hex(' ') or 'nothing'}; "
                    "give the original file")
            shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
            count = math.prod(shape)
            largest = os.path.getsize(path)
            if is_gzipped:
                largest *= DEFLATE_LIMIT
            if count > largest:
                raise InputError(
                    f"{expected}, it claims {count} bytes, more than it can hold; it is damaged")

            data = file.read(count + 1)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise InputError(
            f"can't read {path} ({reason_of(error)}); delete it and fetch it again") from None

    if len(data) != count:
        more = " or more" if len(data) > count else ""
        raise InputError(
            f"{expected} with {count} bytes after its header, got {len(data)}{more}; "
            "delete it and fetch it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


# mean and std are over the pixels of the training images, before the border is added
MNIST = NamedSet(
    num_classes=10,
    flip=False,
    mean=(0.1307,),
    std=(0.3081,),
    read=partial(read_mnist, MNIST_FOLDERS),
    find=partial(find_idx, MNIST_FOLDERS),
    expected=EXPECTED,
    download="MNIST",
)
FASHION_MNIST = NamedSet(
    num_classes=10,
    flip=True,
    mean=(0.2860,),
    std=(0.3530,),
    read=partial(read_mnist, FASHION_FOLDERS),
    find=partial(find_idx, FASHION_FOLDERS),
    expected=EXPECTED,
    download="FashionMNIST",
)
