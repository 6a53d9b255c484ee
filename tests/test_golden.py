"""Agreement with files that the original code wrote, from the same checkpoints and data (tests/golden/README.md)."""

import shutil

import h5py
import numpy as np
import pytest

import plot_surface
from losslandscape.files import layouts as h5_util
from tests.conftest import GOLDEN

FILTER = ("--xnorm", "filter", "--xignore", "biasbn")
PLANE = "model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
PLANE_5 = f"{PLANE}_[-1.0,1.0,5]x[-1.0,1.0,5].h5"
SURFACES = {  # file of the original -> our flags
    PLANE_5:  # every other row and column; the test of a direction file has the inner ones
        (*FILTER, "--ynorm", "filter", "--yignore", "biasbn", "--x=-1:1:3", "--y=-1:1:3"),
    "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,7].h5": (*FILTER, "--x=-1:1:7"),
    "model_6.t7_weights_xignore=biasbn_xnorm=layer_yignore=biasbn_ynorm=layer.h5_[-1.0,1.0,3]x[-0.5,0.5,5].h5":
        ("--xnorm", "layer", "--xignore", "biasbn", "--ynorm", "layer", "--yignore", "biasbn",
         "--x=-1:1:3", "--y=-0.5:0.5:5"),
    "model_6.t7_weights_xnorm=weight_ynorm=weight.h5_[-0.1,0.1,3]x[-0.1,0.1,3].h5":
        ("--xnorm", "weight", "--ynorm", "weight", "--x=-0.1:0.1:3", "--y=-0.1:0.1:3"),
    "model_6.t7_states_xignore=biasbn_xnorm=filter.h5_[-0.1,0.1,3].h5":
        (*FILTER, "--dir_type", "states", "--x=-0.1:0.1:3"),
    "model_6.t7_model_4.t7_states.h5_[-0.5,1.5,9].h5":
        ("--model_file2", "model_4.t7", "--dir_type", "states", "--x=-0.5:1.5:9"),
    "mse_1d.h5": (*FILTER, "--x=-1:1:3", "--loss_name", "mse"),
}


@pytest.mark.parametrize("name", SURFACES)
def test_surface_agrees_with_the_original(name, golden, monkeypatch):
    monkeypatch.chdir(golden)
    plot_surface.main(["--model", "resnet20", "--dataset", "data.npz", "--model_file", "model_6.t7", *SURFACES[name]])
    suffix = "_dataset=data"
    ours = golden / (name.removesuffix(".h5") + suffix + ".h5")
    if name == PLANE_5:
        ours = golden / f"{PLANE}_[-1.0,1.0,3]x[-1.0,1.0,3]{suffix}.h5"
    if name == "mse_1d.h5":
        ours = golden / f"model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,3]{suffix}_loss=mse.h5"
    got, expected = h5_util.read_surface(ours), h5_util.read_surface(GOLDEN / name)
    every = (slice(None, None, 2 if name == PLANE_5 else 1),) * len(expected.grid.shape)
    np.testing.assert_array_equal(got.grid.x, expected.grid.x[every[0]])
    assert got.grid.shape == expected.values["train_loss"][every].shape
    assert got.dir_file == expected.dir_file.removeprefix("golden/")
    np.testing.assert_allclose(got.values["train_loss"], expected.values["train_loss"][every], rtol=1e-4)
    one_sample = 100 / 200
    np.testing.assert_allclose(got.values["train_acc"], expected.values["train_acc"][every], atol=one_sample + 1e-9)


def test_random_directions_are_those_of_the_original(golden, monkeypatch):
    monkeypatch.chdir(golden)
    plot_surface.main(["--model", "resnet20", "--dataset", "data.npz", "--model_file", "model_6.t7",
                       *SURFACES[PLANE_5][:-2], "--x=-0.1:0.1:1", "--y=-0.1:0.1:1"])
    got, expected = h5_util.read_directions(golden / PLANE), h5_util.read_directions(GOLDEN / PLANE)
    for ours, theirs in ((got.x, expected.x), (got.y, expected.y)):
        assert len(ours) == len(theirs) == 65
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9)


def test_a_direction_file_of_the_original_is_used_as_it_is(golden, monkeypatch):
    shutil.copy(GOLDEN / PLANE, golden / "theirs.h5")
    before = (golden / "theirs.h5").read_bytes()
    monkeypatch.chdir(golden)
    plot_surface.main(["--model", "resnet20", "--dataset", "data.npz", "--model_file", "model_6.t7",
                       "--dir_file", "theirs.h5", "--x=-0.5:0.5:3", "--y=-0.5:0.5:3"])
    assert (golden / "theirs.h5").read_bytes() == before
    got = h5_util.read_surface(golden / "theirs.h5_[-0.5,0.5,3]x[-0.5,0.5,3]_dataset=data.h5")
    expected = h5_util.read_surface(GOLDEN / PLANE_5)
    np.testing.assert_allclose(got.values["train_loss"], expected.values["train_loss"][1:4, 1:4], rtol=1e-4)


def test_a_started_surface_of_the_original_is_completed(golden, monkeypatch):
    """Their files have no mask: -1 marks what is missing; what is there is kept."""
    name = "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,7].h5"
    started = golden / "started.h5"
    shutil.copy(GOLDEN / name, started)
    with h5py.File(started, "r+") as f:
        whole = f["train_loss"][:]
        f["train_loss"][2] = f["train_acc"][2] = -1.0
        f["train_loss"][3] = 0.123  # not what we would compute: must survive
    monkeypatch.chdir(golden)
    plot_surface.main(["--model", "resnet20", "--dataset", "data.npz", "--model_file", "model_6.t7", *FILTER,
                       "--x=-1:1:7", "--surf_file", "started.h5"])
    values = h5_util.read_surface(started).values["train_loss"]
    assert values[3] == 0.123
    np.testing.assert_allclose(values[2], whole[2], rtol=1e-4)


def test_non_square_file_of_the_original_is_repaired():
    """They store (nx, ny) but fill it in (ny, nx) order; the surface is a function of (x, y) all the same."""
    name = "model_6.t7_weights_xignore=biasbn_xnorm=layer_yignore=biasbn_ynorm=layer.h5_[-1.0,1.0,3]x[-0.5,0.5,5].h5"
    with h5py.File(GOLDEN / name) as f:
        stored = f["train_loss"][:]
    surface = h5_util.read_surface(GOLDEN / name)
    assert stored.shape == (3, 5) and surface.get("train_loss").shape == surface.grid.shape == (5, 3)
    np.testing.assert_array_equal(surface.values["train_loss"].ravel(), stored.ravel())
