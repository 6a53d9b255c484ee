"""Surfaces as ParaView files, pictures and meshes; files are read back with VTK's and Pillow's own readers."""

import io
import math
import os
import shutil

import numpy as np
import pytest
import pyvista
from PIL import Image

import h52vtp
from losslandscape.errors import InputError
from losslandscape.files.layouts import Grid, Surface, read_surface, write_surface
from tests.conftest import GOLDEN, run

RANDOM = "model_6.t7_weights_xignore=biasbn_xnorm=filter"
SQUARE = f"{RANDOM}_yignore=biasbn_ynorm=filter.h5_[-1.0,1.0,5]x[-1.0,1.0,5].h5"
LONG = "model_6.t7_weights_xignore=biasbn_xnorm=layer_yignore=biasbn_ynorm=layer.h5_[-1.0,1.0,3]x[-0.5,0.5,5].h5"
CURVE = f"{RANDOM}.h5_[-1.0,1.0,7].h5"


def surface(f, x="-1:1:9", y="-1:1:7", missing=None):
    grid = Grid.parse(x, y)
    xx, yy = np.meshgrid(grid.x, grid.y)
    values = np.broadcast_to(np.asarray(f(xx, yy), float), grid.shape).copy()
    computed = np.ones(grid.shape, bool) if missing is None else ~missing(xx, yy)
    values[~computed] = -1
    return Surface(grid, {"train_loss": values}, {"train_loss": computed})


def bowl(x, y):
    return 0.2 + x**2 + 2 * y**2


def command(*args, **environment):
    return run("h52vtp.py", *args, env=environment or None)


def corners(mesh):
    return mesh.faces.reshape(-1, 5)[:, 1:]


# ---------------------------------------------------------------- the ParaView file


@pytest.mark.parametrize("flags, suffix", [((), ""), (("--zmax", "10", "--log"), "_zmax=10.0_log")])
def test_paraview_files_are_those_of_the_original(tmp_path, flags, suffix):
    shutil.copy(GOLDEN / SQUARE, tmp_path)
    name = f"{SQUARE}_train_loss{suffix}.vtp"
    result = command("--surf_file", tmp_path / SQUARE, "--surf_name", "train_loss", *flags)
    assert result.returncode == 0 and result.stdout == f"{tmp_path / name}\n"
    assert sorted(os.listdir(tmp_path)) == sorted([SQUARE, name])
    ours, golden = pyvista.read(tmp_path / name), pyvista.read(GOLDEN / name)
    np.testing.assert_allclose(ours.points, golden.points, rtol=1e-6)
    np.testing.assert_array_equal(ours.faces, golden.faces)
    np.testing.assert_allclose(ours.point_data["zvalue"], golden.point_data["zvalue"], rtol=1e-6)
    np.testing.assert_allclose(ours.cell_data["averaged zvalue"], golden.cell_data["averaged zvalue"], rtol=1e-6)


@pytest.mark.parametrize("name", ["test_loss", "train_mae", "max_eig", "train_loss_iqr"])
def test_file_without_train_loss_is_written_with_what_it_has(tmp_path, name):
    bowls = surface(bowl)
    values, computed = bowls.values["train_loss"], bowls.computed["train_loss"]
    write_surface(tmp_path / "s.h5", Surface(bowls.grid, {name: values}, {name: computed}))
    h52vtp.main(["-f", str(tmp_path / "s.h5")])
    mesh = pyvista.read(tmp_path / f"s.h5_{name}.vtp")
    np.testing.assert_allclose(mesh.point_data["zvalue"], values.ravel(), rtol=1e-6)


def test_non_square_surface_has_each_value_at_its_own_coordinates():
    found = read_surface(GOLDEN / LONG)
    x, y, z = h52vtp.heights(found)
    mesh = h52vtp.polydata(x, y, z)
    assert mesh.n_points == 15 and mesh.n_cells == 8
    for number, point in enumerate(mesh.points):
        assert point == pytest.approx([*found.grid.point(number), found.values["train_loss"].ravel()[number]], rel=1e-6)


