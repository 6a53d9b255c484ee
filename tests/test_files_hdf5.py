"""Laws of HDF5 files from strangers: no other file is read, memory is bounded, and nothing crashes."""

import json
import os
import resource
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from losslandscape.describe import describe
from losslandscape.errors import InputError
from losslandscape.files import hdf5, variable_texts
from losslandscape.files.layouts import (
    Directions,
    read_directions,
    read_projection,
    read_surface,
    write_directions,
    write_projection,
    write_surface,
)
from tests.stores import surface
from tests.test_files_opening import make_special

SECRET = b"root:x:0:0\n"


def write_files(folder):
    """A surface, a direction and a projection file: {name: path}."""
    write_surface(folder / "surface.h5", surface((3, 4), dir_file="d.h5", provenance={"model": "m"}))
    write_directions(folder / "directions.h5", Directions([np.ones((3, 4))], [np.ones((3, 4))], {"model": "m"}))
    write_projection(
        folder / "projection.h5", dict.fromkeys(("proj_xcoord", "proj_ycoord", "epoch"), np.arange(3.0)), {})
    return {name: folder / f"{name}.h5" for name in READERS}


READERS = {"surface": read_surface, "directions": read_directions, "projection": read_projection}
DATA_SETS = {  # one or more of each kind of file
    "surface": ["train_loss", "computed/train_loss", "xcoordinates", "dir_file"],
    "directions": ["xdirection/0", "ydirection/0"],
    "projection": ["proj_xcoord", "epoch"],
}
ALL = [pytest.param(kind, name, id=f"{kind}: {name}") for kind, names in DATA_SETS.items() for name in names]


def change(path, name, make):
    """Replace the data set `name`; make(f, name, old shape, old dtype)."""
    with h5py.File(path, "a") as f:
        shape, dtype = f[name].shape, f[name].dtype
        del f[name]
        make(f, name, shape, dtype)


def assert_refused(kind, path, words):
    for read in (READERS[kind], describe):
        with pytest.raises(InputError, match=words) as caught:
            read(path)
        assert str(path) in str(caught.value) and "root:" not in str(caught.value)


# ---------------------------------------------------------------- no other file is read


def external_storage(f, name, shape, dtype):
    Path(f.filename).with_name("secret").write_bytes(SECRET * 100)
    f.create_dataset(name, shape, dtype, external=[("secret", 0, h5py.h5f.UNLIMITED)])


def external_link(f, name, *_):
    f[name] = h5py.ExternalLink("other.h5", "/values")


def link_to_a_pipe(f, name, *_):
    os.mkfifo(Path(f.filename).with_name("other.h5"))
    f[name] = h5py.ExternalLink("other.h5", "/values")


def virtual_data_set(f, name, shape, dtype):
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource("other.h5", "values", shape)
    f.create_virtual_dataset(name, layout)


def soft_link(f, name, *_):
    f[name] = h5py.SoftLink("/provenance")


def soft_link_to_itself(f, name, *_):
    f[name] = h5py.SoftLink(f"/{name}")


def hard_link_cycle(f, name, *_):
    f[name] = f["/"]


ELSEWHERE = [external_storage, external_link, link_to_a_pipe, virtual_data_set, soft_link, soft_link_to_itself,
             hard_link_cycle]


@pytest.mark.parametrize("kind, name", ALL)
@pytest.mark.parametrize("make", ELSEWHERE)
def test_values_that_are_elsewhere_are_not_read(tmp_path, monkeypatch, kind, name, make):
    monkeypatch.chdir(tmp_path)
    path = write_files(tmp_path)[kind]
    if name in ("epoch", "train_loss") and make is hard_link_cycle:
        return  # a group more, which is not looked into
    change(path, name, make)
    assert_refused(kind, path, "not read|not followed|found none|are not all|one-dimensional|expected a (group|text)")


@pytest.mark.parametrize("kind, group", [("surface", "computed"), ("directions", "xdirection")])
@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/"), h5py.SoftLink("/"), h5py.SoftLink("nowhere")])
def test_groups_that_are_elsewhere_are_not_read(tmp_path, kind, group, link):
    path = write_files(tmp_path)[kind]
    with h5py.File(path, "a") as f:
        del f[group]
        f[group] = link
    assert_refused(kind, path, "which is not followed")


@pytest.mark.parametrize("what", ["a folder", "a pipe", "a socket", "a device"])
@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind, what):
    held = make_special(tmp_path / "file.h5", what)
    assert_refused(kind, tmp_path / "file.h5", f"got {what}")
    if held is not None:
        held.close()


