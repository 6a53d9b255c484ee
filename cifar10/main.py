"""Train a network and keep its checkpoints.

    python -m cifar10.main --model resnet56 --cuda                            CIFAR-10, as in the paper: 300 epochs
    python -m cifar10.main --model resnet20 --dataset digits --epochs 5       seconds on a laptop
    python -m cifar10.main ... --resume_model model_50.t7 --resume_opt opt_state_50.t7      goes on at epoch 51

Run it from the root of the repository. It writes, into SAVE/NAME, where NAME lists the choices that were made,

    model_E.t7       {acc, epoch, state_dict, train_loss, train_acc, test_loss, test_acc, model, dataset}
    opt_state_E.t7   {optimizer, epoch}
    log.out          one line per epoch

at the epochs E = 0 (untrained), 1, every --save_epoch, 150 and the last one. Losses and accuracies are those of the
network in eval mode on the whole set without augmentation, computed by the function that computes loss surfaces.

Recipe of the paper (Li et al. 2018, appendix): SGD with Nesterov momentum or Adam, batches of 128, learning rate 0.1
times 0.1 after the epochs 150, 225 and 275, weight decay 5e-4; random crops of the image padded by 4 black pixels,
and horizontal flips where a mirrored image is still of its class.

All that is random in an epoch comes from (--rand_seed + --idx, epoch) alone, so that a training that is stopped and
resumed ends as the uninterrupted one does: to the last bit on a CPU with the same number of threads.
"""

import argparse
import copy
import io
import math
import os
import sys
import time
from dataclasses import dataclass, fields, replace

if not __package__:  # started as python cifar10/main.py: the modules are found from the root of the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from losslandscape import evaluator as evaluation
from losslandscape.command import Parser, natural_int, positive_int, run
from losslandscape.data import datasets as dataloader
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.networks.loading import Architecture, read_checkpoint, read_torch
from losslandscape.networks.zoo import build, constructor

PADDING = 4  # pixels around the image for random crops
DECAY_EPOCHS = (150, 225, 275)  # after these the learning rate is multiplied by --lr_decay
SMALLEST = 8  # pixels: the side of the smallest images that every network takes

# name -> (constructor from parameters and recipe, what it keeps per parameter)
OPTIMIZERS = {
    "sgd": (
        lambda parameters, recipe: torch.optim.SGD(parameters, lr=recipe.lr, momentum=recipe.momentum,
                                                   weight_decay=recipe.weight_decay, nesterov=recipe.momentum > 0),
        {"momentum_buffer"},
    ),
    "adam": (
        lambda parameters, recipe: torch.optim.Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay),
        {"step", "exp_avg", "exp_avg_sq"},
    ),
}


