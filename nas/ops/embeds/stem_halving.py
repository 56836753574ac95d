"""Convolution stem of 3x3 convolutions at stride 2 that double the width each time (BiFormer, LeViT, XCiT).

Paper: Zhu et al., "BiFormer: vision transformer with bi-level routing attention", CVPR 2023,
https://arxiv.org/abs/2303.08810 (convs=2); Graham et al., "LeViT", ICCV 2021,
https://arxiv.org/abs/2104.01136 (convs=4)
A norm follows each convolution, the activation each but the last. The widths are those of the stage halved backwards.
Limits: none. MACs 9/4 HW C_in C_1 for the first of C_1 = C / 2^(convs - 1) channels, then 9/8 of HW C_1^2 each.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from nas.core.cost import Cost, conv, total
from nas.core.knobs import FLAG, Whole, one_of
from nas.ops.base import Embed
from nas.ops.parts.activations import ACTIVATIONS
from nas.ops.parts.fold import fold_after
from nas.ops.parts.norms import make_norm, norm_cost
from nas.ops.site import Site
from nas.ops.tokens import Tokens, map_from_rows, rows_from_map


class StemHalving(Embed):
    knobs = {
        "convs": Whole(1, 6),
        "norm": one_of("batch", "layer"),
        "activation": one_of(*ACTIVATIONS),
        "bias": FLAG,
    }
    examples = ({}, {"convs": [1, 3], "norm": "layer", "activation": "hard_swish", "bias": True})

    def __init__(
        self,
        site: Site,
        *,
        dim: int,
        convs: int = 2,
        norm: str = "batch",
        activation: str = "gelu",
        bias: bool = False,
    ):
        super().__init__()
        widths = list(pairwise((site.dim, *_widths(dim, convs))))
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, stride=2, padding=1, bias=bias) for a, b in widths])
        self.norms = nn.ModuleList([make_norm(norm, b, 1e-5) for _, b in widths])
        self.activation = ACTIVATIONS[activation]()

    @classmethod
    def out(cls, height: int, width: int, *, convs: int = 2, **_: object) -> tuple[int, int]:
        return -(-height // 2**convs), -(-width // 2**convs)

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        dim: int,
        convs: int = 2,
        norm: str = "batch",
        activation: str = "gelu",
        bias: bool = False,
    ) -> Cost:
        parts, grid = [], site.grid
        for inputs, outputs in pairwise((site.dim, *_widths(dim, convs))):
            out = cls.out(*grid, convs=1)
            parts += [conv(out, inputs, outputs, 3, in_hw=grid, bias=bias), norm_cost(norm, outputs)]
            grid = out
        return total(*parts)

    def forward(self, tokens: Tokens) -> Tensor:
        image = tokens.map_of(tokens.x)
        for place, (convolution, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            image = convolution(image if place == 0 else self.activation(image))
            image = map_from_rows(norm(rows_from_map(image)), image.shape[2:])
        return rows_from_map(image)

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold batch norms into the convolutions before them; equal in eval mode."""
        for place, convolution in enumerate(self.convs):
            assert isinstance(convolution, nn.Conv2d)
            self.norms[place] = fold_after(convolution, self.norms[place])


def _widths(dim: int, convs: int) -> list[int]:
    """Output widths, first to last."""
    return [max(1, dim >> (convs - 1 - place)) for place in range(convs)]
