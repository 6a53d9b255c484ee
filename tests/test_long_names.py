"""Names that file systems can't hold: shortened with a hash, told apart, found again."""

import os
import shutil
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losslandscape.files import names
from losslandscape.files.layouts import read_directions, read_surface
from losslandscape.files.names import SurfaceName
from losslandscape.pictures.curves import repeat_files
from tests.conftest import GOLDEN, ROOT, run

LONG = "resnet56_sgd_lr=0.1_bs=128_wd=0.0005_mom=0.9_save_epoch=1_seed={}_with_a_remark_of_mine_.t7"


def axis(norm="filter", ignore="biasbn", model_file=""):
    return SimpleNamespace(norm=norm, ignore=ignore, model_file=model_file)


def direction_name(model_file, other="", idx=0):
    return names.direction_file_name(model_file, "weights", axis(model_file=other), axis(), idx=idx)


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
TEXTS = st.text(LETTERS, min_size=1, max_size=400)


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS, st.integers(0, 999), st.text("ab=_", max_size=200), TEXTS)
def test_every_name_fits_and_is_made_the_same_way_again(model_file, other, idx, option, label):
    direction = direction_name(f"d/{model_file}", f"d/{other}", idx)
    surface = names.surface_file_name(direction, "[-1.0,1.0,51]", [("loss", option)])
    assert direction == direction_name(f"d/{model_file}", f"d/{other}", idx)
    projection = names.projection_file_name(direction, label)
    for path in (
        direction, surface, projection, names.summary_file_name(surface, 12),
        names.picture_file_name(surface, "2dcontour", "pdf", "train_loss"),
        names.export_stem(surface, "train_loss", 10.0, True) + ".html",
        names.pca_file_name("d", "weights", "biasbn", 1, [label, "b"], "key" * 20),
    ):  # fmt: skip
        assert all(len(os.fsencode(part)) <= 255 for part in path.split("/"))
    parsed = SurfaceName.parse(os.path.basename(surface))
    assert parsed.idx == idx and parsed.grid == "[-1.0,1.0,51]" and f"d/{parsed}" == surface


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab", min_size=230, max_size=300), min_size=2, max_size=6, unique=True))
def test_long_names_that_differ_anywhere_stay_different(stems):
    directions = [direction_name(stem) for stem in stems]
    surfaces = [names.surface_file_name(direction, "[-1.0,1.0,3]") for direction in directions]
    assert len(set(directions)) == len(set(surfaces)) == len(stems)


@pytest.mark.parametrize("length", range(180, 256))
def test_repeats_find_each_other_though_only_some_had_to_be_shortened(tmp_path, length):
    stem = ("m" * 300)[: length - len("_weights_xignore=biasbn_xnorm=filter.h5")]
    paths = []
    for idx in (0, 1, 10, 100):
        direction = names.direction_file_name(f"{tmp_path}/{stem}", "weights", axis(), idx=idx)
        paths.append(names.surface_file_name(direction, "[-1.0,1.0,3]"))
        open(paths[-1], "w").close()
    for path in paths:
        assert list(names.repeats_of(path).values()) == paths
    assert len(repeat_files(f"{tmp_path}/{stem}_weights_xignore=biasbn_xnorm=filter", 0, 100)) == 4


def test_projections_of_a_long_name_are_found_beside_it(tmp_path):
    direction = str(tmp_path / ("d" * 240 + ".h5"))
    other = str(tmp_path / ("d" * 241 + ".h5"))
    labels = ["a", "run" * 60, "b"]
    paths = names.projection_file_names(direction, labels)
    for path in [*paths, names.projection_file_name(other)]:
        open(path, "w").close()
    assert names.projections_of(direction) == sorted(paths)


def test_three_checkpoints_with_long_names_make_a_plane_that_is_resumed(tmp_path):
    checkpoints = [LONG.format(i) for i in range(3)]
    for name, source in zip(checkpoints, ("model_6.t7", "model_4.t7", "model_4.t7"), strict=True):
        shutil.copy(GOLDEN / source, tmp_path / name)
    shutil.copy(GOLDEN / "data.npz", tmp_path)
    flags = ["--model", "resnet20", "--dataset", "data.npz", "--x=0:1:2", "--y=0:1:2", "--model_file",
             checkpoints[0], "--model_file2", checkpoints[1], "--model_file3", checkpoints[2]]

    done = run(ROOT / "plot_surface.py", *flags, "--plot", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (surface,) = tmp_path.glob("*~*.h5_*_dataset=data.h5")
    whole = read_surface(surface).provenance["whole_name"]
    assert all(name in whole for name in checkpoints) and len(whole) > 255

    (direction,) = [path for path in tmp_path.glob("*.h5") if "h5_[" not in path.name]
    assert all(name in read_directions(direction).provenance["whole_name"] for name in checkpoints)
    files = sorted(os.listdir(tmp_path))
    done = run(ROOT / "plot_surface.py", *flags, "--plot", cwd=tmp_path)
    assert "all 4 points" in done.stderr and sorted(os.listdir(tmp_path)) == files
