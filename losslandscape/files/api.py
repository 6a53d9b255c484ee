"""Surfaces saved and read: losslandscape.save and losslandscape.read. No torch."""

import os

from losslandscape.files.grid import Surface
from losslandscape.files.layouts import read_surface, write_surface


def save(surface: Surface, path: str | os.PathLike) -> None:
    """Write a surface to an HDF5 file, which plot_2D.py, h52vtp.py, h52html.py and the others take.

    Raises:
        InputError: where the file can't be written; what was there before is then untouched.
    """
    write_surface(os.fspath(path), surface)


def read(path: str | os.PathLike) -> Surface:
    """The surface in a file of ours, or of the original code.

    Raises:
        InputError: where the file can't be read as one.
    """
    return read_surface(os.fspath(path))
