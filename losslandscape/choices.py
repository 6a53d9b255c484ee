"""What a run is asked to do: values that are checked where they are made.

A class holds the choices of one group of flags, under the names of the flags:

    choose(DataChoice, vars(args))         from a command line
    DataChoice(dataset="digits")           from a notebook, a test, a scheduler
"""

import math
import os
from dataclasses import dataclass, field, fields
from functools import cached_property

from losslandscape import user_code
from losslandscape.data import datasets
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid
from losslandscape.measuring.own_function import UserFunction
from losslandscape.networks.loading import Architecture, load_net
from losslandscape.weight_space import Axis, Recipe, tensors_of

DEFAULT_X = "-1:1:51"
DEFAULT_DATASET = "cifar10"
BATCH_SIZE_BEFORE_CALIBRATION = 128


def choose(kind, flags):
    """An instance of the dataclass `kind` from a dict that has, among others, its fields.

    Fields whose metadata say {"flag": False} are left at their default.
    """
    names = [entry.name for entry in fields(kind) if entry.metadata.get("flag", True)]
    return kind(**{name: flags[name] for name in names})


@dataclass(frozen=True)
class Hardware:
    """What computes, and how. Without a batch size the fastest one is measured."""

    cuda: bool = False
    ngpu: int = 1  # GPUs per rank
    threads: int = 2  # processes that read data which don't fit into memory
    batch_size: int | None = None
    precision: str = ""  # a key of evaluator.PRECISIONS
    patience: float = math.inf  # seconds after which a silent rank is given up


@dataclass(frozen=True)
class DataChoice:
    """Which examples are evaluated. Raises InputError where the parts are not numbered 0 .. data_split - 1."""

    dataset: str = DEFAULT_DATASET  # '': none, for a measure without data
    datapath: str = "cifar10/data"
    raw_data: bool = False
    data_split: int = 1
    split_idx: int = 0
    trainloader: str = ""
    testloader: str = ""
    eval_set: str = "train"  # train, test or both

    def __post_init__(self):
        if self.split_idx >= self.data_split:
            raise InputError(
                f"expected --split_idx below --data_split {self.data_split}, got {self.split_idx}; "
                "the parts are numbered from 0")

    @property
    def splits(self):
        """The parts of the data set that are evaluated: of 'train' and 'test'."""
        if not self.is_there:
            return ()
        if self.eval_set == "both":
            return ("train", "test")
        return (self.eval_set,)

    @property
    def is_there(self):
        """Are there any data?"""
        return bool(self.dataset or self.trainloader or self.testloader)

    @property
    def downloads(self):
        """May the files have to be downloaded first?"""
        return bool(self.dataset) and not (self.trainloader or self.testloader)

    def name_parts(self):
        """(name, value) parts of a surface's file name: what is not at its default."""
        part = ""
        if self.data_split > 1:
            part = f"{self.data_split}_splitidx={self.split_idx}"
        dataset = ""
        if self.dataset not in ("", DEFAULT_DATASET):
            dataset = datasets.dataset_label(self.dataset)
        return [
            ("rawdata", self.raw_data),
            ("datasplit", part),
            ("dataset", dataset),
            ("trainloader", os.path.basename(self.trainloader)),
            ("testloader", os.path.basename(self.testloader)),
        ]

    def load(self, splits, hardware, trust_pickle=False, quiet=False, memory=float("inf")):
        """{split: Split or Batches}; `memory`: bytes that may be filled with them."""
        if not self.is_there:
            return {}
        data = datasets.load_dataset(
            self.dataset, self.datapath, raw_data=self.raw_data, data_split=self.data_split,
            split_idx=self.split_idx, splits=splits, trainloader=self.trainloader,
            testloader=self.testloader, trust_pickle=trust_pickle, quiet=quiet,
            batch_size=hardware.batch_size or BATCH_SIZE_BEFORE_CALIBRATION,
            threads=hardware.threads, memory=memory)
        return {split: getattr(data, split) for split in splits}