# ---------------------------------------------------------------- memory


def never_written(f, name, shape, dtype):
    f.create_dataset(name, shape, dtype)  # HDF5 takes no room before the first value


def chunks_never_written(f, name, shape, dtype):
    f.create_dataset(name, shape, dtype, chunks=tuple(max(1, n // 2) for n in shape))[..., 0] = 1


@pytest.mark.parametrize("kind, name", [param for param in ALL if "dir_file" not in param.values])
@pytest.mark.parametrize("make", [never_written, chunks_never_written])
def test_values_that_were_never_written_are_not_made_up(tmp_path, kind, name, make):
    path = write_files(tmp_path)[kind]
    change(path, name, make)
    assert_refused(kind, path, "which are not all")


def test_a_null_data_set_is_refused(tmp_path):
    for kind, names in DATA_SETS.items():
        for name in names:
            path = write_files(tmp_path)[kind]
            change(path, name, lambda f, name, _, dtype: f.create_dataset(name, data=h5py.Empty(dtype)))
            assert_refused(kind, path, "expected")


@pytest.fixture
def little_memory():
    """Within the test, taking more than 1 GB fails."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def huge_compressed(f, name, *_):
    data = f.create_dataset(name, (1 << 16, 1 << 16), "f4", chunks=(1 << 13, 1 << 14), compression="gzip")
    for row in range(0, 1 << 16, 1 << 13):
        for column in range(0, 1 << 16, 1 << 14):
            data.id.write_direct_chunk((row, column), b"\0")


def overfull_chunk(f, name, *_):
    """A chunk that becomes 2 GB when it is unpacked, where the data set says 64 bytes."""
    data = f.create_dataset(name, (4, 4), "f4", chunks=(4, 4), compression="gzip")
    packer = zlib.compressobj()
    first, further = (packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    data.id.write_direct_chunk((0, 0), first + further * 127)


def packed_twice(f, name, *_):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4, 4))
    plist.set_deflate(9)
    plist.set_deflate(9)
    space = h5py.h5s.create_simple((4, 4))
    data = h5py.h5d.create(f.id, name.encode(), h5py.h5t.NATIVE_FLOAT, space, plist)
    data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros((4, 4), np.float32))


def other_compression(f, name, *_):
    f.create_dataset(name, data=np.zeros((4, 4), np.float32), compression="lzf")


@pytest.mark.parametrize("make, words", [
    (huge_compressed, "claims 17.2 GB, far more than the file can hold"),
    (overfull_chunk, "larger than the file says"),
    (packed_twice, "h5repack"),
    (other_compression, "h5repack"),
])
def test_a_small_file_does_not_take_gigabytes(tmp_path, little_memory, make, words):
    path = write_files(tmp_path)["directions"]
    change(path, "xdirection/0", make)
    assert_refused("directions", path, words)


def test_many_links_to_one_data_set_do_not_take_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5._Budget, "FREE", 1 << 20)
    path = write_files(tmp_path)["directions"]
    with h5py.File(path, "a") as f:
        del f["xdirection"]
        f["xdirection/0"] = np.ones(10**4)
        for i in range(1, 100):
            f[f"xdirection/{i}"] = f["xdirection/0"]
    assert_refused("directions", path, "more than the file can hold")


@pytest.mark.parametrize("options", [
    {"chunks": (2, 3)}, {"chunks": True, "maxshape": (None, None)}, {"compression": "gzip"},
    {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (2, 2)}, {"fletcher32": True},
])
def test_values_in_chunks_are_read_and_so_are_gzipped_ones(tmp_path, options):
    path = write_files(tmp_path)["directions"]
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    change(path, "xdirection/0", lambda f, name, *_: f.create_dataset(name, data=values, **options))
    np.testing.assert_array_equal(read_directions(path).x[0], values)


def test_a_chunk_that_gzip_would_not_make_smaller_is_read(tmp_path):
    path = write_files(tmp_path)["directions"]
    noise = np.frombuffer(np.random.default_rng(0).bytes(64), np.uint8)
    change(path, "xdirection/0", lambda f, name, *_: f.create_dataset(name, data=noise, chunks=(8,), compression=9))
    np.testing.assert_array_equal(read_directions(path).x[0], noise)


# ---------------------------------------------------------------- texts


def test_texts_are_written_with_a_fixed_length_and_other_readers_get_bytes(tmp_path):
    text = "ordner/ö 山/\udcff.h5"
    write_surface(tmp_path / "s.h5", surface(dir_file=text, provenance={"model": "m"}))
    with h5py.File(tmp_path / "s.h5") as f:
        assert isinstance(f["dir_file"][()], bytes) and f["dir_file"][()] == text.encode(errors="surrogateescape")
        assert json.loads(f.attrs["provenance"]) == {"model": "m"}
        for dtype in (f["dir_file"].dtype, f.attrs.get_id("provenance").dtype):
            assert h5py.check_string_dtype(dtype).length is not None
    assert read_surface(tmp_path / "s.h5").dir_file == text


@pytest.mark.parametrize("length", [0, 1, 10**5])
def test_texts_of_any_length_are_read_as_they_were_written(tmp_path, length):
    made = surface(dir_file="d" * length, provenance={"command": "c" * length})
    write_surface(tmp_path / "s.h5", made)
    again = read_surface(tmp_path / "s.h5")
    assert again.dir_file == made.dir_file and again.provenance == made.provenance


def old_file(path):
    """A surface file as the original and our first version wrote them: texts of variable length."""
    write_surface(path, surface((3, 4)))
    with h5py.File(path, "a") as f:
        del f["dir_file"]
        f["dir_file"] = "old/ö.h5"
        f.attrs["provenance"] = json.dumps({"model": "old"})


def test_texts_of_variable_length_are_read_in_another_process_once(tmp_path, monkeypatch):
    old_file(tmp_path / "s.h5")
    starts = []
    run = variable_texts.subprocess.run
    monkeypatch.setattr(variable_texts.subprocess, "run", lambda *a, **k: (starts.append(a), run(*a, **k))[1])
    for _ in range(3):
        old = read_surface(tmp_path / "s.h5")
        assert old.dir_file == "old/ö.h5" and old.provenance == {"model": "old"}
    assert len(starts) == 1

    write_surface(tmp_path / "s.h5", old)  # from now on they have a fixed length
    assert read_surface(tmp_path / "s.h5").dir_file == "old/ö.h5" and len(starts) == 1


def damaged_heap(path, monkeypatch):
    """One wrong bit in the heap of an old file, after which HDF5 searches for ever."""
    old_file(path)
    image = bytearray(path.read_bytes())
    start = image.index(b"GCOL") + 16  # behind the head of the heap: its first object
    image[start + 8:start + 16] = bytes(8)  # which has no length
    path.write_bytes(image)
    monkeypatch.setattr(variable_texts, "MAX_SECONDS", 1)


def test_a_crash_or_an_endless_search_in_another_process_is_a_refusal(tmp_path, monkeypatch):
    damaged_heap(tmp_path / "s.h5", monkeypatch)
    start = time.monotonic()
    with pytest.raises(InputError, match="can't read the texts in .*s.h5"):
        read_surface(tmp_path / "s.h5")
    assert time.monotonic() - start < variable_texts.MAX_WAIT_SECONDS / 2


@pytest.mark.parametrize("child", ["import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "print('[1]')", "1/0",
                                   "print('{')", "import sys; sys.stdout.buffer.write(bytes([255]))"])
def test_whatever_becomes_of_the_other_process_is_a_refusal(tmp_path, monkeypatch, child):
    old_file(tmp_path / "s.h5")
    monkeypatch.setattr(variable_texts, "CHILD", child)
    with pytest.raises(InputError, match="can't read the texts in .*s.h5"):
        read_surface(tmp_path / "s.h5")


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", [b"aaaa\xff\xfeaa", b"a\naaaaaa", b"a\033[2Jaaa", b"a" * 2000])
def test_names_that_are_no_short_texts_are_refused(tmp_path, kind, name):
    """They would be shown: in tables, figures and messages."""
    path = write_files(tmp_path)[kind]
    with h5py.File(path, "a") as f:
        f["b" * len(name)] = np.arange(3.0)
    path.write_bytes(path.read_bytes().replace(b"b" * len(name), name))
    assert_refused(kind, path, "expected names that are short texts")


@pytest.mark.parametrize("value", [5, [1.0, 2.0], np.bytes_(b"\xff{}"), [b"{}", b"{}"], h5py.Empty("S5"), b"x"])
def test_a_provenance_that_is_no_text_is_refused(tmp_path, value):
    write_surface(tmp_path / "s.h5", surface())
    with h5py.File(tmp_path / "s.h5", "a") as f:
        f.attrs["provenance"] = value
    assert_refused("surface", tmp_path / "s.h5", "provenance")


def test_budgets_are_those_of_the_file():
    """The tests above stay true if the numbers change."""
    assert hdf5._Budget.FREE < 1 << 30 and hdf5._Budget.TIMES < 100
