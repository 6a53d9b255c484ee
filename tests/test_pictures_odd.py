"""Unusual numbers in every kind of picture: something is drawn, or the surface is refused in a line."""

import json
import re

import numpy as np
import pytest

import flatness
import h52html
import h52vtp
import plot_1D
import plot_2D
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import write_projection, write_surface
from losslandscape.pictures import animation, frame, style, surfaces
from losslandscape.pictures.epochs import plot_against_epoch
from losslandscape.pictures.extremes import drawable_numbers
from losslandscape.pictures.mesh import box_mesh, surface_heights
from tests.drawing import hatched_areas

# a warning would stand among the notes, and the user can do nothing about it
pytestmark = [pytest.mark.filterwarnings(f"error::{kind}") for kind in ("RuntimeWarning", "UserWarning")]

X, Y = np.linspace(-1, 1, 5), np.linspace(-1, 1, 4)
XX, YY = np.meshgrid(X, Y)
BOWL = 0.2 + 4 * XX**2 + 6 * YY**2
CORNER = (XX == 1) & (YY == 1)

COORDINATES = {  # of the x axis: (factor, offset)
    "beyond all": (1.7e308, 0), "huge": (1e300, 0), "large": (1e140, 0), "small": (1e-140, 0),
    "tiny": (1e-300, 0), "denormal": (1e-318, 0), "far away": (1e-5, 1e10),
}  # fmt: skip
VALUES = {
    "negative": BOWL - 20,
    "around 0": BOWL - 3,
    "steep below 0": np.exp(40 * BOWL) - 5,
    "beyond all": 1.7e308 * XX,
    "one beyond all": np.where(CORNER, 1.7e308, BOWL),
    "one far below all": np.where(CORNER, -1.7e308, BOWL),
    "huge": 1e200 * BOWL,
    "too large for float32": 1e39 * BOWL,
    "tiny": 1e-300 * BOWL,
    "denormal": 1e-318 * BOWL,
    "wide": 10.0 ** (300 * XX),
    "differ in the last digit": 1 + 1e-15 * np.round(BOWL),
    "equal": np.full(BOWL.shape, 2.5),
    "all 0": np.zeros(BOWL.shape),
    "equal below 0": np.full(BOWL.shape, -2.5),
    "one finite": np.where(CORNER, 0.3, np.nan),
    "one finite among inf": np.where(CORNER, 0.3, np.inf),
    "NaN": np.full(BOWL.shape, np.nan),
    "inf": np.full(BOWL.shape, np.inf),
    "-inf": np.full(BOWL.shape, -np.inf),
    "some -inf": np.where(XX > 0.6, -np.inf, BOWL),
}
WITH_LOG = ["negative", "around 0", "steep below 0", "wide", "tiny", "some -inf", "one finite"]


@pytest.fixture
def figures(monkeypatch):
    """{path: Figure} of what is drawn, at few dots; nothing is written."""
    caught = {}
    monkeypatch.setattr(style, "save_figure", lambda figure, path: caught.update({path: figure}))
    return caught


@pytest.fixture
def quick(monkeypatch):
    """The layout of 2-D figures is not refined and contours have no labels, which takes most of the time."""
    monkeypatch.setattr(frame, "measured_margins", lambda *args: frame.Margins(0.4, 0.4, 0.4, 0.4))
    monkeypatch.setattr(surfaces, "label_contours", lambda ax, lines: [])


def save_plane(path, values, x=X, **more):
    surface = Surface(Grid(x, Y), {"train_loss": values}, {"train_loss": np.ones(values.shape, bool)}, **more)
    write_surface(path, surface)
    return surface


def save_line(path, values, x=X):
    write_surface(path, Surface(Grid(x), {"train_loss": values}, {"train_loss": np.ones(values.shape, bool)}))


def assert_shows_something(figure, label):
    """More than a rim inside the axes: lines, colours or hatches."""
    ax = figure.axes[0]
    if ax.name == "3d":
        surface = [c for c in ax.collections if c.get_label() == "surface"]
        assert hatched_areas(figure) or any(len(c.get_facecolor()) for c in surface), label
        return
    figure.set_dpi(40)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    left, bottom, right, top = (round(end) for end in ax.get_window_extent().extents)
    inside = pixels[::-1][bottom + 3 : top - 3, left + 3 : right - 3]
    assert (inside.min(axis=-1) < 240).mean() > 0.001, label


