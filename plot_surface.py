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

from losslandscape import checks as sanity
from losslandscape import command, repeats, scheduler, user_code
from losslandscape import directions as net_plotter
from losslandscape import evaluator as evaluation
from losslandscape import ranks as mpi4pytorch
from losslandscape import trajectory as projection
from losslandscape.command import natural_int, positive_int
from losslandscape.data import datasets as dataloader
from losslandscape.data.splits import Batches, apply, each, shapes
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.files.store import SurfaceStore
from losslandscape.networks import loading as model_loader


@dataclass(frozen=True)
class Measurement:
    """What is evaluated at the points. names(split, metric) -> the data sets of the surface file that a split fills.

    build(nets, data, loss_name, batch_size, precision, metric=, bn=) -> evaluator, with one network per device and data
    {split: Split}; evaluator(splits, idle) -> {name: number} of the networks as they are then; evaluator.batch_size,
    evaluator.calibrate() -> batch size, evaluator.note: words for the user. draw(surface_file, args) -> written paths.

    A measurement with flags of its own adds them by flags(parser), and settle(args) -> Measurement makes of them
    options (further parts of the surface's name), provenance, and `centre`: {name: f(evaluator) -> JSON value}, what is
    measured once, by rank 0, at the point (0, 0), and kept in the file's provenance.
    report(surface) -> lines for the user when all is done.
    """

    what: str
    names: Callable
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
    name = "test_loss" if args.eval_set == "test" else "train_loss"
    level = dict(vmin=args.vmin, vmax=args.vmax, vlevel=args.vlevel, show=args.show, log=args.log)
    written = plot_2D.plot_2d_contour(surf_file, name, **level)
    if args.proj_file:
        written += plot_2D.plot_contour_trajectory(surf_file, args.dir_file, args.proj_file, name, **level)
    return written


def loss_names(split, metric):
    return [f"{split}_loss", *filter(None, [evaluation.metric_name(metric, split)])]


LOSS = Measurement("loss", loss_names, evaluation.Evaluator, draw_loss)


def parser(description=__doc__):
    """The flags of plot_surface.py, and of every script that walks over a grid."""
    p = command.Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    g = p.add_argument_group("processes and devices")
    g.add_argument("--mpi", "-m", action="store_true", help="use MPI (implied by mpirun and srun)")
    g.add_argument("--cuda", "-c", action="store_true", help="evaluate on CUDA")
    g.add_argument("--threads", type=natural_int, default=2,
                   help="processes that read data which don't fit into memory (2)")
    g.add_argument("--ngpu", type=positive_int, default=1, help="GPUs per rank (1)")
    g.add_argument("--batch_size", type=positive_int,
                   help="minibatch size (default: the fastest, measured on the network)")
    g.add_argument("--precision", default="", choices=[""] + [n for n in evaluation.PRECISIONS if n],
                   help="fp32, tf32 or bf16 (default: what torch does on the device)")
    g = p.add_argument_group("data")
    g.add_argument("--dataset", default="cifar10", help=f"{dataloader.FORMS} (cifar10)")
    g.add_argument("--datapath", default="cifar10/data", metavar="DIR", help="folder of the data (cifar10/data)")
    g.add_argument("--raw_data", action="store_true", help="no normalization of the images")
    g.add_argument("--data_split", type=positive_int, default=1, metavar="K", help="use 1/K of the training data (1)")
    g.add_argument("--split_idx", type=natural_int, default=0, metavar="I", help="which of the K parts, 0 to K-1 (0)")
    g.add_argument("--trainloader", default="", metavar="FILE", help="saved training tensors to use instead")
    g.add_argument("--testloader", default="", metavar="FILE", help="saved test tensors to use instead")
    g.add_argument("--eval_set", default="train", choices=("train", "test", "both"), help="what to evaluate (train)")
    g = p.add_argument_group("network")
    g.add_argument("--model", default="resnet56",
                   help="model name, FILE.py:function or package.module:function (resnet56)")
    g.add_argument("--model_kwargs", default="", metavar="JSON", help="keyword arguments of that function")
    g.add_argument("--model_folder", default="", metavar="DIR", help="common folder of the model files")
    g.add_argument("--model_file", default="", metavar="FILE", help="the trained model: the origin of the plot")
    g.add_argument("--model_file2", default="", metavar="FILE", help="x direction = model_file2 - model_file")
    g.add_argument("--model_file3", default="", metavar="FILE", help="y direction = model_file3 - model_file")
    g.add_argument("--loss_name", "-l", default="crossentropy",
                   help=f"{', '.join(evaluation.LOSSES)}, torch.nn:Name or FILE.py:function (crossentropy)")
    g.add_argument("--metric", default="", help=f"{', '.join(evaluation.METRICS)} or FILE.py:function "
                                                "(accuracy where the targets are classes)")
    g.add_argument("--bn", default="frozen", choices=("frozen", "recalibrate"),
                   help="batch-norm statistics: the checkpoint's, or those of the training data at each point (frozen)")
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
    g.add_argument("--params", default="", metavar="REGEX", help="only parameters whose names it is found in move "
                   "(plot_hessian_eigen.py: and are differentiated; or weights, those of >= 2 dimensions; or all)")
    g.add_argument("--freeze", default="", metavar="REGEX", help="parameters whose names it is found in do not move")
    g.add_argument("--idx", type=natural_int, default=0, help="number of a repeated experiment: its own directions (0)")
    g.add_argument("--repeats", type=positive_int, default=1, metavar="K",
                   help="K experiments, from --idx on: how much does the plane matter? (1)")
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
    g.add_argument("--check", action="store_true", help="a minute's test of whether the plot will be right; no surface")
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
        model = world.together(model_loader.Architecture.parse, args.model, args.model_kwargs)
        grid, splits, experiments = world.together(plan, args, model, measurement.options)
        if not args.check:
            world.on_root(check_places, *(file for e in experiments for file in (e.dir_file, e.surf_file)))
        threads = world.share_threads()
        devices = world.together(world.devices, args.cuda, args.ngpu)
        precision = world.together(evaluation.precision_name, args.precision, devices[0])

        # data first: from the seed on, every random number belongs to the network or to the directions
        read = splits if args.bn == "frozen" else sorted({"train", *splits}, reverse=True)
        if not (args.trainloader or args.testloader):
            world.on_root(dataloader.prepare, args.dataset, args.datapath, read)
        data = world.together(load_data, args, read, world)
        hashes = {f"{s}_data": dataloader.split_hash(split) for s, split in data.items()}
        world.together(refuse_other_data, args, hashes, world.bcast(hashes))
        run = Run(world, args, measurement, model, grid, splits, data, hashes, devices, threads, precision)
        if args.check:
            run.check(experiments[0])
            return
        for experiment in experiments:
            run.compute(experiment)
        if world.rank == 0:
            draw(args, measurement, [e.surf_file for e in experiments])


