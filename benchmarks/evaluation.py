"""How fast is a point? The original's way, this program, and bare forward passes, in one run, alternating.

    python benchmarks/evaluation.py                                  resnet20 resnet56 vgg9 densenet121, float32
    python benchmarks/evaluation.py --precision bf16 --models resnet56
    python benchmarks/evaluation.py --cuda --images 50000

(a) a plain loop that works as the original does: data-loader workers, batch 128, NCHW, batch norm separate, `.item()`
    per batch, the directions read from their file at every point
(b) this program: WeightPlane.place, then Evaluator, with the batch size that its calibration picks
(c) the ceiling: nothing but forward passes of the folded network, over the best of several batch sizes

(a) has a process of its own, so that (b)'s memory setting does not reach it. Data: the digits, repeated to --images.
Prints a table; the last line is one JSON document, with hardware and versions. --output FILE keeps it.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import torch  # noqa: E402
from machine import hardware  # noqa: E402
from torch import nn  # noqa: E402

from losslandscape.data.datasets import load_dataset  # noqa: E402
from losslandscape.data.splits import Split  # noqa: E402
from losslandscape.files.layouts import Directions, read_directions, write_directions  # noqa: E402
from losslandscape.measuring.devices import PRECISIONS  # noqa: E402
from losslandscape.measuring.evaluator import CALIBRATED, Evaluator  # noqa: E402
from losslandscape.networks.models import MODELS  # noqa: E402
from losslandscape.weight_space import WeightPlane, create_random_direction  # noqa: E402

POINT = (0.1, -0.07)


def prepare(name, images):
    """(network, data, axes): batch norm with statistics of the data, as training leaves it."""
    train = load_dataset("digits", splits=("train",)).train
    times = math.ceil(images / len(train.targets))
    split = Split(train.inputs.repeat(times, 1, 1, 1)[:images], train.targets.repeat(times)[:images])

    torch.manual_seed(0)
    net = MODELS[name]().train()
    with torch.no_grad():
        for start in range(0, 512, 64):
            net(split.inputs[start:start + 64])
    net.eval()
    return net, split, Directions(random_axis(net), random_axis(net))


def random_axis(net):
    return [tensor.numpy() for tensor in create_random_direction(net)]


def plain_loop(net, split, direction_file, device):
    """One point as the original computes it."""
    weights = [p.detach().clone() for p in net.parameters()]
    data = torch.utils.data.TensorDataset(split.inputs, split.targets)
    loader = torch.utils.data.DataLoader(data, batch_size=128, num_workers=2)
    criterion = nn.CrossEntropyLoss()

    def point():
        directions = read_directions(direction_file)
        for p, w, dx, dy in zip(net.parameters(), weights, directions.x, directions.y, strict=True):
            change = torch.tensor(dx) * POINT[0] + torch.tensor(dy) * POINT[1]
            p.data = w + change.to(device)

        total, loss, correct = 0, 0.0, 0
        with torch.no_grad():
            for inputs, targets in loader:
                inputs, targets = inputs.to(device), targets.to(device)
                outputs = net(inputs)
                loss += criterion(outputs, targets).item() * len(targets)
                correct += outputs.argmax(1).eq(targets).sum().item()
                total += len(targets)
        return loss / total

    return point


def this_program(net, split, directions, precision, device):
    """(point, bare, placing, evaluator): functions for a point, a bare pass, placing with folding."""
    net = net.to(memory_format=torch.channels_last)
    plane = WeightPlane(net, directions)
    evaluator = Evaluator([net], {"train": split}, batch_size=None, precision=precision)
    shard = evaluator._shards[0]
    inputs = shard.splits["train"].inputs

    def point():
        plane.place(*POINT)
        return evaluator(["train"])["train_loss"]

    def bare(batch_size):
        with torch.no_grad():
            for start in range(0, len(inputs), batch_size):
                shard.forward(inputs[start:start + batch_size])
        if device.type == "cuda":
            torch.cuda.synchronize()

    def placing():
        start = time.perf_counter()
        for _ in range(20):
            plane.place(*POINT)
            shard.folded.refresh()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / 20

    return point, bare, placing, evaluator


def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(pipe, variant, name, args):
    """A process that runs one variant whenever it is asked to."""
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if args.cuda else "cpu")
    imported = megabytes()
    net, split, directions = prepare(name, args.images)
    net = net.to(device)
    if variant == "a":
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "d.h5")
            write_directions(file, directions)
            run = plain_loop(net, split, file, device)
            serve(pipe, {"point": run})
        return

    data = split.inputs.numel() * 4 / 2**20
    point, bare, placing, evaluator = this_program(net, split, directions, args.precision, device)
    sizes = [b for b in CALIBRATED[device.type] if b <= args.images]
    point()
    parameters = sum(p.numel() for p in net.parameters()) * 4 / 2**20
    memory = megabytes() - imported - data - 3 * parameters  # before the ceiling tries larger batches

    def facts():
        return {
            "batch": evaluator.batch_size,
            "placing_s": placing(),
            "memory_over_data_and_parameters_mb": memory,
        }

    actions = {"point": point, "facts": facts}
    for batch_size in sizes:
        actions[f"bare{batch_size}"] = partial(bare, batch_size)
    serve(pipe, actions)


def serve(pipe, actions):
    """Run the actions {name: function} whose names come through the pipe, until None comes."""
    pipe.send(list(actions))
    while True:
        name = pipe.recv()
        if name is None:
            return
        start = time.perf_counter()
        result = actions[name]()
        pipe.send((time.perf_counter() - start, result))


def ask(pipe, action):
    """(seconds, result) of an action in the process at the other end."""
    pipe.send(action)
    return pipe.recv()


def compare(name, args):
    """The row of one network."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for variant in "ab":
        pipes[variant], end = context.Pipe()
        # not daemonic: (a) has data-loader workers
        context.Process(target=child, args=(end, variant, name, args)).start()
    actions = {variant: pipe.recv() for variant, pipe in pipes.items()}

    # every action in turn, beginning with another one each time: nobody always comes after (a) and its workers
    bares = [action for action in actions["b"] if action.startswith("bare")]
    seconds = {key: [] for key in ("a", "b", *bares)}
    losses = {}
    for repeat in range(args.repeats + 1):  # the first warms up
        keys = list(seconds)
        first = repeat % len(keys)
        for key in keys[first:] + keys[:first]:
            if key in pipes:
                elapsed, losses[key] = ask(pipes[key], "point")
            else:
                elapsed, _ = ask(pipes["b"], key)
            if repeat:
                seconds[key].append(elapsed)
    _, facts = ask(pipes["b"], "facts")
    for pipe in pipes.values():
        pipe.send(None)

    median = {key: statistics.median(times) for key, times in seconds.items()}
    ceiling = min(median[key] for key in bares)
    rate = {
        "a": args.images / median["a"],
        "b": args.images / median["b"],
        "c": args.images / ceiling,
    }
    return {
        "model": name,
        "images_per_s": rate,
        "b/a": rate["b"] / rate["a"],
        "b/c": rate["b"] / rate["c"],
        "batch": facts["batch"],
        "placing_share": facts["placing_s"] / median["b"],
        "relative_loss_difference": abs(losses["a"] - losses["b"]) / abs(losses["a"]),
        "loss": losses["a"],
        "memory_over_data_and_parameters_mb": facts["memory_over_data_and_parameters_mb"],
        "seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet20", "resnet56", "vgg9", "densenet121"])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--precision", default="", choices=list(PRECISIONS))
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--output")
    args = parser.parse_args()
    result = {"benchmark": "evaluation", "hardware": hardware(args.cuda), "images": args.images,
              "repeats": args.repeats, "threads": args.threads, "precision": args.precision or "default", "rows": []}
    print(f"{'model':14}{'(a) img/s':>10}{'(b)':>8}{'(c)':>8}{'b/a':>7}{'b/c':>7}{'batch':>7}{'placing':>9}"
          f"{'rel. |dloss|':>13}{'MB over':>9}")
    for name in args.models:
        row = compare(name, args)
        result["rows"].append(row)
        rate = row["images_per_s"]
        print(f"{name:14}{rate['a']:10.0f}{rate['b']:8.0f}{rate['c']:8.0f}{row['b/a']:7.2f}{row['b/c']:7.2f}"
              f"{row['batch']:7}{row['placing_share']:9.2%}{row['relative_loss_difference']:13.1e}"
              f"{row['memory_over_data_and_parameters_mb']:9.0f}", flush=True)
    text = json.dumps(result)
    print(text)
    if args.output:
        Path(args.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
