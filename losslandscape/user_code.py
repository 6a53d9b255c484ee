"""FILE.py:name and package.module:name -> the object: how --model, --dataset, --loss_name and --metric take your code.

    load("--model", "my_net.py:make")(width=64)
    load("--model", "torchvision.models:resnet18")

The file's own folder, and the current one, are on the import path while it is loaded, as with `python FILE.py`.
"""

import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback

from losslandscape.errors import InputError

FAILURES = Exception, SystemExit  # a script that ends itself when it is loaded must not end this one, with code 0
_files = set()  # that were loaded


def is_reference(text):
    """Does `text` name an object in a file or a module?"""
    place, colon, name = text.rpartition(":")
    return bool(colon and place and name)


def label(text):
    """A short name for files: 'my_net.make' for path/my_net.py:make, 'resnet18' for torchvision.models:resnet18."""
    place, _, name = text.rpartition(":")
    return f"{_stem(place)}.{name}" if place.endswith(".py") else name


def load(flag, text):
    """The object that `text` names; raises InputError, which names `flag`, where there is none."""
    place, _, name = text.rpartition(":")
    if not is_reference(text):
        raise InputError(f"expected {flag} as FILE.py:function or package.module:function, got {text!r}")
    found = _module(flag, text, place)
    for step in name.split("."):
        if not hasattr(found, step):
            near = difflib.get_close_matches(step, dir(found), n=3)
            advice = f"did you mean {' or '.join(near)}?" if near else "check the name"
            raise InputError(f"expected {name!r} in {place} for {flag} {text}, found none; {advice}")
        found = getattr(found, step)
    if not callable(found):
        raise InputError(f"expected a function as {flag} {text}, got {type(found).__name__}; name a function")
    return found


def call(flag, text, function, *args, **kwargs):
    """function(*args, **kwargs); whatever it raises becomes an InputError that says where in the user's code."""
    try:
        return function(*args, **kwargs)
    except InputError:
        raise
    except FAILURES as error:
        raise InputError(f"expected {flag} {text} to work, it fails with {_in_words(error)}; correct it") from None


def source_hash(text):
    """SHA-256 of the file that a reference names; '' for modules, whose package has a version."""
    place = text.rpartition(":")[0]
    if not (is_reference(text) and place.endswith(".py") and os.path.isfile(place)):
        return ""
    with open(place, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def _module(flag, text, place):
    if place.endswith(".py"):
        path = os.path.realpath(place)
        if not os.path.isfile(path):
            raise InputError(f"expected a Python file at {place} for {flag} {text}, found none; check the path")
        name = f"{_stem(path)}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"  # two files may share a name
        if name in sys.modules:
            return sys.modules[name]
        _on_path(os.path.dirname(path))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickles look their module up
        _files.add(path)
        try:
            spec.loader.exec_module(module)
        except FAILURES as error:
            del sys.modules[name]
            raise InputError(f"can't load {place} for {flag} {text}: {_in_words(error)}; correct it") from None
        return module
    _on_path(os.getcwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise InputError(f"expected a module {place} for {flag} {text}, but there is no {error.name}; "
                         "pip install it, or give FILE.py:function") from None
    except FAILURES as error:
        raise InputError(f"can't import {place} for {flag} {text}: {_in_words(error)}; correct it") from None


def _stem(place):
    return os.path.splitext(os.path.basename(place))[0]


def _on_path(folder):
    if folder not in sys.path:
        sys.path.append(folder)  # last: a user's file must not hide a module of this program


def _in_words(error):
    """'TypeError: ... (my_net.py, line 12)': the innermost line that is neither ours nor an installed package's."""
    text = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")
    if isinstance(error, SyntaxError):
        return text.split(" (")[0] + (f" ({os.path.basename(error.filename)}, line {error.lineno})"
                                      if error.filename else "")  # none for a file that is no text
    here = os.path.dirname(os.path.abspath(__file__))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if os.path.realpath(f.filename) in _files or not (
        "site-packages" in f.filename or "<frozen" in f.filename or os.path.dirname(f.filename) == here)]
    return f"{text} ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else text
