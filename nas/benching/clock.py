"""Clock: how well the same network's latency repeats, over minutes, also while another process loads a core.

One network is measured again and again at even intervals in a process of its own. For a part of the time another
process keeps one core busy. `cv` is the coefficient of variation of the ratio to the reference over all repeats, and
`cv_absolute` that of the plain medians in milliseconds, which is what a stopwatch alone would give.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from typing import Any

HELP = "repeatability of the clock over minutes, with and without another process on the machine"
BURN = "while True: pass"
LOADED = (0.4, 0.6)  # part of the repeats during which another process loads one core


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="cpu:eager", help="device and runtime (default: cpu:eager)")
    parser.add_argument("--network", default="deit_tiny", help="reference network to measure (default: deit_tiny)")
    parser.add_argument("--repeats", type=int, default=20, help="measurements (default: 20)")
    parser.add_argument("--minutes", type=float, default=10.0, help="from the first to the last (default: 10)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of one measurement at most (default: 20)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One row a repeat, and how much they vary."""
    from nas.core.errors import InputError
    from nas.latency.clock import Limits
    from nas.latency.isolated import Worker
    from nas.latency.measuring import measure
    from nas.latency.target import resolve
    from nas.model.reference import load_reference

    if options.repeats < 2:
        raise InputError("a variation needs two measurements", value=f"--repeats {options.repeats}")
    target = resolve(options.target).target
    description = {"network": load_reference(options.network).architecture.to_dict()}
    limits = Limits(tolerance=0.002, min_pairs=60, max_pairs=1000, seconds=options.seconds)
    rows: list[dict[str, Any]] = []
    begin = time.monotonic()
    with Worker() as worker:
        for number in range(options.repeats):
            due = begin + 60 * options.minutes * number / (options.repeats - 1)
            time.sleep(max(0.0, due - time.monotonic()))
            loaded = LOADED[0] <= number / options.repeats < LOADED[1]
            burner = subprocess.Popen([sys.executable, "-c", BURN]) if loaded else None
            try:
                found = measure(worker, description, target, limits)
            finally:
                if burner is not None:
                    burner.kill()
                    burner.wait()
            if found.reading is None:
                raise InputError(f"the network cannot be measured ({found.failed})", value=options.network)
            reading = found.reading
            rows.append(
                {
                    "minute": (time.monotonic() - begin) / 60,
                    "loaded": loaded,
                    "ratio": reading.ratio,
                    "absolute_ms": reading.ratio * reading.reference_ms,
                    "pairs": reading.pairs,
                    "others_cores": reading.others,
                    "busy": any(note.startswith("busy") for note in reading.notes),
                    "notes": list(reading.notes),
                }
            )
    return {**figures(rows), "target": str(target), "network": options.network, "rows": rows}


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the repeats say."""
    loaded, quiet = [r for r in rows if r["loaded"]], [r for r in rows if not r["loaded"]]
    return {
        "cv": _variation([row["ratio"] for row in rows]),
        "cv_quiet": _variation([row["ratio"] for row in quiet]),
        "cv_absolute": _variation([row["absolute_ms"] for row in rows]),
        "repeats": len(rows),
        "minutes": rows[-1]["minute"],
        "busy_noticed": bool(loaded) and all(row["busy"] for row in loaded),
        "busy_otherwise": sum(row["busy"] for row in quiet),
    }


def _variation(values: list[float]) -> float | None:
    return statistics.stdev(values) / statistics.mean(values) if len(values) > 1 else None


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    from nas.reporting.text import text_table

    head = ["minute", "ratio", "ms", "pairs", "others", "notes"]
    rows = [
        [
            f"{row['minute']:.1f}",
            f"{row['ratio']:.4f}",
            f"{row['absolute_ms']:.2f}",
            row["pairs"],
            f"{row['others_cores']:.2f}",
            ("(loaded on purpose) " if row["loaded"] else "") + "; ".join(row["notes"]),
        ]
        for row in result["rows"]
    ]
    noticed = "noticed" if result["busy_noticed"] else "NOT noticed"
    summary = (
        f"{result['repeats']} repeats over {result['minutes']:.1f} minutes: the ratio varies by {result['cv']:.2%}, "
        f"plain milliseconds by {result['cv_absolute']:.2%}; the load of another process was {noticed}"
    )
    return f"{text_table(head, rows)}\n{summary}"
