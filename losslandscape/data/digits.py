"""The 1797 handwritten digits that scikit-learn ships."""

import importlib.util
import os

import numpy as np
import torch

from losslandscape.data.named import SIDE, NamedSet
from losslandscape.errors import InputError

TRAINING_IMAGES = 1500
DARKEST = 16  # pixels are 0 .. 16


def read_digits(datapath, part):
    """8x8 images, enlarged bilinearly to (N, 1, 32, 32) float32 in [0, 1], and labels (N,).

    The first 1500 are the training set and the last 297 the test set. A random division would be
    kinder (one nearest neighbour gets 98.7 % right against 94.6 %): images of one hand stand
    together, so the last ones are mostly by hands that the training set does not have.
    """
    images, labels = _all_digits()
    if part == "train":
        images, labels = images[:TRAINING_IMAGES], labels[:TRAINING_IMAGES]
    else:
        images, labels = images[TRAINING_IMAGES:], labels[TRAINING_IMAGES:]

    small = torch.from_numpy(images).to(torch.float32)[:, None] / DARKEST  # (N, 1, 8, 8) in [0, 1]
    large = torch.nn.functional.interpolate(
        small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return large.numpy(), labels


def _all_digits():
    """Images (1797, 8, 8) in 0 .. 16 and labels (1797,).

    From scikit-learn's file, because importing scikit-learn would take seconds.
    """
    sklearn = importlib.util.find_spec("sklearn")
    if sklearn is None:
        raise InputError(
            "the data set digits comes with scikit-learn, which is not installed; "
            "pip install scikit-learn")

    file = os.path.join(os.path.dirname(sklearn.origin), "datasets", "data", "digits.csv.gz")
    if os.path.exists(file):
        table = np.loadtxt(file, delimiter=",")  # (1797, 65): the pixels, then the label
        return table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(np.int64)

    # a version that keeps it elsewhere
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels.reshape(-1, 8, 8), labels


# mean and std are over the pixels of the enlarged training images
DIGITS = NamedSet(num_classes=10, flip=False, mean=(0.3051,), std=(0.3222,), read=read_digits)
