"""Implicit long kernels: a small network of sines maps a cell's coordinates to the kernel's values there.

Poli et al., "Hyena hierarchy", ICML 2023, https://arxiv.org/abs/2302.10866; in two dimensions Zimerman and Wolf,
"Multi-dimensional Hyena for spatial inductive bias", AISTATS 2024, https://arxiv.org/abs/2309.13600
Kernels can be evaluated at any grid. A window fades them with distance, faster in later channels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from nas.core.cost import NOTHING, Cost, linear, total, weights
from nas.ops.parts.constant import constant
from nas.ops.parts.transforms import Spectrum, filtered, spectrum_of, weighted

HIDDEN = 2  # layers between the first and the last
TARGET, FAST, SLOW = 1e-2, 0.3, 1.5  # the window falls to TARGET within these parts of the grid, by channel


class SineNetwork(nn.Module):
    """Coordinates (..., E) to `levels` kernels (..., C)."""

    def __init__(self, inputs: int, width: int, dim: int, levels: int):
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(HIDDEN))
        self.last = nn.ModuleList(nn.Linear(width, dim, bias=False) for _ in range(levels))

    def forward(self, x: Tensor, frequency: Tensor) -> list[Tensor]:
        x = torch.sin(frequency * self.first(x))
        for layer in self.hidden:
            x = torch.sin(frequency * layer(x))
        return [layer(x) for layer in self.last]


class ImplicitKernels(nn.Module):
    """`levels` kernels (H, W, C): of both coordinates at once (joint), or products of one of each axis."""

    def __init__(self, dim: int, levels: int, width: int, bands: int, joint: bool):
        super().__init__()
        self.bands, self.joint = bands, joint
        inputs = (1 + 2 * bands) * (2 if joint else 1)
        self.frequency = nn.Parameter(torch.ones(width))
        self.networks = nn.ModuleList(SineNetwork(inputs, width, dim, levels) for _ in range(1 if joint else 2))
        rates = np.linspace(math.log(1 / TARGET) / SLOW, math.log(1 / TARGET) / FAST, dim * levels)
        constant(self, "rates", rates.astype(np.float32).reshape(levels, dim))

    def coordinates(self, length: int) -> tuple[Tensor, Tensor]:
        """Places in [0, 1] (L, 1), and with them waves in several bands (L, E)."""
        device, dtype = self.frequency.device, self.frequency.dtype
        place = torch.linspace(0, 1, length, device=device)[:, None]
        angle = torch.arange(length, device=device)[:, None] * (2 * math.pi / length)
        angle = angle * torch.linspace(1e-4, self.bands - 1, self.bands, device=device)
        return place.to(dtype), torch.cat((place, angle.cos(), -angle.sin()), dim=-1).to(dtype)

    def forward(self, height: int, width: int) -> list[Tensor]:
        (y, rows), (x, columns) = self.coordinates(height), self.coordinates(width)
        if self.joint:
            both = (rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1))
            kernels = self.networks[0](torch.cat(both, dim=-1), self.frequency)
        else:
            pair = [net(line, self.frequency) for net, line in zip(self.networks, (rows, columns), strict=True)]
            kernels = [down[:, None] * along[None] for down, along in zip(*pair, strict=True)]
        distance = y[:, None] + x[None]  # (H, W, 1)
        return [kernel * (-distance * self.rates[level]).exp() for level, kernel in enumerate(kernels)]  # type: ignore[index]

    def reset(self) -> None:
        """Torch's own initial weights: a truncated normal of 0.02 would leave kernels near zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()


def kernels_cost(grid: tuple[int, int], dim: int, levels: int, width: int, bands: int, joint: bool) -> Cost:
    """Evaluated once a batch, whatever its size."""
    inputs, parts = 1 + 2 * bands, [NOTHING]
    for rows in (grid[0] * grid[1],) if joint else grid:
        parts.append(linear(rows, inputs * (2 if joint else 1), width))
        parts.append(linear(rows, width, width).times(HIDDEN))
        parts.append(linear(rows, width, dim, bias=False).times(levels))
    return total(*parts, weights(width))


def spectrum_towards(kernel: Tensor, grid: tuple[int, int], directions: str, mix: Tensor | None) -> Spectrum:
    """Spectrum (2H, W + 1, C) of a kernel over the offsets of one quadrant, turned to the directions asked.

    A real kernel that looks the other way along both axes has the conjugate spectrum; along the first axis alone, the
    spectrum at negative frequencies. Four directions are thus one convolution.
    """
    forward = spectrum_of(kernel.float(), (2 * grid[0], 2 * grid[1]))
    if mix is None:
        return forward.conj() if directions == "backward" else forward
    upward = forward.flip(0).roll(1, 0)
    return weighted((forward, forward.conj(), upward.conj(), upward), mix)


def long_convolution(x: Tensor, spectrum: Spectrum) -> Tensor:
    """Zero-padded convolution of (B, H, W, C) by transforms, over the root of the padded area."""
    size = (2 * x.shape[1], 2 * x.shape[2])
    return (filtered(x.float(), spectrum, size) / math.sqrt(size[0] * size[1])).to(x.dtype)
