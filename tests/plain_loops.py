"""Networks, losses and data as users bring them, each beside the user's own loop: plain PyTorch.

A case is a class; the command line finds its functions as `plain_loops.py:Case.net`. None takes
`self`:

    net()               the network, untrained
    data(split)         its examples, "train" or "test"
    loss(output, y)     its loss, if it has one of its own; else `loss_name`
    loop(net, data)     {"train_loss": ...}: the values at the weights of `net`, which is in float64
                        and in eval mode; data: what data("train") gives

The law (test_plain_loops.py): a surface holds the numbers of `loop`, or the run is refused in a
line with the words `refused`.

A new kind of network, loss or data gets a case here.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

CASES = {}  # name -> case


class Case:
    """What is not said by a case itself."""

    needs = ()  # packages that it imports
    paths = ("command", "streamed", "interface")  # of loop_paths.py

    net = None
    model = ""  # a network of the zoo in the place of net()
    has_file = True  # else the network comes with its weights
    second_network = False  # the x axis leads to another network: --model_file2
    own_precision = False  # the loop runs in the dtype of the network, not in float64

    loss_name = ""  # a --loss_name in the place of loss()
    loss = None
    metric = None

    flags = ("--xnorm", "filter", "--xignore", "biasbn", "--ynorm", "filter", "--yignore", "biasbn")
    more_flags = ()
    grid = ("0:1:3", "-0.5:0:2")  # the centre, a moved point and corners of a plane

    tolerance = 2e-6  # relative, up to half a step from the network
    corner_tolerance = 5e-5  # relative, farther away
    refused = ""  # a regular expression: what the line says
    loop = None

    def __init_subclass__(cls):
        if (cls.net or cls.model) and (cls.loop or cls.refused):
            CASES[cls.__name__] = cls


def numbers(*shape, seed=0):
    """Gaussian numbers in this shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape, classes, seed=1):
    """Labels in this shape, below `classes`."""
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def scores(logits, targets):
    """Mean cross entropy and accuracy in percent."""
    hits = (logits.argmax(1) == targets).double()
    return {"train_loss": F.cross_entropy(logits, targets), "train_acc": 100 * hits.mean()}


def scores_of(batches):
    """The scores of (logits, targets) of several batches."""
    logits, targets = zip(*batches, strict=True)
    return scores(torch.cat(logits), torch.cat(targets))


def perceptron(inputs=6, outputs=4):
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs))


# ---------------------------------------------------------------- networks for images


class Images(Case):
    """Small images of four classes."""

    paths = ("command", "unfolded", "streamed", "interface")

    def data(split):
        return numbers(24, 3, 8, 8), labels(24, classes=4)

    def loop(net, data):
        images, targets = data
        return scores(net(images.double()), targets)


class Cnn(Images):
    """Convolutions, batch norm and ReLU: what folding is made for.

    There are more images than --bn recalibrate takes at once.
    """

    paths = (*Images.paths, "recalibrated", "repeated")

    def net():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Flatten(), nn.Linear(32, 4))

    def data(split):
        return numbers(150, 3, 8, 8), labels(150, classes=4)


class ResidualBlock(nn.Module):
    """A block whose shortcut pads with zeros where channels double: option A of He et al. 2015."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.stride = 2 if outputs > inputs else 1
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.padding = (outputs - inputs) // 2

    def forward(self, x):
        shortcut = x[:, :, ::self.stride, ::self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNetOptionA(Images):
    """A residual network whose shortcuts have no weights."""

    paths = (*Images.paths, "recalibrated")

    def net():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            ResidualBlock(8, 8), ResidualBlock(8, 16),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


class Zoo(Images):
    """Networks of this program, without a file of the user's."""

    paths = ("command", "unfolded")
    grid = ("0:0.5:2", "0:1:2")

    def data(split):
        return numbers(4, 3, 32, 32), labels(4, classes=10)


class ZooResNet(Zoo):
    """ResNet-20 with option B: convolutions in the shortcuts."""

    model = "resnet20"


class ZooVgg(Zoo):
    paths = ("command",)
    model = "vgg9"


class ZooDenseNet(Zoo):
    """Batch norm stands before the convolutions: little is folded."""

    paths = ("command",)
    grid = ("0:0.5:2", "0:1:1")
    model = "densenet121"

    def data(split):
        return numbers(2, 3, 8, 8), labels(2, classes=10)


