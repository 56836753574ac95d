"""What bundled tables need: double precision while they are computed, and a division that torch has in two steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def double_precision() -> Iterator[None]:
    """New tensors are double within: tables of sines and the like are computed so, then kept in single precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def quotient_and_rest(x: Tensor, divisor: float) -> tuple[Tensor, Tensor]:
    return x // divisor, x % divisor
