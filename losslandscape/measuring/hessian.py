"""Curvature of the loss: Hessian-vector products, and what a surface of eigenvalues is made of.

    hessian = Hessian([net], split, "crossentropy")   # of the mean loss, at the network as it is
    hessian(v)                                        # H v; v (n,), n = hessian.size
    lanczos(hessian, hessian.start())                 # largest and smallest eigenvalue
    (lanczos.py) trace(hessian, hessian.random, samples=30)        # mean and standard error

With batches b of n_b samples, N in all, H = sum over b of (n_b / N) Hessian of the mean loss of
b: it does not depend on the batch size. The network stays in eval mode: the running statistics of
batch norm are constants.

A product takes one pass with tangents and one backward pass per batch, and nothing is kept from one
batch to the next: memory grows with the batch (and with the Krylov basis), not with the data set.
"""

import contextlib
import re
import time
import warnings

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from losslandscape.data.splits import Split, each
from losslandscape.errors import InputError
from losslandscape.measuring.criteria import loss_criterion, total_weight
from losslandscape.measuring.devices import (
    PRECISIONS,
    batch_sizes_to_try,
    choose_memory_format,
    fits,
    keep_memory,
    tf32,
    wait_for,
)
from losslandscape.measuring.evaluator import share
from losslandscape.measuring.lanczos import MAX_PRODUCTS, TOLERANCE, lanczos
from losslandscape.measuring.outputs import call_network
from losslandscape.measuring.plain_functions import PlainFunctions

# with respect to which parameters; anything else is a regular expression on their names
PARAMS = {
    "weights": lambda name, parameter: parameter.dim() >= 2,
    "all": lambda name, parameter: True,
}

# batch sizes that a calibration tries: half of the evaluator's, for a product takes about four times
# the memory of a forward pass
PRODUCT_BATCH_SIZES = {"cpu": (16, 32, 64), "cuda": (128, 256, 512, 1024)}
SMALLEST_RATE = 0.97  # of the best one, at which a smaller batch is taken


# ---------------------------------------------------------------- one product, of one batch


@contextlib.contextmanager
def twice_differentiable(allow_tf32):
    """Within it, passes can be differentiated twice, and forwards.

    The fused kernels of attention (flash, memory-efficient, cuDNN; on CPU and CUDA) and the fast
    path of nn.MultiheadAttention have no second derivatives: attention is computed from matrix
    products, which are the same function. allow_tf32: see devices.tf32.
    """
    has_fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with tf32(allow_tf32), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(has_fast_path)


def reverse_over_forward(outputs_of, parameters, vectors, inputs, total):
    """H v of total(outputs_of(parameters, inputs)): one pass with tangents, one backward pass.

    outputs_of({name: tensor}, inputs) -> (B, classes); total(outputs) -> scalar; vectors: the
    parts of v, one per parameter. Returns one tensor per parameter.

    With z the outputs and h the gradient of `total` there,

        H v = d/dw (z . Rh + Rz . h)

    where R is the derivative along v (Pearlmutter 1994) and Rh, h are held fixed. So the loss is
    differentiated twice only as a function of the outputs, and a convolution needs its ordinary
    backward calls only: 8 convolutions' worth of arithmetic, where double backward needs 9 and the
    slow gradients of gradients of convolutions.
    """
    # z and Rz
    with forward_ad.dual_level():
        moving = {}
        for (name, parameter), vector in zip(parameters.items(), vectors, strict=True):
            moving[name] = forward_ad.make_dual(parameter, vector)
        outputs, tangents = forward_ad.unpack_dual(outputs_of(moving, inputs))
    if tangents is None:  # the outputs do not depend on these parameters
        return [torch.zeros_like(parameter) for parameter in parameters.values()]

    # h and Rh
    slopes, slope_tangents = torch.func.jvp(
        torch.func.grad(total), (outputs.detach(),), (tangents.detach(),))

    # d/dw (z . Rh + Rz . h)
    terms = [(outputs, slope_tangents), (tangents, slopes)]
    terms = [(factor, weight) for factor, weight in terms if factor.requires_grad]
    factors, weights = zip(*terms, strict=True)
    return torch.autograd.grad(factors, list(parameters.values()), weights, materialize_grads=True)


