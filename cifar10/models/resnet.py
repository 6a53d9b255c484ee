"""The networks of losslandscape/networks/models/resnet.py, under the name that scripts know."""

from losslandscape.networks.models.resnet import *  # noqa: F403
