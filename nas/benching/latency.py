"""Latency: the reference networks on this device, beside timm's own, and beside the networks they were to outrun.

Every comparison is paired and interleaved: `ratio_to_timm` is the time of our network over that of timm's (as
deployed: fused where it has branches to fold), `ratio_to_base` how many times faster than its base a network with token
reduction is, beside the published figure. Milliseconds are the ratio to the clock's reference times its own figure.
"""

from __future__ import annotations

import argparse
from typing import Any

HELP = "reference networks on this device: against timm's, against their base, against published claims"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="cpu:eager", help="device and runtime (default: cpu:eager)")
    parser.add_argument("--only", metavar="NAMES", help="reference networks, joined by commas (default: all)")
    parser.add_argument("--batches", default="1,16", help="images a call, joined by commas (default: 1,16)")
    parser.add_argument("--report", metavar="FILE", help="write the result as Markdown as well")
    parser.add_argument("--seconds", type=float, default=8.0, help="of one comparison at most (default: 8)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One row a network and batch."""
    from dataclasses import replace

    from nas.core.errors import InputError
    from nas.core.runs import write_whole
    from nas.latency.clock import Limits
    from nas.latency.device import ceilings, this_device
    from nas.latency.isolated import Worker
    from nas.latency.target import LIMITS, resolve
    from nas.model.reference import load_reference, reference_names

    names = [name.strip() for name in options.only.split(",")] if options.only else reference_names()
    references = [load_reference(name) for name in names]
    target = resolve(options.target).target
    low, high = LIMITS["batch"]
    if not all(batch.strip().isdigit() and low <= int(batch) <= high for batch in options.batches.split(",")):
        raise InputError(f"batches are whole numbers from {low} to {high}", value=options.batches)
    limits = Limits(tolerance=0.003, min_pairs=10, max_pairs=200, seconds=options.seconds)
    rows = []
    with Worker() as worker:
        for batch in map(int, options.batches.split(",")):
            for reference in references:
                rows.append(row(worker, reference, replace(target, batch=batch), limits))
    result = {
        "device": this_device(target).name,
        "target": str(target),
        "ceilings": ceilings(target),
        "rows": rows,
    }
    if options.report:
        how = f"--target {options.target} --batches {options.batches} --seconds {options.seconds:g}"
        write_whole(options.report, markdown(result, f"python -m nas.bench latency {how}"))
    return result


def row(worker: Any, reference: Any, target: Any, limits: Any) -> dict[str, Any]:
    """What was measured of one network; null where there is nothing to compare with."""
    from nas.latency.measuring import measure
    from nas.model.costs import Costs
    from nas.model.reference import load_reference

    ours = {"network": reference.architecture.to_dict()}
    against = {}
    if reference.timm is not None:
        against["timm"] = {"timm": reference.timm, "arguments": reference.timm_args}
    if reference.speed:
        against["base"] = {"network": load_reference(reference.speed["base"]).architecture.to_dict()}
    found = {name: measure(worker, ours, target, limits, against=other) for name, other in against.items()}
    plain = measure(worker, ours, target, limits._replace(seconds=limits.seconds / 2))
    reading = plain.reading
    timm, base = (found[name].reading if name in found else None for name in ("timm", "base"))
    return {
        "name": reference.name,
        "batch": target.batch,
        "ms": reading and reading.ms,
        "spread_ms": reading and reading.spread * reading.ms,
        "macs": Costs().cost(reference.architecture).macs * target.batch,
        "peak_mb": plain.peak_mb,
        "failed": plain.failed,
        "ratio_to_timm": timm and timm.ratio,
        "timm_interval": timm and [timm.low, timm.high],
        "base": reference.speed.get("base"),
        "ratio_to_base": base and 1 / base.ratio,
        "base_interval": base and [1 / base.high, 1 / base.low],
        "published_ratio": reference.speed.get("ratio"),
        "notes": list(reading.notes) if reading else [],
    }


HEAD = ("network", "batch", "ms", "spread", "MACs/s", "of peak", "to timm", "faster than", "by", "published")


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    from nas.reporting.text import text_table

    return f"{_title(result)}\n{text_table(HEAD, _cells(result))}\n{_summary(result)}"


def markdown(result: dict[str, Any], command: str) -> str:
    """A report of this device."""
    from nas.core.runs import environment
    from nas.reporting.text import markdown_table

    told = environment()
    versions = ", ".join(f"{name} {version}" for name, version in told["packages"].items())
    return (
        f"# Latency on {result['device']}\n\n`{command}`, commit {told['nas']['git_commit']}; {versions}.\n"
        f"{_title(result)}. Ratios are paired and interleaved medians with their 95 % interval; "
        f"below 1 in `to timm` is faster than timm.\n\n"
        f"{markdown_table(HEAD, _cells(result))}\n\n{_summary(result)}.\n"
    )


def _title(result: dict[str, Any]) -> str:
    peak = f"a large matrix product reaches {result['ceilings']['macs_per_second'] / 1e9:.0f} G MACs/s"
    return f"{result['target']} on {result['device']}; {peak}"


def _summary(result: dict[str, Any]) -> str:
    compared = [found["ratio_to_timm"] for found in result["rows"] if found["ratio_to_timm"]]
    return f"{sum(ratio <= 1.02 for ratio in compared)} of {len(compared)} within 1.02 of timm's time"


def _cells(result: dict[str, Any]) -> list[list[object]]:
    ceiling = result["ceilings"]["macs_per_second"]
    rows: list[list[object]] = []
    for found in result["rows"]:
        if found["failed"]:
            rows.append([found["name"], found["batch"], found["failed"], *[""] * 7])
            continue
        rate = 1e3 * found["macs"] / found["ms"]
        rows.append(
            [
                found["name"],
                found["batch"],
                f"{found['ms']:.2f}",
                f"{found['spread_ms']:.2f}",
                f"{rate / 1e9:.1f} G",
                f"{rate / ceiling:.0%}",
                _number(found["ratio_to_timm"], ".3f", found["timm_interval"]),
                found["base"] or "-",
                _number(found["ratio_to_base"], ".2f", found["base_interval"]),
                _number(found["published_ratio"], ".2f"),
            ]
        )
    return rows


def _number(value: float | None, form: str, interval: list[float] | None = None) -> str:
    if value is None:
        return "-"
    low_high = f" ({' to '.join(format(end, form) for end in interval)})" if interval else ""
    return f"{value:{form}}{low_high}"
