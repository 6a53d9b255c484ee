"""The paths of training runs as figures take them: checked tables, one row per checkpoint."""

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.layouts import read_projection
from losslandscape.pictures.extremes import LARGEST, drawable_numbers

LAST_EPOCH = 10**15  # beyond it, neighbouring epochs are hardly different numbers

# what figures read besides the coordinates, all of it one number per checkpoint
SERIES = (
    "true_loss", "plane_loss", "evaluated", "distance", "distance_to_origin", "relative_distance",
)  # fmt: skip


def read_path_table(path):
    """{name: (n,)} of a projection file, n >= 1: coordinates, epochs where known, and SERIES.

    `unit` says what the numbers under `epoch` count: 'epoch' or 'step'.
    Raises InputError for coordinates and epochs that can't be drawn.
    """
    table, provenance = read_projection(path)
    table["unit"] = counted_unit(provenance)
    count = len(table["proj_xcoord"])
    for name in ("proj_xcoord", "proj_ycoord"):
        size = np.abs(table[name].astype(float)).max()
        if size > LARGEST:
            raise InputError(f"expected coordinates of at most {LARGEST:g} as {name!r} in {path}, "
                             f"got {size:g}; project the checkpoints again")

    refuse_strange_epochs(table.get("epoch"), count, path)
    for name in SERIES:
        if name in table and table[name].shape != (count,):
            raise InputError(f"expected one number per checkpoint as {name!r} in {path}, "
                             f"got the shape {table[name].shape}; the file is damaged")
        if name in table and name != "evaluated":
            table[name] = drawable_numbers(table[name].astype(float), name)
    return table


def counted_unit(provenance):
    """What the numbers of the checkpoints of a projection file count: 'epoch' or 'step'."""
    if provenance.get("unit") == "step":
        return "step"
    return "epoch"


def common_unit(tables):
    """'step' where the checkpoints of all paths are numbered by steps, else 'epoch'."""
    if {table["unit"] for table in tables} == {"step"}:
        return "step"
    return "epoch"


def refuse_strange_epochs(epochs, count, path):
    """Raise InputError unless the epochs are finite numbers, one per checkpoint; None is none."""
    if epochs is None:
        return
    if epochs.shape != (count,) or epochs.dtype.kind not in "fiu":
        raise InputError(f"expected one number per checkpoint as 'epoch' in {path}, "
                         f"got {epochs.dtype} of shape {epochs.shape}; the file is damaged")
    if not (np.abs(epochs.astype(float)) <= LAST_EPOCH).all():  # NaN neither
        strange = epochs[~(np.abs(epochs.astype(float)) <= LAST_EPOCH)][0]
        raise InputError(f"expected finite epochs in {path}, got {strange}; the file is damaged")
