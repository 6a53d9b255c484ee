"""Pickles, read without running the code that they ask for.

    with open(path, "rb") as f:
        value = SafeUnpickler(f, encoding="latin1").load()

A pickle is a program: it names functions and classes of any module, and calls them. Here it gets
none of them. Plain values, tensors, arrays and what training scripts store beside their weights
(BUILDERS) are made by functions of this module; every other object becomes an `Inert`, which has
the object's name and its plain state, and does nothing. A pickle that calls what only an attack
calls (is_attack) is refused, although it could do no harm.

The weights-only reader of torch does the same for fewer classes: it knows no argparse.Namespace, no
array, no pickle of protocol 4. It also hashes for ever where a key is a tuple of tuples of tuples
of ..., each the same one twice. Here keys are looked at before they are hashed (check_key). So no
file needs a process of its own with a time limit: every step takes time and memory in proportion
to the bytes that it reads, up to the bounds below.
"""

import codecs
import collections
import datetime
import itertools
import os
import pickle
import types
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names of Python 2 in those of Python 3

import torch

from losslandscape.networks import pickled_arrays
from losslandscape.networks.pickled_arrays import ArrayType

MAX_KEY_PARTS = 1000  # of a key of a dict that is a tuple: itself, its items, theirs, ...
MAX_DIMENSIONS = 64  # of a tensor, as in torch
MAX_DEPTH = 200  # of lists, dicts, ... in each other
MAX_COPIES = 100  # of every value, on average, when the whole is written out
LENGTH_ALLOWANCE = 10**6  # values that may be written out in any case


class AsksForCode(pickle.UnpicklingError):
    """The pickle calls what only code that is run can give; `name` says what."""

    def __init__(self, name):
        super().__init__(f"asks for {name}")
        self.name = name


class Unbounded(pickle.UnpicklingError):
    """What the pickle asks for takes more time or memory than its size justifies."""


SHARDED_TENSOR = "sharded tensor"  # the name of the Inert of a DTensor


class Name:
    """A function or class that a pickle names: 'torch.optim.sgd.SGD'. Nothing is imported."""

    __slots__ = ("path",)

    def __init__(self, path):
        self.path = path

    def __repr__(self):
        return self.path


class Inert:
    """Stands for an object whose class is not run.

    name: of its class, or of the function that would have made it. arguments: that it would have
    been called with. state: a dict of its attributes, as far as the pickle has them as one.
    items, entries: what it has as a list or a dict.
    """

    __slots__ = ("name", "arguments", "state", "items", "entries")

    def __init__(self, name, arguments=()):
        self.name = name
        self.arguments = arguments
        self.state = {}
        self.items = []
        self.entries = {}

    def __repr__(self):
        return f"<{self.name}>"


class Attributes(dict):
    """The attributes of an argparse.Namespace or a types.SimpleNamespace."""


# ---------------------------------------------------------------- the reader


