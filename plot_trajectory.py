"""Draw the path of an optimizer: PCA of a training run's checkpoints, their projection on the plane, and what it hides.

    python plot_trajectory.py --model resnet56 --model_folder DIR --prefix model_ --suffix .t7 --max_epoch 300
    python plot_trajectory.py ... --eval --dataset cifar10 --cuda    # the loss of every checkpoint beside the plane's
    python plot_trajectory.py ... --dir_file DIRECTIONS.h5           # on an existing plane, random or of another PCA
    python plot_trajectory.py --model resnet56 --model_folder A B C  # one PCA of several runs, one coloured path each
    python plot_surface.py --model resnet56 --model_file DIR/model_300.t7 \\
        --dir_file DIR/PCA_weights_save_epoch=1/directions.h5        # a surface around the path; then, over it:
    python plot_trajectory.py ... --surf_file SURFACE.h5 --animate

Files: DIR/PCA_weights_save_epoch=1/directions.h5, beside it directions.h5_proj_cos.h5 and the figures. The PCA of A, B
and C lies in their common folder, PCA_weights_save_epoch=1_joint=A+B+C/, with one directions.h5_A_proj_cos.h5 each; the
origin of its plane is the last checkpoint of A.

A path drawn on a plane is a shadow: the projection file and a figure tell how far each checkpoint is from the plane
and, with --eval, its loss beside the loss that the plane has at its shadow.
"""

import argparse
import hashlib
import io
import os
from dataclasses import replace

import numpy as np

import plot_2D
import plot_surface
from losslandscape import command
from losslandscape import directions as net_plotter
from losslandscape import evaluator as evaluation
from losslandscape import ranks as mpi4pytorch
from losslandscape import trajectory as projection
from losslandscape.command import natural_int, positive_int
from losslandscape.data import datasets as dataloader
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.files.store import refuse_mismatch
from losslandscape.networks import loading as model_loader
from losslandscape.pictures import style as figures

MOST_FRAMES = 150
MEASURED = ("true_loss", "true_acc", "plane_loss", "plane_acc")
LOOK = {  # what is drawn against the epoch
    "true_loss": {"linestyle": "-", "marker": "o", "label": "checkpoint"},
    "plane_loss": {"linestyle": "--", "marker": "o", "markerfacecolor": "white", "label": "its shadow in the plane"},
    "distance": {"linestyle": "-", "marker": "o", "label": "to the plane"},
    "distance_to_origin": {"linestyle": ":", "marker": "", "label": "to the origin"},
}


def make_parser():
    p = command.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    g = p.add_argument_group("checkpoints")
    g.add_argument("--model", default="resnet56",
                   help="model name, FILE.py:function or package.module:function (resnet56)")
    g.add_argument("--model_kwargs", default="", metavar="JSON", help="keyword arguments of that function")
    g.add_argument("--model_folder", nargs="+", default=[], metavar="DIR", help="folder of a run, or of several")
    g.add_argument("--prefix", default="model_", help="of the checkpoints' names, before the epoch (model_)")
    g.add_argument("--suffix", default=".t7", help="after the epoch (.t7)")
    g.add_argument("--start_epoch", type=natural_int, default=0, help="first epoch (0)")
    g.add_argument("--max_epoch", type=natural_int, default=300,
                   help="last epoch (300); the last checkpoint up to there is the origin, whatever --save_epoch")
    g.add_argument("--save_epoch", type=positive_int, default=1, help="take every so many epochs, where they exist (1)")
    g.add_argument("--trust_pickle", action="store_true",
                   help="read checkpoints and saved loaders with pickle, which RUNS THE CODE that they hold")
    g = p.add_argument_group("plane")
    g.add_argument("--dir_type", default="weights", choices=net_plotter.DIR_TYPES,
                   help="weights, or states (with batch-norm running statistics)")
    g.add_argument("--ignore", default="", choices=net_plotter.IGNORES, help="PCA without biases and batch norm")
    g.add_argument("--dir_file", default="", metavar="FILE", help="project on these directions instead of a PCA")
    g = p.add_argument_group("true loss beside the plane's")
    g.add_argument("--eval", action="store_true", help="evaluate every checkpoint, and the plane at its shadow")
    g.add_argument("--dataset", default="cifar10", help=f"{dataloader.FORMS} (cifar10)")
    g.add_argument("--datapath", default="cifar10/data", metavar="DIR", help="folder of the data (cifar10/data)")
    g.add_argument("--raw_data", action="store_true", help="no normalization of the images")
    g.add_argument("--data_split", type=positive_int, default=1, metavar="K", help="use 1/K of the training data (1)")
    g.add_argument("--split_idx", type=natural_int, default=0, metavar="I", help="which of the K parts, 0 to K-1 (0)")
    g.add_argument("--trainloader", default="", metavar="FILE", help="saved training tensors to use instead")
    g.add_argument("--loss_name", "-l", default="crossentropy",
                   help=f"{', '.join(evaluation.LOSSES)}, torch.nn:Name or FILE.py:function (crossentropy)")
    g.add_argument("--batch_size", type=positive_int, default=128, help="minibatch size (128)")
    g.add_argument("--precision", default="", choices=[""] + [n for n in evaluation.PRECISIONS if n],
                   help="fp32, tf32 or bf16 (default: what torch does on the device)")
    g.add_argument("--cuda", "-c", action="store_true", help="evaluate on CUDA")
    g = p.add_argument_group("figures")
    g.add_argument("--surf_file", "-f", default="", metavar="FILE", help="2-D surface in this plane to draw paths over")
    g.add_argument("--surf_name", default="", help="what of it to draw (train_loss, or what the file has)")
    g.add_argument("--vmin", type=float, help="lowest contour (0.1 for a loss)")
    g.add_argument("--vmax", type=float, help="highest contour (10 for a loss)")
    g.add_argument("--vlevel", type=float, help="contour step (0.5 for a loss)")
    g.add_argument("--log", action="store_true", help="contours evenly spaced in the logarithm")
    g.add_argument("--format", choices=figures.FORMATS, default="pdf", help="of the figures (pdf)")
    g.add_argument("--animate", action="store_true", help="a GIF of the path, epoch by epoch")
    return p


