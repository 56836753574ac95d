"""The clock on machines whose every second is made up: what it finds, when it stops, and what it notices."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from nas.latency import clock, load
from nas.latency.clock import BrokenClock, Limits, OneThread, Reading, compare, summary, wall
from nas.latency.load import Watch

QUIET = Watch("/there/is/no/such/file")
Speed = Callable[[int, float], float]  # a factor for the call of this number that starts at this second


class Machine:
    """Two networks of known times, run at a speed that may change; its seconds are the only ones that pass."""

    def __init__(self, candidate: float, reference: float, speed: Speed = lambda number, now: 1.0):
        self.now, self.calls, self.order = 0.0, 0, ""
        self._own = {"c": candidate, "r": reference}
        self._speed = speed

    def measure(self, limits: Limits, reference_ms: float | None = None) -> Reading:
        return compare(lambda: "c", lambda: "r", limits, self._stopwatch, reference_ms, QUIET)

    def _stopwatch(self, call: Callable[[], object]) -> float:
        name = str(call())
        seconds = self._own[name] * self._speed(self.calls, self.now)
        self.calls += 1
        self.order += name
        self.now += seconds
        return seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []

    def make(*arguments: float, speed: Speed = lambda number, now: 1.0) -> Machine:
        made.append(Machine(*arguments, speed=speed))
        return made[-1]

    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: made[-1].now if made else 0.0))
    yield make


def test_the_ratio_is_found_and_turned_into_milliseconds(machine):
    reading = machine(0.03, 0.01).measure(Limits(), reference_ms=12.0)
    assert reading.ratio == reading.low == reading.high == pytest.approx(3)
    assert reading.ms == pytest.approx(36) and reading.reference_ms == 12.0
    assert reading.settled and reading.pairs == Limits().min_pairs
    assert reading.notes == () and reading.drift == 0 and reading.spread == pytest.approx(0)
    assert reading.to_dict()["notes"] == []


def test_without_a_figure_of_its_own_the_reference_is_that_of_the_session(machine):
    reading = machine(0.03, 0.01).measure(Limits())
    assert reading.reference_ms == pytest.approx(10) and reading.ms == pytest.approx(30)


def test_the_order_within_a_pair_alternates_also_from_block_to_block(machine):
    made = machine(0.03, 0.01)
    reading = made.measure(Limits(min_pairs=20))
    measured = made.order[-2 * reading.pairs :]
    assert measured == "crrc" * (reading.pairs // 2)


def test_the_median_stands_against_single_slow_calls(machine):
    reading = machine(0.02, 0.01, speed=lambda number, now: 50.0 if number % 9 == 4 else 1.0).measure(Limits())
    assert reading.ratio == pytest.approx(2)


def test_more_pairs_are_taken_until_the_interval_is_narrow(machine):
    def noise(amount: float) -> Speed:
        random = Random(1)
        return lambda number, now: 1 + amount * random.uniform(-1, 1)

    limits = Limits(tolerance=0.005, seconds=1000, max_pairs=2000)
    calm, noisy = (machine(0.02, 0.01, speed=noise(amount)).measure(limits) for amount in (0.002, 0.03))
    assert calm.settled and noisy.settled
    assert calm.pairs < noisy.pairs < 2000
    for reading in (calm, noisy):
        assert (reading.high - reading.low) / 2 <= 0.005 * reading.ratio
        assert reading.low <= 2 <= reading.high


def test_too_noisy_a_ratio_ends_at_the_most_pairs_and_says_so(machine):
    random = Random(2)
    reading = machine(0.02, 0.01, speed=lambda number, now: random.uniform(0.8, 1.2)).measure(
        Limits(tolerance=0.0001, max_pairs=60, seconds=1000)
    )
    assert reading.pairs == 60 and not reading.settled


def test_the_time_ends_it_in_the_middle_of_a_block(machine):
    made = machine(5.0, 1.0)
    reading = made.measure(Limits(min_pairs=80, seconds=20))
    assert made.now <= 20 + 6 and reading.seconds == pytest.approx(made.now)
    assert 1 <= reading.pairs < 80
    assert reading.ratio == pytest.approx(5)


def test_a_single_pair_never_counts_as_settled(machine):
    reading = machine(50.0, 1.0).measure(Limits(seconds=20))
    assert reading.pairs == 1 and not reading.settled
    assert machine(0.02, 0.01).measure(Limits(min_pairs=1)).pairs >= 6


def test_the_warm_up_lasts_until_both_are_no_longer_faster(machine):
    """The first calls of the reference are slow as well, and none of them is in the result."""
    slow = {0: 40.0, 1: 90.0, 2: 1.0, 3: 70.0, 4: 1.0, 5: 50.0}
    made = machine(0.02, 0.01, speed=lambda number, now: slow.get(number, 1.0))
    reading = made.measure(Limits(seconds=1000))
    assert reading.drift == 0 and reading.spread == pytest.approx(0) and reading.ratio == pytest.approx(2)


def test_a_block_that_drifted_is_measured_again(machine):
    def speed(number: int, now: float) -> float:
        return 1.5 if 14 <= number < 24 else 1.0  # one block of five pairs, all of it slower

    reading = machine(0.02, 0.01, speed=speed).measure(Limits(min_pairs=20))
    assert reading.repeated == 1 and reading.drift == pytest.approx(0)
    assert reading.pairs >= 20
    assert any("1 blocks were measured again" in note for note in reading.notes)


def test_a_throttling_ramp_is_noticed_and_the_ratio_stands(machine):
    reading = machine(0.02, 0.01, speed=lambda number, now: 1 + 0.5 * now).measure(Limits(min_pairs=40))
    assert reading.drift > clock.DRIFT
    assert any("throttling" in note for note in reading.notes)
    assert reading.ratio == pytest.approx(2, rel=0.02)


def test_repeating_has_an_end(machine):
    """A reference that jumps for ever: some blocks are repeated, then what there is is kept and told."""
    random = Random(3)
    made = machine(
        0.02, 0.01, speed=lambda number, now: (1.3 if number // 10 % 5 == 2 else 1.0) + random.random() / 100
    )
    reading = made.measure(Limits(tolerance=0, max_pairs=100, seconds=1000))
    assert 1 <= reading.repeated <= 10 and reading.pairs >= 100
    assert any("throttling" in note for note in reading.notes)


@pytest.mark.parametrize("wrong", [0.0, -0.001, math.nan, math.inf])
@pytest.mark.parametrize("from_call", [0, 17])
def test_a_time_that_cannot_be_is_refused(machine, wrong: float, from_call: int):
    made = machine(1.0, 1.0, speed=lambda number, now: wrong if number >= from_call else 1.0)
    with pytest.raises(BrokenClock, match="by this device's clock"):
        made.measure(Limits(seconds=1e9))
    assert made.calls <= from_call + 2


def test_a_clock_that_stands_still_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: 7.0))
    with pytest.raises(BrokenClock):
        compare(lambda: None, lambda: None, Limits(seconds=1), wall, watch=QUIET)


def test_the_wall_clock_counts_real_seconds():
    assert wall(lambda: time.sleep(0.02)) >= 0.02


@pytest.mark.parametrize("count", [6, 20, 81, 400])
def test_the_interval_of_the_median_holds_it_in_95_of_100_cases(count: int):
    random = Random(count)
    held = 0
    for _ in range(1000):
        median, low, high, _ = summary([random.lognormvariate(0, 0.3) for _ in range(count)])
        assert low <= median <= high
        held += low <= 1 <= high
    assert 0.935 <= held / 1000 <= 0.985


def test_the_summary_of_few_values():
    assert summary([2.0]) == (2.0, 2.0, 2.0, 0.0)
    assert summary([3.0, 1.0])[:3] == (2.0, 1.0, 3.0)
    values = [float(value) for value in range(1, 101)]
    median, low, high, spread = summary(values)
    assert median == statistics.median(values) and (low, high) == (41, 60)
    assert spread == pytest.approx(50 / 50.5)


def stat(busy: int, steal: int = 0) -> str:
    """/proc/stat with so many ticks, spread over its columns."""
    return f"cpu  {busy - 4} 1 1 99999 7 1 1 {steal} 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What a watch tells of ten seconds with so many ticks (of 0.01 s) busy and stolen, and own seconds."""

    def run(busy: int, steal: int = 0, own: float = 0.0) -> tuple[float, tuple[str, ...]]:
        now = SimpleNamespace(seconds=100.0, own=5.0)
        monkeypatch.setattr(load, "_TICK", 0.01)
        monkeypatch.setattr(load, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
        monkeypatch.setattr(load, "os", SimpleNamespace(times=lambda: SimpleNamespace(user=now.own, system=1.0)))
        path = tmp_path / "stat"
        path.write_text(stat(1000, 50))
        watch = Watch(str(path))
        watch.start()
        path.write_text(stat(1000 + busy, 50 + steal))
        now.seconds, now.own = 110.0, 5.0 + own
        return tuple(watch.stop())  # type: ignore[return-value]

    return run


def test_a_busy_machine_is_noticed_and_the_own_work_is_not(seen):
    assert seen(busy=1500, own=10.0)[0] == pytest.approx(0.5, abs=0.01)
    assert seen(busy=1000, own=10.0) == (0.0, ())
    assert seen(busy=0, own=0.1) == (0.0, ())


def test_stolen_time_is_told(seen):
    others, notes = seen(busy=1000, steal=200, own=10.0)
    assert others == 0.0 and notes == ("stolen: the host took 0.20 cores",)


def test_a_tick_more_or_less_in_a_short_time_is_no_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(load, "_TICK", 0.01)
    monkeypatch.setattr(load, "time", SimpleNamespace(perf_counter=iter([0.0, 0.05]).__next__))
    monkeypatch.setattr(load, "os", SimpleNamespace(times=lambda: SimpleNamespace(user=1.0, system=1.0)))
    path = tmp_path / "stat"
    path.write_text(stat(1000))
    watch = Watch(str(path))
    watch.start()
    path.write_text(stat(1002))
    assert watch.stop().others == 0.0


@pytest.mark.parametrize("text", [None, "", "cpu 1 2 3\n", "cpu a b c d e f g h\n"])
def test_nothing_is_said_where_the_system_does_not_tell(tmp_path: Path, text: str | None):
    path = tmp_path / "stat"
    if text is not None:
        path.write_text(text)
    watch = Watch(str(path))
    watch.start()
    assert tuple(watch.stop()) == (0.0, ())
    assert tuple(Watch().stop()) == (0.0, ()), "stopped without a start"


def test_a_reading_says_that_the_machine_was_busy(machine):
    class Busy(Watch):
        def start(self) -> None:
            pass

        def stop(self) -> load.Seen:
            return load.Seen(0.8, ("stolen: the host took 0.30 cores",))

    made = machine(0.02, 0.01)
    reading = compare(lambda: "c", lambda: "r", Limits(), made._stopwatch, watch=Busy())
    assert reading.others == 0.8
    assert reading.notes == ("stolen: the host took 0.30 cores", "busy: other processes kept 0.80 cores busy")


def test_a_single_thread_that_waits_for_its_core_counts_its_own_time(monkeypatch):
    passed = SimpleNamespace(wall=0.0, work=0.0)
    fake = SimpleNamespace(perf_counter=lambda: passed.wall, process_time=lambda: passed.work)
    monkeypatch.setattr(clock, "time", fake)

    def call(wall: float, work: float) -> None:
        passed.wall += wall
        passed.work += work

    stopwatch = OneThread()
    assert stopwatch(lambda: call(1.0, 0.97)) == 1.0, "a call that hardly waited counts as the wall clock says"
    assert stopwatch(lambda: call(1.0, 2.5)) == 1.0, "idle threads that spin do not make a call longer"
    assert stopwatch.waits == 0
    assert stopwatch(lambda: call(2.0, 1.0)) == 1.0 and stopwatch.waits == 1


def test_a_shared_core_does_not_move_the_ratio_and_is_told():
    lengths = {"c": 3_000_000, "r": 1_000_000}
    limits = Limits(tolerance=0, min_pairs=8, max_pairs=8)
    long, short = (partial(_wait, partial(sum, range(length))) for length in lengths.values())
    reading = compare(long, short, limits, OneThread(), watch=QUIET)
    assert 2 < reading.ratio < 4, "waiting has no part in it"
    assert any(note.startswith("waited: ") for note in reading.notes)


def _wait(call: Callable[[], object]) -> None:
    time.sleep(0.02)
    call()


@pytest.mark.skipif(sys.platform != "linux", reason="the load of the machine is read from /proc/stat")
def test_a_process_that_spins_is_noticed():
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        try:
            assert busy.stdout is not None and busy.stdout.readline() == b"\n"
            limits = Limits(tolerance=0, max_pairs=10**6, seconds=1.0)
            reading = compare(lambda: time.sleep(0.004), lambda: time.sleep(0.004), limits)
        finally:
            busy.kill()
    assert reading.others > clock.BUSY
    assert any(note.startswith("busy: ") for note in reading.notes)
