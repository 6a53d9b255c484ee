"""The examples run as they say, and the surfaces of one's own networks are right."""

import contextlib
import json
import os
import re
import runpy
import shlex
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import plot_surface
from losslandscape.files import layouts as h5_util
from losslandscape.networks import loading as model_loader
from tests.conftest import ROOT, run

EXAMPLES = ("own_network", "transformer", "regression")


def usage(name):
    """The commands that an example's docstring shows, as lists of words."""
    text = re.sub(r"\\\\\n +", " ", (ROOT / "examples" / f"{name}.py").read_text().split('"""')[1])
    lines = re.findall(r"^    (python .*?)(?:   .*)?$", text, re.M)
    return [shlex.split(re.sub(" {2,}", " ", line)) for line in lines if "..." not in line]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which each example has been trained by its own command (the transformer for a few steps)."""
    folder = tmp_path_factory.mktemp("examples")
    os.symlink(ROOT / "examples", folder / "examples")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        for name in EXAMPLES:
            file = f"examples/{name}.py"
            patch.setattr(sys, "argv", [file, *(["transformer.pt", "5"] if name == "transformer" else [])])
            runpy.run_path(file, run_name="__main__")
    return folder


@pytest.fixture
def own(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_commands_shown_compute_and_draw_a_surface(own, name):
    commands = [words for words in usage(name) if words[1] == "plot_surface.py"]
    assert commands
    for words in commands:
        small = [re.sub(r"^(--[xy]=.*:)\d+$", r"\g<1>3", word) for word in words[2:]]
        small = ["30" if before == "--data_split" else word for before, word in zip(["", *small], small, strict=False)]
        file = own / f"{name}.h5"
        plot_surface.main([*small, "--surf_file", str(file)])
        surface = h5_util.read_surface(file)
        assert all(mask.all() for mask in surface.computed.values())
        assert list(own.glob(f"{name}.h5_*.pdf"))


def test_no_accuracy_is_made_up_where_there_is_none(own):
    assert set(h5_util.read_surface(own / "regression.h5").values) == {"train_loss", "train_absolute_error"}
    assert "train_acc" in h5_util.read_surface(own / "transformer.h5").values


def test_the_centre_of_a_regression_is_the_loss_that_torch_computes(own):
    sys.path.append(str(ROOT / "examples"))
    import regression

    net = model_loader.load_net("examples/regression.py:net", "regression.pt")
    x, y = regression.data("train")
    with torch.no_grad():
        loss, error = nn.functional.mse_loss(net(x), y), (net(x) - y).abs().mean()
    surface = h5_util.read_surface(own / "regression.h5")
    assert surface.values["train_loss"][1] == pytest.approx(float(loss), rel=1e-5)
    assert surface.values["train_absolute_error"][1] == pytest.approx(float(error), rel=1e-5)


def test_the_loss_of_a_text_is_the_mean_over_its_positions(own):
    sys.path.append(str(ROOT / "examples"))
    import transformer

    net = model_loader.load_net("examples/transformer.py:Transformer", "transformer.pt")
    assert net.head.weight is net.tokens.weight  # tied weights stay tied
    inputs, targets = transformer.text("test")
    plot_surface.main([
        "--model", "examples/transformer.py:Transformer", "--dataset", "examples/transformer.py:text", "--model_file",
        "transformer.pt", "--eval_set", "test", "--x=-1:1:3", "--xnorm", "filter", "--surf_file", "text.h5"])
    with torch.no_grad():
        logits = net(**inputs)
    surface = h5_util.read_surface("text.h5")
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert surface.values["test_loss"][1] == pytest.approx(float(expected), rel=1e-5)
    assert surface.values["test_acc"][1] == pytest.approx(100 * float((logits.argmax(2) == targets).float().mean()))


def test_two_ranks_give_the_surface_of_one(own):
    words = [w for w in usage("own_network")[1][2:] if w != "--plot" and not w.startswith("--x=")]
    files = []
    for ranks in (0, 2):
        done = run(ROOT / "plot_surface.py", *words, "--x=-1:1:5", "--batch_size", "64", "--surf_file",
                   own / f"{ranks}.h5", ranks=ranks, cwd=own)
        assert done.returncode == 0, done.stderr
        files.append(h5_util.read_surface(own / f"{ranks}.h5"))
    for name, values in files[0].values.items():
        np.testing.assert_array_equal(values, files[1].values[name])


def test_a_network_that_brings_its_weights_needs_no_checkpoint(own):
    (own / "pretrained.py").write_text(
        "import torch\n\n\ndef net():\n    n = torch.nn.Linear(10, 1)\n"
        "    torch.nn.init.constant_(n.weight, 0.1)\n    torch.nn.init.zeros_(n.bias)\n    return n\n")
    flags = ["--model", "pretrained.py:net", "--dataset", "examples/regression.py:data", "--loss_name",
             "torch.nn:MSELoss", "--x=-1:1:3", "--xnorm", "filter", "--xignore", "biasbn"]
    plot_surface.main(flags)
    (file,) = own.glob("pretrained.net_weights_*_loss=MSELoss.h5")
    assert h5_util.read_surface(file).computed["train_loss"].all()
    (own / "pretrained.py").write_text((own / "pretrained.py").read_text().replace("0.1", "0.2"))
    done = run(ROOT / "plot_surface.py", *flags, cwd=own)
    assert done.returncode == 2 and "contents of --model_file" in done.stderr


def test_a_changed_loss_is_not_mixed_in(own):
    (own / "loss.py").write_text("def loss(output, targets):\n    return (output - targets).abs().mean()\n")
    flags = ["--model", "examples/regression.py:net", "--dataset", "examples/regression.py:data", "--model_file",
             "regression.pt", "--loss_name", "loss.py:loss", "--x=-1:1:3", "--xnorm", "filter", "--surf_file", "l.h5"]
    assert run(ROOT / "plot_surface.py", *flags, cwd=own).returncode == 0
    before = h5_util.read_surface(own / "l.h5").values["train_loss"]
    assert before[1] == pytest.approx(h5_util.read_surface(own / "regression.h5").values["train_absolute_error"][1])
    (own / "loss.py").write_text((own / "loss.py").read_text().replace(".abs()", ".square()"))
    done = run(ROOT / "plot_surface.py", *flags, cwd=own)
    assert done.returncode == 2 and "the code of --loss_name" in done.stderr


def test_a_torchvision_network_on_an_image_folder(own):
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (own / "images" / part / label).mkdir(parents=True)
            for i in range(2):
                image = Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8))
                image.save(own / f"images/{part}/{label}/{i}.png")
    torch.manual_seed(0)
    import torchvision

    net = torchvision.models.resnet18(num_classes=2).eval()
    torch.save(net.state_dict(), own / "resnet18.pt")
    plot_surface.main([
        "--model", "torchvision.models:resnet18", "--model_kwargs", json.dumps({"num_classes": 2}), "--dataset",
        "imagefolder", "--datapath", "images", "--model_file", "resnet18.pt", "--x=-0.1:0.1:3", "--xnorm", "filter",
        "--xignore", "biasbn", "--eval_set", "both", "--surf_file", "images.h5"])
    surface = h5_util.read_surface("images.h5")
    from torchvision import transforms

    to = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                             transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    images = [to(Image.open(f"images/val/{label}/{i}.png")) for label in ("cat", "dog") for i in (0, 1)]
    with torch.no_grad():
        expected = nn.functional.cross_entropy(net(torch.stack(images)), torch.tensor([0, 0, 1, 1]))
    assert surface.values["test_loss"][1] == pytest.approx(float(expected), rel=1e-5)


def test_the_notebook_runs(tmp_path):
    done = run(ROOT / "examples" / "notebook.py", tmp_path / "picture.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "picture.png").size[0] > 500
    centre, corner = map(float, re.search(r"centre ([\d.]+), at the corner ([\d.]+)", done.stdout).groups())
    assert centre < corner


def test_data_that_differ_between_ranks_are_refused(own):
    (own / "noise.py").write_text("import os\nimport torch\n\n\ndef data(split):\n    torch.manual_seed(os.getpid())\n"
                                  "    return torch.randn(20, 10), torch.zeros(20, 1)\n")
    done = run(ROOT / "plot_surface.py", "--model", "examples/regression.py:net", "--dataset", "noise.py:data",
               "--model_file", "regression.pt", "--loss_name", "torch.nn:MSELoss", "--x=-1:1:3", ranks=2, cwd=own)
    assert done.returncode == 2 and done.stderr.count("the same on all ranks") == 1 and "Traceback" not in done.stderr