def refusal(command, *flags):
    """The line in which a command refuses the files; '' where it does not."""
    try:
        command.main([str(flag) for flag in flags])
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        return str(error)
    return ""


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("case, log", [*((case, False) for case in VALUES), *((case, True) for case in WITH_LOG)])
def test_any_values_are_drawn_as_curves(case, log, tmp_path, figures):
    path = tmp_path / "s.h5"
    save_line(path, VALUES[case][0])
    assert refusal(plot_1D, "-f", path, *["--log"] * log) == ""
    assert len(figures) == 2
    for name, figure in figures.items():
        assert_shows_something(figure, name)


@pytest.mark.parametrize("case, log", [*((case, False) for case in VALUES), *((case, True) for case in WITH_LOG)])
def test_any_values_are_drawn_as_planes(case, log, tmp_path, figures, quick):
    path = tmp_path / "s.h5"
    save_plane(path, VALUES[case])
    assert refusal(plot_2D, "-f", path, *["--log"] * log) == ""
    assert f"{path}_train_loss_2dheat.pdf" in figures
    for name, figure in figures.items():
        assert_shows_something(figure, name)


@pytest.mark.parametrize("case, log", [("around 0", False), ("wide", True), ("large", False)])
def test_contours_of_unusual_values_have_labels(case, log, tmp_path, figures):
    path = tmp_path / "s.h5"
    save_plane(path, (VALUES | {"large": 1e140 * BOWL})[case])
    plot_2D.main(["-f", str(path), *["--log"] * log])
    assert figures[f"{path}_train_loss_2dcontour.pdf"].axes[0].texts


@pytest.mark.parametrize("case", ["around 0", "wide", "beyond all", "NaN", "one finite", "equal", "some -inf"])
def test_any_values_are_drawn_beside_others(case, tmp_path, figures, quick):
    save_plane(tmp_path / "a.h5", VALUES[case])
    save_plane(tmp_path / "b.h5", BOWL)
    assert refusal(plot_2D, "-f", tmp_path / "a.h5", tmp_path / "b.h5") == ""
    (figure,) = figures.values()
    assert_shows_something(figure, case)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("case", VALUES)
def test_any_values_give_a_mesh_of_finite_numbers_or_are_refused(case, log, tmp_path):
    surface = save_plane(tmp_path / "s.h5", VALUES[case])
    line = refusal(h52vtp, "-f", tmp_path / "s.h5", *["--log"] * log)
    if line:
        assert re.search("four finite values|values above -0.1 for --log", line)
        assert list(tmp_path.iterdir()) == [tmp_path / "s.h5"]
        return
    mesh = box_mesh(surface_heights(surface, log=log))
    assert np.isfinite(mesh.points).all() and np.isfinite(mesh.normals).all()
    assert np.isfinite(mesh.values.astype(np.float32)).all() and len(mesh.quads) > 0


@pytest.mark.parametrize("case", VALUES)
def test_any_values_are_put_into_a_page_or_refused(case, tmp_path):
    save_plane(tmp_path / "s.h5", VALUES[case])
    line = refusal(h52html, "-f", tmp_path / "s.h5")
    assert (line != "") == (not np.isfinite(VALUES[case]).any())
    assert (tmp_path / "s.h5.html").exists() == (line == "")


@pytest.mark.parametrize("case", VALUES)
def test_flatness_of_any_values_is_measured_or_refused(case, tmp_path, capsys):
    save_plane(tmp_path / "s.h5", VALUES[case], np.linspace(-1, 1, 5))
    line = refusal(flatness, tmp_path / "s.h5", "--json")
    if not line:
        json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_values_that_no_picture_can_hold_count_as_infinite_or_0_and_are_told(capsys):
    values = np.ma.masked_array([1e151, -1e308, 1e-151, -5e-324, 0, np.nan, 3, 1e200], [0, 0, 0, 0, 0, 0, 0, 1])
    expected = [np.inf, -np.inf, 0, 0, 0, np.nan, 3]
    np.testing.assert_array_equal(drawable_numbers(values, "train_loss").compressed(), expected)
    assert capsys.readouterr().err.splitlines() == [
        "note: 2 of 8 values of train_loss are beyond 1e+150, and drawn as infinite",
        "note: 2 of 8 values of train_loss are below 1e-150, and drawn as 0",
    ]


# ---------------------------------------------------------------- coordinates


