"""Any function of the network as a measure, and what may be done to the network before it is measured."""

import gc
import os

import numpy as np
import pytest
import torch
from torch import nn

import flatness
import h52html
import plot_1D
import plot_2D
import plot_surface
from losslandscape import api
from losslandscape.data.splits import Split
from losslandscape.errors import InputError
from losslandscape.files.layouts import read_directions, read_surface, write_surface
from losslandscape.measuring.guard import Guard, GuardedPlane
from losslandscape.measuring.own_function import UserFunction, context_on, numbers_of
from losslandscape.weight_space import WeightPlane
from tests.conftest import ROOT, run

MINE = '''
import random
import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()


def data(split):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(40, 2, 4, 4, generator=generator)
    return inputs, (inputs.mean((1, 2, 3)) > 0).long()


def squares(net):
    return {"squares": sum(p.square().sum() for p in net.parameters()), "one": True, "two": np.float32(2), "three": 3}


def gradients(net, context):
    [(inputs, targets)] = context.data["train"]
    loss = nn.functional.cross_entropy(net(inputs), targets)
    loss.backward()
    return {"gradient": torch.cat([p.grad.flatten() for p in net.parameters()]).norm(), "loss": loss}


def draws(net, context):
    return {
        "torch": torch.rand(()), "numpy": np.random.rand(), "python": random.random(), "rng": context.rng.random(),
        "generator": torch.rand((), generator=context.generator), "weight": net[0].weight.sum()}


def points(net, context):
    return {"x": context.point[0], "y": context.point[1], "size": len(context.data)}


class Distance:
    made = 0

    def __init__(self, net):
        Distance.made += 1
        self.start = [p.detach().clone() for p in net.parameters()]

    @torch.no_grad()
    def __call__(self, net):
        return {"distance": sum((p - s).square().sum() for p, s in zip(net.parameters(), self.start)).sqrt()}


class Caching(nn.Linear):
    """Derives its weights once, at its first pass."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.derived = []

    def forward(self, inputs):
        if not self.derived:
            self.derived.append(self.weight.detach().square())
        return inputs @ self.derived[0].T


def caching():
    torch.manual_seed(0)
    return nn.Sequential(Caching(16, 3))


def output(net):
    return {"output": net(torch.ones(1, 16)).sum()}


class Counter:
    calls = 0

    def __call__(self, net):
        self.calls += 1
        return {"calls": self.calls}


def private(net, rng=np.random.default_rng()):
    return {"noise": rng.random()}


def extremes(net, context):
    value = {-1.0: float("nan"), 1.0: float("inf")}.get(context.point[0], torch.tensor(0.5, dtype=torch.float64))
    return {"value": value}


def sometimes(net, context):
    return {"a": 1.0} if context.point[0] <= 0 else {"b": 1.0}


def fails(net, context):
    if context.point[0] > 0:
        raise RuntimeError("the simulation diverged")
    return {"a": 1.0}


def quantize(net):
    for p in net.parameters():
        p.data = (p.data * 8).round() / 8


@torch.no_grad()
def quantize_in_place(net):
    for p in net.parameters():
        p.copy_((p * 8).round() / 8)


def quantized_loss(net, context):
    quantize(net)
    with torch.no_grad():
        return {"loss": nn.functional.cross_entropy(net(context.data["train"].inputs), context.data["train"].targets)}


def centre_channels(net, context):
    with torch.no_grad():
        net[1].running_mean.copy_(net[0](context.data["train"].inputs).mean((0, 2, 3)))


def penalized(output, targets, net):
    return nn.functional.cross_entropy(output, targets, reduction="none") + net[0].weight.square().sum()
'''
LINE = ["--model", "mine.py:net", "--x=-1:1:5", "--xnorm", "filter"]
PLANE = [*LINE, "--y=-1:1:3", "--ynorm", "filter"]
DATA = ["--dataset", "mine.py:data"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def surface(*flags, file="s.h5"):
    plot_surface.main([*flags, "--surf_file", file])
    return read_surface(file)


def refusal(capsys, *flags):
    """The one line with which a run is refused; nothing is written."""
    before = set(os.listdir())
    with pytest.raises(SystemExit) as ended:
        surface(*flags)
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert ended.value.code == 2 and len(lines) == 1
    assert {name for name in set(os.listdir()) - before if not name.startswith("__")} == set()
    return lines[0]


def stand(x, y=0.0, dir_file="mine.net_weights_xnorm=filter.h5"):
    """A network of MINE at a point, placed by itself."""
    names = {}
    exec(MINE, names)
    net = names["net"]()
    WeightPlane(net, read_directions(dir_file)).place(x, y)
    return net, names


def loss_by_torch(net, names):
    inputs, targets = names["data"]("train")
    with torch.no_grad():
        return float(nn.functional.cross_entropy(net(inputs), targets))


# ---------------------------------------------------------------- what is measured


def test_every_number_is_that_of_the_network_there(folder):
    found = surface(*LINE, "--measure", "mine.py:squares")
    assert set(found.values) == {"squares", "one", "two", "three"}
    for x, value in zip(found.grid.x, found.values["squares"], strict=True):
        net, _ = stand(float(x))
        assert value == pytest.approx(sum(float(p.detach().square().sum()) for p in net.parameters()), rel=1e-5)
    assert [found.values[name][0] for name in ("one", "two", "three")] == [1, 2, 3]


def test_without_a_data_set_none_is_read(folder, monkeypatch):
    from losslandscape.data import datasets

    monkeypatch.setattr(datasets, "load_dataset", None)
    monkeypatch.setattr(datasets, "prepare", None)
    found = surface(*PLANE, "--measure", "mine.py:points")
    np.testing.assert_array_equal(found.values["x"], np.broadcast_to(found.grid.x, (3, 5)))
    np.testing.assert_array_equal(found.values["y"], np.broadcast_to(found.grid.y[:, None], (3, 5)))
    assert not found.values["size"].any()


def test_gradients_are_on_and_nothing_of_them_stays(folder):
    found = surface(*LINE, *DATA, "--measure", "mine.py:gradients")
    for i in (0, 2, 4):
        net, names = stand(float(found.grid.x[i]))
        context = context_on("cpu", {"train": Split(*names["data"]("train"))})
        expected = names["gradients"](net, context)
        assert found.values["gradient"][i] == pytest.approx(float(expected["gradient"].detach()), rel=1e-4)
        assert found.values["loss"][i] == pytest.approx(loss_by_torch(net, names), rel=1e-5)


def test_memory_does_not_grow_from_point_to_point(folder):
    surface(*LINE, *DATA, "--measure", "mine.py:gradients")
    net, names = stand(0.0)
    context = context_on("cpu", {"train": Split(*names["data"]("train"))})
    plane = GuardedPlane(net, WeightPlane(net, read_directions("mine.net_weights_xnorm=filter.h5")), context)
    function = UserFunction("--measure", "gradients", names["gradients"])
    counts = []
    for i in range(12):
        plane.place(i / 10)
        numbers_of(plane.call(function), function)
        counts.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
        assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert counts[-1] == counts[3]


def test_random_numbers_are_the_same_at_every_point_and_on_any_number_of_ranks(folder):
    found = surface(*LINE, "--measure", "mine.py:draws")
    for name in ("torch", "numpy", "python", "rng", "generator"):
        assert len(set(found.values[name])) == 1
    other = surface(*LINE, "--measure", "mine.py:draws", "--noise_seed", "5", file="other.h5")
    assert other.values["torch"][0] != found.values["torch"][0]

    done = run(ROOT / "plot_surface.py", *LINE, "--measure", "mine.py:draws", "--surf_file", "two.h5", ranks=2,
               cwd=folder)
    assert done.returncode == 0, done.stderr
    for name, values in read_surface("two.h5").values.items():
        np.testing.assert_array_equal(values, found.values[name])


def test_nan_and_infinity_are_results(folder):
    found = surface(*LINE, "--measure", "mine.py:extremes")
    np.testing.assert_array_equal(found.values["value"], [np.nan, 0.5, 0.5, 0.5, np.inf])
    assert found.computed["value"].all()


def test_a_class_is_made_once_at_the_origin(folder):
    found = surface(*LINE, "--measure", "mine.py:Distance")
    assert found.values["distance"][2] == 0
    assert found.values["distance"][0] == pytest.approx(2 * found.values["distance"][1], rel=1e-4)
    from losslandscape import user_code

    assert user_code.load("--measure", "mine.py:Distance").made == 1


# ---------------------------------------------------------------- the network is put back


def replace_data(net):
    for p in net.parameters():
        p.data = p.data + 1


def change_in_place(net):
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            tensor.mul_(2)


def train_it(net):
    net.train()
    net(torch.randn(8, 2, 4, 4)).sum().backward()


def swap_layers(net):
    net[4] = nn.Linear(16, 3)
    net.add_module("more", nn.ReLU())


def prune_it(net):
    nn.utils.prune.l1_unstructured(net[4], "weight", amount=0.5)


def parametrize_it(net):
    nn.utils.parametrizations.weight_norm(net[4])


def hook_it(net):
    net.register_forward_hook(lambda module, inputs, output: output * 2)


def freeze_it(net):
    net.requires_grad_(False)


def cast_it(net):
    net.half()


def replace_parameter(net):
    net[4].weight = nn.Parameter(torch.zeros(3, 16))


VANDALS = (replace_data, change_in_place, train_it, swap_layers, prune_it, parametrize_it, hook_it, freeze_it, cast_it,
           replace_parameter)


@pytest.mark.parametrize("vandal", VANDALS, ids=lambda vandal: vandal.__name__)
def test_whatever_a_measure_does_to_the_network_is_undone(folder, vandal):
    names = {}
    exec(MINE, names)
    net, inputs = names["net"](), names["data"]("train")[0]
    axes = api.directions(net)
    parameters = dict(net.named_parameters())

    def measure(net, do=lambda net: None):
        assert not any(module.training for module in net.modules())
        result = {"sum": float(net(inputs).detach().square().sum()), "grads": sum(p.requires_grad for p in
                                                                                  net.parameters())}
        do(net)
        return result

    expected = api.surface(net, axes, measure, "-1:1:3", "-1:1:3").values
    found = api.surface(net, axes, lambda net: measure(net, vandal), "-1:1:3", "-1:1:3").values
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert all(tensor is parameters[name] for name, tensor in net.named_parameters())


def test_a_guard_puts_back_what_does_not_move():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    guard = Guard(net, moved=[net[0].weight])
    change_in_place(net)
    guard.restore()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name != "0.weight")