class LooksUpWeights(nn.Module):
    """A layer between two folded ones, which finds its weights in another way than by its name."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.kernel = nn.Parameter(0.3 * torch.randn(6, 6, 3, 3))
        self.gate = nn.Parameter(torch.randn(6, 1))
        self.power = nn.Parameter(torch.tensor(0.7))
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 4)
        self.tensors = [self.gate]

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.by == "name":
            x = F.conv2d(x, dict(self.named_parameters())["kernel"] * 2, padding=1)
        elif self.by == "number":
            x = F.conv2d(x, list(self.parameters())[0] * 2, padding=1)
        elif self.by == "list":
            x = x * (2 * self.tensors[0]).view(-1, 1, 1)
        else:
            x = (x + 0.1) ** float(self.power)
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


def looks_up_weights(by):
    net = LooksUpWeights()
    net.by = by
    return net


class WeightsByName(Images):
    def net():
        return looks_up_weights("name")


class WeightsByNumber(Images):
    def net():
        return looks_up_weights("number")


class WeightsInList(Images):
    def net():
        return looks_up_weights("list")


class WeightAsNumber(Images):
    """`float(self.power)`: a weight of no dimension, which moves without --xignore biasbn."""

    flags = ("--xnorm", "filter", "--ynorm", "filter")

    def net():
        return looks_up_weights("float")


class FrozenStatistics(Images):
    """torchvision's FrozenBatchNorm2d: its buffers move on the way to another network's states."""

    needs = ("torchvision",)
    flags = ("--dir_type", "states", "--ynorm", "filter", "--yignore", "biasbn")
    second_network = True

    def net():
        from torchvision.ops import FrozenBatchNorm2d

        return nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), FrozenBatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3), FrozenBatchNorm2d(8), nn.Flatten(), nn.Linear(128, 4))


class StatesOfTwoNetworks(Images):
    """From one network to another, running statistics included."""

    flags = ("--dir_type", "states", "--ynorm", "filter", "--yignore", "biasbn")
    second_network = True
    net = Cnn.net


class OldWeightNorm(Images):
    """torch.nn.utils.weight_norm: a hook computes `weight` before each forward."""

    paths = (*Images.paths, "recalibrated")

    def net():
        norm = nn.utils.weight_norm
        return nn.Sequential(
            norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8), nn.ReLU(),
            norm(nn.Conv2d(8, 8, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(128, 4)))


class WeightNorm(Images):
    """torch.nn.utils.parametrizations.weight_norm: `weight` is a property."""

    def net():
        norm = nn.utils.parametrizations.weight_norm
        return nn.Sequential(
            norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8), nn.ReLU(),
            norm(nn.Conv2d(8, 8, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(128, 4)))


class SpectralNorm(Images):
    """Both forms of spectral norm, as discriminators have them.

    The weights are divided by u'Wv, with the checkpoint's u and v; far from it that may be near 0.
    """

    tolerance = corner_tolerance = 1e-4

    def net():
        old, new = nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm
        return nn.Sequential(
            old(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8), nn.ReLU(),
            new(nn.Conv2d(8, 8, 3)), nn.ReLU(), nn.Flatten(), old(nn.Linear(128, 4)))


class Pruned(Images):
    """torch.nn.utils.prune: a mask, and a hook that applies it."""

    def net():
        net = Cnn.net()
        prune.ln_structured(net[0], "weight", amount=0.4, n=2, dim=0)
        prune.ln_structured(net[4], "weight", amount=0.4, n=2, dim=0)
        return net


class StandardizedConvolution(nn.Conv2d):
    def forward(self, x):
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class WeightStandardization(Images):
    """A layer of the user's, derived from nn.Conv2d."""

    def net():
        return nn.Sequential(
            StandardizedConvolution(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3),
            nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))


class HookOnLayer(Images):
    """A forward hook on a convolution and on a batch norm."""

    def net():
        net = Cnn.net()
        net[0].register_forward_hook(lambda layer, inputs, output: 2 * output)
        net[5].register_forward_hook(lambda layer, inputs, output: output.abs())
        return net


class HookOnNetwork(Images):
    """A forward hook and a pre-hook on the whole network."""

    def net():
        net = Cnn.net()
        net.register_forward_pre_hook(lambda layer, inputs: 2 * inputs[0])
        net.register_forward_hook(lambda layer, inputs, output: output.square())
        return net


class BranchOnWeight(Images):
    """A way through the network that depends on the weights."""

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.bn = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
                self.gate, self.fc = nn.Parameter(torch.randn(6, 1)), nn.Linear(6, 4)
                self.register_buffer("size", self.gate.detach().norm())

            def forward(self, x):
                x = F.relu(self.bn(self.conv(x))).mean((2, 3))
                if self.gate.norm() > 1.05 * self.size:
                    x = -3 * x
                return self.fc(x)

        return Net()


class InPlaceAliases(Images):
    """ReLU in place, where others read the same tensor."""

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
                self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
                self.fc = nn.Linear(6, 4)

            def forward(self, x):
                first = self.bn1(self.conv1(x))
                kept = first.clone()
                first.relu_()
                second = self.conv2(first)
                second += first
                first = F.relu(self.bn2(second), inplace=True) - kept
                return self.fc((first + second).mean((2, 3)))

        return Net()


class ByteImages(Images):
    """Images in bytes, which the network scales itself."""

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = Cnn.net()

            def forward(self, x):
                return self.layers(x.to(self.layers[0].weight.dtype) / 255)

        return Net()

    def data(split):
        return labels(24, 3, 8, 8, classes=256).byte(), labels(24, classes=4)

    def loop(net, data):
        images, targets = data
        return scores(net(images), targets)


class KeepsItsKernel(nn.Module):
    """It computes its kernel once, as merged adapters and re-parametrized networks do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.2 * torch.randn(8, 3, 3, 3))
        self.fc = nn.Linear(8, 4)
        self.kernel = None

    def forward(self, x):
        if self.kernel is None:
            self.kernel = 2 * self.weight
        return self.fc(F.conv2d(x, self.kernel).tanh().mean((2, 3)))


class CachedKernel(Images):
    """The user's loop builds a network for each point; one that is moved keeps its first kernel."""

    refused = "the network keeps something"

    def net():
        return KeepsItsKernel()


class AliasOfWeight(Images):
    """The same memory under two names, of which one is no parameter."""

    own_precision = True

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
                self.kernels = {"conv": self.conv.weight.detach()}

            def forward(self, x):
                return self.fc(F.conv2d(x, self.kernels["conv"]).tanh().mean((2, 3)))

        return Net()

    def loop(net, data):
        images, targets = data
        return scores(net(images), targets)


class CountsItsCalls(Images):
    """A network with a memory of its own."""

    refused = "two passes"

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = Cnn.net()
                self.register_buffer("scale", torch.ones(()))

            def forward(self, x):
                self.scale.mul_(0.9)
                return self.scale * self.layers(x)

        return Net()


class CountsItsCallsWithSeed(CountsItsCalls):
    """A seed does not mend that."""

    refused = "--noise_seed 1"
    more_flags = ("--noise_seed", "1")