def main(argv=None):
    args = make_parser().parse_args(argv)
    folders = run_folders(args.model_folder)
    runs = [projection.find_checkpoints(folder, args.prefix, args.suffix, args.start_epoch, args.max_epoch,
                                        args.save_epoch) for folder in folders]
    labels = run_labels(folders)
    dir_file = args.dir_file or pca_name(folders, labels, args.dir_type, args.ignore, args.save_epoch)
    proj_files = [f"{dir_file}_{label}_proj_cos.h5" if len(runs) > 1 else f"{dir_file}_proj_cos.h5" for label in labels]
    check_places(dir_file, proj_files, made=bool(args.dir_file))
    split, device = load_data(args) if args.eval else (None, None)

    # everything is computed before the first file is written
    model = model_loader.Architecture.parse(args.model, args.model_kwargs)
    path = projection.open_path(runs, model, args.dir_type, args.trust_pickle)
    if args.eval:
        evaluation.loss_function(args.loss_name)
        args.metric = ""
        metric = plot_surface.check_fit(
            model_loader.load_net(model, path.files[path.origin], args.trust_pickle), {"train": split}, args)
    new = not os.path.exists(dir_file)
    directions = projection.pca(path, args.ignore) if new else read_plane(dir_file, path, chosen=bool(args.dir_file))
    made_from = {
        "checkpoint": bytes(path.hashes[path.origin]).hex(), "model_file": path.files[path.origin],
        "model": str(model), "dir_type": args.dir_type,
    } | plot_surface.circumstances()
    plane = made_from | {"directions": net_plotter.directions_hash(directions)}
    if args.surf_file:
        surface = plot_2D.read_2d(args.surf_file)
        args.surf_name = args.surf_name or surface.main_name
        refuse_mismatch(args.surf_file, surface.provenance, plane)
    every = projection.project(path, directions)  # name -> (n,)
    every |= {"epoch": path.epochs, "checkpoint_hash": path.hashes}
    tables = [{name: array[path.runs == i] for name, array in every.items()} for i in range(len(runs))]
    tables, measured = keep_measured(proj_files, tables, plane)
    if new:
        make_folder(dir_file)
        h5_util.write_directions(dir_file, replace(directions, provenance=made_from | {"ignore": args.ignore}))

    def write(i):
        h5_util.write_projection(proj_files[i], tables[i], plane | {"model_folder": folders[i]} | measured)

    for i in range(len(runs)):
        write(i)
    print(f"directions: {dir_file}{in_words(directions, len(path.files))}")
    for label, file, table in zip(labels, proj_files, tables, strict=True):
        print(f"projection: {file}\n  {distances_in_words(label, table)}")
    if args.eval:
        evaluate(args, model, metric, path, directions, tables, measured, split, device, write)
    for label, table in zip(labels, tables, strict=True):
        for line in losses_in_words(label, table):
            print(f"  {line}")

    names = labels if len(runs) > 1 else ()
    level = {"vmin": args.vmin, "vmax": args.vmax, "vlevel": args.vlevel, "log": args.log}
    written = plot_2D.plot_trajectory(proj_files, dir_file, labels=names, fmt=args.format)
    written += plot_against_epoch(proj_files, names, args.format)
    if args.surf_file:
        differs = [key for key, value in measured["evaluation"].items()
                   if key != "dataset" and surface.provenance.get(key, value) != value]
        if differs:
            figures.note(f"the losses of the checkpoints are of other {', '.join(differs)} than {args.surf_file}")
        written += plot_2D.plot_contour_trajectory(
            args.surf_file, dir_file, proj_files, args.surf_name, labels=names, fmt=args.format, **level)
    if args.animate:
        written += animate(proj_files, dir_file, args.surf_file, args.surf_name, labels=names, **level)
    for figure in written:
        print(f"figure: {figure}")


