"""Random numbers during an evaluation: who draws them, and how every point draws the same ones.

    with undisturbed([device]):             the streams are afterwards as they were before
        begin_streams(3)                    torch, NumPy and random go on from seed 3

    with RandomCalls() as calls:            which functions of torch draw random numbers?
        net(inputs)
    calls.names                             ["randn_like"]
"""

import contextlib
import random

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

# functions of torch that draw random numbers, without the underscores of those that work in place
RANDOM_FUNCTIONS = {
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "random",
    "normal", "uniform", "bernoulli", "multinomial", "poisson", "exponential", "geometric",
    "cauchy", "log_normal", "rrelu", "gumbel_softmax",
}  # fmt: skip
DROPOUTS = {
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
    "feature_dropout",
}  # fmt: skip


@contextlib.contextmanager
def undisturbed(devices=()):
    """Put the random streams back at the end: of torch (CPU, and CUDA `devices`), NumPy, `random`."""

    # torch.random.fork_rng does the same, more slowly
    cuda_states = [
        (device, torch.cuda.get_rng_state(device)) for device in devices if device.type == "cuda"]
    torch_state = torch.get_rng_state()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        for device, state in cuda_states:
            torch.cuda.set_rng_state(state, device)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def begin_streams(seed):
    """Let torch (on all devices), NumPy and `random` go on from a seed, 0 to 2^32 - 1."""
    # torch.manual_seed takes 0.1 ms to note down who called it, where CUDA is not in use
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed)
    random.seed(seed)


class RandomCalls(TorchFunctionMode):
    """While it is on: the names of torch's functions that draw random numbers.

    names: those that draw them whatever the mode of the network. dropouts: the same of dropout that
    is switched on.
    """

    def __init__(self):
        super().__init__()
        self.names = []
        self.dropouts = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "").strip("_")
        if name in RANDOM_FUNCTIONS:
            self.names.append(name)
        elif name in DROPOUTS and is_switched_on(args, kwargs):
            self.dropouts.append(name)
        return function(*args, **kwargs)


def is_switched_on(args, kwargs):
    """Does a call dropout(x, p, training) drop anything?"""
    arguments = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
    is_training = arguments.get("training", arguments.get("train", True))
    return bool(is_training) and arguments.get("p", 0.5) > 0
