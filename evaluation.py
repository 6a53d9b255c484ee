"""Loss and accuracy of a network over a data set, fast.

The data lie on the device, normalized, in a fixed order, and are sliced into batches. Batch norm is folded into the
convolutions (folding.py), activations are channels-last where the network bears it, per-sample losses are kept on the
device and reduced once, in float64: one synchronization per evaluation, however many batches there are.

Training, and the centre of a surface, get their numbers from here: on the same data they agree bit for bit.
"""

import contextlib
import ctypes
import time

import torch
from torch.nn import functional as F

import folding
from errors import InputError


def crossentropy(logits, targets):
    return F.cross_entropy(logits, targets, reduction="none")


def mse(logits, targets):
    """Mean over classes of the squared error between softmax(logits) and the one-hot label."""
    wanted = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    return (logits.softmax(1) - wanted).square().mean(1)


# (logits (B, classes), targets (B,)) -> per-sample losses (B,)
LOSSES = {"crossentropy": crossentropy, "mse": mse}

# dtype of convolutions and linear layers (None: as the network has them), TF32 on or off (None: as torch has it)
PRECISIONS = {"": (None, None), "fp32": (None, False), "tf32": (None, True), "bf16": (torch.bfloat16, None)}

CALIBRATED = {"cpu": (32, 64, 128), "cuda": (256, 512, 1024, 2048)}  # batch sizes that a calibration tries


def precision_name(precision, device):
    """The name under which a precision is recorded: what '' means depends on the device."""
    if precision not in PRECISIONS:
        raise InputError(f"expected --precision {', '.join(filter(None, PRECISIONS))}; got {precision!r}")
    if precision == "tf32" and device.type != "cuda":
        raise InputError("expected a CUDA device for --precision tf32; take fp32 or bf16 on the CPU")
    if precision:
        return precision
    return "fp32" if device.type == "cpu" else "torch default (TF32 in convolutions)"


@contextlib.contextmanager
def tf32(allow):
    """Switch TF32 for convolutions and matrix products; None leaves torch's own choice."""
    if allow is None:
        yield
        return
    old = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = old


def keep_memory():
    """Have the C library keep freed memory for the next batch instead of giving it back to the kernel.

    By default glibc maps and unmaps every large activation, and the kernel zeroes its pages each time: that costs up to
    a third of the time of a forward pass. Harmless where there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


class _Shard:
    """One network on one device, and its share of each split."""

    def __init__(self, net, splits, loss, precision, resident=None):
        self.device = next(net.parameters()).device
        self.net, self.loss = net, loss
        self.dtype, self.allow_tf32 = PRECISIONS[precision]
        own = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
        first = next(iter(splits.values())).inputs
        example = first[:4].to(self.device, own)
        self.layout = layout(net, example)
        self.folded = folding.fold(net, example.contiguous(memory_format=self.layout), self.dtype)
        self.input_dtype = (self.dtype or own) if self.folded else own
        size = sum(s.inputs.numel() for s in splits.values()) * self.input_dtype.itemsize
        self.resident = fits(size, self.device) if resident is None else resident
        home = self.device if self.resident else torch.device("cpu")
        self.splits = {}
        for name, split in splits.items():
            inputs = split.inputs.to(home, self.input_dtype).contiguous(memory_format=self.layout)
            if home != self.device:
                inputs = inputs.pin_memory()
            self.splits[name] = (inputs, split.targets.to(self.device))
        self._passes = {}  # (split, batch size) -> what runs it

    def forward(self, inputs):
        if self.folded:
            return self.folded(inputs)
        if self.dtype:
            with torch.autocast(self.device.type, self.dtype):
                return self.net(inputs)
        return self.net(inputs)

    def launch(self, name, batch_size, idle):
        """Start the evaluation of a split; (2,) float64 tensor on the device: sum of losses, number of hits."""
        key = name, batch_size
        if key not in self._passes:
            self._passes[key] = self._pass(*self.splits[name], batch_size)
        return self._passes[key](idle)

    def _pass(self, inputs, targets, batch_size):
        """A function that evaluates all batches into memory that it keeps: run eagerly, or replayed as a CUDA graph."""
        losses = torch.empty(len(targets), dtype=torch.float32, device=self.device)
        hits = torch.empty(len(targets), dtype=torch.bool, device=self.device)

        def run(idle=lambda: None):
            with tf32(self.allow_tf32):
                for start in range(0, len(targets), batch_size):
                    part = slice(start, start + batch_size)
                    batch = inputs[part].to(self.device, non_blocking=True)
                    logits = self.forward(batch).float()  # (B, classes)
                    losses[part] = self.loss(logits, targets[part])
                    hits[part] = logits.argmax(1) == targets[part]
                    idle()
            return torch.stack([losses.double().sum(), hits.sum().double()])

        return captured(run, self.device) if self.device.type == "cuda" and self.resident else run


def fits(size, device):
    """Do `size` bytes of data fit on the device beside the network and its activations? What does not is streamed."""
    return device.type != "cuda" or size < 0.7 * torch.cuda.mem_get_info(device)[0]


def captured(run, device):
    """`run` as one CUDA graph: the launches of a whole pass cost one call. Where it can't be captured, `run` itself."""
    try:
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                run()  # warm-up: libraries choose their algorithms outside the capture
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                sums = run()
    except RuntimeError:  # a network that waits for the device, or draws random numbers
        return run

    def replay(_):
        graph.replay()
        return sums

    return replay


