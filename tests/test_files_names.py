"""Laws of the names of files: those of the original byte for byte, and read back into the parts they were made of."""

import os
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from losslandscape.files import names
from losslandscape.files.grid import Grid
from losslandscape.files.names import SurfaceName, direction_file_name, pca_file_name, surface_file_name


def axis(norm="", ignore="", model_file=""):
    return SimpleNamespace(norm=norm, ignore=ignore, model_file=model_file)


FILTER, PLAIN = axis("filter", "biasbn"), axis()
DIRECTIONS = [
    (dict(model_file="m.t7", x=PLAIN), "m.t7_weights.h5"),
    (dict(model_file="d/m.t7", x=FILTER), "d/m.t7_weights_xignore=biasbn_xnorm=filter.h5"),
    (dict(model_file="d/m.t7", x=FILTER, idx=3), "d/m.t7_weights_xignore=biasbn_xnorm=filter_idx=3.h5"),
    (dict(model_file="m.t7", x=FILTER, y=FILTER),
     "m.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"),
    (dict(model_file="m.t7", x=axis("layer"), y=axis("filter"), same_dir=True),
     "m.t7_weights_xnorm=layer_ynorm=filter_same_dir.h5"),
    (dict(model_file="r/a.t7", x=axis(model_file="r/b.t7"), dir_type="states"), "r/a.t7_b.t7_states.h5"),
    (dict(model_file="r/a/m.t7", x=axis(model_file="r/b/m.t7")), "r/a_m.t7_b_m.t7_weights.h5"),
    (dict(model_file="r/abc/m.t7", x=axis(model_file="r/abd/m.t7")), "r/abc_m.t7_abd_m.t7_weights.h5"),
    (dict(model_file="r/a/m.t7", x=axis(model_file="r/b/c/m.t7")), "r/a_m.t7_b_c_m.t7_weights.h5"),
    (dict(model_file="r/a.t7", x=axis(model_file="r/b.t7"), y=axis(model_file="r/c.t7")),
     "r/a.t7_b.t7_c.t7_weights.h5"),
    (dict(model_file="m.t7", x=PLAIN, params="layer3", freeze="bn", idx=2),
     "m.t7_weights_params=layer3_freeze=bn_idx=2.h5"),
]


@pytest.mark.parametrize("parts, name", DIRECTIONS, ids=[name for _, name in DIRECTIONS])
def test_names_of_direction_files_are_those_of_the_original(parts, name):
    assert direction_file_name(**{"dir_type": "weights"} | parts) == name


def test_names_of_surface_files_are_those_of_the_original():
    plane = str(Grid.parse("-1:1:51", "-0.5:2:11"))
    assert surface_file_name("d.h5", plane) == "d.h5_[-1.0,1.0,51]x[-0.5,2.0,11].h5"

    options = (("rawdata", True), ("datasplit", "4_splitidx=0"), ("bn", ""))
    assert surface_file_name("d.h5", "[-1.0,1.0,51]", options) == \
        "d.h5_[-1.0,1.0,51]_rawdata_datasplit=4_splitidx=0.h5"


def test_names_of_pictures_exports_and_summaries_are_those_of_the_original():
    assert names.picture_file_name("s.h5", "2dcontour", "pdf", "train_loss") == "s.h5_train_loss_2dcontour.pdf"
    assert names.picture_file_name("s.h5", "1d_loss_acc", "pdf") == "s.h5_1d_loss_acc.pdf"
    assert names.export_stem("s.h5", "train_loss", 10.0, True) == "s.h5_train_loss_zmax=10.0_log"
    assert names.export_stem("s.h5", "train_loss") == "s.h5_train_loss"
    assert names.summary_file_name("s.h5", 3) == "s.h5_repeats=3.h5"


def test_names_of_paths_are_those_of_the_original():
    plane = pca_file_name("r", "weights", "", 2)
    assert plane == "r/PCA_weights_save_epoch=2/directions.h5"
    assert names.projection_file_name(plane) == f"{plane}_proj_cos.h5"
    assert pca_file_name("r", "states", "biasbn", 1) == "r/PCA_states_ignore=biasbn_save_epoch=1/directions.h5"

    joint = pca_file_name("r", "weights", "", 2, ("a", "deep_b"))
    assert joint == "r/PCA_weights_save_epoch=2_joint=a+deep_b/directions.h5"
    assert names.projection_file_name(joint, "deep_b") == f"{joint}_deep_b_proj_cos.h5"


@pytest.mark.parametrize("folders, common, labels", [
    (["r/a"], "r/a", ["a"]),
    (["r/a", "r/deep/b"], "r", ["a", "deep_b"]),
    (["r", "r/b"], "r", ["r", "b"]),
    (["r/a_b", "r/a/b"], "r", ["1_a_b", "2_a_b"]),
    (["/r/a", "/r/b"], "/r", ["a", "b"]),
])
def test_runs_are_called_by_their_folders_seen_from_the_common_one(folders, common, labels):
    assert names.common_folder(folders) == common and names.run_labels(folders) == labels
    files = names.projection_file_names("d.h5", labels)
    assert len(set(files)) == len(folders) and (len(files) > 1 or files == ["d.h5_proj_cos.h5"])


def test_the_pca_of_many_runs_has_a_name_of_bounded_length_of_its_own():
    runs = [f"a_run_with_a_long_name_{i}" for i in range(100)]
    one, other = (pca_file_name("r", "weights", "", 1, labels) for labels in (runs, runs[::-1]))
    assert one != other and "_joint=100-runs-" in one and len(one) < 255


