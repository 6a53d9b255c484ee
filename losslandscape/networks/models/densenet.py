"""DenseNet-BC (Huang et al. 2017, arXiv 1608.06993): 3x3 stem, growth 32, reduction 0.5."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

GROWTH = 32  # features that every layer adds


class DenseLayer(nn.Module):
    """BN-ReLU-1x1 to 4 times the growth, BN-ReLU-3x3; new features stand before the old ones."""

    def __init__(self, inputs):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * GROWTH, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x):  # (N, inputs, H, W) -> (N, GROWTH + inputs, H, W)
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return torch.cat([out, x], 1)


class Transition(nn.Module):
    """BN-ReLU-1x1 to fewer features, then the image is halved."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):  # (N, inputs, H, W) -> (N, outputs, H / 2, W / 2)
        return self.pool(self.conv(F.relu(self.bn(x))))


class DenseNet(nn.Module):
    """Dense blocks of `blocks[i]` layers with transitions between them."""

    def __init__(self, blocks, num_classes=10):
        super().__init__()
        width = 2 * GROWTH
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)

        self.stages = []
        for i, count in enumerate(blocks, 1):
            layers = [DenseLayer(width + j * GROWTH) for j in range(count)]
            self._add_stage(f"dense{i}", nn.Sequential(*layers))
            width += count * GROWTH

            if i < len(blocks):
                self._add_stage(f"trans{i}", Transition(width, width // 2))
                width //= 2

        self.bn = nn.BatchNorm2d(width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(width, num_classes)

    def _add_stage(self, name, module):
        self.add_module(name, module)
        self.stages.append(name)

    def forward(self, x):  # (N, 3, H, W) -> (N, num_classes)
        x = self.conv1(x)
        for stage in self.stages:
            x = getattr(self, stage)(x)
        x = self.pool(F.relu(self.bn(x)))
        return self.linear(torch.flatten(x, 1))


NETWORKS = {"densenet121": partial(DenseNet, [6, 12, 24, 16])}
