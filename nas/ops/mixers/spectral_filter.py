"""Global filter (GFNet, SpectFormer): the 2-D spectrum of the grid times a learned complex filter a channel.

Paper: Rao et al., "Global filter networks for image classification", NeurIPS 2021, https://arxiv.org/abs/2107.00645
Equal to a depth-wise circular convolution whose kernel is as large as the grid. GFNet puts one residual around the
filter and its feed-forward (`residual: joint`), SpectFormer's hierarchical form one around each.
Limits: filters are bound to the grid; prefix tokens stay as they are; computed in single precision at least.
No MACs; two transforms and H (W/2 + 1) C complex products, counted as `transform`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.core.cost import Cost, fourier, spectral, total, weights
from nas.ops.base import Mixer, Share
from nas.ops.parts.transforms import filtered, learned_spectrum
from nas.ops.site import Site
from nas.ops.tokens import Tokens


class SpectralFilter(Mixer):
    takes = frozenset({"grid"})
    prefix = "bypasses"

    def __init__(self, site: Site):
        super().__init__()
        self.height, self.width = site.grid
        self.filter = nn.Parameter(0.02 * torch.randn(site.height, site.width // 2 + 1, site.dim, 2))

    @classmethod
    def cost(cls, site: Site) -> Cost:
        points, once = site.height * (site.width // 2 + 1), fourier(site.height, site.width, site.dim)
        return total(once, spectral(points, site.dim), once, weights(2 * points * site.dim))

    def share(self, name: str) -> Share:
        return Share(f"{name}@{self.height}x{self.width}")  # a filter of another grid is another filter

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        kernel = learned_spectrum(self.filter.float())  # transforms know no half precision
        mixed = filtered(tokens.grid_of(x).float(), kernel, (self.height, self.width), norm="ortho")
        return tokens.bypass(mixed.flatten(1, 2).to(x.dtype))
