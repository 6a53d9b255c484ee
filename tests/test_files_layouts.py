"""Laws of the three file layouts: read as written, and nothing that is read is believed."""

import contextlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losslandscape.errors import InputError
from losslandscape.files.grid import Grid, Surface
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

NUMBERS = st.floats(width=64, allow_nan=True, allow_infinity=True)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 5)))
def test_a_surface_is_read_as_it_was_written(tmp_path_factory, data, nx, ny):
    shape = (nx,) if ny is None else (ny, nx)
    size = int(np.prod(shape))
    values = np.array(data.draw(st.lists(NUMBERS, min_size=size, max_size=size))).reshape(shape)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size))).reshape(shape)
    grid = Grid(np.linspace(0, 1, nx), None if ny is None else np.linspace(0, 1, ny))
    file = tmp_path_factory.getbasetemp() / "roundtrip.h5"
    write_surface(file, Surface(grid, {"loss": values}, {"loss": mask}, "d.h5", {"a": [1, "b"]}))
    found = read_surface(file)
    np.testing.assert_array_equal(found.values["loss"], np.where(mask, values, np.nan))
    np.testing.assert_array_equal(found.computed["loss"], mask)
    assert found.grid.shape == shape and found.dir_file == "d.h5" and found.provenance == {"a": [1, "b"]}


def test_a_computed_minus_one_is_a_result_and_a_masked_point_is_not(tmp_path):
    made = surface((1, 3), -1.0)
    made.computed["train_loss"][0, 1] = False
    write_surface(tmp_path / "s.h5", made)
    assert read_surface(tmp_path / "s.h5").get("train_loss").mask.tolist() == [[False, True, False]]


