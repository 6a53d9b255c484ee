"""Do networks, files and data of well-known libraries work as they are? Each beside the library's
own evaluation.

    python benchmarks/libraries.py
    python benchmarks/libraries.py --cases Gpt2Folder TimmAverage
    python benchmarks/libraries.py --output benchmarks/results/libraries_cpu.json

A case is a class. It trains a small network with a library, saves it as the library saves, and the
command line computes a line of three points with that file. The loss in the middle is compared with
what the library itself says of the file. None of a case's functions takes `self`; all are called in
the folder of the case:

    net()               the network, untrained; or `model`, a function of the library
    save()              trains it, and writes `file` as the library does
    data(split)         its examples, as the library yields them; or `dataset`
    loss(output, y)     its loss, if it has one of its own
    own()               the loss of `file`, loaded and evaluated by the library

Where a run must be refused, `refused` is a regular expression for what the line says. Nothing is
downloaded. Cases of libraries that are not installed are left out, and named.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from losslandscape.files.layouts import read_surface  # noqa: E402
from tests.plain_loops import labels, numbers, perceptron  # noqa: E402

FILE = Path(__file__).resolve()
ROOT = FILE.parent.parent
CASES = {}  # name -> case


class Case:
    """What is not said by a case itself."""

    packages = ("torch",)  # that it uses, the one that it is about first
    writes = ""  # what the library writes or yields, in words

    net = None
    model = ""  # a --model in the place of net()
    file = "model.pt"  # the --model_file; "": the network comes with its weights
    data = None
    dataset = ""  # a --dataset in the place of data()
    loss = None
    flags = ()  # more flags

    script = "plot_surface.py"
    line = ("--x=-0.5:0.5:3", "--xnorm", "filter", "--xignore", "biasbn")
    output = ("--surf_file", "surface.h5")
    tolerance = 1e-5  # relative
    refused = ""
    save = None
    own = None

    def __init_subclass__(cls):
        if cls.writes:
            CASES[cls.__name__] = cls

    def computed():
        """The losses that the command computed, those that `own` gives too: in the middle."""
        values = read_surface("surface.h5").values
        name = next(name for name in ("train_loss", "loss") if name in values)
        left, middle, _ = values[name].ravel().tolist()
        if left == middle:
            raise ValueError("the network did not move")
        return [middle]


def train(net, batches, loss, steps=6, rate=1e-2):
    """A few steps, after which no number is trivial; `loss` takes the network and a batch."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate)
    net.train()
    for _ in range(steps):
        for batch in batches:
            optimizer.zero_grad()
            loss(net, batch).backward()
            optimizer.step()
    return net


def classes_loss(net, batch):
    """The mean cross entropy of a batch of inputs and labels."""
    inputs, targets = batch
    return F.cross_entropy(net(inputs), targets)


@torch.no_grad()
def mean_loss(net, batches, loss=classes_loss):
    """The loop that everybody has: the mean over all samples of batches of inputs and labels."""
    net.eval()
    total, samples = 0.0, 0
    for batch in batches:
        size = len(batch[1])
        total += size * loss(net, batch).item()
        samples += size
    return total / samples


# ---------------------------------------------------------------- transformers


WORDS = "<pad> the loss of a network is flat sharp deep where".split()
TEXTS = [
    "the loss of a network", "the network is flat", "a deep network is sharp where the loss is deep",
    "flat is flat", "the sharp loss", "a network of a network of a network"]


def tokenizer():
    """A tokenizer that knows eleven words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")


def trainer_of(net, dataset, collator, batch_size=64, **options):
    """A Trainer that writes no reports."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        "trainer", per_device_eval_batch_size=batch_size, use_cpu=True, report_to=[],
        disable_tqdm=True, learning_rate=1e-2, **options)
    return Trainer(net, arguments, train_dataset=dataset, eval_dataset=dataset,
                   data_collator=collator)


class LanguageModel(Case):
    """Texts of several lengths, padded by the library's collator; labels are the words."""

    packages = ("transformers",)

    def net():
        from transformers import LlamaConfig, LlamaForCausalLM

        return LlamaForCausalLM(LlamaConfig(
            vocab_size=11, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, pad_token_id=0))

    def collator():
        from transformers import DataCollatorForLanguageModeling

        return DataCollatorForLanguageModeling(tokenizer(), mlm=False)

    def examples():
        words = tokenizer()
        return [{"input_ids": words(text)["input_ids"]} for text in TEXTS]

    def data(split, batch_size=4):
        return DataLoader(
            LanguageModel.examples(), batch_size=batch_size, collate_fn=LanguageModel.collator())

    def trained(net):
        return train(net, LanguageModel.data("train"), own_loss)

    def evaluated(net, batch_size=64):
        """The loss that the Trainer reports."""
        trainer = trainer_of(
            net, LanguageModel.examples(), LanguageModel.collator(), batch_size)
        return trainer.evaluate()["eval_loss"]


def own_loss(net, batch):
    """The loss that the network returns."""
    return net(**batch).loss


