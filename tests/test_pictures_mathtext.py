"""Texts in figures: those of files letter by letter, those of the user as mathematics where they are any."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.text import Text

import plot_1D
import plot_2D
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import write_projection, write_surface
from losslandscape.pictures import style
from losslandscape.pictures.animation import animate
from losslandscape.pictures.epochs import plot_against_epoch
from losslandscape.pictures.mathtext import plain_text, typed_text
from losslandscape.pictures.style import save_figure
from losslandscape.pictures.words import heading, labels_for

HOSTILE = ["$$", "$", r"a$\frac{$b", r"$\alpha$", r"\$", r"$x\$", "$" * 7, "a_b^c", "\\", "${" * 500, "%s {} {0}"]
UNPRINTABLE = "a\nb\x1b[31mc\x00d\udce9e\ufffef\x85"
X, Y = np.linspace(-1, 1, 5), np.linspace(-1, 1, 4)
BOWL = 0.2 + X**2 + 2 * Y[:, None] ** 2


def as_drawn(text):
    """(letters or mathtext, is it mathtext?) as matplotlib reads a text."""
    return Text(text=text)._preprocess_math(text)


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_from_a_file_is_drawn_letter_by_letter(text):
    letters, is_math = as_drawn(plain_text(text))
    assert not is_math and letters == text
    assert typed_text(plain_text(text)) == plain_text(text)


@pytest.mark.parametrize("text", [r"$\alpha$", r"width $2\times10^5$, depth $d_1$", r"\$5 to \$6", "no dollar"])
def test_what_the_user_types_is_honoured(text):
    assert typed_text(text) == text


@pytest.mark.parametrize("text", ["$$", "$", r"a$\frac{$b", r"$\nothing$", "$5", "$" * 7, "$" + "{" * 5000 + "$"])
def test_typed_dollars_that_are_no_mathematics_are_dollars(text):
    letters, is_math = as_drawn(typed_text(text))
    assert not is_math and letters == text


def test_each_line_of_a_typed_text_stands_alone():
    assert typed_text("$\\alpha$\n$$") == "$\\alpha$\n\\$\\$"


def test_what_can_not_be_shown_becomes_spaces_and_question_marks():
    assert plain_text(UNPRINTABLE) == "a b?[31mc?d?e?f "
    assert typed_text("two\nlines\x1b") == "two\nlines?"


def test_a_title_cut_in_the_middle_of_a_dollar_stays_a_text():
    for longest in range(3, 12):
        letters, is_math = as_drawn(heading("$a$b$c$d$e$", longest=longest))
        assert not is_math and letters.endswith("$e$"[-longest + 1 :])


def test_labels_for_legends_are_those_of_files_or_of_the_user():
    assert labels_for(["run_a$x.h5", "run_b$y.h5"], []) == [r"a\$x", r"b\$y"]
    assert labels_for(["a", "b"], [r"$\alpha$", "_b"]) == [r"$\alpha$", " _b"]


# ---------------------------------------------------------------- figures


@pytest.fixture
def svgs(monkeypatch):
    """{path: the text of an SVG file}, which is XML."""
    written = {}

    def write_svg(figure, path):
        figure.set_dpi(30)
        save_figure(figure, path)
        written[path] = open(path, encoding="utf-8").read()
        ElementTree.fromstring(written[path])

    monkeypatch.setattr(style, "save_figure", write_svg)
    return written


def save_line(path, name, **provenance):
    values = {name: BOWL[0], "train_acc": 50 * BOWL[0]}
    write_surface(path, Surface(Grid(X), values, dict.fromkeys(values, np.ones(5, bool)), "", provenance))
    return str(path)


def save_plane(path, name, **provenance):
    write_surface(path, Surface(Grid(X, Y), {name: BOWL}, {name: np.ones(BOWL.shape, bool)}, "", provenance))
    return str(path)


def save_path(path):
    values = {"proj_xcoord": X, "proj_ycoord": X, "epoch": np.arange(5), "distance": X**2, "distance_to_origin": X**2}
    write_projection(path, values, {})
    return str(path)


@pytest.mark.parametrize("text", ["$$", r"a$\frac{$b"])
def test_names_in_files_and_of_files_are_letters_in_every_figure(text, tmp_path, svgs):
    model = text + UNPRINTABLE.replace("\udce9", "")
    lines = [save_line(tmp_path / f"{text.replace('/', '')}{i}.h5", "train_loss", model=model) for i in (1, 2)]
    planes = [save_plane(tmp_path / f"{i}{text}p.h5", f"train_{text}", model=model) for i in (1, 2)]
    path = save_path(tmp_path / f"{text}path.h5")
    flags = ("--format", "svg")
    plot_1D.main(["-f", lines[0], *flags])
    plot_1D.main(["-f", *lines, *flags])
    plot_2D.main(["-f", planes[0], *flags])
    plot_2D.main(["-f", *planes, *flags])
    plot_2D.main(["--proj_file", path, path, *flags])
    plot_2D.main(["-f", planes[0], "--proj_file", path, *flags])
    plot_against_epoch([path, path], fmt="svg")
    animate([path, path], "")
    assert len(svgs) == 3 + 1 + 4 + 1 + 1 + 1 + 1
    assert all(text in svg for name, svg in svgs.items() if "2dcontour.svg" in name)  # in a comment


@pytest.mark.parametrize("text", ["$$", r"$\frac{$", UNPRINTABLE, r"$\alpha$"])
def test_titles_and_labels_of_the_user_are_drawn_in_every_figure(text, tmp_path, svgs):
    lines = [save_line(tmp_path / f"{i}.h5", "train_loss") for i in (1, 2)]
    planes = [save_plane(tmp_path / f"{i}p.h5", "train_loss") for i in (1, 2)]
    path = save_path(tmp_path / "path.h5")
    flags = ("--format", "svg", "--title", text, "--labels", text, text)
    plot_1D.main(["-f", lines[0], *flags])
    plot_1D.main(["-f", *lines, *flags])
    plot_2D.main(["-f", planes[0], *flags])
    plot_2D.main(["-f", *planes, *flags])
    plot_2D.main(["--proj_file", path, path, *flags])
    plot_2D.main(["-f", planes[0], "--proj_file", path, path, *flags])
    plot_against_epoch([path, path], [text, text], "svg")
    animate([path, path], "", labels=[text, text])
    assert len(svgs) == 3 + 1 + 4 + 1 + 1 + 1 + 1
