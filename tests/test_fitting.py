"""Before the first point: the loss is understood, or refused; nothing that depends on the batches goes unsaid."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from losslandscape.data.splits import Batches, Split
from losslandscape.errors import InputError
from losslandscape.measuring.criteria import CrossEntropy, NetworksOwn
from losslandscape.measuring.fitting import fit_to_data
from tests import own_losses
from tests.own_losses import CausalLM, Classifier, EncoderDecoder, LastOnly, MaskedLM, texts

WEIGHTS = torch.tensor([0.1, 1.0, 3.0, 0.5])


def evaluate(net, split, batch_size=4, fit=None, **choices):
    """(results, Fit) of a split."""
    fit = fit or fit_to_data(net, {"train": split}, **choices)
    evaluator = fit.evaluator([net], {"train": split}, batch_size)
    return evaluator(["train"]), fit


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# ---------------------------------------------------------------- the network's own loss


def language_split(ignored=-100, name="input_ids", target_name="labels", **sizes):
    words, labels = texts(ignored=ignored, **sizes)
    return Split({name: words}, labels, target_name)


@pytest.mark.parametrize("net, shift, mean_of_samples", [
    (CausalLM(), 1, False),
    (CausalLM(own_losses.sample_mean), 1, True),
    (MaskedLM(), 0, False),
    (MaskedLM(own_losses.sample_mean), 0, True),
    (EncoderDecoder(), 0, False),
])
def test_the_own_loss_of_a_language_model_is_computed_whatever_the_batches(net, shift, mean_of_samples):
    split = language_split()
    with torch.no_grad():
        output = net(**split.inputs, labels=split.targets)
    own = output.loss if hasattr(output, "loss") else output["loss"] if isinstance(output, dict) else output[0]
    logits = output.logits if hasattr(output, "logits") else output["logits"] if isinstance(output, dict) else output[1]
    end = logits.shape[1] - shift
    labels = split.targets[:, shift:]
    right = (logits[:, :end].argmax(2) == labels)[labels != -100].float().mean()

    for batch_size in (1, 3, 10):
        results, fit = evaluate(net, split, batch_size)
        assert (fit.loss.shift, fit.loss.mean_of_samples, fit.batches) == (shift, mean_of_samples, "")
        assert results == pytest.approx({"train_loss": float(own), "train_acc": 100 * float(right)}, rel=1e-5)
    assert any("the network's own" in remark for remark in fit.remarks)


def test_labels_are_in_the_call_only_where_the_network_needs_them():
    split = language_split()
    assert fit_to_data(CausalLM(), {"train": split}).loss.targets_as == ""
    assert fit_to_data(EncoderDecoder(), {"train": split}).loss.targets_as == "labels"


def test_a_network_that_gives_all_logits_only_with_the_targets_gets_them():
    net, split = LastOnly(), Split(*texts(ignored=-1))
    with torch.no_grad():
        own = float(net(split.inputs, split.targets)[1])
    for batch_size in (1, 3, 10):
        results, fit = evaluate(net, split, batch_size)
        assert results["train_loss"] == pytest.approx(own, rel=1e-5)
    assert fit.loss.targets_as == "targets" and fit.loss.ignored == -1


@pytest.mark.parametrize("outputs, targets", [
    (1, torch.randn(10)),
    (4, torch.arange(10) % 4),
    (3, torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]] * 2)),
])
def test_heads_for_numbers_classes_and_several_labels_have_the_losses_of_their_own(outputs, targets):
    net, split = Classifier(outputs), Split({"x": torch.randn(10, 6)}, targets, "labels")
    with torch.no_grad():
        own = float(net(**split.inputs, labels=targets)["loss"])
    for batch_size in (1, 3, 10):
        results, fit = evaluate(net, split, batch_size)
        assert results["train_loss"] == pytest.approx(own, rel=1e-5) and fit.batches == ""


def test_a_loss_without_a_known_formula_is_taken_in_batches_of_a_size_that_is_recorded():
    net, split = CausalLM(own_losses.with_penalty), language_split()
    losses = []
    with torch.no_grad():
        for inputs, targets in split.batches(8):
            losses.append(len(targets) * float(net(**inputs, labels=targets).loss))
    results, fit = evaluate(net, split, 3)
    assert isinstance(fit.loss, NetworksOwn) and fit.batch_size == 8 and fit.is_default_size
    assert results["train_loss"] == pytest.approx(sum(losses) / 10, rel=1e-6)
    assert fit.provenance()["batches"] == "8 samples" and fit.metric.shift == 1
    assert any("the last of 2" in remark for remark in fit.remarks)

    other = fit_to_data(net, {"train": split}, batch_size=5)
    assert other.batch_size == 5 and not other.is_default_size
    evaluator = other.evaluator([net], {"train": split}, 3)
    evaluator.batch_size = 2  # which a file might say
    assert evaluator.batch_size == evaluator.calibrate() == 5


def test_a_network_in_which_no_formula_can_be_told_from_another_is_asked_itself():
    net = CausalLM()
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    assert isinstance(fit_to_data(net, {"train": language_split()}).loss, NetworksOwn)


def test_model_asks_for_the_own_loss_and_is_refused_where_there_is_none():
    split = language_split()
    by_name, _ = evaluate(CausalLM(), split, loss="model")
    assert set(by_name) == {"train_loss", "train_acc"}
    for net, words in ((nn.Linear(6, 3), "its forward takes none of labels"), (Silent(6, 3), "without a loss")):
        with pytest.raises(InputError, match=words):
            fit_to_data(net, {"train": Split(torch.randn(9, 6), torch.arange(9) % 3)}, "model")


class Silent(nn.Linear):
    def forward(self, x, labels=None):
        return super().forward(x)


def test_another_loss_is_taken_where_it_is_asked_for():
    split = language_split()
    net = CausalLM()
    results, fit = evaluate(net, split, loss="torch.nn:CrossEntropyLoss")
    with torch.no_grad():
        logits = net(**split.inputs).logits
    expected = F.cross_entropy(logits.flatten(0, 1), split.targets.flatten())
    assert results["train_loss"] == pytest.approx(float(expected), rel=1e-6)
    assert fit.loss.formula == "mean over positions, label -100 left out"


def test_a_loss_of_the_users_own_may_take_what_the_network_computes():
    split = language_split()
    net = CausalLM()

    def own(output, targets):
        return output.loss

    fit = fit_to_data(net, {"train": split}, own, batch_size=10)
    assert fit.loss.targets_as == "labels" and fit.batch_size == 10


def test_real_language_models_have_their_own_loss():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": own_losses.WORDS, "use_cache": False}
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0, **sizes))
    t5 = transformers.T5ForConditionalGeneration(transformers.T5Config(
        d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0, **sizes))
    bert = transformers.BertForMaskedLM(transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16, vocab_size=own_losses.WORDS))
    split = language_split()
    for net in (gpt.eval(), t5.eval(), bert.eval()):
        with torch.no_grad():
            own = float(net(**split.inputs, labels=split.targets).loss)
        results, fit = evaluate(net, split, 3)
        assert isinstance(fit.loss, CrossEntropy) and results["train_loss"] == pytest.approx(own, rel=1e-5)


# ---------------------------------------------------------------- labels and shapes


def refused(net, targets, words, **choices):
    with pytest.raises(InputError, match=words) as error:
        fit_to_data(net, {"train": Split(torch.randn(len(targets), 6), targets)}, **choices)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("targets, words", [
    (torch.arange(9)[:, None] % 3, r"\(5, 1\); give targets\[:, 0\]"),
    (F.one_hot(torch.arange(9) % 3), "one-hot.*argmax"),
    (torch.ones(9, 3, dtype=torch.long), "several labels per sample take --loss_name torch.nn:BCEWithLogitsLoss"),
    (torch.ones(9, 3), "several labels per sample; take --loss_name torch.nn:BCEWithLogitsLoss"),
    (torch.randn(9, 3), "for numbers take --loss_name mse"),
    (torch.arange(9) % 3 + 0.0, r"targets.long\(\)"),
    (torch.randn(9), "one output per target"),
    (torch.tensor([0, 1, 255] * 3), r"255.*ignore_index=255"),
    (torch.tensor([0, 1, -1] * 3), r"-1.*ignore_index=-1"),
    (torch.arange(9), "labels below 3, the number of outputs of the network.*got 8"),
    (torch.zeros(9, 4, dtype=torch.long), r"\(5, 3\) and targets \(5, 4\)"),
])
def test_what_is_no_class_of_the_outputs_is_told_with_what_to_do(targets, words):
    refused(nn.Linear(6, 3), targets, words)


@pytest.mark.parametrize("loss", ["crossentropy", "mse"])
def test_one_output_per_sample_has_no_classes(loss):
    refused(nn.Linear(6, 1), torch.arange(9) % 2, "BCEWithLogitsLoss", loss=loss)


def test_numbers_under_the_default_loss_are_told_the_loss_and_the_shape():
    refused(nn.Linear(6, 1), torch.randn(9), r"\(5, 1\) and targets \(5,\).*mse, and give targets\[:, None\]")
    refused(nn.Linear(6, 1), torch.ones(9, 1), "BCEWithLogitsLoss")


@pytest.mark.parametrize("loss", [
    "mse", "torch.nn:SmoothL1Loss", F.mse_loss, nn.MSELoss(),
    lambda o, t: (o - t).abs(), lambda o, t: (o - t).abs().mean(), lambda o, t: (o - t).square().mean(0),
])
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_outputs_and_targets_that_would_be_compared_each_with_each_are_refused(loss):
    refused(nn.Linear(6, 1), torch.randn(9), r"outputs \(5, 1\) and targets \(5,\); give targets", loss=loss)
    refused(nn.Linear(6, 1), torch.randn(9), r"outputs \(5, 1\) and targets", loss=loss, batch_size=3)


@pytest.mark.parametrize("loss", [
    lambda o, t: (o[:, 0] - t).abs(), lambda o, t: (o.squeeze() - t).abs().mean(), lambda o, t: (o.flatten() - t) ** 2,
])
def test_shapes_that_the_loss_itself_makes_one_are_taken(loss):
    net, split = nn.Linear(6, 1), Split(torch.randn(9, 6), torch.randn(9))
    with torch.no_grad():
        expected = float(loss(net(split.inputs), split.targets).mean())
    assert evaluate(net, split, loss=loss)[0] == {"train_loss": pytest.approx(expected, rel=1e-6)}


def test_numbers_and_classes_have_the_mse_that_is_theirs():
    net, inputs = nn.Linear(6, 3), torch.randn(9, 6)
    with torch.no_grad():
        outputs = net(inputs)
    numbers, classes = torch.randn(9, 3), torch.arange(9) % 3
    for targets, expected in (
            (numbers, F.mse_loss(outputs, numbers)),
            (classes, (outputs.softmax(1) - F.one_hot(classes, 3)).square().mean())):
        results, _ = evaluate(net, Split(inputs, targets), loss="mse")
        assert results["train_loss"] == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("targets, metric", [
    (torch.arange(9) % 3, "accuracy"), (torch.randn(9, 3).softmax(1), "none")])
def test_accuracy_is_measured_where_targets_are_classes(targets, metric):
    data = {"train": Split(torch.randn(9, 6), targets)}
    assert fit_to_data(nn.Linear(6, 3), data).metric_name == metric
    assert fit_to_data(nn.Linear(6, 3), data, metric="none").metric_name == "none"


class OfImages(nn.Module):
    """{"out": (B, 4, H, W)} of images."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return {"out": self.norm(self.conv(x)), "aux": [x.mean()]}


