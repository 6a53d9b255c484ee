"""Loss and accuracy (or another metric) of a network over a data set, fast.

    evaluator = Evaluator([net], {"train": split}, "crossentropy")
    evaluator(["train"])            # {"train_loss": 0.31, "train_acc": 91.2}, `net` as it is now
    evaluator.names("train")        # ["train_loss", "train_acc"], without evaluating

The data lie on the device, normalized, in a fixed order, and are sliced into batches. Batch norm is
folded into the convolutions (folding.py), activations are channels-last where the network bears it.
The losses of the samples stay on the device and are reduced once, in float64: one synchronization
per evaluation, however many batches there are. Their sum is divided by what the samples weigh
together (criteria.py), which is known beforehand.

Training, and the centre of a surface, get their numbers from here: on the same data they agree bit
for bit.
"""

import contextlib
import copy
import math
import time

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from losslandscape.data.splits import (
    Batches,
    Split,
    each,
    leaves,
    samples_in,
    to_device,
)
from losslandscape.errors import InputError
from losslandscape.measuring.criteria import (
    loss_criterion,
    metric_criterion,
    name_of_metric,
    result_names,
    total_weight,
)
from losslandscape.measuring.devices import (
    PRECISIONS,
    batch_sizes_to_try,
    captured,
    choose_memory_format,
    dtype_of,
    fits,
    keep_memory,
    tf32,
    wait_for,
)
from losslandscape.measuring.folding import fold
from losslandscape.measuring.noise import begin_streams, undisturbed
from losslandscape.measuring.outputs import call_network, full_precision, with_sample_axis

# batch sizes that a calibration tries
CALIBRATED = {"cpu": (32, 64, 128), "cuda": (256, 512, 1024, 2048)}
SLOW_BATCH_SECONDS = 1.5  # in which all that a batch costs beside its samples is lost
SMALLEST_GAIN = 0.02  # of the time per sample, for which a larger batch is worth its memory
BN_BATCH = 128  # fixed: the statistics must not depend on the batch size that is fastest


# ---------------------------------------------------------------- one network on one device


