"""Compute a loss surface: loss and accuracy of a network on a grid of points along one or two directions.

    python plot_surface.py --model resnet56 --model_file MODEL.t7 --x=-1:1:51 --xnorm filter --xignore biasbn --plot
    mpirun -n 4 python plot_surface.py --mpi --cuda --model resnet56 --model_file MODEL.t7 --x=-1:1:51 --y=-1:1:51 \\
        --dir_type weights --xnorm filter --xignore biasbn --ynorm filter --yignore biasbn --plot
    srun -n 8 python plot_surface.py --mpi --cuda ...        on several machines, one rank per GPU

Makes (or reads) the direction file, then the surface file beside it. Killed runs are resumed by the same command.
"""

import argparse
import copy
import importlib.metadata
import os
import platform
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

import dataloader
import errors
import evaluation
import h5_util
import model_loader
import mpi4pytorch
import net_plotter
import projection
import scheduler
from errors import InputError, natural_int, positive_int
from surface_store import SurfaceStore


@dataclass(frozen=True)
class Measurement:
    """What is evaluated at the points. `names`: data split -> the data sets of the surface file that it fills.

    build(nets, data, loss_name, batch_size, precision) -> evaluator, with one network per device and data {split:
    Split}; evaluator(splits, idle) -> {name: number} of the networks as they are then; evaluator.batch_size,
    evaluator.calibrate() -> batch size, evaluator.note: words for the user. draw(surface_file, args) -> written paths.

    A measurement with flags of its own adds them by flags(parser), and settle(args) -> Measurement makes of them
    options (further parts of the surface's name), provenance, and `centre`: {name: f(evaluator) -> JSON value}, what is
    measured once, by rank 0, at the point (0, 0), and kept in the file's provenance.
    report(surface) -> lines for the user when all is done.
    """

    what: str
    names: dict
    build: Callable
    draw: Callable
    flags: Callable = lambda parser: None
    settle: Callable | None = None
    options: tuple = ()
    provenance: dict = field(default_factory=dict)
    centre: dict = field(default_factory=dict)
    report: Callable = lambda surface: ()


def draw_loss(surf_file, args):
    """Draw what --plot asks for; returns the paths."""
    import plot_1D
    import plot_2D

    if args.y is None:
        return plot_1D.plot_1d_loss_err(surf_file, loss_max=args.loss_max, log=args.log, show=args.show)
    level = dict(vmin=args.vmin, vmax=args.vmax, vlevel=args.vlevel, show=args.show)
    written = plot_2D.plot_2d_contour(surf_file, "train_loss" if args.eval_set != "test" else "test_loss", **level)
    if args.proj_file:
        written += plot_2D.plot_contour_trajectory(surf_file, args.dir_file, args.proj_file, **level)
    return written


LOSS = Measurement(
    "loss",
    {split: (f"{split}_loss", f"{split}_acc") for split in ("train", "test")},
    evaluation.Evaluator,
    draw_loss,
)


