"""Loss and accuracy (or another metric) of a network over a data set, fast.

The data lie on the device, normalized, in a fixed order, and are sliced into batches. Batch norm is folded into the
convolutions (folding.py), activations are channels-last where the network bears it, per-sample losses are kept on the
device and reduced once, in float64: one synchronization per evaluation, however many batches there are.

Training, and the centre of a surface, get their numbers from here: on the same data they agree bit for bit.
"""

import math
import sys
import time

import torch

from losslandscape import folding
from losslandscape.data.splits import Batches, Split, apply, each, leaves
from losslandscape.devices import (  # noqa: F401  some names have moved
    PRECISIONS,
    captured,
    fits,
    keep_memory,
    layout,
    precision_name,
    slow_precision,
    tf32,
    wait,
)
from losslandscape.errors import InputError
from losslandscape.losses import (  # noqa: F401  the names have moved
    IGNORED,
    LOSSES,
    METRICS,
    choose_metric,
    classes_second,
    crossentropy,
    hits,
    logits_of,
    loss_function,
    metric_function,
    metric_name,
    mse,
    per_sample,
)

CALIBRATED = {"cpu": (32, 64, 128), "cuda": (256, 512, 1024, 2048)}  # batch sizes that a calibration tries


class _Shard:
    """One network on one device, and its share of each split."""

    def __init__(self, net, splits, loss, metric, precision, resident=None):
        self.device = next(net.parameters()).device
        self.net, self.loss, self.metric = net, loss, metric
        self.dtype, self.allow_tf32 = PRECISIONS[precision]
        own = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
        self.layout, self.folded = torch.contiguous_format, None
        first = next(iter(splits.values()))
        if isinstance(first, Split) and isinstance(first.inputs, torch.Tensor):
            example = first.inputs[:4].to(self.device, own if first.inputs.is_floating_point() else None)
            self.layout = layout(net, example)
            self.folded = folding.fold(net, example.contiguous(memory_format=self.layout), self.dtype)
        self.input_dtype = (self.dtype or own) if self.folded else own
        held = [s for s in splits.values() if isinstance(s, Split)]
        size = sum(t.numel() * self._dtype(t).itemsize for s in held for t in leaves(s.inputs))
        self.resident = (fits(size, self.device) if resident is None else resident) and len(held) == len(splits)
        home = self.device if self.resident else torch.device("cpu")
        self.splits = {}
        for name, split in splits.items():
            if isinstance(split, Split):
                inputs = each(split.inputs, lambda t: self._ready(t, home))
                if home != self.device:
                    inputs = each(inputs, torch.Tensor.pin_memory)
                split = Split(inputs, split.targets.to(self.device))
            self.splits[name] = split
        self._passes = {}  # (split, batch size) -> what runs it

    def _dtype(self, tensor):
        return self.input_dtype if tensor.is_floating_point() else tensor.dtype

    def _ready(self, tensor, device):
        memory = self.layout if tensor.dim() == 4 else torch.contiguous_format
        return tensor.to(device, self._dtype(tensor), non_blocking=True).contiguous(memory_format=memory)

    def forward(self, inputs):
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
        return self.loss(output, targets), self.metric and self.metric(output, targets)

    def launch(self, name, batch_size, idle):
        """Start the evaluation of a split; (2,) float64 tensor on the device: sums of losses and of the metric."""
        key = name, batch_size
        if key not in self._passes:
            self._passes[key] = self._pass(self.splits[name], batch_size)
        return self._passes[key](idle)

    def _pass(self, split, batch_size):
        """A function that evaluates all batches into memory that it keeps: run eagerly, or replayed as a CUDA graph."""
        losses = torch.empty(len(split), dtype=torch.float32, device=self.device)
        metrics = torch.zeros(len(split), dtype=torch.float32, device=self.device)

        def run(idle=lambda: None):
            with tf32(self.allow_tf32):
                for start in range(0, len(split), batch_size):
                    part = slice(start, start + batch_size)
                    batch = each(split.inputs, lambda t, part=part: t[part].to(self.device, non_blocking=True))
                    losses[part], found = self.measure(batch, split.targets[part])
                    if found is not None:
                        metrics[part] = found
                    idle()
            return torch.stack([losses.double().sum(), metrics.double().sum()])

        return captured(run, self.device) if self.device.type == "cuda" and self.resident else run

    def add_batch(self, sums, inputs, targets):
        """Add the sums over one batch, which comes from the CPU, to `sums` (2,) float64."""
        with tf32(self.allow_tf32):
            batch = each(inputs, lambda t: self._ready(t, self.device))
            for i, found in enumerate(self.measure(batch, targets.to(self.device, non_blocking=True))):
                if found is not None:
                    sums[i] += found.double().sum()


