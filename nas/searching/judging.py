"""Judging: which of a search's candidates is to be evaluated next, by what the search has evaluated so far.

A surrogate of the accuracy is fitted to the networks that could be judged, and where some could not (out of memory, not
finite, too slow) a second one to whether a network can be: a candidate is worth the hypervolume that it can be expected
to add, times the chance that it can be judged at all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nas.core.architecture import Architecture
from nas.core.path import Path
from nas.reporting.pareto import MAXIMIZE, MINIMIZE, ranks
from nas.searching.improvement import expected_hypervolume
from nas.searching.ranking import Figures, Ranker
from nas.searching.surrogate import Surrogate
from nas.searching.vocabulary import Vocabulary

JUDGED, UNJUDGEABLE, OVER, OPEN = "judged", "unjudgeable", "over", "open"


class Candidates(NamedTuple):
    """Different networks that keep the limits, with what is known of them; rows are their segments."""

    paths: list[Path]
    architectures: list[Architecture]
    rows: list[tuple[int, ...]]
    figures: Figures


class Tried(NamedTuple):
    """A network of a trial and what was found: its value where it was judged (nan where it was not); state is one of
    JUDGED, UNJUDGEABLE, OVER a limit (not evaluated), or OPEN (about to be)."""

    path: Path
    architecture: Architecture
    row: tuple[int, ...]
    value: float
    state: str


class Known(NamedTuple):
    """Evaluated networks that keep the limits; more is better in values."""

    trials: list[Tried]
    figures: Figures
    values: np.ndarray

    def best(self, cheap: list[str], count: int) -> list[Tried]:
        """At least so many, rank by rank, whole ranks."""
        objectives = np.column_stack([self.values, self.figures.of(cheap)])
        own = ranks(objectives, [MAXIMIZE, *[MINIMIZE] * len(cheap)])
        last = np.sort(own)[min(count, len(own)) - 1]
        return [trial for trial, rank in zip(self.trials, own, strict=True) if rank <= last]


class Judge:
    """How much each candidate can be expected to enlarge the front of what is known."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        ranker: Ranker,
        trials: list[Tried],
        known: Known,
        cheap: list[str],
        limits: dict[str, float],
    ):
        self._cheap = cheap
        networks = [trial.architecture for trial in known.trials]
        self._surrogate = Surrogate(vocabulary, networks, known.figures, known.values)
        costs, values = known.figures.of(cheap), known.values
        waiting = [trial.architecture for trial in trials if trial.state == OPEN]
        if waiting:
            figures = ranker.figures(waiting)
            costs = np.vstack([costs, figures.of(cheap)])
            values = np.concatenate([values, self._surrogate.predict(waiting, figures)[0]])
        self._costs, self._values = costs, values
        largest = known.figures.of(cheap)
        extent = largest.max(axis=0) - largest.min(axis=0)
        self._reference = np.array(
            [limits.get(name, largest[:, i].max() + 0.1 * extent[i]) for i, name in enumerate(cheap)]
        )
        self._floor = float(known.values.min())
        told = [trial for trial in trials if trial.state in (JUDGED, UNJUDGEABLE)]
        self._judgeable: Surrogate | None = None
        if any(trial.state == UNJUDGEABLE for trial in told):
            networks = [trial.architecture for trial in told]
            could = np.array([float(trial.state == JUDGED) for trial in told])
            self._judgeable = Surrogate(vocabulary, networks, ranker.figures(networks), could, pull=False)

    def gains(self, candidates: Candidates) -> np.ndarray:
        """Expected growth of the hypervolume, times the chance that the network can be judged at all."""
        if not candidates.paths:
            return np.zeros(0)
        mean, sigma = self._surrogate.predict(candidates.architectures, candidates.figures)
        costs = candidates.figures.of(self._cheap)
        gains = expected_hypervolume(costs, mean, sigma, self._costs, self._values, self._reference, self._floor)
        if self._judgeable is not None:
            chance, _ = self._judgeable.predict(candidates.architectures, candidates.figures)
            gains = gains * np.clip(chance, 0.01, 1.0)
        return gains
