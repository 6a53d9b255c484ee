"""Signals that ask a job to end: a preempted one gets a signal some time before it is killed.

    with raised():       a signal raises Interrupted, wherever the program is
    with postponed():    a signal is noted; raise_noted() raises Interrupted, or else the end of the block
    ignore()             from now on nothing happens: this process is ending

Only the first signal counts: who is ending already is not disturbed by a second one. A signal that
is ignored, as SIGHUP is after `nohup`, stays ignored. In another thread than the main one, where
Python has no signals, nothing happens.
"""

import contextlib
import os
import signal
import socket

# what schedulers and terminals send to end a job
SIGNALS = {
    name: getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
}


class Interrupted(BaseException):
    """A signal asked the job to end. Like KeyboardInterrupt it passes every `except Exception`.

    code: the exit code that belongs to it, 128 + signal. progress: what was done by then, in words.
    """

    progress = ""

    def __init__(self, name, host):
        super().__init__(f"{name} on {host}")
        self.name, self.host = name, host
        self.code = 128 + SIGNALS[name]


class _State:
    """Of this process: whether a signal was noted, and whether one has been raised."""

    noted = ""
    is_ending = False  # so that another signal is no news
    depth = 0  # of blocks within each other


def raise_noted():
    """Raise Interrupted if a signal has been noted."""
    if _State.noted and not _State.is_ending:
        _raise(_State.noted)


def _raise(name):
    _State.is_ending = True
    raise Interrupted(name, socket.gethostname())


def _note(name):
    _State.noted = _State.noted or name


def _raise_first(name):
    if not _State.is_ending:
        _raise(name)


def ignore(for_good=False):
    """Let signals pass until the outermost block ends, or `for_good`, until the process does."""
    _State.is_ending = True
    if for_good:
        with contextlib.suppress(ValueError):  # not the main thread
            for number in SIGNALS.values():
                signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def raised():
    """Within the block a signal raises Interrupted at once."""
    with _handled(_raise_first):
        yield


@contextlib.contextmanager
def postponed():
    """Within the block a signal is only noted; it is raised by raise_noted(), or at the end of the block."""
    with _handled(_note):
        try:
            yield
        except Exception:
            raise_noted()  # it may have failed because of the signal
            raise
        raise_noted()


@contextlib.contextmanager
def _handled(action):
    """Call action(name of the signal) for every signal of SIGNALS that is not ignored."""
    old_handlers = {}
    try:
        for name, number in SIGNALS.items():
            if signal.getsignal(number) != signal.SIG_IGN:
                old_handlers[number] = signal.signal(number, _handler(name, action))
    except ValueError:  # not the main thread
        pass

    _State.depth += 1
    try:
        yield
    finally:
        for number, handler in old_handlers.items():
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, handler or signal.SIG_DFL)
        _State.depth -= 1
        if _State.depth == 0:
            _State.noted, _State.is_ending = "", False


def _handler(name, action):
    owner = os.getpid()

    def handle(*_):
        if os.getpid() == owner:
            action(name)
        elif name == "SIGTERM":
            os._exit(128 + SIGNALS[name])
        # else a child, such as a data loader's process, which its parent will end

    return handle
