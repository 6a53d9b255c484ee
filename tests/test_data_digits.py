"""The digits of scikit-learn: in order, enlarged linearly."""

from types import SimpleNamespace

import numpy as np
import torch

from losslandscape.data import digits
from losslandscape.data.datasets import DATASETS, load_dataset, prepare
from tests import datafiles
from tests.datafiles import error_of

no_network = datafiles.no_network


def test_digits_are_scikit_learns_in_order_enlarged_linearly(no_network):
    from sklearn.datasets import load_digits

    prepare("digits", "/nonexistent")
    data = load_dataset("digits", raw_data=True)
    digits = load_digits()
    assert (len(data.train), len(data.test), data.num_classes) == (1500, 297, 10)
    assert torch.cat([data.train.targets, data.test.targets]).tolist() == digits.target.tolist()
    at = (np.arange(32) + 0.5) / 4 - 0.5  # where the centres of the small pixels lie among those of the 8 large ones
    enlarge = np.stack([np.interp(at, np.arange(8), row) for row in np.eye(8)], axis=1)  # (32, 8)
    expected = enlarge @ (digits.images / 16) @ enlarge.T  # (1797, 32, 32)
    np.testing.assert_allclose(torch.cat([data.train.inputs, data.test.inputs])[:, 1], expected, atol=1e-6)


def test_digits_are_found_wherever_scikit_learn_keeps_them_and_missed_without_it(monkeypatch):
    usual = load_dataset("digits").train
    elsewhere = SimpleNamespace(origin="/nowhere/__init__.py")
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda _: elsewhere)
    other = load_dataset("digits").train
    assert torch.equal(usual.inputs, other.inputs) and torch.equal(usual.targets, other.targets)
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda _: None)
    assert "pip install scikit-learn" in error_of(load_dataset, "digits")


def test_constants_of_digits_are_those_of_the_training_part():
    raw = load_dataset("digits", raw_data=True, splits=("train",)).train.inputs.double()
    spec = DATASETS["digits"]
    assert (round(float(raw.mean()), 4), round(float(raw.std()), 4)) == (*spec.mean, *spec.std)
    normalized = load_dataset("digits").train.inputs.double()
    torch.testing.assert_close((raw - spec.mean[0]) / spec.std[0], normalized, atol=1e-6, rtol=0)