# ---------------------------------------------------------------- names and places


def run_folders(folders):
    """The folders as given, checked: there is one, and none twice."""
    if not folders or not all(folders):
        raise InputError("expected --model_folder DIR, the folder of a training run (or of several), got none")
    if len({os.path.realpath(folder) for folder in folders}) < len(folders):
        raise InputError(f"expected different folders as --model_folder, got {' '.join(folders)}; give each run once")
    return folders


def run_labels(folders):
    """A short name for each run: its folder, seen from the common one."""
    if len(folders) == 1:
        return [os.path.basename(os.path.abspath(folders[0]))]
    labels = [os.path.relpath(folder, common_folder(folders)).replace(os.sep, "_") for folder in folders]
    labels = [os.path.basename(os.path.abspath(f)) if x == "." else x for f, x in zip(folders, labels, strict=True)]
    if len(set(labels)) < len(labels):  # a_b and a/b
        labels = [f"{i}_{label}" for i, label in enumerate(labels, 1)]
    return labels


def common_folder(folders):
    if any(os.path.isabs(folder) for folder in folders):
        return os.path.commonpath([os.path.abspath(folder) for folder in folders])
    return os.path.relpath(os.path.commonpath([os.path.abspath(folder) for folder in folders]))


def pca_name(folders, labels, dir_type, ignore, save_epoch):
    """Name of the direction file of a PCA: the original's for one run; for several in their common folder."""
    name = f"PCA_{dir_type}" + h5_util.option_suffix(("ignore", ignore), ("save_epoch", save_epoch))
    if len(folders) == 1:
        return os.path.join(folders[0], name, "directions.h5")
    joint = "+".join(labels)
    if len(joint) > 180:  # file systems allow 255 bytes
        joint = f"{len(labels)}-runs-{hashlib.sha256(joint.encode()).hexdigest()[:10]}"
    return os.path.join(common_folder(folders), f"{name}_joint={joint}", "directions.h5")


def check_places(dir_file, proj_files, made):
    """Raises InputError where a file can't be written. made: the direction file is there already."""
    if made and not os.path.isfile(dir_file):
        raise InputError(f"expected a direction file at {dir_file}, found none; check --dir_file, or leave it out")
    folder = os.path.dirname(dir_file) or "."
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder) or "."
    if not os.path.isdir(folder):
        raise InputError(f"expected a folder at {folder} for {os.path.basename(dir_file)}, found a file; move it away")
    if not os.access(folder, os.W_OK):
        raise InputError(f"can't write to {folder}; make it writable, or give --dir_file FILE in another place")
    for file in proj_files:
        if os.path.isdir(file):
            raise InputError(f"expected a file at {file}, found a folder; move it away")


def make_folder(file):
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
    except OSError as error:
        raise InputError(f"can't make {os.path.dirname(file)} ({error.strerror}); make its place writable") from None


# ---------------------------------------------------------------- files that are there already


