"""The checkpoints of training runs, found by their names and put in order.

    find_checkpoints("trained_nets/NAME", "model_", ".t7")     model_0.t7, model_1.t7, ...
    find_pattern("out/checkpoint-*/model.safetensors")         in the order of the numbers
"""

import glob
import os
import re
from dataclasses import dataclass

from losslandscape.errors import InputError
from losslandscape.files.names import common_folder
from losslandscape.messages import say

LAST_EPOCH = 300  # of the original program, where no other one is given

# words before a number that say what it counts, the likeliest first
COUNTING_WORDS = (("epoch", "epoch"), ("step", "step"), ("iter", "step"), ("checkpoint", "step"))


@dataclass(frozen=True)
class TrainingRun:
    """The checkpoints of a training run, in epoch order."""

    folder: str
    epochs: tuple  # whole numbers
    files: tuple
    unit: str = "epoch"  # what the numbers are: epochs or steps


def find_runs(folders, prefix, suffix, start_epoch, max_epoch, save_epoch, patterns=()):
    """[TrainingRun] of folders, or of patterns; InputError unless there is one, and none twice.

    max_epoch: None for the original's 300, and for no bound with patterns.
    """
    if folders and patterns:
        raise InputError("expected --model_folder or --checkpoints, got both; give one of them")
    if patterns:
        return find_patterns(patterns, start_epoch, max_epoch, save_epoch)

    if not folders or not all(folders):
        raise InputError(
            "expected --model_folder DIR, the folder of a training run (or of several), or "
            "--checkpoints 'DIR/NAME-*.pt', got none"
        )
    if len({os.path.realpath(folder) for folder in folders}) < len(folders):
        raise InputError(
            f"expected different folders as --model_folder, got {' '.join(folders)}; "
            "give each run once"
        )
    if max_epoch is None:
        max_epoch = LAST_EPOCH
    return [
        find_checkpoints(folder, prefix, suffix, start_epoch, max_epoch, save_epoch)
        for folder in folders
    ]


# ---------------------------------------------------------------- by prefix and suffix


def find_checkpoints(
    folder, prefix="model_", suffix=".t7", start_epoch=0, max_epoch=LAST_EPOCH, save_epoch=1
):
    """TrainingRun of the checkpoints FOLDER/PREFIX + epoch + SUFFIX that exist.

    Prefix and suffix may have folders in them. Epochs start_epoch, start_epoch + save_epoch, ... up
    to max_epoch, and the last one that exists in that range whether or not save_epoch leads to it:
    it is the trained network, and the origin. Raises InputError if none exists.
    """
    check_epochs(start_epoch, max_epoch)
    names = names_in_run_folder(folder)

    # one file per epoch
    file_of_epoch = {}
    stem, ending = os.path.join(glob.escape(folder), glob.escape(prefix)), glob.escape(suffix)
    for file in sorted(glob.glob(f"{stem}[0-9]*{ending}")):
        number = file[len(os.path.join(folder, prefix)) : len(file) - len(suffix)]
        if not re.fullmatch(r"\d+", number) or not start_epoch <= int(number) <= max_epoch:
            continue
        epoch = int(number)
        if epoch in file_of_epoch:
            first, second = (os.path.relpath(each, folder) for each in (file_of_epoch[epoch], file))
            raise InputError(
                f"expected one checkpoint of epoch {epoch} in {folder}, "
                f"found {first} and {second}; move one away"
            )
        file_of_epoch[epoch] = file
    if not file_of_epoch:
        raise InputError(
            f"expected checkpoints {prefix}E{suffix} in {folder}, "
            f"E from {start_epoch} to {max_epoch}, "
            f"found none (there is {first_names(names)}); "
            "check --prefix, --suffix, --start_epoch and --max_epoch"
        )

    epochs = take_every(sorted(file_of_epoch), start_epoch, save_epoch)
    return TrainingRun(folder, tuple(epochs), tuple(file_of_epoch[epoch] for epoch in epochs))


def check_epochs(start_epoch, max_epoch):
    if start_epoch > max_epoch:
        raise InputError(
            "expected --start_epoch up to --max_epoch, "
            f"got {start_epoch} and {max_epoch}"
        )


def take_every(epochs, start_epoch, save_epoch):
    """Those of sorted epochs to which save_epoch leads from start_epoch, and the last one."""
    return [
        epoch for epoch in epochs
        if (epoch - start_epoch) % save_epoch == 0 or epoch == epochs[-1]
    ]  # fmt: skip


def names_in_run_folder(folder):
    """The sorted names of the files of a run; raises InputError where there is no such folder."""
    if not os.path.isdir(folder):
        raise InputError(
            "expected the folder of a training run as --model_folder, "
            f"found none at {folder!r}"
        )
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(
            f"can't read the folder {folder} ({error.strerror}); "
            "make it readable"
        ) from None