class LlamaShards(LanguageModel):
    writes = "`save_pretrained` in shards (max_shard_size 5KB); DataCollatorForLanguageModeling"
    file = "llama"

    def save():
        LanguageModel.trained(LanguageModel.net()).save_pretrained("llama", max_shard_size="5KB")
        assert len(list(Path("llama").glob("*.safetensors"))) > 1

    def own():
        from transformers import AutoModelForCausalLM

        return LanguageModel.evaluated(AutoModelForCausalLM.from_pretrained("llama"))


class LlamaInTrainersBatches(LlamaShards):
    """The mean over the means of batches of three: words of short texts count more."""

    writes = "the same, the mean of the means of batches of 3, as Trainer.evaluate has it"
    flags = ("--batch_size", "3")

    def data(split):
        return LanguageModel.data(split, batch_size=3)

    def loss(output, targets):
        """Of the next word, the mean of a batch."""
        return F.cross_entropy(output.logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())

    def own():
        from transformers import AutoModelForCausalLM

        return LanguageModel.evaluated(
            AutoModelForCausalLM.from_pretrained("llama"), batch_size=3)


class FromPretrained(LlamaShards):
    """Without a line of code for the network."""

    writes = "the same folder, opened by AutoModelForCausalLM.from_pretrained"
    net = None
    model = "transformers:AutoModelForCausalLM.from_pretrained"
    file = ""
    flags = ("--model_kwargs", '{"pretrained_model_name_or_path": "llama"}')


class Gpt2Folder(LanguageModel):
    """Its Trainer divides by all labels, the first of each text too: the network's own loss counts."""

    writes = "`save_pretrained`, tied weights"
    file = "gpt2"

    def net():
        from transformers import GPT2Config, GPT2LMHeadModel

        return GPT2LMHeadModel(GPT2Config(
            vocab_size=11, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0,
            eos_token_id=0))

    def save():
        LanguageModel.trained(Gpt2Folder.net()).save_pretrained("gpt2")

    @torch.no_grad()
    def own():
        from transformers import AutoModelForCausalLM

        net = AutoModelForCausalLM.from_pretrained("gpt2")
        return own_loss(net, next(iter(LanguageModel.data("train", batch_size=64))))


class BertOfTrainer(Case):
    """A classifier, and the data as `datasets` and DataCollatorWithPadding give them."""

    packages = ("transformers", "datasets")
    writes = "checkpoint folder of Trainer; `datasets.Dataset` with DataCollatorWithPadding"
    file = "trainer/checkpoint-6"

    def net():
        from transformers import BertConfig, BertForSequenceClassification

        return BertForSequenceClassification(BertConfig(
            vocab_size=11, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=16, num_labels=3))

    def collator():
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer())

    def examples():
        import datasets

        texts = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1, 2, 1, 0, 2]})
        words = tokenizer()
        return texts.map(lambda row: words(row["text"]), remove_columns="text")

    def data(split):
        return DataLoader(
            BertOfTrainer.examples(), batch_size=4, collate_fn=BertOfTrainer.collator())

    def trainer(net):
        return trainer_of(net, BertOfTrainer.examples(), BertOfTrainer.collator(), max_steps=6,
                          save_steps=6)

    def save():
        BertOfTrainer.trainer(BertOfTrainer.net()).train()

    def own():
        from transformers import AutoModelForSequenceClassification

        net = AutoModelForSequenceClassification.from_pretrained("trainer/checkpoint-6")
        return BertOfTrainer.trainer(net).evaluate()["eval_loss"]


class T5Folder(Case):
    packages = ("transformers",)
    writes = "folder of `save_pretrained`; DataLoader with DataCollatorForSeq2Seq"
    file = "t5"

    def net():
        from transformers import T5Config, T5ForConditionalGeneration

        return T5ForConditionalGeneration(T5Config(
            vocab_size=11, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            decoder_start_token_id=0))

    def collator():
        from transformers import DataCollatorForSeq2Seq

        return DataCollatorForSeq2Seq(tokenizer())

    def examples():
        words = tokenizer()
        return [
            {"input_ids": words(text)["input_ids"], "labels": words(text)["input_ids"][::-1]}
            for text in TEXTS]

    def data(split):
        return DataLoader(T5Folder.examples(), batch_size=4, collate_fn=T5Folder.collator())

    def save():
        train(T5Folder.net(), T5Folder.data("train"), own_loss).save_pretrained("t5")

    def own():
        from transformers import AutoModelForSeq2SeqLM

        net = AutoModelForSeq2SeqLM.from_pretrained("t5")
        return trainer_of(net, T5Folder.examples(), T5Folder.collator()).evaluate()["eval_loss"]


# ---------------------------------------------------------------- peft


