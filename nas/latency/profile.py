"""Profiling a space on a device: which operators at which sites, which whole networks, in which order.

A large space has more places than can be measured. Rows are chosen so that each operator gets them in proportion to its
share of the work in random networks, and lies as far as may be from the rows that the operator has: few rows then tell
the most, and the order is such that measuring can stop anywhere. Whole networks, which correct the sum of the rows, are
chosen so that every operator occurs in many. The choice is a pure function of (space, seed), so that a run that was
ended goes on where it stopped.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from nas.core.architecture import Architecture
from nas.core.cost import Cost
from nas.core.errors import InputError
from nas.core.space import Space
from nas.latency.clock import Limits
from nas.latency.device import ceilings, this_device, versions
from nas.latency.isolated import Worker
from nas.latency.measuring import Measurement, measure
from nas.latency.operator_times import Frame
from nas.latency.row import NETWORK, Row, failed, key_of, measured
from nas.latency.subject import REFERENCE
from nas.latency.table import Table
from nas.latency.target import Target
from nas.latency.vendor import reference_name
from nas.model.plan import Place, places_of
from nas.ops.catalogue import Catalogue, catalogue

SAMPLED = 300  # random networks in which places are looked for
FAIR = 0.5  # exponent of an operator's share of the work: 0 as many rows for each, 1 in proportion
LONG = Limits(tolerance=0.001, min_pairs=200, max_pairs=500, seconds=10.0)
LOADS = 3  # of the reference network
CHUNK = 60  # rows, after which networks have their turn
PER_CHUNK = 8  # networks
ROW = Limits(tolerance=0.015, min_pairs=12, max_pairs=32, seconds=2.0)
WHOLE = Limits(tolerance=0.005, min_pairs=16, max_pairs=64, seconds=6.0)


class Work(NamedTuple):
    """One thing to measure: an operator where it stands in a network, or, without a place, the whole network."""

    architecture: Architecture
    place: Place | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Of its row in a table."""
        if self.place is None:
            return key_of(NETWORK, self.architecture.digest)
        return key_of(self.place.kind, str(self.place.spec), self.place.site, self.place.context)

    @property
    def description(self) -> dict[str, Any]:
        """For nas.latency.subject."""
        told: dict[str, Any] = {"network": self.architecture.to_dict()}
        return told if self.place is None else {**told, "operator": self.place.path}

    def row(self, found: Measurement) -> Row:
        """The row of what was found."""
        if self.place is None:
            kind, spec = NETWORK, self.architecture.digest
            where: dict[str, Any] = {"document": self.architecture.to_dict()}
        else:
            kind, spec = self.place.kind, str(self.place.spec)
            where = {"site": self.place.site, "context": self.place.context}
        if found.reading is None:
            return failed(kind, spec, found.failed, **where)
        return measured(kind, spec, found.reading, **where)


class Progress(NamedTuple):
    """Where a profile is: what the table has, seconds spent and left, and those in which the device ran networks."""

    rows: int
    networks: int
    failed: int
    seconds: float
    left: float
    device_seconds: float  # the rest is building, exporting and compiling, which another machine can do
    last: Work


def plan(space: Space, seed: int = 0, operators: Catalogue | None = None) -> Iterator[Work]:
    """Everything worth measuring, the most telling first; rows of one network stand together within a chunk."""
    operators = operators or catalogue()
    chance = Random(seed)
    networks = list({a.digest: a for a in (space.sample(chance) for _ in range(SAMPLED))}.values())
    rows = _rows(networks, operators)
    wholes = _wholes(networks, operators)
    order = {architecture.digest: number for number, architecture in enumerate(networks)}
    while True:
        chunk = [work for _, work in zip(range(CHUNK), rows, strict=False)]
        turn = [work for _, work in zip(range(PER_CHUNK), wholes, strict=False)]
        if not chunk and not turn:
            return
        yield from sorted(chunk, key=lambda work: order[work.architecture.digest])
        yield from turn


