"""What the door `nas.search` does: a search with all that follows, one worker of it, or a look into a finished one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from nas.accuracy import estimator
from nas.core.errors import InputError
from nas.core.progress import Progress
from nas.core.runs import new_run
from nas.core.units import parse_budget
from nas.latency.latency import Latency
from nas.reporting.text import text_table
from nas.searching import front as fronts
from nas.searching.config import SearchConfig
from nas.searching.results import SIGMA, Known
from nas.searching.run import Searched, run_search
from nas.searching.study import Mode

INTERRUPTED = 128  # plus the signal's number: the exit code of a search that was told to end

Say = Callable[[str], None]


def search(config: SearchConfig, root: str, name: str | None, resume: bool, command: list[str], say: Say) -> int:
    """Search, measure the front again, write and show it; the exit code."""
    if name is not None:
        config = config.model_copy(update={"name": name})
    latency = Latency(
        config.target, frozenset(config.allow_mismatch)
    )  # a target that is none is told before the search
    run = new_run(root, name, config.model_dump(mode="json"), command, seed=config.seed, resume=resume)
    mode: Mode = "resume" if resume else "new" if config.storage is None else "join"
    say(f"searching {config.space} for {config.target}: {config.limits.describe()}")
    wanted = latency if "latency_ms" in config.objectives or config.limits.latency_ms is not None else None
    total, unit = (60 * (config.minutes or 0.0), "second") if config.trials is None else (config.trials, "network")
    with Progress(total, unit, "networks") as shown:
        begun = monotonic()

        def told(known: Known) -> None:
            shown.update(monotonic() - begun if config.trials is None else known.finished, evaluated=known.finished)

        spawn = _spawner(run.path.name)
        found = run_search(config, run.path, mode, spawn=spawn, latency=wanted, times=wanted, told=told)
    for notice in [*latency.notices, *found.notices]:
        say(notice)
    if found.signal is not None:
        say(f"told to end: {len(found.rows)} networks are kept, --name {run.path.name} --resume goes on")
        return INTERRUPTED + found.signal
    finish(config, run.path, found, latency, say)
    return 0


def finish(config: SearchConfig, folder: Path, found: Searched, latency: Latency, say: Say) -> None:
    """The front of a finished search: measured, written, drawn, shown."""
    about = {"budget": str(config.limits), "target": config.target, "accuracy": config.accuracy, "end": found.end}
    fronts.write_trials(folder, found.rows, found.objectives, about)
    chosen = fronts.members(found.rows, found.objectives, config.front)
    if not chosen:
        reasons = {row["reason"] for row in found.rows if row["reason"]}
        raise InputError("no network that was evaluated keeps the budget and could be judged", sorted(reasons)[:3])
    measured = fronts.measured(chosen, latency, say)
    named = fronts.write_front(folder, measured)
    picture = fronts.draw(folder, found.rows, found.objectives, config.limits, f"{config.space} on {config.target}")
    feasible = sum(fronts.over(row) <= 0 for row in found.rows)
    say("")
    say(table(named, estimator(config.accuracy).unit if "accuracy" in found.objectives else ""))
    say("")
    say(
        f"{len(found.rows)} networks, {feasible} within {config.limits.describe()} ({found.end}); "
        f"accuracy: {config.accuracy}"
    )
    say(f"latency: {latency.source}")
    say(f"run: {folder}; front: {folder / fronts.TABLE}" + (f"; picture: {picture}" if picture else ""))
    weights = "" if config.run is None else f" --init {config.run}"
    say(f"to train a member: python -m nas.train --arch {named[0]['architecture']}{weights}")


def join(config: SearchConfig, folder: Path, worker: int) -> int:
    """One worker process of a search that another process began."""
    found = run_search(config, folder, "join", worker=worker)
    return 0 if found.signal is None else INTERRUPTED + found.signal


def best(folder: Path, budget: str) -> str:
    """The best network under a budget, of a finished search."""
    row = fronts.best_under(folder, parse_budget(budget))
    figures = {key: row[key] for key in fronts.LABELS if row.get(key) is not None}
    lines = [f"{fronts.LABELS[key]:22} {value:.6g}" for key, value in figures.items()]
    return "\n".join([f"trial {row['trial']}, {row['digest'][:12]}", *lines, json.dumps(row["architecture"])])


def table(front: Sequence[fronts.Row], unit: str = "") -> str:
    """The front for a terminal; unit: of the accuracy's estimate."""
    head = [
        "#",
        f"accuracy ({unit})" if unit else "accuracy",
        "latency ms",
        "measured ms",
        "GMACs",
        "M params",
        "MB",
        "architecture",
    ]
    rows = []
    for row in front:
        rows.append(
            [
                row["number"],
                _spread(row, "accuracy", ".2f"),
                _spread(row, "latency_ms", ".2f"),
                _measured(row),
                f"{row['macs'] / 1e9:.3f}",
                f"{row['params'] / 1e6:.2f}",
                f"{row['memory_mb']:.1f}",
                row["architecture"],
            ]
        )
    return text_table(head, rows)


def _spread(row: fronts.Row, key: str, form: str) -> str:
    value, sigma = row.get(key), row.get(key + SIGMA)
    if value is None:
        return "-"
    return f"{value:{form}}" if sigma is None else f"{value:{form}} ± {sigma:{form}}"


def _measured(row: fronts.Row) -> str:
    if row.get("measured_ms") is None:
        return str(row.get("notes") or "-")[:40]
    half = (row["measured_high"] - row["measured_low"]) / 2
    return f"{row['measured_ms']:.2f} ± {half:.2f}"


def _spawner(name: str) -> Callable[[int], Sequence[str]]:
    def command(number: int) -> list[str]:
        return [sys.executable, "-m", "nas.search", "--name", name, "--worker", str(number)]

    return command
