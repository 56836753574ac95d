"""Accuracy estimators side by side on every shipped ground truth, trivial ones included.

`tau` is Kendall's tau-b between estimator and accuracy, with a 95 % bootstrap interval over the networks (percentiles,
seeded). Each column of a truth is an entry of its own, named truth/column; `published/top1` are the networks with a
published ImageNet top-1 of the usual recipe. Where an estimator has no figure for some networks, tau is that of the
others and `scored` their number. Proxies see normal noise with random labels: nothing of the data sets themselves.

What is fitted is held against what it has not seen: a prior is fitted without the truth, or without the family of
papers of the network, that it is asked about; a learned one starts from such a prior and observes the other families,
or four fifths of the truth at a time, by chance, to rank the rest. What needs trained weights is a row that says so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

HELP = "accuracy estimators on shipped ground truth: rank correlation and cost, trivial baselines included"
MOST = 500  # networks of a truth that is scored without being asked for
FEWEST = 3  # networks of which a rank correlation says anything
PARTS = 5  # in which networks are divided for what learns from the others
PUBLISHED = "published"


class Subject(NamedTuple):
    """Networks with figures by column; fold: what a prior must not have seen to be asked about the network."""

    name: str
    networks: list[Any]
    columns: dict[str, list[float | None]]
    folds: list[str]


class Scored(NamedTuple):
    """Comparable scores by place in the list of networks, seconds a network, and why others have none."""

    scores: dict[int, float]
    seconds: float | None
    reason: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--truth", metavar="NAMES", help=f"truths, or {PUBLISHED}, joined by commas (default: all)")
    parser.add_argument("--only", metavar="NAMES", help="estimators beside the trivial ones (default: all)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N networks of each truth (default: all)")
    parser.add_argument("--images", type=int, default=8, help="of the batch that proxies see (default: 8)")
    parser.add_argument("--side", type=int, metavar="PIXELS", help="images and networks (default: each network's own)")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One entry for each column of each truth."""
    import torch

    from nas.accuracy import estimator, estimators
    from nas.accuracy.truth import truth_names
    from nas.core.errors import InputError

    if options.limit is not None and options.limit < FEWEST:
        raise InputError(f"a rank correlation needs {FEWEST} networks", value=f"--limit {options.limit}")
    if options.images < 2:
        raise InputError("proxies need two images", value=f"--images {options.images}")
    known = estimators()
    chosen = [name.strip() for name in options.only.split(",")] if options.only else list(known)
    for name in chosen:
        estimator(name)
    chosen = [name for name in known if name in chosen or known[name].kind == "trivial"]
    truths = [name.strip() for name in options.truth.split(",")] if options.truth else [*truth_names(), PUBLISHED]
    torch.set_num_threads(1)
    subjects = [subject(name, options.limit) for name in truths]
    if not options.truth:  # larger ones are for samplers, and would take proxies hours
        subjects = [one for one in subjects if len(one.networks) <= MOST]
    entries = [entry for one in subjects for entry in held_against(one, chosen, options)]
    return {"truths": entries, "images": options.images, "side": options.side, "seed": options.seed}


def subject(name: str, limit: int | None) -> Subject:
    """The first networks of a truth, or of those with a published accuracy of the usual recipe."""
    from nas.accuracy.published import published
    from nas.accuracy.truth import load_truth

    if name == PUBLISHED:
        usual = [one for one in published() if not one.recipe][:limit]
        figures: dict[str, list[float | None]] = {"top1": [one.top1 for one in usual]}
        return Subject(name, [one.architecture for one in usual], figures, [one.fold for one in usual])
    truth = load_truth(name)
    rows = truth.figures[:limit]
    columns = {column: [row[place] for row in rows] for place, column in enumerate(truth.columns)}
    return Subject(name, list(truth.architectures[:limit]), columns, [name] * len(rows))