class BatchStatistics(Images):
    """Batch norm without running statistics: an output depends on the images beside it."""

    more_flags = ("--batch_size", "8")

    def net():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    def loop(net, data):
        images, targets = data
        return scores(torch.cat([net(x) for x in images.double().split(8)]), targets)


class BatchStatisticsWithoutBatchSize(BatchStatistics):
    more_flags = ()
    refused = "--batch_size"


class TrainAndTest(Images):
    """Both parts of the data."""

    more_flags = ("--eval_set", "both")
    paths = ("command",)
    net = Cnn.net

    def data(split):
        seed = {"train": 0, "test": 5}[split]
        return numbers(24, 3, 8, 8, seed=seed), labels(24, classes=4, seed=seed)

    def loop(net, data):
        results = {}
        for split in ("train", "test"):
            images, targets = TrainAndTest.data(split)
            results[f"{split}_loss"] = F.cross_entropy(net(images.double()), targets)
        return results


# ---------------------------------------------------------------- weights


class TiedAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(torch.tanh(self.encoder(x)))


class TiedWeights(Case):
    """One weight under two names."""

    loss_name = "torch.nn:MSELoss"

    def net():
        return TiedAutoencoder()

    def data(split):
        return numbers(20, 6), numbers(20, 6)

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        return {"train_loss": F.mse_loss(net(inputs), targets)}


class HalfPrecision(Case):
    """bfloat16 weights, which stay that; the loop of the user's runs in bfloat16 too."""

    own_precision = True
    tolerance = corner_tolerance = 2e-3

    def net():
        return perceptron().bfloat16()

    def data(split):
        return numbers(20, 6), labels(20, classes=4)

    def loop(net, data):
        inputs, targets = data
        return {"train_loss": F.cross_entropy(net(inputs.bfloat16()).float(), targets)}


class DoublePrecision(Case):
    """float64 weights, and arrays of NumPy with small integers as labels."""

    def net():
        return perceptron().double()

    def data(split):
        return numbers(20, 6).double().numpy(), labels(20, classes=4).numpy().astype("uint8")

    def loop(net, data):
        inputs, targets = data
        return scores(net(torch.from_numpy(inputs)), torch.from_numpy(targets).long())


class FourierLayers(nn.Module):
    """A small Fourier neural operator: complex weights for the lowest modes."""

    def __init__(self):
        super().__init__()
        self.lift, self.project = nn.Linear(1, 4), nn.Linear(4, 1)
        self.spectrum = nn.Parameter(0.5 * torch.randn(4, 4, 5, dtype=torch.cfloat))

    def forward(self, x):
        x = self.lift(x).transpose(1, 2)  # (B, 4, N)
        modes = torch.fft.rfft(x)[:, :, :5]
        x = x + torch.fft.irfft(torch.einsum("bik,iok->bok", modes, self.spectrum), n=x.shape[-1])
        return self.project(torch.tanh(x).transpose(1, 2))


class ComplexWeights(Case):
    loss_name = "torch.nn:MSELoss"

    def net():
        return FourierLayers()

    def data(split):
        return numbers(12, 16, 1), numbers(12, 16, 1, seed=1)

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        return {"train_loss": (net(inputs) - targets).square().mean()}


class OnlyBiases(Case):
    """Nothing moves with --xignore biasbn."""

    refused = "two or more dimensions"

    def net():
        class Shift(nn.Module):
            def __init__(self):
                super().__init__()
                self.shift = nn.Parameter(torch.randn(4))

            def forward(self, x):
                return x + self.shift

        return Shift()

    def data(split):
        return numbers(20, 4), labels(20, classes=4)


class SeedsItself(Case):
    """A network that seeds the generator while it is built, and comes with its weights."""

    has_file = False
    paths = (*Case.paths, "repeated")

    def net():
        torch.manual_seed(0)
        return perceptron()

    def data(split):
        return numbers(20, 6), labels(20, classes=4)

    def loop(net, data):
        inputs, targets = data
        return scores(net(inputs.double()), targets)


class LazyLayers(Case):
    """Weights that do not exist before the first pass."""

    paths = ("command", "streamed")
    has_file = False
    refused = "azy"

    def net():
        return nn.Sequential(nn.LazyLinear(16), nn.Tanh(), nn.LazyLinear(4))

    def data(split):
        return numbers(20, 6), labels(20, classes=4)


class OwnLinear(nn.Module):
    """A linear layer whose weight may be of any kind."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        if self.weight.is_sparse:
            return self.head(torch.sparse.mm(self.weight, x.T).T)
        return self.head(x @ (0.02 * self.weight.float()).T)


class IntegerWeights(Case):
    """Weights in 8 bits, which can't be moved by a fraction."""

    paths = ("command", "streamed")
    has_file = False
    refused = "int8"

    def net():
        return OwnLinear(torch.randint(-100, 100, (4, 6), dtype=torch.int8))

    def data(split):
        return numbers(20, 6), labels(20, classes=4)


class SparseWeights(IntegerWeights):
    refused = "sparse"

    def net():
        return OwnLinear(torch.randn(4, 6).relu().to_sparse())


class BoundedEmbedding(Case):
    """nn.Embedding(max_norm=...) changes its weights while it is called."""

    def net():
        return nn.Sequential(nn.Embedding(11, 6, max_norm=1.5), nn.Flatten(), nn.Linear(30, 4))

    def data(split):
        return labels(20, 5, classes=11), labels(20, classes=4)

    def loop(net, data):
        words, targets = data
        return scores(net(words), targets)


