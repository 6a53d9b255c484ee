"""HDF5 files, of which nothing is believed. Only this module, and variable_texts.py, import h5py.

    with open_hdf5(path, "surface file") as f:
        f.members()                      {name: is it a data set?} of what lies at the top
        f.numbers("train_loss", shape)   an array
        f.text("dir_file")               a text
        f.provenance()                   from what it was made

    write_hdf5(path, fill, provenance)   the whole file, at once

A file may hold anything, so what is asked of it comes with three promises:

- No other file is read. Links to other places or files, external storage and virtual data sets
  could show the contents of any file, or values that nobody computed; they are refused.
- Memory grows with the size of the file, whatever it claims to hold, see `_Budget`.
- Texts of variable length, whose damage crashes HDF5, are read in another process
  (variable_texts.py). Ours have a fixed length.

Whatever is wrong becomes an InputError that names the file.
"""

import contextlib
import json
import math
import os
import zlib

import h5py
import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import provenance as provenances
from losslandscape.files.atomic import write_file
from losslandscape.files.opening import refuse_special
from losslandscape.files.variable_texts import MAX_TEXT, read_variable_texts

# numpy's kinds of numbers: floating-point, integer (signed, unsigned), bool
NUMBERS = "fiub"

READ_ERRORS = (
    OSError, KeyError, TypeError, ValueError, RuntimeError, MemoryError, OverflowError, zlib.error)

MAX_NAME = 1000  # letters of the name of a data set; they are shown in tables and figures
MAX_ATTRIBUTE = 60_000  # bytes of a text of fixed length; HDF5 takes attributes of up to 64 kB

# ---------------------------------------------------------------- reading


@contextlib.contextmanager
def open_hdf5(path, kind):
    """Hdf5Contents of the file at `path`; kind: what is expected there, in words.

    Raises InputError, also for what goes wrong while the caller reads.
    """
    refuse_special(path)
    if not os.path.exists(path):
        raise InputError(f"expected a {kind} at {path}, found nothing there; check the name")
    try:
        # files are never changed in place: no lock is needed, and file systems without locks work
        with h5py.File(path, "r", locking=False) as root:
            yield Hdf5Contents(root, path)
    except InputError:
        raise
    except READ_ERRORS as error:
        reason = type(error).__name__
        if str(error):
            reason = str(error).splitlines()[0]
        raise InputError(f"expected a {kind}, but {path} can't be read as one ({reason}); "
                         "name another file") from None


class Hdf5Contents:
    """What is in an open HDF5 file. Every method raises InputError for what can't be used."""

    def __init__(self, root, path):
        self.path = os.fspath(path)
        self._root = root
        self._budget = _Budget(path)

    def members(self, group=""):
        """{name: is it a data set?} of what lies at the top of the file, or in one of its groups."""
        parent = self._root
        if group:
            parent = self._node(group)
        if not isinstance(parent, h5py.Group):
            raise self._refusal(f"expected a group {group!r}, found none")

        is_data_set = {}
        for name in parent:
            # h5py gives bytes where the name is no UTF-8
            is_text = isinstance(name, str) and name.isprintable() and len(name) <= MAX_NAME
            if not is_text:
                raise self._refusal(f"expected names that are short texts, got {name!r:.60}")
            is_data_set[name] = isinstance(self._member(parent, name), h5py.Dataset)
        return is_data_set

    def __contains__(self, name):
        """Is there a group or data set of this name, such as 'computed/train_loss'?"""
        return self._node(name) is not None

    def shape(self, name):
        """Shape of a data set."""
        return self._data_set(name).shape

    def kind(self, name):
        """numpy's kind of the values of a data set, a letter; NUMBERS are numbers."""
        return self._data_set(name).dtype.kind

    def numbers(self, name, shape=None, kinds=NUMBERS):
        """A data set as an array in the machine's byte order.

        shape: what it must have; kinds: of numpy dtypes that it may have. Both, and the size, are
        checked before anything is read.
        """
        data = self._data_set(name)
        if data.dtype.kind not in kinds:
            raise InputError(f"expected numbers as {name!r} in {self.path}, got another type; "
                             "is this the right file?")
        if shape is not None and data.shape != shape:
            raise self._refusal(f"expected {name!r} of shape {shape}, got {data.shape}")

        self._refuse_unbacked(data, name)
        array = np.asarray(data[()])
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def text(self, name, max_length):
        """The text in a data set, of at most `max_length` characters."""
        data = self._data_set(name)
        length = self._length_of_text(data.dtype, data.shape, name)
        if length is None:
            text = read_variable_texts(self.path)[name]
        else:
            self._refuse_unbacked(data, name)
            text = _decoded(data[()])

        if len(text) > max_length:
            raise self._refusal(f"expected a text of at most {max_length} characters as {name!r}, "
                                f"got {len(text)}")
        return text

    def provenance(self):
        """From what the file was made; {} for files of the original, which do not say it."""
        name = "provenance"
        if name not in self._root.attrs:
            return {}
        attribute = self._root.attrs.get_id(name)
        length = self._length_of_text(attribute.dtype, attribute.shape, name)
        if length is None:
            text = read_variable_texts(self.path)[name]
        else:
            text = _decoded(self._root.attrs[name])
        return provenances.from_json(text, self.path)

    # ------------------------------------------------------------ nothing is believed

    def _refusal(self, words):
        return InputError(f"{words} in {self.path}; the file is damaged")

    def _node(self, path):
        """The group or data set at 'group/name', None where there is none."""
        node = self._root
        for name in path.split("/"):
            if not isinstance(node, h5py.Group) or not node.id.links.exists(_link_name(name)):
                return None
            node = self._member(node, name)
        return node

    def _member(self, group, name):
        """What a group holds under `name`; links that lead elsewhere are not followed."""
        link = group.id.links.get_info(_link_name(name))
        if link.type != h5py.h5l.TYPE_HARD:
            raise InputError(
                f"expected values as {name!r} in {self.path}, found a link to another place or "
                "file, which is not followed; put the values into the file")
        return group[name]

    def _data_set(self, name):
        data = self._node(name)
        if not isinstance(data, h5py.Dataset):
            raise InputError(f"expected a data set {name!r} in {self.path}, found none; "
                             "is this the right file?")
        if data.shape is None:
            raise self._refusal(f"expected values as {name!r}, got an empty data set")
        return data

    def _length_of_text(self, dtype, shape, name):
        """Bytes of a text of fixed length; None where the length is variable."""
        string = h5py.check_string_dtype(dtype)
        if string is None or shape not in ((), (1,)):
            raise self._refusal(f"expected a text as {name!r}")
        if string.length is not None and string.length > MAX_TEXT:
            raise self._refusal(f"expected a text of at most {MAX_TEXT} bytes as {name!r}, "
                                f"got {string.length}")
        return string.length

    def _refuse_unbacked(self, data, name):
        """Raises InputError unless all values of a data set are in this file.

        HDF5 would read other files, or fill in what is missing, without a word.
        """
        layout = data.id.get_create_plist()
        is_virtual = layout.get_layout() == h5py.h5d.VIRTUAL
        if is_virtual or layout.get_external_count() > 0:
            raise InputError(
                f"expected the values of {name!r} in {self.path}, found the name of another file "
                "that holds them, which is not read; put the values into the file")

        size = math.prod(data.shape) * data.dtype.itemsize
        if data.chunks is None:
            is_complete = data.id.get_storage_size() >= size
        else:
            counts = [math.ceil(n / chunk)
                      for n, chunk in zip(data.shape, data.chunks, strict=True)]
            size = math.prod(counts) * math.prod(data.chunks) * data.dtype.itemsize
            is_complete = data.id.get_num_chunks() == math.prod(counts)
        if not is_complete:
            raise self._refusal(f"expected {data.shape} values in {name!r}, which are not all")

        self._budget.spend(size, name)
        if layout.get_nfilters() > 0:
            _refuse_decompression_bomb(data, layout, name, self.path)


