"""Contest: Optuna samplers on objectives whose values are known, counted by the networks that they evaluate.

For benchmarks. A network that a sampler proposes again is answered from what is known and counts nothing, which favours
samplers that repeat themselves.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from nas.accuracy.base import Estimate
from nas.core.architecture import Architecture
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.core.units import Budget
from nas.model.costs import Costs
from nas.searching.evolution import EvolutionSampler
from nas.searching.genome import suggest
from nas.searching.objective import Objective
from nas.searching.proposing import Proposer
from nas.searching.ranking import Ranker
from nas.searching.samplers import POPULATION, Inheriting, sampler
from nas.searching.storage import silent
from nas.searching.study import facts_of, open_study
from nas.searching.workers import Dead, Worker

NAMES = ("random", "nsga2", "nsga2_inheriting", "tpe", "evolution")
OBJECTIVES = ("accuracy", "macs")
DIRECTIONS: tuple[Literal["maximize"], Literal["minimize"]] = ("maximize", "minimize")
REPEATS = 3  # trials for each evaluation, at most
TURN = 10  # trials of one kind in a row, where rates are compared


class Rates(NamedTuple):
    """Trials a second of the whole loop and of Optuna's bare `optimize`, and the ratio of the two, by time and by the
    processor's time."""

    whole: float
    bare: float
    ratio: float
    processor_ratio: float


def evaluated(
    name: str, space: Space, ranker: Ranker, accuracy: Callable[[Architecture], float], evaluations: int, seed: int
) -> list[tuple[float, float]]:
    """(accuracy, macs) of the different networks that a sampler evaluates, in order.

    random, nsga2 and tpe are Optuna's samplers with their defaults; nsga2_inheriting is its NSGA-II with children that
    inherit the parameters that only some networks have; evolution is the project's own. Fewer than asked for where the
    sampler comes up with no others in REPEATS times as many trials.
    """
    known: dict[str, tuple[float, float]] = {}
    with silent():
        study = optuna.create_study(directions=list(DIRECTIONS), sampler=_sampler(name, space, ranker, seed))
        for _ in range(REPEATS * evaluations):
            trial = study.ask()
            architecture = suggest(trial, space)
            if architecture.digest not in known:
                macs = float(ranker.figures_of([ranker.segments(architecture)]).macs[0])
                known[architecture.digest] = (accuracy(architecture), macs)
            study.tell(trial, known[architecture.digest])
            if len(known) == evaluations:
                break
    return list(known.values())


def rates(name: str, space: Space, accuracy: Callable[[Architecture], float], trials: int, seed: int = 0) -> Rates:
    """The whole loop beside Optuna's bare `optimize` with the same sampler, in turns, each on a SQLite file of its own,
    with accuracies that cost nothing."""
    objective, costs = Objective(space, OBJECTIVES, Budget(), _Given(accuracy)), Costs()

    def evaluate(trial: optuna.Trial) -> tuple[float, float]:
        architecture = suggest(trial, space)
        return accuracy(architecture), float(costs.cost(architecture).macs)

    with tempfile.TemporaryDirectory() as folder, silent():
        facts = facts_of({}, OBJECTIVES, sampler=name)
        opened = open_study(f"sqlite:///{folder}/loop.db", "loop", DIRECTIONS, facts, Dead(objective))
        worker = Worker(opened, objective, Proposer(opened.study, objective, sampler(name, space), seed))
        storage = f"sqlite:///{folder}/bare.db"
        bare = optuna.create_study(storage=storage, directions=list(DIRECTIONS), sampler=sampler(name, space)(seed))
        whole_s, bare_s = np.zeros(2), np.zeros(2)  # by time, by the processor's
        for begun in range(0, trials, TURN):
            count = min(TURN, trials - begun)
            whole_s += _seconds(partial(worker.work, begun + count))
            bare_s += _seconds(partial(bare.optimize, evaluate, n_trials=count))
    return Rates(*map(float, (trials / whole_s[0], trials / bare_s[0], *(bare_s / whole_s))))


def _seconds(act: Callable[[], object]) -> np.ndarray:
    """That it takes, by time and by the processor's time."""
    before = np.array([time.perf_counter(), time.process_time()])
    act()
    return np.array([time.perf_counter(), time.process_time()]) - before


class _Given(NamedTuple):
    """An accuracy estimator that looks figures up."""

    accuracy: Callable[[Architecture], float]

    def estimate(self, architecture: Architecture) -> Estimate:
        return Estimate(self.accuracy(architecture))


def _sampler(name: str, space: Space, ranker: Ranker, seed: int) -> BaseSampler:
    makes: dict[str, Callable[[], Any]] = {
        "random": lambda: RandomSampler(seed=seed),
        "nsga2": lambda: NSGAIISampler(seed=seed),
        "nsga2_inheriting": lambda: Inheriting(NSGAIISampler, POPULATION, seed),
        "tpe": lambda: TPESampler(seed=seed),
        "evolution": lambda: EvolutionSampler(space, ranker, seed, objectives=OBJECTIVES),
    }
    if name not in makes:
        raise InputError("unknown sampler", value=name, nearest=nearest(name, makes))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental")
        return makes[name]()
