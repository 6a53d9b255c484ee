"""The surfaces that a job asks for: how their directions are made, and their files.

    for experiment in plan(job):                        one for each repeat
        check_places(experiment.dir_file, experiment.surf_file)
"""

import os
from dataclasses import dataclass

from losslandscape import user_code, weight_space
from losslandscape.errors import InputError
from losslandscape.files.names import in_folder, surface_file_name, whole_surface_name
from losslandscape.output_folders import check_out, nearest_folder


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
