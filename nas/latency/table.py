"""Table: latencies on one device in one runtime, at one precision, batch and number of threads, in one text file.

    # nas latency table
    # format: 1
    # device: Intel(R) Xeon(R) Processor       ... what was measured, how, and the reference that ratios refer to
    kind,spec,dim,...,ratio,low,high,pairs,date,note
    mixer,"softmax(head_dim=64, heads=3)",192,14,14,196,1,3,64,grid,0,,0.31234,...
    network,<digest>,,,,,,,,,,,1.2345,...
    # network <digest>: {"stages":[...]}       the architectures of these networks, one a line
    # sha256: ...                              of every byte before this line

Rows are sorted, so that two tables differ line by line; a reader of CSV that skips `#` reads the rows. A table is a
value: `with_row` gives another one. A file appears whole, so that a kill leaves the one before.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from nas.core.errors import InputError
from nas.core.runs import read_bounded, write_whole
from nas.latency.device import Device
from nas.latency.header import Header, read_header, same_reference
from nas.latency.row import COLUMNS, NETWORK, Key, Row, key_of, now, read_row, rounded, tidy
from nas.latency.target import Target
from nas.ops.site import Site

FORMAT = 1
MAX_BYTES = 20_000_000  # a table of 2,000 rows has half a megabyte
TITLE = "# nas latency table"
_SUM = "# sha256: "
_NETWORK = "# network "


@dataclass(frozen=True)
class Table:
    """A header and its rows by key."""

    header: Header
    rows: Mapping[Key, Row]

    @classmethod
    def new(
        cls,
        target: Target,
        device: Device,
        versions: Mapping[str, str],
        reference: str,
        reference_ms: float,
        reference_pairs: int = 0,
        *,
        macs_per_second: float | None = None,
        bytes_per_second: float | None = None,
        command: str = "",
        created: str = "",
    ) -> Table:
        """A table without rows; `reference` is the name and digest of the network that ratios refer to."""
        watts = None if device.power_limit_watts is None else rounded(device.power_limit_watts)
        device = replace(device, name=tidy(device.name, 200), power_limit_watts=watts)
        packages = tuple(sorted(versions.items()))
        ceilings = (macs_per_second, bytes_per_second)
        begun, how = created or now(), tidy(command, 10_000)
        header = Header(device, target, packages, reference, reference_ms, reference_pairs, begun, *ceilings, how)
        return cls(header, MappingProxyType({}))

    def with_row(self, row: Row) -> Table:
        """The table with this row, in place of an earlier one of the same key."""
        return Table(self.header, MappingProxyType({**self.rows, row.key: row}))

    def get(self, kind: str, spec: str, site: Site | None = None, context: Mapping[str, int | str] = {}) -> Row | None:
        """The row of an operator at a site, or of a network by its digest; None if it was not measured."""
        return self.rows.get(key_of(kind, spec, site, context))

    def ms(self, row: Row) -> float | None:
        """Milliseconds of a row; None where it failed."""
        return None if row.ratio is None else row.ratio * self.header.reference_ms

    def networks(self) -> list[Row]:
        """The whole networks, in order."""
        return [row for _, row in sorted(self.rows.items()) if row.kind == NETWORK]

    def operators(self) -> list[Row]:
        """The operators, in order."""
        return [row for _, row in sorted(self.rows.items()) if row.kind != NETWORK]

    @property
    def updated(self) -> str:
        """When the newest row was measured; when the table was begun, without rows."""
        return max((row.date for row in self.rows.values()), default=self.header.created)

    def check(
        self,
        target: Target,
        device: Device,
        versions: Mapping[str, str],
        allow: Collection[str] = frozenset(),
        place: str = "",
    ) -> None:
        """InputError naming each difference, where the table is of another device, target or torch; see Header."""
        self.header.check(target, device.key, versions, allow, place)

    def text(self) -> str:
        """The whole file."""
        ordered = [row for _, row in sorted(self.rows.items())]
        lines = [TITLE, f"# format: {FORMAT}", *(f"# {key}: {value}".rstrip() for key, value in self.header.lines())]
        lines += [f"# updated: {self.updated}", ",".join(COLUMNS), *(row.line for row in ordered)]
        lines += [f"{_NETWORK}{row.spec}: {row.architecture}" for row in ordered if row.kind == NETWORK]
        body = "\n".join(lines) + "\n"
        return f"{body}{_SUM}{hashlib.sha256(body.encode()).hexdigest()}\n"

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole; its folder is made. A few milliseconds at 2,000 rows, so after every row."""
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder cannot be made ({error.strerror})", place=str(Path(path).parent)) from None
        write_whole(path, self.text())