def parser(description=__doc__):
    """The flags of plot_surface.py, and of every script that walks over a grid."""
    p = errors.Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    g = p.add_argument_group("processes and devices")
    g.add_argument("--mpi", "-m", action="store_true", help="use MPI (implied by mpirun and srun)")
    g.add_argument("--cuda", "-c", action="store_true", help="evaluate on CUDA")
    g.add_argument("--threads", type=natural_int, default=2,
                   help="accepted for old scripts: the data are held as tensors, no loading threads are needed (2)")
    g.add_argument("--ngpu", type=positive_int, default=1, help="GPUs per rank (1)")
    g.add_argument("--batch_size", type=positive_int,
                   help="minibatch size (default: the fastest, measured on the network)")
    g.add_argument("--precision", default="", choices=[""] + [n for n in evaluation.PRECISIONS if n],
                   help="fp32, tf32 or bf16 (default: what torch does on the device)")
    g = p.add_argument_group("data")
    g.add_argument("--dataset", default="cifar10", help=f"{', '.join(dataloader.DATASETS)} or FILE.npz (cifar10)")
    g.add_argument("--datapath", default="cifar10/data", metavar="DIR", help="folder of the data (cifar10/data)")
    g.add_argument("--raw_data", action="store_true", help="no normalization of the images")
    g.add_argument("--data_split", type=positive_int, default=1, metavar="K", help="use 1/K of the training data (1)")
    g.add_argument("--split_idx", type=natural_int, default=0, metavar="I", help="which of the K parts, 0 to K-1 (0)")
    g.add_argument("--trainloader", default="", metavar="FILE", help="saved training tensors to use instead")
    g.add_argument("--testloader", default="", metavar="FILE", help="saved test tensors to use instead")
    g.add_argument("--eval_set", default="train", choices=("train", "test", "both"), help="what to evaluate (train)")
    g = p.add_argument_group("network")
    g.add_argument("--model", default="resnet56", help="model name (resnet56)")
    g.add_argument("--model_folder", default="", metavar="DIR", help="common folder of the model files")
    g.add_argument("--model_file", default="", metavar="FILE", help="the trained model: the origin of the plot")
    g.add_argument("--model_file2", default="", metavar="FILE", help="x direction = model_file2 - model_file")
    g.add_argument("--model_file3", default="", metavar="FILE", help="y direction = model_file3 - model_file")
    g.add_argument("--loss_name", "-l", default="crossentropy", choices=list(evaluation.LOSSES), help="(crossentropy)")
    g.add_argument("--trust_pickle", action="store_true",
                   help="read checkpoints and saved loaders with pickle, which RUNS THE CODE that they hold")
    g = p.add_argument_group("directions")
    g.add_argument("--dir_file", default="", metavar="FILE", help="an existing direction file to use")
    g.add_argument("--dir_type", default="weights", choices=net_plotter.DIR_TYPES,
                   help="what moves; states: with batch-norm running statistics")
    g.add_argument("--x", metavar="MIN:MAX:NUM", help="x coordinates (-1:1:51; around the path for a PCA --dir_file)")
    g.add_argument("--y", metavar="MIN:MAX:NUM", help="y coordinates; without it the plot is 1-D")
    for axis in "xy":
        g.add_argument(f"--{axis}norm", default="", choices=list(net_plotter.NORMS), help=f"{axis} normalization")
        g.add_argument(f"--{axis}ignore", default="", choices=net_plotter.IGNORES, help="zero biases and batch norm")
    g.add_argument("--same_dir", action="store_true", help="y direction = x direction")
    g.add_argument("--idx", type=natural_int, default=0, help="number of a repeated experiment: its own directions (0)")
    g = p.add_argument_group("files and pictures")
    g.add_argument("--surf_file", default="", metavar="FILE", help="the surface file, new or to be resumed")
    g.add_argument("--proj_file", default="", metavar="FILE", help="projected trajectory to draw over the contours")
    g.add_argument("--loss_max", type=float, help="top of the 1-D loss axis (5, or what the curves need)")
    g.add_argument("--vmin", type=float, help="lowest contour (0.1)")
    g.add_argument("--vmax", type=float, help="highest contour (10)")
    g.add_argument("--vlevel", type=float, help="contour step (0.5)")
    g.add_argument("--show", action="store_true", help="show figures")
    g.add_argument("--log", action="store_true", help="log loss axis")
    g.add_argument("--plot", action="store_true", help="plot when computed")
    return p


# ---------------------------------------------------------------- the run, from top to bottom