@pytest.mark.parametrize("nx, ny", [(2, 2), (2, 5), (7, 3), (40, 31)])
def test_quads_tile_the_rectangle_counterclockwise_in_row_major_order(nx, ny):
    mesh = h52vtp.polydata(*h52vtp.heights(surface(bowl, f"0:3:{nx}", f"-1:4:{ny}")))
    assert mesh.n_cells == (nx - 1) * (ny - 1)
    quads = mesh.points[corners(mesh)]  # (quads, 4, 3)
    sides = np.roll(quads, -1, axis=1) - quads
    area = sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]
    np.testing.assert_allclose(area, 15 / mesh.n_cells, rtol=1e-4)  # positive: normals point up
    np.testing.assert_array_equal(corners(mesh)[:, 0], [j * nx + i for j in range(ny - 1) for i in range(nx - 1)])
    np.testing.assert_allclose(mesh.cell_data["averaged zvalue"], quads[..., 2].mean(1), rtol=1e-6)


def test_clip_comes_before_the_logarithm_and_both_before_nothing_else():
    x, y, z = h52vtp.heights(surface(lambda x, y: 20 * x**2), zmax=3.0, log=True)
    np.testing.assert_allclose(z[0], np.log(np.minimum(20 * x**2, 3.0) + 0.1))


def test_exporting_leaves_the_surface_as_it_was():
    original = surface(bowl, missing=lambda x, y: x > 0.8)
    before = original.values["train_loss"].copy()
    x, y, z = h52vtp.heights(original, zmax=1.0, log=True, interp=11)
    kept = z.copy()
    h52vtp.refine(h52vtp.shape(x, y, z))
    h52vtp.polydata(x, y, z)
    np.testing.assert_array_equal(original.values["train_loss"], before)
    np.testing.assert_array_equal(z, kept)


# ---------------------------------------------------------------- gaps


@pytest.mark.parametrize("gap", ["uncomputed", np.nan, np.inf, -np.inf, 1e39])
def test_quads_that_touch_a_gap_are_left_out_and_no_vertex_is_nan(gap):
    def hole(x, y):
        return np.isclose(x, 0.5) & np.isclose(y, 0)

    if gap == "uncomputed":
        damaged = surface(bowl, missing=hole)
    else:
        damaged = surface(lambda x, y: np.where(hole(x, y), gap, bowl(x, y)))
    x, y, z = h52vtp.heights(damaged)
    mesh = h52vtp.polydata(x, y, z)
    assert h52vtp.quads(z)[1] == 4 and mesh.n_cells == 8 * 6 - 4 and mesh.n_points == 9 * 7 - 1
    assert np.isfinite(mesh.points).all() and np.isfinite(mesh.cell_data["averaged zvalue"]).all()
    whole = h52vtp.polydata(*h52vtp.heights(surface(bowl)))
    at = {tuple(point) for point in whole.points[corners(whole)].mean(1).round(5)}
    assert {tuple(point) for point in mesh.points[corners(mesh)].mean(1).round(5)} < at


def test_infinite_values_are_clipped_by_zmax_before_they_count_as_gaps():
    x, y, z = h52vtp.heights(surface(lambda x, y: np.where(x > 0.9, np.inf, x)), zmax=5.0)
    assert (z[:, -1] == 5).all() and h52vtp.quads(z)[1] == 0


def test_command_says_how_many_quads_are_missing(tmp_path):
    write_surface(tmp_path / "s.h5", surface(bowl, missing=lambda x, y: (x < -0.9) & (y < -0.9)))
    result = command("-f", tmp_path / "s.h5")
    assert result.returncode == 0 and "1 of 48 quads" in result.stderr and "1 points" in result.stderr
    assert pyvista.read(tmp_path / "s.h5_train_loss.vtp").n_cells == 47


# ---------------------------------------------------------------- resampling


