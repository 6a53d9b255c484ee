"""losslandscape.surface(..., tolerance=...), and single samples from the evaluator."""

import numpy as np
import pytest
import torch
from torch import nn

import losslandscape
from losslandscape.data.splits import Split
from losslandscape.errors import InputError
from losslandscape.estimation.rounds import Request
from losslandscape.measuring.evaluator import Evaluator
from tests.oracles import images, with_random_statistics


@pytest.fixture(scope="module")
def example():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)).eval()
    inputs = torch.randn(2000, 8)
    return net, losslandscape.directions(net), (inputs, net(inputs).argmax(1))


def test_a_surface_in_a_notebook_has_error_bars(example):
    net, axes, data = example
    before = [parameter.clone() for parameter in net.parameters()]
    grid = {"x": "-1:1:9", "y": "-1:1:9", "progress": False}
    measure = losslandscape.losses(*data)
    full = losslandscape.surface(net, axes, measure, **grid)
    surface = losslandscape.surface(net, axes, measure, **grid, tolerance=0.05)

    loss, error = surface.values["train_loss"], surface.values["train_loss_se"]
    assert (error <= 0.05 * loss).all() and (surface.values["samples"] < 2000).any()
    assert np.abs(loss / full.values["train_loss"] - 1).max() < 0.25
    assert surface.provenance["audit"]["train"]["points"] == 10
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))

    exact = losslandscape.surface(net, axes, measure, **grid, tolerance=0.0)
    assert np.array_equal(exact.values["train_loss"], full.values["train_loss"])


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
def test_a_tolerance_that_is_no_share_is_refused(example, tolerance):
    net, axes, data = example
    with pytest.raises(InputError, match="from 0 to below 1"):
        losslandscape.surface(net, axes, losslandscape.losses(*data), x="-1:1:3", tolerance=tolerance)


def test_a_measure_of_ones_own_is_refused(example):
    net, axes, _ = example
    with pytest.raises(InputError, match="sample by sample"):
        losslandscape.surface(net, axes, lambda net: {"train_loss": 1.0}, x="-1:1:3", tolerance=0.1)


def test_a_loss_of_whole_batches_is_refused(example):
    net, axes, data = example

    def squared(output, targets):
        return nn.functional.cross_entropy(output, targets) ** 2

    measure = losslandscape.losses(*data, loss_name=squared, batch_size=100)
    with pytest.raises(InputError, match="mean over samples"):
        losslandscape.surface(net, axes, measure, x="-1:1:3", tolerance=0.1)


# ---------------------------------------------------------------- single samples


@pytest.mark.parametrize("name", ["resnet20", "vgg9"])
@pytest.mark.parametrize("metric", ["accuracy", "none"])
def test_the_means_of_single_samples_are_the_results(name, metric):
    net, split = with_random_statistics(name), images(53)
    evaluator = Evaluator([net], {"train": split}, batch_size=16, metric=metric)
    results = evaluator(["train"])
    of_samples = evaluator.of_samples("train")
    assert set(of_samples) == set(results)
    for key, value in results.items():
        assert of_samples[key].shape == (53,) and of_samples[key].mean(dtype=float) == pytest.approx(value, rel=1e-6)


def test_a_part_of_other_data_is_measured_where_the_network_is_now():
    net, split = with_random_statistics("resnet20"), images(60)
    evaluator = Evaluator([net], {"train": split}, batch_size=16)
    order = torch.randperm(60).numpy()
    drawn = evaluator.over({"train": split.part(order[:40])})
    for scale in (1.0, 1.3):
        net.fc.weight.data.mul_(scale) if hasattr(net, "fc") else next(net.parameters()).data.mul_(scale)
        evaluator(["train"])
        whole = evaluator.of_samples("train")["train_loss"]
        part = drawn.part("train", 8, 40)["train_loss"]
        np.testing.assert_allclose(part, whole[order[8:40]], rtol=1e-4, atol=1e-5)


def test_two_networks_share_a_part():
    nets = [with_random_statistics("resnet20") for _ in range(2)]
    split = images(50)
    one = Evaluator(nets[:1], {"train": split}, batch_size=16).over({"train": split})
    two = Evaluator(nets, {"train": split}, batch_size=16).over({"train": split})
    expected = one.part("train", 5, 50)["train_loss"]
    np.testing.assert_allclose(two.part("train", 5, 50)["train_loss"], expected, rtol=1e-4, atol=1e-5)


def test_labels_that_are_left_out_weigh_nothing():
    """The mean is over those that count, so every sample is scaled by their share."""
    torch.manual_seed(0)
    net = nn.Linear(6, 4).eval()
    targets = torch.randint(4, (40,))
    targets[:10] = -100
    split = Split(torch.randn(40, 6), targets)
    evaluator = Evaluator([net], {"train": split}, batch_size=16)
    results = evaluator(["train"])
    of_samples = evaluator.of_samples("train")
    assert (of_samples["train_loss"][:10] == 0).all()
    assert of_samples["train_loss"].mean(dtype=float) == pytest.approx(results["train_loss"], rel=1e-6)


@pytest.mark.parametrize("options, words", [
    ({"budget": "30m"}, "finite number of seconds"),
    ({"budget": float("inf")}, "finite number of seconds"),
    ({"tolerance": "a"}, "from 0 to below 1"),
    ({"acc_tolerance": 1.0}, "tolerance or a budget"),
])
def test_a_goal_that_is_none_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        Request(options.get("tolerance"), options.get("budget"), options.get("acc_tolerance"))
