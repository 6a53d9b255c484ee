"""The loss that a network computes itself when it gets the labels, as those of Hugging Face do.

    argument = target_argument(net, "labels", inputs)         "labels", "targets", ..., or ""
    own = find_own_loss(trial, argument, ignored)             OwnLoss, or None where there is none

Such a loss is a mean over a batch. Which one is found out on a few samples, whose labels are put
into another order and ignored at a different number of positions in each sample, so that no two
formulas agree: the mean over all labelled positions or over samples, of the label at a position or
of the next one, squared errors, or yes and no for several labels. Where one fits, it is computed
over the whole split, whatever the batches. Where none fits, the network's own loss is taken in
batches of a fixed size.
"""

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from losslandscape.measuring.criteria import (
    OWN_LOSS_NAME,
    Accuracy,
    Criterion,
    CrossEntropy,
    NetworksOwn,
    PerSample,
)
from losslandscape.measuring.labels import IGNORED
from losslandscape.measuring.outputs import (
    ROUNDING,
    call_network,
    full_precision,
    logits_of,
    outputs_are_equal,
    own_loss_in,
)

ARGUMENTS = ("labels", "targets", "target", "label", "y")  # of a network's forward, for the targets
OWN_LOSS_BATCH = 8  # samples, where the loss depends on the batches: the Trainer's default
HALF_TOLERANCE = 5e-3  # of a loss that was computed in half precision


@dataclass(frozen=True)
class OwnLoss:
    """The loss of a network's own, and the accuracy that belongs to it (None where it has none)."""

    loss: Criterion
    accuracy: Accuracy | None


def target_argument(net, target_name, inputs):
    """The argument by which a network's forward takes the targets, '' where it takes none.

    target_name: what they are called in a batch that is a dict, '' in others.
    """
    try:
        parameters = inspect.signature(net.forward).parameters
    except (TypeError, ValueError):
        return ""
    for name in (target_name, *ARGUMENTS):
        if name and name in parameters:
            return name

    # a wrapper that hands on whatever it is called with
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if takes_all and isinstance(inputs, Mapping):
        return target_name or ARGUMENTS[0]
    return ""


# ---------------------------------------------------------------- which formula is it?


def ignored_in(everything):
    """The label that does not count: the only negative one of all targets, or torch's -100."""
    lowest = min(int(targets.min()) for targets in everything if targets.numel())
    if lowest < 0 and not everything[0].is_floating_point():
        return lowest
    return IGNORED


def find_own_loss(trial, argument, ignored):
    """OwnLoss of the network of a Trial, or None where it computes no loss.

    argument: by which it gets the targets. ignored: the label that does not count; None where the
    targets are no tensor. Raises what the network raises.
    """
    asked = Asked(trial, argument)
    if asked.loss(trial.targets) is None:
        return None
    if ignored is None:
        return OwnLoss(own_loss_in_batches(argument), None)

    labels = labels_to_try(asked, trial.targets, ignored)
    output = asked.output(labels)
    own = own_loss_in(output)
    fitting = [
        candidate for candidate in candidates(labels, ignored)
        if agrees(candidate, output, labels, own)]
    loss = the_one_that_fits(fitting, labels, ignored)
    if loss is None:
        accuracy = None
        if not labels.is_floating_point():
            accuracy = Accuracy(shift=shift_of(asked, labels), ignored=ignored)
        return OwnLoss(own_loss_in_batches(argument), accuracy)

    # without the labels in the call, the network need not compute a loss that nobody takes
    if needs_labels(trial, output):
        loss = replace(loss, targets_as=argument)
    if not isinstance(loss, CrossEntropy):
        return OwnLoss(loss, None)
    return OwnLoss(loss, Accuracy(shift=loss.shift, axis=loss.axis, ignored=ignored))


class Asked:
    """The network of a Trial, called with labels of one's choice."""

    def __init__(self, trial, argument):
        self.trial, self.argument = trial, argument

    def output(self, labels):
        self.trial.begin_noise()
        return call_network(self.trial.net, self.trial.inputs, labels, self.argument)

    def loss(self, labels):
        """The network's own loss, a tensor of one number, or None."""
        return own_loss_in(self.output(labels))


def labels_to_try(asked, targets, ignored):
    """Labels by which formulas can be told apart, or the targets where no others are borne."""
    trials = [reordered_labels(targets)]
    if may_ignore(targets, ignored):
        trials.insert(0, uneven_labels(targets, ignored))
    for labels in trials:
        if labels is None:
            continue
        with contextlib.suppress(Exception):  # whatever a foreign network raises
            if torch.isfinite(asked.loss(labels)):
                return labels
    return targets