class LoraOntoBase(LanguageModel):
    """The adapter's folder, put into the network that lies in another folder."""

    packages = ("peft", "transformers")
    writes = "adapter folder of `save_pretrained` (LoRA), onto its base"
    file = "adapter"

    def net():
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained("base")

    def adapted(config):
        """The base, saved, with an adapter."""
        from peft import get_peft_model

        LanguageModel.trained(LanguageModel.net()).save_pretrained("base")
        return get_peft_model(LoraOntoBase.net(), config)

    def save():
        from peft import LoraConfig

        config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
        LanguageModel.trained(LoraOntoBase.adapted(config)).save_pretrained("adapter")

    def own():
        from peft import PeftModel

        return LanguageModel.evaluated(PeftModel.from_pretrained(LoraOntoBase.net(), "adapter"))


class LoraAlone(LoraOntoBase):
    """Only the adapter moves."""

    writes = "the same folder, into a network of `get_peft_model`: the adapter alone moves"
    flags = ("--params", "lora_")

    def net():
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
        return get_peft_model(LoraOntoBase.net(), config)


class Ia3(LoraOntoBase):
    writes = "adapter folder of another kind (IA3)"
    refused = "merge_and_unload"

    def save():
        from peft import IA3Config

        config = IA3Config(
            task_type="CAUSAL_LM", target_modules=["v_proj"], feedforward_modules=[])
        LanguageModel.trained(LoraOntoBase.adapted(config)).save_pretrained("adapter")


class Ia3Merged(Ia3):
    """What the refusal says is to be done."""

    writes = "the same after `merge_and_unload().save_pretrained`"
    file = "merged"
    refused = ""

    def save():
        from peft import PeftModel

        Ia3.save()
        adapted = PeftModel.from_pretrained(LoraOntoBase.net(), "adapter")
        adapted.merge_and_unload().save_pretrained("merged")


# ---------------------------------------------------------------- networks for images


def images(count=12, size=32):
    """Images and labels of three classes."""
    return numbers(count, 3, size, size), labels(count, classes=3)


def write_images():
    """The folders that ImageFolder and timm read: DIR/train/CLASS/*.png, DIR/val/CLASS/*.png."""
    from PIL import Image

    for part in ("train", "val"):
        for i in range(9):
            folder = Path("images") / part / f"class{i % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = labels(240, 280, 3, classes=60, seed=i) + 60 * (i % 3)
            Image.fromarray(pixels.byte().numpy()).save(folder / f"{i}.png")


class TimmCheckpoint(Case):
    """CheckpointSaver writes the network and its average; the data are timm's own loader."""

    packages = ("timm",)
    writes = "CheckpointSaver with ModelEmaV3: the network; timm's create_loader"
    model = "timm:create_model"
    flags = ("--model_kwargs", '{"model_name": "test_resnet", "num_classes": 3}')
    file = "last.pth.tar"
    average = False

    def data(split):
        from timm.data import create_dataset, create_loader

        dataset = create_dataset("", root=f"images/{split}".replace("test", "val"))
        return create_loader(
            dataset, input_size=(3, 32, 32), batch_size=3, use_prefetcher=False, num_workers=0)

    def save():
        import timm
        from timm.utils import CheckpointSaver, ModelEmaV3

        write_images()
        net = timm.create_model("test_resnet", num_classes=3)
        average = ModelEmaV3(net, decay=0.5)
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        for inputs, targets in TimmCheckpoint.data("train"):
            optimizer.zero_grad()
            F.cross_entropy(net(inputs), targets).backward()
            optimizer.step()
            average.update(net)
        saver = CheckpointSaver(
            net, optimizer, args=argparse.Namespace(model="test_resnet", lr=0.1),
            model_ema=average, checkpoint_dir=".", recovery_dir=".")
        saver.save_checkpoint(0, metric=1.0)

    def own(use_ema=False):
        import timm
        from timm.models import load_checkpoint

        net = timm.create_model("test_resnet", num_classes=3)
        load_checkpoint(net, "last.pth.tar", use_ema=use_ema)
        return mean_loss(net, TimmCheckpoint.data("train"))


class TimmAverage(TimmCheckpoint):
    writes = "the same file: the average"
    flags = (*TimmCheckpoint.flags, "--checkpoint_key", "state_dict_ema")

    def own():
        return TimmCheckpoint.own(use_ema=True)


class TorchvisionClassifier(Case):
    """What torchvision's references/classification/train.py writes, and its preset for evaluation."""

    packages = ("torchvision",)
    writes = "checkpoint of its training script (model, model_ema, optimizer); ImageFolder"
    model = "torchvision.models:resnet18"
    flags = ("--model_kwargs", '{"num_classes": 3}', "--datapath", "images")
    file = "checkpoint.pth"
    dataset = "imagefolder"
    tolerance = 1e-4

    def batches():
        from torchvision.datasets import ImageFolder
        from torchvision.transforms._presets import ImageClassification

        dataset = ImageFolder("images/train", ImageClassification(crop_size=224, resize_size=256))
        return DataLoader(dataset, batch_size=3)

    def save():
        from torchvision.models import resnet18

        write_images()
        net = resnet18(num_classes=3)
        average = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
        for _ in range(3):
            train(net, TorchvisionClassifier.batches(), classes_loss, steps=2, rate=1e-4)
            average.update_parameters(net)
        torch.save({"model": net.state_dict(), "optimizer": {}, "epoch": 3,
                    "args": argparse.Namespace(model="resnet18", lr=0.1),
                    "model_ema": average.state_dict()}, "checkpoint.pth")

    def own():
        from torchvision.models import resnet18

        net = resnet18(num_classes=3)
        net.load_state_dict(torch.load("checkpoint.pth", weights_only=False)["model"])
        return mean_loss(net, TorchvisionClassifier.batches())


