"""The Hessian of networks with attention, whose fused kernels have no second derivatives."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from losslandscape.data.splits import Split
from losslandscape.files.layouts import read_surface
from losslandscape.measuring.hessian import (
    Hessian,
    double_backward,
    reverse_over_forward,
    reverse_over_forward_by_formulas,
)
from losslandscape.measuring.plain_functions import PlainFunctions, plain_attention
from tests.conftest import ROOT, run
from tests.oracles import anywhere

WIDTH, LENGTH, CLASSES = 4, 5, 3


class OneHead(nn.Module):
    """Attention of one head from torch's function, or written out, with the same weights."""

    def __init__(self, written_out=False, causal=True):
        super().__init__()
        self.qkv, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, CLASSES)
        self.written_out, self.causal = written_out, causal

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.written_out:
            scores = q @ k.transpose(-2, -1) / WIDTH**0.5
            if self.causal:
                ahead = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
                scores = scores.masked_fill(ahead, -torch.inf)
            mixed = scores.softmax(-1) @ v
        else:
            q, k, v = (each[:, None] for each in (q, k, v))  # one head
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)[:, 0]
        return self.head(mixed).mean(1)


class Encoder(nn.Module):
    """A layer of torch's, which in eval mode has a path of its own."""

    def __init__(self, written_out=False):
        super().__init__()
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(WIDTH, 2, 6, batch_first=True, dropout=0.1), 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        return self.head(self.layers(x).mean(1))


def built(kind, **options):
    torch.manual_seed(0)
    return kind(**options).double().eval()


def split(count=7):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, LENGTH, WIDTH, generator=generator)
    return Split(inputs, torch.randint(CLASSES, (count,), generator=generator))


def dense_hessian(net, data):
    """(n, n) float64 of the mean loss with respect to all parameters, by torch, with plain kernels."""
    parameters = dict(net.named_parameters())
    shapes = [parameter.shape for parameter in parameters.values()]

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        state = {name: part.view(shape) for name, part, shape in zip(parameters, parts, shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(net, state, data.inputs.double()), data.targets)

    point = torch.cat([parameter.detach().flatten() for parameter in parameters.values()])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.hessian(loss, point)


@pytest.mark.parametrize("product", [reverse_over_forward_by_formulas, double_backward, None])
@pytest.mark.parametrize("causal", [True, False])
def test_products_with_fused_attention_are_those_of_attention_that_is_written_out(product, causal):
    expected = dense_hessian(built(OneHead, written_out=True, causal=causal), split())
    vector = anywhere(len(expected))
    hessian = Hessian([built(OneHead, causal=causal)], split(), params="all", batch_size=3, product=product)
    torch.testing.assert_close(hessian(vector), expected @ vector, rtol=1e-9, atol=1e-12)
    if product is None:  # attention does not need the slower way
        assert hessian.product is reverse_over_forward_by_formulas


@pytest.mark.parametrize("product", [reverse_over_forward_by_formulas, double_backward])
@pytest.mark.parametrize("params", ["all", "head", "linear1|head"])
def test_products_of_encoder_layers_are_those_of_the_dense_hessian(product, params):
    net = built(Encoder)
    expected = dense_hessian(net, split())
    chosen = []
    for name, parameter in net.named_parameters():
        is_chosen = params == "all" or any(word in name for word in params.split("|"))
        chosen += [is_chosen] * parameter.numel()
    chosen = torch.tensor(chosen)
    expected = expected[chosen][:, chosen]

    vector = anywhere(len(expected))
    hessian = Hessian([net], split(), params=params, batch_size=4, product=product)
    torch.testing.assert_close(hessian(vector), expected @ vector, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [
    {}, {"is_causal": True}, {"scale": 0.3}, {"mask": "bool"}, {"mask": "numbers"}, {"enable_gqa": True},
])  # fmt: skip
def test_attention_that_is_written_out_is_torchs(options):
    g = torch.Generator().manual_seed(0)
    shared = 2 if options.get("enable_gqa") else 4
    query = torch.randn(2, 4, 5, 3, generator=g, dtype=torch.float64)
    key, value = (torch.randn(2, shared, 6, 3, generator=g, dtype=torch.float64) for _ in range(2))
    options = dict(options)
    mask = options.pop("mask", "")
    if mask:
        options["attn_mask"] = torch.rand(5, 6, generator=g) > 0.5
        options["attn_mask"][0] = False  # a row that sees nothing
    if mask == "numbers":
        options["attn_mask"] = torch.randn(5, 6, generator=g, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(plain_attention(query, key, value, **options), expected)
    with PlainFunctions():
        torch.testing.assert_close(F.scaled_dot_product_attention(query, key, value, **options), expected)


def test_rows_that_see_nothing_have_finite_second_derivatives():
    query = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, False], [False, False, False], [True, False, True]])
    second = torch.func.hessian(lambda q: plain_attention(q, query, query, mask).square().sum())(query)
    assert second.isfinite().all() and second.any()


