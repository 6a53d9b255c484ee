"""What is evaluated at the points of a grid: losses, or the ends of the Hessian's spectrum.

A measurement swaps what is evaluated and nothing else: the walk over the grid, the files, resuming and ranks are those
of losslandscape/run.py. It offers

    check_choices(job)           raises InputError where the other choices of a job don't go with it
    splits_read(splits)          the parts of the data that it needs to evaluate `splits`
    groups(splits)               what is filled together at a point: the splits, or the results of --measure
    fitted(net, data, batch_size, tell)    itself, once network and data are known; raises InputError unless they fit
    names(group)                 the data sets of the surface file that a group fills
    build(nets, data, hardware, plain)     an evaluator, with a network on each device: evaluator(splits, idle) ->
                                 {name: number} of the networks as they are then; .batch_size, .calibrate(), .note
    file_name_parts(precision)   (name, value) parts of the surface's file name, where they are not at their defaults
    provenance()                 what must agree before results are put into one file
    centre()                     {name: f(evaluator) -> JSON value}: measured once, at (0, 0), kept in the provenance
    report(surface)              lines for the user when all is done
"""

from dataclasses import dataclass, field, replace
from functools import partial

from losslandscape import user_code
from losslandscape.choices import BATCH_SIZE_BEFORE_CALIBRATION
from losslandscape.errors import InputError
from losslandscape.measuring.criteria import OwnFunction, loss_criterion, result_names
from losslandscape.measuring.fitting import NOISE_CURE, Fit, fit_to_data
from losslandscape.measuring.hessian import EIGENVALUE_NAMES, PARAMS, EigenvalueEvaluator, check_precision
from losslandscape.measuring.lanczos import MAX_PRODUCTS, TOLERANCE, trace
from losslandscape.messages import say

MAX_SEED = 2**32 - 1  # of NumPy's random numbers


@dataclass(frozen=True)
class LossMeasurement:
    """Mean loss and metric of every split. `metric`: '' for accuracy where the targets are classes.

    noise_seed: of the random numbers that network, loss or metric draw, the same ones at every point; see Evaluator.
    fit: what was found out about them, once network and data are known.
    """

    loss_name: str = "crossentropy"
    metric: str = ""
    bn: str = "frozen"  # or recalibrate: batch-norm statistics of the training data at each point
    noise_seed: int | None = field(default=None, kw_only=True)
    fit: Fit | None = field(default=None, kw_only=True, metadata={"flag": False})

    is_own = False  # --measure: see own_measurement.py
    batch_size_key = "batch_size"  # of the provenance
    noise_cure = NOISE_CURE  # what to do where random numbers are drawn

    def check_choices(self, job):
        loss_criterion(self.loss_name)
        if self.noise_seed is not None and self.noise_seed > MAX_SEED:
            raise InputError(f"expected --noise_seed from 0 to {MAX_SEED}, got {self.noise_seed}; take a smaller one")
        if self.noise_seed is not None and job.hardware.ngpu > 1:
            raise InputError(
                f"expected --ngpu 1 with --noise_seed, got {job.hardware.ngpu}: the noise of a pass is one stream of "
                "random numbers; start more ranks instead")
        if self.bn == "recalibrate" and job.directions.dir_type == "states":
            raise InputError(
                "expected --dir_type weights with --bn recalibrate, got states, which move the statistics themselves; "
                "leave one out")

    def splits_read(self, splits):
        if self.bn == "recalibrate":
            return ("train", "test") if "test" in splits else ("train",)
        return splits

    def groups(self, splits):
        return splits

    def fitted(self, net, data, batch_size=None, tell=True):
        fit = fit_to_data(net, data, self.loss_name, self.metric, batch_size, self.noise_seed, self.noise_cure)
        if tell:
            for remark in fit.remarks:
                say(f"note: {remark}")
        return replace(self, fit=fit)

    def names(self, split):
        return result_names(self.fit.metric_name, split)

    def build(self, nets, data, hardware, plain=False):
        return self.loss_evaluator(nets, data, hardware, plain)

    def loss_evaluator(self, nets, data, hardware, plain=False):
        """Evaluator of the loss, which the checks take for every measurement; plain: see Evaluator."""
        batch_size = hardware.batch_size or BATCH_SIZE_BEFORE_CALIBRATION
        return self.fit.evaluator(nets, data, batch_size, hardware.precision, self.bn, plain)

    def file_name_parts(self, precision):
        loss = ""
        if user_code.is_reference(self.loss_name):
            loss = user_code.label(self.loss_name)
        elif self.loss_name != "crossentropy":
            loss = self.loss_name
        bn = ""
        if self.bn != "frozen":
            bn = self.bn
        return [("loss", loss), ("bn", bn), *self.batch_parts(), ("precision", precision)]

    def batch_parts(self):
        """The parts of the file name about the batches and the noise that the results depend on."""
        batch_size, noise_seed = "", ""
        if self.fit is not None and not self.fit.is_default_size:
            batch_size = self.fit.batch_size
        if self.noise_seed is not None:
            noise_seed = str(self.noise_seed)  # also 0
        return [("bs", batch_size), ("noise_seed", noise_seed)]

    def provenance(self):
        return {
            "loss": self.loss_name,
            "bn": self.bn,
            **self.fit.provenance(),
            **user_code.code_hashes("loss", self.loss_name),
            **user_code.code_hashes("metric", self.metric),
        }

    def centre(self):
        return {}

    def report(self, surface):
        return []


