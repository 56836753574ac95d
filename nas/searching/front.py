"""Front: the best networks of a search, measured again on the device, written where a person finds them.

A run's folder then holds trials.json (nas.reporting.finished), front.csv, and front/ (an architecture file each).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from nas.core.runs import write_whole
from nas.core.space import Space, write_architecture
from nas.latency.clock import Limits
from nas.latency.isolated import Worker
from nas.latency.latency import Latency
from nas.latency.measuring import measure
from nas.model.spaces import shared_rules
from nas.reporting.finished import DIRECTIONS, Row, over
from nas.reporting.pareto import front_of

TABLE, FOLDER = "front.csv", "front"
AGAIN = Limits(tolerance=0.01, min_pairs=12, max_pairs=80, seconds=3.0)  # a member, measured on the device
COLUMNS = (
    *("number", "accuracy", "accuracy_sigma", "estimator", "latency_ms", "latency_ms_sigma"),
    *("measured_ms", "measured_low", "measured_high", "macs", "params", "memory_mb", "peak_mb"),
    *("digest", "file", "notes"),
)

T = TypeVar("T")


def members(rows: Sequence[Row], objectives: Sequence[str], most: int) -> list[Row]:
    """The non-dominated feasible rows, cheapest first; of more than `most`, those evenly spread with both ends."""
    flat = [{**row, "excess": over(row)} for row in rows]
    found = [dict(row) for row in front_of(flat, {name: DIRECTIONS[name] for name in objectives})]
    along = next((name for name in objectives if name != "accuracy"), objectives[0])
    found.sort(key=lambda row: (row[along], -row.get("accuracy", 0.0)))
    different = [row for at, row in enumerate(found) if not at or any(row[n] != found[at - 1][n] for n in objectives)]
    return [{"number": number, **row} for number, row in enumerate(evenly(different, most), start=1)]


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many of a list, evenly along it with both its ends; where it is one, the middle."""
    if len(items) <= most:
        return list(items)
    if most < 2:
        return list(items[len(items) // 2 :][: max(most, 0)])
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


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
        named.append({**row, "file": str(path.relative_to(folder))})
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(named)
    write_whole(folder / TABLE, text.getvalue())
    return named
