"""What a study knows: the networks that it has evaluated, by digest, and the rows of a finished search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from nas.core.architecture import Architecture
from nas.core.space import Space
from nas.model.outline import outline
from nas.searching.genome import architecture_of

DIGEST = "digest"
DUPLICATE = "duplicate_of"  # number of the trial whose figures these are
START = "start"
REASON = "reason"  # why a network could not be judged
ORIGIN = "origin"  # START of a network that the search was given; absent where the sampler proposed it
UNKNOWN = "unknown"  # objectives that are not known, for which other values stand in
FAILED = "failed"  # constraint of a network that could not be judged


class Known:
    """The networks of a study by digest, brought up to date by reading what is new."""

    def __init__(self, study: Study):
        self._study = study
        self._complete: dict[str, FrozenTrial] = {}
        self.open: list[FrozenTrial] = []  # waiting or running
        self._at_hand: set[str] = set()
        self._seen: set[int] = set()
        self.finished = 0  # complete trials, duplicates included
        self.waiting = 0
        self.running = 0

    def refresh(self) -> list[FrozenTrial]:
        """Read the study; the trials that were completed since the last time, by number."""
        fresh, self.open = [], []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is TrialState.COMPLETE:
                if trial.number not in self._seen:
                    self._seen.add(trial.number)
                    fresh.append(trial)
                    if is_own(trial):
                        self._complete.setdefault(trial.user_attrs[DIGEST], trial)
            elif trial.state in (TrialState.WAITING, TrialState.RUNNING):
                self.open.append(trial)
        self.waiting = sum(trial.state is TrialState.WAITING for trial in self.open)
        self.running = len(self.open) - self.waiting
        self._at_hand = {trial.user_attrs.get(DIGEST, "") for trial in self.open}
        self.finished = len(self._seen)
        return fresh

    def __contains__(self, architecture: Architecture) -> bool:
        """Whether the network is evaluated, or about to be."""
        return architecture.digest in self._complete or architecture.digest in self._at_hand

    def result(self, digest: str) -> FrozenTrial | None:
        """The trial that evaluated a network."""
        return self._complete.get(digest)

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials that evaluated a network."""
        return list(self._complete.values())

    @property
    def networks(self) -> int:
        """How many different networks are evaluated or about to be."""
        return len(self._complete.keys() | self._at_hand)


def is_own(trial: FrozenTrial) -> bool:
    """Whether a complete trial evaluated a network, rather than repeat another's figures."""
    return DIGEST in trial.user_attrs and DUPLICATE not in trial.user_attrs


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial keeps all its limits and could be judged."""
    return all(excess <= 0 for excess in trial.constraints.values())


def results_of(study: Study, space: Space, objectives: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each network evaluated, in order of trials: see nas.reporting.finished.

    Figures that stand in for unknown ones of a network that could not be judged are None.
    """
    rows = []
    listed: set[str] = set()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        told = trial.user_attrs
        if not is_own(trial) or told[DIGEST] in listed:  # two workers may have had the same at the same time
            continue
        listed.add(told[DIGEST])
        figures = {key: value for key, value in told.items() if isinstance(value, int | float)}
        values = dict(zip(objectives, trial.values, strict=True))
        architecture = architecture_of(trial.params, space)
        unknown = set(told.get(UNKNOWN, ()))
        rows.append(
            {
                "trial": trial.number,
                "digest": told[DIGEST],
                "architecture": architecture.to_dict(),
                "outline": outline(architecture),
                "origin": told.get(ORIGIN, "sampler"),
                "feasible": is_feasible(trial),
                "excess": trial.constraints,
                "reason": told.get(REASON),
                **figures,
                **{name: None if name in unknown else value for name, value in values.items()},
            }
        )
    return rows