class ForcesByAutograd(Case):
    """The output is a derivative: gradients are needed while the network is called."""

    loss_name = "torch.nn:MSELoss"

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = perceptron(3, 1)

            def forward(self, x):
                with torch.enable_grad():
                    x = x.detach().requires_grad_()
                    energy = self.layers(x).sum()
                    return -torch.autograd.grad(energy, x)[0]

        return Net()

    def data(split):
        return numbers(20, 3), numbers(20, 3, seed=1)

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        return {"train_loss": F.mse_loss(net(inputs), targets)}


class Recurrent(Case):
    """A recurrent layer, which keeps a list of its weights."""

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.gru, self.head = nn.GRU(3, 6, num_layers=2, batch_first=True), nn.Linear(6, 4)

            def forward(self, x):
                return self.head(self.gru(x)[0][:, -1])

        return Net()

    def data(split):
        return numbers(20, 5, 3), labels(20, classes=4)

    def loop(net, data):
        inputs, targets = data
        return scores(net(inputs.double()), targets)


class TransformerLayers(Case):
    """torch's own encoder, which has a fast path in eval mode; two outputs, logits first."""

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
                self.layers, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 4)

            def forward(self, x):
                hidden = self.layers(x)
                return self.head(hidden.mean(1)), hidden

        return Net()

    def data(split):
        return numbers(20, 5, 8), labels(20, classes=4)

    def loop(net, data):
        inputs, targets = data
        return scores(net(inputs.double())[0], targets)


# ---------------------------------------------------------------- losses of numbers


class Regression(Case):
    """Outputs (N, 1) and targets (N, 1)."""

    loss_name = "torch.nn:MSELoss"

    def net():
        return perceptron(outputs=1)

    def data(split):
        return numbers(20, 6), numbers(20, 1, seed=1)

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        return {"train_loss": F.mse_loss(net(inputs), targets)}


class MseOfNumbers(Regression):
    """--loss_name mse of targets that are numbers."""

    loss_name = "mse"


class MseOfClasses(Case):
    """--loss_name mse of classes is the original's: softmax against one-hot labels."""

    loss_name = "mse"

    def net():
        return perceptron()

    def data(split):
        return numbers(20, 6), labels(20, classes=4)

    def loop(net, data):
        inputs, targets = data
        one_hot = F.one_hot(targets, 4).double()
        return {"train_loss": (net(inputs.double()).softmax(1) - one_hot).square().mean()}


class SmoothL1(Regression):
    loss_name = "torch.nn:SmoothL1Loss"

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        return {"train_loss": F.smooth_l1_loss(net(inputs), targets)}


class Broadcast(Regression):
    """Outputs (N, 1) and targets (N,): PyTorch compares each with each."""

    refused = r"\(\d+, 1\).*\(\d+,\)"

    def data(split):
        return numbers(20, 6), numbers(20, seed=1)


class BroadcastMse(Broadcast):
    loss_name = "mse"


class BroadcastSmoothL1(Broadcast):
    loss_name = "torch.nn:SmoothL1Loss"


class BroadcastInOwnLoss(Broadcast):
    """The same in a loss of the user's own."""

    loss_name = ""

    def loss(output, targets):
        return (output - targets).abs()


class BroadcastInOwnMean(Broadcast):
    loss_name = ""

    def loss(output, targets):
        return (output - targets).abs().mean()


class OwnLossPerSample(Regression):
    """The README's example: targets (N,), one number per sample."""

    loss_name = ""

    def data(split):
        return numbers(20, 6), numbers(20, seed=1)

    def loss(output, targets):
        return (output[:, 0] - targets).abs()

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        return {"train_loss": (net(inputs)[:, 0] - targets).abs().mean()}


class OwnLossMean(Regression):
    """The mean of the batch."""

    loss_name = ""

    def loss(output, targets):
        return (output - targets).abs().mean()

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        return {"train_loss": (net(inputs) - targets).abs().mean()}


class OwnMetric(Regression):
    """A metric of the user's beside the loss."""

    def metric(output, targets):
        return (output - targets).abs()

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        error = net(inputs) - targets
        return {"train_loss": error.square().mean(), "train_OwnMetric.metric": error.abs().mean()}


class NoiseInTheMetric(Regression):
    refused = "noise_seed|random|two passes"

    def metric(output, targets):
        return (output + 0.1 * torch.randn_like(output) - targets).abs()


class NegativeLoss(Regression):
    """A log-likelihood, which is below zero."""

    loss_name = ""

    def loss(output, targets):
        variance = torch.full_like(output, 1e-3)
        return F.gaussian_nll_loss(output, targets, variance, reduction="none") - 1000

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        squares = (net(inputs) - targets).square()
        return {"train_loss": 0.5 * (squares / 1e-3 + math.log(1e-3)).mean() - 1000}


class Squeezed(Regression):
    """`squeeze()` makes a number of a batch of one."""

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = perceptron(outputs=1)

            def forward(self, x):
                return self.layers(x).squeeze()

        return Net()

    def data(split):
        return numbers(21, 6), numbers(21, seed=1)


class SumOverTheBatch(Regression):
    loss_name = ""
    loss = nn.MSELoss(reduction="sum")
    refused = "sum"


class NoiseInTheLoss(Regression):
    loss_name = ""
    refused = "noise_seed|random|two passes"

    def loss(output, targets):
        return (output + 0.1 * torch.randn_like(output) - targets).square()


# ---------------------------------------------------------------- losses of classes


class Classes(Case):
    """21 samples of four classes that are not equally frequent."""

    def net():
        return perceptron()

    def data(split):
        return numbers(21, 6), labels(21, classes=4) * labels(21, classes=2, seed=2)


WEIGHTS = torch.tensor([0.1, 1.0, 3.0, 0.5])


