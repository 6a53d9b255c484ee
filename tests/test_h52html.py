"""The command h52html.py: the page that it writes, and what it refuses."""

import os
import shutil

import numpy as np
import pytest

import h52html
from losslandscape.errors import InputError
from losslandscape.files.layouts import read_surface, write_surface
from losslandscape.pictures.page import PagePanel, html_page
from tests.conftest import GOLDEN, refused, run
from tests.made_surfaces import bowl, surface_with_all
from tests.test_pictures_page import Elements, unpacked

SQUARE = ("model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
          "_[-1.0,1.0,5]x[-1.0,1.0,5].h5")
LONG = "model_6.t7_weights_xignore=biasbn_xnorm=layer_yignore=biasbn_ynorm=layer.h5_[-1.0,1.0,3]x[-0.5,0.5,5].h5"
CURVE = "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,7].h5"


def make_page(*arguments, **environment):
    return run("h52html.py", *arguments, env=environment or None)


def read_page(path):
    return Elements(path.read_text("utf-8"))


def contents(folder):
    return {path.name: path.is_file() and path.read_bytes() for path in folder.iterdir()}


def test_page_holds_the_values_of_the_surface(tmp_path):
    shutil.copy(GOLDEN / LONG, tmp_path)
    result = make_page("--surf_file", tmp_path / LONG)
    assert result.returncode == 0 and result.stdout == f"{tmp_path / LONG}.html\n"

    surface = read_surface(GOLDEN / LONG)
    (panel,) = read_page(tmp_path / f"{LONG}.html").data["panels"]
    assert panel["label"] == LONG
    assert panel["x"] == surface.grid.x.tolist() and panel["y"] == surface.grid.y.tolist()
    for name in ("train_loss", "train_acc"):
        values = unpacked(panel["values"][name]).reshape(surface.grid.shape)
        np.testing.assert_allclose(values, surface.values[name], rtol=0, atol=1e-7 * np.ptp(values))


@pytest.mark.parametrize("flag", ["--labels", "--label"])
def test_labels_are_the_headings_of_the_surfaces(tmp_path, flag):
    for name in ("a.h5", "b.h5"):
        write_surface(tmp_path / name, surface_with_all(bowl))
    h52html.main(["-f", str(tmp_path / "a.h5"), str(tmp_path / "b.h5"), flag, "first", "second"])
    labels = [panel["label"] for panel in read_page(tmp_path / "a.h5.html").data["panels"]]
    assert labels == ["first", "second"]


@pytest.mark.parametrize("flags, words", [
    ((CURVE,), "2-D surface"),
    (("nothing.h5",), "nothing.h5"),
    ((SQUARE, "--surf_name", "test_loss"), "train_loss"),
    ((SQUARE, SQUARE, "--labels", "one"), "as many --labels"),
    ((SQUARE, "--proj_file", SQUARE), "proj_xcoord"),
    ((SQUARE, "--proj_file", "none", "none"), "as many --proj_file"),
    ((SQUARE, "--output", "/nowhere/at/all.html"), "can't write"),
    ((SQUARE, "--output", SQUARE), "something else; give another name"),
])
def test_bad_input_is_one_line_and_leaves_no_file(tmp_path, flags, words):
    for name in (CURVE, SQUARE):
        shutil.copy(GOLDEN / name, tmp_path)
    before = contents(tmp_path)
    arguments = [tmp_path / flag if flag in (CURVE, SQUARE) else flag for flag in flags]
    result = make_page("-f", *arguments)
    assert refused(result) and result.stdout == "" and words in result.stderr
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", ["surface", "checkpoint", "link to a surface", "foreign page", "folder"])
@pytest.mark.parametrize("named", [True, False])
def test_page_never_replaces_what_is_no_page_of_ours(tmp_path, kind, named):
    shutil.copy(GOLDEN / SQUARE, tmp_path / "s.h5")
    output = tmp_path / "s.h5.html"
    if kind == "surface":
        shutil.copy(GOLDEN / SQUARE, output)
    elif kind == "checkpoint":
        shutil.copy(GOLDEN / "model_6.t7", output)
    elif kind == "link to a surface":
        output.symlink_to(tmp_path / "s.h5")
    elif kind == "foreign page":
        output.write_text("<!DOCTYPE html>\n<html><head><title>losslandscape, h52html.py</title></head></html>")
    else:
        output.mkdir()

    before = contents(tmp_path)
    flags = ["--output", str(output)] if named else []
    with pytest.raises(InputError, match="got .*; give another name"):
        h52html.main(["-f", str(tmp_path / "s.h5"), *flags])
    assert contents(tmp_path) == before


def test_older_page_is_replaced(tmp_path):
    write_surface(tmp_path / "s.h5", surface_with_all(bowl))
    output = tmp_path / "page.html"
    output.write_text(html_page([PagePanel(surface_with_all(bowl), "older")]), "utf-8")
    h52html.main(["-f", str(tmp_path / "s.h5"), "--labels", "newer", "--output", str(output)])
    assert read_page(output).title == "newer"
    assert sorted(os.listdir(tmp_path)) == ["page.html", "s.h5"]


def test_missing_plotly_is_named_in_one_line(tmp_path):
    (tmp_path / "plotly.py").write_text("raise ImportError('not installed')")
    shutil.copy(GOLDEN / SQUARE, tmp_path)
    result = make_page("-f", tmp_path / SQUARE, PYTHONPATH=str(tmp_path))
    assert refused(result) and "pip install plotly" in result.stderr
