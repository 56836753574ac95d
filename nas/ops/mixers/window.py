"""Window attention: softmax attention within square windows of neighbours, shifted by half a window or not.

Paper: Liu et al., "Swin transformer", ICCV 2021, https://arxiv.org/abs/2103.14030. Without shift it is also MaxViT's
block attention (Tu et al., ECCV 2022, https://arxiv.org/abs/2204.01697) and, without the relative-position table,
Twins' locally grouped attention (Chu et al., NeurIPS 2021, https://arxiv.org/abs/2104.13840).
A window larger than the grid is the grid, unshifted. A grid that windows do not divide is padded with zeros after the
norm, and the zeros take part, as in Swin and Twins. Tables of all sizes share one: smaller windows use its centre.
Limits: needs the grid; prefix tokens are left as they are. MACs 4NC^2 + 2N size^2 C at heads * head_dim = C.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nas.core.cost import Cost, attend, linear, weights
from nas.core.knobs import FLAG, Maybe, Whole
from nas.ops.base import Mixer, Share, centre
from nas.ops.parts import attention as core
from nas.ops.parts import windows
from nas.ops.parts.constant import constant
from nas.ops.site import Site
from nas.ops.tokens import Tokens


class Window(Mixer):
    knobs = {
        "size": Whole(2, 64),
        "shift": FLAG,
        "heads": Whole(1, 64),
        "head_dim": Maybe(Whole(1, 256)),
        "relative": FLAG,
        "qkv_bias": FLAG,
    }
    family = "attention"
    shared = frozenset({"attention"})
    takes = frozenset({"grid"})
    prefix = "bypasses"
    examples = (
        {"size": 7, "shift": [False, True], "heads": 2},
        {"size": [4, 7, 14], "heads": [2, 4], "head_dim": 16},
        {"size": 4, "shift": True, "heads": 2, "qkv_bias": False},
        {"size": 7, "shift": [False, True], "heads": 2, "relative": False},
    )

    def __init__(
        self,
        site: Site,
        *,
        size: int = 7,
        shift: bool = False,
        heads: int = 3,
        head_dim: int | None = None,
        relative: bool = True,
        qkv_bias: bool = True,
    ):
        super().__init__()
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        self.attention = core.Projections(site.dim, heads, head_dim, bias=qkv_bias)
        self.scale = core.scale_of("head", site.dim, head_dim)
        self.size = windows.clip(size, site.grid)
        self.bias = windows.RelativeBias(heads, self.size) if relative else None
        self.shift = (shift * (site.height > size) * (size // 2), shift * (site.width > size) * (size // 2))
        if any(self.shift):
            constant(self, "mask", windows.shift_mask(windows.padded(site.grid, self.size), self.size, self.shift))

    @classmethod
    def heads_of(cls, dim: int, *, heads: int = 3, head_dim: int | None = None, **_: object) -> tuple[int, int]:
        return core.resolve_heads(dim, heads, head_dim)

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        size: int = 7,
        shift: bool = False,
        heads: int = 3,
        head_dim: int | None = None,
        relative: bool = True,
        qkv_bias: bool = True,
    ) -> Cost:
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        inner, window = heads * head_dim, windows.clip(size, site.grid)
        height, width = windows.padded(site.grid, window)
        rows, area = height * width, window[0] * window[1]
        projected = linear(rows, site.dim, inner, qkv_bias)
        table = weights(windows.table_size(heads, window) if relative else 0)
        attended = attend(area, area, heads, head_dim, groups=rows // area)
        out = linear(site.height * site.width, inner, site.dim)
        return projected + projected + projected + table + attended + out

    def share(self, name: str) -> Share:
        return Share(name, centre) if name == "bias.table" else Share(name)

    def fuse(self) -> None:
        self.attention.fuse()

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        grid = tokens.grid_of(x)
        bias = None if self.bias is None else self.bias()
        if any(self.shift):
            grid = torch.roll(grid, (-self.shift[0], -self.shift[1]), (1, 2))
            bias = self.mask if bias is None else bias + self.mask
        grid = windows.attend_windows(self.attention, windows.pad_grid(grid, self.size), self.size, self.scale, bias)
        grid = grid[:, : tokens.height, : tokens.width]
        if any(self.shift):
            grid = torch.roll(grid, self.shift, (1, 2))
        return tokens.bypass(self.attention.out(grid.flatten(1, 2)))
