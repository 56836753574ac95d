"""Operators along the front: of each member, cheapest first, the share of its blocks that each mixer has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.core.units import format_count
from nas.reporting.compared import along, by_cost, label, labels
from nas.reporting.finished import Finished, Row
from nas.reporting.plot_canvas import COLORS, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_MIXERS = 7  # with a colour of their own; the rarer ones are one
OTHER, NO_MIXER = "other", "no mixer"
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "oooo", "")  # colours are not all that tells them apart


@dataclass(frozen=True)
class Shares:
    """A run's front: a column a member, with its number and its cost, and a row a mixer, with its share of blocks."""

    run: str
    numbers: tuple[int, ...]
    costs: tuple[float | None, ...]
    mixers: tuple[str, ...]
    shares: np.ndarray


def mixers_of(row: Row) -> Counter[str]:
    """How many blocks of a network have which mixer."""
    return Counter(name_of(block["mixer"]) or NO_MIXER for block in row.get("outline") or ())


def name_of(operator: str) -> str:
    """The name of an operator without its knobs."""
    return operator.partition("(")[0].strip()


def operator_shares(runs: Sequence[Finished], cost: str | None = None) -> list[Shares]:
    """One for each run that has a front; all name the same mixers, the most frequent first."""
    counted = [[mixers_of(row) for row in by_cost(run, cost or along(run.objectives))] for run in runs]
    total: Counter[str] = Counter()
    for member in (member for front in counted for member in front):
        blocks = member.total()
        total.update({name: count / blocks for name, count in member.items()})
    ordered = sorted(total, key=lambda name: (-total[name], name))
    own = ordered if len(ordered) <= MAX_MIXERS else ordered[: MAX_MIXERS - 1]
    mixers = (*own, *((OTHER,) if len(own) < len(ordered) else ()))
    found = []
    for name, run, front in zip(labels(runs), runs, counted, strict=True):
        if not any(front):
            continue
        shares = np.zeros((len(mixers), len(front)))
        for column, member in enumerate(front):
            for mixer, count in member.items():
                shares[mixers.index(mixer) if mixer in own else len(own), column] += count / member.total()
        rows = by_cost(run, cost or along(run.objectives))
        costs = tuple(row.get(cost or along(run.objectives)) for row in rows)
        found.append(Shares(name, tuple(row["number"] for row in rows), costs, mixers, shares))
    return found


def draw_shares(figure: Figure, shown: Sequence[Shares], runs: Sequence[Finished], cost: str) -> None:
    """Stacked bars, a panel a run."""
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, own in zip(panels, shown, strict=True):
        _draw_panel(axes, own)
        if len(runs) > 1:
            axes.set_title(own.run, loc="left")
    panels[-1].set_xlabel(f"member of the front, by {label(runs, cost)}")
    handles, texts = panels[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside right upper")


def _draw_panel(axes: Axes, own: Shares) -> None:
    at = np.arange(len(own.numbers))
    below = np.zeros(len(at))
    for row, mixer in enumerate(own.mixers):
        color = GREY if mixer == OTHER else COLORS[:-1][row % (len(COLORS) - 1)]
        hatch = HATCHES[row % len(HATCHES)]
        axes.bar(
            at, own.shares[row], bottom=below, width=0.85, color=color, hatch=hatch, label=mixer,
            edgecolor="white", linewidth=0.3,
        )  # fmt: skip
        below += own.shares[row]
    axes.set_xticks(at, [_tick(number, cost) for number, cost in zip(own.numbers, own.costs, strict=True)])
    axes.tick_params(axis="x", labelsize=6 if len(at) <= 16 else 4.5)
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.6, max(len(at), 4) - 0.4)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("share of blocks")
    axes.grid(False)


def _tick(number: int, cost: float | None) -> str:
    if cost is None:
        return f"#{number}"
    return f"#{number}\n{format_count(round(cost)) if cost >= 1000 else f'{cost:.3g}'}"
