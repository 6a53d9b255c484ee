"""A data set that has a name: what is known of it, and how its files become tensors.

A new one is a file of this folder that ends with a `NamedSet(...)`, and a line in
datasets.DATASETS.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from losslandscape.data.images import (
    Normalization,
    as_labels,
    black_pixel,
    describe_normalization,
    to_tensor,
)
from losslandscape.data.request import Data
from losslandscape.data.splits import Split

SIDE = 32  # pixels; the networks of the zoo are made for 32x32


def always_there(datapath, parts):
    """The `find` of a data set that needs no files in --datapath."""
    return True


@dataclass(frozen=True)
class NamedSet:
    """A data set whose files have a fixed form.

    `mean` and `std` are of images in [0, 1], one value per channel; a single value means grey
    images, which are repeated to three channels, because the networks take three.
    """

    num_classes: int
    flip: bool  # a mirrored image is as good an example
    mean: tuple
    std: tuple
    # read(datapath, part) -> images (N, C, H, W), uint8 or float32 in [0, 1], and labels (N,)
    read: Callable
    # find(datapath, parts): truthy where the files of `parts` are there
    find: Callable = always_there
    expected: str = ""  # the files, in words
    download: str = ""  # class of torchvision.datasets

    def load(self, request):
        """Data; raises InputError where the files are not there, or are not what they should be."""
        normalization = None
        if not request.raw_data:
            normalization = Normalization(self.mean, self.std)

        parts = {}
        for part in request.parts:
            images, labels = self.read(request.datapath, part)
            labels_name = f"the {part} labels of {request.name} in {request.datapath}"
            labels = as_labels(labels, len(images), labels_name, self.num_classes)
            images, labels = request.subset(part, images, labels)
            parts[part] = Split(to_tensor(images, normalization), torch.from_numpy(labels))

        return Data(
            request.name, parts.get("train"), parts.get("test"), self.num_classes,
            black_pixel(len(self.mean), normalization), self.flip,
            describe_normalization(normalization))
