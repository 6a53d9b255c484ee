"""Losses of all kinds through plot_surface.py: the value in the file is the user's own, or nothing is written."""

import re

import pytest
import torch
from torch.nn import functional as F

from losslandscape.files.layouts import read_surface
from tests import own_losses
from tests.conftest import ROOT, refused, run

OWN = f"""
import sys

sys.path.insert(0, {str(ROOT)!r})
import torch
from torch import nn
from torch.nn import functional as F
from tests.own_losses import CausalLM, EncoderDecoder, texts, with_penalty

WEIGHTS = torch.tensor([0.1, 1.0, 3.0, 0.5])


def seeded(build):
    torch.manual_seed(0)
    return build().eval()


def gpt():
    return seeded(CausalLM)


def t5():
    return seeded(EncoderDecoder)


def experts():
    return seeded(lambda: CausalLM(with_penalty))


def linear():
    return seeded(lambda: nn.Linear(6, 4))


def column():
    return seeded(lambda: nn.Linear(6, 1))


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.randn(len(x), 4)


def noisy():
    return seeded(lambda: Noisy(6, 4))


def language(split):
    words, labels = texts()
    return [{{"input_ids": words[rows], "labels": labels[rows]}} for rows in (slice(6), slice(6, 10))]


def inputs():
    return torch.randn(21, 6, generator=torch.Generator().manual_seed(1))


def classes(split):
    return inputs(), torch.arange(21) % 4


def numbers(split):
    return inputs(), inputs().sum(1)


weighted = nn.CrossEntropyLoss(weight=WEIGHTS)


def weighted_in_batches(output, targets):
    return F.cross_entropy(output, targets, weight=WEIGHTS)


def absolute(output, targets):
    return (output - targets).abs()
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def surface(folder, model, data, *flags, ranks=0):
    """(finished process, values of the train loss or None): three points on a line, the second is the network."""
    before = set(folder.glob("*,3]*.h5"))
    process = run(
        ROOT / "plot_surface.py", "--model", f"own.py:{model}", "--dataset", f"own.py:{data}", "--x=-1:1:3",
        "--xnorm", "filter", "--xignore", "biasbn", *flags, cwd=folder, ranks=ranks)
    files = set(folder.glob("*,3]*.h5")) - before
    if process.returncode:
        return process, None
    assert len(files) == 1
    return process, read_surface(str(files.pop())).values["train_loss"].ravel()


def module(folder):
    """own.py as the test itself uses it."""
    names = {}
    exec((folder / "own.py").read_text(), names)
    return names


@pytest.mark.parametrize("model", ["gpt", "t5"])
def test_the_centre_of_a_language_model_is_its_own_loss(own, model):
    net = module(own)[model]()
    words, labels = own_losses.texts()
    with torch.no_grad():
        output = net(words, labels=labels)
    expected = float(output["loss"] if isinstance(output, dict) else output.loss)
    process, losses = surface(own, model, "language")
    assert losses[1] == pytest.approx(expected, rel=1e-5)
    assert "the loss is the network's own: cross entropy" in process.stderr


def test_a_loss_without_a_formula_is_taken_in_batches_that_are_said_named_and_kept(own):
    process, losses = surface(own, "experts", "language")
    assert "batches of 8 samples, and the last of 2" in process.stderr
    _, others = surface(own, "experts", "language", "--batch_size", "5")
    assert len(list(own.glob("*_bs=5.h5"))) == 1 and others[1] != losses[1]

    file = next(own.glob("*_bs=5.h5"))
    done = surface(own, "experts", "language", "--batch_size", "6", "--surf_file", file.name)[0]
    words = "the batches that the results depend on (5 samples in the file, 6 samples now)"
    assert done.returncode == 2 and words in done.stderr


def test_class_weights_are_exact_at_every_batch_size(own):
    names = module(own)
    x, y = names["classes"]("train")
    with torch.no_grad():
        expected = float(F.cross_entropy(names["linear"]()(x), y, weight=names["WEIGHTS"]))
    for batch_size in ("1", "5", "32"):
        for file in own.glob("*,3]*"):
            file.unlink()
        _, losses = surface(
            own, "linear", "classes", "--loss_name", "own.py:weighted", "--batch_size", batch_size)
        assert losses[1] == pytest.approx(expected, rel=1e-6)


def test_what_depends_on_the_batches_asks_for_their_size_and_is_the_same_on_two_ranks(own):
    flags = ("--loss_name", "own.py:weighted_in_batches")
    before = set(own.iterdir())
    process, _ = surface(own, "linear", "classes", *flags)
    assert refused(process) and "--batch_size N" in process.stderr and set(own.iterdir()) == before

    _, alone = surface(own, "linear", "classes", *flags, "--batch_size", "8")
    for file in own.glob("*,3]*"):
        file.unlink()
    _, together = surface(own, "linear", "classes", *flags, "--batch_size", "8", ranks=2)
    assert together.tolist() == alone.tolist()


def test_noise_is_refused_or_the_same_at_every_point_on_any_number_of_ranks(own):
    before = set(own.iterdir())
    process, _ = surface(own, "noisy", "classes")
    assert refused(process) and "--noise_seed N" in process.stderr and set(own.iterdir()) == before

    _, alone = surface(own, "noisy", "classes", "--noise_seed", "0")
    assert [file.name for file in own.glob("*_noise_seed=0.h5")]
    for file in own.glob("*,3]*"):
        file.unlink()
    _, together = surface(own, "noisy", "classes", "--noise_seed", "0", ranks=2)
    assert together.tolist() == alone.tolist()

    names = module(own)
    x, y = names["classes"]("train")
    net = names["noisy"]()
    torch.manual_seed(0)
    with torch.no_grad():
        assert alone[1] == pytest.approx(float(F.cross_entropy(net(x), y)), rel=1e-6)


@pytest.mark.parametrize("flags", [("--loss_name", "own.py:absolute"), ("--loss_name", "mse"), ()])
def test_shapes_that_broadcast_are_refused_with_both_of_them(own, flags):
    before = set(own.iterdir())
    process, _ = surface(own, "column", "numbers", *flags)
    assert refused(process) and re.search(r"\(\d, 1\).*\(\d,\)", process.stderr)
    assert set(own.iterdir()) == before


def test_check_says_what_the_loss_is_and_compares_it_with_the_plain_network(own):
    said = surface_check(own, "gpt", "language")
    assert "ok    the loss is the network's own: cross entropy of the next position, mean over positions" in said
    assert re.search(r"ok    the loss of 10 train samples: .*; the network's own loss", said)
    said = surface_check(own, "linear", "classes", "--loss_name", "own.py:weighted_in_batches", "--batch_size", "8")
    assert "it depends on the batches: 8 samples" in said and "the network as it is, in one pass" in said
    said = surface_check(own, "noisy", "classes", "--noise_seed", "3")
    assert "draws the same ones at every point (--noise_seed 3)" in said


def surface_check(folder, model, data, *flags):
    process = run(
        ROOT / "plot_surface.py", "--model", f"own.py:{model}", "--dataset", f"own.py:{data}", "--x=-0.1:0.1:5",
        "--xnorm", "filter", "--check", *flags, cwd=folder)
    assert process.returncode == 0, process.stderr
    return process.stdout
