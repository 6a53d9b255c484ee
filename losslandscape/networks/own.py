"""What a user's function returned: the network itself, made of tensors that can be moved."""

from torch import nn
from torch.optim.swa_utils import AveragedModel

from losslandscape.errors import InputError
from losslandscape.networks.checkpoints import reason_against

# wrappers whose `module` is the network, and does the same on one device
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrapped(net):
    """The network in what DataParallel, torch.compile and the like made of it.

    Inside of a run they are in the way: a rank has devices of its own, and a compiled network is
    compiled anew after it was moved.
    """
    while True:
        compiled_from = getattr(net, "_orig_mod", None)  # of torch.compile
        if isinstance(compiled_from, nn.Module):
            net = compiled_from
        elif isinstance(net, WRAPPERS):
            net = net.module
        else:
            return net


def check_tensors(net, origin=""):
    """Raise InputError unless a network has parameters, and only tensors that can be moved.

    origin: where it is from, such as ' from --model NAME', for the message.
    """
    expected = f"expected a network of numbers that can be moved{origin}"
    advice = "return the network before it was quantized"
    for kind in map(type, net.modules()):
        if kind.__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            raise InputError(f"{expected}, got a quantized {kind.__name__}; {advice}")

    tensors = [*net.named_parameters(), *net.named_buffers()]
    for tensor_name, tensor in tensors:
        reason = reason_against(tensor)
        if reason and not (tensor.is_meta and reason == "tensor without values"):
            if "lazy" in reason:
                advice = "call it once on an input before it is returned"
            elif "sparse" in reason:
                advice = "return it with dense tensors (to_dense())"
            raise InputError(f"{expected}, but {tensor_name} is a {reason}; {advice}")

    for tensor_name, parameter in net.named_parameters():
        if not parameter.is_floating_point() and not parameter.is_complex():
            raise InputError(f"expected parameters of real or complex numbers{origin}, "
                             f"but {tensor_name} is {parameter.dtype}; {advice}, or register it "
                             "as a buffer")
    if next(net.parameters(), None) is None:
        raise InputError(f"expected a network with parameters{origin}, "
                         f"got {type(net).__name__} without any; there is nothing to move")
