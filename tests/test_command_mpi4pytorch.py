"""Do the ranks see each other? Under a real mpirun, and in words about hardware that is not at hand."""

import re

import numpy as np
import pytest

import mpi4pytorch
from losslandscape.launch_report import RankReport, hosts_in_words, problems, table
from tests.conftest import refused, run


def entry(rank=0, local_rank=0, host="a", cores=("0", "1"), threads=1, gpus=(), refusal=""):
    return RankReport(rank, local_rank, host, 100 + rank, frozenset(cores), threads, 3 << 30, tuple(gpus), refusal)


def test_one_process_says_that_it_is_alone_and_how_to_start_several():
    done = run("mpi4pytorch.py")
    assert done.returncode == 0 and "one process" in done.stdout and "mpirun -n 4" in done.stdout


HANDED_ON = """
import sys
import numpy as np
import mpi4pytorch
mpi4pytorch.main([])
comm = mpi4pytorch.setup_MPI()
mpi4pytorch.barrier(comm)
rank = comm.Get_rank()
got = [mpi4pytorch.broadcast(comm, rank).__str__(), mpi4pytorch.reduce_max(comm, np.array([rank, -rank, np.nan])),
       mpi4pytorch.reduce_min(comm, np.array([rank, -rank]))]
sys.stdout.write(" ".join([f"rank {rank} got", *(str(value) for value in got)]) + "\\n")
sys.stdout.flush()
"""


def test_two_ranks_see_each_other_and_hand_on_what_scripts_import():
    done = run("-c", HANDED_ON, ranks=2, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "2 ranks on 1 host" in done.stdout and "MPICH" in done.stdout
    assert len(re.findall(r"^[01] +[01] +\S+ +\d+ +\d+ +1 +[\d.]+ GiB +cpu$", done.stdout, re.M)) == 2
    assert re.search(r"a message around all ranks: [\d.e-]+ ms from one to the next", done.stdout)
    for rank in (0, 1):
        assert f"rank {rank} got 0 [ 1.  0. nan] [ 0 -1]" in done.stdout


def test_two_worlds_of_one_process_are_told_and_end_with_code_2():
    """Open MPI's launcher, MPICH's library: both processes see themselves alone."""
    done = run("-W", "ignore", "mpi4pytorch.py", env={"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"})
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(said) == 1
    assert "the launcher started 2 processes, but mpi4py's MPI (MPICH) sees 1" in said[0]


def test_a_missing_gpu_is_bad_input():
    done = run("mpi4pytorch.py", "--cuda", env={"CUDA_VISIBLE_DEVICES": ""})
    assert refused(done) and "expected a CUDA device" in done.stderr and "none" in done.stdout


def test_without_mpi_the_functions_for_scripts_do_nothing():
    values = np.arange(3)
    assert mpi4pytorch.setup_MPI() is None and mpi4pytorch.barrier(None) is None
    assert mpi4pytorch.reduce_max(None, values) is values and mpi4pytorch.broadcast(None, 5) == 5


@pytest.mark.parametrize("report, words", [
    ([entry(0), entry(1, 1), entry(2, 2)], "a: 3 ranks on 2 cores"),
    ([entry(0, threads=2), entry(1, 1, threads=2)], "4 threads on 2 cores; unset OMP_NUM_THREADS"),
    ([entry(0, cores="0", threads=2), entry(1, 1, cores="1", threads=0)], "bound to 1 of the cores"),
    ([entry(0, gpus=[("x", "cuda:0 H100, 1 GiB free")]), entry(1, 1, gpus=[("x", "cuda:0 H100, 2 GiB free")])],
     "ranks 0, 1 share the GPU cuda:0 H100"),
])
def test_what_slows_a_run_down_is_told_in_words(report, words):
    slow, fatal = problems(report)
    assert len(slow) == 1 and words in slow[0] and not fatal


def test_ranks_with_cores_and_gpus_of_their_own_have_no_problem():
    report = [entry(0, gpus=[("x", "")]), entry(1, 1, gpus=[("y", "")]), entry(2, 0, "b", gpus=[("x", "")])]
    assert problems(report) == ([], [])
    assert hosts_in_words(report) == "3 ranks on 2 hosts: a (2), b (1)"


def test_ranks_without_a_gpu_are_told_once_and_shown_in_the_table():
    report = [entry(0, refusal="no GPU on a"), entry(1, 1, refusal="no GPU on a"), entry(2, 0, "b")]
    assert problems(report) == ([], ["no GPU on a"])
    assert [line.split()[-1] for line in table(report)[1:]] == ["none", "none", "cpu"]
