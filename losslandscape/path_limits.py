"""The grid of a plane that holds an optimizer's path: limits around the path, checked to be of this plane.

    choose_limits(x="", y="", ...)  ->  PathLimits("-10:2:49", "-1:3:33", ["..._proj_cos.h5"])
"""

import os
from dataclasses import dataclass

from losslandscape.errors import InputError
from losslandscape.files.layouts import read_directions, read_projection
from losslandscape.files.names import projections_of
from losslandscape.messages import say
from losslandscape.networks.checkpoints import checkpoint_hash
from losslandscape.pictures.path_tables import read_path_table
from losslandscape.pictures.paths import path_box, widened
from losslandscape.trajectory import limits_around
from losslandscape.weight_space import directions_hash

MARGIN = 0.1  # of the path's extent, on each side


@dataclass(frozen=True)
class PathLimits:
    """'min:max:count' of both axes (None where none is given), and the projection files of the paths."""

    x: str | None
    y: str | None
    proj_files: list


def choose_limits(x, y, dir_file="", proj_file="", model_file=""):
    """Limits as given, or around an optimizer's path where neither x nor y is given.

    The path is that of `proj_file`, or of the projection files beside a `dir_file` that holds a PCA. Raises InputError
    for a path that lies in another plane or starts from another network: it would be drawn over the wrong contours.
    """
    limits_given = x is not None or y is not None
    directions = None
    if dir_file and os.path.exists(dir_file) and (proj_file or not limits_given):
        directions = read_directions(dir_file)

    proj_files = [proj_file] if proj_file else []
    holds_pca = directions is not None and "explained_variance_ratio_" in directions.extra
    if not proj_files and holds_pca:
        proj_files = projections_of(dir_file)
        if not proj_files:
            say(f"note: no projected path beside {dir_file}, so the grid is 1-D; plot_trajectory.py projects one")

    check_paths(proj_files, directions, model_file)
    if limits_given or not proj_files:
        return PathLimits(x, y, proj_files)

    tables = [read_path_table(file) for file in proj_files]
    xmin, xmax, ymin, ymax = widened(path_box(tables), MARGIN)
    x, y = limits_around(xmin, xmax), limits_around(ymin, ymax)
    say(f"grid around the path in {', '.join(proj_files)}: --x={x} --y={y}")
    return PathLimits(x, y, proj_files)


def check_paths(proj_files, directions, model_file):
    """Raises InputError unless the paths were projected on these directions, from this network."""
    if not proj_files:
        return
    plane_hash = directions_hash(directions) if directions is not None else None
    network_hash = checkpoint_hash(model_file) if os.path.exists(model_file) else None

    for file in proj_files:
        provenance = read_projection(file)[1]
        advice = "give that one, or a grid with --x and --y and no --proj_file"
        if plane_hash and provenance.get("directions", plane_hash) != plane_hash:
            raise InputError(
                f"expected the --dir_file that the path in {file} was projected with (another plane); {advice}")
        if network_hash and provenance.get("checkpoint", network_hash) != network_hash:
            raise InputError(
                f"expected the --model_file that the path in {file} was projected with "
                f"({provenance.get('model_file', '')}); {advice}")
