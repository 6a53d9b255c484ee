"""The choices of a training, the name of its folder, and what is a function of the epoch."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from losslandscape.errors import InputError
from losslandscape.files.names import option_suffix
from losslandscape.networks import zoo

DECAY_EPOCHS = (150, 225, 275)  # after these the learning rate is multiplied by lr_decay
HALFWAY_EPOCH = 150  # of the paper's 300: always saved


@dataclass(frozen=True)
class OptimizerKind:
    """How an optimizer is made, and the names of the values that it keeps for every parameter."""

    make: Callable  # (parameters, TrainingRecipe) -> torch.optim.Optimizer
    state_names: frozenset


def make_sgd(parameters, recipe):
    """SGD, with Nesterov momentum where there is any."""
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )


def make_adam(parameters, recipe):
    """Adam with torch's default betas."""
    return torch.optim.Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)


OPTIMIZERS = {
    "sgd": OptimizerKind(make_sgd, frozenset({"momentum_buffer"})),
    "adam": OptimizerKind(make_adam, frozenset({"step", "exp_avg", "exp_avg_sq"})),
}


@dataclass(frozen=True)
class TrainingRecipe:
    """The choices of a training; fields are the flags of the same name. Raises InputError."""

    model: str = "resnet56"
    optimizer: str = "sgd"
    lr: float = 0.1
    lr_decay: float = 0.1
    batch_size: int = 128
    weight_decay: float = 5e-4
    momentum: float = 0.9
    save_epoch: int = 10
    loss_name: str = "crossentropy"
    noaug: bool = False
    raw_data: bool = False
    label_corrupt_prob: float = 0.0
    ngpu: int = 1
    idx: int = 0
    dataset: str = "cifar10"
    rand_seed: int = 0

    def __post_init__(self):
        zoo.constructor(self.model)  # raises InputError for an unknown name
        if self.batch_size < 2:
            raise InputError("expected --batch_size of at least 2 (batch normalization needs two "
                             f"samples), got {self.batch_size}")

    @property
    def folder_name(self):
        """Name of the folder of the checkpoints; choices at their default are mostly left out."""
        # a part with an empty value, or False, is left out
        dataset = os.path.basename(self.dataset).removesuffix(".npz")
        return f"{self.model}_{self.optimizer}" + option_suffix(
            ("lr", str(self.lr)),
            ("lr_decay", self.lr_decay != 0.1 and str(self.lr_decay)),
            ("bs", self.batch_size),
            ("wd", str(self.weight_decay)),
            ("mom", str(self.momentum)),
            ("save_epoch", self.save_epoch),
            ("loss", self.loss_name != "crossentropy" and self.loss_name),
            ("noaug", self.noaug),
            ("rawdata", self.raw_data),
            ("randlabel", self.label_corrupt_prob),
            ("ngpu", self.ngpu > 1 and self.ngpu),
            ("idx", self.idx),
            ("dataset", dataset != "cifar10" and dataset),
        )

    @property
    def seed(self):
        """Seed of everything random; that of a repeat (--idx) is another."""
        return self.rand_seed + self.idx

    def generator(self, epoch):
        """The source of everything random in `epoch`; epoch 0 is the preparation of the labels."""
        return np.random.default_rng([self.seed, epoch])

    def make_optimizer(self, parameters):
        """A new optimizer of `parameters`."""
        return OPTIMIZERS[self.optimizer].make(parameters, self)

    def learning_rate(self, epoch):
        """Learning rate during `epoch` = 1, 2, ...

        A function of the epoch alone, so that there is no state to resume.
        """
        decays = sum(epoch > decay_epoch for decay_epoch in DECAY_EPOCHS)
        return self.lr * self.lr_decay**decays

    def saves(self, epoch, last_epoch):
        """Whether `epoch` of a training up to `last_epoch` leaves a checkpoint."""
        return epoch in (0, 1, HALFWAY_EPOCH, last_epoch) or epoch % self.save_epoch == 0
