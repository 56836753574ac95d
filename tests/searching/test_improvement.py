"""Expected improvement against what many draws do to the hypervolume; the surrogate against formulas."""

from random import Random

import numpy as np
import pytest

from nas.model.spaces import load_named_space
from nas.reporting.pareto import hypervolume
from nas.searching.improvement import expected_hypervolume
from nas.searching.ranking import Ranker
from nas.searching.surrogate import Surrogate
from nas.searching.vocabulary import Vocabulary


@pytest.mark.parametrize("cheap", [0, 1, 2])
def test_expected_hypervolume_is_the_mean_over_draws(cheap: int) -> None:
    chance = np.random.default_rng(cheap)
    front_costs, front_values = chance.uniform(size=(6, cheap)), chance.normal(size=6)
    costs, mean = chance.uniform(size=(5, cheap)), chance.normal(size=5)
    sigma = np.array([0.5, 1.0, 0.1, 2.0, 1e-9])
    reference, floor = np.full(cheap, 0.9), -1.5
    found = expected_hypervolume(costs, mean, sigma, front_costs, front_values, reference, floor)
    directions, corner = ["maximize", *["minimize"] * cheap], (floor, *reference)
    points = np.column_stack([front_values, front_costs])
    before = hypervolume(points, directions, corner)
    for number in range(5):
        draws = mean[number] + sigma[number] * chance.normal(size=4000)
        grown = [
            hypervolume(np.vstack([points, [draw, *costs[number]]]), directions, corner) - before for draw in draws
        ]
        assert found[number] == pytest.approx(np.mean(grown), abs=5 * np.std(grown) / np.sqrt(len(grown)) + 1e-6)


def test_beyond_the_reference_there_is_nothing_to_gain() -> None:
    found = expected_hypervolume(
        np.array([[2.0], [0.5]]), np.zeros(2), np.ones(2), np.array([[0.2]]), np.zeros(1), np.ones(1), -1.0
    )
    assert found[0] == 0.0 < found[1]


def test_the_surrogate_learns_and_knows_what_it_does_not_know() -> None:
    space, random = load_named_space("digits"), Random(0)
    networks = [space.sample(random) for _ in range(160)]
    ranker = Ranker(space)
    figures = ranker.figures(networks)
    windows = np.array([sum(b.mixer.name == "window" for b in n.blocks) / len(n.blocks) for n in networks])
    values = 2.0 * np.log(figures.params) + 6.0 * windows
    known, new = slice(0, 100), slice(100, 160)
    surrogate = Surrogate(Vocabulary(), networks[known], ranker.figures(networks[known]), values[known])
    mean, sigma = surrogate.predict(networks[new], ranker.figures(networks[new]))
    assert np.corrcoef(mean, values[new])[0, 1] > 0.8
    assert 0.6 < np.mean(np.abs(mean - values[new]) < 2 * sigma) <= 1.0
    seen, sure = surrogate.predict(networks[known], ranker.figures(networks[known]))
    assert np.corrcoef(seen, values[known])[0, 1] > 0.95 and sure.mean() < sigma.mean()


def test_a_fit_depends_on_its_networks_alone() -> None:
    space, random = load_named_space("digits"), Random(1)
    networks = [space.sample(random) for _ in range(40)]
    figures = Ranker(space).figures(networks)
    values = np.log(figures.macs)
    used = Vocabulary()
    for network in [space.sample(random) for _ in range(50)]:
        used.read(network)  # by another search of the same process
    fits = [Surrogate(words, networks, figures, values).predict(networks, figures) for words in (Vocabulary(), used)]
    assert fits[0][0].tolist() == fits[1][0].tolist() and fits[0][1].tolist() == fits[1][1].tolist()


def test_networks_that_did_not_learn_do_not_rule_the_fit() -> None:
    space, random = load_named_space("digits"), Random(2)
    networks = [space.sample(random) for _ in range(60)]
    ranker = Ranker(space)
    figures = ranker.figures(networks)
    values = np.log(figures.params)
    broken = values.copy()
    broken[::15] = -1000.0
    mean, _ = Surrogate(Vocabulary(), networks, figures, broken).predict(networks, figures)
    assert np.median(np.abs(mean - values)) < 1.0
