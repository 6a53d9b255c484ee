"""Fetching the files of a named data set: by torchvision, which checks them, and moved into place when complete."""

import os
import shutil
import sys
import tempfile

from losslandscape.data.problems import one_line
from losslandscape.errors import InputError


def download(name, named_set, datapath):
    """Fetch the files of `named_set` into `datapath`; InputError where that fails, and no file is left behind then."""
    if os.path.exists(datapath) and not os.path.isdir(datapath):
        raise InputError(
            f"expected a folder as --datapath, {datapath} is a file; give the folder of the data")
    try:
        import torchvision
    except ImportError:
        raise InputError(
            f"downloading {name} takes torchvision, which is not installed; pip install torchvision, "
            f"or put {named_set.expected} into {datapath}") from None

    print(f"downloading {name} into {datapath}", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=_folder_beside(datapath)) as temporary:
            getattr(torchvision.datasets, named_set.download)(temporary, download=True)
            _move_files(temporary, datapath)
    # torchvision raises RuntimeError, URLError, ... as the version and the mirror have it
    except Exception as error:
        raise InputError(
            f"can't download {name} ({one_line(error)}); put {named_set.expected} into {datapath}"
        ) from None


def _folder_beside(datapath):
    """The nearest folder that is there: datapath itself is made when there is something to put into it."""
    folder = os.path.abspath(datapath)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _move_files(source, target):
    """Move all files below `source` to the same places below `target`, over those that are there."""
    for folder, _, files in os.walk(source):
        target_folder = os.path.join(target, os.path.relpath(folder, source))
        for file in files:
            if file.endswith(".tar.gz"):  # its contents lie beside it
                continue
            os.makedirs(target_folder, exist_ok=True)
            shutil.move(os.path.join(folder, file), os.path.join(target_folder, file))
