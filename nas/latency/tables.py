"""Tables on this machine: the user's own and those shipped; which one serves a target, and what to say of it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nas.core.data import data_folder
from nas.core.errors import InputError
from nas.latency.device import Device
from nas.latency.header import check_allowed
from nas.latency.row import NETWORK
from nas.latency.table import Table, read_table
from nas.latency.target import Request, Target

FOLDER = "latency_tables"
VARIABLE = "NAS_TABLES"
ESTIMATED = "estimated, not measured"


class Found(NamedTuple):
    """A file in a folder of tables: its table, or why it cannot be read."""

    path: Path
    table: Table | None
    damage: str = ""


class Choice(NamedTuple):
    """The table for a target, or None where only an estimate is left; own, if it was measured on this very device."""

    table: Table | None
    path: Path | None
    own: bool
    notice: str = ""


def user_folder() -> Path:
    """Where new tables go: $NAS_TABLES, or ./latency_tables if it is there, or the user's data folder."""
    if told := os.environ.get(VARIABLE):
        return Path(told)
    if Path(FOLDER).is_dir():
        return Path(FOLDER)
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "nas" / FOLDER


def folders() -> list[Path]:
    """The user's folder, then the shipped one; one that is not there is left out, and each stands once."""
    known = {folder.resolve(): folder for folder in (data_folder(FOLDER), user_folder()) if folder.is_dir()}
    return list(reversed(known.values()))


def file_name(target: Target, device: Device) -> str:
    """`intel-xeon_openvino_fp32_t1_b1.csv`: one file for a device and everything of a target."""
    parts = [device.key, target.runtime, target.precision, f"t{target.threads}", f"b{target.batch}"]
    parts += [name for name in ("channels_last", "graph") if getattr(target, name)]
    return "_".join(parts) + ".csv"


def tables(where: Iterable[Path] | None = None) -> list[Found]:
    """Every table of the folders (those of `folders()` unless told), in order of folder and name; damaged ones too."""
    found = []
    for folder in folders() if where is None else where:
        for path in sorted(folder.glob("*.csv")):
            try:
                found.append(Found(path, read_table(path)))
            except InputError as error:
                found.append(Found(path, None, str(error)))
    return found


def listing(where: Iterable[Path] | None = None) -> list[dict[str, Any]]:
    """What there is, one row a file, for a person or for JSON."""
    return [listed(found) for found in tables(where)]


def left_open(request: Request) -> frozenset[str]:
    """What a request does not say, of what a table may then decide."""
    return frozenset(name for name in ("runtime", "precision", "threads", "batch") if getattr(request, name) is None)


def choose(
    target: Target,
    device: Device | None,
    versions: Mapping[str, str],
    allow: Collection[str] = frozenset(),
    open_to: Collection[str] = frozenset(),
    where: Iterable[Path] | None = None,
) -> Choice:
    """The table for a target: this device's; else another device's of that kind, said so; else None, said so as well.

    device    this machine's; None where it has none of the kind
    allow     what may differ from the target although it was asked for (`batch`, `torch`)
    open_to   what may differ because it was not asked for (see `left_open`), where the device is not here: the table
              says the target then

    Of several that serve, the one with most rows. One of this device that differs in more is named, and not used.
    """
    check_allowed(allow, versions)
    free = {"device", *allow, *(open_to if device is None else ())}
    own: list[tuple[Path, Table]] = []
    others: list[tuple[Path, Table]] = []
    refused = []
    for path, table, _ in tables(where):
        if table is None:
            continue
        differences = table.header.differences(target, "" if device is None else device.key, versions)
        left = sorted(differences.keys() - free)
        if not left:
            (others if "device" in differences else own).append((path, table))
        elif "device" not in differences:
            refused.append((len(left), f"{path.name}: another {', '.join(left)}"))
    if own:
        path, table = max(own, key=_size)
        return Choice(table, path, True)
    hint = f"; a table of this device is not used ({min(refused)[1]})" if refused else ""
    if others:
        path, table = max(others, key=_size)
        return Choice(table, path, False, f"measured on {table.header.device.name}, not on this machine{hint}")
    notice = f"{ESTIMATED}: there is no table for {target}, so latencies come from a roofline of the device{hint}"
    return Choice(None, None, False, notice)


def _size(found: tuple[Path, Table]) -> int:
    return len(found[1].rows)


def listed(found: Found) -> dict[str, Any]:
    """One file, for a person or for JSON."""
    if found.table is None:
        return {"file": str(found.path), "damaged": found.damage}
    header, rows = found.table.header, found.table.rows.values()
    return {
        "file": str(found.path),
        "damaged": "",
        "device": header.device.name,
        "target": str(header.target),
        "versions": ", ".join(f"{name} {version}" for name, version in header.versions),
        "operators": sum(row.kind != NETWORK and not row.failed_because for row in rows),
        "networks": sum(row.kind == NETWORK and not row.failed_because for row in rows),
        "failed": sum(bool(row.failed_because) for row in rows),
        "reference_ms": header.reference_ms,
        "updated": found.table.updated,
    }
