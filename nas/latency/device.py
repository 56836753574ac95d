"""The part of a machine that a latency depends on: what it is called, what it can do, and its measured ceilings."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.errors import InputError
from nas.core.runs import cpu_model, usable_cores
from nas.latency.runtimes import runtime
from nas.latency.target import Target, gpu_count

if TYPE_CHECKING:
    import torch

# Instruction sets that change what a network's products cost, as Linux names them, by family; the best one comes first.
FAMILIES = {
    "amx": ("amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    "avx512": ("avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    "avx2": ("avx2", "fma", "avx_vnni"),
    "sme": ("sme", "sme2"),
    "sve": ("sve", "sve2", "svebf16"),
    "neon": ("asimd", "asimdhp", "asimddp", "i8mm", "bf16"),
}
COPY_BYTES = {"cpu": 512_000_000, "gpu": 4_000_000_000}  # beyond every cache
PIECE_BYTES = {"cpu": 16_000_000, "gpu": 1_000_000_000}  # copied at a time: on a GPU, long beside a launch
MEMORY_SHARE = 16  # but no more than this part of the memory
LARGEST = {"cpu": 4096, "gpu": 16384}  # rows of the largest matrix that is tried
_DRIVER = re.compile(r"Kernel Module.*?\s([0-9]+(?:\.[0-9]+)+)\s")
_PARTS = ("CPU implementer", "CPU part")
_NUMBERS = ("cpu family", "model", "stepping")


@dataclass(frozen=True)
class Device:
    """A processor or a GPU. Tables belong to the key; the rest is told to people and kept as provenance.

    key is for file names. Two processors have the same key if their names, their vendor's numbers (where the name is
    as general as `Intel(R) Xeon(R) Processor`) and their best family of instruction sets are equal. Cores are not in
    it: a target says its threads.
    """

    kind: str  # cpu or gpu
    name: str
    key: str
    cores: int  # that this process may use; multiprocessors of a GPU
    instructions: tuple[str, ...]  # instruction sets of FAMILIES, or the compute capability
    memory_bytes: int
    driver: str = ""  # of a GPU
    power_limit_watts: float | None = None  # of a GPU, where its management library is installed

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "instructions": list(self.instructions)}


def this_device(target: Target) -> Device:
    """The device of this machine that a target names; InputError if it is not here."""
    if target.kind == "gpu":
        return _gpu(int(target.device.partition(":")[2]))
    try:
        told = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:  # not on every system
        told = ""
    return processor(cpu_model(), told)


def processor(name: str, cpuinfo: str) -> Device:
    """The processor that /proc/cpuinfo describes; with an empty text, what its name tells."""
    import psutil

    told: dict[str, list[str]] = {}
    for line in cpuinfo.splitlines():
        field, _, value = line.partition(":")
        values = told.setdefault(field.strip(), [])
        if value.strip() not in values:  # processors may have cores of several kinds
            values.append(value.strip())
    flags = {flag for field in ("flags", "Features") for value in told.get(field, []) for flag in value.split()}
    instructions = tuple(flag for family in FAMILIES.values() for flag in family if flag in flags)
    best = next((family for family, names in FAMILIES.items() if names[0] in flags), "")
    numbers = [value for field in (_PARTS if _PARTS[1] in told else _NUMBERS) for value in told.get(field, [])]
    general = re.search("[0-9]{3}", name) is None  # no model number
    key = slug(" ".join([name, *(numbers if general else []), best]))
    return Device("cpu", name, key, usable_cores() or 1, instructions, psutil.virtual_memory().total)


def slug(name: str) -> str:
    """A name for files: `Intel(R) Xeon(R) Processor` is intel-xeon-processor."""
    plain = re.sub(r"\((r|tm|c)\)|\bcpu\b|@.*?hz", " ", name.lower())
    return re.sub("[^a-z0-9]+", "-", plain).strip("-")[:80] or "unknown"


def _gpu(index: int) -> Device:
    import torch

    if index >= gpu_count():
        raise InputError("this machine has no such device", value=f"cuda:{index}")
    told = torch.cuda.get_device_properties(index)
    driver, watts = _managed(str(told.uuid))
    return Device(
        "gpu",
        told.name,
        slug(told.name),
        told.multi_processor_count,
        (f"sm_{told.major}{told.minor}",),
        told.total_memory,
        driver or _driver(),
        watts,
    )


def _managed(uuid: str) -> tuple[str, float | None]:
    """Driver and power limit as NVIDIA's management library tells them, if it is installed (nvidia-ml-py)."""
    try:
        import pynvml
    except ImportError:
        return "", None
    driver, watts = "", None
    with suppress(pynvml.NVMLError):  # no library behind it, a part of a GPU, or not allowed: what is known by then
        pynvml.nvmlInit()
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")  # its indices are not torch's
        watts = pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000
    with suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()
    return driver, watts


