"""--out DIR: the folder for new files, seen to be usable first, and made with the first file."""

import contextlib
import os

from losslandscape.errors import InputError


def check_out(folder):
    """Raises InputError unless files can be written into a folder, or where it would be made.

    '' is no choice, and passes.
    """
    if not folder:
        return
    existing = nearest_folder(folder)
    if not os.path.isdir(existing):
        raise InputError(
            f"expected a folder as --out {folder}, found a file at {existing}; name another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"can't write to {existing} for --out {folder}; make it writable, or name another place")


def nearest_folder(path):
    """`path`, or the nearest of the folders above it that exists (or of files in their place)."""
    while not os.path.lexists(path):
        path = os.path.dirname(path.rstrip(os.sep)) or os.curdir
    return path


def missing_folders(folder):
    """The folders that `make_out` would make, the innermost first."""
    missing = []
    folder = folder.rstrip(os.sep)
    while folder and not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def make_out(folder):
    """Make the folder where it is missing; '' is no choice. Raises InputError where it can't be."""
    if not folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"can't make the folder --out {folder} ({error.strerror}); name another place") from None


def remove_new(files, folders):
    """Remove files, and then folders that are empty without them."""
    for path in files:
        with contextlib.suppress(OSError):
            os.remove(path)
    for path in folders:
        with contextlib.suppress(OSError):
            os.rmdir(path)
