"""Only regular files are opened: a pipe, a socket or a device would be waited for, perhaps for ever.

    with open_regular(path) as f:      in place of open(path, "rb")
    refuse_special(path)               before a library opens `path` itself
"""

import os
import stat

from losslandscape.errors import InputError

# what is no file of bytes on a disk: (test, in words)
SPECIAL = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path, advice="name a file"):
    """A regular file, open for reading bytes.

    Raises InputError, with `advice`, for a folder, a pipe, a socket or a device; OSError as `open`
    does.
    """
    refuse_special(path, advice)
    # if a pipe has taken the place of the file meanwhile, opening it does not wait either
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse_special_mode(path, os.fstat(descriptor).st_mode, advice)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def refuse_special(path, advice="name a file"):
    """Raises InputError, with `advice`, if a folder, a pipe, a socket or a device is at `path`.

    A path that leads nowhere is no reason.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    _refuse_special_mode(path, mode, advice)


def _refuse_special_mode(path, mode, advice):
    for is_special, words in SPECIAL:
        if is_special(mode):
            raise InputError(f"expected a file at {os.fspath(path)}, got {words}; {advice}")