class SafeUnpickler(pickle._Unpickler):
    """Reads a pickle of any protocol; see the module.

    Raises AsksForCode, and for a damaged pickle any other exception.
    """

    storage_sizes = None  # {key: bytes} of the values beside the pickle, where they are known
    storage_room = float("inf")  # bytes of all of them

    def __init__(self, file, **options):
        super().__init__(file, **options)
        self.claimed = {}  # {key: bytes} of the storages that the pickle names
        self.claimed_bytes = 0

    def find_class(self, module, name):
        """What stands for a function or class: a Name, or a plain value of torch."""
        if self.proto < 3 and (module, name) in NAME_MAPPING:
            module, name = NAME_MAPPING[module, name]
        elif self.proto < 3 and module in IMPORT_MAPPING:
            module = IMPORT_MAPPING[module]

        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return torch.UntypedStorage
        return Name(f"{module}.{name}")

    def call(self, function, arguments):
        """What a pickle gets for calling `function`, which is a Name or an Inert."""
        if isinstance(function, Inert):
            return Inert(function.name, arguments)
        if not isinstance(function, Name) or not isinstance(arguments, tuple | list):
            raise pickle.UnpicklingError("it calls what is no function")

        if is_attack(function.path):
            raise AsksForCode(function.path)
        builder = BUILDERS.get(function.path)
        if builder is None:
            return Inert(function.path, tuple(arguments))
        try:
            return builder(*arguments)
        except (TypeError, ValueError, OverflowError):  # arguments of a version to come
            return Inert(function.path, tuple(arguments))

    # ------------------------------------------------------------ what calls

    def _instantiate(self, klass, args):  # the name that the reader of the library calls
        self.append(self.call(klass, args))

    def load_reduce(self):
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_newobj(self):
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_newobj_ex(self):
        self.stack.pop()  # keyword arguments
        self.load_newobj()

    def load_rebuild(self):
        """The state of the last object: BUILD."""
        state = self.stack.pop()
        target = self.stack[-1]

        # of a class with __slots__: (attributes or None, slots)
        if type(state) is tuple and len(state) == 2 and all(
            part is None or type(part) is dict for part in state
        ):
            state = (state[0] or {}) | (state[1] or {})

        if isinstance(target, Attributes | Inert):
            if type(state) is dict:
                attributes = target if isinstance(target, Attributes) else target.state
                attributes.update(state)
        elif isinstance(target, ArrayType):
            target.set_state(state)
        elif pickled_arrays.is_pickled_array(target):
            pickled_arrays.fill(target, state)
        elif not isinstance(target, dict | list | set):  # whose attributes are of no use here
            raise pickle.UnpicklingError("it gives a state to what has none")

    def load_extension(self):
        raise AsksForCode("copyreg's registry")

    # ------------------------------------------------------------ what fills containers

    def load_append(self):
        item = self.stack.pop()
        self.items_of_last().append(item)

    def load_appends(self):
        items = self.pop_mark()
        self.items_of_last().extend(items)

    def items_of_last(self):
        """The list that the last object is, or has."""
        target = self.stack[-1]
        if isinstance(target, Inert):
            return target.items
        if type(target) is not list:
            raise pickle.UnpicklingError("it appends to what is no list")
        return target

    def load_setitem(self):
        value = self.stack.pop()
        key = self.stack.pop()
        self.set_entries([key, value])

    def load_setitems(self):
        self.set_entries(self.pop_mark())

    def load_dict(self):
        items = self.pop_mark()
        self.append({})
        self.set_entries(items)

    def set_entries(self, items):
        """Put [key, value, key, value, ...] into the dict that the last object is, or has."""
        target = self.stack[-1]
        if isinstance(target, Inert):
            target = target.entries
        if not isinstance(target, dict):
            raise pickle.UnpicklingError("it sets an entry of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.check_key(key)
            target[key] = value

    def load_additems(self):
        items = self.pop_mark()
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(items)
        else:
            target |= self.make_set(items)

    def load_frozenset(self):
        items = self.pop_mark()
        self.append(frozenset(self.make_set(items)))

    def make_set(self, items):
        for item in items:
            self.check_key(item)
        return set(items)

    def check_key(self, key):
        """Raise Unbounded for a key whose hash or comparison could take for ever."""
        check_key(key)

    # ------------------------------------------------------------ what is large

    def load_bytearray8(self):
        length = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(length)))

    def load_binpersid(self):
        """The storage of a tensor, which lies beside the pickle."""
        reference = self.stack.pop()
        if type(reference) is tuple and reference[:1] == ("module",):  # (_, class, its source, ...)
            self.append(reference[1])
            return
        self.check_storage(reference)
        self.append(self.persistent_load(reference))

    def check_storage(self, reference):
        """Raise UnpicklingError unless a storage has a size that the file can hold.

        reference: ("storage", type, key, location, number of values, ...), from torch.save.
        """
        if type(reference) is not tuple or len(reference) < 5 or reference[0] != "storage":
            raise pickle.UnpicklingError("it refers to what is no storage")
        _, storage_type, key, location, count = reference[:5]
        if type(key) is not str or type(location) is not str or not is_count(count):
            raise pickle.UnpicklingError("it refers to a storage that has no key or size")

        size = count
        if storage_type is not torch.UntypedStorage:
            size *= storage_type.dtype.itemsize
        claimed = self.claimed.get(key, 0)
        self.claimed[key] = max(size, claimed)
        self.claimed_bytes += self.claimed[key] - claimed

        room = self.storage_room
        if self.storage_sizes is not None:
            room = self.storage_sizes.get(key, 0)
        if size > room or self.claimed_bytes > self.storage_room:
            raise Unbounded(f"it claims {size} bytes of values, more than it has")

    dispatch = pickle._Unpickler.dispatch | {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_rebuild,
        pickle.EXT1[0]: load_extension,
        pickle.EXT2[0]: load_extension,
        pickle.EXT4[0]: load_extension,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.BINPERSID[0]: load_binpersid,
    }


def pickle_module(sizes=None, room=float("inf")):
    """A module like pickle for torch.load, whose readers have these sizes and this room."""

    class Unpickler(SafeUnpickler):
        storage_sizes = sizes
        storage_room = room

    def load(file, **options):
        return Unpickler(file, **options).load()

    return types.SimpleNamespace(__name__=__name__, Unpickler=Unpickler, load=load)


# ---------------------------------------------------------------- bounds


