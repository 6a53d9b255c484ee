"""What stands beside weights is read without running its code; bombs are refused. Takes about 10 s on one core."""

import argparse
import datetime
import enum
import io
import os
import pickle
import socket
import struct
import time
import types
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from torch import nn

from losslandscape.errors import InputError
from losslandscape.networks.checkpoints import checkpoint_hash, read_checkpoint
from losslandscape.networks.loading import load_net
from losslandscape.networks.pickles import Inert
from tests.test_checkpoints import one_line


class Colour(enum.Enum):
    RED = 1


class Configuration:
    """A class of the user's training script."""

    def __init__(self, **entries):
        self.__dict__.update(entries)

    def __setstate__(self, state):
        raise AssertionError("code of the file ran")

    def __eq__(self, other):
        raise AssertionError("code of the file ran")

    __hash__ = None


class Slotted:
    __slots__ = ("width",)

    def __init__(self):
        self.width = 4


class Record(dict):
    pass


def weights():
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_protocol_4(content, path):
    torch.save(content, path, pickle_protocol=4)


SAVES = [torch.save, save_protocol_4, save_old]


def info_of(value, path, save=torch.save):
    save({"state_dict": weights(), "value": value}, path)
    checkpoint = read_checkpoint(path)
    assert torch.equal(checkpoint.state_dict["weight"], weights()["weight"])
    return checkpoint.info["value"]


# value -> what is read of it
PLAIN = [
    (argparse.Namespace(lr=0.1, layers=[1, 2]), {"lr": 0.1, "layers": [1, 2]}),
    (types.SimpleNamespace(lr=0.1), {"lr": 0.1}),
    (Path("/data/cifar"), "/data/cifar"),
    (PurePosixPath("a"), "a"),
    (OrderedDict(a=1), {"a": 1}),
    (defaultdict(list, a=[1]), {"a": [1]}),
    (Counter("aab"), {"a": 2, "b": 1}),
    (deque([1, 2], maxlen=3), [1, 2]),
    ({1, 2}, {1, 2}),
    (frozenset([1, (2, 3)]), frozenset([1, (2, 3)])),
    (datetime.date(2024, 2, 29), datetime.date(2024, 2, 29)),
    (datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC), datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)),
    (datetime.timedelta(days=2), datetime.timedelta(days=2)),
    (torch.Size([2, 3]), (2, 3)),
    (torch.device("cuda:1"), torch.device("cuda:1")),
    (torch.bfloat16, torch.bfloat16),
    (np.float32(0.5), 0.5),
    (np.str_("text"), "text"),
    (b"bytes", b"bytes"),
    (bytearray(b"bytes"), bytearray(b"bytes")),
    (3 + 4j, 3 + 4j),
    (2**70, 2**70),
    (None, None),
]


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("value, expected", PLAIN, ids=lambda value: type(value).__name__)
def test_plain_values_beside_the_weights_are_read(value, expected, save, tmp_path):
    info = info_of(value, tmp_path / "m.pt", save)
    assert info == expected


ARRAYS = [
    np.arange(6).reshape(2, 3), np.arange(6, dtype=">i2"), np.asfortranarray(np.eye(3, dtype=np.float16)),
    np.array(["a", "bcd"]), np.array([True]), np.zeros((0, 4)), np.array(1.5), np.array([b"x"]), np.array([1j]),
]  # fmt: skip


@pytest.mark.parametrize("save", [*SAVES, lambda c, p: torch.save(c, p, pickle_protocol=5)])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.dtype.str)
def test_arrays_are_read(array, save, tmp_path):
    info = info_of(array, tmp_path / "m.pt", save)
    assert info.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(info, array)


@pytest.mark.parametrize("save", SAVES)
def test_arrays_may_be_the_weights(save, tmp_path):
    save({"state_dict": {name: value.numpy() for name, value in weights().items()}}, tmp_path / "m.pt")
    (tmp_path / "own.py").write_text("from torch import nn\ndef net(): return nn.Linear(3, 2)\n")
    net = load_net(f"{tmp_path}/own.py:net", tmp_path / "m.pt")
    assert torch.equal(net.weight, weights()["weight"])


