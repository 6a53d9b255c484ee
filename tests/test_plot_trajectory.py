import json
import os
import shutil

import h5py
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch.nn.functional import cross_entropy

import plot_surface
import plot_trajectory
from losslandscape import shadows
from losslandscape.data.datasets import load_dataset
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import (
    read_directions,
    read_projection,
    read_surface,
    write_projection,
    write_surface,
)
from losslandscape.measuring.evaluator import eval_loss
from losslandscape.networks.checkpoints import checkpoint_hash
from losslandscape.networks.loading import load_net
from losslandscape.pictures import animation, epochs, style
from tests import stale_networks
from tests.conftest import GOLDEN, refused, run

THEIRS = GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5"
RANDOM = "model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
EPOCHS = (0, 2, 4, 6)


def arguments(*folders, **more):
    """Flags of a run on the golden checkpoints."""
    flags = {"model": "resnet20", "max_epoch": 6, "save_epoch": 2} | more
    return ["--model_folder", *map(str, folders),
            *(text for name, value in flags.items() for text in (f"--{name}", str(value)))]


def make_run(folder, epochs=EPOCHS):
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in epochs:
        shutil.copy(GOLDEN / f"model_{epoch}.t7", folder)
    return folder


def contents(folder):
    return {os.path.join(root, name): open(os.path.join(root, name), "rb").read()
            for root, _, names in os.walk(folder) for name in names}


