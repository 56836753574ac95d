"""Template: a parsed space file. Every place holds the tuple of values that the file allows there.

A file is a mapping:

    name: tiny                   # optional
    input: [192, 224]            # pixels, square
    channels: 3
    classes: 1000
    block: {norm: layer(eps=1e-5)}          # optional defaults of every block; a stage may have its own `block`
    stages:                                 # or `layouts: {plain: {stages, head}, pyramid: {stages, head}}`
      - embed: patch(size=16)
        dim: [192, 216, 240]
        class_token: true
        position: learned
        blocks:
          - {repeat: [12, 13, 14], mixer: "softmax(heads=[3, 4])", feedforward: "mlp(ratio=[3.5, 4])"}
    head: class
    reference: {...}                        # published figures, in reference files
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.core.architecture import LAYER_NORM, MAX_REPEAT, NONE
from nas.core.errors import InputError, nearest
from nas.core.knobs import FLAG, Domain, Maybe, Real, Whole, one_of
from nas.core.spec import Spec

if TYPE_CHECKING:
    from nas.core.automaton import Rules

MAX_BLOCKS = 400  # of one layout, at its deepest; an entry of `blocks` counts as one at least
MAX_STAGES = 16
MAX_OPTIONS = 100_000  # operators with knobs, at all places of a file together

_TOP = ("name", "input", "channels", "classes", "block", "stages", "layouts", "head", "reference")
_SCALARS: dict[str, tuple[Domain, Any]] = {
    "dim": (Whole(1, 16384), None),
    "class_token": (FLAG, False),
    "distill_token": (FLAG, False),
    "registers": (Whole(0, 64), 0),
    "repeat": (Whole(0, MAX_REPEAT), 1),
    "residual": (one_of("split", "joint"), "split"),
    "layer_scale": (Maybe(Real(0.0, 10.0)), None),
}


@dataclasses.dataclass(frozen=True)
class BlockTemplate:
    """One entry of a stage's `blocks`, standing for `repeat` blocks that choose independently."""

    repeat: tuple[int, ...]
    norm: tuple[Spec, ...]
    residual: tuple[str, ...]
    layer_scale: tuple[float | None, ...]
    position: tuple[Spec, ...]
    reduction: tuple[Spec, ...]
    mixer: tuple[Spec, ...]
    feedforward: tuple[Spec, ...]
    exit: tuple[Spec, ...]


@dataclasses.dataclass(frozen=True)
class StageTemplate:
    """One entry of `stages`."""

    dim: tuple[int, ...]
    class_token: tuple[bool, ...]
    distill_token: tuple[bool, ...]
    registers: tuple[int, ...]
    embed: tuple[Spec, ...]
    position: tuple[Spec, ...]
    blocks: tuple[BlockTemplate, ...]
    end_norm: tuple[Spec, ...]


@dataclasses.dataclass(frozen=True)
class LayoutTemplate:
    """Stages and the head that closes them."""

    stages: tuple[StageTemplate, ...]
    head: tuple[Spec, ...]


@dataclasses.dataclass(frozen=True)
class Template:
    """A whole file."""

    name: str
    input: tuple[int, ...]
    channels: int
    classes: int
    layouts: dict[str, LayoutTemplate]
    notes: dict[str, Any]


def parse_template(document: Any, rules: Rules, place: str) -> Template:
    """Check a parsed document against the grammar."""
    top = _mapping(document, _TOP, place)
    if ("stages" in top) == ("layouts" in top):
        raise InputError("a file has either stages or layouts", value=sorted(map(str, top)), place=place)
    parser = _Parser(rules)
    layouts = {}
    if "layouts" in top:
        named = top["layouts"]
        if not isinstance(named, dict) or not named or not all(isinstance(k, str) for k in named):
            raise InputError("layouts is a mapping of names to {stages, head}", value=named, place=f"{place}: layouts")
        if "head" in top:
            raise InputError("with layouts, each layout has its own head", value="head", place=place)
        for name, value in named.items():
            where = f"{place}: layouts.{name}"
            inner = _mapping(value, ("block", "stages", "head"), where)
            layouts[name] = parser.layout(inner, where + ".", top.get("block"))
    else:
        layouts[""] = parser.layout(top, f"{place}: ", None)
    notes = top.get("reference", {})
    if not isinstance(notes, dict):
        raise InputError("reference is a mapping", value=notes, place=f"{place}: reference")
    return Template(
        name=_text(top.get("name", "unnamed"), f"{place}: name"),
        input=_scalars(top.get("input", 224), Whole(8, 4096), f"{place}: input"),
        channels=_single(top.get("channels", 3), Whole(1, 64), f"{place}: channels"),
        classes=_single(top.get("classes", 1000), Whole(1, 100_000), f"{place}: classes"),
        layouts=layouts,
        notes=notes,
    )


