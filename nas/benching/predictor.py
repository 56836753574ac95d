"""Predictor: a table measured in a limited time, and its predictions on networks that it never saw, beside baselines.

The table is begun anew (or taken from --table). `device_minutes` are those in which the device ran networks; `minutes`
include building, exporting and compiling them (of a table that was there, both are its minutes from first to last row).
Held-out networks are drawn at random from the space, with another seed than what the table measured, and measured for
longer. The baselines are fitted to the very same whole networks, on the same run: multiply-accumulates alone (a line),
the plain sum of operators with one factor, linear (ridge) regression and gradient boosting on counts and costs of
operators.
"""

from __future__ import annotations

import argparse
from typing import Any

HELP = "errors of predicted latencies on held-out networks, beside baselines"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="cpu:eager", help="device and runtime (default: cpu:eager)")
    parser.add_argument("--space", default="mixed", help="whose networks (default: mixed)")
    parser.add_argument("--minutes", type=float, default=15.0, help="for the table, all included (default: 15)")
    parser.add_argument("--heldout", type=int, default=60, help="networks to predict (default: 60)")
    parser.add_argument("--table", metavar="FILE", help="keep the table here, and take it if it is there")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Errors of the predictor and of the baselines."""
    import tempfile
    from pathlib import Path

    from nas.latency.device import this_device
    from nas.latency.isolated import Worker
    from nas.latency.predictor import Predictor
    from nas.latency.profile import Progress, new_table, plan, profile
    from nas.latency.table import read_table
    from nas.latency.target import resolve
    from nas.model.spaces import load_named_space

    target, space = resolve(options.target).target, load_named_space(options.space)
    with tempfile.TemporaryDirectory() as folder, Worker() as worker:
        path = Path(options.table or Path(folder) / "table.csv")
        told: list[Progress] = []
        if path.exists():
            table = read_table(path)
        else:
            command = f"python -m nas.bench predictor --target {options.target} --minutes {options.minutes:g}"
            table = new_table(target, worker, command)
            table = profile(table, path, plan(space, options.seed), worker, options.minutes, told.append)
        predictor = Predictor(table)
        rows = _measured(space, table, predictor, worker, options.heldout, options.seed)
    known = [row for row in table.networks() if row.ratio is not None]
    return {
        "device": this_device(target).name,
        "target": str(target),
        "measured_operators": len([row for row in table.operators() if row.ratio is not None]),
        "measured_networks": len(known),
        "device_minutes": told[-1].device_seconds / 60 if told else _minutes(table),
        "minutes": _minutes(table),
        "heldout": len(rows),
        "own_error": predictor.error._asdict(),
        **errors([row["predicted"] for row in rows], [row["ms"] for row in rows]),
        "within_2_deviations": sum(abs(r["predicted"] - r["ms"]) <= 2 * r["deviation"] for r in rows) / len(rows),
        "baselines": _baselines(table, predictor, rows),
        "networks": [{key: value for key, value in row.items() if key != "architecture"} for row in rows],
    }


def _minutes(table: Any) -> float:
    """From the table's beginning to its newest row."""
    from datetime import datetime

    begun, ended = (datetime.fromisoformat(date) for date in (table.header.created, table.updated))
    return (ended - begun).total_seconds() / 60


def errors(predicted: Any, measured: Any) -> dict[str, float]:
    """Of predictions: median relative error, share within 10 %, rank correlation."""
    import numpy as np
    from scipy.stats import spearmanr

    relative = np.abs(np.asarray(predicted) / np.asarray(measured) - 1)
    return {
        "median_error": float(np.median(relative)),
        "mean_error": float(relative.mean()),
        "within_10": float((relative <= 0.1).mean()),
        "spearman": float(spearmanr(predicted, measured).statistic),
    }


