import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from losslandscape import trajectory
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid
from losslandscape.files.layouts import Directions, read_directions, read_projection
from losslandscape.networks.loading import load_net
from losslandscape.training_runs import find_checkpoints
from losslandscape.weight_space import create_target_direction
from tests.conftest import GOLDEN, ROOT

THEIRS = GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5"


class Tiny(nn.Module):
    """Everything that a state dict can hold: weights, biases, running statistics, counters, a number."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.fc = nn.Linear(7, 3)


def save_run(folder, count, seed=0, net=Tiny, change=lambda state, epoch: state, **how):
    """`count` checkpoints of a random walk in `folder`; the (count, size) float64 points of that walk, per tensor."""
    torch.manual_seed(seed)
    state = {k: v.clone() for k, v in net().state_dict().items()}
    os.makedirs(folder, exist_ok=True)
    states = []
    for epoch in range(count):
        state = {k: v + torch.randn(v.shape) if v.is_floating_point() else v + 1000 for k, v in state.items()}
        states.append(change(dict(state), epoch))
        torch.save({"epoch": epoch, "state_dict": states[-1]}, os.path.join(folder, f"model_{epoch}.t7"), **how)
    return states


def path_of(folder, dir_type="weights", net=Tiny, **which):
    """Path of a run of a network that is not one of --model's."""
    run = find_checkpoints(str(folder), **which)
    with torch.device("meta"):
        empty = net()
    n = len(run.files)
    return trajectory.OptimizerPath(
        run.files, np.array(run.epochs), np.zeros(n, int), n - 1, empty, dir_type, np.zeros((n, 32), np.uint8))


def dense(states, names):
    """(n, size) float64: the named tensors of each state, as one row."""
    return np.stack([np.concatenate([state[name].double().numpy().ravel() for name in names]) for state in states])


def flat(axis):
    return np.concatenate([np.asarray(a, float).ravel() for a in axis])


PARAMETERS = [name for name, _ in Tiny().named_parameters()]


def golden_path(dir_type="weights", **which):
    run = find_checkpoints(str(GOLDEN), **{"max_epoch": 6, "save_epoch": 2} | which)
    return trajectory.open_path([run], "resnet20", dir_type)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.last = nn.Linear(4, 4)
        self.last.weight = self.first.weight


@pytest.mark.parametrize("dropped", ["first.weight", "last.weight"])
def test_a_tied_tensor_may_stand_in_the_files_under_one_name(dropped, tmp_path):
    def drop(state, _):
        state.pop(dropped)
        return state

    save_run(tmp_path, 3, net=Tied, change=drop)
    for dir_type in ("weights", "states"):
        path = path_of(tmp_path, dir_type, Tied)
        state = path.read(0)
        assert set(path.names) <= set(state) and torch.equal(state["first.weight"], state["last.weight"])


# ---------------------------------------------------------------- which checkpoints


@pytest.mark.parametrize(("which", "epochs"), [
    ({}, (0, 2, 3, 10, 11)),
    ({"max_epoch": 10}, (0, 2, 3, 10)),
    ({"start_epoch": 1, "max_epoch": 10}, (2, 3, 10)),
    ({"save_epoch": 2}, (0, 2, 10, 11)),  # the last one is the origin, so it is always there
    ({"save_epoch": 5, "max_epoch": 12}, (0, 10, 11)),
    ({"max_epoch": 9, "save_epoch": 4}, (0, 3)),
])
def test_the_checkpoints_that_exist_in_range_are_taken_in_epoch_order(tmp_path, which, epochs):
    for epoch in (0, 2, 3, 10, 11, 400):
        (tmp_path / f"model_{epoch}.t7").touch()
    for other in ("opt_state_4.t7", "model_5.pth", "model_best.t7", "model_6xt7"):
        (tmp_path / other).touch()
    run = find_checkpoints(str(tmp_path), **which)
    assert run.epochs == epochs
    assert [os.path.basename(file) for file in run.files] == [f"model_{epoch}.t7" for epoch in epochs]