def first_names(names, count=4):
    """'a, b, c, d, ...', for a message about what is in a folder."""
    if not names:
        return "nothing"
    more = ", ..." if len(names) > count else ""
    return ", ".join(names[:count]) + more


# ---------------------------------------------------------------- by patterns


def find_patterns(patterns, start_epoch=0, max_epoch=None, save_epoch=1):
    """[TrainingRun] of --checkpoints: one for each pattern.

    Names without wildcards are one run together: a shell has written out their pattern.
    """
    written_out = [name for name in patterns if not glob.has_magic(name)]
    limits = (start_epoch, max_epoch, save_epoch)
    runs = []
    for pattern in patterns:
        if pattern not in written_out:
            runs.append(find_pattern(pattern, *limits))
        elif pattern == written_out[0]:
            runs.append(run_of_files(written_out, *limits))

    if len({run.files for run in runs}) < len(runs):
        raise InputError(
            f"expected different runs as --checkpoints, got {' '.join(patterns)}; "
            "give each run once"
        )
    return runs


def find_pattern(pattern, start_epoch=0, max_epoch=None, save_epoch=1):
    """TrainingRun of the files or folders that match a pattern of the shell; see `run_of_files`."""
    files = glob.glob(pattern, recursive=True)
    if not files:
        raise InputError(
            f"expected checkpoints that match {pattern}, found none; check --checkpoints"
        )
    return run_of_files(files, start_epoch, max_epoch, save_epoch, folder_of_pattern(pattern))


def folder_of_pattern(pattern):
    """The folder in which all that matches a pattern lies; '.' for the current one."""
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder or "."


def run_of_files(files, start_epoch=0, max_epoch=None, save_epoch=1, folder=""):
    """TrainingRun of checkpoints in the order of the number in their names that tells them apart.

    That is an epoch if one is named, else a step, else the first number that all have and that is
    another one for each. Files without such a number (last.ckpt) are left out and said.

    folder: whose name does not count; the common one if none is given. Raises InputError where no
    number tells them apart, and where none is in the range.
    """
    if not folder:
        folder = common_folder([os.path.dirname(file) or "." for file in files])
    numbers = {file: numbers_in(os.path.relpath(file, folder)) for file in sorted(files)}

    word = counting_word(numbers)
    numbered = {file: counts[word] for file, counts in numbers.items() if word in counts}
    left_out = [file for file in numbers if file not in numbered]
    if left_out:
        say(f"note: left out of the run: {first_names(left_out)}, without a number like the others")

    last = float("inf") if max_epoch is None else max_epoch
    check_epochs(start_epoch, last)
    file_of_number = {
        number: file for file, number in numbered.items() if start_epoch <= number <= last}
    if not file_of_number:
        raise InputError(
            f"expected checkpoints from {start_epoch} to {last} in {folder}, got "
            f"{first_names(list(numbered))}; check --start_epoch and --max_epoch"
        )
    epochs = take_every(sorted(file_of_number), start_epoch, save_epoch)
    files = tuple(file_of_number[epoch] for epoch in epochs)
    return TrainingRun(folder, tuple(epochs), files, unit_of(word))


def numbers_in(name):
    """{(word before a number, how many such words came before): number} of a name.

    'epoch=3-step=300.ckpt' -> {("epoch", 0): 3, ("step", 0): 300}
    """
    numbers = {}
    for match in re.finditer(r"([A-Za-z_]*)[^A-Za-z0-9/]*(\d{1,18})", name):
        word = match[1].strip("_").lower()
        earlier = sum(other == word for other, _ in numbers)
        numbers[word, earlier] = int(match[2])
    return numbers


def counting_word(numbers):
    """The (word, count) whose number tells most files apart; numbers: of each file."""
    present = {}
    for counts in numbers.values():
        for word, number in counts.items():
            present.setdefault(word, []).append(number)

    # one that most files have, with another number for each
    usable = [
        word for word, values in present.items()
        if len(values) == len(set(values)) and 2 * len(values) > len(numbers)
    ]  # fmt: skip
    if not usable:
        first, second = ([*numbers] * 2)[:2]
        raise InputError(
            f"expected a number in the names of --checkpoints that tells them apart, got {first} "
            f"and {second}; give a narrower pattern"
        )
    return min(usable, key=rank_of_word)


def rank_of_word(word):
    for rank, (part, _) in enumerate(COUNTING_WORDS):
        if part in word[0]:
            return rank
    return len(COUNTING_WORDS)


def unit_of(word):
    """What a number after this word counts: 'epoch' or 'step'."""
    for part, unit in COUNTING_WORDS:
        if part in word[0]:
            return unit
    return "epoch"
