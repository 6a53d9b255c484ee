"""Loss surfaces from a notebook or a training script: no files, no MPI. See `help(losslandscape)` for an example.

Importing this module imports torch; drawing (losslandscape.plot), saving and reading do without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from losslandscape import scheduler
from losslandscape.data.splits import as_split
from losslandscape.errors import InputError
from losslandscape.estimation.rounds import Request
from losslandscape.estimation.surface import InMemory, estimate, reason_against_samples
from losslandscape.files.grid import Grid, Surface, limits
from losslandscape.files.layouts import Directions
from losslandscape.measuring import vetting
from losslandscape.measuring.copies import independent_copy
from losslandscape.measuring.evaluator import Evaluator
from losslandscape.measuring.fitting import Fit, fit_to_data
from losslandscape.measuring.guard import GuardedPlane
from losslandscape.measuring.noise import undisturbed
from losslandscape.measuring.own_function import UserFunction, context_on, numbers_of
from losslandscape.messages import say
from losslandscape.networks.own import check_tensors
from losslandscape.ranks import World
from losslandscape.weight_space import (
    IGNORES,
    NORMS,
    SEED,
    Axis,
    Recipe,
    WeightPlane,
    as_float32,
    check_shapes,
    draw_like,
    normalize_direction,
    refuse_zero,
    restrict,
    tensors_of,
)

__all__ = ["directions", "losses", "surface"]

Measure = Callable[..., dict[str, float]]  # of (net) or (net, context)


def directions(
    net: nn.Module,
    dimensions: int = 2,
    norm: str = "filter",
    ignore: str = "biasbn",
    dir_type: str = "weights",
    seed: int = SEED,
    towards: Sequence[nn.Module] = (),
    params: str = "",
    freeze: str = "",
) -> Directions:
    """One or two directions in the weight space of a network.

    They are random, Gaussian and filter-normalized (Li et al. 2018, section 4), unless `towards` names networks.
    torch's random stream is left as it was.

    Args:
        net: the network at the origin.
        dimensions: 1 or 2.
        norm: how a random direction is scaled to the weights: 'filter', 'layer', 'weight', 'dfilter', 'dlayer' or ''.
        ignore: 'biasbn' leaves biases and batch norm where they are; '' moves them along their own values.
        dir_type: 'weights' moves parameters; 'states' moves running statistics too.
        seed: of the random directions; the default is that of the command line.
        towards: one or two networks: x leads from `net` to the first, y to the second; (1, 0) is the first.
        params: a regular expression; move only tensors whose name matches it.
        freeze: a regular expression; don't move tensors whose name matches it.

    Returns:
        Directions whose `x` (and `y`) are lists of float32 arrays in the shapes of the network's tensors, in the order
        of net.parameters() (weights) or net.state_dict() (states).

    Raises:
        InputError: for anything else, and where nothing is left that moves.
    """
    if dimensions not in (1, 2) or len(towards) > 2:
        raise InputError(
            f"expected 1 or 2 dimensions, got {max(dimensions, len(towards))}; a surface has two axes")
    if norm not in NORMS or ignore not in IGNORES:
        names = ", ".join(repr(name) for name in NORMS)
        raise InputError(f"expected norm {names} and ignore '' or 'biasbn', got {norm!r} and {ignore!r}")

    for network in (net, *towards):
        check_tensors(network)
    weights = [tensor.detach().cpu() for tensor in tensors_of(net, dir_type)]
    if towards:
        axes = [difference(weights, tensors_of(other, dir_type)) for other in towards]
    else:
        axes = random_axes(weights, dimensions, norm, ignore, seed)

    arrays = [[tensor.numpy() for tensor in axis] for axis in axes]
    for letter, axis in zip("xy", arrays, strict=False):
        refuse_zero(letter, axis, Axis(norm, ignore))
    recipe = Recipe("net", Axis(), dir_type=dir_type, params=params, freeze=freeze)
    return restrict(Directions(*arrays), net, recipe)


def difference(start: list[Tensor], end: list[Tensor]) -> list[Tensor]:
    """The direction from some weights to others, float32."""
    return [as_float32(b.cpu()) - as_float32(a) for a, b in zip(start, end, strict=True)]


def random_axes(weights: list[Tensor], dimensions: int, norm: str, ignore: str, seed: int) -> list[list[Tensor]]:
    """Random, normalized directions; torch's random stream is left as it was."""
    axes = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(dimensions):
            noise = [draw_like(tensor) for tensor in weights]
            axes.append(normalize_direction(noise, weights, norm, ignore))
    return axes


