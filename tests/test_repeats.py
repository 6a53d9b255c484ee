"""Median, quartiles and spread of repeated experiments."""

import os
import shutil

import numpy as np
import pytest
import torch

import plot_hessian_eigen
import plot_surface
from losslandscape import describe, repeats
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.names import repeats_of
from losslandscape.measuring.hessian import EIGENVALUE_NAMES, EigenvalueEvaluator
from tests.conftest import GOLDEN, refused, run

GRID = Grid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 3))
X, Y = np.meshgrid(GRID.x, GRID.y)


def surface(values, grid=GRID, computed=True):
    values = np.broadcast_to(np.asarray(values, float), grid.shape)
    return Surface(grid, {"train_loss": values.copy()}, {"train_loss": np.full(grid.shape, computed)})


def test_equal_planes_have_no_spread_and_their_median_is_each():
    bowl = X**2 + Y**2
    assert repeats.spread([surface(bowl)] * 3) == 0
    np.testing.assert_array_equal(repeats.summarize([surface(bowl)] * 3).values["train_loss"], bowl)


def test_the_spread_is_the_interquartile_range_over_the_rise():
    planes = [surface(a * (X**2 + Y**2)) for a in (1, 2, 3, 4, 5)]  # median 3 r^2, quartiles 2 r^2 and 4 r^2
    assert repeats.spread(planes) == pytest.approx(2 / 3)
    found = repeats.summarize(planes).values
    np.testing.assert_allclose(found["train_loss_low"], 2 * (X**2 + Y**2))
    np.testing.assert_allclose(found["train_loss_iqr"], 2 * (X**2 + Y**2))


def test_the_spread_does_not_depend_on_units():
    planes = [surface(a * X**2 + 1) for a in (1, 2, 4)]
    scaled = [surface(10 * p.values["train_loss"] + 5) for p in planes]
    assert repeats.spread(planes) == pytest.approx(repeats.spread(scaled))


def test_points_that_some_repeat_lacks_are_not_computed_and_nan_stays_nan():
    whole, part = surface(X**2), surface(2 * X**2)
    part.computed["train_loss"][0, 0] = False
    whole.values["train_loss"][1, 1] = np.nan
    found = repeats.summarize([whole, part])
    assert not found.computed["train_loss"][0, 0] and found.computed["train_loss"].sum() == 14
    assert np.isnan(found.values["train_loss"][1, 1]) and np.isfinite(repeats.spread([whole, part]))


def test_different_grids_and_a_single_file_are_refused(tmp_path):
    other = Grid(np.linspace(-2, 2, 5), GRID.y)
    with pytest.raises(InputError, match="on one grid"):
        repeats.summarize([surface(X), surface(X, other)])
    h5_util.write_surface(str(tmp_path / "s.h5"), surface(X))
    assert refused(run("-m", "losslandscape", "repeats", tmp_path / "s.h5"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(GOLDEN / "model_6.t7", tmp_path)
    with np.load(GOLDEN / "data.npz") as f:
        np.savez(tmp_path / "data.npz", **{k: v[:4] for k, v in f.items()})
    return tmp_path


FLAGS = ["--model", "resnet20", "--dataset", "data.npz", "--model_file", "model_6.t7", "--batch_size", "4",
         "--xnorm", "filter", "--xignore", "biasbn"]


def test_repeats_are_the_surfaces_of_idx_and_are_summarized_and_drawn(folder, capsys):
    plot_surface.main([*FLAGS, "--x=-1:1:3", "--repeats", "3", "--plot"])
    files = repeats_of(next(f.name for f in folder.glob("*3]_dataset=data.h5") if "idx" not in f.name))
    assert list(files) == [0, 1, 2]
    plot_surface.main([*FLAGS, "--x=-1:1:3", "--idx", "2", "--surf_file", "two.h5"])
    two = h5_util.read_surface("two.h5").values["train_loss"]
    np.testing.assert_array_equal(h5_util.read_surface(files[2]).values["train_loss"], two)
    (summary,) = folder.glob("*_repeats=3.h5")
    found = h5_util.read_surface(summary)
    every = np.stack([h5_util.read_surface(f).values["train_loss"] for f in files.values()])
    np.testing.assert_array_equal(found.values["train_loss"], np.median(every, axis=0))
    assert len(found.provenance["repeats"]) == 3
    assert list(folder.glob("*_1d_loss_err_repeat.pdf")) and "the planes differ by" in capsys.readouterr().out


def test_planes_are_drawn_as_median_and_interquartile_range(folder):
    plot_surface.main([*FLAGS, "--x=-1:1:3", "--y=-1:1:3", "--ynorm", "filter", "--yignore", "biasbn", "--repeats", "2",
                       "--plot"])
    drawn = {name.rpartition("_repeats=2.h5_")[2] for name in os.listdir() if name.endswith(".pdf")}
    assert {"train_loss_2dcontour.pdf", "train_loss_iqr_2dheat.pdf"} <= drawn
    assert "spread" in describe.describe(next(folder.glob("*_repeats=2.h5")))


@pytest.mark.parametrize("y", [(), ("--y=-1:1:2", "--ynorm", "filter", "--yignore", "biasbn")])
def test_repeats_of_eigenvalues_are_drawn_too(folder, monkeypatch, y):
    def fake(self, names, idle):
        return dict(zip(EIGENVALUE_NAMES, (3.0 + torch.initial_seed() % 123, -1.0, 0.0, 0.0, 1.0), strict=True))

    monkeypatch.setattr(EigenvalueEvaluator, "__call__", fake)
    plot_hessian_eigen.main([*FLAGS, "--x=-1:1:2", *y, "--repeats", "2", "--plot"])
    assert list(folder.glob("*_repeats=2.h5_*.pdf"))


def test_the_test_loss_is_drawn_where_it_is_what_was_evaluated(folder):
    plot_surface.main([*FLAGS, "--eval_set", "test", "--x=-1:1:3", "--y=-1:1:3", "--log",
                       "--plot", "--surf_file", "s.h5"])
    assert list(folder.glob("s.h5_test_loss_2dcontour.pdf"))


def test_repeats_have_files_of_their_own(folder):
    done = run(plot_surface.__file__, *FLAGS, "--x=-1:1:3", "--repeats", "2", "--surf_file", "s.h5", cwd=folder)
    assert refused(done) and "every repeat has its own files" in done.stderr
