"""Vocabulary: what networks are made of, as words, for a regression over networks."""

from __future__ import annotations

from typing import Any

from nas.core.architecture import NONE, Architecture, Block
from nas.core.spec import Spec


class Vocabulary:
    """What networks are made of, as words that stay the same for one process.

    A unit is a stage's frame, a block, or the head, at its place; its words tell what it has there, and its operators.
    """

    def __init__(self) -> None:
        self.places: list[tuple[int, ...]] = []  # of each unit
        self.operators: list[tuple[int, ...]] = []
        self._units: dict[Any, int] = {}
        self._words: dict[Any, int] = {}

    def read(self, architecture: Architecture) -> list[int]:
        """The units of a network."""
        get, found = self._units.get, []
        for number, stage in enumerate(architecture.stages):
            frame = (stage.dim, stage.class_token, stage.distill_token, stage.registers, len(stage.blocks))
            key: tuple[Any, ...] = (number, *frame, stage.embed, stage.position, stage.end_norm)
            unit = get(key)
            if unit is None:
                specs = {"embed": stage.embed, "stage position": stage.position, "end_norm": stage.end_norm}
                unit = self._add(key, number, -1, specs, frame)
            found.append(unit)
            for depth, block in enumerate(stage.blocks):
                key = (number, depth, block)
                unit = get(key)
                found.append(self._add_block(key, number, depth, block) if unit is None else unit)
        key = ("head", architecture.head)
        unit = get(key)
        found.append(self._add(key, -1, -1, {"head": architecture.head}, ()) if unit is None else unit)
        return found

    def _add_block(self, key: tuple[Any, ...], stage: int, depth: int, block: Block) -> int:
        slots = ("position", "reduction", "mixer", "feedforward", "exit")
        rest = (block.norm, block.residual, block.layer_scale)
        return self._add(key, stage, depth, {slot: getattr(block, slot) for slot in slots}, rest)

    def _add(self, key: Any, stage: int, depth: int, specs: dict[str, Spec], rest: tuple[Any, ...]) -> int:
        places = [self._word(stage, depth, number, value) for number, value in enumerate(rest)]
        operators = []
        for slot, spec in specs.items():
            places += [self._word(stage, depth, slot, spec.name), self._word(stage, depth, slot, spec)]
            if spec is not NONE:
                operators += [self._word(slot, spec.name), self._word(slot, spec)]
        unit = self._units[key] = len(self._units)
        self.places.append(tuple(places))
        self.operators.append(tuple(operators))
        return unit

    def _word(self, *parts: Any) -> int:
        return self._words.setdefault(parts, len(self._words))