def read_plane(dir_file, path, chosen):
    """Directions of `dir_file`, checked. chosen: by --dir_file; otherwise they must be the PCA of these checkpoints."""
    directions = h5_util.read_directions(dir_file)
    projection.check_directions(dir_file, directions, path)
    made_at = directions.provenance.get("checkpoint")
    if chosen:
        if made_at and made_at != bytes(path.hashes[path.origin]).hex():
            figures.note(f"{dir_file} was made at another network than {path.files[path.origin]}, the origin of this "
                         "path; a surface at that network is not below it (give the folder of that network first)")
        return directions
    now = projection.made_of(path)
    old = {name: directions.extra.get(name) for name in now}
    if all(array is None for array in old.values()):
        figures.note(f"{dir_file} does not say which checkpoints it is of; it is used as it is")
        return directions
    if not all(np.array_equal(old[name], now[name]) for name in now):
        raise InputError(f"{dir_file} was made from other checkpoints: {difference(old, now)}; delete it to make a new "
                         f"plane, or give --dir_file {dir_file} to project on it")
    return directions


def difference(old, now):
    """What has changed between two sets of checkpoints, in a few words."""
    if not all(isinstance(old[name], np.ndarray) and len(old[name]) == len(old["epoch"]) for name in now):
        return "its list of them is damaged"
    before, after = ({(int(r), int(e)): bytes(h.astype(np.uint8))
                      for r, e, h in zip(found["run"], found["epoch"], found["checkpoint_hash"], strict=True)}
                     for found in (old, now))
    kinds = {
        "changed since": [key for key in before if key in after and before[key] != after[key]],
        "new": [key for key in after if key not in before],
        "gone": [key for key in before if key not in after],
    }
    kind, keys = next((kind, keys) for kind, keys in kinds.items() if keys)
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"epoch {keys[0][1]}{more} {'is' if len(keys) == 1 else 'are'} {kind}"


def keep_measured(proj_files, tables, plane):
    """(tables, provenance entry) with the losses that the projection files hold for the same checkpoints and plane.

    Raises InputError for a file that holds another run, or that we did not make and that says something else.
    """
    kept, entry = [], {}
    for file, table in zip(proj_files, tables, strict=True):
        if not os.path.exists(file):
            kept.append(table)
            continue
        old, provenance = h5_util.read_projection(file)
        hashes = old.get("checkpoint_hash", np.empty((0, 32), np.uint8))
        where = {bytes(row): i for i, row in enumerate(hashes)}
        match = [where.get(bytes(row)) for row in table["checkpoint_hash"]]
        same_path = len(old["proj_xcoord"]) == len(match) and all(
            np.allclose(old[name], table[name], rtol=1e-4, atol=1e-5) for name in ("proj_xcoord", "proj_ycoord"))
        if all(i is None for i in match) and not same_path:
            raise InputError(f"{file} holds another path, which would be lost; move it away"
                             + ("" if len(tables) > 1 else " (several runs in one plane: --model_folder A B)"))
        usable = "evaluated" in old and "evaluation" in provenance and all(
            provenance.get(key) == plane[key] for key in ("directions", "checkpoint", "model", "dir_type"))
        if usable and (not entry or same_measure(entry, provenance["evaluation"])):
            entry = provenance["evaluation"]
            take = [i is not None and bool(old["evaluated"][i]) for i in match]
            table = table | {"evaluated": np.array(take)} | {
                name: np.array([old[name][i] if t else np.nan for i, t in zip(match, take, strict=True)])
                for name in MEASURED}
        kept.append(table)
    return kept, {"evaluation": entry}


def same_measure(old, new):
    """Were losses measured alike? The contents of the data decide, not the name of their file."""
    return old.keys() == new.keys() and all(old[key] == new[key] for key in old if key != "dataset")


# ---------------------------------------------------------------- true loss and the plane's loss


def load_data(args):
    """(training set, device) of --eval."""
    device = mpi4pytorch.World().devices(args.cuda)[0]
    evaluation.precision_name(args.precision, device)
    if not args.trainloader:
        dataloader.prepare(args.dataset, args.datapath, ("train",))
    data = dataloader.load_dataset(
        args.dataset, args.datapath, raw_data=args.raw_data, data_split=args.data_split, split_idx=args.split_idx,
        splits=("train",), trainloader=args.trainloader, trust_pickle=args.trust_pickle)
    return data.train, device


