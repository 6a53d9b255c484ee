"""Laws of opening files: regular ones are read, nothing else is waited for."""

import os
import socket
import subprocess
import sys

import pytest

from losslandscape.errors import InputError
from losslandscape.files.opening import open_regular, refuse_special
from tests.conftest import ROOT


def make_special(path, kind):
    """Something at `path` that is no regular file; what must be kept while it is looked at."""
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        return server
    else:
        path.symlink_to("/dev/zero")
    return None


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a socket", "a device"])
def test_what_is_no_regular_file_is_refused_at_once_in_words(tmp_path, kind):
    path = tmp_path / "file"
    held = make_special(path, kind)
    for look in (open_regular, refuse_special):
        with pytest.raises(InputError, match=f"expected a file at .*file, got {kind}; "):
            look(path)
    if held is not None:
        held.close()


def test_a_regular_file_is_read_also_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        refuse_special(tmp_path / name)
        with open_regular(tmp_path / name) as f:
            assert f.read() == b"text"


def test_what_is_not_there_is_the_callers_affair(tmp_path):
    refuse_special(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")


def test_standard_input_is_no_file_while_it_is_a_pipe(tmp_path):
    code = "from losslandscape.files.opening import open_regular; print(open_regular('/dev/stdin').read())"
    (tmp_path / "file").write_bytes(b"text")
    with open(tmp_path / "file") as f:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdin=f, capture_output=True, text=True)
    assert done.stdout == "b'text'\n"
    piped = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"got a pipe" in piped.stderr.read() and piped.wait(30) == 1
    piped.stdin.close()
