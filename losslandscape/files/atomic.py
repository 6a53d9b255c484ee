"""Files that are written whole: at every moment a name leads to a complete file.

The bytes go to a hidden file in the same folder, which is flushed to the disk and moved into place.
"""

import contextlib
import errno
import hashlib
import os
import socket
import tempfile

from losslandscape.errors import InputError
from losslandscape.files.opening import refuse_special

TEMPORARY_ENDING = ".tmp~"


def write_file(path, image):
    """Write the bytes `image` to `path`, in one step as seen by everybody else.

    Raises InputError where the folder can't be written, or where something else than a file has the
    name; what was there before is then untouched.
    """
    refuse_special(path, "choose another place")
    target = os.path.realpath(path)  # a link stays a link: the file may lie on a larger disk
    folder = os.path.dirname(target)
    try:
        if os.path.islink(target):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        _write_and_rename(target, image)
        _remove_leftovers(target)
    except OSError as error:
        raise InputError(f"can't write {path} ({error.strerror or error}); "
                         "make room or choose another place") from None
    _sync_folder(folder)


def _write_and_rename(target, image):
    """Write a temporary file and give it the name `target`; an error leaves nothing behind."""
    descriptor, temporary = tempfile.mkstemp(
        prefix=f"{_temporary_prefix(target)}{os.getpid()}.",
        suffix=TEMPORARY_ENDING,
        dir=os.path.dirname(target),
    )
    try:
        with os.fdopen(descriptor, "wb") as f:
            f.write(image)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(temporary, _permissions_of_new_files())
        os.replace(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _permissions_of_new_files():
    """The mode of any new file; mkstemp makes private ones."""
    umask = os.umask(0)  # the only way to read it is to set it
    os.umask(umask)
    return 0o666 & ~umask


def _sync_folder(folder):
    """Put the new name on the disk too; some file systems can't."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# ---------------------------------------------------------------- what killed writers leave


def _temporary_prefix(target):
    """What the names of temporary files for `target` begin with; the pid of the writer follows.

    A short name of its own, for that of `target` may be as long as the file system allows. Only
    processes that see each other's pids have the same prefix.
    """
    identity = f"{socket.gethostname()} {target}"
    with contextlib.suppress(OSError):
        identity += os.readlink("/proc/self/ns/pid")
    return f".{hashlib.sha256(os.fsencode(identity)).hexdigest()[:12]}."


def _remove_leftovers(target):
    """Remove the temporary files of processes that were killed while they wrote the same file."""
    folder, prefix = os.path.dirname(target), _temporary_prefix(target)
    for name in os.listdir(folder):
        if name.startswith(prefix) and name.endswith(TEMPORARY_ENDING):
            with contextlib.suppress(ValueError, PermissionError, FileNotFoundError):
                pid = int(name.removeprefix(prefix).split(".")[0])
                if not _is_running(pid):
                    os.unlink(os.path.join(folder, name))


def _is_running(pid):
    """Is there such a process? PermissionError where it is somebody else's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
