"""--trainloader, --testloader: files written with torch.save.

Such a file holds (inputs, targets), or a dict of them, or a list of (inputs, targets) batches; it
is read without running its code. With --trust_pickle also a pickled DataLoader or map-style data
set, read in the order 0 .. N-1.
"""

import os
import pickle

import torch

from losslandscape.data.arrays import Arrays, load_arrays
from losslandscape.data.reasons import reason_of
from losslandscape.errors import InputError

FORM = (
    "a tuple (inputs, targets), a dict with inputs and targets, "
    "or a list of (inputs, targets) batches")
KEYS = (("inputs", "targets"), ("x", "y"), ("images", "labels"))  # of a dict
COMPARED_EXAMPLES = 32  # of a pickled data set, between two readings
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
    try:
        saved = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    # a damaged file, or with trust_pickle the file's own code, can raise anything
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and not trust_pickle:
            raise InputError(
                f"expected {FORM} in {path}, found what can't be read without running its code "
                "(or a damaged file); save tensors, or give --trust_pickle if you trust it"
            ) from None
        raise InputError(
            f"can't read {path} with torch.load ({reason_of(error)}); "
            "write it with torch.save again") from None

    try:
        inputs, targets = _inputs_and_targets(saved)
        images, labels = _to_numpy(inputs), _to_numpy(targets)
    except Exception as error:  # whatever a pickled data set raises
        raise InputError(
            f"expected {FORM} in {path}, got {type(saved).__name__} ({reason_of(error)}); "
            "save the tensors") from None
    return Arrays(path, lambda: images, lambda: labels)


def _to_numpy(tensor):
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # numpy has none
        tensor = tensor.to(torch.float32)
    return tensor.numpy()


def _inputs_and_targets(saved):
    """The two tensors, of whatever form was saved; raises ValueError for what has no such form."""
    if isinstance(saved, dict):
        return _of_dict(saved)
    if isinstance(saved, (list, tuple)):
        return _of_pairs(saved)

    examples = getattr(saved, "dataset", saved)  # a DataLoader may shuffle, its data set doesn't
    numbered = hasattr(examples, "__getitem__") and hasattr(examples, "__len__")
    if isinstance(examples, torch.Tensor) or not numbered:
        raise ValueError("no data set with a length and numbered examples")
    return _of_examples(examples)


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


def _of_examples(examples):
    """Of a map-style data set, in order; two readings of its first examples must agree."""
    first = min(len(examples), COMPARED_EXAMPLES)
    if not torch.equal(_read_first(examples, first)[0], _read_first(examples, first)[0]):
        raise ValueError(
            "its examples differ from one reading to the next: switch random augmentation off")
    return _read_first(examples, len(examples))


def _read_first(examples, count):
    """(inputs (count, ...), targets (count, ...)) of the first `count` examples."""
    columns = zip(*(examples[i] for i in range(count)), strict=True)
    return [torch.stack([torch.as_tensor(value) for value in column]) for column in columns]
