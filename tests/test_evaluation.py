import pytest
import torch
from torch import nn
from torch.nn import functional as F

import evaluation
import folding
import h5_util
import net_plotter
from cifar10.models import MODELS
from dataloader import Split
from errors import InputError
from evaluation import Evaluator, eval_loss


def images(n, classes=10, size=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Split(torch.randn(n, 3, size, size, generator=g), torch.randint(classes, (n,), generator=g))


def with_random_statistics(name, seed=0):
    """A network of the zoo as training leaves it: batch norm with statistics and affine parameters of its own."""
    torch.manual_seed(seed)
    net = MODELS[name]().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    return net


def plain(net, split, loss=evaluation.crossentropy, double=True):
    """The oracle: the network itself, one batch, in float64."""
    net = net.double() if double else net
    with torch.no_grad():
        logits = net(split.inputs.double() if double else split.inputs)
    return float(loss(logits, split.targets).mean()), float((logits.argmax(1) == split.targets).double().mean() * 100)


SMALL = Split(torch.randn(23, 3, 8, 8), torch.randint(10, (23,)))


@pytest.mark.parametrize("loss_name", evaluation.LOSSES)
@pytest.mark.parametrize("batch_size", [1, 7, 8, 23, 100])
def test_loss_is_the_mean_over_samples_whatever_the_batch_size(loss_name, batch_size):
    net = with_random_statistics("resnet20")
    loss, acc = eval_loss(net, SMALL, loss_name, batch_size)
    expected, expected_acc = plain(net, SMALL, evaluation.LOSSES[loss_name])
    assert loss == pytest.approx(expected, rel=1e-5) and acc == pytest.approx(expected_acc)


def test_losses_follow_their_definitions():
    logits, targets = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0])
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    for i in range(6):
        assert evaluation.crossentropy(logits, targets)[i] == pytest.approx(-float(p[i, targets[i]].log()))
        squares = [(float(p[i, c]) - (c == int(targets[i]))) ** 2 for c in range(4)]
        assert evaluation.mse(logits, targets)[i] == pytest.approx(sum(squares) / 4)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_folding_changes_no_result(name):
    """Every network of the zoo, at the origin and at far points: 1e-5 where the loss is below 10, 1e-4 elsewhere."""
    net = with_random_statistics(name)
    split = images(6, size=8)
    torch.manual_seed(1)
    made = [[t.numpy() for t in net_plotter.create_random_direction(net, norm="filter")] for _ in range(2)]
    net = net.to(memory_format=torch.channels_last)
    plane = net_plotter.Plane(net, h5_util.Directions(*made))
    folded = folding.fold(net, split.inputs)
    assert folded is not None
    for x, y in ((0, 0), (0.5, -0.5), (-1, 1)):
        plane.place(x, y)
        with torch.no_grad():
            folded.refresh()
            got = float(evaluation.crossentropy(folded(split.inputs).double(), split.targets).mean())
            expected = float(evaluation.crossentropy(net(split.inputs).double(), split.targets).mean())
        assert got == pytest.approx(expected, rel=1e-5 if expected < 10 else 1e-4)


def test_the_network_is_not_changed_by_folding():
    net = with_random_statistics("resnet20_noshort")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    eval_loss(net, SMALL)
    assert torch.equal(state, torch.get_rng_state())  # and nothing is drawn at random
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("where", ["bn1", "layer1.0.bn1", "layer2.0.bn2", "layer3.0.bn1"])
def test_a_negative_running_variance_gives_nan_and_not_a_failure(where):
    """Also where a library's fused ReLU would turn NaN into 0."""
    net = with_random_statistics("resnet20")
    net.get_submodule(where).running_var.neg_()
    evaluator = Evaluator([net], {"train": SMALL})
    found = evaluator(["train"])
    assert found["train_loss"] != found["train_loss"] and 0 <= found["train_acc"] <= 100


class WithView(nn.Module):
    """Breaks under channels_last."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 10)

    def forward(self, x):
        x = F.relu(self.bn(self.conv(x)))
        return self.fc(x.view(x.size(0), -1))


class Branching(WithView):
    """Can't be traced: its control flow depends on the input."""

    def forward(self, x):
        if x.shape[0] > 0:
            x = x * 2
        return super().forward(x)


