"""A user's function of a network, as --measure and --place take it: how it is called, and with what.

    def sharpness(net): ...                  a function of the network
    def sharpness(net, context): ...         that wants to know more: see Context
    class Sharpness:                         made once per process (once per experiment of --repeats),
        def __init__(self, net, context):    at the origin: load a reference, a tokenizer, an environment
        def __call__(self, net, context):    called at every point

It is called as in plain torch: gradients are on, parameters require them as the network says, the
network is in eval mode. All random streams (torch, NumPy, `random`, and those of the context) begin
with the same seed at every call, so a surface is smooth, and the same in every order on any number
of ranks.
"""

import inspect
import math
import numbers
import os
import re
from collections.abc import Callable, Mapping

import numpy as np
import torch

from losslandscape import user_code
from losslandscape.data.splits import Split, each, to_device
from losslandscape.errors import InputError
from losslandscape.measuring.devices import fits, tf32
from losslandscape.measuring.noise import begin_streams, undisturbed
from losslandscape.messages import printable

MEASURED_BATCH = 128  # samples, where --batch_size is not given
RESERVED_NAMES = (
    "dir_file", "xcoordinates", "ycoordinates", "computed", "provenance", "samples", "test_samples")
STATISTICS = ("_low", "_high", "_iqr", "_se")  # of --repeats and --tolerance
MAX_NAME = 64  # characters: the name is a part of the names of pictures


# ---------------------------------------------------------------- what a function is told


class Context:
    """What a user's function may want to know beside the network.

    device      torch.device of the network
    data        {"train": batches, ...}, the splits of --dataset and --eval_set; empty without one.
                `for inputs, targets in context.data["train"]` gives tensors on the device, in batches
                of --batch_size (128); `.inputs` and `.targets` are all of them
    rank        number of this process, 0 where there is one
    point       (x, y) where the network is; y is 0.0 on a line
    seed        with which all random streams begin: --noise_seed, or 0
    generator   torch.Generator on the device
    rng         numpy.random.Generator
    """

    def __init__(self, device, data=None, rank=0, seed=0):
        self.device = device
        self.data = data or {}
        self.rank = rank
        self.seed = seed
        self.point = (0.0, 0.0)
        self.generator = torch.Generator(self.device)
        self.begin_random()

    def begin_random(self):
        """Let all random streams begin anew: those of the context, and the global ones."""
        self.generator.manual_seed(self.seed)
        self.rng = np.random.default_rng(self.seed)
        begin_streams(self.seed)


class BatchesOnDevice:
    """A split of the data as a user's function gets it: batches on the device, at every pass the same.

    split: Split, or Batches, which have their own sizes.
    """

    def __init__(self, split, device, batch_size=MEASURED_BATCH):
        self._device, self._batch_size = device, batch_size
        self._split = split
        if isinstance(split, Split) and fits(split.nbytes, device):
            inputs, targets = self._moved(split.inputs), self._moved(split.targets)
            self._split = Split(inputs, targets, split.target_name)

    def _moved(self, value):
        return to_device(value, self._device)

    def __len__(self):
        """The number of samples."""
        return len(self._split)

    def __iter__(self):
        return self.batches()

    def batches(self, batch_size=None):
        """(inputs, targets) of each batch."""
        for inputs, targets in self._split.batches(batch_size or self._batch_size):
            yield self._moved(inputs), self._moved(targets)

    @property
    def inputs(self):
        """Of all samples: tensor (N, ...), or a tuple or dict of them. Raises InputError for batches."""
        return each(self._whole().inputs, self._moved)

    @property
    def targets(self):
        """The same of the targets."""
        return each(self._whole().targets, self._moved)

    def _whole(self):
        if isinstance(self._split, Split):
            return self._split
        raise InputError(
            "expected data that are held as tensors for .inputs and .targets, got batches of their "
            "own; go through them: for inputs, targets in context.data[...]")


def context_on(device, data=None, rank=0, seed=None, batch_size=None):
    """Context on a device; data: {split: Split or Batches}. The random streams stay as they are."""
    device = torch.device(device)
    batches = {
        name: BatchesOnDevice(split, device, batch_size or MEASURED_BATCH)
        for name, split in (data or {}).items()}
    with undisturbed([device]):
        return Context(device, batches, rank, seed or 0)


# ---------------------------------------------------------------- the function


