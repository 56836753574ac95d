"""Parallel coordinates: each network a line through its choices and its objectives.

A text stands at the place of its kind, and the lines through it are spread around that place, in the order of the first
objective, so that they can be told apart. The best value of an objective is at the top.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.core.units import format_count
from nas.reporting.choices import JOIN
from nas.reporting.compared import shortened
from nas.reporting.pareto import MAXIMIZE, values_of
from nas.reporting.plot_canvas import note
from nas.reporting.plots import DOMINATED, FRONT, INFEASIBLE, STYLES, Axis, placed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_KINDS = 7  # of texts on a scale; the rarer ones stand together
MAX_LINES = 800  # of networks that are not on the front, evenly taken
OTHER, NOTHING = "other", "none"
CLEAR = 25  # lines of one kind that are told apart at their full width
ROOM = 0.16  # of a scale of numbers, kept below them where some networks have none
BAND = 0.7  # of the distance between two texts, over which the lines through one are spread
TEXT = 13  # characters beside a scale

Column = Sequence[str | float | None]


@dataclass(frozen=True)
class Scale:
    """One axis: what it is, and the texts at places from 0 to 1."""

    label: str
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Lines:
    """A row a network, a column a scale: places from 0 to 1. Kinds as in a picture of the front."""

    scales: tuple[Scale, ...]
    places: np.ndarray
    kinds: tuple[str, ...]
    left_out: int


def lines(
    rows: Sequence[Mapping[str, Any]], choices: Mapping[str, Column], axes: Sequence[Axis], excess: str = "excess"
) -> Lines:
    """The networks that have all objectives; choices: columns of `choice_table` of the same rows, in their order."""
    values, shown, kinds = placed(rows, axes, excess)
    first = values_of(rows, [axes[0].key])[shown, 0]
    kept = np.flatnonzero(shown).tolist()
    made = [_scale(name, [column[i] for i in kept], first) for name, column in choices.items()]
    made += [_objective(axis, values[:, place]) for place, axis in enumerate(axes)]
    places = np.stack([place for _, place in made], axis=1)
    return Lines(tuple(scale for scale, _ in made), places, kinds, int((~shown).sum()))


def draw_lines(figure: Figure, shown: Lines, title: str = "") -> None:
    """Infeasible, dominated, front, in this order; of the first two an even part where they are many."""
    from matplotlib.collections import LineCollection

    axes = figure.add_subplot()
    at = np.arange(len(shown.scales))
    for kind, color, width, alpha in (
        (INFEASIBLE, STYLES[INFEASIBLE]["color"], 0.6, 0.3),
        (DOMINATED, STYLES[DOMINATED]["color"], 0.6, 0.5),
        (FRONT, STYLES[FRONT]["color"], 1.0, 0.9),
    ):
        these = np.flatnonzero(np.array([own == kind for own in shown.kinds], dtype=bool))
        if not len(these):
            continue
        drawn = these if kind == FRONT else these[np.unique(np.linspace(0, len(these) - 1, MAX_LINES).astype(int))]
        paths = [np.column_stack([at, row]) for row in shown.places[drawn]]
        thin = min(1.0, (CLEAR / len(drawn)) ** 0.5)  # many lines are thinner, so that they stay lines
        axes.add_collection(LineCollection(paths, colors=color, linewidths=width * thin, alpha=alpha))
        axes.plot([], [], color=color, label=f"{kind} ({len(these)})")
    for place, scale in enumerate(shown.scales):
        axes.axvline(place, color="#333333", linewidth=0.7, zorder=3)
        for height, text in scale.ticks:
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
            axes.text(place + 0.03, height, text, fontsize=5.5, va="center", zorder=4, bbox=box)
    axes.set_xlim(-0.1, len(shown.scales) - 0.4)
    axes.set_ylim(-0.06, 1.06)
    axes.set_xticks(at, [_wrapped(scale.label) for scale in shown.scales])
    axes.tick_params(axis="x", length=0, labelsize=6)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3)
    note(figure, [f"{shown.left_out} networks without a value are not shown" if shown.left_out else ""])


def _scale(name: str, column: Column, order: np.ndarray) -> tuple[Scale, np.ndarray]:
    """A choice: numbers by size, texts each at a place of its own, the most frequent at the top."""
    if all(value is None or isinstance(value, int | float) for value in column):
        return _numbers(name, np.array([np.nan if value is None else float(value) for value in column]))
    texts = [NOTHING if value is None else str(value) for value in column]
    if len(set(texts)) > MAX_KINDS and any(JOIN in text for text in texts):  # several joined: the one of most blocks
        texts = [text.partition(JOIN)[0] for text in texts]
        name = f"{name} (mostly)"
    counts = Counter(texts)
    ordered = sorted(counts, key=lambda text: (-counts[text], text))
    if len(ordered) > MAX_KINDS:
        rare = set(ordered[MAX_KINDS - 1 :])
        texts = [OTHER if text in rare else text for text in texts]
        ordered = [*ordered[: MAX_KINDS - 1], OTHER]
    step = 1 / max(1, len(ordered) - 1)
    centre = {text: 1 - i * step if len(ordered) > 1 else 0.5 for i, text in enumerate(ordered)}
    places = np.array([centre[text] for text in texts])
    found = np.array(texts)
    for text in ordered:
        these = np.flatnonzero(found == text)
        by_value = these[np.argsort(order[these], kind="stable")]
        spread = (np.arange(len(these)) + 0.5) / len(these) - 0.5
        places[by_value] += BAND * step * spread
    low, high = min(0.0, places.min(initial=0.0)), max(1.0, places.max(initial=1.0))
    ticks = tuple(((centre[text] - low) / (high - low), shortened(text, TEXT)) for text in ordered)
    return Scale(name, ticks), (places - low) / (high - low)


def _numbers(name: str, values: np.ndarray, log: bool = False) -> tuple[Scale, np.ndarray]:
    """Numbers from the least to the largest, by their logarithm or not; below them, those that are not known."""
    missing = np.isnan(values)
    known = np.unique(values[~missing])
    if not len(known):
        return Scale(name, ((0.0, NOTHING),)), np.zeros(len(values))
    floor = ROOM if missing.any() else 0.0
    low, high = float(known[0]), float(known[-1])
    shown = known
    if len(known) > MAX_KINDS:
        shown = np.geomspace(low, high, 4) if log else np.linspace(low, high, 4)

    def place(numbers: np.ndarray) -> np.ndarray:
        if high == low:
            return np.where(np.isnan(numbers), np.nan, (1 + floor) / 2)
        share = np.log(numbers / low) / np.log(high / low) if log else (numbers - low) / (high - low)
        return floor + (1 - floor) * share

    ticks = tuple((float(at), _number(float(value))) for at, value in zip(place(shown), shown, strict=True))
    return Scale(name, (((0.0, NOTHING),) if missing.any() else ()) + ticks), np.where(missing, 0.0, place(values))


def _objective(axis: Axis, values: np.ndarray) -> tuple[Scale, np.ndarray]:
    """Numbers with the best at the top."""
    scale, places = _numbers(axis.label, values, axis.log)
    if axis.direction == MAXIMIZE:
        return scale, places
    return Scale(scale.label, tuple((1 - height, text) for height, text in scale.ticks)), 1 - places


def _wrapped(label: str) -> str:
    """A label in lines as wide as the distance of two scales; a unit is not torn apart."""
    return textwrap.fill(label.replace(" %", "\u00a0%"), TEXT, break_long_words=False)


def _number(value: float) -> str:
    return format_count(round(value)) if abs(value) >= 1000 else f"{value:.3g}"
