"""The surface file of a running job: created or resumed, locked, filled, saved. Only rank 0 has one.

Laws: a result is on the disk at most 5 s after it was recorded, at 1 % of the time; what is there stays, whatever
happens next; and a point is in the file only if it was computed with the network, directions, data, loss and precision
that the file's provenance names.
"""

import contextlib
import os
import sys
import time
from dataclasses import replace

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import layouts
from losslandscape.files.grid import Surface
from losslandscape.files.journal import Journal
from losslandscape.files.lock import Lock, TakenOver
from losslandscape.files.names import lock_path
from losslandscape.files.provenance import MATTERS, refuse_mismatch  # noqa: F401

SAVE_SECONDS = 1.0, 4.8  # a result waits at least and at most this long, between them ...
SAVE_SHARE = 0.01  # ... so that this share of the time is spent on writing; half of it each on file and journal
SLOW_SHARE = 0.05  # on a disk so slow that 5 s can't be kept without spending more than this share, they aren't


class SurfaceStore:
    """The values of a surface under computation.

    path: the surface file; grid, names, dir_file, provenance: what the run will put there. Creates the file, or takes
    up one that has the same grid and the same provenance. Raises InputError, and changes nothing, if another job holds
    the file, or if it was made from something else. A file that is complete is neither locked nor written.
    """

    def __init__(self, path, grid, names, dir_file, provenance):
        self.path, self._names = path, list(names)
        self._unsaved, self._cost, self._warned, self._lock = [], 0.0, False, None
        self.surface = self._read_or_new(grid, dir_file, provenance)
        self._journal = Journal(path, self.surface)
        self._last = self._last_whole = time.monotonic()
        self._provenance = self.surface.provenance
        if self.missing().size == 0:
            if os.path.exists(lock_path(path)):  # left by a job that was killed after its last save, or a living job's
                with contextlib.suppress(InputError):
                    lock = Lock(path)
                    self._journal.remove()
                    lock.release()
            return
        self._lock = Lock(path)
        try:
            known = os.path.exists(path)  # without its file a journal is nothing: who deletes the one means both
            self.surface = self._read_or_new(grid, dir_file, provenance)  # it may have grown until we had the lock
            self._journal = Journal(path, self.surface)
            for point, values in self._journal.read() if known else ():
                self.record(point, values)
            self._write()
        except BaseException:
            self._lock.release()
            raise

    def _read_or_new(self, grid, dir_file, provenance):
        if os.path.exists(self.path):
            old = layouts.read_surface(self.path)
            _same_grid(self.path, old.grid, grid)
            refuse_mismatch(self.path, old.provenance, provenance)
            surface = replace(old, provenance=old.provenance | provenance)
        else:
            surface = Surface(grid, dir_file=dir_file, provenance=provenance)
        return surface.with_values(self._names)

    def missing(self, names=None):
        """Numbers of the points where one of `names` (default: all of the run's) is not computed yet."""
        done = np.logical_and.reduce([self.surface.computed[name] for name in names or self._names])
        return np.flatnonzero(~done)

    def record(self, point, values):
        """Take in {name: number} of one point."""
        for name, value in values.items():
            self.surface.values[name].flat[point] = value
            self.surface.computed[name].flat[point] = True
        self._unsaved.append((point, values))

    def save(self, now=False):
        """Write if it is time to, or if `now`. A full disk is reported once and tried again: the results are kept.

        The whole file, unless it is so large that this would take more than SAVE_SHARE of the time: then the new
        results go to the journal, and the file is written as often as half the share allows.
        """
        (shortest, longest), passed = SAVE_SECONDS, time.monotonic() - self._last
        whole = (now or self._cost <= longest * SAVE_SHARE or self.surface.provenance != self._provenance
                 or time.monotonic() - self._last_whole >= 2 * self._cost / SAVE_SHARE)
        wait = max(shortest, min(longest, (self._cost if whole else 2 * self._journal.cost) / SAVE_SHARE))
        if not now and passed < (wait if whole else max(wait, self._journal.cost / SLOW_SHARE)):
            return
        if not self._unsaved and not (whole and self._journal.holds):
            self._last = time.monotonic()
            return
        try:
            if whole:
                self._write()
            else:
                self._append()
        except InputError as error:
            if now or isinstance(error, TakenOver):
                raise
            self._last = time.monotonic()
            if not self._warned:
                print(f"warning: {error}; {len(self._unsaved)} results wait in memory, trying again", file=sys.stderr)
            self._warned = True

    def _write(self):
        self._lock.check()
        start = time.monotonic()
        layouts.write_surface(self.path, self.surface)
        self._journal.remove()  # all that it holds is in the file
        self._last = self._last_whole = time.monotonic()
        self._cost = self._last - start
        self._unsaved, self._provenance = [], dict(self.surface.provenance)

    def _append(self):
        """Put the new results into the journal."""
        self._lock.check()
        self._journal.append(self._unsaved)
        self._last = time.monotonic()
        self._unsaved = []

    @property
    def notes(self):
        """{name: value} of what is known of the centre (0, 0) beside the values on the grid."""
        return self.surface.provenance.get("centre", {})

    def note(self, name, value):
        """Put a value (JSON) of the centre into the file, at once; a complete file is locked for it."""
        self.surface.provenance["centre"] = self.notes | {name: value}
        self._lock = self._lock or Lock(self.path)
        self._write()

    def progress(self):
        """'12 of 49 points', as far as all that the run wants is there."""
        return f"{self.surface.grid.size - self.missing().size} of {self.surface.grid.size} points"

    def close(self):
        """Save what is left and let others have the file."""
        if self._lock is None:
            return
        try:
            self.save(now=True)
        finally:
            self._lock.release()
            self._lock = None


def _same_grid(path, old, new):
    if old.shape != new.shape or not all(np.allclose(a, b, rtol=0, atol=1e-12) for a, b in _axes(old, new)):
        raise InputError(f"expected the grid {new} in {path}, got {old}; "
                         "give the same --x and --y, or another --surf_file")


def _axes(old, new):
    return [(a, b) for a, b in ((old.x, new.x), (old.y, new.y)) if a is not None]
