import gc
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from losslandscape.files.layouts import Directions
from losslandscape.measuring.copies import use_memory_format
from losslandscape.measuring.criteria import crossentropy
from losslandscape.measuring.evaluator import Evaluator, eval_loss
from losslandscape.measuring.folding import FoldedConvolution, fold
from losslandscape.networks.models import MODELS
from losslandscape.weight_space import WeightPlane, create_random_direction, create_target_direction
from tests import stale_networks
from tests.oracles import images, with_random_statistics


@pytest.mark.parametrize("name", sorted(MODELS))
def test_folding_changes_no_result(name):
    """Every network of the zoo, at the origin and at far points: 1e-5 where the loss is below 10, 1e-4 elsewhere."""
    net = with_random_statistics(name)
    split = images(3, size=8)
    torch.manual_seed(1)
    made = [[t.numpy() for t in create_random_direction(net, norm="filter")] for _ in range(2)]
    net = net.to(memory_format=torch.channels_last)
    plane = WeightPlane(net, Directions(*made))
    folded = fold(net, split.inputs)
    assert folded is not None
    for x, y in ((0, 0), (0.5, -0.5), (-1, 1)):
        plane.place(x, y)
        with torch.no_grad():
            folded.refresh()
            got = float(crossentropy(folded(split.inputs).double(), split.targets).mean())
            expected = float(crossentropy(net(split.inputs).double(), split.targets).mean())
        assert got == pytest.approx(expected, rel=1e-5 if expected < 10 else 1e-4)
    gc.collect()  # graphs hold themselves: large networks would wait in memory for their end


def test_the_network_is_not_changed_by_folding():
    net = with_random_statistics("resnet20_noshort")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    eval_loss(net, images(23, size=8))
    assert torch.equal(state, torch.get_rng_state())  # and nothing is drawn at random
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def layers_of(folded):
    """The kinds of the layers that a folded pass calls, in order."""
    graph_module = folded.forward
    return [
        type(graph_module.get_submodule(node.target)).__name__
        for node in graph_module.graph.nodes if node.op == "call_module"]


def convolution_then(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers).eval()


def test_batch_norm_and_relu_disappear_in_the_convolution_before_them():
    net = convolution_then(nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    folded = fold(net, torch.randn(2, 3, 8, 8))
    assert layers_of(folded) == ["FoldedConvolution"]
    assert folded.forward.folded_0.relu


def test_a_batch_norm_without_running_statistics_is_not_folded():
    net = convolution_then(nn.BatchNorm2d(4, track_running_stats=False))
    folded = fold(net, torch.randn(2, 3, 8, 8))
    assert layers_of(folded) == ["FoldedConvolution", "BatchNorm2d"]
    assert folded.forward.folded_0.norm is None


def test_an_addition_is_part_of_the_later_convolution():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            shortcut = self.first(x)
            return torch.relu(shortcut + self.second(x))

    folded = fold(Block().eval(), torch.randn(2, 3, 4, 4))
    convolutions = [m for m in folded.forward.modules() if isinstance(m, FoldedConvolution)]
    assert [conv.relu for conv in convolutions] == [False, True]
    assert not any(node.op == "call_function" for node in folded.forward.graph.nodes)


@pytest.mark.parametrize("net", [
    nn.Sequential(nn.Linear(5, 3)),  # nothing to fold
    nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")),  # only an exotic convolution
])
def test_where_nothing_can_be_folded_the_caller_runs_the_network(net):
    assert fold(net.eval(), torch.randn(2, 3, 8, 5)) is None


def test_other_dtypes_are_refused_where_layers_with_weights_would_mix():
    net = convolution_then(nn.GroupNorm(2, 4))
    example = torch.randn(2, 3, 8, 8)
    assert fold(net, example) is not None
    assert fold(net, example, torch.bfloat16) is None


# ---------------------------------------------------------------- networks that a graph does not follow


def trained(kind, seed):
    torch.manual_seed(seed)
    return kind().eval()


def plain_loss(net, split):
    with torch.no_grad():
        return float(F.cross_entropy(net(split.inputs), split.targets))


@pytest.mark.parametrize("dir_type", ["weights", "states"])
@pytest.mark.parametrize("kind", stale_networks.FOLLOWING)
def test_the_loss_at_1_is_that_of_the_second_network(kind, dir_type):
    """From A towards B, whatever forward does with the tensors; and back at A it is A's."""
    split = images(12, classes=4, size=8)
    start, end = trained(kind, 0), trained(kind, 1)
    if dir_type == "weights":  # buffers stay those of A
        for own, other in zip(end.buffers(), start.buffers(), strict=True):
            own.copy_(other)
    expected = [plain_loss(start, split), plain_loss(end, split)]

    net = trained(kind, 0)
    towards = [t.numpy() for t in create_target_direction(net, end, dir_type)]
    plane = WeightPlane(use_memory_format(net, torch.channels_last), Directions(towards), dir_type)
    evaluator = Evaluator([net], {"train": split}, batch_size=12)
    for x in (0, 1, 0):
        plane.place(x)
        assert evaluator(["train"])["train_loss"] == pytest.approx(expected[x], rel=1e-4)
    assert expected[0] != pytest.approx(expected[1], rel=2e-3)  # 20 times the tolerance


@pytest.mark.parametrize("kind", [*stale_networks.FOLLOWING, *stale_networks.KEEPING])
def test_a_network_is_not_changed_by_the_attempt_to_fold_it(kind):
    net, other = trained(kind, 0), trained(kind, 0)
    split = images(6, classes=4, size=8)
    modes = [module.training for module in net.modules()]
    fold(net, split.inputs[:2])
    assert [module.training for module in net.modules()] == modes
    if kind in stale_networks.FOLLOWING:
        assert plain_loss(net, split) == plain_loss(other, split)


@pytest.mark.parametrize("kind", [
    stale_networks.Base, stale_networks.BufferAlone, stale_networks.Frozen, stale_networks.WeightNorm,
    stale_networks.CastsToFloat,
])
def test_what_a_graph_can_follow_is_folded(kind):
    assert fold(trained(kind, 0), images(2, size=8).inputs) is not None


def test_networks_that_amplify_rounding_are_folded():
    for name in ("resnet56_noshort", "resnet110_noshort"):
        assert fold(with_random_statistics(name), images(2, size=32).inputs) is not None


def test_a_folded_pass_that_is_right_only_where_the_network_is_is_refused(monkeypatch):
    """beta is 0 in a new batch norm, so nobody sees there that it is left out."""
    net = convolution_then(nn.BatchNorm2d(4))
    example = torch.randn(2, 3, 8, 8)
    assert fold(net, example) is not None

    def refresh_without_beta(self, scale):
        self.conv.weight.copy_(self.source.weight * scale.view(-1, 1, 1, 1))
        self.conv.bias.copy_((self.source.bias - self.norm.running_mean) * scale)

    monkeypatch.setattr(FoldedConvolution, "refresh", refresh_without_beta)
    assert fold(net, example) is None


def test_folding_is_proven_in_less_than_a_second():
    net, example = with_random_statistics("resnet56"), images(4).inputs
    fold(net, example)
    start = time.process_time()
    fold(net, example)
    assert time.process_time() - start < 1  # 0.25 s on a core of its own
