"""Filters in the frequency domain: real two-dimensional transforms over the grid of (..., H, W, C).

As Python they are torch's fast transforms on complex numbers. A program (torch.export, torch.compile) gets the same
transforms as products with constant matrices of sines and cosines, in real numbers: OpenVINO and Inductor know no
complex ones and ONNX Runtime's are hundreds of times slower. At the grids of vision transformers the products are also
faster than the fast transform (one thread, 14 x 14 x 192: 0.3 ms instead of 0.8). Both are within 1e-5 of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """A complex tensor as two real ones, with as much as spectra need (operators on it would not compile)."""

    real: Tensor
    imag: Tensor

    def times(self, other: Pair) -> Pair:
        real = self.real * other.real - self.imag * other.imag
        return Pair(real, self.real * other.imag + self.imag * other.real)

    def conj(self) -> Pair:
        return Pair(self.real, -self.imag)

    def flip(self, dim: int) -> Pair:
        return Pair(self.real.flip(dim), self.imag.flip(dim))

    def roll(self, shift: int, dim: int) -> Pair:
        return Pair(self.real.roll(shift, dim), self.imag.roll(shift, dim))


Table = TypeVar("Table", bound=Callable[..., Tensor])
Spectrum = Tensor | Pair  # (..., height, width // 2 + 1, C) of a grid padded with zeros to a size (height, width)


def learned_spectrum(parts: Tensor) -> Spectrum:
    """Of parameters (..., 2), real and imaginary."""
    if torch.compiler.is_compiling():
        return Pair(parts[..., 0], parts[..., 1])
    return torch.view_as_complex(parts)


def spectrum_of(x: Tensor, size: tuple[int, int]) -> Spectrum:
    """Of single precision x, padded to the size."""
    if torch.compiler.is_compiling():
        with _single(x):
            return _forward(x, size)
    return torch.fft.rfft2(x, s=size, dim=(-3, -2))


def weighted(spectra: tuple[Spectrum, ...], weights: Tensor) -> Spectrum:
    """The sum of spectra, each times its weight."""
    first, *others = (_times(spectrum, weight) for spectrum, weight in zip(spectra, weights.unbind(), strict=True))
    for other in others:
        if isinstance(first, Pair):
            assert isinstance(other, Pair)
            first = Pair(first.real + other.real, first.imag + other.imag)
        else:
            assert isinstance(other, Tensor)
            first = first + other
    return first


def _times(spectrum: Spectrum, weight: Tensor) -> Spectrum:
    if isinstance(spectrum, Pair):
        return Pair(weight * spectrum.real, weight * spectrum.imag)
    return weight * spectrum


def filtered(x: Tensor, spectrum: Spectrum, size: tuple[int, int], norm: str = "backward") -> Tensor:
    """Single precision x padded to the size, its spectrum times this one, and back, without what was padded.

    The norm of torch.fft is the rounding's only: both directions together scale by one.
    """
    height, width = x.shape[-3:-1]
    if isinstance(spectrum, Pair):
        with _single(x):
            return _inverse(_forward(x, size).times(spectrum), size, (height, width))
    found = torch.fft.rfft2(x, s=size, dim=(-3, -2), norm=norm)
    y = torch.fft.irfft2(found * spectrum, s=size, dim=(-3, -2), norm=norm)
    return y if (height, width) == size else y[..., :height, :width, :]


def _single(x: Tensor) -> AbstractContextManager:
    """Products of matrices stay in single precision where a block runs in half."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _forward(x: Tensor, size: tuple[int, int]) -> Pair:
    """Down the rows, where x is real, then along them."""
    (rows, columns), (height, width) = x.shape[-3:-1], size
    down = _waves(height, rows, height)
    y = (down.to(x.device) @ x.flatten(-2)).unflatten(-1, x.shape[-2:]).unflatten(-3, (2, height))
    along = _waves(width // 2 + 1, columns, width).to(x.device)
    cosine, sine = (along @ y).unflatten(-2, (2, -1)).unbind(-3)
    return Pair(cosine.select(-4, 0) - sine.select(-4, 1), -cosine.select(-4, 1) - sine.select(-4, 0))


def _inverse(y: Pair, size: tuple[int, int], kept: tuple[int, int]) -> Tensor:
    """The first rows and columns of the real grid with this spectrum."""
    (height, width), (rows, columns) = size, kept
    both = torch.stack((y.real, y.imag), dim=-4)
    up = _waves(rows, height, height).to(both.device)
    turned = (up @ both.flatten(-2)).unflatten(-1, both.shape[-2:]).unflatten(-3, (2, rows))
    cosine, sine = turned.unbind(-4)  # each (..., 2, rows, width // 2 + 1, C)
    real = cosine.select(-4, 0) - sine.select(-4, 1)
    imag = sine.select(-4, 0) + cosine.select(-4, 1)
    return _last(columns, width, height).to(both.device) @ torch.cat((real, imag), dim=-2)


def _constant(function: Table) -> Table:
    """As torch.compiler.assume_constant_result: that is this mark alone, after importing the compiler for a second."""
    function.__dict__["_dynamo_marked_constant"] = True
    return function


@_constant
def _waves(frequencies: int, places: int, period: int) -> Tensor:
    """Cosines, and below them sines, of every product of frequency and place: (2 frequencies, places)."""
    angle = 2 * np.pi / period * (np.outer(np.arange(frequencies), np.arange(places)) % period)
    return torch.from_numpy(np.concatenate((np.cos(angle), np.sin(angle))).astype(np.float32))


@_constant
def _last(places: int, period: int, other: int) -> Tensor:
    """From the frequencies that are kept, those between the ends twice, to the places: (places, 2 frequencies)."""
    angle = 2 * np.pi / period * (np.outer(np.arange(places), np.arange(period // 2 + 1)) % period)
    weight = np.full(period // 2 + 1, 2.0 / (period * other))
    weight[0] /= 2
    if period % 2 == 0:
        weight[-1] /= 2
    return torch.from_numpy(
        np.concatenate((weight * np.cos(angle), -weight * np.sin(angle)), axis=1).astype(np.float32)
    )
