"""FILE.py:function as a data set: what it gives for "train" and for "test"."""

from losslandscape import user_code
from losslandscape.data.images import AS_THEY_ARE
from losslandscape.data.npz import is_npz
from losslandscape.data.request import Data
from losslandscape.data.splits import as_split

FLAG = "--dataset"


def is_function(name):
    """Does --dataset name a function?"""
    return user_code.is_reference(name) and not is_npz(name)


def load_function(request):
    """Data of function("train") and function("test"), which may be None where none is required."""
    name = request.name
    function = user_code.load(FLAG, name)
    parts = {}
    for part in request.parts:
        source = user_code.call(FLAG, name, function, part)
        if source is None and not request.requires(part):
            continue
        parts[part] = user_code.call(
            FLAG, name, as_split, source, f"{name} ({part})", part, **request.reading)
    return Data.of_splits(name, parts, AS_THEY_ARE)
