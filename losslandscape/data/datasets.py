"""--dataset, --datapath -> tensors in a fixed order.

    prepare("cifar10", "cifar10/data")               # one process only: downloads what is not there
    data = load_dataset("cifar10", "cifar10/data")   # every process: reads files, never the network
    data.train.inputs, data.train.targets            # (N, C, H, W) float32 and (N,) int64

A data set is one of `DATASETS`; or FILE.npz with x_train, y_train[, x_test, y_test]; or an `imagefolder`; or what
FILE.py:function gives for "train" and for "test" (see splits.as_split); or the tensors of --trainloader and
--testloader. A loss surface is a function of the weights alone only if the data never change: there is no augmentation
and no shuffling here, and the order is that of the files.

No data file's code is run: CIFAR's pickles, .npz and torch.save files are read by readers that admit arrays only.
The one exception is a pickled DataLoader, read when the user says --trust_pickle.
"""

import difflib
import gzip
import importlib.util
import math
import os
import pickle
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from losslandscape import user_code
from losslandscape.data import cifar, splits
from losslandscape.data.cifar import one_line
from losslandscape.data.splits import Batches, Split, split_hash
from losslandscape.errors import InputError

__all__ = ["DATASETS", "Batches", "Data", "Split", "label", "load_dataset", "prepare", "split_hash"]

PARTS = ("train", "test")
MAX_CLASSES = 10**6
DEFLATE_LIMIT = 1032  # deflate can't make data smaller than by this factor: a file that claims more is lying
SIDE = 32  # pixels; the networks of this repository are made for 32x32


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


# ---------------------------------------------------------------- the named data sets


@dataclass(frozen=True)
class Spec:
    """A named data set.

    `mean` and `std` are of images in [0, 1], one value per channel; a single value means grey images, which are
    repeated to three channels, because the networks take three.
    """

    num_classes: int
    flip: bool
    mean: tuple
    std: tuple
    read: Callable  # read(datapath, part) -> images (N, C, H, W) uint8 or float32 in [0, 1], labels (N,)
    find: Callable = lambda datapath, parts: True  # truthy where the files of `parts` are there
    expected: str = ""  # the files, in words
    download: str = ""  # class of torchvision.datasets


IDX_FILES = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
             "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}
IDX_EXPECTED = ", ".join(name for files in IDX_FILES.values() for name in files) + " (or the same with .gz)"


def _find_idx(folders, datapath, parts):
    """{part: (path of the images, path of the labels)} from the first folder that has them all, or None.

    The folder of the data set's own name comes first: MNIST and Fashion-MNIST files have the same names.
    """
    for folder in folders:
        folder = os.path.join(datapath, folder)  # an absolute folder stays as it is
        found = {part: tuple(_idx_file(folder, name) for name in IDX_FILES[part]) for part in parts}
        if all(all(paths) for paths in found.values()):
            return found
    return None


def _idx_file(folder, name):
    dotted = name.replace("-idx", ".idx")  # the archive's own spelling once it is unpacked by some tools
    for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        path = os.path.join(folder, candidate)
        if os.path.isfile(path):
            return path
    return None


def _read_idx_images(folders, datapath, part):
    """28x28 images with a black border of 2: (N, 1, 32, 32) uint8, and labels (N,)."""
    found = _find_idx(folders, datapath, (part,))
    if found is None:
        raise InputError(f"expected {' and '.join(IDX_FILES[part])} (or the same with .gz) in {datapath}, "
                         "found them neither there nor in its usual subfolders; put them there")
    images_path, labels_path = found[part]
    images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
    if images.shape[1:] != (28, 28):
        raise InputError(f"expected images of 28x28 in {images_path}, got {images.shape[1:]}; give the original file")
    border = (SIDE - 28) // 2
    return np.pad(images[:, None], ((0, 0), (0, 0), (border, border), (border, border))), labels


