"""Texts in figures: `$` from a file is a dollar, `$` that the user types is mathematics.

matplotlib reads what stands between two dollars as mathtext, and fails where it is none. It draws
control characters as boxes, and writes them into SVG files, which are then no XML.
"""

import math
import re

from losslandscape.messages import printable


def plain_text(text):
    """A text from a file, for matplotlib: one line, letter by letter."""
    return escaped(one_printable_line(text))


def typed_text(text):
    r"""A text that the user has typed, for matplotlib; `\n` ends a line.

    Lines with mathtext that does not parse are drawn letter by letter. A text of `plain_text` stays
    as it is.
    """
    lines = []
    for line in text.split("\n"):
        line = one_printable_line(line)
        dollars = line.count("$") - line.count(r"\$")  # as matplotlib counts them
        if dollars > 0 and not is_mathtext(line):
            line = escaped(line)
        lines.append(line)
    return "\n".join(lines)


def one_printable_line(text):
    """The text with spaces for line ends and other white space, '?' for what can't be shown."""
    return printable(re.sub(r"\s", " ", text), math.inf)


def escaped(text):
    """The text with dollars that are dollars."""
    return text.replace("$", r"\$")


def is_mathtext(line):
    """Whether matplotlib can read a line that holds dollars: they are even, and what is between."""
    from matplotlib.mathtext import MathTextParser

    dollars = line.count("$") - line.count(r"\$")
    if dollars % 2 == 1:
        return False
    try:
        MathTextParser("path").parse(line)
    except (ValueError, RecursionError):
        return False
    return True
