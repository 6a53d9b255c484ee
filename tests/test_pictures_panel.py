"""What a 2-D figure shows: gaps are filled from finished coarse levels, and the title says so."""

import numpy as np
import pytest

from losslandscape.errors import InputError
from losslandscape.files.grid import Grid
from losslandscape.pictures.panel import from_coarse
from losslandscape.pictures.surfaces import plot_2d_contour
from tests.drawing import KINDS, coarse_points, hatched_areas, heat_mesh, legend_texts, save_surface, uneven_bowl

pytest_plugins = "tests.caught_figures"


@pytest.mark.parametrize("step", [2, 4, 8])
@pytest.mark.parametrize("f", [lambda x, y: 3 * x - 2 * y, lambda x, y: 10 ** (2 * x + y)], ids=["linear", "power"])
def test_a_finished_coarse_level_gives_the_whole_plane(f, step):
    grid = Grid.parse("-1:1:51", "-0.5:0.5:40")
    z = f(*np.meshgrid(grid.x, grid.y))
    values = np.ma.masked_array(np.where(coarse_points(z.shape, step), z, -1), ~coarse_points(z.shape, step))
    filled = from_coarse(grid, values)
    assert not np.ma.getmaskarray(filled).any()
    assert np.allclose(filled, z)  # both are exact for linear interpolation, the second in the logarithm


def test_computed_points_of_finer_levels_are_kept_and_used():
    grid = Grid.parse("-1:1:33", "-1:1:33")
    z = uneven_bowl(*np.meshgrid(grid.x, grid.y))
    done = coarse_points(z.shape, 8)
    rough = from_coarse(grid, np.ma.masked_array(np.where(done, z, -1), ~done))
    done |= coarse_points(z.shape, 4) & (np.arange(33) < 20)[:, None]
    better = from_coarse(grid, np.ma.masked_array(np.where(done, z, -1), ~done))
    assert np.array_equal(np.ma.getdata(better)[done], z[done])
    assert np.abs(better - z).mean() < np.abs(rough - z).mean()


def test_a_nan_of_the_coarse_level_claims_its_surroundings_and_no_more():
    grid = Grid.parse("-1:1:17", "-1:1:17")
    z = uneven_bowl(*np.meshgrid(grid.x, grid.y))
    z[8, 8] = np.nan
    z[0, 0] = np.inf
    done = coarse_points(z.shape, 4)
    filled = from_coarse(grid, np.ma.masked_array(np.where(done, z, -1), ~done))
    assert np.isnan(filled[8, 8]) and np.isinf(filled[0, 0])
    rows, columns = np.nonzero(~np.isfinite(np.ma.getdata(filled)[4:, 4:]))
    assert rows.min() >= 2 and rows.max() <= 6 and columns.min() >= 2 and columns.max() <= 6
    assert np.isfinite(np.ma.getdata(filled)[done & np.isfinite(z)]).all()


def test_an_unfinished_file_says_so_in_the_title_and_marks_only_computed_points(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save_surface(path, uneven_bowl, computed=coarse_points((21, 21), 4), model="resnet56")
    assert len(plot_2d_contour(path)) == 4
    for name in KINDS:
        figure = drawn[f"{name}.pdf"]
        title = figure.get_suptitle() if name == "3dsurface" else figure.axes[0].get_title()
        assert title == "resnet56, train loss\n5.6 % of the points, interpolated"  # 25 of 441
        assert not hatched_areas(figure)


def test_points_missing_without_a_coarse_level_are_hatched(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save_surface(path, uneven_bowl, computed=np.arange(441).reshape(21, 21) < 250)
    assert len(plot_2d_contour(path)) == 4
    for name in KINDS:
        assert set(hatched_areas(drawn[f"{name}.pdf"])) == {"not computed"}
        assert "not computed" in legend_texts(drawn[f"{name}.pdf"])
    assert drawn["2dheat.pdf"].axes[0].get_title() == "train loss\n56 % of the points"
    assert np.ma.count_masked(heat_mesh(drawn["2dheat.pdf"]).get_array()) == 191


def test_one_computed_point_is_enough_and_none_is_an_error(tmp_path, drawn):
    path = str(tmp_path / "s.h5")
    save_surface(path, uneven_bowl, computed=np.arange(441).reshape(21, 21) == 220)
    assert f"{path}_train_loss_2dheat.pdf" in plot_2d_contour(path)
    save_surface(path, uneven_bowl, computed=np.zeros((21, 21), bool))
    with pytest.raises(InputError, match="nothing of train_loss is computed yet"):
        plot_2d_contour(path)
