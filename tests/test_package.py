"""The installed program: from a wheel, in a folder of the user's that holds files of the same names as ours."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

import losslandscape
from losslandscape.__main__ import COMMANDS
from tests.conftest import GOLDEN, ROOT

# what users call their own files; each must stay unseen by us, and be found by their own code
OWN_NAMES = ("scheduler", "errors", "dataloader", "evaluation", "figures", "splits", "net_plotter", "mpi4pytorch",
             "plot_surface", "flatness", "cifar10", "run", "files", "command", "messages")
MINE = """
import torch
from torch import nn
from scheduler import CosineSchedule
from errors import InputError
from cifar10 import CLASSES

assert CosineSchedule == InputError == "the user's own"


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def data(split):
    torch.manual_seed(1)
    return torch.randn(40, 3, 2, 2), torch.randint(CLASSES, (40,))
"""
EXAMPLE = """
import scheduler, errors, dataloader, evaluation
import losslandscape
from mine import data, net

model = net()
axes = losslandscape.directions(model)
surface = losslandscape.surface(model, axes, losslandscape.losses(*data("train")), x="-1:1:5", y="-1:1:3")
losslandscape.plot(surface, path="surface.png")
losslandscape.save(surface, "python.h5")
assert scheduler.CosineSchedule == "the user's own"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of an environment with our wheel, and the packages of this one."""
    folder = tmp_path_factory.mktemp("installed")
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, clean_copy(folder)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, capture_output=True, timeout=120)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"

    # the packages of this environment come after those of the new one
    packages = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    (packages / "parent.pth").write_text(sysconfig.get_path("purelib"))
    [wheel] = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel],
                   check=True, capture_output=True, timeout=120)
    return python.parent


def clean_copy(folder):
    """The files that git tracks, or would, in a folder of their own: building leaves nothing behind in the clone."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.splitlines()
    for name in names:
        source, target = ROOT / name, folder / "source" / name
        if name.startswith(("tests/", "docs/", "benchmarks/")) or not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return folder / "source"


@pytest.fixture
def own_folder(tmp_path):
    """A folder that is full of the user's own modules."""
    for name in OWN_NAMES:
        (tmp_path / f"{name}.py").write_text("CosineSchedule = InputError = \"the user's own\"\nCLASSES = 4\n")
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def execute(installed, folder, *command):
    """A command of the installed program, in a folder; its output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = f"{installed}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # where the MPI library of this environment lies: an environment of its own would bring one
    environment["LD_LIBRARY_PATH"] = str(Path(sys.prefix) / "lib")
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=120,
                          env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


SURFACE = ("surface", "--model", "mine.py:net", "--dataset", "mine.py:data", "--x=-1:1:3", "--y=-1:1:3",
           "--xnorm", "filter", "--ynorm", "filter", "--surf_file", "s.h5", "--plot")


def test_a_wheel_works_among_files_of_the_same_names(installed, own_folder):
    (own_folder / "example.py").write_text(EXAMPLE)
    execute(installed, own_folder, installed / "python", "example.py")
    execute(installed, own_folder, "losslandscape", *SURFACE)
    execute(installed, own_folder, "losslandscape", "html", "--surf_file", "s.h5", "--output", "page.html")
    assert "train_loss" in execute(installed, own_folder, "losslandscape", "describe", "s.h5", "python.h5")
    assert (own_folder / "page.html").stat().st_size > 10_000 and (own_folder / "surface.png").exists()


def test_a_wheel_works_on_two_ranks(installed, own_folder):
    execute(installed, own_folder, "mpirun", "-n", "2", "losslandscape", *SURFACE)
    assert losslandscape.read(own_folder / "s.h5").computed["train_loss"].all()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_explains_itself(installed, tmp_path, name):
    assert f"losslandscape {name}" in execute(installed, tmp_path, "losslandscape", name, "--help")


def test_an_unknown_subcommand_is_refused_in_words(installed, tmp_path):
    done = subprocess.run([installed / "losslandscape", "surfaces"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: expected one of surface, ")


def test_the_version_is_told_by_every_command(installed, tmp_path):
    assert execute(installed, tmp_path, "losslandscape", "--version").startswith(losslandscape.__version__)
    assert losslandscape.__version__ in execute(installed, tmp_path, "losslandscape", "surface", "--version")


def test_every_package_is_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("losslandscape/**/__init__.py")}
    assert set(settings["packages"]) == there | {"losslandscape.commands", "losslandscape.commands.cifar10"}


def modules_after(code):
    """The names of the modules that are loaded when `code` has run."""
    done = subprocess.run([sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], cwd=ROOT,
                          capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_package_costs_no_library():
    loaded = modules_after("import losslandscape")
    assert not loaded & {"torch", "matplotlib", "mpi4py", "h5py", "numpy", "scipy"}


def test_pictures_and_files_need_neither_torch_nor_mpi(tmp_path):
    """torch, torchvision and mpi4py can't be imported; every command that draws, exports or tells works."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("torch", "torchvision", "mpi4py"):
        (blocked / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name}', name='{name}')\n")
    plane = next(GOLDEN.glob("*yignore=biasbn_ynorm=filter.h5_*5].h5"))
    line = next(GOLDEN.glob("*xnorm=filter.h5_*7].h5"))
    for file in (plane, line):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    commands = [
        ("plot1d", "--surf_file", line.name), ("plot2d", "--surf_file", plane.name),
        ("html", "--surf_file", plane.name), ("vtp", "--surf_file", plane.name),
        ("flatness", plane.name), ("describe", plane.name),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{blocked}{os.pathsep}{ROOT}"}
    for words in commands:
        done = subprocess.run([sys.executable, "-m", "losslandscape", *words], cwd=tmp_path, capture_output=True,
                              text=True, env=environment, timeout=120)
        assert done.returncode == 0, (words, done.stderr)

    done = subprocess.run([sys.executable, "-m", "losslandscape", "surface"], cwd=tmp_path, capture_output=True,
                          text=True, env=environment, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: this needs torch, which can't be imported")