def evaluate(args, model, metric, path, directions, tables, measured, split, device, write):
    """Fill true_loss, true_acc (of every checkpoint) and plane_loss, plane_acc (at its shadow) into the tables.

    The accuracies stay NaN where the targets are no classes.

    Both come from one network, one evaluator and one data set. On the plane, tensors that the directions do not move
    (the running statistics, for weights) are those of the origin, as on a surface. write(i) is called after every
    checkpoint, so that a run that was interrupted goes on from there.
    """
    entry = {"evaluation": {
        "dataset": args.dataset, "train_data": dataloader.split_hash(split), "loss": args.loss_name,
        "precision": evaluation.precision_name(args.precision, device),
    }}
    for table in tables:
        if not same_measure(measured["evaluation"], entry["evaluation"]) or "evaluated" not in table:
            count = len(table["epoch"])
            table |= {"evaluated": np.zeros(count, bool)} | {name: np.full(count, np.nan) for name in MEASURED}
    measured |= entry  # write() puts it into the files
    todo = [(run, i) for run, table in enumerate(tables) for i in np.flatnonzero(~table["evaluated"])]
    if not todo:
        return
    net = model_loader.load_net(model, path.files[path.origin], args.trust_pickle)
    planes, evaluator = plot_surface.set_up(
        plot_surface.LOSS, net, directions, {"train": split}, [device], args, metric)
    origin = path.read(path.origin)
    starts = np.searchsorted(path.runs, range(len(tables)))
    progress = plot_surface.Progress(len(todo))
    for run, i in todo:
        net.load_state_dict(path.read(starts[run] + i), strict=False)  # files of old PyTorch lack num_batches_tracked
        true = evaluator(["train"])
        net.load_state_dict(origin, strict=False)
        planes[0].place(tables[run]["proj_xcoord"][i], tables[run]["proj_ycoord"][i])
        shadow = evaluator(["train"])
        for kind, found in (("true", true), ("plane", shadow)):
            for what in ("loss", "acc"):
                tables[run][f"{kind}_{what}"][i] = found.get(f"train_{what}", np.nan)
        tables[run]["evaluated"][i] = True
        write(run)
        progress.step()
    progress.close()


# ---------------------------------------------------------------- in words


def in_words(directions, count):
    ratio = directions.extra.get("explained_variance_ratio_")
    if ratio is None:
        return ""
    return f" ({100 * ratio[0]:.2f} % + {100 * ratio[1]:.2f} % of the variance of {count} checkpoints)"


def distances_in_words(label, table):
    """How far the path is from the plane on which it is drawn."""
    away = table["distance_to_origin"] > 0
    if not away.any():
        return f"{label}: one point, the origin"
    share = np.where(away, table["relative_distance"], 0)
    worst, median = share.argmax(), np.median(share[away])
    return (f"{label}: {len(away)} checkpoints; of their displacement from the origin {100 * median:.1f} % (median) "
            f"and up to {100 * share[worst]:.1f} % (epoch {table['epoch'][worst]}) is out of the plane")


def losses_in_words(label, table):
    """[the largest difference between the loss of a checkpoint and the plane's], if it is known."""
    if "evaluated" not in table or not table["evaluated"].any():
        return []
    gap = np.abs(table["plane_loss"] - table["true_loss"])
    bad = int((table["evaluated"] & ~np.isfinite(gap)).sum())
    lines = [f"{label}: {bad} of {len(gap)} losses are NaN or inf"] if bad else []
    if np.isfinite(gap).any():
        i = int(np.nanargmax(np.where(np.isfinite(gap), gap, np.nan)))
        lines.append(f"{label}: loss of the checkpoint and of its shadow differ most at epoch {table['epoch'][i]}: "
                     f"{table['true_loss'][i]:.4g} and {table['plane_loss'][i]:.4g}")
    return lines


# ---------------------------------------------------------------- figures


