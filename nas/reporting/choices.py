"""Choices: networks as a table of what was chosen, and which of the choices matter.

One column a choice, one value a network: a number, a plain name, several names joined by `+` (those of most blocks
first), or None where the network has no such stage. Knobs other than a feed-forward's ratio are left out, and a knob at
its default is not in an architecture: `mlp` has the default ratio, `mlp 2` one of two.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

Value = str | float | None
Table = dict[str, list[Value]]

INPUT = 224  # pixels, where an architecture does not say (nas.core.architecture)
JOIN = "+"
OPERATORS = ("mixer", "feedforward", "position", "reduction", "exit")  # of a block
STAGE = ("embed", "width", "depth", "mixer", "feedforward", "position", "reduction", "exit")
MIN_ROWS = 20  # networks with a figure; of fewer, nothing is said about what matters
CHANCE = 0.01  # how often any column at all has a share where none explains anything
LEVELS = 8  # different numbers of a column; more are put in as many bins of about equally many networks
MAX_TEXTS = 20  # different texts of a column; of more, what counts is which names are in them
SMALL = 1e-12  # of a sum of squares: what is left of it by rounding
RANK = 1e-6  # of a column's values, below which it is spanned by others
_RATIO = re.compile(r"\bratio=([0-9]+\.?[0-9]*)")


def choice_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """The table of the rows of a finished search. A column that no network has anything in is left out.

    Columns of a stage have its number before them (`2 mixer`) where any network has several. `kept` is the share of
    tokens that reductions leave at the end.
    """
    networks = [(row["architecture"], row.get("outline") or ()) for row in rows]
    most = max((len(document["stages"]) for document, _ in networks), default=0)
    found: list[dict[str, Value]] = []
    for document, blocks in networks:
        stages = document["stages"]
        counts = [sum(block.get("repeat", 1) for block in stage["blocks"]) for stage in stages]
        one: dict[str, Value] = {"input": document.get("input", INPUT), "stages": len(stages), "depth": sum(counts)}
        for number in range(most):
            own = _stage(stages[number], counts[number]) if number < len(stages) else dict.fromkeys(STAGE)
            if most == 1:
                own.pop("depth")
            one |= {f"{number + 1} {name}" if most > 1 else name: value for name, value in own.items()}
        tokens = [name for stage in stages for name, has in _extra(stage).items() if has]
        found.append({**one, "tokens": _joined(tokens), "kept": _kept(blocks), "head": short(document["head"])})
    columns = {name: [one[name] for one in found] for name in (found[0] if found else ())}
    return {name: column for name, column in columns.items() if any(value not in (None, "none") for value in column)}


def varying(table: Mapping[str, Sequence[Value]]) -> Table:
    """The columns in which not all networks are the same: what was really chosen."""
    return {name: list(column) for name, column in table.items() if len(set(column)) > 1}


@lru_cache(maxsize=4096)
def short(operator: str, kind: str = "") -> str:
    """An operator's name; of a feed-forward with its ratio, where it says one: `mlp(ratio=2.0)` is `mlp 2`."""
    name = operator.partition("(")[0].strip() or "none"
    ratio = _RATIO.search(operator) if kind == "feedforward" else None
    return f"{name} {float(ratio[1]):g}" if ratio else name


def _stage(stage: Mapping[str, Any], depth: int) -> dict[str, Value]:
    """The choices of a stage, as STAGE names them."""
    made: dict[str, Value] = {"embed": short(stage["embed"]), "width": stage["dim"], "depth": depth}
    for kind in OPERATORS:
        counted: Counter[str] = Counter()
        if kind == "position" and stage.get(kind):
            counted[short(stage[kind])] += 1
        for block in stage["blocks"]:
            if block.get(kind):
                counted[short(block[kind], kind)] += block.get("repeat", 1)
        made[kind] = _joined(sorted(counted, key=lambda name: (-counted[name], name)))
    return made


