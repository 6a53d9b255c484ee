"""Attention, softmax and layer norm written out, for second derivatives.

    with PlainFunctions():
        net(inputs)      # what calls torch's functions gets those below, which have the same values

The fused kernels of attention have first derivatives only. And what torch computes as the derivative
of a softmax or a layer norm along a direction can't be differentiated once more: of a softmax it
says so (it is changed in place), of a layer norm it gives wrong numbers (torch 2.14).
"""

import math

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class PlainFunctions(TorchFunctionMode):
    """Within it, functions of torch are those of this file.

    Every call of a torch function takes a microsecond longer: only for networks that need it.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        function = PLAIN_FUNCTIONS.get(function, function)
        return function(*args, **(kwargs or {}))

    # multi_head_attention_forward calls these two where no mode sees it
    def __enter__(self):
        F.scaled_dot_product_attention = plain_attention
        F.softmax = plain_functional_softmax
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        F.scaled_dot_product_attention = TORCHS_ATTENTION
        F.softmax = TORCHS_SOFTMAX


# ---------------------------------------------------------------- attention


def plain_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None,
                    enable_gqa=False):
    """softmax(query key^T * scale + mask) value, (..., L, V).

    query (..., L, E), key (..., S, E), value (..., S, V); the arguments are those of
    torch.nn.functional.scaled_dot_product_attention. Rows that see nothing give 0, as there.
    """
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1])
    if enable_gqa:  # groups of heads share keys and values
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)

    scores = query * scale @ key.transpose(-2, -1)  # (..., L, S)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is None:
        weights = plain_softmax(scores, -1)
    else:
        weights = _masked_softmax(scores, attn_mask)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    return weights @ value


def _masked_softmax(scores, mask):
    """softmax of (..., L, S); mask: True where it may be seen, or numbers to be added."""
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    else:
        scores = scores + mask
    sees_nothing = scores.detach().amax(-1, keepdim=True) == -math.inf
    weights = plain_softmax(scores.masked_fill(sees_nothing, 0), -1)
    return weights.masked_fill(sees_nothing, 0)


# ---------------------------------------------------------------- softmax, layer norm


def plain_softmax(input, dim, dtype=None):
    """torch.softmax by its formula."""
    if dtype is not None:
        input = input.to(dtype)
    powers = torch.exp(input - input.detach().amax(dim, keepdim=True))
    return powers / powers.sum(dim, keepdim=True)


def plain_functional_softmax(input, dim=None, _stacklevel=3, dtype=None):
    """torch.nn.functional.softmax by its formula."""
    if dim is None:
        return TORCHS_SOFTMAX(input, dim, _stacklevel, dtype)
    return plain_softmax(input, dim, dtype)


def plain_layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """torch.nn.functional.layer_norm by its formula."""
    dims = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(dims, keepdim=True)
    variance = centred.square().mean(dims, keepdim=True)
    output = centred * (variance + eps).rsqrt()
    if weight is not None:
        output = output * weight
    if bias is not None:
        output = output + bias
    return output


TORCHS_ATTENTION = F.scaled_dot_product_attention
TORCHS_SOFTMAX = F.softmax
PLAIN_FUNCTIONS = {
    TORCHS_ATTENTION: plain_attention,
    TORCHS_SOFTMAX: plain_functional_softmax,
    torch.softmax: plain_softmax,
    torch.Tensor.softmax: plain_softmax,
    F.layer_norm: plain_layer_norm,
}
