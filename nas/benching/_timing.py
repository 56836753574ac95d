"""Paired timing: two calls alternate, each pair gives a ratio, and the median of the ratios is the result.

Absolute times drift by ten percent and more on a shared machine; medians of interleaved ratios repeat within half a
percent (see docs/log.md).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

from nas.latency.clock import pairs_in_turn, summary, wall


class Ratio(NamedTuple):
    """First over second: the median ratio and its 95 % interval (by ranks), with the medians in milliseconds."""

    ratio: float
    low: float
    high: float
    first_ms: float
    second_ms: float
    pairs: int


def paired(first: Callable[[], object], second: Callable[[], object], pairs: int = 40, warmup: int = 3) -> Ratio:
    """Time both, interleaved, in an order that alternates so that neither always runs on the other's caches."""
    for _ in range(warmup):
        first()
        second()
    timed = pairs_in_turn(first, second, wall, range(pairs), math.inf)
    ratio, low, high, _ = summary([one / two for one, two in timed])
    first_ms, second_ms = (1e3 * statistics.median(times) for times in zip(*timed, strict=True))
    return Ratio(ratio, low, high, first_ms, second_ms, pairs)
