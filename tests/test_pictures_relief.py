"""The 3-D figure: it shows the surface, cut where it says, with numbers that can be read."""

from types import SimpleNamespace

import numpy as np
import pytest
from mpl_toolkits.mplot3d import Axes3D

from losslandscape.pictures.relief import height_axis, refined, usual_top
from losslandscape.pictures.scales import Scale
from losslandscape.pictures.surfaces import plot_2d_contour
from tests.drawing import save_surface, uneven_bowl

pytest_plugins = "tests.caught_figures"


@pytest.mark.parametrize("log", [False, True])
def test_the_3d_figure_has_the_surface_in_it(log, tmp_path, drawn, only, monkeypatch):
    coordinates, plot_surface = [], Axes3D.plot_surface
    monkeypatch.setattr(Axes3D, "plot_surface", lambda *a, **k: coordinates.extend(a[1:]) or plot_surface(*a, **k))
    only("3dsurface")
    path = str(tmp_path / "s.h5")
    surface = save_surface(path, uneven_bowl)
    plot_2d_contour(path, zlim=3, log=log)
    ax = drawn["3dsurface.pdf"].axes[0]
    (mesh,) = [c for c in ax.collections if c.get_label() == "surface"]
    assert len(mesh.get_facecolor()) > 400 and np.ptp(mesh.get_facecolor()[:, :3], axis=0).max() > 0.3
    x, y, z = (a.ravel() for a in coordinates)
    top = np.log10(3) if log else 3
    assert z.max() == pytest.approx(top) and ax.get_zlim()[1] == pytest.approx(top)
    expected = np.minimum(surface.values["train_loss"], 3)
    for row, column in ((0, 0), (10, 10), (12, 5), (20, 3)):
        point = np.isclose(x, surface.grid.x[column]) & np.isclose(y, surface.grid.y[row])
        assert point.any()
        assert np.allclose(10 ** z[point] if log else z[point], expected[row, column])


@pytest.mark.parametrize("low, high, name, log", [
    (7, 6600, "max_eig", False), (0.05, 3, "train_loss", True), (0.1, 90, "train_loss", False),
    (30000, 48000, "train_mae", False), (-3e-7, 2e-6, "min_eig", False), (1e-9, 1e9, "train_loss", True),
])  # fmt: skip
def test_numbers_of_the_3d_axis_touch_neither_the_axis_nor_its_label(low, high, name, log, tmp_path, drawn, only):
    only("3dsurface")
    path = str(tmp_path / "s.h5")


    def values(x, y):
        if low > 0:
            return low * (high / low) ** ((x**2 + y**2) / 2)
        return low + (high - low) * x**2

    save_surface(path, values, name=name)
    plot_2d_contour(path, name, log=log)
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
        save_surface(path, lambda x, y: 10.0 ** (4 * x**2), name=name)
        plot_2d_contour(path, name)
        assert drawn["3dsurface.pdf"].axes[0].get_zlim()[1] == pytest.approx(top)


@pytest.mark.parametrize("shape", [(5, 3), (51, 51), (301, 7)])
def test_refining_keeps_the_points_and_is_linear_between_them(shape):
    y, x = (np.sort(np.random.default_rng(n).normal(size=n)) for n in shape)
    z = 3 * x[None] - 2 * y[:, None] + 1
    fine_x, fine_y, fine_z = refined(x, y, z)
    assert np.allclose(fine_z, 3 * fine_x[None] - 2 * fine_y[:, None] + 1)
    assert (fine_x[0], fine_x[-1], fine_y[0], fine_y[-1]) == (x[0], x[-1], y[0], y[-1])
    assert set(x) <= set(fine_x) and len(fine_x) <= 151 and len(fine_y) <= 151


@pytest.mark.parametrize("low, high, zlim, log, ends, is_cut", [
    (0.2, 50, 10, False, (0, 10), True),
    (0.2, 50, None, False, (0, 50), False),
    (0.2, 5, None, False, (0, 5), False),
    (4, 5, None, False, (4, 5), False),  # all of it would be flat above 0
    (0.2, 50, 20, False, (0, 20), True),
    (0.2, 50, 100, False, (0, 100), False),
    (20, 50, 10, False, (20, 50), False),  # nothing is below the user's top
    (-1, 3, 100, True, (-1, 2), True),
    (-1, 3, -5, True, (-1, 3), False),
    (3, 3, None, False, (3, 4), False),
])  # fmt: skip
def test_the_height_axis_ends_where_asked_and_shows_something(low, high, zlim, log, ends, is_cut):
    axis = height_axis("train_loss", low, high, zlim, log)
    assert (axis.bottom, axis.top) == pytest.approx(ends) and axis.is_cut == is_cut


@pytest.mark.parametrize("values, name, top", [
    (np.linspace(0.2, 50, 100), "train_loss", 10),
    (np.linspace(0.2, 5, 100), "train_loss", None),
    (np.linspace(20, 50, 100), "train_loss", None),  # nothing is below 10
    (np.append(np.linspace(20, 50, 100), 0.1), "train_loss", None),  # almost nothing is
    (np.linspace(-3, 50, 100), "train_loss", 25),  # of the scale
    (np.linspace(0.2, 50, 100), "train_err", None),
    (np.full(100, -3.0), "train_loss", None),
])  # fmt: skip
def test_the_usual_top_of_the_height_axis_leaves_something_to_see(values, name, top):
    panel = SimpleNamespace(name=name, finite=values)
    assert usual_top(panel, Scale(np.array([]), -3, 25, log=False)) == top
