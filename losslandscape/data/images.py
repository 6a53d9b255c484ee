"""Images and labels as arrays: checked, normalized, made tensors."""

from dataclasses import dataclass

import numpy as np
import torch

from losslandscape.errors import InputError

MAX_CLASSES = 10**6
CHANNELS = (1, 3)  # of images: grey or colour
AS_THEY_ARE = "none: the inputs are used as they are"
RAW = "images in [0, 1], not normalized"


# ---------------------------------------------------------------- what a user's arrays must be


def as_images(array, name):
    """A user's inputs as (N, C, H, W): uint8 with C in 1, 3, or float32. `name`: for messages."""
    if array.dtype == np.uint8:
        array = _channels_first(array, name)
    elif array.dtype.kind == "f":
        _refuse_channels_last(array, name)
        # a float64 beyond float32 becomes inf, which is warned about
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
    else:
        raise InputError(
            f"expected {name} as float32 (N, C, H, W) or uint8 images, got {array.dtype}; "
            "convert them")
    return np.ascontiguousarray(array)


def _channels_first(array, name):
    """uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W)."""
    if array.ndim == 3:
        array = array[:, None]  # (N, 1, H, W): grey
    _refuse_other_shapes(array, name)

    channels_first = array.shape[1] in CHANNELS
    channels_last = array.shape[3] in CHANNELS
    if channels_first and channels_last:
        raise InputError(
            f"expected {name} as (N, C, H, W) or (N, H, W, C), and {array.shape} can be either; "
            "give larger images")
    if channels_last:
        return array.transpose(0, 3, 1, 2)
    if not channels_first:
        raise _wrong_channels(array, name)
    return array


def _refuse_channels_last(array, name):
    """Raise InputError for float inputs (N, H, W, C); as (N, C, H, W), C may be any number."""
    _refuse_other_shapes(array, name)
    if array.shape[3] in CHANNELS and array.shape[1] not in CHANNELS:
        raise _wrong_channels(array, name)


def _refuse_other_shapes(array, name):
    if array.ndim != 4 or array.size == 0:
        raise InputError(
            f"expected {name} of shape (N, C, H, W) with N >= 1, got {array.shape}; reshape them")


def _wrong_channels(array, name):
    return InputError(
        f"expected 1 or 3 channels in {name}, (N, C, H, W), got {array.shape}; transpose them")


def as_labels(array, count, name, num_classes=None):
    """Labels (N,) int64 in 0 .. num_classes-1.

    count   how many there must be; None: any number but 0
    name    for messages
    """
    if array.ndim and len(array) == 0:
        raise InputError(f"expected at least one example, got none: {name} are empty; give more")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # (N, 1), as some programs write them
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise InputError(
            f"expected {name} as integers (N,), got {array.dtype} {array.shape}; "
            "give one class per input")
    if count is not None and len(array) != count:
        raise InputError(
            f"expected {name} to have as many labels as inputs, got {len(array)} and {count}; "
            "give one for each")

    limit = num_classes or MAX_CLASSES
    for label in (int(array.min()), int(array.max())):
        if not 0 <= label < limit:
            raise InputError(
                f"expected {name} in 0 .. {limit - 1}, got {label}; number the classes from 0")
    return np.ascontiguousarray(array, np.int64)


# ---------------------------------------------------------------- normalization


@dataclass(frozen=True)
class Normalization:
    """What is done to images in [0, 1]: per channel (x - mean) / std."""

    mean: tuple  # one value per channel
    std: tuple

    @classmethod
    def of(cls, images):
        """That of uint8 images (N, C, H, W) themselves; a constant channel has std 1."""
        # counted, not summed: exact, and without a float copy of the whole set
        counts = np.zeros((images.shape[1], 256), np.int64)
        for start in range(0, len(images), 256):
            for channel, histogram in enumerate(counts):
                pixels = images[start:start + 256, channel].ravel()
                histogram += np.bincount(pixels, minlength=256)

        values = np.arange(256) / 255
        weights = counts / counts.sum(1, keepdims=True)  # (C, 256)
        mean = weights @ values  # (C,)
        std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1))  # (C,)
        return cls(tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist()))

    def __str__(self):
        mean = ", ".join(f"{value:.6g}" for value in self.mean)
        std = ", ".join(f"{value:.6g}" for value in self.std)
        return f"images in [0, 1], then per channel (x - mean)/std with mean {mean}, std {std}"

    @property
    def columns(self):
        """Mean and std as tensors (C, 1, 1)."""
        return torch.tensor(self.mean)[:, None, None], torch.tensor(self.std)[:, None, None]


def to_tensor(images, normalization=None, repeat_grey=True):
    """(N, C, H, W) float32: uint8 scaled to [0, 1], normalized per channel, grey made 3 channels.

    The same roundings in the same order as torchvision's ToTensor and Normalize.
    """
    x = torch.from_numpy(images).to(torch.float32)
    is_a_copy = images.dtype == np.uint8  # may change in place; a float array is the caller's
    if is_a_copy:
        x.div_(255)

    if normalization is not None:
        mean, std = normalization.columns
        if is_a_copy:
            x.sub_(mean).div_(std)
        else:
            x = (x - mean) / std

    if repeat_grey and x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    return x.contiguous()


def black_pixel(channels, normalization=None, repeat_grey=True):
    """(C,): what becomes of a black pixel."""
    black = np.zeros((1, channels, 1, 1), np.uint8)
    return to_tensor(black, normalization, repeat_grey).flatten()


def describe_normalization(normalization):
    """In words: what was done to the images; None: nothing."""
    if normalization is None:
        return RAW
    return str(normalization)
