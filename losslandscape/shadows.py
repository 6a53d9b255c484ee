"""Shadows: where the checkpoints of a path fall on a plane, and what the plane hides of them.

A path that is drawn on a plane is a shadow: the checkpoints lie beside the plane, each nearest to
one of its points. The projection file of a run holds these points, how far away the checkpoints
are and, once evaluated, the loss of the checkpoint beside the loss of the plane at its shadow.

    shadows = cast_shadows(path, directions, runs, labels, files)   # one Shadow per run
    measured = take_up_losses(shadows, provenance)                  # what these files hold already
    evaluate(shadows, path, directions, loss, provenance)           # and what they lack
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from losslandscape.data.datasets import prepare, split_hash
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid
from losslandscape.files.layouts import (
    read_directions,
    read_projection,
    write_directions,
    write_projection,
)
from losslandscape.measuring.copies import use_memory_format
from losslandscape.measuring.criteria import loss_criterion
from losslandscape.measuring.devices import precision_name
from losslandscape.measuring.fitting import Fit, fit_to_data
from losslandscape.measuring.vetting import Vetting, needs_plain_passes, vetted_samples
from losslandscape.messages import Progress, say
from losslandscape.ranks import World
from losslandscape.trajectory import check_directions, pca, project
from losslandscape.weight_space import WeightPlane

LOSS_NAMES = ("true_loss", "true_acc", "plane_loss", "plane_acc")
# of provenance: what makes a plane the same
PLANE_KEYS = ("directions", "checkpoint", "model", "dir_type")


# ---------------------------------------------------------------- places and existing planes


def check_output_places(dir_file, proj_files, chosen):
    """Raises InputError where a file can't be written.

    chosen: the direction file is the user's own, and must exist.
    """
    if chosen and not os.path.isfile(dir_file):
        raise InputError(
            f"expected a direction file at {dir_file}, found none; "
            "check --dir_file, or leave it out"
        )

    # the nearest folder that exists
    folder = os.path.dirname(dir_file) or "."
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder) or "."
    if not os.path.isdir(folder):
        name = os.path.basename(dir_file)
        raise InputError(f"expected a folder at {folder} for {name}, found a file; move it away")
    if not os.access(folder, os.W_OK):
        raise InputError(
            f"can't write to {folder}; make it writable, "
            "or give --dir_file FILE in another place"
        )

    for file in proj_files:
        if os.path.isdir(file):
            raise InputError(f"expected a file at {file}, found a folder; move it away")


def find_plane(dir_file, path, ignore, chosen):
    """Directions of `dir_file`, or of a new PCA of the OptimizerPath where there is no such file.

    ignore: see `pca`; chosen: see `read_plane`.
    """
    if os.path.exists(dir_file):
        return read_plane(dir_file, path, chosen)
    return pca(path, ignore)


def write_new_plane(dir_file, directions, provenance):
    """Write the direction file, and make its folder; a file that exists is left alone."""
    if os.path.exists(dir_file):
        return
    folder = os.path.dirname(dir_file)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"can't make {folder} ({error.strerror}); make its place writable"
        ) from None
    write_directions(dir_file, replace(directions, provenance=provenance))


def read_plane(dir_file, path, chosen):
    """Directions of `dir_file`, checked to fit the OptimizerPath.

    chosen: by the user, who may project on any plane; otherwise they must be the PCA of these
    checkpoints.
    """
    directions = read_directions(dir_file)
    check_directions(dir_file, directions, path)
    if chosen:
        checkpoint = directions.provenance.get("checkpoint")
        if checkpoint and checkpoint != path.origin_hash:
            say(
                f"note: {dir_file} was made at another network than {path.origin_file}, "
                "the origin of this path; a surface at that network is not below it "
                "(give the folder of that network first)"
            )
        return directions

    now = path.made_of()
    before = {name: directions.extra.get(name) for name in now}
    if all(array is None for array in before.values()):
        say(f"note: {dir_file} does not say which checkpoints it is of; it is used as it is")
        return directions
    if not all(np.array_equal(before[name], now[name]) for name in now):
        raise InputError(
            f"{dir_file} was made from other checkpoints: {changes_in_words(before, now)}; "
            f"delete it to make a new plane, or give --dir_file {dir_file} to project on it"
        )
    return directions


def changes_in_words(before, now):
    """What has changed from one set of checkpoints to another (see OptimizerPath.made_of)."""
    arrays = [before[name] for name in now]
    if not all(isinstance(array, np.ndarray) and len(array) == len(arrays[0]) for array in arrays):
        return "its list of them is damaged"

    old, new = hashes_by_checkpoint(before), hashes_by_checkpoint(now)
    changes = {
        "changed since": [key for key in old if key in new and old[key] != new[key]],
        "new": [key for key in new if key not in old],
        "gone": [key for key in old if key not in new],
    }
    for change, checkpoints in changes.items():
        if len(checkpoints) == 1:
            return f"epoch {checkpoints[0][1]} is {change}"
        if checkpoints:
            return f"epoch {checkpoints[0][1]} and {len(checkpoints) - 1} more are {change}"
    return "they come in another order"


def hashes_by_checkpoint(made_of):
    """{(run, epoch): SHA-256} of the arrays that say which checkpoints a file was made from."""
    rows = zip(made_of["run"], made_of["epoch"], made_of["checkpoint_hash"], strict=True)
    return {(int(run), int(epoch)): bytes(row.astype(np.uint8)) for run, epoch, row in rows}


# ---------------------------------------------------------------- shadows and their files


@dataclass(frozen=True)
class Shadow:
    """The shadow of one run: what its projection file holds.

    values: arrays (n,) by name. Those of `project`, epoch and checkpoint_hash (n, 32) are always
    there; once a loss is known also `evaluated` (bool) and LOSS_NAMES, NaN where a checkpoint is
    not evaluated. `evaluate` fills them in.
    """

    label: str
    folder: str
    file: str
    values: dict
    unit: str = "epoch"  # what the numbers of the checkpoints count, or "step"

    def save(self, provenance):
        """Write the projection file."""
        write_projection(self.file, self.values, provenance | {"model_folder": self.folder})

    def clear_losses(self):
        """Make room for losses, none of them known."""
        count = len(self.values["epoch"])
        self.values["evaluated"] = np.zeros(count, bool)
        for name in LOSS_NAMES:
            self.values[name] = np.full(count, np.nan)


def cast_shadows(path, directions, runs, labels, files):
    """[Shadow] of every TrainingRun of an OptimizerPath, in the plane of the directions."""
    arrays = project(path, directions) | {"epoch": path.epochs, "checkpoint_hash": path.hashes}
    shadows = []
    for i, (run, label, file) in enumerate(zip(runs, labels, files, strict=True)):
        values = {name: array[path.runs == i] for name, array in arrays.items()}
        shadows.append(Shadow(label, run.folder, file, values, run.unit))
    return shadows


def take_up_losses(shadows, plane):
    """Take over the losses that projection files hold of these checkpoints and this plane.

    plane: provenance of the directions. Returns the provenance of these losses (see
    TrainingLoss), {} where there are none. Raises InputError for a file that holds the path of
    another run, which would be lost.
    """
    measured = {}
    for shadow in shadows:
        if not os.path.exists(shadow.file):
            continue
        saved, provenance = read_projection(shadow.file)
        rows = rows_of_checkpoints(shadow, saved)
        if not rows and not is_same_path(shadow, saved):
            advice = ""
            if len(shadows) == 1:
                advice = " (several runs in one plane: --model_folder A B)"
            raise InputError(
                f"{shadow.file} holds another path, which would be lost; "
                f"move it away{advice}"
            )

        if "evaluated" not in saved or "evaluation" not in provenance:
            continue
        if any(provenance.get(key) != plane[key] for key in PLANE_KEYS):
            continue
        if measured and not measured_alike(measured, provenance["evaluation"]):
            continue
        measured = provenance["evaluation"]
        copy_losses(shadow, saved, rows)
    return measured


def rows_of_checkpoints(shadow, saved):
    """{number of a checkpoint: its row in the arrays of a projection file}, where it has one."""
    hashes = saved.get("checkpoint_hash", np.empty((0, 32), np.uint8))
    row_of = {bytes(row_hash): row for row, row_hash in enumerate(hashes)}
    rows = {}
    for i, row_hash in enumerate(shadow.values["checkpoint_hash"]):
        if bytes(row_hash) in row_of:
            rows[i] = row_of[bytes(row_hash)]
    return rows


def is_same_path(shadow, saved):
    """Has the file, which may not say of which checkpoints it is, the same points?"""
    if len(saved["proj_xcoord"]) != len(shadow.values["proj_xcoord"]):
        return False
    return all(
        np.allclose(saved[name], shadow.values[name], rtol=1e-4, atol=1e-5)
        for name in ("proj_xcoord", "proj_ycoord")
    )


def copy_losses(shadow, saved, rows):
    """Take the losses of the evaluated checkpoints from the arrays of a projection file."""
    shadow.clear_losses()
    for i, row in rows.items():
        if saved["evaluated"][row]:
            shadow.values["evaluated"][i] = True
            for name in LOSS_NAMES:
                shadow.values[name][i] = saved[name][row]


# ---------------------------------------------------------------- true loss and the plane's loss


@dataclass(frozen=True)
class TrainingLoss:
    """How the loss of a checkpoint is measured. `fitted_to` adds the network and the metric."""

    data: object  # Split or Batches: the training set
    dataset: str  # its name, as --dataset
    loss_name: str = "crossentropy"
    batch_size: int = 128
    precision: str = ""
    device: torch.device = torch.device("cpu")
    net: torch.nn.Module | None = None  # takes on the weights that are measured
    build: Callable | None = None  # a new network like it, never called
    noise_seed: int | None = None  # see evaluator.Evaluator
    fit: Fit | None = None  # what was found out about network, data and loss

    @classmethod
    def load(cls, choice, hardware, loss_name, trust_pickle=False, noise_seed=None):
        """The loss over the training set of a DataChoice, on the device of a Hardware."""
        device = World().devices(hardware.cuda)[0]

        # raise InputError for what does not exist, before data are read
        precision_name(hardware.precision, device)
        loss_criterion(loss_name)

        if choice.downloads:
            prepare(choice.dataset, choice.datapath, ("train",))
        data = choice.load(("train",), hardware, trust_pickle)["train"]
        return cls(
            data, choice.dataset, loss_name, hardware.batch_size, hardware.precision, device,
            noise_seed=noise_seed,
        )  # fmt: skip

    def fitted_to(self, net, build):
        """The same for the checkpoints of `net`; InputError unless network, data and loss fit.

        build() -> a new network with the same weights.
        """
        fit = fit_to_data(
            net, {"train": self.data}, self.loss_name, batch_size=self.batch_size,
            noise_seed=self.noise_seed,
        )  # fmt: skip
        for remark in fit.remarks:
            say(f"note: {remark}")
        return replace(self, net=net, build=build, fit=fit)

    @cached_property
    def provenance(self):
        """From what the losses are, as the projection file records it."""
        return {
            "dataset": self.dataset,
            "train_data": split_hash(self.data),
            "loss": self.loss_name,
            "precision": precision_name(self.precision, self.device),
            **self.fit.provenance(),
        }

    def set_up(self, directions, dir_type, grid):
        """(plane, evaluator) of the network, which is moved to the device.

        grid: of points of the plane that are going to be measured. Raises InputError where the
        losses would not be the network's own; see vetting.py.
        """
        samples = vetted_samples({"train": self.data})
        precision = "fp32"  # differences of TF32 would hide others
        if self.precision == "bf16":
            precision = "bf16"

        def evaluator_of(net, data, precision, plain):
            return self.fit.evaluator([net], data, self.batch_size, precision, plain=plain)

        self.net.to(self.device)
        use_memory_format(self.net, torch.channels_last)
        plane = WeightPlane(self.net, directions, dir_type)

        def moved(plain):
            nonlocal plane
            if plain:
                plane.release()
                use_memory_format(self.net, torch.contiguous_format)
                plane = WeightPlane(self.net, directions, dir_type)
            return [plane], evaluator_of(self.net, samples, precision, plain)

        plain = needs_plain_passes(Vetting(
            moved=moved,
            build=lambda: self.build().eval().to(self.device),
            evaluate=lambda net, precision: evaluator_of(net, samples, precision, plain=True),
            precision=precision,
            axes=directions,
            dir_type=dir_type,
            grid=grid,
            splits=["train"],
        ))  # fmt: skip
        return plane, evaluator_of(self.net, {"train": self.data}, self.precision, plain)


def measured_alike(before, now):
    """Were losses measured alike? The contents of the data decide, not the name of their file."""
    if before.keys() != now.keys():
        return False
    return all(before[key] == now[key] for key in now if key != "dataset")


def forget_other_losses(shadows, measured, loss):
    """Clear the losses that were not measured as the TrainingLoss measures them."""
    alike = measured_alike(measured, loss.provenance)
    for shadow in shadows:
        if not alike or "evaluated" not in shadow.values:
            shadow.clear_losses()


def say_other_measure(measured, surf_file, surface):
    """Tell the user where the losses of the checkpoints and those of a surface are not alike."""
    known = {key: surface.provenance[key] for key in measured if key in surface.provenance}
    differing = [key for key in known if key != "dataset" and known[key] != measured[key]]
    if differing:
        say(
            f"note: the losses of the checkpoints are of other {', '.join(differing)} than "
            f"{surf_file}"
        )


def evaluate(shadows, path, directions, loss, provenance):
    """Fill in true_loss and true_acc of every checkpoint, plane_loss and plane_acc at its shadow.

    Checkpoints that are evaluated already are left out. Accuracies stay NaN where the targets are
    no classes.

    Both come from one network, one evaluator and one data set. On the plane, tensors that the
    directions do not move (the running statistics, for weights) are those of the origin, as on a
    surface. The projection file is saved, with `provenance`, after every checkpoint, so that a
    run that was interrupted goes on from there.
    """
    missing = []
    for run, shadow in enumerate(shadows):
        numbers = np.flatnonzero(path.runs == run)  # of the run's checkpoints in the path
        missing += [(shadow, i, numbers[i]) for i in np.flatnonzero(~shadow.values["evaluated"])]
    if not missing:
        return

    plane, evaluator = loss.set_up(directions, path.dir_type, box_of(shadows))
    origin = path.read(path.origin)
    progress = Progress(len(missing))
    for shadow, i, number in missing:
        # files of old PyTorch lack num_batches_tracked
        loss.net.load_state_dict(path.read(number), strict=False)
        note_losses(shadow, i, "true", evaluator(["train"]))

        loss.net.load_state_dict(origin, strict=False)
        plane.place(shadow.values["proj_xcoord"][i], shadow.values["proj_ycoord"][i])
        note_losses(shadow, i, "plane", evaluator(["train"]))

        shadow.values["evaluated"][i] = True
        shadow.save(provenance)
        progress.step()
    progress.close()


def box_of(shadows):
    """The Grid of the four corners around all shadows."""
    axes = []
    for name in ("proj_xcoord", "proj_ycoord"):
        coordinates = np.concatenate([shadow.values[name] for shadow in shadows])
        axes.append(np.unique([coordinates.min(), coordinates.max()]))
    return Grid(*axes)


def note_losses(shadow, i, kind, results):
    """Enter what the evaluator gave for checkpoint i; kind: 'true' or 'plane'."""
    for quantity in ("loss", "acc"):
        shadow.values[f"{kind}_{quantity}"][i] = results.get(f"train_{quantity}", np.nan)


# ---------------------------------------------------------------- in words


def variance_in_words(directions, count):
    """' (80.12 % + 15.34 % of the variance of 300 checkpoints)' of a PCA, '' of another plane."""
    ratio = directions.extra.get("explained_variance_ratio_")
    if ratio is None:
        return ""
    x, y = (f"{100 * share:.2f} %" for share in ratio)
    return f" ({x} + {y} of the variance of {count} checkpoints)"


def distances_in_words(shadow):
    """How far the path is from the plane on which it is drawn."""
    away = shadow.values["distance_to_origin"] > 0
    if not away.any():
        return f"{shadow.label}: one point, the origin"

    share = np.where(away, shadow.values["relative_distance"], 0)
    worst, median = share.argmax(), np.median(share[away])
    return (
        f"{shadow.label}: {len(away)} checkpoints; "
        f"of their displacement from the origin {100 * median:.1f} % "
        f"(median) and up to {100 * share[worst]:.1f} % ({shadow.unit} "
        f"{shadow.values['epoch'][worst]}) is out of the plane"
    )


def losses_in_words(shadows):
    """Lines on losses that are not finite, and on the largest gap between checkpoint and shadow."""
    lines = []
    for shadow in shadows:
        values = shadow.values
        if "evaluated" not in values or not values["evaluated"].any():
            continue

        gap = np.abs(values["plane_loss"] - values["true_loss"])
        finite = np.isfinite(gap)
        bad = int((values["evaluated"] & ~finite).sum())
        if bad:
            lines.append(f"{shadow.label}: {bad} of {len(gap)} losses are NaN or inf")
        if finite.any():
            widest = int(np.nanargmax(np.where(finite, gap, np.nan)))
            epoch, true = values["epoch"][widest], values["true_loss"][widest]
            lines.append(
                f"{shadow.label}: loss of the checkpoint and of its shadow differ most at "
                f"{shadow.unit} {epoch}: {true:.4g} and {values['plane_loss'][widest]:.4g}"
            )
    return lines
