"""From what, how and where a file was made: the JSON object in its attribute `provenance`.

Results are put into one file only if they were computed from the same things: `refuse_mismatch`.
Files of the original program have no provenance; they count as made from anything.
"""

import importlib.metadata
import json
import math
import platform
import re
import socket
import sys
import time
from pathlib import Path

import losslandscape
from losslandscape.errors import InputError
from losslandscape.messages import printable

# what must agree before results are put into one file: key -> in words
MATTERS = {
    "model": "model",
    "checkpoint": "contents of --model_file",
    "checkpoint2": "contents of --model_file2",
    "checkpoint3": "contents of --model_file3",
    "checkpoint_key": "--checkpoint_key",
    "directions": "contents of the direction file",
    "dir_type": "--dir_type",
    "params": "--params",
    "freeze": "--freeze",
    "whole_name": "the name that was shortened",
    "loss": "--loss_name",
    "model_code": "the code of --model",
    "loss_code": "the code of --loss_name",
    "metric_code": "the code of --metric",
    "loss_formula": "the formula of the loss",
    "metric_formula": "the formula of the metric",
    "batches": "the batches that the results depend on",
    "noise": "--noise_seed",
    "bn": "--bn",
    "train_data": "training data",
    "test_data": "test data",
    "precision": "--precision",
    "place": "--place",
    "place_code": "the code of --place",
    "measure": "--measure",
    "measure_code": "the code of --measure",
    "measure_names": "the names that --measure returns",
    "measure_seed": "--noise_seed",
    "measure_data": "the data of --measure",
    "measure_batch_size": "--batch_size",
    "hessian_params": "--params",
    "hessian_tol": "--tol",
}

# of them, what directions depend on: weights and what is drawn, whatever code makes the network
MATTERS_FOR_DIRECTIONS = {
    key: MATTERS[key]
    for key in (
        "checkpoint", "checkpoint2", "checkpoint3", "checkpoint_key",
        "dir_type", "params", "freeze", "whole_name",
    )
}  # fmt: skip

# keys that are there only where a loss is something else than the plain mean over the samples
ONLY_IF_UNUSUAL = ("loss_formula", "metric_formula", "batches", "noise")


def refuse_mismatch(path, old, new, keys=MATTERS, flag="--surf_file"):
    """Raises InputError if two provenances differ in what matters.

    A key that one of them lacks is not compared, unless the lack itself says how a loss was
    measured, or which weights of a checkpoint were taken. flag: which names another file.
    """
    if "loss" in old and "loss" in new:
        usual = dict.fromkeys(ONLY_IF_UNUSUAL, "the usual")
        old, new = usual | old, usual | new
    if "directions" in old and "directions" in new:  # surfaces
        old, new = {"place": "none"} | old, {"place": "none"} | new
    if "checkpoint" in old and "checkpoint" in new:
        old, new = {"checkpoint_key": "none"} | old, {"checkpoint_key": "none"} | new
    differences = [
        f"{words} ({_abbreviated(old[key])} in the file, {_abbreviated(new[key])} now)"
        for key, words in keys.items()
        if key in old and key in new and not _agree(key, old, new)
    ]
    if differences:
        raise InputError(
            f"{path} was made from something else: it differs in {', '.join(differences)}; "
            f"undo that, or give another file with {flag}")


def _agree(key, old, new):
    """Do two provenances have the same value? Of code the hash of the whole file is one, too."""
    if key.endswith("_code") and old[key] == new.get(f"{key}_file"):
        return True
    return old[key] == new[key]


def _abbreviated(value):
    """A SHA-256 is recognized by its first digits."""
    text = str(value)
    if len(text) == 64:
        return text[:10]
    return printable(text)


# ---------------------------------------------------------------- of a file that is being made


def circumstances():
    """By which command, where, when and with which versions a file is made."""
    packages = ("torch", "numpy", "h5py")
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {
        "command": " ".join(sys.argv),
        "host": socket.gethostname(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"losslandscape": version(), "python": platform.python_version()} | versions,
    }


def version():
    """Our version: '2.0.0', in a clone '2.0.0 (commit abc1234)'."""
    number = getattr(losslandscape, "__version__", "unknown")
    commit = _commit_of(Path(__file__).resolve().parents[2])
    if commit:
        return f"{number} (commit {commit[:7]})"
    return number


def _commit_of(folder):
    """The commit that is checked out in a clone, as hexadecimal digits; '' where none is known.

    git itself may not be installed on a cluster's nodes, so its files are read.
    """
    try:
        git = _git_folder(folder)
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if head.startswith("ref: "):
            head = _value_of_reference(git, head.removeprefix("ref: "))
    except (OSError, ValueError):
        return ""
    if not re.fullmatch("[0-9a-f]{40,64}", head):
        return ""
    return head


def _git_folder(folder):
    """The folder .git of a clone; a work tree has a file of this name that says where it is."""
    git = folder / ".git"
    if git.is_file():
        text = git.read_text(encoding="utf-8").strip()
        return folder / text.removeprefix("gitdir: ")
    return git