# ---------------------------------------------------------------- what is refused, before anything is written

BAD = {
    "[1.0]": "expected a dict of numbers",
    "{}": "got an empty one",
    "{'a': [1.0]}": "got list",
    "{'a': torch.zeros(3)}": r"got Tensor of shape (3,)",
    "{'a': torch.zeros(1)}": "got Tensor of shape (1,)",
    "{'a': 1j}": "a complex number",
    "{'a': torch.tensor(1j)}": "a complex number",
    "{'a': None}": "got NoneType",
    "{'a': 'x'}": "got str",
    "{'a/b': 1}": "letters, digits",
    "{'': 1}": "letters, digits",
    "{3: 1}": "letters, digits",
    "{'a' * 65: 1}": "at most 64",
    "{'xcoordinates': 1}": "another name",
    "{'dir_file': 1}": "another name",
    "{'loss_low': 1}": "--repeats",
    "{'train_loss_se': 1}": "--tolerance",
    "{'samples': 1}": "another name",
}


@pytest.mark.parametrize("result", BAD)
def test_what_is_no_number_with_a_name_is_refused_with_its_line(folder, capsys, result):
    (folder / "bad.py").write_text(f"import torch\n\n\ndef bad(net):\n    return {result}\n")
    line = refusal(capsys, *LINE, "--measure", "bad.py:bad")
    assert BAD[result] in line and "--measure bad.py:bad" in line and "(bad.py, line 4)" in line


