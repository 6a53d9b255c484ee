"""Precision, memory formats, and CUDA graphs that follow the network."""

import gc
import weakref

import pytest
import torch
from torch import nn

from losslandscape.errors import InputError
from losslandscape.files.layouts import Directions
from losslandscape.measuring import devices
from losslandscape.measuring.devices import captured, choose_memory_format, precision_name
from losslandscape.measuring.evaluator import Evaluator
from losslandscape.weight_space import WeightPlane, create_target_direction
from tests import stale_networks
from tests.oracles import images

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("precision", ["tf32", "fp8"])
def test_precisions_that_the_device_lacks_are_refused(precision):
    with pytest.raises(InputError, match="expected"):
        precision_name(precision, torch.device("cpu"))


@pytest.mark.parametrize("output", [dict, tuple])
def test_a_network_of_images_may_give_something_else_than_a_tensor(output):
    class Net(nn.Conv2d):
        def forward(self, x):
            logits = super().forward(x)
            return {"logits": logits} if output is dict else (logits, logits)

    memory_format = choose_memory_format(Net(3, 4, 3), torch.randn(2, 3, 8, 8))
    assert memory_format == torch.contiguous_format


# ---------------------------------------------------------------- CUDA graphs


class FakeGraph:
    """Stands for a CUDA graph: `replay` does again what was captured, on the memory of the capture."""

    def __init__(self, run, net):
        self.weight = net.weight.data  # the memory that the kernels know
        self.replays = 0

    def replay(self):
        self.replays += 1


def captured_without_gpu(monkeypatch, run, net):
    """(replay, graphs captured so far): `captured` with graphs that only count."""
    graphs = []

    def capture(run, _device):
        graphs.append(FakeGraph(run, net))
        return graphs[-1], run()

    monkeypatch.setattr(devices, "capture", capture)
    return captured(run, torch.device("cpu"), net), graphs


def test_a_graph_is_captured_anew_when_a_tensor_lies_elsewhere(monkeypatch):
    net = nn.Linear(2, 2)
    replay, graphs = captured_without_gpu(monkeypatch, lambda idle=None: torch.zeros(2), net)
    replay(None)
    net.weight.data.add_(1)  # in place: the graph follows
    replay(None)
    assert [graph.replays for graph in graphs] == [2]

    net.weight.data = net.weight.data.clone()
    replay(None)
    replay(None)
    assert [graph.replays for graph in graphs] == [2, 2]
    assert graphs[-1].weight.data_ptr() == net.weight.data_ptr()


def test_a_buffer_that_is_replaced_is_seen(monkeypatch):
    net = nn.BatchNorm1d(2)
    replay, graphs = captured_without_gpu(monkeypatch, lambda idle=None: torch.zeros(2), net)
    net.running_mean = torch.ones(2)
    replay(None)
    assert len(graphs) == 2


def test_the_memory_that_a_pass_uses_lives_as_long_as_its_graph(monkeypatch):
    """It is outside of the graph's own: given to others, it would be overwritten at every replay."""
    results = torch.zeros(5)
    alive = weakref.ref(results)

    def run(idle=None, results=results):
        return results.sum()

    replay, _ = captured_without_gpu(monkeypatch, run, nn.Linear(2, 2))
    del run, results
    gc.collect()
    assert alive() is not None
    replay(None)


def test_a_pass_that_cannot_be_captured_runs_as_it_is(monkeypatch):
    def fails(_run, _device):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(devices, "capture", fails)

    def run(_idle):
        return 3

    assert captured(run, torch.device("cpu"), nn.Linear(2, 2)) is run


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", [
    kind for kind in stale_networks.FOLLOWING
    if kind not in (stale_networks.NumpyOfBuffer, stale_networks.AutocastInside, stale_networks.Alias,
                    stale_networks.TensorInDict, stale_networks.TensorInList)
])
def test_a_captured_pass_follows_the_network(kind):
    """Aliases stay on the CPU when a network goes to the GPU: such networks don't run there."""
    split = images(12, classes=4, size=8)
    losses = []
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = kind().eval()
        if seed == 1:
            for own, other in zip(net.buffers(), nets[0].buffers(), strict=True):
                own.copy_(other)
        nets.append(net)
        with torch.no_grad():
            losses.append(float(nn.functional.cross_entropy(net(split.inputs), split.targets)))

    towards = [t.numpy() for t in create_target_direction(*nets)]
    net = nets[0].cuda()
    plane = WeightPlane(net, Directions(towards))
    evaluator = Evaluator([net], {"train": split}, batch_size=12, precision="fp32")
    for x in (0, 1, 0, 1):
        plane.place(x)
        assert evaluator(["train"])["train_loss"] == pytest.approx(losses[x], rel=1e-4)


@pytest.mark.gpu
@needs_gpu
def test_a_captured_pass_follows_tensors_to_other_memory():
    """As where a second plane takes the place of the first."""
    torch.manual_seed(0)
    net = stale_networks.Base().eval().cuda()
    split = images(12, classes=4, size=8)
    evaluator = Evaluator([net], {"train": split}, precision="fp32")
    before = evaluator(["train"])["train_loss"]
    for parameter in net.parameters():
        parameter.data = 1.5 * parameter.data
    after = evaluator(["train"])["train_loss"]
    with torch.no_grad():
        output = net(split.inputs.cuda()).cpu()
    assert after == pytest.approx(float(nn.functional.cross_entropy(output, split.targets)), rel=1e-3)
    assert after != pytest.approx(before, rel=1e-3)
