"""Files of weights, opened: those of torch.save and .safetensors, and refusals of all others.

    content = read_torch("model_300.t7")
    tensors, metadata = read_safetensors("model.safetensors")

Only regular files are opened: reading a FIFO or a device waits, perhaps for ever. What a file says
of its sizes is compared with its size before memory is taken for it.
"""

import contextlib
import io
import os
import pickle
import re
import types
import warnings
import zipfile

import torch

from losslandscape.errors import InputError
from losslandscape.files.opening import open_regular
from losslandscape.messages import printable
from losslandscape.networks import foreign
from losslandscape.networks.pickles import AsksForCode, Unbounded, pickle_module, survey

# how the files of torch.save begin
ZIP_MARK = b"PK\x03\x04"
PICKLE_MARK = b"\x80"  # before PyTorch 1.6
TAR_MARK = b"ustar"  # before PyTorch 0.2
TAR_MARK_OFFSET = 257
HEAD_SIZE = 512  # bytes in which every mark lies

# torch.save never compresses; whoever packs a checkpoint again may, but weights hardly shrink
MAX_INFLATION = 4
INFLATION_ALLOWANCE = 64 * 2**20  # bytes


def cannot_read(path, reason, advice="give the file of a trained model"):
    """The InputError of a file that is no usable checkpoint."""
    return InputError(f"expected a checkpoint at {path}, can't read one ({reason}); {advice}")


@contextlib.contextmanager
def open_file(path):
    """open_regular(path), in which every OSError becomes an InputError."""
    if "\0" in os.fspath(path):
        raise cannot_read(path, "no file has such a name")
    try:
        with open_regular(path) as f:
            yield f
    except OSError as error:
        raise cannot_read(path, error.strerror or error) from None


# ---------------------------------------------------------------- torch.save


def read_torch(path, trust_pickle=False, classes=None):
    """The object that torch.save wrote to `path`, on the CPU.

    No code of the file is run: what is more than tensors, arrays, plain values and their containers
    becomes a pickles.Inert. Values stay in the file, where its format allows, until they are used.
    A file that asks for what only an attack needs is refused, or, with `trust_pickle`, read by
    `run_pickle`. Raises InputError.
    """
    mark = _check_format(path)
    if mark == TAR_MARK:
        if not trust_pickle:
            raise _untrusted(path, "is of PyTorch before 0.2, which only pickle reads")
        return run_pickle(path, classes)

    # first without running code, whether or not the file is trusted
    try:
        content = _load_safely(path, mark)
        survey(content)
        return content
    except InputError:
        raise
    except Unbounded as error:
        raise cannot_read(path, _first_sentence(error)) from None
    except AsksForCode as error:
        if not trust_pickle:
            reason = f"asks for the Python object {printable(error.name)}"
            raise _untrusted(path, reason) from None
    except Exception as error:  # whatever a damaged file makes the reader raise
        if not trust_pickle:
            reason = _first_sentence(error)
            if not isinstance(error, RuntimeError | pickle.UnpicklingError):
                reason = f"it is damaged: {type(error).__name__}"
            raise cannot_read(path, reason) from None
    return run_pickle(path, classes)


def run_pickle(path, classes=None):
    """The object that torch.save wrote to `path`, read by pickle: RUNS THE CODE that it holds.

    classes: a module that has the classes which the pickle looks for in a script (`__main__`) or
    in a module that can't be imported. Raises InputError.
    """

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            try:
                return super().find_class(module, name)
            except (AttributeError, ImportError):
                if hasattr(classes, name):
                    return getattr(classes, name)
                raise

    def load(file, **options):
        return Unpickler(file, **options).load()

    module = types.SimpleNamespace(__name__="pickle", Unpickler=Unpickler, load=load)
    try:
        # latin1 reads the numbers of files written by Python 2; it makes no difference to others
        return torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=module, encoding="latin1")
    except Exception as error:  # also whatever the code of the file raises
        raise cannot_read(path, f"{type(error).__name__}: {_first_sentence(error)}") from None