@figures.style()
def plot_against_epoch(proj_files, labels=(), fmt="pdf"):
    """Write what the plane hides against the epoch: distances, and above them losses where they are known.

    To PROJ_FILE_loss.pdf, or PROJ_FILE_distance.pdf without losses; several runs go into the figure of the first.
    """
    from matplotlib.lines import Line2D

    tables = [h5_util.read_projection(file)[0] for file in proj_files]
    for table in tables:  # unevaluated checkpoints have no loss, which is not a loss of NaN
        known = table.pop("evaluated", None)
        if known is not None:
            table |= {name: table[name][known] for name in MEASURED} | {"loss_epoch": table["epoch"][known]}
    size = 3 if max(len(table["epoch"]) for table in tables) <= 60 else 0
    losses = any(len(table.get("loss_epoch", ())) for table in tables)
    panels = [("true_loss", "plane_loss")] * losses + [("distance", "distance_to_origin")]
    figure = figures.new_figure(figures.COLUMN, 0.55 + 1.45 * len(panels) + 0.15 * (len(proj_files) > 1))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, names in zip(axes, panels, strict=True):
        shown = []
        for table, colour in zip(tables, colours(len(tables)), strict=False):
            epochs = table.get("loss_epoch" if names[0] == "true_loss" else "epoch")
            for name in names:
                if name in table:
                    shown.append(draw_against_epoch(ax, epochs, table[name], name, colour, size))
            if len(tables) == 1 and names[0] == "true_loss":
                ax.fill_between(epochs, *(finite(table[name]) for name in names), color=colour, alpha=0.15,
                                linewidth=0)
        values = np.concatenate(shown) if shown else np.empty(0)
        if names[0] == "true_loss" and len(values) and values.min() > 0 and values.max() > 30 * values.min():
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=min(0, values.min(initial=0)))
        ax.set_ylabel("train loss" if names[0] == "true_loss" else "distance")
        ax.grid(True)
        look = {"color": colours(1)[0] if len(tables) == 1 else "0.3", "linewidth": 1, "markersize": size}
        handles = [Line2D([], [], **look, **LOOK[name]) for name in names]
        if any(not np.isfinite(table[name]).all() for table in tables for name in names if name in table):
            cross = {"linestyle": "", "marker": "x", "markersize": 4, "label": "NaN or inf"}
            handles.append(Line2D([], [], **look | cross))
        ax.legend(handles=handles, loc="best", frameon=True, framealpha=0.85, edgecolor="none")
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    if len(tables) > 1:
        handles = [Line2D([], [], color=c, label=label) for c, label in zip(colours(len(tables)), labels, strict=False)]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(labels), 3))
    return [figures.save(figure, f"{proj_files[0]}_{'loss' if losses else 'distance'}.{fmt}")]


def colours(count):
    """The colours of plot_2D's paths, one per run."""
    return [plot_2D.PATH_COLOURS[i % len(plot_2D.PATH_COLOURS)] for i in range(count)]


def finite(values):
    return np.where(np.isfinite(values), values, np.nan)


def draw_against_epoch(ax, epochs, values, name, colour, size):
    """One line; a value that can't be drawn gets a cross at the top. Returns the finite values."""
    ax.plot(epochs, finite(values), color=colour, linewidth=1, markersize=size, **LOOK[name])
    bad = ~np.isfinite(values)
    ax.plot(epochs[bad], np.full(bad.sum(), 0.95), "x", color=colour, markersize=4, transform=ax.get_xaxis_transform())
    return values[~bad]


@figures.style()
def animate(proj_files, dir_file, surf_file="", surf_name="train_loss", vmin=None, vmax=None, vlevel=None, *, log=False,
            labels=()):
    """Write a GIF of the paths, epoch by epoch, over the contours of `surf_file` if one is given; returns its path.

    PROJ_FILE_SURFNAME_2dcontour_proj.gif, or PROJ_FILE.gif. Above the picture: the epoch and, for a single run, the
    losses and the distance from the plane. At most MOST_FRAMES frames, about 8 seconds, then a pause.
    """
    from PIL import Image

    tables = [h5_util.read_projection(file)[0] for file in proj_files]
    figure, ax, paths = backdrop(proj_files, dir_file, surf_file, surf_name, (vmin, vmax, vlevel), log, labels)
    epochs = np.unique(np.concatenate([epochs_of(table) for table in tables]))
    if len(epochs) > MOST_FRAMES:
        epochs = epochs[np.unique(np.linspace(0, len(epochs) - 1, MOST_FRAMES).round().astype(int))]
    canvas = figure.canvas
    canvas.draw()  # all but the animated artists
    background = canvas.copy_from_bbox(figure.bbox)
    frames = []
    for epoch in epochs:
        canvas.restore_region(background)
        for lines, table in zip(paths, tables, strict=True):
            done = int((epochs_of(table) <= epoch).sum())
            over = done == len(table["proj_xcoord"])
            parts = {"_start": slice(min(done, 1)), "_end": slice(done - 1 if over else done, done),
                     "_head": slice(max(done - 1, 0), 0 if over else done)}
            for line in lines:
                part = parts.get(line.get_label(), slice(done))
                line.set_data(table["proj_xcoord"][part], table["proj_ycoord"][part])
        for line in sorted((line for lines in paths for line in lines), key=lambda line: line.get_zorder()):
            ax.draw_artist(line)
        ax.title.set_text(frame_title(tables, epoch))
        ax.draw_artist(ax.title)
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())  # (height, width, 3)
    # one palette for all frames, or the background would flicker
    height, width = frames[0].shape[:2]
    strip = Image.fromarray(np.concatenate(frames)).quantize(256)
    frames = [strip.crop((0, i * height, width, (i + 1) * height)) for i in range(len(frames))]
    each = int(np.clip(8000 / len(frames), 60, 700))  # milliseconds
    image = io.BytesIO()
    frames[0].save(image, "GIF", save_all=True, append_images=frames[1:], loop=0,
                   duration=[each] * (len(frames) - 1) + [2500])
    output = f"{proj_files[0]}_{surf_name}_2dcontour_proj.gif" if surf_file else f"{proj_files[0]}.gif"
    h5_util.write_file(output, image.getvalue())
    return [output]


