"""plot_1D.py: files of all figures, flags, and bad input."""

import shutil

import numpy as np
import pytest

import plot_1D
from losslandscape.errors import InputError
from tests.conftest import GOLDEN, refused, run
from tests.test_pictures_curves import CURVE, NAMES, SQUARE, parabola, save


@pytest.mark.parametrize("log", [False, True])
def test_the_figures_have_their_names_and_are_whole_files(log, tmp_path):
    path = tmp_path / CURVE
    shutil.copy(GOLDEN / CURVE, path)
    done = run("plot_1D.py", "--surf_file", path, *(["--log"] if log else []))
    assert done.returncode == 0, done.stderr
    endings = [name + "_log" * (log and name != "_1d_train_err") + ".pdf" for name in NAMES]
    assert done.stdout.splitlines() == [f"{path}{ending}" for ending in endings]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([CURVE] + [CURVE + ending for ending in endings])
    for name in done.stdout.splitlines():
        image = open(name, "rb").read()
        assert image.startswith(b"%PDF") and image.rstrip().endswith(b"%%EOF")
        assert b"/Type3" not in image and b"/FontFile2" in image  # fonts as TrueType: journals refuse Type 3


def test_drawing_needs_neither_torch_nor_mpi_nor_a_window(tmp_path):
    path = tmp_path / "s.h5"
    save(path, train_loss=parabola)
    code = (f"import sys, plot_1D; plot_1D.main(['-f', {str(path)!r}]); "
            "print(sorted({'torch', 'mpi4py', 'matplotlib.pyplot'} & set(sys.modules)))")
    done = run("-c", code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_output_and_labels_name_the_figure_and_its_curves(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.h5", "b.h5")]
    for path in paths:
        save(path, train_loss=parabola)
    output = tmp_path / "figure 3.svg"
    done = run("plot_1D.py", "--surf_file", *paths, "--labels", "small batch", "large batch", "--output", output)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(output)
    assert output.read_text().startswith("<?xml") and "<svg" in output.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5", "figure 3.svg"]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("arguments, reason", [
    ([], "expected --surf_file FILE"),
    (["-f", "missing.h5"], "found nothing there"),
    (["-f", "broken.h5"], "can't be read"),
    (["-f", SQUARE], "use plot_2D.py"),
    (["-f", "none.h5"], "nothing is computed yet"),
    (["-f", "other.h5"], "expected a loss, an accuracy or eigenvalues"),
    (["-f", "s.h5", "--xmin", "1", "--xmax", "1"], "expected --xmin below --xmax"),
    (["-f", "s.h5", "--xmin", "nan"], "expected a finite --xmin"),
    (["-f", "s.h5", "--xmax", "two"], "invalid float value"),
    (["-f", "s.h5", "--loss_max", "0", "--log"], "expected --loss_max above 0 with --log"),
    (["-f", "s.h5", "--loss_max", "inf"], "expected a finite --loss_max"),
    (["-f", "s.h5", "--output", "x.pdf"], "expected --output only where"),
    (["-f", "s.h5", "s.h5", "--output", "s.h5"], "to end in .pdf, .png or .svg"),
    (["-f", "s.h5", "s.h5", "--output", "nowhere/x.pdf"], "can't write nowhere/x.pdf"),
    (["-f", "s.h5", "s.h5", "--label", "one"], "one label per file"),
    (["-f", "s.h5", "other.h5"], "expected a loss in other.h5"),
    (["--prefix", "s.h5"], "found none"),
    (["--prefix", "m", "--idx_min", "-1"], "at least 0"),
])  # fmt: skip
def test_bad_input_is_an_input_error_and_nothing_is_written(arguments, reason, tmp_path, monkeypatch):
    shutil.copy(GOLDEN / CURVE, tmp_path / "s.h5")
    shutil.copy(GOLDEN / SQUARE, tmp_path / SQUARE)
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF but no more")
    save(tmp_path / "none.h5", computed=np.zeros(21, bool), train_loss=parabola)
    save(tmp_path / "other.h5", eig_converged=parabola)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        plot_1D.main(arguments)
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_bad_input_on_the_command_line_is_one_line_and_exit_code_2(tmp_path):
    save(tmp_path / "none.h5", computed=np.zeros(21, bool), train_loss=parabola)
    done = run("plot_1D.py", "-f", tmp_path / "none.h5")
    assert refused(done) and "nothing is computed yet" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["none.h5"]
