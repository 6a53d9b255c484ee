"""The README says what is there: files, flags, commands."""

import re

import pytest

import plot_surface
from tests.conftest import ROOT, flags_of

README = (ROOT / "README.md").read_text()


def test_the_tree_names_every_file_of_the_top_level():
    tree = README.split("## What you are reading")[1].split("```")[1]
    named = set(re.findall(r"[\w0-9]+\.py", tree.replace("python h5_util.py FILE", "")))
    assert named == {path.name for path in ROOT.glob("*.py")}
    assert all((ROOT / folder).is_dir() for folder in re.findall(r"^(\w+)/", tree, re.M))


def test_the_table_has_every_flag_with_its_default():
    table = README.split("## Flags of")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(--\w+)`[^|]*\| ([^|]*?) ?\|", table, re.M))
    for action in plot_surface.parser()._actions:
        if action.dest == "help":
            continue
        assert action.option_strings[0] in rows, action.option_strings
        if action.default not in (None, False, ""):
            assert rows[action.option_strings[0]] == str(action.default)


SCRIPTS = sorted({match for match in re.findall(r"python (\w+\.py) --", README)})


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_commands_shown_use_flags_that_exist(script):
    lines = README.replace("\\\n", " ").splitlines()
    commands = [line.split(" #")[0] for line in lines if f"python {script} --" in line]
    flags = {flag for command in commands for flag in re.findall(r"(?<!\S)--\w+", command.split(script, 1)[1])}
    assert flags and flags <= flags_of(script), flags


def test_every_link_leads_to_a_file():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
