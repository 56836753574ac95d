"""Automaton: the decisions that a template leaves open, in order, walked under the operators' rules.

Its nodes are decisions; its state is the legality form of the operators (`Rules`). Counting the accepting paths from
every state tells which options still lead to a complete legal network.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from nas.core.architecture import LAYER_NORM
from nas.core.errors import InputError
from nas.core.spec import Spec
from nas.core.template import Template

sys.setrecursionlimit(max(sys.getrecursionlimit(), 20_000))  # one frame a decision, up to 9 a block

BLOCK_FIELDS = ("position", "reduction", "mixer", "feedforward", "norm", "residual", "layer_scale", "exit")
INACTIVE = {"norm": LAYER_NORM, "residual": "split", "layer_scale": None}  # what stands where it has no effect
STAGE_FIELDS = ("dim", "class_token", "distill_token", "registers", "embed", "position")
MAX_STATES = 1_000_000  # of the automaton: about a minute


class Illegal(Exception):
    """A decision breaks a rule; the text is the rule."""


class Rules(Protocol):
    """What the operators say about legality. A form is a hashable value that core never looks into."""

    def specs(self, kind: str, text: str, place: str) -> list[Spec]:
        """The canonical specs that a string stands for; InputError if unknown."""

    def start(self, channels: int) -> Hashable:
        """The form before any decision."""

    def advance(self, form: Any, kind: str, value: Any) -> Hashable:
        """The form after a decision; raises Illegal."""

    def active(self, form: Any, kind: str) -> bool:
        """Whether a decision of this kind (norm, residual, layer_scale) has an effect in the block chosen so far."""


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A decision to take: its kind, options, and what follows each option (None: the network is complete).

    branches: different options are followed by different nodes.
    """

    key: tuple[Any, ...]
    kind: str
    options: tuple[Any, ...]
    follow: Callable[[Any], Node | None]
    branches: bool = False

    @property
    def place_in_file(self) -> str:
        """The key path of the decision in the file, where entries of `blocks` are counted before they are repeated."""
        match self.key:
            case ("input",) | ("layout",):
                return self.kind
            case (_, name, i, *rest):
                layout = f"layouts.{name}." if name else ""
                if self.kind == "head":
                    return f"{layout}head"
                block = f".blocks[{rest[0]}]" if self.kind == "repeat" or self.kind in BLOCK_FIELDS else ""
                return f"{layout}stages[{i}]{block}.{self.kind.removeprefix('stage.')}"
        raise AssertionError(self.key)


