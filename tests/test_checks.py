"""--check names what would make a picture misleading, and nothing else."""

import os
import shutil

import numpy as np
import pytest
import torch

import plot_surface
from losslandscape.networks import loading as model_loader
from tests.conftest import GOLDEN

FLAGS = ["--model", "resnet20", "--dataset", "data.npz", "--model_file", "model_6.t7", "--batch_size", "8", "--check"]
FILTER = ["--xnorm", "filter", "--xignore", "biasbn"]


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """check(*flags, **changes to the checkpoint's entries) -> [(verdict, words)]."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(GOLDEN / "model_6.t7", tmp_path)
    with np.load(GOLDEN / "data.npz") as f:
        np.savez(tmp_path / "data.npz", **{k: v[:8] for k, v in f.items()})

    def run(*flags, **info):
        if info:
            torch.save({"state_dict": weights(), **info}, "model_6.t7")
        files = set(os.listdir())
        plot_surface.main([*FLAGS, *flags])
        assert set(os.listdir()) == files  # nothing is written
        lines = capsys.readouterr().out.splitlines()
        return [(line[:5].strip(), line[6:]) for line in lines if line[:5].strip() in ("ok", "note", "look")]

    return run


def weights():
    """The checkpoint's, as tensors that do not lie in its file."""
    state = model_loader.read_checkpoint("model_6.t7").state_dict
    return {name: tensor.clone() for name, tensor in state.items()}


def looks(found):
    return [words for verdict, words in found if verdict == "look"]


def centre():
    from losslandscape.data.datasets import load_dataset
    from losslandscape.measuring.evaluator import eval_loss

    return eval_loss(model_loader.load_net("resnet20", "model_6.t7"), load_dataset("data.npz", splits=("train",)).train)


def test_a_sensible_plot_passes(check):
    loss, acc = centre()
    found = check("--x=-0.5:0.5:51", *FILTER, train_loss=loss, train_acc=acc)
    assert not looks(found), found
    assert any(v == "ok" and "recorded" in words for v, words in found)
    assert any("the full run: 51 points" in words for _, words in found)


def test_another_loss_than_the_recorded_one_is_seen(check):
    assert any("recorded" in words for words in looks(check("--x=-0.5:0.5:51", *FILTER, train_loss=17.0)))


def test_a_direction_without_normalization_is_seen(check):
    assert any("--xnorm filter" in words for words in looks(check("--x=-0.01:0.01:51")))


def test_a_range_far_too_large_is_seen_and_a_smaller_one_named(check):
    found = looks(check("--x=-30:30:51", *FILTER, "--vmax", "3"))
    assert any("the valley is small" in words and "--x within about" in words for words in found), found


def test_a_range_in_which_nothing_happens_is_seen(check):
    assert any("hardly changes" in words for words in looks(check("--x=-1e-5:1e-5:51", *FILTER)))


def test_a_minimum_between_the_grid_points_is_seen(check):
    assert any("falls between the grid points" in words for words in looks(check("--x=-9:9:3", *FILTER)))


def test_a_grid_without_the_centre_is_noted(check):
    found = check("--x=-0.5:0.5:50", *FILTER)
    assert any(v == "note" and "odd number" in words for v, words in found)


def test_batch_norm_without_training_is_seen(check):
    state = weights()
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.zero_()
        if key.endswith("running_var"):
            value.fill_(1)
    torch.save({"state_dict": state}, "model_6.t7")
    assert any("statistics of a new network" in words for words in looks(check("--x=-0.5:0.5:51", *FILTER)))


def test_a_plane_is_checked_on_both_axes(check):
    found = check("--x=-0.5:0.5:51", "--y=-0.5:0.5:51", *FILTER, "--ynorm", "filter", "--yignore", "biasbn")
    told = " ".join(words for _, words in found)
    assert "one step in x" in told and "one step in y" in told and "2601 points" in told
