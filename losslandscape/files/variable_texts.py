"""Texts of variable length in HDF5 files, read in a process of their own.

    read_variable_texts("old.h5")   {"dir_file": "model.t7_weights.h5"}

HDF5 keeps such texts in a heap of its own. One wrong bit there, and it crashes, or searches for
ever: this process must not do that, for it may hold the results of hours. Files of the original and
of our first version have them; reading one costs a start of Python, some 0.2 s.
"""

import contextlib
import functools
import json
import math
import os
import resource
import subprocess
import sys
import time

from losslandscape.errors import InputError
from losslandscape.messages import printable

MAX_TEXT = 10**7  # characters; provenances have some thousands, paths fewer
MAX_SECONDS = 2  # of computing
MAX_WAIT_SECONDS = 120  # for a Python to start, from a slow disk, and to read
MAX_MEMORY = 1 << 30  # bytes beyond what the libraries take

CHILD = """
import sys
sys.path[:] = sys.argv[3:]
from losslandscape.files.variable_texts import print_texts
print_texts(sys.argv[1], int(sys.argv[2]))
"""


def read_variable_texts(path):
    """{name: text} of the data set dir_file and the attribute provenance, where they are there.

    Raises InputError where they can't be read.
    """
    state = os.stat(path)
    return _read_once(os.path.abspath(path), state.st_ino, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _read_once(path, *_):
    """The texts of a file; what follows the path says which version of it."""
    # -S: the paths are ours already
    command = [sys.executable, "-S", "-c", CHILD, path, str(MAX_SECONDS), *sys.path]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=MAX_WAIT_SECONDS,
            env=environment)
        texts = json.loads(child.stdout)
    except OSError as error:
        raise _unread(path, f"no process can be started for them: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise _unread(path, f"they take more than {MAX_WAIT_SECONDS} s") from None
    except ValueError:
        raise _unread(path, _cause_of_end(child)) from None
    if not isinstance(texts, dict):
        raise _unread(path, "they are none")
    return texts


def _unread(path, cause):
    return InputError(f"can't read the texts in {path}, HDF5 fails on them ({cause}); "
                      "the file is damaged")


def _cause_of_end(child):
    """Why the other process wrote nothing, in words."""
    if child.returncode < 0:
        return f"it is ended by signal {-child.returncode}"
    last_lines = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return printable(*last_lines or ["it ends"])


# ---------------------------------------------------------------- in the other process


def print_texts(path, seconds):
    """Print the texts of a file as JSON, and end; a crash, or more than `seconds`, hit nobody else."""
    import h5py

    _limit_this_process(seconds)
    texts = {}
    with h5py.File(path, "r", locking=False) as f:
        if "dir_file" in f and h5py.check_string_dtype(f["dir_file"].dtype) is not None:
            texts["dir_file"] = f["dir_file"].asstr(errors="surrogateescape")[()]
        if "provenance" in f.attrs:
            texts["provenance"] = f.attrs["provenance"]

    for name, text in texts.items():
        # an array of one text
        if not isinstance(text, str | bytes):
            (text,) = text
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        if len(text) > MAX_TEXT:
            raise ValueError(f"{name} has {len(text)} characters")
        texts[name] = text

    sys.stdout.write(json.dumps(texts))
    sys.stdout.flush()
    os._exit(0)


def _limit_this_process(seconds):
    """Let the system end this process if it takes too much; some systems can't."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = math.ceil(time.process_time()) + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/statm") as f:
            pages = int(f.read().split()[0])
        memory = pages * resource.getpagesize() + MAX_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
