"""The smallest and the largest network: against every network of small spaces, and samples of the shipped ones."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import pytest

from nas.core.architecture import Architecture
from nas.core.cost import Cost
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model import extremes as module
from nas.model.costs import Costs
from nas.model.extremes import extremes
from nas.model.meter import Meter
from nas.model.spaces import load_named_space, shared_rules, space_names
from nas.ops.catalogue import catalogue

ATTENTION = "softmax(heads=[1, 2], head_dim=[8, 16])"
PLAIN = {
    "input": [32, 48],
    "channels": 1,
    "classes": 10,
    "layouts": {
        "plain": {
            "stages": [
                {
                    "embed": ["patch(size=8)", "patch(size=16)"],
                    "dim": [16, 24],
                    "class_token": [True, False],
                    "registers": [0, 3],
                    "position": ["none", "learned"],
                    "blocks": [{"repeat": [1, 2], "mixer": ["softmax(heads=2, head_dim=8)", "additive"]}],
                }
            ],
            "head": ["class_token", "mean"],
        },
        "bare": {
            "stages": [{"embed": "patch(size=4)", "dim": 8, "end_norm": ["none", "layer"], "blocks": []}],
            "head": ["mean", "projected(width=16)"],
        },
    },
}
REDUCING = {
    "input": 32,
    "channels": 1,
    "classes": 10,
    "stages": [
        {
            "embed": "patch(size=4)",
            "dim": [16, 24],
            "class_token": True,
            "blocks": [
                {
                    "repeat": [1, 2],
                    "mixer": ATTENTION,
                    "position": ["none", "relative_bias", "peg"],
                    "feedforward": "mlp(ratio=[1, 2])",
                    "reduction": ["none", "evit(keep=[0.5, 0.7])", "tome(r=8)"],
                },
            ],
        }
    ],
    "head": "class_token",
}
DRESSED = {
    "input": 32,
    "channels": 1,
    "classes": 10,
    "stages": [
        {
            "embed": "patch(size=8)",
            "dim": 16,
            "blocks": [
                {
                    "repeat": [1, 2],
                    "mixer": ["none", "softmax(heads=2, head_dim=8)", "rep_depthwise"],
                    "feedforward": ["none", "mlp(ratio=2)"],
                    "norm": ["layer", "batch"],
                    "residual": ["split", "joint"],
                    "layer_scale": [None, 0.1],
                }
            ],
        },
        {"embed": ["patch_merging", "strided_conv"], "dim": [16, 32], "blocks": [{"exit": ["none", "linear"]}]},
    ],
    "head": ["mean", "mean_hidden"],
}
SMALL = {"plain": PLAIN, "reducing": REDUCING, "dressed": DRESSED}


def small(name: str) -> Space:
    return Space.parse(SMALL[name], shared_rules(), name)


@cache
def costs_of(name: str) -> list[Cost]:
    """Of every network of a small space."""
    costs = Costs()
    return [costs.cost(architecture) for architecture in small(name).every()]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("measure", Cost._fields)
def test_are_those_of_brute_force(name: str, measure: str) -> None:
    space, costs = small(name), Costs()
    values = [getattr(cost, measure) for cost in costs_of(name)]
    found = extremes(space, measure)
    assert found.exact and len(values) > 30
    assert getattr(costs.cost(found.smallest), measure) == min(values)
    assert getattr(costs.cost(found.largest), measure) == max(values)
    assert found.smallest in space and found.largest in space


@pytest.mark.parametrize("name", space_names())
def test_parts_of_decisions_add_up_to_the_cost(name: str) -> None:
    """Each decision's part of a cost, against the cost of the whole network."""
    space, chance, costs = load_named_space(name), Random(3), Costs()
    for measure in Cost._fields:
        meter = Meter(space, measure, catalogue())
        for _ in range(8):
            architecture = space.sample(chance)
            total, walk = 0, meter.start
            for decision in space.decisions(architecture) or ():
                part, walk = meter.step(walk, decision.kind, decision.value)
                total = meter.join(total, part)
            assert total == getattr(costs.cost(architecture), measure)


