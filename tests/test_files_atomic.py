"""Laws of files that are written whole: complete at every moment, and nothing is left behind."""

import os
import subprocess
import sys

import numpy as np
import pytest

from losslandscape.errors import InputError
from losslandscape.files.atomic import write_file
from losslandscape.files.layouts import Directions, read_surface, write_directions, write_surface
from tests.conftest import ROOT
from tests.stores import files_of_at_most, surface
from tests.test_files_opening import make_special


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "s.h5"
    write_surface(file, surface())
    before = file.read_bytes()
    with files_of_at_most(4096), pytest.raises(InputError, match="can't write .*s.h5 .*make room"):
        write_surface(file, surface((50, 50)))
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["s.h5"]


def test_a_first_write_that_fails_leaves_nothing(tmp_path):
    with files_of_at_most(1000), pytest.raises(InputError):
        write_directions(tmp_path / "d.h5", Directions([np.zeros(1000)]))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        write_file(tmp_path / "no" / "s.h5", b"1")


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a socket", "a device"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, kind):
    path = tmp_path / "s.h5"
    held = make_special(path, kind)
    before = os.lstat(path)
    with pytest.raises(InputError, match=f"got {kind}; choose another place"):
        write_file(path, b"1")
    assert os.lstat(path).st_ino == before.st_ino and os.listdir(tmp_path) == ["s.h5"]
    if held is not None:
        held.close()


WRITER = """
import sys, numpy as np
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import write_surface
grid = Grid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 40))
for k in range(120):
    full = np.full(grid.shape, float(k))
    write_surface(sys.argv[1], Surface(grid, {"a": full, "b": full}, {"a": full > -1, "b": full > -1}))
"""


def test_at_every_moment_the_name_leads_to_one_complete_version(tmp_path):
    file = tmp_path / "s.h5"
    write_surface(file, surface((1, 1), name="a"))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, file], cwd=ROOT)
    seen = []
    while writer.poll() is None:
        found = read_surface(file)
        versions = {float(v) for array in found.values.values() for v in array.flat}
        assert len(versions) == 1  # no mixture of two versions
        seen.append(versions.pop())
    assert writer.returncode == 0 and read_surface(file).values["b"][0, 0] == 119
    assert len(set(seen)) > 2 and os.listdir(tmp_path) == ["s.h5"]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_file(tmp_path / "ours", b"1")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


KILLED = """
import os, signal, sys, time
from losslandscape.files.atomic import write_file


def replace(*_):
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print(flush=True)
    time.sleep(60)


os.replace = replace
write_file(sys.argv[1], b"half")
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path):
    def hidden():
        return [name for name in os.listdir(tmp_path) if name.startswith(".")]

    file = str(tmp_path / "s.h5")
    subprocess.run([sys.executable, "-c", KILLED, file, "killed"], cwd=ROOT)
    assert len(hidden()) == 1 and not os.path.exists(file)
    living = subprocess.Popen([sys.executable, "-c", KILLED, file, "living"], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        living.stdout.readline()
        assert len(hidden()) == 2
        write_file(file, b"whole")
        (left,) = hidden()
        assert f".{living.pid}." in left and open(file, "rb").read() == b"whole"
    finally:
        living.kill()
        living.communicate()
    write_file(str(tmp_path / "other.h5"), b"")
    assert hidden() == [left]  # another file's
    write_file(file, b"whole")
    assert not hidden()
