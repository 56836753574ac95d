"""Decisions: what a walk through the automaton decided, and where each stands in a network."""

from __future__ import annotations

import dataclasses
from typing import Any

from nas.core.architecture import Architecture
from nas.core.automaton import BLOCK_FIELDS, Node


@dataclasses.dataclass(frozen=True)
class Decision:
    """One decision taken, and where."""

    place: str
    kind: str
    value: Any


@dataclasses.dataclass(frozen=True)
class Cursor:
    """Where a walk stands in a network: blocks are counted one by one."""

    stage: int = 0
    block: int = 0

    def place(self, node: Node) -> str:
        """The key path of a decision in the network."""
        if node.kind in ("input", "layout", "head"):
            return node.kind
        if node.kind.startswith("stage.") or node.kind == "end_norm":
            return f"stages[{self.stage}].{node.kind.removeprefix('stage.')}"
        if node.kind == "repeat":
            return f"stages[{self.stage}].blocks({node.key[-1]}).repeat"
        return f"stages[{self.stage}].blocks[{self.block}].{node.kind}"

    def after(self, node: Node) -> Cursor:
        """Where the walk stands once this decision is taken."""
        if node.kind == BLOCK_FIELDS[-1]:
            return Cursor(self.stage, self.block + 1)
        if node.kind == "end_norm":
            return Cursor(self.stage + 1, 0)
        return self

    def read(self, wanted: Architecture, kind: str) -> Any:
        """The value that a network has at this decision; where it has no such place, an object equal to nothing."""
        if kind in ("input", "head"):
            if kind == "head" and self.stage != len(wanted.stages):
                return object()
            return getattr(wanted, kind)
        if self.stage >= len(wanted.stages):
            return object()
        stage = wanted.stages[self.stage]
        if kind.startswith("stage."):
            return getattr(stage, kind.removeprefix("stage."))
        if kind == "end_norm":
            return stage.end_norm if self.block == len(stage.blocks) else object()
        return getattr(stage.blocks[self.block], kind) if self.block < len(stage.blocks) else object()

    def complete(self, wanted: Architecture) -> bool:
        """Whether the network has no stage after this place."""
        return self.stage == len(wanted.stages)
