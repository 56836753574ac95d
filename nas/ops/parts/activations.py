"""Activations by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class GeluTanh(nn.GELU):
    """GELU by its tanh approximation."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")


class OverwritingGelu(nn.GELU):
    """GELU that writes over its input where no gradient is recorded: the same bits, without memory for the result.

    For an input that nothing else reads. torch has the operation but no module for it. Compilers and exporters see the
    plain one.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(input)
        return torch.ops.aten.gelu_(input, approximate=self.approximate)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": GeluTanh,
    "quick_gelu": QuickGelu,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hard_swish": nn.Hardswish,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}


def overwriting(name: str) -> nn.Module:
    """The activation, which may overwrite its input: for one that nothing else reads."""
    made = ACTIVATIONS[name]()
    return OverwritingGelu(made.approximate) if isinstance(made, nn.GELU) else made
