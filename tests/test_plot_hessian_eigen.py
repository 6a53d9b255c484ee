"""Laws of the curvature maps. The library below them: test_hess_vec_prod.py. The walk itself: test_plot_surface.py."""

import copy
import os
from collections import OrderedDict

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import plot_hessian_eigen
import plot_surface
from losslandscape import choices, flatness
from losslandscape import weight_space as net_plotter
from losslandscape.data import datasets as dataloader
from losslandscape.files import layouts as h5_util
from losslandscape.measuring import evaluator as evaluation
from losslandscape.measuring import hessian as hess_vec_prod
from losslandscape.measuring.hessian import EIGENVALUE_NAMES as NAMES
from losslandscape.networks import loading as model_loader
from losslandscape.networks.models import MODELS
from tests.conftest import GOLDEN, refused, run

FILTER = ["--xnorm", "filter", "--xignore", "biasbn"]
PLANE = [*FILTER, "--ynorm", "filter", "--yignore", "biasbn", "--x=-0.2:0.2:3", "--y=-0.1:0.1:2"]


def tiny(num_classes=10):
    """A network of the zoo's kind with 700 parameters."""
    return nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(3, 6, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(6), relu1=nn.ReLU(),
        conv2=nn.Conv2d(6, 6, 3, stride=2, bias=False), bn2=nn.BatchNorm2d(6), relu2=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), linear=nn.Linear(6, num_classes)))


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """In the working directory: tiny.t7, trained for a moment, and 12 images of 8 x 8 pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS, "tiny", tiny)
    small_images("small.npz")
    split = dataloader.load_dataset("small.npz").train
    torch.manual_seed(0)
    net = tiny(10)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        evaluation.crossentropy(net(split.inputs), split.targets).mean().backward()
        optimizer.step()
    torch.save(net.state_dict(), "tiny.t7")
    return tmp_path


def small_images(target, count=12):
    with np.load(GOLDEN / "data.npz") as f:
        np.savez(target, x_train=f["x_train"][:count, :, 8:24:2, 8:24:2], y_train=f["y_train"][:count])


def arguments(*flags, file="s.h5"):
    return ["--model", "tiny", "--dataset", "small.npz", "--model_file", "tiny.t7", "--surf_file", file,
            "--batch_size", "5", *flags]


def hessian(*flags, file="s.h5"):
    plot_hessian_eigen.main(arguments(*flags, file=file))
    return h5_util.read_surface(file)


def test_eigenvalues_agree_with_the_original(golden, monkeypatch):
    """One of their three points. The loss is over 64 samples, which fit into one batch of theirs, not of ours.

    Their tolerance is 1 %. Ours may be looser: eigenvalues are wrong by the square of their residuals, which stops the
    solver after three quarters of the products, and it is the agreement that is tested.
    """
    monkeypatch.chdir(golden)
    with np.load("data.npz") as f:
        np.savez("first.npz", x_train=f["x_train"][:64], y_train=f["y_train"][:64])
    plot_hessian_eigen.main(["--model", "resnet20", "--dataset", "first.npz", "--model_file", "model_6.t7", *FILTER,
                             "--x=0.5:1:1", "--batch_size", "40", "--tol", "0.1", "--surf_file", "s.h5"])
    got = h5_util.read_surface("s.h5")
    expected = h5_util.read_surface(GOLDEN / "hess_1d.h5")
    np.testing.assert_array_equal(got.grid.x, expected.grid.x[2:])
    assert got.values["eig_converged"].all()
    for name in ("max_eig", "min_eig"):
        np.testing.assert_allclose(got.values[name], expected.values[name][2:], rtol=0.02)


def test_along_an_eigenvector_of_a_quadratic_the_curvature_of_the_surface_is_the_eigenvalue(tmp_path, monkeypatch):
    """Squared errors of a linear network: the loss is a quadratic of the weights, the surface along them a parabola."""
    monkeypatch.chdir(tmp_path)

    def squares(logits, targets):
        return (logits - nn.functional.one_hot(targets, 3).to(logits)).square().sum(1)

    monkeypatch.setitem(evaluation.LOSSES, "squares", squares)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    monkeypatch.setattr(choices, "load_net", lambda *_: net.eval())
    torch.save(net.state_dict(), "linear.t7")
    inputs, targets = torch.randn(21, 3, 2, 2), torch.arange(21) % 3
    np.savez("d.npz", x_train=inputs.numpy(), y_train=targets.numpy())
    # d2/dW2 of the mean of |W x - y|^2 = 2 mean(x x^T), once per row of W
    x = dataloader.load_dataset("d.npz").train.inputs.flatten(1).double()  # (21, 12)
    exact, vectors = torch.linalg.eigh(2 * x.T @ x / 21)
    for k in (0, 5, 11):
        direction = [torch.zeros(3, 12), torch.zeros(3)]
        direction[0][1] = vectors[:, k]
        h5_util.write_directions("d.h5", h5_util.Directions([d.numpy() for d in direction]))
        common = ["--model", "resnet20", "--model_file", "linear.t7", "--dataset", "d.npz", "--loss_name", "squares",
                  "--dir_file", "d.h5", "--x=-1:1:5", "--surf_file", f"{k}.h5", "--batch_size", "4"]
        plot_surface.main(common)
        plot_hessian_eigen.main([*common, "--tol", "1e-3"])
        surface = h5_util.read_surface(f"{k}.h5")
        assert flatness.curvature(surface.values["train_loss"], 2, 0.5)[0] == pytest.approx(float(exact[k]), rel=1e-3)
        np.testing.assert_allclose(surface.values["max_eig"], float(exact[-1]), rtol=1e-3)  # the same everywhere
        np.testing.assert_allclose(surface.values["min_eig"], float(exact[0]), rtol=1e-3, atol=1e-5 * float(exact[-1]))


def test_each_point_has_the_eigenvalues_of_the_network_that_stands_there(inputs):
    found = hessian(*PLANE)
    assert found.values["max_eig"].shape == (2, 3) and (found.values["max_eig"] > found.values["min_eig"]).all()
    net = model_loader.load_net("tiny", "tiny.t7")
    plane = net_plotter.WeightPlane(net, h5_util.read_directions(found.dir_file))
    split = dataloader.load_dataset("small.npz").train
    for row, column, x, y in ((0, 2, 0.2, -0.1), (1, 1, 0, 0.1)):
        plane.place(x, y)
        there = hess_vec_prod.Hessian([copy.deepcopy(net).double()], split, batch_size=12)
        exact = hess_vec_prod.lanczos(there, there.start(), tol=1e-4)
        assert found.values["max_eig"][row, column] == pytest.approx(exact.high[0], rel=0.01)
        assert found.values["min_eig"][row, column] == pytest.approx(exact.low[0], rel=0.01)


def test_resumed_equals_uninterrupted(inputs, capsys):
    whole = hessian(*PLANE)
    part = h5_util.read_surface("s.h5")
    for name in NAMES:
        part.computed[name].flat[[0, 3, 4]] = False
    h5_util.write_surface("part.h5", part)
    capsys.readouterr()
    resumed = hessian(*PLANE, file="part.h5")
    assert "3 points (3 done before)" in capsys.readouterr().err
    for name in NAMES:
        np.testing.assert_array_equal(resumed.values[name], whole.values[name])
    hessian(*PLANE)
    assert "all 6 points are in s.h5 already" in capsys.readouterr().err


def test_two_ranks_write_what_one_writes(golden):
    small_images(golden / "small.npz", 6)
    flags = ["--model", "resnet20", "--dataset", golden / "small.npz", "--model_file", golden / "model_6.t7", *FILTER,
             "--x=-0.2:0.2:3", "--batch_size", "4", "--tol", "0.5", "--surf_file"]
    plot_hessian_eigen.main([*map(str, flags), str(golden / "one.h5")])
    done = run("plot_hessian_eigen.py", *flags, golden / "two.h5", ranks=2)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    one, two = (h5_util.read_surface(golden / name) for name in ("one.h5", "two.h5"))
    for name in NAMES:
        np.testing.assert_array_equal(one.values[name], two.values[name])


def test_loss_and_curvature_share_a_file_in_any_order(inputs, capsys):
    """The original's names: one surface file per plane, to which the second program adds its values."""
    flags = [*FILTER, "--x=-0.1:0.1:2"]
    plot_surface.main(arguments(*flags, file="a.h5"))
    both = hessian(*flags, file="a.h5")
    hessian(*flags, file="b.h5")
    plot_surface.main(arguments(*flags, file="b.h5"))
    other = h5_util.read_surface("b.h5")
    assert set(both.values) == {*NAMES, "train_loss", "train_acc"} == set(other.values)
    for name in both.values:
        np.testing.assert_array_equal(both.values[name], other.values[name])
    assert both.provenance["batch_size"] == both.provenance["hessian_batch_size"] == 5
    capsys.readouterr()
    plot_surface.main(arguments(*flags, file="a.h5"))
    assert "all 2 points" in capsys.readouterr().err


