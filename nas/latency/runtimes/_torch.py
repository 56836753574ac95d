"""What torch's own runtimes share: device, memory format, autocast, threads, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas.latency.target import Target

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def placed(
    module: nn.Module, inputs: tuple[Tensor, ...], target: Target
) -> tuple[nn.Module, tuple[Tensor, ...], Callable[[], AbstractContextManager]]:
    """Module and inputs on the device in their memory format, and the context to run in."""
    if target.channels_last:
        module = module.to(memory_format=torch.channels_last)
        inputs = tuple(x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs)
    module = module.to(target.device)
    inputs = tuple(x.to(target.device) for x in inputs)
    if target.precision == "fp32":
        return module, inputs, nullcontext
    kind = "cpu" if target.kind == "cpu" else "cuda"
    return module, inputs, partial(torch.autocast, kind, _TYPES[target.precision])


def ready(
    function: Callable[..., Any],
    inputs: tuple[Tensor, ...],
    target: Target,
    context: Callable[[], AbstractContextManager],
) -> Callable[[], Any]:
    """The call that runs a function on its inputs, after one run; a graph of it where the target asks for one."""

    def call() -> Any:
        with threads(target), torch.inference_mode(), context():
            return function(*inputs)

    call()
    if target.graph:
        from nas.latency.runtimes._cuda import graph

        return graph(call, target.device)
    return call


@contextmanager
def threads(target: Target) -> Iterator[None]:
    """torch with the target's number of threads, a setting of the whole process, which is given back after.

    Costs a microsecond where the process already has that number, as the one that measures does.
    """
    before = torch.get_num_threads()
    if target.kind == "gpu" or before == target.threads:
        yield
        return
    torch.set_num_threads(target.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