@dataclass(frozen=True)
class Recipe:
    """The choices of a training; fields are the flags of the same name."""

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

    @property
    def name(self):
        """Name of the folder of the checkpoints; choices at their default are mostly left out."""
        dataset = os.path.basename(self.dataset).removesuffix(".npz")
        return f"{self.model}_{self.optimizer}" + h5_util.option_suffix(
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
        """Repeats (--idx) differ in everything random."""
        return self.rand_seed + self.idx

    def generator(self, epoch):
        """The source of everything random in `epoch`; epoch 0 is the preparation of the labels."""
        return np.random.default_rng([self.seed, epoch])

    def learning_rate(self, epoch):
        """Learning rate during `epoch` = 1, 2, ...; a function of the epoch, so there is no state to resume."""
        return self.lr * self.lr_decay ** sum(epoch > decay for decay in DECAY_EPOCHS)

    def saves(self, epoch, last):
        """Whether `epoch` of a training up to `last` leaves a checkpoint."""
        return epoch in (0, 1, 150, last) or epoch % self.save_epoch == 0


# ---------------------------------------------------------------- network and data


def init_params(net):
    """Draw new parameters from torch's global stream: He et al. 2015 for convolutions, nearly zero linear layers."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in")
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1e-3)
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(module.bias)


def corrupt_labels(targets, num_classes, probability, rng):
    """Labels (N,) of which each is replaced, with `probability`, by one drawn uniformly from all classes.

    The random labels of Zhang et al. 2017 (arXiv 1611.03530): a drawn label may be the true one.
    """
    replaced = torch.from_numpy(rng.random(len(targets)) < probability)
    drawn = torch.from_numpy(rng.integers(num_classes, size=len(targets)))
    return torch.where(replaced, drawn, targets)


def batch_indices(count, batch_size, rng):
    """The numbers 0 ... count - 1 in random order, in pieces of `batch_size`; the last one is smaller.

    A single left-over joins the piece before it, for batch normalization needs two samples.
    """
    pieces = list(torch.from_numpy(rng.permutation(count)).split(batch_size))
    if len(pieces) > 1 and len(pieces[-1]) == 1:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return pieces


def augment(inputs, index, black, flip, rng):
    """Random crops, with `flip` also random mirror images, of inputs[index]: (B, C, H, W) in channels_last format.

    Each image is surrounded by PADDING pixels of `black` (C,) and cut out at a random place. One gather for the whole
    batch; padding the data set beforehand would take 1.6 times its memory.
    """
    (height, width), device = inputs.shape[2:], inputs.device
    shift = torch.from_numpy(rng.integers(-PADDING, PADDING + 1, size=(2, len(index), 1)))
    rows = torch.arange(height) + shift[0]  # (B, H): where each row of the crop lies in the image
    columns = torch.arange(width) + shift[1]  # (B, W)
    if flip:
        mirrored = torch.from_numpy(rng.random((len(index), 1)) < 0.5)
        columns = torch.where(mirrored, columns.flip(1), columns)
    index, rows, columns = index[:, None, None].to(device), rows[:, :, None].to(device), columns[:, None, :].to(device)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # (B, H, W)
    crops = inputs[index, :, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]  # (B, H, W, C)
    return torch.where(inside[..., None], crops, black.to(device)).permute(0, 3, 1, 2)


def check_data(data, path):
    """Raise InputError where the networks can't be trained on `data`."""
    train = data.train
    if len(train.targets) < 2:
        raise InputError(f"expected at least 2 training images in {path}, got {len(train.targets)}")
    channels, *sides = train.inputs.shape[1:]
    if channels != 3 or min(sides) < SMALLEST:
        raise InputError(f"expected images of 3 channels and at least {SMALLEST}x{SMALLEST} pixels in {path}, "
                         f"got {channels} channels of {sides[0]}x{sides[1]}")


def on_device(split, device):
    """The images in the memory format in which they are trained on and scored, so that one copy serves for both."""
    return replace(split, inputs=split.inputs.to(device, memory_format=torch.channels_last),
                   targets=split.targets.to(device))


# ---------------------------------------------------------------- checkpoints


def save(path, content):
    """torch.save whose file is at every moment complete."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    h5_util.write_file(path, buffer.getvalue())


def resume_model(net, path, model, dataset, trust_pickle=False):
    """Load the weights at `path` into `net`; return the epoch that they are of."""
    checkpoint = read_checkpoint(path, trust_pickle)
    epoch = checkpoint.info.get("epoch")
    if not isinstance(epoch, int) or epoch < 0:
        raise InputError(f"expected the number of an epoch in {path}, got {epoch!r}; give a checkpoint of this program")
    trained_on = checkpoint.info.get("dataset", dataset)
    if os.path.basename(str(trained_on)) != os.path.basename(dataset):  # a file may have moved
        raise InputError(f"expected a model trained on {dataset} in {path}, it was trained on {trained_on}; "
                         f"give --dataset {trained_on}")
    Architecture(model).check_weights(net, checkpoint.state_dict, path)
    net.load_state_dict(checkpoint.state_dict, strict=False)  # files of old PyTorch lack num_batches_tracked
    return epoch


def resume_optimizer(optimizer, path, name, epoch, trust_pickle=False):
    """Load what optimizer `name` kept per parameter; learning rate and the like are those of the flags."""
    content = read_torch(path, trust_pickle)
    try:
        state = dict(content["optimizer"]["state"])
        kept = {key for entry in state.values() for key in entry}
    except (TypeError, KeyError, ValueError, AttributeError, IndexError):
        raise InputError(f"expected the state of an optimizer in {path}, found none; give an opt_state_E.t7") from None
    if content.get("epoch", epoch) != epoch:
        raise InputError(f"expected the optimizer of epoch {epoch} in {path}, got that of epoch {content['epoch']!r}; "
                         "give the model_E.t7 and opt_state_E.t7 of one epoch")
    expected = OPTIMIZERS[name][1]
    if not all(set(entry) in (expected, set()) for entry in state.values()):  # empty: nothing is kept, as at epoch 0
        raise InputError(f"expected the state of {name} in {path}, got one that keeps "
                         f"{', '.join(sorted(map(str, kept)))}; give the --optimizer that wrote it")
    shapes = [tuple(p.shape) for group in optimizer.param_groups for p in group["params"]]
    fits = not state or set(state) == set(range(len(shapes)))
    for i, entry in state.items():
        for key, value in entry.items() if fits else ():
            shape = () if key == "step" else shapes[i]
            fits = fits and (value is None or isinstance(value, torch.Tensor) and tuple(value.shape) == shape)
    if not fits:
        raise InputError(f"expected the state of {len(shapes)} parameters of this model in {path}, "
                         "got that of another model; give the opt_state_E.t7 beside the model_E.t7")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


# ---------------------------------------------------------------- training


def train_epoch(net, optimizer, data, recipe, epoch):
    """One pass over data.train in random order, in train mode."""
    rng = recipe.generator(epoch)
    loss = evaluation.LOSSES[recipe.loss_name]
    train, device = data.train, data.train.inputs.device
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate(epoch)
    net.train()
    batches = batch_indices(len(train.targets), recipe.batch_size, rng)
    for index in tqdm(batches, f"epoch {epoch}", leave=False, disable=None):  # silent where stderr is no terminal
        if recipe.noaug:
            inputs = train.inputs[index.to(device)].to(memory_format=torch.channels_last)
        else:
            inputs = augment(train.inputs, index, data.black, data.flip, rng)
        optimizer.zero_grad()
        loss(net(inputs), train.targets[index.to(device)]).mean().backward()
        optimizer.step()


def log_line(epoch, lr, scores, seconds):
    """What is said about an epoch; errors in percent."""
    parts = [f"epoch {epoch:3d}", f"lr {lr:.4g}", f"train_loss {scores['train_loss']:.5f}",
             f"train_err {100 - scores['train_acc']:.2f}"]
    if "test_acc" in scores:
        parts += [f"test_err {100 - scores['test_acc']:.2f}", f"test_loss {scores['test_loss']:.5f}"]
    return "  ".join([*parts, f"{seconds:.1f} s"])


def train(net, optimizer, data, recipe, epochs, folder, log):
    """Train for `epochs` (a range; epoch 0 trains nothing), call log(line) for each, leave checkpoints in `folder`."""
    # Scored is a copy in the plain memory format, for such is the network that someone loads from the file.
    plain = copy.deepcopy(net).to(memory_format=torch.contiguous_format).eval()
    splits = {name: split for name, split in (("train", data.train), ("test", data.test)) if split is not None}
    evaluator = evaluation.Evaluator([plain], splits, recipe.loss_name)
    parallel = nn.DataParallel(net, list(range(recipe.ngpu))) if recipe.ngpu > 1 else net
    for epoch in epochs:
        began = time.perf_counter()
        if epoch > 0:
            train_epoch(parallel, optimizer, data, recipe, epoch)
        plain.load_state_dict(net.state_dict())
        scores = evaluator(splits)  # train_loss, train_acc, test_loss, test_acc
        log(log_line(epoch, recipe.learning_rate(epoch), scores, time.perf_counter() - began))
        if recipe.saves(epoch, epochs[-1]):
            state = {key: value.cpu() for key, value in plain.state_dict().items()}
            save(os.path.join(folder, f"model_{epoch}.t7"), {
                "acc": scores.get("test_acc", scores["train_acc"]), "epoch": epoch, "state_dict": state, **scores,
                "model": recipe.model, "dataset": data.name,
            })
            save(os.path.join(folder, f"opt_state_{epoch}.t7"), {"optimizer": optimizer.state_dict(), "epoch": epoch})


def shorter(path):
    """`path` relative to the current folder, where that is shorter."""
    return min(path, os.path.relpath(path), key=len)


def real(low, high=math.inf):
    """argparse type: a finite number from low to high."""

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and math.isfinite(value)):
            limits = f"from {low} to {high}" if math.isfinite(high) else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"expected a number {limits}, got {text!r}")
        return value

    return parse


def make_parser():
    parser = Parser(prog="python -m cifar10.main", description=__doc__, epilog="Defaults stand in parentheses.",
                    formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(flag, default, description, **how):
        parser.add_argument(flag, default=default, help=f"{description} ({default})" if default else description, **how)

    add("--model", Recipe.model, "network; a wrong name lists near ones")
    add("--dataset", Recipe.dataset, "cifar10, cifar100, mnist, fashion_mnist, digits or FILE.npz")
    add("--datapath", "cifar10/data", "folder of the data; what is absent is downloaded")
    add("--epochs", 300, "last epoch", type=positive_int)
    add("--batch_size", Recipe.batch_size, "images per step", type=positive_int)
    add("--lr", Recipe.lr, "learning rate", type=real(0))
    add("--lr_decay", Recipe.lr_decay, "its factor after the epochs 150, 225, 275", type=real(0))
    add("--optimizer", Recipe.optimizer, "sgd (with Nesterov momentum) or adam", choices=OPTIMIZERS)
    add("--weight_decay", Recipe.weight_decay, "weight decay", type=real(0))
    add("--momentum", Recipe.momentum, "momentum of sgd", type=real(0, 1))
    add("--loss_name", Recipe.loss_name, "loss: " + " or ".join(evaluation.LOSSES), choices=evaluation.LOSSES)
    add("--noaug", False, "no random crops and flips", action="store_true")
    add("--raw_data", False, "no normalization of the images", action="store_true")
    add("--label_corrupt_prob", Recipe.label_corrupt_prob, "share of training labels to replace by random ones (0)",
        type=real(0, 1))
    add("--rand_seed", Recipe.rand_seed, "seed of everything random (0)", type=natural_int)
    add("--idx", Recipe.idx, "number of a repeat: another folder, and another seed (0)", type=natural_int)
    parser.add_argument("--save", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "trained_nets"),
                        help="folder of the results (cifar10/trained_nets)")
    add("--save_epoch", Recipe.save_epoch, "keep a checkpoint every so many epochs", type=positive_int)
    add("--resume_model", "", "checkpoint model_E.t7 to go on from")
    add("--resume_opt", "", "its opt_state_E.t7; without it the optimizer starts afresh")
    add("--trust_pickle", False, "read checkpoints that run code; only if you trust who made them", action="store_true")
    add("--cuda", False, "train on a CUDA device instead of the CPU", action="store_true")
    add("--ngpu", Recipe.ngpu, "CUDA devices to share each batch", type=positive_int)
    add("--threads", 2, "ignored: the data are held in memory, nothing is left to load", type=natural_int)
    return parser


def main(argv=None):
    args = make_parser().parse_args(argv)
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)})
    constructor(recipe.model)  # a wrong name is said before anything is loaded
    if recipe.batch_size < 2:
        raise InputError("expected --batch_size of at least 2 (batch normalization needs two samples), got 1")
    if args.resume_opt and not args.resume_model:
        raise InputError(f"expected --resume_model with --resume_opt {args.resume_opt}; give the model_E.t7 beside it")
    if recipe.ngpu > 1 and not args.cuda:
        raise InputError(f"expected --cuda with --ngpu {recipe.ngpu}; give both or none")
    if args.cuda and recipe.ngpu > torch.cuda.device_count():
        raise InputError(f"expected {recipe.ngpu} CUDA device(s) for --cuda, torch finds {torch.cuda.device_count()}; "
                         "leave --cuda and --ngpu out to train on the CPU")
    device = torch.device("cuda" if args.cuda else "cpu")

    dataloader.prepare(recipe.dataset, args.datapath)
    data = dataloader.load_dataset(recipe.dataset, args.datapath, raw_data=recipe.raw_data)
    check_data(data, recipe.dataset)
    if recipe.label_corrupt_prob:
        labels = corrupt_labels(data.train.targets, data.num_classes, recipe.label_corrupt_prob, recipe.generator(0))
        data = replace(data, train=replace(data.train, targets=labels))
    data = replace(data, train=on_device(data.train, device), test=data.test and on_device(data.test, device))

    torch.manual_seed(recipe.seed % 2**63)
    net = build(recipe.model, num_classes=data.num_classes)
    init_params(net)
    first = 0
    if args.resume_model:
        first = 1 + resume_model(net, args.resume_model, recipe.model, data.name, args.trust_pickle)
        if first > args.epochs:
            raise InputError(f"expected --epochs above {first - 1}, the epoch of {args.resume_model}, "
                             f"got {args.epochs}; it is trained already")
    net = net.to(device, memory_format=torch.channels_last)
    optimizer = OPTIMIZERS[recipe.optimizer][0](net.parameters(), recipe)
    if args.resume_opt:
        resume_optimizer(optimizer, args.resume_opt, recipe.optimizer, first - 1, args.trust_pickle)

    folder = os.path.join(args.save, recipe.name)
    try:
        os.makedirs(folder, exist_ok=True)
        log_file = open(os.path.join(folder, "log.out"), "a" if first else "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise InputError(f"can't write into {folder} ({error.strerror or error}); give another --save") from None
    with log_file:

        def log(line):
            for file in (sys.stdout, log_file):
                print(line, file=file, flush=True)

        log(f"{recipe.model}: {sum(p.numel() for p in net.parameters())} parameters, "
            f"{len(data.train.targets)} training images of {recipe.dataset}, epochs {first} to {args.epochs} "
            f"on {device}, seed {recipe.seed}, into {shorter(folder)}")
        train(net, optimizer, data, recipe, range(first, args.epochs + 1), folder, log)


if __name__ == "__main__":
    run(main)
