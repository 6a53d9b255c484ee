"""The flags of the commands that walk over a grid, in groups, and the job that they ask for.

A group's flags are the fields of a dataclass of losslandscape/choices.py: `choose(DataChoice, flags)` makes one.
`flags` is a dict: the values of all flags by name.
"""

import math

from losslandscape import repeats
from losslandscape.choices import (
    DEFAULT_DATASET,
    DEFAULT_X,
    DataChoice,
    EstimationChoice,
    Hardware,
    Job,
    NetworkChoice,
    choose,
)
from losslandscape.command import duration, natural_int, positive_float, positive_int, relative_error
from losslandscape.data.datasets import FORMS
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid
from losslandscape.measuring.criteria import LOSSES, METRICS, OWN_LOSS_NAME
from losslandscape.measuring.devices import PRECISIONS
from losslandscape.measuring.measurement import LossMeasurement
from losslandscape.measuring.own_measurement import OwnMeasurement
from losslandscape.messages import tell
from losslandscape.path_limits import choose_limits
from losslandscape.pictures.results import Look, draw_repeats
from losslandscape.weight_space import DIR_TYPES, IGNORES, NORMS


def add_hardware_flags(parser):
    """The flags of choices.Hardware, and --mpi."""
    group = parser.add_argument_group("processes and devices")
    group.add_argument("--mpi", "-m", action="store_true", help="use MPI (implied by mpirun and srun)")
    group.add_argument("--cuda", "-c", action="store_true", help="evaluate on CUDA")
    group.add_argument("--threads", type=natural_int, default=2,
                       help="processes that read data which don't fit into memory (2)")
    group.add_argument("--ngpu", type=positive_int, default=1, help="GPUs per rank (1)")
    group.add_argument("--batch_size", type=positive_int,
                       help="minibatch size (default: the fastest, measured on the network)")
    group.add_argument("--precision", default="", choices=list(PRECISIONS),
                       help="fp32, tf32 or bf16 (default: what torch does on the device)")
    group.add_argument("--patience", type=duration, default=math.inf, metavar="TIME",
                       help="go on without a rank that is silent for 90s, 10m, 2h (default: wait for it, and say so)")