def test_a_folder_without_checkpoints_is_refused_with_what_there_is(tmp_path):
    (tmp_path / "net_3.pth").touch()
    with pytest.raises(InputError, match=r"expected checkpoints model_E.t7 .*net_3.pth.*--prefix"):
        find_checkpoints(str(tmp_path))
    assert find_checkpoints(str(tmp_path), "net_", ".pth").epochs == (3,)
    with pytest.raises(InputError, match="expected the folder"):
        find_checkpoints(str(tmp_path / "nowhere"))


def test_two_files_of_one_epoch_are_refused(tmp_path):
    (tmp_path / "model_3.t7").touch()
    (tmp_path / "model_003.t7").touch()
    with pytest.raises(InputError, match="one checkpoint of epoch 3"):
        find_checkpoints(str(tmp_path))


# ---------------------------------------------------------------- PCA


def test_pca_is_that_of_the_original():
    found, expected = trajectory.pca(golden_path()), read_directions(THEIRS)
    for ours, theirs in ((found.x, expected.x), (found.y, expected.y)):
        sign = np.sign(flat(ours) @ flat(theirs))
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype
            np.testing.assert_allclose(sign * a, b, atol=1e-5)
    for name, values in expected.extra.items():
        np.testing.assert_allclose(found.extra[name], values, rtol=1e-5)


@pytest.mark.parametrize("at_once", [30, 500, 10**9])
@pytest.mark.parametrize(("dir_type", "ignore"), [("weights", ""), ("weights", "biasbn"), ("states", "")])
def test_pca_equals_that_of_the_dense_matrix(tmp_path, monkeypatch, at_once, dir_type, ignore):
    """However few values are held at a time."""
    monkeypatch.setattr(trajectory, "VALUES_HELD", at_once)
    states = save_run(tmp_path, 6)
    names = PARAMETERS if dir_type == "weights" else list(Tiny().state_dict())
    counted = [n for n in names if states[0][n].is_floating_point() and (states[0][n].dim() > 1 or not ignore)]
    rows = dense(states, counted)
    oracle = PCA(n_components=2).fit(rows - rows[-1])
    found = trajectory.pca(path_of(tmp_path, dir_type), ignore)
    for name in ("explained_variance_ratio_", "explained_variance_", "singular_values_"):
        np.testing.assert_allclose(found.extra[name], getattr(oracle, name), rtol=1e-6)
    for axis, expected in zip((found.x, found.y), oracle.components_, strict=True):
        assert [a.shape for a in axis] == [tuple(states[0][name].shape) for name in names]
        ours = np.concatenate([a.ravel() for name, a in zip(names, axis, strict=True) if name in counted])
        np.testing.assert_allclose(ours * np.sign(ours @ expected), expected, atol=1e-6)
        for name, a in zip(names, axis, strict=True):
            assert name in counted or not a.any()


def test_sign_is_fixed_by_the_farthest_checkpoint(tmp_path):
    """Along x it lies to the left of the origin, along y above it."""
    for seed in range(8):
        save_run(tmp_path / str(seed), 5, seed)
        path = path_of(tmp_path / str(seed))
        found = trajectory.project(path, trajectory.pca(path))
        x, y = found["proj_xcoord"], found["proj_ycoord"]
        assert x[np.abs(x).argmax()] < 0 < y[np.abs(y).argmax()]


def test_counters_do_not_count(tmp_path):
    """num_batches_tracked goes into the 100 000s; a PCA of the states would see nothing else."""

    def more_batches(state, epoch):
        return state | {"norm.num_batches_tracked": torch.tensor(10**5 * epoch**2)}

    save_run(tmp_path / "a", 5)
    save_run(tmp_path / "b", 5, change=more_batches)
    found = [trajectory.pca(path_of(tmp_path / name, "states")) for name in "ab"]
    np.testing.assert_array_equal(flat(found[0].x), flat(found[1].x))
    distances = [trajectory.project(path_of(tmp_path / name, "states"), found[0])["distance"] for name in "ab"]
    np.testing.assert_array_equal(*distances)


def _legacy(folder):
    save_run(folder, 5, _use_new_zipfile_serialization=False)