def layout(net, example):
    """channels_last for images if the network gives the same with it (one that calls .view on features does not)."""
    if example.dim() != 4:
        return torch.contiguous_format
    try:
        with torch.no_grad():
            expected, got = net(example), net(example.contiguous(memory_format=torch.channels_last))
        if torch.allclose(expected, got, rtol=1e-3, atol=1e-3 * float(expected.abs().max()), equal_nan=True):
            return torch.channels_last
    except (RuntimeError, TypeError):
        pass
    return torch.contiguous_format


class Evaluator:
    """Evaluates networks, as they are at the moment of the call, over data splits.

    nets: one network in eval mode per device; the devices share every split evenly. splits: {name: Split}, with inputs
    (N, ...) and targets (N,). loss_name: a key of LOSSES. batch_size: None picks one by measuring. precision: a key of
    PRECISIONS.
    """

    def __init__(self, nets, splits, loss_name="crossentropy", batch_size=128, precision=""):
        keep_memory()
        self._counts = {name: len(split.targets) for name, split in splits.items()}
        with torch.no_grad():
            self._shards = [
                _Shard(net, {name: part(split, i, len(nets)) for name, split in splits.items()},
                       LOSSES[loss_name], precision)
                for i, net in enumerate(nets)
            ]
        self.batch_size = batch_size or self.calibrate()
        streamed = not all(shard.resident for shard in self._shards)
        self.note = "data streamed to the device" if streamed else "data on the device"

    @torch.no_grad()
    def calibrate(self):
        """The fastest batch size for this network on this device, by one short measurement of each candidate."""
        shard = self._shards[0]
        inputs, targets = max(shard.splits.values(), key=lambda split: len(split[1]))
        candidates = [b for b in CALIBRATED.get(shard.device.type, (128,)) if b <= len(targets)] or [len(targets)]
        if shard.folded:
            shard.folded.refresh()
        rates = {}
        for batch_size in candidates:
            times = []
            for _ in range(3):  # the first warms up
                start = time.perf_counter()
                with tf32(shard.allow_tf32):
                    shard.forward(inputs[:batch_size].to(shard.device))
                if shard.device.type == "cuda":
                    torch.cuda.synchronize(shard.device)
                times.append(time.perf_counter() - start)
            rates[batch_size] = batch_size / min(times[1:])
        best = max(rates.values())
        return next(b for b in candidates if rates[b] >= 0.97 * best)

    @torch.no_grad()
    def __call__(self, names, idle=lambda: None):
        """{name_loss: mean loss, name_acc: percent} for each split in `names`. idle() is called between batches."""
        for shard in self._shards:
            if shard.folded:
                shard.folded.refresh()
        sums = {name: [shard.launch(name, self.batch_size, idle) for shard in self._shards] for name in names}
        wait([shard.device for shard in self._shards], idle)
        results = {}
        for name in names:
            loss, hits = torch.stack([s.cpu() for s in sums[name]]).sum(0).tolist()
            results[f"{name}_loss"] = loss / self._counts[name]
            results[f"{name}_acc"] = 100.0 * hits / self._counts[name]
        return results


def wait(devices, idle):
    """Return when the devices have done what was started on them; idle() is called meanwhile."""
    for device in devices:
        if device.type == "cuda":
            done = torch.cuda.current_stream(device).record_event()
            while not done.query():  # not synchronize(): the other ranks want answers meanwhile
                idle()
                time.sleep(0.0002)


def part(split, i, n):
    """Part i of n of a split, contiguous."""
    if n == 1:
        return split
    bounds = [round(len(split.targets) * k / n) for k in (i, i + 1)]
    return type(split)(split.inputs[slice(*bounds)], split.targets[slice(*bounds)])


def eval_loss(net, split, loss_name="crossentropy", batch_size=128, device="cpu"):
    """(mean loss, accuracy in percent) of `net`, on `device`, over `split`. The mode of the network is restored."""
    training = net.training
    net.eval()
    try:
        found = Evaluator([net.to(device)], {"train": split}, loss_name, batch_size)(["train"])
    finally:
        net.train(training)
    return found["train_loss"], found["train_acc"]
