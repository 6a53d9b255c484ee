"""The model zoo: `MODELS[name](num_classes=10)` makes a network for images (N, 3, H, W) with H, W >= 8.

Parameters are drawn from torch's global CPU stream in state-dict order with PyTorch's default initializers,
so the numbers that follow in the stream depend on the network; published random directions rely on that.
Every network is plain `nn` modules without data-dependent control flow (torch.fx can trace it), and takes
inputs in either memory format.
"""

from losslandscape.networks.models.densenet import DENSENETS
from losslandscape.networks.models.resnet import RESNETS
from losslandscape.networks.models.vgg import VGGS

MODELS = {**VGGS, **RESNETS, **DENSENETS}  # name -> constructor(num_classes=10)
