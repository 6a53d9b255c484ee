"""Losses and metrics by name: what is measured of a network's output.

A loss is a key of LOSSES, 'model' (the loss that the network computes itself), torch.nn:Name, or a
user's FILE.py:name. A metric is a key of METRICS, or a user's FILE.py:name. A user's function takes
(output of the network, targets) of a batch, or (output, targets, network), and returns one number
per sample, or one for the batch.

A Criterion gives a sum for every sample, and what it weighs. The value of a split is

    sum of all sums / sum of all weights

so that a mean over the labelled positions of a set, or one that is weighted by class, is exact, and
the same for every batch size. What can't be written like this depends on the batches: such a
criterion has `fixed_batches`, and the size of the batches is a part of what is measured.

To add a loss or a metric: write a function (logits, targets) -> (B,), and give it a name in LOSSES
or METRICS.
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from losslandscape import user_code
from losslandscape.data.splits import each, samples_in
from losslandscape.errors import InputError
from losslandscape.measuring.labels import IGNORED, check_numbers
from losslandscape.measuring.outputs import class_axis, full_precision, logits_of, output_in_words, own_loss_in

# losses of torch.nn that compare outputs and targets number by number
ELEMENTWISE = (
    nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss,
    nn.KLDivLoss, nn.PoissonNLLLoss, nn.SoftMarginLoss, nn.MultiLabelSoftMarginLoss,
)  # fmt: skip
BINARY = (nn.BCELoss, nn.BCEWithLogitsLoss)
NETWORK_ARGUMENTS = ("net", "model", "network")  # by which a user's function asks for the network


# ---------------------------------------------------------------- losses: (logits, targets) -> (B,)


def crossentropy(logits, targets):
    """Cross entropy of logits (B, classes) and labels (B,): (B,)."""
    return F.cross_entropy(logits, targets, reduction="none")


def mse(logits, targets):
    """Squared error: (B,).

    Of numbers, float targets of the shape of the outputs: the mean of (output - target) squared.
    Of classes, labels (B,): the mean over classes of (softmax(logits) - one-hot label) squared.
    """
    if targets.is_floating_point():
        check_numbers("mse", logits, targets)
        return (logits - targets).square().reshape(len(targets), -1).mean(1)

    one_hot = F.one_hot(targets, logits.shape[1]).to(logits.dtype)  # (B, classes)
    return (logits.softmax(1) - one_hot).square().mean(1)


LOSSES = {"crossentropy": crossentropy, "mse": mse}
OWN_LOSS_NAME = "model"  # the loss that the network computes itself: see own_loss.py


# ---------------------------------------------------------------- what all have in common


@dataclass(frozen=True)
class Criterion:
    """A loss or a metric, as it is measured.

    name: as on the command line.
    formula: in words, where the name does not say it.
    targets_as: the argument of the network's forward that gets the targets in the call; '': none.
    fixed_batches: the value of a batch is no mean over its samples, so it depends on the batches.
    """

    name: str = ""
    formula: str = ""
    targets_as: str = ""
    fixed_batches: bool = False

    def sums(self, output, targets, net=None):
        """What every sample of a batch adds to the sum over the split, (B,) float."""
        raise NotImplementedError

    def weights(self, targets):
        """What every sample weighs, (B,) float; None where each weighs 1."""
        return None

    def to(self, device):
        """The same on a device."""
        return self

    def value(self, output, targets, net=None):
        """The value of one batch, as a number."""
        weights = self.weights(targets)
        total = samples_in(targets)
        if weights is not None:
            total = weights.double().sum()
        return float(self.sums(output, targets, net).double().sum() / total)


def total_weight(criterion, targets, count, batch_size=1024):
    """What all samples weigh together: the number by which the sum of their sums is divided.

    targets: of `count` samples, held in memory.
    """
    if criterion is None or criterion.weights(each(targets, lambda t: t[:1])) is None:
        return count
    total = 0.0
    for start in range(0, count, batch_size):
        weights = criterion.weights(targets[start:start + batch_size])
        total += float(weights.double().sum())
    return total


# ---------------------------------------------------------------- classes


@dataclass(frozen=True)
class ClassCriterion(Criterion):
    """Of one label per sample, or per position of a text or an image.

    ignored: the label that does not count.
    shift: 1 where the output at a position is about the label of the next one, as in a causal
        language model; else 0.
    mean_of_samples: the mean over the samples of their own means, not over all positions.
    axis: of the classes, 1 or -1; None finds it from the shapes.
    """

    ignored: int = IGNORED
    shift: int = 0
    mean_of_samples: bool = False
    axis: int | None = None

    def labels_of(self, targets):
        """The label that each position of the output is about, (B, ...)."""
        if self.shift == 0:
            return targets
        nothing = torch.full_like(targets[:, :1], self.ignored)
        return torch.cat([targets[:, 1:], nothing], 1)

    def weights(self, targets):
        per_position = self.weight_of_positions(self.labels_of(targets))
        per_sample = per_position.reshape(len(targets), -1).sum(1)
        if self.mean_of_samples:
            return (per_sample > 0).float()
        return per_sample

    def weight_of_positions(self, labels):
        """What each position weighs, (B, ...) float."""
        return (labels != self.ignored).float()

    def of_samples(self, per_position, labels):
        """The sums (B,) of numbers per position, which are 0 where the label is ignored."""
        sums = per_position.reshape(len(labels), -1).sum(1)
        if self.mean_of_samples:
            counts = (labels != self.ignored).reshape(len(labels), -1).sum(1)
            return sums / counts.clamp(min=1)
        return sums

    def axis_of(self, logits, labels):
        if self.axis is not None:
            return self.axis
        return class_axis(logits, labels)


@dataclass(frozen=True)
class CrossEntropy(ClassCriterion):
    """Cross entropy, as torch.nn.CrossEntropyLoss computes it of a whole split at once.

    Float targets (B, classes, ...) are probabilities of the classes.

    class_weights: (classes,) or None; the mean is then weighted by the class of the label.
    smoothing: the share of the label that goes to all classes.
    of_logits: False where the network gives logarithms of probabilities (torch.nn.NLLLoss).
    """

    class_weights: torch.Tensor | None = None
    smoothing: float = 0.0
    of_logits: bool = True

    def sums(self, output, targets, net=None):
        logits = full_precision(logits_of(output))
        if targets.is_floating_point():
            losses = self.losses(logits, targets)
            return losses.reshape(len(targets), -1).mean(1)

        labels = self.labels_of(targets)
        if logits.dim() == 2 and labels.dim() == 1:
            return self.losses(logits, labels)

        # texts have the classes last: one long list of positions needs no copy
        if self.axis_of(logits, labels) == 1:
            losses = self.losses(logits, labels)
        else:
            losses = self.losses(logits.flatten(0, -2), labels.flatten()).view(labels.shape)
        return self.of_samples(losses, labels)

    def losses(self, logits, labels):
        """The loss of every position, 0 where the label is ignored."""
        weights = self.class_weights
        if weights is not None:
            weights = weights.to(logits.dtype)
        if not self.of_logits:
            return F.nll_loss(logits, labels, weights, ignore_index=self.ignored, reduction="none")
        return F.cross_entropy(
            logits, labels, weights, ignore_index=self.ignored, reduction="none",
            label_smoothing=self.smoothing)

    def weights(self, targets):
        if targets.is_floating_point():
            return None
        return super().weights(targets)

    def weight_of_positions(self, labels):
        counted = labels != self.ignored
        if self.class_weights is None:
            return counted.float()
        weights = self.class_weights.to(labels.device)[labels.where(counted, 0)]
        return weights.float() * counted

    def to(self, device):
        if self.class_weights is None:
            return self
        return replace(self, class_weights=self.class_weights.to(device))


@dataclass(frozen=True)
class Accuracy(ClassCriterion):
    """The share of positions whose largest logit is the label's."""

    name: str = "accuracy"

    def sums(self, output, targets, net=None):
        logits, labels = logits_of(output), self.labels_of(targets)
        is_right = logits.argmax(self.axis_of(logits, labels)) == labels
        if self.ignored >= 0:
            is_right = is_right & (labels != self.ignored)
        if labels.dim() == 1:
            return is_right
        return self.of_samples(is_right.float(), labels)