UNKNOWN = [
    Configuration(width=4), Colour.RED, Slotted(), Record(a=1), nn.functional.relu, nn.ReLU, torch.Generator,
    datetime.datetime,
]  # fmt: skip


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("value", UNKNOWN, ids=lambda value: getattr(value, "__name__", type(value).__name__))
def test_objects_of_other_classes_are_not_made(value, save, tmp_path):
    info = info_of(value, tmp_path / "m.pt", save)
    assert type(info) is not type(value) and not callable(info)
    assert getattr(value, "__name__", type(value).__name__).split(".")[-1] in repr(info)


def test_an_object_that_is_not_made_keeps_its_plain_state(tmp_path):
    inert = info_of(Configuration(width=4, inner=Configuration(lr=0.1)), tmp_path / "m.pt")
    assert isinstance(inert, Inert) and inert.state["width"] == 4 and inert.state["inner"].state == {"lr": 0.1}
    assert info_of(Record(a=1), tmp_path / "m.pt").entries == {"a": 1}
    assert info_of(Slotted(), tmp_path / "m.pt").state == {"width": 4}


def test_names_of_objects_that_are_not_made_are_said(tmp_path, capsys):
    (tmp_path / "own.py").write_text("from torch import nn\ndef net(): return nn.Linear(3, 2)\n")
    torch.save({"state_dict": weights(), "args": Configuration(), "more": [Configuration()]}, tmp_path / "m.pt")
    load_net(f"{tmp_path}/own.py:net", tmp_path / "m.pt")
    said = capsys.readouterr().err
    assert said.count("test_networks_pickles.Configuration") == 1 and said.count("\n") == 1
    load_net(f"{tmp_path}/own.py:net", tmp_path / "m.pt", quiet=True)
    assert not capsys.readouterr().err


def test_omegaconf_is_read_as_what_it_holds(tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"lr": 0.1, "layers": [1, 2], "inner": {"width": 3}})
    inert = info_of(config, tmp_path / "m.pt")
    assert "DictConfig" in repr(inert) and inert.state["_content"]["lr"].state["_val"] == 0.1


# ---------------------------------------------------------------- nothing runs


class Calls:
    """Pickles as a call of `function`; what is pickled comes before it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path):
    Path(path).touch()


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("function", [os.mkdir, touch, eval, exec, open, os.system, getattr], ids=lambda f: f.__name__)
def test_nothing_that_a_pickle_calls_is_called(function, save, tmp_path):
    trace = tmp_path / "it_ran"
    arguments = {
        eval: (f"open({str(trace)!r}, 'w')",), exec: (f"open({str(trace)!r}, 'w')",), open: (str(trace), "w"),
        os.system: (f"touch {trace}",), getattr: (Calls(os.mkdir, str(trace)), "name"),
    }.get(function, (str(trace),))  # fmt: skip
    save({"state_dict": weights(), "value": Calls(function, *arguments)}, tmp_path / "m.pt")
    if function is touch:
        assert "touch" in repr(read_checkpoint(tmp_path / "m.pt").info["value"])
    else:
        assert "--trust_pickle" in one_line(read_checkpoint, tmp_path / "m.pt")
    assert not trace.exists()


def assembled(*opcodes):
    """A file of torch.save whose pickle is made of these bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"".join(opcodes))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(16))
    return buffer.getvalue()


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


