"""Global aggregation exit (LGViT): attention among every `stride`-th patch token, their mean and the class token, one
classifier.

Paper: Xu et al., "LGViT: dynamic early exiting for accelerating vision transformer", ACM MM 2023,
https://arxiv.org/abs/2308.00255
The grid is subsampled by `stride` along both sides (2, then 3 in the paper's later exits); queries, keys and values
have no bias. `with_class` adds the class token to the mean; the paper's Swin exits have none.
A sample leaves here when its largest class probability reaches `threshold`: at 0 every sample does.
Limits: needs the grid. MACs 4 n C^2 + 2 n^2 C + C * classes at n = ceil(H / stride) * ceil(W / stride).
"""

from __future__ import annotations

from torch import Tensor, nn

from nas.core.cost import Cost, attend, linear
from nas.core.knobs import FLAG, Maybe, Real, Whole
from nas.ops.base import Exit
from nas.ops.parts import attention as core
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens


class AttentionExit(Exit):
    takes = frozenset({"grid"})
    knobs = {
        "threshold": Real(0.0, 1.0),
        "stride": Whole(1, 16),
        "heads": Whole(1, 64),
        "head_dim": Maybe(Whole(1, 256)),
        "with_class": FLAG,
    }
    examples = ({"stride": [2, 3]}, {"threshold": 0.5, "heads": [2, 4], "head_dim": 8, "with_class": False})

    def __init__(
        self,
        site: Site,
        *,
        classes: int,
        threshold: float = 0.8,
        stride: int = 2,
        heads: int = 8,
        head_dim: int | None = None,
        with_class: bool = True,
    ):
        super().__init__()
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        self.threshold, self.stride, self.with_class = threshold, stride, with_class
        self.attention = core.Projections(site.dim, heads, head_dim, bias=False)
        self.scale = core.scale_of("head", site.dim, head_dim)
        self.classifier = nn.Linear(site.dim, classes)

    @classmethod
    def rule(
        cls, form: Form, *, heads: int = 8, head_dim: int | None = None, with_class: bool = True, **_: object
    ) -> str | None:
        if with_class and not form.class_token:
            return "with_class=True needs a class token: set class_token"
        if head_dim is None and form.dim % heads:
            return f"{heads} heads do not divide the width {form.dim}; give head_dim, or other heads"
        return None

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        classes: int,
        threshold: float = 0.8,
        stride: int = 2,
        heads: int = 8,
        head_dim: int | None = None,
        with_class: bool = True,
    ) -> Cost:
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        rows = -(-site.height // stride) * -(-site.width // stride)
        projected = core.projections_cost(site.dim, heads, head_dim, rows, rows, bias=False)
        return projected + attend(rows, rows, heads, head_dim) + linear(1, site.dim, classes)

    def forward(self, tokens: Tokens) -> Tensor:
        x = tokens.grid_of(tokens.x)[:, :: self.stride, :: self.stride].flatten(1, 2)
        q, k, v = self.attention.triple(x)
        pooled = self.attention.merge(core.attend(q, k, v, self.scale)).mean(dim=1)
        return self.classifier(pooled + tokens.x[:, 0] if self.with_class else pooled)
