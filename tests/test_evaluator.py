import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from losslandscape.data.datasets import load_dataset
from losslandscape.data.splits import Batches, Split
from losslandscape.errors import InputError
from losslandscape.files.layouts import Directions
from losslandscape.measuring import evaluator as evaluation
from losslandscape.measuring.criteria import LOSSES, loss_criterion
from losslandscape.measuring.devices import fits
from losslandscape.measuring.evaluator import EvaluationShard, Evaluator, eval_loss
from losslandscape.networks.loading import load_net
from losslandscape.weight_space import WeightPlane, create_target_direction, tensors_of
from tests.oracles import images, plain, with_random_statistics

SMALL = Split(torch.randn(23, 3, 8, 8), torch.randint(10, (23,)))


@pytest.mark.parametrize("loss_name", LOSSES)
@pytest.mark.parametrize("batch_size", [1, 7, 8, 23, 100])
def test_loss_is_the_mean_over_samples_whatever_the_batch_size(loss_name, batch_size):
    net = with_random_statistics("resnet20")
    loss, acc = eval_loss(net, SMALL, loss_name, batch_size)
    expected, expected_acc = plain(net, SMALL, LOSSES[loss_name])
    assert loss == pytest.approx(expected, rel=1e-5) and acc == pytest.approx(expected_acc)


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
        for tensor in tensors_of(net, "states"):
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
    shards = [EvaluationShard(net, {"train": SMALL}, loss_criterion("crossentropy"), None, "", where)
              for where in (True, False)]
    with torch.no_grad():
        kept, streamed = (shard.launch("train", 5, lambda: None).tolist() for shard in shards)
    assert kept == streamed and fits(1 << 60, torch.device("cpu"))


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-5), ("", 5e-3), ("tf32", 5e-3), ("bf16", 2e-2)])
def test_cuda_agrees_with_the_cpu(precision, tolerance):
    net, split = with_random_statistics("resnet20"), images(100)
    expected, _ = plain(net, split)
    found = Evaluator([net.float().cuda()], {"train": split}, batch_size=32, precision=precision)(["train"])
    assert found["train_loss"] == pytest.approx(expected, rel=tolerance)


# ---------------------------------------------------------------- losses, metrics and networks of the user's


def test_a_loss_of_torch_is_averaged_over_samples_whatever_the_batch_size():
    torch.manual_seed(0)
    net, split = nn.Linear(5, 3), Split(torch.randn(7, 5), torch.randn(7, 3))
    with torch.no_grad():
        expected = float(nn.functional.mse_loss(net(split.inputs), split.targets))
    for batch_size in (1, 2, 3, 7):  # ragged last batches
        found = Evaluator([net], {"train": split}, "torch.nn:MSELoss", batch_size, metric="none")(["train"])
        assert found == {"train_loss": pytest.approx(expected, rel=1e-6)}


