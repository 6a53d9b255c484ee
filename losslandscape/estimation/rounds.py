"""An estimated surface, measured on all ranks of a world, round after round.

    Estimation(world, grid, data, populations, request, store, meter, sample_file).run()

In every round rank 0 says which slices of the data are needed at which points (survey.py), and the
walk of scheduler.py hands them out. A round's tasks don't depend on each other; between rounds all
ranks meet. What was measured goes into two files: single samples beside the surface, results into it.

With a budget the rounds are short: the points with the largest error come first, and nobody begins
what would not end in time.
"""

import math
import time
from dataclasses import dataclass

from losslandscape import scheduler
from losslandscape.errors import InputError
from losslandscape.estimation import audit
from losslandscape.estimation.survey import Goal, Survey
from losslandscape.files.samples import SampleRecord
from losslandscape.messages import Progress, say

SECONDS_BETWEEN_APPENDS = 4.0  # of single samples to their file
SHARE_OF_BUDGET_PER_ROUND = 0.1  # of what is left
SHARE_FOR_AUDIT = 0.1  # of a budget
SMALLEST_ROUND = 1.0  # seconds


EXPECTED = {  # of a Request
    "tolerance": "a tolerance from 0 to below 1",
    "budget": "a budget as a finite number of seconds",
    "accuracy": "a tolerance of the accuracy in percentage points",
}


@dataclass(frozen=True)
class Request:
    """How exactly, and for how long: tolerance (None: as exactly as the budget allows), seconds or None.

    accuracy: see survey.Goal.
    """

    tolerance: float | None = None
    budget: float | None = None
    accuracy: float | None = None

    def __post_init__(self):
        """Raises InputError for numbers that are no goal."""
        for name, expected in EXPECTED.items():
            number = getattr(self, name)
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if number is not None and not (is_number and 0 <= number < math.inf):
                raise InputError(f"expected {expected}, got {number!r}; leave it out for none")
        if self.accuracy is not None and self.tolerance is None and self.budget is None:
            raise InputError(
                "expected a tolerance or a budget beside that of the accuracy (--acc_tolerance), got none; "
                "give --tolerance")

    @property
    def goal(self):
        return Goal(self.tolerance or 0.0, self.budget is not None, self.accuracy)

    def is_reached_by(self, provenance):
        """Is there nothing left to do in a file with this provenance?"""
        made = provenance.get("estimation", {})
        reached = made.get("tolerance")
        if self.tolerance is None or reached is None:
            return reached == 0
        accuracy_reached = made.get("accuracy_points", 0.0) <= self.goal.accuracy_points
        return reached <= self.tolerance and (accuracy_reached or reached == 0)


class Meter:
    """Measures tasks on one rank.

    planes, evaluator: as a run has them. data: {split: Split}. populations: {split: Population}.
    """

    def __init__(self, grid, planes, evaluator, data, populations):
        self.grid, self.planes, self.evaluator = grid, planes, evaluator
        self.data, self.populations = data, populations
        self._subset = {}  # split -> (samples, evaluator over the first ones of the order)

    def __call__(self, task, idle):
        """(means {name: number} of a whole split or {}, values {name: (n,)}) of a task."""
        for plane in self.planes:
            plane.place(*self.grid.point(task.point))
        population = self.populations[task.split]
        if task.stop < population.count:
            evaluator = self._over_first(population, task.stop)
            return {}, evaluator.part(task.split, task.start, task.stop, idle)

        means = self.evaluator([task.split], idle)
        values = {}
        if task.keep:
            of_samples = self.evaluator.of_samples(task.split, idle)
            values = {name: of_samples[name][population.order[:task.keep]] for name in of_samples}
        return means, values

    def _over_first(self, population, count):
        """An evaluator over the samples that are drawn first; no more of them than are needed lie ready."""
        size, evaluator = self._subset.get(population.split, (0, None))
        if size < count:
            samples = self.data[population.split].part(population.order[:count])
            evaluator = self.evaluator.over({population.split: samples})
            self._subset[population.split] = count, evaluator
        evaluator.batch_size = self.evaluator.batch_size
        return evaluator