def main(argv=None, measurement=LOSS, description=__doc__):
    world = mpi4pytorch.connect()
    with world.guard():
        flags = parser(description)
        measurement.flags(flags)
        args = world.together(flags.parse_args, argv)
        if measurement.settle:
            measurement = world.together(measurement.settle, args)
        if world.size > 1 and not args.mpi and world.rank == 0:
            say(f"{world.size} processes were launched: using MPI although --mpi was not given")

        # what is asked for, checked before anything is written
        args.x, args.y, args.proj_file = world.on_root(limits_of_path, args)
        recipe, grid, options = world.together(plan, args)
        splits = ("train", "test") if args.eval_set == "both" else (args.eval_set,)
        dir_file = args.dir_file or recipe.file_name()
        surf_file = args.surf_file or net_plotter.surface_name(dir_file, str(grid), options + measurement.options)
        world.on_root(check_places, dir_file, surf_file)
        threads = world.share_threads()
        devices = world.together(world.devices, args.cuda, args.ngpu)
        precision = world.together(evaluation.precision_name, args.precision, devices[0])

        # data first: from the seed on, every random number belongs to the network or to the directions
        if not (args.trainloader or args.testloader):
            world.on_root(dataloader.prepare, args.dataset, args.datapath, splits)
        data = world.together(load_data, args, splits, quiet=world.rank > 0)
        net_plotter.seed_everything(args.idx)
        net = world.together(model_loader.load_net, args.model, recipe.model_file, args.trust_pickle)
        world.together(check_fit, net, data)
        made_from = world.on_root(describe, args, recipe)
        directions = world.on_root(setup_direction, args, dir_file, recipe, net, made_from)
        if world.rank == 0 and directions.y is not None:
            print(f"cosine similarity of the x and the y direction: {net_plotter.cosine(directions):.6f}")

        # the surface file, new or taken up again: only rank 0 has it
        provenance = made_from | {
            "directions": net_plotter.directions_hash(directions), "dir_type": args.dir_type, "loss": args.loss_name,
            "precision": precision, "dataset": args.dataset,
        } | measurement.provenance
        names = [name for split in splits for name in measurement.names[split]]
        hashes = world.on_root(lambda: {f"{s}_data": dataloader.split_hash(data[s]) for s in splits})
        store = world.only_root(SurfaceStore, surf_file, grid, names, dir_file, provenance | hashes)
        try:
            missing = world.bcast(store and {s: store.missing(measurement.names[s]).tolist() for s in splits})
            asked = world.bcast(store and [n for n in measurement.centre if n not in store.notes])
            if any(missing.values()) or asked:
                planes, evaluator = world.together(set_up, measurement, net, directions, data, devices, args)
                agree_on_batch_size(world, store, measurement, evaluator, args.batch_size)
                if world.rank == 0:
                    say(announcement(grid, missing, data, world, devices, threads, precision, evaluator, args.model))
                    if hint := world.thread_hint():
                        say(hint)
                crunch(world, store, grid, missing, planes, evaluator)
                if store and asked:
                    store.save(now=True)
                    measure_centre(store, planes, evaluator, {name: measurement.centre[name] for name in asked})
            elif world.rank == 0:
                say(f"all {grid.size} points are in {surf_file} already")
        except scheduler.Interrupted as interrupted:
            store.close()
            world.abort(f"interrupted by {interrupted}: {store.progress()} in {surf_file}; "
                        "the same command goes on from there", interrupted.code)
        finally:
            if store:
                store.close()

        if world.rank == 0:
            print(f"surface file: {surf_file}")
            for line in measurement.report(store.surface):
                print(line)
            for path in measurement.draw(surf_file, args) if args.plot or args.show else ():
                print(f"figure: {path}")


def crunch(world, store, grid, missing, planes, evaluator):
    """Evaluate the missing points ({split: point numbers}) on all ranks, into the store (None except on rank 0)."""
    wanted = {split: set(points) for split, points in missing.items()}
    todo = set().union(*wanted.values())
    levels = [[point for point in level.tolist() if point in todo] for level in scheduler.coarse_to_fine(grid.shape)]
    progress = Progress(len(todo)) if world.rank == 0 else None

    def measure(point, idle):
        for plane in planes:
            plane.place(*grid.point(point))
        return evaluator([split for split in wanted if point in wanted[split]], idle)

    def record(point, values):
        store.record(point, values)
        progress.step()

    scheduler.walk(world, levels, measure, record, store and store.save)
    if progress:
        progress.close()


def measure_centre(store, planes, evaluator, wanted):
    """Measure what is wanted, {name: f(evaluator)}, at the point (0, 0), and put it into the file."""
    for plane in planes:
        plane.place(0.0)
    for name, measure in wanted.items():
        store.note(name, measure(evaluator))


# ---------------------------------------------------------------- the steps


