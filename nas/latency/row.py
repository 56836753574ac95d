"""Row: what was found at one place of a table: an operator at a site, or a whole network, against the reference.

Numbers are kept to five significant digits, so that what is written is what is read back, and files stay small.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeAlias

from nas.core.errors import InputError
from nas.latency.clock import Reading
from nas.ops.site import Site

NETWORK = "network"  # the kind of a whole network; its spec is the architecture's digest
FAILED = "failed: "  # how the note of a row without a latency starts
DIGITS = 5
MAX_TEXT = 2000  # characters of a spec or note
MAX_COUNT = 10**15
COLUMNS = ("kind", "spec", *Site._fields, "context", "ratio", "low", "high", "pairs", "date", "note")

Key: TypeAlias = tuple[str, str, tuple[Any, ...], str]
_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,100}")
_COUNT = re.compile(r"0|[1-9][0-9]{0,14}")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?(e[-+][0-9]+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def now() -> str:
    """The date and time of a row: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rounded(number: float) -> float:
    """A positive finite number to five significant digits."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InputError("a number is expected", value=number)
    short = float(f"{number:.{DIGITS}g}")
    if not (math.isfinite(short) and short > 0):
        raise InputError("numbers are finite and positive", value=number)
    return short


def number_text(number: float | None) -> str:
    """How a rounded number is written; nothing for None."""
    return "" if number is None else f"{number:.{DIGITS}g}"


def read_number(text: str) -> float:
    """The number of a field, which is decimal and positive."""
    if not _NUMBER.fullmatch(text):
        raise InputError("numbers are finite and positive decimals", value=text)
    return rounded(float(text))


def read_count(text: str) -> int:
    """The whole number of a field."""
    if not _COUNT.fullmatch(text):
        raise InputError("a whole number, 0 or more, is expected", value=text)
    return int(text)


def whole(count: int) -> int:
    """The count, if it is a whole number from 0 on that a table can hold."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < MAX_COUNT:
        raise InputError("a whole number, 0 or more, is expected", value=count)
    return count


def one_line(text: str, what: str, longest: int = MAX_TEXT) -> str:
    """The text, if it can stand in one line of a table."""
    if len(text) > longest or not text.isprintable() or text != text.strip():
        raise InputError(f"a {what} is at most {longest} printable characters without spaces around", value=text)
    return text


def date_text(text: str) -> str:
    """The text, if it is a date as `now` writes it."""
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        datetime.fromisoformat(text)
    except ValueError:
        raise InputError("a date is written 2026-11-21T15:42:10Z", value=text) from None
    return text


