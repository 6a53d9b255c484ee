"""--trainloader and --testloader: every form gives the same data, and no code runs without trust."""

import os
import zipfile

import numpy as np
import pytest
import torch

from losslandscape.data.datasets import load_dataset, split_hash
from tests.datafiles import F, X, Y, error_of, make_file, save_npz


def save(path, saved):
    torch.save(saved, path)
    return str(path)


def test_every_form_of_saved_tensors_gives_the_same_data(tmp_path):
    x, y = torch.from_numpy(F), torch.from_numpy(Y)
    forms = [(x, y), [x, y], {"inputs": x, "targets": y}, {"x": x, "y": y, "more": 1}, {"images": x, "labels": y.int()},
             [(x[:4], y[:4]), (x[4:], y[4:])], ([x[:5], y[:5]], [x[5:], y[5:]]), [(x, y)], (x.double(), y[:, None])]
    for trust_pickle in (False, True):
        for i, form in enumerate(forms):
            path = save(tmp_path / f"{i}.pt", form)
            data = load_dataset("cifar10", "/nonexistent", trainloader=path, testloader=path, trust_pickle=trust_pickle)
            assert torch.equal(data.train.inputs, x) and torch.equal(data.train.targets, y)
            assert split_hash(data.train) == split_hash(data.test)
            assert data.num_classes == 10  # --dataset cifar10 has ten, though only four are seen here
    bf16 = load_dataset("own", trainloader=save(tmp_path / "b.pt", (x.bfloat16(), y))).train.inputs
    assert torch.equal(bf16, x.bfloat16().float())
    old = str(tmp_path / "old.pt")
    torch.save((x, y), old, _use_new_zipfile_serialization=False)
    own = load_dataset("own", trainloader=old)
    assert torch.equal(own.train.inputs, x) and own.num_classes == 4 and own.test is None


def test_saved_uint8_images_are_treated_like_those_of_an_npz(tmp_path):
    path = save(tmp_path / "d.pt", (torch.from_numpy(X), torch.from_numpy(Y)))
    npz = save_npz(tmp_path / "d.npz", x_train=X, y_train=Y)
    assert split_hash(load_dataset("own", trainloader=path).train) == split_hash(load_dataset(npz).train)
    assert "--trainloader" in error_of(load_dataset, "own", testloader=path, splits=("test",))
    load_dataset("own", testloader=path, splits=("test",), raw_data=True)


def test_a_saved_test_set_does_not_stand_in_for_a_training_set(tmp_path):
    path = save(tmp_path / "d.pt", (torch.from_numpy(F), torch.from_numpy(Y)))
    assert "--trainloader" in error_of(load_dataset, "digits", testloader=path)
    assert len(load_dataset("digits", testloader=path, splits=("test",)).test) == 6


class Flipping(torch.utils.data.Dataset):
    """Random augmentation."""

    def __len__(self):
        return len(Y)

    def __getitem__(self, i):
        return torch.from_numpy(F[i]) + torch.randn(()), int(Y[i])


def test_a_pickled_loader_needs_trust_and_is_read_in_order(tmp_path):
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(F), torch.from_numpy(Y))
    path = save(tmp_path / "d.pt", torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=True))
    assert "--trust_pickle" in error_of(load_dataset, "digits", trainloader=path)
    data = load_dataset("digits", trainloader=path, trust_pickle=True)
    assert np.array_equal(data.train.inputs, F) and data.train.targets.tolist() == Y.tolist()
    bare = save(tmp_path / "d2.pt", dataset)
    assert split_hash(load_dataset("own", trainloader=bare, trust_pickle=True).train) == split_hash(data.train)


def test_random_augmentation_in_a_pickled_loader_is_refused(tmp_path):
    path = save(tmp_path / "d.pt", torch.utils.data.DataLoader(Flipping()))
    assert "augmentation" in error_of(load_dataset, "digits", trainloader=path, trust_pickle=True)


