"""Losses and metrics by name: what is measured of a network's output.

A loss is a key of LOSSES, torch.nn:Name, or a user's FILE.py:function. A metric is a key of
METRICS, or a user's FILE.py:function. A user's function takes (output of the network, targets) of
a batch, and returns one number per sample, or the mean over the batch; what it returns is
averaged over the samples.

To add a loss: write a function (logits, targets) -> (B,), and give it a name in LOSSES.
"""

import torch
from torch.nn import functional as F

from losslandscape import user_code
from losslandscape.errors import InputError

IGNORED = -100  # the label of positions (of a text, of an image) that do not count, as in torch


# ---------------------------------------------------------------- losses: (logits, targets) -> (B,)


def crossentropy(logits, targets):
    """Cross entropy of logits (B, classes) and targets (B,), or of one label per position: (B,).

    For texts and images, targets (B, ...), it is the mean over a sample's positions that count.
    """
    if logits.dim() == 2:
        return F.cross_entropy(logits, targets, reduction="none")

    logits = classes_second(logits, targets)
    counted = targets != IGNORED
    losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)
    return losses.flatten(1).sum(1) / counted.flatten(1).sum(1)


def mse(logits, targets):
    """Mean over classes of (softmax(logits) - one-hot label) squared: (B,)."""
    one_hot = F.one_hot(targets, logits.shape[1]).to(logits.dtype)  # (B, classes)
    return (logits.softmax(1) - one_hot).square().mean(1)


LOSSES = {"crossentropy": crossentropy, "mse": mse}


# --------------------------------------------------------------- metrics: (logits, targets) -> (B,)


def hits(logits, targets):
    """Where the largest logit is the label's: (B,) bool. With one label per position their share, (B,)."""
    if logits.dim() == 2:
        return logits.argmax(1) == targets

    counted = targets != IGNORED
    right = (classes_second(logits, targets).argmax(1) == targets) & counted
    return right.flatten(1).sum(1) / counted.flatten(1).sum(1)


METRICS = {"accuracy": hits, "none": None}


# ---------------------------------------------------------------- forms of outputs


def logits_of(output):
    """The tensor in a network's output: itself, `.logits` or ["logits"], else the first of a tuple.

    Raises InputError where there is none.
    """
    if isinstance(output, torch.Tensor):
        return output
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, dict) and "logits" in output:
        return output["logits"]
    if isinstance(output, tuple | list) and output and isinstance(output[0], torch.Tensor):
        return output[0]
    raise InputError(
        "expected a tensor, or something with logits, from the network, "
        f"got {type(output).__name__}; write a loss that takes it: --loss_name FILE.py:function")


def classes_second(logits, targets):
    """Logits of one label per position, (B, ..., classes) or (B, classes, ...), in the second form.

    It is the one that torch takes; texts mostly come in the first.

    Raises InputError where the shapes fit neither, or both.
    """
    is_second = logits.shape[:1] + logits.shape[2:] == targets.shape
    is_last = logits.shape[:-1] == targets.shape
    if is_second and not is_last:
        return logits
    if is_last and not is_second:
        return logits.movedim(-1, 1)

    forms = "both" if is_last else "neither"
    raise InputError(
        "expected outputs (B, classes, ...) or (B, ..., classes) for targets "
        f"{tuple(targets.shape)}, got {tuple(logits.shape)}, which could be {forms}; "
        "write a loss: --loss_name FILE.py:function")


# ---------------------------------------------------------------- by name


def loss_function(name):
    """(output of the network, targets) -> losses (B,), of a --loss_name.

    A function stands for itself. Raises InputError for an unknown name.
    """
    flag = "--loss_name"
    if callable(name):
        return name
    if name in LOSSES:
        return lambda output, targets: LOSSES[name](logits_of(output), targets)
    if not user_code.is_reference(name):
        raise InputError(
            f"expected {', '.join(LOSSES)}, torch.nn:Name or FILE.py:function as {flag}, "
            f"got {name!r}")

    function = user_code.load(flag, name)
    if name.startswith("torch.nn:"):
        criterion = user_code.call(flag, name, function, reduction="none")
        return per_sample(lambda output, targets: criterion(logits_of(output), targets), flag, name)
    if isinstance(function, type):
        function = user_code.call(flag, name, function)
    return per_sample(function, flag, name)


def metric_function(name):
    """(output of the network, targets) -> (B,), of a --metric; None for 'none'."""
    if name not in METRICS:
        return per_sample(user_code.load("--metric", name), "--metric", name)

    function = METRICS[name]
    if function is None:
        return None
    return lambda output, targets: function(logits_of(output), targets)


def metric_name(metric, split):
    """What a metric is called in a surface file: 'train_acc' (percent), 'train_NAME', or None."""
    if metric == "none":
        return None
    if metric == "accuracy":
        return f"{split}_acc"
    return f"{split}_{metric.rpartition(':')[2]}"


def result_names(metric, split):
    """What is evaluated of a split, as it is called in a surface file: its loss, and its metric."""
    names = [f"{split}_loss"]
    if metric != "none":
        names.append(metric_name(metric, split))
    return names


def choose_metric(metric, output, targets):
    """`metric`, or where it is '': accuracy if the targets are classes with logits, else none.

    Raises InputError for an unknown one.
    """
    if metric in METRICS or user_code.is_reference(metric):
        return metric
    if metric:
        raise InputError(
            f"expected {', '.join(METRICS)} or FILE.py:function as --metric, got {metric!r}")

    try:
        logits = logits_of(output)
        if targets.is_floating_point() or not logits.is_floating_point():
            return "none"
        hits(logits, targets)
    except (InputError, RuntimeError, IndexError):
        return "none"
    if logits.dim() == targets.dim() + 1:
        return "accuracy"
    return "none"


# ---------------------------------------------------------------- what a user's function returns


def per_sample(function, flag, name):
    """`function` of (output, targets) with its result as one number per sample, (B,).

    flag, name: where the user named the function, for messages.
    Raises InputError for any other result.
    """

    def measure(output, targets):
        result = user_code.call(flag, name, function, output, targets)
        numbers = _as_tensor(result, targets.device, flag, name)

        # a mean over the batch counts for each of its samples
        if numbers.dim() == 0:
            return numbers.expand(len(targets))

        if numbers.shape[0] != len(targets):
            raise InputError(
                f"expected one number per sample, or a mean, from {flag} {name}, got shape "
                f"{tuple(numbers.shape)} for {len(targets)} samples; correct it")
        if not numbers.is_floating_point():
            numbers = numbers.float()
        if numbers.dim() > 1:
            numbers = numbers.flatten(1).mean(1)
        return numbers

    return measure


def _as_tensor(result, device, flag, name):
    """The result of a user's function as a tensor."""
    if isinstance(result, torch.Tensor):
        return result
    try:
        return torch.as_tensor(result, dtype=torch.float32, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"expected one number per sample, or a mean, from {flag} {name}, got "
            f"{type(result).__name__}; correct it") from None
