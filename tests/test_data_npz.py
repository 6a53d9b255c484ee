"""FILE.npz: floats as they are, pixels normalized by the training set, lies refused."""

import ast
import io
import math
import os
import random
import struct
import zipfile

import numpy as np
import pytest
import torch

from losslandscape.data import npz
from losslandscape.data.datasets import load_dataset, split_hash
from losslandscape.errors import InputError
from tests.conftest import GOLDEN
from tests.datafiles import F, X, Y, error_of, images_and_labels, make_file, save_npz


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "f8"])
@pytest.mark.parametrize("raw_data", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_float_inputs_of_an_npz_are_used_as_they_are(tmp_path, dtype, raw_data, compressed):
    x = np.random.default_rng(0).normal(size=(5, 2, 8, 9)).astype(dtype)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "d.npz", x_train=np.asfortranarray(x),
                                                      y_train=np.array([[3], [0], [1], [1], [0]], np.int32))
    data = load_dataset(str(tmp_path / "d.npz"), raw_data=raw_data)
    assert torch.equal(data.train.inputs, torch.from_numpy(x.astype("f4")))
    assert data.train.inputs.is_contiguous() and data.test is None
    assert data.train.targets.tolist() == [3, 0, 1, 1, 0] and data.num_classes == 4
    assert data.black.tolist() == [0, 0] and not data.flip


def test_the_golden_npz_is_used_as_it_is():
    path = os.path.join(GOLDEN, "data.npz")
    golden, data = np.load(path), load_dataset(path)
    for part, split in (("train", data.train), ("test", data.test)):
        assert np.array_equal(split.inputs, golden[f"x_{part}"]) and np.array_equal(split.targets, golden[f"y_{part}"])


@pytest.mark.parametrize("raw_data", [False, True])
def test_layouts_of_uint8_images_agree(tmp_path, raw_data):
    x, y = images_and_labels()
    grey = x[:, :1]
    files = {
        "colour": [x, x.transpose(0, 2, 3, 1)],
        "grey": [grey, grey.transpose(0, 2, 3, 1), grey[:, 0]],
    }
    for kind, arrays in files.items():
        paths = [save_npz(tmp_path / f"{kind}{i}.npz", x_train=a, y_train=y) for i, a in enumerate(arrays)]
        assert len({split_hash(load_dataset(path, raw_data=raw_data).train) for path in paths}) == 1
    data = load_dataset(str(tmp_path / "grey0.npz"), raw_data=raw_data)
    assert data.train.inputs.shape == (6, 3, 8, 10) and data.black.shape == (3,)
    assert torch.equal(data.train.inputs[:, 0], data.train.inputs[:, 1])


def test_uint8_images_are_normalized_by_the_whole_training_set(tmp_path):
    x, y = images_and_labels(40)
    x[:, 1] //= 3
    x_test, y_test = images_and_labels(7, seed=1)
    path = save_npz(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test + 1)
    data = load_dataset(path)
    scaled = x / 255
    mean, std = scaled.mean((0, 2, 3), keepdims=True), scaled.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(data.train.inputs, (scaled - mean) / std, atol=2e-6)
    np.testing.assert_allclose(data.test.inputs, (x_test / 255 - mean) / std, atol=2e-6)
    np.testing.assert_allclose(data.black, (-mean / std).ravel(), atol=2e-6)
    raw = load_dataset(path, raw_data=True)
    np.testing.assert_allclose(raw.test.inputs, x_test / 255, atol=1e-7)
    assert not raw.black.any()
    part = load_dataset(path, data_split=4)  # a part, or the test set alone, is normalized as in the whole
    chosen = np.random.RandomState(0).permutation(40)[:10]
    assert torch.equal(part.train.inputs, data.train.inputs[torch.from_numpy(chosen)])
    alone = load_dataset(path, splits=("test",))
    assert alone.train is None and split_hash(alone.test) == split_hash(data.test)
    assert alone.num_classes == data.num_classes == 5  # over both sets


