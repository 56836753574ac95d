"""Networks with published ImageNet-1k top-1: reference networks and their sizes (`search_spaces/published`).

A figure belongs to a training recipe as much as to a network, so each says from which family (one paper, one recipe) it
comes and what sets the recipe apart from 300 epochs on ImageNet-1k without a teacher.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from nas.core.architecture import NONE, Architecture, Block
from nas.core.data import data_folder
from nas.core.errors import InputError, nearest
from nas.core.spec import Spec
from nas.core.yamlfile import load_yaml
from nas.model.reference import Reference, load_reference, reference_names
from nas.ops.catalogue import catalogue, knob_defaults

Recipe = Literal["distilled", "long", "pretrained", "labelled"]
InBlock = Literal["position", "reduction", "mixer", "feedforward", "exit"]
RECIPES: tuple[str, ...] = get_args(Recipe)
IN_STAGE, IN_BLOCK = ("embed", "position"), get_args(InBlock)
Range = tuple[int, int, int]


class Published(NamedTuple):
    """A network, its top-1 in percent, and where that comes from; see the data file for family, fold and recipe."""

    name: str
    architecture: Architecture
    top1: float
    family: str
    fold: str
    recipe: frozenset[str]
    source: str
    params_m: str | None


class Entry(BaseModel):
    """One network of the data file, which says what its keys mean."""

    model_config = ConfigDict(extra="forbid")

    of: str | None = None
    input: int | None = None
    dims: list[int] | None = None
    depths: list[int | list[Range] | None] | None = None
    knobs: dict[str, Any] = {}
    drop: list[InBlock] = []
    params_m: str | None = None
    top1: float | None = None
    source: str | None = None
    family: str | None = None
    fold: str | None = None
    recipe: list[Recipe] | None = None


@cache
def published() -> tuple[Published, ...]:
    """All networks with a published figure, in alphabetical order of reference networks and of the others."""
    return read_published(data_folder("search_spaces") / "published" / "imagenet.yaml")


def read_published(path: Path) -> tuple[Published, ...]:
    """The networks of a data file, and the reference networks that it does not name."""
    document = load_yaml(path)
    entries = document.get("networks") if isinstance(document, dict) else None
    if not isinstance(entries, dict) or len(document) != 1:  # type: ignore[arg-type]
        raise InputError("a file of published networks has the one key networks", place=path.name)
    try:
        read = TypeAdapter(dict[str, Entry]).validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(first["msg"], value=first["input"], place=f"{path.name}: networks.{place}") from None
    references = _references()
    found = [_of_reference(one, read.get(name, Entry())) for name, one in references.items() if one.top1 is not None]
    known = {one.name: one for one in found}
    for name, entry in sorted(read.items()):
        place = f"{path.name}: networks.{name}"
        if entry.of is None:
            if name not in known:
                raise InputError(
                    "a reference network with top-1", value=name, place=place, nearest=nearest(name, known)
                )
            continue
        if entry.of not in known or name in references:
            rule = "of names a reference network with top-1, and the entry is none itself"
            raise InputError(rule, value=entry.of, place=place, nearest=nearest(entry.of, known))
        try:
            found.append(_changed(name, entry, known[entry.of]))
        except InputError as error:
            raise error.with_place(place) from error.__cause__
    return tuple(found)


@cache
def _references() -> dict[str, Reference]:
    return {name: load_reference(name) for name in reference_names()}


def _of_reference(reference: Reference, entry: Entry) -> Published:
    assert reference.top1 is not None
    family = entry.family or reference.name
    recipe = frozenset(entry.recipe or ())
    top1, source = float(reference.top1), reference.source
    return Published(
        reference.name, reference.architecture, top1, family, entry.fold or family, recipe, source, reference.params_m
    )


def _changed(name: str, entry: Entry, base: Published) -> Published:
    if entry.top1 is None or entry.source is None:
        raise InputError("a published network has top1 and its source")
    architecture = _sized(base.architecture, entry)
    for key, value in entry.knobs.items():
        architecture = _set(architecture, key, value)
    recipe = base.recipe if entry.recipe is None else frozenset(entry.recipe)
    family = entry.family or base.family
    fold = entry.fold or (base.fold if entry.family is None else family)
    return Published(name, architecture, entry.top1, family, fold, recipe, entry.source, entry.params_m)


def _sized(base: Architecture, entry: Entry) -> Architecture:
    """Another input, other widths and depths, and without what is dropped."""
    for key, values in (("dims", entry.dims), ("depths", entry.depths)):
        if values is not None and len(values) != len(base.stages):
            raise InputError(f"{key} has one value a stage, {len(base.stages)}", value=values)
    stages = []
    dropped: dict[str, Any] = dict.fromkeys(entry.drop, NONE)
    for number, stage in enumerate(base.stages):
        dim = stage.dim if entry.dims is None else entry.dims[number]
        depth = None if entry.depths is None else entry.depths[number]
        blocks = stage.blocks if depth is None else _repeated(stage.blocks, depth)
        blocks = tuple(dataclasses.replace(block, **dropped) for block in blocks)
        stages.append(dataclasses.replace(stage, dim=dim, blocks=blocks))
    return dataclasses.replace(base, stages=tuple(stages), input=entry.input or base.input)


def _repeated(blocks: tuple[Block, ...], depth: int | Iterable[Range]) -> tuple[Block, ...]:
    if isinstance(depth, int):
        if not blocks or any(block != blocks[0] for block in blocks):
            raise InputError("a stage of unlike blocks is lengthened by ranges [first, last, times]", value=depth)
        return blocks[:1] * depth
    made: tuple[Block, ...] = ()
    for first, last, times in depth:
        if not 0 <= first <= last < len(blocks):
            raise InputError(f"a range of the {len(blocks)} blocks of its stage", value=[first, last, times])
        made += blocks[first : last + 1] * times
    return made


def _set(base: Architecture, key: str, value: Any) -> Architecture:
    """The network with one value of a knob at every place that has it, or with one value a stage."""
    kind, _, knob = key.partition(".")
    operators = catalogue()
    found = 0

    def changed(spec: Spec, to: Any) -> Any:
        nonlocal found
        if to is None or spec is NONE or knob not in knob_defaults(operators.get(kind, spec.name)):
            return spec
        found += 1
        return operators.canonical(kind, Spec(spec.name, **{**dict(spec.knobs), knob: to}))

    values = value if isinstance(value, list) else [value] * len(base.stages)
    if len(values) != len(base.stages):
        raise InputError(f"{key} has one value, or one a stage, {len(base.stages)}", value=value)
    stages = []
    for stage, to in zip(base.stages, values, strict=True):
        if kind in IN_BLOCK:
            blocks = [dataclasses.replace(block, **{kind: changed(getattr(block, kind), to)}) for block in stage.blocks]
            stage = dataclasses.replace(stage, blocks=tuple(blocks))
        if kind in IN_STAGE:
            stage = dataclasses.replace(stage, **{kind: changed(getattr(stage, kind), to)})
        stages.append(stage)
    head = changed(base.head, value) if kind == "head" else base.head
    if not found:
        raise InputError("knobs are kind.knob, of an operator of the network", value=key)
    return dataclasses.replace(base, stages=tuple(stages), head=head)
