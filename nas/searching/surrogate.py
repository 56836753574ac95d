"""Surrogate: a Gaussian process over the networks that a search has evaluated, for the accuracy of those it has not.

A network is described by numbers (logarithms of its costs, depth and width, and what an accuracy model says, if any),
by how often it has each operator, and by the places at which it has them. Effects of each are linear, and of all
together local: networks that differ in few places are alike. How strong each effect is, the evaluated networks decide
(marginal likelihood, on a fixed part of them, so that it changes seldom). Everything depends on the evaluated networks
and their order alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from nas.core.architecture import Architecture
from nas.searching.ranking import Figures
from nas.searching.vocabulary import Vocabulary

# Each spread, in standard deviations of the values, with those that are tried; lengths are of numbers, and of the share
# of places in which two networks differ.
SPREADS: dict[str, tuple[float, ...]] = {
    "numbers": (0.3, 1.0, 3.0),
    "operators": (0.1, 0.3, 1.0),
    "places": (0.03, 0.1, 0.3, 1.0),
    "smooth": (0.1, 0.3, 1.0),
    "local": (0.1, 0.3, 1.0),
    "smooth_length": (1.0, 3.0),
    "local_length": (0.1, 0.3, 1.0),
    "noise": (0.02, 0.05, 0.1, 0.2, 0.4),
}
START = {name: tried[len(tried) // 2] for name, tried in SPREADS.items()}
SWEEPS = 2
CONSTANT = 1.0
LEAST, MOST = 16, 128  # networks by which the spreads are chosen: the first, a power of two of them
SHARE = 4.0  # what shares of operators are multiplied by, so that their products are about one
OUTLYING = 4.0  # values lower than so many deviations below the median are taken for that


class _Described(NamedTuple):
    """A row a network. inside tells which units it has, words what each of these is (sparse, the latter of columns)."""

    numbers: np.ndarray
    operators: np.ndarray
    inside: Any
    words: Any
    size: np.ndarray  # words of each network, those that no evaluated network has included

    def some(self, rows: slice) -> _Described:
        """Some of the networks alone."""
        return _Described(self.numbers[rows], self.operators[rows], self.inside[rows], self.words, self.size[rows])


class Surrogate:
    """A regression fitted to networks (at least two) with finite values, of which more is better.

    spreads  strengths of the effects, else chosen by the values; pull: values far below the others are raised
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        architectures: Sequence[Architecture],
        figures: Figures,
        values: np.ndarray | Sequence[float],
        spreads: dict[str, float] | None = None,
        pull: bool = True,
    ):
        from scipy.linalg import cho_solve, cholesky

        self._vocabulary = vocabulary
        read = [vocabulary.read(architecture) for architecture in architectures]
        words = (vocabulary.places, vocabulary.operators)
        self._columns = [_columns(read, own) for own in words]
        self._told = bool(np.isfinite(figures.accuracy).all())
        numbers = _numbers(architectures, figures, self._told)
        self._middle, self._width = numbers.mean(axis=0), np.maximum(numbers.std(axis=0), 1e-6)
        self._kept: list[dict[int, tuple[int, ...]]] = [{}, {}]  # columns of the words of each unit
        self._known = self._describe(read, numbers)
        self._held = (self._known.inside @ self._known.words).T.tocsr()  # how often each network has each word
        centred = np.asarray(values, dtype=float)
        centred = _pulled_in(centred) if pull else centred
        self._centre, self._scale = float(centred.mean()), float(max(centred.std(), 1e-9))
        self._values = (centred - self._centre) / self._scale
        self.spreads = spreads or self._chosen()
        whole = _joined(self._parts(self._known), self.spreads)
        whole[np.diag_indices_from(whole)] += self.spreads["noise"] ** 2
        self._factor = cholesky(whole, lower=True, check_finite=False)
        self._weights = cho_solve((self._factor, True), self._values, check_finite=False)

    def predict(self, architectures: Sequence[Architecture], figures: Figures) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the values of networks, the noise of an evaluation left out."""
        from scipy.linalg import solve_triangular

        read = [self._vocabulary.read(architecture) for architecture in architectures]
        new = self._describe(read, _numbers(architectures, figures, self._told))
        cross = _joined(self._parts(new), self.spreads)
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        variance = self._prior(new, self.spreads) - np.einsum("ij,ij->j", half, half)
        return (
            self._centre + self._scale * (cross @ self._weights),
            self._scale * np.sqrt(np.maximum(variance, 1e-9)),
        )

    def _describe(self, read: list[list[int]], numbers: np.ndarray) -> _Described:
        units, inside = _matrix(read)
        own = (self._vocabulary.places, self._vocabulary.operators)
        places, operators = (
            _counted(_rows(units, words, columns, kept), len(columns))
            for words, columns, kept in zip(own, self._columns, self._kept, strict=True)
        )
        sizes = [np.array([len(words[unit]) for unit in units], dtype=float) for words in own]
        scaled = (numbers - self._middle) / self._width
        has = np.maximum(inside @ sizes[1], 1.0)[:, None]
        return _Described(
            numbers=scaled / math.sqrt(scaled.shape[1]),
            operators=SHARE * (inside @ operators).toarray() / has,
            inside=inside,
            words=places,
            size=inside @ sizes[0],
        )

    def _parts(self, a: _Described, first: int | None = None) -> tuple[np.ndarray, ...]:
        """Of networks with the (first) evaluated ones: products of numbers, operators and places, and distances in
        numbers and in places."""
        b, held = self._known, self._held
        if first is not None:
            b, held = b.some(slice(first)), held[:, :first]
        numbers = a.numbers @ b.numbers.T
        squares = (a.numbers**2).sum(axis=1)[:, None] + (b.numbers**2).sum(axis=1)[None, :]
        same = a.inside @ (a.words @ held).toarray()
        same /= 0.5 * (a.size[:, None] + b.size[None, :])
        squares -= 2 * numbers
        return numbers, a.operators @ b.operators.T, same, np.maximum(squares, 0.0, out=squares), 1.0 - same

    @staticmethod
    def _prior(a: _Described, spreads: dict[str, float]) -> np.ndarray:
        """Variance of each network before anything is known; what it has that no evaluated network has is in it."""
        linear = spreads["numbers"] ** 2 * (a.numbers**2).sum(axis=1)
        linear = linear + spreads["operators"] ** 2 * (a.operators**2).sum(axis=1)
        found: np.ndarray = (
            linear + spreads["places"] ** 2 + CONSTANT**2 + spreads["smooth"] ** 2 + spreads["local"] ** 2
        )
        return found

    def _chosen(self) -> dict[str, float]:
        """The spreads that make the first networks' values most likely, one after the other in turn."""
        count = len(self._values)
        if count < LEAST:
            return START
        count = min(MOST, 2 ** int(math.log2(count)))
        parts, values = self._parts(self._known.some(slice(count)), count), self._values[:count]

        decayed = cache(partial(_decayed, parts))

        @cache
        def evidence(*own: float) -> float:
            spreads = dict(zip(SPREADS, own, strict=True))
            return _evidence(_joined(parts, spreads, decayed), values, spreads)

        chosen = dict(START)
        best = evidence(*chosen.values())
        for _ in range(SWEEPS):
            for name, tried in SPREADS.items():
                for value in tried:
                    found = evidence(*{**chosen, name: value}.values())
                    if found > best:
                        best, chosen = found, {**chosen, name: value}
        return chosen


