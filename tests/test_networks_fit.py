"""Names of files and names of networks: what belongs together is found, and what is taken is said."""

import pytest
import torch
from torch import nn

from losslandscape.networks.fit import name_without_wrappers
from losslandscape.networks.loading import load_net
from losslandscape.networks.zoo import build
from tests.test_checkpoints import CHECKPOINT, one_line, trained_weights

OWN = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 2)))

def parallel():
    return nn.DataParallel(net())

def compiled():
    return torch.compile(nn.DataParallel(net()))

def averaged():
    return torch.optim.swa_utils.AveragedModel(net())

def inner_parallel():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.DataParallel(nn.Sequential(nn.Linear(4, 2))))

class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = net()

class OwnPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.Linear(3, 4)
        self.module = nn.Module()
        self.module.part = nn.Linear(3, 4)

class Extra(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)
        self.told = None

    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        self.told = state

def lazy(): return nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
def quantized(): return torch.ao.quantization.quantize_dynamic(net(), {nn.Linear}, torch.qint8)
def integers(): return nn.ParameterList([nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)])
def empty(): return nn.ReLU()
def single(): return nn.Linear(4, 2)
def sparse():
    made = net()
    made[0].weight = nn.Parameter(made[0].weight.detach().to_sparse())
    return made
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py"


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 2)))


@pytest.fixture
def state():
    torch.manual_seed(3)
    return net().state_dict()


def loaded(model, content, tmp_path, **flags):
    torch.save(content, tmp_path / "m.pt")
    return load_net(model, tmp_path / "m.pt", **flags)


def assert_has(loaded_net, state):
    values = list(loaded_net.state_dict().values())
    assert len(values) == len(state)
    assert all(torch.equal(value, expected) for value, expected in zip(values, state.values(), strict=True))


RENAMINGS = {
    "data parallel": lambda key: f"module.{key}",
    "compiled": lambda key: f"_orig_mod.{key}",
    "opacus": lambda key: f"_module.{key}",
    "compiled in parallel": lambda key: f"module._orig_mod.{key}",
    "parallel in compiled": lambda key: f"_orig_mod.module.{key}",
    "inside": lambda key: key.replace("2.0.", "2.module.0._checkpoint_wrapped_module."),
    "fsdp": lambda key: "_fsdp_wrapped_module." + key.replace("2.", "2._fsdp_wrapped_module."),
}


@pytest.mark.parametrize("model", ["net", "parallel", "compiled", "averaged", "inner_parallel", "Module"])
@pytest.mark.parametrize("renaming", RENAMINGS)
def test_names_of_wrappers_do_not_matter_on_either_side(renaming, model, own, state, tmp_path, capsys):
    content = {RENAMINGS[renaming](key): value for key, value in state.items()}
    assert_has(loaded(f"{own}:{model}", content, tmp_path), state)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "a.b.", "model.module."])
def test_a_common_prefix_is_taken_away_and_said_in_one_line(prefix, own, state, tmp_path, capsys):
    content = {prefix + key: value for key, value in state.items()}
    content |= {"crit.weight": torch.ones(2), "accuracy.total": torch.tensor(3)}
    assert_has(loaded(f"{own}:net", {"state_dict": content}, tmp_path), state)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert name_without_wrappers(prefix + "x")[:-1] in said and "crit.weight, accuracy.total" in said


def test_a_prefix_goes_with_every_network_of_the_zoo(tmp_path, capsys):
    state = build("resnet20", num_classes=17).state_dict()
    content = {"state_dict": {f"net.module.{key}": value for key, value in state.items()}, "epoch": 3}
    assert_has(loaded("resnet20", content, tmp_path), state)
    assert "'net.'" in capsys.readouterr().err


def test_entries_of_wrappers_are_left_out(own, state, tmp_path, capsys):
    torch.manual_seed(0)
    averaged = torch.optim.swa_utils.AveragedModel(net())
    averaged.module.load_state_dict(state)
    content = averaged.state_dict() | {"module.0._extra_state": None}
    assert "n_averaged" in content
    assert_has(loaded(f"{own}:net", content, tmp_path), state)
    assert not capsys.readouterr().err