def _read_idx(path, dimensions):
    """A uint8 array of an idx file, gzipped or not: 0, 0, 8 (uint8), number of dimensions, sizes (int32), data."""
    what = f"expected an idx file of {dimensions}-dimensional uint8 data at {path}"
    try:
        with open(path, "rb") as f:
            gzipped = f.read(2) == b"\x1f\x8b"
        with (gzip.open if gzipped else open)(path, "rb") as f:
            header = f.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
                raise InputError(f"{what}, it begins with {header[:4].hex(' ') or 'nothing'}; give the original file")
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
            count = math.prod(shape)
            if count > (DEFLATE_LIMIT if gzipped else 1) * os.path.getsize(path):
                raise InputError(f"{what}, it claims {count} bytes, more than it can hold; it is damaged")
            data = f.read(count + 1)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise InputError(f"can't read {path} ({one_line(error)}); delete it and fetch it again") from None
    if len(data) != count:
        raise InputError(f"{what} with {count} bytes after its header, got {len(data)}"
                         f"{' or more' if len(data) > count else ''}; delete it and fetch it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_digits(datapath, part):
    """The 1797 handwritten digits that scikit-learn ships: 8x8 in 0..16, enlarged bilinearly to (N, 1, 32, 32).

    The first 1500 are the training set and the last 297 the test set. A random division would be kinder (one nearest
    neighbour gets 98.7 % right against 94.6 %): images of one hand stand together, so the last ones are mostly by
    hands that the training set does not have.
    """
    images, labels = _sklearn_digits()
    which = slice(0, 1500) if part == "train" else slice(1500, None)
    images = torch.from_numpy(images[which]).to(torch.float32)[:, None] / 16  # (N, 1, 8, 8) in [0, 1]
    images = torch.nn.functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return images.numpy(), labels[which]


def _sklearn_digits():
    """(images (1797, 8, 8) in 0..16, labels (1797,)), from scikit-learn's file: importing it would take seconds."""
    sklearn = importlib.util.find_spec("sklearn")
    if sklearn is None:
        raise InputError("the data set digits comes with scikit-learn, which is not installed; "
                         "pip install scikit-learn")
    file = os.path.join(os.path.dirname(sklearn.origin), "datasets", "data", "digits.csv.gz")
    if not os.path.exists(file):  # a version that keeps it elsewhere
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        return pixels.reshape(-1, 8, 8), labels
    table = np.loadtxt(file, delimiter=",")  # (1797, 65): the pixels, then the label
    return table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(np.int64)


# CIFAR-10's constants, as in the experiments of Li et al. 2018; CIFAR-100 is normalized with the same ones, not its own
CIFAR_MEAN = tuple(value / 255 for value in (125.3, 123.0, 113.9))
CIFAR_STD = tuple(value / 255 for value in (63.0, 62.1, 66.7))
MNIST_FOLDERS = ("MNIST/raw", "mnist", "raw", "")
FASHION_FOLDERS = ("FashionMNIST/raw", "fashion-mnist", "fashion_mnist", "raw", "", "/usr/share/datasets/fashion-mnist")

# mean and std of the grey ones: over the pixels of the training images, before the border is added (digits: enlarged)
DATASETS = {
    "cifar10": Spec(10, True, CIFAR_MEAN, CIFAR_STD, partial(cifar.read, "cifar10"), partial(cifar.find, "cifar10"),
                    cifar.expected("cifar10"), "CIFAR10"),
    "cifar100": Spec(100, True, CIFAR_MEAN, CIFAR_STD, partial(cifar.read, "cifar100"), partial(cifar.find, "cifar100"),
                     cifar.expected("cifar100"), "CIFAR100"),
    "mnist": Spec(10, False, (0.1307,), (0.3081,), partial(_read_idx_images, MNIST_FOLDERS),
                  partial(_find_idx, MNIST_FOLDERS), IDX_EXPECTED, "MNIST"),
    "fashion_mnist": Spec(10, True, (0.2860,), (0.3530,), partial(_read_idx_images, FASHION_FOLDERS),
                          partial(_find_idx, FASHION_FOLDERS), IDX_EXPECTED, "FashionMNIST"),
    "digits": Spec(10, False, (0.3051,), (0.3222,), _read_digits),
}


IMAGE_FOLDERS = ("imagefolder", "imagenet")  # two names of one thing
FOLDERS = {"train": ("train",), "test": ("val", "test", "valid")}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = (*DATASETS, *IMAGE_FOLDERS)
FORMS = f"{', '.join(NAMES)}, FILE.npz or FILE.py:function"


def _is_npz(name):
    return name.lower().endswith(".npz")


def _is_own(name):
    return user_code.is_reference(name) and not _is_npz(name)


def label(name):
    """A short name of a data set, for file names."""
    return user_code.label(name) if _is_own(name) else os.path.splitext(os.path.basename(name))[0]


def _spec(name):
    """The spec of a named data set; InputError lists the names."""
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(name.lower(), NAMES, 1)
    raise InputError(f"expected {FORMS} as data set, got {name!r}"
                     + (f"; did you mean {close[0]}?" if close else "; check the name"))


# ---------------------------------------------------------------- download


def prepare(name, datapath="cifar10/data", splits=PARTS):
    """Make sure that the files of `splits` are there; called by one process, before any calls `load_dataset`.

    What lies in `datapath` already is used without the network. Otherwise torchvision downloads (and checks) the
    files into a folder beside, and they are moved into `datapath` when they are complete.
    InputError where that fails; no incomplete file is left behind then.
    """
    if _is_npz(name) or _is_own(name) or name in IMAGE_FOLDERS:
        return
    spec = _spec(name)
    if spec.find(datapath, splits):
        return
    if os.path.exists(datapath) and not os.path.isdir(datapath):
        raise InputError(f"expected a folder as --datapath, {datapath} is a file; give the folder of the data")
    try:
        import torchvision
    except ImportError:
        raise InputError(f"downloading {name} takes torchvision, which is not installed; pip install torchvision, "
                         f"or put {spec.expected} into {datapath}") from None
    print(f"downloading {name} into {datapath}", file=sys.stderr)
    beside = os.path.abspath(datapath)
    while not os.path.isdir(beside):  # datapath itself is made when there is something to put into it
        beside = os.path.dirname(beside)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=beside) as temporary:
            getattr(torchvision.datasets, spec.download)(temporary, download=True)
            for folder, _, files in os.walk(temporary):
                target = os.path.join(datapath, os.path.relpath(folder, temporary))
                for file in files:
                    if not file.endswith(".tar.gz"):  # its contents lie beside it
                        os.makedirs(target, exist_ok=True)
                        shutil.move(os.path.join(folder, file), os.path.join(target, file))
    # torchvision raises RuntimeError, URLError, ... as the version and the mirror have it
    except Exception as error:
        raise InputError(f"can't download {name} ({one_line(error)}); put {spec.expected} into {datapath}") from None


