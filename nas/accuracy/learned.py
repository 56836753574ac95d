"""Learned: a predictor that starts as the prior and learns from the accuracies that a search pays for.

The prior's figure is the mean; what is observed minus it is regressed by `nas.accuracy._gaussian` on the same features
and on the prior's figure itself, so that another task's level and scale are learned from the first few observations and
the effects of operators from the following ones. Before the first observation it is the prior.
A fit depends on the sequence of observations alone, not on when estimates were asked for: spreads are those of the
first 8, 16, 32 ... observations, so that most new observations cost one decomposition.
Limits: beyond MOST observations only the best half and the newest of the others are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas.accuracy._gaussian import CENTRES, Inputs, Regression
from nas.accuracy.base import Estimate, Estimator, Setting
from nas.accuracy.prior import Fit, prior_fit
from nas.core.architecture import Architecture
from nas.core.errors import InputError

RUNGS = (8, 16, 32, 64, 128, 256)  # numbers of observations from which spreads are fitted
MOST = 2000
WEIGHT = 4.0  # observations that what is expected of the differences beforehand counts for in their unit:
LEAST = 3.0  # points, or the prior's sigma where that is larger


class Learned(Estimator):
    """Give it observations by `observe`; who keeps rows of features of many networks asks by `predict`."""

    about = "the prior, corrected by a Gaussian regression on what the search has paid for"
    kind = "learned"
    unit = "top-1 %"
    cost = "a formula"

    def __init__(self, setting: Setting, prior: Fit | None = None):
        super().__init__(setting)
        self._prior = prior or prior_fit()
        self._rows: list[np.ndarray] = []
        self._accuracies: list[float] = []
        self._sigmas: list[float] = []
        self._spreads: dict[int, np.ndarray] = {}
        self._fitted: tuple[int, Regression, float] | None = None

    def __len__(self) -> int:
        """The number of observations."""
        return len(self._rows)

    def observe(self, architecture: Architecture, accuracy: float, sigma: float | None = None) -> None:
        """An accuracy in percent, with its standard deviation where it is known."""
        if not (math.isfinite(accuracy) and 0.0 <= accuracy <= 100.0):
            raise InputError("an observed accuracy is a percentage", value=accuracy)
        if sigma is not None and not (math.isfinite(sigma) and sigma >= 0.0):
            raise InputError("the deviation of an observation is finite and not negative", value=sigma)
        self._rows.append(self._prior.features.of(architecture))
        self._accuracies.append(float(accuracy))
        self._sigmas.append(float(sigma or 0.0))

    def measure(self, architecture: Architecture) -> Estimate:
        values, sigmas = self.estimate_many([architecture])
        return Estimate(float(values[0]), float(sigmas[0]))

    def estimate_many(self, architectures: Sequence[Architecture]) -> tuple[np.ndarray, np.ndarray]:
        """Values and sigmas of many networks at once."""
        return self.predict(self._prior.features.describe(architectures).rows)

    def predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values and sigmas of networks by their rows of features."""
        values, sigmas = self._prior.predict(rows)
        if not self._rows:
            return values, sigmas
        regression, middle = self._fit()
        more, deviations = regression.predict(rows, self._given(values, middle))
        return np.clip(values + more, 0.0, 100.0), deviations

    def _fit(self) -> tuple[Regression, float]:
        """The regression on all observations, and the middle of the prior's figures of them."""
        if self._fitted is None or self._fitted[0] != len(self):
            rung = max((rung for rung in RUNGS if rung <= len(self)), default=0)
            if rung and rung not in self._spreads:
                self._spreads[rung] = self._regression(np.arange(rung), None)[0].spreads
            spreads = self._spreads.get(rung, np.log(list(CENTRES.values())))
            self._fitted = len(self), *self._regression(self._used(), spreads)
        return self._fitted[1], self._fitted[2]

    def _used(self) -> np.ndarray:
        """Which observations, by number, in order."""
        count = len(self)
        if count <= MOST:
            return np.arange(count)
        best = np.argsort(-np.array(self._accuracies), kind="stable")[: MOST // 2]
        others = np.setdiff1d(np.arange(count), best)
        return np.sort(np.concatenate([best, others[-(MOST - MOST // 2) :]]))

    def _regression(self, used: np.ndarray, spreads: np.ndarray | None) -> tuple[Regression, float]:
        rows = np.stack([self._rows[number] for number in used])
        values, sigmas = self._prior.predict(rows)
        more = np.array(self._accuracies)[used] - values
        middle, count = float(values.mean()), len(used)
        expected = max(LEAST**2, float((sigmas**2).mean()))
        unit = math.sqrt((count * float(more.var()) + WEIGHT * expected) / (count + WEIGHT))
        inputs = Inputs(rows, self._given(values, middle), [None] * count, np.zeros(count, dtype=int))
        own = np.array(self._sigmas)[used]
        made = Regression(inputs, more, own, self._prior.features.groups, self._prior.scaling, [unit], spreads)
        return made, middle

    @staticmethod
    def _given(values: np.ndarray, middle: float) -> np.ndarray:
        """The prior's figures as a column, in units of ten points."""
        return (values[:, None] - middle) / 10.0