@pytest.mark.parametrize("name, words", [
    ("private", "a generator of its own"), ("Counter", "calls is 1 and then 2"), ("nothing", "expected 'nothing'"),
    ("net", "expected --measure mine.py:net to take (net)"),
])
def test_a_measure_that_does_not_repeat_itself_or_can_not_be_called_is_refused(folder, capsys, name, words):
    assert words in refusal(capsys, *LINE, "--measure", f"mine.py:{name}")


def test_a_network_that_keeps_what_it_computed_at_the_centre_is_refused(folder, capsys):
    (folder / "other.py").write_text(MINE.replace("if not self.derived:", "if self.derived.clear() is None:"))
    line = refusal(capsys, "--model", "mine.py:caching", *LINE[2:], "--measure", "mine.py:output")
    assert "keeps something" in line and "output is" in line
    surface("--model", "other.py:caching", *LINE[2:], "--measure", "mine.py:output")


def test_an_error_in_the_measure_names_its_line(folder, capsys):
    (folder / "bad.py").write_text("def bad(net):\n    return {'a': net.nothing}\n")
    line = refusal(capsys, *LINE, "--measure", "bad.py:bad")
    assert "AttributeError" in line and "(bad.py, line 2)" in line


@pytest.mark.parametrize("flags", [
    ["--loss_name", "mse"], ["--metric", "none"], ["--bn", "recalibrate"], ["--ngpu", "2"], ["--precision", "bf16"],
    ["--noise_seed", "9999999999"],
])
def test_flags_that_a_measure_leaves_without_meaning_are_refused(folder, capsys, flags):
    assert flags[0] in refusal(capsys, *LINE, "--measure", "mine.py:squares", *flags)


