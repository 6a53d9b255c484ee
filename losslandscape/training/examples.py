"""What a network is trained on: a data set on the device, cut into augmented batches.

The labels may be corrupted, to see what a network does with random ones.
"""

from dataclasses import replace

import torch

from losslandscape.data.datasets import load_dataset, prepare
from losslandscape.errors import InputError

PADDING = 4  # pixels around the image for random crops
SMALLEST_SIDE = 8  # pixels: the smallest images that every network of the zoo takes
CHANNELS = 3


def load_examples(recipe, datapath, device):
    """The data set of a TrainingRecipe on `device`, downloaded into `datapath` where it is absent.

    Raises InputError where the networks of the zoo can't be trained on it.
    """
    prepare(recipe.dataset, datapath)
    data = load_dataset(recipe.dataset, datapath, raw_data=recipe.raw_data)
    check_trainable(data, recipe.dataset)

    if recipe.label_corrupt_prob:
        labels = corrupt_labels(
            data.train.targets, data.num_classes, recipe.label_corrupt_prob, recipe.generator(0))
        data = replace(data, train=replace(data.train, targets=labels))

    data = replace(data, train=on_device(data.train, device))
    if data.test is not None:
        data = replace(data, test=on_device(data.test, device))
    return data


def check_trainable(data, source):
    """Raise InputError where the networks of the zoo can't be trained on `data` from `source`."""
    count = len(data.train.targets)
    if count < 2:
        raise InputError(f"expected at least 2 training images in {source}, got {count}; "
                         "batch normalization needs two samples")

    channels, *sides = data.train.inputs.shape[1:]
    if channels != CHANNELS or min(sides) < SMALLEST_SIDE:
        raise InputError(
            f"expected images of {CHANNELS} channels and at least {SMALLEST_SIDE}x{SMALLEST_SIDE} "
            f"pixels in {source}, got {channels} channels of {sides[0]}x{sides[1]}; "
            "give another --dataset")


def on_device(split, device):
    """The split on `device`, in the memory format that serves both training and scoring."""
    return replace(
        split,
        inputs=split.inputs.to(device, memory_format=torch.channels_last),
        targets=split.targets.to(device),
    )


def corrupt_labels(targets, num_classes, probability, rng):
    """Labels (N,), each replaced, with `probability`, by one drawn uniformly from all classes.

    The random labels of Zhang et al. 2017 (arXiv 1611.03530): a drawn label may be the true one.
    """
    is_replaced = torch.from_numpy(rng.random(len(targets)) < probability)
    drawn_labels = torch.from_numpy(rng.integers(num_classes, size=len(targets)))
    return torch.where(is_replaced, drawn_labels, targets)


def batch_indices(count, batch_size, rng):
    """The numbers 0 ... count - 1 in random order, in pieces of `batch_size`; the last is smaller.

    A single left-over joins the batch before it, for batch normalization needs two samples.
    """
    batches = list(torch.from_numpy(rng.permutation(count)).split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        left_over = batches.pop()
        batches[-1] = torch.cat([batches[-1], left_over])
    return batches


def plain_batch(inputs, index):
    """The images inputs[index], as they are: (B, C, H, W) in channels_last format."""
    return inputs[index.to(inputs.device)].to(memory_format=torch.channels_last)


def augment(inputs, index, black, flip, rng):
    """Random crops, with `flip` also random mirror images, of the images inputs[index].

    Inputs and crops have shape (N, C, H, W), crops in channels_last format.

    Each image is surrounded by PADDING pixels of `black` (C,) and cut out at a random place. One
    gather for the whole batch; padding the data set beforehand would take 1.6 times its memory.
    """
    device = inputs.device
    height, width = inputs.shape[2:]

    # where each row and column of the crops lies in the image; outside of it is the padding
    shift = torch.from_numpy(rng.integers(-PADDING, PADDING + 1, size=(2, len(index), 1)))
    rows = torch.arange(height) + shift[0]  # (B, H)
    columns = torch.arange(width) + shift[1]  # (B, W)
    if flip:
        is_mirrored = torch.from_numpy(rng.random((len(index), 1)) < 0.5)
        columns = torch.where(is_mirrored, columns.flip(1), columns)

    # one image, row and column for each pixel
    index = index[:, None, None].to(device)  # (B, 1, 1)
    rows = rows[:, :, None].to(device)  # (B, H, 1)
    columns = columns[:, None, :].to(device)  # (B, 1, W)

    # gather the pixels, then blacken those of the padding
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # (B, H, W)
    crops = inputs[index, :, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]  # (B, H, W, C)
    crops = torch.where(is_inside[..., None], crops, black.to(device))
    return crops.permute(0, 3, 1, 2)
