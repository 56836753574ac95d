"""AutoFormer's evolution, written anew from its paper as a baseline (Chen et al., ICCV 2021, section 3.4,
https://arxiv.org/abs/2107.00651).

It has one objective: the accuracy under a limit, so a front takes a run for each of several limits. As there: a first
population at random, then the best of all so far are parents, one half of a generation are mutations of one of them and
the other half crossovers of two, and candidates over the limit or already evaluated are drawn again. One rate of
mutation serves all decisions (there 0.2 for the depth, 0.4 for the rest). The runs take turns, generation by
generation, so that the front grows everywhere; a network that another run has evaluated is not counted again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from nas.core.architecture import Architecture
from nas.core.space import Space

LIMITS = 5  # runs
POPULATION = 20  # of each run; 50 there, for one run of 1000 evaluations
PARENTS = 4  # a fifth of the population, as there
RATE = 0.4
DRAWS = 20  # for one candidate
IDLE = 2  # generations without a new network, after which it ends
SAMPLES = 500  # networks that the limits are placed among


def evaluated(
    space: Space,
    macs: Callable[[Architecture], float],
    accuracy: Callable[[Architecture], float],
    evaluations: int,
    seed: int,
) -> list[tuple[float, float]]:
    """(accuracy, macs) of the different networks that are evaluated, in order."""
    random = Random(f"AutoFormer {seed}")
    known: dict[str, tuple[float, float]] = {}
    runs = [_Run(space, macs, limit, random) for limit in limits(space, macs)]
    idle = 0
    while len(known) < evaluations and idle < IDLE:
        before = len(known)
        for run in runs:
            for architecture in run.generation():
                digest = architecture.digest
                if digest not in known and len(known) == evaluations:
                    break
                if digest not in known:
                    known[digest] = (accuracy(architecture), macs(architecture))
                run.found[architecture] = known[digest][0]
        idle = idle + 1 if len(known) == before else 0
    return list(known.values())


def limits(space: Space, macs: Callable[[Architecture], float]) -> list[float]:
    """Limits at even shares of the costs of random networks; the last is no limit. Costs are formulas: this is free."""
    random = Random(0)
    costs = sorted(macs(space.sample(random)) for _ in range(SAMPLES))
    return [costs[round(share * (len(costs) - 1) / LIMITS)] for share in range(1, LIMITS)] + [float("inf")]


class _Run:
    """One search under one limit."""

    def __init__(self, space: Space, macs: Callable[[Architecture], float], limit: float, random: Random):
        self._space, self._macs, self._limit, self._random = space, macs, limit, random
        self.found: dict[Architecture, float] = {}

    def generation(self) -> list[Architecture]:
        """The networks to evaluate next."""
        random, space = self._random, self._space
        parents = sorted(self.found, key=lambda architecture: -self.found[architecture])[:PARENTS]
        made: list[Architecture] = []

        def add(count: int, make: Callable[[], Architecture]) -> None:
            for _ in range(count):
                for _ in range(DRAWS):
                    candidate = make()
                    if self._macs(candidate) <= self._limit and candidate not in self.found and candidate not in made:
                        made.append(candidate)
                        break

        if parents:
            half = POPULATION // 2
            add(half, lambda: space.mutate(random.choice(parents), random, RATE))
            add(half, lambda: space.crossover(*_two(parents, random), random))
        add(POPULATION - len(made), lambda: space.sample(random))
        return made


def _two(parents: Sequence[Architecture], random: Random) -> tuple[Architecture, Architecture]:
    return random.choice(parents), random.choice(parents)