@pytest.mark.parametrize("name, words", [("fails", "the simulation diverged"), ("sometimes", "expected a from")])
def test_an_error_at_a_point_names_it_and_the_points_before_are_kept(folder, capsys, name, words):
    with pytest.raises(SystemExit):
        surface(*LINE, "--measure", f"mine.py:{name}")
    said = capsys.readouterr().err
    assert words in said and "at (1, 0)" in said or "at (0.5, 0)" in said
    assert read_surface("s.h5").computed["a"].any()


# ---------------------------------------------------------------- files


def test_a_finished_surface_is_not_measured_again_and_a_half_one_is_completed(folder, monkeypatch):
    whole = surface(*PLANE, "--measure", "mine.py:draws")
    with monkeypatch.context() as patch:
        patch.setattr(UserFunction, "__call__", None)
        surface(*PLANE, "--measure", "mine.py:draws")

    half = read_surface("s.h5")
    for mask in half.computed.values():
        mask.flat[::2] = False
    write_surface("half.h5", half)
    resumed = surface(*PLANE, "--measure", "mine.py:draws", file="half.h5")
    for name, values in whole.values.items():
        np.testing.assert_array_equal(resumed.values[name], values)


def test_the_file_has_a_name_of_its_own_and_says_what_it_is_of(folder):
    plot_surface.main([*LINE, "--measure", "mine.py:squares"])
    provenance = read_surface("mine.net_weights_xnorm=filter.h5_[-1.0,1.0,5]_measure=mine.squares.h5").provenance
    assert provenance["measure"] == "mine.py:squares" and len(provenance["measure_code"]) == 64
    assert provenance["measure_names"] == ["squares", "one", "two", "three"] and provenance["measure_data"] == "none"


@pytest.mark.parametrize("flags, words", [
    (["--measure", "mine.py:gradients", *DATA], "--measure"),
    (["--measure", "mine.py:squares", "--noise_seed", "1"], "--noise_seed"),
    (["--measure", "mine.py:squares", *DATA], "the data of --measure"),
    (["--measure", "mine.py:squares", "--place", "mine.py:quantize"], "--place"),
])
def test_a_file_of_something_else_is_refused(folder, capsys, flags, words):
    surface(*LINE, "--measure", "mine.py:squares")
    assert words in refusal(capsys, *LINE, *flags)


