"""Checkpoints as well-known libraries write them, where they are installed. Takes about 20 s on one core."""

import contextlib
import io
import warnings

import pytest
import torch
from torch import nn

from losslandscape.errors import InputError
from losslandscape.networks.loading import Architecture, load_net

pytestmark = pytest.mark.filterwarnings("ignore")

OWN = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(2)
    return GPT2LMHeadModel(GPT2Config(**GPT2))

def bert(heads=True):
    from transformers import BertConfig, BertForSequenceClassification, BertModel
    config = BertConfig(num_hidden_layers=1, num_attention_heads=2, hidden_size=8, intermediate_size=8, vocab_size=20)
    return BertForSequenceClassification(config) if heads else BertModel(config)

def wrapped(*targets):
    from peft import LoraConfig, get_peft_model
    return get_peft_model(gpt2(), LoraConfig(**LORA, target_modules=["c_attn", *targets]))

GPT2 = dict(n_layer=2, n_head=2, n_embd=16, vocab_size=50, n_positions=16, bos_token_id=0, eos_token_id=0)
LORA = dict(r=4, lora_alpha=8, fan_in_fan_out=True, modules_to_save=["ln_f"], use_rslora=True, bias="lora_only")
"""
NAMES = {}
exec(OWN, NAMES)


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return lambda name, kwargs="": Architecture.parse(f"{tmp_path}/own.py:{name}", kwargs)


def quietly(call, *args, **kwargs):
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)


def assert_equal(net, trained):
    expected = trained.state_dict()
    state = net.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_transformers_folders_and_shards(own, tmp_path):
    pytest.importorskip("transformers")
    trained = NAMES["gpt2"]()
    trained.transformer.wte.weight.data += 1
    for i, size in enumerate(("1GB", "10KB")):
        quietly(trained.save_pretrained, tmp_path / f"hf{i}", max_shard_size=size)
        net = load_net(own("gpt2"), tmp_path / f"hf{i}")
        assert_equal(net, trained)
        assert net.lm_head.weight is net.transformer.wte.weight
    assert len(list((tmp_path / "hf1").iterdir())) > 3


def test_the_base_of_a_transformers_classifier(own, tmp_path, capsys):
    pytest.importorskip("transformers")
    trained = NAMES["bert"]()
    torch.save(trained.state_dict(), tmp_path / "m.bin")
    net = load_net(own("bert", '{"heads": false}'), tmp_path / "m.bin")
    assert torch.equal(net.pooler.dense.weight, trained.bert.pooler.dense.weight)
    assert "'bert.'" in capsys.readouterr().err


def test_peft_adapters_into_the_base_network_and_into_a_wrapped_one(own, tmp_path):
    pytest.importorskip("peft")
    trained = quietly(NAMES["wrapped"])
    for name, parameter in trained.named_parameters():
        if "lora" in name or "modules_to_save" in name:
            nn.init.normal_(parameter)
    quietly(trained.save_pretrained, tmp_path / "adapter")
    inputs = torch.arange(8).reshape(1, 8)
    with torch.no_grad():
        logits = trained.eval()(inputs).logits
        for model in ("gpt2", "wrapped"):
            net = quietly(load_net, own(model), tmp_path / "adapter")
            torch.testing.assert_close(net(inputs).logits, logits, rtol=1e-5, atol=1e-5)


def test_timm_with_an_average(tmp_path, capsys):
    timm = pytest.importorskip("timm")
    from timm.utils import CheckpointSaver, ModelEmaV3

    model = timm.create_model("resnet10t", num_classes=3)
    average = ModelEmaV3(model)
    average.module.fc.weight.data += 1
    args = __import__("argparse").Namespace(model="resnet10t", lr=0.1)
    saver = CheckpointSaver(model, torch.optim.SGD(model.parameters(), 0.1), args=args, model_ema=average,
                            checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path))
    saver.save_checkpoint(0, metric=1.0)
    architecture = Architecture.parse("timm:create_model", '{"model_name": "resnet10t", "num_classes": 3}')
    assert_equal(load_net(architecture, tmp_path / "last.pth.tar"), model)
    assert "state_dict_ema" in capsys.readouterr().err
    assert_equal(load_net(architecture, tmp_path / "last.pth.tar", checkpoint_key="state_dict_ema"), average.module)


def test_lightning(own, tmp_path, capsys):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self, width, activation=nn.functional.relu):
            super().__init__()
            self.save_hyperparameters()
            self.net = NAMES["net"]()
            self.register_buffer("class_weight", torch.ones(2))
            self.loss = nn.CrossEntropyLoss(weight=torch.ones(2))

        def training_step(self, batch, _):
            return self.loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    module = Module(4)
    samples = torch.utils.data.TensorDataset(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))
    data = torch.utils.data.DataLoader(samples, batch_size=4)
    trainer = quietly(lightning.Trainer, max_epochs=1, accelerator="cpu", logger=False, default_root_dir=tmp_path,
                      enable_progress_bar=False, enable_model_summary=False)
    quietly(trainer.fit, module, data)
    path = next(tmp_path.rglob("*.ckpt"))
    assert path.name == "epoch=0-step=1.ckpt"
    assert_equal(load_net(own("net"), path), module.net)
    said = capsys.readouterr().err
    assert "'net.'" in said and "class_weight, loss.weight" in said


def test_accelerate(own, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    trained = accelerator.prepare(NAMES["net"]())
    accelerator.save_state(str(tmp_path / "state"))
    accelerator.save_model(trained, str(tmp_path / "model"))
    for path in (tmp_path / "state", tmp_path / "model"):
        assert_equal(load_net(own("net"), path), accelerator.unwrap_model(trained))


def test_opacus(own, tmp_path):
    opacus = pytest.importorskip("opacus")
    trained = NAMES["net"]()
    torch.save(opacus.GradSampleModule(trained).state_dict(), tmp_path / "m.pt")
    assert_equal(load_net(own("net"), tmp_path / "m.pt"), NAMES["net"]().__class__(*trained))


@pytest.mark.parametrize("wrap", [
    lambda net: nn.DataParallel(net), lambda net: torch.compile(net), lambda net: torch.compile(nn.DataParallel(net)),
    torch.optim.swa_utils.AveragedModel, lambda net: nn.DataParallel(torch.optim.swa_utils.AveragedModel(net)),
])
def test_wrappers_of_torch(wrap, own, tmp_path):
    trained = NAMES["net"]()
    torch.save({"state_dict": wrap(trained).state_dict()}, tmp_path / "m.pt")
    assert_equal(load_net(own("net"), tmp_path / "m.pt"), trained)


def test_fsdp_and_checkpointed_layers_on_one_process(own, tmp_path):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    trained = NAMES["net"]()
    state = {}
    for name, part in trained.named_children():
        names = [f"{name}.{key}" for key, _ in checkpoint_wrapper(part).named_parameters()]
        state |= dict(zip((key.replace(f"{name}.", f"{name}._checkpoint_wrapped_module.") for key in names),
                          part.state_dict().values(), strict=True))
    torch.save(state, tmp_path / "m.pt")
    assert_equal(load_net(own("net"), tmp_path / "m.pt"), trained)


def test_sharded_tensors_in_one_file_are_refused_with_how_to_save_them_whole(own, tmp_path):
    """Each process would have saved its part only."""
    import torch.distributed as dist
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    trained = NAMES["net"]()
    expected = {name: value.clone() for name, value in trained.state_dict().items()}
    quietly(dist.init_process_group, "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        quietly(fully_shard, trained, mesh=init_device_mesh("cpu", (1,)))
        torch.save(trained.state_dict(), tmp_path / "sharded.pt")
        whole = get_model_state_dict(trained, options=StateDictOptions(full_state_dict=True))
        torch.save(whole, tmp_path / "whole.pt")
    finally:
        dist.destroy_process_group()

    with pytest.raises(InputError) as error:
        load_net(own("net"), tmp_path / "sharded.pt")
    line = str(error.value)
    assert "sharded.pt" in line and "full_state_dict=True" in line and "\n" not in line
    net = load_net(own("net"), tmp_path / "whole.pt")
    assert all(torch.equal(net.state_dict()[name], value) for name, value in expected.items())
