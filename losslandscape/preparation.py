"""From a network and its directions to what is measured at a point, known to be right.

    preparation = Preparation(world, job, devices, data, context)
    planes, evaluator = preparation.vetted(recipe, net, measurement, axes)
    measure, (planes, evaluator) = preparation.tried(...)           the same for a measure of the user's own
"""

from dataclasses import dataclass, replace
from functools import partial

import torch

from losslandscape import weight_space
from losslandscape.choices import Job
from losslandscape.measuring import vetting
from losslandscape.measuring.copies import independent_copy, use_memory_format
from losslandscape.measuring.guard import GuardedPlane, after_place_function
from losslandscape.measuring.noise import undisturbed
from losslandscape.measuring.own_function import Context, UserFunction
from losslandscape.measuring.own_measurement import refuse_kept
from losslandscape.ranks import World


@dataclass(frozen=True)
class Preparation:
    """Puts networks on planes and builds their evaluators, on all ranks of a world.

    context: of the functions of --measure and --place, None where there are none.
    """

    world: World
    job: Job
    devices: list  # of this rank
    data: dict  # {split: Split or Batches}
    context: Context | None = None

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

    def tried(self, experiment, net, measurement, axes):
        """(measure that knows its names, (planes, evaluator)), after a trial at the centre on every rank.

        The latter is None where the surface file has all points. Raises InputError where the measure can't be
        used, or gives other numbers on this rank than on rank 0.
        """
        world = self.world
        names = world.on_root(measurement.names_in_finished, experiment.surf_file, self.job.grid)
        if names:
            return measurement.with_names(names), None

        with undisturbed(self.devices):
            networks = copies_on(self.devices, net, plain=True)
            planes, evaluator = world.together(self.set_up, networks, measurement, axes)
            numbers = world.together(evaluator.trial)
            world.on_root(self.compare_with_new_network, experiment.recipe, axes, planes[0], evaluator)
        world.together(evaluator.compare_with_root, numbers, world.bcast(numbers))
        return measurement.with_names(numbers), (planes, evaluator)

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

    def loss_evaluator(self, networks, data, measurement, precision=None, plain=False):
        """Evaluator of the loss at the point where the networks are, for the checks.

        precision: that of the run, where none is given.
        """
        hardware = self.job.hardware
        if precision is not None:
            hardware = replace(hardware, precision=precision)
        return measurement.loss_evaluator(networks, data, hardware, plain)

    def load_again(self, recipe):
        """A second network like that of `load`; the random streams stay as they are."""
        with undisturbed(self.devices):
            return weight_space.build_seeded(partial(self.job.network.load, quiet=True), recipe.idx)


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
