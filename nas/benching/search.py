"""Search: samplers side by side on objectives whose values are known, by hypervolume against evaluations.

The objectives are accuracy (more is better) and multiply-accumulates (less is better). Only different networks count as
evaluations: what a sampler proposes again is answered from what is known, as the search does. `random`, `nsga2` and
`tpe` are Optuna's samplers with their defaults; `nsga2_inheriting` is its NSGA-II with children that inherit parameters
which only some networks have (Optuna's own draws them at random); `autoformer` is the evolution of that paper, a run
for each of five limits in turn; `evolution` is this project's.

Hypervolumes are relative to that of all points that any run has found, from one reference point: a tenth of the extent
beyond the worst values of the fronts of the runs. `low` and `high` are the least and the greatest of the seeds.
`evaluations_to_nsga2_500` is how many evaluations the mean of `evolution` takes to the mean that Optuna's NSGA-II has
at the end of its budget.

`trial_rate_ratio` is the rate of the whole loop (proposals, queue, constraints, results) over that of Optuna's bare
`optimize` with the same sampler and storage, all accuracies known; both run in turns, a few trials each, so that what
else the machine does slows both. `processor_ratio` is the same of the processor's time. `candidates_per_second` counts
mutated networks ranked by costs, latency and accuracy with its uncertainty, by the processor's time as well.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

HELP = "samplers by hypervolume against evaluations, overhead of the loop, and the rate of ranking"
SAMPLERS = ("random", "nsga2", "nsga2_inheriting", "tpe", "autoformer", "evolution")
POINTS = 25  # of a curve
FITTED = 200  # networks that the accuracy model has seen when candidates are ranked
PARENTS = 30  # of the candidates that are ranked
RANKED = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--objective",
        action="append",
        metavar="NAME",
        help="synthetic[:SPACE], supernet:RUN (a run of nas.train), or a ground truth that is complete for its "
        "space, as TRUTH[:COLUMN]; may be repeated (default: synthetic and every such truth)",
    )
    parser.add_argument("--sampler", action="append", choices=SAMPLERS, help="may be repeated (default: all)")
    parser.add_argument("--evaluations", type=int, default=500, help="networks a run (default: 500)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each sampler (default: 5)")
    parser.add_argument("--trials", type=int, default=200, help="of the measurement of overhead (default: 200)")
    parser.add_argument("--space", default="mixed", help="in which candidates are ranked (default: mixed)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Curves of every sampler on every objective, and rates."""
    from nas.benching._objectives import complete_truths, objective
    from nas.core.errors import InputError

    for name in ("evaluations", "seeds", "trials"):
        if getattr(options, name) < 1:
            raise InputError("a number above zero", value=f"--{name} {getattr(options, name)}")
    names = options.objective or ["synthetic", *complete_truths()]
    samplers = list(dict.fromkeys(options.sampler or SAMPLERS))
    rates, ranked = overhead(options.trials), ranking(options.space)
    return {
        "objectives": [_compared(objective(name), samplers, options.evaluations, options.seeds) for name in names],
        "trial_rate_ratio": min(row["ratio"] for row in rates),
        "overhead": rates,
        "candidates_per_second": ranked["ranked"],
        "ranking": ranked,
    }


def _compared(known: Any, samplers: list[str], evaluations: int, seeds: int) -> dict[str, Any]:
    """The curves of the samplers on one objective."""
    import numpy as np

    from nas.benching import _autoformer
    from nas.reporting.pareto import anytime, front, hypervolume, reference_point
    from nas.searching.contest import DIRECTIONS, evaluated
    from nas.searching.ranking import Ranker

    ranker = Ranker(known.space)

    def macs(architecture: Any) -> float:
        return float(ranker.figures_of([ranker.segments(architecture)]).macs[0])

    evaluations = min(evaluations, known.space.size)
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for name in samplers:
        for seed in range(seeds):
            if name == "autoformer":
                points = _autoformer.evaluated(known.space, macs, known.accuracy, evaluations, seed)
            else:
                points = evaluated(name, known.space, ranker, known.accuracy, evaluations, seed)
            found.setdefault(name, []).append(points)
    everything = np.array([point for runs in found.values() for points in runs for point in points])
    best = everything[front(everything, DIRECTIONS)]
    fronts = [[points[row] for row in front(points, DIRECTIONS)] for runs in found.values() for points in runs]
    reference = reference_point([point for each in fronts for point in each], DIRECTIONS)
    whole = hypervolume(best, DIRECTIONS, reference.point)
    curves = {
        name: np.stack([_filled(anytime(points, DIRECTIONS, reference.point), evaluations) / whole for points in runs])
        for name, runs in found.items()
    }
    return {
        "name": known.name,
        "about": known.about,
        "networks": known.space.size,
        "budget_evaluations": evaluations,
        "reference": {"point": list(reference.point), "how": f"of the fronts of the runs: {reference.how}"},
        "samplers": {name: {"hypervolume": _curve(curve), "seeds": seeds} for name, curve in curves.items()},
        "evaluations_to_nsga2_500": _until(curves, "nsga2"),
        "evaluations_to_nsga2_inheriting_500": _until(curves, "nsga2_inheriting"),
    }


