"""Prior: the top-1 that a network would be published with, from its features alone.

Fitted to published ImageNet-1k top-1 (`nas.accuracy.published`) and, as a second source with a scale and a noise of its
own, to networks of one space that were each trained on small data sets (`TRUTHS`). The rate of errors is regressed, in
logarithms, by `nas.accuracy._gaussian`. What is predicted is the usual recipe (300 epochs, no teacher, no further data)
by authors not seen before: sigma holds what a paper's recipe adds or takes, and grows away from what was published.
How good it is: `left_out`, each family of papers predicted from the others, beside formulas of one figure.
Limits: a class of networks unlike all published ones is told by its sigma only; of other data the order is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from nas.accuracy._gaussian import Inputs, Regression
from nas.accuracy.base import Estimate, Estimator, Setting
from nas.accuracy.features import Features
from nas.accuracy.published import RECIPES, published
from nas.accuracy.truth import load_truth, truth_names
from nas.core.architecture import Architecture
from nas.core.cost import Cost
from nas.core.errors import InputError, nearest

TRUTHS = {"autoformer_tiny": ("c100_kd", "flower_kd")}  # what is read of a truth: the mean of these columns
OUTLIER = 4.0  # robust deviations, beyond which a trained accuracy is taken as that many
WORST = 99.9  # percent of errors; a network is not predicted to be worse than chance


class Fit:
    """The prior without some folds of published networks and some truths."""

    def __init__(self, without: Collection[str] = ()):
        known = {one.fold for one in published()} | set(truth_names())  # of those, it knows TRUTHS
        for name in without:
            if name not in known:
                raise InputError(
                    "unknown fold of published networks or truth", value=name, nearest=nearest(name, known)
                )
        self.features = features()
        inputs, values = _observed()
        kept = np.array([fold not in without for fold in _folds()])
        if not kept[inputs.sources == 0].any():
            raise InputError("a prior needs published networks", value=sorted(without))
        inputs, values = inputs.some(kept), values[kept]
        self._regression = Regression(inputs, values, np.zeros(len(values)), self.features.groups)
        self.scaling = self._regression.scaling

    def predict(self, rows: np.ndarray, given: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Top-1 in percent and its deviation, of networks by rows of `features()`; given: RECIPES, 0 or 1 each."""
        means, deviations = self._regression.predict(rows, given)
        errors = np.minimum(np.exp(-means), WORST)
        return 100.0 - errors, errors * deviations

    def estimate_many(self, architectures: Sequence[Architecture]) -> tuple[np.ndarray, np.ndarray]:
        """Top-1 in percent and its deviation, of many networks at once."""
        return self.predict(self.features.describe(architectures).rows)


@cache
def features() -> Features:
    """The features that the prior is fitted on, with what they keep."""
    return Features()


@cache
def prior_fit(without: frozenset[str] = frozenset()) -> Fit:
    """The fit without these folds and truths, made once."""
    return Fit(without)


class Prior(Estimator):
    """Without: folds of published networks, or truths, that it is not to have seen, for honest comparisons on them."""

    about = "Gaussian regression on published ImageNet-1k top-1 and trained truths, over features of costs"
    kind = "prior"
    unit = "top-1 %"
    cost = "a formula"

    def __init__(self, setting: Setting, without: Collection[str] = ()):
        super().__init__(setting)
        self._fit = prior_fit(frozenset(without))

    def measure(self, architecture: Architecture) -> Estimate:
        values, sigmas = self._fit.estimate_many([architecture])
        return Estimate(float(values[0]), float(sigmas[0]))

    def estimate_many(self, architectures: Sequence[Architecture]) -> tuple[np.ndarray, np.ndarray]:
        """Values and sigmas of many networks at once."""
        return self._fit.estimate_many(architectures)


class LeftOut(NamedTuple):
    """A published network predicted without its fold, with its own recipe; the trivial ones regress on one figure."""

    name: str
    fold: str
    usual: bool  # trained with the usual recipe
    top1: float
    value: float
    sigma: float
    by_params: float
    by_macs: float


class Score(NamedTuple):
    """How good predictions are: mean absolute error in points, Kendall's tau, shares within 1 and 1.96 sigma."""

    networks: int
    error: float
    tau: float
    within_68: float | None = None
    within_95: float | None = None


