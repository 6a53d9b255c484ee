"""Checkpoints of several files.

    model.safetensors.index.json     says which tensor is in which file; Hugging Face
    DIR                              with model.safetensors, pytorch_model.bin, or one's index
    DIR                              with adapter_config.json: an adapter of PEFT (see adapters.py)
    DIR                              with .metadata: torch.distributed.checkpoint (see sharded.py)

`files_of` says which files count, `read` reads them.
"""

import json
import os

from losslandscape.networks import foreign, sharded
from losslandscape.networks.fit import names_in_words
from losslandscape.networks.formats import cannot_read, open_file

INDEX_ENDING = ".index.json"
MAX_JSON_BYTES = 64 * 2**20

# in a folder, the first of these that is there counts
WEIGHT_FILES = tuple(
    name + ending
    for name in ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors",
                 "diffusion_pytorch_model.bin")
    for ending in ("", INDEX_ENDING)
)  # fmt: skip
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")


def is_of_several_files(path):
    """Whether a checkpoint is more than the file at `path`."""
    return os.path.isdir(path) or path.endswith(INDEX_ENDING) or _is_adapter(path)


def files_of(path):
    """[paths] of the files that make up the checkpoint at `path`. Raises InputError."""
    if not is_of_several_files(path):
        return [path]
    if path.endswith(INDEX_ENDING):
        folder = os.path.dirname(path)
        return [path, *(os.path.join(folder, file) for file in _shards(path))]

    folder = _folder_of(path)
    if _is_adapter(path):
        return [os.path.join(folder, ADAPTER_CONFIG), _adapter_file(folder)]
    if sharded.is_sharded(folder):
        return sharded.metadata_and_chunks(folder)
    return files_of(_weight_file(folder))


def read_folder(path, read_file):
    """(content, metadata, configuration of an adapter) of the checkpoint at `path`.

    read_file(path) -> (content, metadata) reads a single file. Raises InputError.
    """
    if path.endswith(INDEX_ENDING):
        return _read_shards(path, read_file), {}, {}

    folder = _folder_of(path)
    if _is_adapter(path):
        config = read_json(os.path.join(folder, ADAPTER_CONFIG))
        return *read_file(_adapter_file(folder)), config
    if sharded.is_sharded(folder):
        return sharded.read_sharded(folder), {}, {}

    file = _weight_file(folder)
    if is_of_several_files(file):
        return read_folder(file, read_file)
    return *read_file(file), {}


def read_json(path):
    """The JSON object in a file; raises InputError."""
    with open_file(path) as f:
        text = f.read(MAX_JSON_BYTES + 1)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or len(text) > MAX_JSON_BYTES:
        raise cannot_read(path, "it holds no JSON object")
    return value


# ---------------------------------------------------------------- shards


def _shards(index):
    """{file name: names of its tensors} of an index; raises InputError."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise cannot_read(index, "it says of no tensor in which file it is")

    shards = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or os.path.basename(file) != file or not file.strip("."):
            raise cannot_read(index, "it names a file of another folder")
        shards.setdefault(file, []).append(name)
    return shards


def _read_shards(index, read_file):
    tensors = {}
    for file, names in _shards(index).items():
        path = os.path.join(os.path.dirname(index), file)
        content, _ = read_file(path)
        missing = [name for name in names if not isinstance(content, dict) or name not in content]
        if missing:
            raise cannot_read(path, f"it lacks {names_in_words(missing)}",
                              "copy all files of the folder anew")
        tensors |= {name: content[name] for name in names}
    return tensors


# ---------------------------------------------------------------- folders


def _folder_of(path):
    if os.path.isdir(path):
        return path
    return os.path.dirname(path) or "."


def _is_adapter(path):
    """Whether `path` is the folder of an adapter, or the file of its weights in there."""
    if not os.path.isdir(path) and os.path.basename(path) not in ADAPTER_FILES:
        return False
    return os.path.isfile(os.path.join(_folder_of(path), ADAPTER_CONFIG))


def _adapter_file(folder):
    for name in ADAPTER_FILES:
        if os.path.exists(os.path.join(folder, name)):
            return os.path.join(folder, name)
    raise cannot_read(folder, f"it has {ADAPTER_CONFIG}, but no {ADAPTER_FILES[0]}")


def _weight_file(folder):
    """The file of a folder that has its weights, or their index; raises InputError."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise cannot_read(folder, error.strerror) from None

    for name in WEIGHT_FILES:
        if name in names:
            return os.path.join(folder, name)
    description = foreign.describe_folder(names)
    if description:
        raise cannot_read(folder, *description)
    raise cannot_read(
        folder, f"this folder has no {WEIGHT_FILES[0]} but {names_in_words(names) or 'nothing'}",
        "give the file of a trained model, or the folder of save_pretrained()")
