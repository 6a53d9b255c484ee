"""Laws of the whole program in one process. Several: test_mpi.py. Agreement with the original: test_golden.py."""

import os

import h5py
import numpy as np
import pytest
import torch

import plot_surface
from losslandscape.data.datasets import load_dataset
from losslandscape.files import layouts as h5_util
from losslandscape.measuring import evaluator as evaluation
from losslandscape.networks import loading as model_loader
from losslandscape.preparation import Preparation
from tests.conftest import run

FILTER = ["--xnorm", "filter", "--xignore", "biasbn"]
PLANE = [*FILTER, "--ynorm", "filter", "--yignore", "biasbn"]


@pytest.fixture
def inputs(golden, monkeypatch):
    """The golden checkpoints and the first 60 images, in the working directory."""
    monkeypatch.chdir(golden)
    with np.load("data.npz") as f:
        np.savez("small.npz", **{k: v[:60] for k, v in f.items()})
    return golden


def surface(*flags, file="s.h5", model_file="model_6.t7"):
    plot_surface.main(["--model", "resnet20", "--dataset", "small.npz", "--model_file", model_file,
                       "--surf_file", file, "--batch_size", "32", *flags])
    return h5_util.read_surface(file)


def loss_of(model_file, split="train", loss_name="crossentropy", batch_size=32):
    net = model_loader.load_net("resnet20", model_file)
    return evaluation.eval_loss(net, getattr(load_dataset("small.npz"), split), loss_name, batch_size)


@pytest.mark.parametrize("loss_name", evaluation.LOSSES)
def test_the_centre_is_the_loss_that_training_reports_bit_for_bit(inputs, loss_name):
    found = surface(*PLANE, "--x=-1:1:3", "--y=-1:1:3", "--eval_set", "both", "--loss_name", loss_name)
    for split in ("train", "test"):
        loss, acc = loss_of("model_6.t7", split, loss_name)
        assert found.values[f"{split}_loss"][1, 1] == loss and found.values[f"{split}_acc"][1, 1] == acc


def test_point_1_0_is_the_second_model(inputs):
    found = surface("--model_file2", "model_4.t7", "--dir_type", "states", "--x=0:1:2")
    assert found.values["train_loss"][0] == loss_of("model_6.t7")[0]
    assert found.values["train_loss"][1] == pytest.approx(loss_of("model_4.t7")[0], rel=1e-5)


def test_the_corners_of_a_three_model_plot_are_the_models(inputs):
    state = torch.load("model_4.t7", weights_only=True)
    state["state_dict"]["linear.bias"] += 1
    torch.save(state, "third.t7")
    plot_surface.main(["--model", "resnet20", "--dataset", "small.npz", "--model_file", "model_6.t7",
                       "--dir_type", "states", "--model_file2", "model_4.t7", "--model_file3", "third.t7",
                       "--x=0:1:2", "--y=0:1:2"])
    found = h5_util.read_surface("model_6.t7_model_4.t7_third.t7_states.h5_[0.0,1.0,2]x[0.0,1.0,2]_dataset=small.h5")
    for (y, x), file in {(0, 0): "model_6.t7", (0, 1): "model_4.t7", (1, 0): "third.t7"}.items():
        assert found.values["train_loss"][y, x] == pytest.approx(loss_of(file)[0], rel=1e-5)


def test_rows_are_y_and_columns_are_x(inputs):
    """A point of a non-square grid has the value of the same point of a line along that axis."""
    plane = surface(*PLANE, "--x=-0.5:0.5:3", "--y=-1:1:5")
    line = surface(*PLANE, "--x=-0.5:0.5:3", "--y=0:1:1", file="line.h5")
    assert plane.values["train_loss"].shape == (5, 3)
    np.testing.assert_allclose(plane.values["train_loss"][2], line.values["train_loss"][0], rtol=1e-6)
    assert not np.allclose(plane.values["train_loss"][:, 1], plane.values["train_loss"][2, 1])


def test_a_limit_of_0_is_a_limit(inputs):
    assert surface(*FILTER, "--x=0:1:3").grid.x.tolist() == [0, 0.5, 1]
    assert surface(*PLANE, "--x=-1:0:1", "--y=0:1:2", file="p.h5").grid.y.tolist() == [0, 1]


