"""Results that a large surface file does not hold yet, in a hidden file beside it.

A file of 1001x1001 points takes a fifth of a second to write: every 5 s, that would be 4 % of the
time. Changing it in place would be quick, but whoever copies it meanwhile could get a mask without
its values. So results are appended to a journal:

    1a2b3c4d {"grid": [[51, -1.0, 1.0]], "from": {"model": "resnet56", ...}}
    5e6f7a8b [26, {"train_loss": 0.5, "train_acc": 81.0}]

Each line is a checksum and JSON. The first one says what the results were computed from: a journal
of something else is not read. The others are results, (point, {name: value}); what a crash has left
half written fails the checksum and does not count.
"""

import contextlib
import json
import os
import time
import zlib

from losslandscape.errors import InputError
from losslandscape.files.atomic import write_file
from losslandscape.files.names import journal_path
from losslandscape.files.opening import open_regular, refuse_special
from losslandscape.files.provenance import MATTERS

MAX_LINE = 10**6  # bytes; ours have some hundreds


class Journal:
    """The journal of the surface file `target`. surface: what that file holds, or will hold.

    Raises InputError where something else than a file has its name.
    """

    def __init__(self, target, surface):
        self.path = journal_path(target)
        refuse_special(self.path, "move it away")
        self.append_seconds = 0.0  # that the last append took
        self._surface = surface
        self._size = 0  # bytes that this job has put here
        self._head = {
            "grid": [[len(axis), float(axis[0]), float(axis[-1])] for axis in surface.grid.axes],
            "from": {key: value for key, value in surface.provenance.items() if key in MATTERS},
        }

    @property
    def holds_results(self):
        """Has this job put results here that the surface file does not hold yet?"""
        return self._size > 0

    def append(self, results):
        """Put [(point, {name: value})] on the disk.

        Raises InputError where that can't be done; what was appended before stays.
        """
        start = time.monotonic()
        lines = []
        if not self.holds_results:
            lines.append(_line_of(self._head))
        for point, values in results:
            numbers = {name: float(value) for name, value in values.items()}
            lines.append(_line_of([int(point), numbers]))
        image = "".join(lines).encode()

        if self.holds_results:
            self._write_at_the_end(image)
        else:
            write_file(self.path, image)
        self._size += len(image)
        self.append_seconds = time.monotonic() - start

    def _write_at_the_end(self, image):
        try:
            with open(self.path, "r+b") as f:
                f.truncate(self._size)  # away with what an append that failed has left
                f.seek(self._size)
                f.write(image)
                f.flush()
                os.fsync(f.fileno())
        except OSError as error:
            raise InputError(f"can't write {self.path} ({error.strerror}); make room") from None

    def read(self):
        """[(point, {name: value})] that a killed job has left, if they belong to this surface."""
        contents = self._whole_lines()
        if not contents or not self._is_ours(contents[0]):
            return []

        results = []
        for content in contents[1:]:
            if self._is_result(content):
                point, values = content
                known = {name: values[name] for name in values if name in self._surface.values}
                results.append((point, known))
        return results

    def _whole_lines(self):
        """The contents of all lines up to the first one that is not whole."""
        contents = []
        with contextlib.suppress(OSError), open_regular(self.path, "move it away") as f:
            while line := f.readline(MAX_LINE):
                content = _content_of(line.decode("utf-8", "replace"))
                if content is None:
                    break
                contents.append(content)
        return contents

    def _is_ours(self, head):
        """Does a journal with this first line have the grid of the surface, and its origin?"""
        if not isinstance(head, dict) or head.get("grid") != self._head["grid"]:
            return False
        old, new = head.get("from"), self._head["from"]
        return isinstance(old, dict) and all(old[key] == new[key] for key in old if key in new)

    def _is_result(self, content):
        """Is this [point of the grid, {name: number}]?"""
        if not isinstance(content, list) or len(content) != 2:
            return False
        point, values = content
        return (
            isinstance(point, int)
            and not isinstance(point, bool)
            and 0 <= point < self._surface.grid.size
            and isinstance(values, dict)
            and all(isinstance(value, float) for value in values.values())  # as `append` writes
        )

    def remove(self):
        """Delete the journal, for the surface file holds its results, or they are of no use."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self._size = 0


def _line_of(content):
    text = json.dumps(content)
    return f"{_checksum(text)} {text}\n"


def _content_of(line):
    """The content of a line, or None where it is not whole."""
    checksum, _, text = line.partition(" ")
    if not text.endswith("\n"):
        return None
    text = text.removesuffix("\n")
    if checksum != _checksum(text):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _checksum(text):
    return f"{zlib.crc32(text.encode()):08x}"
