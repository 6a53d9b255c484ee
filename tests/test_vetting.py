"""The law: the value at a point is what a plain loop gives there, or the run is refused before its first point."""

import itertools
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import losslandscape
import plot_surface
from losslandscape.errors import InputError
from losslandscape.files.grid import Grid
from losslandscape.files.layouts import read_surface
from losslandscape.measuring import evaluator as evaluation
from losslandscape.measuring import vetting
from losslandscape.measuring.copies import independent_copy
from tests import stale_networks
from tests.conftest import refused, run
from tests.oracles import images, with_random_statistics

SPLIT = images(20, classes=4, size=8)
CENTRE_TO_B = ["--x=0:1:2", "--dir_type", "states"]
NETWORKS = Path(stale_networks.__file__)


def trained(kind, seed):
    torch.manual_seed(seed)
    return kind().eval()


def plain_loss(net, split=SPLIT):
    with torch.no_grad():
        return float(F.cross_entropy(net(split.inputs), split.targets))


def loss_of_file(kind, path):
    """The user's own loop: a network, its weights, one pass."""
    net = kind()
    net.load_state_dict(torch.load(path, weights_only=True))
    return plain_loss(net.eval())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Data as a function, in the working directory."""
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", x=SPLIT.inputs.numpy(), y=SPLIT.targets.numpy())
    Path("own.py").write_text(
        "import numpy\nimport torch\n\n\ndef data(part):\n    f = numpy.load('images.npz')\n"
        "    return torch.tensor(f['x']), torch.tensor(f['y'])\n")
    return tmp_path


def command(kind, *flags):
    """The flags of a line from A.pt to B.pt."""
    for seed, name in enumerate("AB"):
        torch.save(trained(kind, seed).state_dict(), f"{name}.pt")
    return ["--model", f"{NETWORKS}:{kind.__name__}", "--model_file", "A.pt", "--model_file2", "B.pt",
            "--dataset", "own.py:data", "--surf_file", "s.h5", *CENTRE_TO_B, *flags]


def files():
    return {path.name for path in Path().iterdir() if path.suffix == ".h5"}


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize("kind", [
    kind for kind in stale_networks.FOLLOWING
    if kind is not stale_networks.TrainedNorm  # depends on the batches, and is refused for that
])
def test_the_value_at_1_is_the_second_networks_own(folder, kind):
    plot_surface.main(command(kind))
    losses = read_surface("s.h5").values["train_loss"]
    assert losses[0] == pytest.approx(loss_of_file(kind, "A.pt"), rel=1e-4)
    assert losses[1] == pytest.approx(loss_of_file(kind, "B.pt"), rel=1e-4)


@pytest.mark.parametrize("kind", stale_networks.KEEPING)
def test_what_keeps_something_between_passes_is_refused_and_leaves_nothing(folder, kind, capsys):
    with pytest.raises(SystemExit) as ended:
        plot_surface.main(command(kind, "--batch_size", "5"))
    words = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and "keeps something" in words[-1] and "train_loss is" in words[-1]
    assert files() == set()


def test_so_it_is_with_the_real_command(folder):
    done = run(Path(plot_surface.__file__), *command(stale_networks.NamedParameters), cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = loss_of_file(stale_networks.NamedParameters, "B.pt")
    assert read_surface("s.h5").values["train_loss"][1] == pytest.approx(expected, rel=1e-4)


def test_all_ranks_are_refused_together(folder):
    process = run(Path(plot_surface.__file__), *command(stale_networks.Cache), "--mpi", ranks=2, cwd=folder)
    assert refused(process), process.stderr
    assert files() == set()


def test_a_refusal_keeps_what_was_there(folder):
    plot_surface.main(command(stale_networks.Base, "--x=0:1:3"))
    old = read_surface("s.h5")
    before = Path("s.h5").read_bytes()
    with pytest.raises(SystemExit):
        plot_surface.main(command(stale_networks.Cache, "--surf_file", "s.h5"))
    assert Path("s.h5").read_bytes() == before and old.computed["train_loss"].all()


def test_a_network_that_is_built_differently_each_time_is_refused(folder, capsys):
    Path("net.py").write_text(
        "import random\n\nfrom tests import stale_networks\n\n\nclass Net(stale_networks.Base):\n"
        "    def __init__(self):\n        super().__init__()\n        self.factor = random.random() + 0.5\n\n"
        "    def special(self, x):\n        return x * self.factor\n")
    flags = command(stale_networks.Base)
    flags[1] = "net.py:Net"
    with pytest.raises(SystemExit):
        plot_surface.main(flags)
    assert "random numbers of its own" in capsys.readouterr().err


def stale_fold(net, _example, _dtype=None):
    """A folded pass that does not follow the network."""
    frozen = independent_copy(net)

    class Stale:
        def refresh(self):
            pass

        def __call__(self, inputs):
            return frozen(inputs)

    return Stale()


def test_where_only_folding_is_wrong_the_run_goes_on_without_it(folder, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "fold", stale_fold)
    plot_surface.main(command(stale_networks.Base))
    losses = read_surface("s.h5").values["train_loss"]
    assert losses[1] == pytest.approx(loss_of_file(stale_networks.Base, "B.pt"), rel=1e-5)
    assert "note: every layer is evaluated as it is" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [
    ["--bn", "recalibrate", "--dir_type", "weights"], ["--precision", "bf16"], ["--eval_set", "both"],
    ["--batch_size", "3"],
])
def test_ordinary_networks_pass_in_every_way_of_evaluation(folder, flags, capsys):
    plot_surface.main(command(stale_networks.Base, *flags))
    assert "every layer" not in capsys.readouterr().err
    assert read_surface("s.h5").computed["train_loss"].all()


# ---------------------------------------------------------------- the Python interface


def surface_between(kind, measure, first_pass=False):
    net, other = trained(kind, 0), trained(kind, 1)
    axes = losslandscape.directions(net, towards=[other])
    if first_pass:
        net(SPLIT.inputs)
    return losslandscape.surface(net, axes, measure, "0:1:2", progress=False)


@pytest.mark.parametrize("kind", [
    stale_networks.NamedParameters, stale_networks.TensorInList, stale_networks.Alias, stale_networks.WeightNorm])
def test_a_surface_in_a_notebook_is_right_at_1(kind):
    measure = losslandscape.losses(SPLIT.inputs, SPLIT.targets)
    found = surface_between(kind, measure)
    end = trained(kind, 1)
    for own, other in zip(end.buffers(), trained(kind, 0).buffers(), strict=True):
        own.copy_(other)
    assert found.values["train_loss"][1] == pytest.approx(plain_loss(end), rel=1e-4)


@pytest.mark.parametrize("kind", [stale_networks.Cache, stale_networks.CacheInBuffer])
def test_a_cache_is_refused_in_a_notebook_and_the_network_stays_what_it_was(kind):
    net = trained(kind, 0)
    before = [p.clone() for p in net.parameters()]
    axes = losslandscape.directions(net, 1)
    with pytest.raises(InputError, match="keeps something"):
        losslandscape.surface(net, axes, losslandscape.losses(SPLIT.inputs, SPLIT.targets), "-1:1:3")
    assert all(torch.equal(own, old) for own, old in zip(net.parameters(), before, strict=True))
    assert plain_loss(net) == plain_loss(trained(kind, 0))  # the cache, too, is that of the centre


def test_a_measure_takes_its_fast_forms_again_for_a_network_that_bears_them(monkeypatch):
    measure = losslandscape.losses(SPLIT.inputs, SPLIT.targets)
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "fold", stale_fold)
        found = surface_between(stale_networks.Base, measure)
    assert measure.plain
    again = surface_between(stale_networks.Base, measure)
    assert not measure.plain
    np.testing.assert_allclose(found.values["train_loss"], again.values["train_loss"], rtol=1e-5)


def test_a_network_that_cannot_be_copied_is_measured_all_the_same():
    measure = losslandscape.losses(SPLIT.inputs, SPLIT.targets)
    found = surface_between(stale_networks.OwnForwardOfLayer, measure)
    assert np.isfinite(found.values["train_loss"]).all()


# ---------------------------------------------------------------- what is compared


def test_two_losses_agree_up_to_a_share_and_the_rounding_of_the_network():
    assert vetting.agree(1.0005, 1.0, 1e-3) and not vetting.agree(1.002, 1.0, 1e-3)
    assert vetting.agree(1e-6, 0.0, 1e-3)
    assert vetting.agree(1.002, 1.0, 1e-3, rounding=1e-3)
    nan, inf = float("nan"), float("inf")
    for a, b in itertools.product((nan, inf, -inf, 1.0), repeat=2):
        assert vetting.agree(a, b, 0.2) == (str(a) == str(b))
    assert vetting.agree(1e38, inf, 1e-3, rounding=inf)
    assert not vetting.agree(1.0, nan, 1e-3, rounding=inf)


@pytest.mark.parametrize("grid, corner", [
    (Grid(np.linspace(-1, 2, 4), None), (2.0,)),
    (Grid(np.linspace(-3, 2, 6), np.linspace(-1, 1, 3)), (-3.0, -1.0)),
])
def test_the_places_are_the_centre_the_far_corner_and_another_point(grid, corner):
    places = vetting.places_of(grid)
    assert (places[0].x, places[0].y) == (0, 0)
    assert (places[-1].x, places[-1].y)[:len(corner)] == corner
    assert 2 <= len(places) <= 3
    assert [place.words for place in vetting.places_of(Grid(np.zeros(1), None))] == ["the centre"]


def test_the_samples_are_not_the_first_ones_and_the_streams_stay():
    torch.manual_seed(3)
    random.seed(3)
    state = torch.get_rng_state()
    samples = vetting.vetted_samples({"train": SPLIT})["train"]
    vetting.places_of(Grid(np.linspace(-1, 1, 5), None))
    assert len(samples) == vetting.VETTED_SAMPLES and not torch.equal(samples.inputs, SPLIT.inputs[:8])
    assert torch.equal(state, torch.get_rng_state())
    drawn = random.random()
    random.seed(3)
    assert drawn == random.random()


@pytest.mark.parametrize("name", ["resnet56", "resnet56_noshort", "resnet110_noshort"])
def test_networks_that_amplify_rounding_pass_in_two_seconds(name):
    net = with_random_statistics(name)
    axes = losslandscape.directions(net)
    data = images(16)
    measure = losslandscape.losses(data.inputs, data.targets)
    start = time.process_time()
    losslandscape.surface(net, axes, measure, [2.0], [-2.0], progress=False)
    assert not measure.plain and time.process_time() - start < 8