class EvaluationShard:
    """One network on one device, and its share of each split.

    loss, metric: Criterion; metric may be None. precision: a key of PRECISIONS.
    resident: keep the data on the device (default: if they fit there).
    plain: the network runs as it is: no folding, channels-last memory or CUDA graphs.
    """

    def __init__(self, net, splits, loss, metric, precision, resident=None, plain=False):
        self.net = net
        self.device = next(net.parameters()).device
        self.loss = loss.to(self.device)
        self.metric = metric
        if metric is not None:
            self.metric = metric.to(self.device)
        self.dtype, self.allow_tf32 = PRECISIONS[precision]
        self.plain = plain
        self.memory_format = torch.contiguous_format
        self.folded = None
        self._passes = {}  # (split, batch size, part) -> the function that runs it, its memory
        self._of_samples = {}  # split -> the memory of its last pass

        first = next(iter(splits.values()))
        is_tensor = isinstance(first, Split) and isinstance(first.inputs, torch.Tensor)
        if is_tensor and not loss.targets_as and not plain:
            self._choose_fast_forms(first.inputs[:4])

        # a folded network takes the dtype of its convolutions; for others autocast converts
        self.input_dtype = dtype_of(net)
        if self.folded and self.dtype:
            self.input_dtype = self.dtype

        held = [split for split in splits.values() if isinstance(split, Split)]
        if resident is None:
            size = sum(self._bytes(split) for split in held)
            resident = fits(size, self.device)
        self.resident = resident and len(held) == len(splits)
        self.splits = {name: self._prepared(split) for name, split in splits.items()}

    def _choose_fast_forms(self, example):
        """Try on a few samples whether the network bears channels-last and folded batch norm."""
        if example.is_floating_point():
            example = example.to(dtype_of(self.net))
        example = example.to(self.device)
        self.memory_format = choose_memory_format(self.net, example)
        example = example.contiguous(memory_format=self.memory_format)
        self.folded = fold(self.net, example, self.dtype)

    def _prepared(self, split):
        """The split as it is sliced, on the device or in pinned memory; Batches as they are."""
        if not isinstance(split, Split):
            return split
        home = self.device if self.resident else torch.device("cpu")
        inputs = each(split.inputs, lambda t: self._ready(t, home))
        if home != self.device:
            inputs = each(inputs, torch.Tensor.pin_memory)
        return Split(inputs, each(split.targets, lambda t: t.to(self.device)))

    def _dtype_for(self, tensor):
        if tensor.is_floating_point():
            return self.input_dtype
        return tensor.dtype

    def _bytes(self, split):
        """The memory of a split's inputs in the dtype of the evaluation."""
        return sum(t.numel() * self._dtype_for(t).itemsize for t in leaves(split.inputs))

    def _ready(self, tensor, device):
        """Inputs (B, ...) in the dtype and memory format of the evaluation, on `device`."""
        memory_format = torch.contiguous_format
        if tensor.dim() == 4:
            memory_format = self.memory_format
        tensor = tensor.to(device, self._dtype_for(tensor), non_blocking=True)
        return tensor.contiguous(memory_format=memory_format)

    def forward(self, inputs, targets=None):
        """The network's output for inputs that are ready on the device.

        targets: for networks that get them in the call.
        """
        if self.folded:
            return self.folded(inputs)
        if self.dtype:
            with torch.autocast(self.device.type, self.dtype):
                return call_network(self.net, inputs, targets, self.loss.targets_as)
        return call_network(self.net, inputs, targets, self.loss.targets_as)

    def measure(self, inputs, targets):
        """(sums of the loss (B,), of the metric (B,) or None) of a batch."""
        output = self.forward(inputs, targets)
        if isinstance(output, torch.Tensor):
            output = with_sample_axis(full_precision(output), samples_in(targets))  # (B, classes)
        losses = self.loss.sums(output, targets, self.net)
        metrics = None
        if self.metric is not None:
            metrics = self.metric.sums(output, targets, self.net)
        return losses, metrics

    def launch(self, name, batch_size, idle, part=None):
        """Start the evaluation of a split, or of the samples in a slice of it.

        Returns sums of losses and of the metric, (2,) float64, on the device.
        """
        key = name, batch_size, part and (part.start, part.stop)
        if key not in self._passes:
            split = self.splits[name]
            if part is not None:
                split = split.part(part)
            self._passes[key] = self._make_pass(split, batch_size)
        run, self._of_samples[name] = self._passes[key]
        return run(idle)

    def of_samples(self, name):
        """(losses (n,), metrics (n,)) of single samples, as the last evaluation of a split left them."""
        return self._of_samples[name]

    def over(self, splits):
        """The same network over other data, all of it on this device."""
        other = copy.copy(self)
        other._passes, other._of_samples = {}, {}
        size = sum(self._bytes(split) for split in splits.values())
        other.resident = self.resident and fits(size, self.device)
        other.splits = {name: other._prepared(split) for name, split in splits.items()}
        return other

    def _make_pass(self, split, batch_size):
        """(the function that evaluates a split, the memory that it keeps for single samples).

        It is run eagerly, or replayed as a CUDA graph. The memory: losses and metrics, (n,) each.
        """
        losses = torch.empty(len(split), dtype=torch.float32, device=self.device)
        metrics = torch.zeros(len(split), dtype=torch.float32, device=self.device)

        def run(idle=lambda: None):
            with tf32(self.allow_tf32):
                for start in range(0, len(split), batch_size):
                    batch = slice(start, start + batch_size)
                    inputs = each(
                        split.inputs,
                        lambda t, batch=batch: t[batch].to(self.device, non_blocking=True))
                    targets = each(split.targets, lambda t, batch=batch: t[batch])
                    losses[batch], batch_metrics = self.measure(inputs, targets)
                    if batch_metrics is not None:
                        metrics[batch] = batch_metrics
                    idle()
            return torch.stack([losses.double().sum(), metrics.double().sum()])

        if self.device.type == "cuda" and self.resident and not self.plain:
            return captured(run, self.device, self.net), (losses, metrics)
        return run, (losses, metrics)

    def add_batch(self, sums, inputs, targets):
        """Add what one batch, which comes from the CPU, gives to `sums` (4,) float64.

        They are the sum of losses, of the metric, and what the samples weigh in both.
        """
        with tf32(self.allow_tf32):
            inputs = to_device(inputs, self.device, lambda t: self._ready(t, self.device))
            targets = to_device(targets, self.device)
            losses, metrics = self.measure(inputs, targets)
            sums[0] += losses.double().sum()
            sums[2] += weight_of_batch(self.loss, targets)
            if metrics is not None:
                sums[1] += metrics.double().sum()
                sums[3] += weight_of_batch(self.metric, targets)

    def seconds_per_sample(self, split, batch_size):
        """The time of one forward pass over the first `batch_size` samples, per sample."""
        start = time.perf_counter()
        with tf32(self.allow_tf32):
            self.forward(
                each(split.inputs, lambda t: t[:batch_size].to(self.device)),
                each(split.targets, lambda t: t[:batch_size]))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - start) / batch_size


