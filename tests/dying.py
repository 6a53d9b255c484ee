"""plot_surface.py with a slow evaluation that can die: python tests/dying.py MODE RANK SECONDS FOLDER -- FLAGS

At its third point, rank RANK does what MODE says ("none": nothing). A point takes SECONDS more than usual. Every rank
leaves its pid in FOLDER/pid.RANK when it measures its first point.
"""

import dataclasses
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import errors
import evaluation
import mpi4pytorch
import plot_surface


def fail():
    raise RuntimeError("planned failure")


def refuse():
    raise errors.InputError("planned refusal")


MODES = {
    "none": lambda: None,
    "exception": fail,
    "input": refuse,
    "exit": lambda: os._exit(3),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),  # what the kernel does when memory runs out
}


class Dying(evaluation.Evaluator):
    points = 0

    def __call__(self, names, idle=lambda: None):
        mode, rank, seconds, folder = sys.argv[1:5]
        own = mpi4pytorch.launched()[1]
        if not self.points:
            pathlib.Path(folder, f"pid.{own}").write_text(str(os.getpid()))
        self.points += 1
        if self.points == 3 and own == int(rank):
            MODES[mode]()
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            time.sleep(0.005)
            idle()
        return super().__call__(names, idle)


if __name__ == "__main__":
    flags = sys.argv[sys.argv.index("--") + 1:]
    errors.run(lambda: plot_surface.main(flags, dataclasses.replace(plot_surface.LOSS, build=Dying)))
