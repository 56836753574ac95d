"""Progress shows a bar on a terminal, and elsewhere plain lines at a stated rhythm."""

from __future__ import annotations

import io
from typing import Any

import pytest

from nas.core.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(clock: Clock, stream: io.StringIO, seconds: float, **options: Any) -> list[str]:
    """Ten steps of so many seconds and 32 images, from wherever `start` is."""
    first = int(options.get("start", 0))
    with Progress(first + 10, stream=stream, clock=clock, **options) as progress:
        for step in range(first + 1, first + 11):
            clock.now += seconds
            progress.update(step, 32, loss=1 / 3, network="tiny")
    return stream.getvalue().splitlines()


def test_plain_lines_come_at_their_rhythm_and_at_the_end() -> None:
    lines = lines_of(Clock(), io.StringIO(), 4.0, every=10.0)
    assert lines == [
        "step 3/10, loss 0.3333, network tiny, 8 images/s, 0.5 min left",
        "step 6/10, loss 0.3333, network tiny, 8 images/s, 0.3 min left",
        "step 9/10, loss 0.3333, network tiny, 8 images/s, 0.1 min left",
        "step 10/10, loss 0.3333, network tiny, 8 images/s, 0.0 min left",
    ]


def test_time_left_counts_from_the_step_that_a_run_goes_on_from() -> None:
    lines = lines_of(Clock(), io.StringIO(), 6.0, every=29.0, start=1_000_000)
    assert lines[0].startswith("step 1000005/1000010, ")
    assert lines[0].endswith("5 images/s, 0.5 min left")


def test_a_run_that_goes_back_has_no_time_left_until_it_is_past_its_start() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(10, start=5, every=1.0, stream=stream, clock=clock) as progress:
        for step in (6, 4, 7):
            clock.now += 60.0
            progress.update(step)
    assert stream.getvalue().splitlines() == ["step 6/10, 4.0 min left", "step 4/10", "step 7/10, 4.5 min left"]


def test_other_units_and_lines_of_their_own() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(600.0, "second", stream=stream, clock=clock) as progress:
        progress.say("beginning")
        clock.now = 90.5
        progress.update(90.5, rows=12, at="softmax(heads=3)")
        progress.update(91, rows=12)
    assert stream.getvalue().splitlines() == [
        "beginning",
        "second 90.5/600, rows 12, at softmax(heads=3), 8.5 min left",
        "second 91/600, rows 12, 8.4 min left",
    ]


def test_nothing_is_shown_by_the_others_of_a_group() -> None:
    for stream in (io.StringIO(), Terminal()):
        clock = Clock()
        with Progress(10, shown=False, stream=stream, clock=clock) as progress:
            progress.say("hidden")
            clock.now = 100
            progress.update(3, loss=1.0)
        assert stream.getvalue() == ""


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(), Terminal()
    with Progress(10, stream=stream, clock=clock, start=2) as progress:
        clock.now = 1.0
        progress.update(4, 32, loss=0.125)
        progress.say("checkpoint")
        clock.now = 2.0
        progress.update(3, 32, loss=0.25)
    shown = stream.getvalue()
    assert "\r" in shown
    assert "4/10" in shown
    assert "loss 0.125, 32 images/s" in shown
    assert "checkpoint\n" in shown
    assert shown.rindex("3/10") > shown.rindex("checkpoint")