class WeightedClasses(Classes):
    """A criterion with class weights: a weighted mean over the whole set, whatever the batches."""

    loss = nn.CrossEntropyLoss(weight=WEIGHTS)

    def loop(net, data):
        inputs, targets = data
        logits = net(inputs.double())
        return {"train_loss": F.cross_entropy(logits, targets, weight=WEIGHTS.double())}


class WeightedInOwnFunction(Classes):
    """The same in a function: its means over batches are not the mean over the set."""

    refused = "--batch_size"

    def loss(output, targets):
        return F.cross_entropy(output, targets, weight=WEIGHTS)


class FocalLoss(nn.Module):
    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, output, targets):
        losses = F.cross_entropy(output, targets, reduction="none")
        return ((1 - (-losses).exp()) ** self.gamma * losses).mean()


class OwnCriterion(Classes):
    """A class of the user's."""

    loss = FocalLoss

    def loop(net, data):
        inputs, targets = data
        return {"train_loss": FocalLoss()(net(inputs.double()), targets)}


class LabelSmoothing(Classes):
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)

    def loop(net, data):
        inputs, targets = data
        return {"train_loss": F.cross_entropy(net(inputs.double()), targets, label_smoothing=0.1)}


class IgnoredLabels(Classes):
    """Label 255 does not count, nor does its sample."""

    loss = nn.CrossEntropyLoss(ignore_index=255)

    def data(split):
        inputs, targets = Classes.data(split)
        targets[::5] = 255
        return inputs, targets

    def loop(net, data):
        inputs, targets = data
        counted = targets != 255
        return scores(net(inputs.double())[counted], targets[counted])


class IgnoredByDefault(Classes):
    """Label -100 does not count in PyTorch's cross entropy."""

    def data(split):
        inputs, targets = Classes.data(split)
        targets[::5] = -100
        return inputs, targets

    def loop(net, data):
        inputs, targets = data
        counted = targets != -100
        return scores(net(inputs.double())[counted], targets[counted])


class Label255(Classes):
    """255 without a word about it: no class of the network's."""

    refused = "255"

    def data(split):
        inputs, targets = Classes.data(split)
        targets[::5] = 255
        return inputs, targets


class MultiLabel(Classes):
    """Several labels at once: a row of 0 and 1."""

    loss_name = "torch.nn:BCEWithLogitsLoss"

    def data(split):
        return numbers(21, 6), labels(21, 4, classes=2).float()

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        return {"train_loss": F.binary_cross_entropy_with_logits(net(inputs), targets)}


class MultiLabelByDefault(MultiLabel):
    """Rows with several ones are no classes: cross entropy is not what the user means."""

    loss_name = ""
    refused = "BCEWithLogits"


class OneHotLabels(Classes):
    """One-hot rows of floats are probabilities for PyTorch's cross entropy."""

    def data(split):
        inputs, targets = Classes.data(split)
        return inputs, F.one_hot(targets, 4).float()

    def loop(net, data):
        inputs, targets = data
        return {"train_loss": F.cross_entropy(net(inputs.double()), targets.double())}


class OneHotIntegers(Classes):
    """PyTorch's cross entropy takes one-hot rows as floats only."""

    refused = "one-hot"

    def data(split):
        inputs, targets = Classes.data(split)
        return inputs, F.one_hot(targets, 4)


class FloatLabels(Classes):
    """Classes as floats."""

    refused = "float"

    def data(split):
        inputs, targets = Classes.data(split)
        return inputs, targets.float()


class OneLogit(Classes):
    """Two classes and one output: cross entropy of one class is always 0."""

    refused = "BCEWithLogits"

    def net():
        return perceptron(outputs=1)

    def data(split):
        inputs, targets = Classes.data(split)
        return inputs, targets.clamp(max=1)


class LabelsInAColumn(Classes):
    """Labels of shape (N, 1): PyTorch's cross entropy fails on them."""

    refused = r"\(\d+, 1\)"

    def data(split):
        inputs, targets = Classes.data(split)
        return inputs, targets[:, None]


class Segmentation(Case):
    """{"out": logits} for every pixel, as torchvision's networks give it; 255 does not count."""

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv1, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
                self.conv2 = nn.Conv2d(8, 4, 1)

            def forward(self, x):
                return {"out": self.conv2(F.relu(self.bn(self.conv1(x))))}

        return Net()

    def data(split):
        targets = labels(7, 8, 8, classes=4)
        targets[labels(7, 8, 8, classes=5, seed=2) == 0] = 255
        targets[5, :6] = 255
        return numbers(7, 3, 8, 8), targets


class SegmentationInBatches(Segmentation):
    """A mean over the counted pixels of a batch: the batches are part of the loss."""

    more_flags = ("--batch_size", "4")

    def loss(output, targets):
        return F.cross_entropy(output["out"], targets, ignore_index=255)

    def loop(net, data):
        images, targets = data
        losses = [
            len(y) * F.cross_entropy(net(x.double())["out"], y, ignore_index=255)
            for x, y in zip(images.split(4), targets.split(4), strict=True)]
        return {"train_loss": sum(losses) / len(images)}


class SegmentationWithoutBatchSize(SegmentationInBatches):
    more_flags = ()
    refused = "--batch_size"


class SegmentationByPixel(Segmentation):
    """The mean over the counted pixels of each image: one number per sample."""

    def loss(output, targets):
        losses = F.cross_entropy(output["out"], targets, ignore_index=255, reduction="none")
        return losses.sum((1, 2)) / (targets != 255).sum((1, 2))

    def loop(net, data):
        images, targets = data
        logits = net(images.double())["out"]
        losses = [
            F.cross_entropy(logits[i:i + 1], targets[i:i + 1], ignore_index=255)
            for i in range(len(images))]
        return {"train_loss": torch.stack(losses).mean()}