@dataclass(frozen=True)
class EigenvalueMeasurement(LossMeasurement):
    """The largest and the smallest eigenvalue of the Hessian of the mean training loss.

    hessian_params: which parameters are differentiated: 'weights' (those of two or more dimensions), 'all', or a
    regular expression. tol, max_products: see hessian.EigenvalueEvaluator. trace_samples, top: what is measured at the
    centre.
    """

    hessian_params: str = "weights"
    tol: float = TOLERANCE
    max_products: int = MAX_PRODUCTS
    trace_samples: int | None = None
    top: int | None = None

    batch_size_key = "hessian_batch_size"
    noise_cure = "make it deterministic in eval mode: the Hessian of noise means nothing"

    def check_choices(self, job):
        loss_criterion(self.loss_name)
        if self.noise_seed is not None:
            raise InputError("expected no --noise_seed for the Hessian: that of noise means nothing; leave it out")
        if self.bn != "frozen":
            raise InputError(
                "expected --bn frozen, for the batch-norm statistics are constants in the Hessian; leave it out")
        if job.data.eval_set != "train":
            raise InputError(
                f"expected --eval_set train, got {job.data.eval_set}: the Hessian is that of the training loss; "
                "leave it out (--trainloader takes other data)")
        check_precision(job.hardware.precision)
        if self.trace_samples == 1:
            raise InputError("expected at least 2 samples for --trace, got 1: one has no standard error")
        if self.top and self.top > self.max_products:
            raise InputError(
                f"expected --topk of at most --max_products {self.max_products}, got {self.top}; raise --max_products")

    def fitted(self, net, data, batch_size=None, tell=True):
        measurement = super().fitted(net, data, batch_size, tell)
        loss = measurement.fit.loss
        if isinstance(loss, OwnFunction) and loss.network_argument is not None:
            raise InputError(
                f"expected a loss of (output, targets) for the Hessian, got {self.loss_name}, which takes the network "
                "as well; leave that out")
        return measurement

    def names(self, split):
        return list(EIGENVALUE_NAMES)

    def build(self, nets, data, hardware, plain=False):
        batch_size = self.fit.batch_size or hardware.batch_size or BATCH_SIZE_BEFORE_CALIBRATION
        return EigenvalueEvaluator(
            nets, data["train"], self.fit.loss, batch_size, hardware.precision, self.hessian_params, self.tol,
            self.max_products, bool(self.fit.batches))

    def file_name_parts(self, precision):
        params = ""
        if self.hessian_params == "all":
            params = "all"
        tol = ""
        if self.tol != TOLERANCE:
            tol = self.tol
        return [*super().file_name_parts(precision), ("params", params), ("tol", tol)]

    def provenance(self):
        return super().provenance() | {"hessian_params": self.hessian_params, "hessian_tol": self.tol}

    def centre(self):
        measures = {}
        if self.trace_samples:
            measures[f"trace_samples={self.trace_samples}"] = partial(measure_trace, self.trace_samples)
        if self.top:
            measures[f"top_{self.top}"] = partial(measure_top, self.top)
        return measures

    def report(self, surface):
        return [*unconverged_points(surface), *centre_in_words(surface)]


def moving_params(params):
    """What --params says about the parameters that move: names of groups are about the Hessian alone."""
    if params in PARAMS:
        return ""
    return params


def measure_trace(samples, evaluator):
    """Hutchinson's estimate of the trace at the point where the network is, as JSON."""
    value, standard_error = trace(evaluator.hessian, evaluator.hessian.random, samples)
    return {"value": value, "standard_error": standard_error, "samples": samples}


def measure_top(count, evaluator):
    """The largest eigenvalues at the point where the network is, as JSON."""
    spectrum = evaluator.spectrum(0, count)
    return {
        "values": spectrum.high.tolist(),
        "residuals": spectrum.high_residuals.tolist(),
        "converged": spectrum.converged,
    }


def unconverged_points(surface):
    """A warning about the points whose eigenvalues did not converge, if there are any."""
    computed = surface.computed["eig_converged"]
    failed = computed & (surface.values["eig_converged"] == 0)
    if failed.any():
        yield (
            f"warning: the eigenvalues of {failed.sum()} of {computed.sum()} points did not converge; eig_converged "
            "marks them, max_eig_res and min_eig_res tell how far they are; raise --max_products or --tol")


def centre_in_words(surface):
    """What was measured at the minimum."""
    for result in surface.provenance.get("centre", {}).values():
        if "standard_error" in result:
            yield (
                f"trace of the Hessian at the minimum: {result['value']:.6g} +- {result['standard_error']:.2g} "
                f"(standard error, {result['samples']} samples)")
            continue
        values = " ".join(f"{value:.6g}" for value in result["values"])
        doubt = ""
        if not result["converged"]:
            doubt = f" (NOT converged, residuals {max(result['residuals']):.2g})"
        yield f"largest eigenvalues of the Hessian at the minimum: {values}{doubt}"