def reverse_over_forward_by_formulas(outputs_of, parameters, vectors, inputs, total):
    """`reverse_over_forward` for networks with attention, softmax or layer norm."""
    with PlainFunctions():
        return reverse_over_forward(outputs_of, parameters, vectors, inputs, total)


def double_backward(outputs_of, parameters, vectors, inputs, total):
    """The same by two backward passes, the textbook's way: for layers that have no forward mode."""
    parameters_list = list(parameters.values())
    slopes = torch.autograd.grad(
        total(outputs_of(parameters, inputs)), parameters_list,
        create_graph=True, materialize_grads=True)

    # d/dw (gradient . v); a slope that is constant adds nothing
    terms = [
        (slope, vector) for slope, vector in zip(slopes, vectors, strict=True)
        if slope.requires_grad]
    if not terms:  # linear in all parameters
        return [torch.zeros_like(parameter) for parameter in parameters_list]
    slopes, vectors = zip(*terms, strict=True)
    return torch.autograd.grad(slopes, parameters_list, vectors, materialize_grads=True)


# ---------------------------------------------------------------- one network on one device


class HessianShard:
    """One network on one device, and its share of the data.

    names, shapes, memory_formats: of the parameters of the Hessian, in the network's order.
    targets_as: the argument of the network that gets the targets in the call, or ''.
    """

    def __init__(self, net, split, params, allow_tf32, targets_as=""):
        self.net, self.allow_tf32, self.targets_as = net, allow_tf32, targets_as
        named = dict(net.named_parameters())  # tied weights once
        self.device = next(iter(named.values())).device
        self.names = chosen_parameters(named, params)
        self.dtype = named[self.names[0]].dtype
        self.shapes = [named[name].shape for name in self.names]
        self.memory_formats = [memory_format_of(named[name]) for name in self.names]
        # detached: they share the memory of the network's own, which move, but bring no graph
        self.fixed = {name: p.detach() for name, p in named.items() if name not in self.names}
        self.split = self._prepared(split)

    def _prepared(self, split):
        """The split in the network's dtype and memory format, on the device if it fits there."""
        images_format = torch.contiguous_format
        if isinstance(split.inputs, torch.Tensor) and split.inputs.is_floating_point():
            example = split.inputs[:4].to(self.device, self.dtype)
            with torch.no_grad():
                images_format = choose_memory_format(self.net, example)

        home = torch.device("cpu")
        if fits(split.nbytes, self.device):
            home = self.device

        def ready(tensor):
            dtype, memory_format = tensor.dtype, torch.contiguous_format
            if tensor.is_floating_point():
                dtype = self.dtype
            if tensor.dim() == 4:
                memory_format = images_format
            return tensor.to(home, dtype).contiguous(memory_format=memory_format)

        return Split(each(split.inputs, ready), each(split.targets, lambda t: t.to(self.device)))

    def parameters(self):
        """{name: tensor} of the parameters as they are now, ready to be differentiated."""
        named = dict(self.net.named_parameters())
        return {name: named[name].detach().requires_grad_() for name in self.names}

    def on_device(self, inputs):
        return each(inputs, lambda t: t.to(self.device))

    def outputs_for(self, targets):
        """outputs(moving, inputs): with `moving`, {name: tensor}, instead of the own parameters."""

        def outputs(moving, inputs):
            state = self.fixed | moving

            def call(*args, **kwargs):
                return functional_call(self.net, state, args, kwargs)

            return call_network(call, inputs, targets, self.targets_as)

        return outputs

    def parts(self, vector):
        """The parts of a flat vector (n,), in the shapes and memory formats of the parameters."""
        vector = vector.to(self.device, self.dtype)
        parts = []
        flat_parts = vector.split([shape.numel() for shape in self.shapes])
        for flat, shape, memory in zip(flat_parts, self.shapes, self.memory_formats, strict=True):
            parts.append(flat.view(shape).contiguous(memory_format=memory))
        return parts

    def launch(self, batch_size, count, loss, one_batch, idle):
        """Start the sum over the batches of one_batch(outputs, parameters, inputs, total).

        outputs: see `outputs_for`. total(output): the sum of the batch's losses, divided by
        `count`. Returns one tensor per parameter.
        """
        parameters, sums = self.parameters(), None
        with twice_differentiable(self.allow_tf32):
            for inputs, targets in self.split.batches(batch_size):

                def total(outputs, targets=targets):
                    return loss.sums(outputs, targets).sum() / count

                outputs = self.outputs_for(targets)
                results = one_batch(outputs, parameters, self.on_device(inputs), total)
                if sums is None:
                    sums = [result.clone() for result in results]
                else:
                    torch._foreach_add_(sums, list(results))
                idle()
        return sums


