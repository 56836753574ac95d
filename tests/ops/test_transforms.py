"""Transforms by products of matrices are those of torch.fft, at even, odd and padded sizes."""

from __future__ import annotations

import pytest
import torch

from nas.ops.parts import transforms
from nas.ops.parts.transforms import Pair, Spectrum

SIZES = [((7, 7), (7, 7)), ((8, 6), (8, 6)), ((4, 3), (8, 6)), ((3, 5), (7, 9)), ((1, 1), (2, 2))]


def parts(spectrum: Spectrum) -> tuple[torch.Tensor, torch.Tensor]:
    return spectrum.real, spectrum.imag


@pytest.mark.parametrize("grid, size", SIZES)
def test_as_torch_fft(grid: tuple[int, int], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, *grid, 3, generator=random)
    filters = torch.randn(4, size[0], size[1] // 2 + 1, 3, 2, generator=random)
    weights = torch.randn(4, generator=random)

    def everything() -> tuple[Spectrum, Spectrum, torch.Tensor]:
        spectra = tuple(transforms.learned_spectrum(one) for one in filters)
        mirrored = spectra[0].conj(), spectra[1].flip(0).roll(1, 0), *spectra[2:]
        mixed = transforms.weighted(mirrored, weights)
        return transforms.spectrum_of(x, size), mixed, transforms.filtered(x, mixed, size)

    fast = everything()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    product = everything()
    assert isinstance(product[0], Pair) and not isinstance(fast[0], Pair)
    for one, two in zip(fast[:2], product[:2], strict=True):
        for first, second in zip(parts(one), parts(two), strict=True):
            torch.testing.assert_close(first, second, atol=2e-5, rtol=1e-4)
    assert product[2].shape == x.shape
    torch.testing.assert_close(fast[2], product[2], atol=2e-5, rtol=1e-4)


def test_products_stay_in_single_precision_where_a_block_runs_in_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x = torch.randn(1, 6, 6, 2, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert transforms.spectrum_of(x, (6, 6)).real.dtype == torch.float32


def test_tables_are_marked_as_torch_marks_constants() -> None:
    marked = torch.compiler.assume_constant_result(lambda: None)
    assert vars(transforms._waves) == vars(transforms._last) == vars(marked) != {}
