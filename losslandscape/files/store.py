"""The surface file of a running job: created or resumed, locked, filled, saved. Only rank 0 has one.

Laws: a result is on the disk at most 5 s after it was recorded, at 1 % of the time; what is there stays, whatever
happens next; and a point is in the file only if it was computed with the network, directions, data, loss and precision
that the file's provenance names.
"""

import contextlib
import hashlib
import itertools
import json
import os
import socket
import sys
import threading
import time
import zlib
from dataclasses import replace

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util

SAVE_SECONDS = 1.0, 4.8  # a result waits at least and at most this long, between them ...
SAVE_SHARE = 0.01  # ... so that this share of the time is spent on writing; half of it each on file and journal
SLOW_SHARE = 0.05  # on a disk so slow that 5 s can't be kept without spending more than this share, they aren't
STALE_SECONDS = 120.0  # a lock of another host that was not touched for so long is a dead job's
TOUCH_SECONDS = 20.0


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
            old = h5_util.read_surface(self.path)
            _same_grid(self.path, old.grid, grid)
            refuse_mismatch(self.path, old.provenance, provenance)
            surface = replace(old, provenance=old.provenance | provenance)
        else:
            surface = h5_util.Surface(grid, dir_file=dir_file, provenance=provenance)
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
        h5_util.write_surface(self.path, self.surface)
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


# what must agree before results are put into one file: key -> in words
MATTERS = {
    "model": "model",
    "checkpoint": "contents of --model_file",
    "checkpoint2": "contents of --model_file2",
    "checkpoint3": "contents of --model_file3",
    "directions": "contents of the direction file",
    "dir_type": "--dir_type",
    "params": "--params",
    "freeze": "--freeze",
    "loss": "--loss_name",
    "model_code": "the code of --model",
    "loss_code": "the code of --loss_name",
    "bn": "--bn",
    "train_data": "training data",
    "test_data": "test data",
    "precision": "--precision",
    "hessian_params": "--params",
    "hessian_tol": "--tol",
}


def refuse_mismatch(path, old, new, keys=MATTERS):
    """Raises InputError if two provenances differ in what matters; a key that one of them lacks is not compared."""
    differences = [
        f"{words} ({_short(old[key])} in the file, {_short(new[key])} now)"
        for key, words in keys.items()
        if key in old and key in new and old[key] != new[key]
    ]
    if differences:
        raise InputError(f"{path} was made from something else: it differs in {', '.join(differences)}; "
                         "undo that, or choose another file name, or delete the file")


def _short(value):
    """A hash is recognized by its first digits."""
    text = str(value)
    return text[:10] if len(text) == 64 else text


def beside(target, kind):
    """A hidden file beside `target`: a short name, because its own may be as long as the file system allows."""
    folder, base = os.path.split(os.path.realpath(target))
    return os.path.join(folder, f".{hashlib.sha256(os.fsencode(base)).hexdigest()[:16]}.{kind}")


def lock_path(target):
    return beside(target, "lock")


class Journal:
    """Results that a large surface file does not hold yet, in a file beside it.

    A 1001x1001 file takes a fifth of a second to write: every 5 s, that would be 4 % of the time. Changing it in place
    would be quick, but whoever copies it meanwhile could get a mask without its values. So results are appended here,
    one line of JSON each with a checksum, and flushed to the disk; what a crash has left half written does not count.
    The first line says what they were computed from: a journal of something else is not read.

    Raises InputError where nothing can be appended; what was appended before stays.
    """

    def __init__(self, target, surface):
        self.path = beside(target, "journal")
        made_from = {key: value for key, value in surface.provenance.items() if key in MATTERS}
        axes = [[axis.size, *axis[[0, -1]].tolist()] for axis in (surface.grid.x, surface.grid.y) if axis is not None]
        self._head, self._surface = {"grid": axes, "from": made_from}, surface
        self._size = 0  # of what this job has appended
        self.cost = 0.0  # seconds that the last append took

    def append(self, results):
        """Put [(point, {name: value})] on the disk."""
        start = time.monotonic()
        lines = [_line([int(point), {name: float(value) for name, value in values.items()}])
                 for point, values in results]
        if not self._size:
            lines = [_line(self._head), *lines]
        image = "".join(lines).encode()
        if not self._size:
            h5_util.write_file(self.path, image)
        else:
            try:
                with open(self.path, "r+b") as f:
                    f.truncate(self._size)  # what an append that failed has left
                    f.seek(self._size)
                    f.write(image)
                    f.flush()
                    os.fsync(f.fileno())
            except OSError as error:
                raise InputError(f"can't write {self.path} ({error.strerror}); make room") from None
        self._size += len(image)
        self.cost = time.monotonic() - start

    def read(self):
        """[(point, {name: value})] that a job which was killed has left, if they belong to this surface."""
        try:
            with open(self.path, encoding="utf-8", errors="replace") as f:
                found = list(map(_content, f))
        except OSError:
            return []
        head, *results = [*itertools.takewhile(lambda content: content is not None, found)] or [None]
        if not head or head["grid"] != self._head["grid"]:
            return []
        old, new = head["from"], self._head["from"]
        if any(old[key] != new[key] for key in old.keys() & new.keys()):
            return []
        size, names = self._surface.grid.size, self._surface.values
        return [(point, {name: value for name, value in values.items() if name in names})
                for point, values in results if 0 <= point < size]

    @property
    def holds(self):
        """Has this job put results here that the file does not hold yet?"""
        return self._size > 0

    def remove(self):
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self._size = 0


