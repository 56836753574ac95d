"""Tokens: the state that flows through a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.ops.site import GRID, SUBSET


@dataclasses.dataclass
class Tokens:
    """Features (B, P + N, C) of P prefix tokens then N patch tokens, and what is known of the patch tokens.

    Operators never change a state in place: `replace` returns another. `carry` is the exception: a mixer leaves there,
    by name, what a later operator of the block or the next block's mixer may read (queries, keys, values, output,
    logits); the network empties it when tokens change.
    """

    x: Tensor
    height: int
    width: int
    prefix: int = 0
    layout: str = GRID
    index: Tensor | None = None  # (B, N) original cell of each token; None: the token's own place
    cover: Tensor | None = None  # (B, H * W) the token that stands for each cell, once some were merged
    size: Tensor | None = None  # (B, N) cells each token stands for, once some were merged
    proportional: bool = True  # attention counts a merged token as often as the cells it stands for
    mask: Tensor | None = None  # (B, N) 1 for kept, 0 for dropped, in training
    rotary: tuple[Tensor, Tensor] | None = None  # cos, sin for q and k of the patch tokens, broadcast to (B, h, N, d)
    bias: Tensor | None = None  # additive attention bias, broadcast to (B, h, P + N, P + N)
    carry: dict[str, Any] = dataclasses.field(default_factory=dict)
    previous: dict[str, Any] = dataclasses.field(default_factory=dict)
    running: dict[str, Any] = dataclasses.field(default_factory=dict)  # what reductions keep across blocks

    @classmethod
    def from_map(cls, image: Tensor) -> Tokens:
        """The state of a map (B, C, H, W): a view."""
        return cls(image.flatten(2).transpose(1, 2), image.shape[2], image.shape[3])

    def replace(self, **changes: Any) -> Tokens:
        return dataclasses.replace(self, **changes)

    @property
    def patches(self) -> Tensor:
        """(B, N, C)."""
        return self.x[:, self.prefix :] if self.prefix else self.x

    @property
    def count(self) -> int:
        """Patch tokens now."""
        return self.x.shape[1] - self.prefix

    def map_of(self, x: Tensor) -> Tensor:
        """Patch tokens of features (B, P + N, C) as a map (B, C, H, W): a view in channels-last order."""
        return map_from_rows(x[:, self.prefix :] if self.prefix else x, (self.height, self.width))

    def grid_of(self, x: Tensor) -> Tensor:
        """Patch tokens of features (B, P + N, C) as (B, H, W, C)."""
        patches = x[:, self.prefix :] if self.prefix else x
        return patches.unflatten(1, (self.height, self.width))

    def join(self, x: Tensor, patches: Tensor) -> Tensor:
        """Features whose prefix is that of x and whose patch tokens are these (B, N, C)."""
        return torch.cat((x[:, : self.prefix], patches), dim=1) if self.prefix else patches

    def bypass(self, patches: Tensor) -> Tensor:
        """An update (B, P + N, C) that leaves prefix tokens as they are (adds zero) in a residual."""
        if not self.prefix:
            return patches
        return torch.cat((patches.new_zeros(patches.shape[0], self.prefix, patches.shape[2]), patches), dim=1)

    def rows_of(self, index: Tensor) -> Tensor:
        """Rows (B, P + K) of x that hold the prefix and the patch tokens at index (B, K)."""
        if not self.prefix:
            return index
        prefix = torch.arange(self.prefix, device=index.device).expand(index.shape[0], -1)
        return torch.cat((prefix, index + self.prefix), dim=1)

    def select(self, index: Tensor, extra: Tensor | None = None, positions: bool = False) -> Tokens:
        """The state with the patch tokens at index (B, K), and `extra` new ones (B, E, C) after them (of no cell: -1).

        `positions` keeps phases and bias of the position operator: a reduction before the mixer says so.
        """
        rows = self.rows_of(index)
        state = self.replace(
            x=gather_rows(self.x, rows),
            index=index if self.index is None else self.index.gather(1, index),
            mask=None if self.mask is None else self.mask.gather(1, index),
            size=None if self.size is None else self.size.gather(1, index),
            rotary=_rotary_at(self.rotary, index) if positions else None,
            bias=_bias_at(self.bias, rows) if positions else None,
            layout=SUBSET,
            cover=None,
            carry={},
        )
        return state if extra is None else state._append(extra)

    def _append(self, extra: Tensor) -> Tokens:
        """The state with new tokens (B, E, C) after the others."""
        count, rotary = extra.shape[1], self.rotary
        if rotary is not None:
            rotary = (F.pad(rotary[0], (0, 0, 0, count), value=1.0), F.pad(rotary[1], (0, 0, 0, count)))
        return self.replace(
            x=torch.cat((self.x, extra), dim=1),
            index=None if self.index is None else F.pad(self.index, (0, count), value=-1),
            mask=None if self.mask is None else F.pad(self.mask, (0, count), value=1.0),
            size=None if self.size is None else F.pad(self.size, (0, count), value=1.0),
            rotary=rotary,
            bias=None if self.bias is None else F.pad(self.bias, (0, count, 0, count)),
        )

    def mean(self, patches: Tensor) -> Tensor:
        """Mean (B, C) over features (B, N, C) of the patch tokens; those dropped in training do not count."""
        if self.mask is None:
            return patches.mean(dim=1)
        weight = self.mask[:, :, None].to(patches.dtype)
        return (patches * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)

    def key_mask(self) -> Tensor | None:
        """The mask over all P + N keys, prefix tokens kept; None where nothing is masked."""
        if self.mask is None or not self.prefix:
            return self.mask
        return torch.cat((self.mask.new_ones(self.mask.shape[0], self.prefix), self.mask), dim=1)

    def attention_bias(self) -> Tensor | None:
        """The additive bias of the state: positions, and log sizes of merged tokens (proportional attention)."""
        bias = self.bias
        if self.size is not None and self.proportional:
            sizes = self.size.log()[:, None, None, :]
            if self.prefix:
                sizes = torch.cat((sizes.new_zeros(*sizes.shape[:3], self.prefix), sizes), dim=-1)
            bias = sizes if bias is None else bias + sizes
        return bias


def map_from_rows(x: Tensor, grid: Sequence[int]) -> Tensor:
    """(B, H * W, C) to (B, C, H, W): a view in channels-last order.

    Rows are split before the channels move: the other way round, torch gives a batch of one a stride by which the map
    no longer counts as channels-last, and convolutions copy it (a depthwise one then takes up to thirty times as long).
    """
    return x.unflatten(1, (grid[0], grid[1])).permute(0, 3, 1, 2)


def rows_from_map(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H * W, C): a view where the map is channels-last."""
    return x.flatten(2).transpose(1, 2)