METRICS = {"accuracy": Accuracy(), "none": None}


# ---------------------------------------------------------------- one number per sample


@dataclass(frozen=True)
class PerSample(Criterion):
    """The mean over samples of function(logits, targets) -> (B, ...).

    is_elementwise: it compares the two number by number, so they must have one shape.
    """

    function: Callable | None = None
    is_elementwise: bool = False

    def sums(self, output, targets, net=None):
        logits = full_precision(logits_of(output))
        if self.is_elementwise:
            check_numbers(self.name, logits, targets)
        losses = self.function(logits, targets)
        if losses.dim() > 1:
            losses = losses.flatten(1).mean(1)
        return losses


@dataclass(frozen=True)
class NetworksOwn(Criterion):
    """The loss that the network computes itself, batch by batch."""

    name: str = OWN_LOSS_NAME
    fixed_batches: bool = True

    def sums(self, output, targets, net=None):
        own = own_loss_in(output)
        if own is None:
            raise InputError(
                "expected a loss in the output of the network when it is called with the targets, "
                f"got {output_in_words(output)}; give another --loss_name")
        return full_precision(own).expand(samples_in(targets))


# ---------------------------------------------------------------- a function of the user's


@dataclass(frozen=True)
class OwnFunction(Criterion):
    """A function of the user's: (output, targets) or (output, targets, network) of a batch.

    flag: --loss_name or --metric, for messages.
    network_argument: how it takes the network, see `argument_for_network`.
    """

    flag: str = "--loss_name"
    function: Callable | None = None
    network_argument: str | None = None

    def result(self, output, targets, net=None):
        """What the function returns, as a tensor: of one number, or (B, ...)."""
        arguments, keywords = (output, targets), {}
        if self.network_argument == "":
            arguments = (output, targets, net)
        elif self.network_argument is not None:
            keywords = {self.network_argument: net}
        result = user_code.call(self.flag, self.name, self.function, *arguments, **keywords)

        numbers = self._as_tensor(result)
        count = samples_in(targets)
        if numbers.numel() == 1 and count > 1:
            return numbers.reshape(())
        if numbers.dim() > 0 and numbers.shape[0] != count:
            raise InputError(
                f"expected one number per sample, or a mean, from {self.flag} {self.name}, got "
                f"shape {tuple(numbers.shape)} for {count} samples; correct it")
        return numbers

    def sums(self, output, targets, net=None):
        numbers = self.result(output, targets, net)
        if not numbers.is_floating_point():
            numbers = numbers.float()

        # a mean over the batch counts for each of its samples
        if numbers.dim() == 0:
            return numbers.expand(samples_in(targets))
        if numbers.dim() > 1:
            numbers = numbers.flatten(1).mean(1)
        return numbers

    def to(self, device):
        if not isinstance(self.function, nn.Module):
            return self
        return replace(self, function=copy.deepcopy(self.function).to(device))

    def _as_tensor(self, result):
        if isinstance(result, torch.Tensor) and not result.is_complex():
            return result
        try:
            return torch.as_tensor(result, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            kind = type(result).__name__
            if isinstance(result, torch.Tensor):
                kind = str(result.dtype)
            raise InputError(
                f"expected one number per sample, or a mean, from {self.flag} {self.name}, got "
                f"{kind}; correct it") from None


def argument_for_network(function):
    """How a user's function takes the network: an argument's name, '' as the third, or None."""
    called = function
    if isinstance(function, nn.Module):
        called = function.forward
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # of a function in C
        return None

    for parameter in parameters:
        if parameter.name in NETWORK_ARGUMENTS:
            return parameter.name
    positional = [
        parameter for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)]
    if len(positional) > 2 and positional[2].default is inspect.Parameter.empty:
        return ""
    return None


