"""Checkpoints of a run are found by prefix or pattern, in the order of their numbers."""

import os
import shutil

import h5py
import pytest

import plot_trajectory
from losslandscape.files.layouts import read_projection
from losslandscape.training_runs import (
    find_checkpoints,
    find_pattern,
    find_patterns,
    find_runs,
    numbers_in,
    run_of_files,
)
from tests.conftest import GOLDEN
from tests.test_checkpoints import one_line


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(run, folder):
    return [os.path.relpath(file, folder) for file in run.files]


# names -> (pattern, numbers, unit)
PATTERNS = {
    "hugging face": (["checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors",
                      "checkpoint-1500/model.safetensors"], "checkpoint-*/model.safetensors", (500, 1000, 1500),
                     "step"),
    "lightning": (["epoch=0-step=5.ckpt", "epoch=2-step=15.ckpt", "epoch=10-step=55.ckpt"], "epoch=*-step=*.ckpt",
                  (0, 2, 10), "epoch"),
    "several in an epoch": (["epoch=0-step=5.ckpt", "epoch=0-step=10.ckpt", "epoch=1-step=15.ckpt"], "*.ckpt",
                            (5, 10, 15), "step"),
    "with a loss": (["loss=0.9-epoch=1.ckpt", "loss=0.5-epoch=2.ckpt", "loss=0.7-epoch=3.ckpt"], "*", (1, 2, 3),
                    "epoch"),
    "plain numbers": (["9.pt", "10.pt", "0011.pt"], "*.pt", (9, 10, 11), "epoch"),
    "ours": (["model_2.t7", "model_10.t7"], "model_*.t7", (2, 10), "epoch"),
    "iterations": (["iter_100.pth", "iter_20.pth"], "iter_*.pth", (20, 100), "step"),
    "folders": (["checkpoint-2/x", "checkpoint-10/x"], "checkpoint-*", (2, 10), "step"),
}


@pytest.mark.parametrize("case", PATTERNS)
def test_a_pattern_finds_a_run_in_the_order_of_its_numbers(case, tmp_path):
    names, pattern, numbers, unit = PATTERNS[case]
    folder = tmp_path / "run=7"
    touch(folder, *names)
    run = find_pattern(f"{folder}/{pattern}")
    assert run.epochs == numbers and run.unit == unit and run.folder == str(folder)
    assert [numbers_of(name, numbers) for name in found(run, folder)] == list(numbers)


def numbers_of(name, numbers):
    return next(number for number in numbers if number in numbers_in(name).values())


def test_files_without_a_number_are_left_out_and_said(tmp_path, capsys):
    touch(tmp_path, "epoch=1.ckpt", "epoch=2.ckpt", "last.ckpt")
    assert found(find_pattern(f"{tmp_path}/*.ckpt"), tmp_path) == ["epoch=1.ckpt", "epoch=2.ckpt"]
    assert "last.ckpt" in capsys.readouterr().err


def test_a_pattern_that_a_shell_wrote_out_is_one_run(tmp_path, monkeypatch):
    touch(tmp_path, "a/epoch=1.ckpt", "a/epoch=12.ckpt", "a/epoch=3.ckpt", "b/epoch=4.ckpt")
    files = [f"{tmp_path}/a/epoch={i}.ckpt" for i in (1, 12, 3)]
    first, second = find_patterns([*files, f"{tmp_path}/b/*.ckpt"])
    assert first.epochs == (1, 3, 12) and second.epochs == (4,)
    monkeypatch.chdir(tmp_path)
    assert find_patterns(["a/epoch=1.ckpt", "a/epoch=3.ckpt"])[0].folder == "a"
    assert find_patterns(["a/*.ckpt"])[0].folder == "a"
    monkeypatch.chdir(tmp_path / "a")
    assert find_patterns(["*.ckpt"])[0].folder == "."


def test_the_range_and_the_step_are_those_of_the_numbers(tmp_path):
    touch(tmp_path, *(f"checkpoint-{i}/model.safetensors" for i in range(0, 1100, 100)))
    pattern = f"{tmp_path}/checkpoint-*/model.safetensors"
    assert find_pattern(pattern).epochs[-1] == 1000
    assert find_pattern(pattern, 200, 950, 300).epochs == (200, 500, 800, 900)


def test_patterns_that_can_not_be_used_are_one_line(tmp_path):
    touch(tmp_path, "a.pt", "b.pt", "x1/m.pt")
    assert "none" in one_line(find_pattern, f"{tmp_path}/*.ckpt")
    assert "tells them apart" in one_line(find_pattern, f"{tmp_path}/?.pt")
    touch(tmp_path, "c-1-x.pt", "c-1-y.pt")
    assert "tells them apart" in one_line(find_pattern, f"{tmp_path}/c-*.pt")
    touch(tmp_path, "d-1.pt")
    assert "--max_epoch" in one_line(find_pattern, f"{tmp_path}/d-*.pt", 5)
    assert "give each run once" in one_line(find_patterns, [f"{tmp_path}/d-*.pt", f"{tmp_path}/d-?.pt"])
    assert "give one of them" in one_line(find_runs, ["x"], "", "", 0, None, 1, ["y"])
    assert "--checkpoints" in one_line(find_runs, [], "", "", 0, None, 1)


def test_prefix_and_suffix_may_have_folders_in_them(tmp_path):
    touch(tmp_path, "checkpoints/model_1.t7", "checkpoints/model_20.t7", "model_5.t7",
          "checkpoint-500/model.safetensors", "checkpoint-1500/model.safetensors", "checkpoint-x/model.safetensors")
    run = find_checkpoints(str(tmp_path), "checkpoints/model_")
    assert run.epochs == (1, 20) and found(run, tmp_path) == ["checkpoints/model_1.t7", "checkpoints/model_20.t7"]
    run = find_checkpoints(str(tmp_path), "checkpoint-", "/model.safetensors", max_epoch=2000)
    assert run.epochs == (500, 1500)


def test_a_folder_with_wildcards_in_its_name_is_found(tmp_path):
    touch(tmp_path / "run[1]*", "model_1.t7", "model_2.t7")
    touch(tmp_path / "run1x", "model_3.t7")
    assert find_checkpoints(str(tmp_path / "run[1]*")).epochs == (1, 2)


def test_one_file_needs_no_other(tmp_path):
    touch(tmp_path, "epoch=3.ckpt")
    assert run_of_files([str(tmp_path / "epoch=3.ckpt")]).epochs == (3,)


def test_a_trajectory_over_a_pattern(tmp_path, capsys):
    for epoch in (0, 2, 4, 6):
        (tmp_path / f"checkpoint-{100 * epoch}").mkdir()
        shutil.copy(GOLDEN / f"model_{epoch}.t7", tmp_path / f"checkpoint-{100 * epoch}" / "pytorch_model.bin")
    plot_trajectory.main(["--model", "resnet20", "--checkpoints", f"{tmp_path}/checkpoint-*"])
    file = tmp_path / "PCA_weights_save_epoch=1" / "directions.h5_proj_cos.h5"
    arrays, provenance = read_projection(str(file))
    assert arrays["epoch"].tolist() == [0, 200, 400, 600] and provenance["unit"] == "step"
    assert provenance["model_file"] == f"{tmp_path}/checkpoint-600"
    with h5py.File(file) as f, h5py.File(GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5_proj_cos.h5") as golden:
        assert abs(abs(f["proj_xcoord"][0]) - abs(golden["proj_xcoord"][0])) < 1e-3 * abs(golden["proj_xcoord"][0])