# ---------------------------------------------------------------- loading


def load_dataset(name, datapath="cifar10/data", raw_data=False, data_split=1, split_idx=0, splits=None,
                 trainloader="", testloader="", trust_pickle=False, quiet=False, batch_size=128, threads=0,
                 memory=math.inf):
    """Data of a named data set, of files or functions of the user's, or of saved tensors; never downloads.

    splits      the parts to load, of "train" and "test"; each must be there. None: train, and test where there is one
    raw_data    images in [0, 1], not normalized (float inputs of files are used as they are, with or without it)
    data_split  the training set is 1/k of the whole: part `split_idx` of k disjoint parts of N // k images each,
                permutation(N)[i*n:(i+1)*n] of NumPy's legacy generator seeded 0
    quiet       no warning about inputs that are not finite (for all processes but one)
    memory      bytes; an image folder, or what a function gives, is held as tensors where it fits, otherwise it is read
                at every pass, in batches of `batch_size`, by `threads` processes

    Raises InputError for whatever is wrong with the names or the files.
    """
    if data_split < 1 or not 0 <= split_idx < data_split:
        raise InputError(f"expected --data_split k >= 1 and --split_idx in 0 .. k-1, "
                         f"got --data_split {data_split} --split_idx {split_idx}; give one of the k parts")
    asked = PARTS if splits is None else tuple(splits)
    subset = partial(_subset, data_split=data_split, split_idx=split_idx)
    if trainloader or testloader:
        sources = {part: (path, *_saved(path, trust_pickle))
                   for part, path in zip(PARTS, (trainloader, testloader), strict=True) if path}
        least = DATASETS[name].num_classes if name in DATASETS else 0  # a few saved images need not show every class
        data = _custom(trainloader or testloader, sources, asked, raw_data, subset, quiet, least)
    elif _is_npz(name):
        data = _custom(name, _npz(name), asked, raw_data, subset, quiet)
    elif _is_own(name) or name in IMAGE_FOLDERS:
        how = dict(data_split=data_split, split_idx=split_idx, batch_size=batch_size, threads=threads, memory=memory)
        data = _own(name, splits, how) if _is_own(name) else _image_folder(name, datapath, splits, raw_data, how)
    else:
        data = _named(name, _spec(name), datapath, asked, raw_data, subset)
    for part in asked:
        split = getattr(data, part)
        if split is None and (splits is not None or part == "train"):
            raise InputError(f"expected a {part} set in {data.name}, found none; give one "
                             f"(x_{part}, y_{part} in a .npz, or --{part}loader), or evaluate the other set")
    return data


