"""Batch norm folded into the convolutions before it: the same function, fewer passes over memory.

In eval mode batch norm is affine, so a convolution followed by batch norm is one convolution with

    g = gamma / sqrt(running_var + eps)
    weight' = weight * g
    bias' = (bias - running_mean) * g + beta

`fold(net)` traces the network once with torch.fx and returns a second forward pass beside it; the
network itself is not changed. `Folded.refresh()` recomputes weight' and bias' from the network's
current tensors, in place: once per point. An addition and a ReLU after a convolution are done in
place. Where anything does not fit (untraceable network, exotic layers, another result), `fold`
returns None: the caller then runs the network as it is.

Rejected: the fused convolution + ReLU calls of oneDNN and cuDNN. Their ReLU turns NaN into 0, so
that a diverged point would get a finite loss; and with memory kept between batches
(devices.keep_memory) they were no faster on a CPU.
"""

import operator
from collections import Counter

import torch
from torch import nn
from torch.nn import functional as F

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # in eval mode
RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)
RELU_METHODS = ("relu", "relu_")
ADDITIONS = (operator.add, operator.iadd, torch.add)

# largest difference from the network's own outputs, relative to the largest of them
TOLERANCE = 1e-3
TOLERANCE_IN_ANOTHER_DTYPE = 0.2


def fold(net, example, dtype=None):
    """The folded forward pass of `net` (in eval mode), or None where it can't be had.

    example: inputs of a few samples, on the network's device; the outputs for them must agree.
    dtype: of convolutions and linear layers in the folded pass (default: the network's own).
    """
    try:
        folded = GraphFolding(net, dtype).fold()
        if folded is not None and outputs_agree(net, folded, example, dtype):
            return folded
    except Exception:  # whatever a foreign network does to the tracer
        pass
    return None


@torch.no_grad()
def outputs_agree(net, folded, example, dtype):
    """Does the folded pass give the network's outputs, up to the rounding of its dtype?"""
    folded.refresh()
    expected = net(example)
    if dtype is None:
        dtype = example.dtype
    got = folded(example.to(dtype)).to(expected.dtype)

    tolerance = TOLERANCE
    if dtype != expected.dtype:
        tolerance = TOLERANCE_IN_ANOTHER_DTYPE
    scale = expected.abs().max().clamp(min=1e-3)
    return bool(((got - expected).abs() <= scale * tolerance).all())


class Folded:
    """The folded forward pass of a network; call `refresh()` when the network's tensors have changed."""

    def __init__(self, graph_module, copies):
        """copies: the FoldedConvolution and CopiedLinear layers of the pass."""
        self.forward = graph_module
        self._copies = copies
        self._norms = [copy.norm for copy in copies if copy.norm is not None]

    def __call__(self, inputs):
        return self.forward(inputs)

    @torch.no_grad()
    def refresh(self):
        """Compute the weights of all copies from the network's tensors."""
        scales = iter(self._scales())
        for copy in self._copies:
            if copy.norm is None:
                copy.refresh(None)
            else:
                copy.refresh(next(scales))

    def _scales(self):
        """g = gamma / sqrt(running_var + eps) of each batch norm, (channels,), all in one launch."""
        scales = [norm.running_var + norm.eps for norm in self._norms]
        if not scales:
            return scales
        torch._foreach_rsqrt_(scales)

        gammas = [norm.weight for norm in self._norms]
        if all(gamma is not None for gamma in gammas):
            torch._foreach_mul_(scales, gammas)
            return scales
        return [
            scale if gamma is None else scale * gamma
            for scale, gamma in zip(scales, gammas, strict=True)]


# ---------------------------------------------------------------- layers of the folded pass


