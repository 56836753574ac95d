"""Stem of two 3x3 convolutions: the first at stride 2, a norm, an activation, the second at stride 1 or 2 (MaxViT).

Paper: Tu et al., "MaxViT: multi-axis vision transformer", ECCV 2022, https://arxiv.org/abs/2204.01697; convolutional
stems in general: Xiao et al., "Early convolutions help transformers see better", NeurIPS 2021,
https://arxiv.org/abs/2106.14881
`hidden` is the width between (none: that of the stage). `close` puts the norm and the activation after the second, too.
padding=same is TensorFlow's, of MaxViT's published weights.
Limits: none. MACs 9 N s^2 (C_in + C / s^2) C at hidden = C, N tokens left and second stride s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nas.core.cost import NOTHING, Cost
from nas.core.knobs import FLAG, Maybe, Real, Whole, one_of
from nas.ops.base import Embed
from nas.ops.parts.activations import ACTIVATIONS
from nas.ops.parts.fold import fold_after
from nas.ops.parts.norms import make_norm, norm_cost
from nas.ops.parts.padding import PADDINGS, PaddedConv, padded_conv_cost, strided
from nas.ops.site import Site
from nas.ops.tokens import Tokens, map_from_rows, rows_from_map


class StemTwo(Embed):
    knobs = {
        "stride": one_of(1, 2),
        "hidden": Maybe(Whole(1, 4096)),
        "norm": one_of("batch", "layer", "none"),
        "eps": Real(0, 1e-2),
        "activation": one_of(*ACTIVATIONS),
        "close": FLAG,
        "bias": FLAG,
        "padding": PADDINGS,
    }
    examples = (
        {},
        {"stride": 2, "hidden": [16, 24], "close": True, "padding": "same"},
        {"norm": "layer", "activation": "relu", "bias": True, "eps": 1e-3},
        {"norm": "none", "close": True},
    )

    def __init__(
        self,
        site: Site,
        *,
        dim: int,
        stride: int = 1,
        hidden: int | None = None,
        norm: str = "batch",
        eps: float = 1e-5,
        activation: str = "gelu",
        close: bool = False,
        bias: bool = False,
        padding: str = "symmetric",
    ):
        super().__init__()
        hidden = dim if hidden is None else hidden
        self.conv1 = PaddedConv(site.dim, hidden, 3, stride=2, bias=bias, padding=padding)
        self.norm1 = make_norm(norm, hidden, eps)
        self.activation1 = ACTIVATIONS[activation]()
        self.conv2 = PaddedConv(hidden, dim, 3, stride=stride, bias=bias, padding=padding)
        self.norm2 = make_norm(norm if close else "none", dim, eps)
        self.activation2 = ACTIVATIONS[activation if close else "none"]()

    @classmethod
    def out(cls, height: int, width: int, *, stride: int = 1, **_: object) -> tuple[int, int]:
        return strided(strided((height, width), 2), stride)

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        dim: int,
        stride: int = 1,
        hidden: int | None = None,
        norm: str = "batch",
        eps: float = 1e-5,
        activation: str = "gelu",
        close: bool = False,
        bias: bool = False,
        padding: str = "symmetric",
    ) -> Cost:
        hidden, half = dim if hidden is None else hidden, strided(site.grid, 2)
        first = padded_conv_cost(site.grid, site.dim, hidden, 3, stride=2, bias=bias, padding=padding)
        second = padded_conv_cost(half, hidden, dim, 3, stride=stride, bias=bias, padding=padding)
        return first + norm_cost(norm, hidden) + second + (norm_cost(norm, dim) if close else NOTHING)

    def forward(self, tokens: Tokens) -> Tensor:
        image = self.conv1(tokens.map_of(tokens.x))
        rows = self.activation1(self.norm1(rows_from_map(image)))
        image = self.conv2(map_from_rows(rows, image.shape[2:]))
        return self.activation2(self.norm2(rows_from_map(image)))

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold batch norms into the convolutions before them; equal in eval mode."""
        self.norm1 = fold_after(self.conv1, self.norm1)
        self.norm2 = fold_after(self.conv2, self.norm2)
