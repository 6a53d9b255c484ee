"""What somebody else's exception says, in words that fit into a message of ours."""


def reason_of(error):
    """The message of an exception as one line of at most 200 characters, else its type."""
    words = " ".join(str(error).split())
    return words[:200] or type(error).__name__