def test_the_file_has_the_name_of_the_loss_surface_and_says_what_is_not_default(inputs):
    flags = ["--model", "tiny", "--dataset", "small.npz", "--model_file", "tiny.t7", *FILTER, "--x=0:1:1"]
    stem = "tiny.t7_weights_xignore=biasbn_xnorm=filter.h5_[0.0,0.0,1]_dataset=small"
    values = []
    for more, suffix in (([], ""), (["--params", "all", "--tol", "0.1"], "_params=all_tol=0.1"),
                         (["--loss_name", "mse"], "_loss=mse")):
        plot_hessian_eigen.main([*flags, *more])
        values.append(h5_util.read_surface(f"{stem}{suffix}.h5").values["max_eig"][0])
    assert values[1] > values[0] > 10 * values[2]  # more parameters: a larger maximum; mse is bounded


@pytest.mark.parametrize("change, words", [
    (["--params", "all"], "--params (weights in the file, all now)"),
    (["--tol", "0.5"], "--tol (0.01 in the file, 0.5 now)"),
    (["--loss_name", "mse"], "--loss_name (crossentropy in the file, mse now)"),
])
def test_a_file_made_otherwise_is_refused_and_kept(inputs, change, words, capsys):
    flags = [*FILTER, "--x=0:1:1"]
    hessian(*flags)
    before = open("s.h5", "rb").read()
    with pytest.raises(SystemExit) as ended:
        hessian(*flags, *change)
    assert ended.value.code == 2 and words in capsys.readouterr().err and open("s.h5", "rb").read() == before


