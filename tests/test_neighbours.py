"""A user's file gets its own neighbours, whatever they are called, and hides nothing from anybody else."""

import importlib
import os
import pickle
import sys
import textwrap
import threading

import pytest
import torch

from losslandscape import user_code
from losslandscape.errors import InputError
from tests.conftest import ROOT, refused, run

OLD_MODULES = """dataloader errors evaluation figures flatness folding h52html h52vtp h5_util hess_vec_prod
    landscape lanczos model_loader mpi4pytorch net_plotter plot_1D plot_2D plot_hessian_eigen plot_surface
    plot_trajectory projection repeats sanity scheduler splits surface_store user_code""".split()
OF_THE_CLONE = [path.stem for folder in (ROOT, ROOT / "losslandscape") for path in folder.iterdir()]
INSTALLED = "tqdm h5py numpy random statistics types inspect csv".split()
FREQUENT = "utils models datasets".split()
NAMES = sorted(
    name for name in {*OLD_MODULES, *OF_THE_CLONE, *INSTALLED, *FREQUENT}
    if name.isidentifier() and not name.startswith("_"))


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
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return folder


def result_of(folder, function="net:f"):
    name, _, attribute = function.partition(":")
    reference = f"{folder}/{name}.py:{attribute}"
    return user_code.call("--model", reference, user_code.load("--model", reference))


# ---------------------------------------------------------------- whatever they are called


@pytest.mark.parametrize("form", [
    "from {0} import VALUE",
    "import {0}\nVALUE = {0}.VALUE",
    "import {0} as n\nVALUE = n.VALUE",
    "VALUE = __import__('{0}').VALUE",
])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_gets_its_neighbour_and_nobody_else_does(tmp_path, name, form):
    loaded = sys.modules.get(name)
    net = form.format(name) + "\ndef f():\n    return VALUE\n"
    write(tmp_path, **{name: "VALUE = 'mine'\n", "net": net})
    assert result_of(tmp_path) == "mine"
    assert loaded is None or sys.modules[name] is loaded


@pytest.mark.parametrize("name", ["scheduler", "cifar10", "losslandscape", "tests", "h5py", "models"])
def test_packages_beside_a_file_are_neighbours_too(tmp_path, name):
    write(tmp_path / name, __init__="", part="from . import other\nVALUE = other.VALUE\n",
          other="import scheduler_of_mine\nVALUE = scheduler_of_mine.VALUE\n")
    write(tmp_path, scheduler_of_mine="VALUE = 5\n", net=f"""
        import {name}.part
        import {name}.part as part
        from {name} import other
        from {name}.other import VALUE

        def f():
            return {name}.part.VALUE, part.VALUE, other.VALUE, VALUE
        """)
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
    write(tmp_path, scheduler="VALUE = 3\n", errors="VALUE = 4\n", net="""
        import torch

        class Net(torch.nn.Linear):
            def forward(self, x):
                from scheduler import VALUE
                return VALUE

        class Examples(torch.utils.data.Dataset):
            def __len__(self):
                return 2

            def __getitem__(self, i):
                from errors import VALUE
                return torch.tensor(VALUE)

        def f():
            return Net(1, 1), Examples()
        """)
    network, examples = result_of(tmp_path)
    results = [network(None)]
    thread = threading.Thread(target=lambda: results.append(network(None)))
    thread.start()
    thread.join()
    loader = torch.utils.data.DataLoader(examples, num_workers=1, multiprocessing_context="fork")
    assert results == [3, 3] and [batch.item() for batch in loader] == [4, 4]


def test_a_neighbour_keeps_its_plain_name_where_this_is_free(tmp_path):
    """Classes can be pickled, and code that imports by name finds the same module."""
    write(tmp_path, a_free_name="class C:\n    pass\n", net="""
        import importlib, a_free_name

        def f():
            return importlib.import_module('a_free_name') is a_free_name, a_free_name.C()
        """)
    same, instance = result_of(tmp_path)
    assert same and type(instance).__module__ == "a_free_name"
    assert type(pickle.loads(pickle.dumps(instance))) is type(instance)


