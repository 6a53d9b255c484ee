"""CIFAR: the files in order, normalized as in the paper, and no code of a pickle is run."""

import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch
import torchvision

from losslandscape.data import cifar
from losslandscape.data.datasets import load_dataset, prepare, split_hash
from losslandscape.errors import InputError
from tests import datafiles
from tests.datafiles import WRITERS, archive_of, error_of, make_file, tree, write_cifar

no_network = datafiles.no_network


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("writer", WRITERS)
def test_cifar_batches_are_read_in_order_and_normalized_as_torchvision_does(tmp_path, no_network, name, writer):
    written = write_cifar(tmp_path, name, write=WRITERS[writer])
    transform = torchvision.transforms.Compose([
        torchvision.transforms.ToTensor(),
        torchvision.transforms.Normalize(np.array([125.3, 123.0, 113.9]) / 255, np.array([63.0, 62.1, 66.7]) / 255),
    ])
    prepare(name, str(tmp_path))
    data = load_dataset(name, str(tmp_path))
    for part, split in (("train", data.train), ("test", data.test)):
        images, labels = written[part]
        assert torch.equal(split.inputs, torch.stack([transform(image.transpose(1, 2, 0)) for image in images]))
        assert torch.equal(split.targets, torch.tensor(labels))
        assert split.inputs.is_contiguous() and split.inputs.dtype == torch.float32
        assert len(split) == len(labels) and split.targets.dtype == torch.int64
    assert torch.equal(data.black, transform(np.zeros((1, 1, 3), np.uint8)).flatten())
    assert data.num_classes == int(name.removeprefix("cifar")) and data.flip


def test_folder_its_parent_and_the_archive_give_the_same_data(tmp_path, no_network):
    write_cifar(tmp_path)
    folders = tmp_path, tmp_path / "cifar-10-batches-py"
    hashes = {split_hash(load_dataset("cifar10", str(folder)).train) for folder in folders}
    archive = archive_of(tmp_path)
    prepare("cifar10", str(tmp_path))
    data = load_dataset("cifar10", str(tmp_path))
    assert hashes == {split_hash(data.train)} and len(data.test) == 3
    assert tree(tmp_path) == [str(archive)]  # nothing was unpacked


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_code_in_a_cifar_batch_is_never_run(tmp_path, protocol):
    proof = tmp_path / "proof"
    images = np.zeros((2, 3072), np.uint8)
    batch = pickle.dumps({"data": images, "labels": [0, 1], "more": make_file(proof)}, protocol)
    pickle.loads(batch)
    assert proof.exists()  # the ordinary reader does run it
    proof.unlink()
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(batch)
    message = error_of(load_dataset, "cifar10", str(tmp_path))
    assert "data_batch_2" in message and "io.open" in message
    assert not proof.exists()


@pytest.mark.parametrize("batch", [
    b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93K\x00\x85\x81.",  # numpy.ndarray by NEWOBJ
    b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",  # an attribute of an admitted class
    b"\x80\x04\x8c\x05numpy\x8c\x06memmap\x93.",
    b"(S'touch proof'\nios\nsystem\n.",  # the INST opcode
    b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R.",  # arrays of objects
    b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
    b"\x80\x02\x8e" + struct.pack("<Q", 10**15) + b"abc.",  # claims a petabyte
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\xff\xff\xff\x7f\x85c_codecs\nencode\n"
    b"X\x01\x00\x00\x00bX\x06\x00\x00\x00latin1\x86R\x87R.",  # an array of 2^31 bytes that are not in the file
    b"Ppersistent\n.",
    b"]q\x00h\x00a.",  # a list that holds itself
    b"", b"\x80", b"not a pickle", b"N.", b"}.",
])
def test_a_hostile_or_damaged_cifar_batch_is_refused_in_one_line(tmp_path, monkeypatch, batch):
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(batch)
    before = tree(tmp_path)
    assert "test_batch" in error_of(load_dataset, "cifar10", str(tmp_path))
    assert tree(tmp_path) == before


def test_what_a_pickle_does_to_its_readers_names_is_gone_at_the_next_file(tmp_path):
    written = write_cifar(tmp_path)
    # sets attributes on the function that stands for numpy.dtype
    attack = b"\x80\x02cnumpy\ndtype\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b."
    with pytest.raises(InputError):
        cifar.read_batch(attack, "labels", "attack")
    assert torch.equal(load_dataset("cifar10", str(tmp_path)).test.targets, torch.tensor(written["test"][1]))


@pytest.mark.parametrize("images, labels, hint", [
    (np.zeros((2, 3071), np.uint8), [0, 1], "3072"),
    (np.zeros((2, 3072), np.int64), [0, 1], "uint8"),
    (np.zeros((2, 3072), np.uint8), [0], "2 labels"),
    (np.zeros((2, 3072), np.uint8), [0, 10], "0 .. 9"),
    (np.zeros((2, 3072), np.uint8), [0, -1], "0 .. 9"),
    (np.zeros((2, 3072), np.uint8), [0, 0.5], "integers"),
    (np.zeros((2, 3072), np.uint8), [0, 10**30], "integers"),
    (np.zeros((0, 3072), np.uint8), [], "at least one example"),
    ([[0]], [0], "CIFAR batch"),
])
def test_wrong_arrays_in_a_cifar_batch_are_named(tmp_path, images, labels, hint):
    write_cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps({"data": images, "labels": labels}, 4))
    assert hint in error_of(load_dataset, "cifar10", str(tmp_path))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_archive_is_named(tmp_path, kept):
    write_cifar(tmp_path)
    archive = archive_of(tmp_path)
    image = archive.read_bytes()
    archive.write_bytes(image[:int(kept * len(image))])
    assert archive.name in error_of(load_dataset, "cifar10", str(tmp_path), splits=("train", "test"))


def test_an_archive_without_the_batches_is_named(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz"):
        pass
    assert "data_batch_1" in error_of(load_dataset, "cifar10", str(tmp_path))
