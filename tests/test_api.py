"""The Python interface: the same numbers as the command line, and the network is left as it was."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import losslandscape
from losslandscape.data.splits import Split
from losslandscape.errors import InputError
from losslandscape.measuring.evaluator import eval_loss
from losslandscape.weight_space import WeightPlane
from tests.conftest import ROOT

torch.manual_seed(0)
X, Y = torch.randn(40, 6), torch.randint(3, (40,))


def make(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def values_of(net):
    return [t.clone() for t in net.state_dict().values()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_quadratic_gives_the_exact_surface():
    net = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 2.0]]))
    axes = losslandscape.Directions([np.array([[1.0, 0.0]])], [np.array([[0.0, 3.0]])])
    found = losslandscape.surface(net, axes, lambda n: {"q": float(n.weight.square().sum())}, "-1:1:5", "-2:2:3")
    x, y = np.meshgrid(found.grid.x, found.grid.y)  # (ny, nx)
    np.testing.assert_allclose(found.values["q"], (1 + x) ** 2 + (2 + 3 * y) ** 2, rtol=1e-6)


@pytest.mark.parametrize("dir_type", ["weights", "states"])
def test_the_network_is_afterwards_what_it_was(dir_type):
    net = make().train()
    net[4].half()  # moved in place, not through a view
    before, memory = values_of(net), [p.data_ptr() for p in net.parameters()]
    net[1].eval()
    axes = losslandscape.directions(net, dir_type=dir_type)
    losslandscape.surface(net, axes, lambda n: {"training": n.training}, "-1:1:3", "-1:1:3", dir_type)
    assert same(values_of(net), before) and [p.data_ptr() for p in net.parameters()] == memory
    assert net.training and not net[1].training
    with pytest.raises(ZeroDivisionError):
        losslandscape.surface(net, axes, lambda n: {"a": 1 / 0}, "-1:1:3", None, dir_type)
    assert same(values_of(net), before) and net.training


def test_an_optimizer_goes_on_after_a_surface_as_without_one():
    def train(with_surface):
        net = make()
        net[3].p = 0.0
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for step in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X), Y).backward()
            optimizer.step()
            if with_surface and step == 1:
                losslandscape.surface(net, losslandscape.directions(net), losslandscape.losses(X, Y), "-1:1:3")
        return values_of(net)

    assert same(train(True), train(False))


def test_the_centre_is_the_networks_own_loss_and_1_0_the_other_networks():
    net, other = make().eval(), make(1).eval()
    axes = losslandscape.directions(net, towards=[other])
    found = losslandscape.surface(net, axes, losslandscape.losses(X, Y), x=[0.0, 1.0])
    with torch.no_grad():
        for i, n in enumerate((net, other)):
            assert found.values["train_loss"][i] == pytest.approx(float(nn.functional.cross_entropy(n(X), Y)), rel=1e-5)
            assert found.values["train_acc"][i] == pytest.approx(100 * float((n(X).argmax(1) == Y).float().mean()))


def test_filters_of_a_direction_have_the_norms_of_the_networks_and_the_random_stream_stays():
    net = make()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    axes = losslandscape.directions(net)
    assert torch.equal(torch.rand(1), expected)
    for axis in (axes.x, axes.y):
        for d, w in zip(axis, net.parameters(), strict=True):
            if w.dim() > 1:
                np.testing.assert_allclose(np.linalg.norm(d, axis=1), w.detach().norm(dim=1), rtol=1e-5)
            else:
                assert not d.any()
    assert not np.allclose(axes.x[0], axes.y[0])
    again = losslandscape.directions(net)
    np.testing.assert_array_equal(axes.x[0], again.x[0])


def test_only_chosen_parameters_move():
    net = make()
    nn.init.ones_(net[1].bias)
    axes = losslandscape.directions(net, ignore="", freeze="^0")
    assert [bool(a.any()) for a in axes.x] == [False, False, True, True, True, True]


@pytest.mark.parametrize("arguments, words", [
    (dict(dimensions=3), "1 or 2 dimensions"), (dict(norm="filters"), "expected norm"), (dict(params="["), "--params"),
    (dict(params="nothing"), "leave none"), (dict(params=r"\.bias"), "not zero"),
])
def test_directions_that_make_no_sense_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        losslandscape.directions(make(), **arguments)


@pytest.mark.parametrize("arguments, words", [
    (dict(x="1:-1:5"), "min < max"), (dict(x=[1.0, 0.0]), "increasing"), (dict(x=[]), "increasing"),
    (dict(measure=lambda n: 3.0), "a dict of numbers"), (dict(measure=lambda n: {}), "a dict of numbers"),
    (dict(y="-1:1:3"), "x only"),
])
def test_surfaces_that_make_no_sense_are_refused(arguments, words):
    net = make()
    good = {"directions": losslandscape.directions(net, 1), "measure": lambda n: {"a": 1.0}}
    with pytest.raises(InputError, match=words):
        losslandscape.surface(net, **good | arguments)


def test_pictures_are_drawn_of_lines_and_planes(tmp_path):
    net = make()
    axes, measure = losslandscape.directions(net), losslandscape.losses(X, Y)
    plane = losslandscape.surface(net, axes, measure, "-1:1:5", "-1:1:5")
    for kind in ("2dcontour", "2dcontourf", "2dheat", "3dsurface"):
        losslandscape.plot(plane, kind=kind, path=str(tmp_path / f"{kind}.png"))
    line = losslandscape.surface(net, axes, lambda n: measure(n) | {"norm": float(n[0].weight.norm())}, "-1:1:5")
    for name in ("train_loss", "train_acc", "norm"):
        figure = losslandscape.plot(line, name, path=str(tmp_path / f"{name}.pdf"))
        assert len(figure.axes[0].lines[0].get_ydata()) == 5
    assert len(list(tmp_path.iterdir())) == 7
    with pytest.raises(InputError, match="expected kind"):
        losslandscape.plot(plane, kind="pie")


def test_the_same_points_as_the_command_lines_plane():
    net = make().eval()
    axes = losslandscape.directions(net)
    found = losslandscape.surface(net, axes, losslandscape.losses(X, Y, batch_size=16), [0.5], [-0.25])
    moved = copy.deepcopy(net)
    WeightPlane(moved, axes).place(0.5, -0.25)
    expected = eval_loss(moved, Split(X, Y), batch_size=16)
    assert (found.values["train_loss"][0, 0], found.values["train_acc"][0, 0]) == pytest.approx(expected, rel=1e-6)


def test_no_mpi_is_imported():
    code = ("import sys, torch, losslandscape\nnet = torch.nn.Linear(3, 2)\n"
            "axes = losslandscape.directions(net, 1)\n"
            "losslandscape.surface(net, axes, lambda n: {'a': 1.0}, '-1:1:3', progress=False)\n"
            "assert not any(name.startswith('mpi4py') for name in sys.modules if '.' in name or name == 'mpi4py')")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_a_saved_surface_is_read_as_it_was(tmp_path):
    net = make()
    surface = losslandscape.surface(net, losslandscape.directions(net), losslandscape.losses(X, Y), "-1:1:3", "-1:1:5")
    losslandscape.save(surface, tmp_path / "surface.h5")
    again = losslandscape.read(tmp_path / "surface.h5")
    assert again.grid.shape == (5, 3)
    for name, values in surface.values.items():
        np.testing.assert_array_equal(again.get(name), values)


def test_every_public_name_is_there_documented_and_typed():
    for name in losslandscape.__all__:
        assert getattr(losslandscape, name).__doc__, name
    for name in ("directions", "losses", "surface", "plot", "save", "read"):
        function = getattr(losslandscape, name)
        assert set(function.__annotations__) >= {"return"}, name
        assert "Raises:" in function.__doc__, name
    with pytest.raises(AttributeError, match="it has .*surface"):
        losslandscape.no_such_name  # noqa: B018


def test_functions_stay_functions_when_modules_of_the_package_are_imported():
    code = ("import losslandscape, pkgutil, importlib\n"
            "for module in pkgutil.walk_packages(losslandscape.__path__, 'losslandscape.'):\n"
            "    if not module.name.endswith('__main__'):\n"
            "        importlib.import_module(module.name)\n"
            "assert all(callable(getattr(losslandscape, name)) for name in losslandscape.__all__)")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def sparse_network():
    net = nn.Linear(3, 3)
    net.weight = nn.Parameter(torch.eye(3).to_sparse(), requires_grad=False)
    return net


def network_of_integers():
    net = nn.Linear(3, 3)
    net.integers = nn.Parameter(torch.ones(3, 3, dtype=torch.int8), requires_grad=False)
    return net


@pytest.mark.parametrize("make, words", [
    (lambda: nn.LazyLinear(3), "lazy"),
    (sparse_network, "to_dense"),
    (network_of_integers, "torch.int8"),
    (nn.ReLU, "without any"),
])
def test_networks_that_cannot_be_moved_are_refused_in_words(make, words):
    with pytest.raises(InputError, match=words):
        losslandscape.directions(make())
