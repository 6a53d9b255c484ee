"""Telling never kills: whatever becomes of the streams, the work is done and the exit code is 0."""

import errno
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from losslandscape import command, messages
from losslandscape.__main__ import COMMANDS, load_command
from losslandscape.errors import InputError
from tests.conftest import GOLDEN, ROOT
from tests.jobs import Walk

# what becomes of standard output and standard error
STREAMS = {
    "both closed": ">&- 2>&-",
    "output closed": ">&-",
    "errors closed": "2>&-",
    "full disk": ">/dev/full 2>&1",
    "a reader that goes": "2>&1 | head -1",
}


@pytest.mark.parametrize("shell", STREAMS.values(), ids=STREAMS)
def test_one_process_works_on_whatever_becomes_of_its_streams(tmp_path, shell):
    walk = Walk(tmp_path, "", ranks=1, talk="yes", shell=f"{shell}; exit ${{PIPESTATUS[0]}}")
    assert walk.finish() == 0, walk.said()
    walk.assert_complete()


# MPICH's mpirun does not start where one of its own streams is closed
@pytest.mark.parametrize("launcher, streams", [
    ("mpich", "full disk"), ("mpich", "a reader that goes"), ("openmpi", "both closed"), ("openmpi", "full disk"),
    ("openmpi", "a reader that goes")])
def test_ranks_work_on_whatever_becomes_of_the_streams_of_their_launcher(tmp_path, launcher, streams):
    walk = Walk(tmp_path, launcher, talk="yes", shell=f"{STREAMS[streams]}; exit ${{PIPESTATUS[0]}}")
    assert walk.finish() == 0, walk.said()
    walk.assert_complete()


def test_a_closed_stream_is_no_file_that_a_library_writes_into(tmp_path):
    """The first file that is opened would get the number 2, and every warning of a C library would go there."""
    script = """
import os, sys
from losslandscape import command
def main():
    with open(sys.argv[1], "w") as f:
        os.write(1, b"a library"), os.write(2, b"speaks")
        f.write("data")
command.run(main)
"""
    file = tmp_path / "data"
    closed = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash"]
    done = subprocess.run([*closed, sys.executable, "-c", script, str(file)], cwd=ROOT)
    assert done.returncode == 0 and file.read_text() == "data"


# ---------------------------------------------------------------- within one process


class Failing(io.StringIO):
    """A stream on which everything fails."""

    def __init__(self, number=errno.ENOSPC, tty=False):
        super().__init__()
        self.error, self.tty = OSError(number, os.strerror(number)), tty

    def isatty(self):
        return self.tty

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error


@pytest.mark.parametrize(
    "stream", [Failing(errno.ENOSPC), Failing(errno.EPIPE), Failing(errno.EIO, tty=True), None],
    ids=["full", "pipe", "terminal", "none"])
def test_say_tell_progress_and_print_never_fail(stream):
    ended = io.StringIO()

    def main():
        messages.say("a")
        messages.tell("b")
        print("c", "d", flush=True)
        sys.stderr.writelines(["e\n"])
        progress = messages.Progress(3)
        for _ in range(3):
            progress.step()
        progress.close()
        ended.write("done")

    with redirect_stdout(stream), redirect_stderr(stream), pytest.raises(SystemExit) as end:
        command.run(main)
    assert end.value.code is None and ended.getvalue() == "done"


def test_outside_of_a_command_too():
    with redirect_stdout(Failing()), redirect_stderr(None):
        messages.tell("a")
        messages.say("b")


def test_a_refusal_has_its_exit_code_though_nobody_can_read_it():
    def main():
        raise InputError("expected")

    with redirect_stderr(Failing()), pytest.raises(SystemExit) as end:
        command.run(main)
    assert end.value.code == 2


def test_streams_are_what_they_were_after_a_command():
    before = sys.stdout, sys.stderr
    with pytest.raises(SystemExit):
        command.run(lambda: None)
    assert (sys.stdout, sys.stderr) == before


def test_a_terminal_that_knows_ascii_only_shows_the_rest_escaped():
    script = "from losslandscape import command, messages; command.run(lambda: messages.tell('\u00e9 \u03b1'))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stdout == b"\\xe9 \\u03b1\n"


# ---------------------------------------------------------------- commands whose answer is what they print


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_quietly_where_nobody_reads(name):
    module = load_command(COMMANDS[name][0])
    said = io.StringIO()
    with redirect_stdout(Failing(errno.EPIPE)), redirect_stderr(said), pytest.raises(SystemExit) as end:
        command.run(lambda: module.main(["--help"]))
    assert not end.value.code and said.getvalue() == ""


def ask(shell):
    """`losslandscape describe` of a direction file, with its output going to `shell`."""
    file = next(GOLDEN.glob("*.h5"))
    return subprocess.run(
        ["bash", "-c", f'"$@" {shell}; exit ${{PIPESTATUS[0]}}', "bash", sys.executable, "-m", "losslandscape",
         "describe", str(file)], cwd=ROOT, capture_output=True, text=True)


def test_describe_ends_quietly_on_a_broken_pipe():
    done = ask("| head -1")
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 1


def test_an_answer_that_is_lost_on_a_full_disk_is_an_error():
    done = ask("> /dev/full")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "can't write to standard output (No space left on device)" in done.stderr


