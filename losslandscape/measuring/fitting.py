"""Before the first point: what are loss and metric of this network on these data?

    fit = fit_to_data(net, data, "crossentropy")        Fit, or an InputError that says what to do

What a surface is of must be known before hours are spent: which formula the loss is, whether its
value depends on the batches, whether anything draws random numbers. A trial (trials.py) takes some
passes over five samples.
"""

from dataclasses import dataclass, replace

import torch

from losslandscape import user_code
from losslandscape.data.splits import Batches, samples_in, shapes
from losslandscape.errors import InputError
from losslandscape.measuring.copies import unchanged
from losslandscape.measuring.criteria import (
    METRICS,
    OWN_LOSS_NAME,
    Accuracy,
    Criterion,
    CrossEntropy,
    NetworksOwn,
    OwnFunction,
    loss_criterion,
    metric_criterion,
    name_of_metric,
)
from losslandscape.measuring.evaluator import Evaluator
from losslandscape.measuring.labels import check_classes, check_label_range, may_broadcast, refuse_shapes
from losslandscape.measuring.noise import undisturbed
from losslandscape.measuring.outputs import (
    class_axis,
    logits_of,
    output_in_words,
    tensors_are_equal,
    tensors_in,
)
from losslandscape.measuring.own_loss import (
    ARGUMENTS,
    OWN_LOSS_BATCH,
    find_own_loss,
    ignored_in,
    target_argument,
)
from losslandscape.measuring.trials import PARTS, Trial

BATCH_WITH_NOISE = 128  # samples, where --batch_size is not given
IN_PARTS = 1e-4  # relative difference of a loss over parts of a batch from the whole
ROUGHLY = 0.2  # the same, where noise is drawn
NOISE_CURE = "--noise_seed N draws the same random numbers at every point"

# what foreign code raises where outputs and targets don't go together
FAILURES = RuntimeError, IndexError, TypeError, AttributeError, ValueError


@dataclass(frozen=True)
class Fit:
    """What was found out about network, data, loss and metric.

    batch_size: on which the results depend, None where they don't, or where the data decide.
    batches: the same in words, '' where they don't depend on it.
    is_default_size: is it the batch size that is taken where the user gives none?
    noise_seed: see evaluator.Evaluator.
    remarks: what was understood, for the user.
    """

    loss: Criterion
    metric: Criterion | None
    batch_size: int | None = None
    batches: str = ""
    is_default_size: bool = True
    noise_seed: int | None = None
    remarks: tuple = ()

    @property
    def metric_name(self):
        return name_of_metric(self.metric)

    def evaluator(self, nets, data, batch_size, precision="", bn="frozen", plain=False):
        """Evaluator of loss and metric; batch_size: where the results don't depend on it."""
        return Evaluator(
            nets, data, self.loss, self.batch_size or batch_size, precision, self.metric, bn,
            bool(self.batches), self.noise_seed, plain)

    def provenance(self):
        """What must agree before results are put into one file: {key: text}, if it is unusual."""
        noise, metric_formula = "", ""
        if self.noise_seed is not None:
            noise = f"seed {self.noise_seed}"
        if self.metric is not None:
            metric_formula = self.metric.formula
        texts = {
            "loss_formula": self.loss.formula,
            "metric_formula": metric_formula,
            "batches": self.batches,
            "noise": noise,
        }
        return {key: text for key, text in texts.items() if text}


def fit_to_data(net, data, loss="crossentropy", metric="", batch_size=None, noise_seed=None,
                noise_cure=NOISE_CURE):
    """Fit of network, data, loss and metric; raises InputError unless they go together.

    data: {split: Split or Batches}. loss, metric: as --loss_name and --metric, or functions; '' is
    accuracy where the targets are classes. batch_size: as the user gave it. noise_seed: see
    evaluator.Evaluator. noise_cure: what to do where random numbers are drawn without it.
    """
    devices = {parameter.device for parameter in net.parameters()}
    with torch.no_grad(), undisturbed(devices), unchanged(net):
        trials = [Trial(net, split, name, noise_seed) for name, split in data.items()]

        # the loss, and how the network is called for it
        remarks = []
        loss, accuracy = choose_loss(trials[0], loss, remarks)
        for trial in trials:
            trial.targets_as = loss.targets_as
            trial.check_network(noise_cure)
            check_loss(trial, loss)
            trial.check_criterion(loss, "the loss", noise_cure)
        loss = with_formula(loss, trials)

        # the metric
        metric = choose_metric(trials, metric, accuracy)
        if metric is not None:
            for trial in trials:
                trial.sums(metric)
                trial.check_criterion(metric, "the metric", noise_cure)

        reason = reason_for_batches(trials, loss, metric)
        if noise_seed is not None and not draws_noise(trials[0], loss, metric):
            remarks.append("nothing draws random numbers: --noise_seed changes nothing")

    fit = Fit(loss, metric, noise_seed=noise_seed, remarks=tuple(remarks))
    if reason or noise_seed is not None:
        fit = with_fixed_batches(fit, reason, data, batch_size)
    return fit


