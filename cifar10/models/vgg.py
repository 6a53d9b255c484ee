"""The networks of losslandscape/networks/models/vgg.py, under the name that scripts know."""

from losslandscape.networks.models.vgg import *  # noqa: F403
