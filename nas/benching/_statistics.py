"""Rank correlation with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000


def kendall(one: Sequence[float], two: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Kendall's tau-b and its 95 % interval by resampling pairs; 0 where one side does not vary."""
    from scipy.stats import kendalltau

    first, second = np.asarray(one, float), np.asarray(two, float)

    def tau(chosen: np.ndarray | slice) -> float:
        value = float(kendalltau(first[chosen], second[chosen]).statistic)
        return 0.0 if np.isnan(value) else value

    generator = np.random.default_rng(seed)
    drawn = [tau(generator.integers(len(first), size=len(first))) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return tau(slice(None)), float(low), float(high)
