"""Ground truths: networks with accuracies that somebody trained or measured, to hold estimators against.

A truth is two files in search_spaces/truth: `<name>.yaml` says where the figures come from and what each column is, and
`<name>.csv` has one line a network: `digest`, one column a figure (percent, empty where there is none), and
`architecture`, its file form as one line of JSON. The yaml has the checksum of the csv.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from nas.core.architecture import Architecture
from nas.core.data import data_folder
from nas.core.errors import InputError, nearest
from nas.core.runs import read_bounded, write_whole
from nas.core.space import Space
from nas.core.yamlfile import dump_yaml, load_yaml
from nas.model.spaces import load_named_space, shared_rules

MAX_BYTES = 100_000_000
MIN_NETWORKS = 3
_FIRST, _LAST = "digest", "architecture"


class Column(BaseModel):
    """One figure of each network. kind: trained on its own, or weights inherited from a supernet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    kind: Literal["trained", "inherited"] = "trained"
    unit: Literal["top-1 %"] = "top-1 %"


class Header(BaseModel):
    """What a truth says of itself. `space` is the shipped space that its networks belong to, if they belong to one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    source: str
    licence: str
    space: str | None = None
    columns: dict[str, Column]
    sha256: str = ""


@dataclass(frozen=True)
class Truth:
    """Networks and their figures; a row of `figures` has one value a column, None where there is none."""

    name: str
    header: Header
    architectures: tuple[Architecture, ...]
    figures: tuple[tuple[float | None, ...], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the figures."""
        return tuple(self.header.columns)

    def known(self, column: str) -> tuple[list[Architecture], list[float]]:
        """The networks that have this figure, with it."""
        if column not in self.columns:
            raise InputError("unknown column", value=column, place=self.name, nearest=nearest(column, self.columns))
        place = self.columns.index(column)
        pairs = [(a, row[place]) for a, row in zip(self.architectures, self.figures, strict=True)]
        return [a for a, value in pairs if value is not None], [value for _, value in pairs if value is not None]


def truth_names() -> list[str]:
    """The truths shipped, in alphabetical order."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_truth(name: str, folder: Path | None = None) -> Truth:
    """A truth by name, checked: its checksum, each digest, each figure."""
    where = folder or _folder()
    path = where / f"{name}.yaml"
    if not path.is_file():
        names = [known.stem for known in where.glob("*.yaml")]
        raise InputError("unknown ground truth", value=name, nearest=nearest(name, names))
    try:
        header = Header.model_validate(load_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(first["msg"], place=f"{path}: {'.'.join(map(str, first['loc']))}") from None
    table = path.with_suffix(".csv")
    data = read_bounded(table, MAX_BYTES, "a ground truth")
    if hashlib.sha256(data).hexdigest() != header.sha256:
        raise InputError("the file is damaged or was altered (the checksum differs)", place=str(table))
    architectures, figures = _rows(data, header, str(table))
    return Truth(name, header, architectures, figures)


def write_truth(
    folder: Path, name: str, header: Mapping[str, Any], networks: Sequence[tuple[Architecture, Sequence[float | None]]]
) -> None:
    """Write a truth's two files, in a folder that is made where there is none: the networks with one figure a column
    of the header, in its order."""
    checked = Header.model_validate(dict(header))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_FIRST, *checked.columns, _LAST])
    for architecture, figures in networks:
        document = json.dumps(architecture.to_dict(), separators=(",", ":"), sort_keys=True)
        cells = ["" if figure is None else f"{figure:g}" for figure in figures]
        writer.writerow([architecture.digest, *cells, document])
    data = text.getvalue().encode()
    _rows(data, checked, f"{name}.csv")
    full = checked.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name}.csv", data)
    write_whole(folder / f"{name}.yaml", dump_yaml(full.model_dump()))


def _rows(
    data: bytes, header: Header, place: str
) -> tuple[tuple[Architecture, ...], tuple[tuple[float | None, ...], ...]]:
    """The networks of a csv and their figures."""
    try:
        lines = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a csv file ({error})", place=place) from None
    names = [_FIRST, *header.columns, _LAST]
    if not lines or lines[0] != names:
        raise InputError(f"the columns are {', '.join(names)}", value=lines[0] if lines else [], place=place)
    space = load_named_space(header.space) if header.space else None
    architectures: list[Architecture] = []
    figures: list[tuple[float | None, ...]] = []
    for number, line in enumerate(lines[1:], start=2):
        where = f"{place}:{number}"
        if len(line) != len(names):
            raise InputError(f"a line has {len(names)} cells", value=len(line), place=where)
        architectures.append(_architecture(line[-1], line[0], space, where))
        figures.append(tuple(_figure(cell, where) for cell in line[1:-1]))
    if len({a.digest for a in architectures}) < len(architectures) or len(architectures) < MIN_NETWORKS:
        raise InputError(f"a truth has {MIN_NETWORKS} networks or more, each once", value=len(lines) - 1, place=place)
    return tuple(architectures), tuple(figures)


def _architecture(document: str, digest: str, space: Space | None, place: str) -> Architecture:
    try:
        found = Space.parse(json.loads(document), shared_rules(), place).only()
    except json.JSONDecodeError as error:
        raise InputError(f"an architecture is JSON ({error})", value=document, place=place) from None
    if found.digest != digest:
        raise InputError("the digest is not that of the architecture", value=digest, place=place)
    if space is not None and found not in space:
        raise InputError(f"the network is not in the space {space.name}", value=digest[:12], place=place)
    return found


def _figure(cell: str, place: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise InputError("an accuracy is a percentage, or nothing", value=cell, place=place)
    return value


def _folder() -> Path:
    return data_folder("search_spaces") / "truth"
