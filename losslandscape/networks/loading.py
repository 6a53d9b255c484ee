"""--model, --model_file -> network.

A network is one of the zoo's (`resnet56`), or what a user's function or class gives: FILE.py:function or
package.module:function, called with the keyword arguments of --model_kwargs.
"""

import hashlib
import json
from dataclasses import dataclass, field

import torch
from torch import nn

from losslandscape import user_code
from losslandscape.errors import InputError
from losslandscape.networks import zoo
from losslandscape.networks.checkpoints import Checkpoint, _cannot_read, checkpoint_hash, read_checkpoint, read_torch
from losslandscape.networks.zoo import COUNTER

__all__ = ["Architecture", "Checkpoint", "checkpoint_hash", "load_net", "read_checkpoint", "read_torch", "weights_hash"]


@dataclass(frozen=True)
class Architecture:
    """--model and --model_kwargs: what builds a network."""

    name: str
    kwargs: dict = field(default_factory=dict)

    @classmethod
    def parse(cls, name, kwargs=""):
        """Architecture of the texts of the two flags; raises InputError for a name or JSON that can't be used."""
        try:
            given = json.loads(kwargs or "{}")
        except ValueError as error:
            given = error
        if not isinstance(given, dict):
            raise InputError(f"expected --model_kwargs as a JSON object, for example '{{\"num_classes\": 10}}', "
                             f"got {kwargs!r}")
        if user_code.is_reference(name):
            user_code.load("--model", name)
        else:
            zoo.constructor(name)
        return cls(name, given)

    @property
    def own(self):
        """Is it the user's, and not one of the zoo?"""
        return user_code.is_reference(self.name)

    def __str__(self):
        return self.name + (f" {json.dumps(self.kwargs, sort_keys=True)}" if self.kwargs else "")

    def build(self, state=None):
        """A new network, drawn from torch's global CPU stream; of the zoo's, with the classes of `state`."""
        kwargs = self.kwargs
        if self.own:
            function = user_code.load("--model", self.name)
        else:
            function = zoo.constructor(self.name)
            if state is not None and "num_classes" not in kwargs:
                # the bias of the last layer
                kwargs = kwargs | {"num_classes": next(reversed(zoo.outline(self.name, state).values())).shape[0]}
        net = user_code.call("--model", self.name, function, **kwargs)
        if not isinstance(net, nn.Module):
            raise InputError(f"expected an nn.Module from --model {self.name}, got {type(net).__name__}; return one")
        if next(net.parameters(), None) is None:
            raise InputError(f"expected a network with parameters from --model {self.name}, got {type(net).__name__} "
                             "without any; there is nothing to move")
        return net

    def blueprint(self, state):
        """The network on torch's meta device, shapes without values; nothing is drawn from the random stream.

        Where a user's network can't be built there, it is built in memory.
        """
        with torch.random.fork_rng(devices=[]):
            try:
                with torch.device("meta"):
                    return self.build(state)
            except Exception:
                if not self.own:
                    raise
            return self.build(state)

    def check_fit(self, net, state, source):
        """Raise InputError unless `state`, read from file `source`, has the keys and shapes of the network."""
        own = net.state_dict(keep_vars=True)
        if not self.own:
            zoo.check_fit(own, state, source, self.name)
            return
        there = {id(own[key]) for key in state if key in own}  # a tied weight may stand in the file once
        missing, unexpected, misshaped = zoo.differences(own, state)
        missing = [key for key in missing if id(own[key]) not in there]
        if missing or unexpected or misshaped:
            key = (misshaped + missing + unexpected)[0]
            want, got = (str(tuple(found[key].shape)) if key in found else "nothing" for found in (own, state))
            raise InputError(
                f"expected the weights of {self} in {source}: {len(missing)} keys are missing, {len(unexpected)} "
                f"unexpected, {len(misshaped)} of another shape (first: {key}, expected {want}, found {got}); "
                "check --model and --model_kwargs")


def architecture(model):
    """Architecture of a name, or as it is."""
    return model if isinstance(model, Architecture) else Architecture.parse(model)


def load_net(model, path, trust_pickle=False):
    """Network `model` (a name, or an Architecture) with the weights at `path`, in eval mode on the CPU.

    The file is read and checked first, so a wrong one costs no time and no random number; then the network is built,
    which draws from torch's global CPU stream; then the weights take its place. Every tensor keeps the dtype that it
    has in the file (half precision stays half), tied weights stay tied. The zoo's networks get the number of classes of
    the checkpoint. Without `path` a user's network stays as it is built. Raises InputError.
    """
    model = architecture(model)
    if not path:
        if not model.own:
            raise InputError(f"expected --model_file, a trained {model}; only a network of your own "
                             "(--model FILE.py:function) can come with its weights")
        return model.build().eval()
    state = read_checkpoint(path, trust_pickle).state_dict
    if not model.own:
        expected = zoo.outline(model.name, state)
        zoo.check_fit(expected, state, path, model.name)
        check_kinds(expected, state, path)
        net = model.build(state)
        zoo.check_fit(net.state_dict(), state, path, model.name)  # for the classes that --model_kwargs may ask for
        counters = {key: value for key, value in net.state_dict().items() if key.endswith(COUNTER) and key not in state}
        net.load_state_dict(state | counters, assign=True)
        return net.eval()
    net = model.build()
    model.check_fit(net, state, path)
    check_kinds(net.state_dict(), state, path)
    filled = {}
    for key, tensor in net.state_dict(keep_vars=True).items():
        if key in state:
            if id(tensor) in filled and not torch.equal(state[key], state[filled[id(tensor)]]):
                raise _cannot_read(path, f"{filled[id(tensor)]} and {key} are one tensor of the network, but differ")
            filled.setdefault(id(tensor), key)
            tensor.data = state[key].clone()
    return net.eval()


def check_kinds(expected, state, path):
    """Raise InputError where a number is whole in one and not in the other."""
    for key, value in state.items():
        if value.is_floating_point() != expected[key].is_floating_point():
            raise _cannot_read(path, f"{key} is {value.dtype}, expected {expected[key].dtype}")


def weights_hash(net):
    """SHA-256 of the values of a network that has no file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for key, value in net.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
