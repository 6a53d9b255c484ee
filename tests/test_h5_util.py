"""Laws of the three file layouts: written whole, read as written, and told in words."""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losslandscape import describe
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from tests.conftest import GOLDEN, ROOT, refused, run


@contextmanager
def files_of_at_most(size):
    """Within the block, writing more than `size` bytes into a file fails as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def surface(shape=(3, 4), value=1.0, name="train_loss", **more):
    axes = [np.linspace(-1, 1, n) for n in shape[::-1]]
    return h5_util.Surface(h5_util.Grid(*axes), {name: np.full(shape, value)}, {name: np.ones(shape, bool)}, **more)


# ---------------------------------------------------------------- written whole


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "s.h5"
    h5_util.write_surface(file, surface())
    before = file.read_bytes()
    with files_of_at_most(4096), pytest.raises(InputError, match="can't write .*s.h5 .*make room"):
        h5_util.write_surface(file, surface((50, 50)))
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["s.h5"]


def test_a_first_write_that_fails_leaves_nothing(tmp_path):
    with files_of_at_most(1000), pytest.raises(InputError):
        h5_util.write_directions(tmp_path / "d.h5", h5_util.Directions([np.zeros(1000)]))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        h5_util.write_file(tmp_path / "no" / "s.h5", b"1")


WRITER = """
import sys, numpy as np
from losslandscape.files import layouts as h5_util
grid = h5_util.Grid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 40))
for k in range(120):
    full = np.full(grid.shape, float(k))
    h5_util.write_surface(sys.argv[1], h5_util.Surface(grid, {"a": full, "b": full}, {"a": full > -1, "b": full > -1}))
"""


def test_at_every_moment_the_name_leads_to_one_complete_version(tmp_path):
    file = tmp_path / "s.h5"
    h5_util.write_surface(file, surface((1, 1), name="a"))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, file], cwd=ROOT)
    seen = []
    while writer.poll() is None:
        found = h5_util.read_surface(file)
        versions = {float(v) for array in found.values.values() for v in array.flat}
        assert len(versions) == 1  # no mixture of two versions
        seen.append(versions.pop())
    assert writer.returncode == 0 and h5_util.read_surface(file).values["b"][0, 0] == 119
    assert len(set(seen)) > 2 and os.listdir(tmp_path) == ["s.h5"]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    h5_util.write_file(tmp_path / "ours", b"1")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


# ---------------------------------------------------------------- read as written

NUMBERS = st.floats(width=64, allow_nan=True, allow_infinity=True)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 5)))
def test_a_surface_is_read_as_it_was_written(tmp_path_factory, data, nx, ny):
    shape = (nx,) if ny is None else (ny, nx)
    size = int(np.prod(shape))
    values = np.array(data.draw(st.lists(NUMBERS, min_size=size, max_size=size))).reshape(shape)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size))).reshape(shape)
    grid = h5_util.Grid(np.linspace(0, 1, nx), None if ny is None else np.linspace(0, 1, ny))
    file = tmp_path_factory.getbasetemp() / "roundtrip.h5"
    h5_util.write_surface(file, h5_util.Surface(grid, {"loss": values}, {"loss": mask}, "d.h5", {"a": [1, "b"]}))
    found = h5_util.read_surface(file)
    np.testing.assert_array_equal(found.values["loss"], np.where(mask, values, np.nan))
    np.testing.assert_array_equal(found.computed["loss"], mask)
    assert found.grid.shape == shape and found.dir_file == "d.h5" and found.provenance == {"a": [1, "b"]}


def test_a_computed_minus_one_is_a_result_and_a_masked_point_is_not(tmp_path):
    made = surface((1, 3), -1.0)
    made.computed["train_loss"][0, 1] = False
    h5_util.write_surface(tmp_path / "s.h5", made)
    assert h5_util.read_surface(tmp_path / "s.h5").get("train_loss").mask.tolist() == [[False, True, False]]


def test_directions_and_projections_are_read_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    x = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (4,), ())]
    h5_util.write_directions(tmp_path / "d.h5", h5_util.Directions(x, x[::-1], {"model": "m"}, {"v": np.arange(2.0)}))
    found = h5_util.read_directions(tmp_path / "d.h5")
    for a, b in zip(found.x + found.y, x + x[::-1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.provenance == {"model": "m"} and found.extra["v"].tolist() == [0, 1]
    arrays = {"proj_xcoord": np.arange(3.0), "proj_ycoord": -np.arange(3.0)}
    h5_util.write_projection(tmp_path / "p.h5", arrays, {"k": 1})
    got, provenance = h5_util.read_projection(tmp_path / "p.h5")
    np.testing.assert_array_equal(got["proj_ycoord"], arrays["proj_ycoord"])
    assert provenance == {"k": 1}


# ---------------------------------------------------------------- in words


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
    h5_util.write_surface(tmp_path / "s.h5", made)
    done = run("-m", "losslandscape", "describe", tmp_path / "s.h5")
    assert done.returncode == 0, done.stderr
    for words in ("surface file, 2-D: 4 x 3 points, x from -1 to 1, y from -1 to 1", "11 of 12 points computed",
                  "2.5 to 2.5", "1 not finite", "not complete", "directions: d.h5", "network", "vgg9",
                  "sha256 abababababababab...", "mse", "torch 2.6", "own"):
        assert words in done.stdout
    made.computed["train_loss"][:] = True
    h5_util.write_surface(tmp_path / "s.h5", made)
    assert "\ncomplete\n" in describe.describe(tmp_path / "s.h5")


def test_the_explained_variance_of_a_pca_is_told():
    assert "they explain 89.55 %, 9.91 %" in describe.describe(GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5")


def test_any_other_file_is_refused_in_one_line(tmp_path):
    h5_util._write_hdf5(tmp_path / "other.h5", lambda f: f.create_dataset("what", data=[1.0]), {})
    for file in ("other.h5", "missing.h5"):
        assert refused(run("-m", "losslandscape", "describe", tmp_path / file))


KILLED = """
import os, signal, sys, time
from losslandscape.files import layouts as h5_util


def replace(*_):
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print(flush=True)
    time.sleep(60)


os.replace = replace
h5_util.write_file(sys.argv[1], b"half")
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
        h5_util.write_file(file, b"whole")
        (left,) = hidden()
        assert f".{living.pid}." in left and open(file, "rb").read() == b"whole"
    finally:
        living.kill()
        living.communicate()
    h5_util.write_file(str(tmp_path / "other.h5"), b"")
    assert hidden() == [left]  # another file's
    h5_util.write_file(file, b"whole")
    assert not hidden()