def test_a_loss_gets_what_the_network_gives_also_for_images():
    net, split = OfImages().eval(), Split(torch.randn(7, 3, 5, 5), torch.randint(4, (7, 5, 5)))
    with torch.no_grad():
        expected = F.cross_entropy(net(split.inputs)["out"], split.targets)
    results, _ = evaluate(net, split, loss=lambda output, y: F.cross_entropy(output["out"], y))
    assert results["train_loss"] == pytest.approx(float(expected), rel=1e-6)


# ---------------------------------------------------------------- losses that are no mean over samples


def contrastive(output, targets):
    similarity = F.normalize(output) @ F.normalize(output).T
    return similarity.logsumexp(1).mean()


def dice(output, targets):
    shares = output.softmax(1)[:, 0]
    return 1 - 2 * (shares * (targets == 0)).sum() / (shares.sum() + (targets == 0).sum() + 1e-6)


def weighted(output, targets):
    return F.cross_entropy(output, targets, weight=WEIGHTS)


def ranks(output, targets):
    """One number per sample, which depends on the others."""
    return (output[:, 0] - output[:, 0].mean()).square()


LOSSES_OF_BATCHES = [contrastive, dice, weighted, ranks]


@pytest.fixture
def classes():
    return Split(torch.randn(21, 6), torch.arange(21).div(6, rounding_mode="floor"))  # sorted


