"""Which data are asked for, and what comes of it: two values that every reader knows."""

import math
from dataclasses import dataclass

import torch

from losslandscape.data.splits import Batches, Split, chosen
from losslandscape.errors import InputError

PARTS = ("train", "test")


@dataclass(frozen=True)
class DataRequest:
    """Which examples, of which data set, read in which way.

    name          a data set, as datasets.FORMS has it
    datapath      the folder of its files
    raw_data      images in [0, 1], not normalized; float inputs of files are used as they are,
                  with or without it
    data_split    the training set is 1/k of the whole: part `split_idx` of k disjoint parts of
                  N // k examples each, permutation(N)[i*n:(i+1)*n] of NumPy's legacy generator
                  seeded 0
    splits        the parts to load, of "train" and "test"; each must be there. None: train, and
                  test where there is one
    trainloader, testloader
                  files written with torch.save, in place of the data set `name`
    trust_pickle  run the code of a pickled DataLoader in such a file
    quiet         no warnings and notes about what is in the data (for all processes but one)
    memory        bytes: an image folder, or what a function gives, is held as tensors where it
                  fits, otherwise it is read at every pass, in batches of `batch_size`, by
                  `threads` processes

    Raises InputError for a part that does not exist.
    """

    name: str
    datapath: str = "cifar10/data"
    raw_data: bool = False
    data_split: int = 1
    split_idx: int = 0
    splits: tuple | None = None
    trainloader: str = ""
    testloader: str = ""
    trust_pickle: bool = False
    quiet: bool = False
    batch_size: int = 128
    threads: int = 0
    memory: float = math.inf

    def __post_init__(self):
        if self.data_split < 1 or not 0 <= self.split_idx < self.data_split:
            raise InputError(
                f"expected --data_split k >= 1 and --split_idx in 0 .. k-1, got --data_split "
                f"{self.data_split} --split_idx {self.split_idx}; give one of the k parts")

    @property
    def parts(self):
        """The parts to load, where they are there."""
        if self.splits is None:
            return PARTS
        return tuple(self.splits)

    def requires(self, part):
        """Is it an error where the data set has no such part?"""
        return self.splits is not None or part == "train"

    @property
    def reading(self):
        """How examples are read that are no arrays yet: arguments of splits.as_split."""
        return {
            "data_split": self.data_split,
            "split_idx": self.split_idx,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "memory": self.memory,
            "quiet": self.quiet,
        }

    def subset(self, part, images, labels):
        """The images and labels of `part` that --data_split and --split_idx ask for."""
        if part != "train" or self.data_split == 1:
            return images, labels
        numbers = chosen(len(images), self.data_split, self.split_idx)
        return images[numbers], labels[numbers]


@dataclass(frozen=True)
class Data:
    """A data set; a part that was not asked for (or that the files don't have) is None."""

    name: str
    train: Split | Batches | None
    test: Split | Batches | None
    num_classes: int
    black: torch.Tensor  # (C,) a black pixel after normalization; zeros where that is not known
    flip: bool  # a mirrored image is as good an example (for augmentation)
    normalization: str  # in words

    @classmethod
    def of_splits(cls, name, parts, normalization):
        """Data of {part: split} that are ready: the classes are those that the labels show."""
        num_classes = 0
        for split in parts.values():
            targets = getattr(split, "targets", None)
            if isinstance(targets, torch.Tensor) and targets.dtype == torch.int64:
                num_classes = max(num_classes, int(targets.max()) + 1)
        return cls(
            name, parts.get("train"), parts.get("test"), num_classes, torch.zeros(0), False,
            normalization)