def test_a_constant_channel_is_centred_not_divided_by_zero(tmp_path):
    path = save_npz(tmp_path / "d.npz", x_train=np.full((2, 8, 8), 7, np.uint8), y_train=np.array([0, 1]))
    assert load_dataset(path).train.inputs.abs().max() < 1e-6


BAD_NPZ = {
    "no labels": (dict(x_train=F), "y_train"),
    "no inputs": (dict(y_train=Y), "x_train"),
    "other names": (dict(images=F, labels=Y), "images"),
    "nothing": (dict(), "x_train"),
    "half a test set": (dict(x_train=F, y_train=Y, x_test=F), "y_test"),
    "too few labels": (dict(x_train=F, y_train=Y[:-1]), "5 and 6"),
    "labels of the test set": (dict(x_train=F, y_train=Y, x_test=F, y_test=Y[:2]), "test labels"),
    "negative label": (dict(x_train=F, y_train=Y - 1), "-1"),
    "float labels": (dict(x_train=F, y_train=Y + 0.0), "integers"),
    "bool labels": (dict(x_train=F, y_train=Y > 0), "integers"),
    "one-hot labels": (dict(x_train=F, y_train=np.eye(6, dtype=int)), "(6, 6)"),
    "scalar label": (dict(x_train=F, y_train=np.array(3)), "integers"),
    "huge label": (dict(x_train=F, y_train=np.array([2**64 - 1] * 6, np.uint64)), "18446744073709551615"),
    "empty": (dict(x_train=F[:0], y_train=Y[:0]), "N >= 1"),
    "empty images": (dict(x_train=F[:, :, :0], y_train=Y), "(6, 3, 0, 10)"),
    "flat inputs": (dict(x_train=F.reshape(6, -1), y_train=Y), "(N, C, H, W)"),
    "5-D inputs": (dict(x_train=F[None], y_train=Y), "(N, C, H, W)"),
    "grey float images": (dict(x_train=F[:, 0], y_train=Y), "(N, C, H, W)"),
    "float channels last": (dict(x_train=F.transpose(0, 2, 3, 1), y_train=Y), "transpose"),
    "five channels": (dict(x_train=np.zeros((6, 5, 8, 10), np.uint8), y_train=Y), "1 or 3 channels"),
    "ambiguous": (dict(x_train=np.zeros((6, 3, 8, 3), np.uint8), y_train=Y), "either"),
    "int64 images": (dict(x_train=X.astype(np.int64), y_train=Y), "int64"),
    "complex": (dict(x_train=F.astype(np.complex64), y_train=Y), "complex64"),
    "objects": (dict(x_train=np.array([None] * 6), y_train=Y), "numeric"),
    "text": (dict(x_train=F, y_train=np.array(list("abcdef"))), "numeric"),
    "records": (dict(x_train=np.zeros(6, "f4,f4"), y_train=Y), "numeric"),
    "two types": (dict(x_train=X, y_train=Y, x_test=F, y_test=Y), "one type"),
    "two sizes": (dict(x_train=F, y_train=Y, x_test=F[:, :, 1:], y_test=Y), "one type and shape"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_a_bad_npz_is_refused_in_one_line_that_names_the_fault(tmp_path, case):
    arrays, hint = BAD_NPZ[case]
    path = save_npz(tmp_path / "d.npz", **arrays)
    message = error_of(load_dataset, path)
    assert hint in message and path in message


def test_pickled_arrays_in_an_npz_are_not_run(tmp_path):
    proof = tmp_path / "proof"
    path = save_npz(tmp_path / "d.npz", x_train=np.array([make_file(proof)] * 6, dtype=object), y_train=Y)
    error_of(load_dataset, path)
    assert not proof.exists()
    np.load(path, allow_pickle=True)["x_train"]
    assert proof.exists()  # there was something to run


def test_uint8_test_images_and_float_training_images_do_not_go_together(tmp_path):
    path = save_npz(tmp_path / "d.npz", x_train=F, y_train=Y, x_test=X, y_test=Y)
    assert "one type" in error_of(load_dataset, path, splits=("test",))


@pytest.mark.parametrize("shape", ["(1000000000000, 3, 32, 32)", "(-1, 3, 32, 32)", "(100000, 3, 8, 10)"])
@pytest.mark.parametrize("consistent", [False, True])  # the zip's directory tells the same lie
def test_a_claimed_size_takes_no_memory(tmp_path, shape, consistent):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(960))
        y = io.BytesIO()
        np.save(y, Y)
        archive.writestr("y_train.npy", y.getvalue())
        if consistent:
            claimed = 10 + len(header) + 4 * abs(math.prod(ast.literal_eval(shape)))
            archive.getinfo("x_train.npy").file_size = claimed
    assert "claims shape" in error_of(load_dataset, str(tmp_path / "d.npz"))


def npy_of_zeros(count):
    """The start and the rest of an .npy file of `count` zeros."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (count, 1, 1, 1)})
    return head.getvalue(), bytes(count)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused_before_their_first_byte_is_unpacked(tmp_path, method, monkeypatch):
    with zipfile.ZipFile(tmp_path / "d.npz", "w", method) as archive:
        for name in ("x_train.npy", "y_train.npy"):
            archive.writestr(name, b"".join(npy_of_zeros(10**6)))
    monkeypatch.setattr(zipfile.ZipExtFile, "read", None)
    assert "got another compression" in error_of(load_dataset, str(tmp_path / "d.npz"))


def test_a_small_npz_does_not_take_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "FREE_BYTES", 10**5)
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x_train.npy", "y_train.npy"):
            archive.writestr(name, b"".join(npy_of_zeros(10**6)))
    assert os.path.getsize(tmp_path / "d.npz") < 3000
    assert "claims shape" in error_of(load_dataset, str(tmp_path / "d.npz"))


def test_a_header_without_end_is_not_read_to_its_end(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x_train.npy", "y_train.npy"):
            archive.writestr(name, b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**8) + b" " * 10**8)
    assert "can't read x_train" in error_of(load_dataset, str(tmp_path / "d.npz"))


@pytest.mark.parametrize("kept", [0, 3, 200, -300, -30])
def test_a_cut_npz_is_refused(tmp_path, kept):
    path = tmp_path / "d.npz"
    save_npz(path, x_train=F, y_train=Y)
    image = path.read_bytes()
    path.write_bytes(image[:kept])
    assert str(path) in error_of(load_dataset, str(path))


def test_a_changed_byte_in_an_npz_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x_train=F, y_train=Y)
    image = bytearray(path.read_bytes())
    original = split_hash(load_dataset(str(path)).train)
    rng, refused = random.Random(0), 0
    for _ in range(150):
        changed = image.copy()
        changed[rng.randrange(len(image))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            assert split_hash(load_dataset(str(path)).train) == original
        except InputError:
            refused += 1
    assert refused > 75


def test_a_missing_part_is_refused_when_it_was_asked_for(tmp_path):
    path = save_npz(tmp_path / "d.npz", x_train=F, y_train=Y)
    assert load_dataset(path).test is None
    for splits in (("test",), ("train", "test")):
        assert "x_test" in error_of(load_dataset, path, splits=splits)


def test_inputs_that_are_not_finite_are_warned_about_once(tmp_path, capsys):
    x = F.astype(np.float64)
    x[1, 0, 0, 0], x[4, 2] = np.nan, 1e300  # beyond float32
    path = save_npz(tmp_path / "d.npz", x_train=x, y_train=Y)
    load_dataset(path)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "2 of 6 train inputs" in captured.err and captured.out == ""
    load_dataset(path, quiet=True)
    assert capsys.readouterr().err == ""
