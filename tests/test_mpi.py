"""The program under a real mpirun: MPICH's, from the wheel. Open MPI: test_failures.py."""

import numpy as np
import pytest

import h5_util
from tests.conftest import refused, run

PLANE = ("--xnorm", "filter", "--xignore", "biasbn", "--ynorm", "filter", "--yignore", "biasbn",
         "--x=-1:1:3", "--y=-1:1:3", "--batch_size", "20")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Golden checkpoint and a few images, shared by the tests of this file."""
    import shutil

    from tests.conftest import GOLDEN

    folder = tmp_path_factory.mktemp("mpi")
    shutil.copy(GOLDEN / "model_6.t7", folder)
    with np.load(GOLDEN / "data.npz") as f:
        np.savez(folder / "data.npz", **{k: v[:40] for k, v in f.items()})
    return folder


@pytest.fixture(scope="module")
def alone(small, surface_arguments):
    """The surface of one process without mpirun."""
    done = run(*surface_arguments(small, *PLANE, "--surf_file", small / "alone.h5"))
    assert done.returncode == 0, done.stderr
    return h5_util.read_surface(small / "alone.h5")


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 11])
def test_any_number_of_ranks_writes_the_same_file(ranks, small, alone, surface_arguments):
    """11 ranks for 9 points: some have nothing to do."""
    file = small / f"{ranks}.h5"
    done = run(*surface_arguments(small, "--mpi", *PLANE, "--surf_file", file), ranks=ranks)
    assert done.returncode == 0, done.stderr
    found = h5_util.read_surface(file)
    assert found.values.keys() == alone.values.keys()
    for name, values in alone.values.items():
        np.testing.assert_array_equal(found.values[name], values)
        assert found.computed[name].all()
    assert f"on {ranks} rank" in done.stderr
    assert done.stdout.count("surface file:") == 1  # only rank 0 talks
    assert not [f for f in small.iterdir() if f.name.startswith(".")]  # no lock, no temporary file is left


def test_without_the_flag_it_says_so_and_uses_mpi_all_the_same(small, alone, surface_arguments):
    done = run(*surface_arguments(small, *PLANE, "--surf_file", small / "noflag.h5"), ranks=2)
    assert done.returncode == 0 and "using MPI although --mpi was not given" in done.stderr
    found = h5_util.read_surface(small / "noflag.h5")
    np.testing.assert_array_equal(found.values["train_loss"], alone.values["train_loss"])


def test_resuming_with_another_number_of_ranks_equals_uninterrupted(small, alone, surface_arguments):
    part = h5_util.read_surface(small / "alone.h5")
    for name in part.values:
        part.computed[name].flat[[0, 3, 7]] = False
        part.values[name].flat[[1]] = 0.25  # not to be computed again
    h5_util.write_surface(small / "part.h5", part)
    done = run(*surface_arguments(small, "--mpi", *PLANE, "--surf_file", small / "part.h5"), ranks=3)
    assert done.returncode == 0 and "3 points (6 done before)" in done.stderr
    found = h5_util.read_surface(small / "part.h5").values["train_loss"]
    assert found.flat[1] == 0.25
    np.testing.assert_array_equal(np.delete(found.ravel(), 1), np.delete(alone.values["train_loss"].ravel(), 1))


def test_bad_input_is_said_once_by_all_ranks_together(small, surface_arguments):
    for flags in (("--x=1:-1:5",), ("--model_file", small / "missing.t7"), ("--model", "vgg9"), ("--nonsense",)):
        done = run(*surface_arguments(small, "--mpi", *PLANE, *flags), ranks=3)
        assert refused(done), done.stderr
