"""Start from timm's trained networks: their weights in ours, and the elastic supernet around one.

A name is timm's, with its tag or without (`deit_small_patch16_224.fb_in1k`), `local-dir:<folder>` (what
`timm.models.save_for_hf` writes; its weights must be safetensors), or `hf-hub:<repository>`; `@random` at its end takes
fresh weights. Known are the plain vision transformers of timm (ViT, DeiT, distilled DeiT, DeiT III; with registers;
head on class token or mean) of any width and depth, and the networks of search_spaces/reference that name one of timm.
Other sizes of images, numbers of classes and channels are timm's to adapt. The result is checked: both networks must
answer random images alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.core.architecture import Architecture
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.model.elastic import Elastic, elastic_document, fill
from nas.model.importance import least_important, scores_of, sort_units
from nas.model.network import Network
from nas.model.reference import Reference, load_reference, reference_names
from nas.model.spaces import shared_rules
from nas.model.supernet import Supernet
from nas.model.timm_weights import load_timm
from nas.training.data.randomness import seeded

RANDOM = "@random"
TOLERANCE = 1e-4  # of the largest logit
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu", "ReLU": "relu"}
INITIAL_SCALE = 1e-5  # of a LayerScale whose weights come from elsewhere


class Pretrained(NamedTuple):
    """A network with timm's weights, and whether its classifier is fresh, for another number of classes."""

    network: Network
    fresh_classifier: bool


class Elasticised(NamedTuple):
    """A space around a trained network, its file, the supernet with the weights, the whole network, and remarks."""

    space: Space
    document: dict[str, Any]
    supernet: Supernet
    whole: Architecture
    notes: list[str]


def load_pretrained(
    name: str, *, input: int | None = None, classes: int | None = None, channels: int | None = None, seed: int = 0
) -> Pretrained:
    """timm's network as ours, in eval mode; what is not given is as timm has it. Fresh weights come from the seed."""
    with seeded(seed):
        theirs, fresh = _timm_network(name, {"img_size": input, "num_classes": classes, "in_chans": channels})
        architecture, family = _counterpart(name, theirs, {"input": input, "classes": classes, "channels": channels})
        ours = Network(architecture, init=False).eval()
        state = {re.sub(r"^fc_norm\.", "norm.", key): value for key, value in theirs.state_dict().items()}
        try:
            load_timm(ours, state, family)
        except InputError as error:
            raise error.with_place(name) from None
        _check_alike(name, ours, theirs)
    return Pretrained(ours, fresh)


def elastic_supernet(
    name: str,
    elastic: Elastic | None = None,
    *,
    input: int | None = None,
    classes: int | None = None,
    channels: int | None = None,
    batches: Iterable[tuple[Tensor, Tensor]] | None = None,
    seed: int = 0,
) -> Elasticised:
    """The elastic supernet around a network of timm.

    batches: training images with labels, by whose loss heads and hidden units are ranked; without them, or where the
    classifier is fresh, they are ranked by the weights alone.
    """
    network, fresh = load_pretrained(name, input=input, classes=classes, channels=channels, seed=seed)
    made = make_elastic(network, elastic, batches=None if fresh else batches, seed=seed, name=_space_name(name))
    if fresh:
        made.notes.append(f"{name}: the classifier is fresh, for {network.num_classes} classes")
    return made


def make_elastic(
    network: Network,
    elastic: Elastic | None = None,
    *,
    batches: Iterable[tuple[Tensor, Tensor]] | None = None,
    seed: int = 0,
    name: str = "elastic",
) -> Elasticised:
    """The elastic supernet around any trained network, whose units are put in order of importance, in place.

    The whole network of the space is the network given, with the same function. Weights that it has not, if any, come
    from the seed.
    """
    elastic = Elastic() if elastic is None else elastic
    scores = scores_of(network, batches)
    sort_units(network, scores)
    droppable = least_important(network.architecture, scores, elastic.drop)
    document = elastic_document(network.architecture, elastic, droppable, name)
    space = Space.parse(document, shared_rules(), name)
    with seeded(seed):
        supernet = Supernet(space)
    whole = fill(supernet, network)
    means = "their weights" if batches is None else "their effect on the loss of training images"
    notes = [f"{len(scores)} layers sorted by {means}; may be left out: {', '.join(droppable) or 'none'}"]
    return Elasticised(space, document, supernet.eval(), whole, notes)


def _timm_network(name: str, wanted: dict[str, int | None]) -> tuple[nn.Module, bool]:
    """timm's network in eval mode, and whether its classifier is fresh although weights were asked for."""
    import timm  # takes seconds

    plain, weights = name.removesuffix(RANDOM), not name.endswith(RANDOM)
    arguments: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    local = plain.startswith("local-dir:")
    if local:
        folder = Path(plain.removeprefix("local-dir:"))
        if weights and not (folder / "model.safetensors").is_file():
            raise InputError("a local folder has config.json and model.safetensors", place=str(folder))
    elif not plain.startswith("hf-hub:"):
        known = timm.list_models()
        if plain.partition(".")[0] not in known:
            raise InputError("unknown timm network", value=plain, nearest=nearest(plain, known))
        reference = _references().get(plain.partition(".")[0])
        arguments = {**(reference.timm_args if reference else {}), **arguments}
    if weights and not local:
        arguments["pretrained_cfg_overlay"] = {"hf_hub_filename": "model.safetensors"}  # never a pickle
    try:
        made = _create(plain, weights, arguments)
    except Exception as error:  # timm, the hub and the network raise what they like
        first = next(iter(str(error).splitlines()), "")
        raise InputError(f"timm cannot make it ({type(error).__name__}: {first[:200]})", value=name) from error
    held = made.pretrained_cfg.get("num_classes")  # type: ignore[union-attr, operator]
    return made.eval(), weights and wanted["num_classes"] is not None and wanted["num_classes"] != held