def test_a_network_with_extra_state_is_loaded(own, tmp_path):
    weights = {"weight": torch.ones(2, 3), "bias": torch.ones(2), "_extra_state": {"a": 2}}
    assert torch.equal(loaded(f"{own}:Extra", weights, tmp_path).weight, torch.ones(2, 3))


def test_a_network_whose_own_parts_are_called_like_wrappers_is_loaded(own, tmp_path):
    for model, shapes in {
        "OwnPart": {"module.weight": (4, 3), "module.bias": (4,), "head.weight": (2, 4), "head.bias": (2,)},
        "Twice": {"part.weight": (4, 3), "part.bias": (4,), "module.part.weight": (4, 3), "module.part.bias": (4,)},
    }.items():
        state = {name: torch.randn(shape) for name, shape in shapes.items()}
        loaded_state = loaded(f"{own}:{model}", state, tmp_path).state_dict()
        assert all(torch.equal(loaded_state[name], value) for name, value in state.items())


def test_a_tensor_that_stands_in_a_file_twice_is_refused(own, state, tmp_path):
    content = state | {"module.0.weight": torch.zeros(4, 3)}
    assert "differ by the name of a wrapper" in one_line(loaded, f"{own}:net", content, tmp_path)


def test_two_parts_that_fit_are_a_choice(own, state, tmp_path):
    other = {key: value + 1 for key, value in state.items()}
    content = {f"student.{k}": v for k, v in state.items()} | {f"teacher.{k}": v for k, v in other.items()}
    message = one_line(loaded, f"{own}:net", content, tmp_path)
    assert "'student.' (9 tensors, 43 values), 'teacher.' (9 tensors, 43 values)" in message
    assert "--checkpoint_key student." in message
    assert_has(loaded(f"{own}:net", content, tmp_path, checkpoint_key="teacher."), other)
    assert_has(loaded(f"{own}:net", content, tmp_path, checkpoint_key="student"), state)

    same = {f"student.{k}": v for k, v in state.items()} | {f"teacher.{k}": v for k, v in state.items()}
    assert_has(loaded(f"{own}:net", same, tmp_path), state)


def test_a_minor_part_of_a_file_is_taken_only_if_it_is_named(own, tmp_path):
    content = {"conv.weight": torch.ones(9, 9), "fc.weight": torch.ones(2, 4), "fc.bias": torch.ones(2)}
    message = one_line(loaded, f"{own}:single", content, tmp_path)
    assert "larger one" in message and "conv.weight" in message and "--checkpoint_key fc." in message
    assert torch.equal(loaded(f"{own}:single", content, tmp_path, checkpoint_key="fc").weight, torch.ones(2, 4))


def test_the_normalization_in_front_of_a_network_is_not_left_out(own, state, tmp_path):
    content = {f"1.{key}": value for key, value in state.items()} | {"0.mean": torch.ones(3)}
    assert "0.mean" in one_line(loaded, f"{own}:net", content, tmp_path)


def test_a_real_mismatch_is_said_without_the_prefix(own, state, tmp_path):
    content = {f"model.{key}": value for key, value in state.items()} | {"model.2.0.weight": torch.ones(5, 4)}
    message = one_line(loaded, f"{own}:net", content, tmp_path)
    assert "1 of another shape (first: 2.0.weight, expected (2, 4), got (5, 4))" in message
    del content["model.2.0.weight"]
    assert "1 keys are missing, 0 unexpected" in one_line(loaded, f"{own}:net", content, tmp_path)


@pytest.mark.parametrize("names, words", [
    (["_flat_param"], "FSDP"), (["base_model.model.0.lora_A.weight"], "adapter"),
    (["0.parametrizations.weight.original0"], "parametrized"), (["0.qweight"], "quantized"), (["x"], "--model"),
])
def test_names_that_tell_how_weights_were_saved_lead_the_right_way(names, words, own, tmp_path):
    assert words in one_line(loaded, f"{own}:net", {name: torch.ones(2) for name in names}, tmp_path)


# ---------------------------------------------------------------- entries of a file

ENTRIES = ["state_dict", "model_state_dict", "model", "net", "module", "model_state", "weights", "params", "network",
           "ema", "state_dict_ema", "my_own_name"]