@dataclass(frozen=True)
class Row:
    """One row. Made by `measured` and `failed`; the constructor refuses what a table cannot hold.

    kind          `mixer`, `head`, ...; `network` for a whole one
    spec          the operator with its knobs, `window(heads=4, size=7)`; the architecture's digest of a network
    site          where the operator stands; None for a network
    context       what else its latency depends on, by name: `{"classes": 1000}` of a head
    ratio         of its time to the reference's; low and high end its 95 % interval. None where it failed
    pairs         how many pairs of calls were measured
    date          UTC, as `now` writes it
    note          what disturbed it (busy, drift), or `failed: out of memory`
    architecture  of a network: its document as JSON, so that a table needs nothing beside it
    """

    kind: str
    spec: str
    site: Site | None = None
    context: tuple[tuple[str, int | str], ...] = ()
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    date: str = ""
    note: str = ""
    architecture: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.kind):
            raise InputError("a kind is a lowercase word", value=self.kind)
        if not one_line(self.spec, "spec"):
            raise InputError("a row has a spec")
        for name, value in self.context:
            if not _NAME.fullmatch(name) or _context_value(str(value)) != value or isinstance(value, bool):
                raise InputError("a context has names with a whole number or a word each", value=f"{name}={value!r}")
        if list(dict(self.context)) != sorted(name for name, _ in self.context):
            raise InputError("a context is in order and names each thing once", value=self.context_text)
        date_text(self.date)
        one_line(self.note, "note")
        self._check_numbers()
        self._check_network()

    def _check_numbers(self) -> None:
        whole(self.pairs)
        if self.failed_because:
            if (self.ratio, self.low, self.high) != (None, None, None):
                raise InputError("a row that failed has no latency", value=self.note)
            return
        if self.ratio is None or self.low is None or self.high is None or not self.pairs:
            raise InputError("a row has ratio, low, high and pairs, or a note `failed: why`", value=self.note)
        for name in ("ratio", "low", "high"):
            object.__setattr__(self, name, rounded(getattr(self, name)))
        if not self.low <= self.ratio <= self.high:
            raise InputError("low, ratio and high are in this order", value=(self.low, self.ratio, self.high))

    def _check_network(self) -> None:
        if self.kind != NETWORK:
            if self.site is None or self.architecture:
                raise InputError("an operator's row has a site and no architecture", value=self.spec)
            for count in self.site[:-2] + self.site[-1:]:  # all but the layout
                whole(count)
            if not _NAME.fullmatch(self.site.layout):
                raise InputError("a layout is a lowercase word", value=self.site.layout)
        elif self.site is not None or digest_of(self.document) != self.spec:
            raise InputError("a network's row has no site, and the digest of its architecture as spec", value=self.spec)

    @property
    def failed_because(self) -> str:
        """Why there is no latency; empty where there is one."""
        return self.note.removeprefix(FAILED) if self.note.startswith(FAILED) else ""

    @property
    def document(self) -> dict[str, Any]:
        """The architecture of a network's row, as `Architecture.to_dict` gave it."""
        try:
            document = json.loads(self.architecture, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise InputError("a network's row carries its architecture as a JSON mapping", value=self.architecture)
        return document

    @property
    def context_text(self) -> str:
        """`classes=1000;input=224`."""
        return ";".join(f"{name}={value}" for name, value in self.context)

    @cached_property
    def key(self) -> Key:
        """What tells rows apart; a table is sorted by it."""
        return key_of(self.kind, self.spec, self.site, dict(self.context))

    @cached_property
    def line(self) -> str:
        """The row as CSV, without its architecture."""
        site = ("",) * len(Site._fields) if self.site is None else self.site
        numbers = map(number_text, (self.ratio, self.low, self.high))
        return csv_line((self.kind, self.spec, *site, self.context_text, *numbers, self.pairs, self.date, self.note))


def key_of(kind: str, spec: str, site: Site | None = None, context: Mapping[str, int | str] = {}) -> Key:
    """The key that the row of an operator at a site (or of a network by its digest) has."""
    written = ";".join(f"{name}={value}" for name, value in sorted(context.items()))
    return kind, spec, () if site is None else tuple(site), written


def measured(
    kind: str,
    spec: str,
    reading: Reading,
    *,
    site: Site | None = None,
    context: Mapping[str, int | str] = {},
    document: Mapping[str, Any] | None = None,
    date: str = "",
) -> Row:
    """The row of a reading of the clock; without a date, of now. `document` is the architecture of a network."""
    notes = [*reading.notes, *([] if reading.settled else ["unsettled: the time was up"])]
    return Row(
        kind,
        spec,
        site,
        tuple(sorted(context.items())),
        reading.ratio,
        reading.low,
        reading.high,
        reading.pairs,
        date or now(),
        tidy("; ".join(notes)),
        json_text(document),
    )


def failed(
    kind: str,
    spec: str,
    reason: str,
    *,
    site: Site | None = None,
    context: Mapping[str, int | str] = {},
    document: Mapping[str, Any] | None = None,
    date: str = "",
) -> Row:
    """The row of what could not be measured: `failed: out of memory`."""
    note = FAILED + (tidy(reason) or "for an unknown reason")
    written = json_text(document)
    return Row(kind, spec, site, tuple(sorted(context.items())), date=date or now(), note=note, architecture=written)


def read_row(fields: Sequence[str], architecture: str = "") -> Row:
    """The row of the fields of a line, as `Row.line` has them."""
    if len(fields) != len(COLUMNS):
        raise InputError(f"a row has {len(COLUMNS)} columns", value=len(fields))
    values = dict(zip(COLUMNS, fields, strict=True))
    places = [values[name] for name in Site._fields]
    site = None
    if any(places):
        counts = {n: read_count(values[n]) for n in Site._fields if n != "layout"}
        site = Site(**counts, layout=values["layout"])
    ratio, low, high = (read_number(values[name]) if values[name] else None for name in ("ratio", "low", "high"))
    pairs = read_count(values["pairs"])
    context = _read_context(values["context"])
    kind, spec, date, note = (values[name] for name in ("kind", "spec", "date", "note"))
    return Row(kind, spec, site, context, ratio, low, high, pairs, date, note, architecture)


def csv_line(fields: Sequence[object]) -> str:
    """One line of CSV, without its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


def json_text(document: Mapping[str, Any] | None) -> str:
    """A document as compact JSON on one line; nothing for None."""
    return "" if document is None else json.dumps(document, separators=(",", ":"), allow_nan=False)


def digest_of(document: Mapping[str, Any]) -> str:
    """What `Architecture.digest` is for the architecture of this document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _read_context(text: str) -> tuple[tuple[str, int | str], ...]:
    parts = [part.partition("=") for part in text.split(";")] if text else []
    return tuple((name, _context_value(value)) for name, _, value in parts)


def _context_value(text: str) -> int | str:
    """A whole number, or a word."""
    if not _WORD.fullmatch(text):
        raise InputError("the value of a context is a whole number or a word", value=text)
    return int(text) if _COUNT.fullmatch(text) else text


def tidy(text: str, longest: int = 300) -> str:
    """A text on one line of at most so many characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else line[: longest - 3].rstrip() + "..."


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")
