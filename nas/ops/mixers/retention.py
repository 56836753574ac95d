"""Retention (ViR): attention without softmax, in which each head forgets what lies further back in the raster order.

Paper: Hatamizadeh et al., "ViR: towards efficient vision retention backbones", 2023, https://arxiv.org/abs/2310.19731;
the mechanism: Sun et al., "Retentive network", 2023, https://arxiv.org/abs/2307.08621
y_i = sum_{j <= i} g^(p_i - p_j) (q_i . k_j) v_j with g = 1 - exp(linspace(ln 1/32, ln 1/512, heads)), each head's
output normalised over its channels (a group norm; its scale and shift are the output projection's). p is a token's
original cell, so that kept tokens keep their distances; prefix tokens stand after the last cell, as the paper's class
token does: they read every patch, no patch reads them. `mode` is how it is computed, with equal results: parallel (one
matrix), recurrent (a state a token), chunkwise (parallel within `chunk` tokens, a state between).
Limits: a token fused from others (cell -1) stands before the first. The released code applies a softmax in its
parallel form, which then is not its recurrent one; here none does.
MACs 4NC^2 and 2N^2C (parallel), 2NCd (recurrent), 2NC(chunk + d) less the first chunk's state (chunkwise).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.core.cost import NOTHING, Cost, product
from nas.core.knobs import FLAG, Maybe, Whole, one_of
from nas.ops.base import Mixer
from nas.ops.parts import attention as core
from nas.ops.parts.constant import constant
from nas.ops.site import Form, Site
from nas.ops.tokens import Tokens, gather_rows


class Retention(Mixer):
    takes = frozenset({"grid", "subset"})
    emits = frozenset({"output"})
    knobs = {
        "heads": Whole(1, 64),
        "head_dim": Maybe(Whole(2, 256)),
        "qkv_bias": FLAG,
        "mode": one_of("parallel", "recurrent", "chunkwise"),
        "chunk": Whole(2, 1024),
    }
    examples = (
        {"mode": ["parallel", "chunkwise"]},
        {"heads": [2, 4], "head_dim": [12, 16], "qkv_bias": False, "mode": "chunkwise", "chunk": [32, 50]},
        {"mode": "recurrent"},
    )

    def __init__(
        self,
        site: Site,
        *,
        heads: int = 3,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        mode: str = "parallel",
        chunk: int = 64,
    ):
        super().__init__()
        heads, head_dim = core.resolve_heads(site.dim, heads, head_dim)
        self.attention = core.Projections(site.dim, heads, head_dim, bias=qkv_bias)
        self.scale, self.mode, self.chunk = head_dim**-0.5, mode, chunk
        forget = np.exp(np.linspace(np.log(1 / 32), np.log(1 / 512), heads))
        constant(self, "rate", np.log1p(-forget).astype(np.float32).reshape(-1, 1, 1))

    @classmethod
    def heads_of(cls, dim: int, *, heads: int = 3, head_dim: int | None = None, **_: object) -> tuple[int, int]:
        return core.resolve_heads(dim, heads, head_dim)

    @classmethod
    def rule(cls, form: Form, *, heads: int = 3, head_dim: int | None = None, **_: object) -> str | None:
        if core.resolve_heads(form.dim, heads, head_dim)[1] < 2:
            return f"{heads} heads leave one channel each of {form.dim}, which the norm of a head makes zero"
        return None

    @classmethod
    def cost(
        cls,
        site: Site,
        *,
        heads: int = 3,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        mode: str = "parallel",
        chunk: int = 64,
    ) -> Cost:
        heads, d = core.resolve_heads(site.dim, heads, head_dim)
        rows = site.rows
        cost = core.projections_cost(site.dim, heads, d, rows, rows, bias=qkv_bias)
        if mode == "recurrent":
            return cost + (product(d, 1, d, heads) + product(1, d, d, heads)).times(rows)
        step = chunk if mode == "chunkwise" else rows
        for begin in range(0, rows, step):
            part = min(step, rows - begin)
            cost += product(part, d, part, heads) + product(part, part, d, heads)
            cost += product(part, d, d, heads) if begin else NOTHING
            cost += product(d, part, d, heads) if begin + step < rows else NOTHING
        return cost

    def fuse(self) -> None:
        self.attention.fuse()

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        prefix, patches, mask = tokens.prefix, x[:, tokens.prefix :], tokens.mask
        places = torch.arange(tokens.count, device=x.device)[None]
        order = None
        if tokens.index is not None:
            places, order = tokens.index.sort(dim=1, stable=True)
            patches = gather_rows(patches, order)
            mask = None if mask is None else mask.gather(1, order)
        if prefix:
            patches = torch.cat((patches, x[:, :prefix]), dim=1)
            last = tokens.height * tokens.width + torch.arange(prefix, device=x.device)
            places = torch.cat((places, last.expand(places.shape[0], -1)), dim=1)
        q, k, v = self.attention.triple(patches)
        if mask is not None:  # what is dropped leaves nothing behind
            v = v * F.pad(mask, (0, prefix), value=1.0)[:, None, :, None]
        y = self.retain(q * self.scale, k, v, places)
        out = self.attention.merge(F.layer_norm(y, y.shape[-1:]))
        head, out = (out[:, -prefix:], out[:, :-prefix]) if prefix else (None, out)
        if order is not None:
            out = gather_rows(out, order.argsort(dim=1))
        out = out if head is None else torch.cat((head, out), dim=1)
        tokens.carry.update(output=out)
        return out

    def retain(self, q: Tensor, k: Tensor, v: Tensor, places: Tensor) -> Tensor:
        """Decayed sums (B, h, T, d) of tokens in order, whose places (B or 1, T) never fall."""
        if self.mode == "recurrent":
            return self.recurrent(q, k, v, places)
        rows, step = q.shape[2], self.chunk if self.mode == "chunkwise" else q.shape[2]
        found, state, last = [], None, places[:, :1]
        for begin in range(0, rows, step):
            part = slice(begin, begin + step)
            queries, keys, values, here = q[:, :, part], k[:, :, part], v[:, :, part], places[:, part]
            fade = self.decay(here[:, :, None] - here[:, None, :]).tril()
            y = (queries @ keys.transpose(-2, -1) * fade) @ values
            if state is not None:
                y = y + (queries * self.decay((here - last)[:, :, None])) @ state
            found.append(y)
            if begin + step < rows:
                end = here[:, -1:]
                kept = (keys * self.decay((end - here)[:, :, None])).transpose(-2, -1) @ values
                state = kept if state is None else state * self.decay((end - last)[:, :, None]) + kept
                last = end
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    def recurrent(self, q: Tensor, k: Tensor, v: Tensor, places: Tensor) -> Tensor:
        """Token by token: the state fades by the step in place, takes in a key and value, and is read."""
        state, found = q.new_zeros(()), []
        steps = self.decay(places.diff(dim=1, prepend=places[:, :1])[:, :, None]).to(q.dtype)
        for t in range(q.shape[2]):
            one = slice(t, t + 1)
            state = state * steps[:, :, one] + k[:, :, one].transpose(-2, -1) @ v[:, :, one]
            found.append(q[:, :, one] @ state)
        return torch.cat(found, dim=2)

    def decay(self, gap: Tensor) -> Tensor:
        """g ^ gap for every head: (B, T, S) to (B, h, T, S). Ahead of time it is masked, and held finite."""
        return (gap.clamp(min=0)[:, None] * self.rate).exp()  # type: ignore[operator]
