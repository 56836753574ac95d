"""What the door `nas.search` does: a search with all that follows, one worker of it, or a look into a finished one."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from nas.accuracy import estimator
from nas.core.errors import InputError
from nas.core.progress import Progress
from nas.core.runs import RUN_FILE, new_run, open_run
from nas.core.units import parse_budget
from nas.latency.latency import Latency
from nas.reporting.finished import LABELS, SIGMA, Finished, Row, open_finished, over, write_finished
from nas.reporting.text import text_table
from nas.searching import front as fronts
from nas.searching import ladder
from nas.searching.config import SearchConfig, load_config
from nas.searching.results import Known
from nas.searching.run import Launch, Searched, run_processes, run_search
from nas.searching.slurm import run_jobs
from nas.searching.storage import masked, sqlite_file
from nas.searching.study import Mode

INTERRUPTED = 128  # plus the signal's number: the exit code of a search that was told to end
STORAGE = "NAS_STORAGE"  # environment of workers: the storage's address with its password, which run.json does not hold
STARTING_MIN = 15  # that a job may take beside its search: starting, and its last network

Say = Callable[[str], None]


def search(config: SearchConfig, root: str, name: str | None, resume: bool, command: list[str], say: Say) -> int:
    """Search, judge the best again, measure the front, write and show it; the exit code."""
    if name is not None:
        config = config.model_copy(update={"name": name})
    # a target that is none, and a ladder that cannot be climbed, are told before the search
    latency = Latency(config.target, frozenset(config.allow_mismatch))
    ladder.check(config)
    _check_launcher(config)
    shared = config.storage is not None
    run = new_run(root, name, config.model_dump(mode="json"), command, seed=config.seed, resume=resume or shared)
    try:
        found = _searched(config, run.path, "resume" if resume else "join" if shared else "new", latency, say)
    except InputError:
        if not resume and not shared:
            _forget(run.path)
        raise
    again = f"--name {run.path.name} --resume goes on"
    if found.signal is not None:
        say(f"told to end: {len(found.rows)} networks are kept, {again}")
        return INTERRUPTED + found.signal
    if not found.leads:
        say(f"{len(found.rows)} networks; who began the search writes its front, or {again}")
        return 0
    judge, notices = config.accuracy, [*latency.notices, *found.notices]
    if config.ladder:
        climbed = _climb(config, run.path, found)
        if climbed.signal is not None:
            say(f"told to end: what the ladder has judged is kept, {again}")
            return INTERRUPTED + climbed.signal
        judge, notices = config.ladder[-1].name, [*notices, climbed.told]
        say(climbed.told)
        found = found._replace(rows=climbed.rows)
    about = {
        "budget": config.budget,
        "target": str(latency.target),
        "accuracy": judge,
        "unit": estimator((config.ladder[-1] if config.ladder else config).accuracy).unit,
        "latency": latency.source,
        "end": found.end,
        "notices": notices,
    }
    finish(config, run.path, found, about, latency, say)
    ladder.note_end(run.path)
    return 0


def _searched(config: SearchConfig, folder: Path, mode: Mode, latency: Latency, say: Say) -> Searched:
    """The search, shown as it goes; nothing is left to search where a run goes on that was killed on its ladder."""
    say(f"searching {config.space} for {config.target}: {config.limits.describe()}")
    wanted = latency if "latency_ms" in config.objectives or config.limits.latency_ms is not None else None
    before = ladder.begun(folder, config)
    total, unit = (60 * (config.minutes or 0.0), "second") if config.trials is None else (config.trials, "network")
    with Progress(total, unit, "networks") as shown:
        begun = monotonic()

        def told(known: Known) -> None:
            shown.update(monotonic() - begun if config.trials is None else known.finished, evaluated=known.finished)

        launch, seconds = (_launch(config, folder), None) if before is None else (None, 0.0)
        found = run_search(
            config, folder, mode, launch=launch, seconds=seconds, latency=wanted, times=wanted, told=told
        )
    for notice in [*latency.notices, *found.notices]:
        say(notice)
    return found if before is None or found.signal is not None else found._replace(end=before)


def _climb(config: SearchConfig, folder: Path, found: Searched) -> ladder.Climbed:
    """The best networks of a search, judged again."""
    ladder.note_begin(folder, config, found.end)
    return ladder.climb(found.rows, found.objectives, config.accuracy, config.ladder, folder, ladder.judging(config))


def finish(
    config: SearchConfig, folder: Path, found: Searched, about: dict[str, Any], latency: Latency, say: Say
) -> None:
    """The front of a finished search: measured, written, drawn, shown; about: as nas.reporting.finished has it."""
    unit = f"{about['accuracy']}, {about['unit']}" if "accuracy" in found.objectives else ""
    judge = {"estimator": about["accuracy"]} if unit else {}
    chosen = [row | judge for row in fronts.members(found.rows, found.objectives, config.front)]
    finished = Finished(folder, open_run(folder).provenance, about, tuple(found.objectives), found.rows, chosen)
    write_finished(finished)  # before measuring: what was found is kept, whatever happens to the device
    if not chosen:
        reasons = {row["reason"] for row in found.rows if row["reason"]}
        raise InputError("no network that was evaluated keeps the budget and could be judged", sorted(reasons)[:3])
    finished = replace(finished, front=fronts.write_front(folder, fronts.measured(chosen, latency, say)))
    write_finished(finished)
    page = report(finished)
    say("")
    say(table(finished.front, unit))
    say("")
    feasible = sum(over(row) <= 0 for row in found.rows)
    kept = f"{feasible} within {config.limits.describe()}"
    say(f"{len(found.rows)} networks, {kept} ({found.end}); accuracy: {about['accuracy']}")
    say(f"latency: {latency.source}")
    say(f"run: {folder}; front: {folder / fronts.TABLE}; report: {page}")
    weights = "" if config.run is None else f" --init {config.run}"
    say(f"to train a member: python -m nas.train --arch {folder / finished.front[0]['file']}{weights}")
    say(f"to take member N away: {taken(folder, 'N')}")


def report(finished: Finished) -> Path:
    """Write the report of a search into its folder; the page."""
    from nas.reporting.written import FOLDER, PAGE_FILE, write_report

    return write_report([finished], finished.path / FOLDER)[PAGE_FILE]


def taken(folder: Path, which: str) -> str:
    """The command that takes a network of a run away: a member of the front by its number, any other by its hash."""
    return f"python -m nas.export {folder} --pick {which} --to onnx"


def join(folder: Path, worker: int) -> int:
    """One worker of a search that another process began."""
    base = open_run(folder).config
    config = load_config(base={**base, "storage": os.environ.get(STORAGE, base["storage"])})
    found = run_search(config, folder, "join", worker=worker)
    return 0 if found.signal is None else INTERRUPTED + found.signal


def best(folder: Path, budget: str) -> str:
    """The best network under a budget, of a finished search."""
    finished = open_finished(folder)
    row = finished.best_under(parse_budget(budget))
    figures = {key: row[key] for key in LABELS if row.get(key) is not None}
    lines = [f"{LABELS[key]:22} {value:.6g}" for key, value in figures.items()]
    lines += [
        f"{'accuracy is by':22} {finished.about['accuracy']}",
        f"to take it away: {taken(folder, row['digest'][:12])}",
    ]
    return "\n".join([f"trial {row['trial']}, {row['digest'][:12]}", *lines, json.dumps(row["architecture"])])


def table(front: Sequence[Row], unit: str = "") -> str:
    """The front for a terminal; unit: of the accuracy's estimate. What rungs below said stands beside it."""
    lower = list(front[0].get("rungs", {}))[:-1]
    head = [
        "#",
        f"accuracy ({unit})" if unit else "accuracy",
        *(f"by {name}" for name in lower),
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
                *(f"{row['rungs'][name]:.2f}" for name in lower),
                _spread(row, "latency_ms", ".2f"),
                _measured(row),
                f"{row['macs'] / 1e9:.3f}",
                f"{row['params'] / 1e6:.2f}",
                f"{row['memory_mb']:.1f}",
                row["file"],
            ]
        )
    return text_table(head, rows)


