"""Laws of files in words."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from losslandscape import describe
from losslandscape.files.layouts import Directions, write_directions, write_surface
from tests.conftest import GOLDEN, ROOT, refused, run
from tests.stores import surface


def test_every_golden_file_is_told_in_words():
    files = sorted(GOLDEN.rglob("*.h5"))
    kinds = [describe.describe(file).split(" file")[0] for file in files]
    assert {"surface", "direction", "projection"} == set(kinds)
    for file, kind in zip(files, kinds, strict=True):
        expected = ("projection" if "_proj_" in file.name else
                    "direction" if file.name in ("directions.h5", PLANE) else "surface")
        assert kind == expected
        assert "not recorded, as in files of the original code" in describe.describe(file)


PLANE = "model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"


def test_the_command_says_what_a_surface_is_how_complete_and_made_from_what(tmp_path):
    made = surface((3, 4), 2.5, dir_file="d.h5", provenance={
        "model": "vgg9", "checkpoint": "ab" * 32, "loss": "mse", "versions": {"torch": "2.6"}, "own": 1})
    made.computed["train_loss"][1, 2] = False
    made.values["train_loss"][0, 0] = np.nan
    write_surface(tmp_path / "s.h5", made)
    done = run("-m", "losslandscape", "describe", tmp_path / "s.h5")
    assert done.returncode == 0, done.stderr
    for words in ("surface file, 2-D: 4 x 3 points, x from -1 to 1, y from -1 to 1", "11 of 12 points computed",
                  "2.5 to 2.5", "1 not finite", "not complete", "directions: d.h5", "network", "vgg9",
                  "sha256 abababababababab...", "mse", "torch 2.6", "own"):
        assert words in done.stdout
    made.computed["train_loss"][:] = True
    write_surface(tmp_path / "s.h5", made)
    assert "\ncomplete\n" in describe.describe(tmp_path / "s.h5")


def test_the_explained_variance_of_a_pca_is_told():
    assert "they explain 89.55 %, 9.91 %" in describe.describe(GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5")


def test_any_other_file_is_refused_in_one_line(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["data"] = [1.0]
    for file in ("other.h5", "missing.h5"):
        assert refused(run("-m", "losslandscape", "describe", tmp_path / file))


def test_what_stands_in_a_file_does_not_reach_the_terminal_as_a_command(tmp_path):
    texts = {"model": "a\nb\033[2J\ud800", "own": "\x07"}
    write_surface(tmp_path / "s.h5", surface(provenance=texts, dir_file="d\033.h5"))
    done = run("-m", "losslandscape", "describe", tmp_path / "s.h5")
    assert done.returncode == 0, done.stderr
    assert "a?b?[2J?" in done.stdout and "directions: d?.h5" in done.stdout
    assert all(letter.isprintable() or letter == "\n" for letter in done.stdout)


NAMES = [b"\xff\xfe.h5", "ö 山.h5".encode(), b"a\nb\033[2J.h5"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("environment", [
    {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C.UTF-8"}])
def test_any_name_is_told_on_any_terminal(tmp_path, name, environment):
    made = surface(provenance={"model": "ö 山"}, dir_file="ö.h5", name="verlust_ö")
    write_surface(os.fsdecode(os.fsencode(tmp_path) + b"/" + name), made)
    done = subprocess.run([sys.executable, "-m", "losslandscape", "describe", os.fsencode(tmp_path) + b"/" + name],
                          cwd=ROOT, capture_output=True, env=os.environ | environment)
    assert done.returncode == 0 and not done.stderr, done.stderr
    lines = done.stdout.decode().splitlines()
    assert str(tmp_path) in lines[0] and "surface file, 2-D" in lines[1] and b"\033" not in done.stdout

    missing = subprocess.run([sys.executable, "-m", "losslandscape", "describe", name], cwd=ROOT, capture_output=True,
                             env=os.environ | environment)
    assert missing.returncode == 2 and missing.stderr.count(b"\n") == 1 and b"\033" not in missing.stderr


@pytest.mark.filterwarnings("error")
def test_the_norm_of_directions_of_complex_weights_is_told(tmp_path):
    write_directions(tmp_path / "d.h5", Directions([np.array([3 + 4j, 0])]))
    assert "1 tensors, 2 numbers, norm 5" in describe.describe(tmp_path / "d.h5")


@pytest.mark.parametrize("value", [1e308, np.inf, np.nan])
@pytest.mark.filterwarnings("error")
def test_directions_of_any_numbers_are_told(tmp_path, value):
    with h5py.File(tmp_path / "d.h5", "w") as f:
        f["xdirection/0"] = np.full(3, value)
    assert "1 tensors, 3 numbers, norm" in describe.describe(tmp_path / "d.h5")
