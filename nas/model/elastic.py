"""Elastic: the space around one trained architecture: fewer heads, narrower layers, layers left out, fewer tokens.

A layer that is left out is written as `none` at its own place, so that every other layer keeps its place in the bank,
and with it its weights. The space holds the whole architecture and what lies below it; the residual keeps its width.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field

from nas.core.architecture import NONE, Architecture, Block, Stage
from nas.core.config import Strict
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.around import write
from nas.model.importance import interchangeable_heads, interchangeable_hidden
from nas.model.network import Network
from nas.model.plan import heads_of, input_site, stage_site
from nas.model.spaces import shared_rules
from nas.model.supernet import Supernet
from nas.ops.base import FeedForward, Mixer, Position
from nas.ops.catalogue import Catalogue, catalogue, knob_defaults

Part = Annotated[float, Field(gt=0, le=1)]


def _with_whole(parts: list[float]) -> list[float]:
    if 1.0 not in parts:
        raise ValueError("1.0 is among the parts: the space holds the whole network")
    return parts


Parts = Annotated[list[Part], AfterValidator(_with_whole)]


class Elastic(Strict):
    """What may be left out of a trained network. Parts are of what it has."""

    heads: Parts = [1.0, 5 / 6, 2 / 3, 1 / 2]  # rounded to whole heads, at least one
    hidden: Parts = [1.0, 3 / 4, 1 / 2]  # of the feed-forward's width, rounded to multiples of 8
    drop: float = Field(
        default=1 / 3, ge=0, le=1
    )  # share of each stage's layers that may be left out: the least important
    keep: list[Part] = [0.9, 0.7, 0.5]  # tokens kept by EViT, where there is a class token
    merge: list[Part] = [0.1, 0.25]  # tokens merged by ToMe
    reduce_at: list[int] | None = None  # blocks with a choice of reduction; by default at 1/4, 1/2 and 3/4 of the depth


RIGID = Elastic(heads=[1.0], hidden=[1.0], drop=0.0, keep=[], merge=[])


def elastic_document(
    architecture: Architecture, elastic: Elastic, droppable: Collection[str] = (), name: str = "elastic"
) -> dict[str, Any]:
    """The space file around an architecture. droppable: places such as "stages.0.blocks.3.mixer" that may be none.

    Heads and widths are offered where `nas.model.importance` knows how to sort them; layers may be left out where they
    are added as residuals of their own and nothing else in the block is for them. Tokens are reduced in plain networks:
    one stage, softmax attention throughout.
    """
    operators = catalogue()
    document = copy.deepcopy(architecture.to_dict())
    for number, (written, stage) in enumerate(zip(document["stages"], architecture.stages, strict=True)):
        blocks = [entry for entry in written["blocks"] for _ in range(entry.get("repeat", 1))]
        written["blocks"] = [
            _block(entry, stage, depth, elastic, f"stages.{number}.blocks.{depth}", droppable, operators)
            for depth, entry in enumerate(blocks)
        ]
    if len(architecture.stages) == 1 and all(block.mixer.name == "softmax" for block in architecture.blocks):
        _offer_reductions(document["stages"][0]["blocks"], architecture, elastic, operators)
    return {"name": name, **document}


def elastic_space(
    architecture: Architecture, elastic: Elastic, droppable: Collection[str] = (), name: str = "elastic"
) -> Space:
    """The space of `elastic_document`."""
    return Space.parse(elastic_document(architecture, elastic, droppable, name), shared_rules(), name)


def whole(architecture: Architecture) -> Architecture:
    """The same network as the elastic space writes it: head dimension and hidden width given outright."""
    return elastic_space(architecture, RIGID).only()


@torch.no_grad()
def fill(supernet: Supernet, network: Network) -> Architecture:
    """Copy a network's weights to where the bank holds them, and say as which architecture of the space: its own, or
    `whole` of it."""
    architecture = network.architecture
    if architecture not in supernet.space:
        architecture = whole(architecture)
    supernet.bind(architecture).load_state_dict(network.state_dict())
    return architecture


def _block(
    entry: dict[str, Any],
    stage: Stage,
    depth: int,
    elastic: Elastic,
    place: str,
    droppable: Collection[str],
    operators: Catalogue,
) -> dict[str, Any]:
    """A block's entry with choices."""
    block = stage.blocks[depth]
    following = stage.blocks[depth + 1] if depth + 1 < len(stage.blocks) else None
    made = {key: value for key, value in entry.items() if key != "repeat"}
    if interchangeable_heads(block, following, operators):
        heads, head_dim = heads_of(operators, block.mixer, stage.dim)
        counts = list(dict.fromkeys(max(1, int(part * heads + 0.5)) for part in elastic.heads))
        made["mixer"] = write(block.mixer.name, {**dict(block.mixer.knobs), "heads": counts, "head_dim": head_dim})
    if interchangeable_hidden(block):
        made["feedforward"] = _widths(block, stage.dim, elastic, operators)
    for kind in ("mixer", "feedforward"):
        if f"{place}.{kind}" in droppable and _may_leave(block, kind, operators):
            made[kind] = [made[kind], "none"]
    return made


def _widths(block: Block, dim: int, elastic: Elastic, operators: Catalogue) -> str:
    """The feed-forward with its choices of hidden width."""
    spec = block.feedforward
    knobs = dict(spec.knobs)
    width = knobs.pop("hidden", None)
    ratio = knobs.pop("ratio", knob_defaults(operators.get("feedforward", spec.name))["ratio"])
    width = int(dim * ratio) if width is None else width
    widths = [width if part == 1.0 else min(width, max(8, 8 * int(part * width / 8 + 0.5))) for part in elastic.hidden]
    return write(spec.name, {**knobs, "hidden": list(dict.fromkeys(widths))})


def _may_leave(block: Block, kind: str, operators: Catalogue) -> bool:
    """Whether without this layer the block is the identity there, and nothing else in it is for the layer."""
    spec = getattr(block, kind)
    if spec is NONE or block.residual != "split":
        return False
    cls = operators.get(kind, spec.name)
    assert issubclass(cls, (Mixer, FeedForward))
    if kind == "mixer" and block.position is not NONE:
        position = operators.get("position", block.position.name)
        assert issubclass(position, Position)
        return cls.residual and not position.supplies
    return cls.residual


def _offer_reductions(
    blocks: list[dict[str, Any]], architecture: Architecture, elastic: Elastic, operators: Catalogue
) -> None:
    """A choice of token reduction in some blocks that have none."""
    stage = architecture.stages[0]
    tokens = stage_site(operators, stage, input_site(architecture)).tokens
    merged = list(dict.fromkeys(count for part in elastic.merge if (count := int(part * tokens + 0.5))))
    options = ["none"]
    if elastic.keep and stage.class_token:
        options.append(write("evit", {"keep": elastic.keep}))
    if merged:
        options.append(write("tome", {"r": merged}))
    depth = len(blocks)
    places = elastic.reduce_at if elastic.reduce_at is not None else sorted({depth * q // 4 for q in (1, 2, 3)})
    for place in places:
        if not 0 <= place < depth:
            rule = f"reduce_at gives blocks of the network, 0 to {depth - 1}"
            raise InputError(rule, value=place, place="elastic")
        if len(options) > 1 and "reduction" not in blocks[place]:
            blocks[place]["reduction"] = options