def test_classes_of_a_neighbour_that_has_another_name_can_be_pickled_too(tmp_path):
    write(tmp_path, net="from errors import C\ndef f():\n    return C(7)\n", errors="""
        from dataclasses import dataclass

        @dataclass
        class C:
            x: int = 1
        """)
    instance = result_of(tmp_path)
    assert pickle.loads(pickle.dumps(instance)) == instance


def test_a_file_may_import_its_neighbours_relatively(tmp_path):
    write(tmp_path, scheduler="VALUE = 2\n", net="from .scheduler import VALUE\ndef f():\n    return VALUE\n")
    assert result_of(tmp_path) == 2


def test_a_file_whose_name_is_no_identifier_is_loaded(tmp_path):
    net = "from utils import VALUE\ndef f():\n    return VALUE\n"
    write(tmp_path, utils="VALUE = 2\n", **{"my-net.v2": net})
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
    names = ("sched", "wave", "losslandscape")
    write(tmp_path, **{name: "raise RuntimeError('the user')\n" for name in names})
    write(tmp_path, net="def f():\n    import wave\n")
    user_code.load("--model", f"{tmp_path}/net.py:f")

    sys.modules.pop("losslandscape.measuring.lanczos", None)
    for name in ("sched", "losslandscape.measuring.lanczos"):
        assert str(tmp_path) not in importlib.import_module(name).__file__


def test_a_users_file_may_use_this_program_from_its_own_top_level():
    """A file that lies in the clone gets the package itself and not a second one."""
    clone = user_code.neighbourhood_of(str(ROOT))
    errors = clone.import_statement("losslandscape.errors", fromlist=("InputError",))
    assert errors.InputError is InputError


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


REPLACEABLE = [name for name in NAMES if name not in sys.stdlib_module_names and name != "numpy"]


@pytest.fixture
def project(tmp_path):
    """mine/net.py, which imports neighbours of all names; other/loss.py with two of the same names."""
    write(tmp_path / "mine", **{name: "VALUE = 'mine'\n" for name in REPLACEABLE})
    write(tmp_path / "mine", scheduler="""
        VALUE = 'mine'
        class CosineSchedule:
            width = 3
        """)
    imports = "".join(f"import {name}\nassert {name}.VALUE == 'mine'\n" for name in REPLACEABLE)
    write(tmp_path / "mine", net=imports + textwrap.dedent("""
        import importlib, torch
        from scheduler import CosineSchedule

        def net():
            import scheduler, projection
            assert importlib.import_module('net_plotter').VALUE == 'mine'
            torch.manual_seed(0)
            width = scheduler.CosineSchedule.width
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, width))
        """))
    write(tmp_path / "other", utils="VALUE = 'other'\n", scheduler="FACTOR = 2\n", loss="""
        import torch, utils
        assert utils.VALUE == 'other'

        def loss(output, targets):
            from scheduler import FACTOR
            return FACTOR * torch.nn.functional.cross_entropy(output, targets, reduction='none')

        def data(split):
            return torch.arange(240.).view(20, 3, 2, 2).sin(), torch.arange(20) % 3
        """)
    return tmp_path


def test_the_command_line_gives_a_network_all_its_neighbours(project):
    flags = ("--model", "mine/net.py:net", "--dataset", "other/loss.py:data",
             "--loss_name", "other/loss.py:loss", "--x=-1:1:2", "--xnorm", "filter")
    done = run(ROOT / "plot_surface.py", *flags, env={}, cwd=project)
    assert done.returncode == 0, done.stderr
    assert list(project.glob("**/*.h5"))


def test_a_line_of_a_neighbour_is_named_on_the_command_line(project):
    write(project / "mine", figures="\n1 / 0\n")
    done = run(ROOT / "plot_surface.py", "--model", "mine/net.py:net", env={}, cwd=project)
    assert refused(done) and "(figures.py, line 2)" in done.stderr