@pytest.mark.parametrize("name", ENTRIES)
def test_weights_are_found_in_every_entry(name, own, state, tmp_path, capsys):
    content = {"epoch": 3, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, name: state}
    assert_has(loaded(f"{own}:net", content, tmp_path), state)
    assert_has(loaded(f"{own}:net", content, tmp_path, checkpoint_key=name), state)
    assert not capsys.readouterr().err


def test_weights_are_found_in_entries_of_entries_and_beside_other_values(own, state, tmp_path):
    assert_has(loaded(f"{own}:net", {"state": {"model": state}}, tmp_path), state)
    assert_has(loaded(f"{own}:net", {"state": {"model": state}}, tmp_path, checkpoint_key="state.model"), state)
    assert_has(loaded(f"{own}:net", {"epoch": 3, **state}, tmp_path), state)


def test_the_network_is_taken_before_its_average_and_the_choice_is_said(own, state, tmp_path, capsys):
    average = {key: value + 1 for key, value in state.items()}
    content = {"state_dict_ema": average, "state_dict": state}
    assert_has(loaded(f"{own}:net", content, tmp_path), state)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "'state_dict' are taken" in said and "state_dict_ema (9 tensors, 43 values)" in said
    assert "--checkpoint_key" in said
    assert_has(loaded(f"{own}:net", content, tmp_path, checkpoint_key="state_dict_ema"), average)
    assert not capsys.readouterr().err


def test_entries_that_fit_equally_well_are_a_choice(own, state, tmp_path):
    content = {"first": state, "second": {key: value + 1 for key, value in state.items()}}
    message = one_line(loaded, f"{own}:net", content, tmp_path)
    assert "first (9 tensors, 43 values), second (9 tensors, 43 values)" in message
    assert "choose with --checkpoint_key first" in message


def test_the_entry_that_fits_is_taken(own, state, tmp_path):
    """A generator and a discriminator have the same names; other networks have others."""
    shapes = {key: torch.ones(5, *value.shape) for key, value in state.items()}
    assert_has(loaded(f"{own}:net", {"generator": shapes, "discriminator": state}, tmp_path), state)
    assert_has(loaded(f"{own}:net", {"model": {"x": torch.ones(2)}, "net": state}, tmp_path), state)


def test_a_key_that_is_not_there_is_answered_with_those_that_are(own, state, tmp_path):
    message = one_line(loaded, f"{own}:net", {"model": state}, tmp_path, checkpoint_key="ema")
    assert "model (9 tensors, 43 values)" in message
    assert "--model_file" in one_line(load_net, f"{own}:net", "", checkpoint_key="ema")


# ---------------------------------------------------------------- networks that can't be moved


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model, words", [
    ("lazy", "0.weight is a lazy tensor"), ("quantized", "quantized"), ("sparse", "0.weight is a sparse tensor"),
    ("integers", "int8"), ("empty", "nothing to move"),
])
def test_a_network_that_can_not_be_moved_is_refused_before_its_file_is_compared(model, words, own, state, tmp_path):
    assert words in one_line(loaded, f"{own}:{model}", state, tmp_path)
    assert words in one_line(load_net, f"{own}:{model}", "")


# ---------------------------------------------------------------- shortcuts without parameters


def test_a_file_without_shortcut_weights_names_both_networks_that_it_may_be_of(tmp_path):
    weights = {key: value for key, value in trained_weights().items() if "shortcut" not in key}
    message = one_line(loaded, "resnet20", weights, tmp_path)
    assert "--model resnet20_noshort" in message and '--model resnet20 --model_kwargs \'{"shortcut": "A"}\'' in message
    assert '--model resnet20 --model_kwargs \'{"shortcut": "A"}\'' in one_line(loaded, "resnet56", weights, tmp_path)


def test_shortcut_weights_in_a_file_for_a_network_without_are_told():
    from losslandscape.networks.loading import Architecture

    message = one_line(load_net, Architecture.parse("resnet20", '{"shortcut": "A"}'), CHECKPOINT)
    assert message.endswith("give --model resnet20 without these --model_kwargs")
