"""Processes of a host, as the system tells about them."""

import os
import signal
import subprocess
import sys
import time

from losslandscape.processes import is_running
from tests.conftest import ROOT

CHILD = """
import pathlib, sys, time
from losslandscape.processes import dying_with_parent
with dying_with_parent():
    pathlib.Path(sys.argv[1], "within").touch()
    while not pathlib.Path(sys.argv[1], "leave").exists():
        time.sleep(0.01)
pathlib.Path(sys.argv[1], "left").touch()
time.sleep(60)
"""


def wait_for(is_so, seconds=30):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def orphan(tmp_path, leaves):
    """The pid of a process whose parent was killed while it was within the block, or after it."""
    parent = subprocess.Popen(
        ["bash", "-c", f'"$@" & echo $! > {tmp_path}/pid; wait', "bash", sys.executable, "-c", CHILD, tmp_path],
        cwd=ROOT)
    wait_for((tmp_path / "within").exists)
    if leaves:
        (tmp_path / "leave").touch()
        wait_for((tmp_path / "left").exists)
    parent.kill()
    parent.wait()
    return int((tmp_path / "pid").read_text())


def test_within_the_block_a_process_ends_with_its_parent(tmp_path):
    pid = orphan(tmp_path, leaves=False)
    wait_for(lambda: not is_running(pid))


def test_after_the_block_it_goes_on(tmp_path):
    pid = orphan(tmp_path, leaves=True)
    time.sleep(0.3)
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)
