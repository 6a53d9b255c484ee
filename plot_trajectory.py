"""Draw the path of an optimizer: PCA of the checkpoints of a training run, and their projection.

    python plot_trajectory.py --model resnet56 --model_folder DIR --max_epoch 300
    python plot_trajectory.py --model resnet56 --model_folder A B C   # one PCA of several runs
    python plot_trajectory.py ... --eval --dataset cifar10 --cuda     # the loss of the checkpoints
    python plot_trajectory.py ... --dir_file DIRECTIONS.h5            # on a plane that exists

    # a surface around the path; then the path over it, and a film of it
    python plot_surface.py --model resnet56 --model_file DIR/model_300.t7 \\
        --dir_file DIR/PCA_weights_save_epoch=1/directions.h5
    python plot_trajectory.py ... --surf_file SURFACE.h5 --animate

Files: DIR/PCA_weights_save_epoch=1/directions.h5, beside it directions.h5_proj_cos.h5 and the
figures. The PCA of A, B and C lies in their common folder, PCA_weights_save_epoch=1_joint=A+B+C/,
with one directions.h5_A_proj_cos.h5 each; the origin of its plane is the last checkpoint of A.

A path drawn on a plane is a shadow: the projection file and a figure tell how far each checkpoint
is from the plane and, with --eval, its loss beside the loss that the plane has at its shadow.
"""

import argparse
from functools import partial

from losslandscape.choices import DataChoice, Hardware
from losslandscape.command import Parser, natural_int, positive_int, run
from losslandscape.data.datasets import FORMS
from losslandscape.errors import InputError
from losslandscape.files.names import (
    common_folder,
    in_folder,
    pca_file_name,
    projection_file_names,
    run_labels,
)
from losslandscape.files.provenance import circumstances, refuse_mismatch
from losslandscape.measuring.criteria import LOSSES, OWN_LOSS_NAME
from losslandscape.measuring.devices import PRECISIONS
from losslandscape.networks.loading import Architecture, load_net
from losslandscape.output_folders import check_out, make_out
from losslandscape.pictures.animation import animate
from losslandscape.pictures.epochs import plot_against_epoch
from losslandscape.pictures.mathtext import plain_text
from losslandscape.pictures.panel import read_2d
from losslandscape.pictures.paths import plot_contour_trajectory, plot_trajectory
from losslandscape.pictures.style import FORMATS
from losslandscape.shadows import (
    TrainingLoss,
    cast_shadows,
    check_output_places,
    distances_in_words,
    evaluate,
    find_plane,
    forget_other_losses,
    losses_in_words,
    say_other_measure,
    take_up_losses,
    variance_in_words,
    write_new_plane,
)
from losslandscape.training_runs import find_runs
from losslandscape.trajectory import open_path
from losslandscape.weight_space import DIR_TYPES, IGNORES, directions_hash


def make_parser():
    """The flags of plot_trajectory.py."""
    p = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    checkpoint_flags(p.add_argument_group("checkpoints").add_argument)
    plane_flags(p.add_argument_group("plane").add_argument)
    evaluation_flags(p.add_argument_group("true loss beside the plane's").add_argument)
    figure_flags(p.add_argument_group("figures").add_argument)
    return p


def checkpoint_flags(add):
    add("--model", default="resnet56",
        help="model name, FILE.py:function or package.module:function (resnet56)")
    add("--model_kwargs", default="", metavar="JSON", help="keyword arguments of that function")
    add("--model_folder", nargs="+", default=[], metavar="DIR",
        help="folder of a run, or of several")
    add("--checkpoints", nargs="+", default=[], metavar="PATTERN",
        help="instead of a folder: 'out/checkpoint-*/model.safetensors' or 'epoch=*.ckpt', in the "
             "order of the numbers in the names; each pattern is a run")
    add("--prefix", default="model_", help="of the checkpoints' names, before the epoch (model_)")
    add("--suffix", default=".t7", help="after the epoch (.t7)")
    add("--start_epoch", type=natural_int, default=0, help="first epoch (0)")
    add("--max_epoch", type=natural_int, default=None,
        help="last epoch (300; with --checkpoints the last); the last checkpoint up to it is the "
             "origin, whatever --save_epoch")
    add("--save_epoch", type=positive_int, default=1,
        help="take every so many epochs, where they exist (1)")
    add("--trust_pickle", action="store_true",
        help="read checkpoints and saved loaders with pickle, which RUNS THE CODE that they hold")
    add("--checkpoint_key", default="", metavar="KEY",
        help="which weights of a file that has several, such as state_dict_ema")