@pytest.mark.parametrize("old", [False, True])
def test_code_in_saved_tensors_is_not_run_without_trust(tmp_path, old):
    proof = tmp_path / "proof"
    path = str(tmp_path / "d.pt")
    torch.save((torch.from_numpy(F), make_file(proof)), path, _use_new_zipfile_serialization=not old)
    assert "--trust_pickle" in error_of(load_dataset, "digits", trainloader=path)
    assert not proof.exists()
    error_of(load_dataset, "digits", trainloader=path, trust_pickle=True)
    assert proof.exists()  # with trust it runs: that is what the flag says


TX, TY = torch.from_numpy(F), torch.from_numpy(Y)

BAD_SAVED = {
    "one tensor": TX, "three": (TX, TY, TY), "empty list": [], "other keys": {"a": TX, "b": TY}, "number": 3,
    "lengths": (TX, TY[:3]), "float labels": (TX, TY.double()), "negative": (TX, TY - 1), "flat": (TX.flatten(1), TY),
    "empty": (TX[:0], TY[:0]), "lists": (F.tolist(), Y.tolist()), "state dict": {"fc.weight": TX},
    "ragged batches": [(TX, TY), (TX[:, :, 1:], TY)], "integers": (TX.long(), TY), "sparse": (TX.to_sparse(), TY),
    "complex": (TX.to(torch.complex64), TY), "batches of one": [(TX,), (TY,)],
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("case", BAD_SAVED)
@pytest.mark.parametrize("trust_pickle", [False, True])
def test_bad_saved_tensors_are_refused_in_one_line(tmp_path, case, trust_pickle):
    path = save(tmp_path / "d.pt", BAD_SAVED[case])
    assert path in error_of(load_dataset, "own", trainloader=path, trust_pickle=trust_pickle)


@pytest.mark.parametrize("image", [b"", b"garbage", b"PK\x03\x04 not a zip", b"\x80\x02}."])
@pytest.mark.parametrize("trust_pickle", [False, True])
def test_a_file_that_torch_save_did_not_write_is_refused(tmp_path, image, trust_pickle):
    (tmp_path / "d.pt").write_bytes(image)
    assert "d.pt" in error_of(load_dataset, "own", trainloader=str(tmp_path / "d.pt"), trust_pickle=trust_pickle)


def test_a_cut_file_of_saved_tensors_is_refused(tmp_path):
    path = tmp_path / "d.pt"
    save(path, (TX, TY))
    image = path.read_bytes()
    for kept in (1, 100, len(image) // 2, len(image) - 10):
        path.write_bytes(image[:kept])
        assert "d.pt" in error_of(load_dataset, "own", trainloader=str(path))


def deep_key(depth):
    key = ()
    for _ in range(depth):
        key = (key, key)
    return key


def many_values_of_one(shape):
    return torch.zeros(1).expand(shape)


BOMBS = {
    "a key that is hashed for ever": lambda: {"x": TX, "y": TY, deep_key(18): 1},
    "a gigabyte of one number": lambda: (many_values_of_one((10**6, 3, 10, 10)), TY),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_small_file_takes_neither_memory_nor_time(tmp_path, case):
    path = save(tmp_path / "d.pt", BOMBS[case]())
    assert os.path.getsize(path) < 20_000
    assert path in error_of(load_dataset, "own", trainloader=path)


def test_compressed_zeros_do_not_take_gigabytes(tmp_path):
    save(tmp_path / "d.pt", (torch.zeros(10**7), TY))
    with zipfile.ZipFile(tmp_path / "d.pt") as stored:
        with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed:
            for name in stored.namelist():
                packed.writestr(name, stored.read(name))
    assert os.path.getsize(tmp_path / "b.pt") < 10**5
    assert "b.pt" in error_of(load_dataset, "own", trainloader=str(tmp_path / "b.pt"))


def test_saved_tensors_may_be_replaced_while_they_are_used(tmp_path):
    """They are in memory, and no window into the file."""
    path = save(tmp_path / "d.pt", (TX, TY))
    data = load_dataset("own", trainloader=path)
    os.truncate(path, 0)
    assert torch.equal(data.train.inputs, TX) and torch.equal(data.train.targets, TY)
