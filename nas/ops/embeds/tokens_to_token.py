"""Tokens-to-token stem (T2T-ViT): overlapping patches are unfolded three times, with a thin attention in between.

Paper: Yuan et al., "Tokens-to-token ViT", ICCV 2021, https://arxiv.org/abs/2101.11986
Unfold 7x7 by 4, attention, unfold 3x3 by 2, attention, unfold 3x3 by 2, linear; `middle` is the width in between.
`kind=performer` attends by positive random features (Choromanski et al., "Rethinking attention with performers", ICLR
2021, https://arxiv.org/abs/2009.14794), `middle` / 2 of them, drawn once and fixed; `kind=transformer` by softmax with
the scale of its input's width. The residual carries the values.
Limits: slow for its MACs: the unfolded maps are 49 and 9 times their input. MACs of each attention on n tokens of width
D: n (3DW + 3W^2) and 2 n W^2 (performer) or 2 n^2 W (transformer); N 9 W C at the end.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.cost import Cost, attend, linear, product, total, weights
from nas.core.knobs import Whole, one_of
from nas.ops.base import Embed, Share
from nas.ops.parts.attention import attend as softmax_attention
from nas.ops.site import Site
from nas.ops.tokens import Tokens, map_from_rows

TINY = 1e-8


class Thin(nn.Module):
    """Norm, one head of attention whose residual is the values, norm, feed-forward."""

    def __init__(self, inputs: int, width: int, kind: str):
        super().__init__()
        self.norm1 = nn.LayerNorm(inputs)
        self.q, self.k, self.v = (nn.Linear(inputs, width, bias=kind == "performer") for _ in range(3))
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)
        self.scale = inputs**-0.5
        self.features: Tensor | None
        self.register_buffer("features", torch.empty(width // 2, width) if kind == "performer" else None)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x)
        q, k, v = self.q(x), self.k(x), self.v(x)
        x = v + self.out(self._performer(q, k, v) if self.features is not None else self._softmax(q, k, v))
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def _softmax(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return softmax_attention(q[:, None], k[:, None], v[:, None], self.scale)[:, 0]

    def _performer(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = self._positive(q), self._positive(k)
        weight = (q * k.sum(dim=1, keepdim=True)).sum(dim=-1, keepdim=True)
        return q @ (k.transpose(1, 2) @ v) / (weight + TINY)

    def _positive(self, x: Tensor) -> Tensor:
        assert self.features is not None
        exponent = F.linear(x, self.features) - x.square().sum(dim=-1, keepdim=True) / 2
        return exponent.exp() / math.sqrt(self.features.shape[0])


def thin_cost(rows: int, inputs: int, width: int, kind: str) -> Cost:
    projection = linear(rows, inputs, width, bias=kind == "performer")
    inner = linear(rows, width, width)
    if kind == "performer":
        features = width // 2
        draw = product(rows, width, features, attention=False)
        core = draw + draw + product(features, rows, width) + product(rows, features, width)
    else:
        core = attend(rows, rows, 1, width)
    return total(projection, projection, projection, core, inner, inner, inner, weights(2 * inputs + 2 * width))


class TokensToToken(Embed):
    knobs = {"kind": one_of("performer", "transformer"), "middle": Whole(2, 1024)}
    examples = ({"middle": 16}, {"kind": ["performer", "transformer"], "middle": [8, 16]})

    def __init__(self, site: Site, *, dim: int, kind: str = "performer", middle: int = 64):
        super().__init__()
        self.attention1 = Thin(49 * site.dim, middle, kind)
        self.attention2 = Thin(9 * middle, middle, kind)
        self.projection = nn.Linear(9 * middle, dim)

    def init(self) -> None:
        for attention in (self.attention1, self.attention2):
            if attention.features is not None:
                nn.init.orthogonal_(attention.features, gain=math.sqrt(attention.features.shape[0]))

    @classmethod
    def out(cls, height: int, width: int, **_: object) -> tuple[int, int]:
        grid = _unfolded(height, width, 7, 4, 2)
        return _unfolded(*_unfolded(*grid, 3, 2, 1), 3, 2, 1)

    @classmethod
    def cost(cls, site: Site, *, dim: int, kind: str = "performer", middle: int = 64) -> Cost:
        first = _unfolded(*site.grid, 7, 4, 2)
        second = _unfolded(*first, 3, 2, 1)
        return total(
            thin_cost(math.prod(first), 49 * site.dim, middle, kind),
            thin_cost(math.prod(second), 9 * middle, middle, kind),
            linear(math.prod(cls.out(*site.grid)), 9 * middle, dim),
        )

    def share(self, name: str) -> Share:
        if name.endswith("features"):  # rows orthogonal at one width are not so at another
            attention = self.attention1 if name.startswith("attention1") else self.attention2
            return Share(f"{name}@{attention.up.weight.shape[0]}")
        return Share(name)

    def forward(self, tokens: Tokens) -> Tensor:
        grid = tokens.height, tokens.width
        x = self.attention1(F.unfold(tokens.map_of(tokens.x), 7, stride=4, padding=2).transpose(1, 2))
        grid = _unfolded(*grid, 7, 4, 2)
        x = self.attention2(F.unfold(map_from_rows(x, grid), 3, stride=2, padding=1).transpose(1, 2))
        grid = _unfolded(*grid, 3, 2, 1)
        return self.projection(F.unfold(map_from_rows(x, grid), 3, stride=2, padding=1).transpose(1, 2))


def _unfolded(height: int, width: int, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """The grid that an unfold leaves."""
    spare = 2 * padding - kernel
    return (height + spare) // stride + 1, (width + spare) // stride + 1