def _subset(part, images, labels, data_split, split_idx):
    """The part of the training set that --data_split and --split_idx ask for."""
    if part != "train" or data_split == 1:
        return images, labels
    chosen = splits.chosen(len(images), data_split, split_idx)
    return images[chosen], labels[chosen]


def _own(name, parts, how):
    """Data of the user's function: function("train"), function("test")."""
    function = user_code.load("--dataset", name)
    found = {}
    for part in PARTS if parts is None else parts:
        given = user_code.call("--dataset", name, function, part)
        if given is None and parts is None and part == "test":
            continue
        found[part] = user_code.call("--dataset", name, splits.as_split, given, f"{name} ({part})", part, **how)
    return _plain(name, found, "none: the inputs are used as they are")


def _image_folder(name, datapath, parts, raw_data, how):
    """Images in DATAPATH/train/CLASS/ and DATAPATH/val/CLASS/ (or test/), classes in alphabetical order.

    Shorter side 256, centre 224x224, [0, 1], normalized with ImageNet's mean and std: torchvision's evaluation.
    """
    try:
        from torchvision import datasets, transforms
    except ImportError:
        raise InputError(f"--dataset {name} takes torchvision, which is not installed; pip install torchvision"
                         ) from None
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    if not raw_data:
        steps.append(transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD))
    found, classes = {}, None
    for part in PARTS if parts is None else parts:
        places = [os.path.join(datapath, folder) for folder in FOLDERS[part]]
        place = next(filter(os.path.isdir, places), None)
        if place is None:
            if parts is None and part == "test":
                continue
            raise InputError(f"expected a folder {' or '.join(places)} with a folder of images per class, found none; "
                             "check --datapath")
        try:
            images = datasets.ImageFolder(place, transforms.Compose(steps), loader=_image)
            if classes not in (None, images.classes):
                raise InputError(f"expected the classes of training and test in {datapath} to be the same, "
                                 f"but {place} has others")
            classes = images.classes
            found[part] = splits.as_split(images, place, part, **how)
        except (OSError, RuntimeError) as error:  # no class, a class without images
            raise InputError(f"can't read the images in {place} ({one_line(error)}); expected {place}/CLASS/IMAGE"
                             ) from None
    return _plain(name, found, _in_words(IMAGENET_MEAN, IMAGENET_STD, raw_data))


def _image(path):
    """The picture at `path`; InputError, which names it, where it can't be read."""
    from torchvision import datasets

    try:
        return datasets.folder.default_loader(path)
    except Exception as error:  # a damaged picture can raise anything
        raise InputError(f"can't read the picture {path} ({one_line(error)}); replace it, or take it away") from None


