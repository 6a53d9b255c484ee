"""Checkpoints of a training, written while it runs: what is in them, and the path that is drawn from them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import losslandscape
import plot_trajectory
from losslandscape.errors import InputError
from losslandscape.files import atomic
from losslandscape.files.layouts import read_projection
from losslandscape.training import recorder as recorder_module
from losslandscape.training.recorder import copy_of_state
from tests.conftest import ROOT, run

MINE = '''
import torch
from torch import nn


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
'''


def mine():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def data(count=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=generator), torch.randint(3, (count,), generator=generator)


def train(net, recorder, epochs, first=1, unit="epoch"):
    """Gradient descent, recorded; returns {number: state after it}."""
    inputs, targets = data()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    states = {}
    for number in range(first, first + epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
        recorder.step(**{unit: number})
        states[number] = copy_of_state(net)
    return states


def read(path):
    return torch.load(path, weights_only=True)


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **(tolerance or {"rtol": 0, "atol": 0}))


def trajectory(folder, pattern, model="mine.py:net", *more):
    """The projection that plot_trajectory.py makes of records."""
    done = run(ROOT / "plot_trajectory.py", "--model", model, "--checkpoints", pattern, *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    (projection,) = folder.glob("**/*_proj_cos.h5")
    return read_projection(str(projection))


# ---------------------------------------------------------------- a plain loop


def test_every_epoch_of_a_plain_loop_becomes_a_point_of_the_path(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    net = mine()
    start = copy_of_state(net)
    with losslandscape.Recorder(net, tmp_path / "run") as recorder:
        states = train(net, recorder, 4)
    assert_same(read(tmp_path / "run" / "epoch=0.pt")["state_dict"], start)
    for number, state in states.items():
        content = read(tmp_path / "run" / f"epoch={number}.pt")
        assert content["epoch"] == number
        assert_same(content["state_dict"], state)
    arrays, _ = trajectory(tmp_path, "run/epoch=*.pt")
    assert arrays["epoch"].tolist() == [0, 1, 2, 3, 4]


def test_steps_are_steps_on_the_labels(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    net = mine()
    with losslandscape.Recorder(net, tmp_path / "run", every=10, unit="step") as recorder:
        train(net, recorder, 35, unit="step")
    assert sorted(os.listdir(tmp_path / "run")) == [f"step={n}.pt" for n in (0, 10, 20, 30, 35)]
    arrays, provenance = trajectory(tmp_path, "run/step=*.pt")
    assert provenance["unit"] == "step" and arrays["epoch"].tolist() == [0, 10, 20, 30, 35]


def test_without_numbers_it_counts_and_scores_are_kept(tmp_path):
    recorder = losslandscape.Recorder(mine(), tmp_path)
    recorder.step(train_loss=0.5)
    recorder.step(train_loss=0.25)
    recorder.close()
    assert [read(tmp_path / f"epoch={n}.pt").get("train_loss") for n in (0, 1, 2)] == [None, 0.5, 0.25]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_halves_matrices_and_leaves_the_path_and_the_last_record(tmp_path, dtype):
    (tmp_path / "mine.py").write_text(MINE)
    paths = []
    for name, precision in (("full", None), ("half", dtype)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mine.py").write_text(MINE)
        net = mine()
        with losslandscape.Recorder(net, folder / "run", dtype=precision) as recorder:
            train(net, recorder, 6)
        arrays, _ = trajectory(folder, "run/epoch=*.pt")
        paths.append(np.array([arrays["proj_xcoord"], arrays["proj_ycoord"]]))
    np.testing.assert_allclose(paths[1], paths[0], atol=0.02 * np.abs(paths[0]).max())

    state = read(tmp_path / "half" / "run" / "epoch=3.pt")["state_dict"]
    assert state["0.weight"].dtype == dtype and state["1.running_var"].dtype == torch.float32
    assert_same(read(tmp_path / "half" / "run" / "epoch=6.pt")["state_dict"], copy_of_state(net))


def test_numbers_that_half_precision_can_not_hold_stay_whole():
    net = nn.Linear(2, 2)
    net.weight.data[0, 0] = 1e6
    assert copy_of_state(net, torch.float16)["weight"].dtype == torch.float32


def test_tied_weights_are_copied_once():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    state = copy_of_state(net, torch.float16)
    assert state["0.weight"].data_ptr() == state["1.weight"].data_ptr()


def test_records_are_copies_that_later_steps_do_not_change(tmp_path):
    net = mine()
    recorder = losslandscape.Recorder(net, tmp_path)
    for parameter in net.parameters():
        parameter.data.zero_()  # while the first record may still be on its way
    recorder.close()
    assert read(tmp_path / "epoch=0.pt")["state_dict"]["0.weight"].any()


@pytest.mark.parametrize("wrap", [
    nn.DataParallel, torch.optim.swa_utils.AveragedModel, lambda net: torch.compile(net, backend="eager"),
])  # fmt: skip
def test_wrappers_are_taken_off(tmp_path, wrap):
    net = mine()
    losslandscape.Recorder(wrap(net), tmp_path).close()
    assert read(tmp_path / "epoch=0.pt")["state_dict"].keys() == net.state_dict().keys()


# ---------------------------------------------------------------- going on


def test_a_training_that_goes_on_continues_the_numbers(tmp_path):
    net = mine()
    with losslandscape.Recorder(net, tmp_path) as recorder:
        train(net, recorder, 3)
    with losslandscape.Recorder(net, tmp_path, resume=True) as recorder:
        recorder.step()
        recorder.step()
    assert sorted(os.listdir(tmp_path)) == [f"epoch={n}.pt" for n in range(6)]


def test_a_folder_of_another_training_is_refused(tmp_path):
    losslandscape.Recorder(mine(), tmp_path).close()
    before = (tmp_path / "epoch=0.pt").read_bytes()
    with pytest.raises(InputError, match="resume=True"):
        losslandscape.Recorder(mine(), tmp_path)
    assert (tmp_path / "epoch=0.pt").read_bytes() == before


@pytest.mark.parametrize("arguments, words", [
    ({"every": 0}, "every"), ({"unit": "batch"}, "unit"), ({"dtype": torch.int8}, "dtype"),
])
def test_arguments_that_make_no_sense_are_refused_and_nothing_is_made(tmp_path, arguments, words):
    with pytest.raises(InputError, match=words):
        losslandscape.Recorder(mine(), tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_the_other_unit_and_a_file_in_place_of_the_folder_are_refused(tmp_path):
    recorder = losslandscape.Recorder(mine(), tmp_path / "run")
    with pytest.raises(InputError, match="expected epoch=N"):
        recorder.step(step=3)
    recorder.close()
    with pytest.raises(InputError, match="closed"):
        recorder.step()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        losslandscape.Recorder(mine(), tmp_path / "file")


# ---------------------------------------------------------------- what goes wrong


def test_a_full_disk_costs_records_and_not_the_training(tmp_path, monkeypatch, capfd):
    net = mine()
    recorder = losslandscape.Recorder(net, tmp_path)
    recorder._wait()

    def full(path, image):
        raise InputError("can't write (No space left on device)")

    with monkeypatch.context() as broken:
        broken.setattr(recorder_module, "write_file", full)
        for _ in range(3):
            recorder.step()
        recorder._wait()
    recorder.step()
    recorder.close()
    assert capfd.readouterr().err.count("a record of the training is lost") == 1
    assert sorted(os.listdir(tmp_path)) == ["epoch=0.pt", "epoch=4.pt"]


def test_a_killed_training_leaves_whole_records(tmp_path):
    code = ("import os, signal, torch, losslandscape\n"
            "net = torch.nn.Linear(600, 600)\n"
            "recorder = losslandscape.Recorder(net, 'run')\n"
            "for _ in range(3): recorder.step()\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    records = [name for name in os.listdir(tmp_path / "run") if name.startswith("epoch")]
    assert len(records) >= 3
    for name in records:
        read(tmp_path / "run" / name)
    assert atomic.TEMPORARY_ENDING not in records[0]


DDP = '''
import sys, torch, losslandscape
torch.distributed.init_process_group("gloo")
torch.manual_seed(0)
net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(6, 3))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
with losslandscape.Recorder(net, sys.argv[1]) as recorder:
    for epoch in range(1, 4):
        net(torch.randn(4, 6)).square().mean().backward()
        optimizer.step()
        recorder.step(epoch=epoch)
print("wrote" if recorder._is_writer else "silent", torch.distributed.get_rank())
torch.distributed.destroy_process_group()
'''


def test_of_two_processes_the_first_one_writes(tmp_path):
    (tmp_path / "ddp.py").write_text(DDP)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", tmp_path / "ddp.py",
         tmp_path / "run"], capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "wrote 0" in done.stdout and "silent 1" in done.stdout
    assert sorted(os.listdir(tmp_path / "run")) == [f"epoch={n}.pt" for n in range(4)]
    assert "module.weight" not in read(tmp_path / "run" / "epoch=2.pt")["state_dict"]


# ---------------------------------------------------------------- Lightning


@pytest.mark.parametrize("unit, numbers", [("epoch", [0, 1, 2, 3]), ("step", [0, 2, 4, 6])])
def test_a_fit_of_lightning_is_drawn(tmp_path, unit, numbers):
    lightning = pytest.importorskip("lightning")
    (tmp_path / "mine.py").write_text(MINE)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = mine()

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.3)

    def fit(epochs, module, checkpoint=None):
        every = 2 if unit == "step" else 1
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
            callbacks=[losslandscape.LightningRecorder(tmp_path / "run", every=every, unit=unit)])
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), 16)
        trainer.fit(module, loader, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "last.ckpt")

    # a fit, and one that goes on from it
    fit(2, Module())
    fit(3, Module(), tmp_path / "last.ckpt")
    arrays, _ = trajectory(tmp_path, f"run/{unit}=*.pt")
    assert arrays["epoch"].tolist() == numbers


# ---------------------------------------------------------------- Hugging Face


@pytest.mark.parametrize("unit, numbers", [("epoch", [0, 1, 2, 3]), ("step", [0, 4, 8, 12])])
def test_a_training_of_hugging_face_is_drawn(tmp_path, unit, numbers):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "mine.py").write_text(
        "import transformers\n\n\ndef net():\n"
        "    config = transformers.BertConfig(num_hidden_layers=1, num_attention_heads=2, hidden_size=8,\n"
        "                                     intermediate_size=8, vocab_size=20, num_labels=2)\n"
        "    return transformers.BertForSequenceClassification(config)\n")
    config = transformers.BertConfig(
        num_hidden_layers=1, num_attention_heads=2, hidden_size=8, intermediate_size=8, vocab_size=20, num_labels=2)
    words = torch.randint(20, (32, 6), generator=torch.Generator().manual_seed(0))
    samples = [{"input_ids": row, "labels": int(row[0] % 2)} for row in words]

    def trained(epochs, resume):
        arguments = transformers.TrainingArguments(
            str(tmp_path / "out"), num_train_epochs=epochs, per_device_train_batch_size=8, use_cpu=True,
            save_strategy="epoch", report_to=[], disable_tqdm=True, learning_rate=1e-2)
        every = 4 if unit == "step" else 1
        trainer = transformers.Trainer(
            transformers.BertForSequenceClassification(config), arguments, train_dataset=samples,
            callbacks=[losslandscape.TransformersRecorder(tmp_path / "run", every=every, unit=unit)])
        trainer.train(resume_from_checkpoint=resume)

    trained(2, None)
    trained(3, True)
    arrays, _ = trajectory(tmp_path, f"run/{unit}=*.pt")
    assert arrays["epoch"].tolist() == numbers


@pytest.mark.parametrize("name, library", [
    ("LightningRecorder", "lightning"), ("TransformersRecorder", "transformers")])
def test_a_missing_library_is_named_and_the_recorder_needs_none(tmp_path, name, library):
    for blocked in ("lightning", "transformers"):
        (tmp_path / f"{blocked}.py").write_text(f"raise ImportError('no {blocked}')\n")
    code = f"import losslandscape; losslandscape.Recorder; losslandscape.{name}('run')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert f"pip install {library}" in done.stderr.splitlines()[-1]


def test_the_callbacks_are_no_part_of_an_import_of_everything():
    assert plot_trajectory and "LightningRecorder" not in losslandscape.__all__
    assert {"LightningRecorder", "TransformersRecorder"} <= set(dir(losslandscape))
