"""Surfaces as meshes and as files of meshes, which are read back with VTK's own readers."""

import numpy as np
import pytest
import pyvista

from losslandscape.errors import InputError
from losslandscape.files.layouts import read_surface
from losslandscape.pictures.lit import refine
from losslandscape.pictures.mesh import (
    MESH_WRITERS,
    ZSCALE,
    box_mesh,
    glb_bytes,
    grid_quads,
    stl_bytes,
    surface_heights,
    surface_mesh,
    vtp_bytes,
)
from tests.conftest import GOLDEN, run
from tests.made_surfaces import bowl, middle, surface_of

LONG = "model_6.t7_weights_xignore=biasbn_xnorm=layer_yignore=biasbn_ynorm=layer.h5_[-1.0,1.0,3]x[-0.5,0.5,5].h5"


def mesh_of(*arguments, **settings):
    return surface_mesh(surface_heights(surface_of(*arguments, **settings)))


def box_of(*arguments, **settings):
    return box_mesh(surface_heights(surface_of(*arguments, **settings)))


def read_back(contents, extension, folder):
    """The bytes of a mesh file, as VTK reads them."""
    path = folder / f"mesh.{extension}"
    path.write_bytes(contents)
    mesh = pyvista.read(path)
    while isinstance(mesh, pyvista.MultiBlock):
        mesh = mesh[0]
    return mesh


# ---------------------------------------------------------------- heights


def test_clip_comes_before_the_logarithm_and_both_before_nothing_else():
    heights = surface_heights(surface_of(lambda x, y: 20 * x**2), zmax=3.0, log=True)
    np.testing.assert_allclose(heights.z[0], np.log(np.minimum(20 * heights.x**2, 3.0) + 0.1))


def test_exporting_leaves_the_surface_as_it_was():
    original = surface_of(bowl, missing=lambda x, y: x > 0.8)
    values_before = original.values["train_loss"].copy()
    heights = surface_heights(original, zmax=1.0, log=True, interp=11)
    heights_before = heights.z.copy()
    refine(box_mesh(heights))
    vtp_bytes(surface_mesh(heights))
    np.testing.assert_array_equal(original.values["train_loss"], values_before)
    np.testing.assert_array_equal(heights.z, heights_before)


def test_infinite_values_are_clipped_by_zmax_before_they_count_as_gaps():
    heights = surface_heights(surface_of(lambda x, y: np.where(x > 0.9, np.inf, x)), zmax=5.0)
    assert (heights.z[:, -1] == 5).all()
    assert grid_quads(heights.z)[1] == 0


def test_values_without_a_logarithm_and_surfaces_without_a_cell_are_refused():
    with pytest.raises(InputError, match="leave --log out"):
        surface_heights(surface_of(lambda x, y: x - 0.1), log=True)
    with pytest.raises(InputError, match="at least 2 points per axis"):
        surface_heights(surface_of(bowl, "0:1:1"))
    empty = surface_heights(surface_of(bowl, missing=lambda x, y: x > -2), log=True)
    for make_mesh in (surface_mesh, box_mesh):
        with pytest.raises(InputError, match="four finite values"):
            make_mesh(empty)


def test_coordinates_that_are_not_finite_are_refused():
    damaged = surface_of(bowl)
    damaged.grid.x[3] = np.nan
    with pytest.raises(InputError, match="finite and increasing coordinates"):
        surface_heights(damaged)


# ---------------------------------------------------------------- resampling


def test_resampling_reproduces_cubic_polynomials():
    def cubic(x, y):
        return 9 + x**3 - 2 * x * y**2 + y**3 + x - y

    original = surface_of(cubic, "-1:1:8", "-1:2:6")
    heights = surface_heights(original, interp=25)
    x, y, z = heights.x, heights.y, heights.z
    assert z.shape == (25, 25)
    assert (x[0], x[-1], y[0], y[-1]) == (-1, 1, -1, 2)
    exact = cubic(*np.meshgrid(x, y))
    values = original.values["train_loss"]
    np.testing.assert_allclose(z, np.clip(exact, values.min(), values.max()), atol=1e-12)