def _plain(name, found, normalization):
    """Data of splits that are ready."""
    labels = [s.targets for s in found.values() if isinstance(s, Split) and s.targets.dtype == torch.int64]
    return Data(name, found.get("train"), found.get("test"), max((int(t.max()) + 1 for t in labels), default=0),
                torch.zeros(0), False, normalization)


def _named(name, spec, datapath, asked, raw_data, subset):
    found = {}
    for part in asked:
        images, labels = spec.read(datapath, part)
        labels = _labels(labels, len(images), f"the {part} labels of {name} in {datapath}", spec.num_classes)
        images, labels = subset(part, images, labels)
        found[part] = Split(_tensor(images, spec.mean, spec.std, raw_data), torch.from_numpy(labels))
    black = np.zeros((1, len(spec.mean), 1, 1), np.uint8)
    return Data(name, found.get("train"), found.get("test"), spec.num_classes,
                _tensor(black, spec.mean, spec.std, raw_data).flatten(), spec.flip,
                _in_words(spec.mean, spec.std, raw_data))


def _custom(name, sources, asked, raw_data, subset, quiet, least_classes=0):
    """Data of the user's own arrays. `sources[part]`: the file, and two functions that get images and labels."""

    def images_of(part):
        path, get, _ = sources[part]
        return _images(get(), f"the {part} inputs of {path}")

    images = {part: images_of(part) for part in asked if part in sources}
    labels = {part: _labels(get(), len(images[part]) if part in images else None, f"the {part} labels of {path}")
              for part, (path, _, get) in sources.items()}
    loaded = dict(images)
    scaled = any(x.dtype == np.uint8 for x in images.values())
    if scaled and not raw_data:
        if "train" not in sources:
            raise InputError(f"the uint8 images of {name} are normalized with mean and std of the training images, "
                             "which are not there; give --trainloader too, or --raw_data")
        if "train" not in loaded:
            loaded["train"] = images_of("train")
    kinds = {(str(x.dtype), x.shape[1:]) for x in loaded.values()}
    if len(kinds) > 1:
        raise InputError(f"expected train and test inputs of {name} of one type and shape, got "
                         + " and ".join(f"{dtype} (N, {', '.join(map(str, shape))})" for dtype, shape in sorted(kinds)))
    channels = next(iter(images.values())).shape[1] if images else 0
    # of the whole training set: every part of --data_split is normalized alike
    mean, std = _moments(loaded["train"]) if scaled and not raw_data else ((0.0,) * channels, (1.0,) * channels)
    found = {}
    for part, x in images.items():
        x, y = subset(part, x, labels[part])
        found[part] = Split(_tensor(x, mean, std, raw_data or not scaled, repeat_grey=scaled), torch.from_numpy(y))
        bad = 0 if quiet or scaled else int(torch.count_nonzero(~torch.isfinite(found[part].inputs).flatten(1).all(1)))
        if bad:
            print(f"warning: {bad} of {len(y)} {part} inputs of {name} are not finite (NaN or inf); "
                  "the loss will be NaN", file=sys.stderr)
    num_classes = max([least_classes, *(int(y.max()) + 1 for y in labels.values())])
    return Data(name, found.get("train"), found.get("test"), num_classes,
                _tensor(np.zeros((1, channels, 1, 1), np.uint8), mean, std, raw_data, repeat_grey=scaled).flatten(),
                False, _in_words(mean, std, raw_data) if scaled else "none: the inputs are used as they are")


# ---------------------------------------------------------------- images and labels