def gather_rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows (B, K, ...) of x (B, N, ...) at index (B, K): whole rows are copied, far faster than `gather`."""
    return x.flatten(0, 1).index_select(0, _flat(index, x.shape[1])).unflatten(0, index.shape)


def put_rows(x: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """x (B, N, ...) in which these rows (B, K, ...) stand at index (B, K), each place once."""
    rows = rows.flatten(0, 1).to(x.dtype)  # a block may have run in lower precision
    return x.flatten(0, 1).index_copy(0, _flat(index, x.shape[1]), rows).unflatten(0, x.shape[:2])


def add_rows(x: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """x (B, N, ...) to which these rows (B, K, ...) are added at index (B, K)."""
    rows = rows.flatten(0, 1).to(x.dtype)
    return x.flatten(0, 1).index_add(0, _flat(index, x.shape[1]), rows).unflatten(0, x.shape[:2])


def _flat(index: Tensor, count: int) -> Tensor:
    """Indices (B, K) within samples of `count` rows as indices over the whole batch."""
    start = torch.arange(index.shape[0], device=index.device) * count
    return (index + start[:, None]).flatten()


def _rotary_at(rotary: tuple[Tensor, Tensor] | None, index: Tensor) -> tuple[Tensor, Tensor] | None:
    """Phases, broadcast to (B, h, N, d), of the patch tokens at index (B, K)."""
    if rotary is None:
        return None
    cos, sin = (torch.take_along_dim(part, index[:, None, :, None], dim=2) for part in rotary)
    return cos, sin


def _bias_at(bias: Tensor | None, rows: Tensor) -> Tensor | None:
    """A bias, broadcast to (B, h, P + N, P + N), at these rows and columns (B, K)."""
    if bias is None:
        return None
    if bias.shape[2] > 1:
        bias = torch.take_along_dim(bias, rows[:, None, :, None], dim=2)
    return torch.take_along_dim(bias, rows[:, None, None, :], dim=3)