def test_resampling_reproduces_cubic_polynomials():
    def cubic(x, y):
        return 9 + x**3 - 2 * x * y**2 + y**3 + x - y

    found = surface(cubic, "-1:1:8", "-1:2:6")
    x, y, z = h52vtp.heights(found, interp=25)
    assert z.shape == (25, 25) and (x[0], x[-1], y[0], y[-1]) == (-1, 1, -1, 2)
    exact = cubic(*np.meshgrid(x, y))
    values = found.values["train_loss"]
    np.testing.assert_allclose(z, np.clip(exact, values.min(), values.max()), atol=1e-12)


@pytest.mark.parametrize("n, degree", [(2, 1), (3, 2), (4, 3)])
def test_short_axes_are_resampled_with_the_highest_order_they_allow(n, degree):
    found = surface(lambda x, y: (2 + x) ** degree + y, f"-1:1:{n}", "-1:1:5")
    x, y, z = h52vtp.heights(found, interp=9)
    np.testing.assert_allclose(z, (2 + x) ** degree + y[:, None], atol=1e-12)


def test_resampling_to_the_same_grid_changes_nothing():
    rough = surface(lambda x, y: np.sin(40 * x) + np.cos(31 * y) * 1e3, "-1:1:12", "-1:1:12")
    np.testing.assert_allclose(h52vtp.heights(rough, interp=12)[2], rough.values["train_loss"], rtol=1e-9, atol=1e-9)


def test_resampled_values_stay_within_the_range_of_the_data():
    cliff = surface(lambda x, y: np.where(x > 0.1, 1e4, 0.01), "-1:1:21", "-1:1:21")
    z = h52vtp.heights(cliff, interp=100)[2]
    assert z.min() == 0.01 and z.max() == 1e4
    assert np.isfinite(h52vtp.heights(cliff, interp=100, zmax=10.0, log=True)[2]).all()


def test_resampling_cuts_out_the_cells_that_touch_a_gap_and_no_others():
    damaged = surface(lambda x, y: np.where(np.isclose(x, 0) & np.isclose(y, 0), np.nan, 1 + x), "-1:1:9", "-1:1:9")
    x, y, z = h52vtp.heights(damaged, interp=33)
    near = (np.abs(x) < 0.25 - 1e-9) & (np.abs(y[:, None]) < 0.25 - 1e-9)
    np.testing.assert_array_equal(np.isnan(z), near)
    high = surface(lambda x, y: np.where(np.isclose(x, 0) & np.isclose(y, 0), np.inf, 1 + x), "-1:1:9", "-1:1:9")
    np.testing.assert_array_equal(h52vtp.heights(high, interp=33, zmax=3.0)[2] == 3, near)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("flags, words", [
    ((CURVE,), "2-D surface"),
    ((SQUARE, "--surf_name", "bogus"), "train_loss"),
    ((SQUARE, "--zmax", "0"), "--zmax"),
    ((SQUARE, "--zmax", "nan"), "--zmax"),
    ((SQUARE, "--interp", "1"), "--interp"),
    ((SQUARE, "--size", "0x5", "--png"), "WIDTHxHEIGHT"),
    ((SQUARE, "--view", "sideways", "--png"), "AZIMUTH"),
    ((SQUARE, "--zscale", "0", "--png"), "above 0"),
    ((SQUARE, "--cmap", "bogus", "--png"), "colour map"),
    ((SQUARE, "--orbit", "film.avi"), ".gif"),
    ((SQUARE, "--orbit", "nowhere/film.gif"), "folder"),
    ((SQUARE, "--export", "ply"), "obj"),
    (("nothing.h5",), "nothing.h5"),
])
def test_bad_input_is_one_line_and_leaves_no_file(tmp_path, flags, words):
    for name in (CURVE, SQUARE):
        shutil.copy(GOLDEN / name, tmp_path)
    before = sorted(os.listdir(tmp_path))
    result = command("-f", tmp_path / flags[0], *flags[1:])
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and words in result.stderr
    assert sorted(os.listdir(tmp_path)) == before


def test_values_without_a_logarithm_and_surfaces_without_a_cell_are_refused():
    with pytest.raises(InputError, match="leave --log out"):
        h52vtp.heights(surface(lambda x, y: x - 0.1), log=True)
    with pytest.raises(InputError, match="four finite values"):
        h52vtp.polydata(*h52vtp.heights(surface(bowl, missing=lambda x, y: x > -2), log=True))
    with pytest.raises(InputError, match="at least 2 points per axis"):
        h52vtp.heights(surface(bowl, "0:1:1"))


