"""Before the first point: is the loss of the network that is moved the network's own?

Much stands between a network and its numbers: batch norm that is folded away (folding.py), another
memory format, CUDA graphs, tensors that become views of one buffer (weight_space.WeightPlane). And a
network may keep what it computed in an earlier pass: a cache, weights that it derived once, its first
input. Each of these can be right at the centre and wrong at all other points.

So the loss of a few samples is compared, at the centre, at the far corner of the grid and at one of
its other points, with that of a network which knows nothing of all this: it is built anew, its
tensors get their values by copying, and it is evaluated in float32 (its own dtype), in contiguous
memory, layer by layer. Where the two differ, the run goes on without folding and channels-last
memory, if these are the cause; else it is refused before its first point.

The price is a second network in memory, the time to build it, a second folding, and six passes over
a few samples: 0.4 s for resnet56 and 2 s for densenet121 on one core.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from losslandscape.data.splits import Split
from losslandscape.errors import InputError
from losslandscape.measuring.copies import independent_copy
from losslandscape.measuring.devices import dtype_of
from losslandscape.messages import say
from losslandscape.weight_space import tensors_of

VETTED_SAMPLES = 8  # of each split; one batch, where a split comes in batches

# how far two losses may be apart: share of the loss, and beyond that
LOSS_TOLERANCE = 1e-3
LOSS_TOLERANCE_IN_HALF_PRECISION = 0.2
SMALLEST_DIFFERENCE = 1e-5
ROUNDINGS = 10  # times the difference that another precision makes for a network that amplifies it

FAILURES = RuntimeError, TypeError, AttributeError, LookupError  # of networks that can't be called so


@dataclass(frozen=True)
class Vetting:
    """What is compared with what, over a few samples (`vetted_samples`) of the splits.

    moved(plain) -> (planes, evaluator)    the networks as the run moves and evaluates them, after a
                                           pass over other samples at the centre; plain: without
                                           folding and channels-last memory
    build() -> network                     a new one in eval mode, on the device, never called
    evaluate(net, precision) -> evaluator  of one network, plainly
    precision                              of the run: 'bf16', or 'fp32' for all others
    """

    moved: Callable
    build: Callable
    evaluate: Callable
    precision: str
    axes: object  # layouts.Directions
    dir_type: str
    grid: object
    splits: list  # their names


@dataclass(frozen=True)
class Place:
    """A point of the plane and what it is called."""

    words: str
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Difference:
    """Two losses that should be the same: of the network that is moved, and of the new one."""

    place: Place
    name: str
    moved: float
    new: float

    def __str__(self):
        return f"{self.name} is {self.moved:.6g} instead of {self.new:.6g} at {self.place.words}"


@torch.no_grad()
def needs_plain_passes(vetting):
    """False where all is well; True, and a note, where the run must do without its fast forms.

    Raises InputError where the loss is another than the network's own even so.
    """
    places = places_of(vetting.grid)
    witness = Witness(vetting, places)

    try:
        difference = first_difference(vetting.moved(False), witness, places)
    except FAILURES as error:  # a network that views its weights fails in channels-last memory
        difference = f"it fails: {first_line(error)}"
    if difference is None:
        return False

    plain_difference = first_difference(vetting.moved(True), witness, places)
    if plain_difference is not None:
        raise InputError(in_words(plain_difference))
    say("note: every layer is evaluated as it is, without folded batch norm and channels-last memory: "
        f"with them {difference}")
    return True


def first_difference(moved, witness, places):
    """The first Difference between the networks that are moved and the witness, or None.

    moved: (planes, evaluator).
    """
    planes, evaluator = moved

    # from the centre on: what the network keeps there is what its user's own passes would leave
    losses = {}
    for place in places:
        for plane in planes:
            plane.place(place.x, place.y)
        losses[place] = losses_of(evaluator, witness.splits)

    for place, new_losses in witness.losses.items():
        for name, new_loss in new_losses.items():
            loss = losses[place][name]
            if agree(loss, new_loss, witness.tolerance):
                continue
            if not agree(loss, new_loss, witness.tolerance, witness.rounding(place)[name]):
                return Difference(place, name, loss, new_loss)
    return None


def agree(loss, new_loss, tolerance, rounding=0.0):
    """Are two losses the same, up to a share of the loss and the error of its rounding?

    NaN and infinity agree with themselves only.
    """
    if math.isnan(loss) or math.isnan(new_loss):
        return math.isnan(loss) and math.isnan(new_loss)
    if loss == new_loss or math.isinf(rounding):
        return True
    allowed = max(tolerance * abs(new_loss), ROUNDINGS * rounding) + SMALLEST_DIFFERENCE
    return math.isfinite(new_loss) and abs(loss - new_loss) <= allowed


def in_words(difference):
    """What differs, and why that may be."""
    return (
        "expected the value that a newly built network has with the same weights, but "
        f"{difference}: the network keeps something from one pass to the next (a cache, its first "
        "input, weights that it copied or derived once), or is built with random numbers of its own; "
        "let forward compute all from weights and inputs at every call")


# ---------------------------------------------------------------- where, and on which samples


def places_of(grid):
    """[Place]: the centre, a point of the grid at random, and the one farthest from the centre."""
    corner = [farthest(axis) for axis in (grid.x, grid.y) if axis is not None]
    other = grid.point(random.Random(0).randrange(grid.size))

    places = [Place("the centre", 0.0)]
    for point in (other, corner):
        coordinates = [float(coordinate) for coordinate in point]
        place = Place("({})".format(", ".join(f"{c:g}" for c in coordinates)), *coordinates)
        if all((place.x, place.y) != (known.x, known.y) for known in places):
            places.append(place)
    return places


def farthest(axis):
    """The coordinate of the largest size."""
    return max(axis, key=abs)


def vetted_samples(data):
    """{split: a few of its samples}: spread over a split, or the first of its batches.

    They are not the first ones, which a network may have seen already, and remember.
    """
    samples = {}
    for name, split in data.items():
        if isinstance(split, Split):
            generator = torch.Generator().manual_seed(0)
            numbers = torch.randperm(len(split), generator=generator)[:VETTED_SAMPLES]
            samples[name] = split.part(numbers)
        else:
            samples[name] = split.first(1)
    return samples


# ---------------------------------------------------------------- the two losses


def losses_of(evaluator, splits):
    """{NAME_loss: mean loss}, without metrics."""
    results = evaluator(splits)
    return {f"{split}_loss": results[f"{split}_loss"] for split in splits}


class Witness:
    """A network built anew, which is moved by copying values into its tensors.

    losses: {place: {name: loss}}. Raises InputError where the network can't be built or called again.
    """

    def __init__(self, vetting, places):
        self._vetting, self._rounding = vetting, {}
        self.splits = vetting.splits
        net = vetting.build()
        self._origin = [tensor.detach().clone() for tensor in tensors_of(net, vetting.dir_type)]

        self.tolerance = LOSS_TOLERANCE
        if vetting.precision == "bf16" or dtype_of(net).itemsize < 4:
            self.tolerance = LOSS_TOLERANCE_IN_HALF_PRECISION

        # the centre comes last: what is kept there would hide that it is kept
        self.losses = {}
        for place in reversed(places):
            self.losses[place] = self._losses_at(place, net, "fp32")

    def rounding(self, place):
        """{name: how far the loss there is from that in another precision}.

        The other precision is float64, or the lower one of the run. The two networks are a new one
        and its copy, neither of which was called before.
        """
        if place not in self._rounding:
            net, precision = self._vetting.build(), self._vetting.precision
            try:
                other_net = independent_copy(net)
                if precision == "fp32":
                    other_net.double()
                others = self._losses_at(place, other_net, precision)
            except Exception:  # it can't be copied, casts by itself, or the device has no float64
                others = None
            losses = self._losses_at(place, net, "fp32")
            self._rounding[place] = {
                name: distance(loss, (others or losses)[name]) for name, loss in losses.items()}
        return self._rounding[place]

    def _losses_at(self, place, net, precision):
        """{name: loss}; the evaluator is made where the network is to be called."""
        self._move(place, net)
        try:
            return losses_of(self._vetting.evaluate(net, precision), self.splits)
        except FAILURES as error:
            raise InputError(
                "expected a newly built network to run as the first one does, but at "
                f"{place.words} it fails ({first_line(error)}); let its function build the same "
                "network at every call") from None

    def _move(self, place, net):
        """Put the tensors at the place, each by copying its values."""
        axes = [axis for axis in (self._vetting.axes.x, self._vetting.axes.y) if axis is not None]
        done = set()
        for i, tensor in enumerate(tensors_of(net, self._vetting.dir_type)):
            if id(tensor) not in done:  # tied ones once
                parts = [axis[i] for axis in axes]
                tensor.data.copy_(shifted(self._origin[i], parts, (place.x, place.y)))
            done.add(id(tensor))


def shifted(values, parts, coordinates):
    """values + x * dx + y * dy, in float32 at least."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    total = values.to(dtype)
    for part, coordinate in zip(parts, coordinates, strict=False):
        total = torch.add(total, torch.as_tensor(part).to(total), alpha=coordinate)
    return total


def first_line(error):
    """The first line of what an exception says, or its type."""
    lines = str(error).splitlines()
    if lines:
        return lines[0]
    return type(error).__name__


def distance(loss, other):
    """|loss - other|: 0 for two NaN, infinity where one of the two is not finite."""
    if math.isnan(loss) and math.isnan(other) or loss == other:
        return 0.0
    difference = abs(loss - other)
    return difference if math.isfinite(difference) else math.inf
