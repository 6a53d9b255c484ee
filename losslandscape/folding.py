"""Batch norm folded into the convolutions before it, for evaluation: the same function with fewer passes over memory.

In eval mode batch norm is affine, so conv followed by BN is one convolution with

    weight' = weight * g        bias' = (bias - running_mean) * g + beta        g = gamma / sqrt(running_var + eps)

`fold(net)` traces the network once with torch.fx and returns a second forward pass beside it; the network itself is
not changed. `Folded.refresh()` recomputes weight' and bias' from the network's current tensors, in place: once per
point. An addition and a ReLU after a convolution are done in place. Where anything does not fit (untraceable network,
exotic layers, another result), `fold` returns None: the caller then runs the network as it is.

Rejected: the fused convolution + ReLU calls of oneDNN and cuDNN. Their ReLU turns NaN into 0, so that a diverged point
would get a finite loss; and with memory kept between batches (evaluation.keep_memory) they were no faster on a CPU.
"""

import operator

import torch
from torch import nn
from torch.nn import functional as F

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # in eval mode
RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)
ADDITIONS = (operator.add, operator.iadd, torch.add)


class _Convolution(nn.Module):
    """A convolution with the batch norm after it folded in; bias, an addition and a ReLU are part of the call."""

    def __init__(self, conv, norm, dtype):
        super().__init__()
        self.source, self.norm = conv, norm
        self.relu = False
        self.conv = type(conv)(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
            conv.groups, bias=norm is not None or conv.bias is not None, device="meta",
        )
        _own_copies(self.conv, conv, dtype)

    def forward(self, x, other=None):
        x = self.conv(x)
        if other is not None:
            x = x.add_(other)
        return x.relu_() if self.relu else x

    def refresh(self, g):
        """g: gamma / sqrt(running_var + eps), (out_channels,), or None without batch norm."""
        conv, bias = self.source, self.source.bias
        if g is None:
            self.conv.weight.copy_(conv.weight)
            if bias is not None:
                self.conv.bias.copy_(bias)
            return
        shape = (-1, *[1] * (conv.weight.dim() - 1))
        if self.conv.weight.dtype == conv.weight.dtype:
            torch.mul(conv.weight, g.view(shape), out=self.conv.weight)
        else:
            self.conv.weight.copy_(conv.weight * g.view(shape))
        shift = -self.norm.running_mean if bias is None else bias - self.norm.running_mean
        beta = self.norm.bias
        self.conv.bias.copy_(shift * g if beta is None else torch.addcmul(beta, shift, g))


class _Linear(nn.Module):
    """A copy of a linear layer in another dtype."""

    def __init__(self, linear, dtype):
        super().__init__()
        self.source = linear
        self.linear = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        _own_copies(self.linear, linear, dtype)

    def forward(self, x):
        return self.linear(x)

    def refresh(self, _):
        self.linear.weight.copy_(self.source.weight)
        if self.linear.bias is not None:
            self.linear.bias.copy_(self.source.bias)


def _own_copies(layer, source, dtype):
    """Give `layer`, made on the meta device (where nothing is drawn at random), memory like that of `source`."""
    weight = torch.empty_like(source.weight, dtype=dtype)  # keeps channels_last
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        layer.bias = nn.Parameter(weight.new_empty(weight.shape[0]), requires_grad=False)


# ---------------------------------------------------------------- rewriting the graph


class Folded:
    """The folded forward pass of a network; call `refresh()` after the network's tensors have changed."""

    def __init__(self, graph_module, copies):
        self.forward = graph_module
        self._copies = copies
        self._norms = [copy.norm for copy in copies if getattr(copy, "norm", None) is not None]

    def __call__(self, inputs):
        return self.forward(inputs)

    @torch.no_grad()
    def refresh(self):
        g = [norm.running_var + norm.eps for norm in self._norms]
        if g:
            torch._foreach_rsqrt_(g)
            gammas = [norm.weight for norm in self._norms]
            if all(gamma is not None for gamma in gammas):
                torch._foreach_mul_(g, gammas)
            else:
                g = [a if gamma is None else a * gamma for a, gamma in zip(g, gammas, strict=True)]
        factors = iter(g)
        for copy in self._copies:
            copy.refresh(next(factors) if getattr(copy, "norm", None) is not None else None)


