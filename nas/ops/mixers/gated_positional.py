"""Gated positional self-attention (ConViT): each head mixes attention to content with attention to places by a gate.

Paper: d'Ascoli et al., "ConViT: improving vision transformers with soft convolutional inductive biases", ICML 2021,
https://arxiv.org/abs/2103.10697
Weights (1 - s) softmax(q k^T scale) + s softmax(a dx + b dy + c (dx^2 + dy^2)), s = sigmoid(gate) per head. Initially
head p looks at one offset of a sqrt(heads) x sqrt(heads) kernel (heads beyond the largest square keep a random start),
values are the identity and gates are 1: the layer starts as a convolution.
Limits: the map is needed, so no fused attention; square distances grow with the grid. The paper lets the class token
join after these layers; a prefix token that is here already neither looks nor is looked at.
MACs 4NC^2 + 2N^2C + 3N^2 heads.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from nas.core.cost import Cost, attend, linear, weights
from nas.core.knobs import FLAG, Maybe, Whole
from nas.ops.base import Mixer
from nas.ops.parts import attention as core
from nas.ops.parts.constant import constant
from nas.ops.site import Site
from nas.ops.tokens import Tokens


class GatedPositional(Mixer):
    cells: Tensor  # (N, 2) x and y of each token
    takes = frozenset({"grid"})
    prefix = "bypasses"
    family = "attention"
    shared = frozenset({"attention"})
    emits = frozenset({"output"})
    knobs = {"heads": Whole(1, 64), "head_dim": Maybe(Whole(1, 256)), "qkv_bias": FLAG}
    examples = ({}, {"heads": [4, 9], "head_dim": 8}, {"heads": 3, "qkv_bias": True})

    def __init__(self, site: Site, *, heads: int = 4, head_dim: int | None = None, qkv_bias: bool = False):
        super().__init__()
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        self.attention = core.Projections(site.dim, heads, head_dim, bias=qkv_bias)
        self.scale = core.scale_of("head", site.dim, head_dim)
        self.position = nn.Linear(3, heads)
        self.gate = nn.Parameter(torch.ones(heads))
        y, x = np.divmod(np.arange(site.height * site.width, dtype=np.float32), np.float32(site.width))
        constant(self, "cells", np.stack((x, y), axis=1))

    @classmethod
    def heads_of(cls, dim: int, *, heads: int = 4, head_dim: int | None = None, **_: object) -> tuple[int, int]:
        return core.resolve_heads(dim, heads, head_dim)

    @classmethod
    def cost(cls, site: Site, *, heads: int = 4, head_dim: int | None = None, qkv_bias: bool = False) -> Cost:
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        count = site.tokens
        projected = core.projections_cost(site.dim, heads, head_dim, count, count, bias=qkv_bias)
        placed = linear(count * count, 3, heads) + weights(heads)
        return projected + placed + attend(count, count, heads, head_dim, fused=False)

    def init(self) -> None:
        nn.init.eye_(self.attention.v.weight)
        side = math.isqrt(self.attention.heads)
        with torch.no_grad():
            for head in range(side * side):
                column, row = divmod(head, side)
                offset = (2 * column - (side - 1), 2 * row - (side - 1), -1)  # the peak of -(d - offset)^2
                self.position.weight[head] = torch.tensor(offset, dtype=torch.float32)

    def places(self) -> Tensor:
        """Positional weights (heads, N, N), the same for every image."""
        offset = self.cells[None] - self.cells[:, None]  # from query to key
        features = torch.cat((offset, offset.square().sum(dim=-1, keepdim=True)), dim=-1)
        return self.position(features).permute(2, 0, 1).softmax(dim=-1)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        patches = x[:, tokens.prefix :]
        q, k, v = self.attention.triple(patches)
        content = core.attention_map(q, k, self.scale)
        gate = self.gate.sigmoid()[:, None, None].to(content.dtype)
        mixed = torch.lerp(content, self.places().to(content.dtype), gate)  # sums to 1 as both do
        out = tokens.bypass(self.attention.merge(mixed @ v))
        tokens.carry["output"] = out
        return out
