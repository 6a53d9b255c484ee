"""The command h52vtp.py: names, flags and contents of the files that it writes, and what it refuses."""

import os
import shutil

import numpy as np
import pytest
import pyvista
from PIL import Image

import h52vtp
from losslandscape.errors import InputError
from losslandscape.files.grid import Surface
from losslandscape.files.layouts import write_surface
from losslandscape.pictures.lit import FRAMES, gif_bytes, require_rendering
from tests.conftest import GOLDEN, refused, run
from tests.made_surfaces import bowl, surface_of

RANDOM = "model_6.t7_weights_xignore=biasbn_xnorm=filter"
SQUARE = f"{RANDOM}_yignore=biasbn_ynorm=filter.h5_[-1.0,1.0,5]x[-1.0,1.0,5].h5"
CURVE = f"{RANDOM}.h5_[-1.0,1.0,7].h5"


def export(*arguments, **environment):
    return run("h52vtp.py", *arguments, env=environment or None)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---------------------------------------------------------------- the ParaView file


@pytest.mark.parametrize("flags, suffix", [((), ""), (("--zmax", "10", "--log"), "_zmax=10.0_log")])
def test_paraview_files_are_those_of_the_original(tmp_path, flags, suffix):
    shutil.copy(GOLDEN / SQUARE, tmp_path)
    name = f"{SQUARE}_train_loss{suffix}.vtp"
    result = export("--surf_file", tmp_path / SQUARE, "--surf_name", "train_loss", *flags)
    assert result.returncode == 0 and result.stdout == f"{tmp_path / name}\n"
    assert sorted(os.listdir(tmp_path)) == sorted([SQUARE, name])
    ours, golden = pyvista.read(tmp_path / name), pyvista.read(GOLDEN / name)
    np.testing.assert_allclose(ours.points, golden.points, rtol=1e-6)
    np.testing.assert_array_equal(ours.faces, golden.faces)
    np.testing.assert_allclose(ours.point_data["zvalue"], golden.point_data["zvalue"], rtol=1e-6)
    np.testing.assert_allclose(ours.cell_data["averaged zvalue"], golden.cell_data["averaged zvalue"], rtol=1e-6)


@pytest.mark.parametrize("name", ["test_loss", "train_mae", "max_eig", "train_loss_iqr"])
def test_file_without_train_loss_is_written_with_what_it_has(tmp_path, name):
    surface = surface_of(bowl)
    values, computed = surface.values["train_loss"], surface.computed["train_loss"]
    write_surface(tmp_path / "s.h5", Surface(surface.grid, {name: values}, {name: computed}))
    h52vtp.main(["-f", str(tmp_path / "s.h5")])
    mesh = pyvista.read(tmp_path / f"s.h5_{name}.vtp")
    np.testing.assert_allclose(mesh.point_data["zvalue"], values.ravel(), rtol=1e-6)


