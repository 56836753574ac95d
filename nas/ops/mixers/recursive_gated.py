"""Recursive gated convolution: products of depthwise-mixed features at widths C / 2^i, from narrow to wide (g^n Conv).

Paper: Rao et al., "HorNet: efficient high-order spatial interactions with recursive gated convolutions", NeurIPS 2022,
https://arxiv.org/abs/2207.14284
With n = `order`: x = p * g_(n-1), then x = W_i x * g_i for i = n-2 to 0, where g_i = `scale` * depthwise(G_i input) has
C / 2^i channels and p has C / 2^(n-1). The authors hold p and all g_i in one projection and one depthwise convolution;
here each width has its own, so that orders share them and leading channels nest.
Limits: needs the whole grid, and a width that 2^(order - 1) divides; prefix tokens are left as they are.
MACs N C (3 C + 2/3 C (1 - 4^(1-n)) + 2 kernel^2 (1 - 2^-n)).
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from nas.core.cost import Cost, conv, linear, total
from nas.core.knobs import Real, Whole, one_of
from nas.ops.base import Mixer, Share, centre
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens, map_from_rows, rows_from_map


class RecursiveGated(Mixer):
    knobs = {"order": Whole(1, 8), "kernel": one_of(3, 5, 7, 9, 11), "scale": Real(0.01, 10)}
    takes = frozenset({"grid"})
    prefix = "bypasses"
    examples = ({"order": [2, 3]}, {"order": [1, 5], "kernel": [3, 7]}, {"scale": 0.5})

    def __init__(self, site: Site, *, order: int = 3, kernel: int = 7, scale: float = 1 / 3):
        super().__init__()
        dim, widths = site.dim, _widths(site.dim, order)
        self.scale = scale
        self.start = nn.Linear(dim, widths[-1])
        self.gates = nn.ModuleList(nn.Linear(dim, width) for width in widths)
        self.depthwise = nn.ModuleList(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width) for width in widths
        )
        self.widen = nn.ModuleList(nn.Linear(narrow, wide) for wide, narrow in itertools.pairwise(widths))
        self.out = nn.Linear(dim, dim)

    @classmethod
    def rule(cls, form: Form, *, order: int = 3, **_: object) -> str | None:
        if form.dim % 2 ** (order - 1):
            return (
                f"order {order} halves the width {order - 1} times, and {2 ** (order - 1)} does not divide {form.dim}"
            )
        return None

    @classmethod
    def cost(cls, site: Site, *, order: int = 3, kernel: int = 7, scale: float = 1 / 3) -> Cost:
        dim, rows, widths = site.dim, site.tokens, _widths(site.dim, order)
        return total(
            linear(rows, dim, widths[-1]),
            *(linear(rows, dim, width) for width in widths),
            *(conv(site.grid, width, width, kernel, groups=width) for width in widths),
            *(linear(rows, width // 2, width) for width in widths[:-1]),
            linear(rows, dim, dim),
        )

    def share(self, name: str) -> Share:
        return Share(name, centre) if name.startswith("depthwise.") and name.endswith("weight") else Share(name)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        patches = x[:, tokens.prefix :] if tokens.prefix else x
        mixed = self.start(patches)
        for i in reversed(range(len(self.gates))):
            gate = map_from_rows(self.gates[i](patches), (tokens.height, tokens.width))
            mixed = mixed * (rows_from_map(self.depthwise[i](gate)) * self.scale)
            if i:
                mixed = self.widen[i - 1](mixed)
        return tokens.bypass(self.out(mixed))


def _widths(dim: int, order: int) -> list[int]:
    """C, C / 2, ... one a level, widest first."""
    return [dim >> i for i in range(order)]