def weight_of_batch(criterion, targets):
    """What the samples of a batch weigh together, a number or a tensor of one."""
    weights = criterion.weights(targets)
    if weights is None:
        return samples_in(targets)
    return weights.double().sum()


# ---------------------------------------------------------------- all devices


class Evaluator:
    """Evaluates networks, as they are at the moment of the call, over data splits.

    nets: one network in eval mode per device; the devices share every split evenly.
    splits: {name: Split or Batches}.
    loss, metric: Criterion, or the name of one: see loss_criterion, metric_criterion.
    precision: a key of PRECISIONS.
    batch_size: None picks one by measuring; Batches have their own.
    bn: 'recalibrate' sets the batch-norm statistics from the train split before each evaluation
        (see recalibrate), 'frozen' leaves them.
    fixed_batches: the results depend on the batch size, which can't be changed any more.
    noise_seed: of the random numbers that network, loss or metric draw: every pass over a split
        begins with it, and draws the same ones. Afterwards the streams are as before.
    plain: without folding, channels-last memory and CUDA graphs.

    `note` says in words where the data are. Raises InputError where these don't go together.
    """

    def __init__(self, nets, splits, loss="crossentropy", batch_size=128, precision="",
                 metric="accuracy", bn="frozen", fixed_batches=False, noise_seed=None,
                 plain=False):
        refuse_several(nets, bn, noise_seed)
        keep_memory()
        self._loss, self._metric = loss_criterion(loss), metric_criterion(metric)
        self._metric_name = name_of_metric(self._metric)
        self._bn, self._noise_seed = bn, noise_seed
        self._weights = self._weights_of(splits)
        self._counts = {name: len(split) for name, split in splits.items()}

        self._fixed_batches = fixed_batches
        unit = batch_size if fixed_batches else 1  # whole batches on every device
        self._shards = []
        with torch.no_grad():
            for i, net in enumerate(nets):
                shares = {name: share(split, i, len(nets), unit) for name, split in splits.items()}
                self._shards.append(EvaluationShard(
                    net, shares, self._loss, self._metric, precision,
                    plain=plain or noise_seed is not None))

        self._batch_size = batch_size or self.calibrate()
        self.note = self._where_data_are(splits.values())

    @property
    def batch_size(self):
        return self._batch_size

    @batch_size.setter
    def batch_size(self, batch_size):
        if not self._fixed_batches:
            self._batch_size = batch_size

    def _weights_of(self, splits):
        """{split: what its samples weigh in the loss and in the metric}, of those that are held."""
        weights = {}
        for name, split in splits.items():
            if isinstance(split, Split):
                weights[name] = [
                    total_weight(criterion, split.targets, len(split))
                    for criterion in (self._loss, self._metric)]
        return weights

    def _where_data_are(self, splits):
        if any(isinstance(split, Batches) and not split.held for split in splits):
            return "data read at every pass"
        if all(shard.resident for shard in self._shards):
            return "data on the device"
        return "data streamed to the device"

    def names(self, split):
        """The names of the results for a split: its loss, and its metric where there is one."""
        return result_names(self._metric_name, split)

    @torch.no_grad()
    def __call__(self, split_names, idle=lambda: None):
        """{NAME_loss: mean loss, NAME_acc: percent} for each split NAME.

        idle() is called between batches. Another metric than accuracy stands under its own name,
        as a mean; see `names`.
        """
        # everything is started on every device before the first number is read
        with self._streams_kept():
            for shard in self._shards:
                if self._bn == "recalibrate":
                    self._begin_noise()
                    recalibrate(shard, idle)
                if shard.folded:
                    shard.folded.refresh()
            sums = {name: self._launch(name, idle) for name in split_names}
        wait_for([shard.device for shard in self._shards], idle)

        results = {}
        for name in split_names:
            of_shards = torch.stack([shard_sums.cpu() for shard_sums in sums[name]])
            of_split = of_shards.sum(0)  # (2,), of batches that come one by one (4,)
            weights = torch.as_tensor(self._weights.get(name, of_split[2:]), dtype=torch.float64)
            if self._metric_name == "accuracy":
                of_split[1] *= 100.0  # in percent
            means = (of_split[:2] / weights).tolist()

            # without a metric there is only one name
            for result_name, mean in zip(self.names(name), means, strict=False):
                results[result_name] = mean
        return results

    # ------------------------------------------------------------ single samples

    @property
    def sample_refusal(self):
        """Why these losses can't be had sample by sample, in words; '' where they can."""
        if self._bn == "recalibrate":
            return "--bn frozen, got recalibrate, which reads all training data at every point"
        if self._noise_seed is not None:
            return "no --noise_seed: the noise of a sample depends on the samples before it"
        if self._fixed_batches:
            return "a loss and a metric that are means over samples, got one of whole batches"
        if len(self._weights) < len(self._counts):
            return "data that fit into memory, or can be cut anew, got batches"
        return ""

    def over(self, splits):
        """An evaluator of the same networks over samples of its splits: {name: Split}.

        What `part` gives of them is scaled as if they were among those of the whole split.
        """
        other = copy.copy(self)
        other._shards = [shard.over(splits) for shard in self._shards]
        return other

    @torch.no_grad()
    def part(self, name, start, stop, idle=lambda: None):
        """{result: (stop - start,) float32} of single samples of a split; see `of_samples`."""
        for shard in self._shards:
            if shard.folded:
                shard.folded.refresh()
        for i, shard in enumerate(self._shards):
            of_shard = part_of_range(start, stop, i, len(self._shards))
            shard.launch(name, self.batch_size, idle, of_shard)
        return self.of_samples(name, idle)

    def of_samples(self, name, idle=lambda: None):
        """{result: (n,) float32} of single samples, whose means over a split are its results.

        They are those of the last evaluation, in the order of the split. Only where `sample_refusal`
        is ''.
        """
        wait_for([shard.device for shard in self._shards], idle)
        columns = zip(*[shard.of_samples(name) for shard in self._shards], strict=True)
        weights = self._weights[name]

        results = {}
        # without a metric there is only one name
        for result_name, column, weight in zip(self.names(name), columns, weights, strict=False):
            values = torch.cat([part.cpu() for part in column]).double()
            values *= self._counts[name] / float(weight)
            is_share = result_name != f"{name}_loss" and self._metric_name == "accuracy"
            if is_share:
                values *= 100.0  # in percent
            results[result_name] = values.float().numpy()
        return results

    def _streams_kept(self):
        """Where noise is drawn: put the random streams back at the end."""
        if self._noise_seed is None:
            return contextlib.nullcontext()
        return undisturbed([shard.device for shard in self._shards])

    def _begin_noise(self):
        if self._noise_seed is not None:
            begin_streams(self._noise_seed)

    def _launch(self, name, idle):
        """The sums of each shard over a split: (2,), of Batches (4,).

        Batches are dealt out to the shards in turn.
        """
        self._begin_noise()
        split = self._shards[0].splits[name]
        if isinstance(split, Split):
            return [shard.launch(name, self.batch_size, idle) for shard in self._shards]

        sums = [torch.zeros(4, dtype=torch.float64, device=shard.device) for shard in self._shards]
        for number, (inputs, targets) in enumerate(split.batches()):
            i = number % len(self._shards)
            self._shards[i].add_batch(sums[i], inputs, targets)
            idle()
        return sums

    @torch.no_grad()
    def calibrate(self):
        """The batch size from which on a larger one gains nothing on this device, measured.

        Where the results depend on it, it stays what it is.
        """
        if self._fixed_batches:
            return self._batch_size
        shard = self._shards[0]
        held = [split for split in shard.splits.values() if isinstance(split, Split)]
        if not held:
            return 128  # of no account: the batches have their own sizes
        split = max(held, key=len)
        if shard.folded:
            shard.folded.refresh()

        chosen, *larger = batch_sizes_to_try(CALIBRATED, shard.device, len(split))
        for batch_size in larger:
            # the first pass warms up
            seconds = min(shard.seconds_per_sample(split, chosen) for _ in range(2))
            if seconds * chosen > SLOW_BATCH_SECONDS:
                break
            if not larger_batch_pays(shard, split, chosen, batch_size, seconds):
                break
            chosen = batch_size
        return chosen


