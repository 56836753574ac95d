"""Plots: the picture of a front, from the rows of a table. What each row is shown as is decided as data, then drawn."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.errors import InputError
from nas.core.runs import write_whole
from nas.reporting.pareto import front, values_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INFEASIBLE, DOMINATED, FRONT = "infeasible", "dominated", "front"
# in the order in which they are drawn, and their places in the legend; colours that are told apart by all (Okabe, Ito)
STYLES: dict[str, dict[str, Any]] = {
    INFEASIBLE: {"color": "#999999", "marker": "x", "alpha": 0.5, "s": 18},
    DOMINATED: {"color": "#56B4E9", "marker": "o", "alpha": 0.6, "s": 18},
    FRONT: {"color": "#D55E00", "marker": "o", "alpha": 1.0, "s": 36},
}
MAX_BARS = 500  # error bars of a kind of points; beyond, they would hide the points


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
    values = values_of(rows, [x.key, y.key])
    shown = np.isfinite(values).all(axis=1)
    for column, axis in enumerate((x, y)):
        if axis.log:
            shown &= ~(values[:, column] <= 0)
    over = np.array([float(row.get(excess) or 0.0) for row in rows], dtype=float)[shown]
    best = set(front(values[shown], [x.direction, y.direction], over).tolist())
    kinds = tuple(INFEASIBLE if over[i] else FRONT if i in best else DOMINATED for i in range(len(over)))
    x_bar, y_bar = (_bars(rows, axis.spread)[shown] for axis in (x, y))
    return Picture(values[shown, 0], values[shown, 1], x_bar, y_bar, kinds, int((~shown).sum()))


def pareto_png(rows: Sequence[Mapping[str, Any]], x: Axis, y: Axis, title: str = "", excess: str = "excess") -> bytes:
    """The picture as PNG: the same bytes for the same rows and the same matplotlib."""
    if x.key == y.key:
        raise InputError("a picture has two different axes", value=x.key)
    shown = picture(rows, x, y, excess)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.8), dpi=150, layout="constrained")  # no pyplot: no state outside this function
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for kind, style in STYLES.items():
        _draw_kind(axes, shown, kind, style)
    _draw_steps(axes, shown, x)
    for axis, line in ((x, axes.axvline), (y, axes.axhline)):
        if axis.limit is not None:
            line(axis.limit, color="#333333", linewidth=1, linestyle=":", label=f"limit {axis.limit:g}")
    axes.set_xlabel(_named(x), parse_math=False)
    axes.set_ylabel(_named(y), parse_math=False)
    axes.set_title(title, parse_math=False)  # names are text, never a formula
    if x.log:
        axes.set_xscale("log")
    if y.log:
        axes.set_yscale("log")
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize="small")
    if shown.left_out:
        figure.supxlabel(f"{shown.left_out} rows without a value are not shown", fontsize="x-small")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def write_pareto(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    x: Axis,
    y: Axis,
    title: str = "",
    excess: str = "excess",
) -> None:
    """Write the picture as a PNG file, whole or not at all."""
    write_whole(path, pareto_png(rows, x, y, title, excess))


def _bars(rows: Sequence[Mapping[str, Any]], spread: str | None) -> np.ndarray:
    """Half-widths of error bars; 0 where there is none."""
    if spread is None:
        return np.zeros(len(rows))
    found = values_of(rows, [spread])[:, 0]
    return np.where(np.isfinite(found) & (found > 0), found, 0.0)


def _draw_kind(axes: Axes, shown: Picture, kind: str, style: dict[str, Any]) -> None:
    these = shown.of(kind)
    if not len(these):
        return
    axes.scatter(shown.x[these], shown.y[these], label=f"{kind} ({len(these)})", linewidths=1, zorder=2, **style)
    barred = these[(shown.x_bar[these] > 0) | (shown.y_bar[these] > 0)][:MAX_BARS]
    if len(barred) and kind != INFEASIBLE:
        axes.errorbar(
            shown.x[barred],
            shown.y[barred],
            xerr=shown.x_bar[barred],
            yerr=shown.y_bar[barred],
            fmt="none",
            ecolor=style["color"],
            elinewidth=0.8,
            alpha=0.6 * style["alpha"],
            zorder=1,
        )


def _draw_steps(axes: Axes, shown: Picture, x: Axis) -> None:
    """The edge of what the front dominates: between two of its points, the corner that both dominate."""
    these = shown.of(FRONT)
    if len(these) > 1:
        axes.step(
            shown.x[these],
            shown.y[these],
            where="post" if x.direction == "minimize" else "pre",
            color=STYLES[FRONT]["color"],
            linewidth=1,
            zorder=1,
        )


def _named(axis: Axis) -> str:
    return f"{axis.label} ({'more' if axis.direction == 'maximize' else 'less'} is better)"
