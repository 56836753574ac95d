"""Progress: the hypervolume of what a search had found after each network that it evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.reporting.compared import labels, objectives
from nas.reporting.finished import DIRECTIONS, LABELS, Finished, over
from nas.reporting.pareto import anytime, reference_point, values_of
from nas.reporting.plot_canvas import note, run_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """A run: the trials, counted from one, and the hypervolume after each, as a share of the largest of all runs."""

    run: str
    trials: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True)
class Progress:
    """The curves of runs under one reference point, in the objectives' units; how: it was chosen."""

    curves: tuple[Curve, ...]
    objectives: tuple[str, ...]
    reference: tuple[float, ...]
    how: str


def progress(runs: Sequence[Finished]) -> Progress | None:
    """The curves of the objectives that all runs have; None where no run has a feasible network with all of them."""
    names = objectives(runs)
    if not names:
        return None
    directions = [DIRECTIONS[name] for name in names]
    values = [values_of(run.rows, names) for run in runs]
    excess = [np.array([over(row) for row in run.rows], dtype=float) for run in runs]
    known = [(far <= 0) & np.isfinite(own).all(axis=1) for own, far in zip(values, excess, strict=True)]
    useful = np.concatenate([own[kept] for own, kept in zip(values, known, strict=True)])
    if not len(useful):
        return None
    limits = [_limit(runs, name) for name in names]
    reference = reference_point(useful, directions, limits)
    found = [anytime(own, directions, reference.point, far) for own, far in zip(values, excess, strict=True)]
    most = max(float(own.max(initial=0.0)) for own in found) or 1.0
    trials = [np.array([row["trial"] for row in run.rows], dtype=int) + 1 for run in runs]
    curves = (Curve(*parts) for parts in zip(labels(runs), trials, (own / most for own in found), strict=True))
    return Progress(tuple(curves), names, reference.point, reference.how)


def draw_progress(figure: Figure, shown: Progress) -> None:
    """A line a run."""
    axes = figure.add_subplot()
    for number, curve in enumerate(shown.curves):
        color, _, line = run_style(number)
        axes.step(curve.trials, curve.shares, where="post", color=color, linestyle=line, label=curve.run)
    axes.set_xlabel("networks proposed")
    axes.set_ylabel("hypervolume (largest = 1)")
    axes.set_ylim(0, 1.04)
    axes.set_xlim(left=0)
    if len(shown.curves) > 1:
        axes.legend(loc="lower right")
    told = zip(shown.objectives, shown.reference, strict=True)
    point = ", ".join(f"{LABELS[name]} {value:.4g}" for name, value in told)
    note(figure, [f"from the reference point {point}"])


def _limit(runs: Sequence[Finished], name: str) -> float | None:
    """The limit of an objective that all runs have."""
    limits = {run.budget.limits().get(name) for run in runs}
    return limits.pop() if len(limits) == 1 else None
