"""Gaussian mixture mask: softmax attention whose scores are multiplied by a mixture of Gaussians of the distance.

Paper: Li and Zhang, "RetNet viewed through convolution", Pattern Recognition 2024, https://arxiv.org/abs/2309.05375
Scores (q k^T scale) * G, G(i, j) = sum over components of alpha exp(-d^2 / (2 (sigma^2 + 1e-5))), d the distance on the
grid; alpha and sigma are learned a head and component. The paper uses 3 components in ViT, 5 in PiT.
Limits: multiplied before the softmax, so no fused attention. The paper has no class token: prefix tokens have factor 1.
MACs 4NC^2 + 2N^2C + components N^2 heads; the mask is one product since a Gaussian is a row's times a column's.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.cost import Cost, attend, product, weights
from nas.core.knobs import FLAG, Maybe, Whole
from nas.ops.base import Mixer
from nas.ops.parts import attention as core
from nas.ops.parts.constant import constant
from nas.ops.site import Site
from nas.ops.tokens import Tokens


class GaussianMask(Mixer):
    down: Tensor  # (H * H) and (W * W): minus half the square distance of two rows, of two columns
    across: Tensor
    takes = frozenset({"grid"})
    family = "attention"
    shared = frozenset({"attention"})
    reads = frozenset({"rotary", "bias"})
    emits = frozenset({"keys", "values", "output"})
    knobs = {
        "heads": Whole(1, 64),
        "head_dim": Maybe(Whole(1, 256)),
        "components": Whole(1, 16),
        "qkv_bias": FLAG,
    }
    examples = ({}, {"heads": [2, 4], "head_dim": 16, "components": [3, 5]}, {"components": 1, "qkv_bias": True})

    def __init__(
        self,
        site: Site,
        *,
        heads: int = 3,
        head_dim: int | None = None,
        components: int = 3,
        qkv_bias: bool = False,
    ):
        super().__init__()
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        self.attention = core.Projections(site.dim, heads, head_dim, bias=qkv_bias)
        self.scale = core.scale_of("head", site.dim, head_dim)
        self.sigma = nn.Parameter(10 + 10 * torch.randn(heads, components))
        self.alpha = nn.Parameter(2 * torch.randn(heads, components))
        self.grid = site.grid
        for name, side in (("down", site.height), ("across", site.width)):
            step = np.arange(side, dtype=np.float32)
            constant(self, name, -0.5 * np.square(step[:, None] - step).flatten())

    @classmethod
    def heads_of(cls, dim: int, *, heads: int = 3, head_dim: int | None = None, **_: object) -> tuple[int, int]:
        return core.resolve_heads(dim, heads, head_dim)

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        heads: int = 3,
        head_dim: int | None = None,
        components: int = 3,
        qkv_bias: bool = False,
    ) -> Cost:
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        projected = core.projections_cost(site.dim, heads, head_dim, site.rows, site.rows, bias=qkv_bias)
        mask = product(site.height**2, components, site.width**2, batch=heads, attention=False)
        learned = weights(2 * heads * components)
        return projected + mask + learned + attend(site.rows, site.rows, heads, head_dim, fused=False)

    def mask(self, prefix: int) -> Tensor:
        """The factor of the scores (heads, P + N, P + N), the same for every image."""
        narrow = (1 / (self.sigma.square() + 1e-5))[..., None]
        rows = (self.alpha[..., None] * (narrow * self.down).exp()).transpose(1, 2)
        mixture = rows @ (narrow * self.across).exp()  # (heads, H * H, W * W)
        height, width = self.grid
        mixture = mixture.unflatten(2, (width, width)).unflatten(1, (height, height)).transpose(2, 3)
        mixture = mixture.flatten(3, 4).flatten(1, 2)
        return F.pad(mixture, (prefix, 0, prefix, 0), value=1.0) if prefix else mixture

    def fuse(self) -> None:
        self.attention.fuse()

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        q, k, v = self.attention.triple(x)
        if tokens.rotary is not None:
            q, k = core.rotate(q, tokens.rotary, tokens.prefix), core.rotate(k, tokens.rotary, tokens.prefix)
        scores = ((q * self.scale) @ k.transpose(-2, -1)) * self.mask(tokens.prefix)
        if tokens.bias is not None:
            scores = scores + tokens.bias
        out = self.attention.merge(scores.softmax(dim=-1) @ v)
        tokens.carry.update(keys=k, values=v, output=out)
        return out
