"""The journal of a large surface file."""

import contextlib
import itertools
import json
import os
import time
import zlib

from losslandscape.errors import InputError
from losslandscape.files.atomic import write_file
from losslandscape.files.names import beside
from losslandscape.files.provenance import MATTERS


class Journal:
    """Results that a large surface file does not hold yet, in a file beside it.

    A 1001x1001 file takes a fifth of a second to write: every 5 s, that would be 4 % of the time. Changing it in place
    would be quick, but whoever copies it meanwhile could get a mask without its values. So results are appended here,
    one line of JSON each with a checksum, and flushed to the disk; what a crash has left half written does not count.
    The first line says what they were computed from: a journal of something else is not read.

    Raises InputError where nothing can be appended; what was appended before stays.
    """

    def __init__(self, target, surface):
        self.path = beside(target, "journal")
        made_from = {key: value for key, value in surface.provenance.items() if key in MATTERS}
        axes = [[axis.size, *axis[[0, -1]].tolist()] for axis in (surface.grid.x, surface.grid.y) if axis is not None]
        self._head, self._surface = {"grid": axes, "from": made_from}, surface
        self._size = 0  # of what this job has appended
        self.cost = 0.0  # seconds that the last append took

    def append(self, results):
        """Put [(point, {name: value})] on the disk."""
        start = time.monotonic()
        lines = [_line([int(point), {name: float(value) for name, value in values.items()}])
                 for point, values in results]
        if not self._size:
            lines = [_line(self._head), *lines]
        image = "".join(lines).encode()
        if not self._size:
            write_file(self.path, image)
        else:
            try:
                with open(self.path, "r+b") as f:
                    f.truncate(self._size)  # what an append that failed has left
                    f.seek(self._size)
                    f.write(image)
                    f.flush()
                    os.fsync(f.fileno())
            except OSError as error:
                raise InputError(f"can't write {self.path} ({error.strerror}); make room") from None
        self._size += len(image)
        self.cost = time.monotonic() - start

    def read(self):
        """[(point, {name: value})] that a job which was killed has left, if they belong to this surface."""
        try:
            with open(self.path, encoding="utf-8", errors="replace") as f:
                found = list(map(_content, f))
        except OSError:
            return []
        head, *results = [*itertools.takewhile(lambda content: content is not None, found)] or [None]
        if not head or head["grid"] != self._head["grid"]:
            return []
        old, new = head["from"], self._head["from"]
        if any(old[key] != new[key] for key in old.keys() & new.keys()):
            return []
        size, names = self._surface.grid.size, self._surface.values
        return [(point, {name: value for name, value in values.items() if name in names})
                for point, values in results if 0 <= point < size]

    @property
    def holds(self):
        """Has this job put results here that the file does not hold yet?"""
        return self._size > 0

    def remove(self):
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self._size = 0


def _line(content):
    text = json.dumps(content)
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _content(line):
    """The content of a line of a journal, or None where it is not whole."""
    checksum, _, text = line.partition(" ")
    return json.loads(text) if text.endswith("\n") and checksum == f"{zlib.crc32(text[:-1].encode()):08x}" else None
