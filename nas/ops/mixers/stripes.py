"""Cross-shaped stripes: half the heads attend within vertical stripes, half within horizontal ones (CSWin).

Paper: Dong et al., "CSWin transformer", CVPR 2022, https://arxiv.org/abs/2107.00652
Even heads see stripes of `stripe` columns, odd heads of `stripe` rows, so that fewer heads keep their direction (the
authors' first half is ours at even places). Locally enhanced position: a depthwise convolution of the values within
each stripe, added to what the heads read. A stripe as wide as the grid is global attention, as in the last stage.
Limits: needs the grid, divisible by the stripe, and an even number of heads; prefix tokens are left as they are.
MACs 4NC^2 + N(H + W) stripe C + kernel^2 NC at heads * head_dim = C.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.core.cost import Cost, attend, conv
from nas.core.knobs import FLAG, Maybe, Whole, one_of
from nas.ops.base import Mixer, Share, centre
from nas.ops.parts import attention as core
from nas.ops.parts import windows
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens, map_from_rows, rows_from_map


class Stripes(Mixer):
    knobs = {
        "stripe": Whole(1, 64),
        "heads": Whole(2, 64),
        "head_dim": Maybe(Whole(1, 256)),
        "kernel": one_of(3, 5, 7),
        "qkv_bias": FLAG,
    }
    family = "attention"
    shared = frozenset({"attention"})
    takes = frozenset({"grid"})
    prefix = "bypasses"
    examples = (
        {"stripe": [1, 2, 7, 14], "heads": 2},
        {"stripe": 7, "heads": [2, 4], "head_dim": 12, "kernel": [3, 5]},
        {"stripe": 2, "heads": 4, "qkv_bias": False},
    )

    def __init__(
        self,
        site: Site,
        *,
        stripe: int = 7,
        heads: int = 2,
        head_dim: int | None = None,
        kernel: int = 3,
        qkv_bias: bool = True,
    ):
        super().__init__()
        heads, self.head_dim = core.resolve_heads(site.dim, heads, head_dim)
        self.attention = core.Projections(site.dim, heads, self.head_dim, bias=qkv_bias)
        self.scale = core.scale_of("head", site.dim, self.head_dim)
        self.stripes = stripes_of(stripe, site.grid)
        half = heads // 2 * self.head_dim
        self.columns = nn.Conv2d(half, half, kernel, padding=kernel // 2, groups=half)
        self.rows = nn.Conv2d(half, half, kernel, padding=kernel // 2, groups=half)

    @classmethod
    def heads_of(cls, dim: int, *, heads: int = 2, head_dim: int | None = None, **_: object) -> tuple[int, int]:
        return core.resolve_heads(dim, heads, head_dim)

    @classmethod
    def rule(cls, form: Form, *, stripe: int = 7, heads: int = 2, **_: object) -> str | None:
        if heads % 2:
            return f"half the heads see columns, half rows: {heads} heads cannot be halved"
        height, width = windows.clip(stripe, (form.height, form.width))
        if form.height % height or form.width % width:
            return f"the grid {form.height}x{form.width} is not divisible by stripe {stripe}"
        return None

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        stripe: int = 7,
        heads: int = 2,
        head_dim: int | None = None,
        kernel: int = 3,
        qkv_bias: bool = True,
    ) -> Cost:
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        rows, half = site.height * site.width, heads // 2 * head_dim
        cost = core.projections_cost(site.dim, heads, head_dim, rows, rows, bias=qkv_bias)
        for height, width in stripes_of(stripe, site.grid):
            area = height * width
            cost += attend(area, area, heads // 2, head_dim, groups=rows // area)
            cost += conv(site.grid, half, half, kernel, groups=half)
        return cost

    def share(self, name: str) -> Share:
        return Share(name, centre) if name in ("columns.weight", "rows.weight") else Share(name)

    def branch(self, q: Tensor, k: Tensor, v: Tensor, size: windows.Size, local: nn.Module) -> Tensor:
        """Half the heads (B, H, W, h / 2, d) within stripes of one direction."""
        grid = (q.shape[1], q.shape[2])
        q, k, v = (windows.partition(t, size) for t in (q, k, v))
        near = rows_from_map(local(map_from_rows(v.flatten(2), size)))
        out = core.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), self.scale).transpose(1, 2)
        return windows.reverse(out + near.unflatten(2, (-1, self.head_dim)), size, grid)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        grid = tokens.grid_of(x)
        # (B, H, W, h / 2, direction, d)
        q, k, v = (
            project(grid).unflatten(-1, (-1, 2, self.head_dim))
            for project in (self.attention.q, self.attention.k, self.attention.v)
        )
        both = [
            self.branch(q[..., i, :], k[..., i, :], v[..., i, :], size, local)
            for i, (size, local) in enumerate(zip(self.stripes, (self.columns, self.rows), strict=True))
        ]
        return tokens.bypass(self.attention.out(torch.stack(both, dim=-2).flatten(3).flatten(1, 2)))


def stripes_of(stripe: int, grid: windows.Size) -> tuple[windows.Size, windows.Size]:
    """The windows of both directions: `stripe` columns of full height, `stripe` rows of full width."""
    height, width = windows.clip(stripe, grid)
    return (grid[0], width), (height, grid[1])
