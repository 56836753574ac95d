"""Path: a network of a space as what was decided on the way through its automaton, part by part.

A state is a decision with a legality form, made once; it knows the states after its options. A part is what is decided
together: a block, a stage's frame (what it has before its blocks), a closing norm, the head; the image, the layout and
each number of repeats are parts of one decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import Any

from nas.core.architecture import Architecture, Block, Stage
from nas.core.automaton import BLOCK_FIELDS, STAGE_FIELDS, Node
from nas.core.decisions import Decision
from nas.core.spec import Spec
from nas.core.template import Template

FREE = ("layout", "repeat")  # decisions that leave no mark of their own in a network
BLOCK, FRAME = BLOCK_FIELDS[0], f"stage.{STAGE_FIELDS[0]}"
LEADS = frozenset({"input", *FREE, FRAME, BLOCK, "end_norm", "head"})  # the first decision of each part


class Options:
    """Where each of some options stands, and which belong together; states with equal options share it."""

    __slots__ = ("groups", "index")

    def __init__(self, options: tuple[Any, ...]):
        self.index = {option: number for number, option in enumerate(options)}
        self.groups = _groups(options)


class State:
    """A decision under a legality form: the options that lead to a complete network."""

    __slots__ = ("_after", "_groups", "_next", "form", "index", "leads", "node", "options")

    def __init__(
        self,
        node: Node,
        form: Any,
        options: tuple[Any, ...],
        shared: Options,
        after: Callable[[State, Any], State | None],
    ):
        self.node, self.form, self.options = node, form, options
        self.index, self._groups = shared.index, shared.groups
        self.leads = node.kind in LEADS
        self._next = after
        self._after: list[State | bool | None] = [False] * len(options)  # False: not known yet

    def after(self, pick: int) -> State | None:
        """The next state, None at the end."""
        found = self._after[pick]
        if found is False:
            found = self._after[pick] = self._next(self, self.options[pick])
        assert not isinstance(found, bool)
        return found

    def draw(self, random: Random, without: int | None = None) -> int:
        """An option, balanced over operators and then over their knobs; another than `without` where there is one."""
        groups = self._groups
        if without is not None:
            groups = [left for left in ([i for i in group if i != without] for group in groups) if left] or groups
        return random.choice(random.choice(groups) if isinstance(self.options[0], Spec) else groups[0])


def _groups(options: Sequence[Any]) -> list[list[int]]:
    """The numbers of options: of each operator, by name; of all, where they are no operators."""
    named: dict[str, list[int]] = {}
    for number, option in enumerate(options):
        named.setdefault(option.name if isinstance(option, Spec) else "", []).append(number)
    return [named[name] for name in sorted(named)]


class Part:
    """What is decided together from one state on: the picks and their values, what they make, and the state after."""

    __slots__ = ("after", "kind", "made", "open", "picks", "start", "states", "values")

    def __init__(self, states: Sequence[State], picks: tuple[int, ...]):
        self.start, self.states, self.picks = states[0], tuple(states), picks
        self.after = states[-1].after(picks[-1])
        self.kind = states[0].node.kind
        self.values = tuple([state.options[pick] for state, pick in zip(states, picks, strict=True)])
        self.open = tuple([slot for slot, state in enumerate(states) if len(state.options) > 1])
        self.made: Any = None


class Path:
    """A network as its parts."""

    __slots__ = ("_at", "_ends", "_first", "_starts", "parts")

    def __init__(self, parts: Sequence[Part]):
        self.parts = tuple(parts)
        self._ends: list[int] | None = None
        self._starts: dict[State, int] | None = None
        self._at: dict[Node, Part] | None = None
        self._first: dict[Any, Part] = {}

    @property
    def ends(self) -> list[int]:
        """How many decisions with more than one option there are up to the end of each part."""
        if self._ends is None:
            self._ends = list(accumulate([len(part.open) for part in self.parts]))
        return self._ends

    @property
    def open(self) -> int:
        """How many decisions with more than one option there are."""
        return self.ends[-1]

    @property
    def starts(self) -> dict[State, int]:
        """The number of the part that begins at a state."""
        if self._starts is None:
            self._starts = {part.start: number for number, part in enumerate(self.parts)}
        return self._starts

    def source(self, node: Node) -> Part | None:
        """The part that begins with a decision; None where this network has none.

        The blocks of an entry are counted from its end; for a block that it lacks, its first one there stands.
        """
        if self._at is None:
            self._at = {part.start.node: part for part in self.parts}
            for part in self.parts:
                self._first.setdefault(part.start.node.key[:4], part)
        found = self._at.get(node)
        return self._first.get(node.key[:4]) if found is None else found


def made_of(kind: str, values: Sequence[Any]) -> Any:
    """What a part's decisions make: a block, a stage's fields by name, or the one value."""
    if kind == BLOCK:
        return Block(**dict(zip(BLOCK_FIELDS, values, strict=True)))
    return dict(zip(STAGE_FIELDS, values, strict=True)) if kind == FRAME else values[0]


def grouped(decisions: Iterable[Decision]) -> Iterator[tuple[str, Any]]:
    """The parts of decisions: the kind of each, and what it makes."""
    kind, values = "", list[Any]()
    for decision in decisions:
        if decision.kind in LEADS and values:
            yield kind, made_of(kind, values)
            values = []
        kind = kind if values else decision.kind
        values.append(decision.value)
    yield kind, made_of(kind, values)


def assemble(parts: Iterable[tuple[str, Any]], template: Template) -> Architecture:
    """The network of its parts, each with its kind and what it makes, in order."""
    stages: list[Stage] = []
    blocks: list[Block] = []
    frame: dict[str, Any] = {}
    top: dict[str, Any] = {}
    for kind, made in parts:
        if kind == BLOCK:
            blocks.append(made)
        elif kind == FRAME:
            frame = made
        elif kind == "end_norm":
            stages.append(Stage(**frame, blocks=tuple(blocks), end_norm=made))
            blocks = []
        elif kind not in FREE:
            top[kind] = made
    return Architecture(stages=tuple(stages), channels=template.channels, classes=template.classes, **top)
