"""Compared: how runs are called that one picture or table shows together, and what they have in common.

Runs are shown together where their accuracies are in one unit. Objectives that not all of them have are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nas.core.errors import InputError
from nas.reporting.finished import DIRECTIONS, LABELS, SIGMA, Finished, Row, over
from nas.reporting.pareto import values_of
from nas.reporting.plots import Axis

ESTIMATED = "estimated, not measured"  # how the source of a latency begins that no measurement stands behind
LOG_FROM = 30.0  # an axis over a larger ratio of values is logarithmic
MAX_NAME, MAX_TITLE = 28, 54  # characters of a run's name in a picture, and of its title

Flat = Mapping[str, Any]


def check_comparable(runs: Sequence[Finished]) -> None:
    """InputError for no run, the same run twice, and runs whose accuracies are in different units."""
    if not runs:
        raise InputError("a report shows at least one run")
    for path, count in Counter(str(run.path.resolve()) for run in runs).items():
        if count > 1:
            raise InputError("each run is given once", path)
    first, *others = runs
    for run in others:
        units = first.about["unit"], run.about["unit"]
        if units[0] != units[1]:
            rule = f"runs are compared in one unit of accuracy: {first.path} has {units[0]!r}, another has"
            raise InputError(rule, units[1], str(run.path))


def names(runs: Sequence[Finished]) -> list[str]:
    """What each run is called: its folder's name, or the whole path where two have the same."""
    short = [printable(run.path.resolve().name) for run in runs]
    return [
        printable(str(run.path)) if count > 1 else name
        for run, name, count in zip(runs, short, (short.count(name) for name in short), strict=True)
    ]


def labels(runs: Sequence[Finished]) -> list[str]:
    """The names short enough for a picture; runs that would look the same are numbered."""
    made = [shortened(name, MAX_NAME) for name in names(runs)]
    return [f"{i}: {text}" if made.count(text) > 1 else text for i, text in enumerate(made, start=1)]


def title(runs: Sequence[Finished]) -> str:
    """Space and target where there is one run; several have their legend."""
    if len(runs) != 1:
        return ""
    space = printable(str(runs[0].provenance["config"].get("space", "")))
    return shortened(f"{space} on {printable(str(runs[0].about['target']))}", MAX_TITLE)


def objectives(runs: Sequence[Finished]) -> tuple[str, ...]:
    """Those that all runs have, in the order of the first."""
    return tuple(name for name in runs[0].objectives if all(name in run.objectives for run in runs))


def flat(run: Finished) -> list[Flat]:
    """The rows of a run with `excess` as one number, above 0 where a limit is broken or nothing could be judged."""
    return [{**row, "excess": over(row)} for row in run.rows]


def axis(runs: Sequence[Finished], key: str) -> Axis:
    """A figure as an axis: its unit, whether anybody measured it, and the limit where all runs have the same."""
    limits = {run.budget.limits().get(key) for run in runs}
    found = [values_of(run.rows, [key])[:, 0] for run in runs]
    shown = [value for values in found for value in values.tolist() if value == value]
    log = bool(shown) and min(shown) > 0 and max(shown) > LOG_FROM * min(shown)
    return Axis(key, label(runs, key), DIRECTIONS[key], key + SIGMA, limits.pop() if len(limits) == 1 else None, log)


def label(runs: Sequence[Finished], key: str) -> str:
    """A figure's name with its unit, and in a second line what a reader has to know of it."""
    if key == "accuracy":
        estimators = sorted({printable(str(run.about["accuracy"])) for run in runs})
        unit = printable(str(runs[0].about["unit"] or ""))
        return shortened(f"accuracy by {', '.join(estimators)}", 40) + (f" ({unit})" if unit else "")
    estimated = {str(run.about["latency"] or "").startswith(ESTIMATED) for run in runs}
    if key == "latency_ms" and True in estimated:
        return f"{LABELS[key]}\n{'some ' if len(estimated) > 1 else ''}{ESTIMATED}"
    return LABELS.get(key, key)


def along(names: Sequence[str]) -> str:
    """The figure by which members of a front are ordered: the first objective that is a cost."""
    return next((name for name in names if name != "accuracy"), "macs")


def by_cost(run: Finished, key: str) -> list[Row]:
    """The members of a front, the cheapest first; those whose cost is not known last."""
    return sorted(run.front, key=lambda row: (row.get(key) is None, row.get(key) or 0.0, row["number"]))


def printable(text: str) -> str:
    """The text with a question mark for each character that no page, picture or table can show."""
    return "".join(c if c.isprintable() else "?" for c in text)


def shortened(text: str, most: int) -> str:
    """The text, or its two ends around an ellipsis."""
    if len(text) <= most:
        return text
    end = (most - 1) // 3
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"
