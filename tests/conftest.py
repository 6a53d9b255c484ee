"""What several test files share: the golden files, small networks and data, and real command lines."""

import contextlib
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"

# tests start several processes on few cores: one thread each unless a test says otherwise
os.environ.setdefault("OMP_NUM_THREADS", "1")


def run(*command, ranks=0, env=None, timeout=120, cwd=ROOT, launcher=("mpirun",)):
    """Run `python COMMAND ...`, under mpirun if `ranks`; the finished process, with text output."""
    if not ranks and env is None and command[0] != "-c":
        return forked.python([str(word) for word in command], cwd, timeout)
    prefix = [*launcher, "-n", str(ranks)] if ranks else []
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [*prefix, sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=timeout,
        env={**os.environ, "PATH": path, **(env or {})})


def refused(process):
    """Was bad input answered with exit code 2 and one readable line, without a traceback?"""
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    return process.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: ")


def flags_of(script):
    """The flags that `python SCRIPT.py --help` names."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        importlib.import_module(script.removesuffix(".py")).main(["--help"])
    return set(re.findall(r"--\w+", said.getvalue()))


@pytest.fixture
def golden(tmp_path):
    """A scratch folder with the inputs of the golden files: checkpoints and data."""
    for name in ("model_6.t7", "model_4.t7", "data.npz"):
        shutil.copy(GOLDEN / name, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def surface_arguments():
    """Flags of a small run on the golden inputs."""

    def arguments(folder, *more):
        return ("plot_surface.py", "--model", "resnet20", "--dataset", folder / "data.npz",
                "--model_file", folder / "model_6.t7", *more)

    return arguments
