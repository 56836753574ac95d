"""Latency on a device that is not at hand, from its data sheet: estimated, not measured, and marked so.

An operator takes as long as its products at the device's peak or its bytes at the memory's bandwidth, whichever is
longer, and an overhead. Bytes are those of the parameters and of the largest working set, each moved once. No operator
reaches a peak, so estimates are too low, by a factor that differs between operators: good for an order of networks and
for what cannot fit a limit, no more. Norms, activations and residual sums are in the overhead alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError, model_validator

from nas.core.data import data_folder
from nas.core.errors import InputError, nearest
from nas.core.yamlfile import load_yaml
from nas.latency.target import PRECISIONS, Target

if TYPE_CHECKING:
    from nas.core.architecture import Architecture
    from nas.core.cost import Cost

NOTICE = "estimated, not measured"
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}  # of an element
Precision = Literal["fp32", "bf16", "fp16"]
assert get_args(Precision) == PRECISIONS


class Sheet(BaseModel):
    """A data sheet; see latency_tables/datasheets.yaml for what the figures mean. Each figure has its source."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_min_length=1)

    name: str
    kind: Literal["cpu", "gpu"]
    macs_per_second: dict[Precision, PositiveFloat]
    bytes_per_second: PositiveFloat
    overhead_us: PositiveFloat
    cores: PositiveInt = 1
    core_bytes_per_second: PositiveFloat | None = None
    sources: dict[str, str]

    @model_validator(mode="after")
    def _sourced(self) -> Sheet:
        figures = self.model_fields_set - {"name", "kind", "sources"}
        if figures != set(self.sources):
            raise ValueError(f"each figure has its source: {', '.join(sorted(figures ^ set(self.sources)))}")
        return self

    def peaks(self, target: Target) -> tuple[float, float]:
        """MACs and bytes a second at the target's precision and threads."""
        if self.kind != target.kind:
            raise InputError(f"a data sheet of a {self.kind}, the target is a {target.kind}", value=self.name)
        if target.precision not in self.macs_per_second:
            offered = tuple(self.macs_per_second)
            raise InputError(f"{self.name} has no figure for the precision", value=target.precision, nearest=offered)
        peak: float = self.macs_per_second[target.precision]
        if self.kind == "gpu":
            return peak, self.bytes_per_second
        if target.threads > self.cores:
            raise InputError(f"{self.name} has {self.cores} cores", value=f"threads={target.threads}")
        share = self.core_bytes_per_second or self.bytes_per_second
        return target.threads * peak, min(self.bytes_per_second, target.threads * share)


class Part(NamedTuple):
    """One operator's estimate, and what it waits for: compute or memory."""

    kind: str
    operator: str
    ms: float
    bound: str


class Estimate(NamedTuple):
    """Milliseconds of a network, which data sheet they come from, and how they are made up."""

    ms: float
    sheet: str
    target: Target
    parts: tuple[Part, ...]
    text: str  # to be shown wherever the figure is
    estimated: bool = True


@cache
def sheets(path: str | Path | None = None) -> dict[str, Sheet]:
    """The data sheets shipped, or those of a file of one's own, in the order of the file; InputError if it is bad."""
    path = path or data_folder("latency_tables") / "datasheets.yaml"
    document = load_yaml(path)
    if not isinstance(document, dict) or not document:
        raise InputError("a file of data sheets maps names to sheets", place=str(path))
    return {str(name): _sheet(value, f"{path}: {name}") for name, value in document.items()}


def sheet(name: str, path: str | Path | None = None) -> Sheet:
    """A data sheet by name."""
    known = sheets(path)
    if name not in known:
        raise InputError("unknown device (no data sheet)", value=name, nearest=nearest(name, known))
    return known[name]


def default_sheet(kind: str) -> str:
    """The name of the data sheet that serves plain `cpu` or `gpu`: the first of its kind in the file."""
    return next(name for name, found in sheets().items() if found.kind == kind)


def estimate(architecture: Architecture, name: str, target: Target, path: str | Path | None = None) -> Estimate:
    """The latency of a network on the device of this data sheet. Nothing is built."""
    from nas.model.plan import places_of  # imports torch
    from nas.ops.catalogue import catalogue

    told, parts = sheet(name, path), []
    for place in places_of(catalogue(), architecture):
        ms, bound = operator_ms(place.cost(catalogue()), told, target)
        parts.append(Part(place.kind, str(place.spec), ms, bound))
    text = f"{NOTICE} (roofline of the data sheet of {told.name})"
    return Estimate(sum(part.ms for part in parts), name, target, tuple(parts), text)


def operator_ms(cost: Cost, told: Sheet, target: Target) -> tuple[float, str]:
    """Milliseconds of an operator of this cost, and whether compute or memory bounds it."""
    macs_per_second, bytes_per_second = told.peaks(target)
    macs = target.batch * (cost.macs + cost.transform / 2)  # two real operations are one multiply-accumulate
    moved = BYTES[target.precision] * (cost.params + target.batch * cost.activation)
    compute, memory = macs / macs_per_second, moved / bytes_per_second
    return 1e3 * max(compute, memory) + 1e-3 * told.overhead_us, "compute" if compute >= memory else "memory"


def _sheet(value: object, place: str) -> Sheet:
    """A sheet of plain values; the first thing wrong with it as an InputError."""
    try:
        return Sheet.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join([place, *map(str, first["loc"])])
        known = nearest(first["loc"][-1], Sheet.model_fields) if first["type"] == "extra_forbidden" else ()
        raise InputError(first["msg"], value=first["input"], place=where, nearest=known) from None