def losses(
    inputs: Any,
    targets: Tensor | np.ndarray | None = None,
    loss_name: str | Callable[[Any, Tensor], Tensor] = "crossentropy",
    metric: str = "",
    batch_size: int | None = None,
    precision: str = "",
    name: str = "train",
    noise_seed: int | None = None,
) -> Measure:
    """A measure for `surface`: mean loss, and metric, of a network over data, as fast as the bare network.

    Args:
        inputs: tensor (N, ...), or a tuple or dict of them; or, without targets, a data set or batches.
        targets: tensor (N, ...).
        loss_name: 'crossentropy', 'mse', 'model' (the loss that the network computes itself, which is also taken in
            place of 'crossentropy' where there is one), 'torch.nn:Name', 'FILE.py:name', an instance of a loss of
            torch.nn, or a function(output, targets) or (output, targets, net) that gives one number per sample, (B,),
            or the mean of the batch.
        metric: 'accuracy', 'none' or 'FILE.py:name'; '' is accuracy where the targets are classes.
        batch_size: None measures which is fastest. Losses that are no mean over samples need one.
        precision: 'fp32', 'tf32' or 'bf16'; '' is what torch does on the device.
        name: of the data, in the names of the results.
        noise_seed: of the random numbers that network or loss draw: the same ones at every point.

    Returns:
        function(net) -> {NAME_loss: mean loss, NAME_acc: percent}.

    Raises:
        InputError: where data or loss can't be used; at the first network that is measured, where they don't go
            together with it.
    """
    split = as_split(inputs if targets is None else (inputs, targets), "the data")
    return LossMeasure({name: split}, loss_name, metric, batch_size, precision, noise_seed)


class LossMeasure:
    """What `losses` returns: function(net) -> {name: number}, prepared for the network of the last call.

    plain: without folded batch norm, channels-last memory and CUDA graphs.
    """

    def __init__(self, data, loss, metric, batch_size, precision, noise_seed):
        self._data, self._loss, self._metric = data, loss, metric
        self._batch_size, self._precision, self._noise_seed = batch_size, precision, noise_seed
        self.plain = False
        self._net: nn.Module | None = None
        self._fit: Fit | None = None
        self._evaluator: Evaluator | None = None

    def __call__(self, net: nn.Module) -> dict[str, float]:
        fit = self._fit_to(net)
        if self._evaluator is None:
            self._evaluator = fit.evaluator([net], self._data, self._batch_size, self._precision, plain=self.plain)
        return self._evaluator(list(self._data))

    def sampled(self, net):
        """(evaluator, {split: names of its results}, {split: Split}) of single samples of a network.

        Raises InputError where single samples say nothing about the loss.
        """
        fit = self._fit_to(net)
        reason = reason_against_samples(fit, self._data)
        if reason:
            raise InputError(f"expected {reason}; leave tolerance and budget out")
        self(net)  # makes the evaluator
        names = {split: self._evaluator.names(split) for split in self._data}
        return self._evaluator, names, self._data

    def _fit_to(self, net):
        """What was found out about this network and the data."""
        if self._net is not net:
            fit = fit_to_data(net, self._data, self._loss, self._metric, self._batch_size, self._noise_seed)
            for remark in fit.remarks:
                say(f"note: {remark}")
            self._net, self._fit, self._evaluator = net, fit, None
        return self._fit

    def vet(self, net, copy_of_net, plane, directions, dir_type, grid):
        """See that the losses of the network that `plane` moves are its own; see vetting.py.

        copy_of_net: a copy, made before. Raises InputError where they are not.
        """
        fit = self._fit_to(net)
        samples = vetting.vetted_samples(self._data)
        batch_size = self._batch_size or vetting.VETTED_SAMPLES
        precision = "bf16" if self._precision == "bf16" else "fp32"  # differences of TF32 would hide others

        def evaluator(network, precision, plain):
            return fit.evaluator([network], samples, batch_size, precision, plain=plain)

        plain = vetting.needs_plain_passes(vetting.Vetting(
            moved=lambda plain: ([plane], evaluator(net, precision, plain)),
            build=lambda: independent_copy(copy_of_net),
            evaluate=lambda network, precision: evaluator(network, precision, plain=True),
            precision=precision,
            axes=directions,
            dir_type=dir_type,
            grid=grid,
            splits=list(self._data),
        ))
        if plain != self.plain:
            self.plain, self._evaluator = plain, None


def copy_before_passes(net: nn.Module) -> nn.Module | None:
    """A copy of a network in eval mode, or None where it can't be copied."""
    try:
        return independent_copy(net).eval()
    except Exception:  # whatever a user's network raises
        return None