def may_ignore(targets, ignored):
    """May more labels be ignored?

    On CUDA a label that a network does not expect ends the process.
    """
    return targets.device.type == "cpu" or bool((targets == ignored).any())


def reordered_labels(targets):
    """The same labels at other positions, and of other samples."""
    generator = torch.Generator().manual_seed(0)
    if targets.is_floating_point():
        return targets[torch.randperm(len(targets), generator=generator).to(targets.device)]
    order = torch.randperm(targets.numel(), generator=generator).to(targets.device)
    return targets.flatten()[order].view(targets.shape)


def uneven_labels(targets, ignored):
    """Reordered labels, ignored at more positions from sample to sample; None without positions."""
    if targets.is_floating_point() or targets.dim() < 2 or targets[0].numel() < 3:
        return None
    generator = torch.Generator().manual_seed(1)
    labels = reordered_labels(targets).flatten(1)
    for i, row in enumerate(labels):
        share = i / (len(labels) + 1)  # of the first sample no more than before
        chance = torch.rand(len(row), generator=generator).to(row.device)
        row[chance < share] = ignored
    return labels.view(targets.shape)


def squared_error(logits, targets):
    """(output - target) squared, of as many outputs as targets, (B, ...)."""
    return (logits.reshape(targets.shape) - targets).square()


def binary_cross_entropy(logits, targets):
    """Of several labels per sample, each 0 or 1: (B, ...)."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def candidates(targets, ignored):
    """The criteria that a network's own loss might be."""
    name = OWN_LOSS_NAME
    if targets.is_floating_point():
        return [
            PerSample(name, "mean squared error", function=squared_error),
            PerSample(name, "binary cross entropy", function=binary_cross_entropy)]
    if targets.dim() < 2:
        return [CrossEntropy(name, "cross entropy", ignored=ignored)]

    formulas = []
    for mean_of_samples in (False, True):
        for shift in (0, 1):
            for axis in (-1, 1):
                words = formula_in_words(shift, mean_of_samples)
                formulas.append(CrossEntropy(
                    name, words, ignored=ignored, shift=shift, mean_of_samples=mean_of_samples,
                    axis=axis))
    return formulas


def formula_in_words(shift, mean_of_samples):
    """'cross entropy of the next position, mean over positions': for people and the provenance."""
    words = "cross entropy"
    if shift:
        words += " of the next position"
    if mean_of_samples:
        return f"{words}, mean over the samples of their means over positions"
    return f"{words}, mean over positions"


def agrees(criterion, output, targets, own):
    """Does a criterion give the network's own loss of a batch?"""
    try:
        logits = logits_of(output)
        if targets.is_floating_point() and logits.numel() != targets.numel():
            return False
        value = criterion.value(output, targets)
    except Exception:  # of shapes that don't go together
        return False
    tolerance = ROUNDING
    if full_precision(logits) is not logits:
        tolerance = HALF_TOLERANCE
    return abs(value - float(own)) <= tolerance * max(abs(float(own)), 1e-3)


def the_one_that_fits(fitting, labels, ignored):
    """The criterion, if only one fits. With as many labels in every sample both means are one."""
    if len(fitting) == 2 and not labels.is_floating_point() and not (labels == ignored).any():
        first, second = fitting
        if (first.shift, first.axis) == (second.shift, second.axis):
            return first
    if len(fitting) == 1:
        return fitting[0]
    return None


def needs_labels(trial, output):
    """Does the network give other logits, or none, when it is called without the labels?"""
    try:
        trial.begin_noise()
        without = logits_of(call_network(trial.net, trial.inputs))
    except Exception:  # whatever a foreign network raises
        return True
    return not outputs_are_equal(without, logits_of(output))


# ---------------------------------------------------------------- no formula fits


def own_loss_in_batches(argument):
    """The loss that is taken from the network, batch by batch."""
    return NetworksOwn(formula="as it computes it, batch by batch", targets_as=argument)


def shift_of(asked, labels):
    """1 where the first label of a text makes no difference to the network's own loss, else 0."""
    if labels.dim() != 2 or labels.shape[1] < 2:
        return 0
    highest, lowest = int(labels.max()), int(labels.min())
    other = labels.clone()
    other[:, 0] = torch.where(labels[:, 0] == highest, max(lowest, 0), highest)
    with contextlib.suppress(Exception):  # whatever a foreign network raises
        if not torch.equal(other, labels):
            return int(outputs_are_equal(asked.loss(labels), asked.loss(other)))
    return 0
