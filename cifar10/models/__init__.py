"""The networks of the paper, under the names that scripts know: `from cifar10.models import MODELS`.

They are made in losslandscape/networks/models, where an installed program finds them whatever a user's folders are
called.
"""

from losslandscape.networks.models import MODELS

__all__ = ["MODELS"]
