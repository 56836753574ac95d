"""Predicted against measured latency of the members of fronts, each with its 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.reporting.compared import ESTIMATED, labels
from nas.reporting.finished import SIGMA, Finished
from nas.reporting.plot_canvas import note, number_axis, run_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMAL_95 = 1.959964  # standard deviations to either side
LOG_FROM = 10.0  # of the largest to the smallest latency


@dataclass(frozen=True)
class Pair:
    """A member that was measured: milliseconds, predicted with their standard deviation, measured with their ends."""

    run: str
    number: int
    predicted: float
    sigma: float
    measured: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Of the prediction, relative to what was measured."""
        return abs(self.predicted - self.measured) / self.measured

    @property
    def covered(self) -> bool:
        """Whether what was measured is within the prediction's 95 % interval."""
        return abs(self.predicted - self.measured) <= NORMAL_95 * self.sigma


def pairs(runs: Sequence[Finished]) -> list[Pair]:
    """The members that have both figures, of each run in order of their numbers."""
    found = []
    for name, run in zip(labels(runs), runs, strict=True):
        for row in run.front:
            predicted, measured = row.get("latency_ms"), row.get("measured_ms")
            if not predicted or not measured:
                continue
            sigma = row.get("latency_ms" + SIGMA) or 0.0
            low, high = (row.get(key) or measured for key in ("measured_low", "measured_high"))
            found.append(Pair(name, row["number"], predicted, sigma, measured, low, high))
    return found


def estimated(runs: Sequence[Finished]) -> bool:
    """Whether predictions of all the runs are estimates that no measurement stands behind."""
    return all(str(run.about["latency"] or "").startswith(ESTIMATED) for run in runs)


def summary(shown: Sequence[Pair]) -> str:
    """How good the predictions are."""
    inside = sum(pair.covered for pair in shown)
    return (
        f"{len(shown)} networks: median error {np.median([pair.error for pair in shown]):.1%}, "
        f"{inside} within the predicted 95 % interval"
    )


def _range(shown: Sequence[Pair]) -> tuple[bool, tuple[float, float]]:
    """Whether axes are logarithmic, and from where to where: all points, and of the intervals what is above zero."""
    points = np.array([[pair.predicted, pair.measured] for pair in shown])
    half = NORMAL_95 * np.array([pair.sigma for pair in shown])
    bars = np.concatenate([points[:, 0] - half, points[:, 0] + half, *([pair.low, pair.high] for pair in shown)])
    if points.max() > LOG_FROM * points.min():
        low = min(bars[bars > 0].min(), points.min())
        return True, (max(low, points.min() / 4) / 1.15, max(bars.max(), points.max()) * 1.15)
    low, high = min(bars.min(), points.min()), max(bars.max(), points.max())
    margin = 0.05 * (high - low) or 0.05 * high
    return False, (max(0.0, low - margin), high + margin)


def draw_pairs(figure: Figure, shown: Sequence[Pair], estimate: bool = False) -> None:
    """Each pair as a cross of its two intervals, over the line where both are equal."""
    axes = figure.add_subplot()
    log, ends = _range(shown)
    axes.plot(ends, ends, color="#333333", linewidth=0.7, linestyle="--", label="equal", zorder=1)
    names = list(dict.fromkeys(pair.run for pair in shown))
    for number, name in enumerate(names):
        own = [pair for pair in shown if pair.run == name]
        color, marker, _ = run_style(number)
        predicted, measured = (np.array([getattr(pair, key) for pair in own]) for key in ("predicted", "measured"))
        half = NORMAL_95 * np.array([pair.sigma for pair in own])
        below = np.clip([pair.measured - pair.low for pair in own], 0, None)
        above = np.clip([pair.high - pair.measured for pair in own], 0, None)
        axes.errorbar(
            predicted,
            measured,
            xerr=half,
            yerr=np.stack([below, above]),
            fmt=marker,
            color=color,
            markersize=3,
            elinewidth=0.6,
            label=name if len(names) > 1 else f"member of the front ({len(own)})",
        )
    number_axis(axes, "x", "latency_ms", log)
    number_axis(axes, "y", "latency_ms", log)
    axes.set(xlim=ends, ylim=ends)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted latency (ms)" + (f"\n{ESTIMATED}" if estimate else ""))
    axes.set_ylabel("measured latency (ms)")
    axes.legend(loc="upper left")
    note(figure, [summary(shown)])
