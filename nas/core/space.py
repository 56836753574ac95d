"""Space: a set of architectures, written with the grammar of one architecture and lists where it may vary.

A space is a finite automaton (`nas.core.automaton`): its nodes are the decisions that a file leaves open, in order; its
state is the legality form of the operators (`Rules`). That gives, at once, the exact number of networks, the options
that still lead to a complete legal network, uniform samples, membership, and neighbours that are legal by construction.
Nothing is sampled and thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from nas.core.architecture import Architecture
from nas.core.automaton import Automaton, Illegal, Node, Rules
from nas.core.decisions import Cursor, Decision, build
from nas.core.distinct import Distinct
from nas.core.errors import InputError
from nas.core.spec import Spec
from nas.core.template import BlockTemplate, StageTemplate, Template, parse_template
from nas.core.yamlfile import dump_yaml, load_yaml

Chooser = Callable[[str, Node, Sequence[Any]], Any]


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
        automaton = space.automaton
        try:
            count = automaton.count(automaton.root(), automaton.start())
        except InputError as error:
            raise error.with_place(place) from error.__cause__
        if not count:
            raise automaton.refusal(place)
        return space

    @cached_property
    def size(self) -> int:
        """The exact number of different networks, however many ways of repeating blocks lead to each."""
        return self._distinct.count()

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
            return build(self._distinct.draw(random), self.template)

        def choose(place: str, node: Node, alive: Sequence[Any]) -> Any:
            return _balanced(random, alive)

        return self.walk(choose)

    def walk(self, choose: Chooser) -> Architecture:
        """The network of the decisions that `choose(place, node, options)` takes where several options are left."""
        return build(self._walk(choose), self.template)

    def decisions(self, architecture: Architecture) -> list[Decision] | None:
        """The decisions that make this network, or None if it is not in the space."""
        if architecture.classes != self.template.classes or architecture.channels != self.template.channels:
            return None
        path: list[Decision] = []
        start = self.automaton.start()
        return path if self._match(self.automaton.root(), start, architecture, Cursor(), path, set()) else None

    def __contains__(self, architecture: Architecture) -> bool:
        return self.decisions(architecture) is not None

    def mutate(self, architecture: Architecture, random: Random, rate: float = 0.0) -> Architecture:
        """Another network: one open decision (each other with probability `rate`) changed, the rest kept where legal.

        Only where the space holds no other is it the same.
        """
        parent = self._values(architecture)

        def changed(target: str) -> Architecture:
            def choose(place: str, node: Node, alive: Sequence[Any]) -> Any:
                old = parent.get(place)
                if place == target or (rate and random.random() < rate):
                    others = [option for option in alive if option is not old and option != old]
                    return _balanced(random, others or alive)
                return old if old in alive else _balanced(random, alive)

            return self.walk(choose)

        open_places = self._open_places(parent)
        for target in random.sample(open_places, len(open_places)):
            child = changed(target)
            if child != architecture:
                return child
        while self.size > 1:  # every change was another way to the same network, by a repeat or a layout
            child = self.sample(random, uniform=True)
            if child != architecture:
                return child
        return architecture

    def crossover(self, first: Architecture, second: Architecture, random: Random) -> Architecture:
        """A child: each decision from either parent where legal, otherwise drawn."""
        parents = (self._values(first), self._values(second))

        def choose(place: str, node: Node, alive: Sequence[Any]) -> Any:
            inherited = [p[place] for p in parents if place in p and p[place] in alive]
            return random.choice(inherited) if inherited else _balanced(random, alive)

        return self.walk(choose)

    def every(self) -> Iterator[Architecture]:
        """Every path's network, for small spaces (a network comes once for each way of repeating that makes it)."""
        automaton = self.automaton

        def paths(node: Node | None, form: Any, cursor: Cursor, path: tuple[Decision, ...]) -> Iterator[Architecture]:
            if node is None:
                yield build(path, self.template)
                return
            for option in automaton.options(node, form):
                step = (*path, Decision(cursor.place(node), node.kind, option))
                after = automaton.advance(form, node.kind, option)
                yield from paths(node.follow(option), after, cursor.after(node), step)

        yield from paths(automaton.root(), automaton.start(), Cursor(), ())

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

    def _walk(self, choose: Chooser) -> list[Decision]:
        """A path on which `choose` takes every decision with more than one option left."""
        automaton = self.automaton
        node: Node | None = automaton.root()
        form, cursor, path = automaton.start(), Cursor(), []
        while node is not None:
            alive, place = automaton.options(node, form), cursor.place(node)
            value = alive[0] if len(alive) == 1 else choose(place, node, alive)
            path.append(Decision(place, node.kind, value))
            form, cursor, node = automaton.advance(form, node.kind, value), cursor.after(node), node.follow(value)
        return path

    def _values(self, architecture: Architecture) -> dict[str, Any]:
        """Place to value of the decisions that make a network; InputError where it is not of this space."""
        path = self.decisions(architecture)
        if path is None:
            raise InputError("the network is not in this space", value=architecture.digest[:12], place=self.name)
        return {decision.place: decision.value for decision in path}

    def _open_places(self, values: Mapping[str, Any]) -> list[str]:
        """Where more than one option is left, along the path of these decisions."""
        places: list[str] = []

        def follow(place: str, node: Node, alive: Sequence[Any]) -> Any:
            places.append(place)
            return values[place]

        self._walk(follow)
        return places

    def _match(
        self,
        node: Node | None,
        form: Any,
        wanted: Architecture,
        cursor: Cursor,
        path: list[Decision],
        failed: set[Any],
    ) -> bool:
        """Whether the rest of the network can be made from here; `failed` holds where it could not."""
        if node is None:
            return cursor.complete(wanted)
        if (node.key, form, cursor) in failed:
            return False
        options = self.automaton.offered(node, form)
        if node.kind not in ("layout", "repeat"):
            value = cursor.read(wanted, node.kind)
            options = (value,) if value in options else ()
        for option in options:
            after = self.automaton.advance(form, node.kind, option)
            if after is None:
                continue
            path.append(Decision(cursor.place(node), node.kind, option))
            if self._match(node.follow(option), after, wanted, cursor.after(node), path, failed):
                return True
            path.pop()
        failed.add((node.key, form, cursor))
        return False


def _balanced(random: Random, alive: Sequence[Any]) -> Any:
    """Uniform over operator names, then over the knobs of the one drawn."""
    if len(alive) > 1 and isinstance(alive[0], Spec):
        name = random.choice(sorted({option.name for option in alive}))
        alive = [option for option in alive if option.name == name]
    return random.choice(alive)


def write_architecture(architecture: Architecture, name: str | None = None) -> str:
    """The file text of an architecture, which `Space.load(...).only()` reads back equal."""
    return dump_yaml({**({"name": name} if name else {}), **architecture.to_dict()})


__all__ = ["BlockTemplate", "Decision", "Illegal", "Rules", "Space", "StageTemplate", "Template", "write_architecture"]
