"""Curvature of the loss: Hessian-vector products, the ends of the spectrum, the trace.

    hessian = Hessian([net], split, "crossentropy")     # of the mean loss over the split, at the network as it is now
    hessian(v)                                          # H v; v (n,), n = hessian.size
    lanczos(hessian, hessian.start())                   # the largest and the smallest eigenvalue
    trace(hessian, hessian.random, samples=30)          # mean and standard error

With batches b of n_b samples, N in all, H = sum over b of (n_b / N) Hessian of the mean loss of b: it does not depend
on the batch size. The network stays in eval mode: the running statistics of batch norm are constants.

A product takes one pass with tangents and one backward pass per batch, and nothing is kept from one batch to the next:
memory grows with the batch (and with the Krylov basis), not with the data set.
"""

import contextlib
import re
import time
import warnings

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import functional_call

from losslandscape import evaluator as evaluation
from losslandscape.data.splits import Split, apply, each
from losslandscape.errors import InputError
from losslandscape.lanczos import FLOOR, MOST, TOL, Spectrum, lanczos, trace  # noqa: F401

# with respect to which parameters (name, tensor); anything else is a regular expression on their names
PARAMS = {"weights": lambda name, p: p.dim() >= 2, "all": lambda name, p: True}


# ---------------------------------------------------------------- one product with the Hessian of one batch


def reverse_over_forward(logits_of, parameters, vectors, inputs, total):
    """H v of total(logits_of(parameters, inputs)), by one pass with tangents and one backward pass.

    logits_of({name: tensor}, inputs) -> (B, classes); total(logits) -> scalar. Returns one tensor per parameter.

    With z the logits and h the gradient of `total` there, H v = d/dw (z . Rh + Rz . h), where R is the derivative along
    v (Pearlmutter 1994) and Rh, h are held fixed. So the loss is differentiated twice only as a function of the logits,
    and a convolution needs its ordinary backward calls only: 8 convolutions' worth of arithmetic, where double backward
    needs 9 and the slow gradients of gradients of convolutions.
    """
    with forward_ad.dual_level():
        moving = {name: forward_ad.make_dual(p, v) for (name, p), v in zip(parameters.items(), vectors, strict=True)}
        logits, along = forward_ad.unpack_dual(logits_of(moving, inputs))
    if along is None:  # the outputs do not depend on these parameters
        return [torch.zeros_like(p) for p in parameters.values()]
    slope, change = torch.func.jvp(torch.func.grad(total), (logits.detach(),), (along.detach(),))
    terms = [(out, weight) for out, weight in ((logits, change), (along, slope)) if out.requires_grad]
    outputs, weights = zip(*terms, strict=True)
    return torch.autograd.grad(outputs, list(parameters.values()), weights, materialize_grads=True)


def double_backward(logits_of, parameters, vectors, inputs, total):
    """The same by two backward passes, the textbook's way: for networks with a layer that has no forward mode."""
    wanted = list(parameters.values())
    slopes = torch.autograd.grad(total(logits_of(parameters, inputs)), wanted, create_graph=True,
                                 materialize_grads=True)
    used = [(slope, v) for slope, v in zip(slopes, vectors, strict=True) if slope.requires_grad]
    if not used:  # linear in all parameters
        return [torch.zeros_like(p) for p in wanted]
    slopes, vectors = zip(*used, strict=True)
    return torch.autograd.grad(slopes, wanted, vectors, materialize_grads=True)


# ---------------------------------------------------------------- the Hessian over a data set