@pytest.mark.parametrize("command", [plot_1D, plot_2D, h52vtp, h52html, flatness])
@pytest.mark.parametrize("case", COORDINATES)
def test_any_coordinates_are_drawn_or_refused_in_a_line(case, command, tmp_path, figures, quick):
    factor, offset = COORDINATES[case]
    path = tmp_path / "s.h5"
    if command is plot_1D:
        save_line(path, BOWL[0], factor * X + offset)
    else:
        save_plane(path, BOWL, factor * X + offset)
    line = refusal(command, "-f", path)
    for name, figure in figures.items():
        assert_shows_something(figure, name)

    if case in ("large", "small") and command is not h52vtp:
        assert line == ""
    else:
        assert re.search(r"expected .*(coordinates .*(at most 1e\+|apart)|evenly spaced .* coordinates)", line)
        assert list(tmp_path.iterdir()) == [path] and not figures


@pytest.mark.parametrize("command", [plot_1D, plot_2D, h52vtp, h52html, flatness])
@pytest.mark.parametrize("strange", [np.nan, np.inf, -1.0])
def test_coordinates_that_do_not_rise_are_refused(strange, command, tmp_path, figures):
    x = X.copy()
    x[2] = strange
    path = tmp_path / "s.h5"
    if command is plot_1D:
        save_line(path, BOWL[0], x)
    else:
        save_plane(path, BOWL, x)
    assert "coordinates" in refusal(command, "-f", path) and not figures


# ---------------------------------------------------------------- paths


def save_path(file, epochs=(0, 1, 2, 3), **more):
    coordinates = {"proj_xcoord": np.array([0.9, 0.5, 0.2, 0]), "proj_ycoord": np.array([0.4, 0.5, -0.1, 0])}
    write_projection(file, coordinates | {"epoch": np.array(epochs)} | more, {})
    return str(file)


PATH_PICTURES = {
    "alone": lambda path, surface: plot_2D.main(["--proj_file", path]),
    "over contours": lambda path, surface: plot_2D.main(["-f", surface, "--proj_file", path]),
    "against the epoch": lambda path, surface: plot_against_epoch([path]),
    "film": lambda path, surface: animation.animate([path], ""),
    "page": lambda path, surface: h52html.main(["-f", surface, "--proj_file", path]),
}


@pytest.mark.parametrize("picture", PATH_PICTURES)
@pytest.mark.parametrize("epochs", [[0, 1, np.nan, 3], [0, 1, 2, np.inf], [0, 1, 2, 1e300], [[0, 1]] * 4, [True] * 4])
def test_strange_epochs_are_refused_in_every_picture(epochs, picture, tmp_path, figures):
    save_plane(tmp_path / "s.h5", BOWL)
    path = save_path(tmp_path / "p.h5", epochs)
    with pytest.raises(InputError, match=r"expected (finite epochs|one number per checkpoint as 'epoch') .*p\.h5"):
        PATH_PICTURES[picture](path, str(tmp_path / "s.h5"))
    assert not figures


@pytest.mark.parametrize("picture", PATH_PICTURES)
@pytest.mark.parametrize("x", [1.7e308, np.inf, np.nan])
def test_paths_beyond_all_are_refused_in_every_picture(x, picture, tmp_path, figures):
    save_plane(tmp_path / "s.h5", BOWL)
    path = save_path(tmp_path / "p.h5", proj_xcoord=np.array([0.9, x, 0.2, 0]))
    with pytest.raises(InputError, match=r"expected .*'proj_xcoord' .*p\.h5"):
        PATH_PICTURES[picture](path, str(tmp_path / "s.h5"))
    assert not figures


@pytest.mark.parametrize("picture", ["alone", "over contours", "against the epoch"])
@pytest.mark.parametrize("more", [
    {"proj_xcoord": np.array([1e140, 0, -1e140, 0])},
    {"proj_xcoord": np.zeros(4), "proj_ycoord": np.zeros(4)},
    {"distance": np.array([1.7e308, np.nan, 1e-320, np.inf])},
    {"evaluated": np.ones(4, bool), "true_loss": np.array([-1e300, np.nan, 2, np.inf]), "plane_loss": -np.ones(4)},
], ids=["large", "one place", "distances", "losses"])  # fmt: skip
def test_unusual_paths_are_drawn(more, picture, tmp_path, figures):
    save_plane(tmp_path / "s.h5", BOWL)
    path = save_path(tmp_path / "p.h5", **{"distance": np.zeros(4), "distance_to_origin": np.ones(4)} | more)
    PATH_PICTURES[picture](path, str(tmp_path / "s.h5"))
    (figure,) = figures.values()
    assert_shows_something(figure, picture)


def test_the_series_of_a_path_have_one_number_per_checkpoint(tmp_path):
    path = save_path(tmp_path / "p.h5", distance=np.zeros((4, 2)))
    with pytest.raises(InputError, match=r"one number per checkpoint as 'distance' in .*p\.h5"):
        plot_against_epoch([path])
