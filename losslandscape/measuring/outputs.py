"""What networks return: a tensor, a tuple, a dict, a dataclass; and what a loss looks for in it.

    logits_of(output)       the tensor that a loss over classes or numbers is of
    own_loss_in(output)     the loss that the network has computed itself
    call_network(net, inputs, targets, "labels")      net(**inputs, labels=targets)
"""

import dataclasses
from collections.abc import Mapping

import torch

from losslandscape.data.splits import apply
from losslandscape.errors import InputError

# how far two passes over the same inputs may be apart, relative to the largest number: rounding
ROUNDING = 1e-5
ROUNDING_OF_HALF = 2e-2


def call_network(net, inputs, targets=None, targets_as=""):
    """The output of a network for a batch.

    targets_as: the argument of its forward that gets the targets, '' for none.
    """
    if not targets_as:
        return apply(net, inputs)
    if isinstance(inputs, torch.Tensor):
        return net(inputs, **{targets_as: targets})
    if isinstance(inputs, Mapping):
        return net(**inputs, **{targets_as: targets})
    return net(*inputs, **{targets_as: targets})


def with_sample_axis(output, count):
    """The output (count, ...) of `count` samples.

    A network that ends in squeeze() drops the axis of the samples where there is only one, such as
    in the last batch of a set.
    """
    if count == 1 and (output.dim() == 0 or output.shape[0] != 1):
        return output[None]
    return output


# ---------------------------------------------------------------- what is in an output


def logits_of(output):
    """The tensor in a network's output: itself, `.logits`, ["logits"], else the first of a tuple.

    Numbers of no dimension, such as the loss in (loss, logits), are passed over.
    Raises InputError where there is none.
    """
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(getattr(output, "logits", None), torch.Tensor):
        return output.logits
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    if isinstance(output, tuple | list):
        for entry in output:
            if isinstance(entry, torch.Tensor) and entry.dim() > 0:
                return entry
    raise InputError(
        "expected a tensor, or something with logits, from the network, "
        f"got {output_in_words(output)}; write a loss that takes it: --loss_name FILE.py:function")


def own_loss_in(output):
    """The loss that a network has put into its output, a tensor of one number, or None.

    It is `.loss`, ["loss"], or the first number of no dimension in a tuple.
    """
    candidates = []
    if isinstance(output, Mapping):
        candidates.append(output.get("loss"))
    elif isinstance(output, tuple | list):
        candidates.extend(output)
    elif not isinstance(output, torch.Tensor):
        candidates.append(getattr(output, "loss", None))

    for value in candidates:
        if isinstance(value, torch.Tensor) and value.dim() == 0 and value.is_floating_point():
            return value
    return None


def output_in_words(output):
    """'dict with out, aux': the type of an output, and the names in it."""
    if isinstance(output, Mapping):
        names = ", ".join(map(str, output))
        return f"{type(output).__name__} with {names}"
    return type(output).__name__


def tensors_in(output):
    """All tensors in an output, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        entries = output.values()
    elif isinstance(output, tuple | list):
        entries = output
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        entries = [getattr(output, entry.name) for entry in dataclasses.fields(output)]
    else:
        # an object of some other kind, a distribution for instance: what it holds itself
        held = getattr(output, "__dict__", {}).values()
        entries = [value for value in held if isinstance(value, torch.Tensor)]

    tensors = []
    for entry in entries:
        tensors.extend(tensors_in(entry))
    return tensors


def full_precision(tensor):
    """A tensor of half precision in float32; others as they are."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    return tensor


# ---------------------------------------------------------------- are two outputs the same?


def rounding_of(tensor):
    """How far two computations of a tensor may be apart, relative to its largest number."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return ROUNDING_OF_HALF
    return ROUNDING


def outputs_are_equal(first, second, tolerance=None):
    """Do two outputs hold the same numbers, up to rounding?

    tolerance: relative to the largest number of each tensor (default: the rounding of its dtype).
    """
    first_tensors, second_tensors = tensors_in(first), tensors_in(second)
    if len(first_tensors) != len(second_tensors):
        return False
    pairs = zip(first_tensors, second_tensors, strict=True)
    return all(tensors_are_equal(a, b, tolerance) for a, b in pairs)


def tensors_are_equal(first, second, tolerance=None):
    """Have two tensors the same shape and numbers, up to rounding? NaN is equal to NaN."""
    if first.shape != second.shape:
        return False
    if first.numel() == 0:
        return True
    if first.is_sparse or first.is_quantized or first.is_nested:
        return True  # can't be compared number by number
    if not (first.is_floating_point() or first.is_complex()):
        return torch.equal(first, second)

    if tolerance is None:
        tolerance = rounding_of(first)
    scale = float(first.detach().abs().nan_to_num(posinf=0.0).max())
    return torch.allclose(
        full_precision(first), full_precision(second).to(full_precision(first).dtype),
        rtol=0.0, atol=tolerance * scale + 1e-30, equal_nan=True)


# ---------------------------------------------------------------- one label per position


def class_axis(logits, labels):
    """Where the classes of logits stand beside labels (B, ...): 1 as torch has it, or -1 (texts).

    Raises InputError where the shapes fit neither, or both.
    """
    is_second = logits.shape[:1] + logits.shape[2:] == labels.shape
    is_last = logits.shape[:-1] == labels.shape
    if is_second and (not is_last or logits.dim() == 2):
        return 1
    if is_last and not is_second:
        return -1

    forms = "both" if is_last else "neither"
    raise InputError(
        "expected outputs (B, classes, ...) or (B, ..., classes) for targets "
        f"{tuple(labels.shape)}, got {tuple(logits.shape)}, which could be {forms}; "
        "write a loss: --loss_name FILE.py:function")