@pytest.mark.parametrize("module, flags, words", [
    ("pyvista", (), "pip install pyvista"),
    ("imageio_ffmpeg", ("--orbit", "film.mp4"), "pip install imageio-ffmpeg"),
])
def test_missing_package_is_named_in_one_line(tmp_path, module, flags, words):
    (tmp_path / f"{module}.py").write_text("raise ImportError('not installed')")
    shutil.copy(GOLDEN / SQUARE, tmp_path)
    result = command("-f", tmp_path / SQUARE, *flags, PYTHONPATH=str(tmp_path))
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and words in result.stderr
    assert not list(tmp_path.glob("*.vtp"))


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("view", [*h52vtp.VIEWS.values(), (17.0, -35.0)])
@pytest.mark.parametrize("aspect", [0.6, 1.0, 2.5])
def test_camera_holds_every_point_and_touches_the_margin_on_two_opposite_sides(view, aspect):
    points = np.random.default_rng(0).normal(size=(200, 3)) * [1, 0.7, 0.3]
    right, up, forward = h52vtp.camera_axes(*view)
    np.testing.assert_allclose(np.array([right, up, forward]) @ np.array([right, up, forward]).T, np.eye(3), atol=1e-12)
    relative = points - h52vtp.camera_position(points, (right, up, forward), aspect)
    edge = math.tan(math.radians(h52vtp.VIEW_ANGLE / 2)) * (1 - 2 * h52vtp.MARGIN)
    across = relative @ right / (relative @ forward) / (edge * aspect)
    upward = relative @ up / (relative @ forward) / edge
    assert max(abs(across).max(), abs(upward).max()) <= 1 + 1e-9
    full = [(s.min(), s.max()) for s in (across, upward) if s.min() < -1 + 1e-9 and s.max() > 1 - 1e-9]
    assert full


def drawn_box(image):
    """(left, top, right, bottom) of what is not white, relative to the picture."""
    content = (np.asarray(image.convert("RGB")) < 250).any(2)
    rows, columns = np.flatnonzero(content.any(1)), np.flatnonzero(content.any(0))
    h, w = content.shape
    return columns[0] / w, rows[0] / h, 1 - (columns[-1] + 1) / w, 1 - (rows[-1] + 1) / h


@pytest.fixture(scope="session")
def drawing():
    """A machine without libEGL and libOSMesa can compute and export, but not draw."""
    try:
        h52vtp.require_rendering()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, drawing):
    """One run of the command that draws, films and exports, with a small picture."""
    folder = tmp_path_factory.mktemp("pictures")
    found = surface(lambda x, y: 0.01 + 400 * (x**2 + y**2) ** 2, "-1:1:21", "-1:1:21")
    write_surface(folder / "s.h5", found)
    result = command("-f", folder / "s.h5", "--zmax", 100, "--log", "--png", "--size", "200x150", "--export", "stl",
                     "--orbit", folder / "film.gif", DISPLAY="")
    assert result.returncode == 0, result.stderr
    stem = folder / "s.h5_train_loss_zmax=100.0_log"
    assert result.stdout.split() == [f"{stem}.vtp", f"{stem}.stl", f"{stem}.png", str(folder / "film.gif")]
    assert result.stderr == ""
    return folder


def test_picture_is_framed_coloured_and_lit_on_white(pictures):
    image = Image.open(pictures / "s.h5_train_loss_zmax=100.0_log.png").convert("RGB")
    assert image.size == (200, 150)
    left, top, right, bottom = drawn_box(image)
    assert min(left, right) > 0.01 and min(top, bottom) > 0.01
    assert max(left, right) < 0.06 or max(top, bottom) < 0.06
    assert abs(left - right) < 0.02 or abs(top - bottom) < 0.02
    pixels = np.asarray(image).reshape(-1, 3)
    assert (pixels[0] == 255).all()  # the background
    assert len(np.unique(pixels, axis=0)) > 1000  # smooth shading, no few flat colours
    yellow = (pixels[:, 0] > 150) & (pixels[:, 1] > 150) & (pixels[:, 2] < 90)  # the clipped plateau
    blue = (pixels[:, 2] > pixels[:, 0] + 20) & (pixels[:, 2] > pixels[:, 1])  # the valley
    assert yellow.mean() > 0.1 and blue.mean() > 0.01