def read_table(path: str | os.PathLike[str]) -> Table:
    """The table of a file; InputError naming file, line and rule if it is damaged, altered, too large or too new."""
    place = os.fspath(path)
    lines = _sound_lines(read_bounded(path, MAX_BYTES, "a table"), place)
    start = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    header = _read_header(lines[2:start], place)
    rows_end = next((n for n in range(start, len(lines)) if lines[n].startswith("#")), len(lines))
    if start == len(lines) or lines[start] != ",".join(COLUMNS):
        raise InputError("after the header stand the names of the columns", place=f"{place}:{start + 1}")
    documents = _read_documents(lines, rows_end, place)
    rows: dict[Key, Row] = {}
    used = set()
    for number in range(start + 1, rows_end):
        try:
            (values,) = csv.reader([lines[number]], strict=True)
            row = read_row(values, documents.get(values[1], "") if values[0] == NETWORK and len(values) > 1 else "")
            if row.key in rows:
                raise InputError("each place has one row", value=lines[number])
        except (csv.Error, ValueError) as error:
            fault = error if isinstance(error, InputError) else InputError("a line is one row of CSV", lines[number])
            raise fault.with_place(f"{place}:{number + 1}") from None
        rows[row.key] = row
        used.add(row.spec)
    if not documents.keys() <= used:
        raise InputError("an architecture has its row", value=min(documents.keys() - used), place=place)
    return Table(header, MappingProxyType(rows))


def join(one: Table, two: Table) -> Table:
    """The rows of both tables of the same device and target; of two of the same place, the newer.

    Ratios are joined as they are: the reference is the same network, and its time is that of the first table.
    """
    header = same_reference(one.header, two.header)
    rows = dict(one.rows)
    for key, row in two.rows.items():
        if key not in rows or row.date > rows[key].date:
            rows[key] = row
    return Table(header, MappingProxyType(rows))


def _sound_lines(data: bytes, place: str) -> list[str]:
    """The lines of a file that is of a known format and unaltered, without the last."""
    start = data.split(b"\n", 2)
    if start[0] != TITLE.encode():
        raise InputError("not a latency table", value=start[0][:100], place=f"{place}:1")
    told = start[1].removeprefix(b"# format: ") if len(start) == 3 else b""
    if told.isdigit() and len(told) < 10 and int(told) > FORMAT:  # a newer one may well be checked in another way
        rule = f"the table is of a newer format than {FORMAT}: it is read by a newer version of this project"
        raise InputError(rule, value=int(told), place=f"{place}:2")
    if told != str(FORMAT).encode():
        raise InputError("the second line tells the format", value=start[1:2], place=f"{place}:2")
    body, mark, _ = data.rpartition(_SUM.encode())
    if not mark or data != body + f"{_SUM}{hashlib.sha256(body).hexdigest()}\n".encode():
        rule = "the table is damaged or was altered (its last line is the SHA-256 of all before)"
        raise InputError(rule, place=f"{place}:{len(data.splitlines())}")
    try:
        return body.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            "a table is UTF-8 text", place=f"{place}:{data.count(bytes([10]), 0, error.start) + 1}"
        ) from None


def _read_header(lines: list[str], place: str) -> Header:
    """The header of the lines `# key: value`, which begin at the third of the file."""
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 3):
        key, colon, value = line.removeprefix("# ").partition(":")
        if not colon or key in values:
            raise InputError("a line of the header is `# key: value`, each key once", line, f"{place}:{number}")
        values[key] = value.strip()
    values.pop("updated", None)
    try:
        header = read_header(values)
        if [key for key, _ in header.lines()] != list(values):
            raise InputError("the keys of the header are not those of this format", value=sorted(values))
        return header
    except KeyError as error:
        raise InputError("the header lacks a key", value=error.args[0], place=place) from None
    except InputError as error:
        raise error.with_place(f"{place}: header") from None


def _read_documents(lines: list[str], start: int, place: str) -> dict[str, str]:
    """Architectures by digest, from the lines after the rows."""
    documents: dict[str, str] = {}
    for number in range(start, len(lines)):
        digest, colon, text = lines[number].removeprefix(_NETWORK).partition(": ")
        if not lines[number].startswith(_NETWORK) or not colon or digest in documents:
            rule = "after the rows stand the architectures of the networks, each once"
            raise InputError(rule, lines[number], f"{place}:{number + 1}")
        documents[digest] = text
    return documents