def _filled(curve: Any, evaluations: int) -> Any:
    """A run that ended early stays where it was."""
    import numpy as np

    return np.concatenate([curve, np.full(evaluations - len(curve), curve[-1])])


def _curve(curves: Any) -> list[list[float]]:
    """[evaluations, mean, low, high] at even steps."""
    import numpy as np

    count = curves.shape[1]
    at = sorted({max(1, round(count * step / POINTS)) for step in range(1, POINTS + 1)})
    return [
        [number, *(float(value) for value in (np.mean(column), column.min(), column.max()))]
        for number, column in ((number, curves[:, number - 1]) for number in at)
    ]


def _until(curves: dict[str, Any], baseline: str) -> int | None:
    """Evaluations that the mean of `evolution` takes to the last mean of a baseline; None where it does not."""
    import numpy as np

    if baseline not in curves or "evolution" not in curves:
        return None
    reached = np.flatnonzero(curves["evolution"].mean(axis=0) >= curves[baseline].mean(axis=0)[-1])
    return int(reached[0]) + 1 if len(reached) else None


def overhead(trials: int) -> list[dict[str, Any]]:
    """Rates of the whole loop and of Optuna's own, for samplers that both have."""
    from nas.benching._objectives import objective
    from nas.searching.contest import rates

    known = objective("synthetic")
    rows = []
    for name in ("random", "nsga2"):
        found = rates(name, known.space, known.accuracy, trials)
        told = {
            "sampler": name,
            "trials": trials,
            "whole_loop": found.whole,
            "optuna": found.bare,
            "ratio": found.ratio,
        }
        rows.append({**told, "processor_ratio": found.processor_ratio})
    return rows


def ranking(space_name: str) -> dict[str, Any]:
    """Networks a second, mutated and ranked, once their parents' have been; and in the first pass, on nothing known."""
    from random import Random

    from nas.benching._objectives import synthetic
    from nas.latency.latency import Latency
    from nas.model.spaces import load_named_space
    from nas.searching.ranking import Ranker
    from nas.searching.surrogate import Surrogate
    from nas.searching.vocabulary import Vocabulary

    space = load_named_space(space_name)
    random, variation, ranker = Random(0), space.variation, Ranker(space, latency=Latency("cpu"))
    parents = [variation.sample(random) for _ in range(FITTED)]
    networks = [variation.build(path) for path in parents]
    values = [synthetic(network, ranker.costs.cost(network)) for network in networks]
    surrogate = Surrogate(Vocabulary(), networks, ranker.figures(networks), values)
    made: list[Any] = []

    def mutate() -> None:
        made[:] = [variation.build(variation.mutate(random.choice(parents[:PARENTS]), random)) for _ in range(RANKED)]

    def rank() -> None:
        surrogate.predict(made, ranker.figures(made))

    passes = [(RANKED / _seconds(mutate), RANKED / _seconds(rank)) for _ in range(3)]
    (first_mutated, first_ranked), *_, (mutated, ranked) = passes
    return {
        "space": space.name,
        "candidates": RANKED,
        "fitted_networks": FITTED,
        "first_mutated": first_mutated,
        "first_ranked": first_ranked,
        "mutated": mutated,
        "ranked": ranked,
    }


def _seconds(act: Callable[[], None]) -> float:
    """Of the processor."""
    start = time.process_time()
    act()
    return time.process_time() - start


def table(result: dict[str, Any]) -> str:
    """Text for a terminal."""
    from nas.reporting.text import text_table

    parts = []
    for compared in result["objectives"]:
        shown = [row[0] for row in next(iter(compared["samplers"].values()))["hypervolume"]]
        shown = [
            number for number in shown if number in shown[:1] or shown.index(number) % 4 == 3 or number == shown[-1]
        ]
        rows = []
        for name, found in compared["samplers"].items():
            at = {number: f"{mean:.3f} ({low:.3f}-{high:.3f})" for number, mean, low, high in found["hypervolume"]}
            rows.append([name, *(at[number] for number in shown)])
        parts.append(f"{compared['name']}, {compared['networks']} networks ({compared['about']})")
        parts.append(text_table(["sampler", *(f"{number}" for number in shown)], rows))
        for baseline in ("nsga2", "nsga2_inheriting"):
            took = compared[f"evaluations_to_{baseline}_500"]
            if took is not None:
                budget = compared["budget_evaluations"]
                parts.append(f"evolution is where {baseline} is after {budget} evaluations after {took}")
    rates = ", ".join(f"{row['sampler']} {row['ratio']:.2f}" for row in result["overhead"])
    parts.append(f"rate of the whole loop over Optuna's own: {rates}")
    found = result["ranking"]
    parts.append(
        f"{found['space']}: {found['mutated']:.0f} candidates mutated and {found['ranked']:.0f} ranked a second"
    )
    return "\n".join(parts)
