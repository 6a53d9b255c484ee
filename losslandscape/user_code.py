"""FILE.py:name and package.module:name -> the object: networks, data, losses of the user's own.

    load("--model", "my_net.py:make")(width=64)
    load("--model", "torchvision.models:resnet18")

A file finds its neighbours as with `python FILE.py`, whatever they are called (see neighbours.py);
the current folder is on the import path too.
"""

import difflib
import hashlib
import os
import sys
import traceback

from losslandscape.errors import InputError
from losslandscape.neighbours import (
    is_installed,
    make_reachable,
    neighbourhood_of,
    with_plain_names,
)
from losslandscape.source_digest import digest_of

# a script that ends itself when it is loaded must not end this one, with code 0
FAILURES = Exception, SystemExit
SUGGESTED_NAMES = 3

_files = set()  # that were loaded


def is_reference(text):
    """Does `text` name an object in a file or a module?"""
    place, colon, name = text.rpartition(":")
    return bool(colon and place and name)


def label(text):
    """A short name, for file names: my_net.make for path/my_net.py:make, ReLU for torch.nn:ReLU."""
    place, _, name = text.rpartition(":")
    if not place.endswith(".py"):
        return name
    stem = os.path.splitext(os.path.basename(place))[0]
    return f"{stem}.{name}"


def load(flag, text):
    """The object that `text` names; raises InputError, which names `flag`, where there is none."""
    if not is_reference(text):
        raise InputError(
            f"expected {flag} as FILE.py:function or package.module:function, got {text!r}")
    place, _, name = text.rpartition(":")
    if place.endswith(".py"):
        target = _load_file(flag, text, place)
    else:
        target = _import_module(flag, text, place)

    for step in name.split("."):
        if not hasattr(target, step):
            raise InputError(
                f"expected {name!r} in {place} for {flag} {text}, found none; "
                f"{_advice(step, dir(target))}")
        target = getattr(target, step)
    if not callable(target):
        raise InputError(
            f"expected a function as {flag} {text}, got {type(target).__name__}; name a function")
    return target


def call(flag, text, function, *args, **kwargs):
    """function(*args, **kwargs); what it raises becomes an InputError that points at the line."""
    try:
        return function(*args, **kwargs)
    except InputError:
        raise
    except FAILURES as error:
        raise InputError(
            f"expected {flag} {text} to work, it fails with {explain(error)}; correct it") from None


def source_hash(text):
    """SHA-256 of the source that a reference depends on; see source_digest.py.

    '' for modules of installed packages, which have a version.
    """
    path = _own_file(text)
    if not path:
        return ""
    try:
        return digest_of(path, text.rpartition(":")[2])
    except (SyntaxError, ValueError, RecursionError, OSError):  # a neighbour that is no source
        return file_hash(text)


def file_hash(text):
    """SHA-256 of the whole file that a reference names; '' for installed packages.

    Files of version 2.0 have it in place of `source_hash`.
    """
    path = _own_file(text)
    if not path:
        return ""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def code_hashes(kind, text):
    """{KIND_code, KIND_code_file}: hashes of what a reference depends on, and of its file.

    {} where it is no reference to the user's own code.
    """
    hashes = {f"{kind}_code": source_hash(text), f"{kind}_code_file": file_hash(text)}
    return {key: value for key, value in hashes.items() if value}


def _own_file(text):
    """The path of the user's file that a reference leads to; '' where there is none."""
    if not is_reference(text):
        return ""
    place = text.rpartition(":")[0]
    if not place.endswith(".py"):
        place = getattr(sys.modules.get(place), "__file__", None) or ""
        if is_installed(place):
            return ""
    if place.endswith(".py") and os.path.isfile(place):
        return place
    return ""


def explain(error):
    """'TypeError: ... (my_net.py, line 12)': an exception, and its line in the user's code."""
    message = next(iter(str(error).splitlines()), "")
    words = f"{type(error).__name__}: {message}".rstrip(": ")
    if isinstance(error, SyntaxError):
        words = words.split(" (")[0]
        if error.filename is None:  # a file that is no text
            return words
        return f"{words} ({os.path.basename(error.filename)}, line {error.lineno})"

    words = with_plain_names(words)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if os.path.realpath(frame.filename) in _files or not is_installed(frame.filename):
            return f"{words} ({os.path.basename(frame.filename)}, line {frame.lineno})"
    return words


def _load_file(flag, text, place):
    path = os.path.realpath(place)
    if not os.path.isfile(path):
        raise InputError(
            f"expected a Python file at {place} for {flag} {text}, found none; check the path")
    neighbourhood = neighbourhood_of(os.path.dirname(path))
    make_reachable(os.getcwd())
    _files.add(path)
    try:
        return neighbourhood.load_file(path)
    except FAILURES as error:
        raise InputError(
            f"can't load {place} for {flag} {text}: {explain(error)}; correct it") from None


def _import_module(flag, text, place):
    try:
        return neighbourhood_of(os.getcwd()).import_module(place)
    except ModuleNotFoundError as error:
        raise InputError(
            f"expected a module {place} for {flag} {text}, but there is no "
            f"{with_plain_names(error.name)}; pip install it, or give FILE.py:function") from None
    except FAILURES as error:
        raise InputError(
            f"can't import {place} for {flag} {text}: {explain(error)}; correct it") from None


def _advice(name, names):
    """What to do where there is no `name` among `names`."""
    near = difflib.get_close_matches(name, names, n=SUGGESTED_NAMES)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "check the name"
