import math

import numpy as np
import pytest
import torch
from curvlinops import HessianLinearOperator
from torch import nn

from losslandscape.data.splits import Split
from losslandscape.errors import InputError
from losslandscape.measuring.criteria import LOSSES, crossentropy
from losslandscape.measuring.hessian import (
    EIGENVALUE_NAMES,
    PARAMS,
    EigenvalueEvaluator,
    Hessian,
    double_backward,
    reverse_over_forward,
)
from losslandscape.measuring.lanczos import lanczos, trace
from tests.conftest import run
from tests.oracles import anywhere, dense, samples, small

PRODUCTS = (reverse_over_forward, double_backward)
SPLIT = samples()


# ---------------------------------------------------------------- products


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize("loss_name", LOSSES)
def test_products_are_those_of_the_dense_hessian_of_the_mean_loss(loss_name, params, product):
    expected = dense(small(), SPLIT, loss_name, params)
    assert len(expected) == {"weights": 396, "all": 420}[params]
    v = anywhere(len(expected))
    for batch_size in (1, 7, 8, 23, 100):  # ragged last batches, single samples, one batch
        hessian = Hessian([small()], SPLIT, loss_name, params, batch_size, product=product)
        assert hessian.size == len(expected)
        torch.testing.assert_close(hessian(v), expected @ v, rtol=1e-9, atol=1e-12)


def test_products_are_those_of_an_independent_library():
    net = small()
    weights = [p for p in net.parameters() if p.dim() >= 2]
    batches = [(SPLIT.inputs[i:i + 8].double(), SPLIT.targets[i:i + 8]) for i in range(0, 23, 8)]
    theirs = HessianLinearOperator(net, nn.CrossEntropyLoss(), weights, batches)
    ours = Hessian([small()], SPLIT, batch_size=5)
    v = anywhere(ours.size)
    torch.testing.assert_close(ours(v), theirs @ v, rtol=1e-9, atol=1e-12)


class Named(nn.Module):
    """Takes a tensor by name, gives numbers, in a dict if asked to."""

    def __init__(self, as_dict):
        super().__init__()
        self.first, self.last, self.as_dict = nn.Linear(4, 5), nn.Linear(5, 2), as_dict

    def forward(self, x):
        out = self.last(torch.tanh(self.first(x)))
        return {"logits": out} if self.as_dict else out


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_regression_with_named_inputs_has_the_hessian_of_its_own_loss(as_dict):
    torch.manual_seed(0)
    net, x, y = Named(as_dict).double(), torch.randn(11, 4).double(), torch.randn(11, 2).double()
    hessian = Hessian([net], Split({"x": x}, y), "torch.nn:MSELoss", "last", batch_size=4)
    assert hessian.size == 12  # --params REGEX: the last layer, its bias included

    def mean_loss(flat):
        state = dict(net.named_parameters()) | {"last.weight": flat[:10].view(2, 5), "last.bias": flat[10:]}
        out = torch.func.functional_call(net, state, (x,))
        return nn.functional.mse_loss(out["logits"] if as_dict else out, y)

    matrix = torch.func.hessian(mean_loss)(torch.cat([p.detach().flatten() for p in net.last.parameters()]))
    v = anywhere(12)
    torch.testing.assert_close(hessian(v), matrix @ v, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_that_of_the_mean_loss():
    net = small()
    loss = crossentropy(net(SPLIT.inputs.double()), SPLIT.targets).mean()
    expected = torch.autograd.grad(loss, [p for p in net.parameters() if p.dim() >= 2])
    got = Hessian([small()], SPLIT, batch_size=7).gradient()
    torch.testing.assert_close(got, torch.cat([g.reshape(-1) for g in expected]), rtol=1e-10, atol=1e-14)


def test_the_network_counts_as_it_is_at_the_moment_of_the_call():
    net = small()
    hessian = Hessian([net], SPLIT)
    before = hessian(hessian.random)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.1)
    expected = dense(net, SPLIT) @ hessian.random
    assert not torch.allclose(before, expected)
    torch.testing.assert_close(hessian(hessian.random), expected, rtol=1e-9, atol=1e-12)


