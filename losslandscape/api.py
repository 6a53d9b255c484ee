"""Loss surfaces from a notebook or a training script: no files, no MPI.

    import sys; sys.path.append("path/of/the/clone")
    from losslandscape import api as landscape

    axes = landscape.directions(net)                                     # two random, filter-normalized ones
    measure = landscape.losses(inputs, targets)                          # or any function(net) -> {name: number}
    found = landscape.surface(net, axes, measure, x="-1:1:21", y="-1:1:21")
    landscape.plot(found, path="surface.png")                            # a matplotlib figure

What `surface` returns is h5_util.Surface: found.grid, found.values["train_loss"] (ny, nx). h5_util.write_surface(path,
found) makes it a file for plot_2D.py, h52vtp.py and the others.
"""

import contextlib

import numpy as np
import torch
from tqdm import tqdm

from losslandscape import directions as net_plotter
from losslandscape import evaluator as evaluation
from losslandscape import scheduler
from losslandscape.data.splits import as_split
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util

__all__ = ["directions", "losses", "plot", "surface"]


def directions(net, dimensions=2, norm="filter", ignore="biasbn", dir_type="weights", seed=net_plotter.SEED, towards=(),
               params="", freeze=""):
    """One or two directions in the weight space of `net`: h5_util.Directions, of arrays in the parameters' shapes.

    Random ones, Gaussian and filter-normalized (Li et al. 2018, section 4), unless `towards` names networks: then x
    leads from `net` to the first of them, and y to the second, (1, 0) being the first. norm: see net_plotter.NORMS.
    ignore='biasbn': biases and batch norm do not move. dir_type='states': running statistics move too. params, freeze:
    regular expressions; only tensors with the one in their names, and without the other, move. torch's random stream is
    left as it was. Raises InputError for anything else.
    """
    if dimensions not in (1, 2) or len(towards) > 2:
        raise InputError(f"expected 1 or 2 dimensions, got {max(dimensions, len(towards))}; a surface has two axes")
    if norm not in net_plotter.NORMS or ignore not in net_plotter.IGNORES:
        raise InputError(f"expected norm {', '.join(map(repr, net_plotter.NORMS))} and ignore '' or 'biasbn', "
                         f"got {norm!r} and {ignore!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cpu = [t.detach().cpu() for t in net_plotter.tensors_of(net, dir_type)]
        if towards:
            axes = [[b.detach().cpu().float() - a.float() for a, b in zip(
                cpu, net_plotter.tensors_of(other, dir_type), strict=True)] for other in towards]
        else:
            axes = [net_plotter.normalize_direction([torch.randn(w.shape) for w in cpu], cpu, norm, ignore)
                    for _ in range(dimensions)]
    recipe = net_plotter.Recipe("net", net_plotter.Axis(), dir_type=dir_type, params=params, freeze=freeze)
    arrays = [[t.numpy() for t in axis] for axis in axes]
    return net_plotter.restrict(h5_util.Directions(*arrays), net, recipe)


def losses(inputs, targets=None, loss_name="crossentropy", metric="", batch_size=None, precision="", name="train"):
    """A measure for `surface`: {NAME_loss: mean loss, NAME_acc: percent} of a network over data, fast.

    inputs, targets: tensors (N, ...); or, without targets, a data set or batches as splits.as_split takes them.
    loss_name: crossentropy, mse, torch.nn:Name, or a function(output, targets). metric: accuracy where targets are
    classes, unless it is 'none' or a function's FILE.py:name. batch_size: None picks the fastest.
    """
    split = as_split(inputs if targets is None else (inputs, targets), "the data")
    ready = []

    def measure(net):
        if not ready or ready[0] is not net:
            some, labels = next(iter(split.batches(2)))
            device = next(net.parameters()).device
            with torch.no_grad():
                output = evaluation.apply(net, evaluation.each(some, lambda t: t[:2].to(device)))
            chosen = evaluation.choose_metric(metric, output, labels[:2].to(device))
            ready[:] = net, evaluation.Evaluator([net], {name: split}, loss_name, batch_size, precision, chosen)
        return ready[1]([name])

    return measure


def surface(net, directions, measure, x="-1:1:51", y=None, dir_type="weights", progress=True):
    """Values of measure(net) -> {name: number} at every point of a grid: h5_util.Surface.

    x, y: 'min:max:count', or increasing coordinates; without y the surface is 1-D and takes the x direction only. The
    network is put at weights + x * dx + y * dy, in eval mode, one point after the other, and is afterwards what it was,
    whatever happens. Raises InputError where the directions do not fit the network, or measure gives no numbers.
    """
    grid = h5_util.Grid(*(coordinates(axis, value) for axis, value in (("x", x), ("y", y))))
    net_plotter.check_fit("the directions", directions, net, dir_type, need_y=y is not None)
    points = np.concatenate(scheduler.coarse_to_fine(grid.shape)).tolist()
    values = {}
    with as_it_was(net, dir_type), torch.no_grad():
        net.eval()
        plane = net_plotter.Plane(net, directions, dir_type)
        for point in tqdm(points, unit="point", disable=None if progress else True, leave=False):
            plane.place(*grid.point(point))
            found = measure(net)
            if not isinstance(found, dict) or not found:
                raise InputError(f"expected a dict of numbers from measure(net), got {type(found).__name__}; "
                                 'return {"train_loss": loss}')
            for name, value in found.items():
                values.setdefault(name, np.full(grid.shape, np.nan)).flat[point] = float(value)
    computed = {name: np.ones(grid.shape, bool) for name in values}
    return h5_util.Surface(grid, values, computed, provenance={"model": type(net).__name__})


def coordinates(axis, value):
    """(n,) of 'min:max:count' or of numbers; None stays None."""
    if value is None:
        return None
    if isinstance(value, str):
        return np.linspace(*h5_util.limits(axis, value))
    value = np.asarray(value, float)
    if value.ndim != 1 or len(value) == 0 or not np.isfinite(value).all() or not (np.diff(value) > 0).all():
        raise InputError(f"expected {axis} as 'min:max:count' or as increasing numbers, got {value!r}")
    return value


@contextlib.contextmanager
def as_it_was(net, dir_type):
    """Put the tensors of `net`, and the modes of its modules, back at the end."""
    kept = [(t, t.data, t.data.clone()) for t in net_plotter.tensors_of(net, dir_type)]
    modes = [(module, module.training) for module in net.modules()]
    try:
        yield
    finally:
        for tensor, memory, values in kept:
            memory.copy_(values)  # of another dtype than float32 they were moved in place
            tensor.data = memory
        for module, training in modes:
            module.training = training


def plot(surface, name=None, kind="2dcontour", path="", title=None, **scale):
    """Draw a surface; returns the matplotlib figure, and writes it to `path` (.pdf, .png, .svg) if one is given.

    name: which values (the first). kind, for a plane: 2dcontour, 2dcontourf, 2dheat or 3dsurface. scale: vmin, vmax,
    vlevel and log of a plane, loss_max and log of a line.
    """
    import plot_1D
    import plot_2D
    from losslandscape.pictures import style as figures

    name = name or next(iter(surface.values))
    with figures.style():
        if surface.grid.y is None:
            curves = plot_1D.curves_of(surface)
            figure = plot_1D.curve_figure(curves, name, plot_1D.x_limits([curves], None, None), scale.get("loss_max"),
                                          scale.get("log", False), title, False)
        else:
            if kind not in plot_2D.FIGURES:
                raise InputError(f"expected kind {', '.join(plot_2D.FIGURES)}, got {kind!r}")
            plane = plot_2D.make_plane(surface, surface.get(name), name, "the surface", title)
            chosen = plot_2D.choose_scale([plane], **scale)
            figure = plot_2D.FIGURES[kind](plane, chosen, plot_2D.axis_labels(""), False, log=scale.get("log", False))
        if path:
            figures.save(figure, path)
    return figure
