"""The figures of a 2-D surface: what is drawn equals the file."""

import sys

import matplotlib
import numpy as np
import pytest

import plot_2D
from losslandscape import repeats
from losslandscape.errors import InputError
from losslandscape.files import atomic
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import read_surface, write_surface
from losslandscape.pictures.style import FORMATS
from losslandscape.pictures.surfaces import plot_2d_contour
from tests.conftest import GOLDEN
from tests.drawing import (
    FLAT_KINDS,
    NON_SQUARE,
    bowl_with_gaps,
    contour_lines,
    heat_mesh,
    legend_texts,
    save_surface,
    uneven_bowl,
)

pytest_plugins = "tests.caught_figures"


@pytest.mark.parametrize("fmt", FORMATS)
def test_drawing_again_gives_the_same_bytes(fmt, tmp_path, only):
    only("2dcontour", "2dheat")
    path = str(tmp_path / "s.h5")
    save_surface(path, bowl_with_gaps, "-1:1:21", "-1:1:21")
    first = {name: open(name, "rb").read() for name in plot_2d_contour(path, fmt=fmt)}
    assert list(first) == [f"{path}_train_loss_{name}.{fmt}" for name in ("2dcontour", "2dheat")]
    assert {name: open(name, "rb").read() for name in plot_2d_contour(path, fmt=fmt)} == first


def test_the_heat_map_shows_each_value_at_its_coordinates(tmp_path, drawn, only):
    only("2dheat")
    path = str(tmp_path / "s.h5")
    surface = save_surface(path, uneven_bowl, "-1:1:7", "-0.5:1:11")
    plot_2d_contour(path)
    mesh = heat_mesh(drawn["2dheat.pdf"])
    assert np.array_equal(mesh.get_array(), surface.values["train_loss"])
    corners = mesh.get_coordinates()  # (ny + 1, nx + 1, 2)
    centres = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    assert np.allclose(centres, np.stack(np.meshgrid(surface.grid.x, surface.grid.y), -1))


@pytest.mark.parametrize("name", FLAT_KINDS)
def test_a_non_square_file_of_the_original_has_row_y(name, drawn, only):
    only(name)
    plot_2d_contour(str(GOLDEN / NON_SQUARE))
    ax = drawn[f"{name}.pdf"].axes[0]
    half = 0 if name != "2dheat" else 1  # the cells of a heat map reach beyond the coordinates
    assert np.allclose(ax.get_xlim(), [-1 - 0.5 * half, 1 + 0.5 * half])
    assert np.allclose(ax.get_ylim(), [-0.5 - 0.125 * half, 0.5 + 0.125 * half])
    if name == "2dheat":
        assert heat_mesh(drawn["2dheat.pdf"]).get_array()[0, 2] == pytest.approx(18.69, abs=0.01)  # x = 1, y = -0.5
    elif name == "2dcontour":
        # a contour is where linear interpolation of the right way round says it is
        grid, values = read_surface(GOLDEN / NON_SQUARE).grid, read_surface(GOLDEN / NON_SQUARE).values["train_loss"]
        lines = contour_lines(drawn["2dcontour.pdf"])
        for level, path in zip(lines.levels, lines.get_paths(), strict=True):
            for y, row in zip(grid.y, values, strict=True):
                on_row = path.vertices[np.isclose(path.vertices[:, 1], y)]
                assert len(on_row) or not row.min() < level < row.max()
                assert np.allclose(np.interp(on_row[:, 0], grid.x, row), level)


@pytest.mark.parametrize("name", FLAT_KINDS)
@pytest.mark.parametrize("y, ratio", [("-1:1:5", 1), ("-0.5:0.5:5", 0.5), ("-3:3:5", 3)])
def test_a_unit_is_as_long_on_both_axes_and_the_figure_fits_a_column(name, y, ratio, tmp_path, drawn, only):
    only(name)
    path = str(tmp_path / "s.h5")
    save_surface(path, uneven_bowl, "-1:1:5", y)
    plot_2d_contour(path)
    figure = drawn[f"{name}.pdf"]
    box = figure.axes[0].get_window_extent()
    (x0, x1), (y0, y1) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert box.height / box.width == pytest.approx((y1 - y0) / (x1 - x0))
    assert figure.get_figwidth() == 3.4
    whole = figure.get_tightbbox()  # nothing sticks out, nothing is left empty
    assert whole.x0 >= 0 and whole.y0 >= 0 and whole.x1 <= 3.4 and whole.y1 <= figure.get_figheight()
    assert whole.height > 0.95 * figure.get_figheight()


@pytest.mark.parametrize("name", ["train_loss", "train_acc", "train_err", "max_eig"])
def test_every_value_of_the_file_can_be_drawn(name, tmp_path, drawn, only):
    only("2dcontour", "2dheat")
    source = name.replace("_err", "_acc")
    path = str(tmp_path / "s.h5")
    surface = save_surface(path, lambda x, y: 90 * np.exp(-(x**2) - y**2), name=source)
    written = plot_2d_contour(path, name)
    assert [p.removeprefix(f"{path}_{name}_") for p in written] == ["2dcontour.pdf", "2dheat.pdf"]
    expected = 100 - surface.values[source] if name == "train_err" else surface.values[source]
    assert np.array_equal(heat_mesh(drawn["2dheat.pdf"]).get_array(), expected)
    assert len(contour_lines(drawn["2dcontour.pdf"]).levels) >= 5
    unit = {"train_acc": "train accuracy (%)", "train_err": "train error (%)", "max_eig": "largest eigenvalue"}
    assert drawn["2dheat.pdf"].axes[1].get_ylabel() == unit.get(name, "train loss")


