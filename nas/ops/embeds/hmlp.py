"""Hierarchical MLP stem (hMLP): three convolutions that never look over a patch's edge.

Paper: Touvron et al., "Three things everyone should know about vision transformers", ECCV 2022,
https://arxiv.org/abs/2203.09795, an option of DeiT III (https://arxiv.org/abs/2204.07118)
Strides `patch` / 4, 2 and 2, kernels as large; a norm after each, GELU between. Patches stay independent with a layer
norm, and with the paper's batch norm but for its statistics in training.
Limits: the grid must be divisible by the patch. With M = C // 4: MACs N (p^2 C_in M + 16 M^2 + 4 M C) at patch p.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.core.cost import Cost, conv, total
from nas.core.knobs import one_of
from nas.ops.base import Embed, Share, centre
from nas.ops.parts.fold import fold_after
from nas.ops.parts.norms import make_norm, norm_cost
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens, map_from_rows, rows_from_map


class Hmlp(Embed):
    knobs = {"patch": one_of(8, 16, 32), "norm": one_of("batch", "layer")}
    examples = ({}, {"patch": [8, 16], "norm": "layer"})

    def __init__(self, site: Site, *, dim: int, patch: int = 16, norm: str = "batch"):
        super().__init__()
        middle = dim // 4
        self.conv1 = nn.Conv2d(site.dim, middle, patch // 4, stride=patch // 4)
        self.norm1 = make_norm(norm, middle)
        self.conv2 = nn.Conv2d(middle, middle, 2, stride=2)
        self.norm2 = make_norm(norm, middle)
        self.conv3 = nn.Conv2d(middle, dim, 2, stride=2)
        self.norm3 = make_norm(norm, dim)
        self.activation = nn.GELU()

    @classmethod
    def out(cls, height: int, width: int, *, patch: int = 16, **_: object) -> tuple[int, int]:
        return height // patch, width // patch

    @classmethod
    def rule(cls, form: Form, *, patch: int = 16, **_: object) -> str | None:
        if form.height % patch or form.width % patch:
            return f"the grid {form.height}x{form.width} is not divisible by patch {patch}"
        return None

    @classmethod
    def cost(cls, site: Site, *, dim: int, patch: int = 16, norm: str = "batch") -> Cost:
        middle = dim // 4
        height, width = cls.out(*site.grid, patch=patch)
        fine, half = (4 * height, 4 * width), (2 * height, 2 * width)
        norms = total(norm_cost(norm, middle), norm_cost(norm, middle), norm_cost(norm, dim))
        return total(
            conv(fine, site.dim, middle, patch // 4, in_hw=site.grid),
            conv(half, middle, middle, 2, in_hw=fine),
            conv((height, width), middle, dim, 2, in_hw=half),
            norms,
        )

    def share(self, name: str) -> Share:
        return Share(name, centre) if name == "conv1.weight" else Share(name)

    def forward(self, tokens: Tokens) -> Tensor:
        x = tokens.map_of(tokens.x)
        for convolution, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = convolution(x)
            x = map_from_rows(self.activation(norm(rows_from_map(x))), x.shape[2:])
        return self.norm3(rows_from_map(self.conv3(x)))

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold batch norms into the convolutions; equal in eval mode."""
        self.norm1 = fold_after(self.conv1, self.norm1)
        self.norm2 = fold_after(self.conv2, self.norm2)
        self.norm3 = fold_after(self.conv3, self.norm3)
