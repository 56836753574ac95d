"""Counts of a real forward pass on the meta device: the oracle of the cost formulas.

MACs are torch's FlopCounterMode halved (exact for attention on meta). Activation is the largest working set of one
product, as `nas.core.cost` defines it: inputs and output of a linear layer, convolution, or matrix product.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from nas.core.cost import Cost

_PRODUCTS: set[Callable[..., Any]] = {
    F.linear,
    F.conv1d,
    F.conv2d,
    F.scaled_dot_product_attention,
    torch.conv1d,
    torch.conv2d,
    torch.matmul,
    torch.mm,
    torch.bmm,
    torch.addmm,
    torch.baddbmm,
    torch.einsum,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.__rmatmul__,
    Tensor.mm,
    Tensor.bmm,
}


class _WorkingSet(TorchFunctionMode):
    """Remembers the largest product."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.largest = 0
        self._weights = {p.untyped_storage()._cdata for p in network.parameters()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _PRODUCTS:
            bias = (kwargs or {}).get("attn_mask")
            given = (tensor for tensor in _tensors((args, kwargs)) if tensor is not bias)
            inputs = [tensor for tensor in given if tensor.untyped_storage()._cdata not in self._weights]
            self.largest = max(self.largest, sum(t.numel() for t in inputs) + result.numel())
        return result


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [tensor for item in value for tensor in _tensors(item)]


def count(network: nn.Module, shape: tuple[int, ...], device: str = "meta") -> Cost:
    """MACs, parameters and activation of one image of this shape (C, H, W), in eval mode; attention is left at 0.

    On "cpu" numbers are computed as well: for small images the quicker way, since torch runs what does without them as
    Python, 1 ms an operation.
    """
    network = copy.deepcopy(network).to(device).eval()
    image = torch.zeros(1, *shape, device=device)
    working = _WorkingSet(network)
    with torch.no_grad(), FlopCounterMode(display=False) as flops, working:
        network(image)
    params = sum(p.numel() for p in network.parameters())
    macs, odd = divmod(flops.get_total_flops(), 2)
    assert not odd
    return Cost(macs=macs, params=params, activation=working.largest)
