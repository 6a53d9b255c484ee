"""--model, --model_file -> network.

    net = load_net("resnet56", "model_300.t7")
    net = load_net(Architecture.parse("my_net.py:make", '{"width": 64}'), "my_net.pt")

A network is one of the zoo's (`resnet56`), or what a user's function or class returns:
FILE.py:function or package.module:function, called with the keyword arguments of --model_kwargs.
Its weights are those of a checkpoint whose names and shapes fit.
"""

import hashlib
import json
import sys
from dataclasses import dataclass, field

import torch
from torch import nn

from losslandscape import user_code
from losslandscape.errors import InputError
from losslandscape.measuring.copies import memory_is_shared
from losslandscape.messages import printable, say
from losslandscape.networks import adapters, zoo
from losslandscape.networks.checkpoints import (
    Checkpoint,
    candidates_in_words,
    cannot_read,
    checkpoint_hash,
    is_average,
    read_checkpoint,
    read_torch,
)
from losslandscape.networks.fit import (
    compare,
    fits_by_names,
    have_same_values,
    kind_of,
    names_in_words,
    place,
)
from losslandscape.networks.own import check_tensors, unwrapped
from losslandscape.networks.pickles import SHARDED_TENSOR

__all__ = [
    "Architecture",
    "Checkpoint",
    "architecture",
    "as_architecture",
    "check_kinds",
    "checkpoint_hash",
    "load_net",
    "read_checkpoint",
    "read_torch",
    "weights_for",
    "weights_hash",
]


def load_net(model, path, trust_pickle=False, checkpoint_key="", quiet=False):
    """Network `model` (a name, or an Architecture) with the weights at `path`, in eval mode.

    Building draws from torch's global CPU stream, as the original program does; a refused file
    leaves the stream as it was. Every tensor takes the dtype that it has in the file (half
    precision stays half), tied weights stay tied. The zoo's networks get the number of classes of
    the checkpoint. Without `path` a user's network stays as it is built.

    checkpoint_key: which weights of the file, where it has several. What of the file is not used
    is said, unless `quiet`. Raises InputError.
    """
    model = as_architecture(model)
    if not path:
        return _as_built(model, checkpoint_key)

    checkpoint = read_checkpoint(path, trust_pickle, checkpoint_key, model.module)

    # build the network, see that the weights fit, and put them in place
    random_state = torch.get_rng_state()
    try:
        if checkpoint.adapter:
            net = model.build()
            weights = Weights(adapters.merged(net, checkpoint))
        else:
            net, weights = model.build_for(checkpoint)
            model.check_weights(net, weights.entries, path)
        check_kinds(net, weights.entries, path)
        _fill(net, weights.entries, path)
    except InputError:
        torch.set_rng_state(random_state)
        raise

    if not quiet:
        if checkpoint.adapter:
            say(f"note: the adapter at {path} is put into the network of --model {model}")
        for line in weights.in_words(checkpoint):
            say(line)
    return net.eval()