STATES_FOR_WHAT_HAS_NONE = {
    "a class of torch": b"ctorch.nn.parameter\nParameter\n}" + text("__doc__") + text("changed") + b"sb.",
    "the class of storages": b"ctorch.storage\nUntypedStorage\n}" + text("__doc__") + text("changed") + b"sb.",
    "a function": b"ctorch._utils\n_rebuild_tensor_v2\nN}" + text("__doc__") + text("changed") + b"s\x86b.",
    "a dtype": b"ctorch\nfloat32\n}" + text("x") + text("y") + b"sb.",
    "a number": b"K\x01}" + text("x") + text("y") + b"sb.",
}
WRONG_CALLS = {
    "a number": b"K\x01)R.",
    "the class of storages": b"ctorch.storage\nUntypedStorage\nK\xff\x85R.",
    "the type of a storage": b"ctorch\nFloatStorage\nK\xff\x85R.",
    "a dtype": b"ctorch\nfloat32\n)R.",
    "what was read": b"}(" + text("a") + b"K\x01u)R.",
    "the registry": b"\x82\x01.",
    "a set with an item": b"K\x01(K\x02\x90.",
    "a list with an entry": b"](K\x01K\x02u.",
    "a dict with an item": b"}K\x01a.",
}


@pytest.mark.parametrize("opcodes", [*STATES_FOR_WHAT_HAS_NONE.values(), *WRONG_CALLS.values()],
                         ids=[*STATES_FOR_WHAT_HAS_NONE, *WRONG_CALLS])
def test_a_pickle_changes_nothing_and_calls_nothing_else(opcodes, tmp_path):
    before = [torch.nn.Parameter.__doc__, torch.UntypedStorage.__doc__, torch._utils._rebuild_tensor_v2.__doc__]
    (tmp_path / "m.pt").write_bytes(assembled(opcodes))
    one_line(read_checkpoint, tmp_path / "m.pt")
    assert before == [torch.nn.Parameter.__doc__, torch.UntypedStorage.__doc__,
                      torch._utils._rebuild_tensor_v2.__doc__]


# ---------------------------------------------------------------- bombs


def nested(make, depth=40, seed=()):
    """make(make(...), the same) and so on: 2 ** depth values when written out."""
    value = seed
    for _ in range(depth):
        value = make(value)
    return value


def tuple_key(path):
    """A key that pickle itself could not write, for it would hash it."""
    duplicate_in_a_pair = b"2\x86"
    path.write_bytes(assembled(b"})", duplicate_in_a_pair * 40, b"K\x01s."))


def frozenset_key(path):
    """Two equal keys that are compared item by item; each item is a pair of the same item."""
    key = b"(" + text("a") + b"\x91"
    for _ in range(40):
        key = b"(" + key + b"2\x86\x91"
    path.write_bytes(assembled(b"}", key, b"K\x01s", key, b"K\x02s."))


def nested_lists(path):
    torch.save({"state_dict": weights(), "value": nested(lambda value: [value, value], seed=[1])}, path)


def nested_dicts(path):
    torch.save({"state_dict": weights(), "value": nested(lambda value: {"a": value, "b": value}, seed={})}, path)


def deep_list(path):
    value = []
    for _ in range(300):
        value = [value]
    torch.save({"state_dict": weights(), "value": value}, path)


def very_deep_list(path):
    path.write_bytes(assembled(b"]" * 100_000 + b"a" * 99_999 + b"."))