def _images(array, what):
    """User's inputs as (N, C, H, W): uint8 with C in 1, 3, or float32."""
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InputError(f"expected {what} as float32 (N, C, H, W) or uint8 images, got {array.dtype}; convert them")
    if array.dtype == np.uint8 and array.ndim == 3:
        array = array[:, None]  # (N, H, W): grey
    if array.ndim != 4 or array.size == 0:
        raise InputError(f"expected {what} of shape (N, C, H, W) with N >= 1, got {array.shape}; reshape them")
    first, last = (array.shape[axis] in (1, 3) for axis in (1, 3))  # where the channels may be
    if array.dtype == np.uint8 and first and last:
        raise InputError(f"expected {what} as (N, C, H, W) or (N, H, W, C), and {array.shape} can be either; "
                         "give larger images")
    if array.dtype == np.uint8 and last:
        array = array.transpose(0, 3, 1, 2)
    elif not first and (last or array.dtype == np.uint8):  # float inputs may have any number of channels
        raise InputError(f"expected 1 or 3 channels in {what}, (N, C, H, W), got {array.shape}; transpose them")
    if array.dtype != np.uint8:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is warned about
            array = array.astype(np.float32, copy=False)
    return np.ascontiguousarray(array)


def _labels(array, count, what, num_classes=None):
    """Labels (N,) int64 in 0 .. num_classes-1; `count`: how many there must be (None: any number but 0)."""
    if array.ndim and len(array) == 0:
        raise InputError(f"expected at least one example, got none: {what} are empty; give more")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # (N, 1), as some tools write them
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise InputError(f"expected {what} as integers (N,), got {array.dtype} {array.shape}; give one class per input")
    if count is not None and len(array) != count:
        raise InputError(f"expected {what} to have as many labels as inputs, got {len(array)} and {count}; "
                         "give one for each")
    low, high, limit = int(array.min()), int(array.max()), num_classes or MAX_CLASSES
    if low < 0 or high >= limit:
        raise InputError(f"expected {what} in 0 .. {limit - 1}, got {low if low < 0 else high}; "
                         "number the classes from 0")
    return np.ascontiguousarray(array, np.int64)


def _moments(images):
    """Mean and std per channel of uint8 images (N, C, H, W) scaled to [0, 1]; a constant channel has std 1."""
    counts = np.zeros((images.shape[1], 256), np.int64)
    for start in range(0, len(images), 256):  # exact, and no float copy of the whole set
        for channel, histogram in enumerate(counts):
            histogram += np.bincount(images[start:start + 256, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    weights = counts / counts.sum(1, keepdims=True)  # (C, 256)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist())


def _tensor(images, mean, std, raw_data, repeat_grey=True):
    """(N, C, H, W) float32: uint8 scaled to [0, 1], normalized per channel unless `raw_data`, grey made 3 channels.

    The same roundings in the same order as torchvision's ToTensor and Normalize, in place on the whole set.
    """
    x = torch.from_numpy(images).to(torch.float32)
    if images.dtype == np.uint8:
        x.div_(255)
    if not raw_data:
        mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))  # (C, 1, 1)
        x = x.sub_(mean).div_(std) if images.dtype == np.uint8 else (x - mean) / std  # a float array is the caller's
    if repeat_grey and x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    return x.contiguous()


def _in_words(mean, std, raw_data):
    if raw_data:
        return "images in [0, 1], not normalized"
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (mean, std))
    return f"images in [0, 1], then per channel (x - mean)/std with mean {mean}, std {std}"


# ---------------------------------------------------------------- the user's own files


def _npz(path):
    """{part: (path, get images, get labels)} of FILE.npz."""
    if not os.path.isfile(path):
        raise InputError(f"expected a data set at {path}, found no file there; check the name")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception as error:  # a damaged zip can raise anything
        raise InputError(f"can't read {path} as .npz ({one_line(error)}); write it with numpy.savez") from None
    parts = [part for part in PARTS if f"x_{part}" in names or f"y_{part}" in names]
    missing = [f"{axis}_{part}" for part in parts or ["train"] for axis in "xy" if f"{axis}_{part}" not in names]
    if missing:
        raise InputError(f"expected x_train, y_train (and x_test, y_test) in {path}, {' and '.join(missing)} missing, "
                         f"found {names[:8]}; add what is missing")
    return {part: (path, partial(_npz_array, path, f"x_{part}"), partial(_npz_array, path, f"y_{part}"))
            for part in parts}


