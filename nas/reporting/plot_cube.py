"""Cube: the picture of a front of three objectives. Each member stands on a stem, so that its place can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.reporting.plot_canvas import note, run_style
from nas.reporting.plots import DOMINATED, FRONT, INFEASIBLE, STYLES, Axis, placed

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D

VIEW = {"elev": 22, "azim": -52}  # degrees
MAX_DOMINATED = 400  # of a run, evenly taken; a cloud of more hides the front


@dataclass(frozen=True)
class Cube:
    """The points that have all three values, what each is, and how many rows have no place."""

    points: np.ndarray
    kinds: tuple[str, ...]
    left_out: int

    def of(self, kind: str) -> np.ndarray:
        """The points of one kind."""
        return self.points[np.array([own == kind for own in self.kinds], dtype=bool)]


def cube(rows: Sequence[Mapping[str, Any]], axes: Sequence[Axis], excess: str = "excess") -> Cube:
    """The points of a table on three axes; an axis is never logarithmic here."""
    points, shown, kinds = placed(rows, axes, excess)
    return Cube(points, kinds, int((~shown).sum()))


def draw_cube(figure: Figure, shown: Mapping[str, Cube], axes: Sequence[Axis], title: str = "") -> None:
    """The fronts of runs by name over the points that they dominate; infeasible points are left out."""
    from mpl_toolkits.mplot3d import Axes3D

    plot: Axes3D = figure.add_subplot(axes_class=Axes3D)
    feasible = [own.points[np.array([kind != INFEASIBLE for kind in own.kinds], bool)] for own in shown.values()]
    every = np.concatenate([np.zeros((0, 3)), *feasible])
    for number, (name, own) in enumerate(shown.items()):
        color, marker = (STYLES[FRONT]["color"], "o") if len(shown) == 1 else run_style(number)[:2]
        faint = STYLES[DOMINATED]["color"] if len(shown) == 1 else color
        _draw_run(plot, own, name, (color, faint, marker), every)
    for axis, which, key in zip(axes, (plot.xaxis, plot.yaxis, plot.zaxis), "xyz", strict=True):
        _label(plot, axis, which, key)
    plot.set_title(title)
    plot.view_init(**VIEW)
    plot.set_box_aspect((1, 1, 0.85), zoom=0.86)
    if plot.get_legend_handles_labels()[0]:
        plot.legend(loc="upper left")
    left_out = sum(own.left_out for own in shown.values())
    note(figure, [f"{left_out} networks without a value are not shown" if left_out else ""])


def _draw_run(plot: Axes3D, own: Cube, name: str, style: tuple[str, str, str], every: np.ndarray) -> None:
    color, faint, marker = style
    dominated, front = own.of(DOMINATED), own.of(FRONT)
    if len(dominated):
        kept = dominated[np.unique(np.linspace(0, len(dominated) - 1, MAX_DOMINATED).astype(int))]
        label = f"dominated ({len(dominated)})" if not name else ""
        plot.scatter(*kept.T, s=3, color=faint, alpha=0.7, linewidths=0, depthshade=False, label=label)
    if len(front):
        floor = every[:, 2].min()
        for x, y, z in front:
            plot.plot([x, x], [y, y], [floor, z], color=color, linewidth=0.3, alpha=0.5)
        label = f"{name or 'front'} ({len(front)})"
        plot.scatter(*front.T, s=8, color=color, marker=marker, linewidths=0, depthshade=False, label=label)


def _label(plot: Axes3D, axis: Axis, which: Any, key: str) -> None:
    """What an axis is; counts have k, M and G at the ticks."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    better = "more" if axis.direction == "maximize" else "less"
    first, *rest = axis.label.split("\n")
    getattr(plot, f"set_{key}label")("\n".join([first, *rest, f"{better} is better"]), fontsize=7)
    which.set_major_locator(MaxNLocator(5))
    which.set_tick_params(labelsize=6, pad=-1)
    if axis.key in ("macs", "params"):
        which.set_major_formatter(EngFormatter(sep=" "))
