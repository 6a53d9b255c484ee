"""At most one job writes a surface file."""

import contextlib
import json
import os
import socket
import threading
import time

from losslandscape.errors import InputError
from losslandscape.files.names import lock_path

STALE_SECONDS = 120.0  # a lock of another host that was not touched for so long is a dead job's
TOUCH_SECONDS = 20.0


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