class Contrastive(Case):
    """Each sample against all others of its batch: a loss of whole batches."""

    more_flags = ("--batch_size", "8")

    def net():
        return perceptron()

    def data(split):
        return numbers(20, 6), labels(20, classes=3)

    def loss(output, targets):
        embeddings = F.normalize(output)
        itself = torch.eye(len(output), dtype=torch.bool, device=output.device)
        similarity = (embeddings @ embeddings.T / 0.5).masked_fill(itself, -1e9)
        same = (targets[:, None] == targets) & ~itself
        return -(similarity.log_softmax(1) * same).sum() / same.sum().clamp(min=1)

    def loop(net, data):
        inputs, targets = data
        total = 0.0
        for x, y in zip(inputs.double().split(8), targets.split(8), strict=True):
            total += len(x) * Contrastive.loss(net(x), y)
        return {"train_loss": total / len(inputs)}


class ContrastiveWithoutBatchSize(Contrastive):
    more_flags = ()
    refused = "--batch_size"


# ---------------------------------------------------------------- randomness


class DropoutLeftOn(Classes):
    """F.dropout(x) is on in eval mode too."""

    refused = "two passes"

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = perceptron()

            def forward(self, x):
                return self.layers(F.dropout(x))

        return Net()


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x):
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        noise = torch.randn(mean.shape).to(mean)  # float32, also where the weights are float64
        return self.decoder(mean + noise * (log_variance / 2).exp()), mean, log_variance


class NoiseInTheNetwork(Case):
    """A variational autoencoder draws noise in eval mode too."""

    refused = "noise_seed"

    def net():
        return Vae()

    def data(split):
        return numbers(20, 6), numbers(20, 6)

    def loss(output, targets):
        decoded, mean, log_variance = output
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
        return (decoded - targets).square().sum(1) + divergence


class NoiseWithSeed(NoiseInTheNetwork):
    """--noise_seed: the same noise at every point."""

    refused = ""
    more_flags = ("--noise_seed", "3", "--batch_size", "20")

    def loop(net, data):
        inputs, targets = (tensor.double() for tensor in data)
        torch.manual_seed(3)
        return {"train_loss": NoiseWithSeed.loss(net(inputs), targets).mean()}


# ---------------------------------------------------------------- language


class TinyLanguageModel(nn.Module):
    """The convention of transformers: with labels it returns a loss, shifted, without -100."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11)

    def forward(self, input_ids, attention_mask=None, labels=None):
        x = self.embed(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        x = torch.tanh(self.mix(x.cumsum(1)))
        result = {"logits": self.head(x)}  # (B, length, words)
        if labels is not None:
            shifted = result["logits"][:, :-1].flatten(0, 1)
            result["loss"] = F.cross_entropy(shifted, labels[:, 1:].flatten())
        return result


def texts(padded=True, words=11):
    """A batch as collators make it: labels are the words, or -100 where there is padding."""
    words = labels(10, 7, classes=words - 1) + 1
    batch = {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": words.clone()}
    if padded:
        for row in range(0, 10, 2):
            end = 3 + row // 3
            batch["input_ids"][row, end:], batch["attention_mask"][row, end:] = 0, 0
            batch["labels"][row, end:] = -100
    return batch


def scores_of_next_word(net, batch):
    """The loss that the network returns, and the accuracy of all words that count, in percent."""
    result = net(**batch)
    targets = batch["labels"][:, 1:]
    hits = result["logits"][:, :-1].argmax(2) == targets
    return {"train_loss": result["loss"], "train_acc": 100 * hits[targets != -100].double().mean()}


class LanguageModel(Case):
    """labels = input_ids: the network shifts them, and returns the loss that the user means."""

    def net():
        return TinyLanguageModel()

    def data(split):
        return [texts(padded=False)]

    def loop(net, data):
        return scores_of_next_word(net, data[0])


class PaddedLanguageModel(LanguageModel):
    """Texts of several lengths in three batches: the mean is over all words that count."""

    def data(split):
        batch = texts()
        return [
            {key: value[rows] for key, value in batch.items()}
            for rows in (slice(4), slice(4, 8), slice(8, 10))]

    def loop(net, data):
        return scores_of_next_word(net, texts())


class RegularizedLanguageModel(LanguageModel):
    """A loss that no formula of this program gives: cross entropy and a penalty."""

    def net():
        class Net(TinyLanguageModel):
            def forward(self, input_ids, attention_mask=None, labels=None):
                result = super().forward(input_ids, attention_mask, labels)
                if labels is not None:
                    result["loss"] = result["loss"] + 0.1 * self.mix.weight.square().mean()
                return result

        return Net()


class NanoGpt(LanguageModel):
    """nanoGPT's convention: targets that are shifted already, and (logits, loss)."""

    def net():
        class Net(TinyLanguageModel):
            def forward(self, idx, targets=None):
                logits = super().forward(idx)["logits"]
                if targets is None:
                    return logits[:, [-1]], None
                return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

        return Net()

    def data(split):
        words = texts(padded=False)["input_ids"]
        return [{"idx": words[:, :-1], "targets": words[:, 1:]}]

    def loop(net, data):
        return {"train_loss": net(**data[0])[1]}


class NanoGptInPairs(NanoGpt):
    """The same in pairs: called without targets it gives the last word only."""

    def data(split):
        words = texts(padded=False)["input_ids"]
        return words[:, :-1], words[:, 1:]

    def loop(net, data):
        return {"train_loss": net(*data)[1]}


class Transformers(Case):
    """Tiny networks of the library, with random weights."""

    needs = ("transformers",)

    def data(split):
        return [texts()]

    def loop(net, data):
        return {"train_loss": net(**data[0]).loss}


