"""Evolution: the project's own sampler, evolutionary, with a cheap predictor in the loop.

Costs and latency are formulas, so only the accuracy of a network is unknown before it is evaluated. A surrogate is
fitted to what the search has evaluated; mutations and crossovers of the best networks, thousands of them, are ranked by
how much each can be expected to enlarge the front; the best of them breed again; and the first of all is evaluated.
Networks over a limit are crossed with the smallest until they keep it, or never proposed.

A proposal depends on the seed, on how many trials there are, and on what they found, and on nothing else: a search that
is taken up again proposes what it would have. Networks that another worker has at hand are taken to be as expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.path import Path
from nas.core.space import Space
from nas.core.variation import Variation
from nas.model.extremes import extremes
from nas.searching.genome import architecture_of, params_of
from nas.searching.judging import JUDGED, OPEN, OVER, UNJUDGEABLE, Candidates, Judge, Known, Tried
from nas.searching.ranking import CHEAP, Figures, Ranker
from nas.searching.vocabulary import Vocabulary

ACCURACY = "accuracy"
TRIES = 20  # pools of candidates that are looked through for one that is not known
REPAIRS = 12  # crossings with the smallest network before a candidate is given up


@dataclass(frozen=True)
class Breeding:
    """How many networks are ranked for one proposal."""

    startup: int = 16  # trials that cover the costs evenly, before the surrogate proposes
    first: int = 1000  # candidates made from the evaluated networks
    rounds: int = 3  # of children of the best candidates
    children: int = 300  # in each round
    kept: int = 30  # best candidates that breed
    parents: int = 24  # evaluated networks, at least, that breed
    pool: int = 200  # random networks of which a trial at the start is chosen


class _Workshop:
    """What stays the same from trial to trial: paths, vocabulary, decoded trials."""

    def __init__(self, space: Space, ranker: Ranker):
        self.variation, self.vocabulary = space.variation, Vocabulary()
        self._space, self._ranker = space, ranker
        self._decoded: dict[tuple[tuple[str, Any], ...], tuple[Path, Architecture, tuple[int, ...]] | None] = {}
        self.smallest = tuple(self.variation.path_of(extremes(space, cost).smallest) for cost in ("macs", "params"))

    def decode(self, params: Mapping[str, Any]) -> tuple[Path, Architecture, tuple[int, ...]] | None:
        """The network of a trial's parameters; None where they are not (or not yet) those of a network."""
        key = tuple(params.items())
        if key not in self._decoded:
            try:
                path = self.variation.path_of(architecture_of(params, self._space))
            except InputError:
                return None
            architecture = self.variation.build(path)
            self._decoded[key] = (path, architecture, self._ranker.segments(architecture))
        return self._decoded[key]


@lru_cache(maxsize=8)
def _workshop(space: Space, ranker: Ranker) -> _Workshop:
    return _Workshop(space, ranker)