def plane_flags(add):
    add("--dir_type", default="weights", choices=DIR_TYPES,
        help="weights, or states (with batch-norm running statistics)")
    add("--ignore", default="", choices=IGNORES, help="PCA without biases and batch norm")
    add("--dir_file", default="", metavar="FILE",
        help="project on these directions instead of a PCA")
    add("--out", default="", metavar="DIR",
        help="folder for new files (that of the run); made where there is none")


def evaluation_flags(add):
    add("--eval", action="store_true",
        help="evaluate every checkpoint, and the plane at its shadow")
    add("--dataset", default="cifar10", help=f"{FORMS} (cifar10)")
    add("--datapath", default="cifar10/data", metavar="DIR",
        help="folder of the data (cifar10/data)")
    add("--raw_data", action="store_true", help="no normalization of the images")
    add("--data_split", type=positive_int, default=1, metavar="K",
        help="use 1/K of the training data (1)")
    add("--split_idx", type=natural_int, default=0, metavar="I",
        help="which of the K parts, 0 to K-1 (0)")
    add("--trainloader", default="", metavar="FILE", help="saved training tensors to use instead")
    add("--loss_name", "-l", default="crossentropy",
        help=f"{', '.join(LOSSES)}, {OWN_LOSS_NAME}, torch.nn:Name or FILE.py:name (crossentropy)")
    add("--noise_seed", type=natural_int, metavar="N",
        help="random numbers that network or loss draw begin with N at every evaluation")
    add("--batch_size", type=positive_int, default=128, help="minibatch size (128)")
    add("--precision", default="", choices=list(PRECISIONS),
        help="fp32, tf32 or bf16 (default: what torch does on the device)")
    add("--cuda", "-c", action="store_true", help="evaluate on CUDA")


def figure_flags(add):
    add("--surf_file", "-f", default="", metavar="FILE",
        help="2-D surface in this plane to draw paths over")
    add("--surf_name", default="", help="what of it to draw (train_loss, or what the file has)")
    add("--vmin", type=float, help="lowest contour (0.1 for a loss)")
    add("--vmax", type=float, help="highest contour (10 for a loss)")
    add("--vlevel", type=float, help="contour step (0.5 for a loss)")
    add("--log", action="store_true", help="contours evenly spaced in the logarithm")
    add("--labels", "--label", nargs="+", default=[], metavar="NAME",
        help="names of the runs, for the legend (their folders)")
    add("--format", choices=FORMATS, default="pdf", help="of the figures (pdf)")
    add("--animate", action="store_true", help="a GIF of the path, epoch by epoch")


def names_for_legend(labels, own_labels):
    """The names of several runs in the figures; a single run needs none."""
    if own_labels and len(own_labels) != len(labels):
        raise InputError(
            f"expected one of --labels per run, got {len(own_labels)} for {len(labels)} runs"
        )
    if not own_labels and len(labels) > 1:
        return [plain_text(label) for label in labels]
    return own_labels


def draw_path_figures(proj_files, dir_file, names, fmt, surf_file, surf_name, contours):
    """Draw the path alone, what its plane hides, and the path over the contours of a surface."""
    written = plot_trajectory(proj_files, dir_file, labels=names, fmt=fmt)
    written += plot_against_epoch(proj_files, names, fmt)
    if surf_file:
        written += plot_contour_trajectory(
            surf_file, dir_file, proj_files, surf_name, labels=names, fmt=fmt, **contours
        )
    return written


