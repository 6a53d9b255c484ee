"""What several commands share: the argparse pieces, and how a command ends.

Every library module raises `InputError`; every command ends in `run(main)`, which prints the line.
A traceback therefore always means a defect of the program.
"""

import argparse
import sys

from losslandscape.errors import InputError


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, and with negative limits: both `--x=-1:1:51` and `--x -1:1:51` are read."""

    def error(self, message):
        raise InputError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args=None, namespace=None):
        args = list(sys.argv[1:] if args is None else args)
        joined = []
        for arg in args:
            # argparse takes "-1:1:51" for a flag; glue it to the flag before it
            if joined and joined[-1] in ("--x", "--y") and arg[:1] == "-" and ":" in arg:
                joined[-1] += "=" + arg
            else:
                joined.append(arg)
        return super().parse_known_args(joined, namespace)


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


def run(main):
    """Call a script's `main()`; an `InputError` becomes one line on stderr and exit code 2."""
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