def larger_batch_pays(shard, split, smaller, larger, smaller_seconds):
    """Does a larger batch take less time per sample?

    Measured in turns, for a second or five times at most. smaller_seconds: per sample, with the
    smaller batch, as far as it is known.
    """
    larger_seconds = math.inf
    start = time.perf_counter()
    for repeat in range(1, 6):
        smaller_seconds = min(smaller_seconds, shard.seconds_per_sample(split, smaller))
        larger_seconds = min(larger_seconds, shard.seconds_per_sample(split, larger))
        if repeat >= 2 and time.perf_counter() - start > 1:
            break
    return larger_seconds <= (1 - SMALLEST_GAIN) * smaller_seconds


def refuse_several(nets, bn, noise_seed):
    """Raises InputError where the choices need all data on one device, and there are several."""
    if len(nets) == 1:
        return
    if bn == "recalibrate":
        raise InputError(
            f"expected --ngpu 1 with --bn recalibrate, got {len(nets)}: the statistics are of "
            "whole batches; start more ranks instead")
    if noise_seed is not None:
        raise InputError(
            f"expected --ngpu 1 with --noise_seed, got {len(nets)}: the noise of a pass is one "
            "stream of random numbers; start more ranks instead")


def share(split, i, n, unit=1):
    """Part i of n of a split, contiguous. Batches stay together: each pass deals them out.

    unit: samples that stay together: a part begins at a multiple of it.
    """
    if n == 1 or isinstance(split, Batches):
        return split
    units = math.ceil(len(split) / unit)
    start, end = (unit * round(units * k / n) for k in (i, i + 1))
    return split.part(slice(start, end))


