"""The model zoo: MODELS[name](num_classes=10) makes a network for images (N, 3, H, W), H, W >= 8.

A new network is one new file in this folder. It defines NETWORKS, a dict from names (those of
--model) to constructors that take num_classes; nothing else needs to be told of it.

Parameters are drawn from torch's global CPU stream in state-dict order with PyTorch's default
initializers, so the numbers that follow in the stream depend on the network; published random
directions rely on that. Every network is plain `nn` modules without data-dependent control flow
(torch.fx can trace it), takes inputs in either memory format, and ends in a linear layer with one
row for each class.
"""

import importlib
import pkgutil


def _collect_networks():
    """{name: constructor(num_classes=10)} of all files of this folder, in their order."""
    networks = {}
    for file in sorted(pkgutil.iter_modules(__path__), key=lambda entry: entry.name):
        module = importlib.import_module(f"{__name__}.{file.name}")
        networks |= module.NETWORKS
    return networks


MODELS = _collect_networks()
