"""The losses of single samples that a surface was estimated from, in a file beside it.

A surface file holds one number per point. To go on with a smaller tolerance, nothing must be computed
twice, so what was measured of single samples is kept as well:

    1a2b3c4d {"grid": [[51, -1.0, 1.0]], "from": {"model": "resnet56", ...}, "draws": "..."}
    5e6f7a8b {"point": 26, "split": "train", "start": 0, "stop": 128, "names": {"train_loss": "<f4", ...}}
    (the values of each name, one after the other)

Records are appended. Each has a line with a checksum of all its bytes; what a crash has left half
written does not count, nor does what follows it. The first line says what the values belong to:
those of something else are not read, and the file begins anew. Without this file nothing is lost
but time.
"""

import contextlib
import json
import os
import zlib
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.atomic import write_file
from losslandscape.files.names import samples_path
from losslandscape.files.opening import open_regular, refuse_special
from losslandscape.files.provenance import MATTERS

MAX_LINE = 10**6  # bytes of the words of a record
MAX_SAMPLES = 2**31  # in one record
DTYPES = ("<f4", "|u1")  # of values; what is 0 or 100 per cent takes a byte


@dataclass(frozen=True)
class SampleRecord:
    """Values of the samples start .. stop of a split's order, at one point."""

    point: int
    split: str
    start: int
    stop: int
    values: dict  # name -> (stop - start,) float32


class SampleFile:
    """The samples beside the surface file `target`; rank 0 has it, under the surface file's lock.

    surface: what that file holds. draws: a text that says in which order samples are drawn.
    """

    def __init__(self, target, surface, draws):
        self.path = samples_path(target)
        refuse_special(self.path, "move it away")
        self._size = 0  # bytes up to which the file is whole and ours
        self._head = {
            "grid": [[len(axis), float(axis[0]), float(axis[-1])] for axis in surface.grid.axes],
            "from": {key: value for key, value in surface.provenance.items() if key in MATTERS},
            "draws": draws,
        }

    def read(self):
        """Yield every SampleRecord that earlier runs have left, if they belong to this surface."""
        with contextlib.suppress(OSError), open_regular(self.path, "move it away") as f:
            head = _words_and_bytes(f)
            if head is None or not self._is_ours(head[0]):
                return
            self._size = f.tell()
            while (record := _record_of(_words_and_bytes(f))) is not None:
                self._size = f.tell()
                yield record

    def append(self, records):
        """Put records on the disk. Raises InputError; what was appended before stays."""
        image = b"".join(_image_of(record) for record in records)
        if self._size == 0:
            image = _with_checksum(self._head, b"") + image
            write_file(self.path, image)
        else:
            self._write_at_the_end(image)
        self._size += len(image)

    def _write_at_the_end(self, image):
        try:
            with open(self.path, "r+b") as f:
                f.truncate(self._size)  # away with what a crash has left half written
                f.seek(self._size)
                f.write(image)
                f.flush()
        except OSError as error:
            raise InputError(f"can't write {self.path} ({error.strerror}); make room") from None

    def _is_ours(self, head):
        """Does a file with this first line have the grid, the origin and the order of this run?"""
        old, new = head.get("from"), self._head["from"]
        return (
            head.get("grid") == self._head["grid"]
            and head.get("draws") == self._head["draws"]
            and isinstance(old, dict)
            and all(old[key] == new[key] for key in old if key in new)
        )


# ---------------------------------------------------------------- records as bytes


def _image_of(record):
    names, parts = {}, []
    for name, values in record.values.items():
        values = np.asarray(values, "<f4")
        with np.errstate(invalid="ignore"):
            small = values.astype("|u1")
        if np.array_equal(small, values):
            values = small
        names[name] = values.dtype.str
        parts.append(values.tobytes())
    words = {
        "point": int(record.point), "split": record.split, "start": int(record.start),
        "stop": int(record.stop), "names": names,
    }  # fmt: skip
    return _with_checksum(words, b"".join(parts))


def _with_checksum(words, data):
    text = json.dumps(words | {"bytes": len(data)}).encode()
    return b"%08x %s\n%s" % (zlib.crc32(data, zlib.crc32(text)), text, data)


def _words_and_bytes(f):
    """(words, bytes) of the next record of a file; None at its end, or where it is not whole."""
    line = f.readline(MAX_LINE)
    checksum, _, text = line.partition(b" ")
    if not text.endswith(b"\n"):
        return None
    text = text.removesuffix(b"\n")
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None

    size = words.get("bytes") if isinstance(words, dict) else None
    if not isinstance(size, int) or not 0 <= size <= 4 * MAX_SAMPLES:
        return None
    left = os.fstat(f.fileno()).st_size - f.tell()
    if size > left:
        return None
    data = f.read(size)
    if checksum != b"%08x" % zlib.crc32(data, zlib.crc32(text)):
        return None
    return words, data


def _record_of(content):
    """The SampleRecord in (words, bytes); None where it is none."""
    if content is None:
        return None
    words, data = content
    numbers = [words.get(key) for key in ("point", "start", "stop")]
    names = words.get("names")
    if not all(type(number) is int and number >= 0 for number in numbers):
        return None
    if not isinstance(names, dict) or not all(dtype in DTYPES for dtype in names.values()):
        return None

    point, start, stop = numbers
    values, begin = {}, 0
    for name, dtype in names.items():
        end = begin + (stop - start) * np.dtype(dtype).itemsize
        if stop < start or end > len(data):
            return None
        values[name] = np.frombuffer(data[begin:end], dtype).astype(np.float32)
        begin = end
    return SampleRecord(point, str(words.get("split")), start, stop, values)