def test_the_network_is_left_as_it_was():
    net = small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    hessian = Hessian([net], SPLIT)
    lanczos(hessian, hessian.start())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_devices_share_the_data_and_the_result_is_the_same():
    v = Hessian([small()], SPLIT).random
    one, three = (Hessian([small() for _ in range(n)], SPLIT, batch_size=4)(v) for n in (1, 3))
    torch.testing.assert_close(three, one, rtol=1e-10, atol=1e-13)


def test_memory_formats_give_the_same_vectors():
    last = small().to(memory_format=torch.channels_last)
    v = Hessian([small()], SPLIT).random
    torch.testing.assert_close(Hessian([last], SPLIT)(v), Hessian([small()], SPLIT)(v), rtol=1e-10, atol=1e-13)


def test_tied_weights_count_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    torch.manual_seed(0)
    net, split = Tied().double(), Split(torch.randn(9, 5), torch.randint(5, (9,)))
    hessian = Hessian([net], split, batch_size=4)
    assert hessian.size == 25
    torch.testing.assert_close(hessian(hessian.random), dense(net, split) @ hessian.random, rtol=1e-9, atol=1e-12)


def test_a_network_that_is_linear_in_its_weights_has_the_hessian_of_its_loss():
    net, split = nn.Linear(5, 3).double(), Split(torch.randn(9, 5), torch.randint(3, (9,)))
    for product in PRODUCTS:
        hessian = Hessian([net], split, product=product)
        torch.testing.assert_close(hessian(hessian.random), dense(net, split) @ hessian.random, rtol=1e-9, atol=1e-12)


def test_parameters_that_do_nothing_have_no_curvature():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    net, split = Idle().double(), Split(torch.randn(9, 5), torch.randint(3, (9,)))
    for product in PRODUCTS:
        found = Hessian([net], split, product=product)(torch.ones(19, dtype=torch.float64))
        assert found[:15].abs().sum() > 0 and not found[15:].any()


class _Cube(torch.autograd.Function):
    """Differentiable backwards as often as you like, but not forwards."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x ** 3

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g


def test_a_layer_without_forward_mode_is_differentiated_backwards_twice():
    class Cubed(nn.Module):
        def __init__(self, cube):
            super().__init__()
            self.cube, self.a, self.b = cube, nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.b(self.cube(self.a(x)))

    torch.manual_seed(0)
    net, split = Cubed(_Cube.apply).double(), Split(torch.randn(9, 5), torch.randint(3, (9,)))
    plain = Cubed(lambda x: x ** 3).double()
    plain.load_state_dict(net.state_dict())
    hessian = Hessian([net], split, batch_size=4)
    assert hessian.product is double_backward
    assert Hessian([plain], split).product is reverse_over_forward
    torch.testing.assert_close(hessian(hessian.random), dense(plain, split) @ hessian.random, rtol=1e-9, atol=1e-12)


def test_idle_is_called_after_every_batch():
    hessian, calls = Hessian([small()], SPLIT, batch_size=5), []
    hessian(hessian.random, lambda: calls.append(1))
    assert len(calls) == 5


def test_memory_grows_with_the_batch_not_with_the_data_set():
    code = """
import resource, torch
from losslandscape.networks.models import MODELS
from losslandscape.data.datasets import Split
from losslandscape.measuring.hessian import Hessian
peaks = []
for n in (8, 32, 320):
    split = Split(torch.zeros(n, 3, 8, 8), torch.zeros(n).long())
    hessian = Hessian([MODELS["resnet20"]().eval()], split, batch_size=8)
    hessian(hessian.random)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(peaks[2] - peaks[1])
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 20  # MB; all in one batch it is 65


def test_float32_is_enough_for_the_tolerance():
    exact = torch.linalg.eigvalsh(dense(small(), SPLIT)).numpy()
    hessian = Hessian([small(torch.float32)], SPLIT, batch_size=9)
    found = lanczos(hessian, hessian.start(), tol=1e-4)
    assert found.converged and hessian.dtype == torch.float32
    assert found.high[0] == pytest.approx(exact[-1], rel=1e-4) and found.low[0] == pytest.approx(exact[0], rel=1e-4)


@pytest.mark.parametrize("arguments, words", [
    (dict(precision="bf16"), "expected --precision fp32 or tf32"),
    (dict(params="bais"), "expected a network with parameters for --params bais"),
])
def test_what_can_not_be_measured_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        Hessian([small()], SPLIT, **arguments)
    with pytest.raises(InputError, match="no|none"):
        Hessian([nn.BatchNorm1d(4).eval()], SPLIT)


