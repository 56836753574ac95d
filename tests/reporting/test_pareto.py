"""Fronts, ranks and hypervolumes against definitions that are slow and plain."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.core.errors import InputError
from nas.reporting.pareto import anytime, front, front_of, hypervolume, ranks, reference_point, values_of

BOTH = ["maximize", "minimize"]


def better(one: np.ndarray, other: np.ndarray, directions: list[str]) -> bool:
    """One dominates the other: by the definition, in the objectives' own directions."""
    pairs = [(a, b) if d == "maximize" else (-a, -b) for a, b, d in zip(one, other, directions, strict=True)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def plain_ranks(values: np.ndarray, directions: list[str]) -> list[int]:
    left, result, rank = set(range(len(values))), [0] * len(values), 0
    while left:
        first = {i for i in left if not any(better(values[j], values[i], directions) for j in left)}
        for i in first:
            result[i] = rank
        left -= first
        rank += 1
    return result


def painted(values: np.ndarray, reference: tuple[int, ...]) -> int:
    """Hypervolume of whole numbers to be minimised, cell by cell."""
    cells = itertools.product(*(range(side) for side in reference))
    return sum(any((point <= np.array(cell)).all() for point in values) for cell in cells)


matrices = st.integers(2, 3).flatmap(
    lambda m: st.lists(st.lists(st.integers(0, 6), min_size=m, max_size=m), min_size=1, max_size=25)
)


@given(matrices, st.lists(st.sampled_from(BOTH), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_ranks_and_front_are_those_of_the_definition(points: list[list[int]], directions: list[str]) -> None:
    values = np.array(points, dtype=float)
    directions = directions[: values.shape[1]]
    expected = plain_ranks(values, directions)
    assert ranks(values, directions).tolist() == expected
    found = front(values, directions)
    assert sorted(found) == [i for i, rank in enumerate(expected) if rank == 0]
    ordered = values[found, 0] if directions[0] == "maximize" else -values[found, 0]
    assert (np.diff(ordered) >= 0).all()


@given(matrices)
@settings(max_examples=40, deadline=None)
def test_hypervolume_is_the_cells_that_are_dominated(points: list[list[int]]) -> None:
    values = np.array(points, dtype=float)
    sides = (6, 5, 6)[: values.shape[1]]
    curve = anytime(values, ["minimize"] * len(sides), sides)
    assert curve[-1] == hypervolume(values, ["minimize"] * len(sides), sides) == painted(values, sides)
    middle = len(values) // 2
    assert curve[middle] == painted(values[: middle + 1], sides)


def test_directions_are_signs() -> None:
    values = np.array([[0.7, 3.0], [0.8, 5.0], [0.6, 4.0]])
    turned = values * [-1, 1]
    assert front(values, BOTH).tolist() == [0, 1]
    assert front(turned, ["minimize", "minimize"]).tolist() == [0, 1]
    volume = 0.7 * (10 - 3) + 0.1 * (10 - 5)
    assert hypervolume(values, BOTH, (0.0, 10.0)) == pytest.approx(volume)
    assert hypervolume(turned, ["minimize", "minimize"], (0.0, 10.0)) == pytest.approx(volume)


def test_feasible_points_come_first_then_by_excess() -> None:
    values = [[0.9, 1.0], [0.5, 2.0], [0.4, 3.0], [0.99, 0.5]]
    assert ranks(values, BOTH, [2.0, 0.0, 0.0, 1.0]).tolist() == [3, 0, 1, 2]
    assert front(values, BOTH, [2.0, 0.0, 0.0, 1.0]).tolist() == [1]
    assert hypervolume(values, BOTH, (0.0, 4.0), [2.0, 0.0, 0.0, 1.0]) == pytest.approx(0.5 * 2)
    assert anytime(values, BOTH, (0.0, 4.0), [2.0, 0.0, 0.0, 1.0]) == pytest.approx([0, 1, 1, 1])
    assert front(values, BOTH, [1.0] * 4).tolist() == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_on_the_front(bad: float) -> None:
    values = [[0.5, 2.0], [bad, 1.0], [0.9, bad]]
    assert front(values, BOTH).tolist() == [0]
    assert ranks(values, BOTH).tolist() == [0, 1, 1]
    assert hypervolume(values, BOTH, (0.0, 4.0)) == pytest.approx(1.0)
    assert front([[0.5, 2.0], [0.6, 1.0]], BOTH, [0.0, np.nan]).tolist() == [0]


def test_no_points() -> None:
    assert ranks([], BOTH).tolist() == front([], BOTH).tolist() == anytime([], BOTH, (0, 1)).tolist() == []
    assert hypervolume([], BOTH, (0, 1)) == 0.0
    assert front_of([], {"accuracy": "maximize"}) == []


def test_rows_of_a_table() -> None:
    rows = [
        {"name": "a", "accuracy": 0.8, "latency_ms": "5.0"},
        {"name": "b", "accuracy": 0.7, "latency_ms": 3.0, "excess": 0.0},
        {"name": "c", "accuracy": 0.9, "latency_ms": 1.0, "excess": 0.3},
        {"name": "d", "accuracy": None, "latency_ms": 1.0},
        {"name": "e", "accuracy": 0.6, "latency_ms": 4.0},
    ]
    found = front_of(rows, {"latency_ms": "minimize", "accuracy": "maximize"})
    assert [row["name"] for row in found] == ["a", "b"]  # the best of the first objective last
    assert np.isnan(values_of(rows, ["accuracy"])[3, 0])


def test_a_reference_point_says_how_it_was_chosen() -> None:
    values = [[0.5, 10.0], [0.9, 30.0], [np.nan, 1000.0]]
    free = reference_point(values, BOTH)
    assert free.point == pytest.approx((0.46, 32.0)) and "10%" in free.how
    limited = reference_point(values, BOTH, [None, 40.0])
    assert limited.point == pytest.approx((0.46, 40.0)) and "limit" in limited.how
    assert hypervolume(values, BOTH, free.point) > 0
    single = reference_point([[0.5, 0.0]], BOTH)  # no extent: still worse than the point
    assert hypervolume([[0.5, 0.0]], BOTH, single.point) > 0


def test_ten_thousand_points() -> None:
    values = np.random.default_rng(0).normal(size=(10_000, 2))
    found, ordered = ranks(values, BOTH), front(values, BOTH)
    assert (found == 0).sum() == len(ordered)
    accuracy, cost = values[ordered].T
    assert (np.diff(accuracy) > 0).all() and (np.diff(cost) > 0).all()  # more costs more along a front
    for rank in (1, 5):  # each point of a rank is dominated by one of the rank before, by the definition
        before, here = values[found == rank - 1], values[found == rank]
        worse = (before[:, None, 0] >= here[None, :, 0]) & (before[:, None, 1] <= here[None, :, 1])
        assert worse.any(axis=0).all()
    curve = anytime(values, BOTH, (-5.0, 5.0))
    assert (np.diff(curve) >= 0).all() and curve[-1] == pytest.approx(hypervolume(values, BOTH, (-5.0, 5.0)))


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: front([[1.0, 2.0]], ["up", "minimize"]), "unknown direction: 'up'"),
        (lambda: front([[1.0, 2.0]], ["minimize"]), "one column for each"),
        (lambda: front([1.0, 2.0], ["minimize"]), "one column for each"),
        (lambda: front([[1.0]], []), "at least one objective"),
        (lambda: ranks([[1.0]], ["minimize"], [-1.0]), "excess"),
        (lambda: ranks([[1.0]], ["minimize"], [0.0, 0.0]), "excess"),
        (lambda: hypervolume([[1.0]], ["minimize"], (np.nan,)), "finite"),
        (lambda: hypervolume([[1.0, 1.0]], BOTH, (1.0,)), "one column for each"),
        (lambda: reference_point([[np.nan, 1.0]], BOTH), "at least one point"),
    ],
)
def test_bad_input(call: object, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        call()  # type: ignore[operator]
