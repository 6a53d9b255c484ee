"""A user's file gets its own neighbours, whatever they are called, and hides nothing from anybody else."""

import importlib
import os
import pickle
import sys
import threading

import pytest
import torch

from losslandscape import user_code
from losslandscape.errors import InputError
from tests.conftest import ROOT, refused, run

OLD_MODULES = [  # of version one, which stood at the top level
    "dataloader", "errors", "evaluation", "figures", "flatness", "folding", "h52html", "h52vtp", "h5_util",
    "hess_vec_prod", "landscape", "lanczos", "model_loader", "mpi4pytorch", "net_plotter", "plot_1D", "plot_2D",
    "plot_hessian_eigen", "plot_surface", "plot_trajectory", "projection", "repeats", "sanity", "scheduler", "splits",
    "surface_store", "user_code"]
TOP_LEVEL = sorted(
    path.stem for path in ROOT.iterdir()
    if path.suffix == ".py" or (path.is_dir() and path.name.isidentifier() and not path.name.startswith("_")))
IN_PACKAGE = sorted(path.stem for path in (ROOT / "losslandscape").iterdir() if path.stem.isidentifier())
INSTALLED = ["tqdm", "h5py", "numpy", "random", "statistics", "types", "inspect", "csv", "utils", "models", "datasets"]
NAMES = sorted({*OLD_MODULES, *TOP_LEVEL, *IN_PACKAGE, *INSTALLED} - {"__init__", "__main__"})


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """sys.path and sys.modules are afterwards as they were."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    yield
    sys.modules.clear()
    sys.modules.update(before)


def write(folder, **files):
    """FOLDER/NAME.py with the text of each keyword; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def result_of(folder, function="net:f"):
    name, _, attribute = function.partition(":")
    reference = f"{folder}/{name}.py:{attribute}"
    return user_code.call("--model", reference, user_code.load("--model", reference))


# ---------------------------------------------------------------- whatever they are called


@pytest.mark.parametrize("form", ["from {0} import VALUE", "import {0}\nVALUE = {0}.VALUE",
                                  "import {0} as n\nVALUE = n.VALUE", "VALUE = __import__('{0}').VALUE"])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_gets_its_neighbour_and_nobody_else_does(tmp_path, name, form):
    loaded = sys.modules.get(name)
    write(tmp_path, **{name: "VALUE = 'mine'\n", "net": form.format(name) + "\ndef f():\n    return VALUE\n"})
    assert result_of(tmp_path) == "mine"
    assert loaded is None or sys.modules[name] is loaded


@pytest.mark.parametrize("name", ["scheduler", "cifar10", "losslandscape", "tests", "h5py", "models"])
def test_packages_beside_a_file_are_neighbours_too(tmp_path, name):
    write(tmp_path / name, __init__="", part="from . import other\nVALUE = other.VALUE\n",
          other="import scheduler_of_mine\nVALUE = scheduler_of_mine.VALUE\n")
    write(tmp_path, scheduler_of_mine="VALUE = 5\n", net=(
        f"import {name}.part\nimport {name}.part as part\nfrom {name} import other\nfrom {name}.other import VALUE\n"
        f"def f():\n    return {name}.part.VALUE, part.VALUE, other.VALUE, VALUE\n"))
    assert result_of(tmp_path) == (5, 5, 5, 5)


@pytest.mark.parametrize("name", ["cifar10", "docs", "models"])
def test_a_folder_without_init_is_a_package_where_no_installed_one_has_its_name(tmp_path, name):
    write(tmp_path / name, part="VALUE = 6\n")
    write(tmp_path, net=f"from {name}.part import VALUE\ndef f():\n    return VALUE\n")
    assert result_of(tmp_path) == 6


def test_a_folder_of_data_does_not_hide_an_installed_package(tmp_path):
    (tmp_path / "h5py").mkdir()
    write(tmp_path, net="import h5py\ndef f():\n    return h5py.File\n")
    assert result_of(tmp_path) is sys.modules["h5py"].File


def test_builtin_modules_are_the_only_ones_that_can_not_be_replaced(tmp_path):
    write(tmp_path, time="raise RuntimeError\n", net="import time\ndef f():\n    return time.time()\n")
    assert result_of(tmp_path) > 0


# ---------------------------------------------------------------- each folder its own


UTILS = "VALUE = {0!r}\ndef later():\n    from helpers import VALUE\n    return VALUE\n"
NET = ("from utils import VALUE, later\n"
       "def f():\n    from helpers import VALUE as helper\n    return VALUE, helper, later()\n")


