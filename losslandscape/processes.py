"""What the system says about processes: when one began, whether it has ended, whose child it is.

Read from /proc. On a system without it nothing is known: '' and None.
"""

import contextlib
import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # of prctl


def start_of(pid):
    """When a process began, in ticks of the kernel's clock, as text; '' where unknown.

    A pid is used again, the pair (pid, start) is not.
    """
    fields = _fields(pid)
    if not fields:
        return ""
    return fields[19]  # starttime, see man proc


def has_ended(pid, start):
    """Has the process that began at `start` ended? A process of which nothing is known has not."""
    if not start:
        return False
    fields = _fields(pid)
    return not fields or fields[0] in "ZX" or fields[19] != start


def ancestors(pid):
    """[(pid, name)] of the parent of a process, its parent, and so on."""
    line = []
    while fields := _fields(pid):
        pid = int(fields[1])
        if pid <= 1:
            break
        line.append((pid, _name(pid)))
    return line


def _fields(pid):
    """The fields of /proc/PID/stat from the state on; [] for a process that is not there."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as f:
            text = f.read()
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the name before it may hold anything


def _name(pid):
    """The name of a program that runs; '' where unknown."""
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as f:
            return f.read().strip()
    except OSError:
        return ""


def is_running(pid):
    """Is there a process with this pid that has not ended?"""
    fields = _fields(pid)
    return bool(fields) and fields[0] not in "ZX"


def own_start():
    """When this process began."""
    return start_of(os.getpid())


@contextlib.contextmanager
def dying_with_parent():
    """Within the block this process is killed as soon as its parent ends; for foreign code that waits.

    It is Linux that does it (prctl); elsewhere nothing happens.
    """
    _set_signal_at_parents_death(signal.SIGKILL)
    try:
        yield
    finally:
        _set_signal_at_parents_death(0)


def _set_signal_at_parents_death(number):
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
