"""No command writes over a file that is not an older output of its own kind."""

import os
import shutil

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import h52html
import h52vtp
import losslandscape
import plot_1D
import plot_2D
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import write_projection, write_surface
from losslandscape.pictures.animation import animate
from losslandscape.pictures.lit import gif_bytes, mp4_bytes, png_bytes
from losslandscape.pictures.overwrite import OUTPUT_KINDS, refuse_foreign_file, replace_outputs

X, Y = np.linspace(-1, 1, 5), np.linspace(-1, 1, 4)
BOWL = 0.2 + X**2 + 2 * Y[:, None] ** 2


@pytest.fixture
def files(tmp_path):
    """A line, a plane and a path as files; {name: path}."""
    paths = {name: str(tmp_path / f"{name}.h5") for name in ("line", "plane", "path")}
    line = Surface(Grid(X), {"train_loss": BOWL[0]}, {"train_loss": np.ones(5, bool)})
    plane = Surface(Grid(X, Y), {"train_loss": BOWL}, {"train_loss": np.ones(BOWL.shape, bool)})
    write_surface(paths["line"], line)
    write_surface(paths["plane"], plane)
    write_projection(paths["path"], {"proj_xcoord": X, "proj_ycoord": X, "epoch": np.arange(5)}, {})
    return paths


CHOSEN = {  # commands with an output that the user names: (files, output) -> flags
    "curves": (plot_1D, "png", lambda f, out: ["-f", f["line"], f["line"], "--output", out]),
    "planes": (plot_2D, "pdf", lambda f, out: ["-f", f["plane"], f["plane"], "--output", out]),
    "path": (plot_2D, "svg", lambda f, out: ["--proj_file", f["path"], "--output", out]),
    "page": (h52html, "html", lambda f, out: ["-f", f["plane"], "--output", out]),
}


def foreign_contents(folder):
    """{what: bytes} of files that none of the commands has made."""
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    contents = {"a trained model": b"PK\3\4 model", "a text": b"to do\n"}
    for ending in ("png", "pdf", "svg"):
        figure.savefig(folder / f"f.{ending}")
        contents[f"the user's own {ending}"] = (folder / f"f.{ending}").read_bytes()
    contents["a page"] = b"<!DOCTYPE html>\n<html><head><title>losslandscape</title></head></html>"
    return contents


@pytest.mark.parametrize("output", CHOSEN)
def test_a_chosen_output_replaces_only_its_own_kind(output, files, tmp_path):
    command, ending, flags = CHOSEN[output]
    path = tmp_path / f"chosen.{ending}"
    others = foreign_contents(tmp_path) | {"a surface": open(files["plane"], "rb").read()}
    for what, contents in others.items():
        path.write_bytes(contents)
        with pytest.raises(InputError, match=f"expected the name of a new file, .*chosen.{ending}.* something else"):
            command.main(flags(files, str(path)))
        assert path.read_bytes() == contents, what

    # a new file, and one that was made empty, are written; and then replaced
    path.write_bytes(b"")
    for _ in range(2):
        command.main(flags(files, str(path)))
        assert path.stat().st_size > 1000
    first = path.read_bytes()
    path.unlink()
    command.main(flags(files, str(path)))
    assert path.read_bytes() == first


def test_an_input_is_never_an_output(files, tmp_path):
    for output, (command, ending, flags) in CHOSEN.items():
        for name, path in files.items():
            copy = tmp_path / f"{name}.{ending}"
            shutil.copy(path, copy)
            with pytest.raises(InputError, match="something else"):
                command.main(flags(files | {name: str(copy)}, str(copy)))
            assert copy.read_bytes() == open(path, "rb").read(), output


def test_the_figure_of_the_python_interface_replaces_only_figures(tmp_path):
    surface = Surface(Grid(X), {"train_loss": BOWL[0]}, {"train_loss": np.ones(5, bool)})
    path = tmp_path / "model.png"
    path.write_bytes(b"PK\3\4 model")
    with pytest.raises(InputError, match="something else"):
        losslandscape.plot(surface, path=path)
    assert path.read_bytes() == b"PK\3\4 model"
    path.unlink()
    losslandscape.plot(surface, path=path)
    losslandscape.plot(surface, path=path)


@pytest.mark.parametrize("suffix", ["_1d_train_loss.pdf", "_train_loss_2dheat.pdf", ".pdf", ".gif", "_train_loss.vtp"])
def test_other_files_under_the_names_beside_a_surface_stay(suffix, files, tmp_path):
    source = {"_1d_train_loss.pdf": "line", ".pdf": "path", ".gif": "path"}.get(suffix, "plane")
    path = tmp_path / f"{source}.h5{suffix}"
    path.write_bytes(b"PK\3\4 model")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="something else"):
        if suffix == "_train_loss.vtp":
            h52vtp.main(["-f", files["plane"]])
        elif source == "line":
            plot_1D.main(["-f", files["line"]])
        elif source == "plane":
            plot_2D.main(["-f", files["plane"]])
        elif suffix == ".gif":
            animate([files["path"]], "")
        else:
            plot_2D.main(["--proj_file", files["path"]])
    assert path.read_bytes() == b"PK\3\4 model" and sorted(tmp_path.iterdir()) == before


def test_figures_of_the_original_beside_a_surface_are_replaced(files, tmp_path):
    path = tmp_path / "line.h5_1d_train_loss.pdf"
    figure = Figure()
    figure.savefig(path)  # as the original made them, with matplotlib's own mark
    old = path.read_bytes()
    plot_1D.main(["-f", files["line"]])
    assert path.read_bytes() != old


def test_films_and_pictures_have_the_mark_by_which_they_are_known():
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    assert OUTPUT_KINDS["gif"].may_be_replaced(gif_bytes(frames), chosen=True)
    assert OUTPUT_KINDS["png"].may_be_replaced(png_bytes(frames[0]), chosen=True)
    assert not OUTPUT_KINDS["gif"].may_be_replaced(png_bytes(frames[0]), chosen=False)


def test_mp4_films_have_the_mark_too():
    pytest.importorskip("imageio_ffmpeg")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    assert OUTPUT_KINDS["mp4"].may_be_replaced(mp4_bytes(frames), chosen=True)


def test_a_film_replaces_only_a_film(files, tmp_path):
    path = tmp_path / "turn.gif"
    Image.new("RGB", (8, 8)).save(path)  # somebody's picture
    with pytest.raises(InputError, match="or of a film of this program to replace"):
        h52vtp.main(["-f", files["plane"], "--orbit", str(path)])
    assert list(tmp_path.glob("*.vtp")) == []


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_folders_and_pipes_are_refused(make, tmp_path):
    path = tmp_path / "figure.pdf"
    make(path)
    with pytest.raises(InputError, match="give another name"):
        refuse_foreign_file(path, "pdf", chosen=True)


def test_one_foreign_file_keeps_all_from_being_written(tmp_path):
    (tmp_path / "b.glb").write_bytes(b"mine")
    with pytest.raises(InputError, match="b.glb"):
        replace_outputs({str(tmp_path / "a.vtp"): b"<VTKFile", str(tmp_path / "b.glb"): b"glTF"})
    assert not (tmp_path / "a.vtp").exists()