def epochs_of(table):
    """The epochs of a path; 0, 1, 2, ... for files of the original, which don't tell."""
    return table.get("epoch", np.arange(len(table["proj_xcoord"])))


def backdrop(proj_files, dir_file, surf_file, surf_name, levels, log, labels):
    """(figure, axes, [lines of each run]) of what stands still; the lines and the title belong to the frames."""
    names = list(labels) or ["optimizer path"]
    handles, kinds, shown = [], [], None
    box = plot_2D.path_box(proj_files)
    if surf_file:
        surface = plot_2D.read_2d(surf_file)
        shown = plot_2D.make_plane(surface, surface.get(surf_name), surf_name, surf_file)
        chosen = plot_2D.choose_scale([shown], *levels, log)
        inner, path = plot_2D.box(shown), box
        inside = inner[0] <= path[0] and path[1] <= inner[1] and inner[2] <= path[2] and path[3] <= inner[3]
        box = inner if inside else plot_2D.widened((min(inner[0], path[0]), max(inner[1], path[1]),
                                                    min(inner[2], path[2]), max(inner[3], path[3])))
    else:
        box = plot_2D.widened(box)
    figure, ax = plot_2D.canvas(box, show=False)
    figure.set_dpi(160)
    plot_2D.label_axes(ax, plot_2D.axis_labels(dir_file))
    if shown:
        kinds = plot_2D.hatch_bad(ax, shown, cells=False)
    else:
        ax.grid(True)
    still = len(ax.lines)
    handles = plot_2D.draw_paths(ax, proj_files, names)
    drawn = ax.lines[still:]
    each = len(drawn) // len(proj_files)
    lines = [drawn[i:i + each] for i in range(0, len(drawn), each)]
    if shown:
        handles = handles + plot_2D.mark_points(ax, shown, centre=False)
    plot_2D.finish(figure, ax, handles, kinds, "epoch" if len(proj_files) > 1 else "epoch\nloss")  # makes room
    if shown and len(chosen.levels):
        plot_2D.draw_contours(ax, shown, chosen)
    for own, colour in zip(lines, colours(len(lines)), strict=True):
        own += ax.plot([], [], "o", markersize=5, color=colour, markeredgecolor="black", markeredgewidth=0.5,
                       label="_head", zorder=7, clip_on=False)
    for artist in [line for own in lines for line in own] + [ax.title]:
        artist.set_animated(True)
    return figure, ax, lines


def frame_title(tables, epoch):
    """'epoch 4, 87 % out of the plane' and the losses below, as far as they are known and there is one run."""
    text = f"epoch {epoch}"
    if len(tables) > 1:
        return text
    i = int(np.flatnonzero(epochs_of(tables[0]) == epoch)[0])
    if "relative_distance" in tables[0] and tables[0]["distance_to_origin"][i] > 0:
        text += f", {100 * tables[0]['relative_distance'][i]:.0f} % out of the plane"
    if "evaluated" in tables[0] and tables[0]["evaluated"][i]:
        losses = [float(f"{tables[0][name][i]:.3g}") for name in ("true_loss", "plane_loss")]
        true, plane = (figures.number(loss) if np.isfinite(loss) else str(loss) for loss in losses)
        text += f"\nloss {true}, in the plane {plane}"
    return text


if __name__ == "__main__":
    command.run(main)
