"""What is said to the user when something can't be used."""


class InputError(ValueError):
    """What the user gave can't be used.

    The message is one line: what was expected, what came, and what to do.
    """
