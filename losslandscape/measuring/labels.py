"""What targets are, beside the outputs of a network: understood before the first point, or refused.

    check_classes("crossentropy", logits, targets, everything)      labels, or probabilities
    check_numbers("mse", outputs, targets)                          numbers of the same shape

Messages name both shapes, and what makes them go together.
"""

import torch

from losslandscape.errors import InputError
from losslandscape.measuring.outputs import class_axis

IGNORED = -100  # the label of positions (of a text, of an image) that do not count, as in torch
VOID = 255  # the same in segmentation masks of 8 bits
SLICE = 4096  # samples whose labels are looked at at a time

OWN_LOSS = "write a loss: --loss_name FILE.py:function"
BINARY = "--loss_name torch.nn:BCEWithLogitsLoss"


def check_classes(loss_name, logits, targets, everything, ignored=IGNORED):
    """Raises InputError, with what to do, unless the targets are classes of these logits.

    That is labels, or probabilities of the classes.

    logits, targets: of a few samples. everything: all targets that are held in memory, as a list.
    ignored: the label that does not count, None where all do.
    """
    everything = everything or [targets]
    shapes = f"outputs {tuple(logits.shape)} and targets {tuple(targets.shape)}"
    if targets.is_floating_point():
        check_probabilities(loss_name, logits, targets, everything, shapes)
        return

    # one output per sample
    expected = f"expected one label per sample and one output per class for --loss_name {loss_name}"
    if logits.dim() < 2 or (logits.dim() == 2 and logits.shape[1] == 1):
        raise InputError(
            f"{expected}, got {shapes}; for two classes take {BINARY}, for numbers "
            "--loss_name mse, with targets.float() of the shape of the outputs")

    # labels in another form
    if logits.dim() == 2 and targets.dim() == 2 and targets.shape[1] == 1:
        raise InputError(f"{expected}, got {shapes}; give targets[:, 0]")
    if logits.dim() == 2 and logits.shape == targets.shape:
        if all(is_one_hot(part) for part in everything):
            raise InputError(f"{expected}, got one-hot {shapes}; give targets.argmax(1)")
        raise InputError(
            f"{expected}, got {shapes}; for several labels per sample take {BINARY} with "
            "targets.float()")
    if logits.dim() == 2 and targets.dim() != 1:
        raise InputError(f"{expected}, got {shapes}; {OWN_LOSS}")

    classes = logits.shape[class_axis(logits, targets)]
    check_label_range(loss_name, classes, everything, ignored)


def is_one_hot(targets):
    """Has every row one 1, and else zeros?"""
    return are_zeros_and_ones(targets) and bool((targets.sum(1) == 1).all())


def are_zeros_and_ones(targets):
    return bool(((targets == 0) | (targets == 1)).all())


def check_label_range(loss_name, classes, everything, ignored):
    """Raises InputError where a label is beyond the classes, and not the one to be ignored."""
    outside = set()
    for targets in everything:
        for start in range(0, len(targets), SLICE):
            part = targets[start:start + SLICE].long()
            outside.update(part[(part < 0) | (part >= classes)].unique().tolist())
    outside.discard(ignored)
    if not outside:
        return

    advice = "check --dataset and --model_file"
    label = max(outside, key=abs)
    if len(outside) == 1 and (label == VOID or label < 0):
        advice = (
            f"where {label} means 'ignore', give {IGNORED} instead, or name a "
            f"torch.nn.CrossEntropyLoss(ignore_index={label}) of yours: --loss_name FILE.py:name")
    raise InputError(
        f"expected labels below {classes}, the number of outputs of the network, and none below 0, "
        f"for --loss_name {loss_name}, got {label}; {advice}")


def check_probabilities(loss_name, logits, targets, everything, shapes):
    """Raises InputError unless float targets are probabilities of the classes of the logits."""
    words = f"expected classes for --loss_name {loss_name}, got float targets ({shapes})"

    if logits.shape == targets.shape and logits.dim() >= 2 and logits.shape[1] > 1:
        if all(add_up_to_one(part) for part in everything):
            return
        if all(are_zeros_and_ones(part) for part in everything):
            raise InputError(f"{words} with several labels per sample; take {BINARY}")
        raise InputError(f"{words}; for numbers take --loss_name mse")

    # one target per sample, several outputs
    if targets.numel() == len(targets) and logits.numel() > len(logits):
        if all(bool((part == part.round()).all()) for part in everything):
            raise InputError(f"{words}; give integers, targets.long(), of shape (samples,)")
        raise InputError(
            f"{words}; for numbers (--loss_name mse) the network must give one output per target: "
            "check --model and --dataset")

    cure = "for numbers take --loss_name mse"
    if all(are_zeros_and_ones(part) for part in everything):
        cure = f"for two classes take {BINARY}"
    if logits.shape != targets.shape:
        cure += f", and {cure_of_shapes(logits, targets)}"
    raise InputError(f"{words}; {cure}")


def add_up_to_one(targets):
    """Are they probabilities of classes (B, classes, ...)?"""
    return bool((targets >= 0).all() and ((targets.sum(1) - 1).abs() < 1e-3).all())


# ---------------------------------------------------------------- shapes that broadcast


def check_numbers(loss_name, outputs, targets):
    """Raises InputError unless targets have the shape of the outputs, number by number."""
    if outputs.shape != targets.shape:
        refuse_shapes(f"--loss_name {loss_name}", outputs, targets)


def refuse_shapes(name, outputs, targets):
    """Raise InputError about outputs and targets that would be compared each with each."""
    raise InputError(
        f"expected targets of the shape of the outputs for {name}, got outputs "
        f"{tuple(outputs.shape)} and targets {tuple(targets.shape)}; "
        f"{cure_of_shapes(outputs, targets)}")


def cure_of_shapes(outputs, targets):
    """What gives outputs and targets one shape, in words."""
    if outputs.dim() == targets.dim() + 1 > 1 and outputs.shape[1] == 1:
        return "give targets[:, None], or take output[:, 0] in a loss of your own"
    if targets.dim() == outputs.dim() + 1 and targets.shape[1] == 1:
        return "give targets[:, 0]"
    return "give targets of that shape"


def may_broadcast(output, targets):
    """Do outputs and targets hold as many numbers, in other shapes?"""
    if not (isinstance(output, torch.Tensor) and isinstance(targets, torch.Tensor)):
        return False
    return output.shape != targets.shape and output.numel() == targets.numel()
