"""Copies of networks, and memory that several tensors share.

A network may hold a tensor of its own memory twice: `self.w2 = self.w.data` follows a weight that is
changed in place, and stays behind where `weight.data` is given other memory, or where the network is
copied by copy.deepcopy. What is here keeps such tensors together.
"""

import contextlib
import copy

import torch
from torch import nn


def independent_copy(net):
    """A deep copy of a network; tensors that share memory do so in the copy, too.

    Gradients are left out, and tensors that a network keeps with their history (the weights that
    torch.nn.utils.weight_norm computes) are copied as values. Raises whatever copy.deepcopy raises.
    """
    copies = {}  # id -> copy, what copy.deepcopy calls a memo

    # deepcopy gives every parameter memory of its own, but keeps plain tensors together
    for parameter in net.parameters():
        if type(parameter) is nn.Parameter:
            values = copy.deepcopy(parameter.data, copies)
            copies[id(parameter)] = nn.Parameter(values, parameter.requires_grad)

    # deepcopy refuses tensors with a history
    for module in net.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                copies[id(value)] = copy.deepcopy(value.detach(), copies)

    return copy.deepcopy(net, copies)


@contextlib.contextmanager
def unchanged(net):
    """Within the block a network may be called; at its end its parameters have their old values.

    Some change in forward: nn.Embedding(max_norm=1) scales the rows that it looks up, in place.
    Buffers stay as they are: a network may have derived them at its first call, and know that.
    """
    parameters = list(net.parameters())
    old_values = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, old in zip(parameters, old_values, strict=True):
                if not torch.equal(tensor, old):
                    tensor.copy_(old)


def memory_is_shared(tensor):
    """Does anyone hold the memory of a tensor besides the tensor itself?

    It counts who holds the storage, wherever they are: in a list, a closure, another module. Where
    torch does not say, the answer is yes.
    """
    storage = tensor.untyped_storage()
    try:
        holders = torch._C._storage_Use_Count(storage._cdata)
    except AttributeError:
        return True
    return holders > 2  # the tensor, and `storage` here


def use_memory_format(net, memory_format):
    """Put the four-dimensional tensors of a network into memory of this format; returns the network.

    Those whose memory is shared stay where they are: the other holder would not follow.
    """
    for tensor in [*net.parameters(), *net.buffers()]:
        if tensor.dim() == 4 and not memory_is_shared(tensor):
            tensor.data = tensor.data.contiguous(memory_format=memory_format)
    return net