class Estimation:
    """One surface under estimation.

    store: takes in results (files.store.SurfaceStore, or the like); sample_file: SampleFile or None.
    Both, and the survey, are rank 0's; the others have None.
    """

    def __init__(self, world, grid, populations, request, store, meter, sample_file=None, progress=True):
        self.world, self.grid = world, grid
        self.request, self.meter = request, meter
        self.store, self.sample_file = store, sample_file
        self.shows_progress = progress
        self._start = self._last_append = time.monotonic()
        self._unsaved = []  # [SampleRecord]
        self._has_warned = False
        self._rate = None  # samples per second, of all ranks together
        self.survey = None
        if world.rank == 0:
            self.survey = Survey(grid, populations, request.goal, store.surface)
            if sample_file is not None:
                for record in sample_file.read():
                    self.survey.take_up(record)

    def run(self):
        """Measure until the goal is reached, or the budget is spent; then check some points."""
        try:
            while tasks := self.world.on_root(self._next_round):
                self._walk(tasks)
            if tasks := self.world.on_root(self._audit_tasks):
                self._walk(tasks)
        finally:
            if self.world.rank == 0:
                self._append_samples()
        if self.world.rank == 0:
            self._finish()

    # ------------------------------------------------------------ rounds

    def _next_round(self):
        if self.request.budget is None:
            return self.survey.tasks()
        return self._within_budget(self.survey.refinements())

    def _seconds_left(self):
        reserve = SHARE_FOR_AUDIT * self.request.budget
        return self._start + self.request.budget - reserve - time.monotonic()

    def _within_budget(self, tasks):
        """The first of the tasks that fit into a round; those that are too long for the rest are passed over."""
        left = self._seconds_left()
        if self._rate is None:
            return tasks[:self.world.size]  # how quick are we?

        room = self._rate * left
        room_of_round = min(room, self._rate * max(SMALLEST_ROUND, SHARE_OF_BUDGET_PER_ROUND * left))
        chosen, samples = [], 0
        for task in tasks:
            if task.stop - task.start > room:
                continue
            chosen.append(task)
            samples += task.stop - task.start
            if samples >= room_of_round:
                break
        return chosen

    def _walk(self, tasks):
        """Measure tasks, the same list on every rank, and take in their results."""

        def measure(number, idle):
            return self.meter(tasks[number], idle)

        levels = [list(range(len(tasks)))]
        if self.world.rank > 0:
            scheduler.walk(self.world, levels, measure, record=None, save=None)
            return

        progress = None
        if self.shows_progress and self.request.budget is None:  # there rounds are many, and short
            say(work_in_words(tasks, self.survey.populations))
            progress = Progress(len(tasks))

        def record(number, measured):
            self._take_in(tasks[number], measured)
            if progress is not None:
                progress.step()

        start = time.monotonic()
        scheduler.walk(self.world, levels, measure, record, self._save)
        samples = sum(task.stop - task.start for task in tasks)
        self._rate = samples / max(time.monotonic() - start, 1e-6)
        if progress is not None:
            progress.close()

    # ------------------------------------------------------------ results

    def _take_in(self, task, measured):
        means, values = measured
        self.survey.take_in(task, measured)
        if values:
            stop = task.start + count_of(values)
            self._unsaved.append(SampleRecord(task.point, task.split, task.start, stop, values))
        self._record(task.split, task.point)

    def _record(self, split, point):
        """Put what is known of a point into the surface: as soon as it is within the goal, on a budget at once."""
        is_on_budget = self.request.budget is not None
        if is_on_budget or self.survey.is_exact(split, point) or self.survey.is_known(split, point):
            results = self.survey.results(split, point)
            if results:
                self.store.record(point, results)

    def _save(self):
        """Called often: save what is due."""
        if time.monotonic() - self._last_append > SECONDS_BETWEEN_APPENDS:
            self._append_samples()
        self.store.save()

    def _append_samples(self):
        """Put single samples on the disk; where that fails they wait, for results don't need them."""
        self._last_append = time.monotonic()
        if not self._unsaved or self.sample_file is None:
            return
        try:
            self.sample_file.append(self._unsaved)
        except InputError as error:
            if not self._has_warned:
                say(f"warning: {error}; a smaller tolerance would have to measure anew")
            self._has_warned = True
            return
        self._unsaved = []

    # ------------------------------------------------------------ the end

    def _audit_tasks(self):
        most = None
        if self.request.budget is not None:
            seconds = max(0.0, self._seconds_left()) + SHARE_FOR_AUDIT * self.request.budget
            most = int((self._rate or 0.0) * seconds / self.survey.full_samples())
        return audit.tasks(self.survey, most)

    def _finish(self):
        """All results into the surface, and how they were made into its provenance."""
        survey = self.survey
        for split in survey.populations:
            for point in range(self.grid.size):
                results = survey.results(split, point)
                if results:
                    self.store.record(point, results)

        provenance = self.store.surface.provenance
        provenance["estimation"] = survey.in_json(self.request.tolerance)
        provenance["audit"] = audit.in_json(survey)


def work_in_words(tasks, populations):
    """'264 points on 128 to 512 samples', a round."""
    whole = [task for task in tasks if task.stop == populations[task.split].count]
    parts = [task.stop for task in tasks if task.stop < populations[task.split].count]
    words = []
    if parts:
        smallest, largest = min(parts), max(parts)
        size = f"{smallest} to {largest}" if smallest < largest else f"{smallest}"
        words.append(f"{len(parts)} points on {size} samples")
    if whole:
        words.append(f"{len(whole)} points on all data")
    return " and ".join(words)


def count_of(values):
    """How many samples {name: (n,)} are of."""
    return len(next(iter(values.values())))
