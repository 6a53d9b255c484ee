import pytest
import torch
from torch import nn

from losslandscape.criteria import crossentropy
from losslandscape.evaluator import eval_loss
from losslandscape.files.layouts import Directions
from losslandscape.folding import FoldedConvolution, fold
from losslandscape.networks.models import MODELS
from losslandscape.weight_space import WeightPlane, create_random_direction
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
