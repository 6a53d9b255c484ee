"""Train a network and keep its checkpoints.

    # CIFAR-10, as in the paper: 300 epochs
    python -m cifar10.main --model resnet56 --cuda

    # seconds on a laptop
    python -m cifar10.main --model resnet20 --dataset digits --epochs 5

    # go on at epoch 51
    python -m cifar10.main ... --resume_model model_50.t7 --resume_opt opt_state_50.t7

Run it from the root of the repository. It writes, into SAVE/NAME, where NAME lists the choices that
were made,

    model_E.t7       {acc, epoch, state_dict, train_loss, train_acc, test_loss, test_acc,
                      model, dataset}
    opt_state_E.t7   {optimizer, epoch}
    log.out          one line per epoch

at the epochs E = 0 (untrained), 1, every --save_epoch, 150 and the last one. Losses and accuracies
are those of the network in eval mode on the whole set without augmentation, computed by the
function that computes loss surfaces.

Recipe of the paper (Li et al. 2018, appendix): SGD with Nesterov momentum or Adam, batches of 128,
learning rate 0.1 times 0.1 after the epochs 150, 225 and 275, weight decay 5e-4; random crops of
the image padded by 4 black pixels, and horizontal flips where a mirrored image is still of its
class.

All that is random in an epoch comes from (--rand_seed + --idx, epoch) alone, so that a training
that is stopped and resumed ends as the uninterrupted one does: to the last bit on a CPU with the
same number of threads.
"""

import argparse
import math
import os
import sys

if not __package__:
    # started as python cifar10/main.py: the modules are found from the root of the repository
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import torch

from losslandscape.choices import choose
from losslandscape.command import Parser, natural_int, positive_int, run
from losslandscape.errors import InputError
from losslandscape.measuring.criteria import LOSSES
from losslandscape.training.examples import load_examples
from losslandscape.training.files import TrainingLog, resume_model, resume_optimizer
from losslandscape.training.loop import new_network, train
from losslandscape.training.recipe import OPTIMIZERS, TrainingRecipe

# beside this file in a clone; an installed program writes into the current folder
RESULTS_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "trained_nets")
if (__package__ or "").startswith("losslandscape."):
    RESULTS_FOLDER = os.path.join("cifar10", "trained_nets")


# ---------------------------------------------------------------- flags


def make_parser():
    """The flags; those of the recipe have its defaults."""
    parser = Parser(
        prog=command_name(), description=__doc__, epilog="Defaults stand in parentheses.")

    def add(flag, description, default="", **options):
        """A flag; a default that says something stands in parentheses behind its description."""
        if default:
            description = f"{description} ({default})"
        parser.add_argument(flag, default=default, help=description, **options)

    def add_choice(flag, description, **options):
        """A flag that is a field of the recipe, with its default."""
        add(flag, description, getattr(TrainingRecipe, flag.removeprefix("--")), **options)

    # network, data and loss
    add_choice("--model", "network; a wrong name lists near ones")
    add_choice("--dataset", "cifar10, cifar100, mnist, fashion_mnist, digits or FILE.npz")
    add("--datapath", "folder of the data; what is absent is downloaded", "cifar10/data")
    add_choice("--loss_name", f"loss: {' or '.join(LOSSES)}", choices=LOSSES)
    add_choice("--noaug", "no random crops and flips", action="store_true")
    add_choice("--raw_data", "no normalization of the images", action="store_true")
    add_choice("--label_corrupt_prob", "share of training labels to replace by random ones (0)",
               type=number_from(0, 1))

    # steps
    add("--epochs", "last epoch", 300, type=positive_int)
    add_choice("--batch_size", "images per step", type=positive_int)
    add_choice("--optimizer", "sgd (with Nesterov momentum) or adam", choices=OPTIMIZERS)
    add_choice("--lr", "learning rate", type=number_from(0))
    add_choice("--lr_decay", "its factor after the epochs 150, 225, 275", type=number_from(0))
    add_choice("--weight_decay", "weight decay", type=number_from(0))
    add_choice("--momentum", "momentum of sgd", type=number_from(0, 1))
    add_choice("--rand_seed", "seed of everything random (0)", type=natural_int)
    add_choice("--idx", "number of a repeat: another folder, and another seed (0)",
               type=natural_int)

    # files
    parser.add_argument("--save", default=RESULTS_FOLDER,
                        help="folder of the results (cifar10/trained_nets)")
    add_choice("--save_epoch", "keep a checkpoint every so many epochs", type=positive_int)
    add("--resume_model", "checkpoint model_E.t7 to go on from")
    add("--resume_opt", "its opt_state_E.t7; without it the optimizer starts afresh")
    add("--trust_pickle", "read checkpoints that run code; only if you trust who made them",
        default=False, action="store_true")

    # devices
    add("--cuda", "train on a CUDA device instead of the CPU", default=False, action="store_true")
    add_choice("--ngpu", "CUDA devices to share each batch", type=positive_int)
    add("--threads", "ignored: the data are held in memory, nothing is left to load", 2,
        type=natural_int)
    return parser