def surface(
    net: nn.Module,
    directions: Directions,
    measure: Measure,
    x: str | Sequence[float] = "-1:1:51",
    y: str | Sequence[float] | None = None,
    dir_type: str = "weights",
    progress: bool = True,
    tolerance: float | None = None,
    budget: float | None = None,
    acc_tolerance: float | None = None,
) -> Surface:
    """The values of a measure at every point of a grid.

    The network is put at weights + x * dx + y * dy, in eval mode, one point after the other, and is afterwards what it
    was, whatever happens.

    Args:
        net: the network at the origin, on any device.
        directions: as `losslandscape.directions` makes them.
        measure: function(net) or (net, context) -> {name: number}, or a class of such; see
            losslandscape/measuring/own_function.py. It is called as in plain torch, with gradients, and may change the
            network, which is put back. All random streams begin with the same seed at every call.
        x: 'min:max:count', or increasing coordinates, (nx,).
        y: the same, (ny,); without it the surface is 1-D and takes the x direction only.
        dir_type: as for `directions`.
        progress: show a bar.
        tolerance: estimate the losses of `losslandscape.losses` from few samples, to a standard error of this share of
            them; `surface.values["train_loss_se"]` has the errors. See docs/tolerance.md.
        acc_tolerance: the same for an accuracy, in percentage points; None is 50 times the tolerance.
        budget: seconds that this may take: coarse points first, then where the error is largest.

    Returns:
        Surface: `surface.grid`, `surface.values["train_loss"]` (ny, nx), row = y.

    Raises:
        InputError: where the directions don't fit the network, where the measure gives no numbers, or where the losses
            at some points of the grid would not be the network's own, because it keeps something between two passes.
    """
    grid = Grid(coordinates("x", x), None if y is None else coordinates("y", y))
    check_shapes("the directions", directions, net, dir_type, need_y=y is not None)

    points = np.concatenate(scheduler.coarse_to_fine(grid.shape)).tolist()
    hidden = None if progress else True  # None: hidden where there is no terminal
    values: dict[str, np.ndarray] = {}
    request = None
    if not tolerance is budget is acc_tolerance is None:
        request = Request(tolerance, budget, acc_tolerance)
    copy_of_net = copy_before_passes(net) if isinstance(measure, LossMeasure) else None
    devices = {parameter.device for parameter in net.parameters()}
    with as_it_was(net, dir_type), undisturbed(devices), torch.no_grad():
        net.eval()
        plane = WeightPlane(net, directions, dir_type)
        if copy_of_net is not None:
            measure.vet(net, copy_of_net, plane, directions, dir_type, grid)
        if request is not None:
            return estimated_surface(net, plane, measure, grid, request, progress)
        call = caller_of(measure, net, plane)
        for point in tqdm(points, unit="point", disable=hidden, leave=False):
            numbers = call(*grid.point(point))
            if not values:
                values = {name: np.full(grid.shape, np.nan) for name in numbers}
            if numbers.keys() != values.keys():
                raise InputError(f"expected {', '.join(values)} from the measure at every point, got "
                                 f"{', '.join(numbers)}; return NaN where there is no value")
            for name, value in numbers.items():
                values[name].flat[point] = value

    computed = {name: np.ones(grid.shape, bool) for name in values}
    return Surface(grid, values, computed, provenance={"model": type(net).__name__})


def estimated_surface(net, plane, measure, grid, request, progress):
    """The surface of a LossMeasure, estimated; `plane` moves the network."""
    if not isinstance(measure, LossMeasure):
        raise InputError("expected what losslandscape.losses returns as measure for a tolerance or a budget, got "
                         f"{type(measure).__name__}: it must be known sample by sample; leave both out")
    if request.tolerance is not None and not 0 <= request.tolerance < 1:
        raise InputError(f"expected a tolerance from 0 to below 1, such as 0.01, got {request.tolerance!r}")
    evaluator, names, data = measure.sampled(net)
    store = InMemory(Surface(grid, provenance={"model": type(net).__name__}))
    estimate(World(), grid, data, names, request, store, [plane], evaluator, progress)
    return store.surface


def caller_of(measure: Measure, net: nn.Module, plane: WeightPlane) -> Callable[[float, float], dict[str, float]]:
    """function(x, y) -> {name: number} of the network there. Raises InputError where the measure gives no numbers."""
    if isinstance(measure, LossMeasure):

        def losses_at(x, y):
            plane.place(x, y)
            return measure(net)

        return losses_at

    # any other function may do what it likes to the network
    context = context_on(next(net.parameters()).device)
    guarded = GuardedPlane(net, plane, context)
    name = getattr(measure, "__name__", type(measure).__name__)
    function = UserFunction("the measure", name, measure)
    ready = guarded.call(lambda net, context: function.ready(net, context))

    def measured_at(x, y):
        guarded.place(x, y)
        return numbers_of(guarded.call(ready, plainly=True), ready)

    return measured_at


def coordinates(axis: str, value: str | Sequence[float]) -> np.ndarray:
    """(n,) of 'min:max:count' or of increasing numbers."""
    if isinstance(value, str):
        return np.linspace(*limits(axis, value))
    numbers = np.asarray(value, float)
    if numbers.ndim == 1 and len(numbers) and np.isfinite(numbers).all() and (np.diff(numbers) > 0).all():
        return numbers
    raise InputError(f"expected {axis} as 'min:max:count' or as increasing numbers, got {value!r}")


@contextlib.contextmanager
def as_it_was(net: nn.Module, dir_type: str) -> Iterator[None]:
    """Put the tensors of a network, and the modes of its modules, back at the end."""
    tensors = [(tensor, tensor.data, tensor.data.clone()) for tensor in tensors_of(net, dir_type)]
    modes = [(module, module.training) for module in net.modules()]
    try:
        yield
    finally:
        for tensor, memory, values in tensors:
            memory.copy_(values)  # of another dtype than float32 they were moved in place
            tensor.data = memory
        for module, training in modes:
            module.training = training