@dataclass(frozen=True)
class Experiment:
    """One surface: how its directions are made, and its files."""

    recipe: net_plotter.Recipe
    dir_file: str
    surf_file: str


@dataclass(frozen=True)
class Run:
    """What the repeats of an experiment have in common; `compute` makes the surface of one of them."""

    world: mpi4pytorch.World
    args: argparse.Namespace
    measurement: Measurement
    model: model_loader.Architecture
    grid: h5_util.Grid
    splits: tuple
    data: dict
    hashes: dict
    devices: list
    threads: int
    precision: str

    def load(self, recipe):
        """(network, metric, where network and directions are from), after the seed of the experiment."""
        world, args = self.world, self.args
        net_plotter.seed_everything(recipe.idx)
        net = world.together(model_loader.load_net, self.model, recipe.model_file if args.model_file else "",
                             args.trust_pickle)
        # the draws of a network that tests something by chance must not reach the directions
        with torch.random.fork_rng(devices=[]):
            metric = world.together(check_fit, net, self.data, args, world.rank == 0)
        return net, metric, world.on_root(describe, args, self.model, recipe, net)

    def compute(self, experiment):
        """Compute what is missing of a surface."""
        world, args, measurement, grid = self.world, self.args, self.measurement, self.grid
        recipe, dir_file, surf_file = experiment.recipe, experiment.dir_file, experiment.surf_file
        net, metric, made_from = self.load(recipe)
        directions = world.on_root(setup_direction, args, self.model, dir_file, recipe, net, made_from)
        if world.rank == 0 and directions.y is not None:
            print(f"cosine similarity of the x and the y direction: {net_plotter.cosine(directions):.6f}")

        # the surface file, new or taken up again: only rank 0 has it
        provenance = made_from | {
            "directions": net_plotter.directions_hash(directions), "dir_type": args.dir_type, "loss": args.loss_name,
            "precision": self.precision, "dataset": args.dataset, "bn": args.bn,
        } | measurement.provenance | self.hashes
        names = {split: measurement.names(split, metric) for split in self.splits}
        store = world.only_root(SurfaceStore, surf_file, grid, sum(names.values(), []), dir_file, provenance)
        try:
            missing = world.bcast(store and {split: store.missing(names[split]).tolist() for split in names})
            asked = world.bcast(store and [n for n in measurement.centre if n not in store.notes])
            if any(missing.values()) or asked:
                planes, evaluator = world.together(
                    set_up, measurement, net, directions, self.data, self.devices, args, metric)
                agree_on_batch_size(world, store, measurement, evaluator, args.batch_size)
                if world.rank == 0:
                    say(announcement(self, missing, evaluator))
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

    def check(self, experiment):
        """Print whether the plot that the flags ask for will be right: sanity.py."""
        args, recipe = self.args, experiment.recipe
        net, metric, made_from = self.load(recipe)
        if self.world.rank == 0:
            directions = setup_direction(
                args, self.model, experiment.dir_file, recipe, net, made_from, write=False)
            planes, _ = set_up(self.measurement, net, directions, self.data, self.devices[:1], args, metric)

            def build(data):
                return evaluation.Evaluator([net], data, args.loss_name, args.batch_size or 128, args.precision, metric,
                                            args.bn)

            info = model_loader.read_checkpoint(recipe.model_file, args.trust_pickle).info if args.model_file else {}
            sanity.print_report(sanity.Subject(
                net, planes[0], build, self.data, self.grid, info, recipe, self.grid.size * args.repeats,
                self.world.size, args.vmax or 10.0))
        self.world.bcast()  # the others wait


