"""Stores of surface files, as running jobs have them, and what killed jobs leave; full disks."""

import json
import os
import resource
from contextlib import contextmanager

import numpy as np

from losslandscape.files.grid import Grid, Surface
from losslandscape.files.store import SurfaceStore

NAMES = ["train_loss", "train_acc"]
GRID = Grid.parse("-1:1:3", "-1:1:2")
MADE_FROM = {"checkpoint": "a" * 64, "loss": "crossentropy"}


def store(path, names=NAMES, grid=GRID, provenance=MADE_FROM):
    return SurfaceStore(str(path), grid, names, "d.h5", provenance)


def values_of(point, names=NAMES):
    return {name: 10.0 * point + i for i, name in enumerate(names)}


def hidden(folder):
    return [name for name in os.listdir(folder) if name.startswith(".")]


def large(path):
    """A store of a file that takes long to write."""
    running = store(path)
    running._write_seconds = 10.0
    return running


def crash(folder):
    """What a killed process leaves: its lock, whose pid is soon another's, and perhaps a journal."""
    for name in hidden(folder):
        if name.endswith(".lock"):
            path = os.path.join(folder, name)
            with open(path) as f:
                left = json.load(f) | {"process": "1"}
            with open(path, "w") as f:
                json.dump(left, f)


@contextmanager
def files_of_at_most(size):
    """Within the block, writing more than `size` bytes into a file fails as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def surface(shape=(3, 4), value=1.0, name="train_loss", **more):
    axes = [np.linspace(-1, 1, n) for n in shape[::-1]]
    return Surface(Grid(*axes), {name: np.full(shape, value)}, {name: np.ones(shape, bool)}, **more)
