"""2-D figures: what is drawn equals the file, nothing is hidden, nothing crashes."""

import itertools
import shutil
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.contour import QuadContourSet
from matplotlib.path import Path as Outline
from mpl_toolkits.mplot3d import Axes3D

import plot_2D
from losslandscape import flatness, repeats
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.files.layouts import Grid, Surface, read_surface, write_surface
from losslandscape.pictures import style as figures
from tests.conftest import GOLDEN, refused, run

SQUARE = ("model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
          "_[-1.0,1.0,5]x[-1.0,1.0,5].h5")
NON_SQUARE = ("model_6.t7_weights_xignore=biasbn_xnorm=layer_yignore=biasbn_ynorm=layer.h5"
              "_[-1.0,1.0,3]x[-0.5,0.5,5].h5")
LINE = "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,7].h5"
PCA = GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5"
PATH = GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5_proj_cos.h5"
FIGURES = ["2dcontour", "2dcontourf", "2dheat", "3dsurface"]
FLAT = FIGURES[:3]


def save(path, f, x="-1:1:21", y="-1:1:21", name="train_loss", computed=None, **provenance):
    """Write a surface with `name` = f(x, y) and return it."""
    grid = Grid.parse(x, y)
    values = np.broadcast_to(np.asarray(f(*np.meshgrid(grid.x, grid.y)), float), grid.shape)  # (ny, nx)
    computed = np.ones(grid.shape, bool) if computed is None else computed
    surface = Surface(grid, {name: values.copy()}, {name: computed}, "", provenance)
    write_surface(path, surface)
    return surface


def bowl(x, y):
    return 0.2 + 4 * x**2 + 6 * y**2 + 0.5 * np.sin(5 * x) * y


def bowl_with_gaps(x, y):
    z = bowl(x, y)
    z[2:6, 3:9] = np.nan
    z[15:18, 16:] = np.inf
    return z


@pytest.fixture
def drawn(monkeypatch):
    """{ending of the file name: Figure}; figures are caught instead of written."""
    caught = {}
    monkeypatch.setattr(figures, "save", lambda figure, path: caught.update({path.rpartition("_")[2]: figure}) or path)
    return caught


@pytest.fixture
def only(monkeypatch):
    """Draw only some of the four figures, to save time."""
    return lambda *names: monkeypatch.setattr(plot_2D, "FIGURES", {name: plot_2D.FIGURES[name] for name in names})


def artists(figure, kind):
    return [a for ax in figure.axes for a in ax.get_children() if isinstance(a, kind)]


def heat(figure):
    (mesh,) = [a for a in figure.axes[0].get_children() if isinstance(a, QuadMesh)]
    return mesh


def contours(figure):
    return [c for c in artists(figure, QuadContourSet) if not c.filled][0]


def hatched(figure):
    """{kind: collection} of the hatched areas."""
    return {c.get_label(): c for c in artists(figure, PolyCollection) if c.get_hatch()}


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


# ---------------------------------------------------------------- files


def test_the_four_figures_have_their_names_and_are_whole_files(tmp_path):
    path = tmp_path / SQUARE
    shutil.copy(GOLDEN / SQUARE, path)
    done = run("plot_2D.py", "--surf_file", path, "--surf_name", "train_loss")
    assert done.returncode == 0, done.stderr
    expected = [f"{path}_train_loss_{name}.pdf" for name in FIGURES]
    assert done.stdout.splitlines() == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([SQUARE] + [p.rpartition("/")[2] for p in expected])
    for name in expected:
        image = open(name, "rb").read()
        assert image.startswith(b"%PDF") and image.rstrip().endswith(b"%%EOF") and len(image) > 5000
        assert b"/Type3" not in image and b"/FontFile2" in image  # fonts as TrueType: journals refuse Type 3


@pytest.mark.parametrize("fmt", figures.FORMATS)
def test_drawing_again_gives_the_same_bytes(fmt, tmp_path, only):
    only("2dcontour", "2dheat")
    path = str(tmp_path / "s.h5")
    save(path, bowl_with_gaps, "-1:1:21", "-1:1:21")
    first = {name: open(name, "rb").read() for name in plot_2D.plot_2d_contour(path, fmt=fmt)}
    assert list(first) == [f"{path}_train_loss_{name}.{fmt}" for name in ("2dcontour", "2dheat")]
    assert {name: open(name, "rb").read() for name in plot_2D.plot_2d_contour(path, fmt=fmt)} == first


