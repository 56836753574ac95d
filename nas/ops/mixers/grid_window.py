"""Grid attention: softmax attention among size x size cells spread evenly over the whole grid (MaxViT).

Paper: Tu et al., "MaxViT: multi-axis vision transformer", ECCV 2022, https://arxiv.org/abs/2204.01697
MaxViT's other half, block attention, is `window` without shift. A size larger than the grid is the grid. Tables of all
sizes share one: smaller sizes use its centre.
Limits: needs the grid, and it must be divisible by the size; prefix tokens are left as they are. MACs
4NC^2 + 2N size^2 C at heads * head_dim = C.
"""

from __future__ import annotations

from torch import Tensor

from nas.core.cost import Cost, attend, weights
from nas.core.knobs import FLAG, Maybe, Whole
from nas.ops.base import Mixer, Share, centre
from nas.ops.parts import attention as core
from nas.ops.parts import windows
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens


class GridWindow(Mixer):
    knobs = {
        "size": Whole(2, 64),
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
        {"size": 7, "heads": 2},
        {"size": [2, 7, 14], "heads": [2, 4], "head_dim": 16},
        {"size": 7, "heads": 2, "relative": False, "qkv_bias": False},
    )

    def __init__(
        self,
        site: Site,
        *,
        size: int = 7,
        heads: int = 2,
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

    @classmethod
    def heads_of(cls, dim: int, *, heads: int = 2, head_dim: int | None = None, **_: object) -> tuple[int, int]:
        return core.resolve_heads(dim, heads, head_dim)

    @classmethod
    def rule(cls, form: Form, *, size: int = 7, **_: object) -> str | None:
        height, width = windows.clip(size, (form.height, form.width))
        if form.height % height or form.width % width:
            return f"the grid {form.height}x{form.width} is not divisible by size {size}"
        return None

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        size: int = 7,
        heads: int = 2,
        head_dim: int | None = None,
        relative: bool = True,
        qkv_bias: bool = True,
    ) -> Cost:
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        window, rows = windows.clip(size, site.grid), site.height * site.width
        area = window[0] * window[1]
        projected = core.projections_cost(site.dim, heads, head_dim, rows, rows, bias=qkv_bias)
        table = weights(windows.table_size(heads, window) if relative else 0)
        return projected + table + attend(area, area, heads, head_dim, groups=rows // area)

    def share(self, name: str) -> Share:
        return Share(name, centre) if name == "bias.table" else Share(name)

    def fuse(self) -> None:
        self.attention.fuse()

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        bias = None if self.bias is None else self.bias()
        grid = windows.attend_windows(self.attention, tokens.grid_of(x), self.size, self.scale, bias, dilated=True)
        return tokens.bypass(self.attention.out(grid.flatten(1, 2)))
