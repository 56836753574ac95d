"""Plots: the picture of a front in two dimensions. What each row is shown as is decided as data, then drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nas.reporting.pareto import front, values_of
from nas.reporting.plot_canvas import MANY, note, number_axis, run_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INFEASIBLE, DOMINATED, FRONT = "infeasible", "dominated", "front"
# in the order in which they are drawn, and their places in the legend; colours that are told apart by all (Okabe, Ito)
STYLES: dict[str, dict[str, Any]] = {
    INFEASIBLE: {"color": "#999999", "marker": "x", "alpha": 0.5, "s": 7},
    DOMINATED: {"color": "#56B4E9", "marker": "o", "alpha": 0.6, "s": 7},
    FRONT: {"color": "#D55E00", "marker": "o", "alpha": 1.0, "s": 14},
}
FAINT = 0.25  # of the points of a run that are not on its front, beside another run
MAX_BARS = 500  # error bars; beyond, they would hide the points
LINE = 36  # characters of an axis' label
BARS = "bars: one standard deviation"


@dataclass(frozen=True)
class Axis:
    """A column of the table as an axis: what it is called with its unit, where better is, which column holds the
    half-width of its error bar (in the same unit), and an upper or lower limit to show."""

    key: str
    label: str
    direction: str
    spread: str | None = None
    limit: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Picture:
    """What a picture shows: for each row that has both values, where it is, how sure that is, and what it is."""

    x: np.ndarray
    y: np.ndarray
    x_bar: np.ndarray
    y_bar: np.ndarray
    kinds: tuple[str, ...]
    left_out: int

    def of(self, kind: str) -> np.ndarray:
        """Indices of one kind; those of the front from left to right."""
        found = np.flatnonzero(np.array([own == kind for own in self.kinds], dtype=bool))
        return found[np.argsort(self.x[found], kind="stable")]


def picture(rows: Sequence[Mapping[str, Any]], x: Axis, y: Axis, excess: str = "excess") -> Picture:
    """The points of a table; rows in which a value is missing or not finite (or, on a log axis, not above zero) are
    left out and counted. A row is infeasible where its `excess` is above zero."""
    values, shown, kinds = placed(rows, (x, y), excess)
    x_bar, y_bar = (_bars(rows, axis.spread)[shown] for axis in (x, y))
    return Picture(values[:, 0], values[:, 1], x_bar, y_bar, kinds, int((~shown).sum()))


def placed(
    rows: Sequence[Mapping[str, Any]], axes: Sequence[Axis], excess: str = "excess"
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Where the rows stand that have a place on every axis; which those are; and what each of them is."""
    values = values_of(rows, [axis.key for axis in axes])
    shown = np.isfinite(values).all(axis=1)
    for column, axis in enumerate(axes):
        if axis.log:
            shown &= ~(values[:, column] <= 0)
    over = np.array([float(row.get(excess) or 0.0) for row in rows], dtype=float)[shown]
    best = set(front(values[shown], [axis.direction for axis in axes], over).tolist())
    kinds = tuple(INFEASIBLE if over[i] else FRONT if i in best else DOMINATED for i in range(len(over)))
    return values[shown], shown, kinds


def draw_pareto(figure: Figure, shown: Mapping[str, Picture], x: Axis, y: Axis, title: str = "") -> None:
    """One run: its points by what they are. Several, by name: the front of each over its own points, faint."""
    axes = figure.add_subplot()
    for number, (name, own) in enumerate(shown.items()):
        if len(shown) == 1:
            for kind, style in STYLES.items():
                _draw_kind(axes, own, kind, f"{kind} ({len(own.of(kind))})", style)
            _draw_steps(axes, own, x, STYLES[FRONT]["color"], "-")
        else:
            color, marker, line = run_style(number)
            style = {"color": color, "marker": marker}
            _draw_kind(axes, own, DOMINATED, "", {**style, "alpha": FAINT, "s": 5, "linewidths": 0})
            _draw_kind(axes, own, FRONT, f"{name} ({len(own.of(FRONT))})", {**style, "alpha": 1.0, "s": 14})
            _draw_steps(axes, own, x, color, line)
    for axis, line_at in ((x, axes.axvline), (y, axes.axhline)):
        if axis.limit is not None:
            line_at(axis.limit, color="#333333", linewidth=0.8, linestyle=":", label=f"limit {axis.limit:g}")
    axes.set_xlabel(named(x))
    axes.set_ylabel(named(y))
    axes.set_title(title)
    number_axis(axes, "x", x.key, x.log)
    number_axis(axes, "y", y.key, y.log)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
    left_out = sum(own.left_out for own in shown.values())
    barred = any((own.x_bar[own.of(FRONT)] + own.y_bar[own.of(FRONT)]).any() for own in shown.values())
    note(figure, [BARS if barred else "", f"{left_out} networks without a value are not shown" if left_out else ""])


def named(axis: Axis) -> str:
    """The axis' label, with where better is: in its first line where there is room."""
    first, *rest = axis.label.split("\n")
    better = "more is better" if axis.direction == "maximize" else "less is better"
    lines = [f"{first}, {better}"] if len(first) <= LINE - len(better) else [first, better]
    return "\n".join([*lines, *rest])


def _bars(rows: Sequence[Mapping[str, Any]], spread: str | None) -> np.ndarray:
    """Half-widths of error bars; 0 where there is none."""
    if spread is None:
        return np.zeros(len(rows))
    found = values_of(rows, [spread])[:, 0]
    return np.where(np.isfinite(found) & (found > 0), found, 0.0)


def _draw_kind(axes: Axes, shown: Picture, kind: str, label: str, style: dict[str, Any]) -> None:
    """The points of a kind; those of the front with their error bars."""
    these = shown.of(kind)
    if not len(these):
        return
    points = shown.x[these], shown.y[these]
    axes.scatter(*points, label=label, zorder=2, rasterized=len(these) > MANY, **{"linewidths": 0.7, **style})
    barred = these[(shown.x_bar[these] > 0) | (shown.y_bar[these] > 0)][:MAX_BARS]
    if kind != FRONT or not len(barred):
        return
    bars = axes.errorbar(
        shown.x[barred],
        shown.y[barred],
        xerr=shown.x_bar[barred],
        yerr=shown.y_bar[barred],
        fmt="none",
        ecolor=style["color"],
        elinewidth=0.6,
        alpha=0.5,
        zorder=1,
    )
    bars.set_label("")


def _draw_steps(axes: Axes, shown: Picture, x: Axis, color: str, line: str) -> None:
    """The edge of what the front dominates: between two of its points, the corner that both dominate."""
    these = shown.of(FRONT)
    if len(these) > 1:
        where: Literal["pre", "post"] = "post" if x.direction == "minimize" else "pre"
        axes.step(shown.x[these], shown.y[these], where=where, color=color, linestyle=line, linewidth=0.8, zorder=1)
