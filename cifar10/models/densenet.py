"""The networks of losslandscape/networks/models/densenet.py, under the names that scripts know."""

from losslandscape.networks.models.densenet import *  # noqa: F403
from losslandscape.networks.models.densenet import DenseLayer as Bottleneck  # noqa: F401