def _load_safely(path, mark):
    options = {"map_location": "cpu", "weights_only": False, "encoding": "latin1"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as: this file may not be readable

        if mark == ZIP_MARK:
            with open_file(path) as f:
                members = _zip_members(f, path)
            module = pickle_module(sizes=_storage_sizes(members))
            is_stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            return torch.load(os.fspath(path), pickle_module=module, mmap=is_stored, **options)

        with open_file(path) as f:
            module = pickle_module(room=os.path.getsize(path))
            return torch.load(PlainFile(f), pickle_module=module, **options)


def load_bytes(content, path):
    """The object of a file of torch.save that is a part of another file. Raises InputError.

    content: its bytes. path: of the other file, for messages.
    """
    file = io.BytesIO(content)
    try:
        module = pickle_module(sizes=_storage_sizes(_zip_members(file, path)))
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=False, pickle_module=module)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise cannot_read(path, f"it is damaged: {_first_sentence(error)}") from None


class PlainFile:
    """A file that is read no further than its end, whatever length is asked for.

    It has no file descriptor, so that torch takes it for no archive of tar.
    """

    def __init__(self, file):
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.readline = file.readline
        self.readinto = file.readinto
        self.seek = file.seek
        self.tell = file.tell

    def read(self, count=-1):
        remaining = max(0, self._size - self.tell())
        if count < 0 or count > remaining:
            count = remaining
        return self._file.read(count)


def _check_format(path):
    """The mark with which the file begins; raises InputError unless it is one of torch.save's."""
    with open_file(path) as f:
        head = f.read(HEAD_SIZE)
    if not head:
        raise cannot_read(path, "the file is empty")

    if head[TAR_MARK_OFFSET:].startswith(TAR_MARK):
        return TAR_MARK
    for mark in (ZIP_MARK, PICKLE_MARK):
        if head.startswith(mark):
            return mark

    reason, advice = foreign.describe_file(path, head)
    raise cannot_read(path, reason, advice)


def _zip_members(file, path):
    """[ZipInfo] of a file of torch.save; raises InputError for other zip files and for bombs."""
    try:
        members = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise cannot_read(path, "its end is missing or damaged") from None
    size = file.seek(0, os.SEEK_END)

    names = [member.filename for member in members]
    foreigner = foreign.describe_zip(path, names)
    if foreigner:
        raise cannot_read(path, *foreigner)

    inflated = sum(member.file_size for member in members)
    if inflated > MAX_INFLATION * size + INFLATION_ALLOWANCE:
        raise cannot_read(path, f"its {size} bytes would become {inflated}")
    return members


def _storage_sizes(members):
    """{key: bytes} of the values of tensors, which are the members NAME/data/KEY."""
    sizes = {}
    for member in members:
        _, separator, key = member.filename.partition("/data/")
        if separator:
            sizes[key] = min(member.file_size, sizes.get(key, member.file_size))
    return sizes


def _untrusted(path, reason):
    """The InputError of a file that only pickle can read."""
    return InputError(
        f"expected only tensors, numbers and texts in {path}, but it {reason}; if you trust who "
        "made the file, --trust_pickle reads it, which runs any code that it holds")


# ---------------------------------------------------------------- safetensors


def read_safetensors(path):
    """({name: tensor}, metadata) of a .safetensors file. Raises InputError."""
    try:
        from safetensors import safe_open
    except ImportError:
        raise InputError(f"safetensors is needed to read {path}; pip install safetensors") from None

    with open_file(path) as f:
        head = f.read(HEAD_SIZE)
    if not head:
        raise cannot_read(path, "the file is empty")
    if head.startswith(foreign.LFS_MARK):
        raise cannot_read(path, *foreign.LFS_POINTER)

    try:
        with safe_open(path, framework="pt", device="cpu") as f:
            tensors = {key: f.get_tensor(key) for key in f.keys()}
            return tensors, dict(f.metadata() or {})
    except Exception as error:  # the library's own class, or OSError
        raise cannot_read(path, _first_sentence(error)) from None


def _first_sentence(error):
    """The first sentence of an error of torch or safetensors; the rest is advice to programmers."""
    line = next(iter(str(error)[:1000].splitlines()), "")
    line = re.sub(r"^\[enforce fail[^]]*\][ .]*", "", line)  # torch names a line of its own source
    sentence = re.split(r"\. | \(Could", line)[0]
    return printable(sentence) or type(error).__name__
