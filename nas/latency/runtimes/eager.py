"""PyTorch, operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.latency.target import Target

KINDS = frozenset({"cpu", "gpu"})
PRECISIONS = ("fp32", "bf16", "fp16")
PACKAGES = ("torch",)
deployment = 0


def load(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Callable[[], Any]:
    from nas.latency.runtimes._refusal import refusing
    from nas.latency.runtimes._torch import placed, ready

    with refusing("torch"):
        module, inputs, context = placed(module, inputs, target)
        return ready(module, inputs, target, context)