@pytest.mark.parametrize("loss", LOSSES_OF_BATCHES)
def test_a_loss_that_is_no_mean_needs_a_batch_size_which_stays(loss, classes):
    net = nn.Linear(6, 4)
    with pytest.raises(InputError, match="is no mean over the samples.*--batch_size N"):
        fit_to_data(net, {"train": classes}, loss)

    fit = fit_to_data(net, {"train": classes}, loss, batch_size=8)
    assert fit.provenance()["batches"] == "8 samples" and not fit.is_default_size
    assert any("the last of 5 counts with its number of samples" in remark for remark in fit.remarks)
    with torch.no_grad():
        parts = [len(y) * float(loss(net(x), y).mean()) for x, y in classes.batches(8)]
    for nets in ([net], [net, copy.deepcopy(net)]):  # two devices share whole batches
        results = fit.evaluator(nets, {"train": classes}, 3)(["train"])
        assert results["train_loss"] == pytest.approx(sum(parts) / 21, rel=1e-5)


def test_a_metric_that_is_no_mean_needs_one_too(classes, tmp_path):
    (tmp_path / "own.py").write_text("def f1(output, targets):\n    return output.argmax(1).float().std()\n")
    with pytest.raises(InputError, match="--metric .*f1 is no mean"):
        fit_to_data(nn.Linear(6, 4), {"train": classes}, metric=f"{tmp_path}/own.py:f1")


