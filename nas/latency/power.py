"""What a call takes beside time: memory and energy. Every figure is None where the system does not tell.

Memory of a processor is resident memory of the process, of a GPU what torch allocated there (other runtimes' own
allocations are not seen). Energy is that of the whole package or board with whatever else runs on it, idle power
included: NVIDIA's counter (NVML, Volta and later), or RAPL's of the processor packages, which Linux shows to root only.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from nas.latency.clock import Call, Stopwatch
from nas.latency.target import Target

MB = 1e6
Energy = Callable[[], float]  # millijoules up to now, from an arbitrary start


class Memory:
    """Peak of a stretch above the level at `start`; `restart` forgets the peak so far and keeps the level."""

    def __init__(self, target: Target, proc: str = "/proc/self"):
        self._device = None if target.kind == "cpu" else target.device
        self._proc = Path(proc)
        self._level_mb = 0.0
        self._largest_mb = 0.0  # of the process's life, where the peak cannot be forgotten
        self._forgotten = False

    def start(self) -> None:
        self.restart()
        self._level_mb = psutil.Process().memory_info().rss / MB
        if self._device is not None:
            import torch

            self._level_mb = torch.cuda.memory_allocated(self._device) / MB

    def restart(self) -> None:
        if self._device is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
            return
        _return_free_memory()
        self._largest_mb = _largest_mb()
        try:
            (self._proc / "clear_refs").write_text("5")  # the peak becomes the present level
            self._forgotten = True
        except OSError:
            self._forgotten = False

    def peak_mb(self) -> float | None:
        """Megabytes above the level at the start, or None if that cannot be told."""
        if self._device is not None:
            import torch

            peak: float | None = torch.cuda.max_memory_allocated(self._device) / MB
        else:
            peak = self._peak_of_process()
        return peak - self._level_mb if peak is not None and peak > self._level_mb else None

    def _peak_of_process(self) -> float | None:
        if self._forgotten:
            try:
                for line in (self._proc / "status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        return int(line.split()[1]) * 1024 / MB
            except (OSError, ValueError, IndexError):
                return None
        largest = _largest_mb()
        return largest if largest > self._largest_mb else None


def _largest_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


def _return_free_memory() -> None:
    """Freed memory that the allocator keeps would hide what is taken next."""
    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:  # another C library than GNU's
            return


def energy(target: Target, powercap: str = "/sys/class/powercap") -> Energy | None:
    """The counter of the target's device, or None."""
    return packages(Path(powercap)) if target.kind == "cpu" else _board(target.device)


def energy_per_call_mj(call: Call, counter: Energy, stopwatch: Stopwatch, seconds: float) -> float | None:
    """Millijoules of one call, from calls in a row for so many seconds: counters move 10 to 1000 times a second."""
    before, start, calls = counter(), time.perf_counter(), 0
    while not calls or time.perf_counter() - start < seconds:
        stopwatch(call)  # waits until the device is done
        calls += 1
    used = counter() - before
    return used / calls if used > 0 else None


def packages(folder: Path) -> Energy | None:
    """Sum over the processor packages in Linux's powercap; their counters wrap around."""
    found: list[tuple[Path, int]] = []
    try:
        for zone in sorted(folder.glob("intel-rapl:*")):  # AMD's appear under this name as well
            if zone.name.count(":") == 1 and (zone / "name").read_text().startswith("package"):
                found.append((zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())))
        last = [int(path.read_text()) for path, _ in found]
    except (OSError, ValueError):
        return None
    total = 0

    def read() -> float:
        nonlocal total
        for number, (path, wraps_at) in enumerate(found):
            now = int(path.read_text())
            total += now - last[number] if now >= last[number] else now - last[number] + wraps_at
            last[number] = now
        return total / 1e3

    return read if found else None


def _board(device: str) -> Energy | None:
    try:
        import torch

        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        # By its identity: CUDA_VISIBLE_DEVICES gives torch other numbers than NVML.
        board = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(board)
    except Exception:  # not installed, no such GPU, a part of one (MIG), or one older than Volta: then nothing is told
        return None
    return lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(board))