class TorchvisionAverage(TorchvisionClassifier):
    writes = "the same file: the average"
    flags = (*TorchvisionClassifier.flags, "--checkpoint_key", "model_ema")

    def own():
        from torchvision.models import resnet18

        net = torch.optim.swa_utils.AveragedModel(resnet18(num_classes=3))
        net.load_state_dict(torch.load("checkpoint.pth", weights_only=False)["model_ema"])
        return mean_loss(net, TorchvisionClassifier.batches())


class TorchvisionSegmentation(Case):
    """The criterion of references/segmentation/train.py: 255 does not count."""

    packages = ("torchvision",)
    writes = "state_dict; images and masks, the training script's loss, which is of whole batches"
    flags = ("--batch_size", "4")
    tolerance = 5e-5

    def net():
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large

        return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)

    def data(split):
        inputs, masks = numbers(8, 3, 32, 32), labels(8, 32, 32, classes=3)
        masks[:, :3] = 255
        return TensorDataset(inputs, masks)

    def loss(output, targets):
        losses = {
            name: F.cross_entropy(logits, targets, ignore_index=255)
            for name, logits in output.items()}
        if len(losses) == 1:
            return losses["out"]
        return losses["out"] + 0.5 * losses["aux"]

    def of_batch(net, batch):
        return TorchvisionSegmentation.loss(net(batch[0]), batch[1])

    def batches():
        return DataLoader(TorchvisionSegmentation.data("train"), batch_size=4)

    def save():
        net = TorchvisionSegmentation.net()
        train(net, TorchvisionSegmentation.batches(), TorchvisionSegmentation.of_batch, steps=3)
        torch.save(net.state_dict(), "model.pt")

    def own():
        net = TorchvisionSegmentation.net()
        net.load_state_dict(torch.load("model.pt"))
        return mean_loss(net, TorchvisionSegmentation.batches(), TorchvisionSegmentation.of_batch)


class Detector(Case):
    """A detector computes its loss only while it trains, out of images and boxes."""

    packages = ("torchvision",)
    writes = "state_dict of a detector; --measure asks it for its losses, as training does"

    def net():
        from torchvision.models.detection import RetinaNet
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.ops import FrozenBatchNorm2d

        backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), FrozenBatchNorm2d(8), nn.ReLU())
        backbone.out_channels = 8
        return RetinaNet(
            backbone, num_classes=3, anchor_generator=AnchorGenerator(((8,),), ((1.0,),)),
            min_size=32, max_size=32)

    def examples():
        pictures = list(numbers(6, 3, 32, 32).sigmoid())
        targets = [
            {"boxes": torch.tensor([[2.0 + i, 3, 14 + i, 17]]), "labels": torch.tensor([i % 3])}
            for i in range(6)]
        return pictures, targets

    def losses(net):
        """The losses that the training loop adds up, and their sum first."""
        net.train()
        parts = net(*Detector.examples())
        return {"loss": sum(parts.values()), **parts}

    flags = ("--measure", "benchmarks/libraries.py:Detector.losses")

    def save():
        net = train(Detector.net(), [None], lambda net, _: Detector.losses(net)["loss"])
        torch.save(net.state_dict(), "model.pt")

    def own():
        net = Detector.net()
        net.load_state_dict(torch.load("model.pt"))
        return sum(net.train()(*Detector.examples()).values())


class DetectorInItsLoss(Detector):
    """Images and boxes are inputs; what the network returns is its losses."""

    writes = "the same with --loss_name and a network that returns its losses"
    flags = ()
    file = "detector.pt"

    def net():
        return LossesOfDetector(Detector.net())

    def data(split):
        pictures, targets = Detector.examples()
        return DataLoader(
            list(zip(pictures, targets, strict=True)), batch_size=3,
            collate_fn=DetectorInItsLoss.collate)

    def collate(examples):
        """Lists, as in references/detection/utils.py; labels are not used."""
        pictures, targets = zip(*examples, strict=True)
        labels = torch.zeros(len(targets))
        return {"pictures": list(pictures), "boxes": list(targets), "labels": labels}

    def loss(output, targets):
        return sum(output.values())

    def save():
        Detector.save()
        Path("model.pt").rename("detector.pt")

    def own():
        Path("detector.pt").rename("model.pt")
        net = Detector.net()
        net.load_state_dict(torch.load("model.pt"))
        net.train()
        losses = [
            sum(net(batch["pictures"], batch["boxes"]).values()).item()
            for batch in DetectorInItsLoss.data("train")]
        return sum(losses) / len(losses)


