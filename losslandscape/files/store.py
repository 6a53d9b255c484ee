"""The surface file of a running job: created or resumed, locked, filled, saved.

Only rank 0 has one. Its laws:

- A result is on the disk within 5 s after it was recorded, and writing takes 1 % of the time.
- What is on the disk stays there, whatever happens next.
- What can't be written waits in memory, at the end of a run for minutes; then it goes to another
  place (fallback.py), where the next run finds it.
- A point is in the file only if it was computed with the network, directions, data, loss and
  precision that the file's provenance names.
"""

import contextlib
import os
import shlex
import time
from dataclasses import replace

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import layouts
from losslandscape.files.fallback import save_elsewhere, saved_elsewhere
from losslandscape.files.grid import Surface
from losslandscape.files.journal import Journal
from losslandscape.files.lock import Lock, TakenOver
from losslandscape.files.names import lock_path
from losslandscape.files.opening import refuse_special
from losslandscape.files.patience import Patience
from losslandscape.files.provenance import refuse_mismatch
from losslandscape.messages import say

MIN_WAIT_SECONDS = 1.0  # between two saves
MAX_WAIT_SECONDS = 4.8  # between two saves: 5 s with what the second one takes
SAVE_SHARE = 0.01  # of the time is spent on writing; half of it on the journal where there is one
NOTES = ("centre", "estimation", "audit")  # parts of the provenance that a run learns
SLOW_SHARE = 0.05  # a disk that would need more than this share for 5 s gets more time
PATIENCE_SECONDS = 300.0  # at the end of a run, for a disk that can't be written


