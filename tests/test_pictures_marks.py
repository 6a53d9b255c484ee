"""Marks on 2-D figures: missing values are seen and named, points lie where they are."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from losslandscape.pictures.surfaces import plot_2d_contour
from tests.drawing import (
    FLAT_KINDS,
    KINDS,
    artists_of,
    bowl_with_gaps,
    hatched_areas,
    heat_mesh,
    legend_texts,
    save_surface,
)

pytest_plugins = "tests.caught_figures"


@pytest.mark.parametrize("name", KINDS)
def test_nan_and_inf_are_hatched_and_named(name, tmp_path, drawn, only):
    only(name)
    path = str(tmp_path / "s.h5")
    surface = save_surface(path, bowl_with_gaps)
    plot_2d_contour(path)
    figure = drawn[f"{name}.pdf"]
    hatched = hatched_areas(figure)
    assert set(hatched) == {"NaN", "inf"}
    assert {"NaN", "inf"} <= set(legend_texts(figure))
    if name == "3dsurface":
        figure.draw_without_rendering()
        assert all(len(c.get_paths()) for c in hatched.values())
        (lit,) = [c for c in artists_of(figure, PolyCollection) if c.get_label() == "surface"]
        assert len(lit.get_paths()) == len(lit.get_facecolor()) > 10000  # each quad its own colour
        return
    x, y, z = surface.grid.x, surface.grid.y, surface.values["train_loss"]
    for kind, test in (("NaN", np.isnan), ("inf", np.isinf)):
        areas = hatched[kind].get_paths()
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
    surface = save_surface(path, bowl_with_gaps)
    plot_2d_contour(path)
    shown = heat_mesh(drawn["2dheat.pdf"]).get_array()
    finite = np.isfinite(surface.values["train_loss"])
    assert np.array_equal(np.ma.getmaskarray(shown), ~finite)
    assert np.array_equal(shown[finite], surface.values["train_loss"][finite])


def test_a_surface_of_nan_alone_is_a_hatched_heat_map(tmp_path, drawn, capsys):
    path = str(tmp_path / "s.h5")
    save_surface(path, lambda x, y: x * np.nan)
    assert len(plot_2d_contour(path)) == 1
    assert set(hatched_areas(drawn["2dheat.pdf"])) == {"NaN"}
    assert "no value of train_loss is finite" in capsys.readouterr().err


def test_centre_and_minimum_are_marked_where_they_are(tmp_path, drawn, only):
    only(*FLAT_KINDS)
    path = str(tmp_path / "s.h5")
    save_surface(path, lambda x, y: 0.25 + (x - 0.5) ** 2 + (y + 0.2) ** 2)
    plot_2d_contour(path)
    for name in FLAT_KINDS:
        marks = {line.get_label(): line.get_xydata() for line in drawn[f"{name}.pdf"].axes[0].lines}
        assert np.allclose(marks["centre"], [[0, 0]])
        assert np.allclose(marks["minimum, 0.25"], [[0.5, -0.2]])
        assert {"centre", "minimum, 0.25"} <= set(legend_texts(drawn[f"{name}.pdf"]))


def test_the_best_point_of_an_accuracy_is_its_maximum(tmp_path, drawn, only):
    only("2dheat")
    path = str(tmp_path / "s.h5")
    save_surface(path, lambda x, y: 80 - 20 * (x + 1) ** 2 - y**2, name="train_acc")
    plot_2d_contour(path, "train_acc")
    assert "maximum, 80" in legend_texts(drawn["2dheat.pdf"])
