"""One command for all: `losslandscape surface ...` is `python plot_surface.py ...`, and so on.

    losslandscape                      the subcommands
    losslandscape surface --help       the flags of one
    mpirun -n 4 losslandscape surface --model resnet56 ...

In a clone the commands lie beside this package; an installed program has them in losslandscape/commands.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

from losslandscape.command import run
from losslandscape.errors import InputError
from losslandscape.messages import answer

# subcommand -> (what runs it, what it does): a file of the top level, or a module of this package
COMMANDS = {
    "surface": ("plot_surface.py", "compute a loss surface"),
    "hessian": ("plot_hessian_eigen.py", "compute a map of the Hessian's extreme eigenvalues"),
    "trajectory": ("plot_trajectory.py", "project and draw the path of a training run"),
    "plot1d": ("plot_1D.py", "draw a line: loss and accuracy curves"),
    "plot2d": ("plot_2D.py", "draw a plane: contours, heat map, 3-D figure"),
    "vtp": ("h52vtp.py", "export a plane for ParaView, or draw it lit"),
    "html": ("h52html.py", "make one interactive page of surfaces"),
    "flatness": ("flatness.py", "say in numbers how flat surfaces are"),
    "directions": ("net_plotter.py", "make a direction file, or say what is in one"),
    "plan": ("scheduler.py", "say what remains of a run, and how it is shared out"),
    "ranks": ("mpi4pytorch.py", "say whether the processes of a launcher see each other"),
    "train": ("cifar10/main.py", "train a network of the paper"),
    "describe": ("losslandscape.describe", "say what a file is, and made from what"),
    "repeats": ("losslandscape.repeats", "summarize surfaces of repeated experiments"),
}


def load_command(target):
    """The module of a command: `target` is a file, relative to the top level, or the name of a module."""
    if not target.endswith(".py"):
        return importlib.import_module(target)

    package = Path(__file__).resolve().parent
    candidates = [package / "commands" / target, package.parent / target]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise InputError(f"expected {target} beside the package in {package.parent}, found none; install it again")

    name = "losslandscape.commands." + target.removesuffix(".py").replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickles look it up
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("losslandscape"):
            raise
        raise InputError(
            f"this needs {error.name}, which can't be imported; pip install {error.name}") from None
    return module


def usage():
    """The subcommands, one on each line."""
    lines = ["usage: losslandscape COMMAND ...; losslandscape COMMAND --help shows its flags", ""]
    lines += [f"  {name:<12}{words}" for name, (_, words) in COMMANDS.items()]
    return "\n".join(lines)


def main(argv=None):
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        answer(usage())
        return None
    name, *rest = arguments
    if name == "--version":
        from losslandscape.files.provenance import version

        answer(version())
        return None
    if name not in COMMANDS:
        raise InputError(f"expected one of {', '.join(COMMANDS)} as the first word, got {name!r}; "
                         "see losslandscape --help")

    sys.argv = [f"losslandscape {name}", *rest]  # what --help calls the command, and what files record
    return load_command(COMMANDS[name][0]).main(rest)


def entry_point():
    """What the installed command `losslandscape` runs."""
    run(main)


if __name__ == "__main__":
    entry_point()
