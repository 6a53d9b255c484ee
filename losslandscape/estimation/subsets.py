"""Which samples are drawn: one order for all points and ranks, whose every beginning is a subset.

    order = drawing_order(labels, seed)     (N,) sample numbers
    order[:128], order[:256], ...           nested random subsets, each class with its share
    ladder(N)                               [128, 256, ...]: the sizes that are used
"""

import numpy as np

SMALLEST = 128  # samples, below which a standard error is a guess
SEED = 20180112  # of the order, which belongs to what a surface is made from


def drawing_order(strata, count, seed=SEED):
    """Sample numbers (count,) in a random order, stratified.

    strata: (count,) integers, the class of each sample; None where there are no classes.

    Sample i of a class of m stands at (rank + u) / m, with its random rank in the class and u
    uniform in [0, 1): for every single sample that is uniform, so each is as likely to be among the
    first n as any other, and of m samples about n m / count are.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    if strata is None:
        return random.permutation(count)

    places = np.empty(count)
    for stratum in np.unique(strata):
        members = random.permutation(np.flatnonzero(strata == stratum))
        places[members] = (np.arange(len(members)) + random.random(len(members))) / len(members)
    return np.argsort(places, kind="stable")


def ladder(count):
    """[sizes] of the nested subsets of `count` samples: doubled up to half of them.

    A point that needs more is computed on all. Empty where no subset is worth its error.
    """
    sizes = []
    size = SMALLEST
    while size <= count // 2:
        sizes.append(size)
        size *= 2
    return sizes


def strata_of(targets, count):
    """(count,) integer classes of some targets, None where they are no classes.

    targets: a tensor or array (count,) of integers has classes, unless nearly every sample has its own.
    """
    dtype = str(getattr(targets, "dtype", ""))
    if getattr(targets, "shape", None) != (count,) or "int" not in dtype:
        return None
    classes = np.unique(np.asarray(targets), return_inverse=True)[1]
    if classes.max(initial=0) + 1 > count / 2:
        return None
    return classes