class SurfaceStore:
    """The values of a surface under computation.

    path: the surface file. grid, names, dir_file, provenance: what the run will put there.
    is_done(provenance): is a file complete whose values are all there? Default: yes.

    Creates the file, or takes up one that has the same grid and the same provenance. A file that is
    complete is neither locked nor written. Raises InputError, and changes nothing, if another job
    holds the file, or if it was made from something else.
    """

    def __init__(self, path, grid, names, dir_file, provenance, is_done=None):
        self.path = path
        self._names = list(names)
        self._lock = None
        self._unsaved = []  # [(point, {name: value})]
        self._write_seconds = 0.0  # that the last write of the whole file took
        self._last_save = self._last_write = time.monotonic()
        self._has_warned = False

        new = Surface(grid, dir_file=dir_file, provenance=dict(provenance))
        self._origin = replace(new, provenance=dict(provenance))  # stays as it is
        self._load(new)
        is_complete = self.missing().size == 0
        if is_done is not None:
            is_complete = is_complete and is_done(self.surface.provenance)
        if is_complete:
            self._clear_up_after_killed_job()
        else:
            self._take_up(new)

    def _load(self, new):
        """Take the surface of the file, or `new` where there is no file.

        The provenance of the run becomes part of it. Raises InputError where the two do not fit.
        """
        old = read_fitting(self.path, new.grid, new.provenance)
        if old is not None:
            new = replace(old, provenance=old.provenance | new.provenance)

        self.surface = new.with_values(self._names)
        self._saved_provenance = dict(self.surface.provenance)
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
            paths = self._take_up_from_elsewhere()
            self._write()
        except BaseException:
            self._lock.release()
            raise
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _take_up_from_elsewhere(self):
        """Take in what an earlier run had to save in another place; returns the paths."""
        paths = []
        for path, saved in saved_elsewhere(self.path, self._origin):
            before = self.missing().size
            self.surface = merged_surface(self.surface, saved)
            say(f"{before - self.missing().size} points are taken up from {path}")
            paths.append(path)
        return paths

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

    @property
    def has_results(self):
        """Is anything computed, of this run or another?"""
        return any(mask.any() for mask in self.surface.computed.values())

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
        self.save(now=True)

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
            self._last_save = time.monotonic()
            self._warn_once(error)

    def _is_time_for_whole_file(self):
        """Does the whole file have to be written, rather than the journal?"""
        is_quick = self._write_seconds <= SAVE_SHARE * MAX_WAIT_SECONDS
        has_new_provenance = self._has_new_provenance()  # which is not in the journal

        # half of the share is for the journal
        seconds_between_writes = 2 * self._write_seconds / SAVE_SHARE
        is_due = time.monotonic() - self._last_write >= seconds_between_writes
        return is_quick or has_new_provenance or is_due

    def _has_new_provenance(self):
        return self.surface.provenance != self._saved_provenance

    def _has_unsaved_results(self):
        """Are there results, or notes about them, that the surface file does not hold yet?"""
        has_new_notes = any(
            self.surface.provenance.get(key) != self._saved_provenance.get(key) for key in NOTES)
        return bool(self._unsaved) or self._journal.holds_results or has_new_notes

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
            say(f"warning: {error}; {len(self._unsaved)} results wait in memory, trying again")
        self._has_warned = True

    # ------------------------------------------------------------ the end

    def close(self, patience=PATIENCE_SECONDS):
        """Save what is left and let others have the file.

        patience: seconds to go on trying where that can't be done. Then, or at a signal, the
        results are saved in another place, and an InputError says where.
        """
        if self._lock is None:
            return
        with Patience(patience) as disk:
            try:
                if self._has_unsaved_results():
                    self._save_at_last(disk)
            finally:
                self._lock.release()
                self._lock = None

    def _save_at_last(self, disk):
        """Save here, or else elsewhere; results that are nowhere on a disk are waited for."""
        error = self._error_of_writing()
        if error is not None and not disk.is_over:
            say(f"warning: {error}; {self.progress()} are in memory: trying again for "
                f"{disk.seconds / 60:.2g} minutes, then they are saved elsewhere (Ctrl-C: at once)")

        while error is not None:
            if disk.is_over:
                self._save_elsewhere(error, disk)
            disk.pause()
            error = self._error_of_writing()
        if disk.has_paused:
            say(f"now {self.progress()} are saved in {self.path}")

    def _save_elsewhere(self, error, disk):
        """Raises InputError, which says where; returns where that failed too, and can be tried again."""
        paths = save_elsewhere(self.path, self.surface, self._origin)
        if paths:
            copy = shlex.join(["cp", paths[-1], self.path])
            words = (f"{self.progress()} are saved in {' and '.join(paths)}: the same command takes "
                     f"them up from there, or copy them: {copy}")
        elif disk.must_end:
            words = ("TMPDIR and the home folder can't be written either: "
                     f"the last {len(self._unsaved)} results are lost")
        else:
            return

        message = f"{error}; {words}"
        if disk.signal is not None:  # it ends the process before anybody prints the error
            say(f"warning: {message}")
        raise InputError(message)

    def _error_of_writing(self):
        """Write the whole file; returns the InputError of a disk, None where all went well."""
        try:
            self._write()
        except TakenOver:
            raise
        except InputError as error:
            return error
        return None


def read_fitting(path, grid, provenance):
    """The surface at `path`, to which results of a run can be added; None where there is no file.

    Raises InputError where it has another grid, or was computed from something else.
    """
    refuse_special(path)
    if not os.path.exists(path):
        return None
    surface = layouts.read_surface(path)
    if not surface.grid.close_to(grid):
        raise InputError(f"expected the grid {grid} in {path}, got {surface.grid}; "
                         "give the same --x and --y, or another --surf_file")
    refuse_mismatch(path, surface.provenance, provenance)
    return surface


def merged_surface(surface, saved):
    """The surface with what `saved`, of the same grid and origin, has beyond it."""
    result = surface.with_values(saved.values)
    for name, values in saved.values.items():
        is_new = saved.computed[name] & ~result.computed[name]
        result.values[name][is_new] = values[is_new]
        result.computed[name][is_new] = True

    provenance = saved.provenance | surface.provenance
    notes = saved.provenance.get("centre", {}) | surface.provenance.get("centre", {})
    if notes:
        provenance["centre"] = notes
    return replace(result, provenance=provenance)


def _within_limits(seconds):
    return min(max(seconds, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS)
