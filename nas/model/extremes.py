"""Extremes: the smallest and the largest network of a space, by cost or by any figure of an architecture.

Costs add up over the parts of a network, each by its place alone, so a walk through the automaton's decisions needs to
keep, of all beginnings that leave the same legality form and the same site, only the cheapest (or dearest): dynamic
programming, exact. Where a space has too many such states (`mixed`: token counts times widths times forms), the walk
keeps the best few at every decision, and the answer says that it is not proven. A figure that is not a cost is tried on
every network of a small space; in a larger one it is climbed from the extremes by cost and from random networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from nas.core.architecture import Architecture
from nas.core.automaton import Automaton, Node
from nas.core.cost import Cost
from nas.core.decisions import Decision
from nas.core.errors import InputError, nearest
from nas.core.path import assemble, grouped
from nas.core.space import Space
from nas.model.costs import Costs
from nas.model.meter import Meter, Walk
from nas.ops.catalogue import Catalogue, catalogue

STEPS = 1_000_000  # of an exact walk before it is narrowed: about a second
EACH = 10  # steps that it takes to compute a move
WIDTH = 48  # states kept at a decision of a narrowed walk
SMALL = 4_000  # networks of a space of which each is looked at
SAMPLES = 64  # random networks that a climb starts among
TRIES = 400  # changes that a climb tries

Measure = Callable[[Architecture], float]


class Extremes(NamedTuple):
    """The networks found; exact: proven to be the smallest and the largest."""

    smallest: Architecture
    largest: Architecture
    exact: bool


def extremes(space: Space, measure: str | Measure = "macs", operators: Catalogue | None = None) -> Extremes:
    """The smallest and the largest network by a field of `Cost` (macs, params, ...) or by a function.

    Deterministic; by a cost it is found once a space.
    """
    if not isinstance(measure, str):
        # The networks of a large space take seconds to count.
        small = space.ways <= 1000 * SMALL and space.size <= SMALL
        return _tried(space, measure) if small else _climbed(space, measure, operators)
    if measure not in Cost._fields:
        raise InputError("no such cost", value=measure, nearest=nearest(measure, Cost._fields))
    known, key = _FOUND.setdefault(space, {}), (measure, operators)
    if key not in known:
        known[key] = _walked(space, measure, operators or catalogue())
    return known[key]


_FOUND: WeakKeyDictionary[Space, dict[Any, Extremes]] = WeakKeyDictionary()


def _walked(space: Space, measure: str, operators: Catalogue) -> Extremes:
    """By dynamic programming; with few states at a decision where there would be too many."""
    automaton, meter = space.automaton, Meter(space, measure, operators)
    nodes, costs = list(_in_order(automaton.root())), Costs(operators)
    found, exact = [], True
    for sign in (1, -1):
        moves = Moves(automaton, meter, sign)
        best = _best(automaton, moves, nodes, width=0) if exact else None
        if best is None:
            exact, best = False, _best(automaton, moves, nodes, width=WIDTH)
        assert best is not None
        found.append(assemble(grouped(best[1]), space.template))
        exact = exact and best[0] == getattr(costs.cost(found[-1]), measure)
    return Extremes(found[0], found[1], exact)


class Moves:
    """What the options of a decision lead to from a state, and what they add, each computed once.

    A state is the number of a legality form with a walk. Of options that lead to the same state, only the best stays.
    """

    def __init__(self, automaton: Automaton, meter: Meter, sign: int):
        self.automaton, self.meter, self.sign = automaton, meter, sign
        self.states: list[tuple[Any, Walk]] = [(automaton.start(), meter.start)]
        self.computed = 0
        self._numbers = {self.states[0]: 0}
        self._options: dict[tuple[Any, ...], int] = {}
        self._moves: dict[tuple[Any, ...], list[tuple[int, int, Any]]] = {}

    def of(self, node: Node, state: int) -> list[tuple[int, int, Any]]:
        """(state after, what is added, option)."""
        options = self._options.setdefault(node.options, len(self._options))
        key = (state, node.kind, options)
        moves = self._moves.get(key)
        if moves is None:
            moves = self._moves[key] = list(self._compute(node, *self.states[state]))
        return moves

    def _compute(self, node: Node, form: Any, walk: Walk) -> Iterable[tuple[int, int, Any]]:
        best: dict[Any, tuple[int, int, Any]] = {}
        kind, offered = node.kind, self.automaton.offered(node, form)
        self.computed += len(offered)
        for option in offered:
            after = self.automaton.advance(form, kind, option)
            if after is None:
                continue
            added, then = self.meter.step(walk, kind, option)
            state = self._numbers.setdefault((after, then), len(self.states))
            if state == len(self.states):
                self.states.append((after, then))
            key = (state, option) if node.branches else state
            if key not in best or self.sign * added < self.sign * best[key][1]:
                best[key] = (state, added, option)
        return best.values()


def _best(automaton: Automaton, moves: Moves, nodes: list[Node], width: int) -> tuple[int, list[Decision]] | None:
    """The cost and the decisions of the best network, keeping `width` states at each decision.

    Width 0 keeps them all and is exact; None where that takes more than `STEPS`.
    """
    layers: dict[Any, dict[int, tuple[int, Any]]] = {nodes[0].key: {0: (0, None)}}
    sign, join, known, tried = moves.sign, moves.meter.join, moves.states, 0
    for node in nodes:
        layer = layers.pop(node.key, {})
        states = [item for item in layer.items() if automaton.count(node, known[item[0]][0])]
        if width and len(states) > width:
            states = sorted(states, key=lambda item: sign * item[1][0])[:width]
        for state, (cost, path) in states:
            for after, added, option in moves.of(node, state):
                tried += 1
                follow = node.follow(option)
                into = layers.setdefault(follow.key if follow else (), {})
                total = join(cost, added)
                held = into.get(after)
                if held is None or sign * total < sign * held[0]:
                    into[after] = (total, (path, node.kind, option))
            if not width and tried + EACH * moves.computed > STEPS:
                return None
    total, last = min(layers[()].values(), key=lambda item: sign * item[0])
    decisions = []
    while last is not None:
        last, kind, option = last
        decisions.append(Decision("", kind, option))
    return total, decisions[::-1]


def _in_order(root: Node) -> Iterator[Node]:
    """Every decision before those that may follow it."""
    left: list[Node] = []
    seen = {root.key}

    def descend(node: Node) -> None:
        for option in node.options if node.branches else node.options[:1]:
            follow = node.follow(option)
            if follow is not None and follow.key not in seen:
                seen.add(follow.key)
                descend(follow)
        left.append(node)

    descend(root)
    return reversed(left)


def _tried(space: Space, measure: Measure) -> Extremes:
    """By looking at every network."""
    found = [(measure(architecture), architecture) for architecture in space.every()]
    smallest, largest = (end(found, key=lambda pair: pair[0])[1] for end in (min, max))
    return Extremes(smallest, largest, True)


def _climbed(space: Space, measure: Measure, operators: Catalogue | None) -> Extremes:
    """By changes of one decision and more, from the best of the extremes by cost and of random networks."""
    chance = Random(0)
    starts = [found for cost in ("macs", "params") for found in extremes(space, cost, operators)[:2]]
    starts += [space.sample(chance) for _ in range(SAMPLES)]
    valued, ends = [(measure(architecture), architecture) for architecture in starts], []
    for sign in (1, -1):
        value, held = min(valued, key=lambda pair: sign * pair[0])
        for number in range(TRIES):
            changed = space.mutate(held, chance, rate=0.1 if number % 2 else 0.0)
            other = measure(changed)
            if sign * other < sign * value:
                value, held = other, changed
        ends.append(held)
    return Extremes(ends[0], ends[1], False)