def arrays(file):
    return read_projection(str(file))[0]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(folder, finished process) of the real command line with --eval and --animate. Not to be changed."""
    folder = make_run(tmp_path_factory.mktemp("run"))
    shutil.copy(GOLDEN / "data.npz", folder)
    process = run("plot_trajectory.py", *arguments(folder, dataset=folder / "data.npz"), "--eval", "--animate")
    return folder, process


@pytest.fixture
def copy(evaluated, tmp_path):
    """A copy of that folder, to be changed."""
    return shutil.copytree(evaluated[0], tmp_path / "run")


# ---------------------------------------------------------------- files


def test_files_have_the_names_and_contents_of_the_originals(evaluated):
    folder, process = evaluated
    assert process.returncode == 0, process.stderr
    plane = folder / "PCA_weights_save_epoch=2"
    assert sorted(os.listdir(plane)) == [
        "directions.h5", "directions.h5_proj_cos.h5", "directions.h5_proj_cos.h5.gif", "directions.h5_proj_cos.h5.pdf",
        "directions.h5_proj_cos.h5_loss.pdf"]
    found, expected = read_directions(plane / "directions.h5"), read_directions(THEIRS)
    for ours, theirs in ((found.x, expected.x), (found.y, expected.y)):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)  # their sign is that of our rule here
    projected, theirs = arrays(plane / "directions.h5_proj_cos.h5"), arrays(f"{THEIRS}_proj_cos.h5")
    for name in theirs:
        np.testing.assert_allclose(projected[name], theirs[name], atol=1e-5)
    np.testing.assert_array_equal(projected["epoch"], EPOCHS)
    for kind in ("PDF", "GIF"):
        assert (plane / f"directions.h5_proj_cos.h5.{kind.lower()}").read_bytes()[:4].lstrip(b"%")[:3] == kind.encode()


def test_files_say_what_they_were_made_from(evaluated):
    folder, _ = evaluated
    file = folder / "PCA_weights_save_epoch=2" / "directions.h5"
    directions = read_directions(file)
    projected, provenance = read_projection(f"{file}_proj_cos.h5")
    hashes = [checkpoint_hash(folder / f"model_{epoch}.t7") for epoch in EPOCHS]
    for found in (directions.extra, projected):
        assert [bytes(row).hex() for row in found["checkpoint_hash"]] == hashes
    assert directions.provenance["checkpoint"] == provenance["checkpoint"] == hashes[-1]
    evaluation = provenance["evaluation"]
    assert evaluation["dataset"].endswith("data.npz") and evaluation["loss"] == "crossentropy"


@pytest.mark.parametrize(("flags", "name", "count"), [
    ({"dir_type": "states"}, "PCA_states_save_epoch=2", 65 + 21 * 3 - 4),
    ({"ignore": "biasbn"}, "PCA_weights_ignore=biasbn_save_epoch=2", 65),
    ({"dir_type": "states", "ignore": "biasbn"}, "PCA_states_ignore=biasbn_save_epoch=2", None),
    ({"save_epoch": 1, "max_epoch": 300}, "PCA_weights_save_epoch=1", 65),
])
def test_every_kind_of_pca_has_a_folder_of_its_own(tmp_path, flags, name, count):
    plot_trajectory.main(arguments(make_run(tmp_path / "r"), **flags))
    directions = read_directions(tmp_path / "r" / name / "directions.h5")
    net = load_net("resnet20", tmp_path / "r" / "model_6.t7")
    tensors = list(net.parameters() if "states" not in name else net.state_dict().values())
    assert [np.shape(a) for a in directions.x] == [tuple(t.shape) for t in tensors]
    for a, t in zip(directions.x, tensors, strict=True):
        if t.dim() < 2 and "biasbn" in name:
            assert not a.any()
    assert sum((a.astype(float) ** 2).sum() for a in directions.x) == pytest.approx(1, abs=1e-6)
    assert np.isfinite(arrays(tmp_path / "r" / name / "directions.h5_proj_cos.h5")["distance"]).all()


def test_a_rerun_finds_its_files_and_keeps_them(copy, monkeypatch):
    plane = copy / "PCA_weights_save_epoch=2" / "directions.h5"
    before, projected = plane.read_bytes(), arrays(f"{plane}_proj_cos.h5")
    monkeypatch.setattr(shadows, "pca", None)  # not called
    monkeypatch.setattr(shadows.TrainingLoss, "set_up", None)
    plot_trajectory.main([*arguments(copy, dataset=copy / "data.npz"), "--eval"])
    plot_trajectory.main(arguments(copy))  # what was evaluated stays
    assert plane.read_bytes() == before
    after = arrays(f"{plane}_proj_cos.h5")
    assert after.keys() == projected.keys()
    for name in projected:
        np.testing.assert_array_equal(after[name], projected[name])


def test_reruns_elsewhere_give_the_same_plane(evaluated, tmp_path):
    plot_trajectory.main(arguments(make_run(tmp_path / "again")))
    found, expected = (read_directions(folder / "PCA_weights_save_epoch=2" / "directions.h5")
                       for folder in (tmp_path / "again", evaluated[0]))
    for a, b in zip(found.x + found.y, expected.x + expected.y, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_a_plane_of_checkpoints_that_have_changed_is_refused(copy):
    shutil.copy(copy / "model_4.t7", copy / "model_2.t7")
    before = contents(copy)
    with pytest.raises(InputError, match=r"other checkpoints: epoch 2 is changed since; delete it .*--dir_file"):
        plot_trajectory.main(arguments(copy))
    os.remove(copy / "model_2.t7")
    with pytest.raises(InputError, match="epoch 2 is gone"):
        plot_trajectory.main(arguments(copy))
    shutil.copy(copy / "model_4.t7", copy / "model_2.t7")
    shutil.copy(copy / "model_4.t7", copy / "model_8.t7")
    with pytest.raises(InputError, match="other checkpoints"):
        plot_trajectory.main(arguments(copy, max_epoch=8))
    os.remove(copy / "model_8.t7")
    assert contents(copy) == before
    plot_trajectory.main(arguments(copy, dir_file=copy / "PCA_weights_save_epoch=2" / "directions.h5"))


def test_the_plane_and_projection_of_the_original_are_taken_as_they_are(tmp_path):
    folder = make_run(tmp_path / "r")
    plane = shutil.copytree(THEIRS.parent, folder / THEIRS.parent.name) / "directions.h5"
    plot_trajectory.main(arguments(folder))
    assert plane.read_bytes() == THEIRS.read_bytes()
    found, theirs = arrays(f"{plane}_proj_cos.h5"), arrays(f"{THEIRS}_proj_cos.h5")
    for name in theirs:
        np.testing.assert_allclose(found[name], theirs[name], atol=1e-5)
    assert "distance" in found


# ---------------------------------------------------------------- an existing plane


def test_a_path_is_projected_on_a_random_plane(tmp_path):
    folder = make_run(tmp_path / "r")
    shutil.copy(GOLDEN / RANDOM, tmp_path)
    plot_trajectory.main(arguments(folder, dir_file=tmp_path / RANDOM))
    assert (tmp_path / RANDOM).read_bytes() == (GOLDEN / RANDOM).read_bytes()
    assert os.listdir(folder) == os.listdir(make_run(tmp_path / "fresh"))  # no PCA was made
    found = arrays(tmp_path / f"{RANDOM}_proj_cos.h5")
    directions = read_directions(tmp_path / RANDOM)
    axes = np.stack([np.concatenate([a.ravel() for a in axis]) for axis in (directions.x, directions.y)]).astype(float)
    points = np.stack([
        np.concatenate([p.detach().double().numpy().ravel()
                        for p in load_net("resnet20", folder / f"model_{epoch}.t7").parameters()])
        for epoch in EPOCHS])
    expected = np.linalg.lstsq(axes.T, (points - points[-1]).T, rcond=None)[0]
    np.testing.assert_allclose([found["proj_xcoord"], found["proj_ycoord"]], expected, atol=1e-9)
    assert found["relative_distance"][0] > 0.9  # a random plane holds next to nothing of a path


def test_the_projection_of_another_run_is_not_overwritten(tmp_path, capsys):
    shutil.copy(GOLDEN / RANDOM, tmp_path / "plane.h5")
    a, b = make_run(tmp_path / "a", (0, 2)), make_run(tmp_path / "b", (4, 6))
    plot_trajectory.main(arguments(b, dir_file=tmp_path / "plane.h5"))
    before = contents(tmp_path)
    with pytest.raises(InputError, match="holds another path.*--model_folder A B"):
        plot_trajectory.main(arguments(a, dir_file=tmp_path / "plane.h5"))
    assert contents(tmp_path) == before
    make_run(b, (2,))
    plot_trajectory.main(arguments(b, dir_file=tmp_path / "plane.h5"))  # the same run with more checkpoints
    assert len(arrays(tmp_path / "plane.h5_proj_cos.h5")["epoch"]) == 3
    plot_trajectory.main(arguments(b, a, dir_file=tmp_path / "plane.h5"))
    assert {"plane.h5_a_proj_cos.h5", "plane.h5_b_proj_cos.h5"} <= set(os.listdir(tmp_path))


# ---------------------------------------------------------------- the true loss


def test_true_loss_is_that_of_the_checkpoint_and_plane_loss_that_of_its_shadow(evaluated):
    folder, _ = evaluated
    file = folder / "PCA_weights_save_epoch=2" / "directions.h5"
    directions, found = read_directions(file), arrays(f"{file}_proj_cos.h5")
    data = load_dataset(str(folder / "data.npz"), splits=("train",)).train
    for i, epoch in enumerate(EPOCHS):
        net = load_net("resnet20", folder / f"model_{epoch}.t7")
        loss, acc = eval_loss(net, data)
        assert found["true_loss"][i] == pytest.approx(loss, rel=1e-5) and found["true_acc"][i] == pytest.approx(acc)
        shadow = load_net("resnet20", folder / "model_6.t7")
        with torch.no_grad():
            for p, dx, dy in zip(shadow.parameters(), directions.x, directions.y, strict=True):
                p += found["proj_xcoord"][i] * torch.tensor(dx) + found["proj_ycoord"][i] * torch.tensor(dy)
        loss, acc = eval_loss(shadow, data)
        assert found["plane_loss"][i] == pytest.approx(loss, rel=1e-4)
        assert found["plane_acc"][i] == pytest.approx(acc, abs=0.51)
    assert found["true_loss"][-1] == found["plane_loss"][-1]  # the origin lies in the plane
    assert abs(found["true_loss"][0] - found["plane_loss"][0]) > 1  # and epoch 0 does not


def test_an_interrupted_evaluation_goes_on_where_it_was(copy, monkeypatch):
    file = copy / "PCA_weights_save_epoch=2" / "directions.h5_proj_cos.h5"
    whole = arrays(file)
    with h5py.File(file, "r+") as f:
        f["evaluated"][1] = False
        f["true_loss"][1] = f["plane_loss"][1] = np.nan
        f["true_loss"][2] = 0.123  # not what would come out: must survive
    plot_trajectory.main([*arguments(copy, dataset=copy / "data.npz"), "--eval"])
    found = arrays(file)
    assert found["evaluated"].all() and found["true_loss"][2] == 0.123
    np.testing.assert_array_equal(found["true_loss"][[0, 1, 3]], whole["true_loss"][[0, 1, 3]])
    np.testing.assert_array_equal(found["plane_loss"], whole["plane_loss"])


def test_values_over_other_data_or_of_another_loss_are_not_mixed(copy):
    file = copy / "PCA_weights_save_epoch=2" / "directions.h5_proj_cos.h5"
    crossentropy = arrays(file)["true_loss"]
    plot_trajectory.main([*arguments(copy, dataset=copy / "data.npz", loss_name="mse", data_split=4), "--eval"])
    assert (arrays(file)["true_loss"] < 0.2).all() and (crossentropy > 0.2).all()
    with h5py.File(file) as f:
        assert json.loads(f.attrs["provenance"])["evaluation"]["loss"] == "mse"


# ---------------------------------------------------------------- several runs


def test_several_runs_share_one_plane_with_a_file_each(tmp_path):
    a, b = make_run(tmp_path / "runs" / "a"), make_run(tmp_path / "runs" / "deep" / "b", (0, 2, 6))
    state = torch.load(b / "model_2.t7")
    state["state_dict"]["conv1.weight"] += 1
    torch.save(state, b / "model_2.t7")
    process = run("plot_trajectory.py", *arguments(a, b), "--animate")
    assert process.returncode == 0, process.stderr
    plane = tmp_path / "runs" / "PCA_weights_save_epoch=2_joint=a+deep_b"
    assert sorted(name for name in os.listdir(plane) if name.endswith(".h5")) == [
        "directions.h5", "directions.h5_a_proj_cos.h5", "directions.h5_deep_b_proj_cos.h5"]
    one, two = (arrays(plane / f"directions.h5_{name}_proj_cos.h5") for name in ("a", "deep_b"))
    assert one["epoch"].tolist() == [0, 2, 4, 6] and two["epoch"].tolist() == [0, 2, 6]
    for name in ("proj_xcoord", "proj_ycoord", "distance"):
        assert one[name][0] == two[name][0]  # the same checkpoint
        assert one[name][-1] == two[name][-1] == 0
    assert two["proj_xcoord"][1] != one["proj_xcoord"][1]
    frames = list(ImageSequence.Iterator(Image.open(plane / "directions.h5_a_proj_cos.h5.gif")))
    assert len(frames) == 4


def test_names_of_several_runs_stay_within_what_file_systems_allow(tmp_path):
    folders = [make_run(tmp_path / ("r" * 100 + str(i))) for i in range(3)]
    plot_trajectory.main(arguments(*folders))
    assert [name for name in os.listdir(tmp_path) if name.startswith("PCA_weights_save_epoch=2_joint=3-runs-")]


# ---------------------------------------------------------------- figures


def test_the_animation_has_a_frame_per_epoch_and_ends_with_the_whole_path(evaluated):
    folder, _ = evaluated
    image = Image.open(folder / "PCA_weights_save_epoch=2" / "directions.h5_proj_cos.h5.gif")
    frames = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(image)]
    assert len(frames) == len(EPOCHS) and image.info["loop"] == 0
    assert frames[0][2, 2].tolist() == [255, 255, 255]
    red = [int(((f[..., 0] > 150) & (f[..., 1] < 100)).sum()) for f in frames]
    assert red[0] < red[1] < red[2]  # the path grows
    assert os.path.getsize(image.filename) < 100_000


def test_long_paths_get_a_limited_number_of_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "MAX_FRAMES", 5)
    t = np.linspace(0, 1, 40)
    file = str(tmp_path / "p.h5")
    write_projection(file, {"proj_xcoord": t, "proj_ycoord": t**2}, {})  # as the original writes them
    (written,) = animation.animate([file], "")
    assert Image.open(written).n_frames == 5


def test_the_path_is_drawn_over_a_surface_of_its_plane_only(copy, capsys):
    plane = copy / "PCA_weights_save_epoch=2" / "directions.h5"
    found = read_projection(f"{plane}_proj_cos.h5")
    x, y = np.linspace(-6, 1, 8), np.linspace(-1, 2, 7)
    loss = (x**2 + y[:, None] ** 2) / 10 + 0.3  # (ny, nx)

    def write(name, provenance):
        surface = Surface(Grid(x, y), {"train_loss": loss}, {"train_loss": loss > 0}, "", provenance)
        write_surface(copy / name, surface)
        return ["--surf_file", str(copy / name), "--animate"]

    below = {key: found[1][key] for key in ("directions", "checkpoint")}
    plot_trajectory.main([*arguments(copy), *write("below.h5", below | {"train_data": "other"})])
    streams = capsys.readouterr()
    for ending in ("pdf", "gif"):
        assert os.path.exists(f"{plane}_proj_cos.h5_train_loss_2dcontour_proj.{ending}")
        assert f"_2dcontour_proj.{ending}" in streams.out
    assert "of other train_data than" in streams.err
    with pytest.raises(InputError, match="contents of the direction file"):
        plot_trajectory.main([*arguments(copy), *write("beside.h5", below | {"directions": "0" * 64})])


@pytest.mark.parametrize("fmt, start", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_all_figures_have_the_format_that_was_asked_for(fmt, start, copy, capsys):
    surface = Grid.parse("-6:1:8", "-3:3:7")
    values = {"train_loss": np.add.outer(surface.y**2, surface.x**2)}
    write_surface(str(copy / "s.h5"), Surface(surface, values, {"train_loss": np.ones((7, 8), bool)}))
    plot_trajectory.main([*arguments(copy), "--surf_file", str(copy / "s.h5"), "--format", fmt])
    made = [line.removeprefix("figure: ") for line in capsys.readouterr().out.splitlines() if "figure: " in line]
    assert len(made) == 3 and all(path.endswith(f".{fmt}") for path in made)
    assert all(open(path, "rb").read().startswith(start) for path in made)


def test_a_checkpoint_that_was_not_evaluated_has_no_loss_in_the_figure(copy, monkeypatch):
    file = copy / "PCA_weights_save_epoch=2" / "directions.h5_proj_cos.h5"
    with h5py.File(file, "r+") as f:
        f["evaluated"][1] = False
        f["true_loss"][1] = f["plane_loss"][1] = np.nan
        f["plane_loss"][2] = np.inf
    drawn = {}
    monkeypatch.setattr(epochs, "draw_against_epoch",
                        lambda ax, x, values, name, *_: drawn.update({name: (x, values)}) or values[:0])
    epochs.plot_against_epoch([str(file)])
    assert {name: x.tolist() for name, (x, _) in drawn.items()} == {
        "true_loss": [0, 4, 6], "plane_loss": [0, 4, 6], "distance": [0, 2, 4, 6], "distance_to_origin": [0, 2, 4, 6]}
    assert np.isinf(drawn["plane_loss"][1][1])


def test_a_loss_that_is_nan_is_marked_and_said(copy, capsys):
    file = copy / "PCA_weights_save_epoch=2" / "directions.h5_proj_cos.h5"
    with h5py.File(file, "r+") as f:
        f["plane_loss"][0] = np.nan
    plot_trajectory.main([*arguments(copy), "--animate"])
    out = capsys.readouterr().out
    assert "1 of 4 losses are NaN or inf" in out and "differ most at epoch" in out


@pytest.mark.parametrize("flag", ["--labels", "--label"])
def test_runs_are_called_in_the_legend_what_the_user_calls_them(flag, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(style, "save_figure", lambda figure, path: drawn.update({path: figure}))
    folders = [make_run(tmp_path / name) for name in "ab"]
    plot_trajectory.main([*arguments(*folders), flag, "batch 128", "batch 8192"])
    assert len(drawn) == 2
    for figure in drawn.values():
        texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert {"batch 128", "batch 8192"} <= set(texts)


# ---------------------------------------------------------------- plot_surface.py around a path


def surface_of(folder, *flags):
    """The surface file that plot_surface.py sets up, its points not computed."""
    plot_surface.main(["--model", "resnet20", "--dataset", str(folder / "data.npz"),
                       "--model_file", str(folder / "model_6.t7"), *flags])
    (file,) = (folder / "PCA_weights_save_epoch=2").glob("*_dataset=data.h5")
    return file, read_surface(file)


def test_a_surface_in_a_pca_plane_contains_the_path(copy, monkeypatch, capsys):
    monkeypatch.setattr("losslandscape.run.walk_over", lambda *_: None)
    plane = copy / "PCA_weights_save_epoch=2" / "directions.h5"
    file, surface = surface_of(copy, "--dir_file", str(plane))
    found = arrays(f"{plane}_proj_cos.h5")
    for axis, name in ((surface.grid.x, "proj_xcoord"), (surface.grid.y, "proj_ycoord")):
        margin = 0.05 * np.ptp(found[name])
        assert axis[0] < found[name].min() - margin and found[name].max() + margin < axis[-1]
        assert 30 <= len(axis) <= 51 and np.abs(axis).min() < 1e-9  # the origin is a point of the grid
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("grid around the path")]
    assert len(lines) == 1 and "--x=" in lines[0] and "--y=" in lines[0]


@pytest.mark.parametrize(("flags", "shape"), [(["--x=-1:1:5"], (5,)), (["--x=-1:1:5", "--y=0:1:3"], (3, 5)),
                                              (["--y=0:1:3"], (3, 51))])
def test_a_grid_that_is_given_is_taken(copy, monkeypatch, flags, shape):
    monkeypatch.setattr("losslandscape.run.walk_over", lambda *_: None)
    _, surface = surface_of(copy, "--dir_file", str(copy / "PCA_weights_save_epoch=2" / "directions.h5"), *flags)
    assert surface.grid.shape == shape


def test_a_surface_at_another_network_than_the_paths_origin_is_refused(copy):
    before = contents(copy)
    process = run("plot_surface.py", "--model", "resnet20", "--dataset", copy / "data.npz", "--model_file",
                  copy / "model_4.t7", "--dir_file", copy / "PCA_weights_save_epoch=2" / "directions.h5")
    assert refused(process) and "expected the --model_file that the path in" in process.stderr
    assert "model_6.t7" in process.stderr and contents(copy) == before


# ---------------------------------------------------------------- what can't be used


def no_folder(folder):
    return ["--model", "resnet20"], "expected --model_folder"


def missing_folder(folder):
    return arguments(folder / "nowhere"), "expected the folder of a training run"


def empty_folder(folder):
    (folder / "empty").mkdir()
    return arguments(folder / "empty"), "expected checkpoints model_E.t7"


def other_suffix(folder):
    return arguments(folder, suffix=".pth"), "--prefix, --suffix"


def reversed_range(folder):
    return arguments(folder, start_epoch=7), "--start_epoch up to --max_epoch"


def one_checkpoint(folder):
    return arguments(folder, start_epoch=6), "at least 3 checkpoints"


def other_network(folder):
    return arguments(folder, model="resnet56"), "give --model resnet20"


def unknown_model(folder):
    return arguments(folder, model="resnet21"), "near: .*resnet20"


def corrupt_checkpoint(folder):
    (folder / "model_2.t7").write_bytes(b"PK\x03\x04 no more")
    return arguments(folder), "model_2.t7"


def folder_in_the_way(folder):
    (folder / "PCA_weights_save_epoch=2").touch()
    return arguments(folder), "found a file; move it away"


def missing_plane(folder):
    return arguments(folder, dir_file=folder / "d.h5"), "expected a direction file"


def no_plane(folder):
    return arguments(folder, dir_file=folder / "model_6.t7"), "can't be read"


def other_plane(folder):
    return arguments(folder, dir_type="states", dir_file=THEIRS), "--dir_type"


def twice(folder):
    return arguments(folder, f"{folder}/"), "different folders"


def another_number_of_labels(folder):
    return [*arguments(folder), "--labels", "a", "b"], "one of --labels per run, got 2 for 1"


def no_data(folder):
    return [*arguments(folder, dataset=folder / "no.npz"), "--eval"], "no.npz"


def other_labels(folder):
    np.savez(folder.parent / "d.npz", x_train=np.zeros((8, 3, 32, 32), np.float32), y_train=np.arange(8) + 5)
    return [*arguments(folder, dataset=folder.parent / "d.npz"), "--eval"], "labels below 10"


def no_surface(folder):
    return arguments(folder, surf_file=folder / "no.h5"), "surface file"


BAD = (no_folder, missing_folder, empty_folder, other_suffix, reversed_range, one_checkpoint, other_network,
       unknown_model, corrupt_checkpoint, folder_in_the_way, missing_plane, no_plane, other_plane, twice,
       another_number_of_labels, no_data, other_labels, no_surface)


@pytest.mark.parametrize("make", BAD)
def test_what_cant_be_used_is_refused_before_any_file_is_written(tmp_path, make):
    flags, message = make(make_run(tmp_path / "r"))
    before = contents(tmp_path)
    with pytest.raises(InputError, match=message):
        plot_trajectory.main(flags)
    assert contents(tmp_path) == before and not (tmp_path / "r" / "PCA_weights_save_epoch=2").is_dir()


def test_bad_input_is_one_line_and_exit_code_2(tmp_path):
    flags, message = corrupt_checkpoint(make_run(tmp_path / "r"))
    process = run("plot_trajectory.py", *flags)
    assert refused(process) and message in process.stderr


@pytest.mark.parametrize("kind", [stale_networks.Cache, stale_networks.NamedParameters])
def test_losses_are_the_networks_own_or_refused(tmp_path, kind):
    """One network takes on the weights of all checkpoints: what it keeps would be another's."""
    torch.manual_seed(0)
    net = kind()
    for epoch in range(3):
        torch.save(net.state_dict(), tmp_path / f"model_{epoch}.t7")
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
    images, labels = torch.randn(12, 3, 8, 8), torch.arange(12) % 4
    np.savez(tmp_path / "data.npz", x_train=images.numpy(), y_train=labels.numpy())
    flags = ["--model", f"{stale_networks.__file__}:{kind.__name__}", "--model_folder", str(tmp_path),
             "--max_epoch", "2", "--dataset", str(tmp_path / "data.npz"), "--eval"]

    if kind is stale_networks.Cache:
        with pytest.raises(InputError, match="keeps something from one pass to the next"):
            plot_trajectory.main(flags)
        return
    plot_trajectory.main(flags)
    values = arrays(tmp_path / "PCA_weights_save_epoch=1" / "directions.h5_proj_cos.h5")
    for epoch, loss in enumerate(values["true_loss"]):
        fresh = kind().eval()
        fresh.load_state_dict(torch.load(tmp_path / f"model_{epoch}.t7"))
        with torch.no_grad():
            assert loss == pytest.approx(cross_entropy(fresh(images), labels).item(), rel=1e-5)