def test_command_says_how_many_quads_are_missing(tmp_path):
    write_surface(tmp_path / "s.h5", surface_of(bowl, missing=lambda x, y: (x < -0.9) & (y < -0.9)))
    result = export("-f", tmp_path / "s.h5")
    assert result.returncode == 0
    assert "1 of 48 quads" in result.stderr and "1 points" in result.stderr
    assert pyvista.read(tmp_path / "s.h5_train_loss.vtp").n_cells == 47


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("flags, words", [
    ((CURVE,), "2-D surface"),
    ((SQUARE, "--surf_name", "bogus"), "train_loss"),
    ((SQUARE, "--zmax", "0"), "--zmax"),
    ((SQUARE, "--zmax", "nan"), "--zmax"),
    ((SQUARE, "--interp", "1"), "--interp"),
    ((SQUARE, "--size", "0x5", "--png"), "WIDTHxHEIGHT"),
    ((SQUARE, "--size", "100x100x100", "--png"), "WIDTHxHEIGHT"),
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
    before = contents(tmp_path)
    result = export("-f", tmp_path / flags[0], *flags[1:])
    assert refused(result) and result.stdout == "" and words in result.stderr
    assert contents(tmp_path) == before


@pytest.mark.parametrize("module, flags, words", [
    ("pyvista", (), "pip install pyvista"),
    ("imageio_ffmpeg", ("--orbit", "film.mp4"), "pip install imageio-ffmpeg"),
])
def test_missing_package_is_named_in_one_line(tmp_path, module, flags, words):
    (tmp_path / f"{module}.py").write_text("raise ImportError('not installed')")
    shutil.copy(GOLDEN / SQUARE, tmp_path)
    result = export("-f", tmp_path / SQUARE, *flags, PYTHONPATH=str(tmp_path))
    assert refused(result) and words in result.stderr
    assert not list(tmp_path.glob("*.vtp"))


@pytest.mark.parametrize("kind", ["surface", "checkpoint", "folder", "text"])
def test_film_never_replaces_what_is_no_film(tmp_path, kind):
    shutil.copy(GOLDEN / SQUARE, tmp_path / "s.h5")
    film = tmp_path / "film.gif"
    if kind == "surface":
        film.symlink_to(tmp_path / "s.h5")
    elif kind == "checkpoint":
        shutil.copy(GOLDEN / "model_6.t7", film)
    elif kind == "folder":
        film.mkdir()
    else:
        film.write_text("notes")
    before = {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="got .*; give another name"):
        h52vtp.main(["-f", str(tmp_path / "s.h5"), "--orbit", str(film)])
    assert {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()} == before


# ---------------------------------------------------------------- pictures, films and meshes


def margins(picture):
    """(left, top, right, bottom): what is white around the content, relative to the size of the picture."""
    content = (np.asarray(picture.convert("RGB")) < 250).any(2)
    rows, columns = np.flatnonzero(content.any(1)), np.flatnonzero(content.any(0))
    height, width = content.shape
    return columns[0] / width, rows[0] / height, 1 - (columns[-1] + 1) / width, 1 - (rows[-1] + 1) / height


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One run of the command that draws, films and exports, with a small picture; it replaces an older film."""
    try:
        require_rendering()
    except InputError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("pictures")
    steep = surface_of(lambda x, y: 0.01 + 400 * (x**2 + y**2) ** 2, "-1:1:21", "-1:1:21")
    write_surface(folder / "s.h5", steep)
    older_frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    (folder / "film.gif").write_bytes(gif_bytes(older_frames))

    result = export("-f", folder / "s.h5", "--zmax", 100, "--log", "--png", "--size", "200x150", "--export", "stl",
                    "--orbit", folder / "film.gif", DISPLAY="")
    assert result.returncode == 0, result.stderr
    stem = folder / "s.h5_train_loss_zmax=100.0_log"
    assert result.stdout.split() == [f"{stem}.vtp", f"{stem}.stl", f"{stem}.png", str(folder / "film.gif")]
    assert result.stderr == ""
    return folder


def test_picture_is_framed_coloured_and_lit_on_white(pictures):
    picture = Image.open(pictures / "s.h5_train_loss_zmax=100.0_log.png").convert("RGB")
    assert picture.size == (200, 150)
    left, top, right, bottom = margins(picture)
    assert min(left, right) > 0.01 and min(top, bottom) > 0.01
    assert max(left, right) < 0.06 or max(top, bottom) < 0.06
    assert abs(left - right) < 0.02 or abs(top - bottom) < 0.02

    pixels = np.asarray(picture).reshape(-1, 3)
    assert (pixels[0] == 255).all()  # the background
    assert len(np.unique(pixels, axis=0)) > 1000  # smooth shading, no few flat colours
    red, green, blue = pixels.T
    plateau = (red > 150) & (green > 150) & (blue < 90)  # clipped: yellow
    valley = (blue > red + 20) & (blue > green)
    assert plateau.mean() > 0.1 and valley.mean() > 0.01


def test_turntable_is_an_endless_gif_whose_frames_differ_and_stay_in_the_frame(pictures):
    film = Image.open(pictures / "film.gif")
    assert film.n_frames == FRAMES and film.size == (200, 150) and film.info["loop"] == 0
    frames = []
    for number in range(0, film.n_frames, 6):
        film.seek(number)
        assert min(margins(film.convert("RGB"))) > 0
        frames.append(np.asarray(film.convert("L"), float))
    assert all(np.abs(a - b).mean() > 0.5 for a, b in zip(frames, frames[1:], strict=False))


def test_machine_that_cannot_draw_gets_one_line_and_never_a_crash(tmp_path):
    """With OSMesa asked for, the picture is there where libOSMesa is, and elsewhere VTK alone would crash."""
    shutil.copy(GOLDEN / SQUARE, tmp_path / "s.h5")
    result = export("-f", tmp_path / "s.h5", "--png", "--size", "64x64",
                    VTK_DEFAULT_OPENGL_WINDOW="vtkOSOpenGLRenderWindow")
    if result.returncode == 0:
        assert (tmp_path / "s.h5_train_loss.png").exists()
    else:
        assert refused(result) and "libEGL" in result.stderr
        assert os.listdir(tmp_path) == ["s.h5"]


def test_plot_scripts_need_neither_torch_nor_mpi():
    code = "import sys, h52vtp, h52html, flatness; print({'torch', 'mpi4py', 'pyvista', 'plotly'} & set(sys.modules))"
    assert run("-c", code).stdout == "set()\n"