def test_figures_are_those_of_the_ratio(inputs, capsys):
    hessian(*FILTER, "--x=-0.1:0.1:2", "--plot")
    hessian(*FILTER, "--x=-0.1:0.1:2", "--y=-0.1:0.1:2", "--same_dir", "--plot", file="p.h5")
    told = capsys.readouterr().out.splitlines()
    names = [line.removeprefix("figure: ") for line in told if line.startswith("figure: ")]
    assert names == ["s.h5_1d_eig_ratio.pdf", "s.h5_1d_eig_abs_ratio.pdf",
                     "p.h5_min_eig_max_eig_abs_ratio_heat_sns.pdf", "p.h5_min_eig_max_eig_ratio_heat_sns.pdf"]
    assert all(os.path.getsize(name) > 1000 for name in names)


def test_a_point_that_did_not_converge_is_marked_and_said(inputs, capsys):
    found = hessian(*FILTER, "--x=-0.1:0.1:2", "--max_products", "2")
    assert not found.values["eig_converged"].any() and (found.values["min_eig_res"] > 0.01).all()
    out = capsys.readouterr().out
    assert "the eigenvalues of 2 of 2 points did not converge" in out
    assert np.isfinite(found.values["max_eig"]).all()


def test_a_point_without_a_finite_loss_is_nan_and_the_others_are_not(inputs, capsys):
    """Beyond model 2 a running variance is negative."""
    state = torch.load("tiny.t7", weights_only=True)
    state["bn1.running_var"] *= 100
    torch.save(state, "wide.t7")
    found = hessian("--model_file2", "wide.t7", "--dir_type", "states", "--x=-1:0:2")
    assert np.isnan(found.values["max_eig"]).tolist() == [True, False] and found.computed["max_eig"].all()
    assert np.isnan(found.values["min_eig_res"][0]) and np.isnan(found.values["eig_converged"][0])
    assert "1 of 2 points" not in capsys.readouterr().out  # not finite is a result, not a failure to converge


