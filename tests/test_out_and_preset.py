"""--preset and --out: the flags of the paper in one word, and the files in another place."""

import os

import pytest

import net_plotter
import plot_hessian_eigen
import plot_surface
import plot_trajectory
from losslandscape import flags
from losslandscape.choices import DirectionChoice, choose
from losslandscape.errors import InputError
from tests.conftest import GOLDEN, ROOT, refused, run

TYPED = ["--xnorm", "filter", "--xignore", "biasbn", "--ynorm", "filter", "--yignore", "biasbn"]


# ---------------------------------------------------------------- --preset


def directions_of(module, *words):
    return choose(DirectionChoice, flags.with_preset(vars(module.make_parser().parse_args(words))))


@pytest.mark.parametrize("module", [plot_surface, plot_hessian_eigen, net_plotter])
def test_a_preset_is_what_its_flags_are(module):
    assert directions_of(module, "--preset", "paper") == directions_of(module, *TYPED)
    assert directions_of(module) == DirectionChoice()


@pytest.mark.parametrize("words, expected", [
    (["--xnorm", "layer"], {"xnorm": "layer"}),
    (["--xignore", ""], {"xignore": ""}),
    (["--ynorm="], {"ynorm": ""}),
])
def test_flags_that_are_given_win_wherever_they_stand(words, expected):
    base = vars(directions_of(plot_surface, *TYPED))
    for line in (["--preset", "paper", *words], [*words, "--preset", "paper"]):
        assert vars(directions_of(plot_surface, *line)) == base | expected


def test_files_have_the_names_that_the_typed_flags_give(golden, surface_arguments):
    words = surface_arguments(golden, "--x=0:1:2", "--y=0:1:2", "--preset", "paper")
    assert run(*words).returncode == 0
    files = sorted(os.listdir(golden))
    assert any("xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5" in name for name in files)
    done = run(*surface_arguments(golden, "--x=0:1:2", "--y=0:1:2", *TYPED))
    assert "all 4 points" in done.stderr and sorted(os.listdir(golden)) == files


@pytest.mark.parametrize("words", [[], ["--y=0:1:2"], ["--dimensions", "2"]])
def test_net_plotter_takes_a_preset_with_one_axis_and_with_two(golden, words):
    done = run("net_plotter.py", "--model", "resnet20", "--model_file", golden / "model_6.t7",
               "--preset", "paper", *words)
    assert done.returncode == 0, done.stderr
    assert ("ynorm" in done.stdout) == bool(words)


def test_an_unknown_preset_is_refused():
    assert refused(run("plot_surface.py", "--preset", "papers"))


# ---------------------------------------------------------------- --out


def test_all_files_of_a_surface_lie_in_out_which_is_made(golden, surface_arguments):
    before = sorted(os.listdir(golden))
    out = golden.parent / "made" / "results"
    done = run(*surface_arguments(golden, "--x=0:1:2", "--y=0:1:2", "--preset", "paper", "--out", out, "--plot"))
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(golden)) == before
    kinds = {name.rpartition(".")[2] for name in os.listdir(out)}
    assert kinds == {"h5", "pdf"} and len(list(out.glob("*.h5"))) == 2

    # the same command goes on from there
    done = run(*surface_arguments(golden, "--x=0:1:2", "--y=0:1:2", "--preset", "paper", "--out", out))
    assert "all 4 points" in done.stderr


def test_repeats_and_their_summary_lie_in_out(golden, surface_arguments):
    out = golden / "out"
    done = run(*surface_arguments(golden, "--x=0:1:2", "--preset", "paper", "--out", out, "--repeats", "2"))
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("*_repeats=2.h5"))) == 1 and len(list(out.iterdir())) == 5


def test_net_plotter_writes_into_out(golden):
    words = ("net_plotter.py", "--model", "resnet20", "--model_file", golden / "model_6.t7", "--preset", "paper",
             "--out", golden / "out")
    assert run(*words).returncode == 0
    (file,) = (golden / "out").iterdir()
    assert "it was there before" in run(*words).stdout


def test_the_path_of_a_training_lies_in_out(tmp_path):
    for i, source in enumerate(("model_4.t7", "model_6.t7", "model_4.t7"), 1):
        (tmp_path / "run").mkdir(exist_ok=True)
        shift_checkpoint(GOLDEN / source, tmp_path / "run" / f"model_{i}.t7", i)
    before = sorted(os.listdir(tmp_path / "run"))
    out = tmp_path / "out"
    words = ["--model", "resnet20", "--model_folder", str(tmp_path / "run"), "--out", str(out)]
    plot_trajectory.main(words)
    assert sorted(os.listdir(tmp_path / "run")) == before
    pca = out / "PCA_weights_save_epoch=1"
    assert {"directions.h5", "directions.h5_proj_cos.h5"} < set(os.listdir(pca))

    # a plane of the user's own keeps its place, the projection goes to --out
    plot_trajectory.main([*words[:-1], str(tmp_path / "other"), "--dir_file", str(pca / "directions.h5")])
    assert "directions.h5_proj_cos.h5" in os.listdir(tmp_path / "other")


def shift_checkpoint(source, target, seed):
    """A checkpoint beside another one: its weights, moved by a little noise."""
    import torch

    from losslandscape.networks.checkpoints import read_checkpoint

    (entries,) = read_checkpoint(str(source)).candidates.values()
    torch.manual_seed(seed)
    moved = {}
    for name, value in entries.items():
        value = torch.as_tensor(value[:] if value.dim() else value)
        moved[name] = value + 0.01 * torch.randn(value.shape) if value.is_floating_point() else value
    torch.save({"state_dict": moved}, target)


@pytest.mark.parametrize("command, more", [
    ("plot_surface.py", ["--x=0:1:2"]), ("plot_hessian_eigen.py", ["--x=0:1:2"]), ("net_plotter.py", []),
])
def test_an_out_that_is_a_file_is_refused_and_nothing_is_made(golden, command, more):
    if more:
        more = [*more, "--dataset", golden / "data.npz"]
    before = sorted(os.listdir(golden))
    words = [command, "--model", "resnet20", "--model_file", golden / "model_6.t7", "--preset", "paper", *more]
    for out in ("data.npz", "data.npz/below"):
        done = run(*words, "--out", golden / out)
        assert refused(done) and "--out" in done.stderr
    assert sorted(os.listdir(golden)) == before


def test_a_refused_run_leaves_no_folder(golden, surface_arguments):
    out = golden / "a" / "b"
    done = run(*surface_arguments(golden, "--x=0:1:2", "--preset", "paper", "--out", out, "--model", "resnet110"))
    assert refused(done) and not (golden / "a").exists()


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/proc/sys"), reason="needs a folder nobody can write to")
def test_an_out_that_can_not_be_written_is_refused():
    from losslandscape.output_folders import check_out

    with pytest.raises(InputError, match="--out"):
        check_out("/proc/sys/here") if os.geteuid() else check_out("/dev/null/here")


def test_a_relative_out_in_the_folder_of_the_model_is_that_folder(golden):
    words = [ROOT / "net_plotter.py", "--model", "resnet20", "--model_file", "model_6.t7", "--preset", "paper"]
    assert run(*words, cwd=golden).returncode == 0
    assert "it was there before" in run(*words, "--out", ".", cwd=golden).stdout