class _Parser:
    def __init__(self, rules: Rules):
        self.rules = rules
        self.options = 0

    def layout(self, inner: Mapping[str, Any], place: str, outer: Any) -> LayoutTemplate:
        stages = inner.get("stages")
        if not isinstance(stages, list) or not 1 <= len(stages) <= MAX_STAGES:
            raise InputError(f"stages is a list of 1 to {MAX_STAGES} stages", value=stages, place=f"{place}stages")
        if "head" not in inner:
            raise InputError("a network needs a head", value="head", place=place.rstrip(": ."))
        defaults = self._defaults(outer, place) | self._defaults(inner.get("block"), place)
        made = tuple(self.stage(stage, f"{place}stages[{i}]", defaults) for i, stage in enumerate(stages))
        deepest = sum(max(1, *block.repeat) for stage in made for block in stage.blocks)
        if deepest > MAX_BLOCKS:
            raise InputError(f"at most {MAX_BLOCKS} blocks", value=deepest, place=f"{place}stages")
        return LayoutTemplate(made, self.specs("head", inner["head"], f"{place}head"))

    def _defaults(self, value: Any, place: str) -> dict[str, Any]:
        names = [f.name for f in dataclasses.fields(BlockTemplate)]
        return {} if value is None else dict(_mapping(value, names, f"{place}block"))

    def stage(self, value: Any, place: str, defaults: dict[str, Any]) -> StageTemplate:
        names = [*(f.name for f in dataclasses.fields(StageTemplate)), "block"]
        stage = _mapping(value, names, place)
        for needed in ("embed", "dim"):
            if needed not in stage:
                raise InputError(f"a stage needs {needed}", value=needed, place=place)
        blocks = stage.get("blocks", [])
        if not isinstance(blocks, list):
            raise InputError("blocks is a list of blocks", value=blocks, place=f"{place}.blocks")
        inner = defaults | self._defaults(stage.get("block"), f"{place}.")
        return StageTemplate(
            **{name: self.scalar(stage, name, place) for name in ("dim", "class_token", "distill_token", "registers")},
            embed=self.specs("embed", stage["embed"], f"{place}.embed"),
            position=self.specs("position", stage.get("position", NONE), f"{place}.position"),
            blocks=tuple(self.block(block, f"{place}.blocks[{i}]", inner) for i, block in enumerate(blocks)),
            end_norm=self.specs("norm", stage.get("end_norm", NONE), f"{place}.end_norm"),
        )

    def block(self, value: Any, place: str, defaults: dict[str, Any]) -> BlockTemplate:
        names = [f.name for f in dataclasses.fields(BlockTemplate)]
        block = defaults | dict(_mapping(value, names, place))

        def operator(kind: str) -> tuple[Spec, ...]:
            return self.specs(kind, block.get(kind, NONE), f"{place}.{kind}")

        return BlockTemplate(
            repeat=self.scalar(block, "repeat", place),
            residual=self.scalar(block, "residual", place),
            layer_scale=self.scalar(block, "layer_scale", place),
            position=operator("position"),
            reduction=operator("reduction"),
            mixer=operator("mixer"),
            feedforward=operator("feedforward"),
            exit=operator("exit"),
            norm=self.specs("norm", block.get("norm", LAYER_NORM), f"{place}.norm"),
        )

    def scalar(self, mapping: Mapping[str, Any], name: str, place: str) -> tuple[Any, ...]:
        domain, default = _SCALARS[name]
        return _scalars(mapping.get(name, default), domain, f"{place}.{name}")

    def specs(self, kind: str, value: Any, place: str) -> tuple[Spec, ...]:
        entries = value if isinstance(value, list) else [value]
        if not entries:
            raise InputError("a list of choices has at least one entry", value="[]", place=place)
        made: list[Spec] = []
        seen: set[Spec] = set()
        for entry in entries:
            text = "none" if entry is None else str(entry) if isinstance(entry, Spec) else entry
            if not isinstance(text, str):
                raise InputError("an operator is written name or name(knob=value, ...)", value=entry, place=place)
            for spec in self.rules.specs(kind, text, place):
                if spec in seen:
                    raise InputError("each choice is listed once", value=str(spec), place=place)
                seen.add(spec)
                made.append(spec)
        self.options += len(made)
        if self.options > MAX_OPTIONS:
            raise InputError(f"at most {MAX_OPTIONS} operators with knobs in one file", value=self.options, place=place)
        return tuple(made)


def _mapping(value: Any, names: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError("a mapping is expected", value=value, place=place)
    for key in value:
        if key not in names:
            raise InputError("unknown key", value=key, place=place, nearest=nearest(str(key), names))
    return value


def _scalars(value: Any, domain: Domain, place: str) -> tuple[Any, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise InputError("a list of choices has at least one entry", value="[]", place=place)
    seen: set[Any] = set()
    for entry in values:
        if not domain.holds(entry):
            raise InputError(f"expected {domain.describe()}", value=entry, place=place)
        if entry in seen:
            raise InputError("each choice is listed once", value=entry, place=place)
        seen.add(entry)
    return tuple(values)


def _single(value: Any, domain: Domain, place: str) -> Any:
    values = _scalars(value, domain, place)
    if len(values) != 1:
        raise InputError("one value expected, a list of choices given", value=value, place=place)
    return values[0]


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= 100:
        raise InputError("a name is a text of 1 to 100 printable characters", value=value, place=place)
    return value