def add_data_flags(parser):
    """The flags of choices.DataChoice."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", default="",
                       help=f"{FORMS} ({DEFAULT_DATASET}; none with --measure)")
    group.add_argument("--datapath", default="cifar10/data", metavar="DIR",
                       help="folder of the data (cifar10/data)")
    group.add_argument("--raw_data", action="store_true", help="no normalization of the images")
    group.add_argument("--data_split", type=positive_int, default=1, metavar="K",
                       help="use 1/K of the training data (1)")
    group.add_argument("--split_idx", type=natural_int, default=0, metavar="I",
                       help="which of the K parts, 0 to K-1 (0)")
    group.add_argument("--trainloader", default="", metavar="FILE", help="saved training tensors to use instead")
    group.add_argument("--testloader", default="", metavar="FILE", help="saved test tensors to use instead")
    group.add_argument("--eval_set", default="train", choices=("train", "test", "both"),
                       help="what to evaluate (train)")


def add_network_flags(parser):
    """The flags of choices.NetworkChoice."""
    group = parser.add_argument_group("network")
    group.add_argument("--model", default="resnet56",
                       help="model name, FILE.py:function or package.module:function (resnet56)")
    group.add_argument("--model_kwargs", default="", metavar="JSON", help="keyword arguments of that function")
    group.add_argument("--model_folder", default="", metavar="DIR", help="common folder of the model files")
    group.add_argument("--model_file", default="", metavar="FILE", help="the trained model: the origin of the plot")
    group.add_argument("--model_file2", default="", metavar="FILE", help="x direction = model_file2 - model_file")
    group.add_argument("--model_file3", default="", metavar="FILE", help="y direction = model_file3 - model_file")
    group.add_argument("--trust_pickle", action="store_true",
                       help="read checkpoints and saved loaders with pickle, which RUNS THE CODE that they hold")
    group.add_argument("--checkpoint_key", default="", metavar="KEY",
                       help="which weights of a file that has several, such as state_dict_ema")


def add_loss_flags(parser):
    """The flags of measurement.LossMeasurement."""
    group = parser.add_argument_group("loss")
    group.add_argument("--loss_name", "-l", default="crossentropy",
                       help=f"{', '.join(LOSSES)}, {OWN_LOSS_NAME} (the network's own), torch.nn:Name or FILE.py:name "
                            "(crossentropy, or the network's own where it computes one)")
    group.add_argument("--metric", default="",
                       help=f"{', '.join(METRICS)} or FILE.py:name (accuracy where the targets are classes)")
    group.add_argument("--noise_seed", type=natural_int, metavar="N",
                       help="random numbers that network or loss draw are the same at every point: they begin with N")
    group.add_argument("--bn", default="frozen", choices=("frozen", "recalibrate"),
                       help="batch-norm statistics: the checkpoint's, or those of the training data at each point "
                            "(frozen)")


def add_measure_flags(parser):
    """What is evaluated in place of a loss, and what is done to the network before."""
    group = parser.add_argument_group("a function of your own")
    group.add_argument("--measure", default="", metavar="FILE.py:F",
                       help="F(net) or F(net, context) -> {name: number}, in place of a loss")
    group.add_argument("--place", default="", metavar="FILE.py:F",
                       help="F(net) or F(net, context) acts on the network after it was placed: quantizes, clips")


def add_direction_flags(parser):
    """The flags of choices.DirectionChoice."""
    group = parser.add_argument_group("directions")
    group.add_argument("--dir_file", default="", metavar="FILE", help="an existing direction file to use")
    group.add_argument("--out", default="", metavar="DIR",
                       help="folder for new files (that of the model file); made where there is none")
    group.add_argument("--dir_type", default="weights", choices=DIR_TYPES,
                       help="what moves; states: with batch-norm running statistics")
    group.add_argument("--preset", default="", choices=list(PRESETS),
                       help="paper: --xnorm filter --xignore biasbn, and the same for y, where they are not given")
    for axis in "xy":
        group.add_argument(f"--{axis}norm", choices=list(NORMS), help=f"{axis} normalization")
        group.add_argument(f"--{axis}ignore", choices=IGNORES, help="zero biases and batch norm")
    group.add_argument("--same_dir", action="store_true", help="y direction = x direction")
    group.add_argument("--params", default="", metavar="REGEX",
                       help="move only parameters whose name matches REGEX (plot_hessian_eigen.py: differentiate only "
                            "these, too; or weights, those of >= 2 dimensions; or all)")
    group.add_argument("--freeze", default="", metavar="REGEX", help="don't move parameters whose name matches REGEX")
    group.add_argument("--idx", type=natural_int, default=0,
                       help="number of a repeated experiment: its own directions (0)")
    group.add_argument("--repeats", type=positive_int, default=1, metavar="K",
                       help="K experiments, from --idx on: how much does the plane matter? (1)")


def add_grid_flags(parser):
    """The flags of the grid and of its surface file."""
    group = parser.add_argument_group("grid")
    group.add_argument("--x", metavar="MIN:MAX:NUM",
                       help="x coordinates (-1:1:51; around the path for a PCA --dir_file)")
    group.add_argument("--y", metavar="MIN:MAX:NUM", help="y coordinates; without it the plot is 1-D")
    group.add_argument("--surf_file", default="", metavar="FILE", help="the surface file, new or to be resumed")
    group.add_argument("--check", action="store_true",
                       help="a minute's test of whether the plot will be right; no surface")


def add_estimation_flags(parser):
    """The flags of choices.EstimationChoice."""
    group = parser.add_argument_group("error bars")
    group.add_argument("--tolerance", type=relative_error, metavar="T",
                       help="estimate every loss from few samples, to a standard error of T of it, such as 0.01; "
                            "0: from all (default: from all, without error bars)")
    group.add_argument("--acc_tolerance", type=positive_float, metavar="POINTS",
                       help="the same for an accuracy, in percentage points; 100: only the loss decides "
                            "(50 times the tolerance: 0.5 at 0.01)")
    group.add_argument("--budget", type=duration, metavar="TIME",
                       help="the best surface in 90s, 30m, 2h: coarse points first, then where the error is largest")


def add_picture_flags(parser):
    """The flags of pictures.results.Look, and what --plot draws besides."""
    group = parser.add_argument_group("pictures")
    group.add_argument("--plot", action="store_true", help="plot when computed")
    group.add_argument("--show", action="store_true", help="show figures")
    group.add_argument("--proj_file", default="", metavar="FILE",
                       help="projected trajectory to draw over the contours")
    group.add_argument("--loss_max", type=float, help="top of the 1-D loss axis (5, or what the curves need)")
    group.add_argument("--vmin", type=float, help="lowest contour (0.1)")
    group.add_argument("--vmax", type=float, help="highest contour (10)")
    group.add_argument("--vlevel", type=float, help="contour step (0.5)")
    group.add_argument("--log", action="store_true", help="log loss axis")


def add_surface_flags(parser):
    """The flags of every command that walks over a grid."""
    add_hardware_flags(parser)
    add_data_flags(parser)
    add_network_flags(parser)
    add_loss_flags(parser)
    add_direction_flags(parser)
    add_grid_flags(parser)
    add_picture_flags(parser)


# ---------------------------------------------------------------- what the flags ask for

# --preset -> flags of each axis, without its letter
PRESETS = {
    "paper": {"norm": "filter", "ignore": "biasbn"},  # Li et al. 2018, section 4
}


def with_preset(flags, axes="xy"):
    """The flags with those of --preset in place of the ones that are not given; axes: which the plot has."""
    preset = PRESETS.get(flags["preset"], {})
    completed = dict(flags)
    for axis in "xy":
        for name in ("norm", "ignore"):
            flag = f"{axis}{name}"
            if completed[flag] is None:
                completed[flag] = preset.get(name, "") if axis in axes else ""
    return completed


def choose_measurement(flags):
    """The measurement that the flags of plot_surface.py ask for. Raises InputError where they contradict each other."""
    if not flags["measure"]:
        return choose(LossMeasurement, flags)

    for name, default in (("loss_name", LossMeasurement.loss_name), ("metric", ""), ("bn", "frozen")):
        if flags[name] != default:
            raise InputError(
                f"expected no --{name} with --measure, whose function computes all itself, got {flags[name]}; "
                "leave one out")
    return choose(OwnMeasurement, flags)


def choose_data(flags, measurement):
    """The DataChoice of the flags: where no data set is named, the default one, and for a measure none."""
    dataset = flags["dataset"]
    if not dataset and not measurement.is_own:
        dataset = DEFAULT_DATASET
    return choose(DataChoice, flags | {"dataset": dataset})


def make_job(world, flags, measurement, directions, place=""):
    """(Job, PathLimits) of the flags, the same on every rank. Raises InputError where they don't go together."""
    network = choose(NetworkChoice, flags)

    # the grid: as given, or around the path of an optimizer
    limits = world.on_root(
        choose_limits, flags["x"], flags["y"], flags["dir_file"], flags["proj_file"], network.path(network.model_file))
    grid = world.together(Grid.parse, DEFAULT_X if limits.x is None else limits.x, limits.y)

    data = world.together(choose_data, flags, measurement)
    hardware = choose(Hardware, flags)
    highest_contour = flags["vmax"] or 10.0
    estimation = EstimationChoice(flags.get("tolerance"), flags.get("budget"), flags.get("acc_tolerance"))
    job = world.together(
        Job, measurement, grid, network, data, directions, hardware, flags["surf_file"], estimation, flags["out"],
        place, highest_contour)
    return job, limits


def draw_results(surf_files, flags, draw):
    """Draw what --plot and --show ask for, and say where.

    draw(surf_file, look) -> paths draws one surface. Of several, their summary is written and told in any case.
    """
    wanted = flags["plot"] or flags["show"]
    look = choose(Look, flags)
    written = []
    if len(surf_files) > 1:
        summary_file, lines = repeats.write(surf_files)
        tell("\n".join(lines))
        if wanted:
            last_idx = flags["idx"] + flags["repeats"] - 1
            written = draw_repeats(summary_file, surf_files[0], flags["idx"], last_idx, look)
    elif wanted:
        written = draw(surf_files[0], look)

    for path in written:
        tell(f"figure: {path}")
