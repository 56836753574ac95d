"""Predictor: the latency of a network from its operators' times, corrected by whole networks that were measured.

A network's time is taken as a sum: of its operators' times in the table, of what stands between operators (residuals
and norms: elements moved, blocks), and of a constant. How much each operator costs inside a network differs from what
it costs alone (caches, fusion), so each has a factor and a constant of its own, near those of all. All of these are
Gaussian with spreads that the measured networks make most likely, so that the fit needs few networks, and a
prediction says how sure it is.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.core.spec import parse_one
from nas.latency.operator_times import OperatorTimes, Sample, Time, context_of, likelihood
from nas.latency.row import Row
from nas.latency.table import Table
from nas.model.plan import Place, places_of
from nas.model.spaces import shared_rules
from nas.ops.catalogue import Catalogue, catalogue

MIN_NETWORKS = 8
FACTORS = (0.02, 0.05, 0.1, 0.2, 0.4)  # spreads that are tried: of an operator's factor,
CONSTANTS = (0.003, 0.01, 0.03, 0.1)  # of its constant (in reference networks),
NOISES = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05)  # and of what the sum leaves out, relative
BRANCHES = ("mixer", "feedforward")
BRANCH = 0.1  # what a branch counts among the features
COMMON = (0.5, 1.0, 0.05, 0.05)  # of the common factor, of a million elements moved, of a block, of the constant


class Prediction(NamedTuple):
    """Milliseconds, with the standard deviation of what a measurement of this network would show."""

    ms: float
    deviation_ms: float


class Error(NamedTuple):
    """How far predictions are from measurements, relative: of networks that the fit did not see."""

    networks: int
    median: float
    within_10: float
    worst: float


class Predictor:
    """Fitted to one table; `error` is its own, each measured network left out in turn."""

    def __init__(self, table: Table, operators: Catalogue | None = None):
        self._catalogue = operators or catalogue()
        self._reference_ms = table.header.reference_ms
        self.times = OperatorTimes(samples(table, self._catalogue))
        self._columns = {name: number for number, name in enumerate(self.times.operators)}
        features, times, ratios, deviations = [], [], [], []
        for row in table.networks():
            architecture = None if row.ratio is None else architecture_of(row)
            if architecture is not None and not self.unseen(architecture):
                found, inside = self.features(architecture)
                features.append(found)
                times.append(inside)
                ratios.append(row.ratio)
                deviations.append(deviation_of(row))
        if len(features) < MIN_NETWORKS:
            rule = f"a predictor needs {MIN_NETWORKS} measured networks in the table, which has"
            raise InputError(rule, value=len(features))
        self._fit = _Fit(self.times, np.stack(features), times, np.array(ratios, dtype=float), np.array(deviations))
        errors = np.abs(self._fit.left_out)
        self.error = Error(len(ratios), float(np.median(errors)), float(np.mean(errors < 0.1)), float(errors.max()))

    def predict(self, architecture: Architecture) -> Prediction:
        """InputError if the network has an operator of which the table has no row."""
        ratio, deviation = self._fit.predict(*self.features(architecture))
        return Prediction(ratio * self._reference_ms, deviation * self._reference_ms)

    @property
    def constant_ms(self) -> float:
        """The part of every prediction that no operator has; `place_ms` of its operators makes up the rest exactly."""
        return float(self._fit.factors[3]) * self._reference_ms

    def place_ms(self, place: Place) -> float:
        """What an operator adds to the prediction of a network; InputError if the table has no row of it."""
        time = self.times.at(place, place.cost(self._catalogue))
        factors, column = self._fit.factors, len(COMMON) + self._columns[time.operator]
        added = time.ratio * (1.0 + factors[0] + factors[column]) + factors[column + len(self._columns)]
        if place.kind in BRANCHES:
            added += factors[1] * moved(place) + factors[2] * BRANCH
        return float(added + self._fit.shared(time)) * self._reference_ms

    def unseen(self, architecture: Architecture) -> list[str]:
        """Operators of a network that the table has no row of: their times are not guessed."""
        names = {(place.kind, place.spec.name) for place in places_of(self._catalogue, architecture)}
        return sorted(f"{kind} {name}" for kind, name in names if (kind, name) not in self.times)

    def operator_sum_ms(self, architecture: Architecture) -> float:
        """The uncorrected sum of the operators' times."""
        return float(self.features(architecture)[0][0]) * self._reference_ms

    def features(self, architecture: Architecture) -> tuple[np.ndarray, list[Time]]:
        """The sum over all operators, elements moved, blocks, 1, each operator's sum and count; and the operators."""
        count, times = len(self._columns), []
        result = np.zeros(len(COMMON) + 2 * count)
        result[3] = 1.0
        for place in places_of(self._catalogue, architecture):
            time = self.times.at(place, place.cost(self._catalogue))
            times.append(time)
            column = len(COMMON) + self._columns[time.operator]
            result[0] += time.ratio
            result[column] += time.ratio
            result[column + count] += 1.0
            if place.kind in BRANCHES:
                result[1] += moved(place)
                result[2] += BRANCH
        return result, times


