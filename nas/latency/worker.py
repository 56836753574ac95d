"""The process that measures: reads requests from stdin, one JSON object a line, and replies to each with one line.

request  {"subject": description (nas.latency.subject), "target": fields of Target, "limits": fields of Limits,
         "reference_ms": number or null, "against": description or null (then the clock's reference)}
reply    {"reading": fields of Reading, "load_seconds", "peak_mb", "energy_mj", "outputs": [{"shape", "finite", "rms"}]}
         or {"failed": kind, "why": line}, or {"input_error": text}

peak_mb is the memory that the loaded network takes while it runs, weights included, and energy_mj that of one call;
null where the system does not tell. Started by nas.latency.isolated with one argument, {"memory_mb": ..., "cpus": ...}.
"""

from __future__ import annotations

import copy
import gc
import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from nas.core.errors import InputError
from nas.latency.isolated import one_line, tells_of_memory

if TYPE_CHECKING:
    from nas.latency.clock import Call, Limits, Reading, Stopwatch
    from nas.latency.subject import Subject
    from nas.latency.target import Target

ENERGY_SECONDS = 1.0  # of calls in a row, where there is a counter; no more than a quarter of the time to measure


def main() -> None:
    """Answer until the requests end."""
    options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    requests, replies = _private_lines()
    _guard(requests, replies)
    if options.get("cpus") is not None and sys.platform == "linux":
        os.sched_setaffinity(0, options["cpus"])
    kept = Kept()
    for line in requests:
        reply = answer(line, kept, options.get("memory_mb"))
        replies.write(json.dumps(reply, allow_nan=False).encode() + b"\n")
        replies.flush()


class Kept:
    """What stays from one request to the next: the references, and the operators of the network asked for last."""

    def __init__(self) -> None:
        self._references: dict[Target, Call] = {}
        self._network: tuple[str, int] | None = None
        self._operators: dict[str, Subject] = {}

    def reference(self, target: Target) -> Call:
        """The reference network, ready to run on the target."""
        if target not in self._references:
            import torch

            from nas.latency import runtimes, subject

            torch.manual_seed(0)
            module, inputs = subject.reference(target.batch)
            self._references[target] = runtimes.runtime(target.runtime).load(module, inputs, target)
            if not gc.get_freeze_count():  # all that is imported by now stays: collecting no longer looks at it
                gc.collect()
                gc.freeze()
        return self._references[target]

    def subject(self, description: Any, batch: int) -> Subject:
        """A subject of its own, which a runtime may alter."""
        from nas.latency import subject

        if not isinstance(description, dict) or not {"network", "timm"} & description.keys():
            raise InputError('what is timed is described by "network" or "timm"', value=description)
        if "operator" not in description:
            return subject.subject(description, batch)
        architecture = subject.read(description["network"], "the network to measure")
        if self._network != (architecture.digest, batch):
            import torch

            self._network, self._operators = None, {}
            torch.manual_seed(0)
            self._operators = subject.operators(architecture, batch)
            self._network = architecture.digest, batch
        if description["operator"] not in self._operators:
            subject.operators(architecture, batch, {description["operator"]})  # raises, and says which are missing
        return self._operators[description["operator"]]


def answer(line: bytes, kept: Kept, memory_mb: int | None = None) -> dict[str, Any]:
    """The reply to one request."""
    from nas.latency.runtimes import Unsupported

    try:
        return measured(_request(line), kept, memory_mb)
    except Exception as error:
        for one in _chain(error):
            if _is_lack_of_memory(one):
                return {"failed": "out of memory", "why": _named(one)}
        if isinstance(error, InputError):
            return {"input_error": str(error)}
        if isinstance(error, Unsupported):
            return {"failed": "unsupported", "why": one_line(str(error))}
        return {"failed": "crashed", "why": _named(error)}


def measured(request: dict[str, Any], kept: Kept, memory_mb: int | None) -> dict[str, Any]:
    """Load the reference if it is not there, then the subject within its limit of memory, and give all back."""
    target, limits = _target(request), _limits(request)
    _set_threads(target)
    reference = kept.reference(target)
    try:
        with _limited(memory_mb):
            if request.get("against") is not None:
                reference = _loaded(kept.subject(request["against"], target.batch), target)
            subject = kept.subject(request["subject"], target.batch)
            return _figures(subject, reference, target, limits, request.get("reference_ms"))
    finally:
        subject = reference = None  # type: ignore[assignment]
        gc.collect()


