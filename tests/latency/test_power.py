"""Memory and energy: from made-up counters of the system, and nothing where there are none."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nas.latency import power
from nas.latency.power import Memory, energy, energy_per_call_mj, packages
from nas.latency.target import Target

CPU = Target()


def zone(folder: Path, name: str, kind: str, microjoules: int, wraps_at: int = 1_000_000) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{kind}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    return path / "energy_uj"


def test_packages_are_summed_and_their_parts_are_not(tmp_path: Path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 900_000)
    part = zone(tmp_path, "intel-rapl:0:0", "core", 50)
    board = zone(tmp_path, "intel-rapl:2", "psys", 50)
    read = packages(tmp_path)
    assert read is not None and read() == 0
    for path, now in ((first, 5_100), (second, 902_000), (part, 800_000), (board, 800_000)):
        path.write_text(str(now))
    assert read() == 7.0  # millijoules
    second.write_text("1000")  # it wrapped around
    assert read() == 106.0
    assert read() == 106.0


def test_no_energy_is_told_where_there_is_no_counter(tmp_path: Path):
    assert packages(tmp_path / "none") is None and packages(tmp_path) is None
    zone(tmp_path, "intel-rapl:0", "package-0", 1).write_text("not a number")
    assert packages(tmp_path) is None
    assert energy(CPU, str(tmp_path / "none")) is None


def test_energy_of_a_call_is_what_the_counter_gained_over_the_calls():
    state = SimpleNamespace(energy=100.0, calls=0)

    def call() -> None:
        state.calls += 1
        state.energy += 5.0

    def stopwatch(call) -> float:
        call()
        return 1.0

    assert energy_per_call_mj(call, lambda: state.energy, stopwatch, 0.0) == 5.0 and state.calls == 1
    assert energy_per_call_mj(call, lambda: state.energy, stopwatch, 0.01) == pytest.approx(5.0) and state.calls > 2
    assert energy_per_call_mj(call, lambda: 7.0, stopwatch, 0.0) is None, "a counter that stands still tells nothing"


def test_a_board_is_found_by_its_identity(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda identity: asked.append(identity) or "board",
        nvmlDeviceGetTotalEnergyConsumption=lambda board: {"board": 12_345}[board],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2-3"))
    counter = energy(Target(device="cuda:0", threads=0))
    assert counter is not None and counter() == 12_345.0 and asked == ["GPU-1-2-3"]


def test_a_board_that_tells_nothing_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert energy(Target(device="cuda:0", threads=0)) is None


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are told by Linux")
def test_memory_above_the_level_is_counted_and_a_forgotten_peak_is_not():
    memory = Memory(CPU)
    memory.start()
    held = torch.ones(10_000_000)
    transient = torch.ones(20_000_000)
    del transient
    assert memory.peak_mb() == pytest.approx(120, rel=0.1)
    memory.restart()
    assert memory.peak_mb() == pytest.approx(40, rel=0.2)
    assert held.numel() == 10_000_000
    del held


def test_without_a_peak_that_can_be_forgotten_a_smaller_one_is_not_told(tmp_path: Path, monkeypatch):
    largest = iter([500.0, 500.0, 500.0, 900.0])
    monkeypatch.setattr(power, "_largest_mb", lambda: next(largest))
    monkeypatch.setattr(
        power.psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=400e6))
    )
    memory = Memory(CPU, proc=str(tmp_path / "none"))
    memory.start()
    assert memory.peak_mb() is None
    memory.start()
    assert memory.peak_mb() == 500.0


def test_memory_of_a_gpu_is_what_torch_allocated(monkeypatch: pytest.MonkeyPatch):
    now = SimpleNamespace(held=10e6, peak=10e6)

    def reset(device: str) -> None:
        now.peak = now.held

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: now.held)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: now.peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    memory = Memory(Target(device="cuda:0", threads=0))
    memory.start()
    assert memory.peak_mb() is None, "nothing was taken: another runtime's memory is not seen"
    now.peak = 99e6
    memory.restart()
    now.held, now.peak = 30e6, 50e6
    assert memory.peak_mb() == pytest.approx(40)


def test_free_memory_is_given_back():
    class Circle:
        pass

    circle = Circle()
    circle.itself = circle  # type: ignore[attr-defined]
    before = gc.get_count()
    del circle
    power._return_free_memory()
    assert sum(gc.get_count()) <= sum(before)