class LossesOfDetector(nn.Module):
    """A detector that computes its losses in eval mode too: its batch norm is frozen anyway."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, pictures, boxes):
        self.detector.train()
        losses = self.detector(pictures, boxes)
        self.detector.eval()
        return losses


# ---------------------------------------------------------------- Lightning, accelerate


def small_net():
    """A network for images with batch norm."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3))


def batches_of_images():
    return DataLoader(TensorDataset(*images()), batch_size=4)


class LightningCheckpoint(Case):
    """The network within a LightningModule, which has a criterion with buffers beside it."""

    packages = ("lightning",)
    writes = ".ckpt of Trainer, into the inner network; loader of a LightningDataModule"
    file = "checkpoints/epoch=2.ckpt"
    net = staticmethod(small_net)

    def module(net=None):
        import lightning
        import torchmetrics

        class Module(lightning.LightningModule):
            def __init__(self, width=8):
                super().__init__()
                self.save_hyperparameters()
                self.net = small_net()
                self.loss = nn.CrossEntropyLoss(weight=torch.ones(3))
                self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)

            def forward(self, inputs):
                return self.net(inputs)

            def training_step(self, batch, _):
                return self.loss(self(batch[0]), batch[1])

            def validation_step(self, batch, _):
                self.log("val_loss", self.loss(self(batch[0]), batch[1]))

            def configure_optimizers(self):
                return torch.optim.AdamW(self.parameters(), 1e-2)

        return Module()

    def datamodule():
        import lightning

        class Data(lightning.LightningDataModule):
            def train_dataloader(self):
                return DataLoader(TensorDataset(*images()), batch_size=4, shuffle=True)

            def val_dataloader(self):
                return batches_of_images()

        return Data()

    def data(split):
        return LightningCheckpoint.datamodule().train_dataloader()

    def trainer():
        import lightning
        from lightning.pytorch.callbacks import ModelCheckpoint

        every_epoch = ModelCheckpoint("checkpoints", "{epoch}", save_top_k=-1)
        return lightning.Trainer(
            max_epochs=3, accelerator="cpu", logger=False, callbacks=[every_epoch],
            enable_progress_bar=False, enable_model_summary=False)

    def save():
        trainer = LightningCheckpoint.trainer()
        trainer.fit(LightningCheckpoint.module(), datamodule=LightningCheckpoint.datamodule())

    def validated(checkpoint):
        """What `trainer.validate` logs of a checkpoint."""
        results = LightningCheckpoint.trainer().validate(
            LightningCheckpoint.module(), datamodule=LightningCheckpoint.datamodule(),
            ckpt_path=checkpoint, verbose=False, weights_only=False)
        return results[0]["val_loss"]

    def own():
        return LightningCheckpoint.validated("checkpoints/epoch=2.ckpt")


class LightningModuleItself(LightningCheckpoint):
    writes = "the same file, into the LightningModule itself"

    def net():
        return LightningCheckpoint.module()


class LightningPath(LightningCheckpoint):
    """The loss of every checkpoint along the path of the training."""

    writes = "a .ckpt of every epoch: the path, and the loss at each"
    script = "plot_trajectory.py"
    file = ""
    flags = ("--checkpoints", "checkpoints/epoch=*.ckpt", "--eval")
    line = output = ()

    def computed():
        import h5py

        with h5py.File(next(Path("checkpoints").rglob("*proj_cos.h5"))) as file:
            return file["true_loss"][:].tolist()

    def own():
        return [
            LightningCheckpoint.validated(f"checkpoints/epoch={epoch}.ckpt") for epoch in range(3)]


class AccelerateState(Case):
    packages = ("accelerate",)
    writes = "folder of `save_state`; a prepared loader"
    file = "state"
    net = staticmethod(small_net)

    def data(split):
        import accelerate

        return accelerate.Accelerator(cpu=True).prepare(batches_of_images())

    def save():
        import accelerate

        accelerator = accelerate.Accelerator(cpu=True)
        net = accelerator.prepare(small_net())
        train(net, batches_of_images(), classes_loss)
        accelerator.save_state("state")
        accelerator.save_model(net, "model")

    def own():
        import accelerate

        accelerator = accelerate.Accelerator(cpu=True)
        net, batches = accelerator.prepare(small_net(), batches_of_images())
        accelerator.load_state("state")
        return mean_loss(net, batches)


class AccelerateModel(AccelerateState):
    writes = "folder of `save_model`"
    file = "model"


# ---------------------------------------------------------------- wrappers of torch, opacus


