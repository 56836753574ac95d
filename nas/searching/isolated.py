"""An accuracy estimator in a process of its own: one that hangs or dies costs its network, and nothing else.

The process starts with the first network, and anew after a failure. Messages are JSON; the process ends when this one
does, however that ended. POSIX only.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.spaces import shared_rules
from nas.searching.objective import Accuracy, NotJudged, judged

START_S = 600.0  # that an estimator may take to get ready: data, weights
GRACE_S = 5.0  # that the system may take to end a process
LOOK_S = 1.0  # between two looks of the process at whether it still has a parent


class Figure(NamedTuple):
    """An estimate as it came over the line."""

    value: float
    sigma: float | None


class Isolated:
    """Estimates in a process that `make` builds its estimator in; `make` is a function that a process can be given."""

    def __init__(self, make: Callable[[], Accuracy], limit_s: float):
        if not limit_s > 0:
            raise InputError("a time limit is positive", value=limit_s, place="limit_s")
        self._make = make
        self._limit_s = limit_s
        self._process: Any = None
        self._line: Connection | None = None

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def estimate(self, architecture: Architecture) -> Figure:
        """The figure of a network; NotJudged where it takes over `limit_s` seconds, ends the process, or has none."""
        try:
            if self._line is None:
                self._start()
            assert self._line is not None
            self._line.send_bytes(json.dumps(architecture.to_dict(), allow_nan=False).encode())
            return Figure(**self._answer(self._limit_s))
        except (EOFError, ConnectionError):
            raise self._died() from None
        except BaseException as error:
            if not isinstance(error, NotJudged) or error.args[0].startswith("timeout"):
                self.close()
            raise

    def close(self) -> None:
        """End the process and those that it started."""
        process, self._process = self._process, None
        line, self._line = self._line, None
        if line is not None:
            line.close()
        if process is not None:
            for kill in (lambda: os.killpg(process.pid, signal.SIGKILL), process.kill):
                with suppress(ProcessLookupError, PermissionError):
                    kill()
            process.join(GRACE_S)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._make, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()
        self._answer(START_S)

    def _answer(self, limit_s: float) -> dict[str, Any]:
        assert self._line is not None
        if not self._line.poll(limit_s):
            raise NotJudged("timeout", f"no figure within {limit_s:g} s")
        answer = json.loads(self._line.recv_bytes())
        if "input_error" in answer:
            raise InputError(answer["input_error"])
        if "not_judged" in answer:
            kind, _, why = answer["not_judged"].partition(": ")
            raise NotJudged(kind, why)
        assert isinstance(answer, dict)
        return answer

    def _died(self) -> NotJudged:
        process = self._process
        process.join(GRACE_S)
        code = process.exitcode
        self.close()
        if code == -signal.SIGKILL:
            return NotJudged("out of memory", "its process was killed (SIGKILL), probably for lack of memory")
        how = f"killed ({signal.Signals(-code).name})" if code is not None and code < 0 else f"ended with code {code}"
        return NotJudged("crashed", f"its process {how}")


def _serve(line: Connection, make: Callable[[], Accuracy], parent: int) -> None:
    """The process: one answer for each network, until the line closes."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_guard, args=(parent,), daemon=True).start()
    import nas.accuracy.base  # noqa: F401 (what takes long belongs to the start)

    shared_rules().catalogue.every()
    try:
        accuracy = make()
    except InputError as error:
        line.send_bytes(json.dumps({"input_error": str(error)}).encode())
        return
    line.send_bytes(b"{}")
    with suppress(EOFError):
        while True:
            document = json.loads(line.recv_bytes())
            line.send_bytes(json.dumps(_estimated(accuracy, document)).encode())


def _estimated(accuracy: Accuracy, document: dict[str, Any]) -> dict[str, Any]:
    try:
        estimate = judged(accuracy, Space.parse(document, shared_rules(), "the network to judge").only())
    except NotJudged as failure:
        return {"not_judged": str(failure)}
    except InputError as error:
        return {"input_error": str(error)}
    return {"value": float(estimate.value), "sigma": None if estimate.sigma is None else float(estimate.sigma)}


def _guard(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)
