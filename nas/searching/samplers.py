"""Samplers by name. Each is made anew for every trial with a seed of that trial, so that it keeps nothing in itself.

Optuna's NSGA-II and NSGA-III pass on only the parameters that all trials share, each with a chance of one over their
number to be drawn again: where networks share but one, the layout, they draw as the random sampler does, trial for
trial. `Inheriting` passes on what either of two parents has instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, get_args

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.searching.config import SamplerName
from nas.searching.storage import quiet

if TYPE_CHECKING:
    from nas.searching.ranking import Ranker

SAMPLERS = get_args(SamplerName)
POPULATION = 50
CROSSED = 0.9  # share of children that have two parents, as in Optuna

MakeSampler = Callable[[int], BaseSampler]  # by the trial's seed


def seed_of(*parts: int) -> int:
    """A seed of 32 bits that depends on all parts."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def sampler(
    name: str,
    space: Space,
    *,
    population: int = POPULATION,
    ranker: Ranker | None = None,
    objectives: Sequence[str] = (),
    limits: Mapping[str, float] | None = None,
) -> MakeSampler:
    """How to make the sampler of a name; `evolution`, the project's own, needs a ranker, and the study's objectives."""
    if name not in SAMPLERS:
        raise InputError("unknown sampler", value=name, place="sampler", nearest=nearest(name, SAMPLERS))
    if population < 2:
        raise InputError("a population has at least two networks", value=population, place="population")

    def make(seed: int) -> BaseSampler:
        with quiet():
            match name:
                case "evolution":
                    from nas.searching.evolution import EvolutionSampler

                    if ranker is None:
                        raise InputError("this sampler ranks candidates and needs a ranker", name, "sampler")
                    return EvolutionSampler(space, ranker, seed, objectives=objectives, limits=limits)
                case "nsga2":
                    return Inheriting(NSGAIISampler, population, seed)
                case "nsga3":
                    return Inheriting(NSGAIIISampler, population, seed)
                case "tpe":
                    return TPESampler(seed=seed)
                case "gp":
                    return GPSampler(seed=seed)
        return RandomSampler(seed=seed)

    return make


class Inheriting(BaseSampler):
    """A genetic sampler of Optuna whose children have each parameter from a parent that has it.

    Optuna keeps the population and selects the parents' generation; two of it, or one, are drawn for each child. A
    parameter is drawn at random with a chance of one over their number, and where no parent has it.
    """

    def __init__(self, kind: Callable[..., BaseSampler], population: int, seed: int):
        self._inner = kind(population_size=population, seed=seed, child_generation_strategy=self._take)
        self._random = Random(seed)
        self._parents: list[FrozenTrial] = []

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._parents = []
        return self._inner.sample_relative(study, trial, {})

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        inherited = [parent.params[param_name] for parent in self._parents if param_name in parent.params]
        if inherited and self._random.random() >= 1 / len(self._parents[0].params):
            return self._random.choice(inherited)
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def _take(
        self, study: Study, search_space: dict[str, BaseDistribution], population: Sequence[FrozenTrial]
    ) -> dict[str, Any]:
        """Optuna's hook for making a child."""
        count = 2 if self._random.random() < CROSSED else 1
        self._parents = self._random.sample(list(population), min(count, len(population)))
        return {}
