"""The networks of the zoo are those of the paper. Takes about 20 s on one core."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from losslandscape.networks import models
from losslandscape.networks.models import MODELS

GOLDEN = Path(__file__).parent / "golden"
ZOO = json.loads((GOLDEN / "model_zoo.json").read_text())
KEYS = json.loads((GOLDEN / "state_dict_keys.json").read_text())
FAMILIES = ["vgg9", "vgg16", "resnet18", "resnet50", "resnet50_noshort", "resnet20", "resnet20_noshort", "densenet121"]


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def randomize(net):
    """Batch normalization as after training, in eval mode: every layer then matters for the output."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            module.momentum = 1.0  # running statistics = those of the batch that follows
    with torch.no_grad():
        net.train()(torch.randn(8, 3, 20, 20))
    return net.eval()


@pytest.fixture(autouse=True)
def same_numbers_in_every_run():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ZOO)
def test_model_equals_the_original_in_keys_logits_and_random_numbers_drawn(name, image):
    golden = ZOO[name]
    torch.manual_seed(123)
    net = MODELS[name]().eval()
    following = torch.randn(3)
    outline = ";".join(f"{key}:{tuple(value.shape)}" for key, value in net.state_dict().items())
    assert sum(p.numel() for p in net.parameters()) == golden["parameters"]
    assert len(net.state_dict()) == golden["entries"]
    assert hashlib.sha256(outline.encode()).hexdigest() == golden["keys_sha256"]
    torch.testing.assert_close(following, torch.tensor(golden["next_randn"]), atol=1e-6, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(net(image), torch.tensor(golden["logits"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", KEYS)
def test_keys_and_shapes_stand_in_the_order_of_published_checkpoints(name):
    with torch.device("meta"):
        state = MODELS[name]().state_dict()
    assert [f"{key} {list(value.shape)}" for key, value in state.items()] == KEYS[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_images_may_have_any_size_from_8x8_up(name):
    """For one model of each family; that every model takes 8x8 and can be traced is seen in test_evaluator.py."""
    with torch.device("meta"):  # shapes only
        net = MODELS[name]().eval()
        for size in ((8, 8), (28, 28), (64, 64)):
            assert net(torch.empty(2, 3, *size)).shape == (2, 10)


@pytest.mark.parametrize("name", FAMILIES)
def test_traced_and_channels_last_networks_give_the_same_logits(name):
    net = randomize(MODELS[name]()).double()  # in float32 the deep ones without shortcuts differ by 1e-4 on some CPUs
    for size in ((8, 8), (28, 20)):
        x = torch.randn(2, 3, *size).double()
        with torch.no_grad():
            logits = net(x)
            torch.testing.assert_close(torch.fx.symbolic_trace(net)(x), logits, rtol=0, atol=0)
            net.to(memory_format=torch.channels_last)
            last = net(x.to(memory_format=torch.channels_last))
            net.to(memory_format=torch.contiguous_format)
        scale = float(logits.abs().max())
        torch.testing.assert_close(last / scale, logits / scale, rtol=0, atol=1e-10)
        assert float((logits[0] - logits[1]).abs().max()) > 1e-3 * scale  # the image decides


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_pooling_is_the_original_fixed_one_at_32x32(name, image):
    """4x4 (ImageNet style, DenseNet) or 8x8 (three stages) average pooling; none for vgg9."""
    net = randomize(MODELS[name]())
    seen = {}
    net.pool.register_forward_hook(lambda _, inputs, output: seen.update(before=inputs[0], after=output))
    with torch.no_grad():
        net(image)
    side = seen["before"].shape[-1]
    assert side == {"resnet20": 8, "resnet20_noshort": 8, "vgg16": 1}.get(name, 4)
    fixed = seen["before"] if name == "vgg9" else torch.nn.functional.avg_pool2d(seen["before"], side)
    torch.testing.assert_close(seen["after"], fixed)


@pytest.mark.parametrize("name", MODELS)
def test_num_classes_is_the_width_of_the_last_layer_and_nothing_else(name):
    with torch.device("meta"):
        ten, hundred = (MODELS[name](num_classes=n).state_dict() for n in (10, 100))
    *rest, weight, bias = ten
    assert [*rest, weight, bias] == list(hundred)
    assert all(ten[key].shape == hundred[key].shape for key in rest)
    assert hundred[weight].shape == (100, ten[weight].shape[1]) and hundred[bias].shape == (100,)


@pytest.mark.parametrize("name", ["resnet18", "resnet18_noshort", "resnet50", "resnet50_noshort"])
def test_only_the_bottleneck_without_shortcut_ends_without_relu(name, image):
    net = randomize(MODELS[name]())
    smallest = []
    net.layer2[1].register_forward_hook(lambda *call: smallest.append(float(call[-1].min())))
    with torch.no_grad():
        net(image)
    assert (smallest[0] < 0) == (name == "resnet50_noshort")


@pytest.mark.parametrize("name", ["resnet32", "resnet44"])
def test_networks_beside_the_29_differ_from_their_noshort_partner_by_shortcuts_only(name):
    with torch.device("meta"):
        state, partner = MODELS[name]().state_dict(), MODELS[f"{name}_noshort"]().state_dict()
    assert {key for key in state if "shortcut" not in key} == set(partner)
    assert {key.split(".shortcut")[0] for key in state if "shortcut" in key} == {"layer2.0", "layer3.0"}


def test_a_shortcut_adds_its_input_to_the_output_of_the_block():
    block = randomize(MODELS["resnet32"]()).layer1[1]
    x = torch.rand(2, 16, 8, 8)
    with torch.no_grad():
        block.bn2.weight.zero_()
        block.bn2.bias.zero_()  # the branch is zero: what remains is relu(0 + x)
        torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vgg_features_are_the_layers_of_torchvision(name):
    with torch.device("meta"):
        ours, theirs = MODELS[name]().features, torchvision.models.get_model(f"{name}_bn").features
    assert [type(layer) for layer in ours] == [type(layer) for layer in theirs]
    outlines = [[(key, value.shape) for key, value in net.state_dict().items()] for net in (ours, theirs)]
    assert outlines[0] == outlines[1]


def test_a_new_network_is_one_new_file(tmp_path, monkeypatch):
    (tmp_path / "perceptron.py").write_text("""
from torch import nn

def perceptron(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

NETWORKS = {"perceptron": perceptron}
""")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"{models.__name__}.perceptron", raising=False)
    networks = models._collect_networks()
    assert set(networks) == {*MODELS, "perceptron"}
    assert networks["perceptron"](3)(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("name", ["vgg9", "resnet20", "resnet20_noshort"])
def test_every_parameter_gets_a_gradient(name):
    net = MODELS[name]()
    net(torch.randn(3, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# ---------------------------------------------------------------- shortcuts without parameters


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "resnet18", "resnet50", "wrn56_2"])
def test_option_a_has_the_parameters_of_the_network_without_shortcuts(name):
    with torch.device("meta"):
        outline = MODELS[name](shortcut="A").state_dict()
        assert [(k, v.shape) for k, v in outline.items()] == [
            (k, v.shape) for k, v in MODELS[f"{name}_noshort"]().state_dict().items()]


def test_option_a_takes_every_other_pixel_and_adds_zero_channels_on_both_sides():
    block = randomize(MODELS["resnet20"](shortcut="A")).layer2[0]
    x = torch.rand(2, 16, 8, 8)
    with torch.no_grad():
        block.bn2.weight.zero_()
        block.bn2.bias.zero_()  # the branch is zero: what remains is relu(0 + shortcut)
        out = block(x)
    assert out.shape == (2, 32, 4, 4)
    torch.testing.assert_close(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any() and not out[:, 24:].any()


@pytest.mark.parametrize("side", [8, 9, 28])
def test_option_a_is_traced_for_images_of_any_size(side):
    net = randomize(MODELS["resnet20"](shortcut="A"))
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(torch.fx.symbolic_trace(net)(x), net(x))


def test_the_option_of_a_shortcut_is_a_or_b():
    with pytest.raises(ValueError, match="A or B"):
        MODELS["resnet20"](shortcut="C")
    with pytest.raises(ValueError, match="without shortcuts"):
        MODELS["resnet20_noshort"](shortcut="A")
    assert MODELS["resnet20"](shortcut="B").state_dict().keys() == MODELS["resnet20"]().state_dict().keys()
