"""The learned predictor, on synthetic truths of which everything is known."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from nas.accuracy import learned
from nas.accuracy.base import Setting
from nas.accuracy.learned import Learned
from nas.accuracy.prior import features, prior_fit
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.model.reference import load_reference
from nas.model.spaces import load_named_space

Truth = tuple[list[Architecture], np.ndarray, np.ndarray]


def synthetic(space: str, count: int, seed: int) -> Truth:
    """Networks, their accuracies near 94 % (sizes, an interaction, an effect of every operator), and their features."""
    random, of, chance = Random(seed), load_named_space(space), np.random.default_rng(seed)
    networks = [of.sample(random) for _ in range(count)]
    rows = features().describe(networks).rows
    size, _, operators = (rows[:, columns] for columns in features().groups)
    z = (size - size.mean(axis=0)) / np.maximum(size.std(axis=0), 1e-9)
    effects = chance.normal(size=operators.shape[1])
    value = 0.9 * z[:, 1] + 0.5 * z[:, 2] - 0.3 * z[:, 1] * z[:, 2] + operators @ effects
    return networks, 94 + 1.5 * (value - value.mean()) / value.std(), rows


@pytest.fixture(scope="module")
def truth() -> Truth:
    return synthetic("digits", 500, 0)


def taught(truth: Truth, count: int, noise: float = 0.2) -> Learned:
    made, chance = Learned(Setting.noise(32)), np.random.default_rng(1)
    for network, accuracy in zip(truth[0][:count], truth[1][:count], strict=True):
        made.observe(network, float(np.clip(accuracy + noise * chance.normal(), 0, 100)), noise)
    return made


def test_without_observations_it_is_the_prior(truth: Truth) -> None:
    mine, prior = Learned(Setting.noise(32)).predict(truth[2]), prior_fit().predict(truth[2])
    assert np.array_equal(mine[0], prior[0]) and np.array_equal(mine[1], prior[1])


def test_the_first_observation_moves_the_level(truth: Truth) -> None:
    before, after = Learned(Setting.noise(32)), taught(truth, 1)
    errors = [np.abs(one.predict(truth[2])[0] - truth[1]).mean() for one in (before, after)]
    assert errors[1] < 0.5 * errors[0]


def test_error_falls_and_order_improves_with_observations(truth: Truth) -> None:
    from scipy.stats import kendalltau

    _, values, rows = truth
    found = []
    for count in (4, 16, 64, 250):
        means, sigmas = taught(truth, count).predict(rows[250:])
        errors = np.abs(means - values[250:])
        found.append((errors.mean(), kendalltau(means, values[250:]).statistic, sigmas.mean()))
    errors, taus, sigmas = zip(*found, strict=True)
    assert errors[1] > errors[2] > errors[3] and errors[3] < 0.25 * errors[0]
    assert taus[3] > taus[2] > taus[1] and taus[3] > 0.85
    assert sigmas[0] > sigmas[1] > sigmas[2] > sigmas[3]
    by_size = max(kendalltau(rows[250:, column], values[250:]).statistic for column in (0, 1))
    assert taus[2] > by_size


@pytest.mark.parametrize("count", [16, 64, 250])
def test_intervals_hold(truth: Truth, count: int) -> None:
    means, sigmas = taught(truth, count).predict(truth[2][250:])
    away = np.abs(means - truth[1][250:]) / sigmas
    assert (away < 1).mean() > 0.5 and (away < 1.96).mean() > 0.82


def test_a_space_of_one_operator_is_learned_as_well() -> None:
    truth = synthetic("tiny", 300, 2)
    few, many = (np.abs(taught(truth, n).predict(truth[2][200:])[0] - truth[1][200:]).mean() for n in (8, 128))
    assert many < 0.3 * few


def test_a_fit_depends_on_the_observations_alone(truth: Truth) -> None:
    networks, values, rows = truth
    steady, late = Learned(Setting.noise(32)), Learned(Setting.noise(32))
    for number, (network, value) in enumerate(zip(networks[:40], values[:40], strict=True)):
        steady.observe(network, float(value))
        late.observe(network, float(value))
        if number % 3 == 0:
            steady.estimate(networks[-1])
    once, again, other = steady.predict(rows), steady.predict(rows), late.predict(rows)
    for a, b in zip(once, again, strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(once, other, strict=True):
        assert np.array_equal(a, b)


def test_one_by_one_and_at_once_are_the_same(truth: Truth) -> None:
    made = taught(truth, 20)
    values, sigmas = made.estimate_many(truth[0][:5])
    for network, value, sigma in zip(truth[0][:5], values, sigmas, strict=True):
        estimate = made.estimate(network)
        assert (estimate.value, estimate.sigma) == (pytest.approx(value), pytest.approx(sigma))


def test_far_networks_have_a_larger_sigma() -> None:
    truth = synthetic("tiny", 80, 3)
    made = taught(truth, 64)
    near = made.predict(truth[2][64:])[1]
    far = made.estimate_many([load_reference(name).architecture for name in ("swin_tiny", "gfnet_xs", "deit_base")])[1]
    assert far.min() > 2 * near.max()


def test_an_observation_with_a_larger_sigma_counts_for_less(truth: Truth) -> None:
    networks, values, rows = truth

    def after(sigma: float) -> float:
        made = taught(truth, 32)
        made.observe(networks[100], float(values[100]) - 10.0, sigma)
        return float(made.predict(rows[100:101])[0][0])

    without = float(taught(truth, 32).predict(rows[100:101])[0][0])
    assert after(0.1) < after(10.0) < without + 1e-9 and without - after(10.0) < 0.3 * (without - after(0.1))


def test_beyond_the_most_the_best_and_the_newest_are_used(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "MOST", 40)
    networks, _, rows = truth
    values = np.clip(truth[1][:100], 0, 99.0)
    values[64], values[65] = 90.0, 99.5  # neither good nor new; as old, but the best; both beyond the last rung

    def predicted(changed: dict[int, float]) -> np.ndarray:
        made = Learned(Setting.noise(32))
        for number, value in enumerate(values):
            made.observe(networks[number], changed.get(number, float(value)))
        return made.predict(rows[100:150])[0]

    assert sum(values[66:] < np.sort(values)[-20]) >= 20  # so that the newest of the others do not reach back to 64
    plain = predicted({})
    assert np.isfinite(plain).all() and np.array_equal(plain, predicted({64: 89.5}))
    assert not np.array_equal(plain, predicted({65: 99.8})) and not np.array_equal(plain, predicted({99: 90.0}))


@pytest.mark.parametrize("accuracy", [float("nan"), float("inf"), -1.0, 100.5])
def test_what_is_no_percentage_is_refused_and_changes_nothing(truth: Truth, accuracy: float) -> None:
    made = taught(truth, 3)
    with pytest.raises(InputError, match="percentage"):
        made.observe(truth[0][5], accuracy)
    with pytest.raises(InputError, match="deviation"):
        made.observe(truth[0][5], 90.0, -0.1)
    assert len(made) == 3
