"""Optimizer paths: all of each path is seen, with its start, end and name."""

import shutil

import numpy as np
import pytest

import plot_2D
from losslandscape.errors import InputError
from losslandscape.files.layouts import read_projection, write_projection
from losslandscape.pictures.animation import frame_title
from losslandscape.pictures.epochs import plot_against_epoch
from losslandscape.pictures.path_tables import read_path_table
from losslandscape.pictures.paths import is_inside, path_box, plot_contour_trajectory, plot_trajectory, widened
from tests.drawing import PCA, PROJECTION, contour_lines, legend_texts, save_surface, uneven_bowl

pytest_plugins = "tests.caught_figures"


def test_a_path_is_drawn_over_the_contours_with_the_variance_on_the_axes(tmp_path, drawn_files):
    surface, projection = str(tmp_path / "s.h5"), str(tmp_path / "p.h5")
    save_surface(surface, lambda x, y: 1 + 0.1 * (x**2 + y**2), "-6:1:21", "-1:2:21")
    shutil.copy(PROJECTION, projection)
    plot_2D.main(["--surf_file", surface, "--proj_file", projection, "--dir_file", str(PCA)])
    assert list(drawn_files) == [f"{projection}_train_loss_2dcontour_proj.pdf"]
    (figure,) = drawn_files.values()
    ax = figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("1st PC: 89.55 %", "2nd PC: 9.91 %")
    projection, _ = read_projection(PROJECTION)
    path = np.stack([projection["proj_xcoord"], projection["proj_ycoord"]], -1)
    lines = {line.get_label(): line for line in ax.lines}
    assert np.array_equal(lines["optimizer path"].get_xydata(), path)
    assert np.array_equal(lines["_start"].get_xydata(), path[:1])
    assert np.array_equal(lines["_end"].get_xydata(), path[-1:])
    assert {"optimizer path", "start", "end"} <= set(legend_texts(figure))
    assert len(contour_lines(figure).levels) >= 3
    assert ax.get_xlim() == (-6, 1)


def test_several_paths_get_colours_and_names_of_their_own(tmp_path, drawn_files):
    surface = str(tmp_path / "s.h5")
    save_surface(surface, uneven_bowl)
    paths = [str(tmp_path / f"run_{name}" / "proj.h5") for name in ("sgd", "adam")]
    for i, path in enumerate(paths):
        (tmp_path / path).parent.mkdir()
        x, y = np.linspace(-0.5, 0, 9), np.full(9, 0.1 * i)
        write_projection(path, {"proj_xcoord": x, "proj_ycoord": y, "epoch": 10 * np.arange(9)}, {})
    plot_contour_trajectory(surface, "", paths)
    (figure,) = drawn_files.values()
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["sgd"].get_color() != lines["adam"].get_color()
    assert {"sgd", "adam", "start, epoch 0", "end, epoch 80"} <= set(legend_texts(figure))


def test_a_path_that_leaves_the_surface_is_drawn_to_its_end(tmp_path, drawn, capsys):
    surface, projection = str(tmp_path / "s.h5"), str(tmp_path / "p.h5")
    save_surface(surface, uneven_bowl)
    write_projection(projection, {"proj_xcoord": np.array([-3.0, 0]), "proj_ycoord": np.array([0.5, 0])}, {})
    plot_contour_trajectory(surface, "", projection)
    low, high = drawn["proj.pdf"].axes[0].get_xlim()
    assert low < -3 and high == 1
    assert "the path leaves the surface" in capsys.readouterr().err


@pytest.mark.parametrize("x", [[0.0], [1.0, 1.0], [2.0, 2.0, 2.0]])
def test_a_path_without_any_width_is_drawn(x, tmp_path, drawn):
    path = str(tmp_path / "p.h5")
    write_projection(path, {"proj_xcoord": np.array(x), "proj_ycoord": np.zeros(len(x))}, {})
    plot_trajectory(path)
    (figure,) = drawn.values()
    low, high = figure.axes[0].get_xlim()
    assert low < x[0] < high


def test_paths_with_different_epochs_name_none(tmp_path, drawn):
    paths = [str(tmp_path / name) for name in ("a.h5", "b.h5")]
    for path, epochs in zip(paths, (np.arange(3), np.arange(5)), strict=True):
        write_projection(path, {"proj_xcoord": 0.1 * epochs, "proj_ycoord": -0.1 * epochs, "epoch": epochs}, {})
    plot_trajectory(paths)
    (figure,) = drawn.values()
    assert {"start", "end"} <= set(legend_texts(figure))


def test_checkpoints_numbered_by_steps_are_called_so_in_every_picture(tmp_path, drawn):
    steps = np.array([0, 200, 400])
    arrays = {"proj_xcoord": 0.1 * steps, "proj_ycoord": -0.1 * steps, "epoch": steps}
    arrays |= {"distance": 0.1 * steps, "distance_to_origin": steps, "relative_distance": np.full(3, 0.1)}
    path = str(tmp_path / "p.h5")
    write_projection(path, arrays, {"unit": "step"})

    plot_trajectory(path)
    plot_against_epoch([path])
    one, other = drawn.values()
    assert {"start, step 0", "end, step 400"} <= set(legend_texts(one))
    assert other.axes[-1].get_xlabel() == "step"
    assert frame_title([read_path_table(path)], 200).startswith("step 200")


@pytest.mark.parametrize("points", [[(0, 0)], [(0, 0), (1, 0)], [(0, 0), (0, -3)], [(-1, 2), (5, 4), (0, 0)]])
def test_a_widened_box_has_room_on_each_side(points, tmp_path):
    path = str(tmp_path / "p.h5")
    x, y = np.array(points, float).T
    write_projection(path, {"proj_xcoord": x, "proj_ycoord": y}, {})
    box = path_box([read_path_table(path)])
    assert box == (x.min(), x.max(), y.min(), y.max())
    left, right, bottom, top = widened(box)
    assert left < x.min() and x.max() < right and bottom < y.min() and y.max() < top
    assert is_inside(box, widened(box)) and not is_inside(widened(box), box)


@pytest.mark.parametrize("x, reason", [([], "one-dimensional"), ([0, np.nan], "finite"), ([np.inf], "finite")])
def test_a_path_without_points_or_with_one_at_infinity_is_refused(x, reason, tmp_path):
    path = str(tmp_path / "p.h5")
    write_projection(path, {"proj_xcoord": np.array(x, float), "proj_ycoord": np.zeros(len(x))}, {})
    with pytest.raises(InputError, match=f"expected .*{reason}.*p.h5"):
        plot_trajectory(path)
