"""Until all import from losslandscape.criteria: a module of this name hides the function losslandscape.losses."""

from losslandscape.criteria import *  # noqa: F403
