"""Softmax attention over all tokens (ViT, DeiT).

Paper: Touvron et al., "Training data-efficient image transformers", ICML 2021, https://arxiv.org/abs/2012.12877
A temperature above 1 flattens the weights (Gu et al., "Are vision transformers robust to patch perturbations?",
ECCV 2022, https://arxiv.org/abs/2111.10659). Heads times head_dim need not equal the width.
Limits: none. MACs 4NC^2 + 2N^2C at heads * head_dim = C.
"""

from __future__ import annotations

from torch import Tensor

from nas.core.cost import Cost, attend
from nas.core.knobs import FLAG, Maybe, Real, Whole
from nas.ops.base import Mixer
from nas.ops.parts import attention as core
from nas.ops.site import Site
from nas.ops.tokens import Tokens


class Softmax(Mixer):
    knobs = {"heads": Whole(1, 64), "head_dim": Maybe(Whole(1, 256)), "qkv_bias": FLAG, "temperature": Real(0.05, 20.0)}
    family = "attention"
    shared = frozenset({"attention"})
    reads = frozenset({"rotary", "bias"})
    emits = frozenset({"queries", "keys", "values", "output"})
    examples = ({}, {"heads": [2, 4], "head_dim": 16}, {"heads": 4, "qkv_bias": False, "temperature": 1.5})

    def __init__(
        self,
        site: Site,
        *,
        heads: int = 3,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        temperature: float = 1.0,
    ):
        super().__init__()
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        self.attention = core.Projections(site.dim, heads, head_dim, bias=qkv_bias)
        self.scale = core.scale_of("head", site.dim, head_dim, temperature)

    @classmethod
    def heads_of(cls, dim: int, *, heads: int = 3, head_dim: int | None = None, **_: object) -> tuple[int, int]:
        return core.resolve_heads(dim, heads, head_dim)

    @classmethod
    def cost(
        cls, site: Site, *, heads: int = 3, head_dim: int | None = None, qkv_bias: bool = True, temperature: float = 1.0
    ) -> Cost:
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        rows = site.rows
        projected = core.projections_cost(site.dim, heads, head_dim, rows, rows, bias=qkv_bias)
        return projected + attend(rows, rows, heads, head_dim)

    def fuse(self) -> None:
        self.attention.fuse()

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        q, k, v = self.attention.triple(x)
        if tokens.rotary is not None:
            q, k = core.rotate(q, tokens.rotary, tokens.prefix), core.rotate(k, tokens.rotary, tokens.prefix)
        bias, mask = tokens.attention_bias(), tokens.key_mask()
        out = self.attention.merge(core.attend(q, k, v, self.scale, bias, mask))
        tokens.carry.update(queries=q, keys=k, values=v, scale=self.scale, bias=bias, output=out)
        return out