def left_out(progress: Callable[[str], None] = lambda fold: None) -> list[LeftOut]:
    """Every published network, predicted by a prior that has seen nothing of its fold. Takes about 5 seconds."""
    networks, found = published(), []
    rows, costs = _described()
    top1 = np.array([one.top1 for one in networks])
    usual = np.array([not one.recipe for one in networks])
    recipes = _recipes()
    for fold in sorted({one.fold for one in networks}):
        progress(fold)
        out = np.array([one.fold == fold for one in networks])
        values, sigmas = Fit({fold}).predict(rows[out], recipes[out])
        trivial = []
        for figure in ("params", "macs"):
            logs = np.log([getattr(cost, figure) for cost in costs])
            slope, constant = np.polyfit(logs[~out & usual], np.log(100.0 - top1[~out & usual]), 1)
            trivial.append(100.0 - np.exp(constant + slope * logs[out]))
        for number, value, sigma, *others in zip(np.flatnonzero(out), values, sigmas, *trivial, strict=True):
            one = networks[number]
            figures = map(float, (one.top1, value, sigma, *others))
            found.append(LeftOut(one.name, fold, bool(usual[number]), *figures))
    return found


def scores(predictions: Sequence[LeftOut]) -> dict[str, Score]:
    """Of the prior, and of the formulas of one figure, on the same networks."""
    from scipy.stats import kendalltau

    top1 = np.array([one.top1 for one in predictions])
    found = {}
    for name, field in (("prior", "value"), ("params", "by_params"), ("macs", "by_macs")):
        values = np.array([getattr(one, field) for one in predictions])
        error, tau = float(np.abs(values - top1).mean()), float(kendalltau(values, top1).statistic)
        found[name] = Score(len(predictions), error, tau)
    away = np.array([abs(one.value - one.top1) / one.sigma for one in predictions])
    within = float((away < 1).mean()), float((away < 1.96).mean())
    return {**found, "prior": found["prior"]._replace(within_68=within[0], within_95=within[1])}


@cache
def _described() -> tuple[np.ndarray, list[Cost]]:
    described = features().describe([one.architecture for one in published()])
    return described.rows, described.costs


def _recipes() -> np.ndarray:
    return np.array([[float(recipe in one.recipe) for recipe in RECIPES] for one in published()])


@cache
def _folds() -> tuple[str, ...]:
    """Of each observation: the fold of a published network, or the truth."""
    return (*(one.fold for one in published()), *(name for name, networks, _ in _truths() for _ in networks))


@cache
def _truths() -> tuple[tuple[str, tuple[Architecture, ...], np.ndarray], ...]:
    """Each truth's networks, with the mean of its columns, each of them centred and in robust deviations."""
    found = []
    for name in sorted(set(TRUTHS) & set(truth_names())):
        truth = load_truth(name)
        figures = np.array(truth.figures, dtype=float)[:, [truth.columns.index(column) for column in TRUTHS[name]]]
        middle = np.median(figures, axis=0)
        deviation = 1.4826 * np.median(np.abs(figures - middle), axis=0)
        away = np.clip((figures - middle) / deviation, -OUTLIER, OUTLIER)
        found.append((name, truth.architectures, away.mean(axis=1)))
    return tuple(found)


@cache
def _observed() -> tuple[Inputs, np.ndarray]:
    """Everything there is to fit to: published networks (minus the logarithm of errors), then each truth."""
    rows, recipes = [_described()[0]], [_recipes()]
    groups: list[object] = [one.family for one in published()]
    sources, values = [np.zeros(len(groups), dtype=int)], [-np.log(100.0 - np.array([p.top1 for p in published()]))]
    for number, (_, networks, figures) in enumerate(_truths(), start=1):
        rows.append(features().describe(networks).rows)
        recipes.append(np.zeros((len(networks), len(RECIPES))))
        groups += [None] * len(networks)
        sources.append(np.full(len(networks), number))
        values.append(figures)
    whole = Inputs(np.concatenate(rows), np.concatenate(recipes), groups, np.concatenate(sources))
    return whole, np.concatenate(values)
