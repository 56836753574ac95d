"""The prior: the regression, and what it predicts of families that it has not seen."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from nas.accuracy._gaussian import CENTRES, CONSTANT, SPREADS, Inputs, Regression, Scaling
from nas.accuracy.base import Setting
from nas.accuracy.prior import Fit, LeftOut, Prior, left_out, prior_fit, scores
from nas.accuracy.published import published
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.model.costs import Costs
from nas.model.reference import load_reference
from nas.ops.catalogue import catalogue


@pytest.fixture(scope="module")
def predictions() -> list[LeftOut]:
    return left_out()


def reference(name: str) -> Architecture:
    return load_reference(name).architecture


def with_mixer(architecture: Architecture, text: str) -> Architecture:
    mixer = catalogue().specs("mixer", text, "test")[0]
    stages = [
        dataclasses.replace(stage, blocks=tuple(dataclasses.replace(block, mixer=mixer) for block in stage.blocks))
        for stage in architecture.stages
    ]
    return dataclasses.replace(architecture, stages=tuple(stages))


# The regression


def problem(seed: int, sources: int = 2, count: int = 24) -> tuple[Inputs, np.ndarray, np.ndarray, tuple[slice, ...]]:
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(count, 9))
    groups: list[object] = [None if number % 4 == 0 else number % 5 for number in range(count)]
    inputs = Inputs(rows, chance.integers(0, 2, size=(count, 2)).astype(float), groups, np.arange(count) % sources)
    values = rows[:, 0] + np.sin(2 * rows[:, 1]) + 0.3 * rows[:, 7] + 0.1 * chance.normal(size=count)
    return inputs, values, np.full(count, 0.05), (slice(0, 3), slice(3, 6), slice(6, 9))


def covariance(
    inputs: Inputs,
    others: Inputs,
    scaling: Scaling,
    groups: tuple[slice, ...],
    spreads: np.ndarray,
    factor: float,
) -> np.ndarray:
    """Written out pair by pair, noise left out; factor is that of the second source."""
    factors = [1.0, factor]
    s = dict(zip(SPREADS, np.exp(spreads[: len(SPREADS)]), strict=True))
    rows, columns = ((x.rows - scaling.middle) / scaling.width for x in (inputs, others))
    found = np.zeros((len(rows), len(columns)))
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            shared = s["operators"] ** 2 * a[groups[2]] @ b[groups[2]]
            shared += s["given"] ** 2 * inputs.given[i] @ others.given[j]
            away = 0.0
            for name, group in zip(("size", "kind"), groups[:2], strict=True):
                shared += s[name] ** 2 * a[group] @ b[group] / 3
                away += ((a[group] - b[group]) ** 2).sum() / 3
            shared += s["smooth"] ** 2 * math.exp(-away / (2 * s["length"] ** 2))
            same = inputs.groups[i] is not None and inputs.groups[i] == others.groups[j]
            found[i, j] = shared * factors[inputs.sources[i]] * factors[others.sources[j]] + s["group"] ** 2 * same
            found[i, j] += CONSTANT**2 * (inputs.sources[i] == others.sources[j])
    return found


def test_predictions_are_those_of_a_gaussian_conditioned_on_the_observations() -> None:
    inputs, values, deviations, groups = problem(0)
    spreads = np.log([*CENTRES.values(), 1.7, 0.4])
    regression = Regression(inputs, values, deviations, groups, units=[1.0, 1.0], spreads=spreads)
    whole = covariance(inputs, inputs, regression.scaling, groups, spreads, 1.7)
    s = dict(zip(SPREADS, np.exp(spreads[: len(SPREADS)]), strict=True))
    noise = np.where(inputs.sources == 0, s["noise"], 0.4) ** 2 + deviations**2
    lone = np.array([group is None for group in inputs.groups])
    whole += np.diag(noise + s["group"] ** 2 * lone)
    chance = np.random.default_rng(1)
    new = Inputs(chance.normal(size=(5, 9)), np.zeros((5, 2)), [None] * 5, np.zeros(5, dtype=int))
    cross = covariance(new, inputs, regression.scaling, groups, spreads, 1.7)
    own = covariance(new, new, regression.scaling, groups, spreads, 1.7)
    centre = np.array([values[inputs.sources == source].mean() for source in (0, 1)])
    expected = centre[0] + cross @ np.linalg.solve(whole, values - centre[inputs.sources])
    variance = np.diag(own - cross @ np.linalg.solve(whole, cross.T)) + s["noise"] ** 2 + s["group"] ** 2
    means, sigmas = regression.predict(new.rows)
    assert means == pytest.approx(expected, rel=1e-6) and sigmas**2 == pytest.approx(variance, rel=1e-6)


def test_spreads_are_the_most_likely_ones() -> None:
    from scipy.stats import multivariate_normal

    inputs, values, deviations, groups = problem(2)
    units = [1.0, 1.0]
    regression = Regression(inputs, values, deviations, groups, units=units)
    centre = np.array([values[inputs.sources == source].mean() for source in (0, 1)])
    start = np.log([*CENTRES.values(), 1.0, 0.5])

    def posterior(spreads: np.ndarray) -> float:
        whole = covariance(inputs, inputs, regression.scaling, groups, spreads, float(np.exp(spreads[-2])))
        noises = np.exp(spreads[[len(SPREADS) - 1, -1]])[inputs.sources] ** 2
        lone = np.exp(2 * spreads[SPREADS.index("group")]) * np.array([group is None for group in inputs.groups])
        whole += np.diag(noises + deviations**2 + lone)
        likelihood = multivariate_normal(np.zeros(len(values)), whole).logpdf(values - centre[inputs.sources])
        return float(likelihood - 0.5 * ((spreads - start) ** 2).sum())

    best = posterior(regression.spreads)
    assert best > posterior(start) + 1
    for number in range(len(start)):
        for step in (-0.05, 0.05):
            moved = regression.spreads.copy()
            moved[number] += step
            assert posterior(moved) < best + 1e-4


def test_a_second_source_of_the_same_function_helps_the_first() -> None:
    chance = np.random.default_rng(3)
    rows = chance.normal(size=(120, 9))
    truth = 2 * rows[:, 0] - rows[:, 4]
    groups = (slice(0, 3), slice(3, 6), slice(6, 9))

    def error(first: int, second: int) -> float:
        sources = np.array([0] * first + [1] * second)
        used = np.arange(first + second)
        values = np.where(sources == 0, truth[used], 50 + 7 * truth[used]) + 0.05 * chance.normal(size=len(used))
        inputs = Inputs(rows[used], np.zeros((len(used), 0)), [None] * len(used), sources)
        means, _ = Regression(inputs, values, np.zeros(len(used)), groups).predict(rows[80:])
        return float(np.abs(means - truth[80:]).mean())

    assert error(6, 60) < 0.6 * error(6, 0)


# The prior


def test_estimates_are_top1_with_sigma_and_the_same_one_by_one_and_at_once() -> None:
    prior = Prior(Setting.noise(32))
    networks = [reference(name) for name in ("deit_tiny", "swin_tiny", "pvt_tiny")]
    values, sigmas = prior.estimate_many(networks)
    for network, value, sigma in zip(networks, values, sigmas, strict=True):
        estimate = prior.estimate(network)
        assert (estimate.value, estimate.sigma) == (pytest.approx(value), pytest.approx(sigma))
    assert values == pytest.approx([72.2, 81.2, 75.1], abs=1.0) and (sigmas > 0.2).all() and (sigmas < 2).all()
    assert prior.kind == "prior" and prior.unit == "top-1 %"


def test_a_fit_is_the_same_bit_for_bit() -> None:
    networks = [one.architecture for one in published()]
    first, second = Fit().estimate_many(networks), Fit().estimate_many(networks)
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_families_never_seen_are_predicted_better_than_by_parameters_or_macs(predictions: list[LeftOut]) -> None:
    assert sorted(one.name for one in predictions) == sorted(one.name for one in published())
    for chosen in (predictions, [one for one in predictions if one.usual]):
        found = scores(chosen)
        assert found["prior"].tau > max(found["params"].tau, found["macs"].tau) + 0.05
        assert found["prior"].error < 0.9 * min(found["params"].error, found["macs"].error)


def test_intervals_hold_of_families_never_seen(predictions: list[LeftOut]) -> None:
    found = scores([one for one in predictions if one.usual])["prior"]
    assert found.within_68 is not None and 0.58 <= found.within_68 <= 0.9
    assert found.within_95 is not None and 0.9 <= found.within_95 <= 1.0


def test_a_fold_left_out_has_no_influence_and_is_less_sure() -> None:
    swin = [reference("swin_tiny")]
    seen, unseen = prior_fit().estimate_many(swin), prior_fit(frozenset({"swin"})).estimate_many(swin)
    assert unseen[1][0] > seen[1][0]
    assert abs(seen[0][0] - 81.2) <= abs(unseen[0][0] - 81.2)


def test_sigma_grows_away_from_what_was_published() -> None:
    deit = reference("deit_small")
    unknown = with_mixer(deit, "retention(heads=6)")  # no published network has it
    assert not any(block.mixer.name == "retention" for one in published() for block in one.architecture.blocks)
    wide = dataclasses.replace(deit, stages=(dataclasses.replace(deit.stages[0], dim=6144),))
    small = dataclasses.replace(deit, input=32, channels=1, classes=10)
    sigmas = prior_fit().estimate_many([deit, unknown, wide, small])[1]
    assert sigmas[1] > 1.2 * sigmas[0] and (sigmas[2:] > 3 * sigmas[0]).all()


def test_a_truth_left_out_is_ranked_no_worse_than_by_parameters() -> None:
    from scipy.stats import kendalltau

    from nas.accuracy.truth import load_truth

    networks, figures = load_truth("autoformer_tiny").known("flower_kd")
    values = Prior(Setting.noise(32), without=["autoformer_tiny"]).estimate_many(networks)[0]
    params = [Costs().cost(network).params for network in networks]
    assert kendalltau(values, figures).statistic > kendalltau(params, figures).statistic - 0.02
    seen = prior_fit().estimate_many(networks)[0]
    assert kendalltau(seen, figures).statistic > 0.6


def test_unknown_folds_and_nothing_to_fit_are_refused() -> None:
    with pytest.raises(InputError, match="swin"):
        Fit({"swinn"})
    with pytest.raises(InputError, match="needs published networks"):
        Fit({one.fold for one in published()})
