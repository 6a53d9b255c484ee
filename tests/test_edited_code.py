"""A user edits a file between two commands: what goes on, what is refused, and by which words."""

import json

import h5py
import numpy as np
import pytest
import torch

from losslandscape.files.hdf5 import fixed_text
from losslandscape.files.layouts import read_directions, read_surface, write_surface
from losslandscape.user_code import file_hash
from tests.conftest import ROOT, refused, run

MINE = '''
import torch
from layers import block


def net():
    return torch.nn.Sequential(torch.nn.Flatten(), *block(4), torch.nn.Linear(4, 3))


def data(split):
    torch.manual_seed(1)
    return torch.randn(20, 2, 2), torch.randint(3, (20,))


def loss(output, targets):
    return torch.nn.functional.cross_entropy(output, targets, reduction="none")


def metric(output, targets):
    return output.argmax(1).eq(targets).float()


def unused():
    return 1
'''
LAYERS = "import torch\n\n\ndef block(n):\n    return [torch.nn.Linear(4, n), torch.nn.ReLU()]\n"
FLAGS = ("--model", "mine.py:net", "--dataset", "mine.py:data", "--loss_name", "mine.py:loss", "--metric",
         "mine.py:metric", "--model_file", "mine.pt", "--xnorm", "filter", "--xignore", "biasbn")


@pytest.fixture
def own(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "layers.py").write_text(LAYERS)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    torch.save(net.state_dict(), tmp_path / "mine.pt")
    return tmp_path


def surface(own, *flags, x="-1:1:3"):
    return run(ROOT / "plot_surface.py", *FLAGS, f"--x={x}", *flags, cwd=own)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def forget_a_point(path):
    """The surface as it is after a job was killed before its last point."""
    left = read_surface(path)
    for name in left.computed:
        left.computed[name].flat[0] = False
    write_surface(path, left)


@pytest.mark.parametrize("file, old, new", [
    ("mine.py", "def net():", "def net():  # two layers"),
    ("mine.py", "return 1", "return 2"),
    ("layers.py", "import torch", '"""Layers."""\nimport torch\nOTHER = 1'),
])
def test_an_edit_that_changes_no_number_lets_a_run_go_on(own, file, old, new):
    assert surface(own).returncode == 0
    (path,) = own.glob("*_loss=mine.loss*.h5")
    before = read_surface(path).values["train_loss"]
    forget_a_point(path)
    edit(own / file, old, new)
    done = surface(own)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(read_surface(path).values["train_loss"], before)


@pytest.mark.parametrize("file, old, new, words", [
    ("layers.py", "ReLU", "Tanh", "the code of --model"),
    ("mine.py", 'reduction="none")', 'reduction="none") * 2', "the code of --loss_name"),
    ("mine.py", "eq(targets)", "ne(targets)", "the code of --metric"),
])
def test_an_edit_that_changes_numbers_is_refused_and_a_new_surface_keeps_the_directions(own, file, old, new, words):
    assert surface(own).returncode == 0
    (directions,) = own.glob("*biasbn_xnorm=filter.h5")
    before = directions.read_bytes()
    edit(own / file, old, new)
    done = surface(own)
    assert refused(done) and words in done.stderr and "--surf_file" in done.stderr

    assert surface(own, "--surf_file", "new.h5").returncode == 0
    assert directions.read_bytes() == before


def test_a_line_then_an_edit_then_a_plane_have_the_same_x_direction(own):
    assert surface(own).returncode == 0
    (line,) = own.glob("*xnorm=filter.h5")
    edit(own / "mine.py", "def net():", "def net():  # the network")
    done = surface(own, "--y=-1:1:3", "--ynorm", "filter", "--yignore", "biasbn")
    assert done.returncode == 0, done.stderr
    (plane,) = own.glob("*ynorm=filter.h5")
    for one, other in zip(read_directions(line).x, read_directions(plane).x, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("changes, returncode", [({}, 0), ({"def net():": "def net():  #"}, 2)])
def test_a_file_of_version_two_goes_on_while_the_code_is_the_same_byte_for_byte(own, changes, returncode):
    assert surface(own).returncode == 0
    for path in own.glob("*.h5"):
        with h5py.File(path, "r+") as f:
            provenance = json.loads(f.attrs["provenance"])
            if "model_code" not in provenance:
                continue
            for kind, name in (("model", "net"), ("loss", "loss")):
                provenance[f"{kind}_code"] = file_hash(f"{own}/mine.py:{name}")
                provenance.pop(f"{kind}_code_file", None)  # directions have none of the loss
            for key in ("metric_code", "metric_code_file"):
                provenance.pop(key, None)
            f.attrs["provenance"] = fixed_text(json.dumps(provenance))
    (path,) = own.glob("*_loss=mine.loss*.h5")
    forget_a_point(path)

    for old, new in changes.items():
        edit(own / "mine.py", old, new)
    assert surface(own).returncode == returncode


def test_directions_of_other_weights_are_refused_and_the_flag_is_named(own):
    assert surface(own).returncode == 0
    weights = torch.load(own / "mine.pt")
    torch.save({name: 2 * value for name, value in weights.items()}, own / "mine.pt")
    done = surface(own)
    assert refused(done) and "contents of --model_file" in done.stderr and "--dir_file" in done.stderr


def test_weights_that_code_makes_are_bound_by_their_values(own):
    (own / "made.py").write_text(
        "import torch\n\n\ndef net():\n    n = torch.nn.Linear(4, 3)\n    torch.nn.init.constant_(n.weight, 1.0)\n"
        "    torch.nn.init.zeros_(n.bias)\n    return torch.nn.Sequential(torch.nn.Flatten(), n)\n")
    flags = ["--model", "made.py:net", "--dataset", "mine.py:data", "--x=-1:1:3", "--xnorm", "filter"]
    assert run(ROOT / "plot_surface.py", *flags, cwd=own).returncode == 0
    edit(own / "made.py", "def net():", "def net():  # of ones")
    assert run(ROOT / "plot_surface.py", *flags, cwd=own).returncode == 0
    edit(own / "made.py", "1.0", "2.0")
    assert refused(run(ROOT / "plot_surface.py", *flags, cwd=own))
