"""A run that is refused writes nothing, and one that can't save says where its results are."""

import os

import h5py
import numpy as np
import pytest

import plot_surface
from losslandscape.errors import InputError
from losslandscape.files import store as store_module
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import read_surface, write_surface
from losslandscape.files.store import SurfaceStore

FLAGS = ("--x=-1:1:3", "--xnorm", "filter", "--xignore", "biasbn", "--batch_size", "8")


def start(golden, *flags):
    """plot_surface.main on the golden checkpoint; raises SystemExit for a refusal."""
    plot_surface.main(["--model", "resnet20", "--dataset", str(golden / "data.npz"),
                       "--model_file", str(golden / "model_6.t7"), *FLAGS, *map(str, flags)])


def line(provenance=None, count=3):
    grid = Grid.parse(f"-1:1:{count}")
    values, computed = np.ones(count), np.zeros(count, bool)
    return Surface(grid, {"train_loss": values}, {"train_loss": computed}, provenance=provenance or {})


def write_other_layout(path):
    with h5py.File(path, "w") as f:
        f["weights"] = np.ones(3)


PLACES = {
    "a text": lambda path: path.write_text("notes"),
    "a trained model": lambda path: path.write_bytes(b"PK\x03\x04 trained for a month"),
    "another HDF5 file": write_other_layout,
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "another grid": lambda path: write_surface(path, line(count=5)),
    "another network's": lambda path: write_surface(path, line({"checkpoint": "c" * 64})),
    "other directions": lambda path: write_surface(path, line({"directions": "c" * 64})),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_surface_file_that_does_not_fit_is_refused_and_no_direction_file_is_left(golden, capfd, place):
    PLACES[place](golden / "s.h5")
    before = sorted(os.listdir(golden))
    with pytest.raises(SystemExit) as ended:
        start(golden, "--surf_file", golden / "s.h5")
    assert ended.value.code == 2 and "s.h5" in capfd.readouterr().err
    assert sorted(os.listdir(golden)) == before


def test_results_that_can_not_be_saved_at_the_end_are_found_by_the_same_command(golden, capfd, monkeypatch):
    (golden / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(golden / "tmp"))
    monkeypatch.setenv("HOME", str(golden / "tmp"))
    write = store_module.layouts.write_surface
    close = SurfaceStore.close

    def full(path, surface):
        if os.path.dirname(path) == str(golden) and surface.computed["train_loss"].any():
            raise InputError(f"can't write {path} (No space left on device); make room")
        write(path, surface)

    with monkeypatch.context() as patch:
        patch.setattr(store_module.layouts, "write_surface", full)
        patch.setattr(SurfaceStore, "close", lambda self, patience=0: close(self, 0))
        with pytest.raises(SystemExit) as ended:
            start(golden, "--surf_file", golden / "s.h5")
    assert ended.value.code == 2 and "3 of 3 points are saved in" in capfd.readouterr().err
    assert not read_surface(golden / "s.h5").computed["train_loss"].any()

    start(golden, "--surf_file", golden / "s.h5")
    said = capfd.readouterr().err
    assert "3 points are taken up from" in said and "3 points are in" in said
    assert read_surface(golden / "s.h5").computed["train_loss"].all() and not os.listdir(golden / "tmp")
