"""Runs a case of plain_loops.py along the paths of the program, and beside it the user's own loop.

    case = plain_loops.CASES["Cnn"]
    for result in PATHS["command"](case, folder):        # one Result per surface
        differences(case, result)                       # {(x, y): largest relative difference}
"""

from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import nn

import losslandscape
import plot_surface
from losslandscape import ranks
from losslandscape.files.layouts import read_directions, read_surface
from losslandscape.measuring import evaluator
from losslandscape.networks.models import MODELS
from losslandscape.weight_space import directions_hash
from tests import plain_loops

FILE = Path(plain_loops.__file__)
NEAR = 0.5  # up to here a case's tolerance counts, farther away its corner_tolerance
BN_BATCH = 128  # samples of --bn recalibrate

_values = {}  # of loops that were run


@dataclass(frozen=True)
class Result:
    """A surface, the directions that it lies in, and the weights at its centre."""

    surface: object
    directions: object
    state: dict
    recalibrated: bool = False


# ---------------------------------------------------------------- a network with weights


def build(case):
    """The network of a case as its function gives it."""
    if case.model:
        return MODELS[case.model]()
    return case.net()


def trained_state(case, seed=7):
    """Weights as training leaves them: no statistic, bias or adapter at the value it began with."""
    torch.manual_seed(seed)
    net = build(case)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif not parameter.any():  # an adapter's second matrix
                parameter.normal_(0, 0.3)
        for name, statistic in net.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_(0, 0.3)
            elif name.endswith("running_var"):
                statistic.uniform_(0.5, 2)
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def origin_of(case, folder):
    """The weights at the centre, with which the files of a case are written into `folder`, once."""
    if not case.has_file:
        return build(case).state_dict()
    if not (folder / "net.pt").exists():
        torch.save(trained_state(case), folder / "net.pt")
        if case.second_network:
            torch.save(trained_state(case, seed=8), folder / "other.pt")
    return torch.load(folder / "net.pt", weights_only=True)


# ---------------------------------------------------------------- the paths


def reference(case, function):
    """A function of a case, as the command line names it."""
    return f"{FILE}:{case.__name__}.{function}"


def command_line(case, folder):
    """The flags of a surface of a case, but for the name of its file."""
    # the network; one that comes with its weights leaves its files in the folder as well
    flags = ["--model", case.model or reference(case, "net"), "--model_folder", str(folder)]
    if case.has_file:
        flags += ["--model_file", "net.pt"]
    if case.second_network:
        flags += ["--model_file2", "other.pt"]

    # the data and the loss
    flags += ["--dataset", reference(case, "data")]
    if case.loss is not None:
        flags += ["--loss_name", reference(case, "loss")]
    elif case.loss_name:
        flags += ["--loss_name", case.loss_name]
    if case.metric is not None:
        flags += ["--metric", reference(case, "metric")]

    # the plane
    x, y = case.grid
    flags += [*case.flags, *case.more_flags, f"--x={x}", f"--y={y}"]
    if torch.cuda.is_available():
        flags.append("--cuda")
    return flags


def run_command(case, folder, *flags, name):
    """[Result] of plot_surface.py in this process."""
    origin_of(case, folder)
    path = folder / name
    plot_surface.main([*command_line(case, folder), "--surf_file", str(path), *flags])
    return [result_of(case, path, "recalibrate" in flags)]


def result_of(case, surf_file, recalibrated=False):
    """The Result that lies in a surface file and in the files beside it."""
    surface = read_surface(surf_file)
    state = origin_of(case, surf_file.parent)
    return Result(surface, read_directions(surface.dir_file), state, recalibrated)


def command(case, folder):
    """The command line as it is: batch norm is folded where it can be, the batch size measured."""
    return run_command(case, folder, name="command.h5")


def unfolded(case, folder):
    """The network itself at every point."""
    with mock.patch.object(evaluator, "fold", lambda *_, **__: None):
        return run_command(case, folder, name="unfolded.h5")


def streamed(case, folder):
    """Data that do not fit into memory: read again at every point, five samples at a time."""
    flags = ["--threads", "0"]
    if "--batch_size" not in case.more_flags and not case.refused:
        flags += ["--batch_size", "5"]
    no_memory = mock.patch.object(ranks, "free_memory", lambda: 0)
    no_device_memory = mock.patch.object(evaluator, "fits", lambda *_: False)
    with no_memory, no_device_memory:
        return run_command(case, folder, *flags, name="streamed.h5")


def recalibrated(case, folder):
    """The batch-norm statistics of the training data at every point."""
    return run_command(case, folder, "--bn", "recalibrate", name="recalibrated.h5")


