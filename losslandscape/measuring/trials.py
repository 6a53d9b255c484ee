"""A few samples of a split, and what a network, a loss or a metric gives for them.

    trial = Trial(net, split, "train")
    output = trial.output()                         of all its samples
    trial.check_network(...)                        does the network repeat itself?
    trial.sums(criterion, slice(0, 2))              what two of them give, by themselves
"""

import torch

from losslandscape import user_code
from losslandscape.data.inputs import are_rows_of
from losslandscape.data.splits import Split, each, samples_in, shapes, to_device
from losslandscape.errors import InputError
from losslandscape.measuring.devices import dtype_of
from losslandscape.measuring.labels import VOID
from losslandscape.measuring.noise import RandomCalls, begin_streams
from losslandscape.measuring.outputs import (
    call_network,
    full_precision,
    outputs_are_equal,
    rounding_of,
    tensors_are_equal,
    tensors_in,
    with_sample_axis,
)

TRIAL_SAMPLES = 5
PARTS = (slice(0, 2), slice(2, None))  # of different sizes, so that a mean of means shows
LABELS_LOOKED_AT = 1024  # for samples with labels of an unusual kind
BESIDE = 1e-3  # relative difference that the samples beside a sample may make: other algorithms
BESIDE_IN_HALF = 5e-2


class Trial:
    """A few samples of a split, `count` of them: `inputs` and `targets` as the network takes them.

    name: of the split. noise_seed: see evaluator.Evaluator. targets_as: the argument of the network
    that gets the targets in the call, or ''.
    is_divisible: has every tensor a row for each sample, so that there are parts?
    """

    def __init__(self, net, split, name, noise_seed=None):
        self.net, self.name, self.noise_seed = net, name, noise_seed
        self.targets_as = ""
        self.target_name = split.target_name
        self.all_targets = []  # that are held in memory
        if isinstance(split, Split) and isinstance(split.targets, torch.Tensor):
            self.all_targets = [split.targets]

        inputs, targets = few_samples(split)
        device, dtype = next(net.parameters()).device, dtype_of(net)

        def ready(tensor):
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        self.inputs = to_device(inputs, device, ready)
        self.targets = to_device(targets, device)
        self.count = samples_in(targets)
        self.is_divisible = are_rows_of(inputs, self.count) and are_rows_of(targets, self.count)

    # ------------------------------------------------------------ the network

    def output(self, part=slice(None), targets=None):
        """What the network gives for a part of the samples, in float32 at least."""
        inputs = self.inputs
        if part != slice(None):
            inputs = each(inputs, lambda t: t[part])
        if targets is None:
            targets = self.targets_of(part)

        self.begin_noise()
        output = call_network(self.net, inputs, targets, self.targets_as)
        if isinstance(output, torch.Tensor):
            output = with_sample_axis(full_precision(output), samples_in(targets))
        return output

    def targets_of(self, part):
        if part == slice(None):
            return self.targets
        return each(self.targets, lambda t: t[part])

    def begin_noise(self, step=0):
        if self.noise_seed is not None:
            begin_streams(self.noise_seed + step)

    def works(self):
        """Does the network take the samples? Returns what it raises otherwise, or None."""
        try:
            self.output()
        except Exception as error:  # a network of the user's may raise anything
            return error
        return None

    def refuse_network(self, error):
        """Raise InputError about a network that fails on the samples."""
        shape = shapes(self.inputs)
        if isinstance(self.inputs, torch.Tensor):
            shape = tuple(self.inputs.shape[1:])
        raise InputError(
            f"expected a network for inputs of shape {shape} ({self.name} set), but it fails on "
            f"them ({user_code.explain(error)}); check --model and --dataset") from None

    def check_network(self, cure):
        """Raises InputError where a second pass does not give the same; cure: what to do."""
        first = self.output()
        second = self.output()
        if outputs_are_equal(first, second):
            return
        if self.noise_seed is not None:
            refuse_unreachable("the network", self.noise_seed)
        cause, advice = self.cause_of_noise(cure)
        raise InputError(
            "expected the same output from two passes of the network over the same inputs, they "
            f"differ: {cause}; {advice}")

    def cause_of_noise(self, cure):
        """(why two passes of the network differ, what to do), in words."""
        with RandomCalls() as calls:
            self.output()
        if calls.names:
            return f"torch.{calls.names[0]} draws random numbers in it", cure
        for name, module in self.net.named_modules():
            if module.training:
                name = name or type(module).__name__
                return f"{name} is in train mode", "call net.eval()"
        if calls.dropouts:
            return (
                f"{calls.dropouts[0]} is switched on in eval mode",
                f"make it F.dropout(x, training=self.training), or {cure}")
        return "something in it is random, or changes from call to call", cure

    def network_draws(self):
        """Does the network give something else after another --noise_seed?"""
        first = self.output()
        self.begin_noise(step=1)
        second = call_network(self.net, self.inputs, self.targets, self.targets_as)
        return not outputs_are_equal(first, second)

    def depends_on_neighbours(self):
        """Is the output for two samples another one where they are alone?"""
        if not self.is_divisible or self.noise_seed is not None or self.count < 3:
            return False
        try:
            pair = tensors_in(self.output(slice(0, 2)))  # one alone has no variance
        except Exception:  # whatever a foreign network raises
            return False

        whole = tensors_in(self.output())
        for a, b in zip(whole, pair, strict=False):
            if a.dim() == 0 or b.dim() == 0 or len(a) != self.count or a.shape[1:] != b.shape[1:]:
                continue
            if not tensors_are_equal(a[:2], b, tolerance_beside(a)):
                return True
        return False

    # ------------------------------------------------------------ a loss or a metric

    def sums(self, criterion, part=slice(None)):
        """criterion.sums of a part of the samples, which the network gets by themselves."""
        output = self.output(part)
        return criterion.sums(output, self.targets_of(part), self.net)

    def check_criterion(self, criterion, words, cure):
        """Raises InputError where a loss or a metric draws random numbers; words: which of them."""
        output = self.output()
        self.begin_noise()
        first = criterion.sums(output, self.targets, self.net)
        self.begin_noise()
        with RandomCalls() as calls:
            second = criterion.sums(output, self.targets, self.net)
        if tensors_are_equal(first, second):
            return

        if self.noise_seed is not None:
            refuse_unreachable(words, self.noise_seed)
        cause = "something in it is random, or changes from call to call"
        if calls.names + calls.dropouts:
            cause = f"torch.{(calls.names + calls.dropouts)[0]} draws random numbers in it"
        raise InputError(
            f"expected the same numbers from two passes of {words} ({criterion.name}) over the "
            f"same output, they differ: {cause}; {cure}")

    def criterion_draws(self, criterion):
        """Does a loss or a metric give something else after another --noise_seed?"""
        output = self.output()
        values = []
        for step in (0, 1):
            self.begin_noise(step)
            values.append(criterion.sums(output, self.targets, self.net))
        return not tensors_are_equal(*values)


