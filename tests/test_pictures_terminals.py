"""The commands that draw, as processes: names of files that are no UTF-8, an ASCII terminal, no docstrings."""

import os
import subprocess
import sys

import numpy as np
import pytest

from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import write_surface
from tests.conftest import ROOT

X, Y = np.linspace(-1, 1, 5), np.linspace(-1, 1, 4)
BOWL = X**2 + 2 * Y[:, None] ** 2 - 3  # below 0: every command has something to tell
NAME = b"b\xf6se \xe5\xb1\xb1 $$ \x1b[31m.h5"  # Latin-1, UTF-8, dollars, an escape sequence
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONOPTIMIZE": "2"}

COMMANDS = {  # -> an ending of a file that it writes
    "plot_1D": b"_1d_train_loss.svg", "plot_2D": b"_train_loss_2dheat.svg", "h52vtp": b"_train_loss.vtp",
    "h52html": b".html", "flatness": b"",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_any_name_is_read_drawn_and_printed_on_any_terminal(command, tmp_path):
    path = os.fsencode(tmp_path) + b"/" + NAME
    grid, values = Grid(X, Y), BOWL
    if command == "plot_1D":
        grid, values = Grid(X), BOWL[0]
    write_surface(os.fsdecode(path), Surface(grid, {"train_loss": values}, {"train_loss": np.ones(values.shape, bool)}))

    flags = [b"-f", path]
    if command.startswith("plot"):
        flags += [b"--format", b"svg"]
    done = subprocess.run(
        [sys.executable, ROOT / f"{command}.py", *flags], env=os.environ | ASCII, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert os.path.exists(path + COMMANDS[command])
    assert b"Traceback" not in done.stderr and done.stdout.isascii()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_needs_neither_docstrings_nor_letters(command):
    done = subprocess.run(
        [sys.executable, ROOT / f"{command}.py", "--help"], env=os.environ | ASCII, capture_output=True, timeout=120)
    assert done.returncode == 0 and b"--surf_file" in done.stdout and done.stderr == b""
