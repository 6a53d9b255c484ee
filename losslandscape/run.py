"""One run, from checked choices to finished surface files, on all ranks of a world.

    compute(world, job)     computes what is missing; returns the paths of the surface files, one per experiment
    check(world, job)       says in a minute whether the plot is going to be right; writes nothing

A job (choices.Job) is a value: a command line makes one, and so can a notebook, a test or a scheduler. The order of the
steps matters: data first, because from the seed on every random number belongs to the network or to the directions.
"""

import os
from dataclasses import dataclass, replace
from functools import partial

import torch

from losslandscape import checks, interruption, measure_checks, scheduler, user_code, weight_space
from losslandscape.choices import Job
from losslandscape.data import datasets
from losslandscape.errors import InputError
from losslandscape.estimation import surface as estimated
from losslandscape.files.layouts import write_directions
from losslandscape.files.lock import TakenOver
from losslandscape.files.names import (
    fits_file_system,
    in_folder,
    surface_file_name,
    whole_surface_name,
)
from losslandscape.files.provenance import circumstances
from losslandscape.files.store import SurfaceStore, read_fitting
from losslandscape.measuring import vetting
from losslandscape.measuring.copies import independent_copy, use_memory_format
from losslandscape.measuring.devices import precision_name, slow_precision
from losslandscape.measuring.guard import GuardedPlane, after_place_function
from losslandscape.measuring.noise import undisturbed
from losslandscape.measuring.own_function import Context, UserFunction, context_on
from losslandscape.measuring.own_measurement import refuse_kept
from losslandscape.messages import Progress, say, tell
from losslandscape.networks.checkpoints import checkpoint_hash, read_checkpoint
from losslandscape.networks.loading import weights_hash
from losslandscape.output_folders import check_out, make_out, missing_folders, nearest_folder, remove_new
from losslandscape.ranks import World


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


# ---------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Experiment:
    """One surface: how its directions are made, and its files."""

    recipe: weight_space.Recipe
    dir_file: str
    surf_file: str


def plan(job):
    """[Experiment] of a job, one for each repeat."""
    experiments = []
    for idx in job.directions.experiments:
        recipe = job.directions.recipe(job.network, idx, two_axes=job.grid.y is not None)
        dir_file = job.directions.dir_file or in_folder(recipe.file_name(), job.out)
        surf_file = surf_file_of(job, job.measurement, dir_file)
        experiments.append(Experiment(recipe, dir_file, surf_file))
    return experiments


def surf_file_of(job, measurement, dir_file):
    """The surface file of a job; a measurement that has been fitted may have a part of its own in the name."""
    name = surface_file_name(dir_file, str(job.grid), surface_name_parts(job, measurement))
    return job.surf_file or in_folder(name, job.out)


def surface_name_parts(job, measurement):
    place = ""
    if job.place:
        place = user_code.label(job.place)
    return [
        *job.data.name_parts(), *measurement.file_name_parts(job.hardware.precision), ("place", place)]


def whole_name_of(job, measurement, experiment):
    """The surface file's name in full, where it had to be shortened; '' where not."""
    whole_direction = os.path.basename(job.directions.dir_file or experiment.recipe.whole_file_name())
    name = whole_surface_name(whole_direction, str(job.grid), surface_name_parts(job, measurement))
    if job.surf_file or name == os.path.basename(experiment.surf_file):
        return ""
    return name


