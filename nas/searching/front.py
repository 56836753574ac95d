"""Front: the best networks of a search, measured again on the device, written where a person finds them.

A run's folder then holds trials.json (every network with its figures), front.csv, front/ (an architecture file for each
member), and the picture of the first two objectives.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.core.errors import InputError
from nas.core.runs import read_json, write_json, write_whole
from nas.core.space import Space, write_architecture
from nas.core.units import Budget
from nas.latency.clock import Limits
from nas.latency.isolated import Worker
from nas.latency.latency import Latency
from nas.latency.measuring import measure
from nas.model.spaces import shared_rules
from nas.reporting.pareto import front_of
from nas.reporting.plots import Axis, write_pareto
from nas.searching.objective import DIRECTIONS
from nas.searching.results import SIGMA

TRIALS, TABLE, PICTURE, FOLDER = "trials.json", "front.csv", "front.png", "front"
AGAIN = Limits(tolerance=0.01, min_pairs=12, max_pairs=80, seconds=3.0)  # a member, measured on the device
COLUMNS = (
    *("number", "accuracy", "accuracy_sigma", "latency_ms", "latency_ms_sigma"),
    *("measured_ms", "measured_low", "measured_high", "macs", "params", "memory_mb", "peak_mb"),
    *("digest", "architecture", "notes"),
)
LABELS = {
    "accuracy": "accuracy estimate",
    "latency_ms": "latency (ms)",
    "macs": "multiply-accumulates",
    "params": "parameters",
    "memory_mb": "memory (MB)",
}

Row = dict[str, Any]


def members(rows: Sequence[Row], objectives: Sequence[str], most: int) -> list[Row]:
    """The non-dominated feasible rows, cheapest first; of more than `most`, those evenly spread with both ends."""
    flat = [{**row, "excess": over(row)} for row in rows]
    found = [dict(row) for row in front_of(flat, {name: DIRECTIONS[name] for name in objectives})]
    along = next((name for name in objectives if name != "accuracy"), objectives[0])
    found.sort(key=lambda row: (row[along], -row.get("accuracy", 0.0)))
    different = [row for at, row in enumerate(found) if not at or any(row[n] != found[at - 1][n] for n in objectives)]
    if len(different) > most:
        places = {round(i * (len(different) - 1) / (most - 1)) for i in range(most)} if most > 1 else {0}
        different = [different[place] for place in sorted(places)]
    return [{"number": number, **row} for number, row in enumerate(different, start=1)]


def over(row: Mapping[str, Any]) -> float:
    """How far a row is over its limits, 0 where it keeps them all and could be judged."""
    return max([0.0, *row["excess"].values()]) if isinstance(row["excess"], Mapping) else float(row["excess"])


def measured(front: Sequence[Row], latency: Latency, say: Callable[[str], None]) -> list[Row]:
    """Each member with its latency on the device, extracted; as it is where the device is not in this machine."""
    if not latency.present:
        say(f"not measured again: {latency.target} is not in this machine")
        return list(front)
    found = []
    with Worker() as worker:
        for row in front:
            description = {"network": row["architecture"]}
            told = measure(worker, description, latency.target, AGAIN, latency.reference_ms)
            reading = told.reading
            again: Row = {"notes": told.failed}
            if reading is not None:
                again = {"measured_ms": reading.ms, "notes": "; ".join(reading.notes), "peak_mb": told.peak_mb}
                again["measured_low"], again["measured_high"] = (
                    reading.ms * end / reading.ratio for end in (reading.low, reading.high)
                )
            found.append({**row, **again})
            say(f"measured {row['number']} of {len(front)}: " + (told.failed or f"{again['measured_ms']:.2f} ms"))
    return found


def write_front(folder: Path, front: Sequence[Row]) -> list[Row]:
    """An architecture file for each member, and the table; the rows with the files' names."""
    (folder / FOLDER).mkdir(exist_ok=True)
    named = []
    for row in front:
        path = folder / FOLDER / f"{row['number']:02}.yaml"
        architecture = Space.parse(row["architecture"], shared_rules(), f"member {row['number']}").only()
        write_whole(path, write_architecture(architecture, f"{folder.name}_{row['number']:02}"))
        named.append({**row, "architecture": str(path)})
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(named)
    write_whole(folder / TABLE, text.getvalue())
    return named


def write_trials(folder: Path, rows: Sequence[Row], objectives: Sequence[str], about: Mapping[str, Any]) -> None:
    """Every network that was evaluated, with a checksum."""
    write_json(folder / TRIALS, {"objectives": list(objectives), **about, "rows": json.loads(json.dumps(list(rows)))})


def draw(folder: Path, rows: Sequence[Row], objectives: Sequence[str], budget: Budget, title: str) -> Path | None:
    """The picture of the first two objectives, the second as the one across."""
    if len(objectives) < 2:
        return None
    up, across = objectives[:2]
    limits = budget.limits()
    x, y = (Axis(name, LABELS[name], DIRECTIONS[name], name + SIGMA, limits.get(name)) for name in (across, up))
    flat = [{**row, "excess": over(row)} for row in rows]
    write_pareto(folder / PICTURE, flat, x, y, title)
    return folder / PICTURE


def best_under(folder: Path, budget: Budget) -> Row:
    """Of a finished run, the network of the best accuracy that keeps a budget; InputError where none does."""
    told = read_json(folder / TRIALS)
    limits = budget.limits()
    kept = [row for row in told["rows"] if not row["reason"] and all(_within(row, limits))]
    if "accuracy" not in told["objectives"]:
        raise InputError("the run has no accuracy to choose by", place=str(folder))
    known = [row for row in kept if row["accuracy"] is not None]
    if not known:
        least = {name: min(row[name] for row in told["rows"] if row.get(name) is not None) for name in limits}
        rule = "no network of the run keeps this budget; the least that it has"
        raise InputError(f"{rule}: {', '.join(f'{k} {v:.6g}' for k, v in least.items())}", str(budget), str(folder))
    best: Row = max(known, key=lambda row: row["accuracy"])
    return best


def _within(row: Row, limits: Mapping[str, float]) -> list[bool]:
    """Whether each limit is kept; a figure that the run does not have is refused."""
    for name in limits:
        if name not in row:
            raise InputError("the run has no such figure", value=name, nearest=[key for key in LABELS if key in row])
    return [row[name] is not None and row[name] <= limit for name, limit in limits.items()]