def _link_name(name):
    return name.encode("utf-8", "surrogateescape")


def _decoded(text):
    """str of a text of fixed length, alone or as an array of one; paths may hold any bytes."""
    if isinstance(text, np.ndarray):
        text = text.item()
    return bytes(text).decode("utf-8", "surrogateescape")


# ---------------------------------------------------------------- memory


class _Budget:
    """Bytes that may be read from a file.

    Files of a few kB can claim gigabytes: as data sets without values, as links to the same data
    set, compressed. So what is read may be so many times as large as the file, and no larger.
    """

    FREE = 256 << 20
    TIMES = 20  # of the size of the file; compressed numbers take a tenth

    def __init__(self, path):
        self._path = path
        self._left = self.FREE + self.TIMES * os.path.getsize(path)

    def spend(self, size, name):
        """Count `size` bytes; raises InputError where they are too many."""
        self._left -= size
        if self._left < 0:
            raise InputError(
                f"{name!r} in {self._path} claims {size / 1e9:.3g} GB, far more than the file can "
                "hold; the file is damaged")


MAX_COMPRESSED_CHUNKS = 4096  # looking at n of them takes a time of n * n: seconds
GZIP = h5py.h5z.FILTER_DEFLATE
HARMLESS_FILTERS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)  # they keep the size


def _refuse_decompression_bomb(data, layout, name, path):
    """Raises InputError unless every chunk of a compressed data set has its size when unpacked.

    HDF5 unpacks whatever comes, gigabytes from a megabyte.
    """
    filters = [layout.get_filter(i)[0] for i in range(layout.get_nfilters())]
    gzips = filters.count(GZIP)
    is_known = all(filter in HARMLESS_FILTERS for filter in filters if filter != GZIP)
    count = data.id.get_num_chunks()
    if gzips > 1 or not is_known or count > MAX_COMPRESSED_CHUNKS:
        raise InputError(
            f"expected {name!r} in {path} uncompressed, or with gzip in at most "
            f"{MAX_COMPRESSED_CHUNKS} chunks; unpack it: h5repack -f NONE {path} NEW.h5")
    if gzips == 0:
        return

    size = math.prod(data.chunks) * data.dtype.itemsize
    for i in range(count):
        offset = data.id.get_chunk_info(i).chunk_offset
        left_out, packed = data.id.read_direct_chunk(offset)
        if left_out & (1 << filters.index(GZIP)):  # a chunk that gzip would not make smaller
            continue
        if len(zlib.decompressobj().decompress(packed, size + 5)) > size + 4:  # 4: a checksum
            raise InputError(
                f"a chunk of {name!r} in {path} is larger than the file says; the file is damaged")


# ---------------------------------------------------------------- writing


def write_hdf5(path, fill, provenance):
    """Build an HDF5 file in memory with `fill(f)`, then write it whole. Raises InputError."""
    provenances.check_provenance(provenance, path)
    with h5py.File("memory", "w", driver="core", backing_store=False) as f:
        fill(f)
        text = json.dumps(provenance)
        if len(text) <= MAX_ATTRIBUTE:
            text = fixed_text(text)
        f.attrs["provenance"] = text
        f.flush()
        image = f.id.get_file_image()
    write_file(path, image)


def fixed_text(text):
    """A text as HDF5 holds it in place, with a fixed length; readers get bytes."""
    encoded = text.encode("utf-8", "surrogateescape") or b"\0"  # no length is not allowed
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", len(encoded)))
