"""VGG networks with batch normalization (Simonyan and Zisserman 2015, arXiv 1409.1556), sized for 32x32 images.

`vgg9` is the network of the paper. `vgg16` and `vgg19` take configurations D and E of Simonyan and Zisserman in the
same style: after five poolings one 512-wide pixel is left of a 32x32 image, so one hidden layer of 512 replaces
the two of 4096.
"""

from functools import partial

import torch
from torch import nn

# widths of the 3x3 convolutions; "M" is a 2x2 max pooling
CONFIGS = {
    "vgg9": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M"],
    "vgg16": [64] * 2 + ["M"] + [128] * 2 + ["M"] + [256] * 3 + ["M"] + [512] * 3 + ["M"] + [512] * 3 + ["M"],
    "vgg19": [64] * 2 + ["M"] + [128] * 2 + ["M"] + [256] * 4 + ["M"] + [512] * 4 + ["M"] + [512] * 4 + ["M"],
}


class VGG(nn.Module):
    """Convolutions by `config`, one hidden layer as wide as the last convolution, a linear classifier."""

    def __init__(self, config, num_classes=10):
        super().__init__()
        layers, width = [], 3
        for item in config:
            if item == "M":
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            else:
                layers += [nn.Conv2d(width, item, 3, padding=1), nn.BatchNorm2d(item), nn.ReLU()]
                width = item
        side = 32 >> config.count("M")  # of the features of a 32x32 image
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(side)  # leaves the features of a 32x32 image as they are
        self.fc = nn.Sequential(nn.Linear(width * side * side, width), nn.BatchNorm1d(width), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x):  # (N, 3, H, W) -> (N, num_classes)
        x = self.pool(self.features(x))
        return self.classifier(self.fc(torch.flatten(x, 1)))


VGGS = {name: partial(VGG, config) for name, config in CONFIGS.items()}
