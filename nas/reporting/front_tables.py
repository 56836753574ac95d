"""Tables of fronts: every figure as it is, as CSV; and what a paper shows, rounded by its uncertainty, as LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from nas.core.units import format_count
from nas.reporting.compared import ESTIMATED, label, names
from nas.reporting.finished import SIGMA, Finished, Row
from nas.reporting.latex import latex_table
from nas.reporting.plot_operators import mixers_of
from nas.reporting.text import rounded

FIGURES = (
    *("accuracy", "accuracy_sigma", "latency_ms", "latency_ms_sigma", "measured_ms", "measured_low", "measured_high"),
    *("macs", "params", "memory_mb", "peak_mb"),
)
DIGITS = 10  # of a network's hash, in print
MIXERS = 3  # names of mixers of a network, in print
UNKNOWN = "–"


def front_csv(runs: Sequence[Finished]) -> str:
    """A line a member, all figures with all their digits, empty where unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "number", *FIGURES, "mixers", "digest", "file", "notes"])
    for name, run in zip(names(runs), runs, strict=True):
        for row in run.front:
            figures = ["" if row.get(key) is None else row[key] for key in FIGURES]
            told = [row.get(key) or "" for key in ("digest", "file", "notes")]
            writer.writerow([name, row["number"], *figures, mixers_text(row), *told])
    return text.getvalue()


def front_latex(runs: Sequence[Finished]) -> str:
    """The fronts as one table of a paper; a column that no member has is left out, and so is that of a single run."""
    members = [(name, row) for name, run in zip(names(runs), runs, strict=True) for row in run.front]
    columns = [
        ("run", "l", [name for name, _ in members] if len(runs) > 1 else []),
        ("#", "r", [str(row["number"]) for _, row in members]),
        (_one_line(runs, "accuracy"), "r", [_with_sigma(row, "accuracy") for _, row in members]),
        (_one_line(runs, "latency_ms"), "r", [_with_sigma(row, "latency_ms") for _, row in members]),
        ("measured (ms)", "r", [_measured(row) for _, row in members]),
        ("MACs", "r", [_count(row, "macs") for _, row in members]),
        ("params", "r", [_count(row, "params") for _, row in members]),
        ("memory (MB)", "r", [_with_sigma(row, "memory_mb") for _, row in members]),
        ("mixers (blocks)", "l", [mixers_text(row, MIXERS) or UNKNOWN for _, row in members]),
        ("network", "l", [str(row["digest"])[:DIGITS] for _, row in members]),
    ]
    shown = [column for column in columns if not members or any(cell != UNKNOWN for cell in column[2])]
    rows = list(zip(*(cells for _, _, cells in shown), strict=True))
    about = "; ".join(dict.fromkeys(_about(run) for run in runs))
    caption = f"{'Fronts' if len(runs) > 1 else 'Front'} of {about}. ± is one standard deviation, brackets are 95 %."
    return latex_table([head for head, _, _ in shown], rows, "".join(align for _, align, _ in shown), caption)


def mixers_text(row: Row, most: int | None = None) -> str:
    """`softmax ×6, window ×3`, the most frequent first; of more than `most` names the rest are `others`."""
    counted = sorted(mixers_of(row).items(), key=lambda item: (-item[1], item[0]))
    if most is not None and len(counted) > most:
        counted = [*counted[: most - 1], ("others", sum(count for _, count in counted[most - 1 :]))]
    return ", ".join(f"{name} ×{count}" for name, count in counted)


def _about(run: Finished) -> str:
    latency = str(run.about["latency"] or "")
    said = f" (latency {ESTIMATED})" if latency.startswith(ESTIMATED) else ""
    budget = f" within {run.about['budget']}" if run.about["budget"] else ""
    return f"{run.provenance['config'].get('space', '')} on {run.about['target']}{budget}{said}"


def _one_line(runs: Sequence[Finished], key: str) -> str:
    return label(runs, key).replace("\n", ", ")


def _with_sigma(row: Row, key: str) -> str:
    value = row.get(key)
    if value is None:
        return UNKNOWN
    shown, sigma = rounded(value, row.get(key + SIGMA))
    return f"{shown} ± {sigma}" if sigma else shown


def _measured(row: Row) -> str:
    """A measurement to the decimal place of half its interval, and the interval."""
    value, low, high = (row.get(key) for key in ("measured_ms", "measured_low", "measured_high"))
    if value is None:
        return UNKNOWN
    if low is None or high is None:
        return rounded(value)[0]
    half = (high - low) / 2
    return f"{rounded(value, half)[0]} [{rounded(low, half)[0]}, {rounded(high, half)[0]}]"


def _count(row: Row, key: str) -> str:
    return UNKNOWN if row.get(key) is None else format_count(row[key])