def chosen_parameters(named, params):
    """Which names of {name: tensor} --params stands for; raises InputError for none."""
    names = []
    for name, parameter in named.items():
        if params in PARAMS:
            is_chosen = PARAMS[params](name, parameter)
        else:
            is_chosen = re.search(params, name) is not None
        if is_chosen:
            names.append(name)
    if not names:
        raise InputError(
            f"expected a network with parameters for --params {params}, found none; "
            "take --params all")
    return names


def memory_format_of(tensor):
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


# ---------------------------------------------------------------- the Hessian over a data set


class Hessian:
    """The Hessian of the mean loss as a linear map, at the network as it is when it is called.

    nets: one network in eval mode per device, equal weights; the devices share the data.
    split: inputs (N, ...) and targets (N,).
    loss: a Criterion, or the name of one, see criteria.loss_criterion. Its weights, if it has any,
        depend on the targets alone: the Hessian is that of sum of sums / sum of weights.
    params: 'weights' (two or more dimensions, the original's choice), 'all', or a regular expression
        that the names of the parameters are searched for.
    precision: '', 'fp32' or 'tf32'.
    fixed_batches: the loss depends on the batch size, which can't be changed any more.
    product: reverse_over_forward or double_backward (default: the first that the network can do).

    A vector has shape (n,), the parameters' order, their dtype, and lies on the first device.
    idle() is called between batches, and while a device works. Raises InputError where these
    don't go together.
    """

    def __init__(self, nets, split, loss="crossentropy", params="weights", batch_size=128,
                 precision="", product=None, fixed_batches=False):
        check_precision(precision)
        if not isinstance(split, Split):
            raise InputError(
                "expected data that fit into memory as tensors of one shape for the Hessian; give "
                "fewer (--data_split), or pad them alike")
        if len(split) < len(nets):
            raise InputError(
                f"expected at least {len(nets)} samples for {len(nets)} devices, got {len(split)}")

        keep_memory()
        _, allow_tf32 = PRECISIONS[precision]
        self._loss = loss_criterion(loss)
        self._count = total_weight(self._loss, split.targets, len(split))
        unit = batch_size if fixed_batches else 1  # whole batches on every device
        self._shards = []
        for i, net in enumerate(nets):
            part = share(split, i, len(nets), unit)
            self._shards.append(
                HessianShard(net, part, params, allow_tf32, self._loss.targets_as))
        self._loss = self._loss.to(self._shards[0].device)
        self._batch_size, self._fixed_batches = batch_size, fixed_batches

        first = self._shards[0]
        self.device, self.dtype = first.device, first.dtype
        self.size = sum(shape.numel() for shape in first.shapes)

        # the same vector on every rank, at every point
        generator = torch.Generator().manual_seed(0)
        self.random = torch.randn(self.size, generator=generator).to(self.device, self.dtype)

        self.product = product or self._choose_product()
        self.products = 0  # how many were computed so far

    @property
    def batch_size(self):
        return self._batch_size

    @batch_size.setter
    def batch_size(self, batch_size):
        if not self._fixed_batches:
            self._batch_size = batch_size

    def _choose_product(self):
        """The fastest way that this network can do, tried on two samples.

        What torch gives as a derivative of a derivative is not always right: a faster way must
        agree with the textbook's. Compared are Hessians of the mean square of the outputs, for that
        of the loss is nearly zero where a trained network is sure.
        """

        def loss(pair):
            return lambda outputs: self._loss.sums(outputs, pair.targets).sum()

        def mean_square(pair):
            return lambda outputs: outputs.square().mean()

        for product in (reverse_over_forward, reverse_over_forward_by_formulas):
            if self._trial(product, loss) is None:
                continue
            expected = self._trial(double_backward, mean_square)
            if expected is None or are_close(self._trial(product, mean_square), expected):
                return product
        return double_backward

    def _trial(self, product, total_of):
        """A product of two samples, (n,); None where the network can't do it that way."""
        shard = self._shards[0]
        pair = shard.split.part(slice(2))

        # a layer or a loss without forward mode, an output that is no tensor
        failures = NotImplementedError, RuntimeError, TypeError, AttributeError, InputError
        with contextlib.suppress(*failures), warnings.catch_warnings():
            # torch's own, when its forward mode is first used
            warnings.simplefilter("ignore", FutureWarning)
            with twice_differentiable(allow_tf32=False):
                tensors = product(
                    shard.outputs_for(pair.targets), shard.parameters(), shard.parts(self.random),
                    shard.on_device(pair.inputs), total_of(pair))
            return torch.cat([tensor.reshape(-1) for tensor in tensors])
        return None

    def __call__(self, vector, idle=lambda: None):
        """H v, (n,)."""
        self.products += 1

        def product_on(shard):
            parts = shard.parts(vector)

            def one_batch(outputs, parameters, inputs, total):
                return self.product(outputs, parameters, parts, inputs, total)

            return one_batch

        return self._sum(product_on, idle)

    def gradient(self, idle=lambda: None):
        """Gradient of the mean loss, (n,)."""

        def gradient_on(shard):

            def one_batch(outputs, parameters, inputs, total):
                loss = total(outputs(parameters, inputs))
                return torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)

            return one_batch

        return self._sum(gradient_on, idle)

    def _sum(self, one_batch_on, idle):
        """Sum over shards and batches of one_batch_on(shard)(...), (n,); see HessianShard.launch."""
        of_shards = [
            shard.launch(self.batch_size, self._count, self._loss, one_batch_on(shard), idle)
            for shard in self._shards]
        wait_for([shard.device for shard in self._shards], idle)

        flat = []
        for tensors in of_shards:
            flat.append(torch.cat([t.reshape(-1) for t in tensors]).to(self.device))
        return torch.stack(flat).sum(0)

    def start(self, idle=lambda: None):
        """A start vector (n,) that depends on the point alone: the gradient plus a random vector.

        Both have length 1. The gradient lies mostly among the eigenvectors at the ends (Gur-Ari
        et al. 2018); the random part is for those that symmetry hides from it, and for a minimum,
        where the gradient is 0.
        """
        gradient = self.gradient(idle)
        norm = gradient.norm()
        unit_gradient = torch.where(norm == 0, gradient, gradient / norm)
        return self.random / self.random.norm() + unit_gradient

    def calibrate(self):
        """The fastest batch size for this network on this device, measured.

        Where the loss depends on it, it stays what it is.
        """
        if self._fixed_batches:
            return self._batch_size
        count = len(self._shards[0].split)
        candidates = batch_sizes_to_try(PRODUCT_BATCH_SIZES, self.device, count)
        rates = {}  # samples per second
        for batch_size in candidates:
            try:
                rates[batch_size] = batch_size / self._seconds_of_product(batch_size)
            except torch.cuda.OutOfMemoryError:
                break
        if not rates:
            return candidates[0]

        best = max(rates.values())
        return next(size for size in rates if rates[size] >= SMALLEST_RATE * best)

    def _seconds_of_product(self, batch_size):
        """The time of a product with the Hessian of one batch: the better of two, after a first."""
        shard = self._shards[0]
        parts = shard.parts(self.random)
        batch = shard.split.part(slice(batch_size))
        inputs = shard.on_device(batch.inputs)

        def total(outputs):
            return self._loss.sums(outputs, batch.targets).sum()

        times = []
        for _ in range(3):
            start = time.perf_counter()
            with twice_differentiable(shard.allow_tf32):
                outputs = shard.outputs_for(batch.targets)
                self.product(outputs, shard.parameters(), parts, inputs, total)
            wait_for([self.device], lambda: None)
            times.append(time.perf_counter() - start)
        return min(times[1:])


