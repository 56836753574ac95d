"""The project's own sampler: its promises, on objectives that are formulas."""

import warnings
from collections.abc import Callable
from random import Random

import numpy as np
import optuna
import pytest
from optuna import Study, Trial
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.costs import Costs
from nas.model.spaces import load_named_space, shared_rules
from nas.reporting.pareto import anytime
from nas.searching.evolution import Breeding, EvolutionSampler
from nas.searching.genome import architecture_of, params_of, suggest
from nas.searching.ranking import Ranker
from tests.searching.test_ranking import SMALL, Times, times_of

optuna.logging.set_verbosity(optuna.logging.ERROR)

QUICK = Breeding(startup=6, first=60, rounds=1, children=30, kept=10, parents=8, pool=40)
BOTH = ("accuracy", "macs")
COSTS = Costs()
Judge = Callable[[Architecture], float]


def liked(architecture: Architecture) -> float:
    """Points for size, for windows, and for depthwise convolutions that come first."""
    blocks = architecture.blocks
    windows = sum(block.mixer.name == "window" for block in blocks) / len(blocks)
    first = 5.0 * (blocks[0].mixer.name == "depthwise")
    return 2.0 * float(np.log(COSTS.cost(architecture).params)) + 8.0 * windows + first


def started(space: Space, seed: int, objectives: tuple[str, ...] = BOTH, **options: object) -> Study:
    ranker = options.pop("ranker", None) or Ranker(space)
    directions = ["maximize" if name == "accuracy" else "minimize" for name in objectives]
    return optuna.create_study(
        directions=options.pop("directions", directions),
        sampler=EvolutionSampler(space, ranker, seed, objectives=objectives, breeding=QUICK, **options),
    )


def values_of(architecture: Architecture, objectives: tuple[str, ...], accuracy: Judge = liked) -> list[float]:
    cost = COSTS.cost(architecture)
    known = {"macs": cost.macs, "params": cost.params, "latency_ms": times_of(architecture)}
    return [accuracy(architecture) if name == "accuracy" else float(known[name]) for name in objectives]


def run(study: Study, space: Space, trials: int, objectives: tuple[str, ...] = BOTH, accuracy: Judge = liked) -> None:
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, values_of(suggest(trial, space), objectives, accuracy))


def networks_of(study: Study, space: Space) -> list[Architecture]:
    return [architecture_of(trial.params, space) for trial in study.trials if trial.state is TrialState.COMPLETE]


@pytest.fixture(scope="module")
def digits() -> Space:
    return load_named_space("digits")


@pytest.fixture(scope="module")
def small() -> Space:
    return Space.parse(SMALL, shared_rules())


def test_no_network_is_proposed_twice_until_there_is_no_other(small: Space) -> None:
    study = started(small, 0)
    run(study, small, small.size, accuracy=lambda network: 1.0 * network.stages[0].dim)
    digests = [network.digest for network in networks_of(study, small)]
    assert len(digests) == len(set(digests)) == small.size
    run(study, small, 1)  # and then it goes on


@pytest.mark.parametrize("limits", [{"macs": 4e6}, {"macs": 9e6, "latency_ms": 6.0}, {"params": 20_000.0}])
def test_every_proposal_keeps_the_limits(digits: Space, limits: dict[str, float]) -> None:
    random = Random(0)
    drawn = Ranker(digits, latency=Times()).figures([digits.sample(random) for _ in range(200)])
    assert (drawn.excess(limits) > 0).mean() > 0.6  # most random networks do not
    study = started(digits, 1, limits=limits, ranker=Ranker(digits, latency=Times()))
    run(study, digits, 14)
    found = networks_of(study, digits)
    for network in found:
        assert all(values_of(network, (name,))[0] <= limit for name, limit in limits.items())
    assert len({network.digest for network in found}) == 14


def test_the_first_trials_cover_the_costs(digits: Space) -> None:
    study = started(digits, 2)
    run(study, digits, QUICK.startup)
    macs = [trial.values[1] for trial in study.trials]
    assert macs[0] > 0.8 * max(macs) and macs[1] < 0.2 * max(macs)
    assert len(set(np.digitize(macs, np.linspace(min(macs), max(macs), 4)[1:-1]))) == 3


def test_the_same_seed_proposes_the_same(digits: Space) -> None:
    def numbers(seed: int) -> list[str]:
        study = started(digits, seed)
        run(study, digits, 14)
        return [network.digest for network in networks_of(study, digits)]

    assert numbers(3) == numbers(3) != numbers(4)


def test_a_search_taken_up_again_goes_on_as_it_would_have(digits: Space) -> None:
    whole = started(digits, 5)
    run(whole, digits, 16)
    for killed in (3, 11):
        part = started(digits, 5)
        run(part, digits, killed)
        suggest(part.ask(), digits)  # the trial at hand when the process was killed
        part.tell(killed, state=TrialState.FAIL)
        again = started(digits, 5)  # another process: nothing is left but the trials
        again.add_trials(part.trials)
        run(again, digits, 16 - killed)
        assert [n.digest for n in networks_of(again, digits)] == [n.digest for n in networks_of(whole, digits)]