def _figures(
    subject: Subject, reference: Call, target: Target, limits: Limits, reference_ms: float | None
) -> dict[str, Any]:
    from nas.latency import runtimes
    from nas.latency.power import Memory, energy, energy_per_call_mj

    stopwatch = runtimes.stopwatch(target)
    memory = Memory(target)
    memory.start()
    start = time.perf_counter()
    call = _loaded(subject, target)
    load_seconds = time.perf_counter() - start
    memory.restart()
    outputs = [_description(output) for output in _arrays(call())]
    peak_mb = memory.peak_mb()
    reading = _timed(call, reference, limits, stopwatch, reference_ms)
    counter = energy(target)
    seconds = min(ENERGY_SECONDS, limits.seconds / 4)
    return {
        "reading": reading.to_dict(),
        "load_seconds": load_seconds,
        "peak_mb": peak_mb,
        "energy_mj": energy_per_call_mj(call, counter, stopwatch, seconds) if counter is not None else None,
        "outputs": outputs,
    }


def _loaded(subject: Subject, target: Target) -> Call:
    """A copy, ready to run: a runtime may move or rewrite a module, and so its weights count as memory."""
    from nas.latency import runtimes

    return runtimes.runtime(target.runtime).load(copy.deepcopy(subject.module), subject.inputs, target)


def _timed(call: Call, reference: Call, limits: Limits, stopwatch: Stopwatch, reference_ms: float | None) -> Reading:
    """Without the garbage collector, whose rounds take as long as a small network."""
    from nas.latency.clock import compare

    gc.disable()
    try:
        return compare(call, reference, limits, stopwatch, reference_ms)
    finally:
        gc.enable()


def _request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    if not isinstance(request, dict) or not {"subject", "target"} <= request.keys():
        raise InputError('a request is a JSON object with "subject" and "target"', value=line.decode(errors="replace"))
    return request


def _target(request: dict[str, Any]) -> Target:
    from nas.latency.target import Target

    try:
        return Target(**request["target"])
    except TypeError as error:
        raise InputError(f"not the fields of a target ({error})", value=request["target"]) from None


def _limits(request: dict[str, Any]) -> Limits:
    from nas.latency.clock import Limits

    try:
        return Limits(**request.get("limits", {}))
    except TypeError as error:
        raise InputError(f"not the fields of limits ({error})", value=request["limits"]) from None


def _set_threads(target: Target) -> None:
    import torch

    torch.set_num_threads(max(1, target.threads))
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)  # possible once, before the first parallel work


def _arrays(value: Any) -> Iterator[Any]:
    """Tensors or arrays of what a call returned, in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _arrays(inner)
    else:
        yield value


def _description(output: Any) -> dict[str, Any]:
    """Shape, whether all is finite, and root of the mean square (null if not)."""
    import torch

    tensor = torch.as_tensor(output)
    size = tensor.double().square().mean().sqrt().item() if tensor.numel() else 0.0
    finite = math.isfinite(size)
    return {"shape": list(tensor.shape), "finite": finite, "rms": size if finite else None}


def _named(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came of, the outermost first."""
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        now = now.__cause__ or now.__context__


def _is_lack_of_memory(error: BaseException) -> bool:
    """torch.OutOfMemoryError and the runtimes' errors are told by their text; bad input never is one."""
    return isinstance(error, MemoryError) or (not isinstance(error, InputError) and tells_of_memory(str(error)))


def _private_lines() -> tuple[BinaryIO, BinaryIO]:
    """Requests and replies; from here on stdout is stderr and stdin empty, for libraries print and children read."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _guard(requests: BinaryIO, replies: BinaryIO) -> None:
    """A second process that ends this whole group once the parent is gone, whatever this one is in the middle of.

    Not by PR_SET_PDEATHSIG: that fires when the parent's thread ends, and leaves children of this process running.
    """
    if os.getpgrp() != os.getpid() or os.fork():  # without a group of its own (started by hand) there is none
        return
    replies.close()
    parent = select.poll()
    parent.register(requests.fileno(), 0)  # only that the other end closes
    parent.poll()
    os.killpg(0, signal.SIGKILL)


@contextmanager
def _limited(memory_mb: int | None) -> Iterator[None]:
    """So many more megabytes of data than the process has now; the limit ends with the request."""
    if memory_mb is None or sys.platform != "linux":
        yield
        return
    import resource

    status = Path("/proc/self/status").read_text()
    held = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = held + memory_mb * 1_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


if __name__ == "__main__":
    main()