def test_changed_code_of_a_measure_is_refused(folder):
    (folder / "other.py").write_text("def one(net):\n    return {'one': 1}\n")
    surface(*LINE, "--measure", "other.py:one")
    (folder / "other.py").write_text("def one(net):\n    return {'one': 1.0}\n")
    done = run(ROOT / "plot_surface.py", *LINE, "--measure", "other.py:one", "--surf_file", "s.h5", cwd=folder)
    assert done.returncode == 2 and "the code of --measure" in done.stderr


def test_losses_and_a_measure_share_a_file_unless_their_names_collide(folder, capsys):
    surface(*LINE, *DATA)
    both = surface(*LINE, *DATA, "--measure", "mine.py:gradients")
    assert set(both.values) == {"train_loss", "train_acc", "gradient", "loss"} and both.main_name == "train_loss"
    np.testing.assert_allclose(both.values["loss"], both.values["train_loss"], rtol=1e-5)

    (folder / "bad.py").write_text("def bad(net):\n    return {'train_loss': 1.0}\n")
    surface(*LINE, *DATA, file="other.h5")
    with pytest.raises(SystemExit):
        surface(*LINE, *DATA, "--measure", "bad.py:bad", file="other.h5")
    assert "expected no train_loss in other.h5" in capsys.readouterr().err


def test_two_losses_of_ones_own_share_a_plane(folder):
    (folder / "other.py").write_text("def loss(output, targets):\n    return output[:, 0]\n")
    plot_surface.main([*LINE, *DATA, "--loss_name", "other.py:loss"])
    found = surface(*LINE, *DATA, "--loss_name", "mine.py:penalized")
    net, names = stand(1.0)
    expected = loss_by_torch(net, names) + float(net[0].weight.detach().square().sum())
    assert found.values["train_loss"][4] == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- pictures, checks, repeats


def test_every_number_can_be_drawn_and_the_first_one_is_at_once(folder):
    surface(*PLANE, "--measure", "mine.py:Distance", "--plot")
    assert (folder / "s.h5_distance_2dcontour.pdf").stat().st_size > 1000
    surface(*PLANE, "--measure", "mine.py:draws", "--plot", file="plane.h5")
    assert (folder / "plane.h5_torch_2dheat.pdf").exists()
    plot_2D.main(["--surf_file", "plane.h5", "--surf_name", "weight"])
    assert (folder / "plane.h5_weight_3dsurface.pdf").exists()
    h52html.main(["--surf_file", "plane.h5", "--surf_name", "weight"])
    flatness.main(["s.h5", "--surf_name", "distance"])

    surface(*LINE, "--measure", "mine.py:squares", "--plot", file="line.h5")
    assert (folder / "line.h5_1d_squares.pdf").exists()
    assert plot_1D.main(["--surf_file", "line.h5", "--surf_name", "two", "--format", "png"]) is None
    assert [path.name for path in folder.glob("line.h5*.png")] == ["line.h5_1d_two.png"]


@pytest.mark.parametrize("flags", [LINE, PLANE], ids=["line", "plane"])
def test_repeats_of_a_measure_have_a_summary_and_its_pictures(folder, flags):
    plot_surface.main([*flags, "--measure", "mine.py:Distance", "--repeats", "2", "--plot"])
    [summary] = folder.glob("*_repeats=2.h5")
    assert "distance_iqr" in read_surface(summary).values and list(folder.glob("*repeats=2.h5*distance*.pdf"))


def test_a_check_says_what_it_sees_and_writes_nothing(folder, capsys):
    before = set(os.listdir())
    plot_surface.main([*PLANE, "--measure", "mine.py:squares", "--check"])
    said = capsys.readouterr().out
    assert "ok    at the centre: squares" in said and "look  one from 1 to 1" in said and "the full run: 15" in said
    assert {name for name in set(os.listdir()) - before if not name.startswith("__")} == set()


# ---------------------------------------------------------------- what is done before measuring