def weights_hash(net):
    """SHA-256 of the values of a network that has no file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in state_of(net).items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def state_of(net):
    """{name: tensor} of a network: its state dict with tied tensors, without what is no tensor."""
    state = net.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


# ---------------------------------------------------------------- what builds a network


@dataclass(frozen=True)
class Architecture:
    """--model and --model_kwargs: what builds a network."""

    name: str
    kwargs: dict = field(default_factory=dict)

    @classmethod
    def parse(cls, name, kwargs=""):
        """Architecture of the texts of the two flags; raises InputError for an unusable one."""
        try:
            arguments = json.loads(kwargs or "{}")
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            example = '{"num_classes": 10}'
            raise InputError(f"expected --model_kwargs as a JSON object, for example {example!r}, "
                             f"got {kwargs!r:.200}")

        architecture = cls(name, arguments)
        architecture.constructor()  # a wrong name is said now
        return architecture

    @property
    def own(self):
        """Whether it is a user's own, and not one of the zoo."""
        return user_code.is_reference(self.name)

    @property
    def module(self):
        """The module that has the code of a user's network; None for the zoo's."""
        if not self.own:
            return None
        return sys.modules.get(getattr(self.constructor(), "__module__", ""))

    def __str__(self):
        if not self.kwargs:
            return self.name
        return f"{self.name} {json.dumps(self.kwargs, sort_keys=True)}"

    def constructor(self):
        """What is called with the keyword arguments. Raises InputError where there is none."""
        if self.own:
            return user_code.load("--model", self.name)
        return zoo.constructor(self.name)

    def build(self, state_dict=None):
        """A new network, drawn from torch's global CPU stream. Raises InputError.

        One of the zoo gets the number of classes of `state_dict`, unless the arguments say it.
        """
        kwargs = dict(self.kwargs)
        if not self.own and state_dict is not None:
            kwargs.setdefault("num_classes", zoo.count_classes(self.name, state_dict))

        net = user_code.call("--model", self.name, self.constructor(), **kwargs)
        if not isinstance(net, nn.Module):
            raise InputError(f"expected an nn.Module from --model {self.name}, "
                             f"got {type(net).__name__}; return one")
        net = unwrapped(net)
        check_tensors(net, f" from --model {self.name}")
        return net

    def build_for(self, checkpoint):
        """(new network, the Weights of a checkpoint that are meant for it); they need not fit."""
        if self.own:
            net = self.build()
            return net, weights_for(net, checkpoint)

        # the outline draws no random number
        weights = choose_weights(zoo.outline(self.name, kwargs=self.kwargs), checkpoint)
        return self.build(weights.entries), weights

    def blueprint(self, checkpoint):
        """The network on torch's meta device, shapes without values; nothing random is drawn.

        Where a user's network can't be built there, it is built in memory.
        """
        with torch.random.fork_rng(devices=[]):
            try:
                with torch.device("meta"):
                    return self._build_silently(checkpoint)
            except Exception:  # whatever a user's code raises
                if not self.own:
                    raise
            return self._build_silently(checkpoint)

    def _build_silently(self, checkpoint):
        if checkpoint is None:
            return self.build()
        return self.build_for(checkpoint)[0]

    def check_weights(self, net, state_dict, source):
        """Raise InputError unless `state_dict` has the names and shapes of `net`.

        `source`: the file that it was read from, for the message.
        """
        expected = state_of(net)
        for name in expected:
            value = state_dict.get(name, expected[name])
            if not isinstance(value, torch.Tensor):
                raise cannot_read(source, f"its {printable(name)} is a {kind_of(value)}, no plain "
                                  "tensor", advice_for_value(value))

        mismatch = compare(expected, state_dict)
        if not mismatch:
            return

        differences = mismatch.describe(expected, state_dict)
        if self.own:
            advice = advice_for(state_dict) or "check --model and --model_kwargs"
        else:
            advice = self._advice(expected, state_dict)
        raise InputError(f"expected the weights of {self} in {source}: {differences}; {advice}")

    check_fit = check_weights  # the former name

    def _advice(self, expected, state_dict):
        """What to do about weights that don't fit a network of the zoo."""
        names = zoo.networks_with(state_dict)

        # the network is right, its last layer is not
        if self.name in names:
            num_classes = zoo.count_classes(self.name, expected)
            trained_classes = zoo.count_classes(self.name, state_dict)
            if num_classes != trained_classes:
                return (f"these are weights of {self.name} with {trained_classes} classes, "
                        f"not {num_classes}; give the data set or the num_classes that they were "
                        "trained with")
            return f"give --model {self.name} without these --model_kwargs"
        return zoo.advise(names)


def as_architecture(model):
    """Architecture of a name, or as it is."""
    if isinstance(model, Architecture):
        return model
    return Architecture.parse(model)


architecture = as_architecture  # the former name