class Evaluator:
    """Evaluates networks, as they are at the moment of the call, over data splits.

    nets: one network in eval mode per device; the devices share every split evenly. splits: {name: Split or Batches}.
    loss_name, metric, precision: see loss_function, metric_function, PRECISIONS. batch_size: None picks one by
    measuring; Batches have their own. bn: 'recalibrate' sets the batch-norm statistics from the train split before each
    evaluation (see recalibrate).
    """

    def __init__(self, nets, splits, loss_name="crossentropy", batch_size=128, precision="", metric="accuracy",
                 bn="frozen"):
        keep_memory()
        if bn == "recalibrate" and len(nets) > 1:
            raise InputError(f"expected --ngpu 1 with --bn recalibrate, got {len(nets)}: the statistics are of whole "
                             "batches; start more ranks instead")
        self._counts = {name: len(split) for name, split in splits.items()}
        self._metric, self._bn = metric, bn
        with torch.no_grad():
            self._shards = [
                _Shard(net, {name: part(split, i, len(nets)) for name, split in splits.items()},
                       loss_function(loss_name), metric_function(metric), precision)
                for i, net in enumerate(nets)
            ]
        self.batch_size = batch_size or self.calibrate()
        if any(isinstance(split, Batches) and not split.held for split in splits.values()):
            self.note = "data read at every pass"
        else:
            streamed = not all(shard.resident for shard in self._shards)
            self.note = "data streamed to the device" if streamed else "data on the device"

    @torch.no_grad()
    def calibrate(self):
        """The batch size from which on a larger one gains nothing, for this network on this device: measured."""
        shard = self._shards[0]
        held = [split for split in shard.splits.values() if isinstance(split, Split)]
        if not held:
            return 128  # of no account: the batches have their own sizes
        split = max(held, key=len)
        candidates = [b for b in CALIBRATED.get(shard.device.type, (128,)) if b <= len(split)] or [len(split)]
        if shard.folded:
            shard.folded.refresh()

        def seconds(batch_size):
            """Per sample, of one forward pass."""
            start = time.perf_counter()
            with tf32(shard.allow_tf32):
                shard.forward(each(split.inputs, lambda t: t[:batch_size].to(shard.device)))
            if shard.device.type == "cuda":
                torch.cuda.synchronize(shard.device)
            return (time.perf_counter() - start) / batch_size

        chosen, *larger = candidates
        for batch_size in larger:  # it needs more memory, and is tried only while that pays
            before, after = min(seconds(chosen) for _ in range(2)), math.inf  # the first warms up
            if before * chosen > 1.5:
                break  # what a batch costs beside its samples is lost in that
            began = time.perf_counter()
            for done in range(1, 6):
                before, after = min(before, seconds(chosen)), min(after, seconds(batch_size))
                if done >= 2 and time.perf_counter() - began > 1:
                    break
            if after > 0.98 * before:
                break
            chosen = batch_size
        return chosen

    @torch.no_grad()
    def __call__(self, names, idle=lambda: None):
        """{name_loss: mean loss, name_acc: percent} for each split in `names`. idle() is called between batches.

        Another metric than accuracy stands under its own name, as a mean; see metric_name.
        """
        for shard in self._shards:
            if self._bn == "recalibrate":
                recalibrate(shard, idle)
            if shard.folded:
                shard.folded.refresh()
        sums = {name: self._launch(name, idle) for name in names}
        wait([shard.device for shard in self._shards], idle)
        results = {}
        for name in names:
            loss, metric = torch.stack([s.cpu() for s in sums[name]]).sum(0).tolist()
            results[f"{name}_loss"] = loss / self._counts[name]
            if key := metric_name(self._metric, name):
                results[key] = (100.0 if self._metric == "accuracy" else 1.0) * metric / self._counts[name]
        return results

    def names(self, split):
        """The names of the results that a split gives: 'train_loss', and 'train_acc' where there is a metric."""
        names = [f"{split}_loss"]
        measured = metric_name(self._metric, split)
        if measured:
            names.append(measured)
        return names

    def _launch(self, name, idle):
        """[(2,) sums of each shard] of a split; batches are dealt out to the shards in turn."""
        split = self._shards[0].splits[name]
        if isinstance(split, Split):
            return [shard.launch(name, self.batch_size, idle) for shard in self._shards]
        sums = [torch.zeros(2, dtype=torch.float64, device=shard.device) for shard in self._shards]
        for i, (inputs, targets) in enumerate(split.batches()):
            i %= len(sums)
            self._shards[i].add_batch(sums[i], inputs, targets)
            idle()
        return sums


