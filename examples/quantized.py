"""The loss surface of a network with weights of few bits: --place rounds them at every point.

    python examples/own_network.py                                 trains a network on digits, writes own_network.pt
    python plot_surface.py --model examples/own_network.py:net --model_file own_network.pt \\
        --dataset examples/own_network.py:data --place examples/quantized.py:ternary \\
        --x=-1:1:21 --y=-1:1:21 --xnorm filter --xignore biasbn --ynorm filter --yignore biasbn --plot
    python plot_surface.py ...                                     without --place: full precision, to compare with
    python plot_2D.py --surf_file FULL.h5 TERNARY.h5 BINARY.h5     side by side on one scale

The kind of figure is that of Bai et al., *BinaryBERT: Pushing the Limit of BERT Quantization*, ACL 2021: the training
loss over a plane of the full-precision weights, when these are used as they are, as ternary ones and as binary ones.
There the weights of two layers of BERT are moved, each by a constant, and the networks were trained for their bits;
here the plane is random and filter-normalized, and one network is rounded after training.
"""

import torch


@torch.no_grad()
def ternary(net):
    """Each filter becomes -s, 0 and s: 0 where it is below 0.7 of its mean size (ternary weight networks, 2016)."""
    for weight in net.parameters():
        if weight.dim() > 1:
            size = weight.abs().flatten(1)
            large = size > 0.7 * size.mean(1, keepdim=True)
            scale = (size * large).sum(1) / large.sum(1).clamp(min=1)
            weight.copy_(weight.sign() * large.view_as(weight) * scale.view(-1, *[1] * (weight.dim() - 1)))


@torch.no_grad()
def binary(net):
    """Each filter becomes -s and s, the mean of its sizes (XNOR-Net, 2016)."""
    for weight in net.parameters():
        if weight.dim() > 1:
            weight.copy_(weight.sign() * weight.abs().flatten(1).mean(1).view(-1, *[1] * (weight.dim() - 1)))