def test_where_the_first_samples_are_of_one_class_weights_are_seen_nevertheless():
    batches = Batches([(torch.randn(6, 6), torch.full((6,), label)) for label in range(4)], 24, held=True)
    fit = fit_to_data(nn.Linear(6, 4), {"train": batches}, weighted)
    assert fit.batches == "as the data come, the first of 6 samples"


@pytest.mark.parametrize("loss", [
    nn.CrossEntropyLoss(reduction="sum"), lambda o, t: F.cross_entropy(o, t, reduction="sum")])
def test_a_sum_over_the_batch_is_recognized(loss, classes):
    for batch_size in (None, 8):
        with pytest.raises(InputError, match="sum over the batch.*divide it"):
            fit_to_data(nn.Linear(6, 4), {"train": classes}, loss, batch_size=batch_size)


@pytest.mark.parametrize("loss", [
    F.cross_entropy, nn.CrossEntropyLoss(weight=WEIGHTS), lambda o, t: F.cross_entropy(o, t, reduction="none"),
    lambda o, t: F.cross_entropy(o, t) + 0.3])
def test_means_are_taken_at_any_batch_size(loss, classes):
    net = nn.Linear(6, 4)
    with torch.no_grad():
        expected = float(loss(net(classes.inputs), classes.targets).mean())
    for batch_size in (1, 4, 21):
        results, fit = evaluate(net, classes, batch_size, loss=loss)
        assert results["train_loss"] == pytest.approx(expected, rel=1e-6) and fit.batches == ""


def test_a_network_in_train_mode_is_told_so(classes):
    net = nn.Sequential(nn.Linear(6, 4), nn.Dropout())
    with pytest.raises(InputError, match="Sequential is in train mode; call net.eval"):
        fit_to_data(net, {"train": classes})


def test_a_network_whose_outputs_depend_on_the_batch_needs_a_batch_size(classes):
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False)).eval()
    with pytest.raises(InputError, match="depends on the samples beside it.*--batch_size N"):
        fit_to_data(net, {"train": classes})
    assert fit_to_data(net, {"train": classes}, batch_size=7).batch_size == 7
    trained = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval()
    assert fit_to_data(trained, {"train": classes}).batches == ""


# ---------------------------------------------------------------- noise