def part_of_range(start, stop, i, n):
    """Part i of n of the numbers from start to stop, contiguous, as a slice."""
    count = stop - start
    return slice(start + count * i // n, start + count * (i + 1) // n)


def eval_loss(net, split, loss_name="crossentropy", batch_size=128, device="cpu"):
    """(mean loss, accuracy in percent) of `net`, on `device`, over `split`.

    The network is evaluated in eval mode, and its own mode restored.
    """
    was_training = net.training
    net.eval()
    try:
        evaluator = Evaluator([net.to(device)], {"train": split}, loss_name, batch_size)
        results = evaluator(["train"])
    finally:
        net.train(was_training)
    return results["train_loss"], results["train_acc"]


# ---------------------------------------------------------------- batch-norm statistics


def norms_of(net):
    """The layers of a network that keep running statistics."""
    return [
        module for module in net.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats]


@torch.no_grad()
def recalibrate(shard, idle=lambda: None):
    """Set the running statistics of a shard's network to those of the train split, at its weights.

    The plain averages over batches of BN_BATCH of the batches' means and (unbiased) variances,
    each layer fed by layers that normalize with the batch's own, as in weight averaging (Izmailov
    et al. 2018, section 3.2). A smaller last batch is left out if there are others.
    """
    split = shard.splits["train"]
    norms = norms_of(shard.net)
    before = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()

    dtype = dtype_of(shard.net)

    def ready(tensor):
        return tensor.to(shard.device, dtype if tensor.is_floating_point() else None)

    try:
        for number, (inputs, targets) in enumerate(split.batches(BN_BATCH)):
            if number > 0 and isinstance(split, Split) and samples_in(targets) < BN_BATCH:
                continue
            with tf32(shard.allow_tf32):
                call_network(
                    shard.net, to_device(inputs, shard.device, ready),
                    to_device(targets, shard.device), shard.loss.targets_as)
            idle()
    finally:
        for norm, (momentum, training) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.train(training)


# until all import these from losslandscape.measuring.criteria and losslandscape.measuring.devices
from losslandscape.measuring.criteria import LOSSES, METRICS, crossentropy  # noqa: E402, F401
from losslandscape.measuring.devices import precision_name, slow_precision  # noqa: E402, F401