class _Shard:
    """One network on one device, and its share of the data."""

    def __init__(self, net, split, params, allow_tf32):
        self.net, self.allow_tf32 = net, allow_tf32
        named = dict(net.named_parameters())  # tied weights once
        self.device = next(iter(named.values())).device
        wanted = PARAMS.get(params) or (lambda name, p: re.search(params, name))
        self.names = [name for name, p in named.items() if wanted(name, p)]
        if not self.names:
            raise InputError(f"expected a network with parameters for --params {params}, found none; take --params all")
        self.dtype = named[self.names[0]].dtype
        layout = torch.contiguous_format
        if isinstance(split.inputs, torch.Tensor) and split.inputs.is_floating_point():
            with torch.no_grad():
                layout = evaluation.layout(net, split.inputs[:4].to(self.device, self.dtype))
        home = self.device if evaluation.fits(split.nbytes, self.device) else torch.device("cpu")

        def ready(t):
            t = t.to(home, self.dtype if t.is_floating_point() else t.dtype)
            return t.contiguous(memory_format=layout if t.dim() == 4 else torch.contiguous_format)

        self.split = Split(each(split.inputs, ready), split.targets.to(self.device))
        # detached: they share the memory of the network's own, which a Plane moves, but bring no graph of their own
        self.fixed = {name: p.detach() for name, p in named.items() if name not in self.names}
        self.shapes = [named[name].shape for name in self.names]
        self.formats = [_format(named[name]) for name in self.names]

    def parameters(self):
        named = dict(self.net.named_parameters())
        return {name: named[name].detach().requires_grad_() for name in self.names}

    def here(self, inputs):
        return each(inputs, lambda t: t.to(self.device))

    def logits(self, moving, inputs):
        state = self.fixed | moving
        return apply(lambda *args, **kwargs: functional_call(self.net, state, args, kwargs), inputs)

    def parts(self, vector):
        """The parts of a flat vector (n,), in the shapes and memory formats of the parameters."""
        vector = vector.to(self.device, self.dtype)
        parts = vector.split([shape.numel() for shape in self.shapes])
        return [part.view(shape).contiguous(memory_format=memory)
                for part, shape, memory in zip(parts, self.shapes, self.formats, strict=True)]

    def launch(self, batch_size, count, loss, one_batch, idle):
        """Sum over the batches of one_batch(parameters, inputs, total); a list, one tensor per parameter."""
        parameters, sums = self.parameters(), None
        with evaluation.tf32(self.allow_tf32):
            for inputs, targets in self.split.batches(batch_size):
                inputs = self.here(inputs)
                found = one_batch(parameters, inputs, lambda z, t=targets: loss(z, t).sum() / count)
                if sums is None:
                    sums = [g.clone() for g in found]
                else:
                    torch._foreach_add_(sums, list(found))
                idle()
        return sums


def _format(tensor):
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _flat(tensors, device):
    return torch.cat([t.reshape(-1) for t in tensors]).to(device)


class Hessian:
    """The Hessian of the mean loss, as a linear map, at the network as it is at the moment of the call.

    nets: one network in eval mode per device, equal weights; the devices share the data. split: inputs (N, ...) and
    targets (N,). loss_name: see evaluation.loss_function. params: 'weights' (two or more dimensions, the original's
    choice), 'all', or a regular expression that the names of the parameters are searched for. precision: '', 'fp32' or
    'tf32'. product: reverse_over_forward or double_backward (default: the first that the network can do). A vector has
    shape (n,), the parameters' order, their dtype, and lies on the first device. idle() is called between batches, and
    while a device works.
    """

    def __init__(self, nets, split, loss_name="crossentropy", params="weights", batch_size=128, precision="",
                 product=None):
        check_precision(precision)
        evaluation.keep_memory()
        if not isinstance(split, Split):
            raise InputError("expected data that fit into memory as tensors of one shape for the Hessian; give fewer "
                             "(--data_split), or pad them alike")
        if len(split) < len(nets):
            raise InputError(f"expected at least {len(nets)} samples for {len(nets)} devices, got {len(split)}")
        allow_tf32 = evaluation.PRECISIONS[precision][1]
        self._shards = [_Shard(net, evaluation.part(split, i, len(nets)), params, allow_tf32)
                        for i, net in enumerate(nets)]
        self._loss, self._count = evaluation.loss_function(loss_name), len(split)
        self.batch_size = batch_size
        first = self._shards[0]
        self.device, self.dtype = first.device, first.dtype
        self.size = sum(shape.numel() for shape in first.shapes)
        generator = torch.Generator().manual_seed(0)  # the same vector on every rank, at every point
        self.random = torch.randn(self.size, generator=generator).to(self.device, self.dtype)
        self.product = product or self._choose()
        self.products = 0  # how many were computed so far

    def _choose(self):
        """The fastest way that this network can do, tried on two samples."""
        shard = self._shards[0]
        # a layer or a loss without forward mode, an output that is no tensor
        failures = NotImplementedError, RuntimeError, TypeError, AttributeError, InputError
        with contextlib.suppress(*failures), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, when its forward mode is first used
            parameters = shard.parameters()
            two = shard.split.part(slice(2))
            reverse_over_forward(shard.logits, parameters, shard.parts(self.random), shard.here(two.inputs),
                                 lambda z: self._loss(z, two.targets).sum())
            return reverse_over_forward
        return double_backward

    def __call__(self, vector, idle=lambda: None):
        """H v, (n,)."""
        self.products += 1

        def on(shard):
            parts = shard.parts(vector)
            return lambda parameters, inputs, total: self.product(shard.logits, parameters, parts, inputs, total)

        return self._sum(on, idle)

    def gradient(self, idle=lambda: None):
        """Gradient of the mean loss, (n,)."""

        def on(shard):
            return lambda parameters, inputs, total: torch.autograd.grad(
                total(shard.logits(parameters, inputs)), list(parameters.values()), materialize_grads=True)

        return self._sum(on, idle)

    def _sum(self, on, idle):
        found = [shard.launch(self.batch_size, self._count, self._loss, on(shard), idle) for shard in self._shards]
        evaluation.wait([shard.device for shard in self._shards], idle)
        return torch.stack([_flat(tensors, self.device) for tensors in found]).sum(0)

    def start(self, idle=lambda: None):
        """A start vector (n,) that depends on the point alone: gradient and a fixed random vector, in equal parts.

        The gradient lies mostly among the eigenvectors at the ends (Gur-Ari et al. 2018); the random part is there for
        those that symmetry hides from it, and for a minimum, where the gradient is 0.
        """
        gradient = self.gradient(idle)
        norm = gradient.norm()
        return self.random / self.random.norm() + torch.where(norm == 0, gradient, gradient / norm)

    def calibrate(self):
        """The fastest batch size for this network on this device, by one short measurement of each candidate."""
        shard = self._shards[0]
        # about four times the memory of a forward pass with its graph: half the batches of evaluation.py
        candidates = {"cpu": (16, 32, 64), "cuda": (128, 256, 512, 1024)}.get(self.device.type, (128,))
        candidates = [b for b in candidates if b <= len(shard.split)] or [len(shard.split)]
        parts, rates = shard.parts(self.random), {}
        for batch_size in candidates:
            some, times = shard.split.part(slice(batch_size)), []
            inputs, targets = shard.here(some.inputs), some.targets
            try:
                for _ in range(3):  # the first warms up
                    start = time.perf_counter()
                    with evaluation.tf32(shard.allow_tf32):
                        self.product(shard.logits, shard.parameters(), parts, inputs,
                                     lambda z, t=targets: self._loss(z, t).sum())
                    evaluation.wait([self.device], lambda: None)
                    times.append(time.perf_counter() - start)
            except torch.cuda.OutOfMemoryError:
                break
            rates[batch_size] = batch_size / min(times[1:])
        if not rates:
            return candidates[0]
        best = max(rates.values())
        return next(b for b in rates if rates[b] >= 0.97 * best)