def _channels_last(folder):
    save_run(folder, 5, change=lambda state, epoch: state | {
        "conv.weight": state["conv.weight"].contiguous(memory_format=torch.channels_last)})


def _data_parallel(folder):
    save_run(folder, 5, change=lambda state, epoch: {f"module.{k}": v for k, v in state.items()})


def _double(folder):
    save_run(folder, 5, change=lambda state, epoch: {k: v.double() if v.is_floating_point() else v
                                                     for k, v in state.items()})


@pytest.mark.parametrize("save", [_legacy, _channels_last, _data_parallel, _double])
def test_the_form_of_the_files_makes_no_difference(tmp_path, save):
    save_run(tmp_path / "plain", 5)
    save(tmp_path / "other")
    paths = [path_of(tmp_path / name) for name in ("plain", "other")]
    planes = [trajectory.pca(path) for path in paths]
    np.testing.assert_array_equal(flat(planes[0].x), flat(planes[1].x))
    for name, values in trajectory.project(paths[0], planes[0]).items():
        np.testing.assert_array_equal(trajectory.project(paths[1], planes[0])[name], values)


def test_half_precision_checkpoints_are_projected(tmp_path):
    states = save_run(tmp_path, 5, change=lambda state, epoch: {k: v.half() if v.is_floating_point() else v
                                                                for k, v in state.items()})
    path = path_of(tmp_path)
    expected = np.linalg.norm(dense(states, PARAMETERS) - dense(states, PARAMETERS)[-1], axis=1)
    found = trajectory.project(path, trajectory.pca(path))
    np.testing.assert_allclose(found["distance_to_origin"], expected, rtol=1e-12)


def test_fewer_than_three_checkpoints_or_points_on_a_line_span_no_plane(tmp_path):
    save_run(tmp_path, 3)
    with pytest.raises(InputError, match="at least 3 checkpoints.*found 1 .*model_0.t7"):
        trajectory.pca(path_of(tmp_path, max_epoch=0))
    with pytest.raises(InputError, match="at least 3 checkpoints.*found 2"):
        trajectory.pca(path_of(tmp_path, max_epoch=1))
    ends = [torch.load(tmp_path / f"model_{i}.t7")["state_dict"] for i in (0, 1)]
    for i in range(4):
        line = {k: v if not v.is_floating_point() else (v + 2.0**i * (ends[1][k] - v)) for k, v in ends[0].items()}
        torch.save(line, tmp_path / f"model_{i}.t7")
    with pytest.raises(InputError, match="lie on a line"):
        trajectory.pca(path_of(tmp_path))
    for i in range(4):
        torch.save(ends[0], tmp_path / f"model_{i}.t7")
    with pytest.raises(InputError, match="all the same"):
        trajectory.pca(path_of(tmp_path))


# ---------------------------------------------------------------- projection