def draw(args, measurement, surf_files):
    """Draw what --plot asks for, of one experiment or of its repeats, and say where."""
    wanted = args.plot or args.show
    if len(surf_files) > 1:
        summary, lines = repeats.write(surf_files)
        print("\n".join(lines))
        written = draw_repeats(args, summary, surf_files[0]) if wanted else []
    else:
        written = measurement.draw(surf_files[0], args) if wanted else []
    for path in written:
        print(f"figure: {path}")


def draw_repeats(args, summary, first):
    """Median and band of 1-D repeats; median and interquartile range of 2-D ones."""
    import plot_1D
    import plot_2D

    if args.y is None and "loss" not in h5_util.read_surface(summary).main_name:  # eigenvalues
        return plot_1D.plot_1d_loss_err(summary, log=args.log, show=args.show)
    if args.y is None:
        return plot_1D.plot_1d_loss_err_repeat(first, args.idx, args.idx + args.repeats - 1, loss_max=args.loss_max,
                                               log=args.log, show=args.show)
    name = h5_util.read_surface(summary).main_name
    return (plot_2D.plot_2d_contour(summary, name, args.vmin, args.vmax, args.vlevel, args.show, log=args.log)
            + plot_2D.plot_2d_contour(summary, f"{name}_iqr", show=args.show))


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


def plan(args, model, further_options=()):
    """(grid, splits to evaluate, [Experiment of every repeat]) from the flags; raises InputError.

    further_options: (name, value) parts of the surfaces' names, after those of the flags.
    """
    grid = h5_util.Grid.parse("-1:1:51" if args.x is None else args.x, args.y)
    if args.split_idx >= args.data_split:
        raise InputError(f"expected --split_idx below --data_split {args.data_split}, got {args.split_idx}; "
                         "the parts are numbered from 0")
    if args.model_file3 and args.y is None:
        raise InputError("--model_file3 gives the y direction: give --y=min:max:count as well")
    if args.bn == "recalibrate" and args.dir_type == "states":
        raise InputError("expected --dir_type weights with --bn recalibrate, got states, which move the statistics "
                         "themselves; leave one out")
    if args.repeats > 1 and (args.dir_file or args.surf_file):
        raise InputError("expected --repeats without --dir_file and --surf_file: every repeat has its own files; "
                         "leave them out")
    evaluation.loss_function(args.loss_name)
    options = (
        ("rawdata", args.raw_data),
        ("datasplit", f"{args.data_split}_splitidx={args.split_idx}" if args.data_split > 1 else ""),
        ("dataset", dataloader.label(args.dataset) if args.dataset != "cifar10" else ""),
        *((flag, os.path.basename(getattr(args, flag))) for flag in ("trainloader", "testloader")),
        ("loss", user_code.label(args.loss_name) if user_code.is_reference(args.loss_name) else
         args.loss_name if args.loss_name != "crossentropy" else ""),
        ("bn", args.bn if args.bn != "frozen" else ""),
        ("precision", args.precision),
        *further_options,
    )

    def experiment(idx):
        recipe = make_recipe(args, model, idx)
        dir_file = args.dir_file or recipe.file_name()
        surf_file = args.surf_file or net_plotter.surface_name(dir_file, str(grid), options)
        return Experiment(recipe, dir_file, surf_file)

    splits = ("train", "test") if args.eval_set == "both" else (args.eval_set,)
    return grid, splits, [experiment(idx) for idx in range(args.idx, args.idx + args.repeats)]