def test_networks_at_hand_are_not_proposed_to_others(digits: Space) -> None:
    study = started(digits, 6)
    run(study, digits, QUICK.startup)
    asked = [study.ask() for _ in range(4)]
    found = [suggest(trial, digits) for trial in asked]
    assert len({network.digest for network in [*found, *networks_of(study, digits)]}) == QUICK.startup + 4
    for trial, network in zip(asked, found, strict=True):
        study.tell(trial, values_of(network, BOTH))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        blind = [study.ask() for _ in range(2)]  # of which nothing is known yet
    assert suggest(blind[0], digits) != suggest(blind[1], digits)


def test_a_queued_network_is_what_the_trial_gets(digits: Space) -> None:
    study, wanted = started(digits, 7), digits.sample(Random(9))
    params, _ = params_of(wanted, digits)
    study.enqueue_trial(params)
    first = next(iter(params))
    study.enqueue_trial({first: params[first]})  # the rest is left open
    trial = study.ask()
    assert suggest(trial, digits) == wanted
    study.tell(trial, values_of(wanted, BOTH))
    trial = study.ask()
    assert suggest(trial, digits) in digits and trial.params[first] == params[first]


@pytest.mark.parametrize(
    ("objectives", "directions"),
    [
        (("accuracy",), ["maximize"]),
        (("macs", "accuracy"), ["minimize", "minimize"]),
        (("accuracy", "latency_ms", "params"), ["maximize", "minimize", "minimize"]),
    ],
)
def test_one_to_three_objectives_in_any_order(
    digits: Space, objectives: tuple[str, ...], directions: list[str]
) -> None:
    sign = 1.0 if directions[objectives.index("accuracy")] == "maximize" else -1.0
    ranker = Ranker(digits, latency=Times())
    study = started(digits, 8, objectives, directions=directions, ranker=ranker)
    run(study, digits, 24, objectives, accuracy=lambda network: sign * liked(network))
    accuracies = np.array([sign * trial.values[objectives.index("accuracy")] for trial in study.trials])
    assert accuracies[QUICK.startup :].max() > accuracies[: QUICK.startup].max()


def test_networks_that_cannot_be_judged_become_rare(digits: Space) -> None:
    def breaks(network: Architecture) -> bool:  # as on a device without memory for windows
        return any(block.mixer.name == "window" for block in network.blocks)

    study, broken = started(digits, 9), []
    for _ in range(50):
        trial = study.ask()
        network = suggest(trial, digits)
        broken.append(breaks(network))
        trial.set_constraint("failed", float(broken[-1]))
        study.tell(trial, [0.0 if broken[-1] else liked(network), float(COSTS.cost(network).macs)])
    assert any(broken[:20]) and sum(broken[30:]) < sum(broken[:20])
    alike = started(digits, 9)  # a search to which the same networks are merely good finds more of them
    run(alike, digits, 50)
    windows = [breaks(network) for network in networks_of(alike, digits)]
    assert sum(windows[30:]) > sum(broken[30:])


def test_values_that_are_not_known_are_not_learned_from(digits: Space) -> None:
    """A network over a limit has a stand-in for its accuracy: whatever that is, proposals are the same."""

    def digests(stand_in: float) -> list[str]:
        study = started(digits, 10, limits={"macs": 8e6})
        random = Random(1)
        for _ in range(5):
            network = digits.sample(random)
            params, distributions = params_of(network, digits)
            over = COSTS.cost(network).macs / 8e6 - 1
            values = [liked(network) if over <= 0 else stand_in, float(COSTS.cost(network).macs)]
            told = dict(params=params, distributions=dict(distributions), constraints={"macs": over})
            study.add_trial(optuna.trial.create_trial(values=values, **told))
        run(study, digits, 6)
        return [network.digest for network in networks_of(study, digits)]

    assert digests(0.0) == digests(1e6)


def test_it_finds_more_than_chance(digits: Space) -> None:
    def volume(study: Study) -> float:
        run(study, digits, 36)
        return anytime([trial.values for trial in study.trials], ["maximize", "minimize"], (10.0, 3e7))[-1]

    def by_chance(seed: int) -> Study:
        return optuna.create_study(directions=["maximize", "minimize"], sampler=RandomSampler(seed=seed))

    seeds = range(3)
    assert sum(volume(started(digits, seed)) for seed in seeds) > sum(volume(by_chance(seed)) for seed in seeds)


def test_bad_objectives(digits: Space) -> None:
    for objectives in (("macs", "params"), ("accuracy", "loss"), ("accuracy", "macs", "params", "memory_mb"), ()):
        with pytest.raises(InputError, match="one objective that is learned"):
            EvolutionSampler(digits, Ranker(digits), 0, objectives=objectives)
    with pytest.raises(InputError, match="without latency"):
        EvolutionSampler(digits, Ranker(digits), 0, objectives=("accuracy",), limits={"latency_ms": 1.0})


def test_optimize_runs_it(small: Space) -> None:
    study = started(small, 11)

    def evaluate(trial: Trial) -> tuple[float, ...]:
        return tuple(values_of(suggest(trial, small), BOTH))

    study.optimize(evaluate, n_trials=8)
    assert len({network.digest for network in networks_of(study, small)}) == 8
