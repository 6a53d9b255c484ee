"""A network's forward pass as a graph that follows the network's tensors, or none.

torch.fx calls `forward` with a stand-in for the inputs, and writes down what is done to it. Whatever
is done without it, it does at once: the result becomes a constant of the graph. So a graph is wrong
at other weights where forward

    reads tensors past the attributes      dict(self.named_parameters())["w"] * 2, self.weights[0]
    makes numbers of them                  float(self.scale), self.scale.item()
    decides by them                        if self.scale > 0: ...
    computes with buffers alone            torchvision.ops.FrozenBatchNorm2d

`graph_of` watches what is computed meanwhile, and gives no graph where a tensor was in it.
"""

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

# what may be asked of a tensor without reading its values
ATTRIBUTES = (
    "shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_leaf", "is_cuda", "is_cpu",
    "is_meta", "is_sparse", "is_quantized")
METHODS = (
    "size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "is_contiguous",
    "is_floating_point", "is_complex", "get_device", "__len__")
HARMLESS = {getattr(torch.Tensor, name).__get__ for name in ATTRIBUTES}
HARMLESS |= {getattr(torch.Tensor, name) for name in METHODS}
HARMLESS |= {torch.numel, torch.is_floating_point, torch.is_complex, torch.is_tensor}


def graph_of(net):
    """The torch.fx graph of a network's forward pass, or None where it would not follow the network.

    Some networks keep what they compute, stand-ins as well: trace a copy. Raises whatever the
    tracer or the network raise.
    """
    if is_called_specially(net):
        return None

    tracer = WatchfulTracer()
    with ComputationWatch() as watch:
        graph = tracer.trace(net)
    if watch.computed or tracer.autocast:
        return None

    own = {id(tensor) for tensor in [*net.parameters(), *net.buffers()]}
    for node in graph.nodes:
        if node.op == "get_attr" and id(attribute(net, node.target)) not in own:
            return None
    return graph


def attribute(net, name):
    """The attribute of a dotted name."""
    module_name, _, own_name = name.rpartition(".")
    return getattr(net.get_submodule(module_name), own_name)


def is_called_specially(module):
    """Does a call do more than the forward method of the class, or something else?"""
    return bool(
        module._forward_pre_hooks or module._forward_hooks
        or "forward" in vars(module)
        or type(module).__call__ is not nn.Module.__call__)


class WatchfulTracer(fx.Tracer):
    """Traces buffers as it does parameters; `autocast`: was it on for a part of the pass?

    A graph does not know of autocast.
    """

    proxy_buffer_attributes = True

    def __init__(self):
        super().__init__()
        self.autocast = False

    def create_proxy(self, *args, **kwargs):
        self.autocast |= torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        return super().create_proxy(*args, **kwargs)


class ComputationWatch(TorchFunctionMode):
    """While it is on: `computed` becomes true where torch computes from tensors, but no stand-in."""

    def __init__(self):
        super().__init__()
        self.computed = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in HARMLESS and not self.computed:
            values = leaves_of([args, kwargs])
            has_tensor = any(isinstance(value, torch.Tensor) for value in values)
            has_proxy = any(isinstance(value, fx.Proxy) for value in values)
            self.computed = has_tensor and not has_proxy
        return function(*args, **kwargs)


def leaves_of(values):
    """What lists, tuples and dicts hold, at any depth, as a list."""
    if isinstance(values, dict):
        values = list(values.values())
    leaves = []
    for value in values:
        if isinstance(value, list | tuple | dict):
            leaves += leaves_of(value)
        else:
            leaves.append(value)
    return leaves
