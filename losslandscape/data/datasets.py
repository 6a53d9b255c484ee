"""--dataset, --datapath -> tensors in a fixed order.

    prepare("cifar10", "cifar10/data")               # one process only: downloads what is not there
    data = load_dataset("cifar10", "cifar10/data")   # every process: reads files, never the network
    data.train.inputs, data.train.targets            # (N, C, H, W) float32 and (N,) int64

A data set is one of `DATASETS`; or FILE.npz with x_train, y_train[, x_test, y_test]; or an
`imagefolder`; or what FILE.py:function gives for "train" and for "test" (see splits.as_split); or
the tensors of --trainloader and --testloader. A loss surface is a function of the weights alone
only if the data never change: there is no augmentation and no shuffling here, and the order is that
of the files.

No data file's code is run: CIFAR's pickles, .npz and torch.save files are read by readers that
admit arrays only. The one exception is a pickled DataLoader, read when the user says
--trust_pickle.
"""

import difflib
import os
from functools import partial

from losslandscape import user_code
from losslandscape.data import cifar, digits, folders, idx, npz, own, saved
from losslandscape.data.download import download
from losslandscape.data.request import PARTS, Data, DataRequest
from losslandscape.data.splits import Batches, Split, split_hash
from losslandscape.errors import InputError

__all__ = [
    "DATASETS", "FORMS", "Batches", "Data", "DataRequest", "Split", "dataset_label", "load_dataset",
    "load_request", "prepare", "split_hash"]

DATASETS = {
    "cifar10": cifar.CIFAR10,
    "cifar100": cifar.CIFAR100,
    "mnist": idx.MNIST,
    "fashion_mnist": idx.FASHION_MNIST,
    "digits": digits.DIGITS,
}
NAMES = (*DATASETS, *folders.NAMES)
FORMS = f"{', '.join(NAMES)}, FILE.npz or FILE.py:function"


def dataset_label(name):
    """A short name of a data set, for file names."""
    if own.is_function(name):
        return user_code.label(name)
    return os.path.splitext(os.path.basename(name))[0]


def named_set(name):
    """The NamedSet of a name; InputError lists the names."""
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(name.lower(), NAMES, 1)
    advice = "check the name"
    if close:
        advice = f"did you mean {close[0]}?"
    raise InputError(f"expected {FORMS} as data set, got {name!r}; {advice}")


def prepare(name, datapath="cifar10/data", splits=PARTS):
    """Make sure that the files of `splits` are there.

    Called by one process, before any calls `load_dataset`.

    What lies in `datapath` already is used without the network. Otherwise torchvision downloads
    (and checks) the files into a folder beside, and they are moved into `datapath` when they are
    complete. InputError where that fails; no incomplete file is left behind then.
    """
    if npz.is_npz(name) or own.is_function(name) or name in folders.NAMES:
        return
    files = named_set(name)
    if not files.find(datapath, splits):
        download(name, files, datapath)


def load_dataset(name, datapath="cifar10/data", raw_data=False, **choices):
    """The data set `name`, or the tensors of --trainloader and --testloader; never downloads.

    The choices are the fields of `DataRequest`. Raises InputError for whatever is wrong with the
    names or the files.
    """
    return load_request(DataRequest(name, datapath, raw_data, **choices))


def load_request(request):
    """Data of a `DataRequest`; never downloads. Raises InputError for what is wrong with files."""
    data = _reader(request)(request)
    for part in request.parts:
        if getattr(data, part) is None and request.requires(part):
            raise InputError(
                f"expected a {part} set in {data.name}, found none; give one "
                f"(x_{part}, y_{part} in a .npz, or --{part}loader), or evaluate the other set")
    return data


def _reader(request):
    """What reads the requested data set: a function of the request."""
    name = request.name
    if request.trainloader or request.testloader:
        least_classes = 0
        if name in DATASETS:
            least_classes = DATASETS[name].num_classes
        return partial(saved.load_saved, least_classes=least_classes)
    if npz.is_npz(name):
        return npz.load_npz
    if own.is_function(name):
        return own.load_function
    if name in folders.NAMES:
        return folders.load_folders
    return named_set(name).load