class FoldedConvolution(nn.Module):
    """A convolution with the batch norm after it; an addition and a ReLU are part of the call.

    norm: the batch norm, or None. `relu` may be switched on later.
    """

    def __init__(self, conv, norm, dtype):
        super().__init__()
        self.source, self.norm = conv, norm
        self.relu = False
        has_bias = norm is not None or conv.bias is not None
        self.conv = type(conv)(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
            conv.dilation, conv.groups, bias=has_bias, device="meta")
        allocate_like(self.conv, conv, dtype)

    def forward(self, x, other=None):
        x = self.conv(x)
        if other is not None:
            x = x.add_(other)
        if self.relu:
            x = x.relu_()
        return x

    def refresh(self, scale):
        """scale: g of the batch norm, (out_channels,), or None without one."""
        weight, bias = self.source.weight, self.source.bias
        if scale is None:
            self.conv.weight.copy_(weight)
            if bias is not None:
                self.conv.bias.copy_(bias)
            return

        # weight' = weight * g, channel by channel
        per_channel = scale.view(-1, *[1] * (weight.dim() - 1))
        if self.conv.weight.dtype == weight.dtype:
            torch.mul(weight, per_channel, out=self.conv.weight)
        else:
            self.conv.weight.copy_(weight * per_channel)

        # bias' = (bias - running_mean) * g + beta
        shift = -self.norm.running_mean
        if bias is not None:
            shift = bias - self.norm.running_mean
        beta = self.norm.bias
        if beta is None:
            self.conv.bias.copy_(shift * scale)
        else:
            self.conv.bias.copy_(torch.addcmul(beta, shift, scale))


