"""What is said to the user when something can't be used: one line that says expected, got, what to do."""


class InputError(ValueError):
    """What the user gave can't be used. The message says what was expected, what came, and what to do."""
