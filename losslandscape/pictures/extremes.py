"""Numbers that no picture can hold: what is refused, and what is drawn as infinite or as zero.

Drawing takes differences, squares and logarithms of coordinates and values, which overflow long
before the numbers themselves do.
"""

import numpy as np

from losslandscape.errors import InputError
from losslandscape.pictures.style import note

LARGEST = 1e150  # its square is still a float64
SMALLEST = 1e-150

# of the coordinates of a plot: the smallest step, relative to the largest coordinate
RESOLUTION = 1e-12
FLOAT32_RESOLUTION = 1e-7  # of pages and meshes, which hold coordinates as float32


def refuse_undrawable_axes(surface, place, resolution=RESOLUTION, largest=LARGEST):
    """Raise InputError unless the coordinates rise, and are neither too large nor too close.

    place: the file or another name of the surface, for the message; largest: the most that a
    coordinate may be, and one over the least that a step may be.
    """
    for axis in surface.grid.axes:
        if not (np.isfinite(axis).all() and (axis[1:] > axis[:-1]).all()):
            raise InputError(f"expected finite and increasing coordinates in {place}; "
                             "the file is damaged")

        size = np.abs(axis).max()
        if size > largest:
            raise InputError(f"expected coordinates of at most {largest:g} in {place}, "
                             f"got {size:g}; compute a smaller plot")

        step = np.diff(axis).min(initial=np.inf)
        smallest = max(resolution * size, 1 / largest)
        if step < smallest:
            raise InputError(f"expected coordinates at least {smallest:.2g} apart in {place}, "
                             f"got {step:.2g}; compute a coarser plot")


def drawable_numbers(values, name):
    """The (masked) array with infinity for what is beyond LARGEST, 0 for what is below SMALLEST.

    A note says so; name: of the values.
    """
    size = np.abs(np.ma.filled(values, 0.0))
    too_large = (size > LARGEST) & np.isfinite(size)
    too_small = (size < SMALLEST) & (size > 0)
    if not too_large.any() and not too_small.any():
        return values

    if too_large.any():
        note(f"{too_large.sum()} of {size.size} values of {name} are beyond {LARGEST:g}, "
             "and drawn as infinite")
    if too_small.any():
        note(f"{too_small.sum()} of {size.size} values of {name} are below {SMALLEST:g}, "
             "and drawn as 0")

    data = np.ma.getdata(values)
    changed = np.where(too_large, np.copysign(np.inf, data), data)
    changed = np.where(too_small, 0.0, changed)
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.masked_array(changed, np.ma.getmaskarray(values))
    return changed
