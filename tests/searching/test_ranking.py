"""Ranking: figures of many networks against those of one."""

from random import Random

import numpy as np
import pytest

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.latency.latency import Latency
from nas.model.costs import Costs
from nas.model.plan import Place, places_of
from nas.model.spaces import load_named_space, shared_rules
from nas.ops.catalogue import catalogue
from nas.searching.objective import memory_mb
from nas.searching.ranking import Ranker

MIXERS = ["softmax(heads=2)", "depthwise(kernel=[3, 5])"]
SMALL = {
    "name": "small",
    "input": 32,
    "channels": 1,
    "classes": 10,
    "stages": [
        {
            "embed": ["patch(size=4)", "stem_halving(convs=2)"],
            "dim": [32, 48],
            "blocks": [
                {
                    "repeat": [1, 2],
                    "mixer": ["softmax(heads=2)", "depthwise(kernel=[3, 5])"],
                    "feedforward": "mlp(ratio=2)",
                }
            ],
        }
    ],
    "head": ["mean", "mean(order=pool_first)"],
}


class Times:
    """Milliseconds by a formula of the place; additive attention was never measured."""

    constant_ms = 0.25

    def place_ms(self, place: Place) -> float:
        if place.spec.name == "additive":
            raise InputError("the table has no row of this operator", value=place.spec.name)
        return 0.01 + place.cost(catalogue()).macs / 1e6 + 0.001 * place.site.rows


def times_of(architecture: Architecture) -> float:
    """The sum, place by place."""
    places = list(places_of(catalogue(), architecture))
    if any(place.spec.name == "additive" for place in places):
        return float("inf")
    return Times.constant_ms + sum(Times().place_ms(place) for place in places)


@pytest.fixture(scope="module")
def small() -> Space:
    return Space.parse(SMALL, shared_rules())


@pytest.mark.parametrize("name", ["digits", "resnas", "tiny"])
def test_figures_of_many_are_those_of_each(name: str) -> None:
    space, random, costs = load_named_space(name), Random(1), Costs()
    networks = [space.sample(random) for _ in range(60)]
    networks += [space.mutate(network, random) for network in networks[:20]]
    ranker = Ranker(space, latency=Times())
    first, again = ranker.figures(networks), ranker.figures(networks[::-1])
    for number, network in enumerate(networks):
        cost = costs.cost(network)
        assert (first.macs[number], first.params[number]) == (cost.macs, cost.params)
        assert first.memory_mb[number] == memory_mb(cost)
        assert first.latency_ms[number] == pytest.approx(times_of(network), rel=1e-12)
    for one, other in zip(first[:4], again[:4], strict=True):
        assert one.tolist() == other[::-1].tolist()  # whatever came before
    assert np.isnan(first.accuracy).all() and np.isnan(Ranker(space).figures(networks).latency_ms).all()


def test_latencies_are_those_that_a_target_predicts() -> None:
    space, random, latency = load_named_space("digits"), Random(2), Latency("cpu:eager")
    networks = [network for network in (space.sample(random) for _ in range(30)) if not latency.unseen(network)]
    predicted = [latency.predict(network).ms for network in networks]
    assert len(networks) > 5
    assert Ranker(space, latency=latency).figures(networks).latency_ms == pytest.approx(predicted, rel=1e-9)


def test_an_operator_without_a_time_is_never_fast() -> None:
    space, random = load_named_space("digits"), Random(3)
    networks = [space.sample(random) for _ in range(100)]
    unseen = np.array([any(block.mixer.name == "additive" for block in network.blocks) for network in networks])
    found = Ranker(space, latency=Times()).figures(networks)
    assert unseen.any() and np.isinf(found.latency_ms[unseen]).all() and np.isfinite(found.latency_ms[~unseen]).all()
    assert (found.excess({"latency_ms": 1e9}) > 0).tolist() == unseen.tolist()


def test_segments_are_equal_for_equal_networks_alone(small: Space) -> None:
    ranker, networks = Ranker(small), list(small.every())
    assert len({ranker.segments(network) for network in networks}) == len({n.digest for n in networks}) == small.size
    again = list(small.every())
    assert [ranker.segments(n) for n in again] == [ranker.segments(n) for n in networks]


def test_the_accuracy_model_is_asked_once_for_all(small: Space) -> None:
    asked: list[int] = []

    class Model:
        def estimate_many(self, architectures: list[Architecture]) -> tuple[list[float], list[float]]:
            asked.append(len(architectures))
            return [network.stages[0].dim / 10 for network in architectures], [0.5] * len(architectures)

    networks = list(small.every())
    found = Ranker(small, accuracy_model=Model()).figures(networks)
    assert asked == [len(networks)] and found.sigma.tolist() == [0.5] * len(networks)
    assert found.accuracy.tolist() == [network.stages[0].dim / 10 for network in networks]


def test_excess_is_relative_and_in_sum(small: Space) -> None:
    found = Ranker(small).figures(list(small.every()))
    macs, params = np.median(found.macs), np.median(found.params)
    over = found.excess({"macs": macs, "params": params})
    assert ((over == 0) == ((found.macs <= macs) & (found.params <= params))).all() and 0 < (over > 0).mean() < 1
    number = int(np.argmax(over))
    assert over[number] == pytest.approx(found.macs[number] / macs - 1 + found.params[number] / params - 1)
    assert found.of(["params", "macs"])[:, 1].tolist() == found.macs.tolist()
    assert Ranker(small).figures([]).of(["macs"]).shape == (0, 1)
    with pytest.raises(InputError, match="no figure that is known"):
        found.of(["accuracy"])


@pytest.mark.parametrize("name", ["digits", "tiny", "resnas"])
def test_children_of_real_spaces_are_in_them(name: str) -> None:
    space, random = load_named_space(name), Random(5)
    variation = space.variation
    paths = [variation.sample(random) for _ in range(10)]
    paths += [variation.mutate(random.choice(paths), random, changes=1 + number % 3) for number in range(30)]
    paths += [variation.crossover(random.choice(paths), random.choice(paths), random) for _ in range(30)]
    for path in paths:
        network = variation.build(path)
        assert network in space and variation.build(variation.path_of(network)) == network
    assert len({variation.build(path).digest for path in paths}) > 45
