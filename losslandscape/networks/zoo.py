"""--model -> network, and which networks a set of weights belongs to."""

import difflib
import functools

import torch

from losslandscape.errors import InputError
from losslandscape.networks.models import MODELS

COUNTER = "num_batches_tracked"  # a BatchNorm entry that evaluation doesn't use; PyTorch < 0.4.1 did not save it


def constructor(name):
    """The entry of MODELS called `name`; raises InputError with the nearest names for an unknown one."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=4, cutoff=0.4) or list(MODELS)[:4]
        raise InputError(f"expected one of the {len(MODELS)} models as --model, got {name!r}; near: {', '.join(near)}")
    return MODELS[name]


def build(name, num_classes=10):
    """A new network with PyTorch's default initialization, drawn from torch's global CPU stream."""
    return constructor(name)(num_classes=num_classes)


def outline(name, state_dict):
    """State dict of network `name` without memory (device meta), for as many classes as `state_dict` has.

    Nothing is drawn from the random stream. The classes are counted in the weight of the last layer, found by its
    name: the order of `state_dict` may be any.
    """
    state = dict(_outline(constructor(name)))
    weight = [key for key, value in state.items() if value.ndim >= 2][-1]
    classes = len(state_dict[weight]) if weight in state_dict and state_dict[weight].ndim else 0
    if classes > 0:
        for key in (weight, next(reversed(state))):  # the last layer's weight and bias
            state[key] = state[key].new_empty(classes, *state[key].shape[1:])
    return state


@functools.cache
def _outline(constructor):
    with torch.device("meta"):
        return constructor().state_dict()


def differences(expected, state_dict):
    """(missing keys, unexpected keys, keys of another shape) of `state_dict`, each in order."""
    missing = [key for key in expected if key not in state_dict and not key.endswith(COUNTER)]
    unexpected = [key for key in state_dict if key not in expected]
    misshaped = [key for key in expected if key in state_dict and expected[key].shape != state_dict[key].shape]
    return missing, unexpected, misshaped


def fitting(state_dict):
    """Names of the models that `state_dict` fits, as a list (about a second: every network is outlined)."""
    return [name for name in MODELS if not any(differences(outline(name, state_dict), state_dict))]


def check_fit(expected, state_dict, source, name):
    """Raise InputError unless `state_dict`, read from file `source`, has the keys and shapes of `expected`."""
    missing, unexpected, misshaped = differences(expected, state_dict)
    if not (missing or unexpected or misshaped):
        return
    key = (misshaped + missing + unexpected)[0]
    want, got = (str(tuple(state[key].shape)) if key in state else "nothing" for state in (expected, state_dict))
    names = fitting(state_dict)
    advice = (
        f"{name} it is, for another number of classes" if name in names else
        f"give --model {' or '.join(names)}" if names else "no model of this program has these weights"
    )
    raise InputError(
        f"expected the weights of {name} in {source}: {len(missing)} keys are missing, {len(unexpected)} unexpected, "
        f"{len(misshaped)} of another shape (first: {key}, expected {want}, found {got}); {advice}"
    )
