"""1-D figures: the curves are those of the file, gaps are seen, limits are the user's."""

import sys

import numpy as np
import pytest

import plot_1D
from losslandscape import repeats
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import read_surface, write_surface
from losslandscape.pictures import style
from losslandscape.pictures.curves import (
    plot_1d_loss_err,
    plot_1d_loss_err_repeat,
    repeat_files,
)
from tests.conftest import GOLDEN

CURVE = "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,7].h5"
BETWEEN = "model_6.t7_model_4.t7_states.h5_[-0.5,1.5,9].h5"
SQUARE = ("model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
          "_[-1.0,1.0,5]x[-1.0,1.0,5].h5")
NAMES = ["_1d_loss_acc", "_1d_train_loss", "_1d_train_err"]


def save(path, x="-1:1:21", computed=None, **curves):
    """Write a 1-D surface; curves are functions of x or arrays."""
    grid = Grid.parse(x)
    values = {name: np.array(f(grid.x) if callable(f) else f, float) for name, f in curves.items()}
    done = np.ones(grid.shape, bool) if computed is None else computed
    write_surface(path, Surface(grid, values, dict.fromkeys(values, done)))
    return grid.x, values


def parabola(x):
    return 0.1 + 3 * x**2


def accuracy(x):
    return 95 * np.exp(-2 * x**2)


@pytest.fixture
def drawn(monkeypatch):
    """{path: Figure}; figures are caught instead of written."""
    caught = {}
    monkeypatch.setattr(style, "save_figure", lambda figure, path: caught.update({path: figure}) or path)
    return caught


def lines(figure):
    """{label: line} over all axes."""
    return {line.get_label(): line for ax in figure.axes for line in ax.lines}


def values_of(line):
    return np.ma.filled(line.get_ydata(), np.nan)


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def spans(figure):
    """{kind: [(left, right)]} of the hatched stretches."""
    stretches = {}
    for areas in figure.axes[0].collections:
        if areas.get_hatch():
            boxes = [path.get_extents() for path in areas.get_paths()]
            stretches[areas.get_label()] = [(box.x0, box.x1) for box in boxes]
    return stretches


# ---------------------------------------------------------------- files and curves


@pytest.mark.parametrize("fmt", style.FORMATS)
def test_drawing_again_gives_the_same_bytes(fmt, tmp_path):
    path = str(tmp_path / "s.h5")
    save(path, train_loss=parabola)
    first = {name: open(name, "rb").read() for name in plot_1d_loss_err(path, fmt=fmt)}
    assert list(first) == [f"{path}{name}.{fmt}" for name in NAMES[:2]]
    assert {name: open(name, "rb").read() for name in plot_1d_loss_err(path, fmt=fmt)} == first


def test_the_curves_are_those_of_the_file(drawn):
    path = str(GOLDEN / CURVE)
    surface = read_surface(path)
    assert plot_1d_loss_err(path) == [f"{path}{name}.pdf" for name in NAMES]
    both, loss, err = drawn.values()
    assert list(lines(both)) == ["train loss", "train accuracy"] == legend_texts(both)
    for figure, label, name in ((both, "train loss", "train_loss"), (both, "train accuracy", "train_acc"),
                                (loss, "train loss", "train_loss")):
        assert np.array_equal(lines(figure)[label].get_xdata(), surface.grid.x)
        assert np.array_equal(values_of(lines(figure)[label]), surface.values[name])
    assert np.array_equal(values_of(lines(err)["train error (%)"]), 100 - surface.values["train_acc"])
    left, right = both.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "accuracy (%)")
    assert right.get_ylim() == (0, 100) and right.yaxis.get_label_position() == "right"
    assert all(legend_texts(figure) for figure in (both, loss, err))