def huge_tensor(path):
    """16 bytes that a size and a stride of 0 make 2 ** 60 values; more than is stored is asked for."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
    size = b"\x8a\x08" + struct.pack("<q", 2**60) + b"\x85"
    path.write_bytes(assembled(b"}", text("weight"), b"ctorch._utils\n_rebuild_tensor_v2\n(", storage, b"K\x00", size,
                               b"K\x01\x85\x89}tRs."))


def negative_stride(path):
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
    path.write_bytes(assembled(b"}", text("weight"), b"ctorch._utils\n_rebuild_tensor_v2\n(", storage, b"K\x00",
                               b"K\x04\x85J\xff\xff\xff\xff\x85\x89}tRs."))


def huge_storage(path):
    count = b"\x8a\x05" + (2**36).to_bytes(5, "little")
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + text("0") + text("cpu") + count + b"tQ"
    path.write_bytes(assembled(b"}", text("weight"), storage, b"s."))


def huge_old_storage(path):
    save_old({"weight": torch.zeros(200)}, path)
    content = path.read_bytes()
    assert content.count(b"K\xc8") == 2
    path.write_bytes(content.replace(b"K\xc8", b"J\xff\xff\xff\x7f"))


def huge_text(path):
    save_old({}, path)
    path.write_bytes(path.read_bytes()[:-100] + b"\x80\x05\x8d" + struct.pack("<q", 2**40))


def huge_bytearray(path):
    path.write_bytes(assembled(b"\x80\x05\x96" + struct.pack("<q", 2**44) + b"."))


def huge_number_text(path):
    path.write_bytes(assembled(b"cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\n", text("S999999999"),
                               b"\x85RC\x00\x86R."))


def inflated(path):
    """96 MB of zeros in 400 kB."""
    torch.save({"weight": torch.zeros(2, 3)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["m/data/0"] = bytes(96 * 2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


BOMBS = [tuple_key, frozenset_key, nested_lists, nested_dicts, deep_list, very_deep_list, huge_tensor, negative_stride,
         huge_storage, huge_old_storage, huge_text, huge_bytearray, huge_number_text, inflated]


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_bomb_is_refused_at_once_and_in_little_memory(bomb, trust, tmp_path):
    bomb(tmp_path / "m.pt")
    start = time.process_time()
    if trust and bomb in (negative_stride, huge_text, huge_bytearray, huge_number_text):
        pytest.skip("who trusts a file trusts its sizes")
    message = one_line(read_checkpoint, tmp_path / "m.pt", trust_pickle=trust)
    assert "m.pt" in message and len(message) < 400
    assert time.process_time() - start < 2


def test_a_checkpoint_that_was_packed_again_is_read(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(weights(), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert torch.equal(read_checkpoint(path).state_dict["weight"], weights()["weight"])


def test_shared_and_cyclic_values_are_no_bombs(tmp_path):
    shared = {"lr": 0.1}
    cycle = [1]
    cycle.append(cycle)
    info = info_of({"groups": [shared] * 50, "cycle": cycle, "long": list(range(10**5))}, tmp_path / "m.pt")
    assert info["groups"] == [shared] * 50 and info["cycle"][1] is info["cycle"] and len(info["long"]) == 10**5


class Holder:
    """Pickles like a network, with these parts."""

    def __init__(self):
        self._modules, self._parameters, self._buffers = {}, {}, {}


def test_a_network_that_holds_itself_or_others_many_times_over_is_no_network(tmp_path):
    cyclic = Holder()
    cyclic._modules["self"] = cyclic
    bomb = Holder()
    for _ in range(40):
        outer = Holder()
        outer._modules = {"a": bomb, "b": bomb}
        bomb = outer
    start = time.process_time()
    for content in (cyclic, bomb, {"model": bomb}):
        torch.save(content, tmp_path / "m.pt")
        assert "Holder" in one_line(read_checkpoint, tmp_path / "m.pt")
    assert time.process_time() - start < 3


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_flipped_bits_are_read_or_refused(options, tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"state_dict": weights(), "args": argparse.Namespace(lr=0.1), "net": nn.Linear(2, 2)}, path, **options)
    content = path.read_bytes()
    refused = 0
    for bit in range(0, 8 * len(content), 8 * len(content) // 150):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            read_checkpoint(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert refused


# ---------------------------------------------------------------- what is no file


@pytest.mark.parametrize("suffix", [".t7", ".safetensors"])
def test_only_regular_files_are_opened(suffix, tmp_path):
    fifo = tmp_path / f"fifo{suffix}"
    os.mkfifo(fifo)
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(tmp_path)
    listener.bind(f"socket{suffix}")
    link = tmp_path / f"link{suffix}"
    link.symlink_to(fifo)
    device = tmp_path / f"device{suffix}"
    device.symlink_to("/dev/zero")
    for path in (fifo, tmp_path / f"socket{suffix}", link, device):
        for call in (read_checkpoint, checkpoint_hash):
            assert str(path) in one_line(call, path)
    listener.close()


# ---------------------------------------------------------------- tensors that can't be used

TENSORS = {
    "quantized tensor": lambda: torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8),
    "sparse tensor": lambda: torch.eye(2, 3).to_sparse(),
    "nested tensor": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "tensor without values": lambda: torch.empty(2, 3, device="meta"),
    "lazy parameter without values": lambda: nn.parameter.UninitializedParameter(),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("save", [torch.save, save_old])
@pytest.mark.parametrize("words", TENSORS)
def test_unusual_tensors_are_refused_in_words(words, save, tmp_path):
    save({"state_dict": weights() | {"weight": TENSORS[words]()}}, tmp_path / "m.pt")
    (tmp_path / "own.py").write_text("from torch import nn\ndef net(): return nn.Linear(3, 2)\n")
    message = one_line(load_net, f"{tmp_path}/own.py:net", tmp_path / "m.pt")
    assert f"its weight is a {words}" in message


def test_a_tensor_that_repeats_one_value_is_read_where_its_shape_is_that_of_the_network(tmp_path):
    (tmp_path / "own.py").write_text("from torch import nn\ndef net(): return nn.Linear(3, 2)\n")
    torch.save(weights() | {"weight": torch.ones(1).expand(2, 3)}, tmp_path / "m.pt")
    net = load_net(f"{tmp_path}/own.py:net", tmp_path / "m.pt")
    assert torch.equal(net.weight, torch.ones(2, 3)) and net.weight.is_contiguous()
    torch.save(weights() | {"weight": torch.ones(1).expand(2**20, 2**20)}, tmp_path / "m.pt")
    assert "(1048576, 1048576)" in one_line(load_net, f"{tmp_path}/own.py:net", tmp_path / "m.pt")


def test_tensors_of_every_dtype_and_view_are_those_of_torch(tmp_path):
    dtypes = [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.bool, torch.complex64,
              torch.uint16, torch.float8_e4m3fn]
    tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in dtypes}
    base = torch.arange(24.0)
    tensors |= {"view": base[3:9], "transposed": base.reshape(4, 6).t(), "scalar": base[5], "none": base[:0],
                "parameter": nn.Parameter(base), "conjugate": (base + 1j * base).conj()}
    for save in SAVES:
        if save is save_old:  # torch itself can't read these
            tensors = {name: value for name, value in tensors.items() if "uint16" not in name and "float8" not in name}
        save(tensors, tmp_path / "m.pt")
        state = read_checkpoint(tmp_path / "m.pt").state_dict
        for name, tensor in tensors.items():
            assert state[name].dtype == tensor.dtype, name
            assert torch.equal(state[name].double() if "float8" in name else state[name],
                               tensor.detach().double() if "float8" in name else tensor.detach()), name


def test_names_of_a_file_do_not_command_a_terminal(tmp_path):
    (tmp_path / "own.py").write_text("from torch import nn\ndef net(): return nn.Linear(3, 2)\n")
    torch.save(weights() | {"\x1b[2J\ncomplete": torch.ones(1)}, tmp_path / "m.pt")
    message = one_line(load_net, f"{tmp_path}/own.py:net", tmp_path / "m.pt")
    assert "\x1b" not in message and "complete" in message


def test_pickle_itself_reads_no_more_than_this_reader(tmp_path):
    """All protocols of plain values give what pickle gives."""
    from losslandscape.networks.pickles import SafeUnpickler

    value = {"a": [1, 2.5, None, True, "ü", b"x", (1, (2,)), {3}, frozenset([4])], "b": {"c": -(2**80)}}
    for protocol in range(6):
        assert SafeUnpickler(io.BytesIO(pickle.dumps(value, protocol))).load() == value
