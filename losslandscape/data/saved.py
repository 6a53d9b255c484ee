"""--trainloader, --testloader: files written with torch.save.

Such a file holds (inputs, targets), or a dict of them, or a list of (inputs, targets) batches; it
is read without running its code. With --trust_pickle also a pickled DataLoader or map-style data
set, read in a fixed order (see sources.py).
"""

import os

import numpy as np
import torch
from torch.utils.data import DataLoader

from losslandscape.data.arrays import Arrays, load_arrays
from losslandscape.data.reasons import reason_of
from losslandscape.data.sources import is_map_style
from losslandscape.data.splits import Split, as_split
from losslandscape.data.values import is_array
from losslandscape.errors import InputError
from losslandscape.messages import printable
from losslandscape.networks.formats import read_torch, run_pickle
from losslandscape.networks.pickles import Inert

FORM = (
    "a tuple (inputs, targets), a dict with inputs and targets, "
    "or a list of (inputs, targets) batches")
KEYS = (("inputs", "targets"), ("x", "y"), ("images", "labels"))  # of a dict
SHOWN_KEYS = 8


def load_saved(request, least_classes):
    """Data of the files; `least_classes`: those of --dataset, not all of which need be shown."""
    sources = {}
    for part, path in (("train", request.trainloader), ("test", request.testloader)):
        if path:
            sources[part] = read_saved(path, request.trust_pickle)
    name = request.trainloader or request.testloader
    return load_arrays(request, name, sources, least_classes)


def read_saved(path, trust_pickle):
    """Arrays of one file; raises InputError for any other content."""
    if not os.path.isfile(path):
        raise InputError(f"expected saved tensors at {path}, found no file there; check the name")
    saved = _load(path, trust_pickle)
    try:
        inputs, targets = _inputs_and_targets(saved)
        images, labels = _to_numpy(inputs), _to_numpy(targets)
    except Exception as error:  # whatever a pickled data set raises
        advice = "save the tensors"
        if not trust_pickle:
            advice += ", or give --trust_pickle if you trust a pickled data set"
        raise InputError(
            f"expected {FORM} in {path}, got {_type_in_words(saved)} ({reason_of(error)}); {advice}"
        ) from None
    return Arrays(path, lambda: images, lambda: labels)


def _load(path, trust_pickle):
    """The object of a file of torch.save; its code is run only with trust."""
    if trust_pickle:
        return run_pickle(path)
    try:
        return read_torch(path)
    except InputError as error:
        reason, _, advice = str(error).partition("; ")
        if "--trust_pickle" not in advice:
            advice = "write it with torch.save again"
        raise InputError(f"{reason}; {advice}") from None


def _type_in_words(saved):
    if isinstance(saved, Inert):
        return printable(saved.name)
    return type(saved).__name__


def _to_numpy(tensor):
    """An array of its own: the values of `tensor` may still lie in the file."""
    tensor = tensor.detach().cpu()
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError("a tensor has more values than the file holds")
    if tensor.dtype == torch.bfloat16:  # numpy has none
        tensor = tensor.to(torch.float32)
    return np.array(tensor.numpy())


def _inputs_and_targets(saved):
    """The two tensors, of whatever form was saved; raises ValueError for what has no such form."""
    if isinstance(saved, dict):
        return _of_dict(saved)
    if isinstance(saved, (list, tuple)):
        return _of_pairs(saved)

    return _of_pickled(saved)


def _of_dict(saved):
    for inputs, targets in KEYS:
        if inputs in saved and targets in saved:
            return saved[inputs], saved[targets]
    raise ValueError(f"it has the keys {', '.join(map(str, list(saved)[:SHOWN_KEYS]))}")


def _of_pairs(saved):
    """Of (inputs, targets), or of a list of such batches."""
    if len(saved) == 2 and all(isinstance(entry, torch.Tensor) for entry in saved):
        return saved
    are_pairs = all(isinstance(batch, (list, tuple)) and len(batch) == 2 for batch in saved)
    if not saved or not are_pairs:
        raise ValueError(f"of {len(saved)} things that are not all pairs")
    return torch.cat([inputs for inputs, _ in saved]), torch.cat([targets for _, targets in saved])


def _of_pickled(saved):
    """Of a pickled DataLoader or map-style data set: what it yields, in a fixed order."""
    if not (isinstance(saved, DataLoader) or is_map_style(saved)) or is_array(saved):
        raise ValueError("no data set with a length and numbered examples")
    split = as_split(saved, "the file")
    if not isinstance(split, Split) or not all(map(is_array, (split.inputs, split.targets))):
        raise ValueError(
            "its batches are not one tensor of inputs and one of targets each; give the data by "
            "--dataset FILE.py:function")
    return split.inputs, split.targets
