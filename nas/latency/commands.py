"""What `python -m nas.measure` does; each command returns a plain document, `text` writes it for a person."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path
from typing import Any

from nas.core.errors import InputError
from nas.core.progress import Progress as Shown
from nas.latency import remote as elsewhere
from nas.latency.clock import Limits
from nas.latency.device import Device, this_device, versions
from nas.latency.isolated import Worker
from nas.latency.latency import Latency
from nas.latency.measuring import measure
from nas.latency.predictor import MIN_NETWORKS, Predictor
from nas.latency.profile import Progress, new_table, plan, profile
from nas.latency.table import Table, join, read_table
from nas.latency.tables import Found, file_name, listed, user_folder
from nas.latency.tables import listing as list_tables
from nas.latency.target import resolve, told_target
from nas.latency.vendor import import_times, named_device
from nas.model.reference import named_network
from nas.model.spaces import load_named_space

BUNDLED = 100  # networks of a bundle
ONE = Limits(tolerance=0.003, min_pairs=40, max_pairs=400, seconds=20.0)
Say = Callable[[str], None]


def listing() -> dict[str, Any]:
    """The tables there are."""
    return {"tables": list_tables()}


def table(space_name: str, target_text: str, minutes: float, seed: int, command: str, say: Say) -> dict[str, Any]:
    """Begin this device's table, or go on with it, for so many minutes."""
    if not 0 < minutes <= 100_000:
        raise InputError("minutes are more than 0 and at most 100,000", value=minutes)
    resolved = resolve(target_text)
    target, space = resolved.target, load_named_space(space_name)
    if not resolved.present:
        raise InputError("a table is measured on a device of this machine", value=target.device)
    device = this_device(target)
    path = user_folder() / file_name(target, device)
    for notice in resolved.notices:
        say(notice)
    with Worker() as worker:
        if path.exists():
            held = read_table(path)
            held.check(target, device, versions(target), place=str(path))
            say(f"going on with {path}: {len(held.operators())} operators, {len(held.networks())} networks")
        else:
            say(f"beginning {path}: the reference network and the device's ceilings first")
            held = new_table(target, worker, command)
            held.write(path)
        with Shown(60 * minutes, "second", "") as shown:

            def told(now: Progress) -> None:
                what = "network" if now.last.place is None else str(now.last.place.spec)
                shown.update(now.seconds, operators=now.rows, networks=now.networks, failed=now.failed, last=what)

            held = profile(held, path, plan(space, seed), worker, minutes, told)
    return {"table": listed(Found(path, held)), **_quality(held)}


def one_network(name: str, target_text: str, allow: Collection[str]) -> dict[str, Any]:
    """One network on the target: measured where the device is here, and what the table or data sheet says of it."""
    latency, architecture = Latency(target_text, allow), named_network(name)
    result: dict[str, Any] = {
        "network": name,
        "target": str(latency.target),
        "source": latency.source,
        "notices": list(latency.notices),
        "unseen": latency.unseen(architecture),
    }
    if not result["unseen"]:
        predicted = latency.predict(architecture)
        result["predicted" if latency.measured else "estimated"] = predicted._asdict()
    if latency.present:
        with Worker() as worker:
            description = {"network": architecture.to_dict()}
            found = measure(worker, description, latency.target, ONE, latency.reference_ms)
        result["failed"] = found.failed
        result["measured"] = None if found.reading is None else found.reading.to_dict()
        result["peak_mb"], result["energy_mj"] = found.peak_mb, found.energy_mj
    return result


def import_csv(path: str, device: str | None, target_text: str, command: str) -> dict[str, Any]:
    """The table of another tool's times, joined to the one that this device has."""
    made = import_times(path, _named(device, target_text), told_target(target_text), command=command)
    return _kept(made)


def bundle(
    folder: str, host: str | None, device: str | None, space: str, target_text: str, seed: int, command: str, say: Say
) -> dict[str, Any]:
    """Networks of a space for a device without Python; with a host, measured there and brought in."""
    target = told_target(target_text)
    works = (work for work in plan(load_named_space(space), seed) if work.place is None)
    architectures = [work.architecture for work in islice(works, BUNDLED)]
    manifest = elsewhere.bundle(architectures, Path(folder), target, say=say)
    if host is None:
        return {"bundle": str(manifest.parent), "networks": len(architectures)}
    named = _named(device, target_text)
    elsewhere.remote(host, Path(folder), say=say)
    return _kept(elsewhere.import_bundle(Path(folder), named, command))


def text(result: dict[str, Any]) -> str:
    """A document of one of these commands, for a person."""
    if "tables" in result:
        return "\n".join(map(_table_line, result["tables"])) or "no tables"
    if "network" in result and "target" in result:
        return _network_text(result)
    if "bundle" in result:
        return f"{result['networks']} networks in {result['bundle']}: run measure.sh there, then --import results.csv"
    lines = [_table_line(result["table"])]
    if "error" in result:
        error = result["error"]
        lines.append(
            f"predictor: median error {error['median']:.1%}, {error['within_10']:.0%} within 10 %, of "
            f"{error['networks']} networks left out in turn"
        )
    elif "predictor" in result:
        lines.append(f"predictor: {result['predictor']}")
    return "\n".join(lines)


def _kept(made: Table) -> dict[str, Any]:
    """Write an imported table, joined to the one that is there."""
    path = user_folder() / file_name(made.header.target, made.header.device)
    held = join(read_table(path), made) if path.exists() else made
    held.write(path)
    return {"table": listed(Found(path, held)), **_quality(held)}


def _quality(held: Table) -> dict[str, Any]:
    """What the predictor of a table says of itself."""
    if len(held.networks()) < MIN_NETWORKS:
        return {"predictor": f"needs {MIN_NETWORKS} measured networks: measure for longer"}
    try:
        return {"error": Predictor(held).error._asdict()}
    except InputError as error:
        return {"predictor": str(error)}


def _named(device: str | None, target_text: str) -> Device:
    if device is None:
        raise InputError("times of another device need its name", value="--device")
    return named_device(device, told_target(target_text).kind)


def _table_line(row: dict[str, Any]) -> str:
    if row["damaged"]:
        return f"{row['file']}\n  DAMAGED: {row['damaged']}"
    return (
        f"{row['file']}\n  {row['device']}, {row['target']}, {row['versions']}\n  {row['operators']} operators, "
        f"{row['networks']} networks, {row['failed']} failed; updated {row['updated']}"
    )


def _network_text(result: dict[str, Any]) -> str:
    lines = [f"{result['network']} on {result['target']}", *(f"  {notice}" for notice in result["notices"])]
    reading = result.get("measured")
    if reading:
        low, high = (reading[end] * reading["reference_ms"] for end in ("low", "high"))
        lines.append(f"  measured   {reading['ms']:.2f} ms ({low:.2f} to {high:.2f}, {reading['pairs']} pairs)")
        lines += [f"             {note}" for note in reading["notes"]]
        lines.append(
            f"  memory     {result['peak_mb']:.0f} MB" if result["peak_mb"] is not None else "  memory     not told"
        )
    if result.get("failed"):
        lines.append(f"  failed     {result['failed']}")
    for word in ("predicted", "estimated"):
        if word in result:
            lines.append(f"  {word}  {result[word]['ms']:.2f} ms +- {result[word]['deviation_ms']:.2f}")
    if result["unseen"]:
        lines.append(f"  no prediction: the table has no row of {', '.join(result['unseen'])}")
    return "\n".join([*lines, f"  source     {result['source']}"])