def check_key(key, look_into_objects=False):
    """Raise Unbounded for a key whose hash or comparison could take for ever.

    look_into_objects: the attributes of an object count as well.
    """
    parts = [key]
    for count, part in enumerate(parts):  # grows while it is read
        if count > MAX_KEY_PARTS:
            raise Unbounded("it has a key of tuples in tuples in tuples")
        if isinstance(part, tuple | frozenset):
            parts.extend(itertools.islice(part, MAX_KEY_PARTS + 1))
        elif isinstance(part, Inert) and look_into_objects:
            parts.extend(itertools.islice(part.state.values(), MAX_KEY_PARTS + 1))


def make_set(items=()):
    for item in items:
        check_key(item)
    return set(items)


def survey(value):
    """Names of the outermost Inert objects in `value`, each once.

    Raises Unbounded for containers in each other that could not be written out: [a, a] with
    a = [b, b] with b = [c, c], ..., 40 deep, is small as long as nobody prints or compares it.
    """
    lengths = {}  # id of a container -> how many values it has when it is written out
    names = {}
    held = 0  # values in all containers, each container counted once

    def length_of(part, depth):
        nonlocal held
        if isinstance(part, Inert):
            names[part.name] = True
        if not isinstance(part, dict | list | tuple | set | frozenset):
            return 1
        if id(part) in lengths:
            return lengths[id(part)]
        if depth > MAX_DEPTH:
            raise Unbounded(f"its values are nested more than {MAX_DEPTH} deep")

        lengths[id(part)] = 1  # for a container that holds itself
        items = part.values() if isinstance(part, dict) else part
        held += len(items)
        lengths[id(part)] = 1 + sum(length_of(item, depth + 1) for item in items)
        return lengths[id(part)]

    if length_of(value, 0) > MAX_COPIES * (held + 1) + LENGTH_ALLOWANCE:
        raise Unbounded("its values are nested in each other many times over")
    return list(names)


def is_count(number):
    return type(number) is int and number >= 0


def is_attack(path):
    """Whether only a pickle that wants to run code calls this function."""
    module, _, name = path.rpartition(".")
    top_module = module.partition(".")[0]
    if top_module in ("builtins", "io", "_io"):
        return name in CALLS_OF_ATTACKS
    return top_module in MODULES_OF_ATTACKS


CALLS_OF_ATTACKS = {"eval", "exec", "compile", "open", "__import__", "breakpoint", "input"}
MODULES_OF_ATTACKS = {
    "os", "posix", "nt", "sys", "subprocess", "shutil", "importlib", "runpy", "ctypes", "socket",
    "pty", "code", "codeop", "pdb", "bdb", "timeit", "cProfile", "profile", "trace", "webbrowser",
    "pydoc", "pip",
}  # fmt: skip


# ---------------------------------------------------------------- tensors


def make_tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
    """The tensor of shape `size` on a storage of its dtype; offset and stride in values."""
    return with_signs(view_of(storage, storage.dtype, offset, size, stride), metadata)


def make_tensor_of_type(
    storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None
):
    """The tensor of a dtype that storages have no name for, such as uint16."""
    return with_signs(view_of(storage, dtype, offset, size, stride), metadata)


def with_signs(tensor, metadata):
    """A tensor whose values are stored without their sign, or that of their imaginary parts."""
    if isinstance(metadata, dict) and metadata.get("conj") is True:
        tensor = tensor.conj()
    if isinstance(metadata, dict) and metadata.get("neg") is True:
        tensor = torch._neg_view(tensor)
    return tensor


def view_of(storage, dtype, offset, size, stride):
    """Raises UnpicklingError unless all values lie within the storage."""
    numbers = (offset, *size, *stride)
    if not all(is_count(number) for number in numbers) or len(size) > MAX_DIMENSIONS:
        raise pickle.UnpicklingError("it has a tensor of a shape that can't be")

    last = offset
    for length, step in zip(size, stride, strict=True):
        last += (length - 1) * step
    values = storage.untyped()
    if 0 not in size and (last + 1) * dtype.itemsize > values.nbytes():
        raise Unbounded("it has a tensor of more values than are stored")
    return torch.empty(0, dtype=dtype).set_(values, offset, tuple(size), tuple(stride))


def make_parameter(data, *_):
    """Parameters and tensors with attributes are read as plain tensors."""
    return data


def make_tensor_of_class(function, tensor_class, arguments, *_):
    builder = BUILDERS.get(getattr(function, "path", ""))
    if builder is None:
        return Inert(f"tensor of class {tensor_class}")
    return builder(*arguments)


def make_wrapped_tensor(tensor_class, *_):
    """A tensor around others: a shard of FSDP, or of a class of another library."""
    if str(tensor_class).endswith(".DTensor"):
        return Inert(SHARDED_TENSOR)
    return Inert("wrapped tensor")