def _driver() -> str:
    """NVIDIA's driver as the system tells it."""
    try:
        found = _DRIVER.search(Path("/proc/driver/nvidia/version").read_text(errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def versions(target: Target) -> dict[str, str]:
    """The versions of torch and of what the target's runtime needs, by package; those not installed are left out."""
    found = {name: _version(name) for name in ("torch", *runtime(target.runtime).PACKAGES)}
    return {name: version for name, version in found.items() if version is not None}


def _version(package: str) -> str | None:
    """By the name that is imported: what was installed may be called otherwise (onnxruntime-gpu)."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        distributions = metadata.packages_distributions().get(package)
        return metadata.version(distributions[0]) if distributions else None


def ceilings(target: Target, seconds: float = 4.0) -> dict[str, float]:
    """What this device reaches at most in torch, at the target's precision and threads: `macs_per_second` of a large
    matrix product and `bytes_per_second`, read and written, of a large copy. The best of the calls in `seconds`.

    Operators may exceed the copy where their data stay in a cache. On a GPU, fp32 is what torch is set to use.
    """
    import torch

    this_device(target)  # or an InputError
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    before = torch.get_num_threads()
    try:
        if target.kind == "cpu":
            torch.set_num_threads(target.threads)
        with torch.inference_mode():
            products = _product(target, types[target.precision], seconds / 2)
            copied = _copy(target, seconds / 2)
    finally:
        torch.set_num_threads(before)
    return {"macs_per_second": products, "bytes_per_second": copied}


def _product(target: Target, dtype: torch.dtype, seconds: float) -> float:
    """Sizes are doubled until a call takes a good part of the time, so that a slow device is not kept for minutes."""
    import torch

    best, size, start = 0.0, 256, time.perf_counter()
    while True:
        one, two, out = (torch.rand(size, size).to(target.device, dtype) for _ in range(3))

        def call(one: torch.Tensor = one, two: torch.Tensor = two, out: torch.Tensor = out) -> object:
            return torch.mm(one, two, out=out)

        left = seconds - (time.perf_counter() - start)
        last = 2 * size > LARGEST[target.kind]
        quickest = _quickest(call, target, left if last else min(left, seconds / 10))
        best = max(best, size**3 / quickest)
        if last or 40 * quickest > left:  # the next size takes eight times as long, and is called four times
            return best
        size *= 2


def _copy(target: Target, seconds: float) -> float:
    """Piece after piece of a buffer beyond every cache: pieces are short enough to find a busy machine idle."""
    import torch

    piece = PIECE_BYTES[target.kind]
    count = max(1, min(COPY_BYTES[target.kind], this_device(target).memory_bytes // MEMORY_SHARE) // piece)
    source, copy = (torch.ones(count, piece // 4, device=target.device) for _ in range(2))
    turns = itertools.cycle(list(zip(source, copy, strict=True)))

    def call() -> object:
        one, two = next(turns)
        return two.copy_(one)

    return 2 * piece / _quickest(call, target, seconds)


def _quickest(call: Callable[[], object], target: Target, seconds: float) -> float:
    """Seconds of the quickest of at least three calls, after one to warm up; one at a time, waited for."""
    import torch

    best, calls, start = float("inf"), 0, 0.0
    while calls < 4 or time.perf_counter() - start < seconds:
        began = time.perf_counter()
        call()
        if target.kind == "gpu":
            torch.cuda.synchronize(target.device)
        taken = time.perf_counter() - began
        if calls:
            best = min(best, taken)
        else:
            start = time.perf_counter()
        calls += 1
    return best