@pytest.mark.parametrize("metric, names", [
    ("accuracy", ["train_loss", "train_acc"]),
    ("none", ["train_loss"]),
    ("own.py:share", ["train_loss", "train_share"]),
])
def test_an_evaluator_says_before_the_first_point_which_results_it_gives(metric, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("def share(output, targets):\n    return output.argmax(1) == targets\n")
    split = Split(torch.randn(7, 5), torch.randint(3, (7,)))
    evaluator = Evaluator([nn.Linear(5, 3)], {"train": split}, batch_size=3, metric=metric)
    assert evaluator.names("train") == names == list(evaluator(["train"]))


def test_a_loss_that_is_a_mean_counts_every_sample_alike(tmp_path):
    (tmp_path / "own.py").write_text(
        "def mean(output, targets):\n    return (output - targets).square().mean()\n\n\n"
        "def each(output, targets):\n    return (output - targets).square()\n\n\n"
        "def wrong(output, targets):\n    return (output - targets)[:-1]\n")
    split = Split(torch.randn(7, 5), torch.randn(7, 3))
    net = nn.Linear(5, 3)
    own = f"{tmp_path}/own.py"
    found = [Evaluator([net], {"train": split}, f"{own}:{name}", 3, metric=f"{own}:each")(["train"])
             for name in ("mean", "each")]
    assert found[0] == pytest.approx(found[1]) and set(found[0]) == {"train_loss", "train_each"}
    assert found[0]["train_loss"] == pytest.approx(found[0]["train_each"])
    with pytest.raises(InputError, match="one number per sample"):
        Evaluator([net], {"train": split}, f"{tmp_path}/own.py:wrong", 3)(["train"])


class Pair(nn.Module):
    """Takes two inputs, gives a dict."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, a, b):
        return {"logits": self.linear(a) + b}


@pytest.mark.parametrize("form", [tuple, dict])
@pytest.mark.parametrize("shards", [1, 2])
def test_inputs_may_be_positional_or_keyword_arguments_and_batches_may_be_streamed(form, shards):
    torch.manual_seed(0)
    a, b, targets = torch.randn(9, 5), torch.randn(9, 3), torch.randint(3, (9,))
    inputs = (a, b) if form is tuple else {"b": b, "a": a}
    net = Pair()
    with torch.no_grad():
        expected = float(F.cross_entropy(net.linear(a) + b, targets))
    split = Split(inputs, targets)
    streamed = Batches(list(split.batches(4)), 9, held=False)
    for data in (split, streamed):
        nets = [net, *(copy.deepcopy(net) for _ in range(shards - 1))]
        found = Evaluator(nets, {"train": data}, batch_size=4)(["train"])
        assert found["train_loss"] == pytest.approx(expected, rel=1e-6)


# ---------------------------------------------------------------- batch norm


def permuted(net, seed=0):
    """The same function with the inner channels of every block of a ResNet in another order."""
    other = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(seed)
    for block in (m for m in other.modules() if hasattr(m, "conv1") and hasattr(m, "conv2")):
        order = torch.randperm(len(block.conv1.weight), generator=generator)
        for tensor in (block.conv1.weight, block.bn1.weight, block.bn1.bias, block.bn1.running_mean,
                       block.bn1.running_var):
            tensor.data = tensor.data[order]
        block.conv2.weight.data = block.conv2.weight.data[:, order]
    return other


def test_recalibration_shrinks_the_barrier_between_two_networks(golden):
    """Two orders of the same channels: half way the variances collapse, which new statistics repair (REPAIR, 2023)."""
    net = load_net("resnet20", golden / "model_6.t7")
    data = load_dataset(str(golden / "data.npz"), splits=("train",)).train
    other = permuted(net)
    ends = eval_loss(net, data)[0], eval_loss(other, data)[0]
    assert ends[1] == pytest.approx(ends[0], rel=1e-4)
    directions = Directions([d.numpy() for d in create_target_direction(net, other)])
    losses = {}
    for bn in ("frozen", "recalibrate"):
        moved = copy.deepcopy(net)
        plane = WeightPlane(moved, directions)
        evaluator = Evaluator([moved], {"train": data}, batch_size=64, bn=bn)
        losses[bn] = []
        for x in (0.0, 0.5, 1.0, 0.5):
            plane.place(x)
            losses[bn].append(evaluator(["train"])["train_loss"])
    barrier = {bn: found[1] - max(ends) for bn, found in losses.items()}
    assert barrier["frozen"] > 0 and barrier["recalibrate"] < 0.2 * barrier["frozen"], losses
    assert losses["recalibrate"][2] == pytest.approx(losses["recalibrate"][0], rel=1e-4)  # one function, one loss
    assert losses["recalibrate"][1] == losses["recalibrate"][3]  # a point does not remember the one before it


def test_recalibrated_statistics_are_the_averages_over_batches_of_fixed_size(monkeypatch):
    monkeypatch.setattr(evaluation, "BN_BATCH", 4)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)).eval()
    split = Split(torch.randn(10, 3), torch.randint(2, (10,)))
    Evaluator([net], {"train": split}, batch_size=5, bn="recalibrate")(["train"])
    with torch.no_grad():
        parts = [net[0](split.inputs[i:i + 4]) for i in (0, 4)]  # the last two samples are no whole batch
    torch.testing.assert_close(net[1].running_mean, torch.stack([p.mean(0) for p in parts]).mean(0))
    torch.testing.assert_close(net[1].running_var, torch.stack([p.var(0) for p in parts]).mean(0))
    assert not net[1].training and net[1].momentum == 0.1
