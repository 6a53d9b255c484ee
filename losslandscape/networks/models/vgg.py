"""VGG networks with batch norm (Simonyan and Zisserman 2015, arXiv 1409.1556) for 32x32 images.

`vgg9` is the network of the paper. `vgg16` and `vgg19` take configurations D and E of Simonyan and
Zisserman in the same style: after five poolings one 512-wide pixel is left of a 32x32 image, so one
hidden layer of 512 replaces the two of 4096.
"""

from functools import partial

import torch
from torch import nn

POOL = "M"  # a 2x2 max pooling

# name -> widths of the 3x3 convolutions, with the poolings between them
CONFIGS = {
    "vgg9": [64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL],
    "vgg16": [
        *(64, 64, POOL),
        *(128, 128, POOL),
        *(256, 256, 256, POOL),
        *(512, 512, 512, POOL),
        *(512, 512, 512, POOL),
    ],
    "vgg19": [
        *(64, 64, POOL),
        *(128, 128, POOL),
        *(256, 256, 256, 256, POOL),
        *(512, 512, 512, 512, POOL),
        *(512, 512, 512, 512, POOL),
    ],
}


class VGG(nn.Module):
    """Convolutions by `config`, a hidden layer as wide as the last of them, a linear classifier."""

    def __init__(self, config, num_classes=10):
        super().__init__()
        layers = []
        width = 3
        for entry in config:
            if entry == POOL:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            else:
                layers += [nn.Conv2d(width, entry, 3, padding=1), nn.BatchNorm2d(entry), nn.ReLU()]
                width = entry

        side = 32 // 2 ** config.count(POOL)  # of the features of a 32x32 image
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(side)  # leaves the features of a 32x32 image as they are
        self.fc = nn.Sequential(
            nn.Linear(width * side * side, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x):  # (N, 3, H, W) -> (N, num_classes)
        x = self.pool(self.features(x))
        return self.classifier(self.fc(torch.flatten(x, 1)))


NETWORKS = {name: partial(VGG, config) for name, config in CONFIGS.items()}
