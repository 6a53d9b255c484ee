"""The networks of losslandscape/networks/models/densenet.py, under the name that scripts know."""

from losslandscape.networks.models.densenet import *  # noqa: F403
