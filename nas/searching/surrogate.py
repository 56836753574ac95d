"""Surrogate: a Gaussian process over the networks that a search has evaluated, for the accuracy of those it has not.

A network is described by numbers (logarithms of its costs, depth and width, and what an accuracy model says, if any),
by how often it has each operator, and by the places at which it has them. Effects of each are linear, and of all
together local: networks that differ in few places are alike. How strong each effect is, the evaluated networks decide
(marginal likelihood, on a fixed part of them, so that it changes seldom). Everything depends on the evaluated networks
and their order alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from nas.core.architecture import NONE, Architecture, Block
from nas.core.spec import Spec
from nas.searching.ranking import Figures

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

    def first(self, some: int) -> _Described:
        """The first networks alone."""
        return _Described(self.numbers[:some], self.operators[:some], self.inside[:some], self.words, self.size[:some])


class Vocabulary:
    """What networks are made of, as words that stay the same for one process.

    A unit is a stage's frame, a block, or the head, at its place; its words tell what it has there, and its operators.
    """

    def __init__(self) -> None:
        self.places: list[list[int]] = []  # of each unit
        self.operators: list[list[int]] = []
        self._units: dict[Any, int] = {}
        self._words: dict[Any, int] = {}

    def read(self, architecture: Architecture) -> list[int]:
        """The units of a network."""
        get, found = self._units.get, []
        for number, stage in enumerate(architecture.stages):
            frame = (stage.dim, stage.class_token, stage.distill_token, stage.registers, len(stage.blocks))
            key: tuple[Any, ...] = (number, *frame, stage.embed, stage.position, stage.end_norm)
            unit = get(key)
            if unit is None:
                specs = {"embed": stage.embed, "stage position": stage.position, "end_norm": stage.end_norm}
                unit = self._add(key, number, -1, specs, frame)
            found.append(unit)
            for depth, block in enumerate(stage.blocks):
                key = (number, depth, block)
                unit = get(key)
                found.append(self._add_block(key, number, depth, block) if unit is None else unit)
        key = ("head", architecture.head)
        unit = get(key)
        found.append(self._add(key, -1, -1, {"head": architecture.head}, ()) if unit is None else unit)
        return found

    def _add_block(self, key: tuple[Any, ...], stage: int, depth: int, block: Block) -> int:
        slots = ("position", "reduction", "mixer", "feedforward", "exit")
        rest = (block.norm, block.residual, block.layer_scale)
        return self._add(key, stage, depth, {slot: getattr(block, slot) for slot in slots}, rest)

    def _add(self, key: Any, stage: int, depth: int, specs: dict[str, Spec], rest: tuple[Any, ...]) -> int:
        places = [self._word(stage, depth, number, value) for number, value in enumerate(rest)]
        operators = []
        for slot, spec in specs.items():
            places += [self._word(stage, depth, slot, spec.name), self._word(stage, depth, slot, spec)]
            if spec is not NONE:
                operators += [self._word(slot, spec.name), self._word(slot, spec)]
        unit = self._units[key] = len(self._units)
        self.places.append(places)
        self.operators.append(operators)
        return unit

    def _word(self, *parts: Any) -> int:
        return self._words.setdefault(parts, len(self._words))


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
        self._known = self._describe(read, numbers)
        centred = np.asarray(values, dtype=float)
        centred = _pulled_in(centred) if pull else centred
        self._centre, self._scale = float(centred.mean()), float(max(centred.std(), 1e-9))
        self._values = (centred - self._centre) / self._scale
        self.spreads = spreads or self._chosen()
        whole = self._covariance(self._known, self._known, self.spreads)
        whole[np.diag_indices_from(whole)] += self.spreads["noise"] ** 2
        self._factor = cholesky(whole, lower=True, check_finite=False)
        self._weights = cho_solve((self._factor, True), self._values, check_finite=False)

    def predict(self, architectures: Sequence[Architecture], figures: Figures) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the values of networks, the noise of an evaluation left out."""
        from scipy.linalg import solve_triangular

        read = [self._vocabulary.read(architecture) for architecture in architectures]
        new = self._describe(read, _numbers(architectures, figures, self._told))
        cross = self._covariance(new, self._known, self.spreads)
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
            _counted([words[unit] for unit in units], columns)
            for words, columns in zip(own, self._columns, strict=True)
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

    def _covariance(self, a: _Described, b: _Described, spreads: dict[str, float]) -> np.ndarray:
        return _joined(self._parts(a, b), spreads)

    @staticmethod
    def _parts(a: _Described, b: _Described) -> tuple[np.ndarray, ...]:
        """Products of numbers, operators and places, and distances in numbers and in places."""
        numbers = a.numbers @ b.numbers.T
        squares = (a.numbers**2).sum(axis=1)[:, None] + (b.numbers**2).sum(axis=1)[None, :]
        same = a.inside @ (a.words @ (b.inside @ b.words).T).toarray()
        mean = 0.5 * (a.size[:, None] + b.size[None, :])
        apart = 1.0 - same / mean
        return numbers, a.operators @ b.operators.T, same / mean, np.maximum(squares - 2 * numbers, 0.0), apart

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
        first = self._known.first(count)
        parts, values = self._parts(first, first), self._values[:count]
        chosen = dict(START)
        best = _evidence(parts, values, chosen)
        for _ in range(SWEEPS):
            for name, tried in SPREADS.items():
                for value in tried:
                    found = _evidence(parts, values, {**chosen, name: value})
                    if found > best:
                        best, chosen = found, {**chosen, name: value}
        return chosen


def _joined(parts: tuple[np.ndarray, ...], spreads: dict[str, float]) -> np.ndarray:
    numbers, operators, places, far, apart = parts
    found: np.ndarray = (
        CONSTANT**2
        + spreads["numbers"] ** 2 * numbers
        + spreads["operators"] ** 2 * operators
        + spreads["places"] ** 2 * places
        + spreads["smooth"] ** 2 * np.exp(-0.5 * far / spreads["smooth_length"] ** 2)
        + spreads["local"] ** 2 * np.exp(-apart / spreads["local_length"])
    )
    return found


def _evidence(parts: tuple[np.ndarray, ...], values: np.ndarray, spreads: dict[str, float]) -> float:
    """Logarithm of the likelihood of the values, but for a constant."""
    from scipy.linalg import cholesky, solve_triangular

    whole = _joined(parts, spreads)
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


def _columns(read: list[list[int]], words: list[list[int]]) -> dict[int, int]:
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


def _counted(rows: list[list[int]], columns: dict[int, int]) -> Any:
    """How often each row has each of the columns' words: (rows, columns), sparse."""
    from scipy.sparse import csr_array

    kept = [[columns[word] for word in row if word in columns] for row in rows]
    ends = np.concatenate([[0], np.cumsum([len(row) for row in kept])])
    flat = np.fromiter(chain.from_iterable(kept), np.int64, int(ends[-1]))
    return csr_array((np.ones(len(flat)), flat, ends), shape=(len(rows), len(columns)))


def _pulled_in(values: np.ndarray) -> np.ndarray:
    """Values far below the others, of networks that did not learn, moved to where they no longer rule the fit."""
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return np.maximum(values, middle - OUTLYING * spread) if spread > 0 else values