# ---------------------------------------------------------------- eigenvalues


@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize("loss_name", LOSSES)
def test_both_ends_are_those_of_the_dense_hessian(loss_name, params):
    exact = torch.linalg.eigvalsh(dense(small(), SPLIT, loss_name, params)).numpy()
    for batch_size in (7, 23):
        hessian = Hessian([small()], SPLIT, loss_name, params, batch_size)
        found = lanczos(hessian, hessian.start(), tol=1e-7)
        assert found.converged
        assert found.high[0] == pytest.approx(exact[-1], rel=1e-9)
        assert found.low[0] == pytest.approx(exact[0], rel=1e-9)
        rough = lanczos(hessian, hessian.start())
        assert rough.converged and rough.products < found.products
        assert rough.high[0] == pytest.approx(exact[-1], rel=0.01)
        assert rough.low[0] == pytest.approx(exact[0], rel=0.01)


def test_the_same_point_gives_the_same_numbers():
    def find():
        hessian = Hessian([small(torch.float32)], SPLIT, batch_size=7)
        return lanczos(hessian, hessian.start())

    first, second = find(), find()
    assert first.high == second.high and first.low == second.low and first.low_residuals == second.low_residuals


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_give_nan_at_once(bad):
    net = small(torch.float32)
    with torch.no_grad():
        net.conv1.weight[0, 0, 0, 0] = bad
    hessian = Hessian([net], SPLIT)
    found = lanczos(hessian, hessian.start())
    assert np.isnan([*found.low, *found.high, *found.low_residuals, *found.high_residuals]).all()
    assert not found.converged and found.products <= 1


def test_a_minimum_where_the_gradient_vanishes_has_a_start_vector():
    """All logits equal, whatever the weights: gradient and Hessian of a network with a dead end are 0."""
    net = small()
    with torch.no_grad():
        net.linear.weight.zero_()
        net.bn2.weight.zero_()
        net.bn2.bias.fill_(-100)
        net.bn1.bias.fill_(-100)
        net.linear.bias.zero_()
    hessian = Hessian([net], SPLIT)
    assert not hessian.gradient().any()
    found = lanczos(hessian, hessian.start())
    assert found.converged and found.high[0] == found.low[0] == 0


def test_the_trace_of_a_network_is_that_of_the_dense_hessian():
    expected = float(dense(small(), SPLIT).trace())
    hessian = Hessian([small()], SPLIT)
    value, error = trace(hessian, hessian.random, 100)
    assert abs(value - expected) < 4 * error and error < 0.3 * expected
    with pytest.raises(InputError, match="at least 2 samples"):
        trace(hessian, hessian.random, 1)


# ---------------------------------------------------------------- the evaluator of a surface


def test_the_evaluator_gives_the_ends_under_the_names_that_it_says():
    evaluator = EigenvalueEvaluator([small()], SPLIT, batch_size=7, tol=1e-5)
    results = evaluator(["train"])
    assert evaluator.names("train") == list(results) == list(EIGENVALUE_NAMES)
    exact = torch.linalg.eigvalsh(dense(small(), SPLIT)).numpy()
    assert results["max_eig"] == pytest.approx(exact[-1], rel=1e-5)
    assert results["min_eig"] == pytest.approx(exact[0], rel=1e-5)
    assert results["eig_converged"] == 1
    assert evaluator.spectrum(0, 3).high.tolist() == pytest.approx(exact[::-1][:3].tolist(), rel=1e-5)


def test_the_evaluator_says_when_it_stopped_early_and_gives_nan_where_nothing_is_finite():
    early = EigenvalueEvaluator([small()], SPLIT, max_products=2)(["train"])
    assert early["eig_converged"] == 0 and early["max_eig_res"] > 0
    net = small()
    with torch.no_grad():
        net.linear.weight.fill_(math.inf)
    results = EigenvalueEvaluator([net], SPLIT)(["train"])
    assert all(math.isnan(number) for number in results.values())


def test_the_batch_size_of_the_evaluator_is_that_of_its_hessian():
    evaluator = EigenvalueEvaluator([small()], SPLIT, batch_size=7)
    evaluator.batch_size = 5
    assert evaluator.hessian.batch_size == evaluator.batch_size == 5
    assert evaluator.calibrate() in (16, 23)
