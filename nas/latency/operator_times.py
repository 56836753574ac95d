"""Times of operators: read from a table where it has the row, else inferred from rows of the same operator.

An operator's rows are fitted by a sum of physical terms (a constant, multiply-accumulates, bytes moved, none of them
negative); what is left, in logarithms, is a Gaussian process over its shapes and knobs. So a time at a site that was
never measured comes with its uncertainty, and an operator that was never measured has no time at all.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.optimize import nnls

from nas.core.cost import Cost
from nas.core.errors import InputError
from nas.core.spec import Spec
from nas.model.plan import Place
from nas.ops.site import Site

# Of the residual's logarithm: its spread over shapes and knobs, what a place has for itself, and the distances over
# which it is alike (a factor in a shape, a step of a knob).
SPREADS = (0.05, 0.1, 0.2, 0.4)
OWN = (0.01, 0.02, 0.04, 0.08)
SHAPE_LENGTH, KNOB_LENGTH = 1.5, 1.5

Context: TypeAlias = tuple[tuple[str, int], ...]


class Sample(NamedTuple):
    """An operator where it stands, with its measured time over the reference's, and how far that may be off."""

    kind: str
    spec: Spec
    site: Site
    context: Context
    cost: Cost
    ratio: float
    deviation: float  # relative, of the measurement


class Time(NamedTuple):
    """The time of an operator over the reference's, its relative standard deviation, and where it was looked up."""

    ratio: float
    deviation: float
    operator: tuple[str, str]
    number: int  # of the place within its operator: equal places have equal times
    point: np.ndarray


class OperatorTimes:
    """Times of the operators of these rows, at any site."""

    def __init__(self, samples: Iterable[Sample]):
        grouped: dict[tuple[str, str], list[Sample]] = defaultdict(list)
        for sample in samples:
            grouped[sample.kind, sample.spec.name].append(sample)
        self._models = {name: _Model(name, rows) for name, rows in grouped.items()}
        self._known: dict[tuple[str, Spec, Site, Context], Time] = {}

    def __contains__(self, operator: tuple[str, str]) -> bool:
        return operator in self._models

    @property
    def operators(self) -> list[tuple[str, str]]:
        """(kind, name) of those that have rows."""
        return sorted(self._models)

    def at(self, place: Place, cost: Cost) -> Time:
        """The time of an operator; InputError if none of its rows were measured."""
        key = (place.kind, place.spec, place.site, context_of(place))
        known = self._known.get(key)
        if known is None:
            model = self._models.get((place.kind, place.spec.name))
            if model is None:
                raise InputError("the table has no row of this operator", value=place.spec.name, place=place.path)
            known = self._known[key] = model.time(place.spec, place.site, key[3], cost)
        return known

    def covariance(self, ones: Sequence[Time], others: Sequence[Time]) -> np.ndarray:
        """Of the relative errors of times of one operator: places that are alike err alike."""
        return self._models[ones[0].operator].toward(ones)(others)

    def toward(self, ones: Sequence[Time]) -> Callable[[Sequence[Time]], np.ndarray]:
        """The covariance of these times with others of their operator; what hangs on these alone is computed once."""
        return self._models[ones[0].operator].toward(ones)

    def left_out_errors(self) -> dict[tuple[str, str], list[float]]:
        """Relative error of each row when it is left out, by operator: how well rows that are missing are inferred."""
        return {name: model.left_out for name, model in self._models.items()}


