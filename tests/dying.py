"""plot_surface.py with a slow evaluation that can die: python tests/dying.py MODE RANK SECONDS FOLDER -- FLAGS

At its third point, rank RANK does what MODE says ("none": nothing). A point takes SECONDS more than usual. Results are
saved every 20 ms, mostly to the journal, as those of a large file. In FOLDER: every rank leaves its pid in pid.RANK at
its start, and makes ready.RANK and host.RANK when it measures its first point; saved holds a line for each save that
was reported: the points that are on the disk.
"""

# ruff: noqa: E402
import os
import pathlib
import sys

OWN = int(next((os.environ[name] for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
                if name in os.environ), 0))
if __name__ == "__main__":
    pathlib.Path(sys.argv[4], f"pid.{OWN}").write_text(str(os.getpid()))  # before the slow imports

import json
import resource
import signal
import socket
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import plot_surface
from losslandscape import command, scheduler
from losslandscape.errors import InputError
from losslandscape.files import store


def fail():
    raise RuntimeError("planned failure")


def refuse():
    raise InputError("planned refusal")


def fill_memory():
    """Until there is none left, and hold it while the message is written."""
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    held, size = [], 16 << 20
    while True:
        try:
            held.append(bytearray(size))
        except MemoryError:
            if size < 1000:
                raise
            size //= 2


MODES = {
    "none": lambda: None,
    "memory": fill_memory,
    "exception": fail,
    "input": refuse,
    "exit": lambda: os._exit(3),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),  # what the kernel does when memory runs out
}


def dying(measure):
    """measure(point, idle) that is slow, and dies."""
    mode, rank, seconds, folder = sys.argv[1:5]
    seconds = float(seconds)
    count = 0

    def slow(point, idle):
        nonlocal count
        if count == 0:
            pathlib.Path(folder, f"host.{OWN}").write_text(socket.gethostname())
            pathlib.Path(folder, f"ready.{OWN}").touch()
        count += 1
        if count == 3 and OWN == int(rank):
            MODES[mode]()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.005)
            idle()
        return measure(point, idle)

    return slow


def report_saves(save):
    def reporting(self):
        save(self)
        with open(os.path.join(sys.argv[4], "saved"), "a") as f:
            points = np.flatnonzero(self.surface.computed["train_loss"]).tolist()
            f.write(json.dumps(points) + "\n")

    return reporting


if __name__ == "__main__":
    store.MIN_WAIT_SECONDS = store.MAX_WAIT_SECONDS = 0.02
    store.SAVE_SHARE, store.SLOW_SHARE = 0.1, 1e9
    for name in ("_write", "_append"):
        save = getattr(store.SurfaceStore, name)
        setattr(store.SurfaceStore, name, report_saves(save))
    flags = sys.argv[sys.argv.index("--") + 1:]
    walk = scheduler.walk
    scheduler.walk = lambda world, levels, measure, record, save: walk(world, levels, dying(measure), record, save)
    command.run(lambda: plot_surface.main(flags))
