"""Operators: what each needs, what it costs at a site, and its time beside softmax attention in a small network.

Each operator stands at its first example in a small network of width 96 on a grid of 14 x 14 (or the first on which it
is legal). Times are medians of interleaved passes, one thread, batch 1; `relative` is the operator's time over that of
softmax attention with two heads in the same network.
"""

from __future__ import annotations

import argparse
from typing import Any

HELP = "every operator: needs, cost at a site, time relative to softmax attention"
DIM = 96


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="NAMES", help="operators, joined by commas (default: all)")
    parser.add_argument("--passes", type=int, default=20, help="timed passes, 0 for none (default: 20)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One row an operator."""
    import torch

    from nas.core.errors import InputError, nearest
    from nas.latency.device import ceilings
    from nas.latency.target import Target
    from nas.ops.catalogue import catalogue

    known = [(kind, name) for kind, name, _ in catalogue().every()]
    names = {name for _, name in known}
    wanted = {name.strip() for name in options.only.split(",")} if options.only else names
    for name in sorted(wanted - names):
        raise InputError("unknown operator", value=name, nearest=nearest(name, names))
    torch.set_num_threads(1)
    peaks = ceilings(Target()) if options.passes else None
    rows = [measure(kind, name, options.passes) for kind, name in known if name in wanted]
    if peaks is not None:
        for row in rows:
            row |= achieved(row, peaks)
    return {"operators": rows, "ceilings": peaks}


def achieved(row: dict[str, Any], peaks: dict[str, float]) -> dict[str, float]:
    """Work a second, and its share of what the device does at most."""
    seconds = row["ms"] / 1e3
    macs = row["cost"]["macs"] / seconds
    moved = 4 * (row["cost"]["activation"] + row["cost"]["params"]) / seconds  # at least; single precision
    return {
        "macs_per_second": macs,
        "of_peak_macs": macs / peaks["macs_per_second"],
        "bytes_per_second": moved,
        "of_peak_bytes": moved / peaks["bytes_per_second"],
    }


def measure(kind: str, name: str, passes: int) -> dict[str, Any]:
    """The row of one operator."""
    from random import Random

    from nas.model.around import spaces_around
    from nas.model.network import Network
    from nas.ops.catalogue import catalogue

    cls = catalogue().get(kind, name)
    architecture = spaces_around(catalogue(), kind, name, (DIM,))[0].sample(Random(0))
    network = Network(architecture).eval()
    spec, site, cost = placed(architecture, kind, name)
    row = {
        "kind": kind,
        "name": name,
        "paper": paper(cls),
        "needs": needs(cls),
        "spec": str(spec),
        "site": {"dim": site.dim, "grid": list(site.grid), "prefix": site.prefix},
        "cost": cost._asdict(),
    }
    return row | (timing(network, kind, name, passes) if passes else {})


def placed(architecture: Any, kind: str, name: str) -> tuple[Any, Any, Any]:
    """(spec, site, cost) of the operator where it first stands in the network."""
    from nas.model.plan import places_of
    from nas.ops.catalogue import catalogue

    for place in places_of(catalogue(), architecture):
        if place.kind == kind and place.spec.name == name:
            return place.spec, place.site, place.cost(catalogue())
    raise AssertionError(f"{kind} {name} does not stand in its own network")


def paper(cls: Any) -> str:
    """The paper's line of the operator's docstring."""
    import inspect
    import re

    text = " ".join((inspect.getdoc(inspect.getmodule(cls)) or "").split())
    found = re.search(r"Paper: (.*?https?://\S+)", text)
    return found.group(1).rstrip(".,;)") if found else text.partition(".")[0]


def needs(cls: Any) -> list[str]:
    """Capabilities in words."""
    from nas.ops.site import EVERY_LAYOUT

    found = [] if cls.takes == EVERY_LAYOUT else [f"tokens as {' or '.join(sorted(cls.takes))}"]
    if cls.needs_class:
        found.append("class token")
    if cls.prefix == "refuses" and cls.kind != "embed":
        found.append("no prefix tokens")
    for label, attribute in (
        ("reads", "reads"),
        ("reads of the previous block", "reads_previous"),
        ("supplies", "supplies"),
        ("leaves", "emits"),
    ):
        words: frozenset[str] = getattr(cls, attribute, frozenset())
        if words:
            found.append(f"{label} {', '.join(sorted(words))}")
    return found


def timing(network: Any, kind: str, name: str, passes: int) -> dict[str, float]:
    """Median milliseconds of the operator within the network, and over that of the network's softmax attention."""
    import statistics
    import time

    import torch

    from nas.ops.base import Operator

    spent: dict[Any, list[float]] = {}
    started: dict[Any, float] = {}
    for module in network.modules():
        if isinstance(module, Operator):
            spent[module] = []
            module.register_forward_pre_hook(lambda m, _: started.__setitem__(m, time.perf_counter()))
            module.register_forward_hook(lambda m, _, __: spent[m].append(time.perf_counter() - started[m]))
    architecture = network.architecture
    image = torch.randn(1, architecture.channels, architecture.input, architecture.input)
    with torch.inference_mode():
        for _ in range(passes + 3):
            network(image)
    own = reference = None
    for module, times in spent.items():
        stem = type(module).__module__.rpartition(".")[2]
        if type(module).kind == kind and stem == name and own is None:
            own = times[3:]
        elif type(module).kind == "mixer" and stem == "softmax":
            reference = times[3:]
    assert own is not None
    relative = [a / b for a, b in zip(own, reference or own, strict=True)]
    return {"ms": 1e3 * statistics.median(own), "relative": statistics.median(relative)}


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    from nas.reporting.text import text_table

    head = ["kind", "operator", "params", "MACs", "ms", "relative", "MACs/s", "of peak", "needs"]
    rows = [
        [
            row["kind"],
            row["spec"],
            f"{row['cost']['params'] / 1e3:.1f} k",
            f"{row['cost']['macs'] / 1e6:.2f} M",
            f"{row['ms']:.2f}" if "ms" in row else "-",
            f"{row['relative']:.2f}" if "relative" in row else "-",
            f"{row['macs_per_second'] / 1e9:.1f} G" if "ms" in row else "-",
            f"{row['of_peak_macs']:.0%}" if "ms" in row else "-",
            "; ".join(row["needs"]) or "-",
        ]
        for row in result["operators"]
    ]
    return text_table(head, rows) + f"\n{len(rows)} operators"
