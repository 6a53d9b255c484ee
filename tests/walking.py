"""A walk of ranks that need no torch: python tests/walking.py FOLDER POINTS SECONDS [NAME=VALUE ...]

Every point takes SECONDS, and gives its square. Rank 0 keeps the results in memory, and at the end, whatever the end
is, writes them as results.json in FOLDER. Every rank leaves pid.RANK in FOLDER at its start, ready.RANK at its first
point, and in code.RANK the exit code with which it leaves.

    patience=SECONDS        of the world
    batch=SECONDS           a point is one sleep of so many seconds, in pieces that call no idle(): "batch=1"
    silent=SECONDS          scheduler.SILENT_SECONDS, and that rank 0 waits before it tells in a meeting
    mode=MODE victim=RANK   at its third point, RANK does what MODE says: see MODES
    abort_after=SECONDS     ranks.SECONDS_TO_END
    walks=NUMBER            as many walks, one after the other
    after=SECONDS           rank 0 works on for so long after the last walk
    talk=yes                a point prints a line on both streams
    before=SECONDS          rank 0 works for so long before the first walk
    ignore=NAME             the signal is ignored from the start, as nohup does
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
FOLDER = Path(sys.argv[1])
OWN = int(next((os.environ[name] for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
                if name in os.environ), 0))
(FOLDER / f"pid.{OWN}").write_text(str(os.getpid()))

from losslandscape import command, ranks, scheduler, silence  # noqa: E402
from losslandscape.errors import InputError  # noqa: E402


def fail():
    raise RuntimeError("planned failure")


def refuse():
    raise InputError("planned refusal")


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def stick():
    """Alive, but without progress, as while waiting for a data loader's process that hangs."""
    while True:
        time.sleep(0.01)


MODES = {
    "none": lambda: None,
    "exception": fail,
    "input": refuse,
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": stop,
    "stick": stick,
}


def main():
    points, seconds = int(sys.argv[2]), float(sys.argv[3])
    options = dict(word.split("=") for word in sys.argv[4:])
    world = ranks.connect()
    (FOLDER / f"connected.{world.rank}").touch()
    world.patience = float(options.get("patience", "inf"))
    if "silent" in options:
        scheduler.SILENT_SECONDS = silence.SILENT_SECONDS = ranks.SECONDS_UNTIL_TOLD = float(options["silent"])
        scheduler.SECONDS_BETWEEN_SIGNS = min(5.0, float(options["silent"]) / 4)
    if "ignore" in options:
        signal.signal(getattr(signal, options["ignore"]), signal.SIG_IGN)
    ranks.SECONDS_TO_END = float(options.get("abort_after", ranks.SECONDS_TO_END))
    count, results = 0, {}

    def measure(point, idle):
        nonlocal count
        (FOLDER / f"ready.{world.rank}").touch()
        count += 1
        if count == 3 and world.rank == int(options.get("victim", 0)):
            MODES[options.get("mode", "none")]()
        if "batch" in options:
            time.sleep(seconds)
            return point**2
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.005)
            idle()
        if "talk" in options:
            print("a line of a user's network", flush=True)
            print("a warning of a user's network", file=sys.stderr)
        return point**2

    with world.guard():
        if world.rank == 0:
            time.sleep(float(options.get("before", 0)))
        world.bcast()
        for _ in range(int(options.get("walks", 1))):
            results.clear()
            world.meet()
            try:
                scheduler.walk(world, [range(points)], measure, results.__setitem__, lambda: None)
            except BaseException:
                world.announce_end()
                raise
            finally:
                if world.rank == 0:
                    (FOLDER / "results.json").write_text(json.dumps(results))
        if world.rank == 0:
            time.sleep(float(options.get("after", 0)))
        if world.rank == 0:
            print("finished", flush=True)


if __name__ == "__main__":
    try:
        command.run(main)
    except SystemExit as end:
        with contextlib.suppress(OSError):
            (FOLDER / f"code.{OWN}").write_text(str(end.code or 0))
        raise
