"""The recipes in examples/: each runs as it says, draws, goes on where it was stopped, and is short."""

import ast
import contextlib
import os
import re
import runpy
import sys

import numpy as np
import pytest

import plot_surface
from losslandscape.files.layouts import read_surface, write_surface
from losslandscape.preparation import Preparation
from tests.conftest import ROOT
from tests.test_examples import usage

# name -> packages that it needs beyond requirements.txt
RECIPES = {
    "pinn": (), "adversarial": (), "quantized": (), "reinforcement": (), "lora": ("transformers", "peft"),
    "generation": ("transformers",), "graph": ("torch_geometric",),
}
MOST_LINES = 20  # of a recipe's own: what its command names, without imports, texts and training


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the recipes find themselves."""
    folder = tmp_path_factory.mktemp("recipes")
    os.symlink(ROOT / "examples", folder / "examples")
    return folder


def trained(folder, name):
    """Train the networks of a recipe by the commands that it shows, each once."""
    for _, script, *arguments in usage(name):
        if not script.startswith("examples/") or script in trained.scripts:
            continue
        with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [script, *arguments])
            runpy.run_path(script, run_name="__main__")
        trained.scripts.add(script)


trained.scripts = set()


def small_command(name):
    """The first command of a recipe that computes a surface, on a grid of few points."""
    words = next(words for words in usage(name) if words[1] == "plot_surface.py")
    return [re.sub(r"^(--[xy]=.*:)\d+$", r"\g<1>3", word) for word in words[2:]]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_draws_and_goes_on_where_it_was_stopped(folder, name, monkeypatch):
    for package in RECIPES[name]:
        pytest.importorskip(package)
    trained(folder, name)
    monkeypatch.chdir(folder)
    command = small_command(name)
    plot_surface.main([*command, "--surf_file", f"{name}.h5"])
    whole = read_surface(f"{name}.h5")
    assert all(mask.all() for mask in whole.computed.values()) and list(folder.glob(f"{name}.h5_*.pdf"))

    # the network was trained: its loss is lowest, or its score highest, in the middle
    main = whole.values[whole.main_name]
    is_score = whole.main_name == "steps"
    assert main.flat[main.size // 2] == (main.max() if is_score else main.min())

    # half of the points are computed again, all others are left alone
    half = read_surface(f"{name}.h5")
    for mask in half.computed.values():
        mask.flat[::2] = False
    write_surface("half.h5", half)
    plot_surface.main([*command, "--surf_file", "half.h5"])
    for value, numbers in read_surface("half.h5").values.items():
        np.testing.assert_allclose(numbers, whole.values[value], rtol=1e-6)

    # and nothing is computed where nothing is missing
    monkeypatch.setattr(Preparation, "set_up", None)
    plot_surface.main([*command, "--surf_file", f"{name}.h5"])
    os.remove("half.h5")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short_and_says_whose_figure_it_is(name):
    source = (ROOT / "examples" / f"{name}.py").read_text()
    measured = {word.rpartition(":")[2] for word in small_command(name) if word.startswith(f"examples/{name}.py:")}
    assert measured
    own_lines = 0
    for node in ast.parse(source).body:
        if getattr(node, "name", "") in measured:
            own_lines += len(lines_without_texts(source, node))
    assert own_lines <= MOST_LINES
    words = " ".join(ast.get_docstring(ast.parse(source)).split())
    assert "The kind of figure is that of" in words and "There " in words and "; here " in words


def lines_without_texts(source, node):
    """The lines of a definition that are neither empty nor its docstring."""
    docstrings = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(inner):
            docstrings.update(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))
    lines = enumerate(source.splitlines()[node.lineno - 1:node.end_lineno], node.lineno)
    return [line for number, line in lines if line.strip() and number not in docstrings]


def test_every_recipe_is_listed_with_its_command():
    page = (ROOT / "docs" / "your_own.md").read_text()
    for name in RECIPES:
        assert f"examples/{name}.py" in page
