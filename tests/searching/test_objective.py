"""The objective: figures from formulas, limits as constraints, networks that cannot be judged, duplicates."""

from __future__ import annotations

import math
import multiprocessing
from random import Random
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from nas.accuracy.base import Unscorable
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.units import Budget
from nas.model.costs import Costs
from nas.searching.isolated import Isolated
from nas.searching.objective import DIRECTIONS, MAX_CRASHES, NotJudged, Objective
from nas.searching.results import Known, is_feasible, results_of
from tests.searching.fakes import Board, Figure, Moody, Score, networks, refused, score, small


def evaluated(objective: Objective, trials: int = 1, seed: int = 0) -> list[FrozenTrial]:
    """Trials of a study in memory, with networks at random."""
    study = optuna.create_study(directions=objective.directions, sampler=optuna.samplers.RandomSampler(seed=seed))
    objective.known = Known(study)
    for _ in range(trials):
        objective.known.refresh()
        study.optimize(objective, n_trials=1)
    return study.get_trials()


class Failing(Score):
    """Fails as told, in each estimate or for networks with more than one block."""

    def __init__(self, how: Any, always: bool = True):
        super().__init__()
        self._how, self._always = how, always

    def estimate(self, architecture: Architecture) -> Figure:
        figure = super().estimate(architecture)
        if not self._always and len(architecture.blocks) == 1:
            return figure
        if isinstance(self._how, BaseException):
            raise self._how
        return Figure(self._how)


def test_figures_are_those_of_the_formulas_and_the_estimator() -> None:
    accuracy = Score()
    objective = Objective(small(), ["accuracy", "latency_ms", "macs"], Budget(), accuracy, Board())
    (trial,) = evaluated(objective)
    (row,) = rows_of(objective, [trial])
    network = small_network(row)
    cost = Costs().cost(network)
    assert trial.values == [score(network), Board().predict(network).ms, cost.macs]
    assert (row["macs"], row["params"]) == (cost.macs, cost.params)
    assert row["memory_mb"] == pytest.approx((cost.params + cost.activation) * 4 / 1e6)
    assert (row["accuracy_sigma"], row["latency_ms_sigma"]) == (0.5, 0.1)
    assert row["feasible"] and row["reason"] is None and row["digest"] == network.digest
    assert objective.directions == ["maximize", "minimize", "minimize"]


def rows_of(objective: Objective, trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    study = optuna.create_study(directions=objective.directions)
    study.add_trials(trials)
    return results_of(study, objective.space, list(objective.names))


def small_network(row: dict[str, Any]) -> Architecture:
    return next(network for network in networks() if network.to_dict() == row["architecture"])


def test_limits_are_relative_constraints_and_networks_beyond_them_are_not_estimated() -> None:
    network = small().sample(Random(3))
    cost = Costs().cost(network)
    budget = Budget(macs=cost.macs, params=cost.params * 2, latency_ms=1.0)
    accuracy = Score()
    objective = Objective(small(), ["accuracy", "macs"], budget, accuracy, Board())
    excess = objective.forecast(network).excess
    latency = Board().predict(network).ms
    assert excess == {"macs": 0.0, "params": -0.5, "latency_ms": pytest.approx(latency - 1)}

    trials = evaluated(objective, 30)
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
    assert not accuracy.seen, "each network takes over 1 ms"
    assert not any(is_feasible(trial) for trial in trials)
    assert all(row["accuracy"] is None for row in rows_of(objective, trials))


def test_a_limit_divides_the_networks_exactly() -> None:
    limit = sorted(Costs().cost(network).macs for network in networks())[50]
    accuracy = Score()
    trials = evaluated(Objective(small(), ["accuracy", "macs"], Budget(macs=limit), accuracy), 40)
    kept = [trial for trial in trials if trial.user_attrs["macs"] <= limit]
    assert 0 < len(kept) < 40
    assert [is_feasible(trial) for trial in trials] == [trial in kept for trial in trials]
    assert set(accuracy.seen) == {trial.user_attrs["digest"] for trial in kept}


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (MemoryError("no more"), "out of memory: no more"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory: RuntimeError: CUDA out of"),
        (math.nan, "not finite: the estimate is nan"),
        (math.inf, "not finite: the estimate is inf"),
        (TimeoutError("after 5 s"), "timeout: after 5 s"),
        (Unscorable("no activation"), "unscorable: no activation"),
        (KeyError("shape"), "crashed: KeyError: 'shape'"),
    ],
)
def test_a_network_that_cannot_be_judged_is_a_constraint_with_a_reason(how: Any, reason: str) -> None:
    objective = Objective(small(), ["accuracy", "macs"], Budget(), Failing(how, always=False))
    trials = evaluated(objective, 12)
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
    assert all(math.isfinite(value) for trial in trials for value in trial.values)
    rows = rows_of(objective, trials)
    failed = [row for row in rows if not row["feasible"]]
    assert failed and len(failed) < len(rows)
    for row in failed:
        assert row["reason"].startswith(reason) and row["excess"] == {"failed": 1.0} and row["accuracy"] is None
    assert all(row["accuracy"] is not None and row["reason"] is None for row in rows if row["feasible"])


