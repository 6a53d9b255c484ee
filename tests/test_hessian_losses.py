"""The Hessian of losses that are more than a mean over samples, against a dense one in float64."""

import pytest
import torch
from torch import nn

from losslandscape.data.splits import Split
from losslandscape.errors import InputError
from losslandscape.measuring.criteria import loss_criterion
from losslandscape.measuring.fitting import fit_to_data
from losslandscape.measuring.hessian import Hessian
from losslandscape.measuring.measurement import EigenvalueMeasurement
from tests.own_losses import CausalLM, EncoderDecoder, texts, with_penalty

WEIGHTS = torch.tensor([0.1, 1.0, 3.0, 0.5], dtype=torch.float64)


def dense(net, mean_loss):
    """(n, n), of mean_loss(call) where call(...) is the network at some weights of two dimensions."""
    named = {name: p.detach() for name, p in net.named_parameters()}
    moved = {name: p for name, p in named.items() if p.dim() >= 2}

    def of_flat(flat):
        parts = flat.split([p.numel() for p in moved.values()])
        values = {name: part.view(p.shape) for (name, p), part in zip(moved.items(), parts, strict=True)}
        return mean_loss(
            lambda *args, **kwargs: torch.func.functional_call(net, named | values, args, kwargs))

    return torch.func.hessian(of_flat)(torch.cat([p.reshape(-1) for p in moved.values()]))


def check_products(net, split, criterion, mean_loss, fixed_batches=False, batch_size=4):
    hessian = Hessian([net], split, criterion, batch_size=batch_size, fixed_batches=fixed_batches)
    vector = torch.randn(hessian.size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(hessian(vector), dense(net, mean_loss) @ vector, rtol=1e-8, atol=1e-10)


def test_class_weights_and_ignored_labels_are_those_of_the_whole_set():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 4)).double()
    targets = torch.arange(11) % 4
    targets[::3] = 7
    split = Split(torch.randn(11, 5).double(), targets)
    module = nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=7)
    check_products(net, split, loss_criterion(module), lambda call: module(call(split.inputs), targets))


@pytest.mark.parametrize("kind", [CausalLM, EncoderDecoder])
def test_the_loss_of_a_language_models_own(kind):
    torch.manual_seed(0)
    net = kind().double()
    words, labels = texts()
    split = Split({"input_ids": words}, labels, "labels")
    fit = fit_to_data(net, {"train": split})

    def own(call):
        output = call(words, labels=labels)
        return output["loss"] if isinstance(output, dict) else output.loss

    check_products(net, split, fit.loss, own)


def test_a_loss_in_batches_is_that_of_its_batches():
    torch.manual_seed(0)
    net = CausalLM(with_penalty).double()
    words, labels = texts()
    split = Split({"input_ids": words}, labels, "labels")
    fit = fit_to_data(net, {"train": split}, batch_size=4)

    def own(call):
        parts = zip(words.split(4), labels.split(4), strict=True)
        return sum(len(x) * call(x, labels=y).loss for x, y in parts) / len(words)

    check_products(net, split, fit.loss, own, fixed_batches=True)


def test_a_loss_that_takes_the_network_has_no_hessian_here(tmp_path):
    (tmp_path / "own.py").write_text("def loss(output, targets, net):\n    return output.mean(1)\n")
    data = {"train": Split(torch.randn(7, 5), torch.arange(7) % 3)}
    with pytest.raises(InputError, match="takes the network"):
        EigenvalueMeasurement(f"{tmp_path}/own.py:loss").fitted(nn.Linear(5, 3), data)


def test_noise_has_no_hessian():
    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.randn(len(x), 3)

    data = {"train": Split(torch.randn(7, 5), torch.arange(7) % 3)}
    with pytest.raises(InputError, match="the Hessian of noise means nothing"):
        EigenvalueMeasurement().fitted(Noisy(5, 3), data)
