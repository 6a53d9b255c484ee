"""Checkpoints of every format are read, and none runs code. Takes about 7 s on one core."""

import hashlib
import os
import pickle
import re
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from losslandscape.errors import InputError
from losslandscape.networks import formats
from losslandscape.networks.checkpoints import checkpoint_hash, read_checkpoint
from losslandscape.networks.loading import load_net
from tests.conftest import GOLDEN

CHECKPOINT = GOLDEN / "model_6.t7"


@pytest.fixture(scope="module")
def weights():
    return trained_weights()


def trained_weights():
    """The state dict of a trained resnet20."""
    state = torch.load(CHECKPOINT, weights_only=True)["state_dict"]
    return OrderedDict((key, value.contiguous()) for key, value in state.items())


def one_line(call, *args, **kwargs):
    """The message of the InputError that the call raises, which must be a single line."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message and "expected" in message
    return message


def prefixed(state):
    return OrderedDict((f"module.{key}", value) for key, value in state.items())


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


# file name -> function that writes weights to that path
FORMATS = {
    "dict.t7": lambda w, path: torch.save({"state_dict": w, "epoch": 6, "acc": 10.5}, path),
    "bare.pt": lambda w, path: torch.save(w, path),
    "module.t7": lambda w, path: torch.save({"state_dict": prefixed(w), "epoch": 6}, path),
    "bare_module.t7": lambda w, path: torch.save(prefixed(w), path),
    "old.t7": lambda w, path: save_old({"state_dict": w, "epoch": 6}, path),
    "old_bare_module.t7": lambda w, path: save_old(prefixed(w), path),
    "plain_dict.t7": lambda w, path: torch.save(dict(w), path),
    "model.pth": lambda w, path: torch.save({"model": w, "optimizer": {"lr": 0.1}}, path),
    "net.pth": lambda w, path: torch.save({"net": w, "model": "resnet20"}, path),
    "model_state_dict.pth": lambda w, path: torch.save({"model_state_dict": w}, path),
    "parameters.pt": lambda w, path: torch.save({k: torch.nn.Parameter(v, v.is_floating_point()) for k, v in w.items()},
                                                path),
    "protocol4.pt": lambda w, path: torch.save(w, path, pickle_protocol=4),
    "file.safetensors": lambda w, path: save_file(dict(w), path, metadata={"epoch": "6"}),
    "module.safetensors": lambda w, path: save_file(prefixed(w), path),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_network(name, weights, tmp_path):
    FORMATS[name](weights, tmp_path / name)
    net = load_net("resnet20", tmp_path / name)
    state = net.state_dict()
    assert list(state) == list(weights) and not net.training
    assert all(torch.equal(state[key], value) for key, value in weights.items())


def test_the_rest_of_a_checkpoint_is_its_info(weights, tmp_path):
    for name, info in {"dict.t7": {"epoch": 6, "acc": 10.5}, "net.pth": {"model": "resnet20"}, "bare.pt": {},
                       "model.pth": {"optimizer": {"lr": 0.1}}, "file.safetensors": {"epoch": "6"}}.items():
        FORMATS[name](weights, tmp_path / name)
        checkpoint = read_checkpoint(tmp_path / name)
        assert checkpoint.info == info
        assert checkpoint.state_dict.keys() == weights.keys()


@pytest.mark.parametrize("save", [torch.save, save_old])
@pytest.mark.parametrize("number", [np.float64(12.34), np.float32(0.1), np.float16(-2.5), np.int64(-7), np.int32(300),
                                    np.uint8(200), np.bool_(True)], ids=lambda number: type(number).__name__)
def test_numpy_numbers_of_old_checkpoints_are_read_without_pickle(save, number, weights, tmp_path):
    save({"state_dict": weights, "acc": number}, tmp_path / "m.t7")
    acc = read_checkpoint(tmp_path / "m.t7").info["acc"]
    assert acc == number.item() and type(acc) is type(number.item())


def test_numpy_numbers_written_under_any_numpy_are_read(weights, tmp_path):
    """numpy 2 renamed the module that pickles of numpy scalars name."""
    save_old({"state_dict": weights, "acc": np.float64(12.34)}, tmp_path / "a.t7")
    image = (tmp_path / "a.t7").read_bytes()
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        changed = re.sub(rb"c(numpy\._?core\.multiarray)\nscalar\n", b"c" + module + b"\nscalar\n", image)
        (tmp_path / "b.t7").write_bytes(changed)
        assert read_checkpoint(tmp_path / "b.t7").info["acc"] == 12.34


# ---------------------------------------------------------------- code in files


class WithTransientBuffer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 3, bias=False)
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("transient", torch.ones(2), persistent=False)
        self.register_buffer("absent", None)


class Evil:
    """Unpickled, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, save_old], ids=["zip", "old"])
@pytest.mark.parametrize("place", ["beside the weights", "the whole file"])
def test_code_in_a_checkpoint_runs_only_when_the_user_trusts_it(save, place, weights, tmp_path):
    trace, path = tmp_path / "it_ran", tmp_path / "m.t7"
    save({"state_dict": weights, "extra": Evil(trace)} if place == "beside the weights" else Evil(trace), path)
    message = one_line(load_net, "resnet20", path)
    assert not trace.exists()
    assert "--trust_pickle" in message and "runs any code" in message and "mkdir" in message and str(path) in message
    if place == "beside the weights":
        assert torch.equal(load_net("resnet20", path, trust_pickle=True).conv1.weight, weights["conv1.weight"])
    else:
        one_line(load_net, "resnet20", path, trust_pickle=True)  # it ran, and left no weights
    assert trace.exists()