def test_an_estimator_that_crashes_from_the_first_is_at_fault_itself() -> None:
    accuracy = Failing(KeyError("wrong weights"))
    with pytest.raises(KeyError, match="wrong weights"):
        evaluated(Objective(small(), ["accuracy", "macs"], Budget(), accuracy), 3 * MAX_CRASHES)
    assert len(accuracy.seen) == MAX_CRASHES


def test_bad_input_of_an_estimator_ends_the_search() -> None:
    with pytest.raises(InputError, match="no weights"):
        evaluated(Objective(small(), ["accuracy", "macs"], Budget(), Failing(InputError("no weights"))))


def test_a_network_that_the_table_does_not_know_is_a_constraint() -> None:
    accuracy = Score()
    objective = Objective(small(), ["accuracy", "latency_ms"], Budget(), accuracy, Board(unseen="additive"))
    rows = rows_of(objective, evaluated(objective, 20))
    unknown = [row for row in rows if not row["feasible"]]
    assert 0 < len(unknown) < len(rows)
    for row in unknown:
        assert row["reason"].startswith("latency: the table has no row") and row["latency_ms"] is None
    assert len(accuracy.seen) == len(rows) - len(unknown)


def test_a_duplicate_is_answered_from_the_results() -> None:
    accuracy = Score()
    trials = evaluated(Objective(small(), ["accuracy", "macs"], Budget(), accuracy), 150)
    assert len(accuracy.seen) == len(set(accuracy.seen)) < 150
    twins = [trial for trial in trials if "duplicate_of" in trial.user_attrs]
    assert len(twins) == 150 - len(accuracy.seen)
    for trial in twins:
        first = trials[trial.user_attrs["duplicate_of"]]
        assert first.number < trial.number and "duplicate_of" not in first.user_attrs
        assert (first.values, first.user_attrs["digest"]) == (trial.values, trial.user_attrs["digest"])


def test_wrong_objectives_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown objective: 'acuracy' \(nearest: accuracy"):
        Objective(small(), ["acuracy"], Budget(), Score())
    with pytest.raises(InputError, match="one to three different objectives"):
        Objective(small(), list(DIRECTIONS)[:4], Budget(), Score(), Board())
    with pytest.raises(InputError, match="one to three different objectives"):
        Objective(small(), ["macs", "macs"], Budget())
    with pytest.raises(InputError, match="latency needs a target"):
        Objective(small(), ["accuracy", "macs"], Budget(latency_ms=1.0), Score())
    with pytest.raises(InputError, match="accuracy needs an estimator"):
        Objective(small(), ["accuracy", "macs"], Budget())


@pytest.mark.timeout(240)
def test_a_network_that_hangs_or_kills_its_process_costs_itself_alone() -> None:
    one, two, three = (next(network for network in networks() if len(network.blocks) == count) for count in (1, 2, 3))
    with Isolated(Moody, limit_s=4.0) as accuracy:
        assert accuracy.estimate(one) == (score(one), 0.5)
        with pytest.raises(NotJudged, match="timeout: no figure within 4 s"):
            accuracy.estimate(two)
        assert accuracy.estimate(one) == (score(one), 0.5)
        with pytest.raises(NotJudged, match="out of memory: its process was killed"):
            accuracy.estimate(three)
    assert not multiprocessing.active_children()


@pytest.mark.timeout(120)
def test_what_an_isolated_estimator_refuses_at_its_start_is_told() -> None:
    with Isolated(refused, 2.0) as accuracy, pytest.raises(InputError, match="no such weights"):
        accuracy.estimate(small().sample(Random(0)))
    with pytest.raises(InputError, match="a time limit is positive"):
        Isolated(refused, 0.0)