# ---------------------------------------------------------------- the loss


def choose_loss(trial, name, remarks):
    """(Criterion, Accuracy that belongs to it or None) of a --loss_name."""
    argument = target_argument(trial.net, trial.target_name, trial.inputs)

    # some networks take nothing without the targets
    error = trial.works()
    if error is not None and argument:
        trial.targets_as = argument
        if trial.works() is not None:
            trial.targets_as = ""
    if error is not None and not trial.targets_as:
        trial.refuse_network(error)

    # the loss that the network computes itself
    if argument and name in ("crossentropy", OWN_LOSS_NAME):
        own = own_loss(trial, argument, name)
        if own is not None:
            remarks.append(f"the loss is the network's own: {own.loss.formula}")
            return own.loss, own.accuracy
    if name == OWN_LOSS_NAME:
        refuse_no_own_loss(trial, argument)

    loss = replace(loss_criterion(name), targets_as=trial.targets_as)
    if isinstance(loss, OwnFunction) and argument and not trial.targets_as:
        loss = with_targets_if_needed(trial, loss, argument)
    ignored = getattr(loss, "ignored", None)
    if ignored is None:
        return loss, Accuracy()
    return loss, Accuracy(ignored=ignored)


def own_loss(trial, argument, name):
    """OwnLoss of the network, None where it computes none."""
    if not isinstance(trial.targets, torch.Tensor):
        ignored = None
    else:
        ignored = ignored_in(trial.all_targets or [trial.targets])
    try:
        trial.begin_noise()
        return find_own_loss(trial, argument, ignored)
    except Exception as error:  # whatever a foreign network raises
        if name != OWN_LOSS_NAME:
            return None
        raise InputError(
            f"expected a network that computes a loss from {argument} for --loss_name {name}, but "
            f"it fails on them ({user_code.explain(error)}); give another --loss_name") from None


def refuse_no_own_loss(trial, argument):
    """Raise InputError: the network computes no loss."""
    reason = f"its forward takes none of {', '.join(ARGUMENTS)}"
    if argument:
        trial.targets_as = argument
        reason = f"called with {argument} it gives {output_in_words(trial.output())}, without a loss"
    raise InputError(
        f"expected a network that computes a loss itself for --loss_name {OWN_LOSS_NAME}, but "
        f"{reason}; give another --loss_name")


def with_targets_if_needed(trial, loss, argument):
    """A loss of the user's, with the targets in the call of the network where it fails without."""
    try:
        trial.sums(loss)
    except InputError:
        trial.targets_as = argument
        try:
            trial.sums(loss)
            loss = replace(loss, targets_as=argument)
        except Exception:  # whatever a foreign network raises
            trial.targets_as = ""
    return loss


def check_loss(trial, loss):
    """Raises InputError unless the loss takes what the network gives, and the targets."""
    output, targets = trial.output(), trial.targets
    if not isinstance(loss, OwnFunction | NetworksOwn):
        logits = logits_of(output)
        if not isinstance(targets, torch.Tensor):
            raise InputError(
                f"expected one tensor of targets for --loss_name {loss.name}, got "
                f"{shapes(targets)}; write a loss: --loss_name FILE.py:function")
        if isinstance(loss, CrossEntropy):
            check_labels(trial, loss, logits)
        elif loss.name == "mse" and not targets.is_floating_point():
            check_classes(loss.name, logits, targets, trial.all_targets, ignored=None)

    try:
        loss.sums(output, targets, trial.net)
    except InputError:
        raise
    except FAILURES as error:
        raise InputError(
            f"expected outputs and targets for --loss_name {loss.name}, but it fails on outputs "
            f"{shapes(tensors_in(output))} and targets {shapes(targets)} "
            f"({user_code.explain(error)}); give a loss that takes them") from None