class Shared(nn.Module):
    """One convolution, used twice, before two batch norms."""

    def __init__(self):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(192, 10)

    def forward(self, x):
        x = self.a(self.conv(x)).relu() + self.b(self.conv(x))
        x = x + torch.relu(x)
        return self.fc(self.drop(torch.flatten(x, 1)))


class Twice(nn.Module):
    """The convolution's result is needed both before and after batch norm; additions in several places."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding="same", padding_mode="reflect"), nn.BatchNorm2d(3)
        self.c1, self.c2, self.n2 = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False)
        self.fc = nn.Linear(192, 10)

    def forward(self, x):
        y = self.conv(x)
        z = F.relu(self.c1(x) + self.n2(self.c2(x)) + self.bn(y) + 1)
        return self.fc(torch.flatten(z + y + x, 1))


@pytest.mark.parametrize("kind", [WithView, Branching, Shared, Twice])
@pytest.mark.parametrize("precision", ["", "bf16"])
def test_any_network_is_evaluated_correctly(kind, precision):
    torch.manual_seed(0)
    net = kind().eval()
    found = Evaluator([net], {"train": SMALL}, batch_size=10, precision=precision)(["train"])
    expected, acc = plain(net, SMALL)
    assert found["train_loss"] == pytest.approx(expected, rel=1e-5 if not precision else 2e-2)
    if not precision:
        assert found["train_acc"] == pytest.approx(acc)


def test_the_evaluator_follows_the_network():
    net = with_random_statistics("vgg9")
    evaluator = Evaluator([net], {"train": SMALL, "test": images(9, size=8)}, batch_size=5)
    first = evaluator(["train", "test"])
    with torch.no_grad():
        for tensor in net_plotter.tensors_of(net, "states"):
            if tensor.is_floating_point():
                tensor.mul_(1.1)
    second = evaluator(["train"])
    assert set(second) == {"train_loss", "train_acc"} and second["train_loss"] != first["train_loss"]
    assert second["train_loss"] == pytest.approx(plain(net, SMALL)[0], rel=1e-5)


def test_several_devices_share_the_data():
    """Two copies of the network stand for two GPUs."""
    net, other = with_random_statistics("resnet20"), with_random_statistics("resnet20")
    alone = Evaluator([net], {"train": SMALL}, batch_size=4)(["train"])
    shared = Evaluator([net, other], {"train": SMALL}, batch_size=4)(["train"])
    assert shared == pytest.approx(alone, rel=1e-6)


def test_data_that_do_not_fit_are_streamed_with_the_same_result():
    net = with_random_statistics("resnet20")
    shards = [evaluation._Shard(net, {"train": SMALL}, evaluation.crossentropy, None, "", where)
              for where in (True, False)]
    with torch.no_grad():
        kept, streamed = (shard.launch("train", 5, lambda: None).tolist() for shard in shards)
    assert kept == streamed and evaluation.fits(1 << 60, torch.device("cpu"))


def test_idle_is_called_between_batches():
    calls = []
    Evaluator([with_random_statistics("resnet20")], {"train": SMALL}, batch_size=5)(["train"], lambda: calls.append(1))
    assert len(calls) == 5


def test_half_precision_networks_are_evaluated_in_theirs():
    net = with_random_statistics("resnet20").bfloat16()
    loss, _ = eval_loss(net, SMALL)
    assert loss == pytest.approx(plain(net, SMALL)[0], rel=2e-2)


def test_calibration_picks_a_batch_size_that_the_data_can_fill():
    net = with_random_statistics("resnet20")
    assert Evaluator([net], {"train": images(70, size=8)}, batch_size=None).batch_size in (32, 64)
    assert Evaluator([net], {"train": SMALL}, batch_size=None).batch_size == 23


@pytest.mark.parametrize("precision", ["tf32", "fp8"])
def test_precisions_that_the_device_lacks_are_refused(precision):
    with pytest.raises(InputError, match="expected"):
        evaluation.precision_name(precision, torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-5), ("", 5e-3), ("tf32", 5e-3), ("bf16", 2e-2)])
def test_cuda_agrees_with_the_cpu(precision, tolerance):
    net, split = with_random_statistics("resnet20"), images(100)
    expected, _ = plain(net, split)
    found = Evaluator([net.float().cuda()], {"train": split}, batch_size=32, precision=precision)(["train"])
    assert found["train_loss"] == pytest.approx(expected, rel=tolerance)
