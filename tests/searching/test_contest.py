"""The comparison of samplers: what counts as an evaluation, and the document of `nas.bench search`."""

import json
import math
from argparse import ArgumentParser
from pathlib import Path

import pytest

from nas.benching import _autoformer, search
from nas.benching._objectives import objective, synthetic
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.core.yamlfile import dump_yaml
from nas.model.costs import Costs
from nas.model.spaces import load_named_space, shared_rules
from nas.searching.contest import NAMES, evaluated
from nas.searching.ranking import Ranker
from nas.train import main as train
from nas.training.evaluating import evaluate
from nas.training.start import open_for, trained
from tests.searching.test_ranking import SMALL

COSTS = Costs()


def macs(architecture: Architecture) -> float:
    return float(COSTS.cost(architecture).macs)


def points(architecture: Architecture) -> float:
    return synthetic(architecture, COSTS.cost(architecture))


@pytest.fixture(scope="module")
def small() -> Space:
    return Space.parse(SMALL, shared_rules())


@pytest.mark.parametrize("name", [*NAMES, "autoformer"])
def test_every_evaluation_is_of_another_network(small: Space, name: str) -> None:
    asked: list[str] = []

    def accuracy(architecture: Architecture) -> float:
        asked.append(architecture.digest)
        return points(architecture)

    def run(seed: int) -> list[tuple[float, float]]:
        asked.clear()
        if name == "autoformer":
            return _autoformer.evaluated(small, macs, accuracy, 25, seed)
        return evaluated(name, small, Ranker(small), accuracy, 25, seed)

    found = run(0)
    assert len(found) == len(asked) == len(set(asked)) <= 25 and len(found) > 15
    known = {(points(network), macs(network)) for network in small.every()}
    assert set(found) <= known
    assert run(0) == found != run(1)


def test_a_search_of_everything_ends(small: Space) -> None:
    assert len(_autoformer.evaluated(small, macs, points, 10 * small.size, 0)) <= small.size
    assert len(evaluated("random", small, Ranker(small), points, small.size, 0)) <= small.size


def test_autoformers_limits_are_kept(small: Space) -> None:
    limits = _autoformer.limits(small, macs)
    assert limits == sorted(limits) and math.isinf(limits[-1]) and len(set(limits)) > 2
    found = _autoformer.evaluated(small, macs, points, 40, 0)
    first = [cost for _, cost in found[: _autoformer.POPULATION // 2]]
    assert all(cost <= limits[0] for cost in first)  # the first run's


def test_the_synthetic_objective_is_a_formula() -> None:
    space = load_named_space("digits")
    known = objective("synthetic")
    assert known.space is space and "no network was trained" in known.about
    networks = list({network.digest: network for network in (_drawn(space, seed) for seed in range(40))}.values())
    values = [known.accuracy(network) for network in networks]
    assert values == [points(network) for network in networks] and len(set(values)) == len(values)
    assert all(0 < value < 100 for value in values) and max(values) - min(values) > 10


def _drawn(space: Space, seed: int) -> Architecture:
    from random import Random

    return space.sample(Random(seed))


SUPERNET = """
name: little
input: 16
channels: 1
classes: 10
stages:
  - {embed: patch(size=8), dim: [8, 16], blocks: [{mixer: [depthwise, additive], feedforward: "mlp(ratio=[1, 2])"}]}
head: mean
"""


def test_inherited_weights_are_an_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy of the network taken out of the trained supernet, measured once, by whichever sampler asks."""
    monkeypatch.chdir(tmp_path)
    Path("little.yaml").write_text(SUPERNET)
    told = ["--steps", "3", "--set", "batch=8", "--set", "size=16", "--set", "calibration=8", "--name", "supernet"]
    assert train(["--space", "little.yaml", *told]) == 0
    known = objective("supernet:runs/supernet")
    assert known.name == "supernet-little" and known.space.size == 8 and "3 steps" in known.about
    parser = ArgumentParser()
    search.add_arguments(parser)
    sides = ["--sampler", "random", "--sampler", "evolution", "--evaluations", "6", "--seeds", "1", "--trials", "1"]
    monkeypatch.setattr(search, "overhead", lambda trials: [{"sampler": "random", "ratio": 1.0}])
    monkeypatch.setattr(search, "ranking", lambda space: {"ranked": 1.0})
    result = search.run(parser.parse_args(["--objective", "supernet:runs/supernet", *sides]))
    (compared,) = result["objectives"]
    assert compared["name"] == "supernet-little" and compared["budget_evaluations"] == 6
    kept = list(Path("runs/supernet/evaluations").rglob("*.json"))
    assert 6 <= len(kept) <= 8, "a file for each network, whichever sampler asked for it first"
    giver = trained("runs/supernet")
    for network in dict.fromkeys(known.space.every()):
        own = evaluate(giver.supernet.extract(network), open_for(giver.config), "search")
        assert known.accuracy(network) == pytest.approx(100 * own.accuracy)
    assert len(list(Path("runs/supernet/evaluations").rglob("*.json"))) == 8
    with pytest.raises(InputError, match="give its folder, as in supernet:RUN"):
        objective("supernet")
    with pytest.raises(InputError, match="none"):
        objective("supernet:runs/none")


def test_a_table_that_does_not_know_every_network_is_refused() -> None:
    with pytest.raises(InputError, match="the table is to know all"):
        objective("autoformer_tiny")
    with pytest.raises(InputError, match="unknown ground truth"):
        objective("nothing")


def test_the_document_of_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "RANKED", 300)
    monkeypatch.setattr(search, "FITTED", 30)
    path = tmp_path / "small.yaml"
    path.write_text(dump_yaml(SMALL))
    parser = ArgumentParser()
    search.add_arguments(parser)
    command = ["--objective", f"synthetic:{path}", "--evaluations", "20", "--seeds", "2", "--trials", "2"]
    for sampler in ("random", "nsga2", "evolution"):
        command += ["--sampler", sampler]
    result = search.run(parser.parse_args([*command, "--space", str(path)]))
    json.dumps(result, allow_nan=False)
    (compared,) = result["objectives"]
    assert compared["name"] == "synthetic-small" and compared["networks"] == 96
    assert compared["budget_evaluations"] == 20 and set(compared["samplers"]) == {"random", "nsga2", "evolution"}
    for found in compared["samplers"].values():
        curve = found["hypervolume"]
        assert curve[-1][0] == 20 and found["seeds"] == 2
        means = [mean for _, mean, _, _ in curve]
        assert means == sorted(means) and all(0 <= low <= mean <= high <= 1 for _, mean, low, high in curve)
    took = compared["evaluations_to_nsga2_500"]
    assert took is not None and 1 <= took <= 20
    assert result["trial_rate_ratio"] > 0 and result["candidates_per_second"] > 0
    assert f"is where nsga2 is after 20 evaluations after {took}" in search.table(result)
    with pytest.raises(InputError, match="above zero"):
        search.run(parser.parse_args(["--seeds", "0"]))