def test_trace_and_largest_eigenvalues_are_those_of_the_minimum_printed_and_kept(inputs, capsys):
    flags = [*FILTER, "--x=-0.2:0:2"]
    first = hessian(*flags)
    assert "centre" not in first.provenance
    capsys.readouterr()
    found = hessian(*flags, "--trace", "4", "--topk", "3")
    told = capsys.readouterr().out
    top, trace = found.provenance["centre"]["top_3"], found.provenance["centre"]["trace_samples=4"]
    assert top["converged"] and top["values"] == sorted(top["values"], reverse=True) and len(top["values"]) == 3
    assert top["values"][0] == pytest.approx(first.values["max_eig"][1], rel=0.01)
    assert f"trace of the Hessian at the minimum: {trace['value']:.6g} +- {trace['standard_error']:.2g}" in told
    assert f"minimum: {top['values'][0]:.6g} " in told
    net = model_loader.load_net("tiny", "tiny.t7")
    exact = hess_vec_prod.Hessian([net], dataloader.load_dataset("small.npz").train, batch_size=12)
    value, error = hess_vec_prod.trace(exact, exact.random, 4)
    assert (trace["value"], trace["standard_error"]) == pytest.approx((value, error), rel=1e-3)
    # a second time they are read, not computed; and points are kept
    before = open("s.h5", "rb").read()
    hessian(*flags, "--trace", "4", "--topk", "3")
    assert open("s.h5", "rb").read() == before
    assert capsys.readouterr().out == told
    assert not [name for name in os.listdir() if name.startswith(".")]  # no lock is left


@pytest.mark.parametrize("flags, words", [
    (["--eval_set", "test"], "expected --eval_set train"),
    (["--eval_set", "both"], "expected --eval_set train"),
    (["--precision", "bf16"], "expected --precision fp32 or tf32"),
    (["--params", "bais"], "leave none"),
    (["--tol", "0"], "expected a number above 0"),
    (["--tol", "nan"], "expected a number above 0"),
    (["--trace", "1"], "expected at least 2 samples"),
    (["--topk", "0"], "expected an integer of at least 1"),
    (["--topk", "30", "--max_products", "20"], "--topk of at most"),
    (["--max_products", "1.5"], "expected an integer of at least 1"),
])
def test_flags_that_make_no_sense_are_refused_in_one_line(inputs, flags, words, capsys):
    files = sorted(os.listdir())
    with pytest.raises(SystemExit) as ended:
        hessian(*FILTER, "--x=0:1:1", *flags)
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and words in lines[0]
    assert sorted(os.listdir()) == files


def test_the_command_line_refuses_in_one_line_too(inputs):
    assert refused(run("plot_hessian_eigen.py", *arguments("--precision", "bf16")))


def test_curvature_of_the_original_is_not_taken_over(inputs):
    """Their eigenvalues grow with the number of batches, so values without residuals are computed again."""
    flags = [*FILTER, "--x=-0.1:0.1:2"]
    ours = hessian(*flags)
    with h5py.File("theirs.h5", "w") as f:
        f["xcoordinates"], f["dir_file"] = ours.grid.x, ours.dir_file
        f["max_eig"], f["min_eig"] = [123.0, -1.0], [-5.0, 1.0]
    again = hessian(*flags, file="theirs.h5")
    for name in NAMES:
        np.testing.assert_array_equal(again.values[name], ours.values[name])
