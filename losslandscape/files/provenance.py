"""From what a file was made."""

import importlib.metadata
import platform
import socket
import sys
import time

from losslandscape.errors import InputError

# what must agree before results are put into one file: key -> in words
MATTERS = {
    "model": "model",
    "checkpoint": "contents of --model_file",
    "checkpoint2": "contents of --model_file2",
    "checkpoint3": "contents of --model_file3",
    "directions": "contents of the direction file",
    "dir_type": "--dir_type",
    "params": "--params",
    "freeze": "--freeze",
    "loss": "--loss_name",
    "model_code": "the code of --model",
    "loss_code": "the code of --loss_name",
    "bn": "--bn",
    "train_data": "training data",
    "test_data": "test data",
    "precision": "--precision",
    "hessian_params": "--params",
    "hessian_tol": "--tol",
}


def refuse_mismatch(path, old, new, keys=MATTERS):
    """Raises InputError if two provenances differ in what matters; a key that one of them lacks is not compared."""
    differences = [
        f"{words} ({_short(old[key])} in the file, {_short(new[key])} now)"
        for key, words in keys.items()
        if key in old and key in new and old[key] != new[key]
    ]
    if differences:
        raise InputError(f"{path} was made from something else: it differs in {', '.join(differences)}; "
                         "undo that, or choose another file name, or delete the file")


def _short(value):
    """A hash is recognized by its first digits."""
    text = str(value)
    return text[:10] if len(text) == 64 else text


def circumstances():
    """By which command, where, when and with which versions a file is made: for whoever reads its provenance."""
    return {
        "command": " ".join(sys.argv),
        "host": socket.gethostname(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version()} | {
            package: importlib.metadata.version(package) for package in ("torch", "numpy", "h5py")},
    }
