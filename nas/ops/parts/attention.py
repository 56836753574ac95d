"""One attention core: projections shared by every softmax attention of a place, and the product itself.

q, k and v are separate projections whose rows are ordered head by head, so that leading rows are leading heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.cost import Cost, linear

SCALES = ("head", "full", "none")  # head_dim ** -0.5, dim ** -0.5 (CvT, BiFormer), 1


def resolve_heads(dim: int, heads: int, head_dim: int | None) -> tuple[int, int]:
    """Heads and head dimension; without head_dim the width is divided among the heads."""
    if head_dim is not None:
        return heads, head_dim
    if dim % heads:
        raise ValueError(f"{heads} heads do not divide the width {dim}; give head_dim, or other heads")
    return heads, dim // heads


class Projections(nn.Module):
    """q, k, v and output projections: (B, N, C) to (B, h, N, d) and back. One set in the bank of each place."""

    def __init__(self, dim: int, heads: int, head_dim: int, *, bias: bool = True, out_bias: bool = True):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, heads * head_dim, bias=bias)
        self.k = nn.Linear(dim, heads * head_dim, bias=bias)
        self.v = nn.Linear(dim, heads * head_dim, bias=bias)
        self.out = nn.Linear(heads * head_dim, dim, bias=out_bias)
        self.joined: nn.Linear | None = None

    def split(self, x: Tensor) -> Tensor:
        """(..., N, h * d) to (..., h, N, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def queries(self, x: Tensor) -> Tensor:
        return self.split(self.q(x))

    def keys(self, x: Tensor) -> Tensor:
        return self.split(self.k(x))

    def values(self, x: Tensor) -> Tensor:
        return self.split(self.v(x))

    def triple(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the same rows: one product once fused."""
        q, k, v = self.project(x) if self.joined is None else self.joined(x).chunk(3, dim=-1)
        return self.split(q), self.split(k), self.split(v)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three before heads are told apart; a supernet in training does it in one step."""
        return self.q(x), self.k(x), self.v(x)

    def fuse(self) -> None:
        """Join the three projections into one, for operators that always want all three of the same rows."""
        if self.joined is not None:
            return
        parts = (self.q, self.k, self.v)
        inputs, outputs = self.q.in_features, 3 * self.q.out_features
        joined = nn.Linear(inputs, outputs, bias=self.q.bias is not None, device="meta")
        joined.weight = nn.Parameter(torch.cat([part.weight for part in parts]))
        if self.q.bias is not None:
            joined.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
        self.joined = joined
        del self.q, self.k, self.v

    def merge(self, x: Tensor) -> Tensor:
        """(..., h, N, d) to (..., N, C) through the output projection."""
        return self.out(x.transpose(-3, -2).flatten(-2))


def projections_cost(
    dim: int, heads: int, head_dim: int, queries: int, keys: int, *, bias: bool = True, out_bias: bool = True
) -> Cost:
    """The four projections over this many query and key rows."""
    inner = heads * head_dim
    pair = linear(keys, dim, inner, bias)
    return linear(queries, dim, inner, bias) + pair + pair + linear(queries, inner, dim, out_bias)


def scale_of(mode: str, dim: int, head_dim: int, temperature: float = 1.0) -> float:
    """The factor of the scores; a temperature above 1 flattens them."""
    base = {"head": head_dim**-0.5, "full": dim**-0.5, "none": 1.0}[mode]
    return base / temperature


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Softmax attention (B, h, N, d) by the fused kernel. bias adds to the scores; mask (B, M) keeps (1) or drops keys.

    With a mask (training of learned reductions) each query still sees itself, and a weight is a mask times its
    exponential, so that gradients reach the mask: the form of DynamicViT.
    """
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    return attention_map(q, k, scale, bias, mask) @ v


def attention_map(q: Tensor, k: Tensor, scale: float, bias: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """The weights (B, h, N, M) of softmax attention, for those that need the map."""
    scores = (q * scale) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    if mask is None:
        return scores.softmax(dim=-1)
    return masked_softmax(scores, mask)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax in which dropped keys weigh nothing, but for a query's own."""
    own = torch.eye(scores.shape[-2], scores.shape[-1], dtype=scores.dtype, device=scores.device)
    keep = mask[:, None, None, :].to(scores.dtype)
    keep = keep + (1 - keep) * own
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp() * keep
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def class_row(
    queries: Tensor, keys: Tensor, scale: float, prefix: int, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Head-mean attention (B, N) of the class token on patch tokens: one row of the map, after softmax over all keys.

    An element-wise product and a sum: on a CPU several times faster than a product of one row with strided keys.
    """
    scores = (queries[:, :, :1] * scale * keys).sum(dim=-1)
    if bias is not None:
        scores = scores + bias[:, :, 0]
    if mask is not None:
        scores = scores.masked_fill(mask[:, None] == 0, -torch.inf)
    return scores.softmax(dim=-1).mean(dim=1)[:, prefix:]


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor], prefix: int) -> Tensor:
    """Rotary phases on the patch tokens of q or k (B, h, P + N, d): pairs are neighbours (2i, 2i + 1)."""
    cos, sin = rotary
    head, patches = (x[:, :, :prefix], x[:, :, prefix:]) if prefix else (None, x)
    pairs = patches.unflatten(-1, (-1, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    patches = patches * cos + turned * sin
    return patches if head is None else torch.cat((head, patches), dim=2)