def limits_of_path(args):
    """(x, y, projection files): those given, or limits around an optimizer path when neither --x nor --y is given.

    The path is that of --proj_file, or of the projection files beside a --dir_file that holds a PCA. Raises InputError
    for a path that lies in another plane or starts from another network: it would be drawn over the wrong contours.
    """
    asked = args.x is not None or args.y is not None
    directions = None
    if args.dir_file and os.path.exists(args.dir_file) and (args.proj_file or not asked):
        directions = h5_util.read_directions(args.dir_file)
    found = [args.proj_file] if args.proj_file else []
    if not found and directions and "explained_variance_ratio_" in directions.extra:
        found = projection.projections_of(args.dir_file)
        if not found:
            say(f"note: no projected path beside {args.dir_file}, so the grid is 1-D; plot_trajectory.py projects one")
    origin = os.path.join(args.model_folder, args.model_file)
    now = {"--dir_file": ("directions", directions and net_plotter.directions_hash(directions)),
           "--model_file": ("checkpoint", found and os.path.isfile(origin) and model_loader.checkpoint_hash(origin))}
    for file in found:
        old = h5_util.read_projection(file)[1]
        for flag, (key, value) in now.items():
            if value and old.get(key, value) != value:
                raise InputError(f"expected the {flag} that the path in {file} was projected with "
                                 f"({old.get('model_file', '') if key == 'checkpoint' else 'another plane'}); "
                                 "give that one, or a grid with --x and --y and no --proj_file")
    if not found or asked:
        return args.x, args.y, args.proj_file
    import plot_2D

    box = plot_2D.widened(plot_2D.path_box(found), 0.1)
    x, y = projection.limits_around(*box[:2]), projection.limits_around(*box[2:])
    say(f"grid around the path in {', '.join(found)}: --x={x} --y={y}")
    return x, y, found


def plan(args):
    """(recipe of the directions, grid, options that the surface's name shows) from the flags; raises InputError."""
    grid = h5_util.Grid.parse("-1:1:51" if args.x is None else args.x, args.y)
    if args.split_idx >= args.data_split:
        raise InputError(f"expected --split_idx below --data_split {args.data_split}, got {args.split_idx}; "
                         "the parts are numbered from 0")
    if args.model_file3 and args.y is None:
        raise InputError("--model_file3 gives the y direction: give --y=min:max:count as well")
    files = [os.path.join(args.model_folder, file) if file and args.model_folder else file
             for file in (args.model_file, args.model_file2, args.model_file3)]
    x = net_plotter.Axis(args.xnorm, args.xignore, files[1])
    y = None if args.y is None else net_plotter.Axis(args.ynorm, args.yignore, files[2])
    recipe = net_plotter.Recipe(files[0], x, y, args.dir_type, args.same_dir, args.idx)
    dataset = os.path.splitext(os.path.basename(args.dataset))[0]
    options = (
        ("rawdata", args.raw_data),
        ("datasplit", f"{args.data_split}_splitidx={args.split_idx}" if args.data_split > 1 else ""),
        ("dataset", dataset if args.dataset != "cifar10" else ""),
        *((flag, os.path.basename(getattr(args, flag))) for flag in ("trainloader", "testloader")),
        ("loss", args.loss_name if args.loss_name != "crossentropy" else ""),
        ("precision", args.precision),
    )
    return recipe, grid, options


def check_places(*paths):
    """Raises InputError where a file that does not exist yet could not be written."""
    for path in paths:
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            raise InputError(f"expected a folder {folder} for {os.path.basename(path)}, found none; "
                             "check --model_file, or create it")
        if os.path.isdir(path):
            raise InputError(f"expected a file at {path}, found a folder; choose another name")
        if not os.path.exists(path) and not os.access(folder, os.W_OK):
            raise InputError(f"can't write to {folder} to make {os.path.basename(path)}; make it writable, or name "
                             "another place with --dir_file and --surf_file")


def load_data(args, splits, quiet):
    """{split: Split} of what is evaluated."""
    data = dataloader.load_dataset(
        args.dataset, args.datapath, raw_data=args.raw_data, data_split=args.data_split, split_idx=args.split_idx,
        splits=splits, trainloader=args.trainloader, testloader=args.testloader, trust_pickle=args.trust_pickle,
        quiet=quiet)
    return {split: getattr(data, split) for split in splits}


def check_fit(net, data):
    """Raises InputError unless the network takes the inputs and has an output for every label."""
    for name, split in data.items():
        shape = tuple(split.inputs.shape[1:])
        own = next(net.parameters()).dtype
        try:
            with torch.no_grad():
                classes = net(split.inputs[:2].to(own)).shape[-1]
        except RuntimeError as error:
            raise InputError(f"expected a network for inputs of shape {shape} ({name} set), but it fails on them "
                             f"({str(error).splitlines()[0]}); check --model and --dataset") from None
        largest = int(split.targets.max())
        if largest >= classes:
            raise InputError(f"expected labels below {classes}, the number of outputs of the network, got {largest} "
                             f"in the {name} set; check --dataset and --model_file")