class _Model:
    """One operator."""

    def __init__(self, name: tuple[str, str], rows: list[Sample]):
        self._name = name
        self._frame = Frame([row.spec for row in rows])
        self._numbers: dict[tuple[Spec, Site, Context], int] = {}
        ratios = np.array([row.ratio for row in rows])
        trust = 1 / (ratios * np.array([math.hypot(0.02, row.deviation) for row in rows]) / 0.02)
        terms = np.stack([_terms(row.site, row.cost) for row in rows])
        scale = terms.max(axis=0) + 1e-30  # a little weight on every coefficient, so that few rows do not decide alone
        pull = 1e-3 * np.eye(terms.shape[1])
        left = np.vstack([terms / scale * trust[:, None], pull])
        found, _ = nnls(left, np.concatenate([ratios * trust, np.zeros(len(pull))]))
        self._coefficients = found / scale
        self._floor = 0.1 * float(ratios.min())
        residual = np.log(ratios / self._physical(terms))
        self._points = np.stack([self._frame.point(row.spec, row.site, row.cost) for row in rows])
        self._places = np.array([self._number(row.spec, row.site, row.context) for row in rows])
        measured = np.diag([row.deviation**2 for row in rows])
        best = -math.inf
        for self._spread, self._own in itertools.product(SPREADS, OWN):
            covariance = self._likeness(self._points, self._places, self._points, self._places) + measured
            evidence, inverse, weights = likelihood(covariance, residual)
            if evidence > best:
                best, chosen = evidence, (self._spread, self._own)
                self._inverse, self._weights = inverse, weights
        self._spread, self._own = chosen
        self.left_out = [math.expm1(-e) for e in self._weights / np.diag(self._inverse)]

    def time(self, spec: Spec, site: Site, context: Context, cost: Cost) -> Time:
        physical = float(self._physical(_terms(site, cost)[None])[0])
        point, number = self._frame.point(spec, site, cost), self._number(spec, site, context)
        like = self._likeness(point[None], np.array([number]), self._points, self._places)[0]
        variance = self._spread**2 + self._own**2 - like @ self._inverse @ like
        deviation = math.sqrt(max(variance, 0.0))
        return Time(physical * math.exp(like @ self._weights), deviation, self._name, number, point)

    def toward(self, ones: Sequence[Time]) -> Callable[[Sequence[Time]], np.ndarray]:
        one, first = _stacked(ones)
        left = self._likeness(one, first, self._points, self._places) @ self._inverse

        def covariance(others: Sequence[Time]) -> np.ndarray:
            two, second = _stacked(others)
            right = self._likeness(two, second, self._points, self._places)
            found: np.ndarray = self._likeness(one, first, two, second) - left @ right.T
            return found

        return covariance

    def _likeness(self, ones: np.ndarray, first: np.ndarray, others: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Before any measurement: near points are alike, and equal places are equal."""
        distance = ((ones[:, None, :] - others[None, :, :]) ** 2).sum(axis=-1)
        return self._spread**2 * np.exp(-0.5 * distance) + self._own**2 * (first[:, None] == second[None, :])

    def _number(self, spec: Spec, site: Site, context: Context) -> int:
        return self._numbers.setdefault((spec, site, context), len(self._numbers))

    def _physical(self, terms: np.ndarray) -> np.ndarray:
        return np.maximum(terms @ self._coefficients, self._floor)


class Frame:
    """Where operators of one name lie beside each other: logarithms of shapes, numeric knobs, and other knobs."""

    def __init__(self, specs: Sequence[Spec]):
        knobs = {(name, value) for spec in specs for name, value in spec.knobs}
        self._numbers = sorted({name for name, value in knobs if _numeric(value)})
        self._words = sorted({(name, str(value)) for name, value in knobs if not _numeric(value)})

    def point(self, spec: Spec, site: Site, cost: Cost) -> np.ndarray:
        """One operator; distance 1 is that over which times are alike."""
        shapes = (
            cost.macs + cost.transform + 1e4,
            cost.attention + 1e4,
            cost.activation + 1,
            cost.params + 100,
            site.rows * site.dim,
        )
        knobs = dict(spec.knobs)
        numbers = [math.log1p(abs(float(knobs.get(name) or 0))) for name in self._numbers]
        words = [float(str(knobs.get(name)) == value) for name, value in self._words]
        told = np.array([*numbers, *words], dtype=float) / KNOB_LENGTH
        return np.concatenate([np.log(np.array(shapes, dtype=float)) / SHAPE_LENGTH, told])


def _stacked(times: Sequence[Time]) -> tuple[np.ndarray, np.ndarray]:
    """Points and numbers."""
    return np.stack([time.point for time in times]), np.array([time.number for time in times])


def _terms(site: Site, cost: Cost) -> np.ndarray:
    """What time is made of: calls, products, products of activations, transforms, and elements moved."""
    moved = (cost.activation, site.rows * site.dim, cost.params)
    return np.array([1.0, cost.macs, cost.attention, cost.transform, *moved], dtype=float)


def likelihood(covariance: np.ndarray, residual: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Logarithm of a Gaussian's density at the residual but for a constant, the inverse, and its product with it."""
    inverse = np.linalg.inv(covariance)
    weights = inverse @ residual
    return -0.5 * float(residual @ weights + np.linalg.slogdet(covariance)[1]), inverse, weights


def context_of(place: Place) -> Context:
    """The context of a place as a value."""
    return tuple(sorted(place.context.items()))


def _numeric(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