def main(argv=None):
    args = make_parser().parse_args(argv)

    # the checkpoints, and the files that will hold their plane and their path on it
    runs = find_runs(
        args.model_folder, args.prefix, args.suffix, args.start_epoch, args.max_epoch,
        args.save_epoch, args.checkpoints,
    )  # fmt: skip
    folders = [run.folder for run in runs]
    labels = run_labels(folders)
    names = names_for_legend(labels, args.labels)
    dir_file = args.dir_file or pca_file_name(
        args.out or common_folder(folders), args.dir_type, args.ignore, args.save_epoch,
        labels if len(runs) > 1 else (), args.checkpoint_key,
    )  # fmt: skip
    proj_files = projection_file_names(dir_file, labels)
    if args.dir_file:
        proj_files = [in_folder(file, args.out) for file in proj_files]
    check_out(args.out)
    check_output_places(dir_file, proj_files, chosen=bool(args.dir_file))

    # what --eval measures; data are read first, they take less time than the checkpoints
    architecture = Architecture.parse(args.model, args.model_kwargs)
    loss = None
    if args.eval:
        data = DataChoice(
            args.dataset, args.datapath, args.raw_data, args.data_split, args.split_idx,
            args.trainloader,
        )  # fmt: skip
        hardware = Hardware(args.cuda, batch_size=args.batch_size, precision=args.precision)
        loss = TrainingLoss.load(
            data, hardware, args.loss_name, args.trust_pickle, args.noise_seed
        )
    path = open_path(runs, architecture, args.dir_type, args.trust_pickle, args.checkpoint_key)
    if loss:
        build = partial(
            load_net, architecture, path.origin_file, args.trust_pickle, args.checkpoint_key, quiet=True
        )
        loss = loss.fitted_to(build(), build)

    # the plane, and the path on it; all is checked before the first file is written
    directions = find_plane(dir_file, path, args.ignore, chosen=bool(args.dir_file))
    made_from = path.provenance | {"model": str(architecture)} | circumstances()
    if {run.unit for run in runs} == {"step"}:  # what the numbers of the checkpoints count
        made_from["unit"] = "step"
    plane = made_from | {"directions": directions_hash(directions)}
    surface, surf_name = None, args.surf_name
    if args.surf_file:
        surface = read_2d(args.surf_file)
        surf_name = surf_name or surface.main_name
        refuse_mismatch(args.surf_file, surface.provenance, plane)
    shadows = cast_shadows(path, directions, runs, labels, proj_files)
    measured = take_up_losses(shadows, plane)

    make_out(args.out)
    write_new_plane(dir_file, directions, made_from | {"ignore": args.ignore})
    print(f"directions: {dir_file}{variance_in_words(directions, len(path.files))}")
    for shadow in shadows:
        shadow.save(plane | {"evaluation": measured})
        print(f"projection: {shadow.file}\n  {distances_in_words(shadow)}")

    # the loss of every checkpoint, and the plane's at its shadow
    if loss:
        forget_other_losses(shadows, measured, loss)
        measured = loss.provenance
        evaluate(shadows, path, directions, loss, plane | {"evaluation": measured})
    for line in losses_in_words(shadows):
        print(f"  {line}")

    # the figures
    if surface:
        say_other_measure(measured, args.surf_file, surface)
    contours = {"vmin": args.vmin, "vmax": args.vmax, "vlevel": args.vlevel, "log": args.log}
    drawn_over = (args.surf_file, surf_name)
    written = draw_path_figures(proj_files, dir_file, names, args.format, *drawn_over, contours)
    if args.animate:
        written += animate(proj_files, dir_file, *drawn_over, labels=names, **contours)
    for figure in written:
        print(f"figure: {figure}")


if __name__ == "__main__":
    run(main)
