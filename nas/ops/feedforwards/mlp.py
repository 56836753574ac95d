"""Feed-forward of two linear layers.

Paper: Vaswani et al., "Attention is all you need", NeurIPS 2017, https://arxiv.org/abs/1706.03762
`hidden` overrides ratio * C (ViT-ResNAS gives hidden widths). QuickGELU is CvT's, x * sigmoid(1.702 x).
Limits: none. MACs 2 ratio N C^2.
"""

from __future__ import annotations

from torch import Tensor, nn

from nas.core.cost import Cost, linear
from nas.core.knobs import Maybe, Real, Whole, one_of
from nas.ops.base import FeedForward
from nas.ops.parts.activations import ACTIVATIONS, overwriting
from nas.ops.site import Site
from nas.ops.tokens import Tokens


class Mlp(FeedForward):
    knobs = {"ratio": Real(0.25, 16), "hidden": Maybe(Whole(1, 65536)), "activation": one_of(*ACTIVATIONS)}
    family = "mlp"
    shared = frozenset({"up", "down"})
    examples = ({"ratio": [2, 4]}, {"hidden": [40, 80], "activation": "silu"})

    def __init__(self, site: Site, *, ratio: float = 4.0, hidden: int | None = None, activation: str = "gelu"):
        super().__init__()
        width = hidden_width(site.dim, ratio, hidden)
        self.up = nn.Linear(site.dim, width)
        self.activation = overwriting(activation)
        self.down = nn.Linear(width, site.dim)

    @classmethod
    def cost(cls, site: Site, *, ratio: float = 4.0, hidden: int | None = None, activation: str = "gelu") -> Cost:
        width = hidden_width(site.dim, ratio, hidden)
        return linear(site.rows, site.dim, width) + linear(site.rows, width, site.dim)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        return self.down(self.activation(self.up(x)))


def hidden_width(dim: int, ratio: float, hidden: int | None) -> int:
    """The hidden width: as given, else ratio * C rounded down."""
    return int(dim * ratio) if hidden is None else hidden
