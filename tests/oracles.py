"""Small networks and data, and what is exactly true of them: in float64, in one batch, without tricks."""

import torch
from torch import nn

from losslandscape.data.splits import Split
from losslandscape.measuring.criteria import LOSSES, crossentropy
from losslandscape.networks.models import MODELS


def images(n, classes=10, size=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Split(torch.randn(n, 3, size, size, generator=g), torch.randint(classes, (n,), generator=g))


def with_random_statistics(name, seed=0):
    """A network of the zoo as training leaves it: batch norm with statistics and affine parameters of its own."""
    torch.manual_seed(seed)
    net = MODELS[name]().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    return net


def plain(net, split, loss=crossentropy, double=True):
    """The oracle: the network itself, one batch, in float64."""
    net = net.double() if double else net
    with torch.no_grad():
        logits = net(split.inputs.double() if double else split.inputs)
    return float(loss(logits, split.targets).mean()), float((logits.argmax(1) == split.targets).double().mean() * 100)


# ---------------------------------------------------------------- curvature


class Small(nn.Module):
    """Convolutions, batch norm with statistics of its own, a shortcut, a linear layer: 396 weights, 420 parameters."""

    def __init__(self, classes=4):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.linear = nn.Linear(4 * 9, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        return self.linear(nn.functional.max_pool2d(x, 2).flatten(1))


def small(dtype=torch.float64):
    torch.manual_seed(0)
    net = Small()
    for norm in (net.bn1, net.bn2):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(0, 0.3)
    return net.eval().to(dtype)


def samples(n=23, classes=4):
    g = torch.Generator().manual_seed(1)
    return Split(torch.randn(n, 3, 6, 6, generator=g), torch.randint(classes, (n,), generator=g))


def dense(net, split, loss_name="crossentropy", params="weights"):
    """The oracle: the Hessian (n, n) of the mean loss, one batch, float64, by torch.func."""
    named = dict(net.double().named_parameters())
    fixed = {name: p.detach() for name, p in named.items()}
    moved = {name: p.detach() for name, p in named.items() if params == "all" or p.dim() >= 2}

    def mean_loss(flat):
        parts = flat.split([p.numel() for p in moved.values()])
        values = {name: part.view(p.shape) for (name, p), part in zip(moved.items(), parts, strict=True)}
        logits = torch.func.functional_call(net, fixed | values, (split.inputs.double(),))
        return LOSSES[loss_name](logits, split.targets).mean()

    return torch.func.hessian(mean_loss)(torch.cat([p.reshape(-1) for p in moved.values()]))


def anywhere(n, seed=5):
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def symmetric(eigenvalues, seed=0):
    """A matrix with these eigenvalues in a random basis."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    n = len(values)
    q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]
    return q @ torch.diag(values) @ q.T


def times(matrix):
    return lambda v, idle: matrix @ v
