"""Checkpoints of several files: shards, adapters, DCP folders. Takes about 10 s on one core."""

import hashlib
import io
import json
import os
import pickle
import shutil
import sys
import time
import types
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from losslandscape.networks.checkpoints import checkpoint_hash, read_checkpoint
from losslandscape.networks.loading import load_net
from tests.test_checkpoints import one_line
from tests.test_networks_fit import OWN, assert_has, net


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py:net"


@pytest.fixture
def state():
    torch.manual_seed(3)
    return net().state_dict()


def save_shards(state, folder, ending=".safetensors", base="model"):
    """Two shards and their index, as Hugging Face writes them."""
    folder.mkdir(exist_ok=True)
    names = list(state)
    parts = {f"{base}-00001-of-00002{ending}": names[:4], f"{base}-00002-of-00002{ending}": names[4:]}
    for file, part in parts.items():
        tensors = {name: state[name] for name in part}
        save_file(tensors, folder / file) if ending == ".safetensors" else torch.save(tensors, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = folder / f"{base}{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("ending, base", [(".safetensors", "model"), (".bin", "pytorch_model")])
def test_shards_are_read_by_their_index_or_their_folder(ending, base, own, state, tmp_path):
    index = save_shards(state, tmp_path / "hf", ending, base)
    assert_has(load_net(own, index), state)
    assert_has(load_net(own, tmp_path / "hf"), state)
    assert checkpoint_hash(index) == checkpoint_hash(tmp_path / "hf")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors"])
def test_a_folder_is_read_by_the_file_in_it(name, own, state, tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    path = tmp_path / "hf" / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    assert_has(load_net(own, tmp_path / "hf"), state)
    assert checkpoint_hash(tmp_path / "hf") == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_hash_of_shards_covers_every_file(state, tmp_path):
    index = save_shards(state, tmp_path / "hf")
    hashes = {checkpoint_hash(index)}
    for name in sorted(os.listdir(tmp_path / "hf")):
        path = tmp_path / "hf" / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        hashes.add(checkpoint_hash(index))
        path.write_bytes(before)
    assert len(hashes) == 4


BAD_INDEXES = {
    "no JSON": "weights", "a list": "[]", "empty": "{}", "no names": '{"weight_map": {}}',
    "a number": '{"weight_map": 3}',
    "another folder": '{"weight_map": {"a": "../m.safetensors"}}', "up": '{"weight_map": {"a": ".."}}',
    "an absolute path": '{"weight_map": {"a": "/etc/passwd"}}', "a number as file": '{"weight_map": {"a": 3}}',
    "a file that is absent": '{"weight_map": {"a": "absent.safetensors"}}', "deep": '{"a":' * 10**5,
    "a tensor that is absent": '{"weight_map": {"absent": "model-00001-of-00002.safetensors"}}',
}  # fmt: skip


@pytest.mark.parametrize("content", BAD_INDEXES.values(), ids=BAD_INDEXES)
def test_a_bad_index_is_one_line_that_names_it(content, state, tmp_path):
    index = save_shards(state, tmp_path / "hf")
    index.write_text(content)
    assert str(tmp_path / "hf") in one_line(read_checkpoint, index)


FOLDERS = {
    "saved_model.pb": "TensorFlow", "mp_rank_00_model_states.pt": "zero_to_fp32.py", "flax_model.msgpack": "PyTorch",
    "model_3.t7": "model_3.t7", "README": "README",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_without_weights_is_refused_with_what_to_do(name, tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / name).touch()
    assert FOLDERS[name] in one_line(read_checkpoint, tmp_path / "dir")
    assert FOLDERS[name] in one_line(checkpoint_hash, tmp_path / "dir")


# ---------------------------------------------------------------- other formats


def jit(path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def exported(path):
    """The names of what torch.export.save writes, which takes seconds."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("archive_format", "byteorder", "models/model.json", "data/weights/weight_0", "version"):
            archive.writestr(f"m/{name}", "pt2")


OTHERS = {
    "m.pt": (jit, "torch.jit.load('m.pt').state_dict()"),
    "m.pt2": (exported, "torch.export.load('m.pt2').state_dict"),
    "m.onnx": (lambda path: path.write_bytes(b"\x08\x07\x12\x07pytorch"), "ONNX"),
    "m.h5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "Keras"),
    "m.gguf": (lambda path: path.write_bytes(b"GGUF" + bytes(100)), "GGUF"),
    "m.pb": (lambda path: path.write_bytes(b"\x08\x01"), "TensorFlow"),
    "m.ckpt.index": (lambda path: path.write_bytes(b"\0\0"), "TensorFlow"),
    "m.bin": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "m.safetensors": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "m.pth": (lambda path: path.write_text("<!DOCTYPE html><html>"), "web"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused_with_what_to_export(name, tmp_path):
    make, words = OTHERS[name]
    make(tmp_path / name)
    for trust in (False, True):
        assert words in one_line(read_checkpoint, tmp_path / name, trust_pickle=trust)


def test_trusted_pickle_finds_its_class_in_the_file_of_the_model(tmp_path, monkeypatch):
    """A network whose state is made by code: only pickle reads it, and its class was in a script."""
    code = """
import torch
from torch import nn

class Net(nn.Linear):
    def __reduce__(self):
        return make, (self.weight.tolist(), self.bias.tolist())

def make(weight, bias):
    made = Net(3, 2)
    made.weight.data, made.bias.data = torch.tensor(weight), torch.tensor(bias)
    return made

def net():
    return Net(3, 2)
"""
    (tmp_path / "own.py").write_text(code)
    script = types.ModuleType("__main__")
    exec(code, script.__dict__)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "__main__", script)
        trained = script.net()
        torch.save(trained, tmp_path / "m.pt")

    model = f"{tmp_path}/own.py:net"
    message = one_line(load_net, model, tmp_path / "m.pt")
    assert "__main__.make" in message and "--trust_pickle" in message and "state_dict()" in message
    assert torch.equal(load_net(model, tmp_path / "m.pt", trust_pickle=True).weight, trained.weight)


# ---------------------------------------------------------------- torch.distributed.checkpoint


@pytest.fixture(scope="module")
def dcp():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch.distributed.checkpoint")


def save_dcp(dcp, content, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(content, checkpoint_id=folder, no_dist=True)


def test_a_dcp_folder_is_read_on_one_process(dcp, own, state, tmp_path):
    optimizer = torch.optim.SGD(net().parameters(), 0.1, momentum=0.9)
    for i, content in enumerate([{"model": state, "optimizer": optimizer.state_dict(), "epoch": 3}, state]):
        save_dcp(dcp, content, tmp_path / f"dcp{i}")
        assert_has(load_net(own, tmp_path / f"dcp{i}"), state)
    assert_has(load_net(own, tmp_path / "dcp0", checkpoint_key="model"), state)
    assert len({checkpoint_hash(tmp_path / f"dcp{i}") for i in (0, 1)}) == 2
    assert not torch.distributed.is_initialized()


def test_the_chunks_of_several_ranks_are_put_together(dcp, own, state, tmp_path):
    """A tensor in two chunks, in two files, as two ranks of FSDP write it."""
    save_dcp(dcp, state, tmp_path / "dcp")
    path = tmp_path / "dcp" / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

    outline = metadata.state_dict_metadata["0.weight"]
    outline.chunks = [ChunkStorageMetadata(torch.Size([i, 0]), torch.Size([2, 3])) for i in (0, 2)]
    metadata.storage_data = {i: p for i, p in metadata.storage_data.items() if i.fqn != "0.weight"}
    for i, start in enumerate((0, 2)):
        buffer = io.BytesIO()
        torch.save(state["0.weight"][start : start + 2].clone(), buffer)
        (tmp_path / "dcp" / f"__{i + 1}_0.distcp").write_bytes(b"###" + buffer.getvalue())
        index = MetadataIndex("0.weight", torch.Size([start, 0]), i)
        metadata.storage_data[index] = _StorageInfo(f"__{i + 1}_0.distcp", 3, len(buffer.getvalue()))
    path.write_bytes(pickle.dumps(metadata))
    assert_has(load_net(own, tmp_path / "dcp"), state)

    (tmp_path / "dcp" / "__2_0.distcp").unlink()
    assert "__2_0.distcp" in one_line(load_net, own, tmp_path / "dcp")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Touch(Evil):
    def __reduce__(self):
        return pickle.loads, (pickle.dumps(Evil(self.path)),)


@pytest.mark.parametrize("kind", [Evil, Touch])
def test_code_in_the_metadata_does_not_run(kind, dcp, own, state, tmp_path):
    save_dcp(dcp, state, tmp_path / "dcp")
    path = tmp_path / "dcp" / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    metadata.planner_data = kind(tmp_path / "it_ran")
    for protocol in range(6):
        path.write_bytes(pickle.dumps(metadata, protocol))
        for trust in (False, True):
            one_line(load_net, own, tmp_path / "dcp", trust_pickle=trust)
    assert not (tmp_path / "it_ran").exists()


def test_a_dotted_name_in_the_metadata_leads_nowhere(dcp, state, tmp_path):
    save_dcp(dcp, state, tmp_path / "dcp")
    mkdir = (b"\x80\x04\x8c\x26torch.distributed.checkpoint.filesystem\x8c\x08os.mkdir\x93\x8c"
             + bytes([len(str(tmp_path / "ran"))]) + str(tmp_path / "ran").encode() + b"\x85R.")
    (tmp_path / "dcp" / ".metadata").write_bytes(mkdir)
    one_line(read_checkpoint, tmp_path / "dcp")
    assert not (tmp_path / "ran").exists()


def test_damaged_dcp_folders_are_one_line(dcp, state, tmp_path):
    save_dcp(dcp, state, tmp_path / "good")
    metadata = (tmp_path / "good" / ".metadata").read_bytes()
    chunks = (tmp_path / "good" / "__0_0.distcp").read_bytes()
    start = time.monotonic()
    for i in range(0, len(metadata), 40):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        (tmp_path / "bad" / ".metadata").write_bytes(metadata[:i] + bytes([metadata[i] ^ 64]) + metadata[i + 1:])
        try:
            read_checkpoint(tmp_path / "bad")
        except ValueError as error:
            assert str(tmp_path / "bad") in str(error) and "\n" not in str(error)
    for cut in (0, 10, len(chunks) // 2, len(chunks) - 1):
        (tmp_path / "bad" / ".metadata").write_bytes(metadata)
        (tmp_path / "bad" / "__0_0.distcp").write_bytes(chunks[:cut])
        one_line(read_checkpoint, tmp_path / "bad")
    assert time.monotonic() - start < 30


# ---------------------------------------------------------------- adapters


LORA_CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 6}
ADAPTED = """
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.embed, self.conv, self.head = nn.Embedding(7, 4), nn.Conv2d(3, 4, 3), nn.Linear(4, 4)
"""


def save_adapter(folder, entries, **config):
    folder.mkdir(exist_ok=True)
    save_file({f"base_model.model.{name}": value for name, value in entries.items()},
              folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(LORA_CONFIG | config))
    return folder


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base.py").write_text(ADAPTED)
    return f"{tmp_path}/base.py:Base"


def lora(out_features, in_features, kernel=()):
    torch.manual_seed(1)
    return torch.randn(2, in_features, *kernel), torch.randn(out_features, 2, *[1 for _ in kernel])


@pytest.mark.parametrize("config, scale", [
    ({}, 3.0), ({"use_rslora": True}, 6 / 2**0.5), ({"alpha_pattern": {"head": 1}}, 0.5),
])
def test_an_adapter_is_merged_into_the_base_network(config, scale, base, tmp_path, capsys):
    a, b = lora(4, 4)
    folder = save_adapter(tmp_path / "adapter", {"head.lora_A.weight": a, "head.lora_B.weight": b}, **config)
    before = load_net(base, "").state_dict()
    for path in (folder, folder / "adapter_model.safetensors"):
        after = load_net(base, path).state_dict()
        torch.testing.assert_close(after["head.weight"], before["head.weight"] + scale * (b @ a))
        assert all(torch.equal(after[name], before[name]) for name in before if name != "head.weight")
        assert "adapter" in capsys.readouterr().err
    assert checkpoint_hash(folder) == checkpoint_hash(folder / "adapter_model.safetensors")


def test_adapters_of_convolutions_and_embeddings_and_whole_layers_are_merged(base, tmp_path):
    conv_a, conv_b = lora(4, 3, (3, 3))
    embedding_a, embedding_b = lora(4, 7)
    folder = save_adapter(tmp_path / "adapter", {
        "conv.lora_A.weight": conv_a, "conv.lora_B.weight": conv_b, "embed.lora_embedding_A": embedding_a,
        "embed.lora_embedding_B": embedding_b, "head.weight": torch.ones(4, 4), "conv.base_layer.bias": torch.ones(4)})
    before, after = load_net(base, "").state_dict(), load_net(base, folder).state_dict()
    change = nn.functional.conv2d(conv_a.permute(1, 0, 2, 3), conv_b).permute(1, 0, 2, 3)
    torch.testing.assert_close(after["conv.weight"], before["conv.weight"] + 3 * change)
    torch.testing.assert_close(after["embed.weight"], before["embed.weight"] + 3 * (embedding_b @ embedding_a).t())
    assert torch.equal(after["head.weight"], torch.ones(4, 4)) and torch.equal(after["conv.bias"], torch.ones(4))


@pytest.mark.parametrize("entries, config, words", [
    ({}, {"peft_type": "IA3"}, "merge_and_unload"), ({}, {"use_dora": True}, "merge_and_unload"),
    ({}, {"alpha_pattern": {"(a+)+": 3}}, "merge_and_unload"), ({}, {"lora_alpha": "x"}, "lora_alpha"),
    ({"other.lora_A.weight": torch.ones(2, 4)}, {}, "other"), ({"head.lora_B.bias": torch.ones(4)}, {}, "head"),
    ({"head.lora_B.weight": torch.ones(5, 2)}, {}, "another shape"),
    ({"head.weight": torch.ones(3)}, {}, "head.weight"),
])
def test_an_adapter_that_can_not_be_merged_is_refused(entries, config, words, base, tmp_path):
    a, b = lora(4, 4)
    folder = save_adapter(tmp_path / "a", {"head.lora_A.weight": a, "head.lora_B.weight": b} | entries, **config)
    assert words in one_line(load_net, base, folder)


def test_an_adapter_of_one_of_two_tied_layers_is_refused(tmp_path):
    """PEFT leaves the other as it is; merged, both would change."""
    (tmp_path / "tied.py").write_text(
        "from torch import nn\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.embed, self.head = nn.Embedding(4, 4), nn.Linear(4, 4, bias=False)\n"
        "        self.head.weight = self.embed.weight\n")
    a, b = lora(4, 4)
    folder = save_adapter(tmp_path / "a", {"embed.lora_embedding_A": a, "embed.lora_embedding_B": b})
    assert "embed.weight, but not head.weight" in one_line(load_net, f"{tmp_path}/tied.py:Tied", folder)


def test_an_adapter_without_its_weights_is_refused(base, tmp_path):
    folder = save_adapter(tmp_path / "a", {"head.lora_A.weight": torch.ones(2, 4)})
    assert "head" in one_line(load_net, base, folder)
    (folder / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors" in one_line(load_net, base, folder)