@pytest.mark.parametrize("place", ["quantize", "quantize_in_place", "centre_channels"])
@pytest.mark.parametrize("more", [[], ["--freeze", "^0"]], ids=["all move", "some stay"])
def test_a_loss_is_that_of_the_network_after_place(folder, place, more):
    plain = surface(*LINE, *DATA, *more, file="plain.h5")
    [dir_file] = [path for path in folder.glob("mine.net_weights*.h5") if "[" not in path.name]
    found = surface(*LINE, *DATA, *more, "--place", f"mine.py:{place}")
    for i, x in enumerate(found.grid.x):
        net, names = stand(float(x), dir_file=dir_file)
        function = UserFunction("--place", place, names[place])
        function(net, context_on("cpu", {"train": Split(*names["data"]("train"))}))
        assert found.values["train_loss"][i] == pytest.approx(loss_by_torch(net, names), rel=1e-5)
    assert not np.allclose(found.values["train_loss"], plain.values["train_loss"], rtol=1e-4)


def test_a_measure_after_place_is_one_that_does_it_itself(folder):
    whole = surface(*LINE, *DATA, "--measure", "mine.py:quantized_loss")
    parts = surface(*LINE, *DATA, "--measure", "mine.py:gradients", "--place", "mine.py:quantize", file="parts.h5")
    np.testing.assert_allclose(parts.values["loss"], whole.values["loss"], rtol=1e-6)


def test_a_place_that_fails_is_refused_with_its_line(folder, capsys):
    (folder / "bad.py").write_text("def bad(net):\n    net.nothing\n")
    with pytest.raises(SystemExit):
        surface(*LINE, *DATA, "--place", "bad.py:bad")
    said = capsys.readouterr().err
    assert "--place bad.py:bad" in said and "(bad.py, line 2)" in said and not os.path.exists("s.h5")


def test_a_place_that_returns_another_network_is_refused(folder, capsys):
    (folder / "bad.py").write_text("import copy\n\n\ndef other(net):\n    return copy.deepcopy(net)\n")
    with pytest.raises(SystemExit):
        surface(*LINE, *DATA, "--place", "bad.py:other")
    assert "to change the network that it gets" in capsys.readouterr().err and not os.path.exists("s.h5")


def test_after_place_a_network_is_in_eval_mode(folder):
    (folder / "modes.py").write_text("def train(net):\n    net.train()\n    return net\n")
    plain = surface(*LINE, *DATA, file="plain.h5")
    treated = surface(*LINE, *DATA, "--place", "modes.py:train")
    np.testing.assert_allclose(treated.values["train_loss"], plain.values["train_loss"], rtol=1e-5)


def test_a_measure_without_data_is_told_which_flag_gives_them(folder, capsys):
    (folder / "bad.py").write_text("def bad(net, context):\n    return {'a': len(context.data['train'])}\n")
    assert "--dataset" in refusal(capsys, *LINE, "--measure", "bad.py:bad")


def test_a_check_of_a_loss_sees_the_network_after_place(folder, capsys):
    plot_surface.main([*LINE, *DATA, "--place", "mine.py:quantize", "--check"])
    net, names = stand_at_origin()
    names["quantize"](net)
    assert f"train_loss {loss_by_torch(net, names):.6g}" in capsys.readouterr().out


def stand_at_origin():
    names = {}
    exec(MINE, names)
    return names["net"](), names


# ---------------------------------------------------------------- in a notebook


def test_a_notebook_measures_the_same(folder):
    line = surface(*LINE, "--measure", "mine.py:draws")
    _, names = stand_at_origin()
    axes = read_directions("mine.net_weights_xnorm=filter.h5")
    found = api.surface(names["net"](), axes, names["draws"], "-1:1:5")
    for name, values in line.values.items():
        np.testing.assert_array_equal(found.values[name], values)
    distances = api.surface(names["net"](), axes, names["Distance"], "-1:1:5")
    assert distances.values["distance"][2] == 0
    with pytest.raises(InputError, match="expected a number as 'a'"):
        api.surface(names["net"](), axes, lambda net: {"a": "x"}, "-1:1:5")