def test_turntable_is_an_endless_gif_whose_frames_differ_and_stay_in_the_frame(pictures):
    film = Image.open(pictures / "film.gif")
    assert film.n_frames == h52vtp.FRAMES and film.size == (200, 150) and film.info["loop"] == 0
    frames = []
    for i in range(0, film.n_frames, 6):
        film.seek(i)
        assert min(drawn_box(film.convert("RGB"))) > 0
        frames.append(np.asarray(film.convert("L"), float))
    assert all(np.abs(a - b).mean() > 0.5 for a, b in zip(frames, frames[1:], strict=False))


def test_picture_without_a_size_fits_its_content_on_all_sides():
    mesh = h52vtp.shape(*h52vtp.heights(surface(bowl, "0:3:15", "-0.5:0.5:9")))
    points = np.asarray(mesh.points, float)
    basis = h52vtp.camera_axes(*h52vtp.VIEWS["default"])
    aspect = h52vtp.content_aspect(points, basis)
    relative = points - h52vtp.camera_position(points, basis, aspect)
    spans = [np.ptp(relative @ axis / (relative @ basis[2])) for axis in basis[:2]]
    assert spans[0] / spans[1] == pytest.approx(aspect, rel=1e-3) and aspect > 1.5


def test_transparent_picture_has_a_clear_background_and_an_opaque_surface(drawing):
    mesh = h52vtp.shape(*h52vtp.heights(surface(bowl)))
    image = np.asarray(h52vtp.picture(mesh, h52vtp.VIEWS["top"], (60, 60), transparent=True))
    assert image.shape == (60, 60, 4)
    assert image[0, 0, 3] == 0 and image[30, 30, 3] == 255


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_height_is_a_share_of_the_plane_whatever_the_values_are(scale):
    x, y, z = h52vtp.heights(surface(lambda x, y: scale * (1 + bowl(x, y)), "-3:3:9", "-1:1:5"))
    mesh = h52vtp.shape(x, y, z, zscale=0.4)
    np.testing.assert_allclose(mesh.bounds, [-0.5, 0.5, -1 / 6, 1 / 6, 0, 0.4], rtol=1e-5)
    np.testing.assert_allclose(mesh.point_data["zvalue"], z.ravel(), rtol=1e-6)
    assert (mesh.point_data["Normals"][:, 2] > 0).all()


def test_level_surface_is_drawn_flat(drawing):
    mesh = h52vtp.shape(*h52vtp.heights(surface(lambda x, y: 0 * x + 7)))
    assert np.ptp(mesh.points[:, 2]) == 0
    assert h52vtp.picture(mesh, (0, 40), (32, 32)).size == (32, 32)


def test_refined_surface_is_the_bilinear_surface_through_the_same_points():
    coarse = h52vtp.shape(*h52vtp.heights(surface(lambda x, y: x * y + 1, "-1:1:3", "-1:1:3",
                                                  missing=lambda x, y: (x > 0.5) & (y > 0.5))))
    fine = h52vtp.refine(coarse, cells=40)
    assert fine.n_cells > 1000
    x, y, z = np.asarray(fine.points, float).T
    np.testing.assert_allclose(z, (4 * x * y + 1) / 2 * h52vtp.ZSCALE, atol=1e-6)  # x * y is bilinear itself
    assert not ((x > 1e-6) & (y > 1e-6)).any()  # the gap stays a gap
    np.testing.assert_allclose(np.linalg.norm(fine.point_data["Normals"], axis=1), 1, atol=1e-5)


