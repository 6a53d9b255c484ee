"""Image folders: DATAPATH/train/CLASS/IMAGE and DATAPATH/val/CLASS/IMAGE (or test/, or valid/)."""

import os

from losslandscape.data.images import Normalization, describe_normalization
from losslandscape.data.reasons import reason_of
from losslandscape.data.request import Data
from losslandscape.data.splits import as_split
from losslandscape.errors import InputError

NAMES = ("imagefolder", "imagenet")  # two names of one form
FOLDERS = {"train": ("train",), "test": ("val", "test", "valid")}
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def load_folders(request):
    """Data of the images, classes in alphabetical order.

    Shorter side 256, centre 224x224, [0, 1], normalized with ImageNet's mean and std: torchvision's
    evaluation.
    """
    normalization = None
    if not request.raw_data:
        normalization = IMAGENET
    transform = _transform(request.name, normalization)

    parts, classes = {}, None
    for part in request.parts:
        folder = _folder_of_part(request.datapath, part)
        if folder is None and not request.requires(part):
            continue
        if folder is None:
            candidates = [os.path.join(request.datapath, name) for name in FOLDERS[part]]
            raise InputError(
                f"expected a folder {' or '.join(candidates)} with a folder of images per class, "
                "found none; check --datapath")

        images = _images_of(folder, transform)
        if classes is not None and classes != images.classes:
            raise InputError(
                f"expected the classes of training and test in {request.datapath} to be the same, "
                f"but {folder} has others")
        classes = images.classes
        parts[part] = as_split(images, folder, part, **request.reading)
    return Data.of_splits(request.name, parts, describe_normalization(normalization))


def _transform(name, normalization):
    """A picture -> a tensor (3, 224, 224)."""
    try:
        from torchvision import transforms
    except ImportError:
        raise InputError(
            f"--dataset {name} takes torchvision, which is not installed; pip install torchvision"
        ) from None

    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    if normalization is not None:
        steps.append(transforms.Normalize(normalization.mean, normalization.std))
    return transforms.Compose(steps)


def _folder_of_part(datapath, part):
    """The folder of a part; None where there is none."""
    for name in FOLDERS[part]:
        folder = os.path.join(datapath, name)
        if os.path.isdir(folder):
            return folder
    return None


def _images_of(folder, transform):
    """The data set of a folder; InputError where it has no class, or a class has no images."""
    from torchvision import datasets

    try:
        return datasets.ImageFolder(folder, transform, loader=_read_picture)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"can't read the images in {folder} ({reason_of(error)}); expected {folder}/CLASS/IMAGE"
        ) from None


def _read_picture(path):
    """The picture at `path`; InputError, which names it, where it can't be read."""
    from torchvision import datasets

    try:
        return datasets.folder.default_loader(path)
    except Exception as error:  # a damaged picture can raise anything
        raise InputError(
            f"can't read the picture {path} ({reason_of(error)}); replace it, or take it away"
        ) from None
