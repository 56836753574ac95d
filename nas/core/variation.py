"""Variation: networks of a space drawn, found, changed and crossed, as paths through its automaton.

A child shares its parents' parts up to a change and again from where both meet, so that thousands are made in a second;
every one is legal by construction.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from nas.core.architecture import Architecture, Block
from nas.core.automaton import Automaton, Node
from nas.core.decisions import Cursor
from nas.core.errors import InputError
from nas.core.path import BLOCK, FRAME, FREE, Options, Part, Path, State, assemble, made_of

CROSSED = frozenset({"repeat", FRAME, BLOCK, "head"})  # where a child may go on with the other parent
KEPT = 100_000  # parts, of each space: about 100 MB

Decide = Callable[[int, State], int]  # the pick for the decision at a slot of a part, where there are several


class Variation:
    """Paths of one automaton."""

    def __init__(self, automaton: Automaton):
        self.automaton, self.template = automaton, automaton.template
        self._states: dict[Any, State] = {}
        self._options: dict[tuple[Any, ...], Options] = {}
        self._parts: dict[tuple[State, tuple[int, ...]], Part] = {}
        self._adopted: dict[tuple[State, Part], Part] = {}
        self._blocks: dict[tuple[Any, ...], Block] = {}
        self.root = self._state(automaton.root(), automaton.start())

    def sample(self, random: Random) -> Path:
        """A random network, each decision balanced over operators, then knobs."""
        return self._follow(lambda state: self._part(state, lambda _, at: at.draw(random)))

    def walk(self, choose: Callable[[str, State], int]) -> Path:
        """The network of what `choose(place, state)` picks where several options are left."""
        cursor = Cursor()

        def part(start: State) -> Part:
            nonlocal cursor
            made = self._part(start, lambda _, state: choose(cursor.place(state.node), state))
            cursor = cursor.after(made.states[-1].node)
            return made

        return self._follow(part)

    def placed(self, path: Path) -> Iterator[tuple[str, State, int]]:
        """(place, state, pick) of every decision of a path."""
        cursor = Cursor()
        for part in path.parts:
            for state, pick in zip(part.states, part.picks, strict=True):
                yield cursor.place(state.node), state, pick
            cursor = cursor.after(part.states[-1].node)

    def find(self, architecture: Architecture) -> Path | None:
        """The path of a network; None where it is not of the space."""
        template, parts = self.template, list[Part]()
        if (architecture.classes, architecture.channels) != (template.classes, template.channels):
            return None
        return Path(parts) if self._match(self.root, architecture, Cursor(), parts, set()) else None

    def path_of(self, architecture: Architecture) -> Path:
        """The path of a network; InputError where it is not of the space."""
        found = self.find(architecture)
        if found is None:
            raise InputError("the network is not in this space", architecture.digest[:12], self.template.name)
        return found

    def mutate(self, path: Path, random: Random, changes: int = 1) -> Path:
        """Another path, so many open decisions changed one after the other, the rest kept where legal."""
        for _ in range(changes):
            if path.open:
                path = self.changed(path, random.choice(range(path.open)), random)
        return path

    def changed(self, path: Path, number: int, random: Random, rate: float = 0.0) -> Path:
        """Another path: the open decision of this number changed, each other with probability `rate`."""
        at = bisect_right(path.ends, number)
        target = path.parts[at]
        slot = target.open[number - path.ends[at]]  # counted from the end
        parts = [] if rate else list(path.parts[:at])
        state: State | None = path.parts[len(parts)].start
        while state is not None:
            meeting = path.starts.get(state) if not rate and len(parts) > at else None
            if meeting is not None:
                return Path([*parts, *path.parts[meeting:]])
            source = path.source(state.node)
            if rate or len(parts) == at:
                part = self._part(state, _varied(source, slot if source is target else -1, random, rate))
            else:
                part = self._inherited(state, [source], random)
            parts.append(part)
            state = part.after
        return Path(parts)

    def crossover(self, first: Path, second: Path, random: Random, whole: bool = True) -> Path:
        """A child: whole parts, or else each decision, from either parent; where not legal from the other, or drawn."""

        def part(start: State) -> Part:
            nonlocal first, second
            if whole and start.node.kind in CROSSED and random.random() < 0.5:
                first, second = second, first
            own = first.source(start.node)
            if whole and own is not None and own.start is start:
                return own
            return self._inherited(start, [own, second.source(start.node)], random, mixed=not whole)

        return self._follow(part)

    def build(self, path: Path) -> Architecture:
        """The network of a path. Equal blocks are the same object, so that they are compared at once."""
        return assemble(((part.kind, part.made) for part in path.parts), self.template)

    def _follow(self, part: Callable[[State], Part]) -> Path:
        parts: list[Part] = []
        state: State | None = self.root
        while state is not None:
            parts.append(part(state))
            state = parts[-1].after
        return Path(parts)

    def _state(self, node: Node, form: Any) -> State:
        key = (node.key, form)
        state = self._states.get(key)
        if state is None:
            options = self.automaton.options(node, form)
            shared = self._options.get(options)
            if shared is None:
                shared = self._options[options] = Options(options)
            state = self._states[key] = State(node, form, options, shared, self._after)
        return state

    def _after(self, state: State, option: Any) -> State | None:
        node = state.node.follow(option)
        return None if node is None else self._state(node, self.automaton.advance(state.form, state.node.kind, option))

    def _part(self, start: State, decide: Decide) -> Part:
        states: list[State] = []
        picks: list[int] = []
        state: State | None = start
        while state is not None and (state is start or not state.leads):
            pick = decide(len(picks), state) if len(state.options) > 1 else 0
            states.append(state)
            picks.append(pick)
            state = state.after(pick)
        return self._made(states, tuple(picks))

    def _made(self, states: Sequence[State], picks: tuple[int, ...]) -> Part:
        key = (states[0], picks)
        part = self._parts.get(key)
        if part is None:
            if len(self._parts) >= KEPT:
                for kept in (self._parts, self._adopted, self._blocks):
                    kept.clear()
            part = self._parts[key] = Part(states, picks)
            if part.kind == BLOCK:
                part.made = self._blocks.setdefault(part.values, made_of(BLOCK, part.values))
            else:
                part.made = made_of(part.kind, part.values)
        return part

    def _inherited(self, start: State, sources: Sequence[Part | None], random: Random, mixed: bool = False) -> Part:
        """The part with the decisions of the first source where they are legal, else of the next, else drawn; mixed:
        in either order for each decision."""
        first, plain = sources[0], not mixed
        known = self._adopted.get((start, first)) if first is not None and plain else None
        if known is not None:
            return known

        def decide(slot: int, state: State) -> int:
            nonlocal plain
            for source in sources[::-1] if mixed and random.random() < 0.5 else sources:
                pick = None if source is None else state.index.get(source.values[slot])
                if pick is not None:
                    plain = plain and source is first
                    return pick
            plain = False
            return state.draw(random)

        part = self._part(start, decide)
        if plain and first is not None:
            if len(self._adopted) >= KEPT:
                self._adopted.clear()
            self._adopted[start, first] = part
        return part

    def _match(
        self, state: State | None, wanted: Architecture, cursor: Cursor, parts: list[Part], failed: set[Any]
    ) -> bool:
        """Whether the rest of the network can be made from here; `failed` holds where it could not."""
        if state is None:
            return cursor.complete(wanted)
        if (state, cursor) in failed:
            return False
        for part in self._wanted(state, wanted, cursor):
            parts.append(part)
            if self._match(part.after, wanted, cursor.after(part.states[-1].node), parts, failed):
                return True
            parts.pop()
        failed.add((state, cursor))
        return False

    def _wanted(self, start: State, wanted: Architecture, cursor: Cursor) -> list[Part]:
        """The parts from a state that a network may have there."""
        if start.node.kind in FREE:
            return [self._made([start], (pick,)) for pick in range(len(start.options))]
        states: list[State] = []
        picks: list[int] = []
        state: State | None = start
        while state is not None and (state is start or not state.leads):
            pick = state.index.get(cursor.read(wanted, state.node.kind))
            if pick is None:
                return []
            states.append(state)
            picks.append(pick)
            state = state.after(pick)
        return [self._made(states, tuple(picks))]


def _varied(source: Part | None, slot: int, random: Random, rate: float) -> Decide:
    """The source's decisions where they are legal, the one at a slot changed, and others with probability `rate`."""

    def decide(at: int, state: State) -> int:
        kept = None if source is None else state.index.get(source.values[at])
        if at == slot or (rate and random.random() < rate):
            return state.draw(random, without=kept)
        return state.draw(random) if kept is None else kept

    return decide
