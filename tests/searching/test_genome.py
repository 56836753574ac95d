"""Architectures as Optuna's parameters: every network of a space, the names, and what is refused."""

from __future__ import annotations

from collections import Counter
from random import Random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.spaces import shared_rules
from nas.searching.genome import architecture_of, params_of, suggest
from tests.searching.fakes import DOCUMENT, genomes, networks, small


def test_every_network_comes_back_from_its_parameters() -> None:
    space = small()
    assert len(networks()) == space.size
    for network, (params, distributions) in genomes().items():
        assert params.keys() == distributions.keys()
        assert architecture_of(params, space) == network


def test_different_networks_have_different_parameters_and_equal_names_equal_choices() -> None:
    seen: set[tuple] = set()
    choices: dict[str, CategoricalDistribution] = {}
    for params, distributions in genomes().values():
        seen.add(tuple(sorted(params.items(), key=str)))
        for name, distribution in distributions.items():
            assert choices.setdefault(name, distribution) == distribution
            assert len(distribution.choices) > 1, "a decision that is none"
    assert len(seen) == small().size


def test_a_network_s_parameters_read_well_and_are_those_of_its_own_decisions_only() -> None:
    network = next(n for n in networks() if len(n.stages) == 2 and n.blocks[0].mixer.name == "depthwise")
    params, _ = params_of(network, small())
    assert params == {
        "layout": "pyramid",
        "pyramid.stages[0].dim": network.stages[0].dim,
        "pyramid.stages[0].blocks[0].mixer": str(network.blocks[0].mixer),
    }


def test_only_active_decisions_are_suggested() -> None:
    """Blocks that are not there and the other layout have no parameters."""
    for network, (params, _) in genomes().items():
        blocks = {name.split("blocks[")[1][0] for name in params if "blocks[" in name}
        assert all(int(number) < len(network.blocks) for number in blocks)
        assert all(name == "layout" or name.startswith(params["layout"] + ".") for name in params)


def test_choices_that_rules_or_entries_of_the_file_narrow_are_told_apart_by_name() -> None:
    """Keys reduced by 8 need a grid of more than 4: the same place has other choices, and another name."""
    bare = {}
    for _, distributions in genomes().values():
        for name, distribution in distributions.items():
            place, _, signature = name.partition("~")
            bare.setdefault(place, set()).add((signature, distribution.choices))
    narrowed = {place: found for place, found in bare.items() if len(found) > 1}
    mixers = narrowed["plain.stages[0].blocks[0].mixer"]
    full, short = sorted((choices for _, choices in mixers), key=len, reverse=True)
    assert set(short) < set(full) and any("ratio=8" in choice for choice in set(full) - set(short))
    assert {len(signature) for signature, _ in mixers} == {0, 6}


def test_optuna_takes_the_parameters_of_all_networks_in_one_study() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    some = networks()[::7]
    for network in some:
        study.enqueue_trial(params_of(network, small())[0])
    for network in some:
        trial = study.ask()
        assert suggest(trial, small()) == network
        params, distributions = params_of(network, small())
        assert (trial.params, trial.distributions) == (params, distributions)
        study.tell(trial, 0.0)


def test_a_random_sampler_reaches_all_kinds_of_networks() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(study.ask(), small()) for _ in range(80)]
    assert set(drawn) <= set(networks())
    assert min(Counter(len(network.stages) for network in drawn).values()) > 20
    assert len(set(drawn)) > 50


def test_one_layout_has_no_prefix_and_one_network_no_parameter() -> None:
    plain = {**DOCUMENT, **DOCUMENT["layouts"]["plain"]}
    del plain["layouts"]
    space = Space.parse(plain, shared_rules(), "plain")
    network = space.sample(Random(1))
    params, _ = params_of(network, space)
    assert "stages[0].embed" in params and "layout" not in params
    alone = Space.parse(network.to_dict(), shared_rules(), "alone")
    assert params_of(alone.only(), alone) == ({}, {})
    assert architecture_of({}, alone) == network


def test_parameters_that_make_no_network_are_refused() -> None:
    network = small().sample(Random(0))
    params, _ = params_of(network, small())
    first = "layout"
    with pytest.raises(InputError, match=r"a parameter is missing: 'layout'"):
        architecture_of({}, small())
    with pytest.raises(InputError, match=r"layout: the parameter has no such choice: 'plane' \(nearest: plain"):
        architecture_of({**params, first: "plane"}, small())
    with pytest.raises(InputError, match=r"no such parameter: 'stages\[9\].dim'"):
        architecture_of({**params, "stages[9].dim": 3}, small())
    with pytest.raises(InputError, match="no such choice"):
        architecture_of({**params, first: []}, small())


def test_a_network_of_another_space_has_no_parameters_here() -> None:
    other = Space.parse({**DOCUMENT, "classes": 11}, shared_rules(), "other")
    with pytest.raises(InputError, match="the network is not in this space"):
        params_of(other.sample(Random(0)), small())
