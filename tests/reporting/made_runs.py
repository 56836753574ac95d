"""Runs made by hand, as a search leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.core.runs import new_run
from nas.reporting.finished import DIRECTIONS, Finished, Row, over, write_finished
from nas.reporting.pareto import front_of

MEASURED = "table cpu.csv of a processor, median error 3.0% on 40 networks left out in turn"
ESTIMATED = "estimated, not measured (roofline of the data sheet of a card)"


def block(mixer: str = "softmax(heads=2)", tokens: int = 64, left: int | None = None, **more: Any) -> dict[str, Any]:
    """A row of an outline."""
    empty = {"stage": 0, "embed": "", "feedforward": "mlp", "reduction": "", "exit": "", "width": 32}
    return {**empty, "mixer": mixer, "tokens": tokens, "left": tokens if left is None else left, **more}


def network(mixers: Sequence[str] = ("softmax(heads=2)",), dim: int = 32, head: str = "mean") -> dict[str, Any]:
    """The document of a network of one stage."""
    blocks = [{"mixer": mixer, "feedforward": "mlp(ratio=2.0)"} for mixer in mixers]
    return {"input": 32, "stages": [{"embed": "patch(size=4)", "dim": dim, "blocks": blocks}], "head": head}


def row(
    trial: int,
    accuracy: float | None,
    latency: float | None,
    mixers: Sequence[str] = ("softmax(heads=2)",),
    **more: Any,
) -> Row:
    """A network; over: by how much it exceeds its limit."""
    excess = {"macs": more.pop("over")} if "over" in more else {}
    return {
        "trial": trial,
        "digest": f"{trial:064x}"[::-1],
        "architecture": network(mixers, 32 + 16 * (trial % 3)),
        "outline": [block(mixer) for mixer in mixers],
        "origin": "sampler",
        "feasible": all(value <= 0 for value in excess.values()),
        "excess": excess,
        "reason": None,
        "accuracy": accuracy,
        "latency_ms": latency,
        "macs": 1_000_000 * (trial + 1),
        "params": 20_000 + 100 * trial,
        "memory_mb": 1.5,
        **more,
    }


def finished(
    path: Path,
    rows: Sequence[Row],
    objectives: Sequence[str] = ("accuracy", "latency_ms"),
    measured: bool = True,
    **about: Any,
) -> Finished:
    """A search with these networks and their front; its folder need not exist."""
    feasible = [{**own, "excess_sum": over(own)} for own in rows]
    chosen = front_of(feasible, {name: DIRECTIONS[name] for name in objectives}, "excess_sum")
    front = []
    for number, own in enumerate(sorted(chosen, key=lambda own: own[objectives[-1]]), start=1):
        member = {"number": number, **{key: value for key, value in own.items() if key != "excess_sum"}}
        if measured and own["latency_ms"]:
            ms = 1.1 * own["latency_ms"]
            member |= {"measured_ms": ms, "measured_low": 0.97 * ms, "measured_high": 1.02 * ms, "peak_mb": 80.0}
        front.append({**member, "notes": "", "file": f"front/{number:02}.yaml"})
    usual = {"budget": None, "target": "cpu", "accuracy": "prior", "unit": "top-1 %", "latency": MEASURED}
    provenance = {"config": {"space": "digits", "target": "cpu"}, "command": ["python"], "created": "", "seed": 0}
    told = {**usual, "end": "trials", "notices": [], **about}
    return Finished(path, provenance, told, tuple(objectives), list(rows), front)


def usual_rows(count: int = 12) -> list[Row]:
    """Networks of several mixers that trade accuracy for latency; some are infeasible, some dominated."""
    mixers = ("softmax(heads=2)", "window(size=4)", "additive", "depthwise")
    rows = []
    for trial in range(count):
        own = [mixers[(trial + i) % 4] for i in range(1 + trial % 3)]
        accuracy, latency = 60.0 + 10 * trial / count - 3 * (trial % 2), 1.0 + 0.3 * trial
        more = {"accuracy_sigma": 0.5, "latency_ms_sigma": 0.05 * latency}
        rows.append(row(trial, accuracy, latency, own, **more, **({"over": 0.4} if trial % 5 == 4 else {})))
    return rows


def on_disk(root: Path, name: str, made: Finished | None = None) -> Finished:
    """The same, in a run's folder as a search leaves it."""
    made = made or finished(root / name, usual_rows())
    run = new_run(root, name, made.provenance["config"], ["python", "-m", "nas.search"], seed=0)
    own = Finished(run.path, run.provenance, made.about, made.objectives, made.rows, made.front)
    write_finished(own)
    return own