def check_precision(precision):
    """Raises InputError for a precision in which second derivatives mean nothing."""
    if precision not in ("", "fp32", "tf32"):
        raise InputError(f"expected --precision fp32 or tf32 for eigenvalues of the Hessian, got {precision!r}: "
                         "its rounding is larger than the small eigenvalues; leave it out")


# ---------------------------------------------------------------- the evaluator of a surface of eigenvalues

EIGENVALUE_NAMES = ("max_eig", "min_eig", "max_eig_res", "min_eig_res", "eig_converged")


class EigenvalueEvaluator:
    """Evaluates the ends of the spectrum of networks as they are at the moment of the call.

    The interface is that of evaluator.Evaluator. nets, split, loss_name, batch_size, precision, params: see Hessian.
    tol, max_products: see lanczos.
    """

    def __init__(self, nets, split, loss_name="crossentropy", batch_size=128, precision="", params="weights", tol=TOL,
                 max_products=MOST):
        self.hessian = Hessian(nets, split, loss_name, params, batch_size, precision)
        self._tol, self._max_products = tol, max_products
        self.note = f"Hessian over {self.hessian.size} parameters, tolerance {tol:g}"

    @property
    def batch_size(self):
        return self.hessian.batch_size

    @batch_size.setter
    def batch_size(self, batch_size):
        self.hessian.batch_size = batch_size

    def calibrate(self):
        return self.hessian.calibrate()

    def names(self, split):
        """The names of the results, whatever the split is called."""
        return list(EIGENVALUE_NAMES)

    def spectrum(self, low, high, idle=lambda: None):
        """The `low` smallest and `high` largest eigenvalues: a Spectrum."""
        return lanczos(self.hessian, self.hessian.start(idle), low, high, self._tol, self._max_products, idle=idle)

    def __call__(self, split_names, idle=lambda: None):
        """{name: number} for EIGENVALUE_NAMES; all NaN where the Hessian is not finite."""
        ends = self.spectrum(1, 1, idle)
        numbers = [ends.high[0], ends.low[0], ends.high_residuals[0], ends.low_residuals[0]]
        converged = np.nan
        if np.isfinite(numbers).all():
            converged = float(ends.converged)
        return dict(zip(EIGENVALUE_NAMES, [*map(float, numbers), converged], strict=True))
