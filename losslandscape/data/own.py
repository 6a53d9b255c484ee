"""FILE.py:function as a data set: what the function gives for "train" and for "test" (see splits.as_split)."""

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
    """Data of function("train") and function("test"); None is "no such set" where none has to be there."""
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