def _extra(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens that join at a stage."""
    return {
        "class": stage.get("class_token"),
        "distill": stage.get("distill_token"),
        "registers": stage.get("registers"),
    }


def _joined(names: Iterable[str]) -> str:
    return JOIN.join(dict.fromkeys(names)) or "none"


def _kept(blocks: Iterable[Mapping[str, Any]]) -> float:
    """The share of tokens that is left at the end of a network, downsampling between stages aside."""
    kept = 1.0
    for block in blocks:
        kept *= block["left"] / block["tokens"] if block["tokens"] else 1.0
    return round(kept, 3)


def importance(table: Mapping[str, Sequence[Value]], values: Sequence[float | None]) -> list[tuple[str, float]]:
    """Per column the share of the variance of a figure that it explains, the largest first; 0 where that may be chance.

    Analysis of variance, stepwise (Efroymson 1960, in Mathematical Methods for Digital Computers, 191-203): the column
    that explains most of what those before left over is next, and its share is free of bias (epsilon squared, Kelley
    1935, https://doi.org/10.1073/pnas.21.9.554), until none passes an F test at 1 % in all columns together. So the
    shares add up to at most 1, and of two choices that a search always took together one has it all. What only
    combinations of choices explain has no share. 1,000 networks of 40 columns: a tenth of a second.
    """
    known = [i for i, value in enumerate(values) if value is not None]
    shares = dict.fromkeys(table, 0.0)
    figure = np.array([values[i] for i in known], dtype=float)
    columns = table.items() if len(known) >= MIN_ROWS else ()
    left = {name: _design([column[i] for i in known]) for name, column in columns}
    rest = figure - figure.mean() if len(figure) else figure
    total, used, nothing = float(rest @ rest), 1, SMALL * float(figure @ figure)
    while rest @ rest > nothing and (step := _next(left, rest, used, CHANCE / len(table))) is not None:
        name, basis = step
        gain = float(((basis.T @ rest) ** 2).sum())
        rest = rest - basis @ (basis.T @ rest)
        used += basis.shape[1]
        free = len(rest) - used
        shares[name] = max(0.0, (gain - basis.shape[1] * float(rest @ rest) / free) / total)
        del left[name]
        left = {other: design - basis @ (basis.T @ design) for other, design in left.items()}
    return sorted(shares.items(), key=lambda item: -item[1])


def _next(left: Mapping[str, np.ndarray], rest: np.ndarray, used: int, chance: float) -> tuple[str, np.ndarray] | None:
    """The column that explains most of the rest, free of bias, with an orthonormal basis of it; None by chance only."""
    from scipy.special import fdtrc

    whole = float(rest @ rest)
    best: tuple[float, str, np.ndarray] | None = None
    for name, design in left.items():
        basis = _basis(design)
        size = basis.shape[1]
        free = len(rest) - used - size
        if not size or free <= 0:
            continue
        gain = float(((basis.T @ rest) ** 2).sum())
        noise = max(whole - gain, SMALL * whole) / free
        better = gain - size * noise
        if fdtrc(size, free, gain / size / noise) < chance and (best is None or better > best[0]):
            best = better, name, basis
    return None if best is None else best[1:]


def _basis(design: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span those of a matrix."""
    left, sizes, _ = np.linalg.svd(design, full_matrices=False)
    return left[:, sizes > RANK * np.sqrt(len(design))]


def _design(column: Sequence[Value]) -> np.ndarray:
    """A column as centred indicators: of each value, of bins of many numbers, of the names in texts of many kinds."""
    values: list[Any] = list(column)
    if all(value is None or isinstance(value, int | float) for value in values):
        if len(set(values)) > LEVELS:
            known = [value for value in values if value is not None]
            edges = np.unique(np.quantile(known, np.linspace(0, 1, LEVELS + 1)[1:-1]))
            values = [None if value is None else int(np.searchsorted(edges, value)) for value in values]
        parts = [{value} for value in values]
    elif len(set(values)) > MAX_TEXTS:
        parts = [{None} if value is None else set(str(value).split(JOIN)) for value in values]
    else:
        parts = [{value} for value in values]
    names = sorted(set().union(*parts), key=lambda name: (name is None, name))
    design = np.array([[name in own for name in names] for own in parts], dtype=float)
    return design - design.mean(axis=0)
