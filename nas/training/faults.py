"""What long work does about signals and about losses that are not finite."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType
from typing import NamedTuple, NoReturn

from nas.core.errors import InputError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME = 2.0  # seconds in which further signals are one request: launchers pass on what the whole group was sent as well
CALM = 1000  # good losses in a row after which earlier trouble is forgotten
SHOWN = 8  # bad losses that the error names


class Stop:
    """Whether somebody asked the process to end. The loop looks after every step, saves, and calls `leave`.

    In a group of processes they ask each other first (`Group.any`), so that all leave after the same step, and meet
    at a barrier after the checkpoint: a launcher ends the others as soon as one is gone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.signal: signal.Signals | None = None
        self._clock = clock
        self._process = os.getpid()
        self._since = 0.0
        self._leaving = False

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as a shell says it: 143 for SIGTERM, 130 for SIGINT; without one SIGTERM's."""
        return 128 + (self.signal or signal.SIGTERM)

    def leave(self) -> NoReturn:
        """End the process with the signal's exit code."""
        raise SystemExit(self.exit_code)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker: interrupts are its parent's, a termination ends it
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        now = self._clock()
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), now
        elif self._leaving:
            os._exit(self.exit_code)
        elif now - self._since >= SAME:
            self._leaving = True
            self.leave()


@contextmanager
def stopping(clock: Callable[[], float] = time.monotonic) -> Iterator[Stop]:
    """Within it SIGTERM and SIGINT only set a flag; handlers are put back after. In the main thread alone.

    A second signal ends the process at once, with what `finally` blocks still do; a third without. Those within two
    seconds of the first count as the first. A signal that is ignored (a job in the background) stays so.
    """
    stop = Stop(clock)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    try:
        for number in taken:
            signal.signal(number, stop._receive)
        yield stop
    finally:
        for number in taken:
            signal.signal(number, before[number] or signal.SIG_DFL)  # None: set by code that is not Python


class Verdict(Enum):
    """What the loop does with a step."""

    GOOD = "good"
    SKIP = "skip"  # drop its gradients
    RESTORE = "restore"  # go back to the last good checkpoint


class Bad(NamedTuple):
    """A loss that was not finite."""

    step: int
    loss: float
    network: str


class NanGuard:
    """Judges every loss before its gradients are used: a bad one is skipped, then answered by going back, then the end.

    `skips` bad losses in a row are dropped; the next tells the loop to restore the last good state, at most `limit`
    times until 1000 good losses in a row; then InputError says what was seen. A loop that draws from (seed, step) meets
    the same again: let it draw from (seed, step, `restores`) after going back. In a group each process gives the mean
    over all, so that all judge alike.
    """

    def __init__(self, limit: int, skips: int = 2, restores: int = 0, calm: int = CALM):
        if limit < 0 or skips < 0:
            raise InputError("a guard skips and goes back 0 times or more", value=(limit, skips))
        self.limit, self.skips, self.calm = limit, skips, calm
        self.restores = restores  # over the whole run: keep it with the run's state
        self._counted = restores  # those not forgotten
        self._row = 0  # bad losses in a row
        self._good = 0  # good losses in a row
        self._seen: list[Bad] = []

    def judge(self, step: int, loss: float, digest: str) -> Verdict:
        """What to do with the step that had this loss with these networks (their digest)."""
        if math.isfinite(loss):
            self._row, self._good = 0, self._good + 1
            if self._good >= self.calm:
                self._counted = 0
            return Verdict.GOOD
        self._good, self._row = 0, self._row + 1
        self._seen = [*self._seen, Bad(step, loss, digest[:12])][-SHOWN:]
        if self._row <= self.skips:
            return Verdict.SKIP
        if self._counted >= self.limit:
            self._give_up()
        self._row = 0
        self._counted += 1
        self.restores += 1
        return Verdict.RESTORE

    def _give_up(self) -> NoReturn:
        last = self._seen[-1]
        told = ", ".join(f"{bad.loss} at step {bad.step} of {bad.network}" for bad in self._seen)
        rule = f"the loss is not finite, also after going back {self._counted} times; lower the learning rate, or fp32"
        raise InputError(f"{rule} (last: {told})", place=f"step {last.step}, network {last.network}")
