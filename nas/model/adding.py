"""Linear layers whose backward pass adds the weight's gradient straight into the memory that holds it.

Autograd would return the gradient of a slice of columns transposed, and adding that costs more than making it. Layers
that read the same rows (q, k and v) are one function: what is saved by it is Python between kernels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas.ops.parts.attention import Projections


def add_gradients(network: nn.Module) -> None:
    """Let every plain linear layer of a network work like this."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_one, module)  # type: ignore[method-assign]
        elif isinstance(module, Projections) and module.joined is None:
            module.project = partial(_three, module.q, module.k, module.v)  # type: ignore[method-assign]


class _Adding(torch.autograd.Function):
    """Linear layers on the same rows: inputs, then weight and bias of each."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *layers: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        weights, biases = layers[::2], layers[1::2]
        ctx.save_for_backward(inputs, *weights)
        linear = nn.functional.linear
        made = tuple([linear(inputs, w, b) for w, b in zip(weights, biases, strict=True)])  # type: ignore[arg-type]
        return made if len(made) > 1 else made[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("a network bound for training gives first gradients only: take others of `extract`")
        inputs, *weights = ctx.saved_tensors
        needed = ctx.needs_input_grad
        dtype = weights[0].dtype
        columns = _rows(inputs, dtype)
        back: Tensor | None = None
        results: list[Tensor | None] = [None]
        for index, weight in enumerate(weights):
            rows = _rows(gradients[index], dtype)
            made = None
            if needed[1 + 2 * index]:
                if weight.grad is None:
                    made = rows.t() @ columns
                else:
                    weight.grad.addmm_(rows.t(), columns)
            results += made, rows.sum(0) if needed[2 + 2 * index] else None
            if needed[0]:
                back = rows @ weight if back is None else back.addmm_(rows, weight)
        if back is not None:
            results[0] = back.view(inputs.shape).to(inputs.dtype)
        return tuple(results)


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Every row of a tensor, in the weights' own type (autocast computes in another)."""
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    return rows if rows.dtype is dtype else rows.to(dtype)


def _one(layer: nn.Linear, inputs: Tensor) -> Tensor:
    result: Tensor = _Adding.apply(inputs, layer.weight, layer.bias)
    return result


def _three(q: nn.Linear, k: nn.Linear, v: nn.Linear, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    made: tuple[Tensor, Tensor, Tensor] = _Adding.apply(inputs, q.weight, q.bias, k.weight, k.bias, v.weight, v.bias)
    return made
