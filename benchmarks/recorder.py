"""What does recording a training cost? Seconds per step of a network of the zoo, with and without a Recorder.

    python benchmarks/recorder.py                              resnet20, every step, batch 128
    python benchmarks/recorder.py --model resnet56 --every 10 --cuda

The same steps (SGD with momentum on random images) without a recorder, with one in full precision, and with one in
float16, in turn; the last record's write is waited for. Seconds per step are medians over the rounds of the mean of a
round. `call` is what recorder.step() itself takes, in full: the copy, and waiting for the record before. Bytes are
those of a file. Prints a table; the last line is one JSON document, with hardware and versions. --output FILE keeps it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import torch  # noqa: E402
from machine import hardware  # noqa: E402

from losslandscape import Recorder  # noqa: E402
from losslandscape.networks.models import MODELS  # noqa: E402

KINDS = {"none": None, "float32": torch.float32, "float16": torch.float16}


def round_of_steps(net, optimizer, images, labels, steps, every, kind):
    """(seconds per step, seconds per call of a recording step, bytes of a file)."""
    with tempfile.TemporaryDirectory() as folder:
        recorder, calls, size = None, [], 0
        if kind != "none":
            dtype = None if kind == "float32" else KINDS[kind]
            recorder = Recorder(net, folder, every=every, unit="step", dtype=dtype)
            recorder._wait()

        begin = time.perf_counter()
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
            if images.is_cuda:
                torch.cuda.synchronize()
            if recorder is not None:
                before = time.perf_counter()
                recorder.step(step=step)
                if step % every == 0:
                    calls.append(time.perf_counter() - before)
        if recorder is not None:
            recorder._wait()
            size = (Path(folder) / "step=0.pt").stat().st_size
        seconds = (time.perf_counter() - begin) / steps
        if recorder is not None:
            recorder.close()
    return seconds, statistics.median(calls or [0.0]), size


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20", choices=list(MODELS))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--output", default="")
    args = parser.parse_args(argv)

    machine = hardware(args.cuda)
    device = torch.device("cuda" if args.cuda else "cpu")
    torch.manual_seed(0)
    net = MODELS[args.model]().to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(args.batch_size, 3, 32, 32, device=device)
    labels = torch.randint(10, (args.batch_size,), device=device)
    round_of_steps(net, optimizer, images, labels, 2, 1, "none")

    rounds = {kind: [] for kind in KINDS}
    for _ in range(args.repeats):
        for kind in KINDS:
            rounds[kind].append(round_of_steps(net, optimizer, images, labels, args.steps, args.every, kind))

    rows = []
    print(f"{'recorder':10} {'s/step':>8} {'ms/call':>8} {'kB/file':>8}")
    for kind, results in rounds.items():
        seconds, call, size = (statistics.median(column) for column in zip(*results, strict=True))
        rows.append({"recorder": kind, "seconds_per_step": round(seconds, 4),
                     "all": [round(result[0], 4) for result in results],
                     "milliseconds_per_call": round(1000 * call, 2), "bytes": int(size)})
        print(f"{kind:10} {seconds:8.4f} {1000 * call:8.2f} {size / 1000:8.0f}")

    document = {"benchmark": "recorder", **vars(args), "parameters": sum(p.numel() for p in net.parameters()),
                "threads": torch.get_num_threads(), "rows": rows, "machine": machine}
    text = json.dumps(document)
    print(text)
    if args.output:
        Path(args.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
