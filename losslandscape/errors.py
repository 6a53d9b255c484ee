"""What is said to the user when something can't be used."""

import math

from losslandscape.messages import printable


class InputError(ValueError):
    """What the user gave can't be used.

    The message is one line: what was expected, what came, and what to do. Whatever file names and
    files have put into it, it is printable.
    """

    def __init__(self, message):
        super().__init__(printable(str(message), math.inf))