def test_a_second_run_of_a_finished_surface_computes_nothing(inputs, monkeypatch, capsys):
    surface(*FILTER, "--x=-1:1:3")
    before = os.stat("s.h5").st_mtime_ns, open("s.h5", "rb").read()
    monkeypatch.setattr(Preparation, "set_up", None)  # nothing may be evaluated
    surface(*FILTER, "--x=-1:1:3")
    assert (os.stat("s.h5").st_mtime_ns, open("s.h5", "rb").read()) == before
    assert "all 3 points" in capsys.readouterr().err


def test_zero_loss_and_nan_are_results(inputs):
    """The original computes points of loss <= 0 again at every start, and NaN depends on the MPI library."""
    surface(*FILTER, "--x=-1:1:3")
    old = h5_util.read_surface("s.h5")
    old.values["train_loss"][:] = [0.0, np.nan, np.inf]
    h5_util.write_surface("s.h5", old)
    again = surface(*FILTER, "--x=-1:1:3")
    np.testing.assert_array_equal(again.values["train_loss"], [0.0, np.nan, np.inf])


def test_a_negative_running_variance_is_a_nan_in_the_file(inputs):
    state = torch.load("model_4.t7", weights_only=True)
    state["state_dict"]["bn1.running_var"] *= 100
    torch.save(state, "wide.t7")
    found = surface("--model_file2", "wide.t7", "--dir_type", "states", "--x=-1:0:2")
    assert np.isnan(found.values["train_loss"][0]) and found.computed["train_loss"].all()


def test_resumed_surface_equals_uninterrupted_surface(inputs):
    flags = [*PLANE, "--x=-1:1:3", "--y=-1:1:3"]
    whole = surface(*flags)
    part = h5_util.read_surface("s.h5")
    for name in part.values:
        part.computed[name].flat[[1, 4, 8]] = False
    h5_util.write_surface("part.h5", part)
    with h5py.File("part.h5") as f:
        assert (f["train_loss"][:] == -1).sum() == 3  # for readers without a mask
    resumed = surface(*flags, file="part.h5")
    for name in whole.values:
        np.testing.assert_array_equal(resumed.values[name], whole.values[name])


def test_the_test_set_is_added_to_a_finished_surface_without_computing_the_train_set_again(inputs):
    surface(*FILTER, "--x=-1:1:3")
    old = h5_util.read_surface("s.h5")
    old.values["train_loss"][:] = [7, 8, 9]
    h5_util.write_surface("s.h5", old)
    both = surface(*FILTER, "--x=-1:1:3", "--eval_set", "both")
    assert both.values["train_loss"].tolist() == [7, 8, 9] and both.computed["test_loss"].all()
    assert both.values["test_loss"][1] == loss_of("model_6.t7", "test")[0]


def test_a_resumed_run_takes_the_batch_size_that_the_file_began_with(inputs):
    surface(*FILTER, "--x=-1:1:3")
    old = h5_util.read_surface("s.h5")
    old.computed["train_loss"][1] = False
    h5_util.write_surface("s.h5", old)
    plot_surface.main(["--model", "resnet20", "--dataset", "small.npz", "--model_file", "model_6.t7",
                       "--surf_file", "s.h5", *FILTER, "--x=-1:1:3"])
    assert h5_util.read_surface("s.h5").provenance["batch_size"] == 32


def test_idx_repeats_with_other_directions(inputs):
    plot_surface.main(["--model", "resnet20", "--dataset", "small.npz", "--model_file", "model_6.t7", *FILTER,
                       "--x=-1:1:3", "--idx", "1"])
    name = "model_6.t7_weights_xignore=biasbn_xnorm=filter"
    other = h5_util.read_surface(f"{name}_idx=1.h5_[-1.0,1.0,3]_dataset=small.h5").values["train_loss"]
    first = surface(*FILTER, "--x=-1:1:3").values["train_loss"]
    assert other[1] == pytest.approx(first[1], rel=1e-6) and not np.allclose(other[[0, 2]], first[[0, 2]])