def test_two_folders_get_each_their_own_neighbours_of_one_name(tmp_path):
    for name in "ab":
        write(tmp_path / name, utils=UTILS.format(name), helpers=f"VALUE = '{name} helps'\n", net=NET)
    references = [f"{tmp_path / name}/net.py:f" for name in "ab"]
    functions = [user_code.load("--model", reference) for reference in references]
    expected = [(name, f"{name} helps", f"{name} helps") for name in "ab"]
    for _ in range(2):
        assert [user_code.call("--model", "", function) for function in functions] == expected
        assert [function() for function in functions] == expected  # outside of call, too
    utils = [function.__globals__["later"].__module__ for function in functions]
    assert len({sys.modules[name] for name in utils}) == 2


def test_two_files_of_one_folder_share_their_neighbours(tmp_path):
    write(tmp_path, scheduler="state = []\n", net="import scheduler\ndef f():\n    return scheduler.state\n",
          loss="from scheduler import state\ndef f():\n    return state\n")
    assert result_of(tmp_path) is result_of(tmp_path, "loss:f")


def test_a_neighbour_that_imports_the_file_gets_the_file_and_not_a_copy(tmp_path):
    write(tmp_path, scheduler="def registered():\n    import net\n    return net\n",
          net="import scheduler\nnumber = []\ndef f():\n    return scheduler.registered().number is number\n")
    assert result_of(tmp_path)


def test_imports_within_forward_within_threads_and_in_readers_are_the_folders_own(tmp_path):
    net = ("import torch\n"
           "class Net(torch.nn.Linear):\n    def forward(self, x):\n"
           "        from scheduler import VALUE\n        return VALUE\n"
           "class Examples(torch.utils.data.Dataset):\n    def __len__(self):\n        return 2\n"
           "    def __getitem__(self, i):\n        from errors import VALUE\n        return torch.tensor(VALUE)\n"
           "def f():\n    return Net(1, 1), Examples()\n")
    write(tmp_path, scheduler="VALUE = 3\n", errors="VALUE = 4\n", net=net)
    network, examples = result_of(tmp_path)
    results = [network(None)]
    thread = threading.Thread(target=lambda: results.append(network(None)))
    thread.start()
    thread.join()
    loader = torch.utils.data.DataLoader(examples, num_workers=1, multiprocessing_context="fork")
    assert results == [3, 3] and [batch.item() for batch in loader] == [4, 4]


def test_a_neighbour_keeps_its_plain_name_where_this_is_free(tmp_path):
    """Classes can be pickled, and code that imports by name finds the same module."""
    write(tmp_path, a_free_name="class C:\n    pass\n", net=(
        "import importlib, a_free_name\n"
        "def f():\n    return importlib.import_module('a_free_name') is a_free_name, a_free_name.C()\n"))
    same, instance = result_of(tmp_path)
    assert same and type(instance).__module__ == "a_free_name"
    assert type(pickle.loads(pickle.dumps(instance))) is type(instance)


def test_classes_of_a_neighbour_that_has_another_name_can_be_pickled_too(tmp_path):
    write(tmp_path, errors="from dataclasses import dataclass\n@dataclass\nclass C:\n    x: int = 1\n",
          net="from errors import C\ndef f():\n    return C(7)\n")
    instance = result_of(tmp_path)
    assert pickle.loads(pickle.dumps(instance)) == instance


def test_a_file_may_import_its_neighbours_relatively(tmp_path):
    write(tmp_path, scheduler="VALUE = 2\n", net="from .scheduler import VALUE\ndef f():\n    return VALUE\n")
    assert result_of(tmp_path) == 2


def test_a_file_whose_name_is_no_identifier_is_loaded(tmp_path):
    write(tmp_path, utils="VALUE = 2\n", **{"my-net.v2": "from utils import VALUE\ndef f():\n    return VALUE\n"})
    assert user_code.load("--model", f"{tmp_path}/my-net.v2.py:f")() == 2


def test_a_module_below_the_working_directory_gets_its_own_package(tmp_path, monkeypatch):
    write(tmp_path / "tests", __init__="", net="from tests.other import VALUE\ndef f():\n    return VALUE\n",
          other="VALUE = 8\n")
    write(tmp_path, scheduler="def f():\n    return 9\n")
    monkeypatch.chdir(tmp_path)
    assert user_code.load("--model", "tests.net:f")() == 8
    assert user_code.load("--model", "scheduler:f")() == 9


# ---------------------------------------------------------------- nothing is hidden from others


def test_others_get_what_a_neighbour_is_called_like(tmp_path):
    write(tmp_path, **{name: "raise RuntimeError('the user')\n" for name in ("sched", "wave", "losslandscape")},
          net="def f():\n    import wave\n")
    user_code.load("--model", f"{tmp_path}/net.py:f")
    assert str(tmp_path) not in importlib.import_module("sched").__file__  # of the standard library
    sys.modules.pop("losslandscape.lanczos", None)
    assert str(tmp_path) not in importlib.import_module("losslandscape.lanczos").__file__


