"""An imagined device, whose latencies are formulas."""

from collections.abc import Iterable
from types import MappingProxyType

from nas.core.architecture import Architecture
from nas.latency.clock import Reading
from nas.latency.device import Device, this_device
from nas.latency.measuring import Measurement
from nas.latency.profile import Work
from nas.latency.table import Table
from nas.latency.target import Target
from nas.model.plan import Place, places_of
from nas.ops.catalogue import catalogue

OPERATORS = catalogue()
REFERENCE_MS = 4.0
TARGET = Target()


def true_ratio(place: Place) -> float:
    """What an operator costs on an imagined device: a constant, products, and elements moved."""
    cost = place.cost(OPERATORS)
    return 0.01 + cost.macs / 3e7 + cost.activation / 2e6


def true_whole(architecture: Architecture) -> float:
    """Inside a network each operator costs a tenth less than alone, and every block has a price."""
    inside = sum(0.9 * true_ratio(place) for place in places_of(OPERATORS, architecture))
    return inside + 0.02 * len(list(architecture.blocks)) + 0.05


def outcome(ratio: float) -> Measurement:
    reading = Reading(ratio, 0.998 * ratio, 1.002 * ratio, 0.01, ratio, 1.0, 20, 1.0, True, 0.0, 0.0, 0)
    return Measurement({"reading": reading.to_dict()})


def empty(device: Device | None = None, versions: dict[str, str] | None = None, target: Target = TARGET) -> Table:
    device = device or this_device(target)
    return Table.new(target, device, versions or {"torch": "2.15.0"}, "reference", REFERENCE_MS, 100)


def filled(works: Iterable[Work], start: Table | None = None) -> Table:
    rows = {}
    for work in works:
        ratio = true_whole(work.architecture) if work.place is None else true_ratio(work.place)
        row = work.row(outcome(ratio))
        rows[row.key] = row
    return Table((start or empty()).header, MappingProxyType(rows))
