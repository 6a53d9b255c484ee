"""Loss and accuracy (or another metric) of a network over a data set, fast.

    evaluator = Evaluator([net], {"train": split}, "crossentropy")
    evaluator(["train"])            # {"train_loss": 0.31, "train_acc": 91.2}, `net` as it is now
    evaluator.names("train")        # ["train_loss", "train_acc"], without evaluating

The data lie on the device, normalized, in a fixed order, and are sliced into batches. Batch norm is
folded into the convolutions (folding.py), activations are channels-last where the network bears it.
The losses of the samples stay on the device and are reduced once, in float64: one synchronization
per evaluation, however many batches there are.

Training, and the centre of a surface, get their numbers from here: on the same data they agree bit
for bit.
"""

import math
import sys
import time

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from losslandscape.criteria import logits_of, loss_function, metric_function, result_names
from losslandscape.data.splits import Batches, Split, apply, each, leaves
from losslandscape.devices import (
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
from losslandscape.errors import InputError
from losslandscape.folding import fold

# batch sizes that a calibration tries
CALIBRATED = {"cpu": (32, 64, 128), "cuda": (256, 512, 1024, 2048)}
SLOW_BATCH_SECONDS = 1.5  # in which all that a batch costs beside its samples is lost
SMALLEST_GAIN = 0.02  # of the time per sample, for which a larger batch is worth its memory
BN_BATCH = 128  # fixed: the statistics must not depend on the batch size that is fastest


# ---------------------------------------------------------------- one network on one device


class EvaluationShard:
    """One network on one device, and its share of each split.

    loss, metric: (output, targets) -> (B,); metric may be None. precision: a key of PRECISIONS.
    resident: keep the data on the device (default: if they fit there).
    """

    def __init__(self, net, splits, loss, metric, precision, resident=None):
        self.net, self.loss, self.metric = net, loss, metric
        self.device = next(net.parameters()).device
        self.dtype, self.allow_tf32 = PRECISIONS[precision]
        self.memory_format = torch.contiguous_format
        self.folded = None
        self._passes = {}  # (split, batch size) -> the function that runs it

        first = next(iter(splits.values()))
        if isinstance(first, Split) and isinstance(first.inputs, torch.Tensor):
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
        """The split as it is sliced: on the device or in pinned memory. Batches stay as they are."""
        if not isinstance(split, Split):
            return split
        home = self.device if self.resident else torch.device("cpu")
        inputs = each(split.inputs, lambda t: self._ready(t, home))
        if home != self.device:
            inputs = each(inputs, torch.Tensor.pin_memory)
        return Split(inputs, split.targets.to(self.device))

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

    def forward(self, inputs):
        """The network's output for inputs that are ready on the device."""
        if self.folded:
            return self.folded(inputs)
        if self.dtype:
            with torch.autocast(self.device.type, self.dtype):
                return apply(self.net, inputs)
        return apply(self.net, inputs)

    def measure(self, inputs, targets):
        """(losses (B,), metrics (B,) or None) of a batch."""
        output = self.forward(inputs)
        if isinstance(output, torch.Tensor):
            output = output.float()  # (B, classes)
        losses = self.loss(output, targets)
        metrics = None
        if self.metric is not None:
            metrics = self.metric(output, targets)
        return losses, metrics

    def launch(self, name, batch_size, idle):
        """Start the evaluation of a split.

        Returns sums of losses and of the metric, (2,) float64, on the device.
        """
        key = name, batch_size
        if key not in self._passes:
            self._passes[key] = self._make_pass(self.splits[name], batch_size)
        return self._passes[key](idle)

    def _make_pass(self, split, batch_size):
        """The function that evaluates a split: run eagerly, or replayed as a CUDA graph.

        It keeps memory for the results of single samples.
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
                    losses[batch], batch_metrics = self.measure(inputs, split.targets[batch])
                    if batch_metrics is not None:
                        metrics[batch] = batch_metrics
                    idle()
            return torch.stack([losses.double().sum(), metrics.double().sum()])

        if self.device.type == "cuda" and self.resident:
            return captured(run, self.device)
        return run

    def add_batch(self, sums, inputs, targets):
        """Add the sums over one batch, which comes from the CPU, to `sums` (2,) float64."""
        with tf32(self.allow_tf32):
            inputs = each(inputs, lambda t: self._ready(t, self.device))
            targets = targets.to(self.device, non_blocking=True)
            losses, metrics = self.measure(inputs, targets)
            sums[0] += losses.double().sum()
            if metrics is not None:
                sums[1] += metrics.double().sum()

    def seconds_per_sample(self, split, batch_size):
        """The time of one forward pass over the first `batch_size` samples, per sample."""
        start = time.perf_counter()
        with tf32(self.allow_tf32):
            self.forward(each(split.inputs, lambda t: t[:batch_size].to(self.device)))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - start) / batch_size


# ---------------------------------------------------------------- all devices


class Evaluator:
    """Evaluates networks, as they are at the moment of the call, over data splits.

    nets: one network in eval mode per device; the devices share every split evenly.
    splits: {name: Split or Batches}.
    loss_name, metric, precision: see loss_function, metric_function, PRECISIONS.
    batch_size: None picks one by measuring; Batches have their own.
    bn: 'recalibrate' sets the batch-norm statistics from the train split before each evaluation
        (see recalibrate), 'frozen' leaves them.

    `note` says in words where the data are. Raises InputError where these don't go together.
    """

    def __init__(self, nets, splits, loss_name="crossentropy", batch_size=128, precision="",
                 metric="accuracy", bn="frozen"):
        if bn == "recalibrate" and len(nets) > 1:
            raise InputError(
                f"expected --ngpu 1 with --bn recalibrate, got {len(nets)}: the statistics are of "
                "whole batches; start more ranks instead")
        keep_memory()
        self._counts = {name: len(split) for name, split in splits.items()}
        self._metric, self._bn = metric, bn
        loss, measure = loss_function(loss_name), metric_function(metric)

        self._shards = []
        with torch.no_grad():
            for i, net in enumerate(nets):
                shares = {name: share(split, i, len(nets)) for name, split in splits.items()}
                self._shards.append(EvaluationShard(net, shares, loss, measure, precision))

        self.batch_size = batch_size or self.calibrate()
        self.note = self._where_data_are(splits.values())

    def _where_data_are(self, splits):
        if any(isinstance(split, Batches) and not split.held for split in splits):
            return "data read at every pass"
        if all(shard.resident for shard in self._shards):
            return "data on the device"
        return "data streamed to the device"

    def names(self, split):
        """The names of the results for a split: its loss, and its metric where there is one."""
        return result_names(self._metric, split)

    @torch.no_grad()
    def __call__(self, split_names, idle=lambda: None):
        """{NAME_loss: mean loss, NAME_acc: percent} for each split NAME.

        idle() is called between batches. Another metric than accuracy stands under its own name,
        as a mean; see `names`.
        """
        for shard in self._shards:
            if self._bn == "recalibrate":
                recalibrate(shard, idle)
            if shard.folded:
                shard.folded.refresh()

        # everything is started on every device before the first number is read
        sums = {name: self._launch(name, idle) for name in split_names}
        wait_for([shard.device for shard in self._shards], idle)

        results = {}
        for name in split_names:
            of_shards = torch.stack([shard_sums.cpu() for shard_sums in sums[name]])  # (shards, 2)
            loss, metric = of_shards.sum(0).tolist()
            if self._metric == "accuracy":
                metric = 100.0 * metric  # in percent
            means = [loss / self._counts[name], metric / self._counts[name]]

            # without a metric there is only one name
            for result_name, mean in zip(self.names(name), means, strict=False):
                results[result_name] = mean
        return results

    def _launch(self, name, idle):
        """The sums (2,) of each shard over a split; batches are dealt out to the shards in turn."""
        split = self._shards[0].splits[name]
        if isinstance(split, Split):
            return [shard.launch(name, self.batch_size, idle) for shard in self._shards]

        sums = [torch.zeros(2, dtype=torch.float64, device=shard.device) for shard in self._shards]
        for number, (inputs, targets) in enumerate(split.batches()):
            i = number % len(self._shards)
            self._shards[i].add_batch(sums[i], inputs, targets)
            idle()
        return sums

    @torch.no_grad()
    def calibrate(self):
        """The batch size from which on a larger one gains nothing on this device, measured."""
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


def share(split, i, n):
    """Part i of n of a split, contiguous. Batches stay together: each pass deals them out."""
    if n == 1 or isinstance(split, Batches):
        return split
    start, end = (round(len(split) * k / n) for k in (i, i + 1))
    return split.part(slice(start, end))


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
            if number > 0 and isinstance(split, Split) and len(targets) < BN_BATCH:
                continue
            with tf32(shard.allow_tf32):
                apply(shard.net, each(inputs, ready))
            idle()
    finally:
        for norm, (momentum, training) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.train(training)


# ---------------------------------------------------------------- does it repeat itself?


@torch.no_grad()
def check_repeatable(net, inputs, output, tell=True):
    """Raises InputError if a second pass over `inputs` does not give `output` again.

    A surface would be noise. tell: warn where the output for a sample depends on the samples beside
    it.
    """
    try:
        first = logits_of(output)
        second = logits_of(apply(net, inputs))
        pair = logits_of(apply(net, each(inputs, lambda t: t[:2])))  # one alone has no variance
    except (InputError, RuntimeError, ValueError, IndexError):  # an output of a form of its own
        return
    scale = float(first.abs().max()) + 1e-30

    def differ(a, b):
        return a.shape == b.shape and float((a - b).abs().nan_to_num().max()) > 1e-3 * scale

    cause = "dropout or noise without regard to eval mode?"
    for name, module in net.named_modules():
        if module.training:
            cause = f"{name or type(module).__name__} is in train mode"
            break

    if differ(first, second):
        raise InputError(
            "expected the same output from two passes over the same inputs, they differ "
            f"({cause}); make the network deterministic in eval mode: "
            "F.dropout(x, training=self.training)")
    if tell and len(first) > 2 and differ(first[:2], pair):
        print(
            "warning: the output for a sample depends on the samples beside it (batch norm in "
            f"train mode, or without running statistics? {cause}); the surface depends on --batch_size",
            file=sys.stderr)


# until all import these from losslandscape.criteria and losslandscape.devices
from losslandscape.criteria import LOSSES, METRICS, choose_metric, crossentropy  # noqa: E402, F401
from losslandscape.devices import precision_name, slow_precision  # noqa: E402, F401
