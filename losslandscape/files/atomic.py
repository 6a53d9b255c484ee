"""Files that are written whole: at every moment a name leads to a complete file."""

import contextlib
import errno
import hashlib
import os
import socket
import tempfile

from losslandscape.errors import InputError


def write_file(path, image):
    """Write the bytes `image` to a sibling of `path`, flush it to the disk, then move it into place.

    Raises InputError where the folder can't be written; the file that was there before is then untouched.
    """
    target = os.path.realpath(path)  # a link stays a link: the file may lie on a larger disk
    folder = os.path.dirname(target)
    temporary = None
    try:
        if os.path.islink(target):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        # a short name of its own: `path` may be as long as the file system allows
        prefix = _temporary_prefix(target)
        descriptor, temporary = tempfile.mkstemp(prefix=f"{prefix}{os.getpid()}.", suffix=TEMPORARY, dir=folder)
        with os.fdopen(descriptor, "wb") as f:
            f.write(image)
            f.flush()
            os.fsync(f.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files
        os.replace(temporary, target)
        _remove_leftovers(folder, prefix)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise InputError(f"can't write {path} ({error.strerror or error}); make room or choose another place") from None
    with contextlib.suppress(OSError):  # some file systems can't sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


TEMPORARY = ".tmp~"


def _temporary_prefix(target):
    """What the names of temporary files for `target` begin with, among the processes that can see each other's pids."""
    with contextlib.suppress(OSError):
        target += os.readlink("/proc/self/ns/pid")
    return f".{hashlib.sha256(f'{socket.gethostname()} {target}'.encode()).hexdigest()[:12]}."


def _remove_leftovers(folder, prefix):
    """Remove the temporary files of processes that were killed while they wrote the same file."""
    for name in os.listdir(folder):
        if name.startswith(prefix) and name.endswith(TEMPORARY):
            with contextlib.suppress(ValueError, PermissionError, FileNotFoundError):
                pid = int(name[len(prefix):].split(".")[0])
                try:
                    os.kill(pid, 0)
                except ProcessLookupError:
                    os.unlink(os.path.join(folder, name))