@pytest.mark.parametrize("name", space_names())
def test_no_sample_of_a_shipped_space_lies_outside(name: str) -> None:
    space, chance, costs = load_named_space(name), Random(4), Costs()
    found = extremes(space)
    low, high = costs.cost(found.smallest).macs, costs.cost(found.largest).macs
    assert found.smallest in space and found.largest in space
    for number in range(500):
        assert low <= costs.cost(space.sample(chance, uniform=number % 25 == 0)).macs <= high


@pytest.mark.parametrize("name", ["tiny", "resnas", "digits"])
def test_are_proven_for_the_spaces_that_allow_it(name: str) -> None:
    assert extremes(load_named_space(name)).exact


def test_of_tiny_are_narrowest_and_shallowest_and_their_opposites() -> None:
    smallest, largest, _ = extremes(load_named_space("tiny"))
    assert smallest.stages[0].dim == 192 and len(smallest.blocks) == 12
    assert all(block.mixer.get("heads") in (None, 3) for block in smallest.blocks)
    assert largest.stages[0].dim == 240 and len(largest.blocks) == 14
    assert all(block.mixer.get("heads") == 4 for block in largest.blocks)


@pytest.mark.parametrize("name", SMALL)
def test_a_narrowed_walk_says_so_and_is_as_good_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proven, costs = extremes(small(name)), Costs()
    monkeypatch.setattr(module, "STEPS", 1)
    narrowed = extremes(small(name))
    assert not narrowed.exact
    assert costs.cost(narrowed.smallest).macs == costs.cost(proven.smallest).macs
    assert costs.cost(narrowed.largest).macs == costs.cost(proven.largest).macs


def test_no_sample_of_digits_lies_outside_a_narrowed_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flagship is walked narrowed: on a space where the answer is known, the narrowed walk finds it."""
    costs, proven = Costs(), extremes(load_named_space("digits"))
    monkeypatch.setattr(module, "STEPS", 1)
    rules = shared_rules()
    narrowed = extremes(Space(load_named_space("digits").template, rules))
    assert not narrowed.exact
    assert costs.cost(narrowed.smallest).macs == costs.cost(proven.smallest).macs
    assert costs.cost(narrowed.largest).macs == costs.cost(proven.largest).macs


def test_are_the_same_at_every_call_and_of_every_copy_of_a_space() -> None:
    assert extremes(small("reducing")) == extremes(small("reducing"))
    space = small("plain")
    assert extremes(space) is extremes(space)


def test_any_figure_of_an_architecture_will_do() -> None:
    """A small space is looked at as a whole; in a large one the figure is climbed, and the answer not called proven."""

    def blocks_and_width(architecture: Architecture) -> float:
        return 1000 * len(architecture.blocks) + architecture.stages[0].dim

    found = extremes(small("plain"), blocks_and_width)
    values = [blocks_and_width(architecture) for architecture in small("plain").every()]
    assert found.exact
    assert (blocks_and_width(found.smallest), blocks_and_width(found.largest)) == (min(values), max(values))
    climbed = extremes(load_named_space("tiny"), blocks_and_width)
    assert not climbed.exact
    assert blocks_and_width(climbed.smallest) == 12_192 and blocks_and_width(climbed.largest) == 14_240


def test_a_cost_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"no such cost.*mac") as caught:
        extremes(small("plain"), "flops")
    assert set(caught.value.nearest) <= set(Cost._fields)


def test_a_space_of_one_network_has_it_at_both_ends() -> None:
    document: dict[str, Any] = {
        "input": 32,
        "stages": [{"embed": "patch(size=8)", "dim": 16, "blocks": [{"mixer": "additive"}]}],
        "head": "mean",
    }
    space = Space.parse(document, shared_rules())
    assert extremes(space) == (space.only(), space.only(), True)
