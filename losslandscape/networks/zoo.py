"""The networks of the paper by name: built, outlined without memory, recognized by weights."""

import difflib
import functools

import torch

from losslandscape import user_code
from losslandscape.errors import InputError
from losslandscape.networks.fit import compare
from losslandscape.networks.models import MODELS


def constructor(name):
    """The entry of MODELS called `name`; raises InputError with near names for an unknown one."""
    if name not in MODELS:
        near = difflib.get_close_matches(name.lower(), MODELS, n=4, cutoff=0.4) or list(MODELS)[:4]
        raise InputError(
            f"expected one of the {len(MODELS)} models as --model, got {name!r}; "
            f"near: {', '.join(near)}")
    return MODELS[name]


def build(name, num_classes=10):
    """A new network with PyTorch's default initialization, drawn from torch's global CPU stream."""
    return constructor(name)(num_classes=num_classes)


def outline(name, num_classes=None, kwargs=None):
    """State dict of network `name` without memory (on torch's meta device); nothing is drawn.

    `num_classes`: of the last layer; the default is that of the network. `kwargs`: other arguments.
    """
    state_dict = dict(_default_outline(constructor(name)))
    if kwargs:
        with torch.device("meta"):
            state_dict = user_code.call("--model", name, constructor(name), **kwargs).state_dict()

    if num_classes is not None:
        # the last layer has one row for each class, in its weight and in its bias
        last_bias = next(reversed(state_dict))
        for key in (_last_weight(state_dict), last_bias):
            features = state_dict[key].shape[1:]
            state_dict[key] = state_dict[key].new_empty(num_classes, *features)
    return state_dict


def count_classes(name, state_dict):
    """The number of classes of network `name` with these weights; its default where they don't say.

    It is the number of rows of the last layer's weight, found by its name: the order of
    `state_dict` may be any.
    """
    default = outline(name)
    last_weight = _last_weight(default)
    for weights in (state_dict, default):
        shape = getattr(weights.get(last_weight), "shape", ())
        if len(shape) > 0 and shape[0] > 0:
            return shape[0]
    raise ValueError(f"the last layer of {name} has no rows")


def networks_with(state_dict):
    """Names of the networks that `state_dict` fits, as a list.

    This takes about a second: every network is outlined.
    """
    return [
        name for name in MODELS
        if not compare(outline(name, count_classes(name, state_dict)), state_dict)
    ]


def advise(names):
    """What to do with weights of the networks `names`, which need not be the ones asked for."""
    if not names:
        return "no model of this program has these weights"
    advice = f"give --model {' or '.join(names)}"

    # shortcuts without parameters leave no trace in the weights
    for name in names:
        if name.endswith("_noshort"):
            with_shortcuts = name.removesuffix("_noshort")
            return (
                f"these weights have no shortcuts with parameters: {advice} if the network had no "
                f"shortcuts at all, --model {with_shortcuts} --model_kwargs '{{\"shortcut\": "
                "\"A\"}' if they had no parameters (option A)")
    return advice


def _last_weight(state_dict):
    """The name of the last matrix; what follows it are biases and batch norm."""
    return [name for name, tensor in state_dict.items() if tensor.ndim >= 2][-1]


@functools.cache
def _default_outline(build_network):
    with torch.device("meta"):
        return build_network().state_dict()
