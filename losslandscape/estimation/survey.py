"""What is known of every point, and what is to be measured next.

    survey = Survey(grid, populations, goal, surface)
    survey.tasks()                 [Task]: (point, split, slice of its samples) that are needed now
    survey.take_in(task, values)   what a task has measured
    survey.results(split, point)   {name: number} for the surface file

The coarse lattice is measured on all data, and what its points lose on single samples is kept. Every
other point is measured on nested subsets, until the standard errors of its results are within the
goal; where they can't be known, on all data:

- more than half of the samples would be needed;
- some losses of the subset are infinite, or so large that others may be (NaN is simpler: one makes
  the mean NaN, whatever the others are);
- one of the coarse points that it is seen from is NaN or infinite: the subset may miss the one
  sample that diverges;
- the losses of a subset are all the same: nothing says how others would differ.

What comes next depends on what was measured, never on who measured it, when, or after which
interruption. So any number of ranks, killed and resumed, arrive at the same surface.
"""

from dataclasses import dataclass, field

import numpy as np

from losslandscape import scheduler
from losslandscape.estimation import coarse
from losslandscape.estimation.regression import Estimate, regression_estimate
from losslandscape.estimation.subsets import drawing_order, ladder, strata_of

LARGEST_LOSS = 1e30  # of a sample, beyond which float32 may fail on others
METHOD = (
    "regression on the nearest coarse points, nested random subsets stratified by class "
    "(Cochran 1977, chapters 5 and 7)")
ACCURACY_POINTS = 50.0  # percentage points of an accuracy that weigh as much as 100 % of a loss
HOPELESS = 1.5  # times the largest subset: who seems to need so much is computed on all data at once
SAMPLES_NAMES = {"train": "samples"}  # how many samples a result is from; of others SPLIT_samples


@dataclass(frozen=True)
class Goal:
    """How exactly a surface is to be known.

    tolerance: largest standard error of a loss, as a share of it. Other metrics than accuracy are
        estimated as well, and don't decide.
    on_budget: every point is refined as long as there is time.
    accuracy: largest standard error of an accuracy, in percentage points; None is ACCURACY_POINTS
        times the tolerance: 1 % of a loss goes with 0.5 points.
    """

    tolerance: float
    on_budget: bool = False
    accuracy: float | None = None

    @property
    def accuracy_points(self):
        if self.accuracy is None:
            return ACCURACY_POINTS * self.tolerance
        return self.accuracy

    def scale(self, kind, mean):
        """The error that counts as 1 for a result; None where it doesn't decide."""
        if kind == "loss":
            return abs(mean)
        if kind == "acc" and self.tolerance == 0:
            return ACCURACY_POINTS
        if kind == "acc":
            return self.accuracy_points / self.tolerance
        return None


@dataclass(frozen=True)
class Population:
    """The samples of a split, in the order in which they are drawn.

    names: of the results that are means over them: {name: 'loss', 'acc' or 'metric'}.
    """

    split: str
    count: int
    order: np.ndarray  # (count,) sample numbers
    strata: np.ndarray | None  # (count,) classes of the samples, in that order
    names: dict

    @classmethod
    def of(cls, split_name, split, names):
        """The population of a Split whose results have these names, the loss first."""
        kinds = {}
        for name in names:
            kind = name.removeprefix(f"{split_name}_")
            kinds[name] = kind if kind in ("loss", "acc") else "metric"
        strata = strata_of(split.targets, len(split))
        order = drawing_order(strata, len(split))
        if strata is not None:
            strata = strata[order]
        return cls(split_name, len(split), order, strata, kinds)

    @property
    def sizes(self):
        """The sizes of the nested subsets."""
        return ladder(self.count)

    @property
    def kept(self):
        """How many samples of a coarse point are kept, from the first on."""
        return max(self.sizes, default=0)

    @property
    def loss(self):
        return next(iter(self.names))

    @property
    def samples_name(self):
        return SAMPLES_NAMES.get(self.split, f"{self.split}_samples")

    @property
    def surface_names(self):
        """The names of all that the surface file gets of this split."""
        names = []
        for name in self.names:
            names += [name, f"{name}_se"]
        return [*names, f"{self.loss}_rise_se", self.samples_name]


@dataclass(frozen=True)
class Task:
    """The samples start .. stop of a split, in its order, at a point; the whole split is stop = N.

    keep: of the whole split, how many samples' values are wanted from the first on.
    """

    point: int
    split: str
    start: int
    stop: int
    keep: int = 0


