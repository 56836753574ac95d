"""Windows over a grid: partition and its reverse, relative-position bias, the mask of shifted windows.

A window is h x w neighbours, or, dilated, h x w cells spread evenly over the whole grid.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.ops.parts import attention as core
from nas.ops.parts.constant import constant

Size = tuple[int, int]
APART = -100.0  # added to the scores of pairs that only the cyclic shift made neighbours, as in Swin


def clip(size: int, grid: Size) -> Size:
    """Rows and columns of a window of this size on the grid: at most the grid's own."""
    return min(size, grid[0]), min(size, grid[1])


def padded(grid: Size, size: Size) -> Size:
    """The grid, rounded up to whole windows."""
    return -(-grid[0] // size[0]) * size[0], -(-grid[1] // size[1]) * size[1]


def pad_grid(x: Tensor, size: Size) -> Tensor:
    """(B, H, W, C) with zero rows and columns after its last, up to whole windows."""
    grid = (x.shape[1], x.shape[2])
    height, width = padded(grid, size)
    return x if (height, width) == grid else F.pad(x, (0, 0, 0, width - grid[1], 0, height - grid[0]))


def partition(x: Tensor, size: Size, dilated: bool = False) -> Tensor:
    """(B, H, W, ...) to (B * windows, h * w, ...), in one copy."""
    count = x.shape[1] // size[0], x.shape[2] // size[1]
    if dilated:
        x = x.unflatten(2, (size[1], count[1])).unflatten(1, (size[0], count[0])).movedim((2, 4), (1, 2))
    else:
        x = x.unflatten(2, (count[1], size[1])).unflatten(1, (count[0], size[0])).transpose(2, 3)
    return x.flatten(0, 2).flatten(1, 2)


def reverse(x: Tensor, size: Size, grid: Size, dilated: bool = False) -> Tensor:
    """(B * windows, h * w, ...) to (B, H, W, ...), in one copy."""
    x = x.unflatten(1, size).unflatten(0, (-1, grid[0] // size[0], grid[1] // size[1]))
    x = x.movedim((1, 2), (2, 4)) if dilated else x.transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)


def relative_index(size: Size) -> np.ndarray:
    """(N, N) place in a flat (2h - 1) x (2w - 1) table of the offset from each key to each query."""
    rows, columns = np.divmod(np.arange(size[0] * size[1]), size[1])
    down = rows[:, None] - rows[None, :] + size[0] - 1
    right = columns[:, None] - columns[None, :] + size[1] - 1
    return down * (2 * size[1] - 1) + right


def shift_mask(grid: Size, size: Size, shift: Size) -> np.ndarray:
    """(windows, 1, N, N): 0 for pairs of one region, APART for pairs that the cyclic shift brought together."""
    areas = []
    for length, window, step in zip(grid, size, shift, strict=True):
        area = np.zeros(length, np.int64)
        if step:
            area[length - window :] = 1
            area[length - step :] = 2
        areas.append(area)
    region = 3 * areas[0][:, None] + areas[1][None, :]
    split = region.reshape(grid[0] // size[0], size[0], grid[1] // size[1], size[1])
    cells = split.transpose(0, 2, 1, 3).reshape(-1, size[0] * size[1])
    same = cells[:, None, :, None] == cells[:, None, None, :]
    return np.where(same, 0.0, APART).astype(np.float32)


class RelativeBias(nn.Module):
    """A learned bias for every head and every offset within a window. Smaller windows use the table's centre."""

    def __init__(self, heads: int, size: Size):
        super().__init__()
        self.table = nn.Parameter(torch.empty(heads, 2 * size[0] - 1, 2 * size[1] - 1))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.area = size[0] * size[1]
        constant(self, "index", relative_index(size).ravel())

    def forward(self) -> Tensor:
        """(1, heads, N, N)."""
        bias: Tensor = self.table.flatten(1).index_select(1, self.index)  # type: ignore[arg-type]
        return bias.unflatten(1, (self.area, self.area)).unsqueeze(0)


def table_size(heads: int, size: Size) -> int:
    """Entries of a relative-position table."""
    return heads * (2 * size[0] - 1) * (2 * size[1] - 1)


def attend_windows(
    attention: core.Projections, x: Tensor, size: Size, scale: float, bias: Tensor | None, dilated: bool = False
) -> Tensor:
    """Attention within each window of (B, H, W, C), up to the output projection: (B, H, W, heads * head_dim).

    bias is (1, heads, N, N) for all windows alike, or (windows, heads or 1, N, N).
    """
    batch, grid = x.shape[0], (x.shape[1], x.shape[2])
    rows = partition(x, size, dilated)
    if bias is not None and bias.shape[0] > 1:  # fused attention takes four dimensions, so the batch is written out
        bias = bias.expand(batch, *bias.shape).flatten(0, 1)
    q, k, v = attention.triple(rows)
    out = core.attend(q, k, v, scale, bias)
    return reverse(out.transpose(1, 2), size, grid, dilated).flatten(3)
