"""Which networks a step trains: roles, bands, balance, and that (seed, step) alone decides."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest

from nas.core.errors import InputError
from nas.core.space import Space
from nas.core.units import format_count
from nas.model.costs import Costs
from nas.model.extremes import extremes
from nas.model.spaces import load_named_space, shared_rules
from nas.training.sampling import Draws, parse_band

ONE = {
    "input": 32,
    "stages": [{"embed": "patch(size=8)", "dim": 16, "blocks": [{"mixer": "additive"}]}],
    "head": "mean",
}


MIXERS = ["softmax(heads=[2, 4], head_dim=[8, 16])", "additive", "depthwise(kernel=[3, 5])"]
BLOCK = {"repeat": [1, 2, 3], "mixer": MIXERS, "feedforward": "mlp(ratio=[1, 2, 4])"}
VARIED = {
    "name": "varied",
    "input": 32,
    "channels": 1,
    "classes": 10,
    "layouts": {
        "plain": {
            "stages": [
                {
                    "embed": "patch(size=[2, 4])",
                    "dim": [32, 48, 64, 96],
                    "class_token": True,
                    "blocks": [BLOCK | {"reduction": ["none", "evit(keep=[0.5, 0.7])"]}],
                }
            ],
            "head": "class_token",
        },
        "pyramid": {
            "stages": [
                {"embed": "patch(size=2)", "dim": [32, 48], "blocks": [BLOCK]},
                {"embed": "patch_merging", "dim": [64, 96], "blocks": [BLOCK]},
            ],
            "head": "mean",
        },
    },
}


@cache
def varied() -> Space:
    """Random networks of it crowd at a tenth of its largest's multiply-accumulates."""
    return Space.parse(VARIED, shared_rules(), "varied")


def ends() -> tuple[int, int]:
    """MACs of the smallest and the largest network."""
    smallest, largest, _ = extremes(varied())
    return Costs().cost(smallest).macs, Costs().cost(largest).macs


def drawn(draws: Draws, steps: int) -> list[int]:
    """MACs of the random networks of so many steps."""
    return [draws.macs(draw.architecture) for step in range(steps) for draw in draws.at(step) if draw.role == "random"]


@pytest.mark.parametrize("strategy", ["single", "sandwich", "batch"])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_step_is_the_same_whenever_it_is_asked_for(strategy: str, balanced: bool) -> None:
    one, two = (Draws(varied(), strategy, 5, 3, balanced=balanced) for _ in range(2))
    forward = [one.at(step) for step in range(4)]
    assert [two.at(step) for step in (3, 2, 1, 0)] == forward[::-1]
    assert len(set(forward)) == 4
    assert Draws(varied(), strategy, 6, 3, balanced=balanced).at(0) != forward[0]


