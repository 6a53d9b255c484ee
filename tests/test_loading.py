"""Names and checkpoints become networks. Takes about 8 s on one core."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from losslandscape.networks.loading import Architecture, load_net, weights_hash
from losslandscape.networks.models import MODELS
from losslandscape.networks.zoo import build, outline
from tests.conftest import GOLDEN
from tests.test_checkpoints import CHECKPOINT, one_line, trained_weights

ZOO = json.loads((GOLDEN / "model_zoo.json").read_text())


@pytest.fixture(scope="module")
def weights():
    return trained_weights()


@pytest.mark.parametrize("name", ["resnet20", "vgg9", "resnet20_noshort"])
def test_loading_draws_what_the_original_draws_and_nothing_else(name, tmp_path):
    torch.save(build(name).state_dict(), tmp_path / "m.t7")
    torch.manual_seed(123)
    load_net(name, tmp_path / "m.t7")
    torch.testing.assert_close(torch.randn(3), torch.tensor(ZOO[name]["next_randn"]), atol=1e-6, rtol=0)


def test_a_refused_checkpoint_draws_nothing(tmp_path):
    before = torch.get_rng_state()
    one_line(load_net, "resnet56", CHECKPOINT)
    one_line(load_net, "resnet20", tmp_path / "none.t7")
    one_line(load_net, "resnet21", CHECKPOINT)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_outline_is_the_state_dict_of_the_network_but_draws_nothing():
    before = torch.get_rng_state()
    expected = {name: outline(name) for name in ("resnet20", "vgg9", "densenet121")}
    assert torch.equal(torch.get_rng_state(), before)
    for name, state in expected.items():
        assert [(k, v.shape) for k, v in state.items()] == [(k, v.shape) for k, v in build(name).state_dict().items()]


@pytest.mark.parametrize("suffix", [".t7", ".safetensors"])
@pytest.mark.parametrize("name", ["resnet20", "vgg9", "densenet121"])
def test_the_number_of_classes_is_the_checkpoints(name, suffix, tmp_path):
    state = build(name, num_classes=17).state_dict()
    path = tmp_path / f"m{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    net = load_net(name, path)
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 8, 8)).shape == (1, 17)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_tensor_keeps_the_dtype_of_the_file(dtype, weights, tmp_path):
    mixed = {key: value.to(dtype) if key.startswith("layer1") and value.is_floating_point() else value
             for key, value in weights.items()}
    torch.save(mixed, tmp_path / "m.t7")
    net = load_net("resnet20", tmp_path / "m.t7")
    assert {key: value.dtype for key, value in net.state_dict().items()} == {k: v.dtype for k, v in mixed.items()}
    assert torch.equal(net.layer1[0].conv1.weight, mixed["layer1.0.conv1.weight"])
    assert all(isinstance(p, torch.nn.Parameter) and p.requires_grad for p in net.parameters())
    assert len(list(net.parameters())) == len(list(build("resnet20").parameters()))


def test_weights_have_plain_strides_whatever_the_file_has(weights, tmp_path):
    """The last bits of a convolution may depend on them; expanded tensors could not be written to."""
    odd = {key: value.to(memory_format=torch.channels_last) if value.ndim == 4 else value
           for key, value in weights.items()}
    odd["bn1.weight"] = torch.ones(1).expand(16)
    torch.save(odd, tmp_path / "m.t7")
    net = load_net("resnet20", tmp_path / "m.t7")
    assert all(value.is_contiguous() for value in net.state_dict().values())
    assert torch.equal(net.conv1.weight, weights["conv1.weight"])


def test_golden_checkpoint_has_the_loss_of_the_golden_surface():
    """Independent of our evaluation: the centre of the original's 1-D surface, 4th of 7 points."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(GOLDEN / "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,7].h5") as f:
        expected = f["train_loss"][3]
    data = np.load(GOLDEN / "data.npz")
    with torch.no_grad():
        logits = load_net("resnet20", CHECKPOINT)(torch.from_numpy(data["x_train"]))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data["y_train"]))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_checkpoint_without_batch_counters_is_accepted(weights, tmp_path):
    """PyTorch before 0.4.1 had no num_batches_tracked."""
    old = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "m.t7")
    net = load_net("resnet20", tmp_path / "m.t7")
    assert list(net.state_dict()) == list(weights)
    assert int(net.bn1.num_batches_tracked) == 0
    assert torch.equal(net.linear.weight, weights["linear.weight"])


# ---------------------------------------------------------------- weights that do not fit


def test_an_unknown_model_name_is_answered_with_near_ones():
    assert "resnet56" in one_line(build, "resnet_56") and str(len(MODELS)) in one_line(build, "resnet_56")
    assert "vgg9" in one_line(build, "VGG9")
    one_line(build, "")


def test_the_wrong_model_is_told_with_counts_example_and_the_right_name():
    message = one_line(load_net, "resnet56", CHECKPOINT)
    assert "180 keys are missing, 0 unexpected, 0 of another shape" in message
    assert "layer1.3.conv1.weight, expected (16, 16, 3, 3), got nothing" in message
    assert message.endswith("give --model resnet20")


@pytest.mark.parametrize("name, requested", [
    ("wrn56_2", "resnet56"),
    ("vgg16", "vgg19"),
    ("resnet50", "resnet50_noshort"),
    ("resnet20_noshort", "resnet20"),
])
def test_the_right_model_is_found_for_any_checkpoint_whatever_its_number_of_classes(name, requested, tmp_path):
    with torch.device("meta"):
        outlines = MODELS[name](num_classes=100).state_dict()
    torch.save({key: torch.zeros(value.shape, dtype=value.dtype) for key, value in outlines.items()}, tmp_path / "m.t7")
    assert f"give --model {name}" in one_line(load_net, requested, tmp_path / "m.t7")