def check_labels(trial, loss, logits):
    """Raises InputError unless the targets are classes of the logits."""
    if loss.name != OWN_LOSS_NAME:
        check_classes(loss.name, logits, trial.targets, trial.all_targets, loss.ignored)
        return
    labels = loss.labels_of(trial.targets)
    classes = logits.shape[loss.axis_of(logits, labels)]
    check_label_range(loss.name, classes, trial.all_targets, loss.ignored)


def with_formula(loss, trials):
    """A cross entropy with its formula in words, where it is more than the mean over samples."""
    if not isinstance(loss, CrossEntropy) or loss.formula or trials[0].targets.is_floating_point():
        return loss

    words = []
    if trials[0].targets.dim() > 1:
        words.append("mean over positions")
    everything = [part for trial in trials for part in (trial.all_targets or [trial.targets])]
    if any(bool((part == loss.ignored).any()) for part in everything):
        words.append(f"label {loss.ignored} left out")
    if loss.class_weights is not None:
        words.append("weighted by class")
    return replace(loss, formula=", ".join(words))


# ---------------------------------------------------------------- the metric


def choose_metric(trials, name, accuracy):
    """The Criterion of a --metric; '' is accuracy where the targets are classes, else None.

    accuracy: the one that belongs to the loss, None where there is none.
    """
    if name != "" and name != "accuracy":
        if name in METRICS or user_code.is_reference(name):
            return metric_criterion(name)
        raise InputError(
            f"expected {', '.join(METRICS)} or FILE.py:name as --metric, got {name!r}")

    try:
        for trial in trials:
            check_accuracy(trial, accuracy)
    except InputError:
        if name == "accuracy":
            raise
        return None
    return accuracy


def check_accuracy(trial, accuracy):
    """Raises InputError unless the targets are classes, with a logit for each."""
    targets = trial.targets
    is_classes = isinstance(targets, torch.Tensor) and not targets.is_floating_point()
    if accuracy is None or not is_classes:
        raise InputError(
            "expected classes as targets for --metric accuracy, got others; leave it out, or write "
            "a metric: --metric FILE.py:function")
    logits = logits_of(trial.output())
    if not logits.is_floating_point():
        raise InputError(
            f"expected logits for --metric accuracy, got {logits.dtype} from the network; leave it "
            "out, or write a metric: --metric FILE.py:function")
    if accuracy.axis is None:
        check_classes("accuracy", logits, targets, trial.all_targets, accuracy.ignored)
        class_axis(logits, targets)


# ---------------------------------------------------------------- does the batch size matter?


def reason_for_batches(trials, loss, metric):
    """Why the results depend on the batches, in words; '' where they don't.

    Raises InputError where a loss sums over its batch, or compares each sample with each.
    """
    reasons = []
    if loss.fixed_batches:
        reasons.append("no formula gives the network's own loss")
    for trial in trials:
        if trial.depends_on_neighbours():
            reasons.append(
                "the output of the network for a sample depends on the samples beside it (batch "
                "norm in train mode, or without running statistics?)")
            break
    for criterion, flag in ((loss, "--loss_name"), (metric, "--metric")):
        if isinstance(criterion, OwnFunction) and not reasons:
            if any(depends_on_batch(trial, criterion) for trial in trials):
                reasons.append(f"{flag} {criterion.name} is no mean over the samples of its batch")
    return " and ".join(reasons)


def depends_on_batch(trial, criterion):
    """Is the value of a batch something else than the mean over its samples?

    The batch is tried in two parts, and in single samples; once more with labels of all classes.
    """
    refuse_broadcasting(trial, criterion)
    if not trial.is_divisible or trial.count < 3:
        return False
    if not is_mean(trial, criterion):
        return True
    other = labels_of_all_classes(trial)
    if other is None:
        return False

    targets, trial.targets = trial.targets, other
    try:
        return not is_mean(trial, criterion)
    except InputError:  # the labels are no classes
        return False
    finally:
        trial.targets = targets


