"""Times that another tool measured, brought into a table: a CSV of `architecture, ms`.

    architecture,ms,spread_ms
    nets/small.yaml,4.31,0.05
    3f6c...e2,17.9,0.2

`architecture` is the file of one, relative to the CSV, or the digest of one in a bundle's manifest beside the CSV.
Optional columns: `batch` and `precision` (checked against the target), `spread_ms` (the time is uncertain by so much
in both directions), `round` (a network measured in turn with the others; each round once) and `note` (a time may be
missing where it begins with `failed: `). The rows are whole networks; of operators such a tool knows nothing.
"""

from __future__ import annotations

import csv
import os
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nas.core.errors import InputError, nearest
from nas.core.runs import read_bounded, read_json
from nas.latency.device import Device, slug
from nas.latency.header import NO_REFERENCE
from nas.latency.row import FAILED, NETWORK, Row, json_text, now, read_count, read_number, tidy
from nas.latency.table import Table
from nas.latency.target import Target

if TYPE_CHECKING:
    from nas.core.architecture import Architecture

MANIFEST = "manifest.json"
MAX_BYTES = 20_000_000
MAX_SPREAD = 0.99  # of the time: an interval from nothing is none
REQUIRED = ("architecture", "ms")
OPTIONAL = ("batch", "precision", "spread_ms", "round", "note")
_FILE = re.compile(r"networks/[0-9a-f]{64}\.[a-z]{1,10}")
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class _Time:
    """One line of the CSV; ms is None where it failed."""

    digest: str
    ms: float | None
    spread_ms: float
    round: int
    note: str
    place: str


def named_device(name: str, kind: str = "cpu") -> Device:
    """A device that is not here, of which only the name is known."""
    return Device(kind, tidy(name, 200), slug(name), cores=0, instructions=(), memory_bytes=0)


def reference_name() -> str:
    """The clock's reference as a table names it: its name and the beginning of its digest."""
    from nas.latency.subject import REFERENCE, read  # torch

    return f"{REFERENCE['name']} {read(REFERENCE, 'the reference').digest[:16]}"


def import_times(
    path: str | os.PathLike[str],
    device: Device,
    target: Target,
    versions: Mapping[str, str] = {},
    command: str = "",
) -> Table:
    """The table of a CSV. InputError with file and line for the first thing that is wrong; nothing is guessed.

    Where the clock's reference was measured as well, ratios refer to it, round by round; else they are milliseconds.
    """
    networks = _Networks(Path(path))
    times = _read_times(Path(path), networks, target)
    grouped: dict[str, list[_Time]] = {}
    for time in times:
        grouped.setdefault(time.digest, []).append(time)
    by_round = {time.round: time.ms for time in grouped.get(networks.reference, []) if time.ms is not None}
    if by_round:
        reference_ms, reference = statistics.median(by_round.values()), reference_name()
    else:
        reference_ms, reference = 1.0, NO_REFERENCE
    table = Table.new(target, device, versions, reference, reference_ms, len(by_round), command=command)
    reference_ms, date = table.header.reference_ms, now()
    rows = [
        _row(networks.documents[digest], digest, found, by_round, reference_ms, date)
        for digest, found in grouped.items()
    ]
    rows += [
        Row(NETWORK, digest, date=date, note=tidy(why), architecture=networks.documents[digest])
        for digest, why in networks.failed.items()
        if digest not in grouped
    ]
    return Table(table.header, MappingProxyType({row.key: row for row in rows}))


def _row(
    document: str, digest: str, times: list[_Time], by_round: Mapping[int, float], reference_ms: float, date: str
) -> Row:
    """The row of one network: median of its rounds; the interval holds every round and its spread."""
    held = [(time, time.ms / by_round.get(time.round, reference_ms)) for time in times if time.ms is not None]
    if not held:
        return Row(NETWORK, digest, date=date, note=times[0].note, architecture=document)
    lows = [ratio * (1 - time.spread_ms / time.ms) for time, ratio in held if time.ms]
    highs = [ratio * (1 + time.spread_ms / time.ms) for time, ratio in held if time.ms]
    ratio = statistics.median(ratio for _, ratio in held)
    notes = list(dict.fromkeys(time.note for time in times if time.note))
    note = tidy("; ".join(["imported", *(n.replace(FAILED, "a round failed: ", 1) for n in notes)]))
    return Row(NETWORK, digest, None, (), ratio, min(lows), max(highs), len(held), date, note, document)


