"""Stock: networks that timm has as well, and their weights under timm's names.

Stock are the reference networks that name one of timm (any number of classes), and plain vision transformers of any
width, depth and patch: all blocks equal, softmax attention whose heads fill the width, two linear layers, layer norms
of one epsilon that timm has, learned positions, head on the class token, the mean, or the distilled one.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.core.architecture import NONE, Architecture
from nas.model.network import Network, skeleton
from nas.model.reference import Reference, load_reference, reference_names
from nas.training.pretrained import ACTIVATIONS, INITIAL_SCALE

BY_EPS = {1e-6: "vit_tiny_patch16_224", 1e-5: "vit_base_patch16_clip_224"}  # plain networks of timm by their epsilon
DISTILLED = "deit_tiny_distilled_patch16_224"


class Stock(NamedTuple):
    """A network of timm: its name there, the arguments that make it this one, and the map of its weights."""

    name: str
    args: dict[str, Any]
    family: str  # a file of nas.model.timm_weights


def stock_of(architecture: Architecture) -> Stock | None:
    """The network of timm that this is; None where timm has none."""
    return _reference(architecture) or _plain(architecture)


def timm_state(network: Network, twin: nn.Module, family: str) -> dict[str, Tensor] | None:
    """The state of timm's twin with this network's weights; None where a parameter has no counterpart.

    A family's map renames, splits and reshapes tensors and changes no value, so its reverse is found by sending
    numbered elements through it.
    """
    convert = importlib.import_module(f"nas.model.timm_weights.{family}").convert
    theirs, parameters = twin.state_dict(), {name for name, _ in twin.named_parameters()}
    numbered: dict[str, Tensor] = {}
    names, count = {}, 0
    for name, tensor in theirs.items():
        names[name] = re.sub(r"^fc_norm\.", "norm.", name)  # of a norm behind the mean
        numbered[names[name]] = torch.arange(count, count + tensor.numel()).view(tensor.shape)
        count += tensor.numel()
    places = convert(dict(numbered), network.architecture)
    values, known = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.bool)
    own = network.state_dict()
    if places.keys() != own.keys() or any(places[name].shape != own[name].shape for name in own):
        return None
    for name, place in places.items():
        values[place.flatten()] = own[name].double().flatten()
        known[place.flatten()] = True
    found = {}
    for name, tensor in theirs.items():
        place = numbered[names[name]]
        if bool(known[place].all()):
            found[name] = values[place].to(tensor.dtype)
        elif name in parameters:
            return None
        else:
            found[name] = tensor  # a constant of timm's
    return found


@cache
def _references() -> tuple[Reference, ...]:
    loaded = (load_reference(name) for name in reference_names())
    return tuple(reference for reference in loaded if reference.timm is not None and reference.weights is not None)


def _reference(architecture: Architecture) -> Stock | None:
    sizes: dict[str, Any] = {"classes": architecture.classes, "channels": architecture.channels}
    for reference in _references():
        if replace(reference.architecture, **sizes) == architecture:
            args = {"num_classes": architecture.classes, "in_chans": architecture.channels}
            return Stock(str(reference.timm), {**reference.timm_args, **args}, str(reference.weights))
    return None


def _plain(architecture: Architecture) -> Stock | None:
    """What the specs do not tell is read from the modules; what is not seen here shows when outputs are compared."""
    if len(architecture.stages) != 1 or len(set(architecture.blocks)) != 1 or not _specs_are_plain(architecture):
        return None
    stage, block = architecture.stages[0], architecture.blocks[0]
    ours: Any = skeleton(architecture)
    first, embed, norm = ours.stages[0].blocks[0], ours.stages[0].embed, ours.head.norm
    attention, hidden = first.mixer.attention, first.feedforward.up.out_features
    norms = [norm, first.norm1, first.norm2]
    layers = all(isinstance(each, nn.LayerNorm) for each in norms) and isinstance(embed.norm, nn.Identity)
    if not layers or embed.projection.bias is None or attention.q.out_features != stage.dim:
        return None
    name = DISTILLED if stage.distill_token else BY_EPS.get(norm.eps)
    if name is None or any(each.eps != norm.eps for each in norms) or (name == DISTILLED and norm.eps != 1e-6):
        return None
    args: dict[str, Any] = {
        "img_size": architecture.input,
        "in_chans": architecture.channels,
        "num_classes": architecture.classes,
        "patch_size": embed.projection.kernel_size[0],
        "embed_dim": stage.dim,
        "depth": len(architecture.blocks),
        "num_heads": attention.heads,
        "mlp_ratio": _ratio(hidden, stage.dim),
        "qkv_bias": attention.q.bias is not None,
        "no_embed_class": not stage.position.get("prefix", True),
        "reg_tokens": stage.registers,
        "class_token": stage.class_token,
        "global_pool": "avg" if architecture.head.name == "mean" else "token",
    }
    if architecture.head.name == "mean":
        args["fc_norm"] = ours.head.order == "pool_first"
    if name == BY_EPS[1e-5]:
        args["pre_norm"] = False
    if stage.position is NONE:
        args["pos_embed"] = "none"
    if block.layer_scale is not None:
        args["init_values"] = block.layer_scale or INITIAL_SCALE
    if block.feedforward.get("activation", "gelu") != "gelu":
        args["act_layer"] = block.feedforward.get("activation")
    return Stock(name, args, "vit")


def _specs_are_plain(architecture: Architecture) -> bool:
    stage, block, head = architecture.stages[0], architecture.blocks[0], architecture.head.name
    prefix = stage.class_token + stage.distill_token + stage.registers
    positions = stage.position.name == "learned" or (stage.position is NONE and not prefix)
    distilled = stage.distill_token and head == "distilled" and stage.class_token and not stage.registers
    distilled = distilled and stage.position.get("prefix", True) and positions
    return (
        (distilled or (not stage.distill_token and head in ("class_token", "mean") and positions))
        and stage.embed.name == "patch"
        and stage.end_norm is NONE
        and (block.position, block.reduction, block.exit) == (NONE, NONE, NONE)
        and block.residual == "split"
        and block.norm.name == "layer"
        and block.mixer.name == "softmax"
        and "temperature" not in dict(block.mixer.knobs)
        and block.feedforward.name == "mlp"
        and block.feedforward.get("activation", "gelu") in ACTIVATIONS.values()
    )


def _ratio(hidden: int, dim: int) -> float:
    """A ratio from which timm, that multiplies and rounds down, gets exactly this hidden width."""
    return hidden / dim if int(dim * (hidden / dim)) == hidden else (hidden + 0.5) / dim