# ---------------------------------------------------------------- by name


def loss_criterion(loss):
    """The Criterion of a --loss_name, or of a function of the user's.

    What depends on network and data is not known yet: see trials.fit. Raises InputError for an
    unknown name.
    """
    flag = "--loss_name"
    if isinstance(loss, Criterion):
        return loss
    if callable(loss):
        name = getattr(loss, "__name__", type(loss).__name__)
        return exact_cross_entropy(name, loss) or own_function(flag, name, loss)
    if loss == "crossentropy":
        return CrossEntropy(loss)
    if loss == OWN_LOSS_NAME:
        return NetworksOwn()
    if loss in LOSSES:
        return PerSample(loss, function=LOSSES[loss])
    if not user_code.is_reference(loss):
        raise InputError(
            f"expected {', '.join(LOSSES)}, {OWN_LOSS_NAME}, torch.nn:Name or FILE.py:name as "
            f"{flag}, got {loss!r}")

    function = user_code.load(flag, loss)
    if loss.startswith("torch.nn:"):
        return criterion_of_torch(flag, loss, function)
    if isinstance(function, type):
        function = user_code.call(flag, loss, function)
    return exact_cross_entropy(loss, function) or own_function(flag, loss, function)


def criterion_of_torch(flag, name, kind):
    """The Criterion of a class of torch.nn with its default arguments."""
    module = user_code.call(flag, name, kind)
    exact = exact_cross_entropy(name, module)
    if exact is not None:
        return exact
    if not isinstance(module, nn.modules.loss._Loss):
        raise InputError(
            f"expected a loss of torch.nn as {flag}, got {name}; take one, torch.nn:MSELoss say")
    module.reduction = "none"
    function = called_for_user(flag, name, module)
    return PerSample(name, function=function, is_elementwise=kind in ELEMENTWISE)