def test_projection_is_that_of_the_original():
    expected, _ = read_projection(f"{THEIRS}_proj_cos.h5")
    found = trajectory.project(golden_path(), read_directions(THEIRS))
    for name in ("proj_xcoord", "proj_ycoord"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_coordinates_are_least_squares_on_axes_of_any_length_and_angle(tmp_path):
    states = save_run(tmp_path, 6)
    path = path_of(tmp_path)
    rng = np.random.default_rng(0)
    shapes = [tuple(states[0][name].shape) for name in PARAMETERS]
    x = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    y = [3 * a + 0.5 * rng.normal(size=a.shape).astype(np.float32) for a in x]
    axes = np.stack([flat(x), flat(y)])
    rows = dense(states, PARAMETERS) - dense(states, PARAMETERS)[-1]
    expected = np.linalg.lstsq(axes.T, rows.T, rcond=None)[0].T  # (n, 2)
    found = trajectory.project(path, Directions(x, y))
    np.testing.assert_allclose(found["proj_xcoord"], expected[:, 0], atol=1e-9)
    np.testing.assert_allclose(found["proj_ycoord"], expected[:, 1], atol=1e-9)
    left = np.linalg.norm(rows - expected @ axes, axis=1)
    np.testing.assert_allclose(found["distance"], left, atol=1e-9)
    np.testing.assert_allclose(found["distance_to_origin"], np.linalg.norm(rows, axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["relative_distance"][:-1], left[:-1] / np.linalg.norm(rows, axis=1)[:-1])
    assert all(found[name][-1] == 0 for name in found)  # the origin, exactly


def test_a_checkpoint_of_the_plane_has_its_coordinates_and_no_distance(tmp_path):
    origin = save_run(tmp_path, 1)[0]
    axes = [[np.random.default_rng(i).normal(size=origin[name].shape) for name in PARAMETERS] for i in (1, 2)]
    for epoch, (x, y) in enumerate([(2, -3), (0.25, 0), (0, 1e-4), (0, 0)]):
        moved = {name: origin[name].double() + x * torch.tensor(dx) + y * torch.tensor(dy)
                 for name, dx, dy in zip(PARAMETERS, *axes, strict=True)}
        torch.save(origin | moved, tmp_path / f"model_{epoch}.t7")
    found = trajectory.project(path_of(tmp_path), Directions(*axes))
    np.testing.assert_allclose(found["proj_xcoord"], [2, 0.25, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found["proj_ycoord"], [-3, 0, 1e-4, 0], atol=1e-12)
    assert found["distance"].max() < 1e-12


def test_the_last_checkpoint_of_the_first_run_is_the_origin_of_all(tmp_path):
    states = save_run(tmp_path / "a", 3) + save_run(tmp_path / "b", 4, seed=1)
    paths = [path_of(tmp_path / name) for name in "ab"]
    both = trajectory.OptimizerPath(
        paths[0].files + paths[1].files, np.arange(7), np.array([0] * 3 + [1] * 4), 2, paths[0].net, "weights",
        np.zeros((7, 32), np.uint8))
    rows = dense(states, PARAMETERS)
    oracle = PCA(n_components=2).fit(rows)
    found = trajectory.pca(both)
    assert abs(flat(found.x) @ oracle.components_[0]) == pytest.approx(1, abs=1e-6)
    projected = trajectory.project(both, found)
    expected = (rows - rows[2]) @ np.stack([flat(found.x), flat(found.y)]).T
    np.testing.assert_allclose(projected["proj_xcoord"], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(projected["proj_ycoord"], expected[:, 1], atol=1e-5)


def test_parallel_axes_are_refused():
    path, directions = golden_path(), read_directions(THEIRS)
    for y in (directions.x, [-2 * a for a in directions.x], [0 * a for a in directions.x]):
        with pytest.raises(InputError, match="not parallel"):
            trajectory.project(path, Directions(directions.x, y))


def test_directions_of_other_tensors_or_with_one_axis_are_refused():
    directions = read_directions(THEIRS)
    with pytest.raises(InputError, match="--dir_type"):
        trajectory.check_directions("d.h5", directions, golden_path("states"))
    with pytest.raises(InputError, match="found x only"):
        trajectory.check_directions("d.h5", Directions(directions.x), golden_path())


# ---------------------------------------------------------------- bad checkpoints


def test_a_bad_checkpoint_among_many_is_named(golden):
    good = (golden / "model_4.t7").read_bytes()
    for epoch in range(5):
        (golden / f"model_{epoch}.t7").write_bytes(good)

    def opened():
        return trajectory.open_path([find_checkpoints(str(golden))], "resnet20")

    opened()
    (golden / "model_3.t7").write_bytes(good[:-5000])
    with pytest.raises(InputError, match=r"model_3\.t7"):
        opened()
    state = torch.load(golden / "model_4.t7")
    state["state_dict"]["linear.weight"] = torch.zeros(10, 65)
    torch.save(state, golden / "model_3.t7")
    with pytest.raises(InputError, match=r"weights of resnet20 in .*model_3\.t7"):
        opened()
    state["state_dict"]["linear.weight"] = torch.full((10, 64), float("nan"))
    torch.save(state, golden / "model_3.t7")
    for use in (trajectory.pca, lambda path: trajectory.project(path, read_directions(THEIRS))):
        with pytest.raises(InputError, match=r"finite weights in .*model_3\.t7"):
            use(opened())


# ---------------------------------------------------------------- memory


def test_a_few_checkpoints_are_open_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(trajectory, "VALUES_HELD", 200)
    save_run(tmp_path, 30)
    alive, most = [0], [0]
    read = trajectory.read_checkpoint

    def let_go():
        alive[0] -= 1

    def counted(*args, **kwargs):
        checkpoint = read(*args, **kwargs)
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        weakref.finalize(checkpoint.state_dict["conv.weight"], let_go)
        return checkpoint

    monkeypatch.setattr(trajectory, "read_checkpoint", counted)
    path = path_of(tmp_path)
    trajectory.project(path, trajectory.pca(path))
    assert 1 <= most[0] <= 3  # the origin, the one at hand, and the next before that is let go


MEASURE = """
import resource, sys
sys.path.insert(0, {root!r})
import torch
from torch import nn
from losslandscape import trajectory
from tests.test_trajectory import path_of
net = lambda: nn.Sequential(*[nn.Linear(500, 500) for _ in range(4)])
trajectory.VALUES_HELD = 2**22
for last in (3, 39):
    path = path_of({folder!r}, net=net, max_epoch=last)
    trajectory.project(path, trajectory.pca(path))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_checkpoints(tmp_path):
    """1 million parameters, 4 MB a file: 4 checkpoints take about what 40 take, which are 160 MB."""
    save_run(tmp_path, 4, net=lambda: nn.Sequential(*[nn.Linear(500, 500) for _ in range(4)]))
    for epoch in range(4, 40):
        os.link(tmp_path / f"model_{epoch % 4}.t7", tmp_path / f"model_{epoch}.t7")
    script = MEASURE.format(root=str(ROOT), folder=str(tmp_path))
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    few, many = map(int, process.stdout.split())
    assert many - few < 80  # MB


def test_parts_are_all_of_the_tensors_once(tmp_path):
    save_run(tmp_path, 3)
    path = path_of(tmp_path, "states")
    state = path.read(0)
    for columns in (1, 7, 40, 10**6):
        seen = {}
        for part in trajectory.parts_of(path.tensors, columns):
            for name, first, last in part:
                assert seen.get(name, 0) == first
                seen[name] = last
            widest = max(state[name].numel() // max(last - first, 1) for name, first, last in part)
            assert len(trajectory.read_part(state, part)) <= max(columns, 1) + widest
        assert seen == {name: len(t) if t.dim() else 1 for name, t in path.tensors.items()}


# ---------------------------------------------------------------- the grid of a path


@pytest.mark.parametrize("box", [(-5.2, 0), (-0.3, 1.7), (-1e-4, 3e-4), (-123.4, 567.8), (0, 1), (-7, -0.01)])
def test_limits_contain_the_path_and_have_the_origin_among_their_points(box):
    grid = Grid.parse(trajectory.limits_around(*box))
    assert grid.x[0] <= box[0] and grid.x[-1] >= box[1]
    assert 38 <= len(grid.x) <= 51
    steps = grid.x / (grid.x[1] - grid.x[0])  # multiples of the step, so 0 is one of them where the box reaches it
    np.testing.assert_allclose(steps, steps.round(), atol=1e-6)
    assert len(trajectory.limits_around(*box)) < 25


def test_a_plane_of_states_moves_the_network_to_the_checkpoint():
    """From model to model along the states: the end of the direction is the other checkpoint, at x = 1."""
    path = golden_path("states", start_epoch=4)
    nets = [load_net("resnet20", file) for file in path.files]
    towards = [d.numpy() for d in create_target_direction(nets[1], nets[0], "states")]
    across = [np.random.default_rng(i).normal(size=np.shape(d)) for i, d in enumerate(towards)]
    found = trajectory.project(path, Directions(towards, across))
    np.testing.assert_allclose(found["proj_xcoord"], [1, 0], atol=1e-6)
    np.testing.assert_allclose(found["relative_distance"], [0, 0], atol=1e-6)
