"""Pareto: which points are worth having, in order of rank, and how much of the objectives' room they cover.

Values are a matrix with one row a point and one column an objective; directions name for each column whether it is to
`maximize` or `minimize`. `excess` is by how much a point exceeds its limits, in sum: 0 where it is feasible. Feasible
points come before infeasible ones, and those by their excess (constrained domination: Deb et al. 2002,
https://doi.org/10.1109/4235.996017). A point with a value that is not finite is infeasible without measure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nas.core.errors import InputError, nearest

MAXIMIZE, MINIMIZE = "maximize", "minimize"
MARGIN = 0.1  # of the front's extent, between its worst value and the reference point


class Reference(NamedTuple):
    """A reference point in the objectives' own units, and how it was chosen."""

    point: tuple[float, ...]
    how: str


def losses(values: Any, directions: Sequence[str]) -> np.ndarray:
    """The values with signs such that less is better; always a matrix with as many columns as directions."""
    signs = np.array([_sign(direction) for direction in directions])
    if not len(signs):
        raise InputError("a front has at least one objective")
    matrix = np.asarray(values, dtype=float)
    if matrix.size == 0:
        return np.zeros((0, len(signs)))
    if matrix.ndim != 2 or matrix.shape[1] != len(signs):
        rule = f"values are a matrix of one column for each of {len(signs)} directions, its shape is"
        raise InputError(rule, value=matrix.shape)
    return matrix * signs


def ranks(values: Any, directions: Sequence[str], excess: Any = None) -> np.ndarray:
    """0 for the front, 1 for the front of what is left, and so on; each excess of infeasible points is a rank of its
    own after those.

    Two objectives in O(n log n) (10,000 points: milliseconds), three in O(fronts n log n).
    """
    import moocore

    matrix = losses(values, directions)
    over = _excess(matrix, excess)
    result = np.zeros(len(matrix), dtype=int)
    feasible = over == 0
    fronts = 0
    if feasible.any():
        result[feasible] = moocore.pareto_rank(matrix[feasible])
        fronts = int(result[feasible].max()) + 1
    if not feasible.all():
        result[~feasible] = fronts + np.unique(over[~feasible], return_inverse=True)[1]
    return result


def front(values: Any, directions: Sequence[str], excess: Any = None) -> np.ndarray:
    """Indices of the feasible points that none dominates, by the first objective, its best last; equal points all."""
    import moocore

    matrix = losses(values, directions)
    feasible = np.flatnonzero(_excess(matrix, excess) == 0)
    if not len(feasible):
        return feasible
    kept = feasible[moocore.is_nondominated(matrix[feasible], keep_weakly=True)]
    return kept[np.lexsort((kept, *(-matrix[kept].T[::-1])))]


def values_of(rows: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> np.ndarray:
    """The matrix of some columns of a table; what a row does not hold is not a number."""
    names = list(keys)
    found = [[math.nan if row.get(key) is None else float(row[key]) for key in names] for row in rows]
    return np.array(found, dtype=float).reshape(len(found), len(names))


def front_of(
    rows: Sequence[Mapping[str, Any]], directions: Mapping[str, str], excess: str = "excess"
) -> list[Mapping[str, Any]]:
    """The rows of a table that make its front under `directions` (column: direction), in the order of `front`.

    The column named by `excess` may be missing: then every row is feasible.
    """
    over = [row.get(excess) or 0.0 for row in rows]
    return [rows[i] for i in front(values_of(rows, directions), list(directions.values()), over)]


def reference_point(values: Any, directions: Sequence[str], limits: Sequence[float | None] | None = None) -> Reference:
    """The worst corner to measure a hypervolume from: the limit of an objective where there is one, else a tenth of
    the values' extent beyond the worst of them.

    Two searches are compared under one reference point: choose it from the points of both.
    """
    matrix = losses(values, directions)
    finite = matrix[np.isfinite(matrix).all(axis=1)]
    if not len(finite):
        raise InputError("a reference point is chosen from at least one point with finite values")
    worst = finite.max(axis=0)
    extent = worst - finite.min(axis=0)
    margin = MARGIN * np.where(extent > 0, extent, np.abs(worst) + (worst == 0))
    signs = losses([[1.0] * len(directions)], directions)[0]
    point, told = (worst + margin) * signs, [f"the worst value and {MARGIN:.0%} of the extent"] * len(signs)
    for column, limit in enumerate(limits or ()):
        if limit is not None:
            point[column], told[column] = float(limit), "the limit"
    how = told[0] if len(set(told)) == 1 else "; ".join(f"objective {i}: {text}" for i, text in enumerate(told))
    return Reference(tuple(float(value) for value in point), how)


def hypervolume(values: Any, directions: Sequence[str], reference: Sequence[float], excess: Any = None) -> float:
    """The room between the feasible points and the reference point, in the product of the objectives' units.

    Points that are not better than the reference in every objective add nothing. Computed by moocore.
    """
    import moocore

    matrix, corner = losses(values, directions), _corner(reference, directions)
    feasible = matrix[_excess(matrix, excess) == 0]
    return float(moocore.hypervolume(feasible, ref=corner)) if len(feasible) else 0.0


def anytime(values: Any, directions: Sequence[str], reference: Sequence[float], excess: Any = None) -> np.ndarray:
    """The hypervolume after each of the points, in the order in which they were evaluated."""
    import moocore

    matrix, corner = losses(values, directions), _corner(reference, directions)
    useful = (_excess(matrix, excess) == 0) & (matrix < corner).all(axis=1)
    result = np.zeros(len(matrix))
    held, volume = np.zeros((0, len(corner))), 0.0
    for index, point in enumerate(matrix):
        if useful[index] and not (held <= point).all(axis=1).any():
            held = np.vstack([held[~(point <= held).all(axis=1)], point])
            volume = float(moocore.hypervolume(held, ref=corner))
        result[index] = volume
    return result


def _sign(direction: str) -> float:
    signs = {MAXIMIZE: -1.0, MINIMIZE: 1.0}
    if direction not in signs:
        raise InputError("unknown direction", value=direction, nearest=nearest(direction, signs))
    return signs[direction]


def _corner(reference: Sequence[float], directions: Sequence[str]) -> np.ndarray:
    corner = losses([list(reference)], directions)[0]
    if not np.isfinite(corner).all():
        raise InputError("a reference point is finite", value=tuple(reference))
    return corner


def _excess(matrix: np.ndarray, excess: Any) -> np.ndarray:
    """Checked, and infinite for points with a value that is not finite."""
    over = np.zeros(len(matrix)) if excess is None else np.asarray(excess, dtype=float)
    if over.shape != (len(matrix),) or (over < 0).any():
        raise InputError("excess is one number for each point, zero or more", value=over.shape)
    over = np.where(np.isnan(over), np.inf, over)
    return np.where(np.isfinite(matrix).all(axis=1), over, np.inf)