def test_machine_that_cannot_draw_gets_one_line_and_never_a_crash(tmp_path):
    """With OSMesa asked for, the picture is there where libOSMesa is, and elsewhere VTK alone would crash."""
    shutil.copy(GOLDEN / SQUARE, tmp_path / "s.h5")
    result = command("-f", tmp_path / "s.h5", "--png", "--size", "64x64",
                     VTK_DEFAULT_OPENGL_WINDOW="vtkOSOpenGLRenderWindow")
    if result.returncode == 0:
        assert (tmp_path / "s.h5_train_loss.png").exists()
    else:
        assert result.returncode == 2 and result.stderr.count("\n") == 1 and "libEGL" in result.stderr
        assert os.listdir(tmp_path) == ["s.h5"]


# ---------------------------------------------------------------- meshes


def read_bytes(data, extension, folder):
    path = folder / f"mesh.{extension}"
    path.write_bytes(data)
    mesh = pyvista.read(path)
    while isinstance(mesh, pyvista.MultiBlock):
        mesh = mesh[0]
    return mesh


def test_stl_is_a_closed_solid_of_the_right_volume(tmp_path):
    ramp = h52vtp.shape(*h52vtp.heights(surface(lambda x, y: x, "-1:1:9", "-1:1:9")), zscale=0.3)
    solid = read_bytes(h52vtp.stl(ramp, "viridis"), "stl", tmp_path)
    assert solid.n_open_edges == 0 and solid.is_manifold
    np.testing.assert_allclose(solid.bounds, [-50, 50, -50, 50, 0, 34], atol=1e-3)
    assert solid.volume == pytest.approx(100 * 100 * (4 + 15), rel=1e-4)  # base, and half of the height
    outside = solid.compute_normals(point_normals=False, auto_orient_normals=True)
    np.testing.assert_allclose(outside.cell_data["Normals"], solid.face_normals, atol=1e-5)


def test_stl_of_a_surface_with_a_hole_is_closed_too(tmp_path):
    holed = surface(bowl, missing=lambda x, y: np.isclose(x, 0) & np.isclose(y, 0))
    solid = read_bytes(h52vtp.stl(h52vtp.shape(*h52vtp.heights(holed)), "viridis"), "stl", tmp_path)
    assert solid.n_open_edges == 0 and solid.is_manifold


@pytest.mark.parametrize("extension, cells", [("obj", 48), ("glb", 96)])
def test_meshes_for_blender_have_the_points_of_the_surface_with_y_up(tmp_path, extension, cells):
    mesh = h52vtp.shape(*h52vtp.heights(surface(bowl)))
    found = read_bytes(h52vtp.EXPORTS[extension](mesh, "viridis"), extension, tmp_path)
    assert found.n_cells == cells
    x, y, z = mesh.points.T
    np.testing.assert_allclose(found.points, np.column_stack([x, z, -y]), atol=1e-6)
    normals = found.point_data["NORMAL" if extension == "glb" else "Normals"]
    assert (normals[:, 1] > 0).all()  # up


def test_glb_has_a_colour_per_vertex_that_rises_with_the_value(tmp_path):
    mesh = h52vtp.shape(*h52vtp.heights(surface(bowl)))
    colour = read_bytes(h52vtp.glb(mesh, "viridis"), "glb", tmp_path).point_data["COLOR_0"]
    luminance = colour[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert colour.shape[0] == mesh.n_points and 0 <= colour.min() and colour.max() <= 1
    assert (np.diff(luminance[np.argsort(mesh.point_data["zvalue"])]) > -1e-6).all()


def test_gif_of_frames_keeps_their_colours():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 10, 10), (10, 250, 10), (10, 10, 250))]
    film = Image.open(io.BytesIO(h52vtp.gif(frames)))
    for i, frame in enumerate(frames):
        film.seek(i)
        assert np.abs(np.asarray(film.convert("RGB"), int) - np.asarray(frame, int)).max() < 10


def test_plot_scripts_need_neither_torch_nor_mpi():
    code = "import sys, h52vtp, h52html, flatness; print({'torch', 'mpi4py', 'pyvista', 'plotly'} & set(sys.modules))"
    assert run("-c", code).stdout == "set()\n"
