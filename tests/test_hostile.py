"""Broken and hostile input through the command lines: one line, exit code 2, no traceback, no file changed.

Most cases call a script's main() in this process, which takes the same way as the command line; some start it.
"""

import ctypes
import errno
import hashlib
import importlib
import io
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from losslandscape import command
from losslandscape.files import layouts as h5_util
from tests.conftest import GOLDEN, ROOT

FILTER = ("--xnorm", "filter", "--xignore", "biasbn")


def call(capfd, script, *flags):
    """(exit code, stdout, stderr) of `python SCRIPT.py FLAGS`, without starting a process."""
    module = importlib.import_module(script)
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        command.run(lambda: module.main([str(flag) for flag in flags]))
    return (ended.value.code or 0, *capfd.readouterr())


def start(script, *flags, **options):
    """The same in a process of its own."""
    done = subprocess.run([sys.executable, ROOT / f"{script}.py", *map(str, flags)], cwd=ROOT, capture_output=True,
                          text=True, timeout=120, **options)
    return done.returncode, done.stdout, done.stderr


def contents(*folders):
    """Everything below `folders`: {path: what it is}."""
    found = {}
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            if path.is_symlink():
                found[path] = os.readlink(path)
            elif path.is_file():
                found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[path] = "folder"
    return found


def assert_refused(answer, words=""):
    code, _, err = answer
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: "), err
    assert re.search(words, lines[0]), lines[0]