@contextlib.contextmanager
def one_process():
    """A process group of one process."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Wrapped(Case):
    """A network that was trained within a wrapper, whose names stand in the file."""

    net = staticmethod(small_net)

    def data(split):
        return batches_of_images()

    def train(net):
        return train(net, batches_of_images(), classes_loss)


class DistributedDataParallel(Wrapped):
    writes = "state_dict of DistributedDataParallel (`module.`)"

    def save():
        with one_process():
            net = Wrapped.train(nn.parallel.DistributedDataParallel(small_net()))
            torch.save(net.state_dict(), "model.pt")

    def own():
        with one_process():
            net = nn.parallel.DistributedDataParallel(small_net())
            net.load_state_dict(torch.load("model.pt"))
            return mean_loss(net, batches_of_images())


class Compiled(Wrapped):
    writes = "state_dict of torch.compile (`_orig_mod.`)"

    def compiled():
        return torch.compile(small_net(), backend="eager")

    def save():
        torch.save(Wrapped.train(Compiled.compiled()).state_dict(), "model.pt")

    def own():
        net = Compiled.compiled()
        net.load_state_dict(torch.load("model.pt"))
        return mean_loss(net, batches_of_images())


class StochasticWeightAverage(Wrapped):
    writes = "state_dict of swa_utils.AveragedModel after update_bn (`module.`, `n_averaged`)"

    def save():
        from torch.optim.swa_utils import AveragedModel, update_bn

        net = small_net()
        average = AveragedModel(net)
        for _ in range(4):
            train(net, batches_of_images(), classes_loss, steps=1)
            average.update_parameters(net)
        update_bn(batches_of_images(), average)
        torch.save(average.state_dict(), "model.pt")

    def own():
        net = torch.optim.swa_utils.AveragedModel(small_net())
        net.load_state_dict(torch.load("model.pt"))
        return mean_loss(net, batches_of_images())


class FsdpFolder(Wrapped):
    """Sharded weights and the optimizer in a folder of torch.distributed.checkpoint."""

    writes = "folder of `torch.distributed.checkpoint` (fully_shard, one process)"
    file = "dcp"

    def sharded():
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        return fully_shard(small_net(), mesh=init_device_mesh("cpu", (1,)))

    def save():
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import get_state_dict

        with one_process():
            net = Wrapped.train(FsdpFolder.sharded())
            optimizer = torch.optim.AdamW(net.parameters())
            model_state, optimizer_state = get_state_dict(net, optimizer)
            dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id="dcp")

    def own():
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        with one_process():
            net = FsdpFolder.sharded()
            state = get_model_state_dict(net)
            dcp.load({"model": state}, checkpoint_id="dcp")
            net.load_state_dict(state)
            return mean_loss(net, batches_of_images())


class FsdpTensors(FsdpFolder):
    """Each process would save its shard only."""

    writes = "torch.save of a `fully_shard` network's state_dict (DTensors)"
    file = "model.pt"
    refused = "full_state_dict=True"

    def save():
        with one_process():
            torch.save(Wrapped.train(FsdpFolder.sharded()).state_dict(), "model.pt")


class FsdpWhole(FsdpFolder):
    """What the refusal says is to be done."""

    writes = "torch.save of `get_model_state_dict(..., full_state_dict=True)`"
    file = "model.pt"

    def save():
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_model_state_dict,
        )

        with one_process():
            net = Wrapped.train(FsdpFolder.sharded())
            state = get_model_state_dict(net, options=StateDictOptions(full_state_dict=True))
            torch.save(state, "model.pt")

    def own():
        net = small_net()
        net.load_state_dict(torch.load("model.pt"))
        return mean_loss(net, batches_of_images())


class Opacus(Case):
    """Private training: group norm in the place of batch norm."""

    packages = ("opacus",)
    writes = "PrivacyEngine.save_checkpoint (`_module.`)"

    def net():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 3))

    def private():
        """(engine, network, optimizer, loader) as Opacus makes them."""
        import opacus

        net = Opacus.net()
        engine = opacus.PrivacyEngine()
        parts = engine.make_private(
            module=net, optimizer=torch.optim.SGD(net.parameters(), 0.1),
            data_loader=batches_of_images(), noise_multiplier=1.0, max_grad_norm=1.0)
        return engine, *parts

    def data(split):
        return batches_of_images()

    def save():
        engine, net, optimizer, loader = Opacus.private()
        for inputs, targets in [*loader, *batches_of_images()]:
            optimizer.zero_grad()
            F.cross_entropy(net(inputs), targets).backward()
            optimizer.step()
        engine.save_checkpoint(path="model.pt", module=net, optimizer=optimizer)

    def own():
        engine, net, optimizer, loader = Opacus.private()
        engine.load_checkpoint(path="model.pt", module=net, optimizer=optimizer)
        return mean_loss(net, batches_of_images())


class OpacusLoader(Opacus):
    """Its Poisson sampler draws other samples at every pass."""

    writes = "the loader of make_private"
    refused = "sampler|Sampler"

    def data(split):
        return Opacus.private()[-1]


# ---------------------------------------------------------------- graphs, data sets


class GraphBatches(Case):
    packages = ("torch_geometric",)
    writes = "state_dict; batches of its DataLoader, global pooling"

    def net():
        return GraphNet()

    def data(split):
        from torch_geometric.data import Data
        from torch_geometric.loader import DataLoader as GraphLoader

        graphs = []
        for i in range(9):
            nodes = 3 + i % 4
            ring = torch.arange(nodes)
            edges = torch.stack([ring, ring.roll(1)])
            graphs.append(Data(
                x=numbers(nodes, 5, seed=i), edge_index=edges, y=torch.tensor([i % 3])))
        return GraphLoader(graphs, batch_size=4, shuffle=True)

    def of_batch(net, batch):
        return F.cross_entropy(net(batch), batch.y)

    def save():
        net = train(GraphNet(), GraphBatches.data("train"), GraphBatches.of_batch)
        torch.save(net.state_dict(), "model.pt")

    @torch.no_grad()
    def own():
        net = GraphNet().eval()
        net.load_state_dict(torch.load("model.pt"))
        batches = list(GraphBatches.data("train"))
        total = sum(GraphBatches.of_batch(net, batch) * batch.num_graphs for batch in batches)
        return total / sum(batch.num_graphs for batch in batches)


class GraphNet(nn.Module):
    """Graph convolutions, batch norm, and the mean over the nodes of each graph."""

    def __init__(self):
        from torch_geometric.nn import BatchNorm, GCNConv

        super().__init__()
        self.conv1, self.norm, self.conv2 = GCNConv(5, 8), BatchNorm(8), GCNConv(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, batch):
        from torch_geometric.nn import global_mean_pool

        x = F.relu(self.norm(self.conv1(batch.x, batch.edge_index)))
        x = F.relu(self.conv2(x, batch.edge_index))
        return self.head(global_mean_pool(x, batch.batch))


class GraphOfNodes(Case):
    """One graph whose nodes have labels, of which some are for training."""

    packages = ("torch_geometric",)
    writes = "state_dict; KarateClub with its train_mask, by --measure"
    flags = ("--measure", "benchmarks/libraries.py:GraphOfNodes.losses")

    def net():
        from torch_geometric.nn import GCN

        return GCN(34, 16, 2, 4)

    def losses(net):
        from torch_geometric.datasets import KarateClub

        graph = KarateClub()[0]
        output = net(graph.x, graph.edge_index)[graph.train_mask]
        return {"loss": F.cross_entropy(output, graph.y[graph.train_mask])}

    def save():
        net = train(GraphOfNodes.net(), [None], lambda net, _: GraphOfNodes.losses(net)["loss"])
        torch.save(net.state_dict(), "model.pt")

    @torch.no_grad()
    def own():
        net = GraphOfNodes.net().eval()
        net.load_state_dict(torch.load("model.pt"))
        return GraphOfNodes.losses(net)["loss"]


def rows_of_numbers(count=20):
    """Rows of six numbers and one of four labels."""
    return numbers(count, 6), labels(count, classes=4)


class Rows(Case):
    """A perceptron, which each library feeds in its own way."""

    def net():
        return perceptron()

    def save():
        net = train(perceptron(), [rows_of_numbers()], classes_loss, steps=20)
        torch.save(net.state_dict(), "model.pt")

    def evaluated(batches):
        net = perceptron()
        net.load_state_dict(torch.load("model.pt"))
        return mean_loss(net, batches)


class WebShards(Rows):
    packages = ("webdataset",)
    writes = "WebDataset pipeline over tar shards: decode, to_tuple, batched, in a WebLoader"

    def pipeline(*stages):
        import webdataset

        shards = webdataset.WebDataset("shard-{000..001}.tar", shardshuffle=False)
        return shards.decode().to_tuple("npy", "cls")

    def data(split):
        import webdataset

        return webdataset.WebLoader(WebShards.pipeline().batched(8), batch_size=None)

    def save():
        import webdataset

        Rows.save()
        with webdataset.ShardWriter("shard-%03d.tar", maxcount=10) as writer:
            for i, (row, label) in enumerate(zip(*rows_of_numbers(), strict=True)):
                writer.write({"__key__": f"{i:03}", "npy": row.numpy(), "cls": int(label)})

    def own():
        pairs = [(torch.as_tensor(x), torch.as_tensor(y)) for x, y in WebShards.data("train")]
        return Rows.evaluated(pairs)


class WebSamples(WebShards):
    writes = "the same, sample by sample, without a loader"

    def data(split):
        return WebShards.pipeline()

    def own():
        return Rows.evaluated(DataLoader(WebShards.pipeline(), batch_size=8))


class DatasetFormatted(Rows):
    """Columns with the names of a network's arguments, and `labels`."""

    packages = ("datasets",)
    writes = "Dataset with `with_format('torch')`"

    def table():
        import datasets

        inputs, targets = rows_of_numbers()
        return datasets.Dataset.from_dict({"input": inputs.numpy(), "labels": targets.numpy()})

    def data(split):
        return DatasetFormatted.table().with_format("torch")

    def own():
        formatted = DatasetFormatted.table().with_format("torch")
        loader = DataLoader(formatted, batch_size=8)
        return Rows.evaluated([(batch["input"], batch["labels"]) for batch in loader])