def new_table(target: Target, worker: Worker, command: str = "") -> Table:
    """An empty table of this device: its reference network measured for long, and its ceilings.

    A network that is loaded again may run at another speed (docs/log.md), so the reference is loaded several times, and
    the middle one counts.
    """
    readings = []
    for _ in range(LOADS):
        found = measure(worker, {"network": REFERENCE}, target, LONG)
        if found.reading is None:
            raise InputError(f"the reference network cannot be measured ({found.failed})", value=str(target))
        readings.append(found.reading)
    reading = sorted(readings, key=lambda own: own.reference_ms)[LOADS // 2]
    peaks, device = ceilings(target), this_device(target)
    return Table.new(
        target,
        device,
        versions(target),
        reference_name(),
        reading.reference_ms,
        reading.pairs,
        macs_per_second=peaks["macs_per_second"],
        bytes_per_second=peaks["bytes_per_second"],
        command=command,
    )


def profile(
    table: Table,
    path: Path,
    works: Iterator[Work],
    worker: Worker,
    minutes: float,
    report: Callable[[Progress], None] = lambda _: None,
) -> Table:
    """Measure what the table lacks, and write it after every row, for so many minutes.

    What failed is kept as a row, and not tried again. The table is returned as it is on disk.
    """
    target = table.header.target
    spent, running, limit = 0.0, 0.0, 60 * minutes
    for work in works:
        if work.key in table.rows:
            continue
        if spent >= limit:
            break
        limits = WHOLE if work.place is None else ROW
        start = time.monotonic()
        found = measure(worker, work.description, target, limits, table.header.reference_ms)
        spent += time.monotonic() - start
        running += found.reading.seconds if found.reading is not None else 0.0
        table = table.with_row(work.row(found))
        table.write(path)
        bad = sum(row.ratio is None for row in table.rows.values())
        left = max(0.0, limit - spent)
        report(Progress(len(table.operators()), len(table.networks()), bad, spent, left, running, work))
    return table


def _rows(networks: list[Architecture], operators: Catalogue) -> Iterator[Work]:
    """Operators at places, farthest first within each operator, operators in turns by their share of the work."""
    found: dict[tuple[str, str], dict[tuple[Any, ...], tuple[Work, Cost]]] = defaultdict(dict)
    share: dict[tuple[str, str], float] = defaultdict(float)
    for architecture in networks:
        for place in places_of(operators, architecture):
            name, cost = (place.kind, place.spec.name), place.cost(operators)
            share[name] += cost.macs + cost.transform + 30 * (cost.activation + place.site.rows * place.site.dim)
            work = Work(architecture, place)
            found[name].setdefault(work.key, (work, cost))
    spread = {name: _farthest_first(list(places.values())) for name, places in found.items()}
    turns = [(0.0, name) for name in sorted(spread)]
    heapq.heapify(turns)
    while turns:
        turn, name = heapq.heappop(turns)
        following = next(spread[name], None)
        if following is not None:
            yield following
            heapq.heappush(turns, (turn + 1 / share[name] ** FAIR, name))


def _farthest_first(places: list[tuple[Work, Cost]]) -> Iterator[Work]:
    """The place of the middle cost, then always the one that is farthest from all before."""
    told = [(work.place.spec, work.place.site, cost) for work, cost in places if work.place is not None]
    frame = Frame([spec for spec, _, _ in told])
    points = np.stack([frame.point(*one) for one in told])
    middle = int(np.argmin(((points - np.median(points, axis=0)) ** 2).sum(axis=1)))
    distance = np.full(len(places), math.inf)
    for _ in places:
        yield places[middle][0]
        distance = np.minimum(distance, ((points - points[middle]) ** 2).sum(axis=1))
        distance[middle] = -1.0
        middle = int(np.argmax(distance))


def _wholes(networks: list[Architecture], operators: Catalogue) -> Iterator[Work]:
    """Networks, always the one whose operators have occurred least in those before."""
    names = [{(place.kind, place.spec.name) for place in places_of(operators, a)} for a in networks]
    seen: dict[tuple[str, str], int] = defaultdict(int)
    left = dict(enumerate(names))
    while left:
        best = max(left, key=lambda number: sum(1 / (1 + seen[name]) for name in left[number]) / len(left[number]))
        for name in left.pop(best):
            seen[name] += 1
        yield Work(networks[best])
