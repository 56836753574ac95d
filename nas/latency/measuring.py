"""Measuring one thing on a device of this machine, in a process of its own."""

from __future__ import annotations

from typing import Any

from nas.core.errors import InputError
from nas.latency.clock import Limits, Reading
from nas.latency.isolated import Worker
from nas.latency.target import Target, gpu_count

LONGEST = 120.0  # seconds beyond the clock's own limit that loading a network may take


class Measurement:
    """The outcome of measuring one thing: a reading, with memory and energy, or why there is none."""

    def __init__(self, reply: dict[str, Any]):
        self.failed: str = f"{reply['failed']}: {reply['why']}" if "failed" in reply else ""
        self.reading: Reading | None = None if self.failed else Reading.of(reply["reading"])
        self.peak_mb: float | None = reply.get("peak_mb")
        self.energy_mj: float | None = reply.get("energy_mj")


def measure(
    worker: Worker,
    description: dict[str, Any],
    target: Target,
    limits: Limits,
    reference_ms: float | None = None,
    against: dict[str, Any] | None = None,
) -> Measurement:
    """Measure what nas.latency.subject describes in the worker's process; a failure is an outcome.

    Against the clock's reference, or against something else that is described in the same way.
    """
    if target.kind == "gpu" and int(target.device.partition(":")[2]) >= gpu_count():
        raise InputError("this device is not in this machine", value=target.device)
    request = {
        "subject": description,
        "target": vars(target),
        "limits": limits._asdict(),
        "reference_ms": reference_ms,
        "against": against,
    }
    return Measurement(worker.ask(request, limits.seconds * 3 + LONGEST))