def test_a_users_file_may_use_this_program_from_its_own_top_level():
    """A file that lies in the clone gets the package itself and not a second one."""
    path = ROOT / "examples" / "of_a_test.py"
    folder = user_code.neighbourhood_of(str(ROOT))
    assert folder.import_statement("losslandscape.errors", fromlist=("InputError",)).InputError is InputError
    assert not path.exists()


def test_the_folder_is_on_the_path_behind_what_is_installed_and_before_the_top_level(tmp_path):
    write(tmp_path, net="def f():\n    return None\n")
    result_of(tmp_path)
    places = [os.path.realpath(entry) for entry in sys.path]
    assert places.index(str(tmp_path)) < places.index(str(ROOT))
    packages = os.path.dirname(os.path.dirname(torch.__file__))
    assert places.index(packages) < places.index(str(tmp_path))


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("errors, net, words", [
    ("def broken():\n    return {}['a']\n", "from errors import broken\ndef f():\n    broken()\n",
     r"KeyError: 'a' \(errors.py, line 2\)"),
    ("", "import torch\ndef f():\n\n    torch.nn.Linear(2, 3)(torch.zeros(5))\n", r"\(net.py, line 4\)"),
    ("", "import csv, errors\ndef f():\n    csv.DictReader(5)\n", r"\(net.py, line 3\)"),
])
def test_an_error_points_at_the_users_own_line(tmp_path, errors, net, words):
    write(tmp_path, errors=errors, net=net)
    with pytest.raises(InputError, match=words):
        result_of(tmp_path)


def test_an_error_in_a_package_outside_of_site_packages_points_at_the_users_line_too(tmp_path, monkeypatch):
    """As pip install --target puts them."""
    write(tmp_path / "target" / "a_package", __init__="def broken():\n    raise OSError('gone')\n")
    (tmp_path / "target" / "a_package-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "target")
    write(tmp_path / "mine", net="import a_package\ndef f():\n\n    return a_package.broken()\n")
    with pytest.raises(InputError, match=r"OSError: gone \(net.py, line 4\)"):
        result_of(tmp_path / "mine")


@pytest.mark.parametrize("net, words", [
    ("from errors import Nothing\n", r"cannot import name 'Nothing' from 'errors'.*\(net.py, line 1\)"),
    ("import errors.deep\n", r"No module named 'errors.deep'.*\(net.py, line 1\)"),
    ("import scheduler\n", r"ZeroDivisionError: division by zero \(scheduler.py, line 2\)"),
    ("import figures\n", r"SyntaxError: .* \(figures.py, line 1\)"),
])
def test_a_neighbour_that_can_not_be_imported_is_told_by_its_plain_name(tmp_path, net, words):
    write(tmp_path, errors="", scheduler="\n1 / 0\n", figures="def f(:\n", net=net + "def f():\n    pass\n")
    with pytest.raises(InputError, match=words) as error:
        result_of(tmp_path)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- the real command


def test_the_command_line_gives_a_network_all_its_neighbours(tmp_path):
    names = [name for name in NAMES if name not in ("numpy", "random", "types", "inspect", "csv", "statistics")]
    imports = "".join(f"import {name}\nassert {name}.VALUE == 'mine', {name}\n" for name in names)
    write(tmp_path / "mine", **{name: "VALUE = 'mine'\n" for name in names})
    write(tmp_path / "mine", scheduler="class CosineSchedule:\n    width = 3\nVALUE = 'mine'\n", net=(
        "import importlib, torch\nfrom scheduler import CosineSchedule\n" + imports +
        "def net():\n    import scheduler, projection\n    torch.manual_seed(0)\n"
        "    assert importlib.import_module('net_plotter').VALUE == 'mine'\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, scheduler.CosineSchedule.width))\n"))
    write(tmp_path / "other", utils="VALUE = 'other'\n", scheduler="FACTOR = 2\n", loss=(
        "import torch, utils\nassert utils.VALUE == 'other'\n"
        "def loss(output, targets):\n    from scheduler import FACTOR\n"
        "    return FACTOR * torch.nn.functional.cross_entropy(output, targets, reduction='none')\n"
        "def data(split):\n    return torch.arange(240.).view(20, 3, 2, 2).sin(), torch.arange(20) % 3\n"))
    done = run("plot_surface.py", "--model", tmp_path / "mine/net.py:net", "--dataset", tmp_path / "other/loss.py:data",
               "--loss_name", tmp_path / "other/loss.py:loss", "--x=-1:1:2", "--xnorm", "filter", "--model_folder",
               tmp_path, env={})
    assert done.returncode == 0, done.stderr
    again = run("plot_surface.py", "--model", "mine/net.py:net", "--dataset", "other/loss.py:nothing_there", env={},
                cwd=tmp_path)
    assert not refused(again)  # plot_surface.py is not there
    script = ROOT / "plot_surface.py"
    again = run(script, "--model", "mine/net.py:net", "--dataset", "other/loss.py:nothing_there", env={}, cwd=tmp_path)
    assert refused(again) and "nothing_there" in again.stderr
