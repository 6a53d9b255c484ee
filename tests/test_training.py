"""Takes about 30 s on one core."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifar10 import main as command
from losslandscape.choices import choose
from losslandscape.data.datasets import load_dataset
from losslandscape.data.splits import Split
from losslandscape.errors import InputError
from losslandscape.measuring.evaluator import eval_loss
from losslandscape.networks.loading import load_net
from losslandscape.networks.zoo import build
from losslandscape.training.examples import augment, batch_indices, corrupt_labels
from losslandscape.training.loop import init_params, train_epoch
from losslandscape.training.recipe import TrainingRecipe
from tests.conftest import refused, run

CLASSES = 4


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """65 training and 21 test images of 3x8x8 in 4 classes that are easy to tell apart; 65 = 4 * 16 + 1."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(CLASSES, 3, 8, 8))
    labels = [rng.integers(CLASSES, size=n) for n in (65, 21)]
    images = [(2 * patterns[y] + rng.normal(size=(len(y), 3, 8, 8))).astype(np.float32) for y in labels]
    np.savez(path, x_train=images[0], y_train=labels[0], x_test=images[1], y_test=labels[1])
    return path


@pytest.fixture
def train(npz, tmp_path):
    """train(*flags) runs a training into a scratch folder and returns the folder of its checkpoints."""

    def train(*flags, save="nets"):
        command.main(["--model", "resnet20", "--dataset", str(npz), "--batch_size", "16", "--lr", "0.02",
                       "--save", str(tmp_path / save), *map(str, flags)])
        (folder,) = (tmp_path / save).iterdir()
        return folder

    return train


def load(path):
    return torch.load(path, weights_only=True)


