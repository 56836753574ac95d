"""Paths against brute force: drawn, found, changed and crossed, over the spaces of test_space."""

from __future__ import annotations

from random import Random

import pytest

from nas.core.errors import InputError
from nas.core.path import State
from nas.core.space import Space
from nas.core.variation import Variation
from tests.core.test_space import NETWORKS, RULES, SPACES, every_space, plain


@every_space
def test_every_path_makes_a_network_of_the_space(name: str) -> None:
    variation, random = SPACES[name].variation, Random(0)
    paths = [variation.sample(random) for _ in range(20)]
    paths += [variation.mutate(random.choice(paths), random, changes=1 + number % 3) for number in range(30)]
    for whole in (True, False):
        paths += [variation.crossover(random.choice(paths), random.choice(paths), random, whole) for _ in range(20)]
    for path in paths:
        network = variation.build(path)
        assert network in NETWORKS[name]
        assert variation.build(variation.path_of(network)) == network


@every_space
def test_a_path_is_found_for_every_network_and_followed_again(name: str) -> None:
    """What a path has at each place, chosen at each place, is the path."""
    variation = SPACES[name].variation
    for network in sorted(NETWORKS[name], key=lambda network: network.digest)[:40]:
        path = variation.path_of(network)
        assert variation.build(path) == network
        taken = {place: (state, pick) for place, state, pick in variation.placed(path)}
        asked: list[str] = []

        def choose(place: str, state: State, taken: dict = taken, asked: list[str] = asked) -> int:
            asked.append(place)
            assert taken[place][0] is state
            return taken[place][1]

        assert variation.walk(choose).parts == path.parts
        assert asked == [place for place, (state, _) in taken.items() if len(state.options) > 1]
        assert len(asked) == path.open


@every_space
def test_a_change_is_of_the_decision_that_is_asked_for(name: str) -> None:
    variation, random = SPACES[name].variation, Random(1)
    for _ in range(15):
        path = variation.sample(random)
        before = [(state, pick) for _, state, pick in variation.placed(path)]
        places = [number for number, (state, _) in enumerate(before) if len(state.options) > 1]
        for number, place in enumerate(places):
            child = variation.changed(path, number, random)
            after = [(state, pick) for _, state, pick in variation.placed(child)]
            assert after[:place] == before[:place] and after[place][0] is before[place][0]
            assert after[place][1] != before[place][1]
            assert variation.build(variation.changed(path, number, random, rate=0.5)) in NETWORKS[name]


def test_what_follows_a_change_is_kept_where_it_is_legal() -> None:
    """b after a is illegal; of three blocks of an entry, counted from its end, those that both have stay."""
    variation, random = SPACES["memory"].variation, Random(2)
    grown = 0
    for _ in range(200):
        path = variation.sample(random)
        child = variation.mutate(path, random)
        one, other = ([block.mixer.name for block in variation.build(own).blocks] for own in (path, child))
        if len(one) == len(other):
            changed = next(i for i, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
            for i in range(changed + 1, len(one)):
                assert other[i] == one[i] or (other[i - 1], one[i]) == ("a", "b")
        elif len(one) < len(other):  # the new ones are as the first was
            grown += 1
            fresh = len(other) - len(one)
            assert set(other[:fresh]) == {one[0]} and other[fresh:] == one
        else:
            assert other == one[len(one) - len(other) :]
    assert grown > 10


def test_a_child_of_two_has_whole_blocks_of_theirs() -> None:
    document = plain({"repeat": [2, 3], "mixer": ["a", "c"], "feedforward": ["f", "g(n=[2, 3])"]}, dim=[8, 9, 10])
    variation, random = Space.parse(document, RULES).variation, Random(3)
    mixed = {True: 0, False: 0}
    for whole in mixed:
        for _ in range(100):
            one, other = variation.sample(random), variation.sample(random)
            first, second = variation.build(one), variation.build(other)
            child = variation.build(variation.crossover(one, other, random, whole))
            assert child.stages[0].dim in (first.stages[0].dim, second.stages[0].dim)
            for left, block in enumerate(reversed(child.blocks), start=1):
                theirs = [own.blocks[max(0, len(own.blocks) - left)] for own in (first, second)]
                mixed[whole] += block not in theirs
                assert block.mixer in {own.mixer for own in theirs}
                assert block.feedforward in {own.feedforward for own in theirs}
            assert variation.build(variation.crossover(one, one, random, whole)) == first
    assert mixed[True] == 0 < mixed[False]


def test_what_is_kept_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same random numbers make the same networks, however few parts are kept."""

    def digests(name: str) -> list[str]:
        variation, random = Variation(SPACES[name].automaton), Random(4)
        paths = [variation.sample(random) for _ in range(5)]
        for _ in range(60):
            first, second = random.sample(paths, 2)
            paths.append(variation.mutate(variation.crossover(first, second, random), random, changes=2))
        return [variation.build(path).digest for path in paths]

    for name in ("two stages", "layouts that overlap", "one drop"):
        whole = digests(name)
        with monkeypatch.context() as few:
            few.setattr("nas.core.variation.KEPT", 3)
            assert digests(name) == whole


def test_one_network_has_no_other_and_strangers_have_no_path() -> None:
    variation = SPACES["one network"].variation
    path = variation.sample(Random(0))
    assert path.open == 0 and variation.mutate(path, Random(0)) is path
    with pytest.raises(InputError, match="not in this space"):
        variation.path_of(SPACES["two stages"].sample(Random(0)))


def test_options_that_are_equal_stay_what_they_are() -> None:
    """False is 0 and 1 is 1.0 to a dictionary, not in a file."""
    document = plain({"repeat": [0, 1], "mixer": "a", "layer_scale": [0.0, 1.0]}, class_token=[False, True])
    document["stages"][0]["registers"] = [0, 1]
    variation, random = Space.parse(document, RULES).variation, Random(5)
    for _ in range(20):
        stage = variation.build(variation.sample(random)).stages[0]
        kinds = [type(value) for value in (stage.class_token, stage.registers)]
        assert kinds == [bool, int] and all(type(block.layer_scale) is float for block in stage.blocks)