def refuse_unreachable(words, seed):
    raise InputError(
        f"expected random numbers that --noise_seed {seed} decides, but {words} draws others "
        "(from a generator of its own?); draw them from torch, numpy.random or random, or seed the "
        "generator at every call")


def tolerance_beside(tensor):
    if rounding_of(tensor) > BESIDE:
        return BESIDE_IN_HALF
    return BESIDE


# ---------------------------------------------------------------- which samples


def few_samples(split):
    """(inputs, targets) of a few samples of a Split, or of a batch that can't be divided."""
    if isinstance(split, Split):
        part = split.part(telling_samples(split))
        return part.inputs, part.targets

    inputs, targets = next(iter(split.batches()))
    count = samples_in(targets)
    if are_rows_of(inputs, count) and are_rows_of(targets, count):
        inputs, targets = (each(value, lambda t: t[:TRIAL_SAMPLES]) for value in (inputs, targets))
    return inputs, targets


def telling_samples(split):
    """The numbers of a few samples from all over a Split, and of those with unusual labels.

    Data are often sorted by class, and labels to be ignored are rare.
    """
    count = len(split)
    numbers = torch.linspace(0, count - 1, min(count, TRIAL_SAMPLES)).round().long().tolist()

    targets = split.targets
    if isinstance(targets, torch.Tensor) and not targets.is_floating_point() and targets.dim() > 0:
        first = targets[:LABELS_LOOKED_AT].reshape(min(count, LABELS_LOOKED_AT), -1)
        unusual = ((first < 0) | (first == VOID)).sum(1)
        if unusual.any():
            numbers += [int(unusual.argmax()), int(unusual.argmin())]
    return torch.tensor(sorted(set(numbers)))
