"""Training: a new network, an epoch, and the loop that scores and saves."""

import copy
import time

import torch
from torch import nn
from tqdm import tqdm

from losslandscape.measuring.criteria import LOSSES
from losslandscape.measuring.evaluator import Evaluator
from losslandscape.networks import zoo
from losslandscape.training.examples import augment, batch_indices, plain_batch
from losslandscape.training.files import save_checkpoint


def new_network(recipe, num_classes):
    """The untrained network of a TrainingRecipe, a function of its seed alone.

    Seeds torch's global random stream.
    """
    torch.manual_seed(recipe.seed % 2**63)  # torch's seeds end there
    net = zoo.build(recipe.model, num_classes)
    init_params(net)
    return net


def init_params(net):
    """Draw new parameters from torch's global random stream.

    Convolutions as in He et al. 2015 (arXiv 1502.01852), linear layers nearly zero, biases zero.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in")
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1e-3)

        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(module.bias)


def train(net, optimizer, data, recipe, epochs, folder, log):
    """Train for `epochs` (a range), call log(line) after each, leave checkpoints in `folder`.

    Epoch 0 trains nothing. The scores of an epoch are those of the network in eval mode on the
    whole sets, without augmentation.
    """
    splits = {"train": data.train}
    if data.test is not None:
        splits["test"] = data.test

    # Scored is a copy in the plain memory format, as is the network that one loads from the file:
    # a checkpoint then has, to the last bit, the loss that stands in it.
    scored_net = copy.deepcopy(net).to(memory_format=torch.contiguous_format).eval()
    evaluator = Evaluator([scored_net], splits, recipe.loss_name)

    trained_net = net
    if recipe.ngpu > 1:
        trained_net = nn.DataParallel(net, list(range(recipe.ngpu)))

    for epoch in epochs:
        start = time.perf_counter()
        if epoch > 0:
            train_epoch(trained_net, optimizer, data, recipe, epoch)

        scored_net.load_state_dict(net.state_dict())
        scores = evaluator(splits)  # {train_loss, train_acc[, test_loss, test_acc]}
        log(log_line(epoch, recipe.learning_rate(epoch), scores, time.perf_counter() - start))

        if recipe.saves(epoch, epochs[-1]):
            state_dict = scored_net.state_dict()
            save_checkpoint(folder, epoch, state_dict, scores, optimizer, recipe.model, data.name)


def train_epoch(net, optimizer, data, recipe, epoch):
    """One pass over data.train in random order, in train mode, at the learning rate of `epoch`."""
    rng = recipe.generator(epoch)
    loss = LOSSES[recipe.loss_name]
    inputs, targets = data.train.inputs, data.train.targets

    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate(epoch)

    net.train()
    batches = batch_indices(len(targets), recipe.batch_size, rng)
    # disable=None: silent where stderr is no terminal
    for index in tqdm(batches, f"epoch {epoch}", leave=False, disable=None):
        if recipe.noaug:
            images = plain_batch(inputs, index)
        else:
            images = augment(inputs, index, data.black, data.flip, rng)
        labels = targets[index.to(targets.device)]

        optimizer.zero_grad()
        loss(net(images), labels).mean().backward()
        optimizer.step()


def log_line(epoch, learning_rate, scores, seconds):
    """The line of an epoch in the log; errors in percent."""
    parts = [
        f"epoch {epoch:3d}",
        f"lr {learning_rate:.4g}",
        f"train_loss {scores['train_loss']:.5f}",
        f"train_err {100 - scores['train_acc']:.2f}",
    ]
    if "test_acc" in scores:
        parts.append(f"test_err {100 - scores['test_acc']:.2f}")
        parts.append(f"test_loss {scores['test_loss']:.5f}")
    parts.append(f"{seconds:.1f} s")
    return "  ".join(parts)
