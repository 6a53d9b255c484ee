"""What several commands share: flags, and how a command ends.

Every library module raises `InputError`; every command ends in `run(main)`, which prints the line.
A traceback therefore always means a defect of the program.
"""

import argparse
import math
import re
import signal
import sys

from losslandscape.errors import InputError
from losslandscape.messages import OutputLost, answer, say, unfailing

# ---------------------------------------------------------------- how a command begins and ends


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, --version, and negative limits: `--x=-1:1:51` and `--x -1:1:51` are both read."""

    def __init__(self, *args, **options):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)
        self.add_argument("--version", action=ShowVersion)

    def error(self, message):
        raise InputError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args=None, namespace=None):
        words = list(sys.argv[1:] if args is None else args)
        joined = []
        for word in words:
            # argparse takes "-1:1:51" for a flag; glue it to the flag before it
            previous = joined[-1] if joined else ""
            if previous in ("--x", "--y") and word[:1] == "-" and ":" in word:
                joined[-1] = f"{previous}={word}"
            else:
                joined.append(word)
        return super().parse_known_args(joined, namespace)


class ShowVersion(argparse.Action):
    """--version: print the version (and the commit, from a clone), and end."""

    def __init__(self, option_strings, dest, **_):
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser, namespace, values, option_string=None):
        from losslandscape.files.provenance import version

        answer(f"losslandscape {version()}")
        parser.exit()


def run(main):
    """Call a command's `main()`, and end with its exit code.

    An `InputError` becomes one line on stderr and exit code 2. What is printed may be lost, for want
    of room or of a reader; that changes nothing, unless it is the command's answer.
    """
    with unfailing():
        try:
            code = main()
        except InputError as error:
            say(f"error: {error}")
            code = 2
        except OutputLost as error:
            say(f"error: can't write to standard output ({error}); make room, or send it elsewhere")
            code = 2
        except KeyboardInterrupt:
            say("interrupted")
            code = 128 + signal.SIGINT
    sys.exit(code)


def say_that_mpi_is_used(world, mpi):
    """Say once that several processes work together where --mpi was not given."""
    if world.size > 1 and not mpi and world.rank == 0:
        say(f"{world.size} processes were launched: using MPI although --mpi was not given")


# ---------------------------------------------------------------- types of flags


def positive_int(text):
    """argparse type: an integer of at least 1."""
    value = int(text) if text.strip().lstrip("+-").isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return value


def natural_int(text):
    """argparse type: an integer of at least 0."""
    value = int(text) if text.strip().lstrip("+-").isdigit() else -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text!r}")
    return value


def positive_float(text):
    """argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def relative_error(text):
    """argparse type: a number from 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to below 1, such as 0.01, got {text!r}")
    return value


SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text):
    """argparse type: '90s', '10m', '2h', '1d' or 'inf'; in seconds."""
    if text.strip() == "inf":
        return math.inf
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", text)
    if parts is None or float(parts[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a duration such as 90s, 10m or 2h, got {text!r}")
    return float(parts[1]) * SECONDS_PER_UNIT[parts[2]]
