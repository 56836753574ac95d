"""Signals that ask a worker to end: raised inside an evaluation, noted outside it, and enforced after a while."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
END_S = 7.0  # that an evaluation may take to stop once it was asked to


_entered: list[Signals] = []  # in this process


def _hold_back() -> None:
    """While a child is forked, until it has handlers of its own."""
    if _entered:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _take() -> None:
    if _entered:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _forget() -> None:
    """In a child: a signal to it ends it, and is no news for its parent's watcher."""
    if _entered:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        _take()
        _entered.clear()


if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(before=_hold_back, after_in_parent=_take, after_in_child=_forget)


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end. Optuna fails the trial in which it is raised."""


class Signals:
    """While this is entered, in the main thread, signals end an evaluation and nothing else.

    noted  called when the first comes
    last   called END_S later from another thread if this was not left by then (an operation that does not return);
           the process then ends
    """

    def __init__(self, noted: Callable[[], None], last: Callable[[], None]):
        self.received: int | None = None
        self._noted = noted
        self._last = last
        self._inside = False
        self._before: dict[int, Any] = {}
        self._left = threading.Event()

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._listener, self._wake = socket.socketpair()
            self._wake.setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
            _entered.append(self)
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._left.set()
        if self._before:
            _entered.remove(self)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup_before)
            self._wake.close()  # ends the watcher

    @contextmanager
    def raised(self) -> Iterator[None]:
        """An evaluation: a signal raises Interrupted here, also one that came just before."""
        self._inside = True
        try:
            if self.received is not None:
                raise Interrupted
            yield
        finally:
            self._inside = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first, self.received = self.received is None, number
        if first:
            self._noted()
        if self._inside:
            self._inside = False
            raise Interrupted

    def _watch(self) -> None:
        """The system writes a byte at each signal, whatever the main thread does; a closed line is the end."""
        with self._listener:
            while number := self._listener.recv(1):
                if number[0] in SIGNALS and not self._left.wait(END_S):
                    with suppress(Exception):
                        self._last()
                    os._exit(128 + number[0])
