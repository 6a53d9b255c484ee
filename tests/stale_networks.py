"""Networks whose loss is easily wrong away from where they were when they were prepared.

Each has a convolution and batch norm before what is special about it, so that there is something to
fold. FOLLOWING do what a plain loop does; KEEPING keep something between two passes. Inputs are
(N, 3, 8, 8), outputs (N, 4).
"""

import torch
from torch import nn
from torch.ao.nn.qat import Conv2d as QuantizedConv2d
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torchvision.ops import FrozenBatchNorm2d


class Base(nn.Module):
    """Convolution, batch norm, ReLU, `special`, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.linear = nn.Linear(4, 4)
        self.w = nn.Parameter(torch.rand(1, 4, 1, 1) + 0.5)
        self.alpha = nn.Parameter(torch.rand(()) - 0.5)
        self.register_buffer("scale", torch.rand(1, 4, 1, 1) + 0.5)
        self.bn.running_mean.normal_(0, 0.3)
        self.bn.running_var.uniform_(0.5, 2)

    def special(self, x):
        return x

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = torch.relu(self.middle(self.special(x)))
        return self.linear(10 * x.mean((2, 3)))


# ---------------------------------------------------------------- tensors past the attributes


class NamedParameters(Base):
    def special(self, x):
        return x * (dict(self.named_parameters())["w"] * 2)


class ParameterList(Base):
    def special(self, x):
        weights = [p for p in self.parameters() if p.dim() == 4 and p.shape[0] == 1]
        return x * weights[0].abs()


class TensorInDict(Base):
    def __init__(self):
        super().__init__()
        self.tensors = {"w": self.w.data}

    def special(self, x):
        return x * self.tensors["w"]


class TensorInList(Base):
    """Of the whole weight of a convolution, which channels-last memory would move."""

    def __init__(self):
        super().__init__()
        self.tensors = [self.middle.weight.data]

    def special(self, x):
        return nn.functional.conv2d(x, self.tensors[0], padding=1)


class Alias(Base):
    def __init__(self):
        super().__init__()
        self.w2 = self.w.data

    def special(self, x):
        return x * self.w2


class BufferAlone(Base):
    def special(self, x):
        return x * (self.scale.square() + 1)


# ---------------------------------------------------------------- numbers and branches


class NumberOfParameter(Base):
    def special(self, x):
        return x * float(self.alpha)


class NumberOfListedParameter(Base):
    def special(self, x):
        return x * dict(self.named_parameters())["alpha"].item()


class NumberOfBuffer(Base):
    def special(self, x):
        return x * self.scale.sum().item()


class NumpyOfBuffer(Base):
    def special(self, x):
        return x * float(self.scale.numpy().sum())


class Branch(Base):
    def special(self, x):
        if self.alpha > 0:
            return x * 2
        return x


class HiddenBranch(Base):
    def special(self, x):
        if dict(self.named_parameters())["alpha"] > 0:
            return x * 2
        return x


# ---------------------------------------------------------------- weights that are derived


class WeightNorm(Base):
    def __init__(self):
        super().__init__()
        self.conv = weight_norm(self.conv)


class WeightParametrization(Base):
    def __init__(self):
        super().__init__()
        self.conv = parametrizations.weight_norm(self.conv)


class SpectralNorm(Base):
    def __init__(self):
        super().__init__()
        self.conv = spectral_norm(self.conv)


class SpectralParametrization(Base):
    def __init__(self):
        super().__init__()
        self.middle = parametrizations.spectral_norm(self.middle)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class OwnParametrization(Base):
    def __init__(self):
        super().__init__()
        parametrize.register_parametrization(self.conv, "weight", Doubled())
        parametrize.register_parametrization(self.bn, "weight", Doubled())


class Pruned(Base):
    def __init__(self):
        super().__init__()
        prune.l1_unstructured(self.conv, "weight", 0.5)


def derive_weight(module, _inputs):
    module.weight = module.base * 2


class DerivedBeforeForward(Base):
    """The weight is no parameter: a hook computes it before each pass."""

    def __init__(self):
        super().__init__()
        self.conv.base = nn.Parameter(self.conv.weight.data / 2)
        del self.conv.weight
        self.conv.weight = self.conv.base.data * 2
        self.conv.register_forward_pre_hook(derive_weight)


class Rounding(nn.Conv2d):
    def forward(self, x):
        step = self.weight.abs().max() / 7
        return self._conv_forward(x, (self.weight / step).round() * step, self.bias)


class Quantized(Base):
    def __init__(self):
        super().__init__()
        self.conv = Rounding(3, 4, 3, padding=1)


class QuantizedByTorch(Base):
    def __init__(self):
        super().__init__()
        self.conv = QuantizedConv2d(
            3, 4, 3, padding=1, qconfig=get_default_qat_qconfig("qnnpack"))
        self.conv.weight_fake_quant(self.conv.weight)  # sets the scale
        self.conv.weight_fake_quant.disable_observer()


class Frozen(Base):
    def __init__(self):
        super().__init__()
        self.norm = FrozenBatchNorm2d(4)
        self.norm.running_var.uniform_(0.5, 2)
        self.norm.weight.uniform_(0.5, 2)

    def special(self, x):
        return self.norm(x)


# ---------------------------------------------------------------- calls that do more


def clip(_module, _inputs, output):
    return output.clamp(max=0.1)


class HookedRelu(Base):
    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()
        self.relu.register_forward_hook(clip)

    def special(self, x):
        return self.relu(self.middle(x))


def halve(_module, inputs):
    return (inputs[0] / 2,)


class HookedNetwork(Base):
    def __init__(self):
        super().__init__()
        self.register_forward_pre_hook(halve)


class OwnCall(Base):
    def __call__(self, x):
        return super().__call__(x * self.alpha)


class OwnForwardOfLayer(Base):
    def __init__(self):
        super().__init__()
        self.conv.forward = lambda x: nn.Conv2d.forward(self.conv, x) * 2

    def __deepcopy__(self, memo):
        raise TypeError("the layer's forward would be that of the original")


class TrainedNorm(Base):
    """A batch norm that stays in train mode, without changing its statistics."""

    def __init__(self):
        super().__init__()
        self.bn.momentum = 0.0

    def train(self, mode=True):
        super().train(mode)
        self.bn.train()
        return self


class AutocastInside(Base):
    def special(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.middle(x).float()


class CastsToFloat(Base):
    """Can't run in float64."""

    def special(self, x):
        return self.middle(x.float())


