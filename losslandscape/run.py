"""One run, from checked choices to finished surface files, on all ranks of a world.

    compute(world, job)     computes what is missing; returns the paths of the surface files, one per experiment
    check(world, job)       says in a minute whether the plot is going to be right; writes nothing

A job (choices.Job) is a value: a command line makes one, and so can a notebook, a test or a scheduler. The order of the
steps matters: data first, because from the seed on every random number belongs to the network or to the directions.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch

from losslandscape import checks, measure_checks, origins, scheduler, user_code, weight_space
from losslandscape.choices import Job
from losslandscape.data import datasets
from losslandscape.errors import InputError
from losslandscape.estimation import surface as estimated
from losslandscape.files.store import SurfaceStore
from losslandscape.measuring.devices import precision_name, slow_precision
from losslandscape.measuring.own_function import Context, context_on
from losslandscape.messages import Progress, say, tell
from losslandscape.networks.checkpoints import read_checkpoint
from losslandscape.plan import check_places, plan, surf_file_of, whole_name_of
from losslandscape.preparation import Preparation, copies_on
from losslandscape.ranks import World
from losslandscape.surface_files import (
    Traces,
    missing_notes,
    missing_points,
    open_store,
    write_new_directions,
)


def compute(world, job):
    """Compute what is missing of the surfaces of a job; returns their paths.

    Raises InputError, before anything is written, for choices that can't be computed. An interrupted run saves what it
    has, and ends the process.
    """
    experiments = world.together(plan, job)
    for experiment in experiments:
        world.on_root(check_places, experiment.dir_file, experiment.surf_file, out=job.out)

    run = make_ready(world, job)
    return [run.compute(experiment) for experiment in experiments]


def check(world, job):
    """Print whether the surface that the job asks for is going to be right."""
    experiment = world.together(plan, job)[0]
    make_ready(world, job).check(experiment)


# ---------------------------------------------------------------- made ready


def make_ready(world, job):
    """Run of a job: devices chosen, data loaded and seen to be the same on every rank."""
    world.patience = job.hardware.patience
    threads = world.share_threads()
    devices = world.together(world.devices, job.hardware.cuda, job.hardware.ngpu)
    precision = world.together(precision_name, job.hardware.precision, devices[0])

    splits = job.measurement.splits_read(job.data.splits)
    if job.data.downloads:
        world.on_root(datasets.prepare, job.data.dataset, job.data.datapath, splits)
    data = world.together(
        job.data.load, splits, job.hardware, job.network.trust_pickle, quiet=world.rank > 0,
        memory=world.share_memory())

    context = None
    if job.measurement.is_own or job.place:
        context = context_on(
            devices[0], data, world.rank, job.measurement.noise_seed, job.hardware.batch_size)

    hashes = {f"{name}_data": datasets.split_hash(split) for name, split in data.items()}
    world.together(refuse_other_data, job.data.dataset, hashes, world.bcast(hashes))
    return Run(world, job, devices, threads, precision, data, hashes, context)


def refuse_other_data(dataset, hashes, hashes_of_root):
    """Raises InputError where this rank has read other data than rank 0."""
    if hashes != hashes_of_root:
        raise InputError(
            f"expected --dataset {dataset} to be the same on all ranks, it differs from one to the next: seed what is "
            "random in it, and switch shuffling and augmentation off")


def refuse_other_loss(made_of, made_of_root):
    """Raises InputError where this rank has understood the loss differently from rank 0."""
    if made_of != made_of_root:
        raise InputError(
            f"expected network and loss to behave alike on all ranks, got {made_of} on one and {made_of_root} on rank "
            "0; seed what is random in them")


@dataclass(frozen=True)
class Run:
    """What the experiments of a job have in common; `compute` makes the surface of one of them."""

    world: World
    job: Job
    devices: list  # of this rank
    threads: int  # of this rank
    precision: str  # its name, as it is recorded
    data: dict  # {split: Split or Batches}
    data_hashes: dict  # {SPLIT_data: sha256}
    context: Context | None = None  # of the functions of --measure and --place

    @cached_property
    def preparation(self):
        """What puts the network on planes, and builds evaluators."""
        return Preparation(self.world, self.job, self.devices, self.data, self.context)

    def compute(self, experiment):
        """Compute what is missing of a surface; returns the path of its file."""
        world, job = self.world, self.job
        net, measurement, origin = self.load(experiment.recipe)
        experiment = replace(experiment, surf_file=surf_file_of(job, measurement, experiment.dir_file))
        world.on_root(check_places, experiment.surf_file, out=job.out)
        traces = Traces.of(experiment, job.out)

        # the directions, which are written when all is checked
        axes = world.on_root(origins.read_or_make_directions, job, experiment, net, origin, write=False)
        if world.rank == 0 and axes.y is not None:
            tell(f"cosine similarity of the x and the y direction: {weight_space.cosine(axes):.6f}")

        # what a measure gives is known once it was called
        prepared = None
        if measurement.is_own:
            measurement, prepared = self.preparation.tried(experiment, net, measurement, axes)

        # what will be in the file, and from what it is
        names = {group: measurement.names(group) for group in measurement.groups(job.data.splits)}
        request = world.on_root(estimated.request_for, job.estimation, experiment.surf_file)
        all_names = [name for group in names for name in names[group]]
        if request is not None:
            world.together(estimated.refuse_unsampled, measurement, self.data)
            all_names = estimated.surface_names(self.data, names)
        provenance = self.provenance(experiment, measurement, axes, origin)

        # the surface, new or taken up again
        world.on_root(write_new_directions, experiment, axes, job.grid, provenance, all_names, job.out)
        open_file = partial(
            SurfaceStore, experiment.surf_file, job.grid, all_names, experiment.dir_file, provenance,
            is_done=request and request.is_reached_by)
        with open_store(world, open_file, traces) as store:
            prepare = partial(self.preparation.vetted, experiment.recipe, net, measurement, axes)
            self.complete(store, names, measurement, request, prepared, prepare)

        if world.rank == 0:
            tell(f"surface file: {experiment.surf_file}")
            for line in [*measurement.report(store.surface), *estimated.report(store.surface)]:
                tell(line)
        return experiment.surf_file

    def complete(self, store, names, measurement, request, prepared, prepare):
        """Compute what the file lacks: values, or estimates, or notes about the centre.

        names: {split: its values}. request: of an estimate, or None. prepared: (planes, evaluator), or None where
        prepare() makes them. store: None except on rank 0.
        """
        world = self.world
        missing = world.on_root(missing_points, store, names)
        notes = world.on_root(missing_notes, store, measurement)
        if request is not None and world.on_root(estimated.is_missing, store, request):
            self.estimate(store, names, measurement, request, *prepare())
        elif any(missing.values()) or notes:
            self.fill(store, missing, notes, measurement, *(prepared or prepare()))
        elif world.rank == 0:
            say(f"all {self.job.grid.size} points are in {store.path} already")

    def check(self, experiment):
        """Print whether the plot that the choices ask for will be right."""
        net, measurement, origin = self.load(experiment.recipe)
        if self.world.rank == 0 and measurement.is_own:
            axes = origins.read_or_make_directions(self.job, experiment, net, origin, write=False)
            [plane], evaluator = self.preparation.set_up(copies_on(self.devices, net, plain=True), measurement, axes)
            measure_checks.print_measure_report(measure_checks.MeasuredSubject(
                net, plane, evaluator, self.job, experiment.recipe, self.world.size))
        elif self.world.rank == 0:
            axes = origins.read_or_make_directions(self.job, experiment, net, origin, write=False)
            plain = self.job.place != ""
            networks = copies_on(self.devices[:1], net, plain)
            subject = checks.Subject(
                net=net,
                plane=self.preparation.planes_of(networks, axes)[0],
                build=lambda data: self.preparation.loss_evaluator(networks, data, measurement, plain=plain),
                data=self.data,
                grid=self.job.grid,
                info=self.recorded_results(experiment.recipe),
                recipe=experiment.recipe,
                points=self.job.grid.size * self.job.directions.repeats,
                ranks=self.world.size,
                vmax=self.job.highest_contour,
                measurement=measurement,
                precision=checks.tolerance_name(self.precision),
                tolerance=self.job.estimation.tolerance,
            )
            checks.print_report(subject)
        self.world.bcast()  # the others wait

    # ------------------------------------------------------------ the steps

    def load(self, recipe):
        """(network, measurement that fits it, where the network is from), after the seed of the experiment."""
        world, job = self.world, self.job
        net = world.together(
            weight_space.build_seeded, partial(job.network.load, quiet=world.rank > 0), recipe.idx)
        # the draws of a network that tests something by chance must not reach the directions
        with torch.random.fork_rng(devices=[]):
            measurement = world.together(
                job.measurement.fitted, net, self.data, job.hardware.batch_size, world.rank == 0)
        made_of = measurement.provenance()
        world.together(refuse_other_loss, made_of, world.bcast(made_of))
        return net, measurement, world.on_root(origins.describe_origin, job, recipe, net)

    def provenance(self, experiment, measurement, axes, origin):
        """From what the surface is made."""
        entries = {
            **origin,
            "directions": weight_space.directions_hash(axes),
            "dir_type": self.job.directions.dir_type,
            "dataset": self.job.data.dataset or "none",
            **self.place_provenance(),
            "precision": self.precision,
            **measurement.provenance(),
            **self.data_hashes,
        }
        whole_name = whole_name_of(self.job, measurement, experiment)
        if whole_name:
            entries["whole_name"] = whole_name
        return entries

    def place_provenance(self):
        """What --place does, in the provenance."""
        if not self.job.place:
            return {}
        return {"place": self.job.place} | user_code.code_hashes("place", self.job.place)

    def fill(self, store, missing, notes, measurement, planes, evaluator):
        """Evaluate the missing points on all ranks, and the missing notes about the centre on rank 0."""
        world = self.world
        self.agree_on_batch_size(store, measurement, evaluator)
        if world.rank == 0:
            say(self.announcement(missing, evaluator))
            if world.thread_hint():
                say(world.thread_hint())

        walk_over(world, store, self.job.grid, missing, planes, evaluator)

        if world.rank == 0 and notes:
            store.save(now=True)
            for plane in planes:
                plane.place(0.0)
            for name in notes:
                store.note(name, measurement.centre()[name](evaluator))

    def estimate(self, store, names, measurement, request, planes, evaluator):
        """Estimate the surface on all ranks; see losslandscape/estimation."""
        self.agree_on_batch_size(store, measurement, evaluator)
        if self.world.rank == 0:
            say(self.announcement({split: range(self.job.grid.size) for split in names}, evaluator))
        estimated.estimate(self.world, self.job.grid, self.data, names, request, store, planes, evaluator)

    def agree_on_batch_size(self, store, measurement, evaluator):
        """The batch size that was asked for, else the one that the file began with, else the fastest; on every rank."""
        key = measurement.batch_size_key
        if self.job.hardware.batch_size is None:
            batch_size = None
            if self.world.rank == 0:
                batch_size = store.surface.provenance.get(key) or evaluator.calibrate()
            evaluator.batch_size = self.world.bcast(batch_size)
        if self.world.rank == 0:
            store.surface.provenance[key] = evaluator.batch_size

    def recorded_results(self, recipe):
        """What the checkpoint itself says beside its weights: epoch, accuracy, ..."""
        if not self.job.network.model_file:
            return {}
        network = self.job.network
        return read_checkpoint(recipe.model_file, network.trust_pickle, network.checkpoint_key).info

    def announcement(self, missing, evaluator):
        """One line: how much work there is, and who does it."""
        size = self.job.grid.size
        remaining = len(set().union(*missing.values()))
        resumed = ""
        if remaining < size:
            resumed = f" ({size - remaining} done before)"

        data = {name: split for name, split in self.data.items() if name in missing}
        samples = " + ".join(f"{len(split)} {name}" for name, split in data.items())
        kind = "images" if all(map(holds_images, data.values())) else "samples"
        if self.job.measurement.is_own:
            work, details = self.job.measurement.measure, ""
        else:
            work, details = f"{samples} {kind}", f", batch {evaluator.batch_size}, {evaluator.note}"

        ranks = "1 rank" if self.world.size == 1 else f"{self.world.size} ranks"
        where = self.devices[0].type
        if len(self.devices) > 1:
            where = f"{len(self.devices)} x {where}"
        if self.devices[0].type == "cpu":
            plural = "s" if self.threads > 1 else ""
            where += f", {self.threads} thread{plural} each"

        slow = slow_precision(self.precision, self.devices[0])
        return (
            f"{remaining} points{resumed} x {work}, {self.job.network.architecture.name} on {ranks} "
            f"({where}), {self.precision}{slow}{details}")


# ---------------------------------------------------------------- the walk over the grid


def walk_over(world, store, grid, missing, planes, evaluator):
    """Evaluate the missing points ({split: point numbers}) on all ranks, into the store (None except on rank 0)."""
    missing = {split: set(points) for split, points in missing.items()}
    remaining = set().union(*missing.values())
    levels = []
    for level in scheduler.coarse_to_fine(grid.shape):
        levels.append([point for point in level.tolist() if point in remaining])

    def measure(point, idle):
        for plane in planes:
            plane.place(*grid.point(point))
        splits = [split for split in missing if point in missing[split]]
        return evaluator(splits, idle)

    if world.rank > 0:
        scheduler.walk(world, levels, measure, record=None, save=None)
        return

    progress = Progress(len(remaining))

    def record(point, values):
        store.record(point, values)
        progress.step()

    scheduler.walk(world, levels, measure, record, store.save)
    progress.close()


def holds_images(split):
    inputs = getattr(split, "inputs", None)
    return torch.is_tensor(inputs) and inputs.dim() == 4
