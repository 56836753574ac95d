"""Re-parameterised depthwise convolution: three branches in training, one convolution after `fuse`.

BN(BN(k x k depthwise) + 1 x 1 depthwise + identity), as RepViT trains it (Wang et al., "RepViT: revisiting mobile CNN
from ViT perspective", CVPR 2024, https://arxiv.org/abs/2307.09283).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.cost import Cost, conv, total, weights
from nas.ops.parts.fold import fold_after, set_weights


class RepDepthwise(nn.Module):
    """Maps (B, C, H, W) to the same shape. `point` and both norms are gone once fused."""

    def __init__(self, dim: int, kernel: int):
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False)
        # Dilation means nothing to a 1x1 kernel; without it torch runs small batches on one thread a channel at a time.
        self.point: nn.Conv2d | None = nn.Conv2d(dim, dim, 1, groups=dim, dilation=2)
        self.norm1: nn.Module = nn.BatchNorm2d(dim)
        self.norm2: nn.Module = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.point is None:
            return self.depthwise(x)
        return self.norm2(self.norm1(self.depthwise(x)) + self.point(x) + x)

    @torch.no_grad()
    def fuse(self) -> None:
        """One depthwise convolution with the result of eval mode: point and identity are the kernel's centre."""
        if self.point is None:
            return
        self.norm1 = fold_after(self.depthwise, self.norm1)
        assert self.depthwise.bias is not None and self.point.bias is not None
        centre = F.pad(self.point.weight + 1, (self.depthwise.kernel_size[0] // 2,) * 4)
        set_weights(self.depthwise, self.depthwise.weight + centre, self.depthwise.bias + self.point.bias)
        self.point = None
        self.norm2 = fold_after(self.depthwise, self.norm2)


def rep_depthwise_cost(grid: tuple[int, int], dim: int, kernel: int) -> Cost:
    """The training form, which is what a network holds until it is fused."""
    return total(
        conv(grid, dim, dim, kernel, groups=dim, bias=False),
        conv(grid, dim, dim, 1, groups=dim),
        weights(4 * dim),
    )