class Gpt2(Transformers):
    def net():
        from transformers import GPT2Config, GPT2LMHeadModel

        return GPT2LMHeadModel(GPT2Config(
            vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2, bos_token_id=1,
            eos_token_id=2))



class Llama(Transformers):
    """Its norms and rotations are float32 whatever the weights are."""

    def net():
        from transformers import LlamaConfig, LlamaForCausalLM

        return LlamaForCausalLM(LlamaConfig(
            vocab_size=11, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2))



class BertClassifier(Transformers):
    def net():
        from transformers import BertConfig, BertForSequenceClassification

        return BertForSequenceClassification(BertConfig(
            vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=8, num_labels=3))

    def data(split):
        batch = texts() | {"labels": labels(10, classes=3)}
        examples = [{key: value[i] for key, value in batch.items()} for i in range(10)]
        return DataLoader(examples, batch_size=4)

    def loop(net, data):
        return scores_of((net(**batch).logits, batch["labels"]) for batch in data)


class BertMaskedWords(Transformers):
    """Labels where words are masked, -100 elsewhere, and nothing is shifted."""

    def net():
        from transformers import BertConfig, BertForMaskedLM

        return BertForMaskedLM(BertConfig(
            vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=8))

    def data(split):
        batch = texts()
        masked = labels(10, 7, classes=3, seed=4) == 0
        return [batch | {"labels": batch["labels"].where(masked, -100)}]


class BertRegression(Transformers):
    """One output and numbers: the network's own loss is the mean squared error."""

    def net():
        from transformers import BertConfig, BertForSequenceClassification

        return BertForSequenceClassification(BertConfig(
            vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=8, num_labels=1))

    def data(split):
        return [texts() | {"labels": numbers(10)}]


class BertMultiLabel(Transformers):
    """Several labels at once: the network's own loss is binary cross entropy."""

    def net():
        from transformers import BertConfig, BertForSequenceClassification

        return BertForSequenceClassification(BertConfig(
            vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=8, num_labels=3,
            problem_type="multi_label_classification"))

    def data(split):
        return [texts() | {"labels": labels(10, 3, classes=2).float()}]


class T5(Transformers):
    """An encoder-decoder network, which makes the decoder's input out of the labels."""

    def net():
        from transformers import T5Config, T5ForConditionalGeneration

        return T5ForConditionalGeneration(T5Config(
            vocab_size=11, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2,
            decoder_start_token_id=0))

    def data(split):
        targets = labels(10, 4, classes=10, seed=3) + 1
        targets[::3, 2:] = -100
        return [texts() | {"labels": targets}]


class Lora(Transformers):
    """peft's adapters, which move alone."""

    needs = ("transformers", "peft")
    more_flags = ("--params", "lora")

    def net():
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True)
        return get_peft_model(Gpt2.net(), config)



# ---------------------------------------------------------------- libraries of networks for images


class TimmResNet(Images):
    needs = ("timm",)
    paths = ("command", "unfolded")
    grid = ("0:0.5:2", "0:1:2")

    def net():
        import timm

        return timm.create_model("test_resnet", pretrained=False, num_classes=4)

    def data(split):
        return numbers(6, 3, 32, 32), labels(6, classes=4)


class TimmVit(TimmResNet):
    paths = ("command", "interface")

    def net():
        import timm

        return timm.create_model("test_vit", pretrained=False, num_classes=4, img_size=32)


class TorchvisionResNet(Images):
    needs = ("torchvision",)
    paths = ("command",)
    grid = ("0:1:3", "0:1:1")

    def net():
        from torchvision.models import resnet18

        return resnet18(num_classes=4)

    def data(split):
        return numbers(4, 3, 32, 32), labels(4, classes=4)


class TorchvisionSegmentation(Images):
    needs = ("torchvision",)
    paths = ("command", "interface")
    grid = ("0:1:3", "0:1:1")

    def net():
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large

        return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)

    def data(split):
        return numbers(3, 3, 32, 32), labels(3, 32, 32, classes=4)

    def loss(output, targets):
        return F.cross_entropy(output["out"], targets, reduction="none").mean((1, 2))

    def loop(net, data):
        images, targets = data
        return {"train_loss": F.cross_entropy(net(images.double())["out"], targets)}


class TorchvisionDetection(Images):
    """In eval mode a detector gives a list of boxes; the loss of the user's reads their scores."""

    needs = ("torchvision",)

    def net():
        from torchvision.models.detection import RetinaNet
        from torchvision.models.detection.anchor_utils import AnchorGenerator

        backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU())
        backbone.out_channels = 8
        return RetinaNet(
            backbone, num_classes=3, anchor_generator=AnchorGenerator(((8,),), ((1.0,),)),
            min_size=16, max_size=16, score_thresh=0.0, nms_thresh=1.0, detections_per_img=20)

    def data(split):
        return numbers(4, 3, 16, 16).sigmoid(), labels(4, classes=3)

    def loss(output, targets):
        return -torch.stack([boxes["scores"].log().mean() for boxes in output])

    def loop(net, data):
        images, targets = data
        boxes = net(list(images.double()))
        return {"train_loss": TorchvisionDetection.loss(boxes, targets).mean()}


# ---------------------------------------------------------------- forms of data


class Examples(Dataset):
    """30 examples, one after the other."""

    inputs, targets = numbers(30, 6), labels(30, classes=4)

    def __len__(self):
        return 30

    def __getitem__(self, i):
        return self.inputs[i], int(self.targets[i])


class Loader(Case):
    """What the loader yields is what counts."""

    def net():
        return perceptron()

    def data(split):
        return DataLoader(Examples(), batch_size=8)

    def loop(net, data):
        return scores_of((net(x.double()), y) for x, y in data)


class ShuffledLoader(Loader):
    """The order is of no account, so it is not refused."""

    def data(split):
        return DataLoader(Examples(), batch_size=8, shuffle=True)