class DatasetPlain(DatasetFormatted):
    writes = "Dataset without a format: lists of numbers"

    def data(split):
        return DatasetFormatted.table()


class DatasetNumpy(DatasetFormatted):
    writes = "Dataset with `with_format('numpy')`"

    def data(split):
        return DatasetFormatted.table().with_format("numpy")


class DatasetStream(DatasetFormatted):
    writes = "IterableDataset (`to_iterable_dataset`), with `with_format('torch')`"

    def data(split):
        return DatasetFormatted.table().to_iterable_dataset(num_shards=2).with_format("torch")


class DatasetTransformed(DatasetFormatted):
    """`with_transform` computes the columns when they are read."""

    writes = "Dataset with `with_transform` from a folder of `save_to_disk`"

    def data(split):
        import datasets

        return datasets.load_from_disk("table").with_transform(DatasetTransformed.halved)

    def halved(rows):
        return {"input": [0.5 * torch.tensor(row) for row in rows["input"]],
                "labels": rows["labels"]}

    def save():
        Rows.save()
        DatasetFormatted.table().save_to_disk("table")

    def own():
        loader = DataLoader(DatasetTransformed.data("train"), batch_size=8)
        return Rows.evaluated([(batch["input"], batch["labels"]) for batch in loader])


# ---------------------------------------------------------------- one case


