"""The command that draws 2-D surfaces: flags, names of files, bad input."""

import shutil

import numpy as np
import pytest

import plot_2D
from losslandscape.errors import InputError
from tests.conftest import GOLDEN, refused, run
from tests.drawing import KINDS, LINE, PCA, PROJECTION, SQUARE, save_surface, uneven_bowl

pytest_plugins = "tests.caught_figures"


def test_the_four_figures_have_their_names_and_are_whole_files(tmp_path):
    path = tmp_path / SQUARE
    shutil.copy(GOLDEN / SQUARE, path)
    done = run("plot_2D.py", "--surf_file", path, "--surf_name", "train_loss")
    assert done.returncode == 0, done.stderr
    expected = [f"{path}_train_loss_{name}.pdf" for name in KINDS]
    assert done.stdout.splitlines() == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([SQUARE] + [p.rpartition("/")[2] for p in expected])
    for name in expected:
        image = open(name, "rb").read()
        assert image.startswith(b"%PDF") and image.rstrip().endswith(b"%%EOF") and len(image) > 5000
        assert b"/Type3" not in image and b"/FontFile2" in image  # fonts as TrueType: journals refuse Type 3


def test_drawing_needs_neither_torch_nor_mpi_nor_a_window(tmp_path):
    path = tmp_path / "s.h5"
    save_surface(path, uneven_bowl, "-1:1:5", "0:1:1")
    code = (f"import sys, plot_2D; plot_2D.main(['-f', {str(path)!r}]); "
            "print(sorted({'torch', 'mpi4py', 'matplotlib.pyplot'} & set(sys.modules)))")
    done = run("-c", code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_help_does_not_wait_for_matplotlib():
    done = run("-c", "import sys, plot_2D\ntry: plot_2D.main(['--help'])\nfinally: print('matplotlib' in sys.modules)")
    assert done.stdout.splitlines()[-1] == "False" and "--surf_name" in done.stdout


def test_a_missing_matplotlib_is_named_with_its_install_command(tmp_path):
    save_surface(tmp_path / "s.h5", uneven_bowl)
    code = ("import sys; sys.modules['matplotlib'] = None; import plot_2D; "
            f"plot_2D.run(lambda: plot_2D.main(['-f', {str(tmp_path / 's.h5')!r}]))")
    done = run("-c", code)
    assert refused(done) and "pip install matplotlib" in done.stderr


def test_show_without_a_display_still_writes_the_files(tmp_path):
    save_surface(tmp_path / "s.h5", uneven_bowl, "-1:1:5", "0:1:1")
    done = run("plot_2D.py", "-f", tmp_path / "s.h5", "--show", env={"MPLBACKEND": "Agg"})
    assert done.returncode == 0 and done.stdout.split() == [f"{tmp_path}/s.h5_train_loss_2dheat.pdf"]
    assert "note: no window" in done.stderr


def test_what_the_file_has_is_drawn_when_nothing_is_asked_for(tmp_path, only, drawn_files):
    only("2dheat")
    for name in ("test_loss", "test_mae", "max_eig"):
        path = str(tmp_path / f"{name}.h5")
        save_surface(path, uneven_bowl, name=name)
        plot_2D.main(["-f", path])
        assert f"{path}_{name}_2dheat.pdf" in drawn_files
        plot_2D.main(["--compare", path, path])
        assert f"{path}_{name}_2dcompare.pdf" in drawn_files


@pytest.mark.parametrize("flags", [("-f", "a.h5", "b.h5"), ("-f", "a.h5", "-f", "b.h5"), ("--compare", "a.h5", "b.h5")])
def test_several_surfaces_are_drawn_side_by_side_under_their_labels(flags, tmp_path, drawn_files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_surface("a.h5", uneven_bowl, "-1:1:5", "-1:1:5")
    save_surface("b.h5", uneven_bowl, "-1:1:7", "-1:1:7")
    for word in ("--labels", "--label"):
        plot_2D.main([*flags, word, "with shortcuts", "without", "--output", "two.png"])
        figure = drawn_files.pop("two.png")
        assert [ax.get_title() for ax in figure.axes[:2]] == ["with shortcuts", "without"]
    assert not drawn_files


def test_a_path_alone_is_written_beside_its_projection_file(tmp_path):
    shutil.copy(PROJECTION, tmp_path / "p.h5")
    done = run("plot_2D.py", "--proj_file", tmp_path / "p.h5", "--dir_file", PCA)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{tmp_path}/p.h5.pdf"]
    assert (tmp_path / "p.h5.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("arguments, reason", [
    ([], "expected --surf_file FILE"),
    (["-f", "missing.h5"], "found nothing there"),
    (["-f", "broken.h5"], "can't be read"),
    (["-f", LINE], "use plot_1D.py"),
    (["-f", "s.h5", "--surf_name", "trian_loss"], "expected one of train_acc, train_loss"),
    (["-f", "s.h5", "--surf_name", "test_loss"], "got 'test_loss'"),
    (["-f", "s.h5", "--vmin", "3", "--vmax", "2"], "expected --vmin below --vmax"),
    (["-f", "s.h5", "--vlevel", "0"], "expected --vlevel above 0"),
    (["-f", "s.h5", "--vlevel", "1e-9"], "take a larger --vlevel"),
    (["-f", "s.h5", "--vmax", "nan"], "expected a finite number for --vmax"),
    (["-f", "s.h5", "--log", "--vmin", "-1"], "expected --vmin above 0"),
    (["-f", "s.h5", "--zlim", "inf"], "expected a finite --zlim"),
    (["-f", "s.h5", "--format", "bmp"], "invalid choice"),
    (["-f", "s.h5", "--output", "x.pdf"], "expected --output only with"),
    (["-f", "s.h5", "--proj_file", "s.h5"], "proj_xcoord"),
    (["-f", "s.h5", "--proj_file", str(PROJECTION), "--dir_file", "s.h5"], "xdirection"),
    (["--compare", "s.h5", "s.h5", "--output", "s.h5"], "to end in .pdf, .png or .svg"),
    (["--compare", "s.h5", "s.h5", "--output", "nowhere/x.pdf"], "can't write nowhere/x.pdf"),
    (["--compare", "s.h5", "s.h5", "--label", "a"], "one label per file"),
    (["--compare", "s.h5", "-f", "s.h5"], "expected --compare without"),
    (["--compare", "s.h5", "--proj_file", str(PROJECTION)], "expected --compare without"),
    (["-f", "s.h5", "s.h5", "--proj_file", str(PROJECTION)], "expected one --surf_file with --proj_file, got 2"),
    (["--proj_file", str(PROJECTION), "--labels", "a", "b"], "one label per file"),
])  # fmt: skip
def test_bad_input_is_an_input_error_and_nothing_is_written(arguments, reason, tmp_path, monkeypatch):
    shutil.copy(GOLDEN / SQUARE, tmp_path / "s.h5")
    shutil.copy(GOLDEN / LINE, tmp_path / LINE)
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF but no more")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        plot_2D.main(arguments)
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_bad_input_on_the_command_line_is_one_line_and_exit_code_2(tmp_path):
    save_surface(tmp_path / "none.h5", uneven_bowl, computed=np.zeros((21, 21), bool))
    done = run("plot_2D.py", "-f", tmp_path / "none.h5")
    assert refused(done) and "nothing of train_loss is computed yet" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["none.h5"]
