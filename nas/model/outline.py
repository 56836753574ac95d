"""Outline: a network in a few words a block, as pictures and tables of it show."""

from __future__ import annotations

from typing import Any

from nas.core.architecture import NONE, Architecture
from nas.core.spec import Spec
from nas.model.plan import block_plan, input_site, stage_site
from nas.ops.catalogue import Catalogue, catalogue


def outline(architecture: Architecture, operators: Catalogue | None = None) -> list[dict[str, Any]]:
    """One row for each block, in order; texts are "" where the block has no such operator.

    Keys: stage, embed (on a stage's first block), mixer, feedforward, reduction, exit, width (channels), tokens (patch
    tokens that enter the block), left (those that leave it).
    """
    operators = operators or catalogue()
    site, rows = input_site(architecture), []
    for number, stage in enumerate(architecture.stages):
        site = stage_site(operators, stage, site)
        for depth, block in enumerate(stage.blocks):
            out = block_plan(operators, block, site).out
            rows.append(
                {
                    "stage": number,
                    "embed": "" if depth else _text(stage.embed),
                    "mixer": _text(block.mixer),
                    "feedforward": _text(block.feedforward),
                    "reduction": _text(block.reduction),
                    "exit": _text(block.exit),
                    "width": stage.dim,
                    "tokens": site.tokens,
                    "left": out.tokens,
                }
            )
            site = out
    return rows


def _text(spec: Spec) -> str:
    return "" if spec is NONE else str(spec)