class Automaton:
    """The nodes of a template and the forms between them, each made once."""

    def __init__(self, template: Template, rules: Rules):
        self.template = template
        self.rules = rules
        self._nodes: dict[tuple[Any, ...], Node] = {}
        self._counts: dict[tuple[Any, Any], int] = {}
        self._forms: dict[tuple[Any, str, Any], Any] = {}
        self._grouped: dict[tuple[str, tuple[Any, ...], Any], tuple[tuple[Any, ...], tuple[int | None, ...]]] = {}
        self._alive: dict[tuple[Any, Any], tuple[Any, ...]] = {}

    def root(self) -> Node:
        """The first decision."""
        return self._node("input")

    def start(self) -> Any:
        """The form before the first decision."""
        return self.rules.start(self.template.channels)

    def advance(self, form: Any, kind: str, value: Any) -> Any:
        """The next form, or None where the decision is illegal."""
        key = (form, kind, value)
        if key not in self._forms:
            try:
                self._forms[key] = self.rules.advance(form, kind, value)
            except Illegal:
                self._forms[key] = None
        return self._forms[key]

    def offered(self, node: Node, form: Any) -> tuple[Any, ...]:
        """The options of a node; where none of them has an effect, the one value that stands for that."""
        if node.kind in INACTIVE and not self.rules.active(form, node.kind):
            return (INACTIVE[node.kind],)
        return node.options

    def options(self, node: Node, form: Any) -> tuple[Any, ...]:
        """The options from which a complete legal network can be reached."""
        key = (node.key, form)
        alive = self._alive.get(key)
        if alive is None:
            weights = zip(self.offered(node, form), self._weights(node, form), strict=True)
            alive = self._alive[key] = tuple(option for option, weight in weights if weight)
        return alive

    def count(self, node: Node | None, form: Any) -> int:
        """How many paths lead from here to a complete legal network."""
        if node is None:
            return 1
        key = (node.key, form)
        count = self._counts.get(key)
        if count is None:
            count = sum(self._weights(node, form))
            keep(self._counts, key, count)
        return count

    def refusal(self, place: str) -> InputError:
        """The error of a template that allows no network: the rule broken furthest down, and where."""
        deepest: tuple[int, str, str, Any] = (-1, "", "", None)
        seen: set[tuple[Any, Any]] = set()

        def descend(node: Node | None, form: Any, depth: int) -> None:
            nonlocal deepest
            if node is None or (node.key, form) in seen:
                return
            seen.add((node.key, form))
            for option in self.offered(node, form):
                try:
                    after = self.rules.advance(form, node.kind, option)
                except Illegal as broken:
                    if depth > deepest[0]:
                        deepest = (depth, str(broken), node.place_in_file, option)
                else:
                    descend(node.follow(option), after, depth + 1)

        descend(self.root(), self.start(), 0)
        _, rule, where, value = deepest
        shown = str(value) if isinstance(value, Spec) else value
        return InputError(rule or "the space holds no network", value=shown, place=f"{place}: {where}")

    def _weights(self, node: Node, form: Any) -> list[int]:
        """How many paths lead from each of the options offered to a complete legal network."""
        forms, numbers = self._moves(node, form)
        if node.branches:
            return [
                0 if number is None else self.count(node.follow(option), forms[number])
                for option, number in zip(self.offered(node, form), numbers, strict=True)
            ]
        follow = node.follow(node.options[0])
        counts = [self.count(follow, after) for after in forms]
        return [0 if number is None else counts[number] for number in numbers]

    def _moves(self, node: Node, form: Any) -> tuple[tuple[Any, ...], tuple[int | None, ...]]:
        """The different forms that the options lead to, and which of them each does, None where it is illegal: nodes
        with the same options share them."""
        key = (node.kind, node.options, form)
        found = self._grouped.get(key)
        if found is None:
            forms: dict[Any, int] = {}
            numbers: list[int | None] = []
            for option in self.offered(node, form):
                after = self.advance(form, node.kind, option)
                numbers.append(None if after is None else forms.setdefault(after, len(forms)))
            found = self._grouped[key] = tuple(forms), tuple(numbers)
        return found

    def _node(self, *key: Any) -> Node:
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = self._make(key)
        return node

    def _make(self, key: tuple[Any, ...]) -> Node:
        layouts = self.template.layouts
        match key:
            case ("input",):
                return Node(key, "input", self.template.input, lambda _: self._node("layout"))
            case ("layout",):
                return Node(key, "layout", tuple(layouts), lambda name: self._node("stage", name, 0, 0), branches=True)
            case ("stage", name, i, field) if i == len(layouts[name].stages):
                return Node(key, "head", layouts[name].head, lambda _: None)
            case ("stage", name, i, field) if field < len(STAGE_FIELDS):
                stage, kind = layouts[name].stages[i], STAGE_FIELDS[field]
                follow = ("stage", name, i, field + 1) if field + 1 < len(STAGE_FIELDS) else ("repeat", name, i, 0)
                return Node(key, f"stage.{kind}", getattr(stage, kind), lambda _: self._node(*follow))
            case ("repeat", name, i, j) if j == len(layouts[name].stages[i].blocks):
                norms = layouts[name].stages[i].end_norm
                return Node(key, "end_norm", norms, lambda _: self._node("stage", name, i + 1, 0))
            case ("repeat", name, i, j):
                repeat = layouts[name].stages[i].blocks[j].repeat
                none = ("repeat", name, i, j + 1)
                return Node(
                    key,
                    "repeat",
                    repeat,
                    lambda n: self._node("block", name, i, j, n, 0) if n else self._node(*none),
                    branches=True,
                )
            case ("block", name, i, j, left, slot):
                kind = BLOCK_FIELDS[slot]
                if slot + 1 < len(BLOCK_FIELDS):
                    then: tuple[Any, ...] = ("block", name, i, j, left, slot + 1)
                else:
                    then = ("block", name, i, j, left - 1, 0) if left > 1 else ("repeat", name, i, j + 1)
                return Node(key, kind, getattr(layouts[name].stages[i].blocks[j], kind), lambda _: self._node(*then))
        raise AssertionError(key)


def keep(counts: dict[tuple[Any, Any], int], key: tuple[Any, Any], count: int, place: str = "") -> None:
    """Remember the count of a state; InputError where there are too many states."""
    if len(counts) == MAX_STATES:
        raise InputError(f"the space is too large: over {MAX_STATES} states to count", place=place)
    counts[key] = count
