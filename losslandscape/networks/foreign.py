"""Files of networks that hold no PyTorch weights: what they are, and what to give instead."""

import os

SAVE_WEIGHTS = "torch.save(net.state_dict(), 'weights.pt') writes a file that can be read"

LFS_MARK = b"version https://git-lfs"
LFS_POINTER = ("it is a pointer of Git LFS, not the file itself", "git lfs pull fetches it")

GIVE_PYTORCH = f"give the PyTorch network that it was made from: {SAVE_WEIGHTS}"

# how a file begins -> (what it is, what to do)
MARKS = {
    b"\x89HDF\r\n\x1a\n": ("it is an HDF5 file, as Keras and this program write", GIVE_PYTORCH),
    b"GGUF": ("it is a GGUF file of llama.cpp", "give the Hugging Face folder it was made from"),
    LFS_MARK: LFS_POINTER,
    b"<!DOCTYPE": ("it is a page of the web", "download the file itself"),
    b"<html": ("it is a page of the web", "download the file itself"),
}

# how a file's name ends, in small letters -> (what it is, what to do)
ENDINGS = {
    ".onnx": ("it is an ONNX graph", GIVE_PYTORCH),
    ".pb": ("it is a TensorFlow graph", GIVE_PYTORCH),
    ".tflite": ("it is a TensorFlow Lite model", GIVE_PYTORCH),
    ".index": ("it is a TensorFlow checkpoint", GIVE_PYTORCH),
    ".data-00000-of-00001": ("it is a TensorFlow checkpoint", GIVE_PYTORCH),
    ".msgpack": ("it is a Flax checkpoint", GIVE_PYTORCH),
    ".mlmodel": ("it is a Core ML model", GIVE_PYTORCH),
}

TORCH_SCRIPT = "it is a TorchScript program"
EXPORTED_PROGRAM = "it is a program of torch.export"
KERAS = "it is a Keras model"


def describe_file(path, head):
    """(what it is, what to do) of a file that torch.save did not write; head: its first bytes."""
    for mark, description in MARKS.items():
        if head.startswith(mark):
            return description
    for ending, description in ENDINGS.items():
        if str(path).lower().endswith(ending):
            return description
    return "this is no file of torch.save", "give the file of a trained model"


def describe_zip(path, names):
    """(what it is, what to do) of a zip file that torch.save did not write, else None.

    names: of its members.
    """
    name = os.path.basename(path)
    bases = {os.path.basename(member) for member in names}

    if "constants.pkl" in bases:
        return TORCH_SCRIPT, (
            f"save its weights: torch.save(torch.jit.load({name!r}).state_dict(), 'weights.pt'), "
            "and give the code of the network as --model")
    if bases & {"archive_format", "serialized_exported_program.json"}:
        return EXPORTED_PROGRAM, (
            f"save its weights: torch.save(torch.export.load({name!r}).state_dict, 'weights.pt'), "
            "and give the code of the network as --model")
    if "model.weights.h5" in bases:
        return KERAS, GIVE_PYTORCH
    if names and all(member.endswith(".npy") for member in names):
        return "it is an npz file of NumPy", SAVE_WEIGHTS
    if "data.pkl" not in bases:
        return "it is a zip file that torch.save did not write", SAVE_WEIGHTS
    return None


def describe_folder(names):
    """(what it is, what to do) of a folder without weights; names: of what is in it."""
    if "saved_model.pb" in names:
        return "it is a TensorFlow model", GIVE_PYTORCH
    if any(name.endswith("_model_states.pt") for name in names) or "zero_to_fp32.py" in names:
        return "it is a checkpoint of DeepSpeed", (
            "python zero_to_fp32.py . weights.pt in that folder makes one file of it; or give "
            "mp_rank_00_model_states.pt, where it holds the whole module")
    if "flax_model.msgpack" in names or "tf_model.h5" in names:
        return "it has no PyTorch weights", GIVE_PYTORCH
    return None