class Sampler(Loader):
    """20 of 30 examples, as for a split into training and validation."""

    def data(split):
        sampler = SubsetRandomSampler([i for i in range(30) if i % 3])
        return DataLoader(Examples(), batch_size=8, sampler=sampler)


class RandomDraws(Loader):
    """Other samples at every pass."""

    refused = "WeightedRandomSampler"

    def data(split):
        sampler = WeightedRandomSampler([1.0, 2.0] * 15, num_samples=20)
        return DataLoader(Examples(), batch_size=8, sampler=sampler)


class ShuffledDropLast(Loader):
    """Other samples are dropped at every pass."""

    refused = "drop_last"

    def data(split):
        return DataLoader(Examples(), batch_size=8, shuffle=True, drop_last=True)


class LoaderOfBatches(Loader):
    """A data set whose items are batches already."""

    def data(split):
        batches = [(numbers(size, 6, seed=size), labels(size, classes=4)) for size in (4, 7, 3)]
        return DataLoader(batches, batch_size=None)


class BatchSampler(Loader):
    """Batches of a sampler of the user's: other sizes, and not all examples."""

    def data(split):
        return DataLoader(Examples(), batch_sampler=[[0, 1, 2], [7, 5], [9, 11, 12, 29]])


class DropLast(Loader):
    """24 of 30 examples."""

    def data(split):
        return DataLoader(Examples(), batch_size=8, drop_last=True)


class DictBatches(Loader):
    """A dict with the names of the network's arguments, and labels."""

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.left, self.right = nn.Linear(6, 4), nn.Linear(6, 4)

            def forward(self, first, second):
                return self.left(first) * self.right(second)

        return Net()

    def data(split):
        examples = [{"first": x, "second": x.flip(0), "labels": y} for x, y in Examples()]
        return DataLoader(examples, batch_size=8)

    def loop(net, data):
        logits, targets = [], []
        for batch in data:
            targets.append(batch.pop("labels"))
            logits.append(net(**{key: value.double() for key, value in batch.items()}))
        return scores(torch.cat(logits), torch.cat(targets))


class OwnCollation(Loader):
    """A list of examples whose collate_fn changes them."""

    def data(split):
        return DataLoader(list(Examples()), batch_size=8, collate_fn=OwnCollation.collate)

    def collate(examples):
        inputs, targets = zip(*examples, strict=True)
        return 2 * torch.stack(inputs) - 1, torch.tensor(targets)


class Padding(Loader):
    """Sequences padded to the longest of their batch, in a network that sees the padding."""

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 4)

            def forward(self, words):
                return self.head(torch.tanh(self.embed(words).mean(1)))

        return Net()

    def data(split):
        sequences = [(labels(3 + 5 * i % 7, classes=10, seed=i) + 1, i % 4) for i in range(20)]
        return DataLoader(sequences, batch_size=6, collate_fn=Padding.collate)

    def collate(examples):
        sequences, targets = zip(*examples, strict=True)
        return nn.utils.rnn.pad_sequence(sequences, batch_first=True), torch.tensor(targets)

    def loop(net, data):
        return scores_of((net(words), targets) for words, targets in data)


class PaddingWithSampler(Padding):
    """The same with every second sequence, from the longest to the shortest, as buckets do it."""

    def data(split):
        loader = Padding.data(split)
        order = sorted(range(0, 20, 2), key=lambda i: -len(loader.dataset[i][0]))
        return DataLoader(loader.dataset, batch_size=4, sampler=order, collate_fn=Padding.collate)


class RandomAugmentation(Loader):
    refused = "augmentation"

    def data(split):
        class Augmented(Examples):
            def __getitem__(self, i):
                inputs, target = super().__getitem__(i)
                return inputs + 0.1 * torch.randn(6), target

        return Augmented()


class MaskedPadding(Padding):
    """Shuffled and padded, in a network that does not see the padding."""

    def net():
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 4)

            def forward(self, words):
                mask = (words > 0)[..., None].to(self.head.weight.dtype)
                mean = (self.embed(words) * mask).sum(1) / mask.sum(1)
                return self.head(torch.tanh(mean))

        return Net()

    def data(split):
        dataset = Padding.data(split).dataset
        return DataLoader(dataset, batch_size=6, shuffle=True, collate_fn=Padding.collate)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Examples())


class Streamed(Loader):
    """Examples without numbers, one after the other."""

    def data(split):
        return DataLoader(Stream(), batch_size=7)


class Graphs(Case):
    """Graphs of PyTorch Geometric: nodes, edges and the graph of each node in one batch."""

    needs = ("torch_geometric",)

    def net():
        from torch_geometric.nn import GCNConv, global_mean_pool

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.head = GCNConv(5, 8), nn.Linear(8, 3)

            def forward(self, batch):
                x = torch.tanh(self.conv(batch.x, batch.edge_index))
                return self.head(global_mean_pool(x, batch.batch))

        return Net()

    def data(split):
        from torch_geometric.data import Data
        from torch_geometric.loader import DataLoader as GraphLoader

        graphs = []
        for i in range(9):
            nodes = 3 + i % 4
            ring = torch.arange(nodes)
            ends = ring.roll(1)
            edges = torch.stack([torch.cat([ring, ends]), torch.cat([ends, ring])])
            features, label = numbers(nodes, 5, seed=i), torch.tensor([i % 3])
            graphs.append(Data(x=features, edge_index=edges, y=label))
        return GraphLoader(graphs, batch_size=4)

    def loop(net, data):
        logits, targets = [], []
        for batch in data:
            batch.x = batch.x.double()
            logits.append(net(batch))
            targets.append(batch.y)
        return scores(torch.cat(logits), torch.cat(targets))