def is_mean(trial, criterion):
    """Does a batch give what its parts give? Raises InputError where it gives their sum."""
    output = trial.output()
    whole = criterion.sums(output, trial.targets, trial.net)
    is_one_number = criterion.result(output, trial.targets, trial.net).dim() == 0
    parts = [trial.sums(criterion, part) for part in PARTS]

    if is_one_number:
        refuse_sum(trial, criterion, whole, parts)
    if trial.noise_seed is not None:
        return True  # can't be seen behind the noise, and the batch size is fixed anyway
    if not parts_agree(whole, parts, is_one_number):
        return False

    singles = []
    try:
        for i in range(trial.count):
            singles.append(trial.sums(criterion, slice(i, i + 1)))
    except Exception:  # one sample alone may be too few for anything
        return True
    return parts_agree(whole, singles, is_one_number)


def parts_agree(whole, parts, is_one_number):
    """Do the sums (B,) of a batch agree with those of its parts, or in total?"""
    together = torch.cat(parts)
    if is_one_number:
        whole, together = (numbers.double().sum()[None] for numbers in (whole, together))
    return tensors_are_equal(whole, together.to(whole.dtype), IN_PARTS)


def refuse_sum(trial, criterion, whole, parts):
    """Raise InputError where the value of a batch is the sum of those of its parts.

    whole, parts: the values, once for each sample.
    """
    value, total = float(whole[0]), sum(float(part[0]) for part in parts)
    mean = sum(float(part.sum()) for part in parts) / trial.count
    tolerance = IN_PARTS if trial.noise_seed is None else ROUGHLY
    scale = abs(value) + 1e-12
    if abs(value - total) <= tolerance * scale and abs(value - mean) > 2 * tolerance * scale:
        raise InputError(
            f"expected a mean over the batch, or one number per sample, from {criterion.flag} "
            f"{criterion.name}, got the sum over the batch (reduction='sum'?); divide it by the "
            "number of samples")


def refuse_broadcasting(trial, criterion):
    """Raise InputError where outputs and targets are compared each with each by mistake.

    That is so where the same numbers in the shape of the targets give something else.
    """
    output, targets = trial.output(), trial.targets
    if not may_broadcast(output, targets):
        return
    try:
        values = []
        for reshaped in (output, output.reshape(targets.shape)):
            trial.begin_noise()
            values.append(criterion.result(reshaped, targets, trial.net).double().mean()[None])
    except InputError:  # it takes outputs of their own shape only
        return
    if not tensors_are_equal(*values, IN_PARTS):
        refuse_shapes(f"{criterion.flag} {criterion.name}", output, targets)


def labels_of_all_classes(trial):
    """Labels 0, 1, 2, ... in the place of those of the samples, None where these are no classes."""
    targets = trial.targets
    if not isinstance(targets, torch.Tensor) or targets.dim() != 1 or targets.is_floating_point():
        return None
    try:
        logits = logits_of(trial.output())
    except InputError:
        return None
    if logits.dim() != 2 or int(targets.min()) < 0 or int(targets.max()) >= logits.shape[1]:
        return None
    return torch.arange(trial.count, device=targets.device) % logits.shape[1]


def draws_noise(trial, loss, metric):
    """Does another --noise_seed make a difference?"""
    if trial.network_draws():
        return True
    return any(
        trial.criterion_draws(criterion) for criterion in (loss, metric) if criterion is not None)


def with_fixed_batches(fit, reason, data, batch_size):
    """The Fit with the batch size that its results depend on.

    Raises InputError where the user has to choose it.
    """
    if all(isinstance(split, Batches) for split in data.values()):
        first = next(iter(next(iter(data.values())).batches()))
        words = f"as the data come, the first of {samples_in(first[1])} samples"
        return with_remark(replace(fit, batches=words), reason, f"its batches are {words}")

    default = None
    if isinstance(fit.loss, NetworksOwn):
        default = OWN_LOSS_BATCH
    elif fit.noise_seed is not None:
        default = BATCH_WITH_NOISE
    size = batch_size or default
    if size is None:
        raise InputError(
            f"expected results that don't depend on the batches, but {reason}; give "
            "--batch_size N, which becomes a part of what is measured")

    fit = replace(
        fit, batch_size=size, batches=f"{size} samples", is_default_size=size == default)
    words = f"batches of {size} samples"
    rest = max(len(split) % size for split in data.values())
    if rest and max(map(len, data.values())) > size:
        words += f", and the last of {rest} counts with its number of samples"
    return with_remark(fit, reason, words)


def with_remark(fit, reason, words):
    if not reason:
        return fit
    return replace(fit, remarks=(*fit.remarks, f"{reason}: {words}"))