def test_parts_of_the_data_have_files_of_their_own_and_average_to_the_whole(inputs):
    losses = []
    for i in range(2):
        plot_surface.main(["--model", "resnet20", "--dataset", "small.npz", "--model_file", "model_6.t7", *FILTER,
                           "--x=0:1:1", "--data_split", "2", "--split_idx", str(i)])
        directions = "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5"
        name = f"{directions}_[0.0,0.0,1]_datasplit=2_splitidx={i}_dataset=small.h5"
        losses.append(h5_util.read_surface(name).values["train_loss"][0])
    assert losses[0] != losses[1] and np.mean(losses) == pytest.approx(loss_of("model_6.t7")[0], rel=1e-6)


@pytest.mark.parametrize("change, words", [
    (["--loss_name", "mse"], "--loss_name (crossentropy in the file, mse now)"),
    (["--model_file", "model_4.t7"], "contents of --model_file"),
    (["--dataset", "other.npz"], "training data"),
    (["--precision", "bf16"], "--precision"),
    (["--x=-1:1:5"], "expected the grid"),
    (["--y=-1:1:3", "--ynorm", "filter"], "expected the grid"),
    (["--xnorm", "layer"], "contents of the direction file"),
])
def test_a_surface_made_from_something_else_is_refused_and_kept(inputs, change, words):
    surface(*FILTER, "--x=-1:1:3")
    before = open("s.h5", "rb").read()
    with np.load("small.npz") as f:
        np.savez("other.npz", **dict(f) | {"x_train": f["x_train"] + 0.01})
    command = ["--model", "resnet20", "--dataset", "small.npz", "--model_file", "model_6.t7", *FILTER, "--x=-1:1:3",
               "--surf_file", "s.h5", *change]
    with pytest.raises(SystemExit) as ended:
        plot_surface.main(command)
    assert ended.value.code == 2 and open("s.h5", "rb").read() == before


def test_a_changed_checkpoint_makes_the_direction_file_stale(inputs, capsys):
    flags = ["--model", "resnet20", "--dataset", "small.npz", "--model_file", "model_6.t7", *FILTER, "--x=-1:1:3"]
    plot_surface.main(flags)
    os.replace("model_4.t7", "model_6.t7")
    with pytest.raises(SystemExit):
        plot_surface.main(flags)
    assert "contents of --model_file" in capsys.readouterr().err


def test_the_file_says_what_it_was_made_from(inputs):
    made = surface(*FILTER, "--x=-1:1:3").provenance
    assert made["checkpoint"] == model_loader.checkpoint_hash("model_6.t7")
    assert made["model"] == "resnet20" and made["loss"] == "crossentropy" and made["precision"] == "fp32"
    assert {"directions", "train_data", "batch_size", "command", "host", "created", "versions"} <= set(made)


def test_before_the_first_point_one_line_says_how_much_work_there_is(inputs, capsys):
    surface(*FILTER, "--x=-1:1:3")
    line = capsys.readouterr().err.splitlines()[0]
    for part in ("3 points", "60 train images", "1 rank", "cpu", "fp32", "batch 32", "resnet20"):
        assert part in line


def test_plots_are_drawn_when_asked_for(inputs):
    plot_surface.main(["--model", "resnet20", "--dataset", "small.npz", "--model_file", "model_6.t7", *PLANE,
                       "--x=-1:1:3", "--y=-1:1:3", "--plot", "--surf_file", "s.h5"])
    for figure in ("2dcontour", "2dcontourf", "2dheat", "3dsurface"):
        assert os.path.getsize(f"s.h5_train_loss_{figure}.pdf") > 1000
    surface(*FILTER, "--x=-1:1:3", "--plot", file="line.h5")
    assert os.path.getsize("line.h5_1d_loss_acc.pdf") > 1000


def test_the_command_line_needs_nothing_set(golden, surface_arguments):
    done = run(*surface_arguments(golden, *FILTER, "--x=0:1:2"))
    assert done.returncode == 0, done.stderr
    name = "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[0.0,1.0,2]_dataset=data.h5"
    assert f"surface file: {golden / name}" in done.stdout and (golden / name).exists()