def are_close(result, expected):
    """Do two products with the Hessian differ by rounding alone? NaN are close to nothing."""
    if result is None:
        return False
    tolerance = torch.finfo(expected.dtype).eps ** 0.5
    difference = torch.linalg.vector_norm(result - expected)
    return bool(difference <= 4 * tolerance * torch.linalg.vector_norm(expected))


def check_precision(precision):
    """Raises InputError for a precision in which second derivatives mean nothing."""
    if precision not in ("", "fp32", "tf32"):
        raise InputError(
            f"expected --precision fp32 or tf32 for eigenvalues of the Hessian, got {precision!r}: "
            "its rounding is larger than the small eigenvalues; leave it out")


# ---------------------------------------------------------------- surfaces of eigenvalues

EIGENVALUE_NAMES = ("max_eig", "min_eig", "max_eig_res", "min_eig_res", "eig_converged")


class EigenvalueEvaluator:
    """Evaluates the ends of the spectrum of networks as they are at the moment of the call.

    The interface is that of evaluator.Evaluator. nets, split, loss, batch_size, precision, params,
    fixed_batches: see Hessian. tol, max_products: see lanczos.
    """

    def __init__(self, nets, split, loss="crossentropy", batch_size=128, precision="",
                 params="weights", tol=TOLERANCE, max_products=MAX_PRODUCTS, fixed_batches=False):
        self.hessian = Hessian(
            nets, split, loss, params, batch_size, precision, fixed_batches=fixed_batches)
        self._tol, self._max_products = tol, max_products
        self.note = f"Hessian over {self.hessian.size} parameters, tolerance {tol:g}"

    @property
    def batch_size(self):
        return self.hessian.batch_size

    @batch_size.setter
    def batch_size(self, batch_size):
        self.hessian.batch_size = batch_size

    def calibrate(self):
        """The fastest batch size, measured."""
        return self.hessian.calibrate()

    def names(self, split):
        """The names of the results for the split: EIGENVALUE_NAMES, whatever it is called."""
        return list(EIGENVALUE_NAMES)

    def spectrum(self, low, high, idle=lambda: None):
        """The `low` smallest and the `high` largest eigenvalues: a Spectrum."""
        start = self.hessian.start(idle)
        return lanczos(
            self.hessian, start, low, high, self._tol, self._max_products, idle=idle)

    def __call__(self, split_names, idle=lambda: None):
        """{name: number} for EIGENVALUE_NAMES; all NaN where the Hessian is not finite."""
        spectrum = self.spectrum(1, 1, idle)
        results = {
            "max_eig": float(spectrum.high[0]),
            "min_eig": float(spectrum.low[0]),
            "max_eig_res": float(spectrum.high_residuals[0]),
            "min_eig_res": float(spectrum.low_residuals[0]),
        }
        if np.isfinite(list(results.values())).all():
            results["eig_converged"] = float(spectrum.converged)
        else:
            results["eig_converged"] = np.nan
        return results


# until all import these from losslandscape.measuring.lanczos
from losslandscape.measuring.lanczos import trace  # noqa: E402, F401