def reference(case, function):
    """A function of a case, as the command line names it."""
    return f"{FILE.relative_to(ROOT)}:{case.__name__}.{function}"


def command_of(case):
    """The words of the command line of a case, but for the file that it writes."""
    words = [case.script, "--model", case.model or reference(case, "net")]
    if case.file:
        words += ["--model_file", case.file]
    if case.dataset:
        words += ["--dataset", case.dataset]
    elif case.data is not None:
        words += ["--dataset", reference(case, "data")]
    if case.loss is not None:
        words += ["--loss_name", reference(case, "loss")]
    return [*words, *case.flags, *case.line]


def execute(case):
    """The finished process of the command of a case."""
    words = [word.replace("benchmarks/", f"{ROOT}/benchmarks/") for word in command_of(case)]
    script, *flags = words
    command = [sys.executable, str(ROOT / script), *flags, *case.output]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def last_line(process):
    lines = process.stderr.strip().splitlines() or [""]
    return lines[-1].removeprefix("error: ")


def measure(case):
    """{"value", "own", "difference"}, {"refused"} or {"failed"}, and whether it is as expected.

    It runs in the current folder. Of several losses the last stands in the table, and the largest
    difference.
    """
    case.save()
    process = execute(case)
    line = last_line(process)
    if process.returncode == 2:
        expected = bool(case.refused) and bool(re.search(case.refused, line))
        return {"refused": line.replace(f"{ROOT}/", ""), "expected": expected}
    if process.returncode:
        return {"failed": line, "expected": False}

    values = torch.tensor(case.computed(), dtype=torch.float64)
    own = torch.as_tensor(case.own(), dtype=torch.float64).reshape(len(values))
    difference = ((values - own).abs() / own.abs()).max().item()
    expected = difference <= case.tolerance and not case.refused
    return {"value": values[-1].item(), "own": own[-1].item(), "difference": difference,
            "expected": expected}


def measure_quietly(case, folder):
    """`measure` in a folder of its own; what the libraries say is not shown."""
    folder.mkdir()
    torch.manual_seed(0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            return measure(case)
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}", "expected": False}


# ---------------------------------------------------------------- the table


def is_installed(case):
    return all(importlib.util.find_spec(package) for package in case.packages)


def versions():
    """{package: version} of the libraries that the cases use."""
    packages = dict.fromkeys(package for case in CASES.values() for package in case.packages)
    installed = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def in_words(row):
    """The result of a case, in a line."""
    for ending in ("refused", "failed"):
        if ending in row:
            return f"{ending}: {row[ending]}"
    return f"{row['difference']:.1e}   {row['value']:.7g}, the library {row['own']:.7g}"


def main():
    from machine import hardware

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="NAME")
    parser.add_argument("--output", help="a file for the JSON document")
    args = parser.parse_args()

    rows, left_out = {}, []
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.cases:
            case = CASES[name]
            if not is_installed(case):
                left_out.append(name)
                continue
            start = time.perf_counter()
            row = measure_quietly(case, Path(temporary) / name)
            rows[name] = {
                "library": case.packages[0], "writes": case.writes,
                "command": " ".join(command_of(case))} | row
            rows[name]["seconds"] = round(time.perf_counter() - start, 1)
            mark = " " if row["expected"] else "!"
            print(f"{case.packages[0]:16}{name:24}{mark} {in_words(row)}", flush=True)

    if left_out:
        print(f"left out, not installed: {', '.join(left_out)}")
    text = json.dumps({
        "benchmark": "libraries",
        "hardware": hardware(),
        "versions": versions(),
        "seconds": round(time.perf_counter() - begin, 1),
        "left_out": left_out,
        "rows": rows,
    }, indent=1)
    if args.output:
        Path(args.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
