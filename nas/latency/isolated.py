"""Measuring in a process of its own: whatever a network does there, here it is a result.

Requests and replies are lines of JSON over pipes. The worker leads its own session and process group, and the whole
group is killed on the time limit, on an exception here, and when this process is gone, however it ended (the worker's
guard notices that the pipe has closed). A process that left the group by itself is not caught. POSIX only; one thread
asks at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, Any

from nas.core.errors import InputError

LONGEST_REPLY = 10_000_000  # bytes; a longer one is no reply
LONGEST_WHY = 300  # characters
GRACE = 5.0  # seconds that the system may take to end a process
GROWTH_MB = 1000  # that a process may hold more than after its first reply
LOOK = 0.5  # seconds after which it is looked whether the worker lives, should a child of it hold the pipe open
KINDS = ("out of memory", "timeout", "crashed", "unsupported")
_SIGNS = (
    "allocate memory",  # torch, the C library, ONNX Runtime
    "failed to allocate",  # OpenVINO
    "out of memory",  # CUDA
    "alloc_failed",  # cuBLAS
    "bad_alloc",  # C++
    "memoryerror",
    "failed to map",  # a shared library
)


class Worker:
    """A process that measures, started at the first `ask` and again after a failure, or when it has grown too large.

    memory_mb  of data that a request may take, building the network included, beyond what the process holds (Linux)
    cpus       cores to run on, of those that this process may use; None: the same as this process
    program    another program that speaks the protocol; it gets the options as one more argument, in JSON
    """

    def __init__(
        self, *, memory_mb: int | None = None, cpus: Iterable[int] | None = None, program: list[str] | None = None
    ):
        if memory_mb is not None and memory_mb <= 0:
            raise InputError("a limit of memory is positive", value=memory_mb)
        self._options = {"memory_mb": memory_mb, "cpus": None if cpus is None else _usable(cpus)}
        self._program = program or [sys.executable, "-P", "-m", "nas.latency.worker"]
        self._first_mb = 0.0  # held after the first reply
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None  # what the process writes to stdout and stderr during one request

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the running process, which is also the number of its group; None before the first request."""
        return None if self._process is None else self._process.pid

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """The reply to a request of nas.latency.worker, or {"failed": one of KINDS, "why": one line}.

        The limit covers all: start, loading, measuring. Only a request that is wrong itself raises: InputError.
        """
        if not limit_s > 0:
            raise InputError("a time limit is positive", value=limit_s)
        line = json.dumps(request, allow_nan=False).encode() + b"\n"
        deadline = time.monotonic() + limit_s
        try:
            reply = self._reply(line, deadline, limit_s)
        except OSError as error:
            reply = _failed("crashed", f"the worker could not be started or spoken to: {error}")
        except BaseException:
            self.close()
            raise
        if "input_error" in reply:
            raise InputError(str(reply["input_error"]))
        if reply.get("failed") not in (None, "unsupported") or self._has_grown():
            self.close()
        return reply

    def close(self) -> None:
        """End the process and its whole group; a later `ask` starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says so with the latter
                os.killpg(process.pid, signal.SIGKILL)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            with suppress(subprocess.TimeoutExpired):  # a driver holds it; it ends when the driver lets go
                process.wait(GRACE)
        if self._said is not None:
            self._said.close()
            self._said = None

    def _reply(self, line: bytes, deadline: float, limit_s: float) -> dict[str, Any]:
        if self._process is None:
            self._start()
        process, said = self._process, self._said
        assert process is not None and said is not None
        said.truncate(0)
        answer = _exchange(process, line, deadline)
        if answer is None:
            return _failed("timeout", f"no reply within {limit_s:g} s; its process group was killed")
        if b"\n" not in answer:
            return self._death(process)
        return _parsed(answer)

    def _start(self) -> None:
        """The child finds its modules where this process does, and only its own line reaches this process."""
        self._first_mb = 0.0
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        fcntl.fcntl(self._said, fcntl.F_SETFL, os.O_APPEND)  # so that it can be emptied under the writer
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [*self._program, json.dumps(self._options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )

    def _death(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """What a process that ended without a reply died of, as far as can be told."""
        last = self._last_line()
        try:
            code = process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return _failed("crashed", f"it closed its line and went on. {last}")
        if code == -signal.SIGKILL:
            return _failed("out of memory", "killed (SIGKILL), probably by the system for lack of memory")
        how = f"killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code} and no reply"
        return _failed("out of memory" if tells_of_memory(last) else "crashed", f"{how}. {last}".removesuffix(". "))

    def _has_grown(self) -> bool:
        """Whether too much of what was measured is still held: torch's frozen graphs keep their weights, for one."""
        import psutil

        try:
            held_mb = psutil.Process(self.pid).memory_info().rss / 1e6
        except psutil.Error:
            return True
        self._first_mb = self._first_mb or held_mb
        return held_mb > self._first_mb + GROWTH_MB

    def _last_line(self) -> str:
        """The last line that the process wrote, but for a line before it that tells of lack of memory."""
        assert self._said is not None
        size = os.fstat(self._said.fileno()).st_size
        text = os.pread(self._said.fileno(), 4000, max(0, size - 4000)).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return next((line for line in reversed(lines) if tells_of_memory(line)), lines[-1] if lines else "")