# ---------------------------------------------------------------- which weights


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint for one network."""

    entries: dict  # {name in the network: tensor}
    key: str = ""  # of the candidate that they are
    prefix: str = ""  # that was taken away from its names
    left_out: tuple = ()  # names of tensors that belong to no part of the network
    others: dict = field(default_factory=dict)  # candidates that fit as well

    def in_words(self, checkpoint):
        """Lines about what of a checkpoint is not used."""
        if self.others:
            yield (f"note: of {checkpoint.path} the weights {self.key or 'of the whole file'!r} "
                   f"are taken; it also has {candidates_in_words(self.others)}, which "
                   "--checkpoint_key chooses")
        if self.prefix:
            rest = ""
            if self.left_out:
                rest = f", without {names_in_words(self.left_out)}"
            yield (f"note: of {checkpoint.path} is taken what begins with "
                   f"{printable(self.prefix)!r}{rest}")
        foreign_objects = checkpoint.foreign_objects
        if foreign_objects:
            yield (f"note: {checkpoint.path} has objects beside the weights that are not made, of "
                   f"{names_in_words(foreign_objects)}")


def weights_for(net, checkpoint):
    """The Weights of a checkpoint that are meant for a network; they need not fit.

    Raises InputError where several parts of the file fit and none is likelier.
    """
    return choose_weights(state_of(net), checkpoint)


def choose_weights(expected, checkpoint):
    """Weights of a checkpoint for a network with tensors `expected`; see `weights_for`.

    Of several weights that fit, those of the network itself are taken, not their averages.
    """
    placements, refusal = {}, None
    for key, entries in checkpoint.candidates.items():
        try:
            placements[key] = place(expected, entries, checkpoint.path)
        except InputError as error:
            refusal = refusal or error

    by_names = {key: each for key, each in placements.items() if fits_by_names(expected, each)}
    by_shapes = {key: each for key, each in by_names.items() if not compare(expected, each.entries)}
    fitting = by_shapes or by_names

    # the likeliest candidate, for a message, where none fits
    if not fitting:
        if refusal:
            raise refusal
        key = next(iter(placements))
        return _weights(key, placements[key])

    likely = [key for key in fitting if not is_average(key)] or list(fitting)
    if not have_same_values([fitting[key] for key in likely]):
        candidates = {key: checkpoint.candidates[key] for key in likely}
        raise InputError(
            f"expected weights of one network in {checkpoint.path}, got several that fit: "
            f"{candidates_in_words(candidates)}; "
            f"choose with --checkpoint_key {printable(likely[0])}")

    others = {key: checkpoint.candidates[key] for key in fitting if key not in likely}
    return _weights(likely[0], fitting[likely[0]], others)


def _weights(key, placement, others=()):
    return Weights(placement.entries, key, placement.prefix, placement.left_out, dict(others))


def advice_for_value(value):
    """What to do about a value that is no plain tensor."""
    if kind_of(value) == SHARDED_TENSOR:
        return ("save the whole weights: get_model_state_dict(net, options=StateDictOptions("
                "full_state_dict=True)) of torch.distributed.checkpoint.state_dict; or a folder of "
                "torch.distributed.checkpoint")
    return "give a checkpoint of the network as it was trained"


def advice_for(state_dict):
    """What to do about names that tell how the weights were saved; '' for others."""
    names = " ".join(state_dict)
    if "_flat_param" in names:
        return ("these are the flattened parameters of FSDP; save a full state dict "
                "(torch.distributed.checkpoint.state_dict.get_model_state_dict)")
    if "lora_A" in names or "lora_embedding_A" in names:
        return ("these are weights of an adapter; give its folder, with adapter_config.json, or "
                "the merged network: merge_and_unload()")
    if "parametrizations." in names or "weight_g" in names:
        return "these weights are parametrized (weight_norm, ...); --model must build them so"
    if "qweight" in names or ".SCB" in names or "_packed_params" in names:
        return "these are quantized weights; give those before the quantization"
    return ""


# ---------------------------------------------------------------- weights into a network


def _as_built(model, checkpoint_key):
    """The network with the weights that its own function gives it."""
    if not model.own:
        raise InputError(f"expected --model_file, a trained {model}; only a network of your own "
                         "(--model FILE.py:function) can come with its weights")
    if checkpoint_key:
        raise InputError("expected --model_file with --checkpoint_key, got none; give the file")
    return model.build().eval()


def check_kinds(net, state_dict, path):
    """Raise InputError where the file has whole numbers for real ones, or the other way round."""
    expected = state_of(net)
    for name, value in state_dict.items():
        if _kind(value) != _kind(expected[name]):
            raise cannot_read(
                path, f"{printable(name)} is {value.dtype}, expected {expected[name].dtype}")


def _kind(tensor):
    return tensor.is_floating_point(), tensor.is_complex()


def _fill(net, state_dict, path):
    """Put the values of `state_dict` into `net`, in their own dtypes; what it lacks stays.

    They get plain strides, for the last bits of a convolution may depend on those of its weights;
    but memory that the network holds twice (`self.w2 = self.w.data`) is filled where it lies.
    A tensor that has several names in the network may stand in the file under one of them, or under
    several with equal values. Raises InputError where they differ.
    """
    filled_from = {}  # id of a tensor of the network -> the name whose values it has
    for name, tensor in state_of(net).items():
        if name not in state_dict:
            continue
        first_name = filled_from.setdefault(id(tensor), name)
        if name != first_name and not torch.equal(state_dict[name], state_dict[first_name]):
            raise cannot_read(
                path, f"{first_name} and {name} are one tensor of the network, but differ")
        if memory_is_shared(tensor) and tensor.dtype == state_dict[name].dtype:
            tensor.data.copy_(state_dict[name])
        else:
            tensor.data = state_dict[name].clone(memory_format=torch.contiguous_format)
