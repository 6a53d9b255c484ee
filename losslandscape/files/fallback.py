"""Where results go when their own folder can't be written any more: TMPDIR and the home folder.

    paths = save_elsewhere(target, surface, origin)     a whole surface file in both, or in one
    for path, surface in saved_elsewhere(target, origin): ...

The name of such a file follows from that of the surface file and from what its results were computed
from. So the same command finds it again, and no other. Both places are used, because TMPDIR is often
deleted with its job, and the home folder is often full.
"""

import contextlib
import json
import os
import stat

from losslandscape.errors import InputError
from losslandscape.files import layouts
from losslandscape.files.names import fallback_name
from losslandscape.files.provenance import MATTERS
from losslandscape.messages import say


def fallback_paths(target, origin):
    """Paths of the files that stand in for the surface file `target`.

    origin: the surface that the run would put there, with its grid and provenance.
    """
    matters = {key: value for key, value in origin.provenance.items() if key in MATTERS}
    identity = json.dumps([os.path.realpath(target), str(origin.grid), matters], sort_keys=True)
    name = fallback_name(identity)

    folders = [os.environ.get("TMPDIR") or "/tmp", os.path.expanduser("~")]
    return [os.path.join(folder, name) for folder in dict.fromkeys(folders)]


def save_elsewhere(target, surface, origin):
    """Write the surface to every fallback place that can be written; returns their paths."""
    paths = []
    for path in fallback_paths(target, origin):
        with contextlib.suppress(InputError):
            layouts.write_surface(path, surface)
            paths.append(path)
    return paths


def saved_elsewhere(target, origin):
    """[(path, surface)] that an earlier run has left for this one."""
    surfaces = []
    for path in fallback_paths(target, origin):
        if not _is_our_file(path):
            continue
        try:
            surface = layouts.read_surface(path)
        except InputError as error:
            say(f"note: {error}")
            continue
        if surface.grid.close_to(origin.grid):
            surfaces.append((path, surface))
    return surfaces


def _is_our_file(path):
    """Is there a file of this user? Anybody may put files into /tmp."""
    try:
        state = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_uid == os.getuid()
