"""An estimated surface, from a run's or a notebook's side: is it asked for, can it be had, what came of it."""

import os

from losslandscape.data.splits import Split
from losslandscape.errors import InputError
from losslandscape.estimation import audit
from losslandscape.estimation.rounds import Estimation, Meter, Request
from losslandscape.estimation.survey import Population
from losslandscape.files.layouts import read_surface
from losslandscape.files.samples import SampleFile

DRAWS = "stratified by class, seed 20180112"  # in which order samples are drawn


def request_for(choice, surf_file):
    """Request of a tolerance and a budget; None for an ordinary run.

    Without either, a surface that was estimated before is computed on all data.
    """
    if choice.tolerance is choice.budget is choice.acc_tolerance is None:
        if not os.path.exists(surf_file) or "estimation" not in read_surface(surf_file).provenance:
            return None
        return Request(tolerance=0.0)
    return Request(choice.tolerance, choice.budget, choice.acc_tolerance)


def refuse_unsampled(measurement, data):
    """Raises InputError where the losses of single samples say nothing about the surface."""
    reason = ""
    if measurement.is_own or measurement.batch_size_key != "batch_size":
        reason = "a surface of losses, which are known sample by sample"
    elif measurement.bn != "frozen":
        reason = f"--bn frozen, got {measurement.bn}, which reads all training data at every point"
    else:
        reason = reason_against_samples(measurement.fit, data)
    if reason:
        raise InputError(f"expected {reason}; leave --tolerance and --budget out")


def reason_against_samples(fit, data):
    """What was expected of loss and data, and what came, in words; '' where samples stand for all."""
    if fit.noise_seed is not None:
        return "no --noise_seed, got one: the noise of a sample depends on the samples before it"
    if fit.batches:
        return f"a loss that is a mean over samples, got one of whole batches ({fit.batches})"
    for name, split in data.items():
        if not isinstance(split, Split):
            return f"{name} samples that are held in memory and can be drawn one by one, got batches"
    return ""


def populations_of(data, names):
    """[Population] of the splits {name: Split} whose results have the names {split: [name]}."""
    return [Population.of(split, data[split], names[split]) for split in names]


def surface_names(data, names):
    """The names of all that the surface file gets."""
    return [name for population in populations_of(data, names) for name in population.surface_names]


def is_missing(store, request):
    """Is there anything left to do?"""
    return store.missing().size > 0 or not request.is_reached_by(store.surface.provenance)


class InMemory:
    """Takes in results like a files.store.SurfaceStore, for a surface that has no file."""

    path = None

    def __init__(self, surface):
        self.surface = surface

    def record(self, point, values):
        self.surface = self.surface.with_values(values)
        for name, value in values.items():
            self.surface.values[name].flat[point] = value
            self.surface.computed[name].flat[point] = True

    def save(self):
        """There is nothing to save."""


def estimate(world, grid, data, names, request, store, planes, evaluator, progress=True):
    """Estimate a surface on all ranks, into the store of rank 0; single samples go beside its file."""
    populations = populations_of(data, names)
    meter = Meter(grid, planes, evaluator, data, {population.split: population for population in populations})
    sample_file = None
    if world.rank == 0 and store.path is not None:
        sample_file = SampleFile(store.path, store.surface, DRAWS)
    Estimation(world, grid, populations, request, store, meter, sample_file, progress).run()


def report(surface):
    """Lines for the user about an estimated surface; none for others."""
    made = surface.provenance.get("estimation")
    if made is None or made.get("tolerance") == 0:
        return
    yield (
        f"estimated from {made['samples']} evaluations of samples, {100 * made['share_of_work']:.3g} % of those that "
        "all data take")
    if made["share_of_work"] >= 1:
        yield "that is no less than all data at every point: the set or the grid is small, or the tolerance is"
    for split, entry in surface.provenance.get("audit", {}).items():
        yield f"{split}: {audit.audit_in_words(entry)}"