@dataclass(frozen=True)
class NetworkChoice:
    """The trained networks: one at the origin, others that axes may lead to."""

    model: str = "resnet56"
    model_kwargs: str = ""  # a JSON object
    model_folder: str = ""  # common folder of the files
    model_file: str = ""
    model_file2: str = ""
    model_file3: str = ""
    trust_pickle: bool = False
    checkpoint_key: str = ""  # which weights of a file that has several

    @cached_property
    def architecture(self):
        """What builds the network; raises InputError for a name that can't be used."""
        return Architecture.parse(self.model, self.model_kwargs)

    def path(self, file):
        """A model file as it is opened: within --model_folder; '' where there is none."""
        if file and self.model_folder:
            return os.path.join(self.model_folder, file)
        return file

    @property
    def origin(self):
        """The path of the trained model, or the name of a network that comes with its weights."""
        if not self.model_file and self.architecture.own:
            return os.path.join(self.model_folder, user_code.label(self.model))
        return self.path(self.model_file)

    def load(self, quiet=False):
        """The network at the origin, in eval mode, on the CPU; quiet: nothing is said of its file."""
        return load_net(
            self.architecture, self.path(self.model_file), self.trust_pickle, self.checkpoint_key, quiet)

    def load_other(self, path, net):
        """The network at `path`; raises InputError unless its tensors have the shapes of those of `net`."""
        other = load_net(self.architecture, path, self.trust_pickle, self.checkpoint_key)
        own_shapes, other_shapes = (
            [tuple(tensor.shape) for tensor in tensors_of(network, "states")] for network in (net, other))
        if own_shapes != other_shapes:
            raise InputError(f"expected {path} to have the tensors of {self.origin}; check --model_file2")
        return other


@dataclass(frozen=True)
class DirectionChoice:
    """How the axes are made, and how many such experiments there are."""

    dir_file: str = ""  # an existing direction file
    dir_type: str = "weights"
    xnorm: str = ""
    xignore: str = ""
    ynorm: str = ""
    yignore: str = ""
    same_dir: bool = False
    params: str = ""
    freeze: str = ""
    idx: int = 0  # number of the first experiment
    repeats: int = 1

    @property
    def experiments(self):
        """The numbers of the experiments; each has directions of its own."""
        return range(self.idx, self.idx + self.repeats)

    def recipe(self, network, idx, two_axes):
        """How the directions of experiment `idx` are made; raises InputError where flags contradict each other."""
        if network.model_file3 and not two_axes:
            raise InputError("--model_file3 gives the y direction: give --y=min:max:count as well")
        x = Axis(self.xnorm, self.xignore, network.path(network.model_file2))
        y = None
        if two_axes:
            y = Axis(self.ynorm, self.yignore, network.path(network.model_file3))
        return Recipe(
            network.origin, x, y, self.dir_type, self.same_dir, idx, self.params, self.freeze,
            network.checkpoint_key)


@dataclass(frozen=True)
class EstimationChoice:
    """How exactly a surface is to be known, and for how long it may be computed; see losslandscape/estimation.

    tolerance: largest standard error of a loss, as a share of it; 0: all points on all data. budget: seconds.
    acc_tolerance: largest standard error of an accuracy, in percentage points; None: 50 times the tolerance.
    """

    tolerance: float | None = None
    budget: float | None = None
    acc_tolerance: float | None = None


@dataclass(frozen=True)
class Job:
    """One run: what is measured, of which network, where along which directions, into which file.

    measurement: a LossMeasurement, EigenvalueMeasurement or OwnMeasurement. surf_file: '' for the name that follows
    from the choices. Raises InputError for choices that don't go together.
    """

    measurement: object
    grid: Grid
    network: NetworkChoice = field(default_factory=NetworkChoice)
    data: DataChoice = field(default_factory=DataChoice)
    directions: DirectionChoice = field(default_factory=DirectionChoice)
    hardware: Hardware = field(default_factory=Hardware)
    surf_file: str = ""
    estimation: EstimationChoice = field(default_factory=EstimationChoice)
    out: str = ""  # a folder for files without a name of their own; '' for that of the model file
    place: str = ""  # FILE.py:function that acts on the network after it was placed
    highest_contour: float = 10.0  # of the picture that is to be drawn; --check says how much lies above it

    def __post_init__(self):
        if self.directions.repeats > 1 and (self.directions.dir_file or self.surf_file):
            raise InputError(
                "expected --repeats without --dir_file and --surf_file: every repeat has its own files; leave them out")
        if self.place and self.hardware.ngpu > 1:
            raise InputError(
                f"expected --ngpu 1 with --place, got {self.hardware.ngpu}: the function gets one network on one "
                "device; start more ranks instead")
        if self.place:
            UserFunction.load("--place", self.place)
        self.measurement.check_choices(self)
