"""Losses and metrics by name.

A loss is a key of LOSSES, torch.nn:Name, or a user's FILE.py:function; a metric is `accuracy`, `none` or a user's. A
user's function takes (output of the network, targets) of a batch, and returns one number per sample, or the batch's
mean; what it returns is averaged over the samples.
"""

import torch
from torch.nn import functional as F

from losslandscape import user_code
from losslandscape.errors import InputError

IGNORED = -100  # the label of positions (of a text, of an image) that do not count, as in torch


def crossentropy(logits, targets):
    """Logits (B, classes), targets (B,) -> (B,). For texts and images, one label per position, the mean over them."""
    if logits.dim() == 2:
        return F.cross_entropy(logits, targets, reduction="none")
    logits, counted = classes_second(logits, targets), targets != IGNORED
    losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)
    return losses.flatten(1).sum(1) / counted.flatten(1).sum(1)


def mse(logits, targets):
    """Mean over classes of the squared error between softmax(logits) and the one-hot label."""
    wanted = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    return (logits.softmax(1) - wanted).square().mean(1)


def hits(logits, targets):
    """Where the largest logit is the label's: (B,) bool; with one label per position, the share of them, (B,)."""
    if logits.dim() == 2:
        return logits.argmax(1) == targets
    counted = targets != IGNORED
    right = (classes_second(logits, targets).argmax(1) == targets) & counted
    return right.flatten(1).sum(1) / counted.flatten(1).sum(1)


def classes_second(logits, targets):
    """Logits of one label per position as torch wants them, (B, classes, ...); texts mostly come as (B, ..., classes).

    Raises InputError where the shapes fit neither, or both.
    """
    second = logits.shape[:1] + logits.shape[2:] == targets.shape
    last = logits.shape[:-1] == targets.shape
    if second == last:
        raise InputError(f"expected outputs (B, classes, ...) or (B, ..., classes) for targets {tuple(targets.shape)}, "
                         f"got {tuple(logits.shape)}, which could be {'both' if last else 'neither'}; write a loss: "
                         "--loss_name FILE.py:function")
    return logits if second else logits.movedim(-1, 1)


# (logits (B, classes), targets (B,)) -> per-sample losses (B,)
LOSSES = {"crossentropy": crossentropy, "mse": mse}
METRICS = ("accuracy", "none")  # "": accuracy where targets are classes, else none


def logits_of(output):
    """The tensor in a network's output: itself, `.logits` or ["logits"], else the first of a tuple."""
    if isinstance(output, torch.Tensor):
        return output
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, dict) and "logits" in output:
        return output["logits"]
    if isinstance(output, tuple | list) and output and isinstance(output[0], torch.Tensor):
        return output[0]
    raise InputError(f"expected a tensor, or something with logits, from the network, got {type(output).__name__}; "
                     "write a loss that takes it: --loss_name FILE.py:function")


def per_sample(function, flag, name):
    """`function` of (output, targets) with its result as one number per sample, (B,)."""

    def measure(output, targets):
        found = user_code.call(flag, name, function, output, targets)
        if not isinstance(found, torch.Tensor):
            try:
                found = torch.as_tensor(found, dtype=torch.float32, device=targets.device)
            except (TypeError, ValueError, RuntimeError):
                raise InputError(f"expected one number per sample, or a mean, from {flag} {name}, got "
                                 f"{type(found).__name__}; correct it") from None
        if found.dim() == 0:
            return found.expand(len(targets))
        if found.shape[0] != len(targets):
            raise InputError(f"expected one number per sample, or a mean, from {flag} {name}, got shape "
                             f"{tuple(found.shape)} for {len(targets)} samples; correct it")
        found = found if found.is_floating_point() else found.float()
        return found.flatten(1).mean(1) if found.dim() > 1 else found

    return measure


def loss_function(name):
    """(output of the network, targets) -> losses (B,), of a --loss_name. Raises InputError for an unknown one."""
    if callable(name):
        return name
    if name in LOSSES:
        return lambda output, targets: LOSSES[name](logits_of(output), targets)
    if not user_code.is_reference(name):
        raise InputError(f"expected {', '.join(LOSSES)}, torch.nn:Name or FILE.py:function as --loss_name, "
                         f"got {name!r}")
    function = user_code.load("--loss_name", name)
    if name.startswith("torch.nn:"):
        criterion = user_code.call("--loss_name", name, function, reduction="none")
        return per_sample(lambda output, targets: criterion(logits_of(output), targets), "--loss_name", name)
    if isinstance(function, type):
        function = user_code.call("--loss_name", name, function)
    return per_sample(function, "--loss_name", name)


def metric_function(name):
    """(output, targets) -> (B,), of a --metric; None for 'none'."""
    if name == "none":
        return None
    if name == "accuracy":
        return lambda output, targets: hits(logits_of(output), targets)
    return per_sample(user_code.load("--metric", name), "--metric", name)


def metric_name(metric, split):
    """What the metric of a split is called in a surface file: 'train_acc' (percent), 'train_NAME', or None."""
    if metric == "none":
        return None
    return f"{split}_acc" if metric == "accuracy" else f"{split}_{metric.rpartition(':')[2]}"


def choose_metric(metric, output, targets):
    """`metric`, or where it is '': accuracy if `targets` are classes of which `output` has a logit each, else none."""
    if metric not in ("", *METRICS) and not user_code.is_reference(metric):
        raise InputError(f"expected {', '.join(METRICS)} or FILE.py:function as --metric, got {metric!r}")
    if metric:
        return metric
    try:
        logits = logits_of(output)
        if not targets.is_floating_point() and logits.is_floating_point():
            hits(logits, targets)
            return "accuracy" if logits.dim() == targets.dim() + 1 else "none"
    except (InputError, RuntimeError, IndexError):
        pass
    return "none"