def test_drawing_needs_neither_torch_nor_mpi_nor_a_window(tmp_path):
    path = tmp_path / "s.h5"
    save(path, bowl, "-1:1:5", "0:1:1")
    code = (f"import sys, plot_2D; plot_2D.main(['-f', {str(path)!r}]); "
            "print(sorted({'torch', 'mpi4py', 'matplotlib.pyplot'} & set(sys.modules)))")
    done = run("-c", code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_help_does_not_wait_for_matplotlib():
    done = run("-c", "import sys, plot_2D\ntry: plot_2D.main(['--help'])\nfinally: print('matplotlib' in sys.modules)")
    assert done.stdout.splitlines()[-1] == "False" and "--surf_name" in done.stdout


def test_a_missing_matplotlib_is_named_with_its_install_command(tmp_path):
    save(tmp_path / "s.h5", bowl)
    code = ("import sys; sys.modules['matplotlib'] = None; import plot_2D, errors; "
            f"command.run(lambda: plot_2D.main(['-f', {str(tmp_path / 's.h5')!r}]))")
    done = run("-c", code)
    assert refused(done) and "pip install matplotlib" in done.stderr


def test_show_without_a_display_still_writes_the_files(tmp_path):
    save(tmp_path / "s.h5", bowl, "-1:1:5", "0:1:1")
    done = run("plot_2D.py", "-f", tmp_path / "s.h5", "--show", env={"MPLBACKEND": "Agg"})
    assert done.returncode == 0 and done.stdout.split() == [f"{tmp_path}/s.h5_train_loss_2dheat.pdf"]
    assert "note: no window" in done.stderr


# ---------------------------------------------------------------- values and axes


def test_the_heat_map_shows_each_value_at_its_coordinates(tmp_path, drawn, only):
    only("2dheat")
    path = str(tmp_path / "s.h5")
    surface = save(path, bowl, "-1:1:7", "-0.5:1:11")
    plot_2D.plot_2d_contour(path)
    mesh = heat(drawn["2dheat.pdf"])
    assert np.array_equal(mesh.get_array(), surface.values["train_loss"])
    corners = mesh.get_coordinates()  # (ny + 1, nx + 1, 2)
    centres = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    assert np.allclose(centres, np.stack(np.meshgrid(surface.grid.x, surface.grid.y), -1))


@pytest.mark.parametrize("name", FLAT)
def test_a_non_square_file_of_the_original_has_row_y(name, drawn, only):
    only(name)
    plot_2D.plot_2d_contour(str(GOLDEN / NON_SQUARE))
    ax = drawn[f"{name}.pdf"].axes[0]
    half = 0 if name != "2dheat" else 1  # the cells of a heat map reach beyond the coordinates
    assert np.allclose(ax.get_xlim(), [-1 - 0.5 * half, 1 + 0.5 * half])
    assert np.allclose(ax.get_ylim(), [-0.5 - 0.125 * half, 0.5 + 0.125 * half])
    if name == "2dheat":
        assert heat(drawn["2dheat.pdf"]).get_array()[0, 2] == pytest.approx(18.69, abs=0.01)  # x = 1, y = -0.5
    elif name == "2dcontour":
        # a contour is where linear interpolation of the right way round says it is
        grid, values = read_surface(GOLDEN / NON_SQUARE).grid, read_surface(GOLDEN / NON_SQUARE).values["train_loss"]
        lines = contours(drawn["2dcontour.pdf"])
        for level, path in zip(lines.levels, lines.get_paths(), strict=True):
            for y, row in zip(grid.y, values, strict=True):
                on_row = path.vertices[np.isclose(path.vertices[:, 1], y)]
                assert len(on_row) or not row.min() < level < row.max()
                assert np.allclose(np.interp(on_row[:, 0], grid.x, row), level)


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("y, ratio", [("-1:1:5", 1), ("-0.5:0.5:5", 0.5), ("-3:3:5", 3)])
def test_a_unit_is_as_long_on_both_axes_and_the_figure_fits_a_column(name, y, ratio, tmp_path, drawn, only):
    only(name)
    path = str(tmp_path / "s.h5")
    save(path, bowl, "-1:1:5", y)
    plot_2D.plot_2d_contour(path)
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
    surface = save(path, lambda x, y: 90 * np.exp(-(x**2) - y**2), name=source)
    written = plot_2D.plot_2d_contour(path, name)
    assert [p.removeprefix(f"{path}_{name}_") for p in written] == ["2dcontour.pdf", "2dheat.pdf"]
    expected = 100 - surface.values[source] if name == "train_err" else surface.values[source]
    assert np.array_equal(heat(drawn["2dheat.pdf"]).get_array(), expected)
    assert len(contours(drawn["2dcontour.pdf"]).levels) >= 5
    unit = {"train_acc": "train accuracy (%)", "train_err": "train error (%)", "max_eig": "largest eigenvalue"}
    assert drawn["2dheat.pdf"].axes[1].get_ylabel() == unit.get(name, "train loss")


def test_what_the_file_has_is_drawn_when_nothing_is_asked_for(tmp_path, drawn, only, monkeypatch):
    only("2dheat")
    made = {}
    monkeypatch.setattr(figures, "save", lambda figure, path: made.update({path: figure}) or path)
    for name in ("test_loss", "test_mae", "max_eig"):
        path = str(tmp_path / f"{name}.h5")
        save(path, bowl, name=name)
        plot_2D.main(["-f", path])
        assert f"{path}_{name}_2dheat.pdf" in made
        plot_2D.main(["--compare", path, path])
        assert f"{path}_{name}_2dcompare.pdf" in made


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
    save(path, lambda x, y: 0.02 * bowl(x, y), name=name)
    plot_2D.main(["-f", path, "--surf_name", name])
    assert drawn["2dheat.pdf"].axes[1].get_ylabel() == label
    assert len(contours(drawn["2dcontour.pdf"]).levels) >= 3
    marks = [text.partition(",")[0] for text in legend_texts(drawn["2dheat.pdf"])]
    assert marks == ["centre", best] if best else marks == ["centre"]
    # only what is a loss has the usual levels, which leave such low ones empty
    assert ("leave almost the whole picture empty" in capsys.readouterr().err) == (name == "train_loss_low")


def test_the_summary_of_repeats_is_compared_and_drawn_like_a_surface(tmp_path, drawn, only):
    only("2dheat")
    paths = [str(tmp_path / f"{i}.h5") for i in range(3)]
    for i, path in enumerate(paths):
        save(path, lambda x, y, i=i: bowl(x, y) * (1 + i))
    summary, _ = repeats.write(paths)
    plot_2D.main(["-f", summary])
    assert np.allclose(heat(drawn["2dheat.pdf"]).get_array(), 2 * read_surface(paths[0]).values["train_loss"])
    plot_2D.main(["--compare", paths[0], summary])
    assert all("at centre" in ax.get_xlabel() for ax in drawn["2dcompare.pdf"].axes[:2])


@pytest.mark.parametrize("log", [False, True])
def test_the_3d_figure_has_the_surface_in_it(log, tmp_path, drawn, only, monkeypatch):
    given, plot_surface = [], Axes3D.plot_surface
    monkeypatch.setattr(Axes3D, "plot_surface", lambda *a, **k: given.append(a[1:]) or plot_surface(*a, **k))
    only("3dsurface")
    path = str(tmp_path / "s.h5")
    surface = save(path, bowl)
    plot_2D.plot_2d_contour(path, zlim=3, log=log)
    ax = drawn["3dsurface.pdf"].axes[0]
    (mesh,) = [c for c in ax.collections if c.get_label() == "surface"]
    assert len(mesh.get_facecolor()) > 400 and np.ptp(mesh.get_facecolor()[:, :3], axis=0).max() > 0.3
    x, y, z = (a.ravel() for a in given[0])
    top = np.log10(3) if log else 3
    assert z.max() == pytest.approx(top) and ax.get_zlim()[1] == pytest.approx(top)
    wanted = np.minimum(surface.values["train_loss"], 3)
    for row, column in ((0, 0), (10, 10), (12, 5), (20, 3)):
        here = np.isclose(x, surface.grid.x[column]) & np.isclose(y, surface.grid.y[row])
        assert here.any()
        assert np.allclose(10 ** z[here] if log else z[here], wanted[row, column])


@pytest.mark.parametrize("low, high, name, log", [
    (7, 6600, "max_eig", False), (0.05, 3, "train_loss", True), (0.1, 90, "train_loss", False),
    (30000, 48000, "train_mae", False), (-3e-7, 2e-6, "min_eig", False), (1e-9, 1e9, "train_loss", True),
])  # fmt: skip
def test_numbers_of_the_3d_axis_touch_neither_the_axis_nor_its_label(low, high, name, log, tmp_path, drawn, only):
    only("3dsurface")
    path = str(tmp_path / "s.h5")
    save(path, lambda x, y: low * (high / low) ** ((x**2 + y**2) / 2) if low > 0 else low + (high - low) * x**2,
         name=name)
    plot_2D.plot_2d_contour(path, name, log=log)
    figure = drawn["3dsurface.pdf"]
    figure.draw_without_rendering()
    axis = figure.axes[0].zaxis
    word = axis.label.get_window_extent()
    line = axis.line.get_window_extent()
    # as they were drawn: get_ticklabels() would move them
    bottom, top = figure.axes[0].get_zlim()
    shown = [tick.label1.get_window_extent() for tick in axis.majorTicks if bottom <= tick.get_loc() <= top]
    assert len(shown) >= 3 and word.x1 < figure.bbox.x1
    for number in shown:
        assert not number.overlaps(word)
        assert number.x0 > line.x0  # the axis leans, to the right at its top


def test_values_that_span_decades_are_drawn_as_logarithms_in_3d_but_losses_are_cut(tmp_path, drawn, only):
    only("3dsurface")
    path = str(tmp_path / "s.h5")
    for name, top in (("max_eig", 4), ("train_loss", 10)):
        save(path, lambda x, y: 10.0 ** (4 * x**2), name=name)
        plot_2D.plot_2d_contour(path, name)
        assert drawn["3dsurface.pdf"].axes[0].get_zlim()[1] == pytest.approx(top)


@pytest.mark.parametrize("shape", [(5, 3), (51, 51), (301, 7)])
def test_refining_keeps_the_points_and_is_linear_between_them(shape):
    y, x = (np.sort(np.random.default_rng(n).normal(size=n)) for n in shape)
    z = 3 * x[None] - 2 * y[:, None] + 1
    fine_x, fine_y, fine_z = plot_2D.refined(x, y, z)
    assert np.allclose(fine_z, 3 * fine_x[None] - 2 * fine_y[:, None] + 1)
    assert (fine_x[0], fine_x[-1], fine_y[0], fine_y[-1]) == (x[0], x[-1], y[0], y[-1])
    assert set(x) <= set(fine_x) and len(fine_x) <= 151 and len(fine_y) <= 151


# ---------------------------------------------------------------- levels


def test_a_loss_gets_the_usual_levels(tmp_path, drawn, only, capsys):
    only("2dcontour")
    path = str(tmp_path / "s.h5")
    surface = save(path, bowl)
    plot_2D.plot_2d_contour(path)
    z = surface.values["train_loss"]
    usual = np.round(np.arange(0.1, 10.01, 0.5), 6)
    assert np.allclose(contours(drawn["2dcontour.pdf"]).levels, usual[(usual > z.min()) & (usual < z.max())])
    assert capsys.readouterr().err == ""


def test_levels_and_colours_asked_for_are_respected(tmp_path, drawn, only):
    only("2dcontour", "2dheat")
    path = str(tmp_path / "s.h5")
    save(path, bowl)
    plot_2D.plot_2d_contour(path, vmin=1, vmax=3, vlevel=0.25)
    lines = contours(drawn["2dcontour.pdf"])
    assert np.allclose(lines.levels, np.arange(1, 3.01, 0.25))
    mesh = heat(drawn["2dheat.pdf"])
    assert (mesh.norm.vmin, mesh.norm.vmax) == (1, 3)
    assert mesh.colorbar.extend == "both"


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("decades, factor", [(0.2, 1e4), (3, 1e-6), (3, 1), (3, 1e4), (12, 1e-6)])
def test_any_range_of_losses_gets_readable_levels(decades, factor, log, tmp_path, drawn, only, capsys):
    only("2dcontour", "2dheat")
    path = str(tmp_path / "s.h5")
    surface = save(path, lambda x, y: factor * 10 ** (decades * (x**2 + y**2) / 2))
    plot_2D.plot_2d_contour(path, log=log)
    z, lines = surface.values["train_loss"], contours(drawn["2dcontour.pdf"])
    assert 3 <= len(lines.levels) <= 25
    assert z.min() < lines.levels[0] and lines.levels[-1] < z.max()
    assert all(len(p.vertices) for p in lines.get_paths())
    labels = [t for t in drawn["2dcontour.pdf"].axes[0].texts]
    assert labels and not any("e-" in t.get_text() or "e+" in t.get_text() for t in labels)
    if log and decades > 1:
        assert isinstance(heat(drawn["2dheat.pdf"]).norm, LogNorm)
        ratios = lines.levels[1:] / lines.levels[:-1]
        assert ratios.max() / ratios.min() < 2.1  # even in the logarithm, but for rounding to 1, 2, 5
    if not log:  # the usual levels are left only where they show (almost) nothing, and then it is said
        usual = np.arange(0.1, 10.01, 0.5)
        few = ((usual > z.min()) & (usual < z.max())).sum() < 3
        assert ("levels chosen from the data" in capsys.readouterr().err) == few


def test_limits_that_leave_the_picture_empty_are_reported_and_replaced(tmp_path, drawn, only, capsys):
    only("2dcontour")
    path = str(tmp_path / "s.h5")
    save(path, bowl)
    plot_2D.plot_2d_contour(path, vmin=50, vmax=80, vlevel=5)
    assert len(contours(drawn["2dcontour.pdf"]).levels) >= 3
    assert "levels from 50 to 80 in steps of 5 leave the picture empty" in capsys.readouterr().err


@pytest.mark.parametrize("f", [
    bowl,
    lambda x, y: 0.01 * np.exp(np.minimum(10 * (x**2 + y**2), 12)) + np.abs(y),
    lambda x, y: 3 + 2 * np.sin(6 * x + y) * np.cos(5 * y) + x**2,
], ids=["bowl", "needle", "waves"])  # fmt: skip
def test_contour_labels_touch_neither_each_other_nor_another_line(f, tmp_path, drawn, only):
    only("2dcontour")
    path = str(tmp_path / "s.h5")
    save(path, f, "-1:1:41", "-1:1:41")
    plot_2D.plot_2d_contour(path)
    figure = drawn["2dcontour.pdf"]
    ax, lines = figure.axes[0], contours(figure)
    figure.draw_without_rendering()
    labels = {}
    for text in ax.texts:
        if not text.get_text().startswith("levels"):
            box = text.get_bbox_patch()
            labels[text] = box.get_path().transformed(box.get_transform())
    assert len(labels) >= 3 or any(text.get_text().startswith("levels 0.1 to") for text in ax.texts)
    for a, b in itertools.combinations(labels.values(), 2):
        assert not a.intersects_path(b, filled=True)
    for text, box in labels.items():
        for level, line in zip(lines.levels, lines.get_paths(), strict=True):
            for polygon in line.to_polygons(closed_only=False):
                dense = ax.transData.transform(Outline(polygon).interpolated(60).vertices)
                assert figures.number(level) == text.get_text() or not box.contains_points(dense).any()


# ---------------------------------------------------------------- points without a value


@pytest.mark.parametrize("name", FIGURES)
def test_nan_and_inf_are_hatched_and_named(name, tmp_path, drawn, only):
    only(name)
    path = str(tmp_path / "s.h5")
    surface = save(path, bowl_with_gaps)
    plot_2D.plot_2d_contour(path)
    figure = drawn[f"{name}.pdf"]
    found = hatched(figure)
    assert set(found) == {"NaN", "inf"}
    assert {"NaN", "inf"} <= set(legend_texts(figure))
    if name == "3dsurface":
        figure.draw_without_rendering()
        assert all(len(c.get_paths()) for c in found.values())
        (lit,) = [c for c in artists(figure, PolyCollection) if c.get_label() == "surface"]
        assert len(lit.get_paths()) == len(lit.get_facecolor()) > 10000  # each quad its own colour
        return
    x, y, z = surface.grid.x, surface.grid.y, surface.values["train_loss"]
    for kind, test in (("NaN", np.isnan), ("inf", np.isinf)):
        areas = found[kind].get_paths()
        for row, column in np.ndindex(z.shape):
            inside = any(p.contains_point((x[column], y[row]), radius=1e-9) or
                         p.contains_point((x[column], y[row]), radius=-1e-9) for p in areas)
            if test(z[row, column]):
                assert inside
            elif name == "2dheat":
                assert not inside


def test_values_next_to_a_gap_are_drawn_in_the_heat_map(tmp_path, drawn, only):
    only("2dheat")
    path = str(tmp_path / "s.h5")
    surface = save(path, bowl_with_gaps)
    plot_2D.plot_2d_contour(path)
    shown = heat(drawn["2dheat.pdf"]).get_array()
    finite = np.isfinite(surface.values["train_loss"])
    assert np.array_equal(np.ma.getmaskarray(shown), ~finite)
    assert np.array_equal(shown[finite], surface.values["train_loss"][finite])


def test_a_surface_of_nan_alone_is_a_hatched_heat_map(tmp_path, drawn, capsys):
    path = str(tmp_path / "s.h5")
    save(path, lambda x, y: x * np.nan)
    assert len(plot_2D.plot_2d_contour(path)) == 1
    assert set(hatched(drawn["2dheat.pdf"])) == {"NaN"}
    assert "no value of train_loss is finite" in capsys.readouterr().err


@pytest.mark.parametrize("x, y", [("-1:1:5", "0:1:1"), ("0:1:1", "-1:1:5"), ("0:1:1", "0:1:1")])
def test_a_single_row_or_column_says_which_figures_it_cannot_give(x, y, tmp_path, drawn, capsys):
    path = str(tmp_path / "s.h5")
    save(path, bowl, x, y)
    assert plot_2D.plot_2d_contour(path) == [f"{path}_train_loss_2dheat.pdf"]
    assert "gives no 2dcontour, 2dcontourf, 3dsurface" in capsys.readouterr().err


@pytest.mark.parametrize("value", [0.0, -3.0, 1e6])
def test_a_constant_surface_is_drawn_without_contours(value, tmp_path, drawn, capsys):
    path = str(tmp_path / "s.h5")
    save(path, lambda x, y: value, "-1:1:3", "-1:1:3")
    assert len(plot_2D.plot_2d_contour(path)) == 2
    assert "has a single value" in capsys.readouterr().err


def test_a_log_scale_of_zero_and_negative_values_is_drawn(tmp_path, drawn, capsys, recwarn):
    path = str(tmp_path / "s.h5")
    save(path, lambda x, y: np.maximum(x, 0) * 5, "-1:1:5", "-1:1:5")
    assert len(plot_2D.plot_2d_contour(path, log=True)) == 4
    assert not np.ma.getmaskarray(heat(drawn["2dheat.pdf"]).get_array()).any()  # zeros are below the scale, not missing
    save(path, lambda x, y: x - 2, "-1:1:5", "-1:1:5")
    assert len(plot_2D.plot_2d_contour(path, log=True)) == 4
    assert "needs values above 0" in capsys.readouterr().err
    assert not [str(w.message) for w in recwarn if "Log scale" in str(w.message)]


# ---------------------------------------------------------------- marks


def test_centre_and_minimum_are_marked_where_they_are(tmp_path, drawn, only):
    only(*FLAT)
    path = str(tmp_path / "s.h5")
    save(path, lambda x, y: 0.25 + (x - 0.5) ** 2 + (y + 0.2) ** 2)
    plot_2D.plot_2d_contour(path)
    for name in FLAT:
        marks = {line.get_label(): line.get_xydata() for line in drawn[f"{name}.pdf"].axes[0].lines}
        assert np.allclose(marks["centre"], [[0, 0]])
        assert np.allclose(marks["minimum, 0.25"], [[0.5, -0.2]])
        assert {"centre", "minimum, 0.25"} <= set(legend_texts(drawn[f"{name}.pdf"]))


def test_the_best_point_of_an_accuracy_is_its_maximum(tmp_path, drawn, only):
    only("2dheat")
    path = str(tmp_path / "s.h5")
    save(path, lambda x, y: 80 - 20 * (x + 1) ** 2 - y**2, name="train_acc")
    plot_2D.plot_2d_contour(path, "train_acc")
    assert "maximum, 80" in legend_texts(drawn["2dheat.pdf"])


# ---------------------------------------------------------------- unfinished files


def coarse(shape, step):
    """Mask of every step-th row and column, counted from the middle."""
    rows, columns = (((np.arange(n) - n // 2) % step == 0) for n in shape)
    return np.logical_and.outer(rows, columns)


@pytest.mark.parametrize("step", [2, 4, 8])
@pytest.mark.parametrize("f", [lambda x, y: 3 * x - 2 * y, lambda x, y: 10 ** (2 * x + y)], ids=["linear", "power"])
def test_a_finished_coarse_level_gives_the_whole_plane(f, step):
    grid = Grid.parse("-1:1:51", "-0.5:0.5:40")
    z = f(*np.meshgrid(grid.x, grid.y))
    values = np.ma.masked_array(np.where(coarse(z.shape, step), z, -1), ~coarse(z.shape, step))
    filled = plot_2D.from_coarse(grid, values)
    assert not np.ma.getmaskarray(filled).any()
    assert np.allclose(filled, z)  # both are exact for linear interpolation, the second in the logarithm


def test_computed_points_of_finer_levels_are_kept_and_used():
    grid = Grid.parse("-1:1:33", "-1:1:33")
    z = bowl(*np.meshgrid(grid.x, grid.y))
    done = coarse(z.shape, 8)
    rough = plot_2D.from_coarse(grid, np.ma.masked_array(np.where(done, z, -1), ~done))
    done |= coarse(z.shape, 4) & (np.arange(33) < 20)[:, None]
    better = plot_2D.from_coarse(grid, np.ma.masked_array(np.where(done, z, -1), ~done))
    assert np.array_equal(np.ma.getdata(better)[done], z[done])
    assert np.abs(better - z).mean() < np.abs(rough - z).mean()


def test_a_nan_of_the_coarse_level_claims_its_surroundings_and_no_more():
    grid = Grid.parse("-1:1:17", "-1:1:17")
    z = bowl(*np.meshgrid(grid.x, grid.y))
    z[8, 8] = np.nan
    z[0, 0] = np.inf
    done = coarse(z.shape, 4)
    filled = plot_2D.from_coarse(grid, np.ma.masked_array(np.where(done, z, -1), ~done))
    assert np.isnan(filled[8, 8]) and np.isinf(filled[0, 0])
    rows, columns = np.nonzero(~np.isfinite(np.ma.getdata(filled)[4:, 4:]))
    assert rows.min() >= 2 and rows.max() <= 6 and columns.min() >= 2 and columns.max() <= 6
    assert np.isfinite(np.ma.getdata(filled)[done & np.isfinite(z)]).all()


def test_an_unfinished_file_says_so_in_the_title_and_marks_only_computed_points(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, bowl, computed=coarse((21, 21), 4), model="resnet56")
    assert len(plot_2D.plot_2d_contour(path)) == 4
    for name in FIGURES:
        figure = drawn[f"{name}.pdf"]
        title = figure.get_suptitle() if name == "3dsurface" else figure.axes[0].get_title()
        assert title == "resnet56, train loss\n5.6 % of the points, interpolated"  # 25 of 441
        assert not hatched(figure)


def test_points_missing_without_a_coarse_level_are_hatched(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, bowl, computed=np.arange(441).reshape(21, 21) < 250)
    assert len(plot_2D.plot_2d_contour(path)) == 4
    for name in FIGURES:
        assert set(hatched(drawn[f"{name}.pdf"])) == {"not computed"}
        assert "not computed" in legend_texts(drawn[f"{name}.pdf"])
    assert drawn["2dheat.pdf"].axes[0].get_title() == "train loss\n56 % of the points"
    assert np.ma.count_masked(heat(drawn["2dheat.pdf"]).get_array()) == 191


def test_one_computed_point_is_enough_and_none_is_an_error(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, bowl, computed=np.arange(441).reshape(21, 21) == 220)
    assert f"{path}_train_loss_2dheat.pdf" in plot_2D.plot_2d_contour(path)
    save(path, bowl, computed=np.zeros((21, 21), bool))
    with pytest.raises(InputError, match="nothing of train_loss is computed yet"):
        plot_2D.plot_2d_contour(path)


# ---------------------------------------------------------------- eigenvalues


def test_eigenvalue_maps_show_the_ratio_and_its_absolute_value(tmp_path, drawn, monkeypatch):
    grid = Grid.parse("-1:1:5", "-1:1:4")
    x, y = np.meshgrid(grid.x, grid.y)
    smallest, largest = -3 * x**2 + 0.5, 10 + y
    done = np.ones(grid.shape, bool)
    path = str(tmp_path / "s.h5")
    write_surface(path, Surface(grid, {"max_eig": largest, "min_eig": smallest}, {"max_eig": done, "min_eig": done}))
    caught = {}
    monkeypatch.setattr(figures, "save", lambda figure, name: caught.update({name: figure}) or name)
    assert plot_2D.main(["-f", path]) is None  # no train_loss in the file: the ratios are what there is to draw
    assert list(caught) == [f"{path}_min_eig_max_eig_{kind}_heat_sns.pdf" for kind in ("abs_ratio", "ratio")]
    absolute, signed = (heat(figure).get_array() for figure in caught.values())
    assert np.allclose(absolute, np.abs(smallest / largest)) and np.allclose(signed, smallest / largest)


# ---------------------------------------------------------------- optimizer paths


def test_a_path_is_drawn_over_the_contours_with_the_variance_on_the_axes(tmp_path, monkeypatch):
    caught = {}
    monkeypatch.setattr(figures, "save", lambda figure, name: caught.update({name: figure}) or name)
    surface, projection = str(tmp_path / "s.h5"), str(tmp_path / "p.h5")
    save(surface, lambda x, y: 1 + 0.1 * (x**2 + y**2), "-6:1:21", "-1:2:21")
    shutil.copy(PATH, projection)
    plot_2D.main(["--surf_file", surface, "--proj_file", projection, "--dir_file", str(PCA)])
    assert list(caught) == [f"{projection}_train_loss_2dcontour_proj.pdf"]
    (figure,) = caught.values()
    ax = figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("1st PC: 89.55 %", "2nd PC: 9.91 %")
    found, _ = h5_util.read_projection(PATH)
    path = np.stack([found["proj_xcoord"], found["proj_ycoord"]], -1)
    lines = {line.get_label(): line for line in ax.lines}
    assert np.array_equal(lines["optimizer path"].get_xydata(), path)
    assert np.array_equal(lines["_start"].get_xydata(), path[:1])
    assert np.array_equal(lines["_end"].get_xydata(), path[-1:])
    assert {"optimizer path", "start", "end"} <= set(legend_texts(figure))
    assert len(contours(figure).levels) >= 3
    assert ax.get_xlim() == (-6, 1)


def test_several_paths_get_colours_and_names_of_their_own(tmp_path, monkeypatch):
    caught = {}
    monkeypatch.setattr(figures, "save", lambda figure, name: caught.update({name: figure}) or name)
    surface = str(tmp_path / "s.h5")
    save(surface, bowl)
    paths = [str(tmp_path / f"run_{name}" / "proj.h5") for name in ("sgd", "adam")]
    for i, path in enumerate(paths):
        (tmp_path / path).parent.mkdir()
        h5_util.write_projection(path, {"proj_xcoord": np.linspace(-0.5, 0, 9), "proj_ycoord": np.full(9, 0.1 * i),
                                        "epoch": 10 * np.arange(9)}, {})
    plot_2D.plot_contour_trajectory(surface, "", paths)
    (figure,) = caught.values()
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["sgd"].get_color() != lines["adam"].get_color()
    assert {"sgd", "adam", "start, epoch 0", "end, epoch 80"} <= set(legend_texts(figure))


def test_a_path_that_leaves_the_surface_is_drawn_to_its_end(tmp_path, drawn, capsys):
    surface, projection = str(tmp_path / "s.h5"), str(tmp_path / "p.h5")
    save(surface, bowl)
    h5_util.write_projection(projection, {"proj_xcoord": np.array([-3.0, 0]), "proj_ycoord": np.array([0.5, 0])}, {})
    plot_2D.plot_contour_trajectory(surface, "", projection)
    low, high = drawn["proj.pdf"].axes[0].get_xlim()
    assert low < -3 and high == 1
    assert "the path leaves the surface" in capsys.readouterr().err


def test_a_path_alone_is_written_beside_its_projection_file(tmp_path):
    shutil.copy(PATH, tmp_path / "p.h5")
    done = run("plot_2D.py", "--proj_file", tmp_path / "p.h5", "--dir_file", PCA)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{tmp_path}/p.h5.pdf"]
    assert (tmp_path / "p.h5.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("x", [[0.0], [1.0, 1.0], [2.0, 2.0, 2.0]])
def test_a_path_without_any_width_is_drawn(x, tmp_path, drawn):
    path = str(tmp_path / "p.h5")
    h5_util.write_projection(path, {"proj_xcoord": np.array(x), "proj_ycoord": np.zeros(len(x))}, {})
    plot_2D.plot_trajectory(path)
    (figure,) = drawn.values()
    low, high = figure.axes[0].get_xlim()
    assert low < x[0] < high


# ---------------------------------------------------------------- comparison


def test_a_comparison_has_one_scale_and_the_flatness_of_each(tmp_path, monkeypatch):
    caught = {}
    monkeypatch.setattr(figures, "save", lambda figure, name: caught.update({name: figure}) or name)
    paths = [str(tmp_path / f"resnet56{name}_weights.h5") for name in ("", "_noshort")]
    surfaces = [save(paths[0], bowl), save(paths[1], lambda x, y: 3 * bowl(x, y) + np.sin(9 * x))]
    plot_2D.main(["--compare", *paths])
    assert list(caught) == [f"{paths[0]}_train_loss_2dcompare.pdf"]
    (figure,) = caught.values()
    panels = figure.axes[:2]
    filled = [[c for c in ax.collections if isinstance(c, QuadContourSet) and c.filled][0] for ax in panels]
    assert np.array_equal(filled[0].levels, filled[1].levels)
    assert (filled[0].norm.vmin, filled[0].norm.vmax) == (filled[1].norm.vmin, filled[1].norm.vmax)
    assert [ax.get_title() for ax in panels] != [panels[0].get_title()] * 2
    for ax, surface in zip(panels, surfaces, strict=True):
        assert ax.get_aspect() == 1
        found = flatness.measures(surface, "train_loss")
        text = ax.get_xlabel()
        assert f"at centre {found['centre']['loss']:.3g}" in text
        assert f"{100 * found['basins'][-1]['area_fraction']:.2g} % of the plane" in text
        assert f"convex {100 * found['convex']['share']:.0f} %" in text


def test_an_unfinished_surface_is_compared_without_flatness_numbers(tmp_path, drawn):
    paths = [str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]
    save(paths[0], bowl)
    save(paths[1], bowl, computed=coarse((21, 21), 4))
    plot_2D.plot_2d_compare(paths, labels=["whole", "part"])
    first, second = drawn["2dcompare.pdf"].axes[:2]
    assert "basin" in first.get_xlabel() and "basin" not in second.get_xlabel()
    assert second.get_title() == "part\n5.6 % of the points, interpolated"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("arguments, reason", [
    ([], "expected --surf_file FILE"),
    (["-f", "missing.h5"], "found nothing there"),
    (["-f", "broken.h5"], "can't be read"),
    (["-f", LINE], "use plot_1D.py"),
    (["-f", "s.h5", "--surf_name", "trian_loss"], "expected one of train_acc, train_loss"),
    (["-f", "s.h5", "--surf_name", "test_loss"], "got 'test_loss'"),
    (["-f", "s.h5", "--vmin", "3", "--vmax", "2"], "expected --vmin below --vmax"),
    (["-f", "s.h5", "--vlevel", "0"], "expected --vlevel above 0"),
    (["-f", "s.h5", "--vlevel", "1e-9"], "take a larger --vlevel"),
    (["-f", "s.h5", "--vmax", "nan"], "expected a finite number for --vmax"),
    (["-f", "s.h5", "--log", "--vmin", "-1"], "expected --vmin above 0"),
    (["-f", "s.h5", "--zlim", "inf"], "expected a finite --zlim"),
    (["-f", "s.h5", "--format", "bmp"], "invalid choice"),
    (["-f", "s.h5", "--output", "x.pdf"], "expected --output only with"),
    (["-f", "s.h5", "--proj_file", "s.h5"], "proj_xcoord"),
    (["-f", "s.h5", "--proj_file", str(PATH), "--dir_file", "s.h5"], "xdirection"),
    (["--compare", "s.h5", "s.h5", "--output", "s.h5"], "to end in .pdf, .png or .svg"),
    (["--compare", "s.h5", "s.h5", "--output", "nowhere/x.pdf"], "can't write nowhere/x.pdf"),
    (["--compare", "s.h5", "s.h5", "--label", "a"], "one label per file"),
    (["--compare", "s.h5", "-f", "s.h5"], "expected --compare without"),
])  # fmt: skip
def test_bad_input_is_an_input_error_and_nothing_is_written(arguments, reason, tmp_path, monkeypatch):
    shutil.copy(GOLDEN / SQUARE, tmp_path / "s.h5")
    shutil.copy(GOLDEN / LINE, tmp_path / LINE)
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF but no more")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        plot_2D.main(arguments)
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_bad_input_on_the_command_line_is_one_line_and_exit_code_2(tmp_path):
    save(tmp_path / "none.h5", bowl, computed=np.zeros((21, 21), bool))
    done = run("plot_2D.py", "-f", tmp_path / "none.h5")
    assert refused(done) and "nothing of train_loss is computed yet" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["none.h5"]


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path, only, monkeypatch):
    only("2dheat")
    path = str(tmp_path / "s.h5")
    save(path, bowl, "-1:1:3", "-1:1:3")

    def no_room(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(h5_util.tempfile, "mkstemp", no_room)
    with pytest.raises(InputError, match="can't write .*Permission denied"):
        plot_2D.plot_2d_contour(path, fmt="png")


def test_the_drawing_of_a_figure_leaves_the_users_settings_alone(tmp_path, only):
    only("2dheat")
    before = dict(matplotlib.rcParams)
    save(tmp_path / "s.h5", bowl, "-1:1:3", "-1:1:3")
    plot_2D.plot_2d_contour(str(tmp_path / "s.h5"), fmt="png")
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