def repeated(case, folder):
    """Two planes of one network."""
    origin_of(case, folder)
    before = set(folder.glob("*.h5"))
    plot_surface.main([*command_line(case, folder), "--repeats", "2"])
    surf_files = [path for path in folder.glob("*dataset=*.h5") if "repeats=" not in path.name]
    return [result_of(case, path) for path in sorted(set(surf_files) - before)]


def interface(case, folder):
    """losslandscape.surface, as in a notebook."""
    net = build(case)
    state = net.state_dict()
    if case.has_file:
        state = origin_of(case, folder)
        net.load_state_dict(state)
    chosen = flag_values([*case.flags, *case.more_flags])

    dir_type = chosen.get("--dir_type", "weights")
    axes = losslandscape.directions(
        net, ignore=chosen.get("--xignore", ""), dir_type=dir_type,
        params=chosen.get("--params", ""))

    loss = case.loss_name or case.loss or "crossentropy"
    if isinstance(loss, type):
        loss = loss()
    options = {"loss_name": loss}
    if case.metric is not None:
        options["metric"] = reference(case, "metric")
    if "--batch_size" in chosen:
        options["batch_size"] = int(chosen["--batch_size"])
    if "--noise_seed" in chosen:
        options["noise_seed"] = int(chosen["--noise_seed"])
    data = case.data("train")
    if not isinstance(data, tuple):
        data = [data]
    measure = losslandscape.losses(*data, **options)

    x, y = case.grid
    surface = losslandscape.surface(net, axes, measure, x=x, y=y, dir_type=dir_type, progress=False)
    return [Result(surface, axes, state)]


def flag_values(flags):
    """{flag: value} of a list of flags that all have one."""
    return dict(zip(flags[::2], flags[1::2], strict=True))


PATHS = {
    "command": command,
    "unfolded": unfolded,
    "streamed": streamed,
    "recalibrated": recalibrated,
    "repeated": repeated,
    "interface": interface,
}


# ---------------------------------------------------------------- the user's own loop


def differences(case, result):
    """{(x, y): largest relative difference of the surface from the user's own loop}."""
    grid = result.surface.grid
    compared = {}
    for row, y in enumerate(grid.y):
        for column, x in enumerate(grid.x):
            expected = plain_values(case, result, x, y)
            compared[x, y] = max(
                relative_difference(result.surface.values[name][row, column], value)
                for name, value in expected.items())
    return compared


def relative_difference(value, expected):
    return abs(value - expected) / max(abs(expected), 1e-12)


def plain_values(case, result, x, y):
    """{name: float} of the user's loop at (x, y); the paths of a case share them."""
    key = case, directions_hash(result.directions), result.recalibrated, x, y
    if key not in _values:
        _values[key] = run_loop(case, result, x, y)
    return _values[key]


@torch.no_grad()
def run_loop(case, result, x, y):
    net = network_at(case, result, x, y)
    if result.recalibrated:
        recalibrate(net, case)
    with torch.random.fork_rng(devices=[]):
        values = case.loop(net, case.data("train"))
        return {name: float(value) for name, value in values.items()}


def network_at(case, result, x, y):
    """A new network with the weights origin + x * dx + y * dy, in float64 and eval mode."""
    net = build(case).eval()
    net.load_state_dict(result.state)
    if not case.own_precision:
        to_double(net)

    names = [name for name, _ in net.named_parameters()]
    if "states" in case.flags:
        names = list(net.state_dict())
    moved = {}
    for name, dx, dy in zip(names, result.directions.x, result.directions.y, strict=True):
        origin = result.state[name]
        moved[name] = exact(origin) + x * exact(dx) + y * exact(dy)
    net.load_state_dict(moved, strict=False)  # copies into the tensors: tied ones stay tied
    return net


def to_double(net):
    """Put parameters and buffers into twice the precision, complex parameters too."""
    net.double()
    for parameter in net.parameters():
        if parameter.is_complex():
            parameter.data = exact(parameter.data)


def exact(numbers):
    """A tensor or an array as a tensor in float64, or complex128."""
    tensor = torch.as_tensor(numbers)
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def recalibrate(net, case):
    """The statistics of the first whole batch of 128 training images, or of all there are."""
    images, _ = case.data("train")
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    net(images[:BN_BATCH].double())
    for norm in norms:
        norm.eval()


def exceeding(case, result):
    """{(x, y): difference} of the points that are farther from the loop than the case allows."""
    return {
        point: difference for point, difference in differences(case, result).items()
        if not difference <= tolerance_at(case, point)}


def tolerance_at(case, point):
    if max(map(abs, point)) <= NEAR:
        return case.tolerance
    return case.corner_tolerance
