"""PYTHONOPTIMIZE=2 leaves the docstrings out, and with them what --help begins with: nothing else is missing."""

import subprocess
import sys

from losslandscape.__main__ import COMMANDS
from tests.conftest import ROOT

EVERY_HELP = """
import contextlib, io
from losslandscape.__main__ import COMMANDS, load_command

assert False, "not reached without assertions"
for name, (target, _) in COMMANDS.items():
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        load_command(target).main(["--help"])
    print(name, "-h, --help" in said.getvalue())
"""


def test_every_command_explains_itself_without_docstrings():
    done = subprocess.run([sys.executable, "-OO", "-c", EVERY_HELP], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{name} True" for name in COMMANDS], done.stderr