class CopiedLinear(nn.Module):
    """A copy of a linear layer in another dtype."""

    norm = None

    def __init__(self, linear, dtype):
        super().__init__()
        self.source = linear
        self.linear = nn.Linear(
            linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        allocate_like(self.linear, linear, dtype)

    def forward(self, x):
        return self.linear(x)

    def refresh(self, _scale):
        self.linear.weight.copy_(self.source.weight)
        if self.linear.bias is not None:
            self.linear.bias.copy_(self.source.bias)


def allocate_like(layer, source, dtype):
    """Give `layer` memory like that of `source`.

    It was built on the meta device, where no weights are drawn at random.
    """
    weight = torch.empty_like(source.weight, dtype=dtype)  # keeps channels_last
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        layer.bias = nn.Parameter(weight.new_empty(weight.shape[0]), requires_grad=False)


# ---------------------------------------------------------------- rewriting the graph


class GraphFolding:
    """The steps from a network to its folded pass. They change the traced graph, not the network."""

    def __init__(self, net, dtype=None):
        self.graph_module = torch.fx.symbolic_trace(net)
        self.graph = self.graph_module.graph
        self.modules = dict(self.graph_module.named_modules())
        self.calls = Counter(node.target for node in self.graph.nodes if node.op == "call_module")
        self.net_dtype = next(net.parameters()).dtype
        self.dtype = dtype or self.net_dtype
        self.copies = []

    def fold(self):
        """Folded, or None where there is nothing to fold, or where dtypes would mix."""
        self.fold_batch_norms()
        if self.dtype != self.net_dtype:
            self.copy_linear_layers()
        self.drop_identities()

        if not self.copies:
            return None
        if self.dtype != self.net_dtype and self.others_have_weights():
            return None

        self.fuse_additions()
        self.fuse_relus()
        self.graph.lint()
        self.graph_module.recompile()
        return Folded(self.graph_module.eval(), self.copies)

    # ------------------------------------------------ steps

    def fold_batch_norms(self):
        """norm(conv(x)) -> folded(x), if the norm has statistics and nobody else needs conv(x)."""
        for node in list(self.graph.nodes):
            conv = self.layer_of(node, CONVOLUTIONS)
            if conv is None or conv.padding_mode != "zeros" or conv.padding == "same":
                continue

            next_node, norm = None, None
            if len(node.users) == 1:
                next_node = next(iter(node.users))
                norm = self.layer_of(next_node, BATCH_NORMS)
            if norm is not None and norm.running_mean is None:
                norm = None

            self.call_copy(node, FoldedConvolution(conv, norm, self.dtype))
            if norm is not None:
                self.remove(next_node, node)

    def copy_linear_layers(self):
        """linear(x) -> copy(x), in the dtype of the folded pass."""
        for node in list(self.graph.nodes):
            linear = self.layer_of(node, nn.Linear)
            if linear is not None:
                self.call_copy(node, CopiedLinear(linear, self.dtype))

    def drop_identities(self):
        """dropout(x) -> x. Not before the folding: that takes a norm right behind its convolution."""
        for node in list(self.graph.nodes):
            if self.layer_of(node, IDENTITIES) is not None:
                self.remove(node, node.args[0])

    def fuse_additions(self):
        """conv(x) + other -> conv(x, other), where nobody else needs conv(x)."""
        position = {node: i for i, node in enumerate(self.graph.nodes)}
        for node in list(self.graph.nodes):
            if not is_addition_of_two(node):
                continue

            # the later of the two, so that the other is known when it is called
            conv_node, other = node.args
            if position[conv_node] < position[other]:
                conv_node, other = other, conv_node

            is_folded = isinstance(self.module_of(conv_node), FoldedConvolution)
            if is_folded and len(conv_node.users) == 1:
                conv_node.args = (conv_node.args[0], other)
                self.remove(node, conv_node)

    def fuse_relus(self):
        """relu(conv(x)) -> conv(x) with ReLU, and relu(norm(x)) in place, if nobody else needs the input."""
        for node in list(self.graph.nodes):
            if not self.is_relu(node) or len(node.args[0].users) != 1:
                continue

            source = node.args[0]
            module = self.module_of(source)
            if isinstance(module, FoldedConvolution):
                module.relu = True
                self.remove(node, source)
            elif isinstance(module, BATCH_NORMS):
                node.op, node.target, node.kwargs = "call_function", torch.relu_, {}

    # ------------------------------------------------ questions about the graph

    def module_of(self, node):
        """The module that a node calls, or None."""
        if node.op != "call_module":
            return None
        return self.modules.get(node.target)

    def layer_of(self, node, kinds):
        """The module that a node calls, if it is of one of `kinds` and called only once."""
        module = self.module_of(node)
        if isinstance(module, kinds) and self.calls[node.target] == 1:
            return module
        return None

    def is_relu(self, node):
        if node.op == "call_function":
            return node.target in RELUS
        if node.op == "call_method":
            return node.target in RELU_METHODS
        return isinstance(self.module_of(node), nn.ReLU)

    def others_have_weights(self):
        """Would weights stay in the network's dtype? Those of batch norm may: it mixes."""
        mixing = (FoldedConvolution, CopiedLinear, *BATCH_NORMS)
        for node in self.graph.nodes:
            if node.op == "get_attr":
                return True
            module = self.module_of(node)
            if module is None or isinstance(module, mixing):
                continue
            if any(True for _ in module.parameters()):
                return True
        return False

    # ------------------------------------------------ changes of the graph

    def call_copy(self, node, copy):
        """Let a node call `copy` instead of the network's own layer."""
        name = f"folded_{len(self.copies)}"
        self.graph_module.add_submodule(name, copy)
        self.modules[name] = copy
        self.calls[name] = 1
        self.copies.append(copy)
        node.target = name

    def remove(self, node, replacement):
        """Remove a node; whoever needs its value takes that of `replacement`."""
        node.replace_all_uses_with(replacement)
        self.graph.erase_node(node)


def is_addition_of_two(node):
    """Does a node add the values of two different nodes, and nothing else?"""
    if node.op != "call_function" or node.target not in ADDITIONS:
        return False
    if len(node.args) != 2 or node.kwargs:
        return False
    first, second = node.args
    both_nodes = isinstance(first, torch.fx.Node) and isinstance(second, torch.fx.Node)
    return both_nodes and first is not second
