"""Space: a set of architectures, written with the grammar of one architecture and lists where it may vary.

A space is a finite automaton (`nas.core.automaton`): its nodes are the decisions that a file leaves open, in order; its
state is the legality form of the operators (`Rules`). That gives, at once, the exact number of networks, the options
that still lead to a complete legal network, uniform samples, membership, and neighbours that are legal by construction
(`nas.core.variation`). Nothing is sampled and thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from nas.core.architecture import Architecture
from nas.core.automaton import Automaton, Illegal, Node, Rules
from nas.core.decisions import Cursor, Decision
from nas.core.distinct import Distinct
from nas.core.errors import InputError
from nas.core.path import State, assemble, grouped
from nas.core.template import BlockTemplate, StageTemplate, Template, parse_template
from nas.core.variation import Variation
from nas.core.yamlfile import dump_yaml, load_yaml


class Space:
    """The networks that a template and the operators' rules allow."""

    def __init__(self, template: Template, rules: Rules):
        self.template = template
        self.rules = rules
        self.name = template.name
        self.notes = template.notes
        self.automaton = Automaton(template, rules)
        self._distinct = Distinct(self.automaton)

    @classmethod
    def load(cls, path: str | Path, rules: Rules) -> Space:
        """The space of a file; refuses one that holds no legal network."""
        return cls.parse(load_yaml(path), rules, str(path))

    @classmethod
    def parse(cls, document: Any, rules: Rules, place: str = "space") -> Space:
        """The space of a parsed document."""
        space = cls(parse_template(document, rules, place), rules)
        try:
            ways = space.ways
        except InputError as error:
            raise error.with_place(place) from error.__cause__
        if not ways:
            raise space.automaton.refusal(place)
        return space

    @cached_property
    def size(self) -> int:
        """The exact number of different networks, however many ways of repeating blocks lead to each."""
        return self._distinct.count()

    @property
    def ways(self) -> int:
        """In how many ways a network can be chosen: at least as many as there are networks, and known at once."""
        return self.automaton.count(self.automaton.root(), self.automaton.start())

    @cached_property
    def variation(self) -> Variation:
        """Its networks as paths: for who changes thousands of them."""
        return Variation(self.automaton)

    def only(self) -> Architecture:
        """The architecture of a space of size one."""
        if self.size != 1:
            raise InputError(
                "an architecture has one value at every place", value=f"{self.size} networks", place=self.name
            )
        return self.sample(Random(0))

    def sample(self, random: Random, uniform: bool = False) -> Architecture:
        """A random legal network: each decision balanced over operators then knobs, or uniform over all networks."""
        if uniform:
            return assemble(grouped(self._distinct.draw(random)), self.template)
        return self.variation.build(self.variation.sample(random))

    def walk(self, choose: Callable[[str, State], int]) -> Architecture:
        """The network of the options whose numbers `choose(place, state)` gives where several are left."""
        return self.variation.build(self.variation.walk(choose))

    def decisions(self, architecture: Architecture) -> list[Decision] | None:
        """The decisions that make this network, or None if it is not in the space."""
        path = self.variation.find(architecture)
        if path is None:
            return None
        taken = self.variation.placed(path)
        return [Decision(place, state.node.kind, state.options[pick]) for place, state, pick in taken]

    def __contains__(self, architecture: Architecture) -> bool:
        return self.variation.find(architecture) is not None

    def mutate(self, architecture: Architecture, random: Random, rate: float = 0.0) -> Architecture:
        """Another network: one open decision (each other with probability `rate`) changed, the rest kept where legal.

        Only where the space holds no other is it the same. InputError where the network is not of this space.
        """
        variation = self.variation
        path = variation.path_of(architecture)
        for number in random.sample(range(path.open), path.open):
            child = variation.build(variation.changed(path, number, random, rate))
            if child != architecture:
                return child
        while self.size > 1:  # every change was another way to the same network, by a repeat or a layout
            child = self.sample(random, uniform=True)
            if child != architecture:
                return child
        return architecture

    def crossover(self, first: Architecture, second: Architecture, random: Random) -> Architecture:
        """A child: each decision from either parent where legal, otherwise drawn."""
        variation = self.variation
        one, other = variation.path_of(first), variation.path_of(second)
        return variation.build(variation.crossover(one, other, random, whole=False))

    def every(self) -> Iterator[Architecture]:
        """Every path's network, for small spaces (a network comes once for each way of repeating that makes it)."""

        def paths(state: State | None, path: tuple[Decision, ...]) -> Iterator[Architecture]:
            if state is None:
                yield assemble(grouped(path), self.template)
                return
            for number, option in enumerate(state.options):
                yield from paths(state.after(number), (*path, Decision("", state.node.kind, option)))

        yield from paths(self.variation.root, ())

    def reachable(self) -> Iterator[tuple[str, str, tuple[Any, ...], Any]]:
        """(place, kind, values, form) of every decision that some network of the space takes."""
        automaton = self.automaton
        seen: set[tuple[Any, Any, Cursor]] = set()
        waiting: list[tuple[Node, Any, Cursor]] = [(automaton.root(), automaton.start(), Cursor())]
        while waiting:
            node, form, cursor = waiting.pop()
            if (node.key, form, cursor) in seen:
                continue
            seen.add((node.key, form, cursor))
            options = automaton.options(node, form)
            yield cursor.place(node), node.kind, options, form
            steps = dict.fromkeys(
                (node.follow(option), automaton.advance(form, node.kind, option)) for option in options
            )
            waiting += [(follow, after, cursor.after(node)) for follow, after in steps if follow is not None]


def write_architecture(architecture: Architecture, name: str | None = None) -> str:
    """The file text of an architecture, which `Space.load(...).only()` reads back equal."""
    return dump_yaml({**({"name": name} if name else {}), **architecture.to_dict()})


__all__ = ["BlockTemplate", "Decision", "Illegal", "Rules", "Space", "StageTemplate", "Template", "write_architecture"]