@pytest.mark.parametrize("n, degree", [(2, 1), (3, 2), (4, 3)])
def test_short_axes_are_resampled_with_the_highest_order_they_allow(n, degree):
    original = surface_of(lambda x, y: (2 + x) ** degree + y, f"-1:1:{n}", "-1:1:5")
    heights = surface_heights(original, interp=9)
    np.testing.assert_allclose(heights.z, (2 + heights.x) ** degree + heights.y[:, None], atol=1e-12)


def test_resampling_to_the_same_grid_changes_nothing():
    rough = surface_of(lambda x, y: np.sin(40 * x) + np.cos(31 * y) * 1e3, "-1:1:12", "-1:1:12")
    same = surface_heights(rough, interp=12)
    np.testing.assert_allclose(same.z, rough.values["train_loss"], rtol=1e-9, atol=1e-9)


def test_resampled_values_stay_within_the_range_of_the_data():
    cliff = surface_of(lambda x, y: np.where(x > 0.1, 1e4, 0.01), "-1:1:21", "-1:1:21")
    z = surface_heights(cliff, interp=100).z
    assert z.min() == 0.01 and z.max() == 1e4
    assert np.isfinite(surface_heights(cliff, interp=100, zmax=10.0, log=True).z).all()


def test_resampling_cuts_out_the_cells_that_touch_a_gap_and_no_others():
    def with_middle(value):
        return surface_of(lambda x, y: np.where(middle(x, y), value, 1 + x), "-1:1:9", "-1:1:9")

    heights = surface_heights(with_middle(np.nan), interp=33)
    near = (np.abs(heights.x) < 0.25 - 1e-9) & (np.abs(heights.y[:, None]) < 0.25 - 1e-9)
    np.testing.assert_array_equal(np.isnan(heights.z), near)
    clipped = surface_heights(with_middle(np.inf), interp=33, zmax=3.0)
    np.testing.assert_array_equal(clipped.z == 3, near)


# ---------------------------------------------------------------- meshes


def test_non_square_surface_has_each_value_at_its_own_coordinates():
    surface = read_surface(GOLDEN / LONG)
    mesh = surface_mesh(surface_heights(surface))
    assert mesh.points.shape == (15, 3) and mesh.quads.shape == (8, 4)
    values = surface.values["train_loss"].ravel()
    for number, point in enumerate(mesh.points):
        assert point == pytest.approx([*surface.grid.point(number), values[number]], rel=1e-6)


@pytest.mark.parametrize("nx, ny", [(2, 2), (2, 5), (7, 3), (40, 31)])
def test_quads_tile_the_rectangle_counterclockwise_in_row_major_order(nx, ny, tmp_path):
    mesh = mesh_of(bowl, f"0:3:{nx}", f"-1:4:{ny}")
    count = (nx - 1) * (ny - 1)
    assert mesh.quads.shape == (count, 4)

    corners = mesh.points[mesh.quads]  # (quads, 4, 3)
    sides = np.roll(corners, -1, axis=1) - corners
    area = sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]
    np.testing.assert_allclose(area, 15 / count, rtol=1e-4)  # positive: normals point up

    first_corners = (np.arange(ny - 1)[:, None] * nx + np.arange(nx - 1)).ravel()
    np.testing.assert_array_equal(mesh.quads[:, 0], first_corners)
    averages = read_back(vtp_bytes(mesh), "vtp", tmp_path).cell_data["averaged zvalue"]
    np.testing.assert_allclose(averages, corners[..., 2].mean(1), rtol=1e-6)


