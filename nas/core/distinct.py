"""Distinct networks: each counted once, and drawn with equal chance, however many paths make it.

Repeats and layouts leave no mark in a network, so several paths of the automaton may make the same one. Networks are
counted, and drawn, over sets of nodes instead: the automaton made deterministic as it is walked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from nas.core.automaton import Automaton, Node, keep
from nas.core.decisions import Decision


class Distinct:
    """The different networks of an automaton."""

    def __init__(self, automaton: Automaton):
        self.automaton = automaton
        self._counts: dict[tuple[Any, Any], int] = {}

    def count(self) -> int:
        """Their exact number."""
        return self._count(self._visible([self.automaton.root()]), self.automaton.start())

    def draw(self, random: Random) -> list[Decision]:
        """The visible decisions, without places, of one network; all networks are equally likely."""
        nodes, form = self._visible([self.automaton.root()]), self.automaton.start()
        path: list[Decision] = []
        while None not in nodes:
            moves = self._moves(nodes, form)
            weights = [len(values) * self._count(follow, after) for _, values, follow, after in moves]
            kind, values, nodes, form = _weighted(random, moves, weights)
            path.append(Decision("", kind, random.choice(values)))
        return path

    def _count(self, nodes: tuple[Node | None, ...], form: Any) -> int:
        key = (tuple(node.key if node else () for node in nodes), form)
        count = self._counts.get(key)
        if count is None:
            count = int(None in nodes)
            for _, values, follow, after in self._moves(nodes, form):
                count += len(values) * self._count(follow, after)
            keep(self._counts, key, count, place=self.automaton.template.name)
        return count

    def _visible(self, nodes: Iterable[Node | None]) -> tuple[Node | None, ...]:
        """The nodes of visible decisions that these lead to through repeats and layouts; None: the end."""
        found: dict[Any, Node | None] = {}
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node is not None and node.kind in ("layout", "repeat"):
                waiting += [node.follow(option) for option in node.options]
            else:
                found[node.key if node else ()] = node
        return tuple(found[key] for key in sorted(found, key=repr))

    def _moves(self, nodes: tuple[Node | None, ...], form: Any) -> list[tuple[str, tuple[Any, ...], Any, Any]]:
        """(kind, values, nodes after, form after): values that lead to the same place stand together."""
        automaton = self.automaton
        moves: dict[Any, tuple[str, list[Any], Any, Any]] = {}
        kinds = {node.kind for node in nodes if node is not None}
        for kind in sorted(kinds):
            here = [node for node in nodes if node is not None and node.kind == kind]
            offered = {node.key: automaton.offered(node, form) for node in here}
            for value in dict.fromkeys(option for options in offered.values() for option in options):
                after = automaton.advance(form, kind, value)
                if after is None:
                    continue
                takers = tuple(node.key for node in here if value in offered[node.key])
                move = moves.get((kind, takers, after))
                if move is None:
                    follow = self._visible(node.follow(value) for node in here if value in offered[node.key])
                    move = moves[kind, takers, after] = (kind, [], follow, after)
                move[1].append(value)
        return [(kind, tuple(values), follow, after) for kind, values, follow, after in moves.values()]


def _weighted(random: Random, options: Sequence[Any], weights: Sequence[int]) -> Any:
    """A draw with exact whole-number weights (they exceed any float)."""
    ticket = random.randrange(sum(weights))
    for option, weight in zip(options, weights, strict=True):
        ticket -= weight
        if ticket < 0:
            return option
    raise AssertionError
