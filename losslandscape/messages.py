"""What a run says: to the user, while it works, and how far it is.

Telling never kills: a full disk, a closed stream, a pipe whose reader has gone, and a launcher that
would die of any of these change nothing about what is computed.

    say(text)            a line on standard error
    tell(text)           a line on standard output, beside the work
    answer(text)         a line on standard output that is the work: raises InputError on a full disk
    with unfailing():    whatever else is printed within the block can't fail either
"""

import contextlib
import os
import re
import stat
import sys
import time

from losslandscape import processes

SHOWN_CHARACTERS = 120  # of a text that comes from a file
MAX_CHARACTERS_HELD = 1 << 16  # of what waits until there is room
MIN_ROOM = 1 << 16  # bytes that a disk must have free before a launcher may write on it

# programs that pass on what their children print, and end the job where they can't
LAUNCHING_PROGRAMS = ("mpiexec.hydra", "mpiexec", "mpirun", "prterun", "orterun")

# ---------------------------------------------------------------- lines


def say(text):
    """Print a line on standard error, at once."""
    _print(sys.stderr, text)


def tell(text):
    """Print a line on standard output, at once."""
    _print(sys.stdout, text)


def _print(stream, text):
    if stream is None:  # closed when the program was started
        return
    with contextlib.suppress(OSError, ValueError):
        print(text, file=stream, flush=True)


def answer(text):
    """Print on standard output what the user asked the command for.

    Nobody reads on behind a broken pipe, and that is that; on a full disk it raises OutputLost.
    """
    stream = sys.stdout
    if isinstance(stream, _UnfailingStream):
        stream = stream.inner
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        pass
    except OSError as error:
        raise OutputLost(error.strerror) from None


class OutputLost(Exception):
    """Standard output can't be written; the message is the system's reason."""


def show_any_letter():
    """Let both outputs show what their encoding lacks as \\xf6 or \\udcff, instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")


def printable(text, length=SHOWN_CHARACTERS):
    """A text from a file on one line, cut to `length`, with '?' for what commands a terminal."""
    if len(text) > length:
        text = text[: length - 4] + " ..."
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# ---------------------------------------------------------------- streams that never fail


@contextlib.contextmanager
def unfailing():
    """Within the block, printing on the standard streams never raises, whoever prints.

    At its end what was not written is given up, so that the interpreter does not try once more and
    end with an exit code of its own.
    """
    _open_missing_descriptors()
    show_any_letter()
    old_streams = sys.stdout, sys.stderr
    sys.stdout = _UnfailingStream(sys.stdout, 1)
    sys.stderr = _UnfailingStream(sys.stderr, 2)
    try:
        yield
    finally:
        new_streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = old_streams
        for stream in new_streams:
            if isinstance(stream, _UnfailingStream):
                stream.give_up()


def _open_missing_descriptors():
    """Give 0, 1 and 2 a meaning where they were closed: else the next file takes their place.

    A library that prints a warning would write it into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


class _UnfailingStream:
    """Stands for sys.stdout or sys.stderr; what can't be written waits, and is lost in the end.

    inner: the stream; None where it was closed. number: of its file descriptor.
    """

    def __init__(self, inner, number):
        self.inner = inner or open(os.devnull, "w")
        self._outlet = _LauncherOutlet(number)
        self._held = ""  # what waits for the launcher

    def write(self, text):
        self._held += text
        with contextlib.suppress(OSError, ValueError):
            self._held = self._outlet.pass_on(self._held, self.inner)
        self._held = self._held[-MAX_CHARACTERS_HELD:]
        return len(text)

    def writelines(self, lines):
        self.write("".join(lines))

    def flush(self):
        self.write("")
        with contextlib.suppress(OSError, ValueError):
            self.inner.flush()

    def give_up(self):
        """Write what can be written; let the rest go nowhere."""
        self.write("")
        try:
            self.inner.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.inner.fileno())
                os.close(nowhere)

    def __getattr__(self, name):
        return getattr(self.inner, name)


# ---------------------------------------------------------------- what a launcher passes on


class _LauncherOutlet:
    """Where the mpirun of this host writes what its ranks print on descriptor `number`.

    MPICH's kills all ranks when it can't write, Open MPI's when the reader of its output has gone:
    they must not be given anything then. Of an mpirun on another host nothing is known.
    """

    def __init__(self, number):
        self._path = ""
        for pid, name in processes.ancestors(os.getpid()):
            if name in LAUNCHING_PROGRAMS:
                self._path = f"/proc/{pid}/fd/{number}"

    def pass_on(self, text, stream):
        """Write a text to `stream`, if that is safe; returns what has to wait. Raises OSError."""
        mode = self._mode()
        if mode is None:
            stream.write(text)
            return ""
        if stat.S_ISFIFO(mode):
            return self._put_into_pipe(text)
        if self._has_room(mode):
            stream.write(text)
            return ""
        return text

    def _mode(self):
        """The kind of the launcher's output; 0 where it is closed, None where nothing is known."""
        if not self._path:
            return None
        try:
            with open(self._path.replace("/fd/", "/fdinfo/")) as f:
                flags = int(re.search(r"flags:\s*(\d+)", f.read())[1], 8)
            if flags & os.O_CLOEXEC:  # it was closed, and is now a file of the launcher's own
                return 0
            return os.stat(self._path).st_mode
        except FileNotFoundError:
            return 0
        except OSError:
            return None

    def _put_into_pipe(self, text):
        """Write past the launcher: whether somebody reads can change from one line to the next."""
        pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            data = text.encode(errors="backslashreplace")
            written = os.write(pipe, data)
        except BlockingIOError:  # the reader takes its time
            return text
        finally:
            os.close(pipe)
        return data[written:].decode(errors="replace")

    def _has_room(self, mode):
        if stat.S_ISREG(mode):
            disk = os.statvfs(self._path)
            return disk.f_bavail * disk.f_frsize > MIN_ROOM
        is_full_device = stat.S_ISCHR(mode) and os.stat(self._path).st_rdev == os.makedev(1, 7)
        return mode != 0 and not is_full_device


# ---------------------------------------------------------------- how far it is


class Progress:
    """Points per second and the time left: a bar on a terminal, else a line every 30 s."""

    SECONDS_BETWEEN_LINES = 30

    def __init__(self, total):
        from tqdm import tqdm

        self._total = total
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._format_interval = tqdm.format_interval
        self._bar = None
        if sys.stderr is not None and sys.stderr.isatty():
            self._bar = tqdm(total=total, unit="point", file=sys.stderr, dynamic_ncols=True)

    def step(self):
        """One more point is done."""
        self._done += 1
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.update()
            return

        now = time.monotonic()
        if now - self._last_line > self.SECONDS_BETWEEN_LINES or self._done == self._total:
            self._last_line = now
            rate = self._done / (now - self._start)
            left = self._format_interval((self._total - self._done) / rate)
            say(f"{self._done} of {self._total} points, {rate:.3g} points/s, {left} left")

    def close(self):
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.close()
