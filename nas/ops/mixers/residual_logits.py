"""Residual attention (ReViT): scores are mixed with the scores of the previous block.

Paper: Diko et al., "ReViT: enhancing vision transformers feature diversity with attention residual connections",
Pattern Recognition 2024, https://arxiv.org/abs/2402.11301
S = alpha q k^T scale + (1 - alpha) S_previous, softmax(S + bias) v; the next block finds S, before bias and softmax.
Another number of heads is bridged by the mean over the previous heads. The first such block of a stage, and one after a
reduction, finds no scores and is plain softmax attention, as is alpha = 1. With `learned`, alpha is where it starts.
Limits: scores are kept, so no fused attention. A learned alpha is each block's own (the authors share one).
MACs 4NC^2 + 2N^2C.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.core.cost import Cost, attend, weights
from nas.core.knobs import FLAG, Maybe, Real, Whole
from nas.ops.base import Mixer
from nas.ops.parts import attention as core
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens


class ResidualLogits(Mixer):
    family = "attention"
    shared = frozenset({"attention"})
    reads = frozenset({"rotary", "bias"})
    emits = frozenset({"keys", "values", "output", "logits"})
    uses_previous = frozenset({"logits"})
    knobs = {
        "heads": Whole(1, 64),
        "head_dim": Maybe(Whole(1, 256)),
        "alpha": Real(0, 1),
        "learned": FLAG,
        "qkv_bias": FLAG,
    }
    example_block = {"repeat": 2}  # the first leaves scores, the second reads them
    examples = (
        {},
        {"heads": [2, 4], "head_dim": 16, "learned": [False, True]},
        {"heads": 4, "alpha": [0.25, 0.75], "qkv_bias": False},
    )

    def __init__(
        self,
        site: Site,
        *,
        heads: int = 3,
        head_dim: int | None = None,
        alpha: float = 0.5,
        learned: bool = False,
        qkv_bias: bool = True,
    ):
        super().__init__()
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        self.attention = core.Projections(site.dim, heads, head_dim, bias=qkv_bias)
        self.scale = core.scale_of("head", site.dim, head_dim)
        self.alpha = nn.Parameter(torch.full((1,), float(alpha))) if learned else alpha

    @classmethod
    def heads_of(cls, dim: int, *, heads: int = 3, head_dim: int | None = None, **_: object) -> tuple[int, int]:
        return core.resolve_heads(dim, heads, head_dim)

    @classmethod
    def rule(cls, form: Form, *, learned: bool = False, **_: object) -> str | None:
        if learned and "logits" not in form.previous:
            return "learned alpha needs the scores of the previous block; this one has none to read"
        return None

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        heads: int = 3,
        head_dim: int | None = None,
        alpha: float = 0.5,
        learned: bool = False,
        qkv_bias: bool = True,
    ) -> Cost:
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        projected = core.projections_cost(site.dim, heads, head_dim, site.rows, site.rows, bias=qkv_bias)
        return projected + weights(int(learned)) + attend(site.rows, site.rows, heads, head_dim, fused=False)

    def fuse(self) -> None:
        self.attention.fuse()

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        q, k, v = self.attention.triple(x)
        if tokens.rotary is not None:
            q, k = core.rotate(q, tokens.rotary, tokens.prefix), core.rotate(k, tokens.rotary, tokens.prefix)
        logits = (q * self.scale) @ k.transpose(-2, -1)
        previous = tokens.previous.get("logits")
        if previous is not None:
            if previous.shape[1] != logits.shape[1]:
                previous = previous.mean(dim=1, keepdim=True)
            alpha = self.alpha.to(logits.dtype) if isinstance(self.alpha, Tensor) else self.alpha
            logits = torch.lerp(previous, logits, alpha)
        bias, mask = tokens.attention_bias(), tokens.key_mask()
        scores = logits if bias is None else logits + bias
        shares = scores.softmax(dim=-1) if mask is None else core.masked_softmax(scores, mask)
        out = self.attention.merge(shares @ v)
        tokens.carry.update(keys=k, values=v, output=out, logits=logits)
        return out