class EvolutionSampler(BaseSampler):
    """Proposes whole networks of a space.

    objectives  of the study, in order: `accuracy` (or any other name: what is not cheap is learned) once, and at most
                two of `nas.searching.ranking.CHEAP`
    limits      upper limits of cheap figures
    """

    def __init__(
        self,
        space: Space,
        ranker: Ranker,
        seed: int,
        *,
        objectives: Sequence[str],
        limits: Mapping[str, float] | None = None,
        breeding: Breeding | None = None,
    ):
        learned = [name for name in objectives if name not in CHEAP]
        if len(learned) != 1 or not 1 <= len(objectives) <= 3:
            rule = f"the evolution sampler has one objective that is learned, and at most two of {', '.join(CHEAP)}"
            raise InputError(rule, value=list(objectives), place="objectives")
        self._space, self._ranker, self._seed = space, ranker, seed
        self._learned = list(objectives).index(learned[0])
        self._cheap = [name for name in objectives if name in CHEAP]
        self._limits = dict(limits or {})
        needed = {*self._cheap, *self._limits}
        if "latency_ms" in needed and ranker.latency is None:
            raise InputError("a ranker without latency cannot rank by it", place="target")
        self._breeding = breeding or Breeding()
        self._proposed: dict[int, dict[str, Any]] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Of the network proposed: its parameters are all decided together."""
        if trial.system_attrs.get("fixed_params"):  # queued by somebody
            return {}
        self._proposed[trial.number], distributions = params_of(self.propose(study, trial), self._space)
        return dict(distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._proposed.pop(trial.number, {})

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Of a queued network of which some parameters were left open."""
        assert isinstance(param_distribution, CategoricalDistribution)
        return Random(f"{self._seed} {trial.number} {param_name}").choice(param_distribution.choices)

    def propose(self, study: Study, trial: FrozenTrial) -> Architecture:
        """The next network, one that no trial has; where no other is found, one that a trial has."""
        workshop = _workshop(self._space, self._ranker)
        trials, hidden = self._trials(workshop, study, trial)
        random = Random(f"{self._seed} {len(trials) + hidden}")
        seen = {one.row for one in trials}
        sign = 1.0 if study.directions[self._learned] == StudyDirection.MAXIMIZE else -1.0
        kept = [one for one in trials if one.state == JUDGED]
        figures = self._ranker.figures_of([one.row for one in kept])
        figures = self._ranker.with_accuracy(figures, [one.architecture for one in kept])
        within = [i for i, over in enumerate(figures.excess(self._limits)) if over == 0]
        if len(trials) < self._breeding.startup or len(within) < 2:
            return self._spread(workshop, trials, seen, random)
        known = Known(
            trials=[kept[i] for i in within],
            figures=Figures(*(column[within] for column in figures)),
            values=sign * np.array([kept[i].value for i in within]),
        )
        return self._bred(workshop, trials, known, seen, random)

    def _trials(self, workshop: _Workshop, study: Study, asking: FrozenTrial) -> tuple[list[Tried], int]:
        """What there is, in the order of trials; those that failed count for nothing: they are run again. And how many
        there are of which it cannot be told yet what they try."""
        found, hidden = [], 0
        for trial in study.get_trials(deepcopy=False):
            if trial.state is TrialState.FAIL or trial._trial_id == asking._trial_id:
                continue
            decoded = workshop.decode(trial.params or trial.system_attrs.get("fixed_params", {}))
            if decoded is None:
                hidden += 1
            else:
                found.append(Tried(*decoded, *self._outcome(trial)))
        return found, hidden

    def _outcome(self, trial: FrozenTrial) -> tuple[float, str]:
        """The value of a trial and its state. The value of a network over a limit stands in for one not known."""
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return math.nan, OPEN
        over = [key for key, excess in trial.constraints.items() if excess > 0]
        if over:
            return math.nan, OVER if set(over) <= self._limits.keys() else UNJUDGEABLE
        value = trial.values[self._learned] if trial.values else math.nan
        return value, JUDGED if math.isfinite(value) else UNJUDGEABLE

    def _spread(
        self, workshop: _Workshop, trials: list[Tried], seen: set[tuple[int, ...]], random: Random
    ) -> Architecture:
        """One of many random networks, such that the first trials cover the costs evenly."""
        variation, number = workshop.variation, len(trials)
        found = self._checked(workshop, [variation.sample(random) for _ in range(self._breeding.pool)], seen, random)
        if not found.paths:
            return self._left(workshop, trials, seen, random)
        names = self._cheap or list(self._limits) or ["macs"]
        costs = found.figures.of([names[number % len(names)]])[:, 0]
        wanted = costs.min() + _halving(number // len(names)) * (costs.max() - costs.min())
        near = np.argsort(np.abs(costs - wanted), kind="stable")[: max(1, len(found.paths) // 20)]
        if self._ranker.accuracy_model is not None:
            near = near[np.argsort(-found.figures.accuracy[near], kind="stable")]
        return found.architectures[int(near[0])]

    def _left(
        self, workshop: _Workshop, trials: list[Tried], seen: set[tuple[int, ...]], random: Random
    ) -> Architecture:
        """A network near any of the trials', where random ones are all known or too large; else the smallest."""
        variation, known = workshop.variation, [trial.path for trial in trials] or [*workshop.smallest]
        for _ in range(TRIES):
            paths = [variation.mutate(random.choice(known), random, changes=2) for _ in range(self._breeding.pool)]
            found = self._checked(workshop, paths, seen, random)
            if found.paths:
                return found.architectures[0]
        return variation.build(workshop.smallest[0])

    def _bred(
        self,
        workshop: _Workshop,
        trials: list[Tried],
        known: Known,
        seen: set[tuple[int, ...]],
        random: Random,
    ) -> Architecture:
        """The candidate that can be expected to enlarge the front the most."""
        judge = Judge(workshop.vocabulary, self._ranker, trials, known, self._cheap, self._limits)
        breeding, variation = self._breeding, workshop.variation
        parents = [trial.path for trial in known.best(self._cheap, breeding.parents)]
        paths = [_child(variation, parents, random) for _ in range(breeding.first)]
        found = self._checked(workshop, paths, seen, random)
        gains = judge.gains(found)
        for _ in range(breeding.rounds):
            order = np.argsort(-gains, kind="stable")[: breeding.kept]
            breeders = [found.paths[i] for i in order] or parents
            paths = [_child(variation, breeders, random, fresh=0.0) for _ in range(breeding.children)]
            more = self._checked(workshop, paths, seen | {found.rows[i] for i in order}, random)
            gains = np.concatenate([gains[order], judge.gains(more)])
            found = Candidates(
                [found.paths[i] for i in order] + more.paths,
                [found.architectures[i] for i in order] + more.architectures,
                [found.rows[i] for i in order] + more.rows,
                more.figures,  # of the children alone: those of the others are in the gains
            )
        if not found.paths:
            return self._spread(workshop, trials, seen, random)
        return found.architectures[int(np.argmax(gains))]

    def _smaller(self) -> tuple[bool, bool]:
        """Whether networks are made smaller towards the one with the fewest operations, and with the fewest weights."""
        weights = bool({"params", "memory_mb"} & self._limits.keys())
        return not weights or len(self._limits) > 1, weights

    def _checked(
        self, workshop: _Workshop, paths: list[Path], seen: set[tuple[int, ...]], random: Random
    ) -> Candidates:
        """Those that keep the limits, each once and none that is known; others are made smaller first."""
        variation, held, taken = workshop.variation, Candidates([], [], [], _NOTHING), set(seen)
        columns: list[Figures] = []
        for attempt in range(REPAIRS + 1):
            architectures = [variation.build(path) for path in paths]
            rows = [self._ranker.segments(architecture) for architecture in architectures]
            figures = self._ranker.figures_of(rows)
            usable = np.isfinite(figures.of(self._cheap)).all(axis=1) & (figures.excess(self._limits) == 0)
            good = []
            for i in np.flatnonzero(usable):
                if rows[i] not in taken:
                    taken.add(rows[i])
                    good.append(i)
            held.paths.extend(paths[i] for i in good)
            held.architectures.extend(architectures[i] for i in good)
            held.rows.extend(rows[i] for i in good)
            columns.append(Figures(*(column[good] for column in figures)))
            over = np.flatnonzero(~usable)
            if not len(over) or attempt == REPAIRS:
                break
            small = [own for own, named in zip(workshop.smallest, self._smaller(), strict=True) if named]
            paths = [variation.crossover(paths[i], random.choice(small), random) for i in over]
        joined = Figures(*(np.concatenate(column) for column in zip(*columns, strict=True)))
        return held._replace(figures=self._ranker.with_accuracy(joined, held.architectures))


def _child(variation: Variation, parents: list[Path], random: Random, fresh: float = 0.1) -> Path:
    """A random network, a crossing of two parents, or one of them with one to three decisions changed."""
    kind = random.random()
    if kind < fresh:
        return variation.sample(random)
    if kind < fresh + 0.3 and len(parents) > 1:
        first, second = random.sample(parents, 2)
        child = variation.crossover(first, second, random)
        return variation.mutate(child, random) if random.random() < 0.5 else child
    return variation.mutate(random.choice(parents), random, changes=random.choice((1, 1, 2, 3)))


def _halving(number: int) -> float:
    """1, 0, 1/2, 1/4, 3/4, 1/8, ...: the ends, then always the middle of what was left out (van der Corput)."""
    if number < 2:
        return float(1 - number)
    number, place, result = number - 1, 0.5, 0.0
    while number:
        result += place * (number & 1)
        number, place = number >> 1, place / 2
    return result


_NOTHING = Figures(*[np.zeros(0)] * 6)
