"""CUDA: a stopwatch that reads the device's own clock, and graphs, which replay a call without its launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

WARM_UPS = 3  # calls on the side stream before a graph is recorded: libraries allocate and choose kernels in them


def events(call: Callable[[], object], device: str) -> float:
    """Seconds between two events around a call on an idle device: the launches count as far as they hold it up."""
    with torch.cuda.device(device):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def graph(call: Callable[[], Any], device: str) -> Callable[[], Any]:
    """The same work as one graph; every call returns the same tensors with the values of that replay."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                call()
        torch.cuda.current_stream().wait_stream(side)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            outputs = call()

    def replay() -> Any:
        recorded.replay()
        return outputs

    return replay
