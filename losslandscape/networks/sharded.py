"""Folders of torch.distributed.checkpoint (DCP), as FSDP and Fabric write them, on one process.

    DIR/.metadata         a pickle: {name: shape, dtype, chunks}, and where each chunk is
    DIR/__0_0.distcp      chunks one after the other, each a tensor as torch.save writes it

The classes of the metadata are torch's. They are made by pickle itself, once it is certain that the
file names no other ones (METADATA_NAMES); the chunks are read like any file of torch.save.
"""

import io
import os
import pickle

import torch

from losslandscape.messages import printable
from losslandscape.networks.formats import cannot_read, load_bytes, open_file
from losslandscape.networks.pickles import Name, SafeUnpickler, check_key

METADATA_FILE = ".metadata"
CHUNK_ENDING = ".distcp"

# what the pickle of a metadata file may name, besides the dtypes of torch
_METADATA = "torch.distributed.checkpoint.metadata"
METADATA_NAMES = {
    f"{_METADATA}.{name}" for name in (
        "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata",
        "BytesStorageMetadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")
} | {
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.Size",
    "torch.serialization._get_layout",
    "collections.OrderedDict",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "pathlib.WindowsPath",
}  # fmt: skip


def is_sharded(folder):
    return os.path.exists(os.path.join(folder, METADATA_FILE))


def metadata_and_chunks(folder):
    """[paths] of the metadata and of all files with chunks, sorted."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(CHUNK_ENDING))
    return [os.path.join(folder, name) for name in (METADATA_FILE, *names)]


def read_sharded(folder):
    """{name: tensor} of a DCP folder; what was a dict in the saved dict is one: {"model": {...}}.

    States of optimizers and what is no tensor are left out. Raises InputError.
    """
    metadata = read_metadata(folder)
    sizes = {os.path.basename(file): os.path.getsize(file) for file in metadata_and_chunks(folder)}
    outlines = {
        name: outline for name, outline in metadata.state_dict_metadata.items()
        if hasattr(outline, "chunks") and not name.startswith("optim")
    }  # fmt: skip

    # the sizes are compared with those of the files before memory is taken for them
    claimed = sum(
        outline.size.numel() * outline.properties.dtype.itemsize for outline in outlines.values())
    if claimed > sum(sizes.values()):
        raise cannot_read(folder, f"it claims {claimed} bytes of values, more than it has")
    tensors = {
        name: torch.empty(outline.size, dtype=outline.properties.dtype)
        for name, outline in outlines.items()
    }  # fmt: skip

    # every value must come from a chunk
    remaining = {name: tensor.numel() for name, tensor in tensors.items()}
    for index, place in metadata.storage_data.items():
        if index.fqn in tensors:
            chunk = read_chunk(folder, place, sizes)
            put(chunk, tensors[index.fqn], index.offset, folder)
            remaining[index.fqn] -= chunk.numel()
    incomplete = [name for name, count in remaining.items() if count != 0]
    if incomplete:
        raise cannot_read(folder, f"chunks of {printable(incomplete[0])} are missing")

    return nested(tensors, metadata.planner_data)


def read_metadata(folder):
    """torch.distributed.checkpoint.metadata.Metadata of a folder. Raises InputError."""
    path = os.path.join(folder, METADATA_FILE)
    with open_file(path) as f:
        content = f.read()

    names = set()

    class Reader(SafeUnpickler):
        def find_class(self, module, name):
            stand_in = super().find_class(module, name)
            if isinstance(stand_in, Name):
                names.add(stand_in.path)
            return stand_in

        def check_key(self, key):  # the hash of torch's objects is that of their attributes
            check_key(key, look_into_objects=True)

    # first read by names alone, then by pickle itself
    try:
        Reader(io.BytesIO(content)).load()
        foreign_names = sorted(names - METADATA_NAMES)
        if foreign_names:
            raise cannot_read(path, f"it asks for {printable(foreign_names[0])}")

        import torch.distributed.checkpoint.filesystem  # noqa: F401  (takes a second)

        metadata = pickle.loads(content)
        check_metadata(metadata)
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError,
            ImportError, RuntimeError) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        raise cannot_read(path, f"it is damaged: {reason:.100}") from None
    return metadata


def check_metadata(metadata):
    """Raise an error unless the metadata are what `read_sharded` relies on."""
    for name, outline in metadata.state_dict_metadata.items():
        if not isinstance(name, str):
            raise TypeError("a name that is no text")
        if hasattr(outline, "chunks"):
            torch.Size(outline.size)
            outline.properties.dtype.itemsize  # noqa: B018
    for index, place in metadata.storage_data.items():
        numbers = (place.offset, place.length)
        if not isinstance(index.fqn, str) or not all(type(each) is int for each in numbers):
            raise TypeError("a chunk without place")


def read_chunk(folder, place, sizes):
    """The tensor at a place of a file; place: a _StorageInfo. Raises InputError."""
    file = str(place.relative_path)
    path = os.path.join(folder, file)
    if file not in sizes or file == METADATA_FILE:
        raise cannot_read(folder, f"chunks are in {printable(file)}, which is not there")
    if getattr(place, "transform_descriptors", None):
        raise cannot_read(
            path, "its chunks are compressed",
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR FILE makes one "
            "file of the folder")
    if not 0 <= place.offset <= place.offset + place.length <= sizes[file]:
        raise cannot_read(path, "it is too short")

    with open_file(path) as f:
        f.seek(place.offset)
        content = f.read(place.length)
    chunk = load_bytes(content, path)
    if not isinstance(chunk, torch.Tensor):
        raise cannot_read(path, f"it holds {type(chunk).__name__} as a tensor")
    return chunk


def put(chunk, tensor, offset, folder):
    """Write a chunk into its tensor, from `offset` on (None for the whole); raises InputError."""
    target = tensor
    for dimension, start in enumerate(offset or ()):
        length = chunk.shape[dimension] if dimension < chunk.dim() else 0
        if not 0 <= start <= start + length <= tensor.shape[dimension]:
            raise cannot_read(folder, "a chunk lies outside of its tensor")
        target = target.narrow(dimension, start, length)
    if target.shape != chunk.shape or target.dtype != chunk.dtype:
        raise cannot_read(folder, "a chunk lies outside of its tensor")
    target.copy_(chunk)


def nested(tensors, paths):
    """{name: tensor} in dicts as they were saved; paths: {name: (key, key, ...)} or None."""
    content = {}
    for name, tensor in tensors.items():
        path = (paths or {}).get(name)
        if isinstance(path, tuple) and len(path) > 1 and all(isinstance(key, str) for key in path):
            content.setdefault(path[0], {})[".".join(path[1:])] = tensor
        else:
            content[name] = tensor
    return content
