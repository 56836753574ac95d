"""Variation: paths through a space's automaton, changed and crossed at the rate that ranking needs.

`Space.mutate` matches the network to its decisions and walks all of them twice for each child. Here a network is kept
as its path; each state (a decision with a legality form) is made once and knows the states after its options, and a
child shares its parent's path up to the change and again from where both meet. Legal by construction, like the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from nas.core.architecture import Architecture, Block, Stage
from nas.core.automaton import BLOCK_FIELDS, STAGE_FIELDS, Automaton, Node
from nas.core.errors import InputError
from nas.core.space import Space
from nas.core.spec import Spec

_FREE = ("layout", "repeat")  # decisions that leave no mark of their own in a network


class State:
    """A decision under a legality form: the options that lead to a complete network."""

    __slots__ = ("_after", "_known", "automaton", "form", "groups", "index", "node", "options")

    def __init__(self, automaton: Automaton, known: dict[Any, State], node: Node, form: Any):
        self.node, self.form = node, form
        self.options = automaton.options(node, form)
        self.index = {option: number for number, option in enumerate(self.options)}
        self.groups = _groups(self.options)
        self.automaton, self._known = automaton, known
        self._after: list[State | bool | None] = [False] * len(self.options)  # False: not known yet

    def after(self, pick: int) -> State | None:
        """The next state, None at the end."""
        found = self._after[pick]
        if found is False:
            option = self.options[pick]
            node, form = self.node.follow(option), self.automaton.advance(self.form, self.node.kind, option)
            found = self._after[pick] = None if node is None else state_of(self.automaton, self._known, node, form)
        assert not isinstance(found, bool)
        return found

    def draw(self, random: Random, without: int = -1) -> int:
        """An option, balanced over operators and then over their knobs; another than `without` where there is one."""
        groups = self.groups
        if without >= 0:
            groups = [left for left in ([i for i in group if i != without] for group in groups) if left] or groups
        return random.choice(random.choice(groups))


def state_of(automaton: Automaton, known: dict[Any, State], node: Node, form: Any) -> State:
    """Each state is made once."""
    key = (node.key, form)
    state = known.get(key)
    if state is None:
        state = known[key] = State(automaton, known, node, form)
    return state


def _groups(options: Sequence[Any]) -> list[list[int]]:
    grouped: dict[Any, list[int]] = {}
    for number, option in enumerate(options):
        grouped.setdefault(option.name if isinstance(option, Spec) else number, []).append(number)
    return list(grouped.values())


class Path:
    """A network as the states on its way and the option picked at each."""

    __slots__ = ("_first", "_open", "_values", "_where", "picks", "states")

    def __init__(self, states: Sequence[State], picks: Sequence[int]):
        self.states, self.picks = tuple(states), tuple(picks)
        self._open: list[int] | None = None
        self._where: dict[State, int] | None = None
        self._values: dict[Node, Any] | None = None
        self._first: dict[Any, Any] | None = None

    @property
    def open(self) -> list[int]:
        """Positions with more than one option."""
        if self._open is None:
            self._open = [i for i, state in enumerate(self.states) if len(state.options) > 1]
        return self._open

    @property
    def where(self) -> dict[State, int]:
        """Position of each state."""
        if self._where is None:
            self._where = {state: i for i, state in enumerate(self.states)}
        return self._where

    def inherited(self, state: State) -> int | None:
        """The option that this network has at a decision; None where it has none, or it is not legal there.

        The blocks of an entry are counted from its end; in a block that it lacks, it has what its first one there has.
        """
        if self._values is None or self._first is None:
            pairs = [(s.node, s.options[p]) for s, p in zip(self.states, self.picks, strict=True)]
            self._values = dict(pairs)
            self._first = {}
            for node, value in pairs:
                self._first.setdefault(_entry(node), value)
        value = self._values.get(state.node, self)  # this path stands for nothing: None is a value
        if value is self:
            value = self._first.get(_entry(state.node), self)
        return state.index.get(value)


def _entry(node: Node) -> tuple[Any, ...]:
    """A decision less the number of blocks that are still to come in its entry."""
    key = node.key
    return (*key[:4], key[5]) if key[0] == "block" else key


class Variation:
    """Paths of one space."""

    def __init__(self, space: Space):
        self.space = space
        self.automaton = space.automaton
        self._known: dict[Any, State] = {}
        self._root = state_of(self.automaton, self._known, self.automaton.root(), self.automaton.start())
        self._blocks: dict[tuple[Any, ...], Block] = {}

    def path_of(self, architecture: Architecture) -> Path:
        """The path of a network; InputError where it is not of the space."""
        decisions = self.space.decisions(architecture)
        if decisions is None:
            raise InputError("the network is not in this space", architecture.digest[:12], self.space.name)
        state: State | None = self._root
        states, picks = [], []
        for decision in decisions:
            assert state is not None
            pick = state.index[decision.value]
            states.append(state)
            picks.append(pick)
            state = state.after(pick)
        return Path(states, picks)

    def sample(self, random: Random) -> Path:
        """A random network, each decision balanced over operators, then knobs."""
        states: list[State] = []
        picks: list[int] = []
        state: State | None = self._root
        while state is not None:
            states.append(state)
            picks.append(state.draw(random) if len(state.options) > 1 else 0)
            state = state.after(picks[-1])
        return Path(states, picks)

    def mutate(self, path: Path, random: Random, changes: int = 1) -> Path:
        """Another path, so many open decisions changed one after the other, the rest kept where legal."""
        for _ in range(changes):
            if path.open:
                path = self._changed(path, random.choice(path.open), random)
        return path

    def _changed(self, path: Path, position: int, random: Random) -> Path:
        states, picks = list(path.states[: position + 1]), list(path.picks[:position])
        pick = states[-1].draw(random, without=path.picks[position])
        picks.append(pick)
        state, where = states[-1].after(pick), path.where
        while state is not None:
            meeting = where.get(state)
            if meeting is not None:
                states += path.states[meeting:]
                picks += path.picks[meeting:]
                break
            found = path.inherited(state) if len(state.options) > 1 else 0
            pick = state.draw(random) if found is None else found
            states.append(state)
            picks.append(pick)
            state = state.after(pick)
        return Path(states, picks)

    def crossover(self, first: Path, second: Path, random: Random) -> Path:
        """A child: each block and each stage's frame from one parent, or the other where that is not legal."""
        states: list[State] = []
        picks: list[int] = []
        state: State | None = self._root
        source, other = first, second
        while state is not None:
            if state.node.kind in (BLOCK_FIELDS[0], "repeat", "stage.dim", "head") and random.random() < 0.5:
                source, other = other, source
            pick: int | None = 0
            if len(state.options) > 1:
                pick = source.inherited(state)
                pick = other.inherited(state) if pick is None else pick
                pick = state.draw(random) if pick is None else pick
            assert pick is not None
            states.append(state)
            picks.append(pick)
            state = state.after(pick)
        return Path(states, picks)

    def build(self, path: Path) -> Architecture:
        """The network of a path. Equal blocks are the same object, so that they are compared at once."""
        stages: list[Stage] = []
        fields: list[Any] = []
        blocks: list[Block] = []
        block: list[Any] = []
        top: dict[str, Any] = {}
        for state, pick in zip(path.states, path.picks, strict=True):
            kind, value = state.node.kind, state.options[pick]
            if kind in _BLOCK:
                block.append(value)
                if kind == BLOCK_FIELDS[-1]:
                    blocks.append(self._block(tuple(block)))
                    block = []
            elif kind in _FREE:
                continue
            elif kind in _STAGE:
                fields.append(value)
            elif kind == "end_norm":
                frame = dict(zip(STAGE_FIELDS, fields, strict=True))
                stages.append(Stage(**frame, blocks=tuple(blocks), end_norm=value))
                fields, blocks = [], []
            else:
                top[kind] = value
        template = self.space.template
        return Architecture(stages=tuple(stages), channels=template.channels, classes=template.classes, **top)

    def _block(self, values: tuple[Any, ...]) -> Block:
        block = self._blocks.get(values)
        if block is None:
            block = self._blocks[values] = Block(**dict(zip(BLOCK_FIELDS, values, strict=True)))
        return block


_BLOCK = frozenset(BLOCK_FIELDS)
_STAGE = frozenset(f"stage.{field}" for field in STAGE_FIELDS)