def _npz_array(path, name):
    """Array `name` of FILE.npz. Its header is checked against the size of the file before memory is taken for it."""
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as f:
                version = np.lib.format.read_magic(f)
                header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = header[version](f)
                size = f.tell() + dtype.itemsize * math.prod(shape)
            if dtype.kind not in "biuf":
                raise InputError(f"expected numbers in {name} of {path}, got {dtype}; save it as a numeric array")
            if min(shape, default=0) < 0 or size != info.file_size or size > DEFLATE_LIMIT * os.path.getsize(path):
                raise InputError(f"{name} of {path} claims shape {shape}, which the file does not hold; it is damaged")
            with archive.open(info) as f:
                return np.lib.format.read_array(f, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"can't read {name} of {path} ({one_line(error)}); "
                         "write the file with numpy.savez again") from None


def _saved(path, trust_pickle):
    """(get images, get labels) of a file written with torch.save.

    It holds (inputs, targets), or a dict of them, or a list of (inputs, targets) batches; such a file is read without
    running its code. With `trust_pickle` also a pickled DataLoader or map-style data set, read in the order 0 .. N-1.
    """
    if not os.path.isfile(path):
        raise InputError(f"expected saved tensors at {path}, found no file there; check the name")
    form = "a tuple (inputs, targets), a dict with inputs and targets, or a list of (inputs, targets) batches"
    try:
        saved = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    # a damaged file, or with trust_pickle the file's own code, can raise anything
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and not trust_pickle:
            raise InputError(f"expected {form} in {path}, found what can't be read without running its code "
                             "(or a damaged file); save tensors, or give --trust_pickle if you trust it") from None
        raise InputError(f"can't read {path} with torch.load ({one_line(error)}); "
                         "write it with torch.save again") from None
    try:
        images, labels = (_numpy(tensor) for tensor in _pair(saved))
    except Exception as error:
        raise InputError(f"expected {form} in {path}, got {type(saved).__name__} ({one_line(error)}); "
                         "save the tensors") from None
    return (lambda: images), (lambda: labels)


def _numpy(tensor):
    tensor = tensor.detach().cpu()
    return (tensor.to(torch.float32) if tensor.dtype == torch.bfloat16 else tensor).numpy()  # numpy has no bfloat16


def _pair(saved):
    """(inputs, targets) tensors of whatever form was saved."""
    if isinstance(saved, dict):
        for names in (("inputs", "targets"), ("x", "y"), ("images", "labels")):
            if all(name in saved for name in names):
                return saved[names[0]], saved[names[1]]
        raise ValueError(f"it has the keys {', '.join(map(str, list(saved)[:8]))}")
    if isinstance(saved, (list, tuple)):
        if len(saved) == 2 and all(isinstance(item, torch.Tensor) for item in saved):
            return saved
        if not saved or not all(isinstance(batch, (list, tuple)) and len(batch) == 2 for batch in saved):
            raise ValueError(f"of {len(saved)} things that are not all pairs")
        return torch.cat([x for x, _ in saved]), torch.cat([y for _, y in saved])
    examples = getattr(saved, "dataset", saved)  # a DataLoader may shuffle, its data set doesn't
    if isinstance(examples, torch.Tensor) or not (hasattr(examples, "__getitem__") and hasattr(examples, "__len__")):
        raise ValueError("no data set with a length and numbered examples")
    return _read_examples(examples)


def _read_examples(examples):
    """(inputs, targets) of a map-style data set, in the order 0 .. N-1."""

    def read(count):
        pairs = [examples[i] for i in range(count)]
        return tuple(torch.stack([torch.as_tensor(value) for value in column]) for column in zip(*pairs, strict=True))

    few = min(len(examples), 32)
    if not torch.equal(read(few)[0], read(few)[0]):
        raise ValueError("its examples differ from one reading to the next: switch random augmentation off")
    return read(len(examples))