def _spread(row: Row, key: str, form: str) -> str:
    value, sigma = row.get(key), row.get(key + SIGMA)
    if value is None:
        return "-"
    return f"{value:{form}}" if sigma is None else f"{value:{form}} ± {sigma:{form}}"


def _measured(row: Row) -> str:
    if row.get("measured_ms") is None:
        return str(row.get("notes") or "-")[:40]
    half = (row["measured_high"] - row["measured_low"]) / 2
    return f"{row['measured_ms']:.2f} ± {half:.2f}"


def _launch(config: SearchConfig, folder: Path) -> Launch | None:
    """How the workers of a search are run: jobs, processes of this machine, or this process alone."""
    environment = {} if config.storage is None else {STORAGE: config.storage}
    if config.launcher == "slurm":
        minutes = {} if config.minutes is None else {"timeout_min": math.ceil(config.minutes) + STARTING_MIN}
        return lambda numbers, look: run_jobs(folder, numbers, {**minutes, **config.jobs}, environment, look)
    if config.workers == 1:
        return None
    command = [sys.executable, "-m", "nas.search", "--name", folder.name, "--worker"]
    return lambda numbers, look: run_processes([[*command, str(one)] for one in numbers], environment, look)


def _check_launcher(config: SearchConfig) -> None:
    """InputError for jobs that would not find each other's study."""
    if config.launcher == "slurm" and (config.storage is None or sqlite_file(config.storage) is not None):
        rule = "jobs on several machines share a database: --storage postgresql://USER@HOST/DATABASE"
        raise InputError(rule, "none" if config.storage is None else masked(config.storage), "launcher")


def _forget(folder: Path) -> None:
    """Take the folder of a run away that never began, so that its name is free."""
    if [inside.name for inside in folder.iterdir()] == [RUN_FILE]:
        (folder / RUN_FILE).unlink()
        folder.rmdir()