def called_for_user(flag, name, module):
    """module(outputs, targets), whose failures name the flag."""

    def losses(outputs, targets):
        if isinstance(module, BINARY) and not targets.is_floating_point():
            raise InputError(
                f"expected float targets for {flag} {name}, got {targets.dtype}; "
                "give targets.float()")
        return user_code.call(flag, name, module, outputs, targets)

    return losses


def exact_cross_entropy(name, module):
    """CrossEntropy that computes what a CrossEntropyLoss or NLLLoss does of a whole split, or None.

    Class weights, ignored labels and label smoothing are the module's.
    """
    if getattr(module, "reduction", "") != "mean":
        return None
    if type(module) is nn.CrossEntropyLoss:
        smoothing, of_logits = module.label_smoothing, True
    elif type(module) is nn.NLLLoss:
        smoothing, of_logits = 0.0, False
    else:
        return None
    return CrossEntropy(
        name, ignored=module.ignore_index, class_weights=module.weight, smoothing=smoothing,
        of_logits=of_logits)


def own_function(flag, name, function):
    """The Criterion of a function of the user's."""
    return OwnFunction(
        name, flag=flag, function=function, network_argument=argument_for_network(function))


def metric_criterion(metric):
    """The Criterion of a --metric; None for 'none'. Raises InputError for an unknown name."""
    flag = "--metric"
    if metric is None or isinstance(metric, Criterion):
        return metric
    if metric in METRICS:
        entry = METRICS[metric]
        if callable(entry):
            return PerSample(metric, function=entry)
        return entry
    if not user_code.is_reference(metric):
        raise InputError(
            f"expected {', '.join(METRICS)} or FILE.py:name as {flag}, got {metric!r}")
    function = user_code.load(flag, metric)
    if isinstance(function, type):
        function = user_code.call(flag, metric, function)
    return own_function(flag, metric, function)


def name_of_metric(metric):
    """The name of a metric that is given by name, as a Criterion, or as None."""
    if metric is None:
        return "none"
    return getattr(metric, "name", metric)


def result_names(metric, split):
    """What is evaluated of a split, as it is called in a surface file: its loss, and its metric.

    metric: 'accuracy' is SPLIT_acc, in percent; 'none' is nothing; another is SPLIT_NAME.
    """
    names = [f"{split}_loss"]
    if metric == "accuracy":
        names.append(f"{split}_acc")
    elif metric != "none":
        names.append(f"{split}_{metric.rpartition(':')[2]}")
    return names

