"""Every file name: made and parsed in this module."""

import hashlib
import os
import re


def option_suffix(*parts):
    """'_name=value' for every (name, value) whose value is set, '_name' where it is True."""
    return "".join(f"_{name}" if value is True else f"_{name}={value}" for name, value in parts if value)


def repeats(surface_file):
    """The files of the repeats of a surface (--idx 1, 2, ...), in order: {idx: path}.

    `..._xnorm=filter.h5_[-1.0,1.0,51].h5` has the repeats `..._xnorm=filter_idx=N.h5_[-1.0,1.0,51].h5`.
    """
    folder, base = os.path.split(surface_file)
    head, _, tail = re.sub(r"_idx=\d+(?=\.h5_\[)", "", base).rpartition(".h5_[")
    found = {}
    for name in os.listdir(folder or "."):
        match = re.fullmatch(re.escape(head) + r"(?:_idx=(\d+))?" + re.escape(".h5_[" + tail), name)
        if match:
            found[int(match[1] or 0)] = os.path.join(folder, name)
    return dict(sorted(found.items()))


def beside(target, kind):
    """A hidden file beside `target`: a short name, because its own may be as long as the file system allows."""
    folder, base = os.path.split(os.path.realpath(target))
    return os.path.join(folder, f".{hashlib.sha256(os.fsencode(base)).hexdigest()[:16]}.{kind}")


def lock_path(target):
    return beside(target, "lock")