def _joined(
    parts: tuple[np.ndarray, ...], spreads: dict[str, float], decayed: Callable[[str, float], np.ndarray] | None = None
) -> np.ndarray:
    """Covariances; decayed: what is left at each distance, where that is kept."""
    numbers, operators, places, *_ = parts
    decayed = decayed or partial(_decayed, parts)
    found: np.ndarray = CONSTANT**2 + spreads["numbers"] ** 2 * numbers
    found += spreads["operators"] ** 2 * operators
    found += spreads["places"] ** 2 * places
    found += spreads["smooth"] ** 2 * decayed("smooth", spreads["smooth_length"])
    found += spreads["local"] ** 2 * decayed("local", spreads["local_length"])
    return found


def _decayed(parts: tuple[np.ndarray, ...], effect: str, length: float) -> np.ndarray:
    """What is left of an effect at the distances, in numbers or in places, of networks."""
    *_, far, apart = parts
    found = 0.5 * far / -(length**2) if effect == "smooth" else apart / -length
    return np.exp(found, out=found)


def _evidence(whole: np.ndarray, values: np.ndarray, spreads: dict[str, float]) -> float:
    """Logarithm of the likelihood of the values by their covariance, but for a constant."""
    from scipy.linalg import cholesky, solve_triangular

    whole[np.diag_indices_from(whole)] += spreads["noise"] ** 2
    factor = cholesky(whole, lower=True, check_finite=False)
    half = solve_triangular(factor, values, lower=True, check_finite=False)
    return -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())


def _numbers(architectures: Sequence[Architecture], figures: Figures, told: bool) -> np.ndarray:
    """Logarithms of costs, depth and width, and the accuracy that a model expects, where it has `told` one."""
    depths = np.array([sum(len(stage.blocks) for stage in found.stages) for found in architectures], dtype=float)
    widths = [sum(math.log(stage.dim) for stage in found.stages) / len(found.stages) for found in architectures]
    columns = [np.log(figures.macs + 1), np.log(figures.params + 1), np.log(figures.memory_mb + 1e-6)]
    columns += [np.log1p(depths), np.array(widths)]
    if told:
        columns.append(figures.accuracy)
    return np.stack(columns, axis=1)


def _columns(read: list[list[int]], words: list[tuple[int, ...]]) -> dict[int, int]:
    """A column for each word, in the order in which they occur first."""
    columns: dict[int, int] = {}
    for unit in dict.fromkeys(unit for units in read for unit in units):
        for word in words[unit]:
            columns.setdefault(word, len(columns))
    return columns


def _matrix(read: list[list[int]]) -> tuple[np.ndarray, Any]:
    """The different units, and which network has them: (networks, units), sparse."""
    from scipy.sparse import csr_array

    lengths = [len(units) for units in read]
    units, found = np.unique(np.fromiter(chain.from_iterable(read), np.int64, sum(lengths)), return_inverse=True)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return units, csr_array((np.ones(len(found)), found, ends), shape=(len(read), len(units)))


def _rows(
    units: np.ndarray, words: list[tuple[int, ...]], columns: dict[int, int], kept: dict[int, tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """The columns of the words of each unit, kept for the next time."""
    found = []
    for unit in units.tolist():
        row = kept.get(unit)
        if row is None:
            row = kept[unit] = tuple([columns[word] for word in words[unit] if word in columns])
        found.append(row)
    return found


def _counted(kept: list[tuple[int, ...]], columns: int) -> Any:
    """How often each row has each of the columns: (rows, columns), sparse."""
    from scipy.sparse import csr_array

    ends = np.concatenate([[0], np.cumsum([len(row) for row in kept])])
    flat = np.fromiter(chain.from_iterable(kept), np.int64, int(ends[-1]))
    return csr_array((np.ones(len(flat)), flat, ends), shape=(len(kept), columns))


def _pulled_in(values: np.ndarray) -> np.ndarray:
    """Values far below the others, of networks that did not learn, moved to where they no longer rule the fit."""
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return np.maximum(values, middle - OUTLYING * spread) if spread > 0 else values