def _value_of_reference(git, name):
    """The commit of a reference such as refs/heads/main; '' where there is no such reference."""
    # a work tree shares the references of the clone
    folder = git
    if (git / "commondir").is_file():
        folder = git / (git / "commondir").read_text(encoding="utf-8").strip()

    # in a file of its own, or packed into one with others
    if (folder / name).is_file():
        return (folder / name).read_text(encoding="utf-8").strip()
    for line in (folder / "packed-refs").read_text(encoding="utf-8").splitlines():
        commit, _, reference = line.partition(" ")
        if reference == name:
            return commit
    return ""


# ---------------------------------------------------------------- of a file that is read

MAX_CHARACTERS = 10**7  # of the JSON text; ours have some thousands
MAX_DEPTH = 20  # of objects and lists in each other; ours have 4
MAX_COUNT = 2**53  # of samples


def from_json(text, path):
    """The provenance in a file's JSON text, checked, so that its readers can rely on its types.

    path: the file, for the message. Raises InputError.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"expected a provenance of at most {MAX_CHARACTERS} characters in {path}, "
                         f"got {len(text)}; the file is damaged")
    try:
        provenance = json.loads(text)
    except (ValueError, RecursionError):
        provenance = None
    if not isinstance(provenance, dict):
        raise InputError(f"expected a JSON object in the attribute provenance of {path}; "
                         "the file is damaged")
    check_provenance(provenance, path)
    return provenance


def check_provenance(provenance, path):
    """Raises InputError unless every entry that somebody reads is of its kind."""
    if _is_deeper_than(MAX_DEPTH, provenance):
        raise InputError(f"expected at most {MAX_DEPTH} levels in the provenance of {path}, "
                         "got more; the file is damaged")
    for key, (is_valid, expected) in ENTRIES.items():
        if key in provenance and not is_valid(provenance[key]):
            raise InputError(f"expected {expected} as {key!r} in the provenance of {path}, "
                             f"got {provenance[key]!r:.60}; correct it, or name another file")


def _is_deeper_than(depth, value):
    level = [value]
    for _ in range(depth):
        level = [inner for outer in level for inner in _values_in(outer)]
    return bool(level)


def _values_in(value):
    """What a JSON value holds: the values of an object, the items of a list, nothing in others."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list):
        return value
    return ()


def _is_text(value):
    return isinstance(value, str)


def _is_object(value):
    return isinstance(value, dict)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite_number(value):
    return _is_number(value) and math.isfinite(value)


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_COUNT


def _is_natural(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_texts(value):
    return isinstance(value, list) and all(map(_is_text, value))


def _are_numbers(value):
    return isinstance(value, list) and len(value) > 0 and all(_is_number(item) for item in value)


def _are_repeats(value):
    """The surface files that a summary is of, or how many they were."""
    return _is_count(value) or (isinstance(value, list) and all(_is_text(item) for item in value))


def _are_centre_notes(value):
    """{name: note}, a trace or a list of eigenvalues at the centre."""
    return _is_object(value) and all(
        _is_trace(note) or _is_spectrum(note) for note in value.values())


def _is_trace(note):
    return (
        _is_object(note)
        and _is_number(note.get("value"))
        and _is_number(note.get("standard_error"))
        and _is_count(note.get("samples"))
    )


def _is_spectrum(note):
    return (
        _is_object(note)
        and _are_numbers(note.get("values"))
        and _are_numbers(note.get("residuals"))
        and isinstance(note.get("converged"), bool)
    )


def _is_estimation(value):
    """How a surface was estimated: see estimation/survey.py."""
    return _is_object(value) and (
        _is_count(value.get("samples"))
        and _is_finite_number(value.get("share_of_work"))
        and _is_finite_number(value.get("tolerance", 0))
        and _is_finite_number(value.get("accuracy_points", 0))
    )


def _are_audits(value):
    """{split: entry} of points that were checked: see estimation/audit.py."""
    return _is_object(value) and all(
        _is_object(entry)
        and _is_count(entry.get("points"))
        and _is_number(entry.get("median_error"))
        and _is_number(entry.get("largest_error"))
        and _is_number(entry.get("within_two_standard_errors"))
        for entry in value.values())


def _are_numbers_by_name(value):
    return _is_object(value) and all(_is_number(number) for number in value.values())


TEXTS = ("model_file", "model_folder", "dataset", "ignore", "command", "host", "created")

# key -> (check, in words)
ENTRIES = {
    **dict.fromkeys([*MATTERS, *TEXTS], (_is_text, "text")),
    "hessian_tol": (_is_finite_number, "a finite number"),
    "measure_seed": (_is_natural, "an integer of at least 0"),
    "measure_names": (_are_texts, "a list of names"),
    "measure_batch_size": (_is_count, "a positive integer"),
    "batch_size": (_is_count, "a positive integer"),
    "hessian_batch_size": (_is_count, "a positive integer"),
    "versions": (_is_object, "an object"),
    "evaluation": (_is_object, "an object"),
    "spread": (_are_numbers_by_name, "an object of numbers"),
    "repeats": (_are_repeats, "a list of files"),
    "estimation": (_is_estimation, "an object with samples and share_of_work"),
    "audit": (_are_audits, "an object of checks"),
    "centre": (_are_centre_notes, "an object of traces and eigenvalues"),
}