BN_BATCH = 128  # fixed: the statistics must not depend on the batch size that is fastest


def norms_of(net):
    """The layers of a network that keep running statistics."""
    return [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.track_running_stats]


@torch.no_grad()
def recalibrate(shard, idle=lambda: None):
    """Set the running statistics of a shard's network to those of the train split, for the weights as they are now.

    The plain averages over batches of BN_BATCH of the batches' means and (unbiased) variances, each layer fed by layers
    that normalize with the batch's own, as in weight averaging (Izmailov et al. 2018, section 3.2). A smaller last
    batch is left out where there are others.
    """
    norms, split = norms_of(shard.net), shard.splits["train"]
    kept = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    own = next((p.dtype for p in shard.net.parameters() if p.is_floating_point()), torch.float32)
    try:
        for i, (inputs, targets) in enumerate(split.batches(BN_BATCH)):
            if i and isinstance(split, Split) and len(targets) < BN_BATCH:
                continue
            ready = each(inputs, lambda t: t.to(shard.device, own if t.is_floating_point() else None))
            with tf32(shard.allow_tf32):
                apply(shard.net, ready)
            idle()
    finally:
        for norm, (momentum, training) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.train(training)


def part(split, i, n):
    """Part i of n of a split, contiguous. Batches stay together: they are dealt out at every pass."""
    if n == 1 or isinstance(split, Batches):
        return split
    return split.part(slice(*(round(len(split) * k / n) for k in (i, i + 1))))


@torch.no_grad()
def check_repeatable(net, inputs, output, tell=True):
    """Raises InputError if a second pass over `inputs` does not give `output` again; a loss surface would be noise.

    Warns where the output for a sample depends on the samples beside it.
    """
    try:
        first, again = logits_of(output), logits_of(apply(net, inputs))
        fewer = logits_of(apply(net, each(inputs, lambda t: t[:2])))  # one alone has no variance
    except (InputError, RuntimeError, ValueError, IndexError):  # an output of a form of its own
        return
    scale = float(first.abs().max()) + 1e-30

    def differ(a, b):
        return a.shape == b.shape and float((a - b).abs().nan_to_num().max()) > 1e-3 * scale

    training = next((name or type(m).__name__ for name, m in net.named_modules() if m.training), "")
    cause = f"{training} is in train mode" if training else "dropout or noise without regard to eval mode?"
    if differ(first, again):
        raise InputError(f"expected the same output from two passes over the same inputs, they differ ({cause}); make "
                         "the network deterministic in eval mode: F.dropout(x, training=self.training)")
    if tell and len(first) > 2 and differ(first[:2], fewer):
        print("warning: the output for a sample depends on the samples beside it (batch norm in train mode, or without "
              f"running statistics? {cause}); the surface depends on --batch_size", file=sys.stderr)


def eval_loss(net, split, loss_name="crossentropy", batch_size=128, device="cpu"):
    """(mean loss, accuracy in percent) of `net`, on `device`, over `split`. The mode of the network is restored."""
    training = net.training
    net.eval()
    try:
        found = Evaluator([net.to(device)], {"train": split}, loss_name, batch_size)(["train"])
    finally:
        net.train(training)
    return found["train_loss"], found["train_acc"]