def _measured(space: Any, table: Any, predictor: Any, worker: Any, count: int, seed: int) -> list[dict[str, Any]]:
    """Held-out networks with what was measured and predicted."""
    from random import Random

    from nas.core.errors import InputError
    from nas.latency.clock import Limits
    from nas.latency.measuring import measure

    limits = Limits(tolerance=0.003, min_pairs=24, max_pairs=120, seconds=8.0)
    chance = Random(f"held out {seed}")
    rows: list[dict[str, Any]] = []
    seen = {row.spec for row in table.networks()}
    for _ in range(100 * count):  # a small space may have no more
        if len(rows) == count:
            break
        architecture = space.sample(chance)
        if architecture.digest in seen or predictor.unseen(architecture):
            continue
        seen.add(architecture.digest)
        description = {"network": architecture.to_dict()}
        found = measure(worker, description, table.header.target, limits, table.header.reference_ms)
        if found.reading is None:
            continue
        ms, deviation = predictor.predict(architecture)
        row = {"digest": architecture.digest[:16], "ms": found.reading.ms, "predicted": ms, "deviation": deviation}
        rows.append({**row, "notes": list(found.reading.notes), "architecture": architecture})
    if len(rows) < 2:
        raise InputError("the space has no networks left to hold out", value=space.name)
    return rows


def _baselines(table: Any, predictor: Any, rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What simpler ways make of the same measurements."""
    import numpy as np
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from nas.latency.predictor import architecture_of
    from nas.model.costs import Costs

    known = [row for row in table.networks() if row.ratio is not None]
    train = [architecture_of(row) for row in known]
    times = np.array([table.ms(row) for row in known])
    test, measured = [row["architecture"] for row in rows], [row["ms"] for row in rows]
    costs = Costs()
    macs = [np.array([costs.cost(a).macs for a in some], dtype=float) for some in (train, test)]
    line = np.polyfit(macs[0], times, 1, w=1 / times)
    usable = [(predictor.operator_sum_ms(a), t) for a, t in zip(train, times, strict=True) if not predictor.unseen(a)]
    factor = np.median([time / total for total, time in usable])
    names = sorted({name for a in train for name in _counts(a)})
    inputs = [np.array([_features(a, names) for a in some]) for some in (train, test)]
    linear = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 15)))
    boosting = GradientBoostingRegressor(
        n_estimators=300, max_depth=3, learning_rate=0.05, subsample=0.7, random_state=0
    )
    linear.fit(inputs[0], times, ridgecv__sample_weight=1 / times**2)
    boosting.fit(inputs[0], np.log(times))
    return {
        "flops": errors(np.polyval(line, macs[1]), measured),
        "sum": errors([factor * predictor.operator_sum_ms(a) for a in test], measured),
        "linear": errors(linear.predict(inputs[1]), measured),
        "boosting": errors(np.exp(boosting.predict(inputs[1])), measured),
    }


def _counts(architecture: Any) -> dict[str, float]:
    """How often each operator occurs, and its multiply-accumulates and elements."""
    from nas.model.plan import places_of
    from nas.ops.catalogue import catalogue

    found: dict[str, float] = {}
    for place in places_of(catalogue(), architecture):
        cost = place.cost(catalogue())
        for what, value in (("count", 1), ("macs", cost.macs), ("elements", cost.activation)):
            name = f"{place.kind} {place.spec.name} {what}"
            found[name] = found.get(name, 0) + value
    return found


def _features(architecture: Any, names: list[str]) -> list[float]:
    counts = _counts(architecture)
    totals = [sum(v for k, v in counts.items() if k.endswith(what)) for what in ("count", "macs", "elements")]
    return [*totals, *(counts.get(name, 0) for name in names)]


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    from nas.reporting.text import text_table

    rows = [
        [name, f"{found['median_error']:.1%}", f"{found['within_10']:.0%}", f"{found['spearman']:.3f}"]
        for name, found in (("table, corrected", result), *result["baselines"].items())
    ]
    head = (
        f"{result['target']} on {result['device']}: {result['measured_operators']} operators and "
        f"{result['measured_networks']} networks in {result['device_minutes']:.1f} min of the device, "
        f"{result['heldout']} held out"
    )
    return f"{head}\n{text_table(['predictor', 'median error', 'within 10 %', 'rank'], rows)}"
