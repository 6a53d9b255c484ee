"""Compute the curvature of the loss on a grid of points: largest and smallest eigenvalue of the Hessian.

    python plot_hessian_eigen.py --model resnet56 --model_file MODEL.t7 --x=-1:1:51 --xnorm filter --xignore biasbn
    mpirun -n 4 python plot_hessian_eigen.py --mpi --cuda --model resnet56 --model_file MODEL.t7 \\
        --x=-1:1:51 --y=-1:1:51 --xnorm filter --xignore biasbn --ynorm filter --yignore biasbn --plot
    python plot_hessian_eigen.py ... --x=0:1:1 --trace --topk 10       more about the minimum itself

The flags, the files and the walk over the grid are those of plot_surface.py: the same command after it adds max_eig and
min_eig to the surface file that is there, and killed runs are resumed. At each point stands the Hessian of the mean
training loss with respect to the parameters of two or more dimensions (--params all: all of them; --params REGEX:
those, and only those move), batch norm in eval mode. max_eig_res and min_eig_res are the residuals |H u - theta u| of
the two eigenvalues, and eig_converged is 1 where both are within the tolerance, 0 where not; all are NaN where the loss
is not finite. --plot draws the ratio of the two (Li et al. 2018, section 6).

--trace and --topk are measured at the minimum, the point (0, 0); they are printed, and kept as JSON in the surface
file's attribute `provenance`, under `centre`.
"""

import argparse
import math
from dataclasses import replace
from functools import partial

import numpy as np

import plot_surface
from losslandscape import command
from losslandscape import hessian as hess_vec_prod
from losslandscape.command import positive_int
from losslandscape.errors import InputError
from losslandscape.hessian import Hessian, lanczos, trace

NAMES = ("max_eig", "min_eig", "max_eig_res", "min_eig_res", "eig_converged")


class Eigenvalues:
    """Evaluates the ends of the spectrum of a network as it is at the moment of the call: see Measurement."""

    def __init__(self, nets, splits, loss_name, batch_size, precision, params="weights", tol=hess_vec_prod.TOL,
                 most=hess_vec_prod.MOST, **_):  # what concerns losses only
        self.hessian = Hessian(nets, splits["train"], loss_name, params, batch_size, precision)
        self._tol, self._most = tol, most
        self.note = f"Hessian over {self.hessian.size} parameters, tolerance {tol:g}"

    @property
    def batch_size(self):
        return self.hessian.batch_size

    @batch_size.setter
    def batch_size(self, batch_size):
        self.hessian.batch_size = batch_size

    def calibrate(self):
        return self.hessian.calibrate()

    def spectrum(self, low, high, idle=lambda: None):
        return lanczos(self.hessian, self.hessian.start(idle), low, high, self._tol, self._most, idle=idle)

    def __call__(self, names, idle=lambda: None):
        found = self.spectrum(1, 1, idle)
        ends = found.high[0], found.low[0], found.high_residuals[0], found.low_residuals[0]
        converged = float(found.converged) if np.isfinite(ends).all() else np.nan
        return dict(zip(NAMES, (*map(float, ends), converged), strict=True))


# ---------------------------------------------------------------- at the minimum


def measure_trace(samples, evaluator):
    value, error = trace(evaluator.hessian, evaluator.hessian.random, samples)
    return {"value": value, "standard_error": error, "samples": samples}


def measure_top(count, evaluator):
    found = evaluator.spectrum(0, count)
    return {"values": found.high.tolist(), "residuals": found.high_residuals.tolist(), "converged": found.converged}


def report(surface):
    """Lines about points that did not converge, and about what was measured at the minimum."""
    computed = surface.computed["eig_converged"]
    failed = computed & (surface.values["eig_converged"] == 0)
    if failed.any():
        yield (f"warning: the eigenvalues of {failed.sum()} of {computed.sum()} points did not converge; eig_converged "
               "marks them, max_eig_res and min_eig_res tell how far they are; raise --max_products or --tol")
    for found in surface.provenance.get("centre", {}).values():
        if "standard_error" in found:
            yield (f"trace of the Hessian at the minimum: {found['value']:.6g} +- {found['standard_error']:.2g} "
                   f"(standard error, {found['samples']} samples)")
        else:
            values = " ".join(f"{value:.6g}" for value in found["values"])
            doubt = "" if found["converged"] else f" (NOT converged, residuals {max(found['residuals']):.2g})"
            yield f"largest eigenvalues of the Hessian at the minimum: {values}{doubt}"


# ---------------------------------------------------------------- the measurement


def flags(parser):
    g = parser.add_argument_group("curvature")
    g.add_argument("--tol", type=positive_float, default=hess_vec_prod.TOL,
                   help=f"largest residual of an eigenvalue, relative to it ({hess_vec_prod.TOL:g})")
    g.add_argument("--max_products", type=positive_int, default=hess_vec_prod.MOST, metavar="N",
                   help=f"stop a point after N products with the Hessian ({hess_vec_prod.MOST})")
    g.add_argument("--trace", type=positive_int, nargs="?", const=30, metavar="SAMPLES",
                   help="trace at the minimum, with its standard error (30 samples)")
    g.add_argument("--topk", type=positive_int, metavar="K", help="the K largest eigenvalues at the minimum")


def positive_float(text):
    """argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def settle(args):
    """The measurement that the flags ask for; raises InputError where they don't go together.

    --params weights and --params all are about the Hessian alone; a regular expression is also about what moves, and
    stays in `args` for that.
    """
    if args.bn != "frozen":
        raise InputError("expected --bn frozen, for the batch-norm statistics are constants in the Hessian; "
                         "leave it out")
    params = args.params or "weights"
    if params in hess_vec_prod.PARAMS:
        args.params = ""
    if args.eval_set != "train":
        raise InputError(f"expected --eval_set train, got {args.eval_set}: the Hessian is that of the training loss; "
                         "leave it out (--trainloader takes other data)")
    hess_vec_prod.check_precision(args.precision)
    if args.trace == 1:
        raise InputError("expected at least 2 samples for --trace, got 1: one has no standard error")
    if args.topk and args.topk > args.max_products:
        raise InputError(f"expected --topk of at most --max_products {args.max_products}, got {args.topk}; "
                         "raise --max_products")
    centre = {}
    if args.trace:
        centre[f"trace_samples={args.trace}"] = partial(measure_trace, args.trace)
    if args.topk:
        centre[f"top_{args.topk}"] = partial(measure_top, args.topk)
    return replace(
        HESSIAN,
        build=partial(Eigenvalues, params=params, tol=args.tol, most=args.max_products),
        options=(("params", params if params == "all" else ""),
                 ("tol", args.tol if args.tol != hess_vec_prod.TOL else "")),
        provenance={"hessian_params": params, "hessian_tol": args.tol},
        centre=centre,
    )


def draw(surf_file, args):
    """Draw the ratio of the two eigenvalues; returns the paths."""
    import plot_1D
    import plot_2D

    if args.y is None:
        return plot_1D.plot_1d_loss_err(surf_file, loss_max=args.loss_max, log=args.log, show=args.show)
    return plot_2D.plot_2d_eig_ratio(surf_file, show=args.show)


HESSIAN = plot_surface.Measurement(
    "hessian", lambda split, metric: list(NAMES), Eigenvalues, draw, flags, settle, report=report)


def main(argv=None):
    plot_surface.main(argv, HESSIAN, __doc__)


if __name__ == "__main__":
    command.run(main)
