"""Ladder: the best networks of a search judged again by dearer estimators, fewer of them at each rung.

Successive halving (Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
AISTATS 2016, https://arxiv.org/abs/1502.07943) over the front: networks are promoted by rank of non-domination, as in
Schmucker et al., "Multi-objective asynchronous successive halving", 2021, https://arxiv.org/abs/2106.12639, and of the
rank that does not fit whole those that lie evenly along it. Each rung's accuracies take the place of those before, so
that no two estimators' figures are ever compared; only networks of the last rung can be on the front.

Every figure is kept in the run's folder as soon as it is known, under what it depends on. Each rung judges in a process
of its own: a network that ends or hangs it is left out with the reason.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.progress import Progress
from nas.core.runs import read_json, write_json
from nas.core.space import Space
from nas.model.spaces import shared_rules
from nas.reporting.finished import DIRECTIONS, SIGMA, Row, over
from nas.reporting.pareto import ranks, values_of
from nas.searching.config import Rung, SearchConfig
from nas.searching.front import evenly
from nas.searching.isolated import Isolated
from nas.searching.objective import Accuracy, NotJudged, judged
from nas.searching.results import FAILED
from nas.searching.run import judging_facts, make_accuracy
from nas.searching.signals import Interrupted, Signals

ETA = 3  # of so many networks one is promoted, where a rung does not say how many it judges
FOLDER, BEGUN = "ladder", "begun.json"

Figure = dict[str, Any]  # value and sigma, or reason


class Climbed(NamedTuple):
    """Rows with `rungs` (estimator to accuracy) and with the accuracy of the last rung, None for those below it.

    signal  that ended the climb; told: how many networks each rung judged
    """

    rows: list[Row]
    signal: int | None
    told: str


class Judging(NamedTuple):
    """How a rung judges: its estimator, once it is needed, and what its figures depend on."""

    make: Callable[[Rung], AbstractContextManager[Accuracy]]
    facts: Callable[[Rung], Mapping[str, Any]]


def judging(config: SearchConfig) -> Judging:
    """By the estimators that a configuration names."""

    def make(rung: Rung) -> AbstractContextManager[Accuracy]:
        return Isolated(partial(make_accuracy, config.on(rung)), rung.limit_s)

    def facts(rung: Rung) -> Mapping[str, Any]:
        return {**judging_facts(config.on(rung)), "steps": rung.steps or config.steps, "seed": config.seed}

    return Judging(make, facts)


def check(config: SearchConfig) -> None:
    """InputError for a rung whose estimator cannot be made: told before the search rather than after it."""
    for rung in config.ladder:
        make_accuracy(config.on(rung))


def climb(
    rows: Sequence[Row],
    objectives: Sequence[str],
    first: str,
    rungs: Sequence[Rung],
    folder: Path,
    judging: Judging,
) -> Climbed:
    """Judge the best rows of a search rung by rung; `first` estimated the accuracies that they have."""
    found = [{**row, "rungs": {} if row["accuracy"] is None else {first: row["accuracy"]}} for row in rows]
    standing = [row for row in found if over(row) <= 0 and row["accuracy"] is not None]
    counts = [f"{len(standing)} by {first}"]
    with Signals(lambda: None, lambda: None) as signals:
        for rung in rungs:
            standing = promoted(standing, objectives, rung.keep or math.ceil(len(standing) / ETA))
            counts.append(f"{len(standing)} by {rung.name}")
            try:
                figures = _figures(standing, rung, Kept(folder, rung, judging.facts(rung)), judging, signals)
            except Interrupted:
                break
            for row, figure in zip(standing, figures, strict=True):
                _judge(row, rung, figure)
            standing = [row for row in standing if row["accuracy"] is not None]
    last = {row["digest"] for row in standing}
    for row in found:
        if row["digest"] not in last:
            row["accuracy"] = row["accuracy" + SIGMA] = None
    return Climbed(found, signals.received, f"networks judged: {', '.join(counts)}")


def promoted(rows: Sequence[Row], objectives: Sequence[str], most: int) -> list[Row]:
    """The best rows, rank by rank; of the rank that does not fit whole, those evenly along it with both its ends.

    Along is by the first objective that is not accuracy.
    """
    own = ranks(values_of(rows, objectives), [DIRECTIONS[name] for name in objectives])
    along = next((name for name in objectives if name != "accuracy"), objectives[0])
    best: list[Row] = []
    for rank in range(int(own.max(initial=-1)) + 1):
        level = sorted((row for row, at in zip(rows, own, strict=True) if at == rank), key=lambda row: row[along])
        best += evenly(level, most - len(best))
    return best


class Kept:
    """The figures of a rung, in a file of the run's folder that is named by what they depend on."""

    def __init__(self, folder: Path, rung: Rung, facts: Mapping[str, Any]):
        text = json.dumps(facts, sort_keys=True, allow_nan=False)
        self._path = folder / FOLDER / f"{rung.accuracy}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        self._facts = dict(facts)
        self._figures: dict[str, Figure] = read_json(self._path)["networks"] if self._path.exists() else {}

    def get(self, digest: str) -> Figure | None:
        """Of a network that was judged."""
        return self._figures.get(digest)

    def put(self, digest: str, figure: Figure) -> None:
        """Keep it, before the next network is judged."""
        self._figures[digest] = figure
        _made(self._path.parent)
        write_json(self._path, {"of": self._facts, "networks": self._figures})


