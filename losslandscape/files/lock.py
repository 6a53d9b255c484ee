"""At most one job writes a surface file. Works where the file system has no locks.

The lock is a hidden file beside the surface that names host, pid and start of its job. It is made
with O_EXCL, which is atomic on local file systems and on NFS from version 3 on.

A lock is dead, and taken over, when its process is gone (on the same host), or when nobody touched
it for STALE_SECONDS (on other hosts). So a thread of the job touches it: a point may take hours.
"""

import contextlib
import json
import os
import socket
import threading
import time

from losslandscape.errors import InputError
from losslandscape.files.names import lock_path
from losslandscape.files.opening import open_regular
from losslandscape.messages import printable

TOUCH_SECONDS = 20.0  # a job touches its lock this often
STALE_SECONDS = 120.0  # a lock of another host that was not touched for so long is a dead job's
UNREADABLE_SECONDS = 5.0  # a lock that says nothing for so long was left half written
ATTEMPTS = 10
MAX_CHARACTERS = 10**4  # of a lock; ours have some hundreds


class TakenOver(InputError):
    """Another job writes the file now."""


class Lock:
    """The lock of the surface file `target`, held until `release`.

    Raises InputError where another job holds it, or where the folder can't be written.
    """

    def __init__(self, target):
        self.path = lock_path(target)
        self._released = threading.Event()
        self._job = {
            "host": socket.gethostname(),
            "machine": _pid_space(),
            "pid": os.getpid(),
            "process": _start_of_process(os.getpid()),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "file": os.path.basename(os.path.realpath(target)),
        }

        # several jobs may remove a dead job's lock: the quickest makes the new one
        for _ in range(ATTEMPTS):
            if self._create():
                break
            self._remove_if_dead(target)
        else:
            raise InputError(
                f"can't get the lock {self.path}, which other jobs take and leave; try again")
        threading.Thread(target=self._touch_until_released, daemon=True).start()

    def check(self):
        """Raises TakenOver if another job has the lock now.

        That is so if this one was stopped for so long that it seemed dead.
        """
        with contextlib.suppress(OSError):
            if _read_text(self.path) != json.dumps(self._job):
                raise TakenOver(f"the lock of {self._job['file']} was taken over by another job "
                                "while this one stood still; the other goes on")

    def release(self):
        """Let other jobs have the file. A lock that another job took over is left to it."""
        self._released.set()
        with contextlib.suppress(OSError, InputError):
            if _read_text(self.path) == json.dumps(self._job):
                os.unlink(self.path)

    def _create(self):
        """Make the lock; False where there is one already."""
        folder = os.path.dirname(self.path)
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            raise InputError(
                f"can't write to {folder} ({error.strerror}); "
                "make it writable or choose another place with --surf_file") from None

        try:
            with os.fdopen(descriptor, "w") as f:
                json.dump(self._job, f)
        except OSError as error:  # a full disk
            os.unlink(self.path)
            raise InputError(
                f"can't write to {folder} ({error.strerror}); "
                "make room, or choose another place with --surf_file") from None
        return True

    def _touch_until_released(self):
        while not self._released.wait(TOUCH_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    # ------------------------------------------------------------ the lock of another job

    def _remove_if_dead(self, target):
        """Remove a dead job's lock; raises InputError if the job lives."""
        text, age = self._text_and_age()
        job = _parsed_job(text)

        # its job is just writing it, or died while it did
        if job is None and abs(age) < UNREADABLE_SECONDS:
            time.sleep(0.2)
            return
        if job is not None and _is_alive(job, age):
            raise InputError(
                f"{target} is being written by another job (host {_entry(job, 'host')}, pid "
                f"{_entry(job, 'pid')}, since {_entry(job, 'started')}); wait for it or end it")
        self._remove_unless_replaced(text)

    def _remove_unless_replaced(self, text):
        """Remove the lock if it still holds `text`: another job may have taken it over meanwhile.

        Looking and then removing would leave a gap between the two. Renaming takes the file away
        first; if it turns out to be a new job's, it is given back.
        """
        removed = f"{self.path}.{os.getpid()}"
        with contextlib.suppress(OSError):
            os.rename(self.path, removed)
            if _read_text(removed) != text:
                with contextlib.suppress(FileExistsError):
                    os.link(removed, self.path)
            os.unlink(removed)

    def _text_and_age(self):
        """(text, seconds since the last touch) of the lock; ('', 0.0) where there is none."""
        try:
            text = _read_text(self.path)
            touched = os.stat(self.path).st_mtime
        except OSError:
            return "", 0.0
        return text, self._now() - touched

    def _now(self):
        """The time by the clock of the file system, which may be another machine's."""
        probe = f"{self.path}.{os.getpid()}.clock"
        try:
            with open(probe, "w"):
                now = os.stat(probe).st_mtime
            os.unlink(probe)
        except OSError:
            now = time.time()
        return now


def _read_text(path):
    """The text of a lock, or of another short file. Raises InputError for a pipe and the like."""
    with open_regular(path, "move it away") as f:
        return f.read(MAX_CHARACTERS).decode("utf-8", "replace")


def _parsed_job(text):
    """The description of a job in the text of a lock, or None where it is none."""
    try:
        job = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(job, dict):
        return job
    return None


def _entry(job, key):
    """What a lock says of its job, for a message."""
    value = job.get(key)
    if isinstance(value, str | int):
        return printable(str(value))
    return "unknown"


def _is_alive(job, age):
    """Does the job of a lock run, as far as can be known? age: seconds since the last touch."""
    was_touched = abs(age) < STALE_SECONDS  # a time far in the future is that of no living job
    if job.get("host") != socket.gethostname() or job.get("machine") != _pid_space():
        return was_touched
    try:
        os.kill(int(job["pid"]), 0)
    except ProcessLookupError:
        return False
    except (OSError, KeyError, ValueError, TypeError, OverflowError):
        return was_touched
    return _start_of_process(job["pid"]) == job.get("process")


def _start_of_process(pid):
    """When a process began, as the kernel counts; '' where unknown.

    Pids are used again; (pid, start) is not. 'ended' for a process that ended and waits for its
    parent to notice: in a container that may take for ever.
    """
    try:
        text = _read_text(f"/proc/{pid}/stat")
        state, *fields = text.rpartition(")")[2].split()  # the name before it may hold anything
        if state in "ZX":
            return "ended"
        return fields[18]  # starttime, see man proc
    except (OSError, IndexError, ValueError):
        return ""


def _pid_space():
    """Where a pid means something, '' where unknown: containers and machines may share a name."""
    try:
        boot = _read_text("/proc/sys/kernel/random/boot_id").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
