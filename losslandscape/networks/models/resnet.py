"""Residual networks (He et al. 2016, arXiv 1512.03385) and wide ones, with and without shortcuts.

Three stages of widths 16-32-64 (times k for wrn<depth>_<k>), depth 6n + 2, for CIFAR; or four
stages of widths 64-128-256-512 as for ImageNet, with a 3x3 stem (resnet18, 34, 50, 101 and 152). A
name that ends in _noshort is the same network without shortcuts, the comparison of the paper (Li et
al. 2018, section 5).
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(inputs, outputs, size, stride=1):
    """A convolution that keeps the image size (up to its stride), and its batch normalization."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def make_shortcut(inputs, outputs, stride, option):
    """Identity where the shape stays the same, else a 1x1 convolution (B) or a ZeroPadding (A)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if option == "A":
        return ZeroPadding(outputs - inputs, stride)
    return nn.Sequential(*conv_bn(inputs, outputs, 1, stride))


class ZeroPadding(nn.Module):
    """A shortcut without parameters: every stride-th pixel, and new channels that are zero.

    Half of the new channels come before the others, half after, as in the widespread CIFAR networks
    of PyTorch (fb.resnet.torch had all of them after).
    """

    def __init__(self, channels, stride):
        super().__init__()
        self.before, self.after = channels // 2, channels - channels // 2
        self.stride = stride

    def forward(self, x):  # (N, C, H, W) -> (N, C + channels, H / stride, W / stride)
        pixels = x[:, :, :: self.stride, :: self.stride]
        return F.pad(pixels, (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; ReLU after the second with or without a shortcut."""

    expansion = 1

    def __init__(self, inputs, width, stride, shortcut):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, width, 3, stride)
        self.conv2, self.bn2 = conv_bn(width, width, 3)
        self.shortcut = None
        if shortcut:
            self.shortcut = make_shortcut(inputs, width, stride, shortcut)

    def forward(self, x):  # (N, inputs, H, W) -> (N, width, H / stride, W / stride)
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return F.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions to 4 times the width."""

    expansion = 4

    def __init__(self, inputs, width, stride, shortcut):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, width, 1)
        self.conv2, self.bn2 = conv_bn(width, width, 3, stride)
        self.conv3, self.bn3 = conv_bn(width, 4 * width, 1)
        self.shortcut = None
        if shortcut:
            self.shortcut = make_shortcut(inputs, 4 * width, stride, shortcut)

    def forward(self, x):  # (N, inputs, H, W) -> (N, 4 * width, H / stride, W / stride)
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.shortcut is None:
            # no ReLU: the original has none, and its published checkpoints were trained so
            return out
        return F.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """Stages of `blocks[i]` blocks of width `widths[i]`; each but the first halves the image.

    The last features are averaged over the image, which for a 32x32 image is the original's fixed
    pooling.

    shortcut: where the shape changes, "B" for a 1x1 convolution (the default), "A" for pixels and
    channels without parameters (He et al. 2016, section 3.3 and 4.2).
    """

    def __init__(self, block, blocks, widths, has_shortcut, num_classes=10, shortcut=None):
        super().__init__()
        shortcut = _shortcut_option(has_shortcut, shortcut)
        self.stages = [f"layer{i}" for i in range(1, len(blocks) + 1)]
        self.conv1, self.bn1 = conv_bn(3, widths[0], 3)

        inputs = widths[0]
        for stage, count, width in zip(self.stages, blocks, widths, strict=True):
            first_stride = 2
            if stage == "layer1":
                first_stride = 1

            layers = []
            for stride in [first_stride] + [1] * (count - 1):
                layers.append(block(inputs, width, stride, shortcut))
                inputs = width * block.expansion
            self.add_module(stage, nn.Sequential(*layers))

        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, x):  # (N, 3, H, W) -> (N, num_classes)
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.linear(torch.flatten(self.pool(x), 1))


def _shortcut_option(has_shortcut, option):
    """'A', 'B', or '' for a network without shortcuts."""
    if not has_shortcut:
        if option is not None:
            raise ValueError(f"a network without shortcuts has no shortcut {option!r}")
        return ""
    if option not in (None, "A", "B"):
        raise ValueError(f"expected A or B as shortcut, got {option!r}")
    return option or "B"


def _three_stages(depth, widening=1):
    """The structure of a network of depth 6n + 2: n blocks in each of three stages."""
    widths = [16 * widening, 32 * widening, 64 * widening]
    return BasicBlock, [(depth - 2) // 6] * 3, widths


STRUCTURES = {  # name -> (block, blocks per stage, width per stage)
    "resnet18": (BasicBlock, [2, 2, 2, 2], [64, 128, 256, 512]),
    "resnet34": (BasicBlock, [3, 4, 6, 3], [64, 128, 256, 512]),
    "resnet50": (Bottleneck, [3, 4, 6, 3], [64, 128, 256, 512]),
    "resnet101": (Bottleneck, [3, 4, 23, 3], [64, 128, 256, 512]),
    "resnet152": (Bottleneck, [3, 8, 36, 3], [64, 128, 256, 512]),
    "resnet20": _three_stages(20),
    "resnet32": _three_stages(32),
    "resnet44": _three_stages(44),
    "resnet50_16": _three_stages(50),
    "resnet56": _three_stages(56),
    "resnet110": _three_stages(110),
    "wrn56_2": _three_stages(56, 2),
    "wrn56_4": _three_stages(56, 4),
    "wrn56_8": _three_stages(56, 8),
    "wrn110_2": _three_stages(110, 2),
    "wrn110_4": _three_stages(110, 4),
}

NETWORKS = {}
for _name, _structure in STRUCTURES.items():
    NETWORKS[_name] = partial(ResNet, *_structure, True)
    NETWORKS[f"{_name}_noshort"] = partial(ResNet, *_structure, False)
