"""Adapters of PEFT: LoRA weights, put into a network that has its base weights from elsewhere.

    entries = merged(net, checkpoint)    {name in the network: tensor}, of what the adapter changes

Into a plain network they are merged: W + s B A, with A (r, inputs), B (outputs, r) and the scale
s = alpha / r, or alpha / sqrt(r) with `use_rslora` (Hu et al. 2021, arXiv 2106.09685; Kalajdzievski
2023, arXiv 2312.03732). A network that PEFT has wrapped gets A and B themselves.
"""

import math
import re

import torch

from losslandscape.messages import printable
from losslandscape.networks.fit import name_without_wrappers, names_in_words
from losslandscape.networks.formats import cannot_read

WRAPPED = "base_model.model."  # before every name of an adapter's file
MERGE = "give the merged network: model.merge_and_unload().save_pretrained(DIR)"

# kinds of adapters whose change of the weights is another one; their keys in the configuration
UNSUPPORTED = (
    "use_dora", "use_qalora", "use_bdlora", "target_parameters", "layer_replication", "kasa_config",
    "alora_invocation_tokens", "arrow_config", "trainable_token_indices", "monteclora_config",
    "velora_config", "megatron_config",
)  # fmt: skip

# matrices of one layer: file names end so
LOW_RANK = re.compile(r"(?P<layer>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.weight)?")


def merged(net, checkpoint):
    """{name: tensor} of a network with an adapter; what it does not change is not in it.

    Raises InputError for an adapter that is no LoRA, or not of this network.
    """
    config, path, entries = checkpoint.adapter, checkpoint.path, checkpoint.state_dict
    if config.get("peft_type") != "LORA":
        kind = printable(str(config.get("peft_type")))
        raise cannot_read(path, f"it is an adapter of kind {kind}, no LoRA", MERGE)
    kinds = [key for key in UNSUPPORTED if config.get(key)]
    if kinds:
        raise cannot_read(path, f"it is a LoRA adapter with {kinds[0]}", MERGE)
    unusable = [name for name, value in entries.items() if not isinstance(value, torch.Tensor)]
    if unusable:
        raise cannot_read(path, f"its {printable(unusable[0])} is no plain tensor")

    if any(".lora_" in name for name in net.state_dict()):
        return _by_names(net, entries, path)
    return _into_plain(net, entries, config, path)


def _by_names(net, entries, path):
    """Into a network that PEFT has wrapped: names differ by that of the adapter ('default')."""
    names = {}
    for name in net.state_dict():
        plain = re.sub(r"\.modules_to_save\.[^.]+", "", name)
        plain = re.sub(r"(\.lora_(?:embedding_)?[AB])\.[^.]+", r"\1", plain)
        is_of_adapter = plain != name
        names.setdefault(plain, (name, is_of_adapter))
        if is_of_adapter:
            names[plain] = (name, True)

    unknown = [key for key in entries if key not in names]
    missing = [key for key, (_, is_needed) in names.items() if is_needed and key not in entries]
    if unknown or missing:
        raise cannot_read(
            path, f"of the adapter, {len(missing)} keys are missing, {len(unknown)} unexpected "
            f"({names_in_words([*unknown, *missing])})", "check --model and --model_kwargs")
    return {names[key][0]: value for key, value in entries.items()}


def _into_plain(net, entries, config, path):
    """Into the base network: products are added, whole tensors put in the place of others."""
    state = net.state_dict()
    names = {name_without_wrappers(name): name for name in state}
    modules = {name_without_wrappers(name): module for name, module in net.named_modules()}

    # matrices by layer, and tensors that replace those of the network
    factors, changed = {}, {}
    for key, value in entries.items():
        name = key.removeprefix(WRAPPED).replace(".base_layer.", ".")
        match = LOW_RANK.fullmatch(name)
        if match:
            layer = factors.setdefault(match["layer"], {"is_embedding": bool(match["embedding"])})
            layer[match["factor"]] = value
        elif name in names and state[names[name]].shape == value.shape:
            changed[names[name]] = value
        else:
            raise cannot_read(path, f"its {printable(key)} is of no tensor of this network",
                              f"check --model, or {MERGE}")

    # W + s B A
    for layer, matrices in factors.items():
        name = names.get(f"{layer}.weight")
        if name is None or not {"A", "B"} <= matrices.keys():
            raise cannot_read(
                path, f"it changes {printable(layer)}, which this network does not have",
                "check --model: it must build the base network of the adapter")
        weight = changed.get(name, state[name])
        is_transposed = matrices["is_embedding"] or type(modules[layer]).__name__ == "Conv1D"
        change = product(matrices["A"], matrices["B"], is_transposed)
        if change.numel() != weight.numel() or len(change) != len(weight):
            raise cannot_read(path, f"its change of {printable(layer)} has another shape than "
                              f"{tuple(weight.shape)}", "check --model and --model_kwargs")
        scale = scale_of(layer, len(matrices["A"]), config, path)
        changed[name] = weight + (scale * change).reshape(weight.shape).to(weight.dtype)
    _refuse_tied(net, changed, path)
    return changed


def _refuse_tied(net, changed, path):
    """Raise InputError where a changed tensor has another name, under which it stays as it is.

    PEFT changes an embedding and leaves the output layer that is tied to it.
    """
    tensors = net.state_dict(keep_vars=True)
    names = {id(tensors[name]): name for name in changed}
    for name, tensor in tensors.items():
        if name not in changed and id(tensor) in names:
            raise cannot_read(
                path, f"it changes {names[id(tensor)]}, but not {name}, which is the same tensor",
                "let --model return get_peft_model(network, configuration)")


def product(a, b, is_transposed):
    """B A as a matrix (outputs, inputs * kernel), or its transpose, at least in float32."""
    dtype = torch.promote_types(a.dtype, torch.float32)
    change = b.flatten(1).to(dtype) @ a.flatten(1).to(dtype)
    if is_transposed:
        return change.t()
    return change


def scale_of(layer, rank, config, path):
    """The factor of the product of a layer. Raises InputError."""
    alpha = config.get("lora_alpha")
    patterns = config.get("alpha_pattern") or {}
    for pattern, value in patterns.items():
        if not re.fullmatch(r"[\w.]+", pattern):  # a regular expression could take for ever
            raise cannot_read(path, "its alpha_pattern has regular expressions", MERGE)
        if f".{layer}".endswith(f".{pattern}"):
            alpha = value
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise cannot_read(path, "its lora_alpha is no number")
    if config.get("use_rslora"):
        return alpha / math.sqrt(rank)
    return alpha / rank
