"""The data of the gallery's small networks: a twentieth of Fashion-MNIST at half the size.

    python docs/small_fashion.py gallery/fashion.npz

3000 training images (part 0 of `--data_split 20`) and the first 1000 test images, each pixel the mean of 2 x 2: a
network costs a fifth at 14 x 14 of what it costs at 32 x 32. The files are Debian's dataset-fashion-mnist where that is
installed; otherwise they are downloaded into cifar10/data.
"""

import os
import sys

import numpy as np
from torch.nn.functional import avg_pool2d

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from losslandscape.command import run
from losslandscape.data import datasets as dataloader
from losslandscape.errors import InputError


def half_size(split, count):
    """uint8 images (count, 14, 14) and labels of the first `count` of a split."""
    grey = split.inputs[:count, :1, 2:-2, 2:-2]  # without the border and the repeats of the grey channel
    return (255 * avg_pool2d(grey, 2)[:, 0]).round().byte().numpy(), split.targets[:count].numpy()


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 1:
        raise InputError("expected the name of the file to write; for example gallery/fashion.npz")
    dataloader.prepare("fashion_mnist")
    data = dataloader.load_dataset("fashion_mnist", raw_data=True, data_split=20)
    arrays = {}
    for part, count in (("train", 3000), ("test", 1000)):
        arrays[f"x_{part}"], arrays[f"y_{part}"] = half_size(getattr(data, part), count)
    os.makedirs(os.path.dirname(argv[0]) or ".", exist_ok=True)
    np.savez_compressed(argv[0], **arrays)
    print(f"{argv[0]}: " + ", ".join(f"{name} {array.shape}" for name, array in arrays.items()))


if __name__ == "__main__":
    run(main)