def command_name():
    """How this command is called in its help and messages."""
    if sys.argv[0].startswith("losslandscape "):
        return sys.argv[0]
    return "python -m cifar10.main"


def number_from(low, high=math.inf):
    """argparse type: a finite number from low to high."""

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if low <= value <= high and math.isfinite(value):
            return value

        limits = f"from {low} to {high}"
        if high == math.inf:
            limits = f"of at least {low}"
        raise argparse.ArgumentTypeError(f"expected a number {limits}, got {text!r}")

    return parse


# ---------------------------------------------------------------- the command


def choose_device(cuda, ngpu):
    """The torch device of --cuda. Raises InputError where there are fewer devices than --ngpu."""
    if ngpu > 1 and not cuda:
        raise InputError(f"expected --cuda with --ngpu {ngpu}; give both or none")
    if not cuda:
        return torch.device("cpu")

    available = torch.cuda.device_count()
    if ngpu > available:
        raise InputError(f"expected {ngpu} CUDA device(s) for --cuda, torch finds {available}; "
                         "leave --cuda and --ngpu out to train on the CPU")
    return torch.device("cuda")


def describe_training(net, data, recipe, epochs, device, folder):
    """The first line of the log."""
    parameters = sum(parameter.numel() for parameter in net.parameters())
    images = len(data.train.targets)
    shorter_folder = min(folder, os.path.relpath(folder), key=len)
    return (
        f"{recipe.model}: {parameters} parameters, {images} training images of {recipe.dataset}, "
        f"epochs {epochs[0]} to {epochs[-1]} on {device}, seed {recipe.seed}, "
        f"into {shorter_folder}")


def main(argv=None):
    args = make_parser().parse_args(argv)
    recipe = choose(TrainingRecipe, vars(args))
    if args.resume_opt and not args.resume_model:
        raise InputError(f"expected --resume_model with --resume_opt {args.resume_opt}; "
                         "give the model_E.t7 beside it")
    device = choose_device(args.cuda, recipe.ngpu)

    # the data, and a new network
    data = load_examples(recipe, args.datapath, device)
    net = new_network(recipe, data.num_classes)

    # which may have been trained for some epochs
    trained_epochs = -1  # not even the untrained network of epoch 0 has been saved
    if args.resume_model:
        trained_epochs = resume_model(
            net, args.resume_model, recipe.model, data.name, args.trust_pickle)
    if trained_epochs >= args.epochs:
        raise InputError(f"expected --epochs above {trained_epochs}, the epoch of "
                         f"{args.resume_model}, got {args.epochs}; it is trained already")
    epochs = range(trained_epochs + 1, args.epochs + 1)

    # on the device, with its optimizer
    net = net.to(device, memory_format=torch.channels_last)
    optimizer = recipe.make_optimizer(net.parameters())
    if args.resume_opt:
        resume_optimizer(
            optimizer, args.resume_opt, recipe.optimizer, trained_epochs, args.trust_pickle)

    folder = os.path.join(args.save, recipe.folder_name)
    with TrainingLog(folder, append=bool(args.resume_model)) as log:
        log(describe_training(net, data, recipe, epochs, device, folder))
        train(net, optimizer, data, recipe, epochs, folder, log)


if __name__ == "__main__":
    run(main)
