"""What a surface is bound to: the code that its numbers depend on, and no other."""

import os
import subprocess
import sys

import pytest

from losslandscape import source_digest, user_code
from losslandscape.source_digest import digest_of
from tests.conftest import ROOT

MINE = '''
"""A network of mine."""
import functools
from dataclasses import dataclass

import torch
from helpers import block as part, WIDTH
import tools
from starred import *

SIZES = [4, 3]  # of the layers
SCALE = 2.0
NETS = {}
make = lambda: tools.layer(SIZES)
small = functools.partial(build, 3)


def register(function):
    NETS[function.__name__] = function
    return function


def decorated(function):
    return function


class Base:
    bias = True


class Net(Base):
    """Two layers."""

    def forward(self, x):
        return part(x) * SCALE * WIDTH


class Maker:
    def __init__(self, width):
        self.width = width

    def __call__(self):
        return self.width


maker = Maker(5)


@decorated
def net(width=SIZES[0]):
    """A network."""
    unused = 3
    return Net(), from_star(width)


@register
def registered():
    return 1


def by_name():
    return NETS["registered"]()


def unused():
    return 0


def late():
    from deep.inner import value

    return value


if __name__ == "__main__":
    net()
'''
FILES = {
    "mine.py": MINE,
    "helpers.py": "from base import ZERO\n\nWIDTH = 8\nOTHER = 9\n\n\ndef block(x):\n"
                  "    return inner(x) + ZERO\n\n\ndef inner(x):\n    return x + 1\n",
    "base.py": "ZERO = 0\nONE = 1\n",
    "tools.py": "def layer(sizes):\n    return sizes\n\n\ndef tool():\n    return 1\n",
    "starred.py": "def from_star(x):\n    return x\n\n\ndef star():\n    return 2\n\n\n"
                  "def build(n):\n    return n\n",
    "deep/__init__.py": "",
    "deep/inner.py": "from .value import value\n",
    "deep/value.py": "value = 4\nother = 5\n",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def changes(folder, name, file, old, new):
    """Does an edit change the digest of a name of mine.py?"""
    before = digest_of(folder / "mine.py", name)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    return digest_of(folder / "mine.py", name) != before


@pytest.mark.parametrize("name, file, old, new", [
    ("net", "mine.py", "[4, 3]  # of the layers", "[4,\n         3]"),
    ("net", "mine.py", '"""A network."""', '"""Another sentence."""'),
    ("net", "mine.py", '"""A network."""\n', "# none\n"),
    ("net", "mine.py", '"""A network of mine."""', ""),
    ("net", "mine.py", "    return 0", "    return 100"),
    ("net", "mine.py", "import torch\n", "import torch\nimport os, sys\n"),
    ("net", "mine.py", "\n    net()\n", "\n    print(net(5))\n"),
    ("net", "mine.py", "x) * SCALE * WIDTH", "x) * (SCALE) * WIDTH  # as in the paper"),
    ("net", "helpers.py", "OTHER = 9", "OTHER = 10"),
    ("net", "base.py", "ONE = 1", "ONE = 2"),
    ("net", "tools.py", "return sizes", "return sizes[1:]"),
    ("net", "starred.py", "return 2", "return 3"),
    ("make", "tools.py", "return 1", "return 2"),
    ("late", "deep/value.py", "other = 5", "other = 6"),
])  # fmt: skip
def test_what_does_not_change_the_numbers_does_not_count(folder, name, file, old, new):
    assert not changes(folder, name, file, old, new)


@pytest.mark.parametrize("name, file, old, new", [
    ("net", "mine.py", "unused = 3", "unused = 4"),
    ("net", "mine.py", "[4, 3]", "[5, 3]"),  # a default, through a constant
    ("net", "mine.py", "width=SIZES[0]", "width=SIZES[1]"),
    ("net", "mine.py", "@decorated\n", ""),
    ("net", "mine.py", "return function\n\n\nclass Base", "return None\n\n\nclass Base"),
    ("net", "mine.py", "SCALE = 2.0", "SCALE = 2"),
    ("net", "mine.py", "bias = True", "bias = False"),
    ("net", "mine.py", "class Net(Base)", "class Net"),
    ("net", "mine.py", "NETS = {}", "NETS = {}\ntorch.manual_seed(0)"),
    ("net", "mine.py", "NETS = {}", "NETS = {}\ntorch.backends.mine = True\ntorch.zeros(1)"),
    ("net", "mine.py", "maker =", "Net.forward = unused\nmaker ="),
    ("net", "mine.py", "block as part", "inner as part"),
    ("net", "helpers.py", "x + 1", "x + 2"),
    ("net", "helpers.py", "WIDTH = 8", "WIDTH = 9"),
    ("net", "helpers.py", "OTHER = 9", "import torch\ntorch.manual_seed(1)"),
    ("net", "base.py", "ZERO = 0", "ZERO = 0.5"),
    ("net", "starred.py", "return x", "return -x"),
    ("make", "tools.py", "return sizes", "return sizes[1:]"),
    ("make", "mine.py", "[4, 3]", "[5, 3]"),
    ("small", "mine.py", "build, 3", "build, 4"),
    ("small", "starred.py", "return n", "return -n"),
    ("maker", "mine.py", "return self.width", "return 1"),
    ("maker", "mine.py", "Maker(5)", "Maker(6)"),
    ("Net.forward", "mine.py", "* SCALE *", "/ SCALE /"),
    ("by_name", "mine.py", "return 1", "return 2"),  # a registry of functions
    ("late", "deep/value.py", "value = 4", "value = 5"),
])  # fmt: skip
def test_what_changes_the_numbers_counts(folder, name, file, old, new):
    assert changes(folder, name, file, old, new)


def test_local_variables_are_no_names_of_the_file(folder):
    (folder / "mine.py").write_text(
        "def net(data):\n    loss = data\n    return loss\n\n\ndef loss():\n    return 1\n\n\n"
        "def data():\n    return 2\n")
    assert not changes(folder, "net", "mine.py", "return 1", "return 3")
    assert not changes(folder, "net", "mine.py", "return 2", "return 4")


@pytest.mark.parametrize("text", [
    "def net():\n    return globals()['a']()\n\n\ndef a():\n    return 1\n",
    "exec('def net(): return 1')\na = 'return 1'\n",
    "import sys\n\n\ndef __getattr__(name):\n    return 1\n\n\na = 'return 1'\n",
])
def test_names_that_are_made_by_text_bring_the_whole_file(folder, text):
    (folder / "mine.py").write_text(text)
    assert changes(folder, "net", "mine.py", "return 1", "return 2")


def test_folders_of_the_same_files_and_fresh_processes_agree(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "deep").mkdir()
    for name, text in FILES.items():
        (other / name).write_text(text)
    (other / "mine.py").rename(other / "renamed.py")

    digests = {digest_of(folder / "mine.py", "net"), digest_of(other / "renamed.py", "net")}
    code = "import sys; from losslandscape.source_digest import digest_of; print(digest_of(*sys.argv[1:]))"
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", code, folder / "mine.py", "net"], capture_output=True, text=True,
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_files_that_import_each_other_end(folder):
    (folder / "mine.py").write_text("import other\nfrom other import *\n\n\ndef net():\n    return other\n")
    (folder / "other.py").write_text("from mine import *\nimport mine\n\n\ndef f():\n    return mine, 1\n")
    assert changes(folder, "net", "other.py", "mine, 1", "mine, 2")


def test_a_users_package_has_a_hash_as_files_have(folder, monkeypatch):
    (folder / "package_of_mine").mkdir()
    (folder / "package_of_mine" / "__init__.py").write_text("")
    nets = folder / "package_of_mine" / "nets.py"
    nets.write_text("def net():\n    return 1\n")
    monkeypatch.syspath_prepend(folder)
    user_code.load("--model", "package_of_mine.nets:net")
    before = user_code.source_hash("package_of_mine.nets:net")
    nets.write_text("def net():\n    return 2\n")
    assert before and user_code.source_hash("package_of_mine.nets:net") != before


def test_a_neighbour_that_can_not_be_parsed_leaves_the_hash_of_the_file(folder):
    (folder / "starred.py").write_text("def from_star(:\n")
    assert user_code.source_hash(f"{folder}/mine.py:net") == user_code.file_hash(f"{folder}/mine.py:net")


def test_of_a_very_large_project_the_file_that_is_named_counts(folder):
    (folder / "base.py").write_text("ZERO = 0\n" + "# filled up\n" * (source_digest.MAX_BYTES // 12 + 1))
    reference = f"{folder}/mine.py:net"
    assert user_code.source_hash(reference) == user_code.file_hash(reference)