def check_places(*paths, out=""):
    """Raises InputError where a file that does not exist yet could not be written.

    out: a folder that is made when the first file is written.
    """
    check_out(out)
    for path in paths:
        folder = os.path.dirname(path) or "."
        base = os.path.basename(path)
        if path == in_folder(path, out) and out:
            folder = nearest_folder(folder)
        if not os.path.isdir(folder):
            raise InputError(f"expected a folder {folder} for {base}, found none; check --model_file, or create it")

        try:
            os.stat(path)
            exists = True
        except FileNotFoundError:
            exists = False
        except OSError as error:  # a name that is too long, a link that leads to itself
            raise InputError(f"can't use {path} ({error.strerror}); choose another name") from None

        if os.path.isdir(path):
            raise InputError(f"expected a file at {path}, found a folder; choose another name")
        if not exists and not os.access(folder, os.W_OK):
            raise InputError(f"can't write to {folder} to make {base}; make it writable, or name another place with "
                             "--dir_file and --surf_file")


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

    def compute(self, experiment):
        """Compute what is missing of a surface; returns the path of its file."""
        world = self.world
        net, measurement, origin = self.load(experiment.recipe)
        experiment = replace(experiment, surf_file=surf_file_of(self.job, measurement, experiment.dir_file))
        world.on_root(check_places, experiment.surf_file, out=self.job.out)
        files = (experiment.dir_file, experiment.surf_file)
        new_files = [path for path in files if not os.path.exists(path)]
        new_folders = missing_folders(self.job.out)
        axes = world.on_root(self.make_directions, experiment, net, origin, write=False)
        if world.rank == 0 and axes.y is not None:
            tell(f"cosine similarity of the x and the y direction: {weight_space.cosine(axes):.6f}")

        # what a measure gives is known once it was called
        planes = evaluator = None
        if measurement.is_own:
            measurement, planes, evaluator = self.tried(experiment, net, measurement, axes)

        # the surface file, new or taken up again: only rank 0 has it
        names = {group: measurement.names(group) for group in measurement.groups(self.job.data.splits)}
        all_names = [name for group in names for name in names[group]]
        request = world.on_root(estimated.request_for, self.job.estimation, experiment.surf_file)
        if request is not None:
            world.together(estimated.refuse_unsampled, measurement, self.data)
            all_names = estimated.surface_names(self.data, names)
        provenance = self.provenance(measurement, axes, origin)
        whole_name = whole_name_of(self.job, measurement, experiment)
        if whole_name:
            provenance["whole_name"] = whole_name
        world.on_root(
            write_new_directions, experiment, axes, self.job.grid, provenance, all_names, self.job.out)
        store = None

        def open_store():
            nonlocal store
            store = SurfaceStore(
                experiment.surf_file, self.job.grid, all_names, experiment.dir_file, provenance,
                is_done=request and request.is_reached_by)

        try:
            with interruption.postponed():  # a signal must not leave the lock behind
                world.on_root(open_store)
            missing = world.on_root(missing_points, store, names)
            notes = world.on_root(missing_notes, store, measurement)
            if request is not None and world.on_root(estimated.is_missing, store, request):
                planes, evaluator = self.vetted(experiment.recipe, net, measurement, axes)
                self.estimate(store, names, measurement, planes, evaluator, request)
            elif any(missing.values()) or notes:
                if evaluator is None:
                    planes, evaluator = self.vetted(experiment.recipe, net, measurement, axes)
                self.fill(store, missing, notes, measurement, planes, evaluator)
            elif world.rank == 0:
                say(f"all {self.job.grid.size} points are in {experiment.surf_file} already")
        except (Exception, interruption.Interrupted) as error:
            world.announce_end()
            if store is not None:
                end_early(store, error, new_files, new_folders)
            raise
        finally:
            if store is not None:
                with interruption.postponed():
                    store.close()

        if world.rank == 0:
            tell(f"surface file: {experiment.surf_file}")
            for line in [*measurement.report(store.surface), *estimated.report(store.surface)]:
                tell(line)
        return experiment.surf_file

    def check(self, experiment):
        """Print whether the plot that the choices ask for will be right."""
        net, measurement, origin = self.load(experiment.recipe)
        if self.world.rank == 0 and measurement.is_own:
            axes = self.make_directions(experiment, net, origin, write=False)
            [plane], evaluator = self.set_up(copies_on(self.devices, net, plain=True), measurement, axes)
            measure_checks.print_measure_report(measure_checks.MeasuredSubject(
                net, plane, evaluator, self.job, experiment.recipe, self.world.size))
        elif self.world.rank == 0:
            axes = self.make_directions(experiment, net, origin, write=False)
            plain = self.job.place != ""
            networks = copies_on(self.devices[:1], net, plain)
            subject = checks.Subject(
                net=net,
                plane=self.planes_of(networks, axes)[0],
                build=lambda data: self.loss_evaluator(networks, data, measurement, plain=plain),
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
        return net, measurement, world.on_root(self.describe_origin, recipe, net)

    def describe_origin(self, recipe, net):
        """Where directions and surface come from: part of the provenance of both files."""
        network = self.job.network
        origin = {"model": str(network.architecture), "model_file": recipe.model_file}

        # the weights
        if network.model_file:
            origin["checkpoint"] = checkpoint_hash(recipe.model_file)
        else:
            origin["checkpoint"] = weights_hash(net)
        if recipe.x.model_file:
            origin["checkpoint2"] = checkpoint_hash(recipe.x.model_file)
        if recipe.y and recipe.y.model_file:
            origin["checkpoint3"] = checkpoint_hash(recipe.y.model_file)
        whole_name = os.path.basename(recipe.whole_file_name())
        if not fits_file_system(whole_name) and not self.job.directions.dir_file:
            origin["whole_name"] = whole_name

        # the user's code, and what moves
        optional = {
            **user_code.code_hashes("model", network.model),
            "params": recipe.params,
            "freeze": recipe.freeze,
            "checkpoint_key": network.checkpoint_key,
        }
        origin |= {key: value for key, value in optional.items() if value}
        return origin | circumstances()

    def make_directions(self, experiment, net, origin, write=True):
        """The directions of an experiment, read from their file or made."""
        recipe = experiment.recipe
        user_named_the_file = bool(self.job.directions.dir_file)
        if not user_named_the_file:
            warn_about_unnormalized(recipe)

        # a file that the user names may come from elsewhere (a PCA, another network's plane): only its shapes must fit
        provenance = origin
        if not user_named_the_file:
            provenance = origin | {"dir_type": recipe.dir_type}
        return weight_space.setup_direction(
            experiment.dir_file, recipe, net, lambda path: self.job.network.load_other(path, net), provenance,
            check=not user_named_the_file, write=write)

    def provenance(self, measurement, axes, origin):
        """From what the surface is made."""
        return {
            **origin,
            "directions": weight_space.directions_hash(axes),
            "dir_type": self.job.directions.dir_type,
            "dataset": self.job.data.dataset or "none",
            **self.place_provenance(),
            "precision": self.precision,
            **measurement.provenance(),
            **self.data_hashes,
        }

    def place_provenance(self):
        """What --place does, in the provenance."""
        if not self.job.place:
            return {}
        return {"place": self.job.place} | user_code.code_hashes("place", self.job.place)

    def tried(self, experiment, net, measurement, axes):
        """(measure that knows its names, planes, evaluator), after a trial at the centre on every rank.

        The latter two are None where the surface file has all points. Raises InputError where the measure can't be
        used, or gives other numbers on this rank than on rank 0.
        """
        world = self.world
        names = world.on_root(measurement.names_in_finished, experiment.surf_file, self.job.grid)
        if names:
            return measurement.with_names(names), None, None

        with undisturbed(self.devices):
            networks = copies_on(self.devices, net, plain=True)
            planes, evaluator = world.together(self.set_up, networks, measurement, axes)
            numbers = world.together(evaluator.trial)
            world.on_root(self.compare_with_new_network, experiment.recipe, axes, planes[0], evaluator)
        world.together(evaluator.compare_with_root, numbers, world.bcast(numbers))
        return measurement.with_names(numbers), planes, evaluator

    def compare_with_new_network(self, recipe, axes, plane, evaluator):
        """Raises InputError where a measure gives something else, far from the centre, for a newly built network.

        What the moved network keeps from its passes at the centre (a cache, weights that it derived once) would be in
        all points.
        """
        corner = vetting.places_of(self.job.grid)[-1]
        [new_plane] = self.planes_of(copies_on(self.devices, self.load_again(recipe), plain=True), axes)
        results = []
        for either in (new_plane, plane):
            either.place(corner.x, corner.y)
            results.append(evaluator.measure_on(either))
        refuse_kept(corner, *results)

    def vetted(self, recipe, net, measurement, axes):
        """(planes, evaluator), a network on each device, ready to be moved and measured.

        Raises InputError where the losses would not be the network's own; see vetting.py.
        """
        world = self.world
        plain = self.job.place != ""  # a folded network does not see what is done to it
        networks = copies_on(self.devices, net, plain)
        planes, evaluator = world.together(self.set_up, networks, measurement, axes, plain)
        vet = vetting.needs_plain_passes
        if world.on_root(lambda: vet(self.vetting_of(recipe, networks, planes, measurement, axes))):
            make_plain(networks, planes)
            planes, evaluator = world.together(self.set_up, networks, measurement, axes, plain=True)
        return planes, evaluator

    def vetting_of(self, recipe, networks, planes, measurement, axes):
        """The networks of this run, and what they are compared with: a vetting.Vetting."""
        samples = vetting.vetted_samples(self.data)
        precision = "fp32"  # differences of TF32 would hide others
        if self.job.hardware.precision == "bf16":
            precision = "bf16"

        def moved(plain):
            if plain:
                make_plain(networks, planes)
                planes[:] = self.planes_of(networks, axes)
            plain = plain or self.job.place != ""
            return planes, self.loss_evaluator(networks, samples, measurement, precision, plain)

        def evaluate(net, precision):
            evaluator = self.loss_evaluator([net], samples, measurement, precision, plain=True)
            if not self.job.place:
                return evaluator
            return after_place_function(net, self.place_function(), self.context, evaluator)

        return vetting.Vetting(
            moved=moved,
            build=lambda: self.load_again(recipe).to(self.devices[0]),
            evaluate=evaluate,
            precision=precision,
            axes=axes,
            dir_type=self.job.directions.dir_type,
            grid=self.job.grid,
            splits=list(self.job.data.splits),
        )

    def load_again(self, recipe):
        """A second network like that of `load`; the random streams stay as they are."""
        with undisturbed(self.devices):
            return weight_space.build_seeded(partial(self.job.network.load, quiet=True), recipe.idx)

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

    def estimate(self, store, names, measurement, planes, evaluator, request):
        """Estimate the surface on all ranks; see losslandscape/estimation."""
        self.agree_on_batch_size(store, measurement, evaluator)
        if self.world.rank == 0:
            say(self.announcement({split: range(self.job.grid.size) for split in names}, evaluator))
        estimated.estimate(self.world, self.job.grid, self.data, names, request, store, planes, evaluator)

    def set_up(self, networks, measurement, axes, plain=False):
        """(planes, evaluator): the network on each device, ready to be moved and measured.

        plain: without folded batch norm and channels-last memory.
        """
        planes = self.planes_of(networks, axes)
        if measurement.is_own:
            return planes, measurement.evaluator_on(planes[0], self.job.hardware.precision)
        return planes, measurement.build(networks, self.data, self.job.hardware, plain)

    def planes_of(self, networks, axes):
        planes = [weight_space.WeightPlane(net, axes, self.job.directions.dir_type) for net in networks]
        if self.context is None:
            return planes
        return [GuardedPlane(networks[0], planes[0], self.context, self.place_function())]

    def place_function(self):
        """The UserFunction of --place, None where there is none."""
        if not self.job.place:
            return None
        return UserFunction.load("--place", self.job.place)

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

    def loss_evaluator(self, networks, data, measurement, precision=None, plain=False):
        """Evaluator of the loss at the point where the networks are, for the checks.

        precision: that of the run, where none is given.
        """
        hardware = self.job.hardware
        if precision is not None:
            hardware = replace(hardware, precision=precision)
        return measurement.loss_evaluator(networks, data, hardware, plain)

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


def missing_points(store, names):
    """{split: numbers of the points where one of its names is not computed yet}."""
    return {split: store.missing(names[split]).tolist() for split in names}


def missing_notes(store, measurement):
    """What the measurement wants to know about the centre and the file does not have."""
    return [name for name in measurement.centre() if name not in store.notes]


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


def copies_on(devices, net, plain=False):
    """The network on the first device, and copies of it on the others, in channels-last memory.

    plain: in contiguous memory.
    """
    memory_format = torch.contiguous_format if plain else torch.channels_last
    networks = [net] + [independent_copy(net) for _ in devices[1:]]
    return [
        use_memory_format(network.to(device), memory_format)
        for network, device in zip(networks, devices, strict=True)
    ]


def make_plain(networks, planes):
    """Take networks off their planes, back to the origin and to contiguous memory."""
    for plane in planes:
        plane.release()
    for network in networks:
        use_memory_format(network, torch.contiguous_format)


def write_new_directions(experiment, axes, grid, provenance, names, out=""):
    """Write the directions where there is no file of them, and make the folder `out` before.

    names: of the results. Raises InputError, and writes nothing, where the surface file is another surface's, or none.
    """
    surface = read_fitting(experiment.surf_file, grid, provenance)
    if surface is not None:
        refuse_taken_names(experiment.surf_file, surface, names, set(provenance.get("measure_names", ())))
    make_out(out)
    if not os.path.exists(experiment.dir_file):
        write_directions(experiment.dir_file, axes)


def refuse_taken_names(path, surface, names, own_names):
    """Raises InputError where a file has values of one of the names that are something else.

    own_names: those of `names` that are results of --measure.
    """
    measured = set(surface.provenance.get("measure_names", ()))
    for name in names:
        if name in surface.values and (name in measured) != (name in own_names):
            raise InputError(
                f"expected no {name} in {path} that is something else, but it has one (of a loss, or of --measure); "
                "rename the result of --measure, or give another --surf_file")


def end_early(store, error, new_files, new_folders):
    """Save what a run leaves that ends before its last point, without waiting for a disk."""
    progress = f"{store.progress()} in {store.path}; the same command goes on from there"
    try:
        store.close(patience=0)
    except TakenOver as failure:  # the other job goes on
        progress = str(failure)
    except InputError as failure:
        progress = str(failure)
        if not isinstance(error, interruption.Interrupted):
            say(f"warning: {failure}")

    if isinstance(error, interruption.Interrupted):
        error.progress = progress
    # a refused run leaves no empty files behind: made anew, they may have to be others
    if type(error) is InputError and not store.has_results:
        remove_new(new_files, new_folders)


def holds_images(split):
    inputs = getattr(split, "inputs", None)
    return torch.is_tensor(inputs) and inputs.dim() == 4


def warn_about_unnormalized(recipe):
    """Warn where a random direction is not scaled to the weights."""
    for axis in (recipe.x, recipe.y):
        if axis is not None and not axis.model_file and axis.norm == "":
            say("warning: a random direction without normalization (--preset paper, --xnorm filter) says little about "
                "the network: the scale of the weights decides the picture (Li et al. 2018, section 4)")
            return
