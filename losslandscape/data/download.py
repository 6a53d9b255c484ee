"""Fetching the files of a named data set.

torchvision downloads and checks them; they are moved into their folder when they are complete.
"""

import os
import shutil
import sys
import tempfile

from losslandscape.data.reasons import reason_of
from losslandscape.errors import InputError


def download(name, named_set, datapath):
    """Fetch the files of `named_set` into `datapath`; all of them or, with InputError, none."""
    if os.path.exists(datapath) and not os.path.isdir(datapath):
        raise InputError(
            f"expected a folder as --datapath, {datapath} is a file; give the folder of the data")
    try:
        import torchvision
    except ImportError:
        raise InputError(
            f"downloading {name} takes torchvision, which is not installed; "
            f"pip install torchvision, or put {named_set.expected} into {datapath}") from None

    print(f"downloading {name} into {datapath}", file=sys.stderr)
    try:
        beside = _folder_beside(datapath)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=beside) as temporary:
            getattr(torchvision.datasets, named_set.download)(temporary, download=True)
            _move_files(temporary, datapath)
    # torchvision raises RuntimeError, URLError, ... as the version and the mirror have it
    except Exception as error:
        raise InputError(
            f"can't download {name} ({reason_of(error)}); put {named_set.expected} into {datapath}"
        ) from None


def _folder_beside(datapath):
    """The nearest folder that is there: datapath is made when there is something to put into it."""
    folder = os.path.abspath(datapath)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _move_files(source, target):
    """Move all files below `source` to the same places below `target`."""
    for folder, _, files in os.walk(source):
        target_folder = os.path.join(target, os.path.relpath(folder, source))
        for file in files:
            if file.endswith(".tar.gz"):  # its contents lie beside it
                continue
            os.makedirs(target_folder, exist_ok=True)
            shutil.move(os.path.join(folder, file), os.path.join(target_folder, file))