def make_recipe(args, model, idx):
    """How the directions of experiment `idx` are made; raises InputError."""
    files = [os.path.join(args.model_folder, file) if file and args.model_folder else file
             for file in (args.model_file, args.model_file2, args.model_file3)]
    if not files[0] and model.own:  # the network comes with its weights
        files[0] = os.path.join(args.model_folder, user_code.label(model.name))
    x = net_plotter.Axis(args.xnorm, args.xignore, files[1])
    y = None if args.y is None else net_plotter.Axis(args.ynorm, args.yignore, files[2])
    return net_plotter.Recipe(files[0], x, y, args.dir_type, args.same_dir, idx, args.params, args.freeze)


def check_places(*paths):
    """Raises InputError where a file that does not exist yet could not be written."""
    for path in paths:
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            raise InputError(f"expected a folder {folder} for {os.path.basename(path)}, found none; "
                             "check --model_file, or create it")
        try:
            os.stat(path)
        except FileNotFoundError:
            pass
        except OSError as error:  # a name that is too long, a link that leads to itself
            raise InputError(f"can't use {path} ({error.strerror}); choose another name") from None
        if os.path.isdir(path):
            raise InputError(f"expected a file at {path}, found a folder; choose another name")
        if not os.path.exists(path) and not os.access(folder, os.W_OK):
            raise InputError(f"can't write to {folder} to make {os.path.basename(path)}; make it writable, or name "
                             "another place with --dir_file and --surf_file")


def load_data(args, splits, world):
    """{split: Split or Batches} of what is evaluated."""
    data = dataloader.load_dataset(
        args.dataset, args.datapath, raw_data=args.raw_data, data_split=args.data_split, split_idx=args.split_idx,
        splits=splits, trainloader=args.trainloader, testloader=args.testloader, trust_pickle=args.trust_pickle,
        quiet=world.rank > 0, batch_size=args.batch_size or 128, threads=args.threads, memory=world.share_memory())
    return {split: getattr(data, split) for split in splits}


def refuse_other_data(args, own, root):
    """Raises InputError where this rank has read other data than rank 0."""
    if own != root:
        raise InputError(f"expected --dataset {args.dataset} to be the same on all ranks, it differs from one to the "
                         "next: seed what is random in it, and switch shuffling and augmentation off")


def check_fit(net, data, args, tell=True):
    """The metric to evaluate; raises InputError unless network, data and loss fit, and repeat themselves."""
    metric = ""
    loss = evaluation.loss_function(args.loss_name)
    own = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
    for name, split in data.items():
        inputs, targets = next(iter(split.batches(8)))
        inputs = each(inputs, lambda t: t[:8].to(own if t.is_floating_point() else t.dtype))
        targets = targets[:8]
        try:
            with torch.no_grad():
                output = apply(net, inputs)
        except Exception as error:  # a network of the user's may raise anything
            shape = tuple(inputs.shape[1:]) if isinstance(inputs, torch.Tensor) else shapes(inputs)
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"expected a network for inputs of shape {shape} ({name} set), but it fails on them "
                             f"({reason}); check --model and --dataset") from None
        check_labels(output, split, name, args.loss_name)
        evaluation.check_repeatable(net, inputs, output, tell)
        try:
            loss(output, targets)
        except (RuntimeError, IndexError, TypeError, AttributeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"expected outputs and targets for --loss_name {args.loss_name}, but it fails on them "
                             f"({reason}); check --loss_name (torch.nn:MSELoss for numbers)") from None
        metric = metric or evaluation.choose_metric(args.metric, output, targets)
        if function := evaluation.metric_function(metric):
            function(output, targets)
    return metric


def check_labels(output, split, name, loss_name):
    """Raises InputError where a label is beyond the network's outputs."""
    if loss_name not in evaluation.LOSSES:
        return
    logits = evaluation.logits_of(output)
    if isinstance(split, Batches) or split.targets.dim() != 1 or logits.dim() != 2 or split.targets.is_floating_point():
        return
    largest, classes = int(split.targets.max()), logits.shape[1]
    if largest >= classes:
        raise InputError(f"expected labels below {classes}, the number of outputs of the network, got {largest} "
                         f"in the {name} set; check --dataset and --model_file")