def describe(args, recipe):
    """Where directions and surface come from: part of the provenance of both files."""
    files = {"checkpoint": recipe.model_file, "checkpoint2": recipe.x.model_file,
             "checkpoint3": recipe.y.model_file if recipe.y else ""}
    return {key: model_loader.checkpoint_hash(file) for key, file in files.items() if file} | {
        "model": args.model,
        "model_file": recipe.model_file,
    } | circumstances()


def circumstances():
    """By which command, where, when and with which versions a file is made: for whoever reads its provenance."""
    return {
        "command": " ".join(sys.argv),
        "host": socket.gethostname(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version()} | {
            package: importlib.metadata.version(package) for package in ("torch", "numpy", "h5py")},
    }


def setup_direction(args, dir_file, recipe, net, made_from):
    """The directions at `dir_file`, read or made."""
    random_axes = [axis for axis in (recipe.x, recipe.y) if axis and not axis.model_file]
    if not args.dir_file and any(axis.norm == "" for axis in random_axes):
        say("warning: a random direction without normalization (--xnorm filter, --ynorm filter) says little about "
            "the network: the scale of the weights decides the picture (Li et al. 2018, section 4)")

    def load_other(model_file):
        other = model_loader.load_net(args.model, model_file, args.trust_pickle)
        shapes = [[tuple(t.shape) for t in net_plotter.tensors_of(n, "states")] for n in (net, other)]
        if shapes[0] != shapes[1]:
            raise InputError(f"expected {model_file} to have the tensors of {recipe.model_file}; check --model_file2")
        return other

    # a file that the user names may come from elsewhere (a PCA, another network's plane): only its shapes must fit
    checked = {} if args.dir_file else made_from | {"dir_type": recipe.dir_type}
    return net_plotter.setup_direction(dir_file, recipe, net, load_other, checked or made_from, check=bool(checked))


def set_up(measurement, net, directions, data, devices, args):
    """(planes, evaluator): one copy of the network per device, ready to be moved and measured."""
    nets = [net if i == 0 else copy.deepcopy(net) for i in range(len(devices))]
    nets = [n.to(device, memory_format=torch.channels_last) for n, device in zip(nets, devices, strict=True)]
    planes = [net_plotter.Plane(n, directions, args.dir_type) for n in nets]
    return planes, measurement.build(nets, data, args.loss_name, args.batch_size or 128, args.precision)


def agree_on_batch_size(world, store, measurement, evaluator, asked):
    """The batch size that was asked for, else the one that the file began with, else the fastest; on every rank."""
    key = "batch_size" if measurement.what == "loss" else f"{measurement.what}_batch_size"
    if asked is None:
        found = store and (store.surface.provenance.get(key) or evaluator.calibrate())
        evaluator.batch_size = world.bcast(found)
    if store:
        store.surface.provenance[key] = evaluator.batch_size


def announcement(grid, missing, data, world, devices, threads, precision, evaluator, model):
    """One line: how much work there is, and who does it."""
    todo = len(set().union(*missing.values()))
    resumed = f" ({grid.size - todo} done before)" if todo < grid.size else ""
    images = " + ".join(f"{len(split.targets)} {name}" for name, split in data.items())
    ranks = "1 rank" if world.size == 1 else f"{world.size} ranks"
    where = f"{len(devices)} x " if len(devices) > 1 else ""
    cpu = f", {threads} thread{'s' * (threads > 1)} each" if devices[0].type == "cpu" else ""
    return (f"{todo} points{resumed} x {images} images, {model} on {ranks} ({where}{devices[0].type}{cpu}), "
            f"{precision}, batch {evaluator.batch_size}, {evaluator.note}")


class Progress:
    """Points/s and the time left: a bar on a terminal, else a line every 30 s."""

    def __init__(self, total):
        from tqdm import tqdm

        self._tty = sys.stderr.isatty()
        self._bar = tqdm(total=total, unit="point", file=sys.stderr, dynamic_ncols=True) if self._tty else None
        self._total, self._done = total, 0
        self._start = self._last = time.monotonic()
        self._interval = tqdm.format_interval

    def step(self):
        self._done += 1
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update()
        elif now - self._last > 30 or self._done == self._total:
            rate = self._done / (now - self._start)
            say(f"{self._done} of {self._total} points, {rate:.3g} points/s, "
                f"{self._interval((self._total - self._done) / rate)} left")
            self._last = now

    def close(self):
        if self._bar is not None:
            self._bar.close()


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    errors.run(main)
