"""The files of a training: saved whole, and read to go on.

    model_E.t7       {acc, epoch, state_dict, train_loss, train_acc, test_loss, test_acc,
                      model, dataset}
    opt_state_E.t7   {optimizer, epoch}
    log.out          one line per epoch
"""

import io
import os
from collections.abc import Mapping

import torch

from losslandscape.errors import InputError
from losslandscape.files.atomic import write_file
from losslandscape.networks.checkpoints import read_checkpoint, read_torch
from losslandscape.networks.loading import Architecture, weights_for
from losslandscape.training.recipe import OPTIMIZERS

# ---------------------------------------------------------------- writing


def save_checkpoint(folder, epoch, state_dict, scores, optimizer, model, dataset):
    """Write model_E.t7 and opt_state_E.t7.

    `scores`: {train_loss, train_acc[, test_loss, test_acc]}; `acc` is the test accuracy if there is
    one.
    """
    _save(os.path.join(folder, f"model_{epoch}.t7"), {
        "acc": scores.get("test_acc", scores["train_acc"]),
        "epoch": epoch,
        "state_dict": {name: value.cpu() for name, value in state_dict.items()},
        **scores,
        "model": model,
        "dataset": dataset,
    })
    _save(os.path.join(folder, f"opt_state_{epoch}.t7"), {
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
    })


def _save(path, content):
    """torch.save whose file is at every moment complete."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file(path, buffer.getvalue())


class TrainingLog:
    """Prints lines, and keeps them in log.out of `folder`, which is made where it is absent.

    `append`: add to the lines of the training that goes on. Raises InputError where the folder
    can't be written.
    """

    def __init__(self, folder, append=False):
        mode = "w"
        if append:
            mode = "a"
        try:
            os.makedirs(folder, exist_ok=True)
            self._file = open(os.path.join(folder, "log.out"), mode)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"can't write into {folder} ({reason}); give another --save") from None

    def __call__(self, line):
        print(line, flush=True)
        print(line, file=self._file, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


# ---------------------------------------------------------------- going on


def resume_model(net, path, model, dataset, trust_pickle=False):
    """Load the weights at `path` into `net`, and return the epoch after which they were saved.

    Raises InputError unless they are those of a network `model` that was trained on `dataset`.
    """
    checkpoint = read_checkpoint(path, trust_pickle)

    epoch = checkpoint.info.get("epoch")
    if not isinstance(epoch, int) or epoch < 0:
        raise InputError(
            f"expected the number of an epoch in {path}, got {epoch!r}; "
            "give a checkpoint of this program")

    # a file may have moved: its name decides
    trained_on = checkpoint.info.get("dataset", dataset)
    if os.path.basename(str(trained_on)) != os.path.basename(dataset):
        raise InputError(f"expected a model trained on {dataset} in {path}, "
                         f"it was trained on {trained_on}; give --dataset {trained_on}")

    weights = weights_for(net, checkpoint).entries
    Architecture(model).check_weights(net, weights, path)
    # not strict: files of old PyTorch lack batch counters
    net.load_state_dict(weights, strict=False)
    return epoch


def resume_optimizer(optimizer, path, name, epoch, trust_pickle=False):
    """Load what optimizer `name` kept for every parameter into `optimizer`.

    Learning rate and the like stay those of the flags.
    Raises InputError unless the file is of the same kind of optimizer, the same network and the
    same epoch.
    """
    content = read_torch(path, trust_pickle)
    entries = _parameter_entries(content, path)

    if content.get("epoch", epoch) != epoch:
        raise InputError(
            f"expected the optimizer of epoch {epoch} in {path}, "
            f"got that of epoch {content['epoch']!r}; "
            "give the model_E.t7 and opt_state_E.t7 of one epoch")
    _check_optimizer(entries, name, path)
    _check_shapes(entries, optimizer, path)

    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _parameter_entries(content, path):
    """{number of a parameter: {name: value}} of the content of an opt_state_E.t7."""
    entries = None
    if isinstance(content, Mapping) and isinstance(content.get("optimizer"), Mapping):
        entries = content["optimizer"].get("state")

    is_state = isinstance(entries, Mapping)
    if is_state:
        is_state = all(isinstance(entry, Mapping) for entry in entries.values())
    if not is_state:
        raise InputError(
            f"expected the state of an optimizer in {path}, got none; give an opt_state_E.t7")
    return dict(entries)


def _check_optimizer(entries, name, path):
    """Raise InputError unless `entries` hold what optimizer `name` keeps; at epoch 0, nothing."""
    expected_names = OPTIMIZERS[name].state_names
    if all(set(entry) in (expected_names, set()) for entry in entries.values()):
        return

    saved_names = {str(key) for entry in entries.values() for key in entry}
    raise InputError(f"expected the state of {name} in {path}, got one that keeps "
                     f"{', '.join(sorted(saved_names))}; give the --optimizer that wrote it")


def _check_shapes(entries, optimizer, path):
    """Raise InputError unless each parameter has an entry in its shape, or none has any."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    fits = not entries or set(entries) == set(range(len(parameters)))
    if fits:
        fits = all(_has_shape_of(parameters[i], entry) for i, entry in entries.items())
    if not fits:
        raise InputError(
            f"expected the state of {len(parameters)} parameters of this model in {path}, "
            "got that of another model; give the opt_state_E.t7 beside the model_E.t7")


def _has_shape_of(parameter, entry):
    """Whether the values of `entry` may be those of `parameter`.

    They are tensors of its shape, a number of steps, or None.
    """
    for name, value in entry.items():
        expected_shape = parameter.shape
        if name == "step":
            expected_shape = ()
        if value is None:
            continue
        if not isinstance(value, torch.Tensor) or value.shape != expected_shape:
            return False
    return True
