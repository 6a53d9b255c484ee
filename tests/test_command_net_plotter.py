"""Direction files without a surface, and what is in one."""

import argparse
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import net_plotter
import plot_surface
from losslandscape.files.layouts import Directions, read_directions, write_directions
from losslandscape.networks.loading import load_net
from losslandscape.weight_space import Axis, Recipe, seed_everything
from tests.conftest import GOLDEN, refused, run

X = ("--xnorm", "filter", "--xignore", "biasbn")
Y = ("--ynorm", "filter", "--yignore", "biasbn")


def flags(folder, *more):
    return [str(word) for word in ("--model", "resnet20", "--model_file", folder / "model_6.t7", *more)]


def surface_flags(folder, *more):
    return flags(folder, "--dataset", folder / "data.npz", "--batch_size", 40, "--data_split", 4, *more)


def made_in(folder):
    """The direction files of a folder, by name."""
    names = [path for path in folder.glob("*.h5") if "[" not in path.name]
    return {path.name: read_directions(path) for path in names}


@pytest.mark.parametrize("own, grid, common", [
    ((), ["--x=-1:1:1"], X),
    (("--dimensions", 2), ["--x=-1:1:1", "--y=-1:1:1"], X + Y),
    (("--y=-1:1:51",), ["--x=-1:1:1", "--y=-1:1:1"], (*X, *Y, "--dir_type", "states", "--idx", 2)),
    (("--dimensions", 2), ["--x=-1:1:1", "--y=-1:1:1"], (*X, *Y, "--same_dir", "--freeze", "layer1|bn")),
], ids=["line", "plane", "states", "restricted"])
def test_the_file_is_the_one_that_plot_surface_makes(golden, tmp_path, own, grid, common, monkeypatch):
    monkeypatch.chdir(golden)
    net_plotter.main(flags(golden, *own, *common))
    ours = made_in(golden)
    for name in ours:
        (golden / name).unlink()
    plot_surface.main(surface_flags(golden, *grid, *common))
    theirs = made_in(golden)

    assert len(ours) == 1 and ours.keys() == theirs.keys()
    for name, directions in ours.items():
        other = theirs[name]
        assert (directions.y is None) == (other.y is None)
        for a, b in zip(directions.x + (directions.y or []), other.x + (other.y or []), strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for key in ("model", "checkpoint", "dir_type", "params", "freeze"):
            assert directions.provenance.get(key) == other.provenance.get(key)


def test_plot_surface_uses_the_file_without_changing_it(golden, capsys):
    done = run("net_plotter.py", *flags(golden, "--dimensions", 2, *X, *Y))
    assert done.returncode == 0, done.stderr
    file = golden / "model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
    assert f"direction file: {file}\n" in done.stdout and "angle between the axes: 89.78 degrees" in done.stdout
    before = file.read_bytes()
    plot_surface.main(surface_flags(golden, "--x=-1:1:1", "--y=-1:1:1", *X, *Y))
    assert file.read_bytes() == before
    assert f"surface file: {file}_[-1.0,-1.0,1]x[-1.0,-1.0,1]" in capsys.readouterr().out

    # once more: nothing is made again, and another checkpoint under the same name is refused
    done = run("net_plotter.py", *flags(golden, "--dimensions", 2, *X, *Y))
    assert "(it was there before)" in done.stdout and file.read_bytes() == before
    shutil.copy(golden / "model_4.t7", golden / "model_6.t7")
    done = run("net_plotter.py", *flags(golden, "--dimensions", 2, *X, *Y))
    assert refused(done) and "contents of --model_file" in done.stderr


def test_a_direction_towards_a_second_model_and_one_file_for_each_repeat(golden, capsys):
    net_plotter.main(flags(golden, "--model_file2", golden / "model_4.t7"))
    (directions,) = made_in(golden).values()
    start, end = (load_net("resnet20", golden / name) for name in ("model_6.t7", "model_4.t7"))
    for dx, a, b in zip(directions.x, start.parameters(), end.parameters(), strict=True):
        np.testing.assert_array_equal(dx, (b - a).detach().numpy())
    net_plotter.main(flags(golden, *X, "--repeats", 2))
    assert capsys.readouterr().out.count("direction file:") == 3
    assert (golden / "model_6.t7_weights_xignore=biasbn_xnorm=filter_idx=1.h5").exists()


# ---------------------------------------------------------------- what is in a file


def test_norms_are_told_by_number_by_name_and_beside_the_weights(golden, capsys):
    net_plotter.main(flags(golden, "--dimensions", 2, *X, *Y, "--dir_file", golden / "d.h5"))
    capsys.readouterr()
    net_plotter.main([str(golden / "d.h5")])
    plain = capsys.readouterr().out
    assert "direction file: 2 directions" in plain and "|dx|/|w|" not in plain and "made from:" in plain
    first = next(line for line in plain.splitlines() if "16x3x3x3" in line)
    directions = read_directions(golden / "d.h5")
    norms = [f"{np.linalg.norm(axis[0]):.4g}" for axis in (directions.x, directions.y)]
    assert first.split() == ["0", "16x3x3x3", *norms]

    net_plotter.main([str(golden / "d.h5"), "--model", "resnet20"])
    assert "\nconv1.weight " in capsys.readouterr().out
    net_plotter.main([str(golden / "d.h5"), *flags(golden)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    row = next(words for words in lines if words[0] == "conv1.weight")
    assert row[-2:] == ["1", "1"]  # filter-normalized
    row = next(words for words in lines if words[0] == "bn1.bias")
    assert row[-2:] == ["0", "0"]  # biasbn
    (total,) = [words for words in lines if words[0] == "all"]
    assert float(total[3]) == pytest.approx(np.sqrt(sum(np.square(a).sum() for a in directions.x)), rel=1e-3)


def test_files_of_the_original_are_described_and_principal_components_are_orthogonal():
    done = run("net_plotter.py", GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5")
    assert done.returncode == 0 and "angle between the axes: 90 degrees" in done.stdout
    assert "they explain 89.55 %" in done.stdout and "made from: not recorded" in done.stdout


def test_an_axis_of_zeros_has_no_angle_and_the_same_axis_twice_none_between_them(tmp_path, capsys):
    ones = [np.ones((2, 3)), np.ones(2)]
    for name, y in (("same", ones), ("opposite", [-2 * a for a in ones]), ("zero", [0 * a for a in ones])):
        write_directions(tmp_path / f"{name}.h5", Directions(ones, y))
    net_plotter.main([str(tmp_path / f"{name}.h5") for name in ("same", "opposite", "zero")])
    lines = [line for line in capsys.readouterr().out.splitlines() if "angle" in line]
    assert lines == ["angle between the axes: 0 degrees", "angle between the axes: 180 degrees",
                    "no angle between the axes: one of them is zero"]


@pytest.mark.parametrize("words, message", [
    ((), "expected --model_file"),
    (("--model_file", "{0}/model_6.t7", "--ynorm", "filter"), "--dimensions 2"),
    (("--model_file", "{0}/model_6.t7", "--model_file3", "{0}/model_4.t7"), "--model_file3"),
    (("--model_file", "{0}/missing.t7"), "missing.t7"),
    (("{0}/missing.h5",), "found nothing there"),
    (("{0}/data.npz",), "direction file"),
    (("{0}/d.h5", "--model", "vgg9"), "tensors in xdirection"),
])
def test_bad_input_is_one_line_and_exit_code_2(golden, words, message):
    write_directions(golden / "d.h5", Directions([np.ones((2, 3))]))
    done = run("net_plotter.py", *(word.format(golden) for word in words))
    assert refused(done) and message in done.stderr and not list(golden.glob("model_6*.h5"))


def test_two_ranks_make_one_file(golden):
    done = run("net_plotter.py", *flags(golden, *X), ranks=2)
    assert done.returncode == 0 and done.stdout.count("direction file:") == 1, done.stderr


# ---------------------------------------------------------------- for scripts that import the original's names


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_weights_and_states_are_read_moved_and_put_back():
    net = small()
    weights = [w.clone() for w in net_plotter.get_weights(net)]
    states = {name: value.clone() for name, value in net.state_dict().items()}
    x, y = (net_plotter.get_random_weights(weights) for _ in "xy")
    net_plotter.set_weights(net, weights, [x, y], [0.5, -2.0])
    for p, w, dx, dy in zip(net.parameters(), weights, x, y, strict=True):
        torch.testing.assert_close(p.data, w + 0.5 * dx - 2 * dy)
    net_plotter.set_weights(net, weights, [x], 1.0)
    torch.testing.assert_close(net_plotter.get_diff_weights(weights, net_plotter.get_weights(net)), x)
    net_plotter.set_weights(net, weights)
    assert all(torch.equal(p, w) for p, w in zip(net.parameters(), weights, strict=True))

    other = {name: value + 1 for name, value in states.items()}
    net_plotter.set_states(net, states, [net_plotter.get_diff_states(states, other)], 1)
    assert all(torch.equal(value, other[name]) for name, value in net.state_dict().items())
    assert [r.shape for r in net_plotter.get_random_states(states)] == [s.shape for s in states.values()]


def test_directions_are_normalized_in_place_as_new_ones_are():
    net = small()
    weights = net_plotter.get_weights(net)
    torch.manual_seed(5)
    expected = net_plotter.create_random_direction(net, ignore="biasbn", norm="filter")
    torch.manual_seed(5)
    direction = net_plotter.get_random_weights(weights)
    net_plotter.normalize_directions_for_weights(direction, weights, "filter", "biasbn")
    torch.testing.assert_close(direction, expected)

    direction = torch.randn(5)
    net_plotter.normalize_direction(direction, torch.arange(5.0), "filter")
    torch.testing.assert_close(direction.abs(), torch.arange(5.0))
    net_plotter.ignore_biasbn([direction])
    assert not direction.any()


def test_a_script_sets_its_directions_up_with_the_flags_of_the_original(golden):
    args = argparse.Namespace(
        model="resnet20", model_file=str(golden / "model_6.t7"), model_file2="", model_file3="", dir_file="",
        dir_type="weights", x="-1:1:51", y="-1:1:51", xnorm="filter", ynorm="filter", xignore="biasbn",
        yignore="biasbn", same_dir=False, idx=0)
    name = net_plotter.name_direction_file(args)
    filtered = Axis("filter", "biasbn")
    assert name == Recipe(args.model_file, filtered, filtered).file_name()
    seed_everything()
    net = load_net("resnet20", args.model_file)
    net_plotter.setup_direction(args, name, net)
    x, y = net_plotter.load_directions(name)
    assert [t.shape for t in x] == [t.shape for t in y] == [p.shape for p in net.parameters()]
    theirs = read_directions(next(GOLDEN.glob("model_6*_ynorm=filter.h5")))
    for ours, golden_array in zip(x + y, theirs.x + theirs.y, strict=True):
        np.testing.assert_allclose(ours.numpy(), golden_array, rtol=1e-4, atol=1e-6)