@dataclass
class Known:
    """What is known of one point and split.

    values: {name: (n,) float32} of the first n samples of the order.
    exact: {name: mean over all samples}, {} where that is not known.
    """

    values: dict = field(default_factory=dict)
    exact: dict = field(default_factory=dict)

    @property
    def count(self):
        return len(next(iter(self.values.values()), ()))


class Survey:
    """The state of an estimated surface; rank 0 has it.

    surface: what the surface file holds: points that were computed on all data are not measured again.
    """

    def __init__(self, grid, populations, goal, surface):
        self.grid = grid
        self.goal = goal
        self.populations = {population.split: population for population in populations}
        self.coarse = coarse.coarse_points(grid.shape)
        self._is_coarse = set(self.coarse)
        self._nearest = {}  # point -> the coarse points around it
        self._estimates = {}  # (split, point) -> (n, {name: Estimate})
        self._known = {}
        for population in populations:
            self._known[population.split] = [Known() for _ in range(grid.size)]
            self._take_up_exact(population, surface)

    def _take_up_exact(self, population, surface):
        """The points of the file that were computed on all data: by an ordinary run, all of its points."""
        is_exact = np.ones(self.grid.shape, bool)
        for name in population.names:
            is_exact &= surface.computed.get(name, np.zeros(self.grid.shape, bool))
        samples = surface.values.get(population.samples_name)
        if samples is not None:
            is_estimated = surface.computed[population.samples_name] & (samples < population.count)
            is_exact &= ~is_estimated

        for point in np.flatnonzero(is_exact).tolist():
            means = {name: float(surface.values[name].flat[point]) for name in population.names}
            self._known[population.split][point].exact = means

    # ------------------------------------------------------------ what comes in

    def take_up(self, record):
        """A SampleRecord of an earlier run, where it continues what is known."""
        population = self.populations.get(record.split)
        if population is None or record.point >= self.grid.size:
            return
        if set(record.values) != set(population.names) or record.stop > population.kept:
            return
        known = self._known[record.split][record.point]
        if record.start == known.count:
            self._extend(known, record.values)

    def take_in(self, task, measured):
        """Results of a task: (means {name: number} of the whole split or {}, values {name: (n,)})."""
        means, values = measured
        known = self._known[task.split][task.point]
        if means:
            known.exact = means
        if values and task.start == known.count:
            self._extend(known, values)
        if means and task.point in self._is_coarse:
            self._estimates.clear()

    def _extend(self, known, values):
        for name, new in values.items():
            old = known.values.get(name, np.zeros(0, np.float32))
            known.values[name] = np.concatenate([old, np.asarray(new, np.float32)])

    # ------------------------------------------------------------ what is known

    def is_exact(self, split, point):
        return bool(self._known[split][point].exact)

    def count(self, split, point):
        """How many samples the results of a point are from."""
        if self.is_exact(split, point):
            return self.populations[split].count
        return self._known[split][point].count

    def results(self, split, point):
        """{name: number} of a point for the surface file; {} where nothing is known of it."""
        population = self.populations[split]
        if self.is_exact(split, point):
            exact = self._known[split][point].exact
            estimates = {name: Estimate(exact[name], 0.0) for name in population.names}
        else:
            estimates = self.estimates(split, point)
        if not estimates:
            return {}

        results = {}
        for name, estimate in estimates.items():
            results[name] = estimate.mean
            results[f"{name}_se"] = estimate.error
        # the centre is computed on all data: a rise above it is as uncertain as the level
        results[f"{population.loss}_rise_se"] = estimates[population.loss].error
        results[population.samples_name] = float(self.count(split, point))
        return results

    def estimates(self, split, point):
        """{name: Estimate} from the samples of a point; {} where there are none."""
        known = self._known[split][point]
        count = known.count
        cached = self._estimates.get((split, point))
        if cached is not None and cached[0] == count:
            return cached[1]
        if count == 0 or self._missing_around(split, point):
            return {}

        population = self.populations[split]
        neighbours = [self._known[split][near] for near in self.around(point)]
        estimates = {}
        for name, kind in population.names.items():
            values = known.values[name]
            finite = [near for near in neighbours if np.isfinite(near.exact[name])]
            regressors = np.stack(
                [near.values[name][:count] for near in finite] or [np.zeros(count)], -1)
            means = [near.exact[name] for near in finite] or [0.0]
            strata = None
            if population.strata is not None:
                strata = population.strata[:count]
            estimates[name] = estimate_of(
                kind, values, regressors, means, population.count, strata)
        self._estimates[split, point] = count, estimates
        return estimates

    def around(self, point):
        """The coarse points that a point is regressed on."""
        if point not in self._nearest:
            self._nearest[point] = coarse.nearest(point, self.coarse, self.grid.shape)
        return self._nearest[point]

    def _missing_around(self, split, point):
        """Is a coarse point around this one still to be measured?"""
        return any(self._coarse_task(split, near) is not None for near in self.around(point))

    def is_known(self, split, point):
        """Are the errors of a point within the goal?"""
        if self.is_exact(split, point):
            return True
        if self.goal.tolerance == 0:
            return False
        count = self._known[split][point].count
        return count > 0 and not self._missing_around(split, point) and self.next_size(split, point) == count

    def estimated_points(self, split):
        """Points that are known from a part of their samples; they may have been computed on all as well."""
        points = []
        for point, known in enumerate(self._known[split]):
            if point in self._is_coarse or known.count == 0 or self._missing_around(split, point):
                continue
            if self._size_by_samples(split, point) == known.count:
                points.append(point)
        return points

    def exact(self, split, point):
        """{name: mean over all samples} of a point, {} where that is not known."""
        return self._known[split][point].exact

    def is_coarse(self, task):
        return task.point in self._is_coarse

    # ------------------------------------------------------------ how it was made

    def full_samples(self):
        """How many samples one point of the full surface takes."""
        return sum(population.count for population in self.populations.values())

    def samples_evaluated(self):
        """How many samples were evaluated at all points together."""
        total = 0
        for split, population in self.populations.items():
            for point, known in enumerate(self._known[split]):
                if known.exact:
                    total += population.count
                if not known.exact or point not in self._is_coarse:
                    total += known.count
        return total

    def in_json(self, tolerance):
        """How the surface was estimated, for its provenance."""
        full = self.grid.size * self.full_samples()
        entry = {
            "method": METHOD,
            "coarse_points": len(self.coarse),
            "neighbours": coarse.NEIGHBOURS[len(self.grid.shape)],
            "samples": self.samples_evaluated(),
            "share_of_work": self.samples_evaluated() / full,
        }
        if tolerance is not None and not self.tasks():
            entry["tolerance"] = tolerance
            entry["accuracy_points"] = self.goal.accuracy_points
        return entry

    # ------------------------------------------------------------ what is to be measured next

    def tasks(self):
        """[Task], those of the coarse lattice first and alone; [] where the goal is reached."""
        tasks = []
        for split in self.populations:
            tasks += [self._coarse_task(split, point) for point in self.coarse]
        tasks = [task for task in tasks if task is not None]
        if tasks:
            return tasks

        for split in self.populations:
            for point in range(self.grid.size):
                task = self.next_task(split, point)
                if task is not None:
                    tasks.append(task)
        # the longest first: then all ranks end together
        return sorted(tasks, key=lambda task: (task.start - task.stop, task.point))

    def _coarse_task(self, split, point):
        """What a coarse point lacks: its mean, or the values of its first samples."""
        population, known = self.populations[split], self._known[split][point]
        # at tolerance 0 nothing is seen from the coarse points
        keep = 0
        if self.goal.tolerance > 0 or self.goal.on_budget:
            keep = population.kept
        if not known.exact:
            return Task(point, split, 0, population.count, keep)
        if known.count < keep:
            return Task(point, split, known.count, keep)
        return None

    def refinements(self):
        """[Task], one more step for every point, the largest error first; the coarse lattice before all."""
        tasks = []
        for split in self.populations:
            tasks += [self._coarse_task(split, point) for point in self.coarse]
        tasks = [task for task in tasks if task is not None]
        if tasks:
            return tasks

        by_excess = []
        for split, population in self.populations.items():
            for place, point in enumerate(self._coarse_to_fine()):
                count = self.count(split, point)
                if count == population.count or self.is_known(split, point):
                    continue
                larger = [size for size in population.sizes if size > count]
                task = self._task(split, point, min(larger, default=population.count))
                by_excess.append((-self.excess(split, point), place, task))
        return [task for *_, task in sorted(by_excess, key=lambda entry: entry[:2])]

    def _coarse_to_fine(self):
        """All points, so that a picture of the whole plane can be drawn early."""
        levels = scheduler.coarse_to_fine(self.grid.shape)
        return np.concatenate(levels).tolist()

    def next_task(self, split, point):
        """What a point needs next; None where its errors are within the goal."""
        return self._task(split, point, self.next_size(split, point))

    def _task(self, split, point, size):
        """What brings a point to `size` samples; None where it has them."""
        population = self.populations[split]
        count = self.count(split, point)
        if size == population.count and count < size:
            return Task(point, split, 0, size)
        if size > count:
            return Task(point, split, count, size)
        return None

    def next_size(self, split, point):
        """How many samples of a point are to be known next; as many as now where that is enough."""
        if self.is_exact(split, point):
            return self.populations[split].count
        return self._size_by_samples(split, point)

    def _size_by_samples(self, split, point):
        """The same from its samples alone, whether or not it was computed on all data as well."""
        population, known = self.populations[split], self._known[split][point]
        if self.goal.tolerance == 0 and self.goal.on_budget:
            return max([known.count, *population.sizes[:1]])
        if self.goal.tolerance == 0 or not population.sizes:
            return population.count

        losses = known.values.get(population.loss, np.zeros(0))
        if np.isnan(losses).any():
            return known.count
        if self._may_diverge(split, point, losses):
            return population.count
        if known.count == 0:
            return population.sizes[0]

        needed = self._samples_needed(split, point)
        if needed <= known.count:
            return known.count

        # the step below what seems needed: a guess from few samples must not cost more than doubling
        larger = [size for size in population.sizes if size > known.count]
        if not larger or needed > HOPELESS * population.kept:
            return population.count
        return max([size for size in larger if size <= needed], default=larger[0])

    def _may_diverge(self, split, point, losses):
        """May there be a sample, seen or not, whose loss is infinite?"""
        if losses.size and not np.abs(losses).max() < LARGEST_LOSS:
            return True
        loss = self.populations[split].loss
        around = [self._known[split][near].exact[loss] for near in self.around(point)]
        return not np.isfinite(around).all()

    def _samples_needed(self, split, point):
        """How many samples bring every error within the goal, from those that are known.

        The part of a variance that n samples leave is v * (1 / n - 1 / N).
        """
        population = self.populations[split]
        count, total = self._known[split][point].count, self.populations[split].count
        needed = count
        for name, estimate in self.estimates(split, point).items():
            scale = self.goal.scale(population.names[name], estimate.mean)
            if scale is None or estimate.error <= self.goal.tolerance * scale:
                continue
            if not np.isfinite(estimate.error):
                return total
            variance = estimate.error**2 / (1 / count - 1 / total)
            # one more than enough, so that rounding can't end it here
            needed = max(needed, count + 1, 1 / ((self.goal.tolerance * scale) ** 2 / variance + 1 / total))
        return needed

    def excess(self, split, point):
        """The largest error of a point, in units that count as 1; what a budget is spent on first."""
        population = self.populations[split]
        if self.is_exact(split, point):
            return 0.0
        estimates = self.estimates(split, point)
        if not estimates:
            return np.inf
        if not np.isfinite(estimates[population.loss].mean):
            return 0.0  # a picture shows it as it is, and all data cost much

        excess = 0.0
        for name, estimate in estimates.items():
            scale = self.goal.scale(population.names[name], estimate.mean)
            if scale is not None:
                excess = max(excess, estimate.error / max(scale, 1e-300))
        return excess


def estimate_of(kind, values, regressors, means, population, strata=None):
    """Estimate of a loss, an accuracy or another metric.

    One NaN makes a mean NaN, with certainty; other values that are not finite, and values that are
    all the same, say nothing about the samples that were not drawn.
    """
    if np.isnan(values).any():
        return Estimate(float("nan"), 0.0)
    if not np.isfinite(values).all():
        return Estimate(float(values.astype(np.float64).mean()), np.inf)

    estimate = regression_estimate(values, regressors, means, population, strata)
    is_whole = len(values) >= population
    if is_whole or (values != values[0]).any():
        return estimate
    if kind == "acc":
        # as if the next sample were the first one that differs
        return Estimate(estimate.mean, 100.0 / len(values) * np.sqrt(1 - len(values) / population))
    return Estimate(estimate.mean, np.inf)
