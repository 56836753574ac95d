"""Local perception exit (LGViT): convolutions over the patch tokens, their mean and the class token, one classifier.

Paper: Xu et al., "LGViT: dynamic early exiting for accelerating vision transformer", ACM MM 2023,
https://arxiv.org/abs/2308.00255
A residual branch, with batch norms: 1x1, depthwise 3x3, 1x1 (`kernel=3`, the paper's first exits) or 1x1, 1x1
(`kernel=1`). `with_class` adds the class token to the mean; the paper's Swin exits have none.
A sample leaves here when its largest class probability reaches `threshold`: at 0 every sample does.
Limits: needs the grid. MACs 2 N C^2 + 9 N C (`kernel=3`) + C * classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.cost import Cost, conv, linear, total
from nas.core.knobs import FLAG, Real, one_of
from nas.ops.base import Exit
from nas.ops.parts.fold import fold_after, fold_before
from nas.ops.parts.norms import make_norm, norm_cost
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens, map_from_rows, rows_from_map


class ConvolutionExit(Exit):
    takes = frozenset({"grid"})
    knobs = {"threshold": Real(0.0, 1.0), "kernel": one_of(1, 3), "with_class": FLAG}
    examples = ({"kernel": [1, 3]}, {"threshold": 0.5, "with_class": False})

    def __init__(self, site: Site, *, classes: int, threshold: float = 0.8, kernel: int = 3, with_class: bool = True):
        super().__init__()
        dim = site.dim
        self.threshold, self.with_class = threshold, with_class
        self.enter, self.enter_norm = nn.Linear(dim, dim), make_norm("batch", dim)
        self.local = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim) if kernel > 1 else None
        if self.local is not None:
            self.local_norm = make_norm("batch", dim)
        self.leave, self.leave_norm = nn.Linear(dim, dim), make_norm("batch", dim)
        self.classifier = nn.Linear(dim, classes)

    @classmethod
    def rule(cls, form: Form, *, with_class: bool = True, **_: object) -> str | None:
        return None if form.class_token or not with_class else "with_class=True needs a class token: set class_token"

    @classmethod
    def cost(
        cls, site: Site, *, classes: int, threshold: float = 0.8, kernel: int = 3, with_class: bool = True
    ) -> Cost:
        dim = site.dim
        layer, norm = linear(site.tokens, dim, dim), norm_cost("batch", dim)
        cost = total(layer, norm, layer, norm, linear(1, dim, classes))
        return cost + total(conv(site.grid, dim, dim, kernel, groups=dim), norm) if kernel > 1 else cost

    def forward(self, tokens: Tokens) -> Tensor:
        patches = tokens.patches
        x = self.enter_norm(F.gelu(self.enter(patches)))
        if self.local is not None:
            local = self.local(map_from_rows(x, (tokens.height, tokens.width)))
            x = self.local_norm(F.gelu(rows_from_map(local)))
        pooled = tokens.mean(self.leave_norm(self.leave(x)) + patches)
        return self.classifier(pooled + tokens.x[:, 0] if self.with_class else pooled)

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold batch norms into the linear layers beside them; equal in eval mode.

        That before the padded convolution stays: the convolution sees zeros around what the norm leaves.
        """
        self.leave_norm = fold_after(self.leave, self.leave_norm)
        if self.local is None:
            self.enter_norm = fold_before(self.enter_norm, self.leave)
        else:
            self.local_norm = fold_before(self.local_norm, self.leave)