def _line(content):
    text = json.dumps(content)
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _content(line):
    """The content of a line of a journal, or None where it is not whole."""
    checksum, _, text = line.partition(" ")
    return json.loads(text) if text.endswith("\n") and checksum == f"{zlib.crc32(text[:-1].encode()):08x}" else None


class TakenOver(InputError):
    """Another job writes the file now."""


class Lock:
    """At most one job writes a surface file. Works where the file system has no locks.

    The lock is a file beside the surface, made with O_EXCL (atomic on local file systems and NFS >= 3), that names
    host, pid and start of its job. It is dead, and taken over, when its process is gone (same host) or when it was not
    touched for STALE_SECONDS (other hosts; a thread touches it, for a point may take hours).
    """

    def __init__(self, target):
        self.path = lock_path(target)
        folder, base = os.path.dirname(self.path), os.path.basename(os.path.realpath(target))
        self._released = threading.Event()
        self._mine = {
            "host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "process": _birth(os.getpid()),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"), "file": base,
        }
        for _ in range(10):
            try:
                descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                self._take_over(target)
                continue
            except OSError as error:
                raise InputError(f"can't write to {folder} ({error.strerror}); "
                                 "make it writable or choose another place with --surf_file") from None
            try:
                with os.fdopen(descriptor, "w") as f:
                    json.dump(self._mine, f)
            except OSError as error:  # a full disk
                os.unlink(self.path)
                raise InputError(f"can't write to {folder} ({error.strerror}); make room, or choose another place with "
                                 "--surf_file") from None
            threading.Thread(target=self._keep_young, daemon=True).start()
            return
        raise InputError(f"can't get the lock {self.path}; if no job writes {target}, delete it")

    def _take_over(self, target):
        """Remove a dead job's lock; raises InputError if the job lives."""
        text, age = self._read()
        try:
            other = json.loads(text)
            other = other if isinstance(other, dict) else None
        except ValueError:
            other = None  # its job is just writing it, or died while it did
        if other is None and age < 5:
            time.sleep(0.2)
            return
        if other and _alive(other, age):
            raise InputError(f"{target} is being written by another job (host {other.get('host')}, "
                             f"pid {other.get('pid')}, since {other.get('started')}); wait for it or end it")
        grave = f"{self.path}.{os.getpid()}"
        with contextlib.suppress(OSError):
            os.rename(self.path, grave)
            # somebody else may have taken over between our look and our rename: give it back
            with open(grave) as f:
                if f.read() != text:
                    with contextlib.suppress(FileExistsError):
                        os.link(grave, self.path)
            os.unlink(grave)

    def _read(self):
        """(text, age in seconds by the clock of the file system)."""
        try:
            with open(self.path) as f:
                text = f.read()
            modified = os.stat(self.path).st_mtime
        except OSError:
            return "", 0.0
        probe = f"{self.path}.{os.getpid()}.clock"
        try:
            with open(probe, "w"):
                now = os.stat(probe).st_mtime
            os.unlink(probe)
        except OSError:
            now = time.time()
        return text, now - modified

    def _keep_young(self):
        while not self._released.wait(TOUCH_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def check(self):
        """Raises TakenOver if another job has the lock now: this one was stopped for so long that it seemed dead."""
        with contextlib.suppress(OSError), open(self.path) as f:
            if f.read() != json.dumps(self._mine):
                raise TakenOver(f"the lock of {self._mine['file']} was taken over by another job while this one stood "
                                "still; the other goes on")

    def release(self):
        self._released.set()
        text, _ = self._read()
        if text == json.dumps(self._mine):
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _birth(pid):
    """When a process began, as the kernel counts; pids are used again, (pid, birth) is not. '' where unknown.

    'ended' for a process that ended and waits for its parent to notice: in a container that may take for ever.
    """
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return "ended" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


def _machine():
    """Says where a pid means something: containers and machines may share a name. '' where unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as f:
            return f"{f.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _alive(job, age):
    if job.get("host") != socket.gethostname() or job.get("machine") != _machine():
        return age < STALE_SECONDS
    try:
        os.kill(int(job["pid"]), 0)
    except ProcessLookupError:
        return False
    except (OSError, KeyError, ValueError, TypeError, OverflowError):
        return age < STALE_SECONDS
    return _birth(job["pid"]) == job.get("process")