def stand_in(words):
    """A function that makes an Inert of this name, whatever it is called with."""
    return lambda *_: Inert(words)


# ---------------------------------------------------------------- plain values


def make_ordered_dict(pairs=()):
    """Of a sequence of pairs, as Python 2 wrote them, or of none."""
    ordered = collections.OrderedDict()
    for key, value in dict_items(pairs):
        check_key(key)
        ordered[key] = value
    return ordered


def make_plain_dict(*arguments):
    """Counters and dicts with a default, without it."""
    plain = {}
    for argument in arguments:
        if isinstance(argument, dict):
            plain.update(argument)
    return plain


def dict_items(pairs):
    if isinstance(pairs, dict):
        return pairs.items()
    return pairs


def make_bytes(text="", encoding="latin1"):
    """As protocols up to 2 write them: a text whose letters are the bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError("bytes in another coding than latin1")
    return codecs.encode(text, "latin1")


def make_bytearray(content=b"", encoding="latin1"):
    if isinstance(content, str):
        content = make_bytes(content, encoding)
    return bytearray(b"" if isinstance(content, int) else content)


def make_path(*parts):
    return os.path.join(*parts)


def make_list(items=(), *_):
    return list(items)


def make_object(cls, base, state):
    """As protocols 0 and 1 write objects: of a class that extends a plain one."""
    instance = Inert(str(cls))
    if isinstance(cls, Name) and cls.path in BUILDERS:
        instance = BUILDERS[cls.path]()
    if isinstance(instance, Inert) and isinstance(state, dict):
        instance.entries.update(state)
    return instance


def make_new_object(cls, *arguments):
    return Inert(str(cls), arguments)


def make_attributes(*_):
    return Attributes()


def make_device(*arguments):
    """A torch.device, or an Inert where this torch has no such devices."""
    try:
        return torch.device(*arguments)
    except RuntimeError:
        return Inert("torch.device", arguments)


# name in the pickle -> what makes the object: without side effects, and in bounded memory
BUILDERS = {
    "torch._utils._rebuild_tensor": make_tensor,
    "torch._utils._rebuild_tensor_v2": make_tensor,
    "torch._utils._rebuild_tensor_v3": make_tensor_of_type,
    "torch._utils._rebuild_parameter": make_parameter,
    "torch._utils._rebuild_parameter_with_state": make_parameter,
    "torch.nn.parameter.Parameter": make_parameter,
    "torch._tensor._rebuild_from_type": make_tensor_of_class,
    "torch._tensor._rebuild_from_type_v2": make_tensor_of_class,
    "torch._utils._rebuild_device_tensor_from_numpy": pickled_arrays.make_tensor_of_array,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": make_parameter,
    "torch._utils._rebuild_qtensor": stand_in("quantized tensor"),
    "torch._utils._rebuild_sparse_tensor": stand_in("sparse tensor"),
    "torch._utils._rebuild_sparse_csr_tensor": stand_in("sparse tensor"),
    "torch._utils._rebuild_nested_tensor": stand_in("nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": stand_in("tensor without values"),
    "torch._utils._rebuild_wrapper_subclass": make_wrapped_tensor,
    "torch.nn.parameter.UninitializedParameter": stand_in("lazy parameter without values"),
    "torch.nn.parameter.UninitializedBuffer": stand_in("lazy buffer without values"),
    "torch.Size": tuple,
    "torch.device": make_device,
    "torch.serialization._get_layout": stand_in("torch.layout"),
    **pickled_arrays.BUILDERS,
    "collections.OrderedDict": make_ordered_dict,
    "collections.defaultdict": make_plain_dict,
    "collections.Counter": make_plain_dict,
    "collections.deque": make_list,
    "argparse.Namespace": make_attributes,
    "types.SimpleNamespace": make_attributes,
    "_codecs.encode": make_bytes,
    "builtins.bytearray": make_bytearray,
    "builtins.bytes": lambda content=b"": bytes(make_bytearray(content)),
    "builtins.complex": complex,
    "builtins.set": make_set,
    "builtins.frozenset": lambda items=(): frozenset(make_set(items)),
    "builtins.range": stand_in("range"),
    "builtins.slice": stand_in("slice"),
    "copyreg._reconstructor": make_object,
    "copyreg.__newobj__": make_new_object,
    "datetime.date": datetime.date,
    "datetime.datetime": datetime.datetime,
    "datetime.time": datetime.time,
    "datetime.timedelta": datetime.timedelta,
    "datetime.timezone": datetime.timezone,
}
for _module in ("pathlib", "pathlib._local"):
    for _name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"):
        BUILDERS[f"{_module}.{_name}"] = make_path
