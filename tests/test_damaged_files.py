"""Fuzz: whatever single bit of a small file is wrong, every reader refuses the file or reads values of the right form.

A crash or an endless loop counts against us, a traceback and a warning too. So the readers run in processes of their
own, each with a limit of the time that it computes for one bit. `make test` tries a sample of the bits, `make
test-long` every one.
"""

import collections
import json
import multiprocessing
import os
import random
import resource
import signal
import traceback
import warnings

import h5py
import numpy as np
import pytest

from losslandscape.describe import describe
from losslandscape.errors import InputError
from losslandscape.files import variable_texts
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import (
    Directions,
    read_directions,
    read_projection,
    read_surface,
    write_directions,
    write_projection,
    write_surface,
)

SECONDS = 10  # of computing, for one bit
MEMORY = 4 << 30  # bytes
SAMPLE = 120  # bits of a file in `make test`

fork = multiprocessing.get_context("fork")

# ---------------------------------------------------------------- small files

MADE_FROM = {"model": "resnet20", "checkpoint": "ab" * 32, "batch_size": 32, "versions": {"torch": "2.6"}}


def write_small_surface(path):
    grid = Grid.parse("-1:1:3", "-1:1:2")
    computed = np.array([[True, True, False], [True, True, True]])
    write_surface(path, Surface(grid, {"train_loss": np.ones((2, 3))}, {"train_loss": computed}, "d.h5", MADE_FROM))


def write_old_surface(path):
    """As the original and our first version wrote texts."""
    write_small_surface(path)
    with h5py.File(path, "a") as f:
        del f["dir_file"], f.attrs["provenance"]
        f["dir_file"] = "d.h5"
        f.attrs["provenance"] = json.dumps(MADE_FROM)


def write_small_directions(path):
    arrays = [np.ones(shape, np.float32) for shape in ((2, 3), (4,), ())]
    shares = {"explained_variance_ratio_": np.array([0.9, 0.1])}
    write_directions(path, Directions(arrays, arrays, MADE_FROM, shares))


def write_small_projection(path):
    write_projection(path, dict.fromkeys(("proj_xcoord", "proj_ycoord", "epoch"), np.arange(3.0)), MADE_FROM)


WRITERS = {
    "surface": write_small_surface, "directions": write_small_directions, "projection": write_small_projection}

# ---------------------------------------------------------------- what readers promise


def surface_is_valid(path):
    surface = read_surface(path)
    for name in surface.values:
        assert surface.get(name).shape == surface.grid.shape
    assert all(np.isfinite(axis).all() for axis in surface.grid.axes)
    assert isinstance(surface.dir_file, str) and isinstance(surface.provenance, dict)


def directions_are_valid(path):
    directions = read_directions(path)
    for array in [*directions.x, *(directions.y or []), *directions.extra.values()]:
        assert array.dtype.kind in "fiub" and array.nbytes < 10**9


def projection_is_valid(path):
    arrays, _ = read_projection(path)
    assert len({len(array) for array in arrays.values()}) == 1


def description_is_valid(path):
    text = describe(path)
    assert all(letter.isprintable() or letter == "\n" for letter in text)


READERS = (surface_is_valid, directions_are_valid, projection_is_valid, description_is_valid)

# ---------------------------------------------------------------- bit by bit

NOT_TRIED, BEGUN, READ, REFUSED, BROKEN = b"-brx!"


def try_bits(image, bits, folder, outcomes):
    """Put what becomes of the file with each of `bits` turned over into `outcomes`; runs in a process of its own."""
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what HDF5 and Python say when they crash
    path = os.path.join(folder, f"{os.getpid()}.h5")

    for bit in bits:
        outcomes[bit] = BEGUN
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends the process
        damaged = bytearray(image)
        damaged[bit // 8] ^= 1 << bit % 8
        with open(path, "wb") as f:
            f.write(damaged)
        variable_texts._read_once.cache_clear()

        outcome = REFUSED
        for read in READERS:
            try:
                read(path)
                outcome = READ
            except InputError:
                pass
            except BaseException:
                outcome = BROKEN
                with open(os.path.join(folder, "tracebacks"), "a") as f:
                    f.write(f"bit {bit}, {read.__name__}:\n{traceback.format_exc()}\n")
                break
        outcomes[bit] = outcome
    os.unlink(path)
    os._exit(0)


def outcomes_of(image, bits, folder, processes=1):
    """{outcome: bits} of a file, each of `bits` turned over; 'crashed' where a process was ended."""
    outcomes = fork.RawArray("B", [NOT_TRIED] * (8 * len(image)))
    crashed = []
    shares = [bits[i::processes] for i in range(processes)]
    while any(shares):
        children = [fork.Process(target=try_bits, args=(image, share, folder, outcomes)) for share in shares if share]
        for child in children:
            child.start()
        for child in children:
            child.join()

        # a process that was ended has left its bit, and the rest of its share
        begun = [bit for bit in bits if outcomes[bit] == BEGUN]
        crashed += begun
        for bit in begun:
            outcomes[bit] = BROKEN
        shares = [[bit for bit in share if outcomes[bit] == NOT_TRIED] for share in shares]

    result = collections.defaultdict(list)
    for bit in bits:
        kind = {READ: "read", REFUSED: "refused"}.get(outcomes[bit], "broken")
        if bit in crashed:
            kind = "crashed"
        result[kind].append(bit)
    return result


def assert_only_refusals_and_values(image, bits, folder, processes=1):
    """Prints how many there were of each."""
    outcomes = outcomes_of(image, bits, folder, processes)
    print({kind: len(bits) for kind, bits in outcomes.items()})
    bad = {kind: bits for kind, bits in outcomes.items() if kind not in ("read", "refused")}
    tracebacks = folder / "tracebacks"
    assert not bad, f"{bad}\n{tracebacks.read_text()[:5000] if tracebacks.exists() else ''}"
    assert outcomes["read"] and outcomes["refused"]


def small_file(write, folder):
    write(folder / "small.h5")
    return (folder / "small.h5").read_bytes()


@pytest.mark.parametrize("kind", WRITERS)
def test_some_bits(tmp_path, kind):
    image = small_file(WRITERS[kind], tmp_path)
    bits = random.Random(0).sample(range(8 * len(image)), SAMPLE)
    assert_only_refusals_and_values(image, bits, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", WRITERS)
def test_every_bit(tmp_path, kind):
    image = small_file(WRITERS[kind], tmp_path)
    assert_only_refusals_and_values(image, list(range(8 * len(image))), tmp_path, os.cpu_count())


def bits_of_heap(image):
    """The bits of the heap of variable-length texts, as far as it is used."""
    start = image.index(b"GCOL")
    return range(8 * start, 8 * (start + len(image[start:].rstrip(b"\0"))))


def test_some_bits_of_the_heap_of_an_old_file(tmp_path):
    image = small_file(write_old_surface, tmp_path)
    bits = random.Random(0).sample(bits_of_heap(image), 8)
    assert_only_refusals_and_values(image, bits, tmp_path)


@pytest.mark.long
def test_every_bit_of_the_heap_of_an_old_file(tmp_path):
    image = small_file(write_old_surface, tmp_path)
    assert_only_refusals_and_values(image, list(bits_of_heap(image)), tmp_path, os.cpu_count())