def test_test_curves_are_drawn_dashed_beside_the_train_curves(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    _, values = save(path, train_loss=parabola, train_acc=accuracy, test_loss=lambda x: parabola(x) + 0.5,
                     test_acc=lambda x: accuracy(x) - 5)
    plot_1d_loss_err(path)
    both = drawn[f"{path}_1d_loss_acc.pdf"]
    assert legend_texts(both) == ["train loss", "test loss", "train accuracy", "test accuracy"]
    for label, line in lines(both).items():
        assert line.get_linestyle() == ("--" if label.startswith("test") else "-")
    assert np.array_equal(values_of(lines(both)["test accuracy"]), values["test_acc"])


def test_a_file_of_test_values_alone_is_drawn(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, test_loss=parabola, test_acc=accuracy)
    assert [p.removeprefix(path) for p in plot_1d_loss_err(path)] == [
        "_1d_loss_acc.pdf", "_1d_test_loss.pdf", "_1d_test_err.pdf"]


def test_a_file_without_accuracy_but_with_a_metric_is_drawn_and_the_metric_has_no_percent(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, train_loss=parabola, test_loss=parabola, train_top5_acc=lambda x: 1 - x**2 / 4, train_my_err=parabola,
         train_hinge_loss=parabola, test_f_low=parabola)
    suffixes = {p.removeprefix(path).removesuffix(".pdf") for p in plot_1d_loss_err(path)}
    assert suffixes == {"_1d_loss_acc", "_1d_train_loss", "_1d_train_top5_acc", "_1d_train_my_err",
                        "_1d_train_hinge_loss", "_1d_test_f_low"}
    assert len(drawn[f"{path}_1d_loss_acc.pdf"].axes) == 1  # no empty axis of accuracies
    top5 = drawn[f"{path}_1d_train_top5_acc.pdf"].axes[0]
    assert top5.get_ylabel() == "train top5 acc" and top5.get_ylim()[1] < 2
    assert np.array_equal(values_of(lines(drawn[f"{path}_1d_train_my_err.pdf"])["train my err"]),
                          parabola(np.linspace(-1, 1, 21)))


def test_a_file_of_a_metric_alone_is_drawn(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, test_mae=parabola)
    assert plot_1d_loss_err(path) == [f"{path}_1d_test_mae.pdf"]
    save(path, energy=parabola)  # from landscape.surface with a function of one's own
    assert plot_1d_loss_err(path) == [f"{path}_1d_energy.pdf"]


@pytest.mark.parametrize("model", ["resnet56_noshort", "own/nets.py:make(" + "width=64, " * 12 + ")"])
def test_a_title_fits_into_the_figure_whatever_the_network_is_called(model, tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    grid = Grid.parse("-1:1:41")
    done = np.arange(41) % 8 == 4
    write_surface(path, Surface(grid, {"train_loss": parabola(grid.x)}, {"train_loss": done},
                                provenance={"model": model, "repeats": ["a", "b"]}))
    plot_1d_loss_err(path)
    assert len(drawn) == 2
    for figure in drawn.values():
        title = figure.axes[0].title
        figure.draw_without_rendering()
        box = title.get_window_extent().transformed(figure.transFigure.inverted())
        assert box.x0 >= 0 and box.x1 <= 1 and box.y1 <= 1
        assert model[-20:] in title.get_text() and "12 % of the points" in title.get_text()


@pytest.mark.parametrize("points", [1, 2])
def test_a_line_of_very_few_points_is_drawn_with_dots(points, tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, f"0:1:{points}", train_loss=parabola)
    plot_1d_loss_err(path)
    line = lines(drawn[f"{path}_1d_train_loss.pdf"])["train loss"]
    assert line.get_marker() == "." and len(line.get_xdata()) == points


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize("asked, expected", [
    ({}, (-0.5, 1.5)),
    ({"xmin": -1, "xmax": 1}, (-1, 1)),
    ({"xmin": -1}, (-1, 1.5)),
    ({"xmax": 1}, (-0.5, 1)),
    ({"xmin": 0.25, "xmax": 0.5}, (0.25, 0.5)),
])  # fmt: skip
def test_the_x_axis_is_what_was_asked_for_and_else_the_data(asked, expected, drawn):
    flags = [f"--{name}={value}" for name, value in asked.items()]
    plot_1D.main(["-f", str(GOLDEN / BETWEEN), *flags])
    assert len(drawn) == 3
    assert all(figure.axes[0].get_xlim() == expected for figure in drawn.values())


def test_an_x_axis_beside_the_data_is_reported_and_replaced(drawn, capsys):
    plot_1d_loss_err(str(GOLDEN / BETWEEN), xmin=3, xmax=4)
    assert all(figure.axes[0].get_xlim() == (-0.5, 1.5) for figure in drawn.values())
    assert "no point lies from 3 to 4" in capsys.readouterr().err


@pytest.mark.parametrize("peak, loss_max, log, top", [
    (100, None, False, 5),  # the usual 5
    (100, 5, False, 5),
    (100, 30, False, 30),
    (2, None, False, 2 * 1.05),  # a curve below 5 fills the figure ...
    (2, 5, False, 5),  # ... unless 5 was asked for
    (100, 5, True, 5),
    (2, 50, True, 50),
])  # fmt: skip
def test_the_top_of_the_loss_axis(peak, loss_max, log, top, tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, train_loss=lambda x: 0.01 + (peak - 0.01) * x**2)
    plot_1d_loss_err(path, loss_max=loss_max, log=log)
    for figure in drawn.values():
        assert figure.axes[0].get_ylim()[1] == pytest.approx(top)


def test_a_log_axis_shows_all_of_the_curve(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    _, values = save(path, train_loss=lambda x: 1e-5 * 10 ** (9 * np.abs(x)), train_acc=accuracy)
    assert [p.removeprefix(path) for p in plot_1d_loss_err(path, log=True)] == [
        "_1d_loss_acc_log.pdf", "_1d_train_loss_log.pdf", "_1d_train_err.pdf"]
    for name in ("_1d_loss_acc_log.pdf", "_1d_train_loss_log.pdf"):
        ax = drawn[path + name].axes[0]
        assert ax.get_yscale() == "log"
        assert ax.get_ylim()[0] < values["train_loss"].min() and ax.get_ylim()[1] > values["train_loss"].max()
    assert drawn[f"{path}_1d_train_err.pdf"].axes[0].get_yscale() == "linear"


def test_a_loss_axis_that_would_show_nothing_is_reported_and_replaced(tmp_path, drawn, capsys):
    path = str(tmp_path / "s.h5")
    save(path, train_loss=lambda x: 50 + x)
    plot_1d_loss_err(path, loss_max=2)
    assert drawn[f"{path}_1d_train_loss.pdf"].axes[0].get_ylim()[1] > 51
    assert "no loss is below --loss_max 2" in capsys.readouterr().err


def test_a_loss_of_zero_on_a_log_axis_is_a_linear_axis(tmp_path, drawn, capsys):
    path = str(tmp_path / "s.h5")
    save(path, train_loss=lambda x: 0 * x)
    plot_1d_loss_err(path, log=True)
    assert drawn[f"{path}_1d_train_loss_log.pdf"].axes[0].get_yscale() == "linear"
    assert "needs values above 0" in capsys.readouterr().err


# ---------------------------------------------------------------- gaps


def test_points_without_a_value_are_hatched_and_named(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    loss = parabola(np.linspace(-1, 1, 21))
    loss[:3] = np.nan
    loss[-1] = np.inf
    loss[[9, 11]] = np.nan
    done = np.ones(21, bool)
    done[14:16] = False
    save(path, computed=done, train_loss=loss, train_acc=accuracy)
    plot_1d_loss_err(path)
    for name in NAMES[:2]:
        figure = drawn[f"{path}{name}.pdf"]
        found = spans(figure)
        assert {kind: len(at) for kind, at in found.items()} == {"NaN": 3, "inf": 1, "not computed": 1}
        assert np.allclose(found["NaN"], [(-1, -0.75), (-0.15, -0.05), (0.05, 0.15)])
        assert np.allclose(found["inf"], [(0.95, 1)])
        assert np.allclose(found["not computed"], [(0.35, 0.55)])
        assert {"NaN", "inf", "not computed"} <= set(legend_texts(figure))
        assert figure.axes[0].get_title().endswith("90 % of the points")  # 19 of 21
        line = lines(figure)["train loss"]
        assert np.array_equal(np.isfinite(values_of(line)), np.isfinite(loss) & done)
        assert line.get_markevery() == [10]  # without a neighbour there is no line to see
    assert spans(drawn[f"{path}_1d_train_err.pdf"]).keys() == {"not computed"}


def test_a_curve_of_nan_alone_is_hatched_from_end_to_end(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, train_loss=lambda x: x * np.nan)
    plot_1d_loss_err(path, log=True)
    assert np.allclose(spans(drawn[f"{path}_1d_train_loss_log.pdf"])["NaN"], [(-1, 1)])


# ---------------------------------------------------------------- eigenvalues


def test_the_eigenvalue_ratio_of_the_golden_file_is_drawn(drawn):
    path = str(GOLDEN / "hess_1d.h5")
    surface = read_surface(path)
    assert plot_1d_loss_err(path) == [f"{path}_1d_eig_ratio.pdf", f"{path}_1d_eig_abs_ratio.pdf"]
    ratio = surface.values["min_eig"] / surface.values["max_eig"]
    signed, absolute = (next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
                        for figure in drawn.values())
    assert np.allclose(values_of(signed), ratio) and np.allclose(values_of(absolute), np.abs(ratio))
    assert all(legend_texts(figure) for figure in drawn.values())


# ---------------------------------------------------------------- repeats


def repeat(folder, idx, **kwargs):
    """Write the surface file of --idx as plot_surface.py names it; returns (path, values)."""
    rng = np.random.default_rng(idx)
    path = str(folder / f"m.t7_weights_xnorm=filter{f'_idx={idx}' if idx else ''}.h5_[-1.0,1.0,21].h5")
    curves = {"train_loss": lambda x: parabola(x) * rng.uniform(0.5, 2), "train_acc": lambda x: accuracy(x) - 3 * idx}
    return path, save(path, **{**curves, **kwargs})[1]


@pytest.mark.parametrize("by_file", [False, True])
def test_the_repeats_of_idx_give_median_and_quantile_band(by_file, tmp_path, drawn):
    files = {idx: repeat(tmp_path, idx) for idx in range(6)}
    prefix = files[3][0] if by_file else str(tmp_path / "m.t7_weights_xnorm=filter")
    plot_1D.main(["--prefix", prefix, "--idx_max", "4"])
    assert list(drawn) == [f"{prefix}_1d_loss_err_repeat.pdf"]
    (figure,) = drawn.values()
    losses = np.stack([files[idx][1]["train_loss"] for idx in (1, 2, 3, 4)])
    errors = 100 - np.stack([files[idx][1]["train_acc"] for idx in (1, 2, 3, 4)])
    assert np.allclose(values_of(lines(figure)["train loss"]), np.median(losses, axis=0))
    assert np.allclose(values_of(lines(figure)["train error"]), np.median(errors, axis=0))
    for ax, stack in zip(figure.axes, (losses, errors), strict=True):
        (band,) = ax.collections
        points = {(round(x, 6), round(y, 6)) for x, y in band.get_paths()[0].vertices}
        for quantile in (0.25, 0.75):
            expected = zip(np.linspace(-1, 1, 21), np.quantile(stack, quantile, axis=0), strict=True)
            assert {(round(x, 6), round(y, 6)) for x, y in expected} <= points
    assert figure.axes[0].get_title() == "median of 4 directions"
    assert "25 % to 75 % of the repeats" in legend_texts(figure)


def test_the_first_direction_counts_when_idx_min_is_0(tmp_path):
    for idx in (0, 1, 12):
        repeat(tmp_path, idx)
    prefix = str(tmp_path / "m.t7_weights_xnorm=filter")
    assert list(repeat_files(prefix, 1, 10)) == [1]
    assert list(repeat_files(prefix, 0, 10)) == [0, 1]
    assert list(repeat_files(prefix, 0, 12)) == [0, 1, 12]


def test_a_repeat_that_diverged_is_hatched_and_left_out_of_the_median(tmp_path, drawn):
    good = [repeat(tmp_path, idx)[1]["train_loss"] for idx in (1, 2)]
    bad = parabola(np.linspace(-1, 1, 21))
    bad[:4] = np.nan
    path, _ = repeat(tmp_path, 3, train_loss=bad)
    plot_1D.main(["--prefix", path])
    (figure,) = drawn.values()
    expected = np.concatenate([np.median(good, axis=0)[:4], np.median([*good, bad], axis=0)[4:]])
    assert np.allclose(values_of(lines(figure)["train loss"]), expected)
    assert np.allclose(spans(figure)["NaN"], [(-1, -0.65)])


def test_the_summary_beside_the_repeats_is_none_of_them(tmp_path):
    first, _ = repeat(tmp_path, 0)
    second, _ = repeat(tmp_path, 1)
    repeats.write([first, second])
    assert list(repeat_files(str(tmp_path / "m.t7_weights_xnorm=filter"), 0, 10)) == [0, 1]


@pytest.mark.parametrize("with_accuracy", [True, False])
def test_the_summary_of_repeats_is_drawn_as_median_and_band(with_accuracy, tmp_path, drawn):
    paths = [str(tmp_path / f"{i}.h5") for i in range(3)]
    for i, path in enumerate(paths):
        more = {"train_acc": lambda x, i=i: accuracy(x) - 10 * i} if with_accuracy else {"train_mae": parabola}
        save(path, train_loss=lambda x, i=i: parabola(x) + i, **more)
    summary, _ = repeats.write(paths)
    suffixes = [p.removeprefix(summary).removesuffix(".pdf") for p in plot_1d_loss_err(summary)]
    assert suffixes == ["_1d_loss_acc", "_1d_train_loss", "_1d_train_err" if with_accuracy else "_1d_train_mae"]
    x = np.linspace(-1, 1, 21)
    for suffix, name, middle, half in (("_1d_train_loss", "train loss", parabola(x) + 1, 0.5),
                                       ("_1d_train_err", "train error (%)", 110 - accuracy(x), 5)):
        if suffix in suffixes:
            figure = drawn[f"{summary}{suffix}.pdf"]
            assert np.allclose(values_of(lines(figure)[name]), middle)
            (band,) = [c for c in figure.axes[0].collections if c.get_label() == "_band"]
            ends = band.get_paths()[0].vertices
            assert np.allclose([ends[:, 1].min(), ends[:, 1].max()], [middle.min() - half, middle.max() + half])
            assert "25 % to 75 % of the repeats" in legend_texts(figure)
            assert "median of 3 directions" in figure.axes[0].get_title()
    both = drawn[f"{summary}_1d_loss_acc.pdf"]
    assert [len([c for c in ax.collections if c.get_label() == "_band"]) for ax in both.axes] == [1] * len(both.axes)


def test_repeats_that_do_not_fit_are_refused(tmp_path):
    prefix = str(tmp_path / "m.t7_weights_xnorm=filter")
    with pytest.raises(InputError, match="found none"):
        plot_1d_loss_err_repeat(prefix)
    with pytest.raises(InputError, match="does not exist"):
        plot_1d_loss_err_repeat(str(tmp_path / "nowhere" / "m"))
    repeat(tmp_path, 20)
    with pytest.raises(InputError, match="there are --idx 20"):
        plot_1d_loss_err_repeat(prefix)
    save(f"{prefix}_idx=1.h5_[-2.0,2.0,21].h5", "-2:2:21", train_loss=parabola)
    with pytest.raises(InputError, match="repeats of one grid"):
        plot_1d_loss_err_repeat(prefix, idx_max=20)


# ---------------------------------------------------------------- several surfaces


@pytest.mark.parametrize("apart", [False, True])
def test_several_surfaces_share_one_figure_with_names(apart, tmp_path, drawn):
    paths = []
    for batch in (128, 8192):
        folder = tmp_path / f"vgg9_sgd_bs={batch}_wd=0"
        folder.mkdir()
        paths.append(str(folder / "model.h5_[-1.0,1.0,21].h5"))
        save(paths[-1], train_loss=lambda x, b=batch: parabola(x) * b / 128, train_acc=accuracy, test_loss=parabola,
             test_acc=accuracy)
    plot_1D.main(["-f", paths[0], "-f", paths[1]] if apart else ["--surf_file", *paths])
    assert list(drawn) == [f"{paths[0]}_1d_loss_err_compare.pdf"]
    (figure,) = drawn.values()
    assert legend_texts(figure) == ["bs=128", "bs=8192", "train", "test"]
    above, below = figure.axes
    assert (above.get_ylabel(), below.get_ylabel()) == ("loss", "error (%)")
    for path, name in zip(paths, ("bs=128", "bs=8192"), strict=True):
        surface = read_surface(path)
        curves = {line.get_label(): values_of(line) for line in above.lines}
        assert np.array_equal(curves[f"{name}, train"], surface.values["train_loss"])
        assert np.array_equal(curves[f"{name}, test"], surface.values["test_loss"])
        errors = {line.get_label(): values_of(line) for line in below.lines}
        assert np.array_equal(errors[f"{name}, train"], 100 - surface.values["train_acc"])


def test_a_missing_package_is_named_with_its_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        plot_1d_loss_err(str(GOLDEN / CURVE))


# ---------------------------------------------------------------- losses below 0


@pytest.mark.parametrize("low, high", [(-5, -1), (-5, 3), (-1e4, 1e4), (-2.5, -2.5), (0, 0)])
def test_an_axis_of_losses_below_0_holds_the_curve_and_ends_near_it(low, high, tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, train_loss=lambda x: low + (high - low) * np.abs(x))
    plot_1d_loss_err(path)
    for figure in drawn.values():
        bottom, top = figure.axes[0].get_ylim()
        assert bottom < low and high < top
        assert top - bottom <= 1.2 * (high - low) or low == high


def test_the_top_of_an_axis_of_losses_below_0_may_be_below_0_itself(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save(path, train_loss=lambda x: -5 + 4 * np.abs(x))
    plot_1d_loss_err(path, loss_max=-2)
    for figure in drawn.values():
        bottom, top = figure.axes[0].get_ylim()
        assert bottom < -5 and top == -2


def test_losses_without_a_logarithm_are_told(tmp_path, drawn, capsys):
    path = str(tmp_path / "s.h5")
    _, values = save(path, train_loss=lambda x: x + 0.01)
    plot_1d_loss_err(path, log=True)
    losses = values["train_loss"]
    expected = f"{(losses <= 0).sum()} of {len(losses)} values are 0 or less and have no logarithm"
    assert expected in capsys.readouterr().err