@pytest.mark.parametrize("gap", ["uncomputed", np.nan, np.inf, -np.inf, 1e39])
def test_quads_that_touch_a_gap_are_left_out_and_no_vertex_is_nan(gap, tmp_path):
    def hole(x, y):
        return np.isclose(x, 0.5) & np.isclose(y, 0)

    if gap == "uncomputed":
        damaged = surface_of(bowl, missing=hole)
    else:
        damaged = surface_of(lambda x, y: np.where(hole(x, y), gap, bowl(x, y)))
    heights = surface_heights(damaged)
    mesh = surface_mesh(heights)
    assert grid_quads(heights.z)[1] == 4
    assert len(mesh.quads) == 8 * 6 - 4 and len(mesh.points) == 9 * 7 - 1

    file = read_back(vtp_bytes(mesh), "vtp", tmp_path)
    assert np.isfinite(file.points).all() and np.isfinite(file.cell_data["averaged zvalue"]).all()

    def centres(mesh):
        return {tuple(centre) for centre in mesh.points[mesh.quads].mean(1).round(5)}

    assert centres(mesh) < centres(mesh_of(bowl))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_height_is_a_share_of_the_plane_whatever_the_values_are(scale):
    heights = surface_heights(surface_of(lambda x, y: scale * (1 + bowl(x, y)), "-3:3:9", "-1:1:5"))
    mesh = box_mesh(heights, zscale=0.4)
    np.testing.assert_allclose(mesh.points.min(0), [-0.5, -1 / 6, 0], rtol=1e-5)
    np.testing.assert_allclose(mesh.points.max(0), [0.5, 1 / 6, 0.4], rtol=1e-5)
    np.testing.assert_allclose(mesh.values, heights.z.ravel(), rtol=1e-6)
    assert (mesh.normals[:, 2] > 0).all()


def test_refined_surface_is_the_bilinear_surface_through_the_same_points():
    coarse = box_of(lambda x, y: x * y + 1, "-1:1:3", "-1:1:3", missing=lambda x, y: (x > 0.5) & (y > 0.5))
    fine = refine(coarse, cells=40)
    assert len(fine.quads) > 1000
    x, y, z = fine.points.T
    np.testing.assert_allclose(z, (4 * x * y + 1) / 2 * ZSCALE, atol=1e-6)  # x * y is bilinear itself
    assert not ((x > 1e-6) & (y > 1e-6)).any()  # the gap stays a gap
    np.testing.assert_allclose(np.linalg.norm(fine.normals, axis=1), 1, atol=1e-5)


# ---------------------------------------------------------------- files


def test_stl_is_a_closed_solid_of_the_right_volume(tmp_path):
    ramp = box_mesh(surface_heights(surface_of(lambda x, y: x, "-1:1:9", "-1:1:9")), zscale=0.3)
    solid = read_back(stl_bytes(ramp, "viridis"), "stl", tmp_path)
    assert solid.n_open_edges == 0 and solid.is_manifold
    np.testing.assert_allclose(solid.bounds, [-50, 50, -50, 50, 0, 34], atol=1e-3)
    assert solid.volume == pytest.approx(100 * 100 * (4 + 15), rel=1e-4)  # base, and half of the height
    outside = solid.compute_normals(point_normals=False, auto_orient_normals=True)
    np.testing.assert_allclose(outside.cell_data["Normals"], solid.face_normals, atol=1e-5)


def test_stl_of_a_surface_with_a_hole_is_closed_too(tmp_path):
    solid = read_back(stl_bytes(box_of(bowl, missing=middle), "viridis"), "stl", tmp_path)
    assert solid.n_open_edges == 0 and solid.is_manifold


@pytest.mark.parametrize("extension, cells, normals_name", [("obj", 48, "Normals"), ("glb", 96, "NORMAL")])
def test_meshes_for_blender_have_the_points_of_the_surface_with_y_up(tmp_path, extension, cells, normals_name):
    mesh = box_of(bowl)
    file = read_back(MESH_WRITERS[extension](mesh, "viridis"), extension, tmp_path)
    assert file.n_cells == cells
    x, y, z = mesh.points.T
    np.testing.assert_allclose(file.points, np.column_stack([x, z, -y]), atol=1e-6)
    assert (file.point_data[normals_name][:, 1] > 0).all()  # up


def test_glb_has_a_colour_per_vertex_that_rises_with_the_value(tmp_path):
    mesh = box_of(bowl)
    colour = read_back(glb_bytes(mesh, "viridis"), "glb", tmp_path).point_data["COLOR_0"]
    luminance = colour[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert colour.shape[0] == len(mesh.points)
    assert 0 <= colour.min() and colour.max() <= 1
    assert (np.diff(luminance[np.argsort(mesh.values)]) > -1e-6).all()


def test_making_a_mesh_needs_only_numpy_until_a_file_is_made():
    code = ("import sys, losslandscape.pictures.mesh, losslandscape.pictures.lit, losslandscape.pictures.page; "
            "print({'torch', 'mpi4py', 'pyvista', 'plotly', 'matplotlib', 'scipy'} & set(sys.modules))")
    assert run("-c", code).stdout == "set()\n"
