"""Pre-activation inverted bottleneck on maps: norm, widen, depthwise convolution, squeeze-and-excitation, narrow.

As in MaxViT and CoAtNet: batch norm on the input without activation, batch norm and activation after each of the first
two convolutions, the gate after those, a bias on the last convolution only. The width inside is a multiple of the new
width, the gate's own width a part of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.core.cost import NOTHING, Cost, conv, total, weights
from nas.core.knobs import Domain, Real, one_of
from nas.ops.base import Share, centre
from nas.ops.parts.activations import ACTIVATIONS
from nas.ops.parts.fold import fold_after, fold_before
from nas.ops.parts.padding import PaddedConv, padded_conv_cost, strided
from nas.ops.parts.squeeze import SqueezeExcite, rounded, squeeze_excite_cost
from nas.ops.tokens import map_from_rows, rows_from_map

KNOBS: dict[str, Domain] = {
    "ratio": Real(1, 8),
    "kernel": one_of(3, 5, 7),
    "squeeze": Real(0, 1),  # the gate's hidden width as a part of the new width; 0 for no gate
    "activation": one_of(*ACTIVATIONS),
    "eps": Real(0, 1e-2),
}


class MbConv(nn.Module):
    """(B, C_in, H, W) to (B, C, ceil(H / stride), ceil(W / stride)), without shortcut."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        ratio: float,
        kernel: int,
        squeeze: float,
        activation: str,
        eps: float,
        stride: int = 1,
        padding: str = "symmetric",
    ):
        super().__init__()
        hidden, gate = inside(outputs, ratio, squeeze)
        self.norm: nn.Module = nn.BatchNorm2d(inputs, eps=eps)
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(hidden, eps=eps)
        self.depthwise = PaddedConv(hidden, hidden, kernel, stride=stride, groups=hidden, bias=False, padding=padding)
        self.norm2: nn.Module = nn.BatchNorm2d(hidden, eps=eps)
        self.gate = SqueezeExcite(hidden, gate, "silu") if gate else nn.Identity()
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, image: Tensor) -> Tensor:
        image = self.activation(self.norm1(self.expand(self.norm(image))))
        image = self.activation(self.norm2(self.depthwise(image)))
        gated = self.gate(rows_from_map(image))
        return self.project(map_from_rows(gated, image.shape[2:]))

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold batch norms into the convolutions beside them; equal in eval mode."""
        self.norm = fold_before(self.norm, self.expand)
        self.norm1 = fold_after(self.expand, self.norm1)
        self.norm2 = fold_after(self.depthwise, self.norm2)


def mbconv_cost(
    grid: tuple[int, int],
    inputs: int,
    outputs: int,
    *,
    ratio: float,
    kernel: int,
    squeeze: float,
    stride: int = 1,
    padding: str = "symmetric",
) -> Cost:
    """Its cost on the grid that it reads."""
    hidden, gate = inside(outputs, ratio, squeeze)
    return total(
        weights(2 * inputs + 4 * hidden),
        conv(grid, inputs, hidden, 1, bias=False),
        padded_conv_cost(grid, hidden, hidden, kernel, stride=stride, groups=hidden, bias=False, padding=padding),
        squeeze_excite_cost(hidden, gate) if gate else NOTHING,
        conv(strided(grid, stride), hidden, outputs, 1),
    )


def mbconv_share(name: str) -> Share:
    """Small depthwise kernels are the centres of large ones."""
    return Share(name, centre) if name.endswith("depthwise.weight") else Share(name)


def inside(outputs: int, ratio: float, squeeze: float) -> tuple[int, int]:
    """Widths inside: of the depthwise convolution, rounded to a multiple of 8, and of the gate (0: none)."""
    return rounded(outputs * ratio), int(outputs * squeeze)