def describe(args, model, recipe, net):
    """Where directions and surface come from: part of the provenance of both files."""
    files = {"checkpoint": recipe.model_file if args.model_file else "", "checkpoint2": recipe.x.model_file,
             "checkpoint3": recipe.y.model_file if recipe.y else ""}
    own_weights = {} if args.model_file else {"checkpoint": model_loader.weights_hash(net)}
    code = {"model_code": user_code.source_hash(args.model), "loss_code": user_code.source_hash(args.loss_name)}
    moved = {"params": recipe.params, "freeze": recipe.freeze}
    return own_weights | {key: model_loader.checkpoint_hash(file) for key, file in files.items() if file} | {
        "model": str(model),
        "model_file": recipe.model_file,
    } | {key: value for key, value in (code | moved).items() if value} | circumstances()


def circumstances():
    """By which command, where, when and with which versions a file is made: for whoever reads its provenance."""
    return {
        "command": " ".join(sys.argv),
        "host": socket.gethostname(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version()} | {
            package: importlib.metadata.version(package) for package in ("torch", "numpy", "h5py")},
    }


def setup_direction(args, model, dir_file, recipe, net, made_from, write=True):
    """The directions at `dir_file`, read or made."""
    random_axes = [axis for axis in (recipe.x, recipe.y) if axis and not axis.model_file]
    if not args.dir_file and any(axis.norm == "" for axis in random_axes):
        say("warning: a random direction without normalization (--xnorm filter, --ynorm filter) says little about "
            "the network: the scale of the weights decides the picture (Li et al. 2018, section 4)")

    def load_other(model_file):
        other = model_loader.load_net(model, model_file, args.trust_pickle)
        shapes = [[tuple(t.shape) for t in net_plotter.tensors_of(n, "states")] for n in (net, other)]
        if shapes[0] != shapes[1]:
            raise InputError(f"expected {model_file} to have the tensors of {recipe.model_file}; check --model_file2")
        return other

    # a file that the user names may come from elsewhere (a PCA, another network's plane): only its shapes must fit
    checked = {} if args.dir_file else made_from | {"dir_type": recipe.dir_type}
    return net_plotter.setup_direction(dir_file, recipe, net, load_other, checked or made_from, check=bool(checked),
                                       write=write)


def set_up(measurement, net, directions, data, devices, args, metric="accuracy"):
    """(planes, evaluator): one copy of the network per device, ready to be moved and measured."""
    nets = [net if i == 0 else copy.deepcopy(net) for i in range(len(devices))]
    nets = [n.to(device, memory_format=torch.channels_last) for n, device in zip(nets, devices, strict=True)]
    planes = [net_plotter.Plane(n, directions, args.dir_type) for n in nets]
    return planes, measurement.build(nets, data, args.loss_name, args.batch_size or 128, args.precision, metric=metric,
                                     bn=getattr(args, "bn", "frozen"))


def agree_on_batch_size(world, store, measurement, evaluator, asked):
    """The batch size that was asked for, else the one that the file began with, else the fastest; on every rank."""
    key = "batch_size" if measurement.what == "loss" else f"{measurement.what}_batch_size"
    if asked is None:
        found = store and (store.surface.provenance.get(key) or evaluator.calibrate())
        evaluator.batch_size = world.bcast(found)
    if store:
        store.surface.provenance[key] = evaluator.batch_size


def announcement(run, missing, evaluator):
    """One line: how much work there is, and who does it."""
    grid, world, devices, threads = run.grid, run.world, run.devices, run.threads
    todo = len(set().union(*missing.values()))
    resumed = f" ({grid.size - todo} done before)" if todo < grid.size else ""
    data = {name: split for name, split in run.data.items() if name in missing}
    images = all(torch.is_tensor(getattr(s, "inputs", None)) and s.inputs.dim() == 4 for s in data.values())
    samples = " + ".join(f"{len(split)} {name}" for name, split in data.items())
    ranks = "1 rank" if world.size == 1 else f"{world.size} ranks"
    where = f"{len(devices)} x " if len(devices) > 1 else ""
    cpu = f", {threads} thread{'s' * (threads > 1)} each" if devices[0].type == "cpu" else ""
    slow = evaluation.slow_precision(run.precision, devices[0])
    return (f"{todo} points{resumed} x {samples} {'images' if images else 'samples'}, {run.model.name} on {ranks} "
            f"({where}{devices[0].type}{cpu}), {run.precision}{slow}, batch {evaluator.batch_size}, {evaluator.note}")


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
    command.run(main)
