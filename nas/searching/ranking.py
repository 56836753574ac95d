"""Ranking: the figures of thousands of networks a second, without building any.

Costs and latencies are sums over what a network is made of where it stands. A segment is a stage's embedding, a block,
a closing norm, or the head, at its site; the figures of each are computed once, and a network is the sum of its
segments: a row of numbers to add up. Equal rows of segments are equal networks.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

import numpy as np

from nas.core.architecture import NONE, Architecture, Block, Stage
from nas.core.cost import Cost, total
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.core.spec import Spec
from nas.model.costs import Costs
from nas.model.plan import Place, block_places, block_plan, input_site
from nas.ops.parts.norms import norm_cost
from nas.ops.site import Site
from nas.searching.objective import memory_mb

CHEAP = ("macs", "params", "memory_mb", "latency_ms")  # figures that formulas and tables tell
COLUMNS = 4  # of a segment


class PlaceTimes(Protocol):
    """Latency as a sum: of a constant and of what each operator adds at its place, in milliseconds."""

    @property
    def constant_ms(self) -> float: ...

    def place_ms(self, place: Place) -> float:
        """InputError for an operator that it knows nothing of."""


class AccuracyModel(Protocol):
    """What estimates the accuracy of many networks at once, with standard deviations."""

    def estimate_many(self, architectures: Sequence[Architecture]) -> tuple[Any, Any]: ...


class Figures(NamedTuple):
    """One value a network. latency_ms is infinite where the table has never seen an operator of the network, and not
    a number without a latency; accuracy and sigma are not numbers without an accuracy model."""

    macs: np.ndarray
    params: np.ndarray
    memory_mb: np.ndarray
    latency_ms: np.ndarray
    accuracy: np.ndarray
    sigma: np.ndarray

    def of(self, names: Iterable[str]) -> np.ndarray:
        """A matrix of some of the cheap figures, one column a name."""
        columns = []
        for name in names:
            if name not in CHEAP:
                raise InputError(
                    "no figure that is known before a network is built", name, nearest=nearest(name, CHEAP)
                )
            columns.append(getattr(self, name))
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.macs), 0))

    def excess(self, limits: dict[str, float]) -> np.ndarray:
        """By how much each network exceeds its limits, relative to them, in sum; 0 where it keeps all."""
        over = np.zeros(len(self.macs))
        for name, limit in limits.items():
            over = over + np.maximum(0.0, self.of([name])[:, 0] / limit - 1.0)
        return over


class _At:
    """What may come next at one site: segments by what they are, with their number and the site after them."""

    __slots__ = ("next", "site")

    def __init__(self, site: Site):
        self.site = site
        self.next: dict[Any, tuple[int, _At]] = {}


class Ranker:
    """Figures of the networks of a space. Segments are kept from call to call."""

    def __init__(
        self,
        space: Space,
        costs: Costs | None = None,
        latency: PlaceTimes | None = None,
        accuracy_model: AccuracyModel | None = None,
    ):
        self.space = space
        self.costs = costs or Costs()
        self.latency = latency
        self.accuracy_model = accuracy_model
        self._sites: dict[Site, _At] = {}
        self._times: dict[tuple[Any, ...], float] = {}  # milliseconds of each operator where it stands
        self._numbers = array("d")  # macs, params, milliseconds, activation of each segment in turn

    def segments(self, architecture: Architecture) -> tuple[int, ...]:
        """The numbers of a network's segments: equal for equal networks and for no others of the space."""
        found: list[int] = []
        at, classes = self._at(input_site(architecture)), architecture.classes
        for stage in architecture.stages:
            number, at = at.next.get(_frame(stage)) or self._stage(at, stage)
            found.append(number)
            for block in stage.blocks:
                number, at = at.next.get(block) or self._block(at, block, classes)
                found.append(number)
            found.append((at.next.get(stage.end_norm) or self._end_norm(at, stage))[0])
        found.append((at.next.get((architecture.head, classes)) or self._head(at, architecture.head, classes))[0])
        return tuple(found)

    def figures(self, architectures: Sequence[Architecture]) -> Figures:
        """Figures of networks; the accuracy model's as well where there is one."""
        found = self.figures_of([self.segments(architecture) for architecture in architectures])
        return self.with_accuracy(found, architectures)

    def figures_of(self, rows: Sequence[tuple[int, ...]]) -> Figures:
        """Figures of networks by their segments, without accuracy."""
        nothing = np.full(len(rows), np.nan)
        if not rows:
            return Figures(*[nothing] * len(Figures._fields))
        lengths = np.array([len(row) for row in rows])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        table = np.frombuffer(self._numbers).reshape(-1, COLUMNS)
        found = table[np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))]
        sums = np.add.reduceat(found[:, :3], starts, axis=0)
        largest = np.maximum.reduceat(found[:, 3], starts)
        memory = memory_mb(Cost(params=sums[:, 1], activation=largest))  # type: ignore[arg-type]
        latency = nothing if self.latency is None else sums[:, 2] + self.latency.constant_ms
        return Figures(sums[:, 0], sums[:, 1], np.asarray(memory), latency, nothing, nothing)

    def with_accuracy(self, figures: Figures, architectures: Sequence[Architecture]) -> Figures:
        """The figures of these networks with what the accuracy model estimates, where there is one."""
        if self.accuracy_model is None or not architectures:
            return figures
        values, sigmas = self.accuracy_model.estimate_many(architectures)
        return figures._replace(accuracy=np.asarray(values, dtype=float), sigma=np.asarray(sigmas, dtype=float))

    def _stage(self, at: _At, stage: Stage) -> tuple[int, _At]:
        parts: list[Cost] = []
        after = self.costs.stage(stage, at.site, parts)
        embed = Place("", "embed", stage.embed, at.site, {"dim": stage.dim})
        return self._add(at, _frame(stage), parts, [embed, Place("", "position", stage.position, after, {})], after)

    def _block(self, at: _At, block: Block, classes: int) -> tuple[int, _At]:
        parts: list[Cost] = []
        after = self.costs.block(block, at.site, classes, parts)
        plan = block_plan(self.costs.operators, block, at.site)
        return self._add(at, block, parts, block_places(block, plan, classes), after)

    def _end_norm(self, at: _At, stage: Stage) -> tuple[int, _At]:
        return self._add(at, stage.end_norm, [norm_cost(stage.end_norm, stage.dim)], [], at.site)

    def _head(self, at: _At, head: Spec, classes: int) -> tuple[int, _At]:
        place = Place("", "head", head, at.site, {"classes": classes})
        return self._add(at, (head, classes), [place.cost(self.costs.operators)], [place], at.site)

    def _add(self, at: _At, key: Any, parts: list[Cost], places: Iterable[Place], after: Site) -> tuple[int, _At]:
        cost = total(*parts)
        found = at.next[key] = (len(self._numbers) // COLUMNS, self._at(after))
        self._numbers.extend((cost.macs, cost.params, self._milliseconds(places), cost.activation))
        return found

    def _at(self, site: Site) -> _At:
        at = self._sites.get(site)
        if at is None:
            at = self._sites[site] = _At(site)
        return at

    def _milliseconds(self, places: Iterable[Place]) -> float:
        if self.latency is None:
            return 0.0
        found = 0.0
        for place in places:
            if place.spec is not NONE:
                key = (place.kind, place.spec, place.site, *place.context.values())
                if key not in self._times:
                    self._times[key] = _place_ms(self.latency, place)
                found += self._times[key]
        return found


def _place_ms(latency: PlaceTimes, place: Place) -> float:
    """Infinite for an operator that the table has never seen."""
    try:
        return latency.place_ms(place)
    except InputError:
        return float("inf")


def _frame(stage: Stage) -> tuple[Any, ...]:
    """What a stage has before its blocks."""
    return (stage.embed, stage.dim, stage.class_token, stage.distill_token, stage.registers, stage.position)
