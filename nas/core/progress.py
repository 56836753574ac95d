"""How far long work is: a bar on a terminal, a plain line every so often elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

EVERY = 10.0  # seconds between two plain lines
REFRESH = 0.5  # seconds between two looks of a bar

Value = float | int | str


class Progress:
    """Shows `step 120/1000, loss 1.234, 512 images/s, 3.2 min left`.

    total    of whatever `unit` counts: steps, or seconds of a budget
    items    what a second is counted in beside it; `update` says how many were done since the last
    start    what was done before, by an earlier process: it does not count into the time left
    shown    whether anything is written at all: one process of a group shows
    """

    def __init__(
        self,
        total: float,
        unit: str = "step",
        items: str = "images",
        *,
        start: float = 0,
        every: float = EVERY,
        shown: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.unit, self.items, self.every = total, unit, items, every
        self._stream = stream or sys.stderr
        self._shown, self._clock = shown, clock
        self._bar: Any = self._new_bar(start) if shown and self._stream.isatty() else None
        self._began = self._told = clock()
        self._start = self._done = start
        self._fresh = 0.0  # items since the last line
        self._values: dict[str, Value] = {}
        self._silent = True  # nothing new since the last line

    def update(self, done: float, count: float = 0, **values: Value) -> None:
        """So much is done by now, and `count` items more than at the last call; values as they should be called."""
        self._done, self._values, self._silent = done, values, False
        self._fresh += count
        if self._clock() - self._told >= (REFRESH if self._bar is not None else self.every):
            self._tell()

    def say(self, line: str) -> None:
        """A line of its own, above the bar where there is one."""
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Show where the work ended."""
        if not self._silent:
            self._tell()
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _tell(self) -> None:
        now = self._clock()
        parts = [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self._values.items()
        ]
        if self._fresh and now > self._told:
            parts.append(f"{self._fresh / (now - self._told):.0f} {self.items}/s")
        self._told, self._fresh, self._silent = now, 0.0, True
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(parts), refresh=False)
            self._bar.update(self._done - self._bar.n)
            self._bar.refresh()
        elif self._shown:
            if self._start < self._done <= self.total:
                left = (now - self._began) / (self._done - self._start) * (self.total - self._done)
                parts.append(f"{left / 60:.1f} min left")
            print(
                ", ".join([f"{self.unit} {self._done:.10g}/{self.total:.10g}", *parts]), file=self._stream, flush=True
            )

    def _new_bar(self, start: float) -> Any:
        from tqdm import tqdm

        return tqdm(total=self.total, initial=start, unit=self.unit, file=self._stream, dynamic_ncols=True)
