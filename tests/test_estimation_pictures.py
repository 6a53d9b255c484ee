"""Pictures of estimated surfaces say how well they are known."""

import numpy as np
import pytest

import flatness
from losslandscape.estimation.spread import measures_with_errors
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import write_surface
from losslandscape.flatness import measures
from losslandscape.pictures.curves import curves_of, plot_1d_loss_err
from losslandscape.pictures.page import PagePanel, html_page
from losslandscape.pictures.panel import make_panel
from losslandscape.pictures.surfaces import plot_2d_contour
from losslandscape.pictures.words import error_words, is_loss, plain_name, rounded_up


def estimated(*axes, error=0.00987):
    grid = Grid.parse(*axes)
    x = np.broadcast_to(grid.x, grid.shape)
    loss = 1 + x**2
    values = {
        "train_loss": loss, "train_loss_se": error * loss, "train_loss_rise_se": error * loss,
        "train_acc": 90 - 10 * x**2, "train_acc_se": 0.4 + 0 * x, "samples": 512 + 0 * x}
    computed = {name: np.ones(grid.shape, bool) for name in values}
    return Surface(grid, values, computed, provenance={"model": "resnet20"})


PLANE, LINE = ("-1:1:9", "-1:1:7"), ("-1:1:9",)


def test_the_title_says_the_largest_error():
    surface = estimated(*PLANE)
    assert error_words(surface, "train_loss") == "standard error at most 0.99 %"
    assert error_words(surface, "train_acc") == error_words(surface, "train_err") == "standard error at most 0.4 points"
    for name in ("train_loss", "train_err"):
        panel = make_panel(surface, surface.get(name), name, "S.h5")
        assert "standard error at most 0." in panel.title.replace(",\n", ", ")


@pytest.mark.parametrize("name", ["train_loss", "train_acc", "samples"])
def test_an_exact_surface_has_no_error_in_its_title(name):
    assert error_words(estimated(*PLANE, error=0.0), "train_loss") == ""
    plain = Surface(Grid.parse(*PLANE)).with_values([name])
    assert error_words(plain, name) == ""


@pytest.mark.parametrize("value, expected", [(0.987, 0.99), (0.5, 0.5), (1.0, 1.0), (0.01234, 0.013), (0.999, 1.0)])
def test_an_error_is_never_rounded_down(value, expected):
    assert rounded_up(value) == pytest.approx(expected)


def test_errors_have_names_in_words_and_are_no_losses():
    assert plain_name("train_loss_se") == "train loss, standard error"
    assert plain_name("train_acc_se") == "train accuracy, standard error (%)"
    assert not is_loss("train_loss_se") and is_loss("train_loss")


def test_curves_get_a_band_and_no_figures_of_their_errors(tmp_path):
    surface = estimated(*LINE)
    curves = curves_of(surface)
    low, high = curves.band("train_loss")
    np.testing.assert_allclose(high - low, 4 * surface.values["train_loss_se"])
    assert curves.band_words("train_loss") == "two standard errors on either side"
    assert curves.band("train_err") is not None

    write_surface(tmp_path / "line.h5", surface)
    names = [path.rpartition("1d_")[2] for path in plot_1d_loss_err(str(tmp_path / "line.h5"), fmt="svg")]
    assert names == ["loss_acc.svg", "train_loss.svg", "train_err.svg"]
    assert "standard errors on either side" in (tmp_path / "line.h5_1d_train_loss.svg").read_text()


def test_the_map_of_errors_can_be_drawn(tmp_path):
    write_surface(tmp_path / "plane.h5", estimated(*PLANE))
    for name in ("train_loss", "train_loss_se", "train_acc_se", "samples"):
        assert plot_2d_contour(str(tmp_path / "plane.h5"), name, fmt="png")


def test_the_page_has_the_errors_and_its_headline_does_not_count_them():
    page = html_page([PagePanel(estimated(*PLANE))])
    assert "train_loss_se" in page and "resnet20: loss and accuracy" in page


# ---------------------------------------------------------------- flatness


def test_flatness_carries_the_errors_into_its_numbers():
    small, large = (measures_with_errors(estimated("-1:1:21", "-1:1:21", error=e)) for e in (0.001, 0.01))
    for entries in ("sharpness", "curvature"):
        assert small[entries] != large[entries]
    assert 0 < small["sharpness"]["sampling_error"] < large["sharpness"]["sampling_error"]
    bends = small["curvature"]["x"]["sampling_error"], large["curvature"]["x"]["sampling_error"]
    assert bends[1] == pytest.approx(10 * bends[0], rel=0.1)
    assert large["basins"][1]["sampling_error"] > 0


def test_the_error_of_curvature_is_that_of_second_differences():
    """f'' = (f(h) - 2 f(0) + f(-h)) / h^2 or better: errors of 1 % at h = 0.1 are errors of some 1.4 and more."""
    bend = measures_with_errors(estimated("-1:1:21", "-1:1:21", error=0.01))["curvature"]["x"]
    assert 0.7 < bend["sampling_error"] < 6


def test_flatness_of_an_exact_surface_has_no_such_errors():
    surface = estimated("-1:1:21", "-1:1:21", error=0.0)
    assert measures_with_errors(surface) == measures(surface)


def test_the_table_of_flatness_says_plus_or_minus(tmp_path, capsys):
    write_surface(tmp_path / "s.h5", estimated("-1:1:21", "-1:1:21"))
    flatness.main([str(tmp_path / "s.h5")])
    lines = capsys.readouterr().out.splitlines()
    assert sum(" +- " in line for line in lines) >= 5
