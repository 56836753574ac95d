"""What else the machine does while something is measured: other processes, time stolen by the host, slower clocks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

_TICK = 1.0 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


class Seen(NamedTuple):
    """Mean number of cores that other processes kept busy, and what else there is to say."""

    others: float
    notes: tuple[str, ...]


class Watch:
    """Started and stopped around a measurement; knows nothing where the system does not tell."""

    def __init__(self, stat: str = "/proc/stat"):
        self._stat = Path(stat)
        self._began: tuple[float, float, float, float] | None = None

    def start(self) -> None:
        self._began = self._now()

    def stop(self) -> Seen:
        before, after = self._began, self._now()
        if before is None or after is None:
            return Seen(0.0, ())
        seconds = max(1e-9, after[0] - before[0])
        busy, stolen, own = (b - a for a, b in zip(before[1:], after[1:], strict=True))
        others = max(0.0, (busy - own - 2 * _TICK) / seconds)  # either counter may be a tick late
        notes = (f"stolen: the host took {stolen / seconds:.2f} cores",) if stolen / seconds > 0.05 else ()
        return Seen(others, notes)

    def _now(self) -> tuple[float, float, float, float] | None:
        """Seconds now, busy and stolen over all cores, and of this process with all its threads."""
        try:
            fields = self._stat.read_text().partition("\n")[0].split()[1:]
            user, nice, system, _, _, irq, softirq, steal = (int(field) * _TICK for field in fields[:8])
        except (OSError, ValueError):
            return None
        times = os.times()
        return time.perf_counter(), user + nice + system + irq + softirq, steal, times.user + times.system