# ---------------------------------------------------------------- read back

LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
FILE_NAMES = st.text(LETTERS, min_size=1, max_size=30)
COORDINATES = st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 1e-9)
LIMITS = st.tuples(COORDINATES, COORDINATES, st.integers(1, 200)).filter(lambda t: t[0] < t[1])
MAYBE_FILES = st.one_of(st.just(""), FILE_NAMES)
AXES = st.builds(axis, st.sampled_from(["", "filter"]), st.sampled_from(["", "biasbn"]), MAYBE_FILES)
SHORT_NAMES = st.text(st.characters(codec="ascii", exclude_characters="/\0"), min_size=1, max_size=10)
OPTIONS = st.lists(st.tuples(st.sampled_from(["loss", "dataset"]), st.text("ab_.=-[]x", max_size=10)), max_size=3)


@settings(max_examples=200, deadline=None)
@given(FILE_NAMES, AXES, st.one_of(st.none(), AXES), st.integers(0, 1000), LIMITS, OPTIONS)
def test_a_surface_files_name_is_read_back_into_its_parts(model_file, x, y, idx, limits, options):
    assume(not any(".h5_[" in value for _, value in options))
    grid = str(Grid.parse(f"{limits[0]!r}:{limits[1]!r}:{limits[2]}", None if y is None else "-1:1:3"))
    dir_file = direction_file_name(model_file, "weights", x, y, idx=idx)
    base = surface_file_name(dir_file, grid, options)

    name = SurfaceName.parse(base)
    assert len(os.fsencode(base)) <= 255
    assert (name.idx, name.grid) == (idx, grid)
    assert str(name) == base and name.is_1d == (y is None)
    if base == names.whole_surface_name(dir_file, grid, options):  # it was not shortened
        assert name.options == names.option_suffix(*options)
        assert name.stem + names.option_suffix(("idx", idx)) + ".h5" == dir_file


@pytest.mark.parametrize("name", ["", "s.h5", "d.h5_[", "d.h5_[-1.0,1.0,3]", "d.h5_-1.0,1.0,3.h5", "d.h5_proj_cos.h5",
                                  "d.h5_[-1.0,1.0,3].h5_1d_loss_acc.pdf", "d.h5_[-1.0,1.0,3].h5_repeats=3.h5"])
def test_what_is_no_name_of_a_surface_file_has_no_parts(name):
    assert SurfaceName.parse(name) is None


@settings(max_examples=25, deadline=None)
@given(SHORT_NAMES, st.sets(st.integers(0, 12), min_size=1))
def test_every_repeat_finds_all_repeats_and_nothing_else(tmp_path_factory, model_file, numbers):
    folder = tmp_path_factory.mktemp("repeats")

    def surface_path(idx, grid="[-1.0,1.0,3]", model=model_file):
        return str(folder / surface_file_name(direction_file_name(model, "weights", FILTER, idx=idx), grid))

    files = {idx: surface_path(idx) for idx in sorted(numbers)}
    others = [surface_path(1, "[-1.0,1.0,4]"), surface_path(1, model="other" + model_file),
              names.summary_file_name(files[min(numbers)], 3), str(folder / "s.h5")]
    for path in [*files.values(), *others]:
        open(path, "w").close()

    for path in files.values():
        assert names.repeats_of(path) == files
        assert list(names.repeats_of(path)) == sorted(numbers)
    assert names.repeats_of(str(folder / "s.h5")) == {}


def test_repeats_in_the_current_folder_have_names_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("m_idx=2.h5_[-1.0,1.0,3].h5", "m.h5_[-1.0,1.0,3].h5"):
        open(name, "w").close()
    assert names.repeats_of("m.h5_[-1.0,1.0,3].h5") == {
        0: "m.h5_[-1.0,1.0,3].h5", 2: "m_idx=2.h5_[-1.0,1.0,3].h5"}


@settings(max_examples=50, deadline=None)
@given(SHORT_NAMES, st.sets(SHORT_NAMES, max_size=3))
def test_the_projections_of_a_direction_file_are_found_and_no_others(tmp_path_factory, stem, runs):
    folder = tmp_path_factory.mktemp("projections")
    dir_file = str(folder / f"{stem}.h5")
    expected = {names.projection_file_name(dir_file, run) for run in {"", *runs}}
    for path in [*expected, dir_file, f"{dir_file}_proj_cos.h5.pdf", str(folder / "other.hdf_proj_cos.h5")]:
        open(path, "w").close()
    assert names.projections_of(dir_file) == sorted(expected)


def test_a_folder_that_is_not_there_holds_no_projections(tmp_path):
    assert names.projections_of(str(tmp_path / "none" / "d.h5")) == []


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_names_tell_patterns_apart_and_hold_no_separators(one, other):
    plain = names.plain_pattern(one)
    assert "/" not in plain and " " not in plain and len(plain.encode()) < 200
    if one != other:
        assert plain != names.plain_pattern(other)


def test_hidden_files_lie_beside_the_surface_under_short_names_the_same_for_every_link(tmp_path):
    target = str(tmp_path / ("s" * 250))
    link = str(tmp_path / "link.h5")
    os.symlink(target, link)
    paths = {names.lock_path(target), names.journal_path(target)}
    assert len(paths) == 2 and {names.lock_path(link), names.journal_path(link)} == paths
    for path in paths:
        assert os.path.dirname(path) == str(tmp_path)
        assert os.path.basename(path).startswith(".") and len(os.path.basename(path)) < 40