def test_directions_and_projections_are_read_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    x = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (4,), ())]
    write_directions(tmp_path / "d.h5", Directions(x, x[::-1], {"model": "m"}, {"v": np.arange(2.0)}))
    found = read_directions(tmp_path / "d.h5")
    for a, b in zip(found.x + found.y, x + x[::-1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.provenance == {"model": "m"} and found.extra["v"].tolist() == [0, 1]
    arrays = {"proj_xcoord": np.arange(3.0), "proj_ycoord": -np.arange(3.0)}
    write_projection(tmp_path / "p.h5", arrays, {"k": 1})
    got, provenance = read_projection(tmp_path / "p.h5")
    np.testing.assert_array_equal(got["proj_ycoord"], arrays["proj_ycoord"])
    assert provenance == {"k": 1}


def test_directions_of_complex_weights_are_read_as_they_were_written(tmp_path):
    axis = [np.array([[1 + 2j, -0.5j]], np.complex64), np.ones(3, np.float32)]
    write_directions(tmp_path / "d.h5", Directions(axis))
    for array, expected in zip(read_directions(tmp_path / "d.h5").x, axis, strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_a_point_that_is_not_computed_is_minus_1_in_the_file_and_nan_in_memory(tmp_path):
    made = surface((1, 3), 5.0)
    made.computed["train_loss"][0, 1] = False
    write_surface(tmp_path / "s.h5", made)
    with h5py.File(tmp_path / "s.h5") as f:
        assert f["train_loss"][:].tolist() == [[5.0, -1.0, 5.0]]  # for readers that know no mask
    np.testing.assert_array_equal(read_surface(tmp_path / "s.h5").values["train_loss"], [[5.0, np.nan, 5.0]])


@pytest.mark.parametrize("name, value", [("train_loss", -1.0), ("max_eig", -1.0), ("min_eig", 1.0)])
def test_in_a_file_without_a_mask_the_originals_value_says_what_is_missing(tmp_path, name, value):
    write_surface(tmp_path / "s.h5", surface((1, 2), 0.5, name))
    with h5py.File(tmp_path / "s.h5", "a") as f:
        del f["computed"]
        f[name][0, 1] = value
    assert read_surface(tmp_path / "s.h5").get(name).mask.tolist() == [[False, True]]


def test_the_byte_order_of_another_machine_is_read(tmp_path):
    write_directions(tmp_path / "d.h5", Directions([np.zeros(3)]))
    with h5py.File(tmp_path / "d.h5", "a") as f:
        del f["xdirection/0"]
        f["xdirection/0"] = np.arange(3, dtype=">f4")
    (array,) = read_directions(tmp_path / "d.h5").x
    assert array.dtype == np.float32 and array.dtype.isnative and array.tolist() == [0, 1, 2]


# ---------------------------------------------------------------- nothing is believed


def replaced(name, **values):
    """A change of an HDF5 file: another data set `name`."""

    def change(f):
        if name in f:
            del f[name]
        f.create_dataset(name, **values)

    return change


def grouped(name):
    """A change of an HDF5 file: a group `name`."""

    def change(f):
        del f[name]
        f.create_group(name)

    return change


SURFACES = {
    "coordinates are NaN": replaced("xcoordinates", data=[0.0, np.nan, 1.0, 2.0]),
    "coordinates are infinite": replaced("ycoordinates", data=[0.0, 1.0, np.inf]),
    "coordinates go back and forth": replaced("xcoordinates", data=[0.0, 1.0, 0.5, 2.0]),
    "coordinates stand twice": replaced("xcoordinates", data=[0.0, 1.0, 1.0, 2.0]),
    "far more points than values": lambda f: [
        replaced(name, data=np.arange(10.0**5))(f) for name in ("xcoordinates", "ycoordinates")],
    "the mask is not of yes and no": replaced("computed/train_loss", data=np.full((3, 4), np.nan)),
    "the name of the direction file is a number": replaced("dir_file", data=5),
    "the name of the direction file is a group": grouped("dir_file"),
    "the name of the direction file is many": replaced("dir_file", data=[b"a", b"b"]),
    "the name of the direction file is endless": replaced("dir_file", data="x" * 10**6),
}
DIRECTIONS = {
    "the variances are too many": replaced("explained_variance_ratio_", data=np.ones((2, 2))),
    "the variances are text": replaced("explained_variance_ratio_", data=[b"a", b"b"]),
}
PROJECTIONS = {
    "a coordinate is NaN": replaced("proj_xcoord", data=[0.0, np.nan, 1.0]),
    "other lengths": replaced("epoch", data=[1, 2]),
    "a single number": replaced("distance", data=1.0),
}
DAMAGES = [
    pytest.param(kind, damage, id=f"{kind}: {name}")
    for kind, damages in (("surface", SURFACES), ("directions", DIRECTIONS), ("projection", PROJECTIONS))
    for name, damage in damages.items()
]


def write_good_file(kind, path):
    if kind == "surface":
        write_surface(path, surface((3, 4), dir_file="d.h5"))
    elif kind == "directions":
        write_directions(path, Directions([np.ones(3)], [np.ones(3)]))
    else:
        write_projection(path, dict.fromkeys(("proj_xcoord", "proj_ycoord", "epoch"), np.arange(3.0)), {})


@pytest.mark.parametrize("kind, damage", DAMAGES)
def test_a_file_with_the_wrong_things_in_it_is_refused_in_words_that_name_it(tmp_path, kind, damage):
    path = tmp_path / "file.h5"
    write_good_file(kind, path)
    read = {"surface": read_surface, "directions": read_directions, "projection": read_projection}[kind]
    read(path)

    with h5py.File(path, "a") as f:
        damage(f)
    with pytest.raises(InputError, match="file.h5") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", [b"d.h5", np.array([b"d.h5"]), "d.h5", np.bytes_(b"d.h5")])
def test_the_name_of_the_direction_file_is_read_in_every_form_of_text(tmp_path, name):
    write_good_file("surface", tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "a") as f:
        replaced("dir_file", data=name)(f)
    assert read_surface(tmp_path / "s.h5").dir_file == "d.h5"


OTHER_FILES = ["surface", "directions", "projection", "model", "damaged"]


@pytest.mark.parametrize("kind", ["surface", "directions", "projection"])
@pytest.mark.parametrize("other", OTHER_FILES)
def test_a_file_replaces_one_of_its_own_kind_or_an_empty_one_and_no_other(tmp_path, kind, other):
    path = tmp_path / "file"
    path.touch()
    write_good_file(kind, path)
    write_good_file(kind, path)
    path.unlink()
    if other == kind:
        return

    if other == "model":
        path.write_bytes(b"PK\x03\x04 trained for a month")
    elif other == "damaged":
        write_good_file(kind, path)
        path.write_bytes(path.read_bytes()[:-100])
    else:
        write_good_file(other, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="or of a .* file to replace, got .*file, which is something else"):
        write_good_file(kind, path)
    assert path.read_bytes() == before


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_to_the_bytes_of_a_file_is_refused_or_read(tmp_path_factory, data):
    """Not one of them may end in another exception."""
    path = tmp_path_factory.getbasetemp() / "bytes.h5"
    path.unlink(missing_ok=True)
    write_good_file("surface", path)
    image = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(image) - 1), min_size=1, max_size=20)):
        image[position] = data.draw(st.integers(0, 255))
    path.write_bytes(image[:data.draw(st.integers(0, len(image)))])

    with contextlib.suppress(InputError):
        read_surface(path)
