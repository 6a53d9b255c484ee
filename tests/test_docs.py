"""README and docs say what is there: files, flags, commands, links."""

import re

import pytest

import plot_surface
from tests.conftest import ROOT, flags_of

README = (ROOT / "README.md").read_text()
PATHS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
PAGES = {path.name: path.read_text() for path in PATHS}


def test_the_tree_names_every_file_of_the_top_level():
    tree = README.split("## Where to start reading")[1].split("```")[1]
    named = set(re.findall(r"(\w+\.py)", tree))
    assert named == {path.name for path in ROOT.glob("*.py")}
    assert all((ROOT / folder).is_dir() for folder in re.findall(r"^(\w+)/", tree, re.M))


def test_files_of_the_package_that_the_docs_name_exist():
    for page, text in PAGES.items():
        for file in re.findall(r"`(losslandscape/[\w/.]+)`", text):
            if file.endswith("/NAME.py"):  # a file to be written
                continue
            assert (ROOT / file).exists(), (page, file)


def test_the_readme_can_be_read_in_minutes():
    assert len(README.split()) < 1700


def test_the_table_has_every_flag_with_its_default():
    rows = dict(re.findall(r"^\| `(--\w+)`[^|]*\| ([^|]*?) ?\|", PAGES["flags.md"], re.M))
    for action in plot_surface.make_parser()._actions:
        if action.dest in ("help", "version"):
            continue
        assert action.option_strings[0] in rows, action.option_strings
        if action.default not in (None, False, ""):
            assert rows[action.option_strings[0]] == str(action.default)


SCRIPTS = sorted({match for text in PAGES.values() for match in re.findall(r"python (\w+\.py) --", text)})


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_commands_shown_use_flags_that_exist(script):
    lines = "\n".join(PAGES.values()).replace("\\\n", " ").splitlines()
    commands = [line.split(" #")[0] for line in lines if f"python {script} --" in line]
    flags = {flag for command in commands for flag in re.findall(r"(?<!\S)--\w+", command.split(script, 1)[1])}
    assert flags and flags <= flags_of(script), flags


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(path):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_table_of_measurements_has_its_results():
    named = set(re.findall(r"benchmarks/results/([\w.]+\.json)", "\n".join(PAGES.values())))
    there = {path.name for path in (ROOT / "benchmarks" / "results").iterdir()}
    assert named == there


def test_every_promise_names_a_test_that_exists():
    file, names = "", []
    for module, name in re.findall(r"`(\w+\.py|…)::(test_\w+)`", PAGES["promises.md"]):
        if module != "…":
            file = module
        names.append(name)
        text = (ROOT / "tests" / file).read_text()
        assert f"def {name}(" in text, f"{file}::{name}"
    assert len(names) > 40
