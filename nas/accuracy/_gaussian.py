"""Gaussian regression over the features of networks, with spreads that the observations make most likely.

The value of a network is a constant, plus an effect of every column that is linear, plus a smooth function of size and
kind, plus what all networks of one group share (a paper's recipe), plus noise. Each of these is Gaussian; their spreads
are fitted by maximum a posteriori (marginal likelihood times a broad prior for each), so that few observations are
enough, what does not help is shrunk away, and a prediction far from what was observed says that it is unsure: an
operator that was never observed brings the whole spread of operators' effects.

Observations may come from several sources (another task): the first is the one that is predicted, the others see the
same function times a factor, with a constant and a noise of their own, all three fitted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LINEAR = ("size", "kind", "operators", "given")
CENTRES = {  # of the priors of the spreads, in units of the values' own spread
    **{"size": 0.5, "kind": 0.15, "operators": 0.15, "given": 0.3},
    **{"smooth": 0.2, "length": 1.5, "group": 0.2, "noise": 0.1},
}
SPREADS = tuple(CENTRES)
BROAD = 1.0  # deviation of the logarithm of a spread about its centre
WIDEST = 4.0  # it is not looked for further away
CONSTANT = 3.0  # spread of a source's constant, in units of the values' own spread
OTHER_NOISE = 0.5  # centre of the noise of the further sources
FLOOR = 0.05  # least width of a column: one that does not vary says little, until a network differs in it
TINY = 1e-8
CHUNK = 2000  # networks predicted at once: bounds memory


class Inputs(NamedTuple):
    """Networks for the regression: features, further columns, a group and a source for each."""

    rows: np.ndarray  # (n, columns of Features)
    given: np.ndarray  # (n, g) further columns, of which zero means "as usual"
    groups: Sequence[object]  # equal groups share an effect; None shares with nobody
    sources: np.ndarray  # (n,) int, 0 is what is predicted

    def some(self, chosen: np.ndarray) -> Inputs:
        """Those of a Boolean mask."""
        groups = [group for group, keep in zip(self.groups, chosen, strict=True) if keep]
        return Inputs(self.rows[chosen], self.given[chosen], groups, self.sources[chosen])


class Scaling(NamedTuple):
    """Middle and width of each column of features."""

    middle: np.ndarray
    width: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, groups: tuple[slice, ...]) -> Scaling:
        """From the networks themselves; shares of operators stay as they are."""
        middle, width = rows.mean(axis=0), np.maximum(rows.std(axis=0), FLOOR)
        middle[groups[2]], width[groups[2]] = 0.0, 1.0
        return cls(middle, width)


class Regression:
    """Fitted to values (n,), whose own deviations (n,) are added to the noise.

    groups are the columns of size, kind and operators; units the spread of each source's values, where it is known
    beforehand; spreads are found where they are not given.
    """

    def __init__(
        self,
        inputs: Inputs,
        values: np.ndarray,
        deviations: np.ndarray,
        groups: tuple[slice, ...],
        scaling: Scaling | None = None,
        units: Sequence[float] | None = None,
        spreads: np.ndarray | None = None,
    ):
        self._groups, self._of = groups, inputs.sources
        self._sources = int(inputs.sources.max()) + 1
        each = [values[inputs.sources == source] for source in range(self._sources)]
        self._centre = np.array([float(of.mean()) for of in each])
        self._unit = np.array(units if units is not None else [max(TINY, float(of.std())) for of in each])
        self.scaling = scaling or Scaling.of(inputs.rows[inputs.sources == 0], groups)
        self._parts = self._prepared(inputs)
        self._values = (values - self._centre[self._of]) / self._unit[self._of]
        self._own = (deviations / self._unit[self._of]) ** 2
        self._same = _same(inputs.groups)
        self._grams = [part @ part.T for part in self._parts]
        self._distances = _distances(_smooth(self._parts), _smooth(self._parts))
        self.spreads = self._most_likely() if spreads is None else spreads
        _, self._factor, self._weights = self._solve(self._covariance(self.spreads)[0])

    def predict(self, rows: np.ndarray, given: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of what source 0 would show of networks of groups not seen, noise included."""
        means, deviations = np.zeros(len(rows)), np.zeros(len(rows))
        for begin in range(0, len(rows), CHUNK):
            part = slice(begin, begin + CHUNK)
            means[part], deviations[part] = self._predict(rows[part], None if given is None else given[part])
        return means, deviations

    def _predict(self, rows: np.ndarray, given: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        from scipy.linalg import solve_triangular

        s, count = self._named(self.spreads), len(rows)
        columns = np.zeros((count, self._parts[3].shape[1])) if given is None else given
        new = self._prepared(Inputs(rows, columns, [None] * count, np.zeros(count, dtype=int)))
        near = np.exp(-0.5 * _distances(_smooth(new), _smooth(self._parts)) / s["length"] ** 2)
        cross = s["smooth"] ** 2 * near
        prior = np.full(count, s["smooth"] ** 2 + s["group"] ** 2 + s["noise"] ** 2 + CONSTANT**2)
        for name, one, seen in zip(LINEAR, new, self._parts, strict=True):
            cross += s[name] ** 2 * (one @ seen.T)
            prior += s[name] ** 2 * (one * one).sum(axis=1)
        cross = cross * self._factors(self.spreads)[self._of] + CONSTANT**2 * (self._of == 0)
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        variance = np.maximum(prior - (half * half).sum(axis=0), s["noise"] ** 2)
        return self._centre[0] + self._unit[0] * (cross @ self._weights), self._unit[0] * np.sqrt(variance)

    def _prepared(self, inputs: Inputs) -> list[np.ndarray]:
        """Scaled columns by group; the squares of size and of kind add up to about one."""
        rows = (inputs.rows - self.scaling.middle) / self.scaling.width
        size, kind, operators = (rows[:, columns] for columns in self._groups)
        return [size / math.sqrt(size.shape[1]), kind / math.sqrt(kind.shape[1]), operators, inputs.given]

    def _named(self, spreads: np.ndarray) -> dict[str, float]:
        return dict(zip(SPREADS, np.exp(spreads[: len(SPREADS)]).tolist(), strict=True))

    def _factors(self, spreads: np.ndarray) -> np.ndarray:
        """Of each source; 1 for the first."""
        return np.concatenate([[1.0], np.exp(spreads[len(SPREADS) : len(SPREADS) + self._sources - 1])])

    def _noises(self, spreads: np.ndarray) -> np.ndarray:
        last = len(SPREADS) - 1
        return np.exp(np.concatenate([spreads[last : last + 1], spreads[last + self._sources :]]))

    def _covariance(self, spreads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the values; the part of it that sources share; the smooth part of that, without factors."""
        s = self._named(spreads)
        smooth = s["smooth"] ** 2 * np.exp(-0.5 * self._distances / s["length"] ** 2)
        shared = smooth.copy()
        for name, gram in zip(LINEAR, self._grams, strict=True):
            shared += s[name] ** 2 * gram
        factors = self._factors(spreads)[self._of]
        shared *= np.outer(factors, factors)
        whole = shared + CONSTANT**2 * np.equal.outer(self._of, self._of) + s["group"] ** 2 * self._same
        whole[np.diag_indices_from(whole)] += self._noises(spreads)[self._of] ** 2 + self._own
        return whole, shared, smooth

    def _solve(self, whole: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Minus the log likelihood, the lower factor of the covariance, and the weights of the values."""
        from scipy.linalg import cho_solve, cholesky

        factor = cholesky(whole, lower=True, check_finite=False)
        weights = cho_solve((factor, True), self._values, check_finite=False)
        return float(0.5 * self._values @ weights + np.log(np.diag(factor)).sum()), factor, weights

    def _most_likely(self) -> np.ndarray:
        from scipy.optimize import minimize

        more = self._sources - 1
        start = np.log([*CENTRES.values(), *[1.0] * more, *[OTHER_NOISE] * more])

        def loss(spreads: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = self._slope(spreads)
            away = (spreads - start) / BROAD
            return value + 0.5 * float(away @ away), slope + away / BROAD

        bounds = [(at - WIDEST, at + WIDEST) for at in start]
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
        return np.asarray(found.x)

    def _slope(self, spreads: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the log likelihood and its gradient by the logarithms of the spreads."""
        from scipy.linalg import cho_solve

        s = self._named(spreads)
        whole, shared, smooth = self._covariance(spreads)
        value, factor, weights = self._solve(whole)
        inverse = cho_solve((factor, True), np.eye(len(whole)), check_finite=False)
        pull = 0.5 * (inverse - np.outer(weights, weights))
        factors = self._factors(spreads)[self._of]
        scaled = pull * np.outer(factors, factors)
        near, diagonal = scaled * smooth, np.diag(pull)
        slopes = [2 * s[name] ** 2 * np.vdot(scaled, gram) for name, gram in zip(LINEAR, self._grams, strict=True)]
        slopes += [2 * near.sum(), np.vdot(near, self._distances) / s["length"] ** 2]
        slopes += [2 * s["group"] ** 2 * np.vdot(pull, self._same)]
        noises = [2 * noise**2 * diagonal[self._of == n].sum() for n, noise in enumerate(self._noises(spreads))]
        by_row = 2 * (pull * shared).sum(axis=1)
        by_factor = [by_row[self._of == source].sum() for source in range(1, self._sources)]
        return value, np.array([*slopes, noises[0], *by_factor, *noises[1:]], dtype=float)


def _smooth(parts: list[np.ndarray]) -> np.ndarray:
    """The columns that the smooth function sees: size and kind."""
    return np.concatenate(parts[:2], axis=1)


def _same(groups: Sequence[object]) -> np.ndarray:
    numbers: dict[object, int] = {}
    of = [-1 - n if group is None else numbers.setdefault(group, len(numbers)) for n, group in enumerate(groups)]
    return np.equal.outer(np.array(of), np.array(of)).astype(float)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of all pairs of rows."""
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2.0 * (a @ b.T)
    return np.maximum(squares, 0.0)
