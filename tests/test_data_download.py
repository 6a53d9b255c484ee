"""Downloads: once, complete, or nothing; and never by load_dataset."""

import functools
import hashlib
import http.server
import os
import pickle
import shutil
import socket
import threading
import urllib.request

import pytest
import torch
import torchvision

from losslandscape.data.datasets import load_dataset, prepare
from tests import datafiles
from tests.datafiles import archive_of, error_of, tree, write_cifar, write_idx

no_network = datafiles.no_network


@pytest.mark.parametrize("name, expected", [("cifar10", "data_batch_5"), ("cifar100", "cifar-100-python.tar.gz"),
                                            ("mnist", "t10k-labels-idx1-ubyte")])
def test_a_failed_download_names_the_files_and_leaves_nothing(tmp_path, monkeypatch, name, expected):
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for variable in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)
    message = error_of(prepare, name, str(tmp_path / "a" / "b"))
    assert expected in message and str(tmp_path / "a" / "b") in message
    assert tree(tmp_path) == []


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(folder, URL) of an HTTP server on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{served.server_address[1]}/"
        served.shutdown()
        thread.join()


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_absent_files_are_downloaded_once_and_then_used_without_network(tmp_path, monkeypatch, server):
    folder, url = server
    written = write_idx(folder)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(p.name, md5(p)) for p in sorted(folder.iterdir())])
    datapath = tmp_path / "new" / "data"
    prepare("mnist", str(datapath))
    data = load_dataset("mnist", str(datapath))
    assert data.train.targets.tolist() == written["train"][1].tolist()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["data"]  # no temporary folder is left
    shutil.rmtree(folder)
    prepare("mnist", str(datapath))


def test_an_incomplete_folder_is_completed_by_a_download(tmp_path, monkeypatch, server):
    folder, url = server
    datapath = tmp_path / "data"
    written = write_cifar(datapath)
    names = {"filename": "batches.meta", "key": "label_names"}
    (datapath / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": list("0123456789")}))
    archive = shutil.move(archive_of(datapath), folder)
    shutil.rmtree(datapath)
    (datapath / "cifar-10-batches-py").mkdir(parents=True)
    (datapath / "cifar-10-batches-py" / "test_batch").write_bytes(b"cut short")
    dataset = torchvision.datasets.CIFAR10
    monkeypatch.setattr(dataset, "url", url + os.path.basename(archive))
    monkeypatch.setattr(dataset, "tgz_md5", md5(folder / os.path.basename(archive)))
    monkeypatch.setattr(dataset, "train_list", [[name, None] for name, _ in dataset.train_list])
    monkeypatch.setattr(dataset, "test_list", [[name, None] for name, _ in dataset.test_list])
    monkeypatch.setattr(dataset, "meta", names | {"md5": None})
    prepare("cifar10", str(datapath), splits=("test",))  # this part is there, good or bad
    assert "test_batch" in error_of(load_dataset, "cifar10", str(datapath), splits=("test",))
    prepare("cifar10", str(datapath))
    assert torch.equal(load_dataset("cifar10", str(datapath)).test.targets, torch.tensor(written["test"][1]))
    assert os.listdir(datapath) == ["cifar-10-batches-py"]


def test_a_file_as_datapath_is_refused_before_any_download(tmp_path, no_network):
    (tmp_path / "file").touch()
    assert "expected a folder" in error_of(prepare, "cifar10", str(tmp_path / "file"))