def equal(a, b):
    """Bit for bit the same nested dicts, lists, tensors and numbers."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


# ---------------------------------------------------------------- the whole training


VARIANTS = {
    "sgd with augmentation": (),
    "adam, mse, without augmentation": ("--optimizer", "adam", "--loss_name", "mse", "--noaug", "--lr", "0.002"),
    "random labels": ("--label_corrupt_prob", "0.5", "--rand_seed", "3"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_and_resumed_training_equals_uninterrupted_training(variant, train):
    flags = ("--save_epoch", "2", *VARIANTS[variant])
    whole = train("--epochs", 4, *flags, save="whole")
    stopped = train("--epochs", 2, *flags, save="stopped")
    resumed = train("--epochs", 4, *flags, "--resume_model", stopped / "model_2.t7",
                    "--resume_opt", stopped / "opt_state_2.t7", save="resumed")
    assert whole.name == stopped.name == resumed.name
    assert sorted(p.name for p in resumed.iterdir()) == ["log.out", "model_4.t7", "opt_state_4.t7"]
    for name in ("model_4.t7", "opt_state_4.t7"):
        assert equal(load(whole / name), load(resumed / name))
    assert not equal(load(whole / "model_4.t7")["state_dict"], load(whole / "model_2.t7")["state_dict"])
    scores = [re.sub(r"\S+ s$", "", (folder / "log.out").read_text().splitlines()[-1]) for folder in (whole, resumed)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("variant", ["sgd with augmentation", "adam, mse, without augmentation"])
def test_saved_loss_is_bit_for_bit_that_of_the_loaded_checkpoint(variant, npz, train):
    folder = train("--epochs", 2, "--save_epoch", 1, *VARIANTS[variant])
    loss_name = "mse" if "mse" in variant else "crossentropy"
    data = load_dataset(str(npz))
    for epoch in (0, 1, 2):
        saved = load(folder / f"model_{epoch}.t7")
        net = load_net("resnet20", folder / f"model_{epoch}.t7")
        for name, split in (("train", data.train), ("test", data.test)):
            loss, accuracy = eval_loss(net, split, loss_name)
            assert saved[f"{name}_loss"] == loss and saved[f"{name}_acc"] == accuracy
        with torch.no_grad():  # and an independent computation agrees
            logits = net(data.test.inputs)
        hits = (logits.argmax(1) == data.test.targets).double().mean()
        assert saved["acc"] == saved["test_acc"] == pytest.approx(100 * float(hits))
        line = (folder / "log.out").read_text().splitlines()[1 + epoch]
        assert f"train_loss {saved['train_loss']:.5f}" in line and f"test_loss {saved['test_loss']:.5f}" in line
        assert f"train_err {100 - saved['train_acc']:.2f}" in line and f"test_err {100 - saved['test_acc']:.2f}" in line


@pytest.mark.parametrize("flags", [("--lr", 0.05), ("--lr", 0.2, "--loss_name", "mse"),
                                   ("--lr", 0.002, "--optimizer", "adam")], ids=["sgd", "sgd, mse", "adam"])
def test_training_learns(flags, train):
    folder = train("--epochs", 10, "--noaug", "--save_epoch", 10, *flags)
    first, last = load(folder / "model_0.t7"), load(folder / "model_10.t7")
    assert last["train_loss"] < 0.3 * first["train_loss"]
    assert last["acc"] > 85


def test_checkpoints_are_those_of_epochs_0_1_every_save_epoch_and_the_last(train):
    folder = train("--epochs", 5, "--save_epoch", 3)
    epochs = (0, 1, 3, 5)
    assert {p.name for p in folder.iterdir()} == {"log.out"} | {
        f"{stem}_{epoch}.t7" for epoch in epochs for stem in ("model", "opt_state")}
    for epoch in epochs:
        checkpoint, optimizer = load(folder / f"model_{epoch}.t7"), load(folder / f"opt_state_{epoch}.t7")
        assert checkpoint["epoch"] == optimizer["epoch"] == epoch
        assert {"acc", "epoch", "state_dict", "train_loss", "test_acc"} <= set(checkpoint)
        assert checkpoint["model"] == "resnet20"
        assert len(optimizer["optimizer"]["state"]) == (len(list(build("resnet20").parameters())) if epoch else 0)
    assert list(load(folder / "model_5.t7")["state_dict"]) == list(build("resnet20").state_dict())
    assert [epoch for epoch in range(301) if TrainingRecipe(save_epoch=70).saves(epoch, 300)] == [
        0, 1, 70, 140, 150, 210, 280, 300]


def test_one_epoch_from_the_command_line(npz, tmp_path):
    process = run("-m", "cifar10.main", "--epochs", 1, "--dataset", npz, "--model", "resnet20",
                  "--save", tmp_path / "nets")
    assert process.returncode == 0 and process.stderr == ""
    name = "resnet20_sgd_lr=0.1_bs=128_wd=0.0005_mom=0.9_save_epoch=10_dataset=tiny"
    assert {p.name for p in (tmp_path / "nets" / name).iterdir()} == {
        "log.out", "model_0.t7", "opt_state_0.t7", "model_1.t7", "opt_state_1.t7"}
    assert process.stdout == (tmp_path / "nets" / name / "log.out").read_text()
    assert [line.split()[:2] for line in process.stdout.splitlines()[1:]] == [["epoch", "0"], ["epoch", "1"]]


def test_module_script_and_subcommand_are_one_command():
    as_module, as_script = run("-m", "cifar10.main", "--help"), run("cifar10/main.py", "--help")
    as_subcommand = run("-m", "losslandscape", "train", "--help")
    assert as_module.returncode == as_script.returncode == as_subcommand.returncode == 0
    assert as_module.stdout == as_script.stdout and "--resume_model" in as_module.stdout
    assert as_subcommand.stdout.startswith("usage: losslandscape train ")
    assert flags_in(as_subcommand.stdout) == flags_in(as_module.stdout)


def flags_in(text):
    return set(re.findall(r"--\w+", text))


def test_a_training_set_alone_is_enough(npz, tmp_path, train, capsys):
    arrays = np.load(npz)
    np.savez(tmp_path / "alone.npz", x_train=arrays["x_train"], y_train=arrays["y_train"])
    folder = train("--epochs", 1, "--dataset", tmp_path / "alone.npz")
    checkpoint = load(folder / "model_1.t7")
    assert checkpoint["acc"] == checkpoint["train_acc"] and "test_loss" not in checkpoint
    assert "test" not in capsys.readouterr().out.splitlines()[-1]


# ---------------------------------------------------------------- recipe


DEFAULT = "resnet56_sgd_lr=0.1_bs=128_wd=0.0005_mom=0.9_save_epoch=10"


@pytest.mark.parametrize("recipe, name", [
    (TrainingRecipe(), DEFAULT),
    (TrainingRecipe(rand_seed=5), DEFAULT),
    (TrainingRecipe(loss_name="mse"), DEFAULT + "_loss=mse"),
    (TrainingRecipe(noaug=True, raw_data=True), DEFAULT + "_noaug_rawdata"),
    (TrainingRecipe(label_corrupt_prob=0.25, ngpu=2, idx=3), DEFAULT + "_randlabel=0.25_ngpu=2_idx=3"),
    (TrainingRecipe(dataset="digits"), DEFAULT + "_dataset=digits"),
    (TrainingRecipe(dataset="some/folder/tiny.npz", idx=1), DEFAULT + "_idx=1_dataset=tiny"),
    (TrainingRecipe("vgg9", "adam", 0.001, 0.5, 64, 0.0, 0.0, 1),
     "vgg9_adam_lr=0.001_lr_decay=0.5_bs=64_wd=0.0_mom=0.0_save_epoch=1"),
])
def test_the_folder_is_named_after_the_choices(recipe, name):
    assert recipe.folder_name == name


def test_defaults_are_those_of_the_paper():
    args = command.make_parser().parse_args([])
    assert (args.epochs, args.batch_size, args.lr, args.lr_decay) == (300, 128, 0.1, 0.1)
    assert (args.optimizer, args.momentum, args.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (args.save_epoch, args.rand_seed, args.loss_name, args.ngpu) == (10, 0, "crossentropy", 1)
    assert choose(TrainingRecipe, vars(args)) == TrainingRecipe()


def test_the_learning_rate_is_a_function_of_the_epoch_and_decays_after_150_225_275():
    recipe = TrainingRecipe(lr=1.0, lr_decay=0.1)
    for epoch, power in ((1, 0), (150, 0), (151, 1), (225, 1), (226, 2), (275, 2), (276, 3), (300, 3)):
        assert recipe.learning_rate(epoch) == pytest.approx(0.1**power)


def test_the_optimizer_gets_the_learning_rate_of_the_epoch(npz):
    data = load_dataset(str(npz))
    recipe = TrainingRecipe(model="resnet20", batch_size=65, lr=0.1)
    net = build("resnet20", num_classes=CLASSES)
    optimizer = recipe.make_optimizer(net.parameters())
    assert optimizer.param_groups[0]["nesterov"] and optimizer.param_groups[0]["weight_decay"] == 5e-4
    train_epoch(net, optimizer, data, recipe, 226)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


@pytest.mark.parametrize("name", ["vgg9", "resnet18", "densenet121"])
def test_initial_weights_are_he_normal_and_nearly_zero_linear(name):
    net = build(name)
    torch.manual_seed(0)
    init_params(net)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_in = module.weight[0].numel()
            spread = float(module.weight.detach().std()) / (2 / fan_in) ** 0.5
            assert spread == pytest.approx(1, abs=5 / module.weight.numel() ** 0.5)
            assert float(module.weight.detach().abs().max()) > 2.5 * (2 / fan_in) ** 0.5  # normal, not uniform
        elif isinstance(module, torch.nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(1e-3, rel=0.1)
        elif isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            assert bool((module.weight == 1).all())
        if getattr(module, "bias", None) is not None:
            assert not module.bias.any()


# ---------------------------------------------------------------- what is random


def test_corrupted_labels_are_uniform_random_ones_with_the_asked_probability():
    targets = torch.arange(10).repeat(2000)
    for probability in (0.0, 0.3, 1.0):
        labels = corrupt_labels(targets, 10, probability, np.random.default_rng(1))
        assert labels.dtype == torch.int64 and int(labels.min()) >= 0 and int(labels.max()) <= 9
        assert float((labels != targets).double().mean()) == pytest.approx(0.9 * probability, abs=0.015)
    counts = torch.bincount(labels, minlength=10)  # at probability 1
    assert int((counts - 2000).abs().max()) < 200


def test_training_with_corrupted_labels_trains_on_them(npz, train):
    """The training accuracy of the checkpoint is that on labels which differ from the true ones."""
    folder = train("--epochs", 1, "--label_corrupt_prob", 0.8, "--rand_seed", 2)
    data = load_dataset(str(npz))
    labels = corrupt_labels(data.train.targets, CLASSES, 0.8, TrainingRecipe(rand_seed=2).generator(0))
    assert float((labels != data.train.targets).double().mean()) > 0.4
    net, saved = load_net("resnet20", folder / "model_1.t7"), load(folder / "model_1.t7")
    on_corrupted = eval_loss(net, Split(data.train.inputs, labels))
    assert (saved["train_loss"], saved["train_acc"]) == on_corrupted
    assert saved["train_loss"] != eval_loss(net, data.train)[0]
    assert saved["test_loss"] == eval_loss(net, data.test)[0]  # the test labels are the true ones


def test_repeats_differ_and_the_same_seed_gives_the_same_network(train):
    folders = {flags: train("--epochs", 1, *flags, save="_".join(map(str, flags)) + "_")
               for flags in (("--idx", 0), ("--idx", 1), ("--rand_seed", 1), ("--rand_seed", 0))}
    start, end = ([load(folder / f"model_{epoch}.t7")["state_dict"] for folder in folders.values()] for epoch in (0, 1))
    for states in (start, end):
        assert equal(states[0], states[3]) and equal(states[1], states[2]) and not equal(states[0], states[1])


@pytest.mark.parametrize("count, batch_size, sizes", [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (3, 4, [3])])
def test_batches_hold_every_image_once_and_none_stands_alone(count, batch_size, sizes):
    batches = batch_indices(count, batch_size, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert not equal(batches, batch_indices(count, batch_size, np.random.default_rng(1)))


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_augmented_images_are_crops_of_the_padded_image_and_its_mirror_image(flip, memory_format):
    """Compared with all 81 crops (162 with mirror images), cut out one by one."""
    inputs = torch.randn(5, 3, 6, 9)
    black = torch.tensor([0.5, -1.0, 2.0])
    index = torch.tensor([3, 1, 1, 4] * 40)
    crops = augment(inputs.to(memory_format=memory_format), index, black, flip, np.random.default_rng(0))
    assert crops.shape == (160, 3, 6, 9) and crops.is_contiguous(memory_format=torch.channels_last)
    seen = set()
    for crop, i in zip(crops, index, strict=True):
        padded = F.pad(inputs[i] - black[:, None, None], (4, 4, 4, 4))
        candidates = {(top, left, mirror): padded[:, top:top + 6, left:left + 9].flip(2) if mirror
                      else padded[:, top:top + 6, left:left + 9]
                      for top in range(9) for left in range(9) for mirror in ((False, True) if flip else (False,))}
        # a candidate without any pixel of the image would fit many crops; here 6x9 images always keep some
        found = [how for how, image in candidates.items()
                 if torch.allclose(crop - black[:, None, None], image, atol=1e-6)]
        assert len(found) == 1
        seen.add(found[0])
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(9))
    assert {mirror for _, _, mirror in seen} == ({False, True} if flip else {False})


def test_black_pixels_of_augmented_images_are_exactly_black():
    black = torch.tensor([0.1, 0.2, 0.3])
    crops = augment(torch.full((1, 3, 8, 8), 7.0), torch.zeros(50, dtype=torch.int64), black, False,
                             np.random.default_rng(0))
    outside = crops != 7
    assert outside.any() and torch.equal(crops[outside], black[:, None, None].expand_as(crops)[outside])


# ---------------------------------------------------------------- what can't be used


def refuse(capsys, tmp_path, *flags):
    """The InputError of a training, which must be one line and leave nothing behind."""
    with pytest.raises(InputError) as caught:
        command.main([*map(str, flags), "--save", str(tmp_path / "nets")])
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert not (tmp_path / "nets").exists()
    return message


@pytest.mark.parametrize("flags, said", [
    (("--model", "resnet21"), "near: resnet"),
    (("--dataset", "digit"), "digits"),
    (("--epochs", "0"), "--epochs"),
    (("--batch_size", "1"), "at least 2"),
    (("--lr", "nan"), "--lr"),
    (("--lr", "fast"), "fast"),
    (("--lr", "-1"), "--lr"),
    (("--label_corrupt_prob", "1.5"), "from 0 to 1"),
    (("--loss_name", "hinge"), "crossentropy"),
    (("--optimizer", "lbfgs"), "adam"),
    (("--rand_seed", "-1"), "--rand_seed"),
    (("--ngpu", "2"), "--cuda"),
    (("--cuda", "--ngpu", "1000"), "1000 CUDA"),
    (("--resume_opt", "opt_state_1.t7"), "--resume_model"),
    (("--resume_model", "none.t7"), "none.t7"),
    (("--dataset", "none.npz"), "none.npz"),
])
def test_bad_flags_are_one_line_and_leave_nothing(flags, said, capsys, tmp_path):
    assert said in refuse(capsys, tmp_path, "--dataset", "digits", "--model", "resnet20", *flags)


def test_bad_input_on_the_command_line_has_exit_code_2_and_no_traceback(tmp_path):
    process = run("-m", "cifar10.main", "--model", "vgg10", "--save", tmp_path / "nets")
    assert refused(process) and "vgg9" in process.stderr and not (tmp_path / "nets").exists()


def test_images_that_no_network_takes_are_one_line(capsys, tmp_path):
    for name, shape in (("grey", (5, 1, 8, 8)), ("small", (5, 3, 7, 8)), ("one", (1, 3, 8, 8))):
        path = tmp_path / f"{name}.npz"
        np.savez(path, x_train=np.zeros(shape, np.float32), y_train=np.zeros(shape[0], np.int64))
        assert f"{name}.npz" in refuse(capsys, tmp_path, "--model", "resnet20", "--dataset", path)


def test_a_place_that_can_not_be_written_is_one_line(npz, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="another --save"):
        command.main(["--model", "resnet20", "--dataset", str(npz), "--save", str(tmp_path / "file")])


def test_a_resume_that_does_not_fit_is_one_line_that_says_why(npz, capsys, tmp_path, train):
    folder = train("--epochs", 2, "--save_epoch", 1, save="first")
    adam = train("--epochs", 1, "--optimizer", "adam", save="adam")
    torch.save(load(folder / "model_1.t7")["state_dict"], tmp_path / "bare.t7")
    torch.save({"optimizer": {"state": {0: {"momentum_buffer": torch.zeros(1)}}, "param_groups": []}},
               tmp_path / "other.t7")
    torch.save(["optimizer"], tmp_path / "list.t7")
    torch.save({"state_dict": load(folder / "model_1.t7")["state_dict"], "epoch": 1}, tmp_path / "unnamed.t7")
    model, base = folder / "model_1.t7", ("--model", "resnet20", "--dataset", npz, "--epochs", 3)
    for flags, said in (
        (("--model", "resnet32", "--resume_model", model), "give --model resnet20"),
        (("--resume_model", tmp_path / "bare.t7"), "number of an epoch"),
        (("--resume_model", model, "--dataset", "digits"), "tiny.npz"),
        (("--resume_model", tmp_path / "unnamed.t7", "--dataset", "digits"), "with 4 classes, not 10"),
        (("--resume_model", folder / "model_2.t7", "--epochs", 2), "above 2"),
        (("--resume_model", model, "--resume_opt", folder / "opt_state_2.t7"), "optimizer of epoch 1"),
        (("--resume_model", model, "--resume_opt", adam / "opt_state_1.t7"), "exp_avg"),
        (("--resume_model", model, "--resume_opt", model), "opt_state_E.t7"),
        (("--resume_model", model, "--resume_opt", tmp_path / "other.t7"), "another model"),
        (("--resume_model", model, "--resume_opt", tmp_path / "list.t7"), "opt_state_E.t7"),
        (("--resume_model", model, "--resume_opt", tmp_path / "none.t7"), "none.t7"),
    ):
        assert said in refuse(capsys, tmp_path, *base, *flags)


def test_a_model_of_another_data_set_is_not_resumed(npz, capsys, tmp_path, train):
    folder = train("--epochs", 1, save="first")
    (tmp_path / "other.npz").write_bytes(npz.read_bytes())
    message = refuse(capsys, tmp_path, "--model", "resnet20", "--dataset", tmp_path / "other.npz", "--epochs", 2,
                     "--resume_model", folder / "model_1.t7")
    assert "tiny.npz" in message and "other.npz" in message


def test_the_learning_rate_and_weight_decay_of_a_resumed_training_are_those_of_the_flags(train):
    folder = train("--epochs", 1, save="first")
    resumed = train("--epochs", 2, "--lr", 0.005, "--weight_decay", 0.0, "--resume_model", folder / "model_1.t7",
                    "--resume_opt", folder / "opt_state_1.t7", save="resumed")
    group = load(resumed / "opt_state_2.t7")["optimizer"]["param_groups"][0]
    assert group["lr"] == 0.005 and group["weight_decay"] == 0.0
