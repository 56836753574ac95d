"""torch.compile with Inductor, as one graph of fixed shapes.

On a processor the weights are frozen into the graph and packed for its kernels, and a C++ compiler is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.latency.target import Target

KINDS = frozenset({"cpu", "gpu"})
PRECISIONS = ("fp32", "bf16", "fp16")
PACKAGES = ("torch",)
deployment = 0

_numbers = itertools.count()


def load(module: nn.Module, inputs: tuple[Tensor, ...], target: Target) -> Callable[[], Any]:
    import torch
    from torch._inductor import config

    from nas.latency.runtimes._refusal import refusing
    from nas.latency.runtimes._torch import placed, ready

    with refusing("torch"):
        module, inputs, context = placed(module, inputs, target)

    def forward(*tensors: Tensor) -> Any:
        return module(*tensors)

    # Dynamo keeps its graphs with the code object, walks through all of them at every call, and gives up after eight.
    # With a code object of its own each network is found at once, however many were compiled before it.
    forward.__code__ = forward.__code__.replace(co_name=f"forward_{next(_numbers)}")
    compiled = torch.compile(forward, fullgraph=True, dynamic=False)
    # One compiling process: a pool of them would stay, and be seen by the clock.
    with refusing("torch.compile"), config.patch(freezing=target.kind == "cpu", compile_threads=1):
        return ready(compiled, inputs, target, context)
