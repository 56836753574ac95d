"""A signal sets a flag that the loop reads; bad losses are skipped, then answered by going back, then told."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from nas.core.errors import InputError
from nas.training.faults import NanGuard, Verdict, stopping

GOOD, SKIP, RESTORE = Verdict.GOOD, Verdict.SKIP, Verdict.RESTORE
BAD = (math.nan, math.inf, -math.inf)


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """The handlers of a process in the foreground, whatever runs the tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_sets_the_flag_and_its_exit_code(number: signal.Signals, code: int) -> None:
    with stopping() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert stop.signal is number
        with pytest.raises(SystemExit) as left:
            stop.leave()
        assert left.value.code == stop.exit_code == code


def test_handlers_are_put_back_whatever_happens() -> None:
    def own(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, own)
    with pytest.raises(KeyError), stopping():
        assert signal.getsignal(signal.SIGTERM) is not own
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopping() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_second_signal_ends_at_once_unless_it_is_the_first_again() -> None:
    now = 0.0
    done = []
    with pytest.raises(SystemExit) as left, stopping(lambda: now) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        now = 1.9
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("the launcher passed it on")
        now = 2.0
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("never")
    assert done == ["the launcher passed it on"]
    assert left.value.code == stop.exit_code == 130


def test_a_forked_worker_can_be_ended_and_leaves_interrupts_to_its_parent() -> None:
    with stopping() as stop:
        reading, writing = os.pipe()
        worker = os.fork()
        if worker == 0:
            signal.raise_signal(signal.SIGINT)
            os.write(writing, b"lives" if not stop.requested else b"asked")
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM
        assert os.read(reading, 10) == b"lives"
        assert not stop.requested
    os.close(reading)
    os.close(writing)


LOOP = """
import os, signal, sys
from nas.training.faults import stopping
signal.signal(signal.SIGINT, signal.default_int_handler)
now, number = 0, int(sys.argv[1])
with stopping(lambda: now) as stop:
    for step in range(100):
        if step == 3:
            os.kill(os.getpid(), number)
        if stop.requested:
            print(f"saved step {step}", flush=True)
            if sys.argv[2] == "once":
                stop.leave()
            try:
                now = 10
                os.kill(os.getpid(), number)
            finally:
                print("finally", flush=True)
                if sys.argv[2] == "thrice":
                    os.kill(os.getpid(), number)
                    print("never", flush=True)
"""


@pytest.mark.parametrize(
    ("times", "said"),
    [("once", "saved step 3\n"), ("twice", "saved step 3\nfinally\n"), ("thrice", "saved step 3\nfinally\n")],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_process_ends_with_the_code_of_its_signal(number: signal.Signals, code: int, times: str, said: str) -> None:
    command = [sys.executable, "-c", LOOP, str(int(number)), times]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, said, "")


def judged(guard: NanGuard, losses: list[float]) -> list[Verdict]:
    return [guard.judge(step, loss, f"{step:064x}") for step, loss in enumerate(losses)]


@pytest.mark.parametrize("bad", BAD)
def test_bad_losses_are_skipped_then_the_run_goes_back(bad: float) -> None:
    guard = NanGuard(limit=2, skips=2)
    losses = [1.0, bad, bad, 1.0, bad, bad, bad, 1.0, bad]
    assert judged(guard, losses) == [GOOD, SKIP, SKIP, GOOD, SKIP, SKIP, RESTORE, GOOD, SKIP]
    assert guard.restores == 1


def test_after_its_limit_the_run_ends_with_what_was_seen() -> None:
    guard = NanGuard(limit=2, skips=0)
    assert judged(guard, [math.nan, 0.5, math.inf]) == [RESTORE, GOOD, RESTORE]
    with pytest.raises(InputError) as ended:
        guard.judge(41, -math.inf, "fedcba9876543210")
    text = str(ended.value)
    assert text.startswith("step 41, network fedcba987654: the loss is not finite, also after going back 2 times")
    assert "nan at step 0 of 000000000000, inf at step 2 of 000000000000, -inf at step 41 of fedcba987654" in text


def test_a_guard_without_restores_ends_at_the_first() -> None:
    with pytest.raises(InputError, match="after going back 0 times"):
        NanGuard(limit=0, skips=0).judge(1, math.nan, "abc")


def test_trouble_is_forgotten_after_a_calm_stretch_and_remembered_over_a_resume() -> None:
    guard = NanGuard(limit=1, skips=0, calm=3)
    assert judged(guard, [math.nan, 1, 1, 1, math.nan, 1, 1]) == [RESTORE, GOOD, GOOD, GOOD, RESTORE, GOOD, GOOD]
    assert guard.restores == 2
    with pytest.raises(InputError):
        guard.judge(9, math.nan, "")
    with pytest.raises(InputError):
        NanGuard(limit=2, skips=0, restores=guard.restores).judge(0, math.nan, "")


def test_figures_that_make_no_sense_are_refused() -> None:
    for figures in ({"limit": -1}, {"limit": 1, "skips": -1}):
        with pytest.raises(InputError, match="0 times or more"):
            NanGuard(**figures)