class UserFunction:
    """What --measure or --place names, called as `function(net, context)` whatever it takes.

    flag, name: for messages. Raises InputError where it can't be called with a network.
    """

    def __init__(self, flag: str, name: str, function: Callable):
        self.flag, self.name = flag, name
        self._function = function
        self._takes = None
        if inspect.isclass(function):
            number_of_arguments(flag, name, function, least=0)
        else:
            self._takes = number_of_arguments(flag, name, function, least=1)

    @classmethod
    def load(cls, flag, text):
        """The function that FILE.py:function names."""
        return cls(flag, text, user_code.load(flag, text))

    def ready(self, net, context):
        """The same, with an instance in the place of a class; net: at the origin."""
        if not inspect.isclass(self._function):
            return self

        takes = number_of_arguments(self.flag, self.name, self._function, least=0)
        context.begin_random()
        with torch.enable_grad():
            instance = user_code.call(
                self.flag, self.name, self._function, *(net, context)[:takes])
        if not callable(instance):
            raise InputError(
                f"expected objects of {self.flag} {self.name} that can be called with a network, "
                "found no __call__; write def __call__(self, net)")
        return UserFunction(self.flag, self.name, instance)

    def __call__(self, net, context, allow_tf32=None, plainly=False):
        """What it returns, after all random streams were begun anew; who minds puts them back.

        plainly: what it raises is raised as it is, not as an InputError that points at the line.
        """
        arguments = (net, context)[:self._takes]
        with torch.enable_grad(), tf32(allow_tf32):
            context.begin_random()
            if plainly:
                return self._function(*arguments)
            try:
                return self._function(*arguments)
            except user_code.FAILURES as error:
                raise InputError(self._failure(error, context)) from None

    def _failure(self, error, context):
        if isinstance(error, InputError):
            return str(error)
        advice = "correct it"
        if isinstance(error, KeyError) and not context.data:
            advice = "correct it, or give --dataset for context.data"
        return (f"expected {self.flag} {self.name} to work, at {in_brackets(context.point)} it fails with "
                f"{user_code.explain(error)}; {advice}")

    def place_in_code(self):
        """'mine.py, line 3', where it begins; its name, where that is not known."""
        function = self._function
        if not inspect.isroutine(function):
            function = type(function).__call__
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is None:
            return self.name
        return f"{os.path.basename(code.co_filename)}, line {code.co_firstlineno}"


def number_of_arguments(flag, name, function, least):
    """How many of (net, context) a function takes: 0, 1 or 2.

    The second one is the context where it has no default value, or is called so. least: 1 for what
    needs a network. Raises InputError where it needs others.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of a function in C
        return 1

    positional = [
        entry for entry in parameters
        if entry.kind in (entry.POSITIONAL_ONLY, entry.POSITIONAL_OR_KEYWORD)]
    if any(entry.kind is entry.VAR_POSITIONAL for entry in parameters):
        return 2
    needed = [
        entry for entry in parameters
        if entry.default is entry.empty and entry.kind is not entry.VAR_KEYWORD]
    if len(positional) < least or len(needed) > 2 or any(e.kind is e.KEYWORD_ONLY for e in needed):
        raise InputError(
            f"expected {flag} {name} to take (net) or (net, context), got "
            f"({', '.join(str(entry) for entry in parameters)}); change its arguments")

    takes = min(len(positional), 2)
    if takes == 2 and positional[1] not in needed and positional[1].name != "context":
        takes = 1
    return takes


def in_brackets(point):
    """'(0.5, -1)'."""
    return "({})".format(", ".join(f"{coordinate:g}" for coordinate in point))


# ---------------------------------------------------------------- its results


def numbers_of(result, function):
    """{name: float} of what a measure returns; raises InputError for anything but numbers by name.

    A number is an int, a float, a bool, one of NumPy, or a tensor without dimensions. NaN and
    infinity are results.
    """
    if not isinstance(result, Mapping) or not result:
        got = type(result).__name__
        if isinstance(result, Mapping):
            got = "an empty one"
        raise InputError(
            f"expected a dict of numbers from {function.flag} {function.name}, got {got} "
            f"({function.place_in_code()}); return {{\"train_loss\": loss}}")
    return {name: as_number(value, name, function) for name, value in result.items()}


def as_number(value, name, function):
    """A value as a float."""
    number = value
    if isinstance(value, torch.Tensor) and value.dim() == 0 and not value.is_complex():
        number = value.item()
    elif isinstance(value, np.bool_):
        number = bool(value)
    elif isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "fiub":
        number = value.item()

    if isinstance(number, numbers.Real):
        try:
            return float(number)
        except OverflowError:
            return math.copysign(math.inf, number)
    raise InputError(
        f"expected a number as {name!r} from {function.flag} {function.name}, got "
        f"{kind_in_words(value)} ({function.place_in_code()}); return a float")


def kind_in_words(value):
    """What is no number: 'a tensor of shape (3,)', 'complex', 'a list', ..."""
    if isinstance(value, torch.Tensor) and value.is_complex() and value.dim() == 0:
        return f"a complex number, {value.item()}"
    if isinstance(value, complex):
        return f"a complex number, {value}"
    shape = getattr(value, "shape", None)
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return type(value).__name__


def check_names(names, function):
    """Raises InputError where a name can't be one of a surface file, and of its pictures."""
    for name in names:
        reason = ""
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]*", name):
            reason = "expected letters, digits and _ . + - in"
        elif len(name) > MAX_NAME:
            reason = f"expected at most {MAX_NAME} characters in"
        elif name in RESERVED_NAMES:
            reason = "expected another name (the files have one such already) than"
        elif name.endswith(STATISTICS):
            reason = f"expected no ending {', '.join(STATISTICS)} (of --repeats and --tolerance) in"
        if reason:
            raise InputError(
                f"{reason} the names that {function.flag} {function.name} returns, got "
                f"{printable(repr(name))} ({function.place_in_code()}); rename it")