def _create(name: str, weights: bool, arguments: dict[str, Any]) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, pretrained=weights, **arguments)
    except TypeError:
        if "img_size" not in arguments:
            raise
        sizeless = {key: value for key, value in arguments.items() if key != "img_size"}  # it takes images of any size
        return timm.create_model(name, pretrained=weights, **sizeless)


def _counterpart(name: str, theirs: nn.Module, wanted: dict[str, int | None]) -> tuple[Architecture, str]:
    """Our architecture of timm's network, and the family of its weights."""
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(theirs, VisionTransformer):
        document, family = _plain_document(name, theirs), "vit"
    else:
        reference = _references().get(str(theirs.pretrained_cfg.get("architecture")))  # type: ignore[union-attr, operator]
        if reference is None or reference.weights is None:
            rule = "no map of this network's weights: known are plain vision transformers and the reference networks"
            raise InputError(rule, value=name, nearest=nearest(name, _references()))
        document, family = reference.architecture.to_dict(), reference.weights
    document.update({key: value for key, value in wanted.items() if value is not None})
    return Space.parse(document, shared_rules(), name).only(), family


@cache
def _references() -> dict[str, Reference]:
    """The reference networks that are networks of timm, by their names there."""
    loaded = (load_reference(name) for name in reference_names())
    return {reference.timm: reference for reference in loaded if reference.timm is not None}


def _plain_document(name: str, theirs: Any) -> dict[str, Any]:
    """The architecture of timm's plain vision transformer, read from its modules. What is not seen here shows when the
    weights are mapped and outputs compared."""
    from timm.layers.mlp import Mlp
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.vision_transformer import Block

    first, embed = theirs.blocks[0], theirs.patch_embed
    final = theirs.fc_norm if isinstance(theirs.norm, nn.Identity) else theirs.norm
    plain = type(first) is Block and type(first.mlp) is Mlp and isinstance(embed, PatchEmbed)
    if not plain or not isinstance(final, nn.LayerNorm) or not isinstance(first.norm1, nn.LayerNorm):
        rule = "a plain vision transformer has patches, attention, two linear layers and layer norms"
        raise InputError(rule, value=name)
    activation = ACTIVATIONS.get(type(first.mlp.act).__name__)
    if activation is None:
        raise InputError("no such activation here", value=type(first.mlp.act).__name__, place=name)
    distilled = theirs.num_prefix_tokens - theirs.num_reg_tokens - theirs.has_class_token
    if distilled:
        head = f"distilled(eps={final.eps})"
    elif theirs.global_pool == "token":
        head = f"class_token(eps={final.eps})"
    else:
        order = "norm_first" if final is theirs.norm else "pool_first"
        head = f"mean(eps={final.eps}, order={order})"
    heads, bias = first.attn.num_heads, first.attn.qkv.bias is not None
    block = {
        "repeat": len(theirs.blocks),
        "norm": f"layer(eps={first.norm1.eps})",
        "mixer": f"softmax(heads={heads}, head_dim={first.attn.head_dim}, qkv_bias={bias})",
        "feedforward": f"mlp(hidden={first.mlp.fc1.out_features}, activation={activation})",
        "layer_scale": None if isinstance(first.ls1, nn.Identity) else INITIAL_SCALE,
    }
    stage = {
        "embed": f"patch(size={embed.patch_size[0]})",
        "dim": theirs.embed_dim,
        "class_token": bool(theirs.has_class_token),
        "distill_token": bool(distilled),
        "registers": theirs.num_reg_tokens,
        "position": "none" if theirs.pos_embed is None else f"learned(prefix={not theirs.no_embed_class})",
        "blocks": [block],
    }
    size = {"input": embed.img_size[0], "channels": embed.proj.in_channels, "classes": theirs.num_classes}
    return {"name": _space_name(name), **size, "stages": [stage], "head": head}


@torch.no_grad()
def _check_alike(name: str, ours: Network, theirs: nn.Module) -> None:
    """Refuse a network that does not answer as timm's does."""
    side = ours.architecture.input
    image = torch.randn(2, ours.architecture.channels, side, side)
    expected, found = theirs(image), ours(image)
    apart = float((found - expected).abs().max()) if found.shape == expected.shape else float("inf")
    if not apart <= TOLERANCE * float(expected.abs().max()):
        rule = (
            f"our network must answer as timm's does, and is {apart:.2g} apart: it has something that is not known here"
        )
        raise InputError(rule, value=name)


def _space_name(name: str) -> str:
    """A short name for a space around a network."""
    last = re.split(r"[/:\\]", name)[-1]
    return "elastic " + re.sub(r"[^A-Za-z0-9_.-]+", "_", last)[-80:]
