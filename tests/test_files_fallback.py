"""Laws of a disk that can't be written at the end of a run: results wait, then go elsewhere, and are found again."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from losslandscape.errors import InputError
from losslandscape.files import patience as patience_module
from losslandscape.files import store as store_module
from losslandscape.files.grid import Grid
from losslandscape.files.layouts import read_surface
from tests.conftest import ROOT
from tests.stores import MADE_FROM, hidden, store, values_of

POINTS = range(6)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """TMPDIR and the home folder, empty; and the folder of the surface file."""
    folders = []
    for variable, name in (("TMPDIR", "tmp"), ("HOME", "home")):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        monkeypatch.setenv(variable, str(folders[-1]))
    (tmp_path / "run").mkdir()
    return *folders, tmp_path / "run"


@pytest.fixture
def full(monkeypatch):
    """A set of folders in which no surface can be written; empty at first."""
    folders = set()
    write = store_module.layouts.write_surface

    def write_surface(path, surface):
        if os.path.dirname(path) in map(str, folders):
            raise InputError(f"can't write {path} (No space left on device); make room")
        write(path, surface)

    monkeypatch.setattr(store_module.layouts, "write_surface", write_surface)
    monkeypatch.setattr(patience_module, "SLICE", 0.001)
    return folders


def ended_run(folder, points=POINTS, **changes):
    """A store of a run that has computed its points and not saved them."""
    running = store(folder / "s.h5", **changes)
    for point in points:
        running.record(point, values_of(point))
    return running


def assert_complete(path):
    surface = read_surface(path)
    for i, name in enumerate(("train_loss", "train_acc")):
        np.testing.assert_array_equal(surface.get(name).ravel(), [10.0 * point + i for point in POINTS])


def test_room_that_comes_back_is_used(places, full, monkeypatch, capsys):
    tmp, home, folder = places
    monkeypatch.setattr(patience_module, "FIRST_PAUSE", 0.01)
    running = ended_run(folder)
    full.add(folder)
    threading.Timer(0.2, full.clear).start()
    running.close(patience=60)
    assert_complete(folder / "s.h5")
    assert not hidden(folder) and not os.listdir(tmp) and not os.listdir(home)
    said = capsys.readouterr().err
    assert said.count("trying again for 1 minutes") == 1 and "now 6 of 6 points are saved in" in said


@pytest.mark.parametrize("patience", [0, 0.05])
def test_without_room_the_results_go_elsewhere_and_the_same_command_takes_them_up(places, full, patience, capsys):
    tmp, home, folder = places
    running = ended_run(folder, range(4))
    full.add(folder)
    with pytest.raises(InputError) as caught:
        running.close(patience=patience)
    (name,) = os.listdir(tmp)
    assert os.listdir(home) == [name] and hidden(folder) == []
    for words in ("No space left", "4 of 6 points are saved in", str(tmp / name), str(home / name)):
        assert words in str(caught.value)

    # the same command, with room
    full.clear()
    again = store(folder / "s.h5")
    assert again.missing().tolist() == [4, 5]
    assert not os.listdir(tmp) and not os.listdir(home)
    assert "4 points are taken up from" in capsys.readouterr().err
    for point in (4, 5):
        again.record(point, values_of(point))
    again.close()
    assert_complete(folder / "s.h5")


def test_the_command_that_the_message_tells_copies_them(places, full):
    tmp, home, folder = places
    running = ended_run(folder)
    full.add(folder)
    with pytest.raises(InputError) as caught:
        running.close(patience=0)
    command = shlex.split(str(caught.value).rpartition(": ")[2])
    subprocess.run(command, check=True)
    assert_complete(folder / "s.h5")
    assert store(folder / "s.h5").missing().size == 0


@pytest.mark.parametrize("other", ["tmp", "home"])
def test_one_place_is_enough(places, full, other):
    tmp, home, folder = places
    running = ended_run(folder)
    full |= {folder, {"tmp": home, "home": tmp}[other]}
    with pytest.raises(InputError, match="6 of 6 points are saved in"):
        running.close(patience=0)
    full.clear()
    store(folder / "s.h5").close()
    assert_complete(folder / "s.h5")


def test_with_no_place_at_all_a_run_goes_on_trying_until_there_is_one(places, full, monkeypatch):
    monkeypatch.setattr(patience_module, "FIRST_PAUSE", 0.01)
    tmp, home, folder = places
    running = ended_run(folder)
    full |= {folder, tmp, home}
    threading.Timer(0.3, full.discard, [home]).start()
    with pytest.raises(InputError, match=f"saved in {home}"):
        running.close(patience=0.05)


def test_a_run_that_has_to_end_and_has_no_place_says_what_is_lost(places, full):
    tmp, home, folder = places
    running = ended_run(folder)
    full |= {folder, tmp, home}
    with pytest.raises(InputError, match="the last 6 results are lost"):
        running.close(patience=0)


@pytest.mark.parametrize("change", [
    {"provenance": MADE_FROM | {"checkpoint": "b" * 64}},
    {"grid": Grid.parse("-1:2:3", "-1:1:2")},
    {"path": "other.h5"},
])
def test_another_run_does_not_take_them_up(places, full, change):
    tmp, home, folder = places
    running = ended_run(folder)
    full.add(folder)
    with pytest.raises(InputError):
        running.close(patience=0)
    full.clear()
    (folder / "s.h5").unlink()
    path = change.pop("path", "s.h5")
    again = store(folder / path, **change)
    assert len(again.missing()) == 6 and os.listdir(tmp) and os.listdir(home)
    again.close()


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"damaged"), lambda path: path.unlink(),
                                    lambda path: (path.unlink(), os.mkfifo(path)),
                                    lambda path: (path.unlink(), path.symlink_to("/dev/zero"))])
def test_what_is_no_surface_in_the_place_is_left_alone(places, full, damage):
    tmp, home, folder = places
    running = ended_run(folder)
    full.add(folder)
    with pytest.raises(InputError):
        running.close(patience=0)
    full.clear()
    damage(tmp / os.listdir(tmp)[0])
    again = store(folder / "s.h5")  # from home
    assert again.missing().size == 0
    again.close()


def test_files_of_other_users_are_not_taken_up(places, full, monkeypatch):
    """Anybody may put a file of this name into /tmp."""
    tmp, home, folder = places
    running = ended_run(folder)
    full.add(folder)
    with pytest.raises(InputError):
        running.close(patience=0)
    full.clear()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    again = store(folder / "s.h5")
    assert len(again.missing()) == 6 and os.listdir(tmp)
    again.close()


def test_nothing_is_lost_when_the_next_start_has_no_room_either(places, full):
    tmp, home, folder = places
    running = ended_run(folder)
    full.add(folder)
    for _ in range(2):
        with pytest.raises(InputError):
            running.close(patience=0)
            store(folder / "s.h5")
    assert len(os.listdir(tmp)) == 1
    full.clear()
    store(folder / "s.h5").close()
    assert_complete(folder / "s.h5")


# ---------------------------------------------------------------- signals, in a real process

PROGRAM = """
import shutil, sys
from tests.stores import store, values_of
running = store(sys.argv[1])
for point in range(6):
    running.record(point, values_of(point))
shutil.rmtree(sys.argv[2])
running.close(patience=600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_waiting_and_the_results_are_saved_before_it_takes_effect(places, number):
    tmp, home, folder = places
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, folder / "s.h5", folder], cwd=ROOT,
                               stderr=subprocess.PIPE, text=True)
    assert "trying again for 10 minutes" in process.stderr.readline()
    start = time.monotonic()
    process.send_signal(number)
    said = process.stderr.read()
    assert process.wait(60) == -number and time.monotonic() - start < 30
    assert "6 of 6 points are saved in" in said
    assert_complete(tmp / os.listdir(tmp)[0])

    folder.mkdir()
    store(folder / "s.h5").close()
    assert_complete(folder / "s.h5")
    shutil.rmtree(folder)