def fold(net, example, dtype=None):
    """Folded forward pass of `net` (in eval mode), or None where it can't be had.

    example: inputs of a few samples, on the network's device; the folded pass must give the network's outputs there.
    dtype: of convolutions and linear layers in the folded pass (default: the network's own).
    """
    try:
        folded = _rewrite(net, dtype)
        return folded if folded and _agrees(net, folded, example, dtype) else None
    except Exception:  # whatever a foreign network does to the tracer
        return None


@torch.no_grad()
def _agrees(net, folded, example, dtype):
    folded.refresh()
    expected = net(example)
    got = folded(example if dtype is None else example.to(dtype)).to(expected.dtype)
    scale = expected.abs().max().clamp(min=1e-3)
    return bool(((got - expected).abs() <= scale * (1e-3 if dtype in (None, expected.dtype) else 0.2)).all())


def _rewrite(net, dtype):
    graph_module = torch.fx.symbolic_trace(net)
    graph = graph_module.graph
    modules = dict(graph_module.named_modules())
    own_dtype = next(net.parameters()).dtype
    dtype = dtype or own_dtype

    def module(node, kinds):
        """The module that a node calls, if it is of one of `kinds` and called only once."""
        found = modules.get(node.target) if node.op == "call_module" else None
        return found if isinstance(found, kinds) and calls[node.target] == 1 else None

    calls = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1

    copies = []

    def put(node, copy):
        name = f"folded_{len(copies)}"
        graph_module.add_submodule(name, copy)
        modules[name] = copy
        calls[name] = 1
        node.target = name
        copies.append(copy)

    for node in list(graph.nodes):
        if module(node, NOTHING):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif linear := module(node, nn.Linear):
            if dtype != own_dtype:
                put(node, _Linear(linear, dtype))
        elif (conv := module(node, CONVOLUTIONS)) and conv.padding_mode == "zeros" and conv.padding != "same":
            after = next(iter(node.users)) if len(node.users) == 1 else None
            norm = module(after, BATCH_NORMS) if after else None
            if norm is not None and norm.running_mean is None:
                norm = None
            put(node, _Convolution(conv, norm, dtype))
            if norm is not None:
                after.replace_all_uses_with(node)
                graph.erase_node(after)
    if not copies or (dtype != own_dtype and _others_with_weights(graph, modules)):
        return None
    _fuse_additions(graph, modules)
    _fuse_relus(graph, modules)
    graph.lint()
    graph_module.recompile()
    return Folded(graph_module.eval(), copies)


def _others_with_weights(graph, modules):
    """Are there layers whose weights would stay in the network's dtype, other than batch norm (which may mix)?"""
    for node in graph.nodes:
        if node.op == "get_attr":
            return True
        if node.op == "call_module":
            found = modules[node.target]
            if not isinstance(found, (_Convolution, _Linear, *BATCH_NORMS)) and any(True for _ in found.parameters()):
                return True
    return False


def _is_relu(node, modules):
    return (node.op == "call_function" and node.target in RELUS) or (
        node.op == "call_module" and isinstance(modules[node.target], nn.ReLU)) or (
        node.op == "call_method" and node.target in ("relu", "relu_"))


def _fuse_additions(graph, modules):
    """conv(x) + other -> conv(x, other), where the convolution's result has no other use."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in ADDITIONS or len(node.args) != 2 or node.kwargs:
            continue
        nodes = [arg for arg in node.args if isinstance(arg, torch.fx.Node)]
        if len(nodes) != 2 or nodes[0] is nodes[1]:
            continue
        # the later of the two, so that the other is there when it is called
        conv, other = sorted(nodes, key=order.get, reverse=True)
        called = modules.get(conv.target) if conv.op == "call_module" else None
        if isinstance(called, _Convolution) and len(conv.users) == 1:
            node.replace_all_uses_with(conv)
            conv.args = (conv.args[0], other)
            graph.erase_node(node)


def _fuse_relus(graph, modules):
    """relu(conv(...)) -> conv with relu; any other ReLU of a value that nobody else needs is done in place."""
    for node in list(graph.nodes):
        if not _is_relu(node, modules):
            continue
        source = node.args[0]
        called = modules.get(source.target) if source.op == "call_module" else None
        if len(source.users) != 1:
            continue
        if isinstance(called, _Convolution):
            called.relu = True
            node.replace_all_uses_with(source)
            graph.erase_node(node)
        elif isinstance(called, BATCH_NORMS):
            node.op, node.target, node.kwargs = "call_function", torch.relu_, {}
