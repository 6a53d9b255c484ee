"""--measure FILE.py:function: what a user's function gives for the network, at every point of a grid.

It is a measurement as measurement.py describes them; its results have the names that the function
gives them. Before anything is written, the function is called twice at the centre: its names must be
fit for a file, its values numbers, and both calls must agree.
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

from losslandscape import user_code
from losslandscape.errors import InputError
from losslandscape.files.layouts import read_surface
from losslandscape.measuring.devices import PRECISIONS
from losslandscape.measuring.measurement import MAX_SEED
from losslandscape.measuring.own_function import (
    MEASURED_BATCH,
    UserFunction,
    check_names,
    in_brackets,
    numbers_of,
)
from losslandscape.measuring.vetting import Difference, in_words

GROUP = "measure"  # all results are filled together, as those of a split are
ALIKE = 1e-3  # relative difference of two calls that parallel sums on a device may make


@dataclass(frozen=True)
class OwnMeasurement:
    """The numbers that a user's function gives, by name.

    measure: FILE.py:function, see own_function.py. noise_seed: with which all random streams begin
    at every call; None for 0. result_names: of its numbers, once they are known.
    """

    measure: str
    noise_seed: int | None = field(default=None, kw_only=True)
    result_names: tuple = field(default=(), kw_only=True, metadata={"flag": False})
    data_in_words: str = field(default="none", kw_only=True, metadata={"flag": False})
    batch_size: int = field(default=MEASURED_BATCH, kw_only=True, metadata={"flag": False})

    is_own: ClassVar = True
    batch_size_key: ClassVar = "measure_batch_size"  # of the provenance

    def check_choices(self, job):
        UserFunction.load("--measure", self.measure)
        if self.noise_seed is not None and self.noise_seed > MAX_SEED:
            raise InputError(
                f"expected --noise_seed from 0 to {MAX_SEED}, got {self.noise_seed}; take a smaller one")
        if job.hardware.ngpu > 1:
            raise InputError(
                f"expected --ngpu 1 with --measure, got {job.hardware.ngpu}: the function gets one "
                "network on one device; start more ranks instead")
        if job.hardware.precision == "bf16":
            raise InputError(
                "expected --precision fp32 or tf32 with --measure, got bf16: the function itself "
                "decides where it casts (torch.autocast); leave it out")

    # ------------------------------------------------------------ data and names

    def splits_read(self, splits):
        return splits

    def groups(self, splits):
        """What is filled together at a point: all results."""
        return (GROUP,)

    def fitted(self, net, data, batch_size=None, tell=True):
        return replace(
            self, data_in_words=" and ".join(data) or "none", batch_size=batch_size or MEASURED_BATCH)

    def with_names(self, names):
        """The same, knowing its results."""
        return replace(self, result_names=tuple(names))

    def names(self, group):
        return list(self.result_names)

    def names_in_finished(self, path, grid):
        """The names of the results in a surface file that has all of them; () for any other file."""
        try:
            surface = read_surface(path)
        except InputError:
            return ()
        names = tuple(surface.provenance.get("measure_names", ()))
        is_complete = surface.grid.close_to(grid) and all(
            name in surface.computed and surface.computed[name].all() for name in names)
        if is_complete:
            return names
        return ()

    # ------------------------------------------------------------ files

    def file_name_parts(self, precision):
        batch_size, noise_seed = "", ""
        if self.data_in_words != "none" and self.batch_size != MEASURED_BATCH:
            batch_size = self.batch_size
        if self.noise_seed is not None:
            noise_seed = str(self.noise_seed)  # also 0
        return [
            ("measure", user_code.label(self.measure)), ("bs", batch_size),
            ("noise_seed", noise_seed), ("precision", precision)]

    def provenance(self):
        entries = {
            "measure": self.measure,
            "measure_seed": self.noise_seed or 0,
            "measure_data": self.data_in_words,
            **user_code.code_hashes("measure", self.measure),
        }
        if self.result_names:
            entries["measure_names"] = list(self.result_names)
        if self.data_in_words != "none":
            entries["measure_batch_size"] = self.batch_size
        return entries

    def centre(self):
        return {}

    def report(self, surface):
        return []

    # ------------------------------------------------------------ evaluation

    def evaluator_on(self, plane, precision):
        """MeasureEvaluator of the network of a GuardedPlane, which stands at the origin."""
        function = UserFunction.load("--measure", self.measure)
        ready = plane.call(lambda net, context: function.ready(net, context))
        return MeasureEvaluator(plane, ready, self.result_names, PRECISIONS[precision][1], self.batch_size)


class MeasureEvaluator:
    """Calls a measure for the network of a GuardedPlane, where it is: evaluator() -> {name: number}.

    names: of the results, () before the trial. allow_tf32: see devices.tf32.
    """

    def __init__(self, plane, function, names, allow_tf32, batch_size):
        self._plane, self._function = plane, function
        self._names = list(names)
        self._allow_tf32 = allow_tf32
        self.batch_size = batch_size

    def __call__(self, groups=(GROUP,), idle=lambda: None):
        """Raises InputError where the names are others than those of the trial."""
        numbers = self.measure_on(self._plane)
        if list(numbers) != self._names and set(numbers) != set(self._names):
            raise InputError(
                f"expected {', '.join(self._names)} from {self._in_words()} at every point, got "
                f"{', '.join(map(str, numbers))} at {in_brackets(self._plane.context.point)} "
                f"({self._function.place_in_code()}); return NaN where there is no value")
        return numbers

    def measure_on(self, plane):
        """{name: number} of the network of a GuardedPlane, where it is."""
        result = plane.call(self._function, allow_tf32=self._allow_tf32)
        return numbers_of(result, self._function)

    def _in_words(self):
        return f"{self._function.flag} {self._function.name}"

    def calibrate(self):
        """The batch size, which is the user's."""
        return self.batch_size

    def trial(self):
        """{name: number} at the centre, from two calls that agree; the names are then those of all points.

        Raises InputError where they don't, or where names or numbers can't be used.
        """
        results = []
        for _ in range(2):
            self._plane.place(0.0)
            results.append(self.measure_on(self._plane))
            check_names(results[-1], self._function)
        first, second = results
        if set(first) != set(second):
            raise InputError(
                f"expected the same names from two calls of {self._in_words()}, got "
                f"{', '.join(first)} and then {', '.join(second)} ({self._function.place_in_code()}); "
                "return NaN where there is no value")
        refuse_other_numbers(self._in_words(), "two calls", first, second)
        self._names = list(first)
        return first

    def compare_with_root(self, numbers, numbers_of_root):
        """Raises InputError where the trial on this rank gave other numbers than that on rank 0."""
        if set(numbers) != set(numbers_of_root):
            raise InputError(
                f"expected {', '.join(numbers_of_root)} from {self._in_words()} on every rank, got "
                f"{', '.join(numbers)} on one; let it return the same names everywhere")
        refuse_other_numbers(self._in_words(), "rank 0 and another rank", numbers_of_root, numbers)


def refuse_other_numbers(words, calls, first, second):
    """Raises InputError where two calls of a measure with the same network gave different numbers.

    words: of the measure, calls: which two.
    """
    for name, number in first.items():
        if not are_alike(number, second[name]):
            raise InputError(
                f"expected the same numbers from {calls} of {words} with the same network, {name} is "
                f"{number:.6g} and then {second[name]:.6g}: it draws random numbers from a generator "
                "of its own, or keeps something; draw them from torch, numpy.random, random, "
                "context.generator or context.rng, which begin anew at every call")


def refuse_kept(place, new, moved):
    """Raises InputError where a newly built network has other numbers, by name, at a place than the moved one.

    place: a vetting.Place.
    """
    for name in new.keys() & moved.keys():
        if not are_alike(new[name], moved[name]):
            raise InputError(in_words(Difference(place, name, moved[name], new[name])))


def are_alike(number, other):
    """Are two numbers the same, up to the order of parallel sums? NaN agrees with NaN."""
    if math.isnan(number) or math.isnan(other):
        return math.isnan(number) and math.isnan(other)
    if number == other:
        return True
    return math.isclose(number, other, rel_tol=ALIKE, abs_tol=1e-9)