def tells_of_memory(text: str) -> bool:
    """Whether a message is one of those that torch, CUDA, C++ and the runtimes give for lack of memory."""
    return any(sign in text.lower() for sign in _SIGNS)


def one_line(text: str) -> str:
    """Text as one line of at most LONGEST_WHY characters."""
    joined = " ".join(text.split())
    return joined if len(joined) <= LONGEST_WHY else joined[: LONGEST_WHY - 3] + "..."


def _failed(kind: str, why: str) -> dict[str, Any]:
    return {"failed": kind, "why": one_line(why)}


def _usable(cpus: Iterable[int]) -> list[int]:
    wanted = sorted(set(cpus))
    if sys.platform != "linux":
        raise InputError("cores can be chosen on Linux only", value=wanted)
    usable = sorted(os.sched_getaffinity(0))
    if not wanted or not set(wanted) <= set(usable):
        raise InputError(f"cores are some of those that this process may use, {usable}", value=wanted)
    return wanted


def _exchange(process: subprocess.Popen[bytes], line: bytes, deadline: float) -> bytes | None:
    """Send a line; what came back, without an end of line if the process ended first; None when the time was over."""
    assert process.stdin is not None and process.stdout is not None
    source, sink = process.stdout.fileno(), process.stdin.fileno()
    os.set_blocking(sink, False)  # a process that does not read must not hold this one
    answer, rest = b"", memoryview(line)
    with selectors.DefaultSelector() as ready:
        ready.register(source, selectors.EVENT_READ)
        ready.register(sink, selectors.EVENT_WRITE)
        while (left := deadline - time.monotonic()) > 0:
            events = ready.select(min(left, LOOK))
            if not events and process.poll() is not None:
                return answer
            for key, _ in events:
                if key.fd == sink:
                    rest = rest[_written(sink, rest) :]
                    if not rest:
                        ready.unregister(sink)
                elif piece := os.read(source, 65536):
                    answer += piece
                    if b"\n" in piece or len(answer) > LONGEST_REPLY:
                        return answer + b"\n"
                else:
                    return answer
    return None


def _written(sink: int, rest: memoryview) -> int:
    """How many bytes were taken; all where nobody reads any more, for then the process is at its end."""
    try:
        return os.write(sink, rest)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(rest)


def _parsed(answer: bytes) -> dict[str, Any]:
    """A reply, if it is one."""
    try:
        reply = json.loads(answer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        reply = None
    if isinstance(reply, dict):
        if isinstance(reply.get("reading"), dict) or "input_error" in reply:
            return reply
        if reply.get("failed") in KINDS:
            return _failed(reply["failed"], str(reply.get("why", "")))
    return _failed("crashed", f"the worker's reply cannot be understood: {answer[:100]!r}")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no figure")
