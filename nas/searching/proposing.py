"""Proposing: which network a search evaluates next, put into the study's queue with all its parameters at once.

Samplers work on a copy of the study in memory that holds its complete trials: a database would be asked for each
parameter of each proposal, and written to as often. A proposal depends on the seed, on how many trials there are, and
on the results: a run that was killed and taken up again proposes what it would have proposed. One that the study has
evaluated already, or is about to, is drawn again a few times, then changed, then taken from what the space has left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from random import Random
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.core.architecture import Architecture
from nas.core.space import Space
from nas.searching.genome import params_of, propose
from nas.searching.objective import Objective
from nas.searching.results import ORIGIN, START, Known, is_own
from nas.searching.samplers import MakeSampler, seed_of
from nas.searching.storage import silent

DRAWS = 4  # by the sampler
CHANGES = 20  # of what it proposed last
SAMPLES = 20  # of all networks
LISTED = 20_000  # paths of a space that are looked through one by one
RETRIED = "failed_trial"  # Optuna's attribute of a trial that repeats another
_POPULATIONS = "populations"  # study attribute: what genetic samplers keep of each generation, by trial numbers


class Exhausted(Exception):
    """Every network of the space is evaluated, or about to be."""


class Proposer:
    """One worker's proposals for a study.

    worker  a number that tells the workers of a study apart; proposals of two at the same time differ by it
    """

    def __init__(self, study: Study, objective: Objective, make: MakeSampler, seed: int, worker: int = 0):
        self.study = study
        self.space: Space = objective.space
        self.known = Known(study)
        self._objective = objective
        self._make = make
        self._seed = seed
        self._worker = worker
        self._copy = _Copy(study)
        self._last = -1  # order of the last complete trial

    def refresh(self) -> None:
        """Read what the study has learned since."""
        fresh = [trial for trial in self.known.refresh() if is_own(trial)]
        if any(_order(trial) < self._last and RETRIED in trial.system_attrs for trial in fresh):
            self._copy, fresh = _Copy(self.study), self.known.complete  # in the place of the trial that it repeats
        self._last = max([self._last, *map(_order, fresh)])
        self._copy.update(sorted(fresh, key=_order), self.known.open)

    def queue(self) -> None:
        """Put the next network at the end of the queue; Exhausted where there is none."""
        architecture, attributes = self.next()
        self._queue(architecture, {}, attributes)

    def start_from(self, architectures: Iterable[Architecture]) -> None:
        """Queue given networks of the space that the study does not have yet."""
        for architecture in architectures:
            self.refresh()
            if architecture not in self.known:
                _, attributes = self._copy.draw(self.space, self._make(self._number()), self._position())
                self._queue(architecture, {ORIGIN: START}, attributes)

    def next(self) -> tuple[Architecture, dict[str, Any]]:
        """The next network, and what the sampler notes with its trial."""
        for draw in range(DRAWS):
            maker = self._make(self._number(draw))
            architecture, attributes = self._copy.draw(self.space, maker, self._position())
            if architecture not in self.known:
                return architecture, attributes
        return self._other(architecture, Random(self._number(DRAWS))), attributes

    def _other(self, architecture: Architecture, random: Random) -> Architecture:
        """A network that is not known: near the one given, else anywhere."""
        for _ in range(CHANGES):
            architecture = self.space.mutate(architecture, random)
            if architecture not in self.known:
                return architecture
        for _ in range(SAMPLES):
            architecture = self.space.sample(random, uniform=True)
            if architecture not in self.known:
                return architecture
        for architecture in islice(self.space.every(), LISTED):
            if architecture not in self.known:
                return architecture
        raise Exhausted(f"all {self.known.networks} networks that could be found in the space are evaluated")

    def _queue(self, architecture: Architecture, told: dict[str, Any], attributes: dict[str, Any]) -> None:
        params, distributions = params_of(architecture, self.space)
        forecast = self._objective.forecast(architecture)
        trial = create_trial(
            state=TrialState.WAITING,
            params=params,
            distributions=dict(distributions),
            user_attrs={**forecast.attributes, **told},
            system_attrs=attributes,
            constraints=forecast.excess,
        )
        self.study.add_trial(trial)

    def _position(self) -> int:
        """How many trials there are, those that failed left out: what a resumed run counts like the run before."""
        return self.known.finished + self.known.waiting + self.known.running

    def _number(self, draw: int = 0) -> int:
        return seed_of(self._seed, self._position(), self._worker, draw)


def _order(trial: FrozenTrial) -> int:
    """A trial's number; of one that repeats a failed one, that one's."""
    return int(trial.system_attrs.get(RETRIED, trial.number))


class _Copy:
    """The complete trials of a study in memory, for samplers to read, and those that are waiting or running."""

    def __init__(self, study: Study):
        self._study = study
        self._storage = InMemoryStorage()
        with silent():
            self._name = optuna.create_study(storage=self._storage, directions=study.directions).study_name
        self._id = self._storage.get_study_id_from_name(self._name)
        self._asking = self._storage.create_new_trial(self._id)  # what genetic samplers write the generation to
        self._here: dict[int, int] = {}  # by the number of a complete trial, what it is here
        self._open: dict[int, int] = {}  # the same of those at hand
        self._populations: dict[str, list[int]] | None = None  # None before the first draw

    def update(self, complete: Iterable[FrozenTrial], at_hand: Iterable[FrozenTrial]) -> None:
        """Add complete trials, in this order, and those at hand; whoever was at hand and is neither has failed."""
        for trial in complete:
            own = self._open.pop(trial.number, None)
            if own is None:
                self._here[trial.number] = self._storage.create_new_trial(self._id, _template(trial, trial.state))
                continue
            for key, value in trial.user_attrs.items():
                self._storage.set_trial_user_attr(own, key, value)
            for key, value in trial.system_attrs.items():
                self._storage.set_trial_system_attr(own, key, value)
            self._storage.set_trial_state_values(own, trial.state, trial.values)
            self._here[trial.number] = own
        held = {trial.number: trial for trial in at_hand if trial.params}
        for number in sorted(self._open.keys() - held.keys()):
            self._storage.set_trial_state_values(self._open.pop(number), TrialState.FAIL)
        for number in sorted(held.keys() - self._open.keys()):
            template = _template(held[number], TrialState.RUNNING)
            self._open[number] = self._storage.create_new_trial(self._id, template)

    def draw(self, space: Space, sampler: BaseSampler, position: int) -> tuple[Architecture, dict[str, Any]]:
        """What a sampler proposes for the trial at this position, and what it notes with the trial."""
        study = optuna.load_study(study_name=self._name, storage=self._storage, sampler=sampler)
        self._read_populations()
        asking = self._storage.get_trial(self._asking)
        trial = FrozenTrial(
            number=position,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=asking.datetime_start,
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=self._asking,
        )
        sampler.before_trial(study, trial)
        together = sampler.infer_relative_search_space(study, trial)
        drawn = sampler.sample_relative(study, trial, together)

        def ask(name: str, distribution: CategoricalDistribution) -> Any:
            if name in drawn and together[name] == distribution:
                return drawn[name]
            return sampler.sample_independent(study, trial, name, distribution)

        architecture = propose(space, ask)
        self._write_populations()
        return architecture, dict(self._storage.get_trial_system_attrs(self._asking))

    def _read_populations(self) -> None:
        """The populations of a study that is taken up again: selecting them anew would draw other random numbers."""
        if self._populations is not None:
            return
        self._populations = {}
        for key, numbers in self._study.user_attrs.get(_POPULATIONS, {}).items():
            if all(number in self._here for number in numbers):
                self._populations[key] = numbers
                self._storage.set_study_system_attr(self._id, key, [self._here[number] for number in numbers])

    def _write_populations(self) -> None:
        assert self._populations is not None
        attributes = self._storage.get_study_system_attrs(self._id)
        fresh = {key: ids for key, ids in attributes.items() if key not in self._populations and _is_ids(ids)}
        if fresh:
            numbers = {own: number for number, own in self._here.items()}
            self._populations |= {key: [numbers[own] for own in ids] for key, ids in fresh.items()}
            kept = self._study.user_attrs.get(_POPULATIONS, {})
            self._study.set_user_attr(_POPULATIONS, {**self._populations, **kept})


def _template(trial: FrozenTrial, state: TrialState) -> FrozenTrial:
    return create_trial(
        state=state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
    )


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, int) for one in value)


class QueueSampler(BaseSampler):
    """The study's own sampler: asked where another worker took the network that this one had queued."""

    def __init__(self, proposer: Proposer):
        self._proposer = proposer
        self._params: dict[str, Any] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._proposer.refresh()
        architecture, _ = self._proposer.next()
        self._params, distributions = params_of(architecture, self._proposer.space)
        return dict(distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Of a trial that had some of its parameters when its worker died."""
        assert isinstance(param_distribution, CategoricalDistribution)
        choices: Sequence[Any] = param_distribution.choices
        return Random(seed_of(trial.number, len(trial.params))).choice(choices)
