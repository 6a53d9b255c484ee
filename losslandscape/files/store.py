"""The surface file of a running job: created or resumed, locked, filled, saved.

Only rank 0 has one. Its laws:

- A result is on the disk within 5 s after it was recorded, and writing takes 1 % of the time.
- What is on the disk stays there, whatever happens next.
- A point is in the file only if it was computed with the network, directions, data, loss and
  precision that the file's provenance names.
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
from losslandscape.files.provenance import refuse_mismatch

MIN_WAIT_SECONDS = 1.0  # between two saves
MAX_WAIT_SECONDS = 4.8  # between two saves: 5 s with what the second one takes
SAVE_SHARE = 0.01  # of the time is spent on writing; half of it on the journal where there is one
SLOW_SHARE = 0.05  # a disk that would need more than this share for 5 s gets more time


class SurfaceStore:
    """The values of a surface under computation.

    path: the surface file. grid, names, dir_file, provenance: what the run will put there.

    Creates the file, or takes up one that has the same grid and the same provenance. A file that is
    complete is neither locked nor written. Raises InputError, and changes nothing, if another job
    holds the file, or if it was made from something else.
    """

    def __init__(self, path, grid, names, dir_file, provenance):
        self.path = path
        self._names = list(names)
        self._lock = None
        self._unsaved = []  # [(point, {name: value})]
        self._write_seconds = 0.0  # that the last write of the whole file took
        self._last_save = self._last_write = time.monotonic()
        self._has_warned = False

        new = Surface(grid, dir_file=dir_file, provenance=dict(provenance))
        self._load(new)
        if self.missing().size == 0:
            self._clear_up_after_killed_job()
        else:
            self._take_up(new)

    def _load(self, new):
        """Take the surface of the file, or `new` where there is no file.

        The provenance of the run becomes part of it. Raises InputError where the two do not fit.
        """
        if os.path.exists(self.path):
            old = layouts.read_surface(self.path)
            if not old.grid.close_to(new.grid):
                raise InputError(
                    f"expected the grid {new.grid} in {self.path}, got {old.grid}; "
                    "give the same --x and --y, or another --surf_file")
            refuse_mismatch(self.path, old.provenance, new.provenance)
            new = replace(old, provenance=old.provenance | new.provenance)

        self.surface = new.with_values(self._names)
        self._saved_provenance = self.surface.provenance
        self._journal = Journal(self.path, self.surface)

    def _take_up(self, new):
        """Lock the file, and bring what is on the disk up to date."""
        self._lock = Lock(self.path)
        try:
            # a journal without its file is nothing: who deletes the one means both
            has_file = os.path.exists(self.path)
            self._load(new)  # again: it may have grown until we had the lock
            if has_file:
                for point, values in self._journal.read():
                    self.record(point, values)
            self._write()
        except BaseException:
            self._lock.release()
            raise

    def _clear_up_after_killed_job(self):
        """Remove what a job has left that was killed after its last save; a living job keeps it."""
        if os.path.exists(lock_path(self.path)):
            with contextlib.suppress(InputError):
                lock = Lock(self.path)
                self._journal.remove()
                lock.release()

    # ------------------------------------------------------------ results

    def missing(self, names=None):
        """Numbers of the points where one of `names` (all of the run's) is not computed yet."""
        computed = [self.surface.computed[name] for name in names or self._names]
        return np.flatnonzero(~np.logical_and.reduce(computed))

    def record(self, point, values):
        """Take in {name: number} of one point."""
        for name, value in values.items():
            self.surface.values[name].flat[point] = value
            self.surface.computed[name].flat[point] = True
        self._unsaved.append((point, values))

    def progress(self):
        """'12 of 49 points': how many have all that the run computes."""
        size = self.surface.grid.size
        return f"{size - self.missing().size} of {size} points"

    @property
    def notes(self):
        """{name: value} of what is known of the centre (0, 0) beside the values on the grid."""
        return self.surface.provenance.get("centre", {})

    def note(self, name, value):
        """Put a value (JSON) of the centre into the file, at once; a complete one is locked."""
        self.surface.provenance["centre"] = self.notes | {name: value}
        if self._lock is None:
            self._lock = Lock(self.path)
        self._write()

    # ------------------------------------------------------------ saving

    def save(self, now=False):
        """Write if it is time to, or if `now`. Called often, for instance after every batch.

        Writes the whole file, unless it is so large that this would take more than SAVE_SHARE of
        the time: then the new results go to the journal, and the file is written as often as half
        the share allows. A full disk is reported once and tried again: results wait in memory.

        With `now`, raises InputError where it can't write. Always raises TakenOver if another job
        has the file.
        """
        whole = now or self._is_time_for_whole_file()
        if not now and time.monotonic() - self._last_save < self._seconds_between_saves(whole):
            return
        if not self._unsaved and not (whole and self._journal.holds_results):
            self._last_save = time.monotonic()
            return

        try:
            if whole:
                self._write()
            else:
                self._append()
        except TakenOver:
            raise
        except InputError as error:
            if now:
                raise
            self._last_save = time.monotonic()
            self._warn_once(error)

    def _is_time_for_whole_file(self):
        """Does the whole file have to be written, rather than the journal?"""
        is_quick = self._write_seconds <= SAVE_SHARE * MAX_WAIT_SECONDS
        has_new_provenance = self.surface.provenance != self._saved_provenance  # not in the journal

        # half of the share is for the journal
        seconds_between_writes = 2 * self._write_seconds / SAVE_SHARE
        is_due = time.monotonic() - self._last_write >= seconds_between_writes
        return is_quick or has_new_provenance or is_due

    def _seconds_between_saves(self, whole):
        """How long to wait after the last save, so that writing takes no more than its share."""
        if whole:
            return _within_limits(self._write_seconds / SAVE_SHARE)
        seconds = _within_limits(2 * self._journal.append_seconds / SAVE_SHARE)
        return max(seconds, self._journal.append_seconds / SLOW_SHARE)

    def _write(self):
        """Write the whole file."""
        self._lock.check()
        start = time.monotonic()
        layouts.write_surface(self.path, self.surface)
        self._journal.remove()  # all that it holds is in the file

        self._last_save = self._last_write = time.monotonic()
        self._write_seconds = self._last_save - start
        self._unsaved = []
        self._saved_provenance = dict(self.surface.provenance)

    def _append(self):
        """Put the new results into the journal."""
        self._lock.check()
        self._journal.append(self._unsaved)
        self._last_save = time.monotonic()
        self._unsaved = []

    def _warn_once(self, error):
        if not self._has_warned:
            print(f"warning: {error}; {len(self._unsaved)} results wait in memory, trying again",
                  file=sys.stderr)
        self._has_warned = True

    def close(self):
        """Save what is left and let others have the file."""
        if self._lock is None:
            return
        try:
            self.save(now=True)
        finally:
            self._lock.release()
            self._lock = None


def _within_limits(seconds):
    return min(max(seconds, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS)