FOLLOWING = [
    NamedParameters, ParameterList, TensorInDict, TensorInList, Alias, BufferAlone, NumberOfParameter,
    NumberOfListedParameter, NumberOfBuffer, NumpyOfBuffer, Branch, HiddenBranch, WeightNorm,
    WeightParametrization, SpectralNorm, SpectralParametrization, OwnParametrization, Pruned,
    DerivedBeforeForward, Quantized, QuantizedByTorch, Frozen, HookedRelu, HookedNetwork, OwnCall,
    OwnForwardOfLayer, TrainedNorm, AutocastInside, CastsToFloat]


# ---------------------------------------------------------------- what is kept between passes


class Cache(Base):
    def __init__(self):
        super().__init__()
        self.cache = None

    def special(self, x):
        if self.cache is None:
            self.cache = self.w.detach() * 2
        return x * self.cache


class CacheInBuffer(Base):
    """The weights are derived once, and kept in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("derived", torch.zeros(1, 4, 1, 1))
        self.ready = False

    def special(self, x):
        if not self.ready:
            self.derived.copy_(self.w.data.square())
            self.ready = True
        return x * self.derived


class FirstInput(Base):
    """What comes is compared with the first image that came."""

    def __init__(self):
        super().__init__()
        self.mean = None

    def forward(self, x):
        if self.mean is None:
            self.mean = 3 * x[:1]
        return super().forward(x - self.mean)


KEEPING = [Cache, CacheInBuffer, FirstInput]
