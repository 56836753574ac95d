"""Polyline path mask attention: softmax attention biased by learned decays along the two-legged paths between cells.

Paper: Zhao et al., "Polyline path masked attention for vision transformer", NeurIPS 2025,
https://arxiv.org/abs/2506.15940
Each cell has a step along its row and one along its column, made of its features. The log weight of a path is minus the
sum of its steps: along the row of the query, then along the column of the key.
The map is the mean of two, of the scores with this mask and with its transpose (the column first). With `axial` (the
early stages) attention acts within rows and within columns, each with its leg of the path, one after the other in both
orders, and the mean of both is taken. Queries and keys carry rotary phases of the cell's place in row order (`rotary`),
and a depthwise convolution of the values is added (`lepe` is its kernel, 0 leaves it out).
Limits: needs the grid; an even head dimension where rotary; heads divide the width; prefix tokens are left as they are.
MACs 4NC^2 + 2NC + lepe^2 NC, and 2N^2 C, or 3N(H + W)C where axial, at heads * head_dim = C.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.cost import NOTHING, Cost, attend, conv, linear, product, total, weights
from nas.core.knobs import FLAG, Maybe, Whole, one_of
from nas.ops.base import Mixer, Share, centre
from nas.ops.parts import attention as core
from nas.ops.parts.constant import constant
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens, map_from_rows, rows_from_map

STEPS = (0.001, 0.1)  # initial steps, log-uniform, as in Mamba-2
SPEEDS = (1.0, 1.1)  # initial factors of the steps


class PathMask(Mixer):
    knobs = {
        "axial": FLAG,
        "heads": Whole(1, 64),
        "head_dim": Maybe(Whole(1, 256)),
        "rotary": FLAG,
        "lepe": one_of(0, 3, 5, 7),
    }
    family = "attention"
    shared = frozenset({"attention"})
    takes = frozenset({"grid"})
    prefix = "bypasses"
    examples = (
        {"axial": [False, True], "heads": 2},
        {"axial": True, "heads": [2, 4], "head_dim": 16, "lepe": [3, 5]},
        {"heads": 4, "rotary": False, "lepe": 0},
    )
    cos: Tensor  # (N, head_dim), where rotary
    sin: Tensor

    def __init__(
        self,
        site: Site,
        *,
        axial: bool = False,
        heads: int = 4,
        head_dim: int | None = None,
        rotary: bool = True,
        lepe: int = 5,
    ):
        super().__init__()
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        inner = heads * head_dim
        self.attention = core.Projections(site.dim, heads, head_dim)
        self.scale = core.scale_of("head", site.dim, head_dim)
        self.axial, self.heads = axial, heads
        self.lepe = nn.Conv2d(inner, inner, lepe, padding=lepe // 2, groups=inner) if lepe else None
        self.steps = nn.Linear(site.dim // heads, 2, bias=False)
        step = torch.empty(heads).uniform_(math.log(STEPS[0]), math.log(STEPS[1])).exp()
        self.step_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus gives the step
        self.log_speed = nn.Parameter(torch.empty(heads).uniform_(*SPEEDS).log())
        self.rotary = rotary
        if rotary:
            cos, sin = phases(site.height * site.width, head_dim)
            constant(self, "cos", cos)
            constant(self, "sin", sin)

    @classmethod
    def heads_of(cls, dim: int, *, heads: int = 4, head_dim: int | None = None, **_: object) -> tuple[int, int]:
        return core.resolve_heads(dim, heads, head_dim)

    @classmethod
    def rule(
        cls, form: Form, *, heads: int = 4, head_dim: int | None = None, rotary: bool = True, **_: object
    ) -> str | None:
        if form.dim % heads:
            return f"its steps are made per head: {heads} heads do not divide the width {form.dim}"
        if rotary and (head_dim or form.dim // heads) % 2:
            return f"rotary phases need an even head dimension, {head_dim or form.dim // heads} is not"
        return None

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        axial: bool = False,
        heads: int = 4,
        head_dim: int | None = None,
        rotary: bool = True,
        lepe: int = 5,
    ) -> Cost:
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        height, width, inner = site.height, site.width, heads * head_dim
        rows = height * width
        if axial:
            attended = total(
                attend(width, width, heads, head_dim, groups=height, fused=False),
                attend(height, height, heads, head_dim, groups=width, fused=False),
                product(width, width, head_dim, batch=heads * height),
                product(height, height, head_dim, batch=heads * width),
            )
        else:
            attended = attend(rows, rows, heads, head_dim, fused=False)
        return total(
            core.projections_cost(site.dim, heads, head_dim, rows, rows),
            conv(site.grid, inner, inner, lepe, groups=inner) if lepe else NOTHING,
            linear(rows * heads, site.dim // heads, 2, bias=False),
            weights(2 * heads),
            attended,
        )

    def share(self, name: str) -> Share:
        return Share(name, centre) if name == "lepe.weight" else Share(name)

    def legs(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Log weights (minus lengths) between the cells of rows (B, H, h, W, W) and of columns (B, W, h, H, H)."""
        # On a strided input of many dimensions a linear layer becomes a batched product, whose last bit depends on the
        # strides of the weight: the slice and the extracted network would differ. Hence contiguous.
        per_head = grid.contiguous().unflatten(-1, (self.heads, -1))
        steps = F.softplus(self.steps(per_head) + self.step_bias[:, None])
        steps = steps * self.log_speed.exp()[:, None]  # (B, H, W, h, 2)
        return span(steps[..., 0].transpose(2, 3)), span(steps[..., 1].permute(0, 2, 3, 1))

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        grid = tokens.grid_of(x)
        patches = grid.flatten(1, 2)
        q, k, v = self.attention.triple(patches)
        if self.rotary:
            q, k = (core.rotate(t, (self.cos, self.sin), 0) for t in (q, k))
        along, down = self.legs(grid)
        out = self.by_axes(q, k, v, along, down) if self.axial else self.globally(q, k, v, along, down)
        if self.lepe is not None:
            values = map_from_rows(v.transpose(1, 2).flatten(2), grid.shape[1:3])
            out = out + rows_from_map(self.lepe(values))
        return tokens.bypass(self.attention.out(out))

    def globally(self, q: Tensor, k: Tensor, v: Tensor, along: Tensor, down: Tensor) -> Tensor:
        """(B, N, h * d)."""
        # from cell (i, j) to cell (a, b): the row of the query to column b, then column b
        path = along.permute(0, 2, 1, 3, 4)[:, :, :, :, None, :] + down.permute(0, 2, 3, 4, 1)[:, :, :, None]
        path = path.flatten(4, 5).flatten(2, 3)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        both = (scores + path).softmax(dim=-1) + (scores + path.transpose(-2, -1)).softmax(dim=-1)
        return ((0.5 * both) @ v).transpose(1, 2).flatten(2)

    def by_axes(self, q: Tensor, k: Tensor, v: Tensor, along: Tensor, down: Tensor) -> Tensor:
        """(B, N, h * d)."""
        size = (along.shape[1], down.shape[1])
        q, k, v = (t.unflatten(2, size).transpose(1, 2) for t in (q * self.scale, k, v))  # (B, H, h, W, d)
        rows = (q @ k.transpose(-2, -1) + along).softmax(dim=-1)
        columns = (turn(q) @ turn(k).transpose(-2, -1) + down).softmax(dim=-1)
        out = turn(columns @ turn(rows @ v)) + rows @ turn(columns @ turn(v))
        return (0.5 * out).transpose(2, 3).flatten(3).flatten(1, 2)


def turn(x: Tensor) -> Tensor:
    """(B, H, h, W, d) to (B, W, h, H, d), and back."""
    return x.transpose(1, 3)


def span(steps: Tensor) -> Tensor:
    """(..., n) steps to (..., n, n): minus their sum between two places, the later one's included."""
    ends = steps.cumsum(dim=-1)
    return -(ends[..., :, None] - ends[..., None, :]).abs()


def phases(count: int, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine (count, head_dim), wavelengths from 1 to 10000, both of a pair alike."""
    angles = np.arange(count)[:, None] * np.repeat(10000.0 ** -np.linspace(0, 1, head_dim // 2), 2)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