def note_begin(folder: Path, config: SearchConfig, end: str) -> None:
    """Note that the search came to its end: a run that is killed on the ladder goes on there."""
    _made(folder / FOLDER)
    write_json(folder / FOLDER / BEGUN, {"end": end, "of": [config.trials, config.minutes]})


def begun(folder: Path, config: SearchConfig) -> str | None:
    """How the search of a run ended that was killed on its ladder; None where it was not, or is to search longer."""
    path = folder / FOLDER / BEGUN
    told = read_json(path) if path.exists() else {"of": None}
    return str(told["end"]) if told["of"] == [config.trials, config.minutes] else None


def note_end(folder: Path) -> None:
    """Note that the ladder is climbed: the next who goes on with the run searches longer."""
    (folder / FOLDER / BEGUN).unlink(missing_ok=True)


def _figures(rows: Sequence[Row], rung: Rung, kept: Kept, judging: Judging, signals: Signals) -> list[Figure]:
    """What a rung says of each row; what is kept is not computed again."""
    missing = [row for row in rows if kept.get(row["digest"]) is None]
    if missing:
        before = len(rows) - len(missing)
        shown = Progress(len(rows), f"{rung.name}: network", "networks", start=before)
        with signals.raised(), shown, judging.make(rung) as accuracy:
            for done, row in enumerate(missing, start=before + 1):
                kept.put(row["digest"], _figure(accuracy, row["architecture"]))
                shown.update(done)
    return [kept.get(row["digest"]) or {} for row in rows]


def _figure(accuracy: Accuracy, document: Mapping[str, Any]) -> Figure:
    architecture: Architecture = Space.parse(document, shared_rules(), "a network of the search").only()
    try:
        estimate = judged(accuracy, architecture)
    except NotJudged as failure:
        return {"reason": str(failure)}
    return {"value": float(estimate.value), "sigma": None if estimate.sigma is None else float(estimate.sigma)}


def _judge(row: Row, rung: Rung, figure: Figure) -> None:
    """Put a rung's figure in the place of the one before."""
    row["accuracy"], row["accuracy" + SIGMA] = figure.get("value"), figure.get("sigma")
    if "value" in figure:
        row["rungs"] = {**row["rungs"], rung.name: figure["value"]}
    else:
        row["reason"], row["feasible"] = f"{rung.name}: {figure['reason']}", False
        row["excess"] = {**row["excess"], FAILED: 1.0}


def _made(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder cannot be made ({error.strerror})", place=str(folder)) from None