def held_against(truth: Subject, names: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The entries of one truth's columns; what does not learn from them scores the networks once for all."""
    from nas.accuracy import estimator

    kinds = {name: estimator(name).kind for name in names}
    once = {name: _scored(name, truth, options) for name in names if kinds[name] != "learned"}
    entries = []
    for column, figures in truth.columns.items():
        learned = {name: _learned(name, truth, figures, options) for name in names if kinds[name] == "learned"}
        rows = [_row(name, {**once, **learned}[name], figures, options.seed) for name in names]
        _compare(rows)
        rows.sort(key=lambda row: -2.0 if row["tau"] is None else row["tau"], reverse=True)
        known = sum(figure is not None for figure in figures)
        entries.append({"name": f"{truth.name}/{column}", "networks": known, "rows": rows})
    return entries


def _scored(name: str, truth: Subject, options: argparse.Namespace) -> Scored:
    """Scores of what is fitted to nothing, or to other networks."""
    from nas.accuracy import estimator
    from nas.accuracy.base import comparable

    cls = estimator(name)
    if cls.kind == "trained":
        return Scored({}, None, "needs trained weights")
    made: dict[Any, Any] = {}

    def one(place: int) -> Any:
        network = truth.networks[place]
        shape = options.side or network.input, network.channels, network.classes
        without = (truth.folds[place],) if cls.kind == "prior" else None
        if (shape, without) not in made:
            setting = _setting(shape, options)
            made[shape, without] = cls(setting) if without is None else cls(setting, without=without)  # type: ignore[call-arg]
        return made[shape, without].estimate(network)

    start = time.perf_counter()
    found, reason = _attempted({place: partial(one, place) for place in range(len(truth.networks))})
    seconds = (time.perf_counter() - start) / len(truth.networks)
    return Scored(dict(zip(found, comparable(list(found.values())), strict=True)), seconds, reason)


def _learned(name: str, truth: Subject, figures: list[float | None], options: argparse.Namespace) -> Scored:
    """Scores of what learns, of each part of the networks after seeing the other parts."""
    from nas.accuracy import estimator
    from nas.accuracy.prior import prior_fit

    places = [place for place, figure in enumerate(figures) if figure is not None]
    found: dict[int, float] = {}
    reasons: list[str] = []
    start = time.perf_counter()
    for asked in _parts(places, truth.folds, options.seed):
        prior = prior_fit(frozenset(truth.folds[place] for place in asked))
        learner: Any = estimator(name)(_setting((32, 3, 10), options), prior)  # type: ignore[call-arg]
        for place in places:
            if place not in asked:
                learner.observe(truth.networks[place], figures[place])
        answered, reason = _attempted({place: partial(learner.estimate, truth.networks[place]) for place in asked})
        found.update({place: estimate.value for place, estimate in answered.items()})
        reasons.append(reason)
    return Scored(found, (time.perf_counter() - start) / max(1, len(places)), next(filter(None, reasons), ""))


def _parts(places: list[int], folds: list[str], seed: int) -> list[list[int]]:
    """Places by fold; where there is but one fold, in parts by chance."""
    from random import Random

    if len(set(folds)) > 1:
        return [[place for place in places if folds[place] == fold] for fold in dict.fromkeys(folds)]
    mixed = Random(seed).sample(places, len(places))
    return [mixed[part::PARTS] for part in range(PARTS)]


def _attempted(calls: dict[int, Callable[[], Any]]) -> tuple[dict[int, Any], str]:
    """What could be estimated, and the first reason why something could not."""
    from nas.accuracy.base import Unscorable
    from nas.core.errors import InputError

    found, reasons = {}, []
    for place, call in calls.items():
        try:
            found[place] = call()
        except (Unscorable, InputError) as error:
            reasons.append(str(error))
    return found, reasons[0] if reasons else ""


def _setting(shape: tuple[int, int, int], options: argparse.Namespace) -> Any:
    from nas.accuracy.base import Setting

    return Setting.noise(*shape, count=options.images, seed=options.seed)


def _row(name: str, scored: Scored, figures: list[float | None], seed: int) -> dict[str, Any]:
    from nas.accuracy import estimator

    cls = estimator(name)
    places = [place for place in sorted(scored.scores) if figures[place] is not None]
    tau = low = high = None
    reason = scored.reason
    if len(places) >= FEWEST:
        known = [figure for place in places if (figure := figures[place]) is not None]
        tau, low, high = correlation([scored.scores[place] for place in places], known, seed)
        reason = reason if tau is not None else "every network has the same figure"
    return {
        "estimator": name,
        "kind": cls.kind,
        "tau": tau,
        "tau_low": low,
        "tau_high": high,
        "seconds_per_network": scored.seconds,
        "trivial": cls.kind == "trivial",
        "scored": len(places),
        "reason": reason,
        "cost": cls.cost,
    }


def correlation(
    scores: list[float], figures: list[float], seed: int = 0
) -> tuple[float | None, float | None, float | None]:
    """Kendall's tau-b and its 95 % interval; None where either side does not vary."""
    from nas.benching._statistics import kendall

    if min(len(set(scores)), len(set(figures))) < 2:
        return None, None, None
    return kendall(scores, figures, seed)


def _compare(rows: list[dict[str, Any]]) -> None:
    """Say of each other row how it stands beside the best trivial one."""
    trivial = [row for row in rows if row["trivial"] and row["tau"] is not None]
    best = max(trivial, key=lambda row: row["tau"], default=None)
    for row in rows:
        row["note"] = ""
        if best is None or row["trivial"] or row["tau"] is None:
            continue
        of = f"{best['estimator']} ({best['tau']:.2f})"
        if row["tau"] <= best["tau"]:
            row["note"] = f"does not beat {of}"
        else:
            row["note"] = f"beats {of}" + ("" if row["tau_low"] > best["tau"] else ", within its interval")


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    from nas.reporting.text import text_table

    head = ["estimator", "tau", "95 %", "s/network", "networks", ""]
    lines = []
    for entry in result["truths"]:
        rows = []
        for row in entry["rows"]:
            none = row["tau"] is None
            seconds = row["seconds_per_network"]
            rows.append(
                [
                    row["estimator"] + ("" if row["kind"] == "proxy" else f" ({row['kind']})"),
                    "-" if none else f"{row['tau']:.2f}",
                    "-" if none else f"{row['tau_low']:.2f} to {row['tau_high']:.2f}",
                    "-" if seconds is None else f"{seconds:.3f}",
                    row["scored"],
                    "; ".join(filter(None, [row["note"], row["reason"]])),
                ]
            )
        lines += [f"{entry['name']}: {entry['networks']} networks", text_table(head, rows), ""]
    return "\n".join(lines[:-1])
