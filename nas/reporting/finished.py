"""Finished: what a search left in its folder, read for whoever shows it or takes networks from it.

A search writes trials.json: every network that it evaluated and the members of its front. A row of either has

    trial, digest, origin, feasible, reason   the trial; the network's hash; who proposed it; why it was not judged
    architecture, outline                     its document; its blocks (nas.model.outline)
    excess                                    constraint to excess relative to the limit, at most 0 where it is kept
    accuracy, latency_ms, macs, params, ...   its figures, None where unknown; `..._sigma` is a standard deviation
    rungs                                     estimator to accuracy, after a ladder: `accuracy` is then the last rung's

and a member of the front also number (from 1), measured_ms, measured_low, measured_high (95 %), peak_mb, notes, file,
and estimator (whose figure its accuracy is).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core.errors import InputError
from nas.core.runs import open_run, read_json, write_json
from nas.core.units import Budget, parse_budget

TRIALS = "trials.json"
SIGMA = "_sigma"  # ending of the name of a figure's standard deviation
DIRECTIONS = {
    "accuracy": "maximize",
    "latency_ms": "minimize",
    "macs": "minimize",
    "params": "minimize",
    "memory_mb": "minimize",
}
LABELS = {
    "accuracy": "accuracy estimate",
    "latency_ms": "latency (ms)",
    "macs": "multiply-accumulates",
    "params": "parameters",
    "memory_mb": "memory (MB)",
}
ABOUT = ("budget", "target", "accuracy", "unit", "latency", "end", "notices")  # what a search says of itself

Row = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A finished search.

    provenance  of run.json: command, config, seed, created, nas, machine, packages, ...
    about       budget (text or None), target, accuracy (the estimator's name), unit (of accuracy), latency (source),
                end (why the search ended), notices
    """

    path: Path
    provenance: dict[str, Any]
    about: dict[str, Any]
    objectives: tuple[str, ...]
    rows: list[Row]
    front: list[Row]

    @property
    def budget(self) -> Budget:
        """The limits that the search kept to."""
        text = self.about["budget"]
        return Budget() if text is None else parse_budget(text)

    @property
    def directions(self) -> dict[str, str]:
        """Objective to direction."""
        return {name: DIRECTIONS[name] for name in self.objectives}

    def row(self, digest: str) -> Row:
        """A network by (the first digits of) its hash."""
        found = [row for row in self.rows if row["digest"].startswith(digest)]
        if len(found) != 1:
            rule = "no network of the run has this hash" if not found else "several networks of the run have this hash"
            raise InputError(rule, digest, str(self.path))
        return found[0]

    def member(self, number: int) -> Row:
        """A member of the front by its number."""
        for row in self.front:
            if row["number"] == number:
                return row
        raise InputError(f"the front has members 1 to {len(self.front)}", number, str(self.path))

    def best_under(self, budget: Budget) -> Row:
        """The network of the best accuracy that keeps a budget; InputError where none does."""
        if "accuracy" not in self.objectives:
            raise InputError("the run has no accuracy to choose by", place=str(self.path))
        limits = budget.limits()
        kept = [row for row in self.rows if not row["reason"] and all(_within(row, limits))]
        known = [row for row in kept if row["accuracy"] is not None]
        if not known:
            judged = [row for row in self.rows if row["accuracy"] is not None] or self.rows
            least = {name: min(row[name] for row in judged if row.get(name) is not None) for name in limits}
            rule = "no network of the run keeps this budget; the least that it has"
            told = ", ".join(f"{name} {value:.6g}" for name, value in least.items())
            raise InputError(f"{rule}: {told}", str(budget), str(self.path))
        best: Row = max(known, key=lambda row: row["accuracy"])
        return best


def open_finished(folder: str | Path) -> Finished:
    """The search of a run's folder; InputError where there is none, or where it did not come to its end."""
    run = open_run(folder)
    told = read_json(run.path / TRIALS)
    if not isinstance(told, dict) or not {"objectives", "rows", "front", *ABOUT} <= told.keys():
        raise InputError("not the networks of a search of this version", place=str(run.path / TRIALS))
    about = {key: told[key] for key in ABOUT}
    return Finished(run.path, run.provenance, about, tuple(told["objectives"]), told["rows"], told["front"])


def write_finished(finished: Finished) -> None:
    """Write a search's networks, with a checksum; the folder and run.json exist."""
    told = {**finished.about, "objectives": finished.objectives, "rows": finished.rows, "front": finished.front}
    write_json(finished.path / TRIALS, told)


def over(row: Mapping[str, Any]) -> float:
    """How far a row is over its limits, 0 where it keeps them all and could be judged."""
    return max([0.0, *row["excess"].values()])


def _within(row: Row, limits: Mapping[str, float]) -> list[bool]:
    """Whether each limit is kept; a figure that the run does not have is refused."""
    for name in limits:
        if name not in row:
            raise InputError("the run has no such figure", value=name, nearest=[key for key in LABELS if key in row])
    return [row[name] is not None and row[name] <= limit for name, limit in limits.items()]
