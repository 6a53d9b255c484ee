"""plot_surface.py --tolerance and --budget: real commands on a small network, killed, resumed, on several ranks."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import losslandscape
from losslandscape.files.names import samples_path
from tests.conftest import ROOT, run

MINE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    return net

def data(split):
    g = torch.Generator().manual_seed(0)
    inputs = torch.randn(3000, 8, generator=g)
    targets = net()(inputs).argmax(1)
    wrong = torch.rand(3000, generator=g) < 0.1
    return inputs, torch.where(wrong, torch.randint(4, (3000,), generator=g), targets)

def slow(split):
    return data(split)

class Slow(nn.Sequential):
    def forward(self, x):
        import time
        time.sleep(0.004)
        return super().forward(x)

def slow_net():
    return Slow(*net())

def diverging(output, targets):
    losses = nn.functional.cross_entropy(output, targets, reduction="none")
    return torch.where(output.abs().amax(1) > 3.8, torch.full_like(losses, float("inf")), losses)

def whole_batch(output, targets):
    return nn.functional.cross_entropy(output, targets) ** 2

def batches(split):
    inputs, targets = data(split)
    return [(inputs[:100], targets[:100]), (inputs[100:], targets[100:])]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimated")
    (folder / "mine.py").write_text(MINE)
    return folder


def words(folder, surf_file, *more, net="net"):
    return (ROOT / "plot_surface.py", "--model", f"{folder}/mine.py:{net}", "--dataset", f"{folder}/mine.py:data",
            "--x=-1:1:11", "--y=-1:1:9", "--xnorm", "filter", "--ynorm", "filter", "--batch_size", "100",
            "--surf_file", folder / surf_file, *more)


def compute(folder, surf_file, *more, ranks=0, net="net"):
    process = run(*words(folder, surf_file, *more, net=net), ranks=ranks, cwd=folder)
    assert process.returncode == 0, process.stderr
    return losslandscape.read(folder / surf_file), process.stdout


@pytest.fixture(scope="module")
def truth(folder):
    return compute(folder, "full.h5")[0]


@pytest.fixture(scope="module")
def estimated(folder, truth):
    return compute(folder, "one.h5", "--tolerance", "0.03")


def assert_same(a, b):
    assert set(a.values) == set(b.values)
    for name in a.values:
        assert np.array_equal(a.values[name], b.values[name], equal_nan=True), name
    for key in ("estimation", "audit"):
        assert a.provenance[key] == b.provenance[key]


def test_every_loss_is_within_its_error_bar(truth, estimated):
    surface, _ = estimated
    loss, error = surface.values["train_loss"], surface.values["train_loss_se"]
    assert (error <= 0.03 * loss).all() and (surface.values["train_acc_se"] <= 1.5).all()
    differences = np.abs(loss - truth.values["train_loss"])
    is_estimated = surface.values["samples"] < 3000
    assert is_estimated.sum() > 40
    # one draw serves all points, so their errors are alike: 95 % is a share over draws
    assert np.mean(differences[is_estimated] <= 2 * error[is_estimated]) > 0.7
    assert np.abs(surface.values["train_acc"] - truth.values["train_acc"]).max() < 6


def test_points_on_all_data_are_those_of_an_ordinary_run(truth, estimated):
    surface, _ = estimated
    is_exact = surface.values["samples"] == 3000
    assert is_exact[4, 5] and is_exact.sum() >= 35
    for name in ("train_loss", "train_acc"):
        assert np.array_equal(surface.values[name][is_exact], truth.values[name][is_exact])
    assert (surface.values["train_loss_se"][is_exact] == 0).all()


def test_it_takes_fewer_samples_and_says_how_many(estimated):
    surface, output = estimated
    made = surface.provenance["estimation"]
    assert made["samples"] < 0.75 * 99 * 3000 and made["tolerance"] == 0.03
    assert f"estimated from {made['samples']} evaluations" in output


def test_some_points_are_checked_on_all_data(estimated):
    surface, output = estimated
    entry = surface.provenance["audit"]["train"]
    assert entry["points"] == 10 and entry["within_two_standard_errors"] >= 6
    assert re.search(r"10 points checked: median error [\d.]+ %, largest [\d.]+ %, \d+ within two", output)


def test_the_rise_above_the_centre_has_the_error_of_the_level(estimated):
    """For the centre itself is computed on all data."""
    values = estimated[0].values
    assert np.array_equal(values["train_loss_rise_se"], values["train_loss_se"])


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_change_nothing(folder, estimated, ranks):
    surface, _ = compute(folder, f"ranks{ranks}.h5", "--tolerance", "0.03", ranks=ranks)
    assert_same(surface, estimated[0])


def test_a_second_run_computes_nothing(folder, estimated):
    before = (folder / "one.h5").stat().st_mtime_ns
    process = run(*words(folder, "one.h5", "--tolerance", "0.03"), cwd=folder)
    assert process.returncode == 0 and "are in" in process.stderr
    assert (folder / "one.h5").stat().st_mtime_ns == before


def test_a_smaller_tolerance_goes_on_and_zero_ends_at_the_ordinary_surface(folder, truth):
    coarse, _ = compute(folder, "steps.h5", "--tolerance", "0.1")
    fine, _ = compute(folder, "steps.h5", "--tolerance", "0.03")
    assert (fine.values["samples"] >= coarse.values["samples"]).all()
    assert (fine.values["train_loss_se"] <= 0.03 * fine.values["train_loss"]).all()

    exact, _ = compute(folder, "steps.h5", "--tolerance", "0")
    assert (exact.values["samples"] == 3000).all() and (exact.values["train_loss_se"] == 0).all()
    for name in ("train_loss", "train_acc"):
        np.testing.assert_allclose(exact.values[name], truth.values[name], rtol=1e-12)


def test_an_ordinary_run_completes_what_was_estimated(folder, truth):
    compute(folder, "then_full.h5", "--tolerance", "0.1")
    surface, output = compute(folder, "then_full.h5")
    assert np.array_equal(surface.values["train_loss"], truth.values["train_loss"])
    assert "estimated from" not in output


def test_points_of_an_ordinary_run_are_not_computed_again(folder, truth):
    (folder / "was_full.h5").write_bytes((folder / "full.h5").read_bytes())
    surface, output = compute(folder, "was_full.h5", "--tolerance", "0.03")
    assert np.array_equal(surface.values["train_loss"], truth.values["train_loss"])
    assert (surface.values["samples"] == 3000).all()


def test_without_the_file_of_samples_it_begins_anew(folder, estimated):
    compute(folder, "lost.h5", "--tolerance", "0.1")
    os.remove(samples_path(folder / "lost.h5"))
    surface, _ = compute(folder, "lost.h5", "--tolerance", "0.03")
    loss, error = surface.values["train_loss"], surface.values["train_loss_se"]
    assert (error <= 0.03 * loss).all()


@pytest.mark.parametrize("name, ranks", [("SIGKILL", 1), ("SIGTERM", 2)])
def test_killed_and_resumed_it_is_the_same_file(folder, name, ranks):
    """At any moment: after the coarse points, between rounds, while points are checked."""
    reference, _ = compute(folder, "slow.h5", "--tolerance", "0.05", net="slow_net")
    surf_file = folder / f"killed_{name}_{ranks}.h5"
    command = [sys.executable, *map(str, words(folder, surf_file.name, "--tolerance", "0.05", net="slow_net"))]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), *command]
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}
    for seconds in (1.0, 3.5, 2.0):
        job = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=environment, start_new_session=True)
        deadline = time.monotonic() + 60
        while not surf_file.exists() and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, getattr(signal, name))
        job.communicate(timeout=60)
    surface, _ = compute(folder, surf_file.name, "--tolerance", "0.05", net="slow_net", ranks=ranks if ranks > 1 else 0)
    assert_same(surface, reference)


def test_a_budget_ends_in_time_and_a_later_one_goes_on(folder):
    start = time.monotonic()
    first, _ = compute(folder, "budget.h5", "--budget", "3s", net="slow_net")
    assert first.computed["train_loss"].sum() > 5
    second, _ = compute(folder, "budget.h5", "--budget", "6s", net="slow_net")
    assert np.nansum(second.values["samples"]) > np.nansum(first.values["samples"])
    assert time.monotonic() - start < 60


def test_infinite_losses_that_a_subset_may_miss_are_found(folder):
    flags = "--loss_name", f"{folder}/mine.py:diverging"
    full, _ = compute(folder, "diverging_full.h5", *flags)
    surface, _ = compute(folder, "diverging.h5", *flags, "--tolerance", "0.05")
    is_infinite = np.isinf(full.values["train_loss"])
    assert 3 < is_infinite.sum() < 90
    missed = is_infinite & np.isfinite(surface.values["train_loss"])
    assert missed.sum() <= 2  # seen by no coarse point around them, and by no sample of the subset
    assert not (np.isinf(surface.values["train_loss"]) & ~is_infinite).any()


def test_a_line_is_estimated_too(folder):
    flags = [word for word in words(folder, "line.h5", "--tolerance", "0.05") if not str(word).startswith("--y")]
    flags.remove("filter")
    process = run(*flags, cwd=folder)
    assert process.returncode == 0, process.stderr
    surface = losslandscape.read(folder / "line.h5")
    assert (surface.values["train_loss_se"] <= 0.05 * surface.values["train_loss"]).all()
    assert (surface.values["samples"] == 3000).sum() >= 5


def test_both_splits_are_estimated(folder):
    surface, output = compute(folder, "both.h5", "--tolerance", "0.05", "--eval_set", "both")
    for name in ("train_loss_se", "test_loss_se", "samples", "test_samples", "test_acc_se"):
        assert surface.computed[name].all(), name
    assert "train: 10 points checked" in output and "test: 10 points checked" in output


@pytest.mark.parametrize("flags, words_said", [
    (["--bn", "recalibrate"], "recalibrate"),
    (["--loss_name", "{}/mine.py:whole_batch"], "mean over samples"),
    (["--noise_seed", "1"], "noise_seed"),
    (["--tolerance", "2"], "from 0 to below 1"),
    (["--tolerance", "-0.1"], "from 0 to below 1"),
    (["--budget", "30"], "duration"),
])
def test_what_can_not_be_estimated_is_refused_in_words(folder, flags, words_said):
    flags = [flag.format(folder) for flag in flags]
    process = run(*words(folder, "refused.h5", "--tolerance", "0.05", *flags), cwd=folder)
    *_, last = process.stderr.splitlines()  # what was understood of the loss may be said before
    assert process.returncode == 2 and last.startswith("error: ") and words_said in last, process.stderr
    assert not (folder / "refused.h5").exists()