class _Networks:
    """The architectures that a CSV may name: files beside it, and those of a bundle's manifest beside it."""

    def __init__(self, path: Path):
        self._folder = path.parent
        self._files: dict[str, str] = {}
        self.documents: dict[str, str] = {}
        self.failed: dict[str, str] = {}  # those that could not be exported, and why
        self.reference = ""
        manifest = self._folder / MANIFEST
        if manifest.is_file():
            held = read_manifest(manifest)
            self.reference = held["reference"]
            for network in held["networks"]:
                digest = self._add(read_document(network["architecture"], str(manifest)))
                if network["failed"]:
                    self.failed[digest] = FAILED + network["failed"]

    def digest(self, name: str) -> str:
        """The digest of the architecture of a file or digest; InputError without a place if there is none."""
        if name in self.documents:
            return name
        if name not in self._files:
            if not name.endswith(_SUFFIXES):
                rule = f"an architecture is a file ({', '.join(_SUFFIXES)}) or a digest of {MANIFEST}"
                raise InputError(rule, value=name, nearest=nearest(name, self.documents) if self.documents else ())
            from nas.core.yamlfile import load_yaml

            file = str(self._folder / name)
            self._files[name] = self._add(read_document(load_yaml(file), file))
        return self._files[name]

    def _add(self, architecture: Architecture) -> str:
        self.documents[architecture.digest] = json_text(architecture.to_dict())
        return architecture.digest


def read_document(document: Any, place: str) -> Architecture:
    """The architecture of a document."""
    from nas.core.space import Space
    from nas.model.spaces import shared_rules

    return Space.parse(document, shared_rules(), place).only()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a bundle; InputError if it is damaged, altered or none."""
    manifest = read_json(path)
    keys = {"format", "target", "runner", "seconds", "rounds", "reference", "versions", "networks"}
    if not isinstance(manifest, dict) or set(manifest) != keys or manifest["format"] != 1:
        raise InputError("not the manifest of a bundle of format 1", place=str(path))
    for network in manifest["networks"]:
        if not _FILE.fullmatch(network["file"]) or Path(network["file"]).stem != network["digest"]:
            raise InputError("a network's file is networks/<digest>.<format>", value=network["file"], place=str(path))
    return manifest


def _read_times(path: Path, networks: _Networks, target: Target) -> list[_Time]:
    lines = _read(path).split("\n")
    names = [name.strip() for name in next(csv.reader(lines[:1], strict=True), [])]
    for name in names:
        if name not in (*REQUIRED, *OPTIONAL):
            near = nearest(name, (*REQUIRED, *OPTIONAL))
            raise InputError("unknown column in the first line", value=name, place=f"{path}:1", nearest=near)
    missing = [name for name in REQUIRED if name not in names]
    if missing or len(set(names)) != len(names):
        rule = "the first line names the columns, each once: architecture and ms, and more"
        raise InputError(rule, value=lines[0], place=f"{path}:1")
    times: dict[tuple[str, int], _Time] = {}
    for number, line in enumerate(lines[1:], 2):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            (fields,) = csv.reader([line], strict=True)
            if len(fields) != len(names):
                raise InputError(f"a line has {len(names)} columns, as the first has", value=line)
            time = _time({n: f.strip() for n, f in zip(names, fields, strict=True)}, networks, target, place)
        except csv.Error:
            raise InputError("a line is one row of CSV", value=line, place=place) from None
        except InputError as error:
            raise error.with_place(place) from None
        before = times.setdefault((time.digest, time.round), time)
        if before is not time:
            raise InputError(f"each network has one time a round (before: {before.place})", value=line, place=place)
    if not times:
        raise InputError("there is no time in the file", place=str(path))
    return list(times.values())


def _time(values: Mapping[str, str], networks: _Networks, target: Target, place: str) -> _Time:
    """One line."""
    for name, wanted in (("batch", str(target.batch)), ("precision", target.precision)):
        if values.get(name, wanted) != wanted:
            rule = f"the times are of {name} {wanted}, as the target says: import the others into a table of their own"
            raise InputError(rule, value=values[name])
    digest = networks.digest(values["architecture"])
    number = read_count(values["round"]) if "round" in values else 1
    note = tidy(values.get("note", ""))
    if not values["ms"] and note.startswith(FAILED) and note != FAILED.strip():
        return _Time(digest, None, 0.0, number, note, place)
    ms = read_number(values["ms"])
    spread = read_number(values["spread_ms"]) if values.get("spread_ms", "0").strip("0.") else 0.0
    if spread > MAX_SPREAD * ms:
        raise InputError("a spread is smaller than its time", value=spread)
    return _Time(digest, ms, spread, number, note, place)


def _read(path: Path) -> str:
    try:
        text = read_bounded(path, MAX_BYTES, "a CSV").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("a CSV is UTF-8 text", place=str(path)) from None
    if "\0" in text:
        raise InputError("a CSV has no zero byte", place=str(path))
    return text.replace("\r\n", "\n")
