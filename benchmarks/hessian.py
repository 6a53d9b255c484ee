"""How fast are the largest and the smallest eigenvalue of a point? The original's scheme and this program, alternating.

    python benchmarks/hessian.py                                     resnet20 and resnet56, 128 images, float32
    python benchmarks/hessian.py --models vgg9 --images 256 --repeats 5
    python benchmarks/hessian.py --cuda --images 5000

(a) two solves with ARPACK (scipy's eigsh, k=1, tolerance 1e-2), as the original does: the eigenvalue of largest
    magnitude of H, then that of H - 0.51 theta; products by double backward, NCHW
(b) this program: both ends from one Krylov space, products in reverse over forward mode, channels-last, tolerance 1e-2
(c) one solve with ARPACK for both ends (which='BE', tolerance 1e-2), with the products of (b)
(d) (b) with tolerance 1e-3, for those who compare by the errors that came out: ARPACK stops late, and so errs less

The networks are trained for a moment on the digits and stand at two points of a filter-normalized line: 0 and 0.5. The
errors are relative to eigenvalues of tolerance 1e-4. Seconds are medians over the repeats; CPU seconds, which a
busy machine disturbs less, and products are there as well. Prints a table; the last line is one JSON document, with
hardware and versions. --output FILE keeps it.
"""

import argparse
import copy
import json
import math
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from machine import hardware  # noqa: E402
from scipy.sparse.linalg import LinearOperator, eigsh  # noqa: E402

from losslandscape.data.datasets import load_dataset  # noqa: E402
from losslandscape.data.splits import Split  # noqa: E402
from losslandscape.files.layouts import Directions  # noqa: E402
from losslandscape.measuring.criteria import crossentropy  # noqa: E402
from losslandscape.measuring.hessian import Hessian, double_backward  # noqa: E402
from losslandscape.measuring.lanczos import lanczos  # noqa: E402
from losslandscape.networks.models import MODELS  # noqa: E402
from losslandscape.weight_space import WeightPlane, create_random_direction  # noqa: E402

TOL = 1e-2
POINTS = (0.0, 0.5)


def prepare(name, images, steps, device):
    """(network trained for some steps, data, line through it)."""
    train = load_dataset("digits", splits=("train",)).train
    times = math.ceil(images / len(train.targets))
    split = Split(train.inputs.repeat(times, 1, 1, 1)[:images], train.targets.repeat(times)[:images])
    torch.manual_seed(0)
    net = MODELS[name]().train().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for step in range(steps):
        part = torch.randint(len(train.targets), (32,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        logits = net(train.inputs[part].to(device))
        crossentropy(logits, train.targets[part].to(device)).mean().backward()
        optimizer.step()
    net = net.eval().cpu()
    return net, split, Directions([tensor.numpy() for tensor in create_random_direction(net)])


def operator(hessian, shift=0.0):
    """The Hessian less a multiple of the identity, as ARPACK takes it."""

    def times(v):
        v = torch.from_numpy(np.ascontiguousarray(v, np.float32).reshape(-1)).to(hessian.device)
        return (hessian(v) - shift * v).cpu().numpy()

    return LinearOperator((hessian.size, hessian.size), times, dtype=np.float32)


def two_solves(hessian):
    start = hessian.random.cpu().numpy()
    one = eigsh(operator(hessian), k=1, tol=TOL, v0=start, return_eigenvectors=False)[0]
    shift = 0.51 * float(one)
    other = eigsh(operator(hessian, shift), k=1, tol=TOL, v0=start, return_eigenvectors=False)[0] + shift
    return max(one, other), min(one, other)


def one_solve(hessian):
    start = hessian.random.cpu().numpy()
    ends = eigsh(operator(hessian), k=2, which="BE", tol=TOL, v0=start, return_eigenvectors=False)
    return max(ends), min(ends)


def this_program(hessian, tol=TOL):
    spectrum = lanczos(hessian, hessian.start(), tol=tol)
    return spectrum.high[0], spectrum.low[0]


def compare(name, args):
    """The rows of one network, one per point."""
    device = torch.device("cuda" if args.cuda else "cpu")
    net, split, line = prepare(name, args.images, args.steps, device)
    nets = {"a": copy.deepcopy(net).to(device), "b": net.to(device, memory_format=torch.channels_last)}
    planes = [WeightPlane(n, line) for n in nets.values()]
    hessians = {
        "a": Hessian([nets["a"]], split, batch_size=args.batch_size, product=double_backward),
        "b": Hessian([nets["b"]], split, batch_size=args.batch_size),
    }
    if not args.batch_size:
        hessians["a"].batch_size, hessians["b"].batch_size = 128, hessians["b"].calibrate()
    hessians["c"] = hessians["d"] = hessians["b"]
    solvers = {"a": two_solves, "b": this_program, "c": one_solve, "d": partial(this_program, tol=TOL / 10)}

    rows = []
    for x in POINTS:
        for plane in planes:
            plane.place(x)

        exact = lanczos(hessians["b"], hessians["b"].start(), tol=1e-4, max_products=400)
        exact = np.array([exact.high[0], exact.low[0]])
        hessians["a"](hessians["a"].random)  # warm
        results = {key: {"seconds": [], "cpu_seconds": []} for key in solvers}
        for _ in range(args.repeats):
            for key, solve in solvers.items():
                hessian = hessians[key]
                before, start, cpu = hessian.products, time.perf_counter(), time.process_time()
                ends = np.array(solve(hessian))
                results[key]["seconds"].append(time.perf_counter() - start)
                results[key]["cpu_seconds"].append(time.process_time() - cpu)
                results[key] |= {
                    "products": hessian.products - before,
                    "batch_size": hessian.batch_size,
                    "max_eig": float(ends[0]),
                    "min_eig": float(ends[1]),
                    "errors": np.abs(ends / exact - 1).tolist(),
                }
        rows.append({"model": name, "x": x, "max_eig": exact[0], "min_eig": exact[1]} | results)
        show(rows[-1])
    return rows


def show(row):
    for key in "abcd":
        result = row[key]
        seconds, cpu = (statistics.median(result[kind]) for kind in ("seconds", "cpu_seconds"))
        a, a_cpu = (statistics.median(row["a"][kind]) for kind in ("seconds", "cpu_seconds"))
        errors = "  ".join(f"{e:9.1e}" for e in result["errors"])
        print(f"{row['model']:12}{row['x']:5g}  ({key}){seconds:9.2f}{cpu:9.2f}{result['products']:6}"
              f"{a / seconds:8.2f}{a_cpu / cpu:8.2f}  {errors}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet20", "resnet56"])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=0, help="of both (default: 128 for a, calibrated for b)")
    parser.add_argument("--steps", type=int, default=40, help="training steps")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--output")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {"benchmark": "hessian", "hardware": hardware(args.cuda), "images": args.images, "tolerance": TOL,
              "repeats": args.repeats, "threads": args.threads, "steps": args.steps, "rows": []}
    print(f"{'model':12}{'x':>5}     {'s/point':>9}{'CPU s':>9}{'H v':>6}{'a/.':>8}{'a/. CPU':>8}"
          "  error max  error min", flush=True)
    for name in args.models:
        result["rows"] += compare(name, args)
    document = json.dumps(result)
    if args.output:
        Path(args.output).write_text(document + "\n")
    print(document)


if __name__ == "__main__":
    main()