def test_code_in_a_bare_pickle_does_not_run(tmp_path):
    path = tmp_path / "m.t7"
    for protocol in range(6):
        path.write_bytes(pickle.dumps(Evil(tmp_path / "it_ran"), protocol))
        one_line(load_net, "resnet20", path)
    assert not (tmp_path / "it_ran").exists()


def test_trust_runs_no_code_where_none_is_needed(weights, tmp_path, monkeypatch):
    torch.save({"state_dict": weights, "args": Namespace(lr=0.1)}, tmp_path / "m.t7")
    monkeypatch.setattr(formats, "run_pickle", pytest.fail)
    load_net("resnet20", tmp_path / "m.t7", trust_pickle=True)


def test_the_weights_of_a_whole_pickled_network_are_read_without_its_code(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "run_pickle", pytest.fail)
    for content in (load_net("resnet20", CHECKPOINT), {"epoch": 3, "model": load_net("resnet20", CHECKPOINT)}):
        torch.save(content, tmp_path / "m.t7")
        state = load_net("resnet20", tmp_path / "m.t7").state_dict()
        assert list(state) == list(weights)
        assert all(torch.equal(state[key], value) for key, value in weights.items())


def test_a_whole_pickled_network_leaves_out_what_is_no_part_of_its_state(tmp_path):
    net = WithTransientBuffer()
    torch.save(net, tmp_path / "m.pt")
    assert list(read_checkpoint(tmp_path / "m.pt").state_dict) == list(net.state_dict()) == ["kept", "inner.weight"]


# ---------------------------------------------------------------- what can't be used


def truncated(share):
    return lambda path: path.write_bytes(CHECKPOINT.read_bytes()[: int(CHECKPOINT.stat().st_size * share)])


def old_truncated(path):
    save_old(torch.load(CHECKPOINT, weights_only=True), path)
    path.write_bytes(path.read_bytes()[:-5000])


def a_zip(path):
    with zipfile.ZipFile(path, "w") as f:
        f.writestr("readme/data.txt", "no weights")


BAD_FILES = {  # what is wrong -> function that makes the file
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "directory": lambda path: path.mkdir(),
    "text": lambda path: path.write_text("state_dict\n" * 100),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "random": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "pickle mark only": lambda path: path.write_bytes(b"\x80\x02"),
    "pickle of nothing": lambda path: path.write_bytes(pickle.dumps(None)),
    "zip mark only": lambda path: path.write_bytes(b"PK\x03\x04"),
    "another zip": a_zip,
    "first half": truncated(0.5),
    "nearly all": truncated(0.999),
    "old format without its end": old_truncated,
    "npz": lambda path: path.write_bytes((GOLDEN / "data.npz").read_bytes()),
    "hdf5": lambda path: path.write_bytes((GOLDEN / "hess_1d.h5").read_bytes()),
    "a number": lambda path: torch.save(3, path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "empty dict": lambda path: torch.save({}, path),
    "empty state dict": lambda path: torch.save({"state_dict": {}}, path),
    "numbers for weights": lambda path: torch.save({"state_dict": {"conv1.weight": 1.0}}, path),
    "weights of another network": lambda path: torch.save({"ema": {"conv1.weight": torch.zeros(1)}}, path),
    "numbers for keys": lambda path: torch.save({1: torch.zeros(1)}, path),
    "sparse weights": lambda path: torch.save({"conv1.weight": torch.eye(3).to_sparse()}, path),
    "weights without values": lambda path: torch.save({"conv1.weight": torch.empty(3, device="meta")}, path),
    "keys twice": lambda path: torch.save({"module.conv1.weight": torch.zeros(1), "conv1.weight": torch.ones(1)}, path),
}


@pytest.mark.parametrize("damage", BAD_FILES)
def test_a_bad_file_is_one_line_that_names_it(damage, tmp_path):
    path = tmp_path / "model.t7"
    BAD_FILES[damage](path)
    for trust in (False, True):
        message = one_line(load_net, "resnet20", path, trust_pickle=trust)
        assert str(path) in message and "Traceback" not in message and len(message) < 400


@pytest.mark.parametrize("damage", ["missing", "empty", "directory", "text", "zeros", "random", "first half", "hdf5"])
def test_a_bad_safetensors_file_is_one_line_that_names_it(damage, tmp_path):
    path = tmp_path / "model.safetensors"
    BAD_FILES[damage](path)
    assert str(path) in one_line(load_net, "resnet20", path)


def test_a_path_through_a_file_or_with_a_long_name_is_one_line(tmp_path):
    (tmp_path / "f").write_text("")
    for path in (tmp_path / "f" / "model.t7", tmp_path / ("m" * 300)):
        one_line(load_net, "resnet20", path)
        one_line(checkpoint_hash, path)


def test_checkpoint_hash_is_the_sha256_of_the_file():
    assert checkpoint_hash(CHECKPOINT) == hashlib.sha256(Path(CHECKPOINT).read_bytes()).hexdigest()
    one_line(checkpoint_hash, GOLDEN)