@pytest.mark.parametrize("name, label, best", [
    ("train_top5_acc", "train top5 acc", "maximum"),
    ("train_mae", "train mae", None),
    ("train_loss_low", "train loss, lower quartile", "minimum"),
    ("train_acc_high", "train accuracy, upper quartile (%)", "maximum"),
    ("train_loss_iqr", "train loss, interquartile range", None),
    ("max_eig_iqr", "largest eigenvalue, interquartile range", None),
])  # fmt: skip
def test_metrics_and_statistics_of_repeats_have_words_and_levels(name, label, best, tmp_path, drawn, only, capsys):
    only("2dcontour", "2dheat")
    path = str(tmp_path / "s.h5")
    save_surface(path, lambda x, y: 0.02 * uneven_bowl(x, y), name=name)
    plot_2D.main(["-f", path, "--surf_name", name])
    assert drawn["2dheat.pdf"].axes[1].get_ylabel() == label
    assert len(contour_lines(drawn["2dcontour.pdf"]).levels) >= 3
    marks = [text.partition(",")[0] for text in legend_texts(drawn["2dheat.pdf"])]
    assert marks == ["centre", best] if best else marks == ["centre"]
    # only what is a loss has the usual levels, which leave such low ones empty
    assert ("leave almost the whole picture empty" in capsys.readouterr().err) == (name == "train_loss_low")


def test_the_summary_of_repeats_is_compared_and_drawn_like_a_surface(tmp_path, drawn, only):
    only("2dheat")
    paths = [str(tmp_path / f"{i}.h5") for i in range(3)]
    for i, path in enumerate(paths):
        save_surface(path, lambda x, y, i=i: uneven_bowl(x, y) * (1 + i))
    summary, _ = repeats.write(paths)
    plot_2D.main(["-f", summary])
    assert np.allclose(heat_mesh(drawn["2dheat.pdf"]).get_array(), 2 * read_surface(paths[0]).values["train_loss"])
    plot_2D.main(["--compare", paths[0], summary])
    assert all("at centre" in ax.get_xlabel() for ax in drawn["2dcompare.pdf"].axes[:2])


@pytest.mark.parametrize("x, y", [("-1:1:5", "0:1:1"), ("0:1:1", "-1:1:5"), ("0:1:1", "0:1:1")])
def test_a_single_row_or_column_says_which_figures_it_cannot_give(x, y, tmp_path, drawn, capsys):
    path = str(tmp_path / "s.h5")
    save_surface(path, uneven_bowl, x, y)
    assert plot_2d_contour(path) == [f"{path}_train_loss_2dheat.pdf"]
    assert "gives no 2dcontour, 2dcontourf, 3dsurface" in capsys.readouterr().err


@pytest.mark.parametrize("value", [0.0, -3.0, 1e6])
def test_a_constant_surface_is_drawn_without_contours(value, tmp_path, drawn, capsys):
    path = str(tmp_path / "s.h5")
    save_surface(path, lambda x, y: value, "-1:1:3", "-1:1:3")
    assert len(plot_2d_contour(path)) == 2
    assert "has a single value" in capsys.readouterr().err


def test_eigenvalue_maps_show_the_ratio_and_its_absolute_value(tmp_path, drawn, drawn_files):
    grid = Grid.parse("-1:1:5", "-1:1:4")
    x, y = np.meshgrid(grid.x, grid.y)
    smallest, largest = -3 * x**2 + 0.5, 10 + y
    done = np.ones(grid.shape, bool)
    path = str(tmp_path / "s.h5")
    write_surface(path, Surface(grid, {"max_eig": largest, "min_eig": smallest}, {"max_eig": done, "min_eig": done}))
    assert plot_2D.main(["-f", path]) is None  # no train_loss in the file: the ratios are what there is to draw
    assert list(drawn_files) == [f"{path}_min_eig_max_eig_{kind}_heat_sns.pdf" for kind in ("abs_ratio", "ratio")]
    absolute, signed = (heat_mesh(figure).get_array() for figure in drawn_files.values())
    assert np.allclose(absolute, np.abs(smallest / largest)) and np.allclose(signed, smallest / largest)


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path, only, monkeypatch):
    only("2dheat")
    path = str(tmp_path / "s.h5")
    save_surface(path, uneven_bowl, "-1:1:3", "-1:1:3")

    def no_room(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(atomic.tempfile, "mkstemp", no_room)
    with pytest.raises(InputError, match="can't write .*Permission denied"):
        plot_2d_contour(path, fmt="png")


def test_the_drawing_of_a_figure_leaves_the_users_settings_alone(tmp_path, only):
    only("2dheat")
    before = dict(matplotlib.rcParams)
    save_surface(tmp_path / "s.h5", uneven_bowl, "-1:1:3", "-1:1:3")
    plot_2d_contour(str(tmp_path / "s.h5"), fmt="png")
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
