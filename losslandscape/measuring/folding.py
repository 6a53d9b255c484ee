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

A pass that is right where the network is now need not be right elsewhere. A network is folded only
where

- its graph follows its tensors, as far as can be seen (tracing.py);
- the layers that are replaced do what their class does: no hooks, no parametrizations;
- the folded pass of a copy whose tensors have all been moved gives, in float64, the outputs of that
  copy to 1e-8 of the largest. Rounding is no excuse there, not even in networks that amplify it.

This takes two copies of the network and four passes over a few samples: 0.2 s for resnet56.

Rejected: the fused convolution + ReLU calls of oneDNN and cuDNN. Their ReLU turns NaN into 0, so
that a diverged point would get a finite loss; and with memory kept between batches
(devices.keep_memory) they were no faster on a CPU.
"""

import copy
import operator
from collections import Counter

import torch
from torch import fx, nn
from torch.nn import functional as F

from losslandscape.measuring.copies import independent_copy
from losslandscape.measuring.devices import dtype_of
from losslandscape.measuring.tracing import graph_of, is_called_specially

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # in eval mode
RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)
RELU_METHODS = ("relu", "relu_")
ADDITIONS = (operator.add, operator.iadd, torch.add)

# largest difference from the network's own outputs, relative to the largest of them
TOLERANCE = 1e-3
TOLERANCE_IN_ANOTHER_DTYPE = 0.2

# the same for a copy that has been moved: in float64, and where it only runs in its own dtype
MOVED_TOLERANCE = 1e-8
MOVED_TOLERANCE_IN_OWN_DTYPE = 1e-4
SAMPLES_OF_MOVED = 2


def fold(net, example, dtype=None):
    """The folded forward pass of `net` (in eval mode), or None where it can't be had.

    example: inputs of a few samples, on the network's device; the outputs for them must agree.
    dtype: of convolutions and linear layers in the folded pass (default: the network's own).

    Nothing is drawn from torch's global random stream.
    """
    converts = dtype is not None and dtype != dtype_of(net)
    try:
        graph = graph_of(independent_copy(net))  # of a copy: it may keep what it is traced with
        if graph is None:
            return None
        folded = folded_pass(net, graph, dtype, converts)
        if folded is None or not outputs_agree(net, folded, example, dtype):
            return None
        if follows_moves(net, graph, example[:SAMPLES_OF_MOVED], converts):
            return folded
    except Exception:  # whatever a foreign network does to the tracer, or a copy of it to itself
        pass
    return None


def folded_pass(net, graph, dtype, converts):
    """Folded of a network and its graph, which is not changed; None where there is nothing to fold."""
    graph_module = fx.GraphModule(net, copy.deepcopy(graph))
    return GraphFolding(graph_module, dtype, converts).fold()


# ---------------------------------------------------------------- is it the same function?


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
    return is_close(got, expected, tolerance)


@torch.no_grad()
def follows_moves(net, graph, example, converts):
    """Does the folded pass give the outputs of a copy of `net` whose tensors have been moved?"""
    try:
        twin = independent_copy(net).double()
        move_all_tensors(twin)
        expected = twin(example.double())
        tolerance = MOVED_TOLERANCE
    except (RuntimeError, TypeError):  # it casts by itself, or the device has no float64
        twin = independent_copy(net)
        move_all_tensors(twin)
        expected = twin(example)
        tolerance = MOVED_TOLERANCE_IN_OWN_DTYPE

    folded = folded_pass(twin, graph, None, converts)
    folded.refresh()
    got = folded(example.to(dtype_of(twin)))
    return is_close(got, expected, tolerance)


def move_all_tensors(net):
    """Change every floating-point parameter and buffer by up to a quarter, zeros to something above.

    The random numbers are the same each time. Signs stay, so that a variance is positive.
    """
    generator = torch.Generator().manual_seed(0)
    for tensor in [*net.parameters(), *net.buffers()]:
        if not tensor.is_floating_point():
            continue
        uniform = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)  # in [0, 1)
        uniform = uniform.to(tensor.device, tensor.dtype)
        moved = torch.where(tensor == 0, 0.1 * uniform, tensor * (0.75 + 0.5 * uniform))
        tensor.data.copy_(moved)


def is_close(got, expected, tolerance):
    """Do two outputs differ by at most `tolerance` times the largest number in them? NaN does not."""
    scale = expected.abs().max().clamp(min=1e-3)
    return bool(((got - expected).abs() <= scale * tolerance).all())


class Folded:
    """The folded forward pass of a network; call `refresh()` when the network's tensors have changed."""

    def __init__(self, graph_module, copies):
        """copies: the FoldedConvolution and CopiedLinear layers of the pass."""
        self.forward = graph_module
        self._copies = copies
        self._norms = [layer.norm for layer in copies if layer.norm is not None]

    def __call__(self, inputs):
        return self.forward(inputs)

    @torch.no_grad()
    def refresh(self):
        """Compute the weights of all copies from the network's tensors."""
        scales = iter(self._scales())
        for layer in self._copies:
            if layer.norm is None:
                layer.refresh(None)
            else:
                layer.refresh(next(scales))

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
    """The steps from a traced network to its folded pass. They change the graph, not the network.

    dtype: of the copied layers; None is that of each layer itself. converts: copy all layers that
    have weights, or none: for a dtype that is not the network's.
    """

    def __init__(self, graph_module, dtype=None, converts=False):
        self.graph_module = graph_module
        self.graph = graph_module.graph
        self.modules = dict(graph_module.named_modules(remove_duplicate=False))
        self.calls = Counter(self.module_of(node) for node in self.graph.nodes)
        self.dtype, self.converts = dtype, converts
        self.copies = []

    def fold(self):
        """Folded, or None where there is nothing to fold, or where dtypes would mix."""
        self.fold_batch_norms()
        if self.converts:
            self.copy_linear_layers()
        self.drop_identities()

        if not self.copies:
            return None
        if self.converts and self.others_have_weights():
            return None

        self.fuse_additions()
        self.fuse_relus()
        self.graph.lint()
        self.graph_module.recompile()
        return Folded(self.graph_module, self.copies)

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
            if norm is not None and (norm.running_mean is None or norm.training):
                norm = None

            self.call_copy(node, FoldedConvolution(conv, norm, self.dtype))
            if norm is not None:
                self.remove(next_node, node)

    def copy_linear_layers(self):
        """linear(x) -> copy(x), in the dtype of the folded pass."""
        for node in list(self.graph.nodes):
            linear = self.layer_of(node, (nn.Linear,))
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
        """The module that a node calls, if it is called only once and does what one of `kinds` does.

        A class derived from them may do something else, and so may a module with hooks, or one whose
        weight is no parameter (parametrizations, pruning).
        """
        module = self.module_of(node)
        if type(module) not in kinds or self.calls[module] > 1 or is_called_specially(module):
            return None
        if "weight" in vars(module):
            return None
        return module

    def is_relu(self, node):
        if node.op == "call_function":
            return node.target in RELUS
        if node.op == "call_method":
            return node.target in RELU_METHODS
        return self.layer_of(node, (nn.ReLU,)) is not None

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

    def call_copy(self, node, layer):
        """Let a node call `layer` instead of the network's own."""
        name = f"folded_{len(self.copies)}"
        self.graph_module.add_submodule(name, layer)
        self.modules[name] = layer
        self.calls[layer] = 1
        self.copies.append(layer)
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
