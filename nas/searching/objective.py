"""Objective: a network's figures, its limits, and the values that Optuna optimises.

What formulas and tables tell (multiply-accumulates, parameters, memory, latency) is known before anything is built, and
so is whether a network keeps the budget: each limit is a constraint, the excess relative to the limit, at most 0 where
it is kept. Only networks that keep all limits are given to the accuracy estimator. A network that cannot be judged
(out of memory, not finite, too slow, unscorable) is a constraint as well, with its reason: its trial is complete, and
finite values stand in for what is not known of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from optuna import Trial
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.core.architecture import Architecture
from nas.core.cost import Cost
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.core.units import Budget
from nas.latency.isolated import one_line, tells_of_memory
from nas.model.costs import Costs
from nas.reporting.finished import DIRECTIONS, SIGMA
from nas.searching.genome import suggest
from nas.searching.results import DIGEST, DUPLICATE, FAILED, REASON, UNKNOWN, Known

STAND_IN = 0.0  # for a figure that is not known; the constraint keeps its network off every front
MAX_CRASHES = 10  # in a row, before the first figure: then it is not the networks
BYTES = 4  # of a number in float32


class Estimate(Protocol):
    """A figure, higher is better, and its standard deviation in the same unit where it is known."""

    @property
    def value(self) -> float: ...

    @property
    def sigma(self) -> float | None: ...


class Accuracy(Protocol):
    """What estimates accuracy; nas.accuracy.base.Estimator is one."""

    def estimate(self, architecture: Architecture) -> Estimate: ...


class Predicted(Protocol):
    """Milliseconds and their standard deviation."""

    @property
    def ms(self) -> float: ...

    @property
    def deviation_ms(self) -> float: ...


class Latency(Protocol):
    """What predicts latency; nas.latency.latency.Latency is one."""

    def predict(self, architecture: Architecture) -> Predicted: ...


class NotJudged(Exception):
    """A network cannot be judged: what kind of failure, and why."""

    def __init__(self, kind: str, why: str):
        super().__init__(f"{kind}: {one_line(why)}" if why else kind)


class Forecast(NamedTuple):
    """What is known of a network before it is built: attributes of its trial, and its constraints."""

    attributes: dict[str, Any]
    excess: dict[str, float]


def memory_mb(cost: Cost) -> float:
    """Megabytes (1e6 bytes) of the weights and of the largest working set of one product, in float32, for one image."""
    return BYTES * (cost.params + cost.activation) / 1e6


class Objective:
    """The objective of a study over a space.

    names     two or three of DIRECTIONS (one is allowed)
    accuracy  called for networks that keep the budget, and only if it is an objective
    latency   needed where it is an objective or has a limit
    known     the study's results, from which a network that was evaluated already is answered
    """

    def __init__(
        self,
        space: Space,
        names: Sequence[str],
        budget: Budget,
        accuracy: Accuracy | None = None,
        latency: Latency | None = None,
        memory: Callable[[Cost], float] = memory_mb,
    ):
        for name in names:
            if name not in DIRECTIONS:
                raise InputError("unknown objective", name, "objectives", nearest(name, DIRECTIONS))
        if not 1 <= len(names) <= 3 or len(set(names)) != len(names):
            raise InputError("a search has one to three different objectives", list(names), "objectives")
        if latency is None and ("latency_ms" in names or budget.latency_ms is not None):
            raise InputError("latency needs a target to predict it for", place="target")
        if accuracy is None and "accuracy" in names:
            raise InputError("accuracy needs an estimator", place="accuracy")
        self.space = space
        self.names = tuple(names)
        self.budget = budget
        self.known: Known | None = None
        self._accuracy = accuracy
        self._latency = latency
        self._memory = memory
        self._costs = Costs()
        self._crashes = 0

    @property
    def directions(self) -> list[str]:
        """Of the objectives, in order."""
        return [DIRECTIONS[name] for name in self.names]

    def forecast(self, architecture: Architecture) -> Forecast:
        """What formulas and tables tell; microseconds to a millisecond."""
        cost = self._costs.cost(architecture)
        told: dict[str, Any] = {DIGEST: architecture.digest}
        told |= {"macs": cost.macs, "params": cost.params, "memory_mb": self._memory(cost)}
        if self._latency is not None:
            try:
                predicted = self._latency.predict(architecture)
                told |= {"latency_ms": float(predicted.ms), "latency_ms" + SIGMA: float(predicted.deviation_ms)}
            except InputError as error:  # the table has never seen one of its operators
                told[REASON] = f"latency: {one_line(str(error))}"
        excess = self._excess(told)
        if any(over > 0 for over in excess.values()):
            told[UNKNOWN] = [name for name in self.names if name not in told]
        return Forecast(told, excess)

    def _excess(self, told: Mapping[str, Any]) -> dict[str, float]:
        """The constraints of what is told of a network before it is built."""
        excess = {FAILED: 1.0} if REASON in told else {}
        limits = self.budget.limits().items()
        return excess | {name: (told[name] - limit) / limit for name, limit in limits if name in told}

    def __call__(self, trial: Trial) -> tuple[float, ...]:
        """The values of a trial, its attributes and constraints set."""
        architecture = suggest(trial, self.space)
        told = trial.user_attrs
        if told.get(DIGEST) == architecture.digest:
            excess = self._excess(told)  # from the queue: the study has it
        else:
            told, excess = self.forecast(architecture)
            _tell(trial, told, excess)
        twin = self.known.result(architecture.digest) if self.known is not None else None
        if twin is not None:
            _tell(trial, {**twin.user_attrs, DUPLICATE: twin.number}, twin.constraints)
            return tuple(twin.values)
        if all(over <= 0 for over in excess.values()) and "accuracy" in self.names:
            told = {**told, **self._judge(trial, architecture)}
        return tuple(float(told.get(name, STAND_IN)) for name in self.names)

    def _judge(self, trial: Trial, architecture: Architecture) -> dict[str, float]:
        """The accuracy, where it can be estimated; otherwise the constraint that says why not."""
        assert self._accuracy is not None
        try:
            estimate = judged(self._accuracy, architecture)
        except NotJudged as failure:
            self._count(failure)
            told: dict[str, Any] = {REASON: str(failure), UNKNOWN: ["accuracy"]}
            _tell(trial, told, {FAILED: 1.0})
            return {}
        self._crashes = -1
        if estimate.sigma is not None:
            trial.set_user_attr("accuracy" + SIGMA, float(estimate.sigma))
        return {"accuracy": float(estimate.value)}

    def _count(self, failure: NotJudged) -> None:
        """Raises what the estimator raised where it has failed for every network from the first."""
        if self._crashes >= 0 and failure.__cause__ is not None and not tells_of_memory(str(failure.__cause__)):
            self._crashes += 1
            if self._crashes >= MAX_CRASHES:
                raise failure.__cause__

    def given_up(self, trial: FrozenTrial, why: str) -> FrozenTrial:
        """A complete trial in place of one whose network ends the processes that judge it."""
        told = {**trial.user_attrs, REASON: why}
        told[UNKNOWN] = [name for name in self.names if name not in told]
        return create_trial(
            state=TrialState.COMPLETE,
            values=[float(told.get(name, STAND_IN)) for name in self.names],
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=told,
            system_attrs=trial.system_attrs,
            constraints={**trial.constraints, FAILED: 1.0},
        )


def judged(accuracy: Accuracy, architecture: Architecture) -> Estimate:
    """A finite estimate; NotJudged where the network is at fault or the estimator has no figure for it."""
    from nas.accuracy.base import Unscorable

    try:
        estimate = accuracy.estimate(architecture)
    except (NotJudged, InputError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise NotJudged("timeout", str(error)) from None
        raise
    except Unscorable as error:
        raise NotJudged("unscorable", str(error)) from None
    except MemoryError as error:
        raise NotJudged("out of memory", str(error)) from None
    except Exception as error:
        kind = "out of memory" if tells_of_memory(str(error)) else "crashed"
        raise NotJudged(kind, f"{type(error).__name__}: {error}") from error
    for figure in (estimate.value, 0.0 if estimate.sigma is None else estimate.sigma):
        if not math.isfinite(figure):
            raise NotJudged("not finite", f"the estimate is {figure}")
    return estimate


def _tell(trial: Trial, told: dict[str, Any], excess: dict[str, float]) -> None:
    for key, value in told.items():
        if trial.user_attrs.get(key) != value:
            trial.set_user_attr(key, value)
    for key, over in excess.items():
        if key not in trial.constraints:
            trial.set_constraint(key, over)
