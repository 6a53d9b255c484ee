"""Data of a user's own arrays: images and labels of a file, whatever its format.

A reader of a format gives {part: Arrays}; this makes tensors of them (npz.py, saved.py).
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from losslandscape.data.images import (
    AS_THEY_ARE,
    Normalization,
    as_images,
    as_labels,
    black_pixel,
    describe_normalization,
    to_tensor,
)
from losslandscape.data.request import Data
from losslandscape.data.splits import Split
from losslandscape.errors import InputError


@dataclass(frozen=True)
class Arrays:
    """Where the images and labels of one part are read from."""

    path: str
    read_images: Callable  # () -> (N, C, H, W), (N, H, W, C) or (N, H, W)
    read_labels: Callable  # () -> (N,)

    def images(self, part):
        """Images (N, C, H, W), uint8 or float32; raises InputError for any other."""
        return as_images(self.read_images(), f"the {part} inputs of {self.path}")

    def labels(self, part, count):
        """Labels (N,) int64; `count`: how many there must be, None: any number."""
        return as_labels(self.read_labels(), count, f"the {part} labels of {self.path}")


def load_arrays(request, name, sources, least_classes=0):
    """Data of {part: Arrays}. uint8 images are normalized, floats stay as they are.

    name            of the data set, for messages
    least_classes   there are so many at least: a few images need not show every class
    """
    # the images that are asked for, and the labels of all parts: they say how many classes there
    # are
    images, labels = {}, {}
    for part in request.parts:
        if part in sources:
            images[part] = sources[part].images(part)
    for part, source in sources.items():
        count = len(images[part]) if part in images else None
        labels[part] = source.labels(part, count)
    num_classes = max([least_classes, *(int(array.max()) + 1 for array in labels.values())])

    are_pixels = any(array.dtype == np.uint8 for array in images.values())
    normalization = None
    if are_pixels and not request.raw_data:
        normalization = _normalization(name, sources, images)
    else:
        _refuse_different(name, images)

    parts = {}
    for part in images:
        part_images, part_labels = request.subset(part, images[part], labels[part])
        inputs = to_tensor(part_images, normalization, repeat_grey=are_pixels)
        parts[part] = Split(inputs, torch.from_numpy(part_labels))
        if not are_pixels and not request.quiet:
            _warn_of_nan(inputs, f"{part} inputs of {name}")

    black = torch.zeros(0)
    if images:
        channels = next(iter(images.values())).shape[1]
        black = black_pixel(channels, normalization, repeat_grey=are_pixels)
    words = describe_normalization(normalization) if are_pixels else AS_THEY_ARE
    return Data(name, parts.get("train"), parts.get("test"), num_classes, black, False, words)


def _normalization(name, sources, images):
    """That of the whole training set, also for its parts by --data_split and for the test set."""
    if "train" not in sources:
        raise InputError(
            f"the uint8 images of {name} are normalized with mean and std of the training images, "
            "which are not there; give --trainloader too, or --raw_data")
    training_images = images.get("train")
    if training_images is None:
        training_images = sources["train"].images("train")
    _refuse_different(name, images | {"train": training_images})
    return Normalization.of(training_images)


def _refuse_different(name, images):
    """Raise InputError unless the images of all parts have one type and shape."""
    forms = {(str(array.dtype), array.shape[1:]) for array in images.values()}
    if len(forms) > 1:
        descriptions = []
        for dtype, shape in sorted(forms):
            descriptions.append(f"{dtype} (N, {', '.join(map(str, shape))})")
        raise InputError(
            f"expected train and test inputs of {name} of one type and shape, "
            f"got {' and '.join(descriptions)}")


def _warn_of_nan(inputs, name):
    """Say how many inputs (N, ...) hold a value that is not finite."""
    is_finite = torch.isfinite(inputs).flatten(1).all(1)  # (N,)
    bad = int(torch.count_nonzero(~is_finite))
    if bad:
        print(
            f"warning: {bad} of {len(inputs)} {name} are not finite (NaN or inf); "
            "the loss will be NaN", file=sys.stderr)