def test_another_process_draws_the_same() -> None:
    code = (
        "from nas.model.spaces import load_named_space as load; from nas.training.sampling import Draws\n"
        "print([d.architecture.digest for d in Draws(load('digits'), 'sandwich', 7, 2, '1MMACs-9MMACs').at(12)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "99"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = Draws(load_named_space("digits"), "sandwich", 7, 2, "1MMACs-9MMACs").at(12)
    assert said.stdout.strip() == str([draw.architecture.digest for draw in here])


def test_single_takes_one_random_network_and_all_rows() -> None:
    (draw,) = Draws(varied(), "single", 0, networks=4).at(3)
    assert draw.role == "random" and draw.architecture in varied()
    assert range(10)[draw.rows(10)] == range(10)


def test_sandwich_takes_both_ends_first_and_all_rows_for_each() -> None:
    draws = Draws(varied(), "sandwich", 0, networks=3).at(3)
    smallest, largest, _ = extremes(varied())
    assert [draw.role for draw in draws] == ["largest", "smallest", "random", "random", "random"]
    assert (draws[0].architecture, draws[1].architecture) == (largest, smallest)
    assert all(range(10)[draw.rows(10)] == range(10) for draw in draws)


@pytest.mark.parametrize("count", [3, 8, 10])
def test_batch_cuts_the_rows_into_parts_in_order(count: int) -> None:
    draws = Draws(varied(), "batch", 0, networks=3).at(3)
    assert [draw.role for draw in draws] == ["random"] * 3
    parts = [list(range(count)[draw.rows(count)]) for draw in draws]
    assert [row for part in parts for row in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1 and all(parts)
    assert len({draw.architecture for draw in draws}) == 3


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("place", [0.05, 0.15, 0.6])
def test_a_band_holds_every_network_of_a_step(place: float, balanced: bool) -> None:
    """A band of a twentieth of the range, where random networks are many, fewer, and none."""
    bottom, top = ends()
    low, high = bottom + place * (top - bottom), bottom + (place + 0.05) * (top - bottom)
    draws = Draws(varied(), "sandwich", 1, 2, (low, high), balanced)
    assert all(low <= macs <= high for macs in drawn(draws, 40))
    largest, smallest = (draws.macs(draw.architecture) for draw in draws.at(0)[:2])
    assert low <= smallest < 1.1 * low and 0.9 * high < largest <= high


def test_without_a_band_networks_lie_outside_it() -> None:
    """What the test of the band rests on."""
    bottom, top = ends()
    parts = [(macs - bottom) / (top - bottom) for macs in drawn(Draws(varied(), "single", 1), 200)]
    assert sum(0.15 <= part <= 0.2 for part in parts) < 100 and not any(0.6 <= part <= 0.65 for part in parts)


def test_a_band_too_narrow_to_meet_gives_networks_near_it() -> None:
    middle = 5_000_001
    near = drawn(Draws(varied(), "single", 1, band=(middle, middle)), 40)
    free = drawn(Draws(varied(), "single", 1), 40)
    assert sum(abs(macs - middle) for macs in near) < 0.3 * sum(abs(macs - middle) for macs in free)


def test_a_band_that_reaches_beyond_the_space_keeps_its_ends() -> None:
    smallest, largest, _ = extremes(varied())
    draws = Draws(varied(), "sandwich", 0, 1, (0, 10**12)).at(0)
    assert [draw.architecture for draw in draws[:2]] == [largest, smallest]


@pytest.mark.parametrize("band", ["1GMACs-2GMACs", "1kMACs-2kMACs"])
def test_a_band_without_networks_is_refused_with_what_can_be_reached(band: str) -> None:
    low, high = ends()
    with pytest.raises(InputError, match="networks of varied have") as caught:
        Draws(varied(), "single", 0, band=band)
    assert f"{format_count(low)}MACs to {format_count(high)}MACs" in str(caught.value)


def test_balanced_covers_the_range_more_evenly() -> None:
    """Share of the rarest quarter of the range, and of the commonest."""
    low, high = ends()

    def shares(balanced: bool) -> list[float]:
        found = drawn(Draws(varied(), "single", 2, balanced=balanced), 400)
        quarters = [min(3, int(4 * (macs - low) / (high - low))) for macs in found]
        return [quarters.count(quarter) / len(found) for quarter in range(4)]

    free, even = shares(False), shares(True)
    assert max(free) > 0.8 and min(free) < 0.01
    assert max(even) < 0.4 and min(even) > 0.12


@pytest.mark.parametrize("strategy", ["single", "sandwich", "batch"])
def test_a_space_of_one_network_is_trained_once_a_step(strategy: str) -> None:
    space = Space.parse(ONE, shared_rules())
    (draw,) = Draws(space, strategy, 0, networks=3).at(0)
    assert (draw.architecture, draw.role) == (space.only(), "largest")
    assert range(7)[draw.rows(7)] == range(7)


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("1GMACs-2GMACs", (10**9, 2 * 10**9)),
        (" 300 MFLOPs - 1.2gflops ", (300_000_000, 1_200_000_000)),
        ("1e-3GMACs-2e6macs", (10**6, 2 * 10**6)),
    ],
)
def test_a_band_is_read_with_the_units_of_budgets(text: str, band: tuple[int, int]) -> None:
    assert parse_band(text) == band


@pytest.mark.parametrize(
    "text", ["1GMACs", "", "1-2GMACs", "1ms-2ms", "1GMACs-2ms", "-1GMACs-2GMACs", "1GMACs-2GMACs,3ms"]
)
def test_a_band_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="band"):
        parse_band(text)


def test_bad_wishes_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown strategy.*sandwich"):
        Draws(varied(), "sandwhich", 0)
    with pytest.raises(InputError, match="at least one network"):
        Draws(varied(), "batch", 0, networks=0)
    with pytest.raises(InputError, match="low to its high end"):
        Draws(varied(), "batch", 0, band=(2e6, 1e6))
