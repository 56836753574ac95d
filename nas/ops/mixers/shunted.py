"""Shunted self-attention: groups of heads read keys and values coarsened at different rates.

Paper: Ren et al., "Shunted self-attention via multi-scale token aggregation", CVPR 2022,
https://arxiv.org/abs/2111.15193
`rates` gives each group its rate, falling: a convolution of that size and stride, layer norm, GELU, then the keys and
values of the group's heads; `local` adds a depthwise convolution to the values. The single rate (1,) is plain attention
whose local convolution is added to its result instead. Prefix tokens query, and stand among the keys as they are.
Limits: needs the grid; rows and columns beyond a multiple of a rate are not among the keys, as in the authors' code.
MACs 2NC^2 + per group NC^2 (the convolution) + 2M C^2 / g + 2NMC / g + 9MC / g, at g groups and M = N / rate^2 keys.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.cost import NOTHING, Cost, attend, conv, linear
from nas.core.knobs import FLAG, Maybe, TupleOf, Whole
from nas.ops.base import Mixer, Share
from nas.ops.parts import attention as core
from nas.ops.parts.norms import make_norm, norm_cost
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens, map_from_rows, rows_from_map


class Coarse(nn.Module):
    """A map at a rate, as rows (B, M, C)."""

    def __init__(self, dim: int, rate: int):
        super().__init__()
        self.reduce = nn.Conv2d(dim, dim, rate, stride=rate)
        self.norm = make_norm("layer", dim, 1e-5)

    def forward(self, image: Tensor) -> Tensor:
        return F.gelu(self.norm(rows_from_map(self.reduce(image))))


class Shunted(Mixer):
    takes = frozenset({"grid"})
    knobs = {
        "heads": Whole(1, 64),
        "head_dim": Maybe(Whole(1, 256)),
        "rates": TupleOf(Whole(1, 16), 1, 4),
        "local": FLAG,
        "qkv_bias": FLAG,
    }
    family = "attention"
    shared = frozenset({"attention"})
    emits = frozenset({"output"})
    examples = (
        {"heads": [2, 4], "rates": [(4, 2), (2, 1)]},
        {"heads": 3, "head_dim": 16, "rates": (4, 2, 1), "qkv_bias": False},
        {"heads": 2, "rates": [(1,), (2,)], "local": [True, False]},
    )

    def __init__(
        self,
        site: Site,
        *,
        heads: int = 2,
        head_dim: int | None = None,
        rates: tuple[int, ...] = (2, 1),
        local: bool = True,
        qkv_bias: bool = True,
    ):
        super().__init__()
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        self.attention = core.Projections(site.dim, heads, head_dim, bias=qkv_bias)
        self.scale = core.scale_of("head", site.dim, head_dim)
        self.rates = rates
        self.width = heads * head_dim // len(rates)  # channels of a group
        self.heads = heads // len(rates)  # heads of a group
        self.coarse = nn.ModuleList([Coarse(site.dim, rate) for rate in rates if rates != (1,)])
        self.local = nn.ModuleList(
            [nn.Conv2d(self.width, self.width, 3, padding=1, groups=self.width) for _ in rates if local]
        )

    @classmethod
    def heads_of(cls, dim: int, *, heads: int = 2, head_dim: int | None = None, **_: object) -> tuple[int, int]:
        return core.resolve_heads(dim, heads, head_dim)

    @classmethod
    def rule(cls, form: Form, *, heads: int = 2, rates: tuple[int, ...] = (2, 1), **_: object) -> str | None:
        if any(a <= b for a, b in itertools.pairwise(rates)):
            return f"rates fall, each once, here {rates}"
        if heads % len(rates):
            return f"{heads} heads do not divide among {len(rates)} rates"
        if rates[0] > min(form.height, form.width):
            return f"rate {rates[0]} is larger than the grid {form.height}x{form.width}"
        return None

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        heads: int = 2,
        head_dim: int | None = None,
        rates: tuple[int, ...] = (2, 1),
        local: bool = True,
        qkv_bias: bool = True,
    ) -> Cost:
        dim = site.dim
        heads, head_dim = core.resolve_heads(dim, heads, head_dim)
        group = heads // len(rates)
        width = group * head_dim
        cost = linear(site.rows, dim, heads * head_dim, qkv_bias) + linear(site.rows, heads * head_dim, dim)
        for rate in rates:
            grid = site.height // rate, site.width // rate
            keys = site.prefix + grid[0] * grid[1]
            if rates != (1,):
                cost += conv(grid, dim, dim, rate, in_hw=site.grid) + norm_cost("layer", dim)
            cost += linear(keys, dim, width, qkv_bias).times(2)
            cost += conv(grid, width, width, 3, groups=width) if local else NOTHING
            cost += attend(site.rows, keys, group, head_dim)
        return cost

    def share(self, name: str) -> Share:
        part, _, rest = name.partition(".")
        if part in ("coarse", "local"):  # by rate, not by place in the tuple
            place, _, rest = rest.partition(".")
            return Share(f"{part}@{self.rates[int(place)]}.{rest}")
        return Share(name)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        groups = self.attention.queries(x).split(self.heads, dim=1)
        outs = [self.attend(group, queries, x, tokens) for group, queries in enumerate(groups)]
        out = self.attention.out(torch.cat(outs, dim=-1) if len(outs) > 1 else outs[0])
        tokens.carry.update(output=out)
        return out

    def attend(self, group: int, queries: Tensor, x: Tensor, tokens: Tokens) -> Tensor:
        """The result (B, P + N, width) of one group of heads."""
        if not self.coarse:
            rows, height, width = x, tokens.height, tokens.width
        else:
            rate = self.rates[group]
            rows = tokens.join(x, self.coarse[group](tokens.map_of(x)))
            height, width = tokens.height // rate, tokens.width // rate
        k = self.project(self.attention.k, group, rows)
        v = self.project(self.attention.v, group, rows)
        side = None
        if self.local:
            grid = map_from_rows(v[:, tokens.prefix :], (height, width))
            side = rows_from_map(self.local[group](grid))
        if side is not None and self.coarse:
            v = tokens.join(v, v[:, tokens.prefix :] + side)
        k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (k, v))
        out = core.attend(queries, k, v, self.scale).transpose(1, 2).flatten(2)
        return out if side is None or self.coarse else out + tokens.bypass(side)

    def project(self, linear: nn.Linear, group: int, rows: Tensor) -> Tensor:
        """The rows of a projection that belong to a group's heads."""
        part = slice(group * self.width, (group + 1) * self.width)
        return F.linear(rows, linear.weight[part], None if linear.bias is None else linear.bias[part])
