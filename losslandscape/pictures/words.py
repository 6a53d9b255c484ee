"""Words for figures: what values are called, what tells files apart, numbers of any size.

The names of values are those of surface files: train_loss, test_acc, max_eig, a user's own, and
of the summary of repeats (repeats.py) train_loss_low, train_loss_high and train_loss_iqr, of an
estimated surface train_loss_se.
"""

import os
import re

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.grid import ERRORS
from losslandscape.pictures.mathtext import escaped, one_printable_line, plain_text, typed_text

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
MINUS = "\N{MINUS SIGN}"
HEADING_LENGTH = 48  # letters of a title that fit over one column
LABEL_LENGTH = 32  # letters of a file's label

PERCENTAGES = {
    "train_acc": "train accuracy",
    "train_err": "train error",
    "test_acc": "test accuracy",
    "test_err": "test error",
}
EIGENVALUES = {
    "max_eig": "largest eigenvalue",
    "min_eig": "smallest eigenvalue",
    "eig_ratio": "eigenvalues of the Hessian",
}
STATISTICS = {
    "low": "lower quartile",
    "high": "upper quartile",
    "iqr": "interquartile range",
    "se": "standard error",
}
SPREADS = ("iqr", "se")  # statistics that are not on the scale of the values themselves


# ---------------------------------------------------------------- values


def plain_name(name):
    """'train_loss' -> 'train loss', 'train_acc' -> 'train accuracy (%)', a title for any value.

    Of repeats: 'train_acc_low' -> 'train accuracy, lower quartile (%)'. Another metric has no unit:
    a user's 'train_top5_acc' is a mean, not a percentage.
    """
    base, statistic = of_repeats(name)
    known = PERCENTAGES | EIGENVALUES
    words = known.get(base, base.replace("_", " "))
    if statistic:
        words += f", {STATISTICS[statistic]}"
    if in_percent(name):
        words += " (%)"
    return words


def value_label(name):
    """The same for a label in a figure: a `$` in a name from a file is a dollar."""
    return plain_text(plain_name(name))


def of_repeats(name):
    """('train_loss', 'iqr') of 'train_loss_iqr', a statistic over repeats; else (name, '')."""
    base, _, ending = name.rpartition("_")
    if ending in STATISTICS and "_" in base:
        return base, ending
    return name, ""


def in_percent(name):
    """Are these percentages: accuracies, errors, or their statistics over repeats?"""
    base, _ = of_repeats(name)
    return base in PERCENTAGES


def is_loss(name):
    """Are these on the scale of losses? Their spread over repeats, and their errors, are not."""
    base, statistic = of_repeats(name)
    return base.endswith("_loss") and statistic not in SPREADS


# ---------------------------------------------------------------- error bars


def error_words(surface, name):
    """'standard error at most 1 %' of an estimated surface; '' of any other.

    A loss has a share of itself, percentages have points.
    """
    errors = surface.values.get(f"{ERRORS.get(name, name)}_se")
    if errors is None or not (is_loss(name) or in_percent(name)):
        return ""
    unit = "points"
    if is_loss(name):
        unit = "%"
        with np.errstate(all="ignore"):
            errors = 100 * errors / np.abs(surface.values[name])
    errors = errors[np.isfinite(errors)]
    if not (errors > 0).any():
        return ""
    return f"standard error at most {rounded_up(errors.max()):g} {unit}"


def rounded_up(value):
    """The number with two digits that is not below it, up to rounding: 0.987 -> 0.99."""
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(f"{np.ceil(value / step - 1e-6) * step:.3g}")


# ---------------------------------------------------------------- numbers


def number(value):
    """A short text for a number of any size: 0.5, 120, in mathtext $2{\\times}10^{5}$."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}".replace("-", MINUS)

    mantissa, exponent = f"{value:.3e}".split("e")
    mantissa = f"{float(mantissa):g}"
    power = f"10^{{{int(exponent)}}}"
    if mantissa == "1":
        return f"${power}$"
    return f"${mantissa}{{\\times}}{power}$"


def percent(share):
    """'12 %' of 0.12, '1.8 %' of 0.018; never rounded up to 100 % or down to 0 %."""
    if share >= 0.1:
        return f"{np.floor(100 * share + 1e-9):.0f} %"
    if share >= 0.01:
        return f"{np.floor(1000 * share + 1e-9) / 10:g} %"
    return f"{100 * share:.1g} %"


# ---------------------------------------------------------------- titles and labels


def heading(*parts, longest=HEADING_LENGTH):
    """The parts that aren't empty, joined by commas, on as many lines as one column needs for them.

    A part that is too long for a line, as a network FILE.py:function(...) may be, keeps its end.
    The parts are of files: a `$` is a dollar.
    """
    lines = []
    for part in filter(None, map(one_printable_line, parts)):
        if len(part) > longest:
            part = ELLIPSIS + part[len(part) - longest + 1 :]
        if lines and len(lines[-1]) + len(", ") + len(part) <= longest:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return escaped(",\n".join(lines))


def labels_for(paths, labels):
    """The user's labels, one per file, or else the distinct parts of the names; for matplotlib."""
    if not labels:
        return [plain_text(name) for name in distinct_names(paths)]
    if len(labels) != len(paths):
        raise InputError(
            f"expected one label per file, got {len(labels)} for {len(paths)} files; "
            "see --labels"
        )
    return [shown_in_legends(typed_text(label)) for label in labels]


def shown_in_legends(label):
    """The label with a space before `_`, as matplotlib leaves out labels that begin with it."""
    if label.startswith("_"):
        return f" {label}"
    return label


def distinct_names(paths, longest=LABEL_LENGTH):
    """What tells the paths apart: without the folders and words at both ends that all share."""
    if len(set(paths)) < 2:
        return [os.path.basename(path).removesuffix(".h5")[:longest] for path in paths]
    words = [re.findall(r"[^/_]+[/_]?", path.removesuffix(".h5")) for path in paths]

    # how many words are common at the start, and of the rest at the end
    shortest = min(len(path_words) for path_words in words)
    start = 0
    while start < shortest and all_equal(path_words[: start + 1] for path_words in words):
        start += 1
    end = 0
    while end < shortest - start and all_equal(path_words[-end - 1 :] for path_words in words):
        end += 1

    # "resnet56" and "resnet56_noshort": keep the stem where nothing else would be left
    if start and any(len(path_words) == start + end for path_words in words):
        start -= 1

    names = []
    for path, path_words in zip(paths, words, strict=True):
        name = "".join(path_words[start : len(path_words) - end]).strip("/_")
        names.append(cut_name(name or os.path.basename(path), longest))
    return names


def all_equal(lists):
    """Are these lists of words all the same?"""
    return len({tuple(words) for words in lists}) == 1


def cut_name(name, longest):
    """The name, cut at the end where it is too long."""
    if len(name) <= longest:
        return name
    return name[: longest - 1] + ELLIPSIS