def moved(place: Place) -> float:
    """Elements, in millions, of the tokens that a branch is added to."""
    return place.site.rows * place.site.dim / 1e6


class _Fit:
    """A Gaussian process over networks: linear in the features, with errors of operators' times that networks share."""

    def __init__(
        self,
        times: OperatorTimes,
        features: np.ndarray,
        inside: list[list[Time]],
        ratios: np.ndarray,
        deviations: np.ndarray,
    ):
        self._times = times
        self._shared: dict[tuple[tuple[str, str], int], np.ndarray] = {}
        self._uses = _Uses(inside)
        common = np.zeros((len(ratios), len(ratios)))
        for row, places in enumerate(inside):
            common[row] = self._sharing(places)
        operators = (features.shape[1] - len(COMMON)) // 2
        residual = ratios - features[:, 0]  # before anything is known, the sum itself
        best = -math.inf
        for factor, constant, noise in itertools.product(FACTORS, CONSTANTS, NOISES):
            spreads = np.array([*COMMON, *[factor] * operators, *[constant] * operators])
            scaled = features * spreads**2
            covariance = scaled @ features.T + common + np.diag((noise**2 + deviations**2) * ratios**2)
            evidence, inverse, weights = likelihood(covariance, residual)
            if evidence > best:
                best, self._spreads, self._noise = evidence, spreads, noise
                self._inverse, self._weights, self._scaled = inverse, weights, scaled
        predicted = ratios - self._weights / np.diag(self._inverse)
        self.left_out = predicted / ratios - 1
        self.factors = self._scaled.T @ self._weights  # of the features, on top of the sum itself

    def predict(self, features: np.ndarray, places: list[Time]) -> tuple[float, float]:
        like = self._scaled @ features + self._sharing(places)
        mean = features[0] + like @ self._weights
        own = _Uses([places]).variance(self._times)
        variance = float((features * self._spreads) @ (features * self._spreads)) + own - like @ self._inverse @ like
        return float(mean), math.sqrt(max(variance, 0.0) + (self._noise * mean) ** 2)

    def shared(self, time: Time) -> float:
        """What whole networks taught of the error of an operator's time."""
        return float(self._sharing([time]) @ self._weights)

    def _sharing(self, places: list[Time]) -> np.ndarray:
        """Covariance of the operators' errors of a network with those of every network of the fit."""
        result = np.zeros(self._uses.networks)
        for time in places:
            known = self._shared.get((time.operator, time.number))
            if known is None:
                known = self._shared[time.operator, time.number] = self._uses.sharing(self._times, time)
            result += time.ratio * known
        return result


class _Uses:
    """Which networks use which operators where, and how much time that takes."""

    def __init__(self, inside: list[list[Time]]):
        self.networks = len(inside)
        self._places: dict[tuple[str, str], list[Time]] = defaultdict(list)
        column: dict[tuple[tuple[str, str], int], int] = {}
        for time in itertools.chain.from_iterable(inside):
            if (time.operator, time.number) not in column:
                column[time.operator, time.number] = len(self._places[time.operator])
                self._places[time.operator].append(time)
        self._toward: dict[tuple[str, str], Callable[[Sequence[Time]], np.ndarray]] = {}
        self._amount = {name: np.zeros((len(inside), len(places))) for name, places in self._places.items()}
        for row, places in enumerate(inside):
            for time in places:
                self._amount[time.operator][row, column[time.operator, time.number]] += time.ratio

    def sharing(self, times: OperatorTimes, time: Time) -> np.ndarray:
        """Covariance of a place's relative error with the errors of each network."""
        if time.operator not in self._places:
            return np.zeros(self.networks)
        toward = self._toward.get(time.operator)
        if toward is None:
            toward = self._toward[time.operator] = times.toward(self._places[time.operator])
        found: np.ndarray = self._amount[time.operator] @ toward([time])[:, 0]
        return found

    def variance(self, times: OperatorTimes) -> float:
        """Of the first network's sum, from the errors of its operators' times."""
        found = 0.0
        for name, places in self._places.items():
            amount = self._amount[name][0]
            found += float(amount @ times.covariance(places, places) @ amount)
        return found


def samples(table: Table, operators: Catalogue) -> Iterable[Sample]:
    """The operators that a table has times of."""
    for row in table.operators():
        if row.ratio is not None and row.site is not None:
            spec = operators.canonical(row.kind, parse_one(row.spec))
            place = Place("", row.kind, spec, row.site, {name: int(value) for name, value in row.context})
            cost = place.cost(operators)
            yield Sample(row.kind, spec, row.site, context_of(place), cost, row.ratio, deviation_of(row))


def deviation_of(row: Row) -> float:
    """Relative standard deviation of a measured ratio, from its 95 % interval."""
    assert row.ratio is not None and row.low is not None and row.high is not None
    return (row.high - row.low) / (2 * 1.96 * row.ratio)


def architecture_of(row: Row) -> Architecture:
    """The architecture of a network's row."""
    return Space.parse(row.document, shared_rules(), f"the network {row.spec[:12]} of the table").only()
