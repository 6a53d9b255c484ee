"""The order in which the samplers of a DataLoader list its examples, made one that never changes.

A sampler that lists the same examples in another order at every pass is taken in ascending order; a
batch sampler whose batches change is listed once. One that lists other examples at every pass is
refused: a surface would be noise.
"""

import itertools
import random
from contextlib import contextmanager

import numpy as np
import torch

from losslandscape.errors import InputError

MAX_LISTINGS = 100  # of its data set, after which a sampler is taken for endless
MOST_NUMBERS = 100_000_000  # that a sampler of a data set without a length may list


def batches_of_sampler(batch_sampler, dataset, name):
    """(lists of numbers of a torch BatchSampler in a fixed order, is that its own order?).

    Raises InputError unless these are the same examples at every pass.
    """
    size = batch_sampler.batch_size
    first, second = _two_listings(batch_sampler.sampler, dataset, name)
    numbers = _fixed_order(first, second, batch_sampler.sampler, name)
    if not batch_sampler.drop_last:
        return batched_numbers(numbers, size), first == second

    left_over = len(numbers) % size
    if left_over and first != second:
        raise InputError(
            f"expected the same examples at every pass over {name}, but its DataLoader shuffles "
            f"and drops {left_over} others each time; give it drop_last=False or shuffle=False")
    return batched_numbers(numbers[:len(numbers) - left_over], size), first == second


def fixed_numbers(sampler, dataset, name):
    """The numbers that a sampler lists, as a list: in its own order if that never changes.

    Raises InputError unless these are the same examples at every pass.
    """
    first, second = _two_listings(sampler, dataset, name)
    return _fixed_order(first, second, sampler, name)


def fixed_batches(batch_sampler, dataset, name):
    """(lists of numbers of a user's batch sampler with all seeds at 0, are they always the same?).

    Raises InputError unless these are the same examples at every pass.
    """
    first, second = _two_listings(batch_sampler, dataset, name)
    first, second = (list(map(list, listing)) for listing in (first, second))
    numbers, numbers_again = (list(itertools.chain(*listing)) for listing in (first, second))
    _fixed_order(numbers, numbers_again, batch_sampler, name)
    return first, first == second


def batched_numbers(numbers, size):
    """Lists of `size` numbers each; the last may be shorter."""
    return [list(numbers[i:i + size]) for i in range(0, len(numbers), size)]


def _fixed_order(first, second, sampler, name):
    """One order of the numbers of two listings, which must hold the same ones."""
    if first == second:
        return first
    ordered = _ascending(first)
    if ordered != _ascending(second):
        raise InputError(
            f"expected the same examples at every pass over {name}, but its "
            f"{type(sampler).__name__} draws others each time; leave the sampler out, or give the "
            "data set torch.utils.data.Subset(data, numbers)")
    return ordered


def _ascending(numbers):
    try:
        return sorted(numbers)
    except TypeError:  # of several types, say
        return sorted(numbers, key=repr)


def _two_listings(sampler, dataset, name):
    """What a sampler lists in two passes, as lists, whatever random numbers were drawn before."""
    limit = MOST_NUMBERS
    if hasattr(dataset, "__len__"):
        limit = MAX_LISTINGS * max(len(dataset), 1)

    with seeded():
        first = list(itertools.islice(sampler, limit + 1))
        if len(first) > limit:
            raise InputError(
                f"expected a sampler that ends from {name}, got {type(sampler).__name__}, which "
                f"listed {limit} examples of {len(dataset)}; leave the sampler out")
        second = list(itertools.islice(sampler, limit + 1))
    return first, second


@contextmanager
def seeded(seed=0):
    """Within: all random numbers on the CPU start from `seed`. Afterwards they are as before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # of the CPU alone
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
