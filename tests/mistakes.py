"""Networks, data and functions as users might write them by mistake: test_mistakes.py copies this to own.py."""

import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

text = "no function"


def net(width=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width))


def x(n=20):
    return torch.arange(n * 12.0).reshape(n, 3, 2, 2).sin()


def y(n=20):
    return torch.arange(n) % 3


def data(split):
    return x(), y()


def raises(*args, **kwargs):
    raise RuntimeError("of the user\nin two lines")


def asserts(split):
    assert split is None


def exits(*args):
    sys.exit(0)


def recurses(*args):
    return recurses(*args)


def nothing(*args):
    return None


def word(*args):
    return "word"


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 3)

    def forward(self, x):
        return self.linear(x.flatten(1)) + torch.randn(len(x), 3)


def net_fails_later():
    class Net(nn.Linear):
        def forward(self, x):
            raise ValueError("of the network")
    return Net(12, 3)


def net_of_no_parameters():
    return nn.Flatten()


def net_of_words():
    class Net(nn.Linear):
        def forward(self, x):
            return "word"
    return Net(12, 3)


def net_is_a_class():
    return nn.Linear


def generator(split):
    for _ in range(3):
        yield x(4), y(4)


def spent(split):
    batches = iter([(x(4), y(4))] * 3)

    class Once:
        def __iter__(self):
            return batches
    return Once()


class Shuffled:
    def __iter__(self):
        return ((x(4)[torch.randperm(4)], y(4)) for _ in range(3))


def shuffled(split):
    return Shuffled()


def augmented(split):
    class Examples(TensorDataset):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return image + torch.randn(3, 2, 2), label
    return Examples(x(), y())


def unequal(split):
    return x(20), y(19)


def empty(split):
    return x(0), y(0)


def no_batches(split):
    return []


def no_examples(split):
    return TensorDataset(x(0), y(0))


def lies_about_its_length(split):
    class Examples:
        def __len__(self):
            return 100

        def __getitem__(self, i):
            return x(20)[i], y(20)[i]
    return Examples()


def length_fails(split):
    class Examples(TensorDataset):
        def __len__(self):
            raise OSError("gone")
    return Examples(x(), y())


def pairs_of_words(split):
    return [("a", "b")] * 3


def three(split):
    return [(x(4), y(4), y(4))] * 3


def objects(split):
    return x().numpy(), np.array([{}] * 20, dtype=object)


def without_targets(split):
    return [{"pixels": x(4)}] * 3


def ragged_targets(split):
    return [(x(4), y(3))] * 3


def labels_too_large(split):
    return x(), y() + 5


def labels_negative(split):
    return x(), y() - 1


def labels_are_fractions(split):
    return x(), y() / 2


def other_images(split):
    return torch.ones(20, 3, 4, 4), y()


def fails_in_the_middle(split):
    class Batches:
        def __iter__(self):
            yield x(4), y(4)
            raise OSError("disk gone")
    return Batches()


def fails_at_the_third_pass(split):
    class Batches:
        passes = 0

        def __iter__(self):
            self.passes += 1
            for i in range(200):
                if self.passes > 2 and i > 100:
                    raise OSError("disk gone")
                yield x(4), y(4)
    return Batches()


def loss_of_two(output, targets):
    return torch.ones(2)


def loss_of_other_arguments(output):
    return output.sum()


class LossNeedsArguments(nn.Module):
    def __init__(self, weight):
        super().__init__()