class Noisy(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.linear, self.draw = nn.Linear(6, 4), draw

    def forward(self, x):
        return self.draw(self.linear(x))


def from_numpy(x):
    import numpy as np

    return x + torch.as_tensor(np.random.randn(*x.shape)).float()


OWN_GENERATOR = torch.Generator().manual_seed(5)


@pytest.mark.parametrize("draw, words", [
    (F.dropout, r"dropout is switched on in eval mode; make it F.dropout\(x, training=self.training\), or --noise_s"),
    (lambda x: x + torch.randn_like(x), "torch.randn_like draws random numbers in it; --noise_seed N"),
    (from_numpy, "something in it is random.*; --noise_seed N"),
])
def test_a_network_that_draws_noise_is_refused_with_what_draws_it(draw, words, classes):
    with pytest.raises(InputError, match=f"two passes of the network.*{words}") as error:
        fit_to_data(Noisy(draw).eval(), {"train": classes})
    assert "dropout" not in str(error.value) or draw is F.dropout


def test_noise_in_the_loss_and_in_the_metric_is_seen(classes, tmp_path):
    def noisy(output, targets):
        return F.cross_entropy(output + torch.randn(output.shape), targets, reduction="none")

    with pytest.raises(InputError, match="two passes of the loss.*torch.randn draws.*--noise_seed"):
        fit_to_data(nn.Linear(6, 4), {"train": classes}, noisy)
    (tmp_path / "own.py").write_text(
        "import random\n\n\ndef noisy(output, targets):\n    return output[:, 0] * random.random()\n")
    with pytest.raises(InputError, match="two passes of the metric.*something in it is random"):
        fit_to_data(nn.Linear(6, 4), {"train": classes}, metric=f"{tmp_path}/own.py:noisy")


@pytest.mark.parametrize("draw", [F.dropout, lambda x: x + torch.randn_like(x), from_numpy])
def test_with_a_noise_seed_every_pass_draws_the_same_and_leaves_the_streams_alone(draw, classes):
    net = Noisy(draw)
    fit = fit_to_data(net, {"train": classes}, noise_seed=3, batch_size=8)
    assert fit.provenance() == {"batches": "8 samples", "noise": "seed 3"}
    evaluator = fit.evaluator([net], {"train": classes}, 5)
    before = torch.get_rng_state()
    first = evaluator(["train"])
    torch.rand(7)
    assert evaluator(["train"]) == first
    torch.set_rng_state(before)
    evaluator(["train"])
    assert torch.equal(torch.get_rng_state(), before)

    # the user's own loop
    import numpy as np
    torch.manual_seed(3)
    np.random.seed(3)
    with torch.no_grad():
        total = sum(len(y) * float(F.cross_entropy(net(x), y)) for x, y in classes.batches(8))
    assert first["train_loss"] == pytest.approx(total / 21, rel=1e-5)


def test_a_noise_seed_that_reaches_nothing_or_not_all_is_told(classes):
    fit = fit_to_data(nn.Linear(6, 4), {"train": classes}, noise_seed=3)
    assert any("nothing draws random numbers" in remark for remark in fit.remarks) and fit.batch_size == 128
    net = Noisy(lambda x: x + torch.randn(x.shape, generator=OWN_GENERATOR))
    with pytest.raises(InputError, match="from a generator of its own"):
        fit_to_data(net, {"train": classes}, noise_seed=3)


def test_a_trial_leaves_the_random_streams_alone(classes):
    before = torch.get_rng_state()
    fit_to_data(nn.Linear(6, 4), {"train": classes}, noise_seed=3)
    fit_to_data(CausalLM(), {"train": language_split()})
    torch.set_rng_state(before)
    net = nn.Linear(6, 4)
    after_build = torch.get_rng_state()
    fit_to_data(net, {"train": classes}, noise_seed=3)
    assert torch.equal(torch.get_rng_state(), after_build)


def test_a_network_that_changes_its_weights_has_its_old_ones_after_a_fit():
    net = nn.Sequential(nn.Embedding(11, 6, max_norm=0.5), nn.Flatten(), nn.Linear(30, 4))
    before = [parameter.clone() for parameter in net.parameters()]
    words = torch.randint(11, (20, 5), generator=torch.Generator().manual_seed(0))
    fit_to_data(net, {"train": Split(words, torch.arange(20) % 4)})
    for parameter, values in zip(net.parameters(), before, strict=True):
        assert torch.equal(parameter, values)
    net(words)
    assert not torch.equal(net[0].weight, before[0])  # it does change them