@pytest.fixture(autouse=True, scope="module")
def memory_limit():
    """A case that asks for too much memory fails alone, and not the machine with it."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Files with which every command works. They must stay as they are."""
    folder = tmp_path_factory.mktemp("good")
    for name in ("model_6.t7", "model_4.t7"):
        shutil.copy(GOLDEN / name, folder)
    with np.load(GOLDEN / "data.npz") as f:
        np.savez(folder / "data.npz", **{k: v[:8] for k, v in f.items()})
    shutil.copy(GOLDEN / PLANE, folder / "d.h5")
    shutil.copy(GOLDEN / f"{PLANE}_[-1.0,1.0,5]x[-1.0,1.0,5].h5", folder / "s.h5")
    shutil.copy(GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5_proj_cos.h5", folder / "p.h5")
    return folder


PLANE = "model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"


def compute(good, **changes):
    """Flags of plot_surface.py that work with the good files, with changes."""
    flags = {"model": "resnet20", "dataset": good / "data.npz", "model_file": good / "model_6.t7", "x": "-1:1:2",
             "batch_size": 8, "dir_file": good / "d.h5"} | changes
    return [f"--{name}={value}" for name, value in flags.items() if value is not None]


# ---------------------------------------------------------------- damaged files

DAMAGES = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "first half": lambda data: data[: len(data) // 2],
    "last byte missing": lambda data: data[:-1],
    "first bits flipped": lambda data: bytes(b ^ 0xFF for b in data[:16]) + data[16:],
    "zeros after the head": lambda data: data[:64] + bytes(len(data) - 64),
    "text": lambda data: b"this is no such file\n" * 20,
    "html": lambda data: b"<!DOCTYPE html><html>404</html>",
}

# what is read, by which command: kind -> (good file, extension, script and flags with the bad file)
READERS = {
    "surface, plot_2D": ("s.h5", ".h5", lambda g, bad: ("plot_2D", "--surf_file", bad)),
    "surface, plot_surface": ("s.h5", ".h5", lambda g, bad: ("plot_surface", *compute(g, surf_file=bad))),
    "directions": ("d.h5", ".h5", lambda g, bad: ("plot_surface", *compute(g, dir_file=bad))),
    "projection": ("p.h5", ".h5", lambda g, bad: ("plot_2D", "--surf_file", g / "s.h5", "--proj_file", bad)),
    "checkpoint": ("model_6.t7", ".t7", lambda g, bad: ("plot_surface", *compute(g, model_file=bad))),
    "npz": ("data.npz", ".npz", lambda g, bad: ("plot_surface", *compute(g, dataset=bad))),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_refused_in_one_line_and_kept(capfd, good, tmp_path, reader, damage):
    name, extension, command = READERS[reader]
    bad = tmp_path / f"bad{extension}"
    bad.write_bytes(DAMAGES[damage]((good / name).read_bytes()))
    before = contents(good, tmp_path)
    assert_refused(call(capfd, *command(good, bad)), re.escape(str(bad)))
    assert contents(good, tmp_path) == before


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", ["missing", "folder", "loop"])
def test_a_name_that_leads_to_no_file_is_refused(capfd, good, tmp_path, reader, what):
    _, extension, command = READERS[reader]
    if reader in ("surface, plot_surface", "directions") and what == "missing":
        return  # then the file is made
    bad = tmp_path / f"bad{extension}"
    if what == "folder":
        bad.mkdir()
    if what == "loop":
        bad.symlink_to(bad.name)
    before = contents(good, tmp_path)
    assert_refused(call(capfd, *command(good, bad)))
    assert contents(good, tmp_path) == before


SCRIPTS = ("losslandscape.describe", "plot_1D", "plot_2D", "h52vtp", "h52html")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_reader_of_surfaces_refuses_a_truncated_one(capfd, good, tmp_path, script):
    bad = tmp_path / "s.h5"
    bad.write_bytes((good / "s.h5").read_bytes()[:3000])
    before = contents(tmp_path)
    assert_refused(call(capfd, script, *(["--surf_file"] if script != "losslandscape.describe" else []), bad))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_never_make_a_traceback(capfd, good, tmp_path, seed):
    """In the values a flipped bit can't be seen; everywhere else it is refused."""
    rng = np.random.default_rng(seed)
    for name in ("s.h5", "p.h5"):
        bad = tmp_path / name
        data = bytearray((good / name).read_bytes())
        for position in rng.integers(0, len(data), 40):
            data[position] ^= 1 << rng.integers(8)
        bad.write_bytes(data)
        answer = call(capfd, "losslandscape.describe", bad)
        if answer[0]:
            assert_refused(answer)
        assert bad.read_bytes() == data


# ---------------------------------------------------------------- well-formed files with the wrong things in them


def replace(name, **settings):
    """A change that puts another data set in the place of `name`."""

    def change(f):
        if name in f:
            del f[name]
        f.create_dataset(name, **settings)

    return change


def remove(name):
    return lambda f: f.__delitem__(name)


HUGE = dict(shape=(10**6, 10**7), dtype="f8", chunks=(10, 10))
SURFACES = {
    "no x coordinates": remove("xcoordinates"),
    "x coordinates are text": replace("xcoordinates", data=[b"a", b"b"]),
    "x coordinates of two dimensions": replace("xcoordinates", data=np.ones((2, 2))),
    "x coordinates are one number": replace("xcoordinates", data=1.0),
    "no points": replace("xcoordinates", data=np.ones(0)),
    "x coordinates are a group": lambda f: (remove("xcoordinates")(f), f.create_group("xcoordinates")),
    "huge x coordinates": replace("xcoordinates", shape=(10**13,), dtype="f8", chunks=(10,)),
    "huge values": replace("train_loss", **HUGE),
    "values of another shape": replace("train_loss", data=np.ones((4, 5))),
    "values of three dimensions": replace("train_loss", data=np.ones((5, 5, 1))),
    "values are text": replace("train_loss", data=np.full((5, 5), b"x")),
    "values are compound": replace("train_loss", data=np.zeros((5, 5), [("a", "f8"), ("b", "i4")])),
    "mask of another shape": replace("computed/train_loss", data=np.ones(3, bool)),
    "provenance is no JSON": lambda f: f.attrs.__setitem__("provenance", "{"),
    "provenance is a list": lambda f: f.attrs.__setitem__("provenance", "[1]"),
    "provenance is a number": lambda f: f.attrs.__setitem__("provenance", 3.5),
    "provenance is not UTF-8": lambda f: f.attrs.__setitem__("provenance", np.bytes_(b"\xff\xfe")),
    "values link to themselves": lambda f: (remove("train_loss")(f), f.__setitem__(
        "train_loss", h5py.SoftLink("/train_loss"))),
    "values link to another file": lambda f: (remove("train_loss")(f), f.__setitem__(
        "train_loss", h5py.ExternalLink("/etc/passwd", "/x"))),
}


@pytest.mark.parametrize("case", SURFACES)
def test_a_surface_file_with_the_wrong_things_in_it_is_refused(capfd, good, tmp_path, case):
    bad = tmp_path / "bad.h5"
    shutil.copy(good / "s.h5", bad)
    with h5py.File(bad, "a") as f:
        SURFACES[case](f)
    before = contents(good, tmp_path)
    assert_refused(call(capfd, "plot_2D", "--surf_file", bad))
    assert_refused(call(capfd, "plot_surface", *compute(good, surf_file=bad, x="-1:1:5", y="-1:1:5")))
    assert contents(good, tmp_path) == before


DIRECTIONS = {
    "no x direction": remove("xdirection"),
    "no y direction": remove("ydirection"),
    "a tensor is missing": remove("xdirection/7"),
    "a tensor too many": replace("xdirection/65", data=np.ones(3, "f4")),
    "a tensor of another shape": replace("xdirection/0", data=np.ones((16, 3, 3, 4), "f4")),
    "a huge tensor": replace("xdirection/0", **HUGE),
    "a tensor is text": replace("xdirection/0", data=[b"x"]),
    "a tensor is a group": lambda f: (remove("xdirection/0")(f), f.create_group("xdirection/0")),
    "the direction is no group": replace("xdirection", data=np.ones(5)),
    "provenance is no JSON": lambda f: f.attrs.__setitem__("provenance", "no"),
}


@pytest.mark.parametrize("case", DIRECTIONS)
def test_a_direction_file_with_the_wrong_things_in_it_is_refused(capfd, good, tmp_path, case):
    bad = tmp_path / "bad.h5"
    shutil.copy(good / "d.h5", bad)
    with h5py.File(bad, "a") as f:
        DIRECTIONS[case](f)
    before = contents(good, tmp_path)
    assert_refused(call(capfd, "plot_surface", *compute(good, dir_file=bad, y="-1:1:2")))
    assert contents(good, tmp_path) == before


PROJECTIONS = {
    "no y": remove("proj_ycoord"),
    "unequal lengths": replace("proj_ycoord", data=np.ones(2)),
    "two dimensions": replace("proj_xcoord", data=np.ones((4, 1))),
    "text": replace("proj_xcoord", data=[b"a"] * 4),
    "huge": replace("proj_xcoord", shape=(10**13,), dtype="f8", chunks=(10,)),
}


@pytest.mark.parametrize("case", PROJECTIONS)
def test_a_projection_file_with_the_wrong_things_in_it_is_refused(capfd, good, tmp_path, case):
    bad = tmp_path / "bad.h5"
    shutil.copy(good / "p.h5", bad)
    with h5py.File(bad, "a") as f:
        PROJECTIONS[case](f)
    before = contents(good, tmp_path)
    assert_refused(call(capfd, "plot_2D", "--surf_file", good / "s.h5", "--proj_file", bad))
    assert contents(good, tmp_path) == before


def weights(**changes):
    state = torch.load(GOLDEN / "model_6.t7", weights_only=True)["state_dict"]
    return {"state_dict": {key: value for key, value in (state | changes).items() if value is not None}}


CHECKPOINTS = {
    "a list": lambda: [1, 2, 3],
    "a number": lambda: 7,
    "an empty dict": dict,
    "an empty state dict": lambda: {"state_dict": {}},
    "a key is missing": lambda: weights(**{"linear.bias": None}),
    "a key too many": lambda: weights(extra=torch.ones(2)),
    "another shape": lambda: weights(**{"conv1.weight": torch.ones(16, 3, 5, 5)}),
    "integers": lambda: weights(**{"conv1.weight": torch.ones(16, 3, 3, 3, dtype=torch.int64)}),
    "text instead of a tensor": lambda: weights(**{"linear.bias": "x"}),
    "a sparse tensor": lambda: weights(**{"linear.bias": torch.ones(10).to_sparse()}),
    "names that are no text": lambda: {"state_dict": {1: torch.ones(1)}},
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_that_does_not_fit_is_refused(capfd, good, tmp_path, case):
    torch.save(CHECKPOINTS[case](), tmp_path / "bad.t7")
    before = contents(good, tmp_path)
    assert_refused(call(capfd, "plot_surface", *compute(good, model_file=tmp_path / "bad.t7")), "bad.t7")
    assert contents(good, tmp_path) == before


def npy(shape, dtype="<f4", data=b""):
    """A .npy file with a header that need not be true."""
    f = io.BytesIO()
    np.lib.format.write_array_header_1_0(f, {"descr": dtype, "fortran_order": False, "shape": shape})
    return f.getvalue() + data


ARRAYS = {
    "huge images": {"x_train.npy": npy((10**6, 3, 10**4, 10**4))},
    "more dimensions than bytes": {"x_train.npy": npy((8, 3, 32, 32))},
    "a negative size": {"x_train.npy": npy((-8, 3, 32, 32))},
    "no header": {"x_train.npy": b"nonsense"},
    "no labels": {"y_train.npy": None},
    "labels of another number": {"y_train": np.zeros(3, int)},
    "labels are text": {"y_train": np.array(["a"] * 8)},
    "labels are fractions": {"y_train": np.linspace(0, 1, 8)},
    "labels are negative": {"y_train": np.full(8, -1)},
    "labels beyond the outputs": {"y_train": np.full(8, 10)},
    "images are complex": {"x_train": np.zeros((8, 3, 32, 32), complex)},
    "images of two dimensions": {"x_train": np.zeros((8, 3072), np.float32)},
    "images of four channels": {"x_train": np.zeros((8, 4, 32, 32), np.float32)},
    "no images": {"x_train": np.zeros((0, 3, 32, 32), np.float32), "y_train": np.zeros(0, int)},
}


@pytest.mark.parametrize("case", ARRAYS)
def test_an_npz_with_the_wrong_things_in_it_is_refused(capfd, good, tmp_path, case):
    with np.load(good / "data.npz") as f:
        arrays = {f"{name}.npy": f[name] for name in ("x_train", "y_train")}
    changes = {name if name.endswith(".npy") else f"{name}.npy": value for name, value in ARRAYS[case].items()}
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for name, value in (arrays | changes).items():
            if isinstance(value, np.ndarray):
                f = io.BytesIO()
                np.save(f, value)
                value = f.getvalue()
            if value is not None:
                archive.writestr(name, value)
    before = contents(good, tmp_path)
    assert_refused(call(capfd, "plot_surface", *compute(good, dataset=tmp_path / "bad.npz")))
    assert contents(good, tmp_path) == before


# ---------------------------------------------------------------- flags

FLAGS = {
    "x": ["-1:1:0", "-1:1:-5", "-1:1:1000000000", "-1:1:99999999999999999999", "1:-1:5", "1:1:5", "a:b:c", "-1:1",
          "-1:1:5:7", "nan:1:3", "-inf:1:3", "-1:1:2.5", "-1:1:", ":::", "", "-1e400:1:3", "-1:1:1e2"],
    "y": ["-1:1:0", "-1:1:-1", "-1:1:100000000", "x"],
    "batch_size": ["0", "-1", "many", "1.5"],
    "data_split": ["0", "-2", "1000"],
    "split_idx": ["1", "-1"],
    "idx": ["-1", "x"],
    "ngpu": ["0"],
    "threads": ["-1"],
    "model": ["resnet21", "", "../model", "vgg9"],
    "dataset": ["cifar11", "no.npz"],
    "loss_name": ["l1"],
    "dir_type": ["weight"],
    "eval_set": ["all"],
    "precision": ["fp8", "tf32"],
    "model_file": [""],
    "model_file2": ["no.t7"],
    "loss_max": ["high"],
    "surf_file": ["no/folder/s.h5", "x" * 300],
    "nonsense": ["1"],
}


@pytest.mark.parametrize("flag, value", [(flag, value) for flag, values in FLAGS.items() for value in values])
def test_a_flag_that_makes_no_sense_is_refused_and_nothing_is_made(capfd, good, tmp_path, monkeypatch, flag, value):
    monkeypatch.chdir(tmp_path)
    before = contents(good, tmp_path)
    assert_refused(call(capfd, "plot_surface", *compute(good, **{"dir_file": None, flag: value}), *FILTER))
    assert contents(good, tmp_path) == before


def test_a_grid_with_more_points_than_memory_is_refused(capfd, good, tmp_path):
    flags = compute(good, x="-1:1:9999999", y="-1:1:9999999", surf_file=tmp_path / "s.h5")
    assert_refused(call(capfd, "plot_surface", *flags), "at most")
    assert contents(tmp_path) == {tmp_path: "folder"}


# ---------------------------------------------------------------- odd, but right

NAMES = ["with spaces.h5", "[brackets](and){others}.h5", "*?.h5", "résumé-损失-🌄.h5", "-dash.h5", "quote'\".h5",
         "per%cent$HOME.h5", "new\nline.h5", "x" * 247 + ".h5"]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_works(capfd, good, tmp_path, name):
    file = tmp_path / name
    assert call(capfd, "plot_surface", *compute(good, surf_file=file))[0] == 0
    assert os.listdir(tmp_path) == [name] and h5_util.read_surface(file).computed["train_loss"].all()
    assert call(capfd, "losslandscape.describe", file)[0] == 0


def test_a_model_in_a_folder_with_an_odd_name_works(capfd, good, tmp_path):
    folder = tmp_path / "a [b] ünï $x"
    folder.mkdir()
    shutil.copy(good / "model_6.t7", folder)
    flags = compute(good, model_file=folder / "model_6.t7", dir_file=None)
    assert call(capfd, "plot_surface", *flags, *FILTER)[0] == 0
    assert len([f for f in folder.iterdir() if f.suffix == ".h5"]) == 2


def test_a_picture_whose_name_would_be_too_long_has_a_shorter_one(capfd, good, tmp_path):
    file = tmp_path / ("x" * 247 + ".h5")
    shutil.copy(good / "s.h5", file)
    assert call(capfd, "h52vtp", "--surf_file", file)[0] == 0
    (picture,) = set(os.listdir(tmp_path)) - {file.name}
    assert picture.startswith("xxx") and picture.endswith("_train_loss.vtp") and len(picture) <= 255


def test_a_link_to_a_surface_file_stays_a_link(capfd, good, tmp_path):
    """The file may lie on a larger disk."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "s.h5"
    link.symlink_to("disk/s.h5")
    assert call(capfd, "plot_surface", *compute(good, surf_file=link))[0] == 0
    assert link.is_symlink() and h5_util.read_surface(tmp_path / "disk" / "s.h5").computed["train_loss"].all()
    assert sorted(os.listdir(tmp_path)) == ["disk", "s.h5"] and os.listdir(tmp_path / "disk") == ["s.h5"]


def test_nan_weights_give_nan_losses(capfd, good, tmp_path):
    state = weights()
    state["state_dict"]["linear.weight"][0, 0] = np.nan
    torch.save(state, tmp_path / "nan.t7")
    flags = compute(good, model_file=tmp_path / "nan.t7", surf_file=tmp_path / "s.h5")
    code, _, err = call(capfd, "plot_surface", *flags)
    found = h5_util.read_surface(tmp_path / "s.h5")
    assert code == 0 and "Traceback" not in err
    assert found.computed["train_loss"].all() and np.isnan(found.values["train_loss"]).all()


def test_nan_images_are_warned_about(capfd, good, tmp_path):
    with np.load(good / "data.npz") as f:
        arrays = dict(f)
    arrays["x_train"][3, 0, 0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", **arrays)
    flags = compute(good, dataset=tmp_path / "nan.npz", surf_file=tmp_path / "s.h5")
    code, _, err = call(capfd, "plot_surface", *flags)
    assert code == 0 and "warning: 1 of 8 train inputs" in err


# ---------------------------------------------------------------- places that can't be written


def without_privileges():
    """Root may write anywhere; without these two capabilities it is a user like others."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; refused, and not needed, without root


@pytest.mark.parametrize("case", ["folder", "surface", "model"])
def test_without_permission_nothing_is_made_and_one_line_says_so(good, tmp_path, case):
    for name in ("model_6.t7", "data.npz", "d.h5"):
        shutil.copy(good / name, tmp_path)
    if case == "surface":
        shutil.copy(good / "s.h5", tmp_path / "new.h5")
    locked = {"folder": tmp_path, "surface": tmp_path / "new.h5", "model": tmp_path / "model_6.t7"}[case]
    before = contents(tmp_path)
    mode = locked.stat().st_mode
    locked.chmod(0o555 if case == "folder" else 0)
    try:
        flags = compute(tmp_path, surf_file=tmp_path / "new.h5")
        assert_refused(start("plot_surface", *flags, preexec_fn=without_privileges))
    finally:
        locked.chmod(mode)
    assert contents(tmp_path) == before


def small_files(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [0, 100, 3000, 100_000])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(good, tmp_path, size):
    """Too full for the lock, for the surface, for the directions."""
    model = tmp_path / "model_6.t7"
    shutil.copy(good / "model_6.t7", model)
    before = contents(good, tmp_path)
    changes = {"dir_file": None} if size == 100_000 else {"surf_file": tmp_path / "s.h5"}
    assert_refused(start("plot_surface", *compute(good, model_file=model, **changes), "--xnorm=filter",
                         preexec_fn=small_files(size)), "make room|" + os.strerror(errno.EFBIG))
    assert contents(good, tmp_path) == before


@pytest.mark.parametrize("script", ["h52html", "plot_2D"])
def test_a_full_disk_under_a_picture_is_one_line(good, tmp_path, script):
    shutil.copy(good / "s.h5", tmp_path)
    before = contents(tmp_path)
    answer = start(script, "--surf_file", tmp_path / "s.h5", preexec_fn=small_files(500),
                   env={**os.environ, "MPLCONFIGDIR": "/nonexistent"})
    errors_only = "\n".join(line for line in answer[2].splitlines() if line.startswith(("error", "Trace")))
    assert_refused((answer[0], answer[1], errors_only))
    assert contents(tmp_path) == before


# ---------------------------------------------------------------- pickles that would run code


class Code:
    """Unpickling it makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def evil_checkpoint(folder, code):
    torch.save({"state_dict": code}, folder / "evil.t7")
    return {"model_file": folder / "evil.t7"}


def evil_old_checkpoint(folder, code):
    torch.save({"state_dict": code}, folder / "evil.t7", _use_new_zipfile_serialization=False)
    return {"model_file": folder / "evil.t7"}


def evil_plain_pickle(folder, code):
    (folder / "evil.t7").write_bytes(pickle.dumps({"state_dict": code}))
    return {"model_file": folder / "evil.t7"}


def evil_second_model(folder, code):
    torch.save(code, folder / "evil.t7")
    return {"model_file2": folder / "evil.t7", "dir_file": None, "surf_file": folder / "s.h5"}


def evil_third_model(folder, code):
    torch.save(code, folder / "evil.t7")
    return {"model_file3": folder / "evil.t7", "dir_file": None, "surf_file": folder / "s.h5", "y": "-1:1:2",
            "xnorm": "filter"}


def evil_trainloader(folder, code):
    torch.save(code, folder / "evil.pt")
    return {"trainloader": folder / "evil.pt"}


def evil_testloader(folder, code):
    torch.save(code, folder / "evil.pt")
    return {"testloader": folder / "evil.pt", "eval_set": "test"}


def evil_cifar(folder, code):
    (folder / "cifar-10-batches-py").mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]:
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps({b"data": code, b"labels": [0]}, protocol=2))
    return {"dataset": "cifar10", "datapath": folder}


def evil_npz(folder, code):
    np.savez(folder / "evil.npz", x_train=np.array([code], dtype=object), y_train=np.zeros(1, int))
    return {"dataset": folder / "evil.npz"}


EVIL = [evil_checkpoint, evil_old_checkpoint, evil_plain_pickle, evil_second_model, evil_third_model, evil_trainloader,
        evil_testloader, evil_cifar, evil_npz]
TRUSTED = [evil_checkpoint, evil_old_checkpoint, evil_trainloader, evil_testloader]


@pytest.mark.parametrize("make", EVIL)
def test_a_pickle_that_would_run_code_is_refused_and_has_not_run(capfd, good, tmp_path, make):
    marker = tmp_path / "the code ran"
    changes = make(tmp_path, Code(marker))
    before = contents(good, tmp_path)
    assert_refused(call(capfd, "plot_surface", *compute(good, **changes)),
                   "--trust_pickle" if make in TRUSTED else "")
    assert not marker.exists() and contents(good, tmp_path) == before


def curvature(good, evil):
    return "plot_hessian_eigen", *compute(good, model_file=evil)


def trajectory(good, evil):
    shutil.copy(good / "model_4.t7", evil.parent)
    evil.rename(evil.parent / "model_6.t7")
    return "plot_trajectory", "--model", "resnet20", "--model_folder", evil.parent


def trajectory_data(good, evil):
    for name in ("model_4.t7", "model_6.t7"):
        shutil.copy(good / name, evil.parent)
    return "plot_trajectory", "--model", "resnet20", "--model_folder", evil.parent, "--eval", "--trainloader", evil


def training(good, evil):
    return ("cifar10.main", "--model", "resnet20", "--dataset", "digits", "--save", evil.parent / "nets",
            "--resume_model", evil)


def training_optimizer(good, evil):
    torch.save(weights() | {"epoch": 1}, evil.parent / "model_1.t7")
    return ("cifar10.main", "--model", "resnet20", "--dataset", "digits", "--save", evil.parent / "nets",
            "--resume_model", evil.parent / "model_1.t7", "--resume_opt", evil)


OTHERS = [curvature, trajectory, trajectory_data, training, training_optimizer]


@pytest.mark.parametrize("command", OTHERS)
@pytest.mark.parametrize("trust", [False, True])
def test_the_other_programs_run_code_of_a_file_only_if_told_to_trust_it(capfd, good, tmp_path, command, trust):
    marker, evil = tmp_path / "the code ran", tmp_path / "evil.t7"
    torch.save({"state_dict": Code(marker), "optimizer": Code(marker)}, evil)
    flags = command(good, evil)
    before = contents(good, tmp_path)
    assert_refused(call(capfd, *flags, *["--trust_pickle"] * trust), "" if trust else "--trust_pickle")
    assert marker.exists() == trust
    if not trust:
        assert contents(good, tmp_path) == before


@pytest.mark.parametrize("make", TRUSTED)
def test_the_only_way_round_is_trust_pickle(capfd, good, tmp_path, make):
    """So the files of the test above do hold code that runs."""
    marker = tmp_path / "the code ran"
    answer = call(capfd, "plot_surface", *compute(good, **make(tmp_path, Code(marker))), "--trust_pickle")
    assert marker.is_dir()
    assert_refused(answer)  # there is still no network, and there are no data


@pytest.mark.parametrize("make", [evil_cifar, evil_npz])
def test_data_sets_never_run_code_not_even_with_trust_pickle(capfd, good, tmp_path, make):
    marker = tmp_path / "the code ran"
    assert_refused(call(capfd, "plot_surface", *compute(good, **make(tmp_path, Code(marker))), "--trust_pickle"))
    assert not marker.exists()


def test_trust_pickle_says_what_it_does(capfd):
    _, out, _ = call(capfd, "plot_surface", "--help")
    assert "RUNS THE CODE" in out
