"""The program under a real mpirun: MPICH's, from the wheel. Open MPI: test_failures.py."""

import json
import shutil

import numpy as np
import pytest

import plot_surface
from losslandscape.files.layouts import read_surface, write_surface
from tests.conftest import GOLDEN, run

PLANE = ("--xnorm", "filter", "--xignore", "biasbn", "--ynorm", "filter", "--yignore", "biasbn",
         "--x=-1:1:3", "--y=-1:1:3", "--batch_size", "20")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Golden checkpoint and a few images, shared by the tests of this file."""
    folder = tmp_path_factory.mktemp("mpi")
    shutil.copy(GOLDEN / "model_6.t7", folder)
    with np.load(GOLDEN / "data.npz") as f:
        np.savez(folder / "data.npz", **{k: v[:40] for k, v in f.items()})
    return folder


@pytest.fixture(scope="module")
def alone(small, surface_arguments):
    """The surface of one process without mpirun: this one."""
    _, *flags = surface_arguments(small, *PLANE, "--surf_file", small / "alone.h5")
    plot_surface.main([str(flag) for flag in flags])
    return read_surface(small / "alone.h5")


@pytest.mark.parametrize("ranks, flags", [(1, ["--mpi"]), (2, []), (3, ["--mpi"])])
def test_any_number_of_ranks_writes_the_same_file(ranks, flags, small, alone, surface_arguments):
    """Without --mpi it says so, and uses MPI all the same."""
    file = small / f"{ranks}.h5"
    done = run(*surface_arguments(small, *flags, *PLANE, "--surf_file", file), ranks=ranks)
    assert done.returncode == 0, done.stderr
    found = read_surface(file)
    assert found.values.keys() == alone.values.keys()
    for name, values in alone.values.items():
        np.testing.assert_array_equal(found.values[name], values)
        assert found.computed[name].all()
    assert f"on {ranks} rank" in done.stderr
    assert ("using MPI although --mpi was not given" in done.stderr) == (not flags)
    assert done.stdout.count("surface file:") == 1  # only rank 0 talks
    assert not [f for f in small.iterdir() if f.name.startswith(".")]  # no lock, no temporary file is left


def test_resuming_with_another_number_of_ranks_equals_uninterrupted(small, alone, surface_arguments):
    """5 ranks for 3 points: some have nothing to do."""
    part = read_surface(small / "alone.h5")
    for name in part.values:
        part.computed[name].flat[[0, 3, 7]] = False
        part.values[name].flat[[1]] = 0.25  # not to be computed again
    write_surface(small / "part.h5", part)
    done = run(*surface_arguments(small, "--mpi", *PLANE, "--surf_file", small / "part.h5"), ranks=5)
    assert done.returncode == 0 and "3 points (6 done before)" in done.stderr
    found = read_surface(small / "part.h5").values["train_loss"]
    assert found.flat[1] == 0.25
    np.testing.assert_array_equal(np.delete(found.ravel(), 1), np.delete(alone.values["train_loss"].ravel(), 1))


# several command lines in one job: starting ranks is what takes the time
SEVERAL = """
import json, sys
from losslandscape import command
import plot_surface
for flags in json.loads(sys.argv[1]):
    try:
        command.run(lambda: plot_surface.main(flags))
    except SystemExit as ended:
        code = ended.code
        print(code)
sys.exit(code)
"""


def test_bad_input_is_said_once_by_all_ranks_together(small, surface_arguments):
    bad = [("--x=1:-1:5",), ("--model_file", small / "missing.t7"), ("--model", "vgg9"), ("--nonsense",)]
    lines = [[str(flag) for flag in surface_arguments(small, "--mpi", *PLANE, *flags)[1:]] for flags in bad]
    done = run("-c", SEVERAL, json.dumps(lines), ranks=2)
    said = done.stderr.splitlines()
    assert done.returncode == 2 and "".join(done.stdout.split()) == "2" * 2 * len(bad), done.stderr
    assert len(said) == len(bad) and all(line.startswith("error: ") for line in said), done.stderr


FIRST_LOOK = """
import sys, time, types
sys.modules["torch"] = types.ModuleType("torch")
from losslandscape.ranks import connect
world = connect()
for _ in range(10):
    world.bcast()
    if world.rank:
        world.send(0, "here")
    time.sleep(0.1)
    if not world.rank:
        print(world.receive())
        while world.receive():
            pass
"""


def test_a_message_that_has_arrived_is_found_at_the_first_look():
    """MPICH moves messages only while it is called: rank 0, who looks between its batches, would answer one later."""
    done = run("-c", FIRST_LOOK, ranks=2)
    assert done.stdout.splitlines().count("(1, 'here')") >= 9, done.stdout + done.stderr  # the first one connects
