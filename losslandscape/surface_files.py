"""The files of a surface while it is computed: made when all is checked, saved whatever happens.

    traces = Traces.of(experiment, out)                     what is there before
    write_new_directions(experiment, axes, ...)             or an InputError, and nothing is written
    with open_store(world, open_file, traces) as store:     closed and saved at the end, also of an error
        missing_points(store, names)
"""

import contextlib
import os
from dataclasses import dataclass

from losslandscape import interruption
from losslandscape.errors import InputError
from losslandscape.files.layouts import write_directions
from losslandscape.files.lock import TakenOver
from losslandscape.files.store import read_fitting
from losslandscape.messages import say
from losslandscape.output_folders import make_out, missing_folders, remove_new


@dataclass(frozen=True)
class Traces:
    """Files and folders that a run may make: they are not there before."""

    files: list
    folders: list

    @classmethod
    def of(cls, experiment, out):
        """Of an Experiment, whose files may go into the folder `out`."""
        files = [path for path in (experiment.dir_file, experiment.surf_file) if not os.path.exists(path)]
        return cls(files, missing_folders(out))


@contextlib.contextmanager
def open_store(world, open_file, traces):
    """The SurfaceStore that open_file() opens on rank 0, None on all others; saved and closed at the end.

    An error or a signal within the block is announced to all ranks before the file is saved; what is saved by then
    becomes part of the message of a signal.
    """
    store = None

    def open_here():
        nonlocal store
        store = open_file()

    try:
        with interruption.postponed():  # a signal must not leave the lock behind
            world.on_root(open_here)
        yield store
    except (Exception, interruption.Interrupted) as error:
        world.announce_end()
        if store is not None:
            end_early(store, error, traces)
        raise
    finally:
        if store is not None:
            with interruption.postponed():
                store.close()


def missing_points(store, names):
    """{split: numbers of the points where one of its names is not computed yet}."""
    return {split: store.missing(names[split]).tolist() for split in names}


def missing_notes(store, measurement):
    """What the measurement wants to know about the centre and the file does not have."""
    return [name for name in measurement.centre() if name not in store.notes]


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


def end_early(store, error, traces):
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
        remove_new(traces.files, traces.folders)