NORMED = {
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "plain layer norm": lambda: nn.LayerNorm(WIDTH, elementwise_affine=False),
    "group norm": lambda: nn.GroupNorm(1, LENGTH),
    "rms norm": lambda: nn.RMSNorm(WIDTH),
    "softmax": lambda: nn.Softmax(-1),
    "log softmax": lambda: nn.LogSoftmax(-1),
    "attention": lambda: Attention(need_weights=False),
    "attention with weights": lambda: Attention(need_weights=True),
}


class Attention(nn.Module):
    def __init__(self, need_weights):
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(WIDTH, 2, batch_first=True), need_weights

    def forward(self, x):
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


@pytest.mark.parametrize("layer", NORMED)
def test_the_product_that_is_chosen_is_right_whatever_torch_says(layer):
    net = built(lambda: nn.Sequential(
        nn.Linear(WIDTH, WIDTH), NORMED[layer](), nn.Flatten(), nn.Linear(LENGTH * WIDTH, CLASSES)))
    expected = dense_hessian(net, split())
    vector = anywhere(len(expected))
    hessian = Hessian([net], split(), params="all", batch_size=3)
    torch.testing.assert_close(hessian(vector), expected @ vector, rtol=1e-7, atol=1e-9)


def test_the_fast_way_is_taken_where_a_trained_network_is_sure():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(LENGTH * WIDTH, 8), nn.Tanh(), nn.Linear(8, CLASSES)).eval()
    net[-1].bias.data = torch.tensor([60.0, 0, 0])
    sure = split()
    hessian = Hessian([net], Split(sure.inputs, torch.zeros_like(sure.targets)), params="all")
    assert hessian.product is reverse_over_forward


def test_kernels_are_as_before_when_a_product_is_done():
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()
    hessian = Hessian([built(OneHead)], split(), params="all")
    hessian(anywhere(hessian.size))
    assert F.softmax.__module__ == "torch.nn.functional"
    assert F.scaled_dot_product_attention is not plain_attention
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_on_cuda_are_those_of_the_cpu(dtype):
    nets = [built(OneHead).to(dtype), built(OneHead).to(dtype).cuda()]
    products = []
    for net in nets:
        hessian = Hessian([net], split(), params="all", precision="fp32")
        products.append(hessian(anywhere(hessian.size).to(dtype)).cpu().double())
    torch.testing.assert_close(products[1], products[0], rtol=1e-3, atol=1e-5)


def test_the_transformer_of_the_examples_has_curvature(tmp_path):
    assert run(ROOT / "examples" / "transformer.py", tmp_path / "t.pt", "3").returncode == 0
    done = run("plot_hessian_eigen.py", "--model", "examples/transformer.py:Transformer", "--dataset",
               "examples/transformer.py:text", "--model_file", tmp_path / "t.pt", "--x=0:1:1", "--data_split", "200",
               "--preset", "paper", "--tol", "0.1", "--surf_file", tmp_path / "s.h5")
    assert done.returncode == 0, done.stderr
    values = read_surface(tmp_path / "s.h5").values
    assert np.isfinite(values["max_eig"]).all() and (values["eig_converged"] == 1).all()


def test_a_network_of_transformers_has_curvature():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=LENGTH, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    torch.manual_seed(0)
    net = transformers.GPT2LMHeadModel(config).eval()
    words = torch.randint(11, (6, LENGTH), generator=torch.Generator().manual_seed(2))
    hessian = Hessian([net], Split({"input_ids": words}, words), params="weights", batch_size=4)
    vector = anywhere(hessian.size).float()
    other = Hessian([net], Split({"input_ids": words}, words), params="weights", product=double_backward)
    torch.testing.assert_close(hessian(vector), other(vector), rtol=1e-3, atol=1e-4)
