"""The clock: a candidate against a reference, call by call in turns; the result is the median of the pairs' ratios.

Absolute times drift by ten percent and more on a shared machine, ratios of neighbouring calls do not (docs/log.md). So
milliseconds are the ratio times the reference's own figure, and a reading says how sure it is and what disturbed it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nas.latency.load import Seen, Watch

Call = Callable[[], object]
Stopwatch = Callable[[Call], float]
Block = list[tuple[float, float]]  # seconds of candidate and reference, pair by pair

DRIFT = 0.05  # a block whose reference differs by more from that of the other blocks is measured again
BUSY = 0.15  # cores that others may keep busy before it is said
WAITED = 0.05  # part of its time for which a call of one thread may wait for the processor
RARE = 3  # blocks that may be measured again
FEWEST = 6  # pairs; of fewer, not even the range of all holds the median in 95 of 100 cases


class Limits(NamedTuple):
    """How long to measure: until the 95 % interval of the ratio is within `tolerance` of it, but no longer."""

    tolerance: float = 0.005
    min_pairs: int = 20
    max_pairs: int = 400
    seconds: float = 20.0


USUAL = Limits()


class Reading(NamedTuple):
    """What was found. `ms` is the ratio times `reference_ms`; spread is the ratios' interquartile range over it."""

    ratio: float
    low: float  # of the 95 % interval of the ratio, by ranks
    high: float
    spread: float
    ms: float
    reference_ms: float  # median of this session, unless the reference's own figure was given
    pairs: int
    seconds: float
    settled: bool  # the interval is as narrow as was asked for
    others: float  # cores that other processes kept busy meanwhile
    drift: float  # the largest difference of a kept block's reference from the median of all
    repeated: int  # blocks that were measured again because the reference had drifted
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "notes": list(self.notes)}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Reading:
        """The reverse of `to_dict`."""
        return cls(**{**values, "notes": tuple(values["notes"])})


def wall(call: Call) -> float:
    """Seconds of one call by the wall clock: the stopwatch of a processor."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class OneThread:
    """Seconds of one call of a single thread: the wall clock, or the processor's own time where the call had to wait.

    A call that shares its core with another process is interrupted now and then, the longer the call the more often;
    the processor's time leaves the interruptions out. Idle threads that spin never make a call longer than it was.
    """

    def __init__(self) -> None:
        self.waits = 0

    def __call__(self, call: Call) -> float:
        before, start = time.process_time(), time.perf_counter()
        call()
        passed, worked = time.perf_counter() - start, time.process_time() - before
        if passed <= (1 + WAITED) * worked:
            return passed
        self.waits += 1
        return worked


def compare(
    candidate: Call,
    reference: Call,
    limits: Limits = USUAL,
    stopwatch: Stopwatch = wall,
    reference_ms: float | None = None,
    watch: Watch | None = None,
) -> Reading:
    """Measure in blocks of pairs. The order within a pair alternates, so neither always runs on the other's caches."""
    watch = watch or Watch()
    start = time.perf_counter()
    deadline = start + limits.seconds
    _warm_up(candidate, reference, stopwatch, limits.seconds / 4)
    blocks: list[Block] = []
    size = max(2, limits.min_pairs // 4)
    taken, repeated, settled = 0, 0, False
    watch.start()
    while True:
        blocks.append(pairs_in_turn(candidate, reference, stopwatch, range(taken, taken + size), deadline))
        taken += len(blocks[-1])
        pairs = sum(map(len, blocks))
        late = time.perf_counter() >= deadline
        if pairs >= limits.min_pairs or late:
            drifts = _drifts(blocks)
            drifted = sum(drift > DRIFT for drift in drifts)
            if 0 < drifted < len(blocks) / 2 and repeated < RARE and not late:
                blocks = [block for block, drift in zip(blocks, drifts, strict=True) if drift <= DRIFT]
                repeated += drifted
                continue
            ratio, low, high, _ = summary([one / two for block in blocks for one, two in block])
            settled = pairs >= FEWEST and (high - low) / 2 <= limits.tolerance * ratio
            if settled or late or pairs >= limits.max_pairs:
                break
    seen = watch.stop()
    ratio, low, high, spread = summary([one / two for block in blocks for one, two in block])
    session_ms = 1e3 * statistics.median(two for block in blocks for _, two in block)
    own_ms = session_ms if reference_ms is None else reference_ms
    drift = max(_drifts(blocks))
    waits = stopwatch.waits if isinstance(stopwatch, OneThread) else 0
    return Reading(
        ratio,
        low,
        high,
        spread,
        ratio * own_ms,
        own_ms,
        sum(map(len, blocks)),
        time.perf_counter() - start,
        settled,
        seen.others,
        drift,
        repeated,
        tuple(_notes(seen, waits, repeated, drift)),
    )


def _notes(seen: Seen, waits: int, repeated: int, drift: float) -> Iterator[str]:
    """What disturbed a measurement, in words."""
    yield from seen.notes
    if seen.others > BUSY:
        yield f"busy: other processes kept {seen.others:.2f} cores busy"
    if waits:
        yield f"waited: {waits} calls shared their core and count with the processor's own time"
    if repeated:
        yield f"drift: {repeated} blocks were measured again"
    if drift > DRIFT:
        yield f"drift: the reference moved by {drift:.0%} (throttling, or a busy machine)"


def summary(values: list[float]) -> tuple[float, float, float, float]:
    """Median, its 95 % interval by ranks, and the interquartile range over the median."""
    ordered, count = sorted(values), len(values)
    half = 1.96 * math.sqrt(count) / 2
    low = ordered[max(0, math.floor(count / 2 - half))]
    high = ordered[min(count - 1, math.ceil(count / 2 + half) - 1)]
    median = statistics.median(ordered)
    return median, min(low, median), max(high, median), (ordered[(3 * count) // 4] - ordered[count // 4]) / median


def pairs_in_turn(candidate: Call, reference: Call, stopwatch: Stopwatch, numbers: range, deadline: float) -> Block:
    """Pairs in a row, candidate and reference in turns first; no further pair once the time is over."""
    block: Block = []
    for number in numbers:
        if number % 2:
            two = _positive(stopwatch(reference))
            one = _positive(stopwatch(candidate))
        else:
            one = _positive(stopwatch(candidate))
            two = _positive(stopwatch(reference))
        block.append((one, two))
        if time.perf_counter() >= deadline:
            break
    return block


def _positive(seconds: float) -> float:
    if not (math.isfinite(seconds) and seconds > 0):
        raise BrokenClock(f"a call took {seconds} s by this device's clock")
    return seconds


class BrokenClock(RuntimeError):
    """A device's clock gave a time that cannot be."""


def _drifts(blocks: list[Block]) -> list[float]:
    """How far each block's reference lies from the median of all blocks'."""
    middles = [statistics.median(two for _, two in block) for block in blocks]
    middle = statistics.median(middles)
    return [abs(own / middle - 1) for own in middles]


def _warm_up(candidate: Call, reference: Call, stopwatch: Stopwatch, seconds: float) -> None:
    """Run both until neither is faster than the time before by a tenth."""
    start, before = time.perf_counter(), (math.inf, math.inf)
    while True:
        now = _positive(stopwatch(candidate)), _positive(stopwatch(reference))
        stable = all(new > 0.9 * old for new, old in zip(now, before, strict=True))
        if stable or time.perf_counter() - start > seconds:
            return
        before = now