def test_a_shape_that_differs_is_told_with_both_shapes(weights, tmp_path):
    torch.save({**weights, "layer2.0.conv1.weight": torch.zeros(32, 16, 5, 5)}, tmp_path / "m.t7")
    message = one_line(load_net, "resnet20", tmp_path / "m.t7")
    assert "0 keys are missing, 0 unexpected, 1 of another shape" in message
    assert "layer2.0.conv1.weight, expected (32, 16, 3, 3), got (32, 16, 5, 5)" in message
    assert "no model of this program" in message


def test_a_bias_that_does_not_fit_the_number_of_classes_is_told(weights, tmp_path):
    torch.save({**weights, "linear.bias": torch.zeros(7)}, tmp_path / "m.t7")
    assert "linear.bias, expected (10,), got (7,)" in one_line(load_net, "resnet20", tmp_path / "m.t7")


def test_weights_for_another_number_of_classes_are_told_with_both_numbers():
    message = one_line(load_net, Architecture.parse("resnet20", '{"num_classes": 7}'), CHECKPOINT)
    assert "linear.weight, expected (7, 64), got (10, 64)" in message
    assert "resnet20 with 10 classes, not 7; give the data set or the num_classes" in message


def test_integer_weights_are_refused(weights, tmp_path):
    torch.save({**weights, "conv1.weight": weights["conv1.weight"].to(torch.int8)}, tmp_path / "m.t7")
    assert "conv1.weight is torch.int8" in one_line(load_net, "resnet20", tmp_path / "m.t7")


# ---------------------------------------------------------------- networks of the user's

OWN = """
import torch
from torch import nn


class Tied(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.inner, self.head = nn.Embedding(7, width), nn.Linear(width, 7, bias=False)
        self.head.weight = self.inner.weight
        self.norm = nn.BatchNorm1d(width)


def not_a_module():
    return 3


def fails(width):
    raise ValueError("no such width")


def needs_memory():
    net = nn.Linear(2, 2)
    net.weight.sum().item()  # fails on torch's meta device
    return net
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py"


def state_of(own, **changes):
    state = load_net(f"{own}:Tied", "").state_dict()
    return {k: v for k, v in (dict(state) | changes).items() if v is not None}


def test_a_network_of_the_users_is_built_with_its_arguments_and_loaded(own, tmp_path):
    model = Architecture.parse(f"{own}:Tied", '{"width": 6}')
    torch.manual_seed(0)
    state = model.build().state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "m.pt")
    net = load_net(model, tmp_path / "m.pt")
    assert not net.training and all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert str(model).endswith('Tied {"width": 6}')


def test_tied_weights_stay_tied_and_may_stand_in_the_file_once(own, tmp_path):
    for changes in ({}, {"head.weight": None}, {"inner.weight": None}):
        state = state_of(own, **changes)
        torch.save(state, tmp_path / "m.pt")
        net = load_net(f"{own}:Tied", tmp_path / "m.pt")
        assert net.head.weight is net.inner.weight
        assert torch.equal(net.head.weight, state.get("head.weight", state.get("inner.weight")))


def test_half_precision_is_kept(own, tmp_path):
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state_of(own).items()}, tmp_path / "m.pt")
    net = load_net(f"{own}:Tied", tmp_path / "m.pt")
    assert net.head.weight.dtype == net.norm.running_mean.dtype == torch.float16


@pytest.mark.parametrize("changes, words", [
    ({"norm.bias": None}, "1 keys are missing"), ({"extra": torch.ones(1)}, "1 unexpected"),
    ({"norm.bias": torch.ones(9)}, "another shape"), ({"head.weight": torch.zeros(7, 4)}, "one tensor of the network"),
    ({"norm.bias": torch.ones(4, dtype=torch.long)}, "int64"),
])
def test_weights_that_do_not_fit_a_network_of_the_users_are_refused(own, tmp_path, changes, words):
    torch.save(state_of(own, **changes), tmp_path / "m.pt")
    assert words in one_line(load_net, f"{own}:Tied", tmp_path / "m.pt")


@pytest.mark.parametrize("name, kwargs, words", [
    ("not_a_module", "", "expected an nn.Module"), ("fails", '{"width": 3}', "no such width"),
    ("fails", "", "missing 1 required"), ("Tied", "{width: 3}", "as a JSON object"),
    ("Tied", "[3]", "as a JSON object"), ("Tied", '{"depth": 3}', "unexpected keyword"),
])
def test_a_network_that_can_not_be_built_is_said_in_one_line(own, name, kwargs, words):
    assert words in one_line(lambda: Architecture.parse(f"{own}:{name}", kwargs).build())


def test_a_blueprint_draws_no_random_number_and_works_where_the_meta_device_does_not(own):
    for name in ("Tied", "needs_memory"):
        model = Architecture.parse(f"{own}:{name}")
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        shapes = {k: v.shape for k, v in model.blueprint(None).state_dict().items()}
        assert torch.equal(torch.rand(1), expected)
        assert shapes == {k: v.shape for k, v in model.build().state_dict().items()}


def test_only_a_network_of_the_users_needs_no_file(own):
    assert "--model_file" in one_line(load_net, "resnet20", "")
    assert load_net(f"{own}:Tied", "").head.weight.shape == (7, 4)
    assert weights_hash(load_net(f"{own}:Tied", "")) != weights_hash(load_net(f"{own}:Tied", ""))  # drawn at random
