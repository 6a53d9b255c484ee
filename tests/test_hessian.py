import math

import numpy as np
import pytest
import torch
from curvlinops import HessianLinearOperator
from torch import nn

from losslandscape import evaluator as evaluation
from losslandscape import hessian as hess_vec_prod
from losslandscape.data.datasets import Split
from losslandscape.errors import InputError
from losslandscape.hessian import Hessian, lanczos, trace
from tests.conftest import run

PRODUCTS = (hess_vec_prod.reverse_over_forward, hess_vec_prod.double_backward)


class Small(nn.Module):
    """Convolutions, batch norm with statistics of its own, a shortcut, a linear layer: 396 weights, 420 parameters."""

    def __init__(self, classes=4):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.linear = nn.Linear(4 * 9, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        return self.linear(nn.functional.max_pool2d(x, 2).flatten(1))


def small(dtype=torch.float64):
    torch.manual_seed(0)
    net = Small()
    for norm in (net.bn1, net.bn2):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(0, 0.3)
    return net.eval().to(dtype)


def samples(n=23, classes=4):
    g = torch.Generator().manual_seed(1)
    return Split(torch.randn(n, 3, 6, 6, generator=g), torch.randint(classes, (n,), generator=g))


SPLIT = samples()


def dense(net, split, loss_name="crossentropy", params="weights"):
    """The oracle: the Hessian (n, n) of the mean loss, one batch, float64, by torch.func."""
    named = dict(net.double().named_parameters())
    fixed = {name: p.detach() for name, p in named.items()}
    moved = {name: p.detach() for name, p in named.items() if params == "all" or p.dim() >= 2}

    def mean_loss(flat):
        parts = flat.split([p.numel() for p in moved.values()])
        values = {name: part.view(p.shape) for (name, p), part in zip(moved.items(), parts, strict=True)}
        logits = torch.func.functional_call(net, fixed | values, (split.inputs.double(),))
        return evaluation.LOSSES[loss_name](logits, split.targets).mean()

    return torch.func.hessian(mean_loss)(torch.cat([p.reshape(-1) for p in moved.values()]))


def symmetric(eigenvalues, seed=0):
    """A matrix with these eigenvalues in a random basis."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    n = len(values)
    q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]
    return q @ torch.diag(values) @ q.T


def times(matrix):
    return lambda v, idle: matrix @ v


def anywhere(n, seed=5):
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- products


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("params", hess_vec_prod.PARAMS)
@pytest.mark.parametrize("loss_name", evaluation.LOSSES)
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
    loss = evaluation.crossentropy(net(SPLIT.inputs.double()), SPLIT.targets).mean()
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
    assert hessian.product is hess_vec_prod.double_backward
    assert Hessian([plain], split).product is hess_vec_prod.reverse_over_forward
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
from losslandscape.hessian import Hessian
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


@pytest.mark.parametrize("params", hess_vec_prod.PARAMS)
@pytest.mark.parametrize("loss_name", evaluation.LOSSES)
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


@pytest.mark.parametrize("most", [2, 4, 8, 16, 40])
@pytest.mark.parametrize("seed", range(4))
def test_an_eigenvalue_lies_within_the_residual_converged_or_not(most, seed):
    values = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) ** 3
    found = lanczos(times(symmetric(values, seed)), anywhere(200), most=most, tol=1e-4)
    for theta, residual in zip([*found.low, *found.high], [*found.low_residuals, *found.high_residuals], strict=True):
        assert (values - theta).abs().min() <= residual * (1 + 1e-9) + 1e-12
    scale = np.abs([*found.low, *found.high])
    within = np.array([*found.low_residuals, *found.high_residuals]) <= 1e-4 * np.maximum(scale, 0.01 * scale.max())
    assert found.converged == within.all() and found.products <= most


def test_without_enough_products_it_says_that_it_did_not_converge():
    matrix = symmetric(torch.linspace(-1, 1, 300))
    few, many = (lanczos(times(matrix), anywhere(300), most=most, tol=1e-3) for most in (5, 300))
    assert not few.converged and few.products == 5 and max(few.high_residuals[0], few.low_residuals[0]) > 1e-3
    assert many.converged and many.products < 300
    assert many.high[0] == pytest.approx(1, abs=1e-3) and many.low[0] == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize("ends", [(1, 1), (0, 3), (3, 0), (2, 3)])
def test_a_compressed_basis_finds_what_a_whole_one_finds(ends):
    values = torch.linspace(-3, 10, 300, dtype=torch.float64)
    matrix = symmetric(values)
    whole = lanczos(times(matrix), anywhere(300), *ends, tol=1e-5, most=300)
    compressed = lanczos(times(matrix), anywhere(300), *ends, tol=1e-5, most=300, basis_bytes=15 * 300 * 8)
    assert whole.converged and compressed.converged and compressed.products > 15
    for found in (whole, compressed):
        np.testing.assert_allclose(found.low, values[:ends[0]], rtol=1e-6)
        np.testing.assert_allclose(found.high, values.flip(0)[:ends[1]], rtol=1e-6)


@pytest.mark.parametrize("values, low, high", [
    ([0.0] * 20, 0, 0), ([3.0] * 20, 3, 3), ([-2.0], -2, -2), ([5.0] * 10 + [-1.0] * 10, -1, 5),
    ([-4, -3, -3.5], -4, -3), ([1e-30, -1e-30, 0, 0], -1e-30, 1e-30), ([1e30, -1e20, 0, 1], -1e20, 1e30),
])
def test_degenerate_spectra(values, low, high):
    """Multiple eigenvalues, a zero Hessian, one parameter, only negative ones, tiny and huge ones."""
    found = lanczos(times(torch.diag(torch.tensor(values, dtype=torch.float64))), anywhere(len(values)))
    assert found.converged
    assert found.low[0] == pytest.approx(low, rel=1e-2, abs=1e-4 * abs(high))
    assert found.high[0] == pytest.approx(high, rel=1e-2)


def test_a_space_with_fewer_eigenvectors_than_asked_for_is_left():
    """From one start vector a Krylov space holds one eigenvector per eigenvalue: here three, and five are wanted."""
    matrix = symmetric([7.0] * 3 + [2.0] * 3 + [0.0] * 30)
    assert lanczos(times(matrix), anywhere(36), 0, 2).high.tolist() == pytest.approx([7, 2])
    found = lanczos(times(matrix), anywhere(36), 0, 5, tol=1e-6)
    assert found.converged and len(found.high) == 5
    assert all(min(abs(theta - value) for value in (7, 2, 0)) < 1e-6 for theta in found.high)
    assert {round(theta) for theta in found.high} >= {7, 2}


def test_more_ends_than_parameters_gives_all_there_are():
    found = lanczos(times(torch.diag(torch.tensor([1.0, 2, 3]))), torch.ones(3), 0, 10)
    assert found.converged and found.high.tolist() == pytest.approx([3, 2, 1])


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


# ---------------------------------------------------------------- trace


def test_the_trace_of_a_diagonal_matrix_is_exact_and_without_error():
    matrix = torch.diag(torch.arange(20, dtype=torch.float64))
    assert trace(times(matrix), anywhere(20), 5) == (190.0, 0.0)


def test_the_trace_lies_within_its_standard_error_and_the_error_falls_with_the_samples():
    values = torch.linspace(-1, 5, 60, dtype=torch.float64)
    shares = []
    for seed in range(40):
        value, error = trace(times(symmetric(values, seed)), anywhere(60), 20)
        shares.append(abs(value - float(values.sum())) < 2 * error)
    assert np.mean(shares) > 0.8  # 94 % if it were normal
    matrix = symmetric(values)
    assert trace(times(matrix), anywhere(60), 900)[1] < 0.4 * trace(times(matrix), anywhere(60), 30)[1]


def test_the_trace_of_a_network_is_that_of_the_dense_hessian():
    expected = float(dense(small(), SPLIT).trace())
    hessian = Hessian([small()], SPLIT)
    value, error = trace(hessian, hessian.random, 100)
    assert abs(value - expected) < 4 * error and error < 0.3 * expected
    with pytest.raises(InputError, match="at least 2 samples"):
        trace(hessian, hessian.random, 1)
