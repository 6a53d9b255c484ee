"""--model, --model_file -> network.

    net = load_net("resnet56", "model_300.t7")
    net = load_net(Architecture.parse("my_net.py:make", '{"width": 64}'), "my_net.pt")

A network is one of the zoo's (`resnet56`), or what a user's function or class returns:
FILE.py:function or package.module:function, called with the keyword arguments of --model_kwargs.
"""

import hashlib
import json
from dataclasses import dataclass, field

import torch
from torch import nn

from losslandscape import user_code
from losslandscape.errors import InputError
from losslandscape.networks import zoo
from losslandscape.networks.checkpoints import (
    Checkpoint,
    cannot_read,
    checkpoint_hash,
    read_checkpoint,
    read_torch,
)
from losslandscape.networks.fit import compare

__all__ = [
    "Architecture",
    "Checkpoint",
    "architecture",
    "as_architecture",
    "checkpoint_hash",
    "load_net",
    "read_checkpoint",
    "read_torch",
    "weights_hash",
]


def load_net(model, path, trust_pickle=False):
    """Network `model` (a name, or an Architecture) with the weights at `path`, in eval mode.

    Building draws from torch's global CPU stream, as the original program does; a refused file
    leaves the stream as it was. Every tensor takes the dtype that it has in the file (half
    precision stays half), tied weights stay tied. The zoo's networks get the number of classes of
    the checkpoint. Without `path` a user's network stays as it is built. Raises InputError.
    """
    model = as_architecture(model)
    if not path:
        return _as_built(model)

    state_dict = read_checkpoint(path, trust_pickle).state_dict

    # build the network, see that the weights fit, and put them in place
    random_state = torch.get_rng_state()
    try:
        net = model.build(state_dict)
        model.check_weights(net, state_dict, path)
        _check_kinds(net, state_dict, path)
        _fill(net, state_dict, path)
    except InputError:
        torch.set_rng_state(random_state)
        raise
    return net.eval()


def weights_hash(net):
    """SHA-256 of the values of a network that has no file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


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
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            example = '{"num_classes": 10}'
            raise InputError(f"expected --model_kwargs as a JSON object, for example {example!r}, "
                             f"got {kwargs!r}")

        architecture = cls(name, arguments)
        architecture.constructor()  # a wrong name is said now
        return architecture

    @property
    def own(self):
        """Whether it is a user's own, and not one of the zoo."""
        return user_code.is_reference(self.name)

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
        if next(net.parameters(), None) is None:
            raise InputError(f"expected a network with parameters from --model {self.name}, "
                             f"got {type(net).__name__} without any; there is nothing to move")
        return net

    def blueprint(self, state_dict):
        """The network on torch's meta device, shapes without values; nothing random is drawn.

        Where a user's network can't be built there, it is built in memory.
        """
        with torch.random.fork_rng(devices=[]):
            try:
                with torch.device("meta"):
                    return self.build(state_dict)
            except Exception:  # whatever a user's code raises
                if not self.own:
                    raise
            return self.build(state_dict)

    def check_weights(self, net, state_dict, source):
        """Raise InputError unless `state_dict` has the names and shapes of `net`.

        `source`: the file that it was read from, for the message.
        """
        expected = net.state_dict(keep_vars=True)
        mismatch = compare(expected, state_dict)
        if not mismatch:
            return

        differences = mismatch.describe(expected, state_dict)
        if self.own:
            advice = "check --model and --model_kwargs"
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
            return (f"these are weights of {self.name} with {trained_classes} classes, "
                    f"not {num_classes}; give the data set or the num_classes that they were "
                    "trained with")
        if names:
            return f"give --model {' or '.join(names)}"
        return "no model of this program has these weights"


def as_architecture(model):
    """Architecture of a name, or as it is."""
    if isinstance(model, Architecture):
        return model
    return Architecture.parse(model)


architecture = as_architecture  # the former name


# ---------------------------------------------------------------- weights into a network


def _as_built(model):
    """The network with the weights that its own function gives it."""
    if not model.own:
        raise InputError(f"expected --model_file, a trained {model}; only a network of your own "
                         "(--model FILE.py:function) can come with its weights")
    return model.build().eval()


def _check_kinds(net, state_dict, path):
    """Raise InputError where the file has whole numbers for real ones, or the other way round."""
    expected = net.state_dict()
    for name, value in state_dict.items():
        if value.is_floating_point() != expected[name].is_floating_point():
            raise cannot_read(path, f"{name} is {value.dtype}, expected {expected[name].dtype}")


def _fill(net, state_dict, path):
    """Put the values of `state_dict` into `net`, in their own dtypes; what it lacks stays.

    A tensor that has several names in the network may stand in the file under one of them, or under
    several with equal values. Raises InputError where they differ.
    """
    filled_from = {}  # id of a tensor of the network -> the name whose values it has
    for name, tensor in net.state_dict(keep_vars=True).items():
        if name not in state_dict:
            continue
        first_name = filled_from.setdefault(id(tensor), name)
        if name != first_name and not torch.equal(state_dict[name], state_dict[first_name]):
            raise cannot_read(
                path, f"{first_name} and {name} are one tensor of the network, but differ")
        tensor.data = state_dict[name].clone()
