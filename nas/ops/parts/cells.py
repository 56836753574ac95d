"""What stands inside MobileViT's block: transformer layers over cells, in its two versions.

Mehta and Rastegari, "MobileViT", ICLR 2022, https://arxiv.org/abs/2110.02178 (softmax, layer norm); "Separable
self-attention for mobile vision transformers", TMLR 2023, https://arxiv.org/abs/2206.02680 (separable, group norm).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.cost import Cost, attend, linear, weights
from nas.ops.parts import attention as core
from nas.ops.parts.separable import SeparableAttention, separable_cost


class CellLayer(nn.Module):
    """A pre-norm transformer layer over (B, P, N / P, D), attention within each of the P positions."""

    def __init__(self, dim: int, attention: str, heads: int, ratio: float):
        super().__init__()
        softmax = attention == "softmax"
        self.norm1, self.norm2 = cell_norm(attention, dim), cell_norm(attention, dim)
        self.attention = core.Projections(dim, heads, dim // heads) if softmax else SeparableAttention(dim)
        self.scale = (dim // heads) ** -0.5
        self.up = nn.Linear(dim, int(dim * ratio))
        self.down = nn.Linear(int(dim * ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if isinstance(self.attention, core.Projections):
            y = y.flatten(0, 1)
            q, k, v = self.attention.triple(y)
            y = self.attention.merge(core.attend(q, k, v, self.scale)).unflatten(0, x.shape[:2])
        else:
            y = self.attention(y)
        x = x + y
        return x + self.down(F.silu(self.up(self.norm2(x))))


class SampleNorm(nn.Module):
    """Group norm of one group over (B, ..., C): statistics of a whole sample, a scale and a shift a channel."""

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, self.weight, F.layer_norm(x, x.shape[1:], eps=self.eps))


def cell_norm(attention: str, dim: int) -> nn.Module:
    """The norm of version 1 or 2."""
    return nn.LayerNorm(dim, eps=1e-5) if attention == "softmax" else SampleNorm(dim)


def cell_layer_cost(rows: int, positions: int, dim: int, attention: str, heads: int, ratio: float) -> Cost:
    """One layer over this many tokens in all."""
    hidden, group = int(dim * ratio), rows // positions
    if attention == "softmax":
        around = attend(group, group, heads, dim // heads, groups=positions)
        mixed = core.projections_cost(dim, heads, dim // heads, rows, rows) + around
    else:
        mixed = separable_cost(rows, dim)
    return mixed + linear(rows, dim, hidden) + linear(rows, hidden, dim) + weights(4 * dim)
