"""Losses and metrics: the value of a split is what PyTorch gives for all of it at once, in whatever batches."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from losslandscape.data.splits import Batches, Split
from losslandscape.errors import InputError
from losslandscape.measuring.criteria import (
    METRICS,
    Accuracy,
    CrossEntropy,
    PerSample,
    argument_for_network,
    crossentropy,
    loss_criterion,
    metric_criterion,
    mse,
)
from losslandscape.measuring.evaluator import Evaluator
from losslandscape.measuring.labels import IGNORED

WEIGHTS = torch.tensor([0.1, 1.0, 3.0, 0.5])
BATCH_SIZES = (1, 3, 8, 100)


def test_losses_follow_their_definitions():
    logits, targets = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0])
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    for i in range(6):
        assert crossentropy(logits, targets)[i] == pytest.approx(-float(p[i, targets[i]].log()))
        squares = [(float(p[i, c]) - (c == int(targets[i]))) ** 2 for c in range(4)]
        assert mse(logits, targets)[i] == pytest.approx(sum(squares) / 4)


def values(loss, net, split, metric="none"):
    """The results of a split at several batch sizes, held and streamed."""
    results = []
    for batch_size in BATCH_SIZES:
        for data in (split, Batches(list(split.batches(batch_size)), len(split), held=False)):
            evaluator = Evaluator([net], {"train": data}, loss, batch_size, metric=metric)
            results.append(evaluator(["train"]))
    return results


def plain(loss, net, split):
    """The oracle: the whole split at once, in float64."""
    with torch.no_grad():
        return float(copy.deepcopy(loss).double()(copy.deepcopy(net).double()(split.inputs.double()), split.targets))


@pytest.mark.parametrize("module", [
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(weight=WEIGHTS.clone()),
    nn.CrossEntropyLoss(ignore_index=2),
    nn.CrossEntropyLoss(label_smoothing=0.1),
    nn.CrossEntropyLoss(weight=WEIGHTS.clone(), label_smoothing=0.2, ignore_index=255),
    nn.CrossEntropyLoss(weight=WEIGHTS.clone(), ignore_index=1),
])  # fmt: skip
@pytest.mark.parametrize("positions", [(), (5,), (3, 4)])
def test_a_cross_entropy_of_torch_is_that_of_the_whole_set_at_every_batch_size(module, positions):
    torch.manual_seed(0)
    net = nn.Linear(6, 4) if not positions else nn.Conv1d(6, 4, 1) if len(positions) == 1 else nn.Conv2d(6, 4, 1)
    targets = torch.randint(4, (21, *positions)) * torch.randint(2, (21, *positions))
    targets[::4] = module.ignore_index
    split = Split(torch.randn(21, 6, *positions), targets)
    criterion = loss_criterion(module)
    found = [result["train_loss"] for result in values(criterion, net, split)]
    assert found == pytest.approx([plain(module, net, split)] * len(found), rel=2e-6)


def test_a_likelihood_of_probabilities_is_weighted_too():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.LogSoftmax(1))
    split = Split(torch.randn(21, 6), torch.arange(21) % 4 * (torch.arange(21) % 2))
    module = nn.NLLLoss(weight=WEIGHTS.clone())
    found = [result["train_loss"] for result in values(loss_criterion(module), net, split)]
    assert found == pytest.approx([plain(module, net, split)] * len(found), rel=2e-6)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("form", ["last", "second"])
def test_of_texts_loss_and_accuracy_are_means_over_all_positions_that_count(shift, form):
    torch.manual_seed(0)
    logits, targets = torch.randn(9, 6, 11), torch.randint(11, (9, 6))  # (B, length, classes)
    targets[2, 1:], targets[5, 4:], targets[7] = IGNORED, IGNORED, IGNORED
    net = nn.Identity()
    net.weight = nn.Parameter(torch.zeros(1))  # says on which device it is
    inputs = logits if form == "last" else logits.movedim(2, 1).contiguous()

    ours, theirs = logits, targets
    if shift:
        ours, theirs = logits[:, :-1], targets[:, 1:]
    expected = F.cross_entropy(ours.double().flatten(0, 1), theirs.flatten())
    counted = theirs != IGNORED
    right = 100 * (ours.argmax(2) == theirs)[counted].double().mean()

    loss, accuracy = CrossEntropy("crossentropy", shift=shift), Accuracy(shift=shift)
    for result in values(loss, net, Split(inputs, targets), accuracy):
        assert result == pytest.approx({"train_loss": float(expected), "train_acc": float(right)}, rel=2e-6)


def test_a_sample_without_a_label_that_counts_does_not_count_where_every_sample_counts_once():
    logits, targets = torch.randn(3, 4, 5), torch.randint(5, (3, 4))
    targets[1], targets[2, 2:] = IGNORED, IGNORED
    of_samples = [F.cross_entropy(logits[0], targets[0]), F.cross_entropy(logits[2, :2], targets[2, :2])]
    loss = CrossEntropy("crossentropy", mean_of_samples=True)
    assert loss.value(logits, targets) == pytest.approx(float(torch.stack(of_samples).mean()), rel=1e-6)


def test_where_no_label_counts_the_loss_is_nan_as_in_torch():
    split = Split(torch.randn(3, 5), torch.full((3,), IGNORED))
    result = Evaluator([nn.Linear(5, 2)], {"train": split})(["train"])
    assert result["train_loss"] != result["train_loss"]


def test_which_axis_the_classes_are_on_is_not_guessed():
    with pytest.raises(InputError, match="could be both"):
        CrossEntropy("crossentropy").sums(torch.randn(4, 6, 6), torch.zeros(4, 6, dtype=torch.long))


def test_probabilities_of_classes_are_taken_as_torch_takes_them():
    logits, targets = torch.randn(7, 4), torch.rand(7, 4).softmax(1)
    expected = F.cross_entropy(logits, targets)
    assert CrossEntropy("crossentropy").value(logits, targets) == pytest.approx(float(expected), rel=1e-6)


def test_mse_of_numbers_is_the_mean_squared_error():
    outputs, targets = torch.randn(7, 3), torch.randn(7, 3)
    assert loss_criterion("mse").value(outputs, targets) == pytest.approx(float(F.mse_loss(outputs, targets)), rel=1e-6)


# ---------------------------------------------------------------- shapes that would broadcast


@pytest.mark.parametrize("name", [
    "mse", "torch.nn:MSELoss", "torch.nn:L1Loss", "torch.nn:SmoothL1Loss", "torch.nn:HuberLoss",
    "torch.nn:BCEWithLogitsLoss", "torch.nn:BCELoss", "torch.nn:PoissonNLLLoss"])
@pytest.mark.parametrize("outputs, targets, cure", [
    (torch.rand(8, 1), torch.rand(8), r"\(8, 1\) and targets \(8,\); give targets\[:, None\]"),
    (torch.rand(8), torch.rand(8, 1), r"\(8,\) and targets \(8, 1\); give targets\[:, 0\]"),
    (torch.rand(8, 3), torch.rand(8, 1), r"\(8, 3\) and targets \(8, 1\)"),
])
def test_numbers_of_other_shapes_are_refused_with_both_and_the_cure(name, outputs, targets, cure):
    with pytest.raises(InputError, match=cure):
        loss_criterion(name).sums(outputs, targets)


def test_a_binary_cross_entropy_of_integers_is_told_what_it_needs():
    with pytest.raises(InputError, match="targets.float"):
        loss_criterion("torch.nn:BCEWithLogitsLoss").sums(torch.rand(4, 2), torch.ones(4, 2, dtype=torch.long))


# ---------------------------------------------------------------- what a user's function takes


class WithNet(nn.Module):
    def forward(self, output, targets, net):
        return output.mean()


@pytest.mark.parametrize("function, expected", [
    (lambda output, targets: 0, None),
    (lambda output, targets, weight=None: 0, None),
    (lambda output, targets, network: 0, "network"),
    (lambda output, targets, *, net: 0, "net"),
    (lambda output, targets, third: 0, ""),
    (WithNet(), "net"),
    (F.mse_loss, None),
    (torch.add, None),
])
def test_a_function_that_takes_the_network_is_seen_by_its_signature(function, expected):
    assert argument_for_network(function) == expected


def test_a_loss_may_take_the_network(tmp_path):
    (tmp_path / "own.py").write_text(
        "def penalized(output, targets, net):\n"
        "    return (output - targets).square().mean(1) + net.weight.square().sum()\n")
    torch.manual_seed(0)
    net, split = nn.Linear(5, 3), Split(torch.randn(7, 5), torch.randn(7, 3))
    with torch.no_grad():
        expected = float(F.mse_loss(net(split.inputs), split.targets) + net.weight.square().sum())
    for result in values(f"{tmp_path}/own.py:penalized", net, split):
        assert result["train_loss"] == pytest.approx(expected, rel=1e-6)


def test_a_criterion_of_the_users_own_may_be_an_instance(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\n\n\nweighted = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]))\n"
        "smooth = torch.nn.SmoothL1Loss(beta=0.1)\n")
    weighted = loss_criterion(f"{tmp_path}/own.py:weighted")
    assert isinstance(weighted, CrossEntropy) and weighted.class_weights.tolist() == [1.0, 5.0]
    smooth = loss_criterion(f"{tmp_path}/own.py:smooth")
    outputs, targets = torch.randn(4, 2), torch.randn(4, 2)
    assert smooth.value(outputs, targets) == pytest.approx(float(F.smooth_l1_loss(outputs, targets, beta=0.1)))


def test_an_error_in_a_loss_points_at_the_users_own_line(tmp_path):
    (tmp_path / "own.py").write_text("def loss(output, targets):\n    good = output['out']\n    return good.absent()\n")
    with pytest.raises(InputError, match=r"has no attribute 'absent' \(own.py, line 3\)"):
        loss_criterion(f"{tmp_path}/own.py:loss").sums({"out": torch.ones(2)}, torch.ones(2))


def test_a_function_becomes_a_metric_by_a_name_in_the_table(monkeypatch):
    monkeypatch.setitem(METRICS, "margin", lambda logits, targets: logits[:, 0] - targets)
    assert metric_criterion("margin").value(torch.ones(3, 2), torch.zeros(3)) == 1


@pytest.mark.parametrize("get, name, words", [
    (loss_criterion, "hinge", "expected crossentropy, mse, model, torch.nn:Name or FILE.py:name as --loss_name"),
    (loss_criterion, "torch.nn:Linear", "--loss_name"),
    (loss_criterion, "torch.nn:ReLU", "expected a loss of torch.nn"),
    (metric_criterion, "top5", "expected accuracy, none or FILE.py:name as --metric"),
])
def test_what_is_no_loss_and_no_metric_is_refused_by_name(get, name, words):
    with pytest.raises(InputError, match=words):
        get(name)


def test_a_loss_of_torch_is_one_number_per_sample():
    assert isinstance(loss_criterion("torch.nn:MSELoss"), PerSample)
    assert isinstance(loss_criterion("torch.nn:CrossEntropyLoss"), CrossEntropy)
