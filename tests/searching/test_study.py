"""Studies: what is proposed, and proposed again after a kill; what is refused, and how."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, get_args

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from nas.core.errors import InputError
from nas.core.space import Space
from nas.core.units import Budget
from nas.model.costs import Costs
from nas.model.spaces import shared_rules
from nas.searching.config import ObjectiveName, load_config
from nas.searching.objective import DIRECTIONS, Objective
from nas.searching.proposing import Proposer
from nas.searching.results import is_feasible, results_of
from nas.searching.run import run_search
from nas.searching.samplers import SAMPLERS, sampler, seed_of
from nas.searching.storage import masked, sqlite_file, storage_url
from nas.searching.study import open_study
from nas.searching.workers import Dead
from tests.searching.fakes import (
    DOCUMENT,
    NAMES,
    ROOT,
    Board,
    Figure,
    Score,
    facts,
    genomes,
    in_memory,
    making,
    networks,
    opened,
    small,
    worker,
)

TRIALS = 18  # three generations of six; evolution has two after its start
SEEDED = ["nsga2", "nsga3", "tpe", "evolution"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return storage_url(None, tmp_path)


def study_of(url: str, name: str = "study") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=url)


def table_of(study: optuna.Study) -> list[dict[str, Any]]:
    """The results without the numbers of trials, which a kill moves on."""
    rows = results_of(study, small(), NAMES)
    return [{key: value for key, value in row.items() if key != "trial"} for row in rows]


class Killed(BaseException):
    """Ends an evaluation as kill -9 does, for all that the storage sees: the trial stays running."""


class Deadly(Score):
    """Kills at the n-th network."""

    def __init__(self, at: int):
        super().__init__()
        self._at = at

    def estimate(self, architecture: Any) -> Figure:
        figure = super().estimate(architecture)
        if len(self.seen) == self._at:
            raise Killed
        return figure


# -- proposals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*SEEDED, "random", "gp"])
def test_the_same_seed_gives_the_same_trials_and_another_seed_others(kind: str) -> None:
    one, same, other = (table_of(in_memory(kind, TRIALS, seed=seed)) for seed in (0, 0, 1))
    assert one == same
    assert len({row["digest"] for row in one}) == TRIALS
    assert {row["digest"] for row in one} != {row["digest"] for row in other}


@pytest.mark.parametrize("kind", SEEDED)
def test_a_search_that_is_killed_at_any_trial_and_taken_up_gives_the_same_trials(url: str, kind: str) -> None:
    """In the first trial, next to the ends of generations, and within one."""
    kills = (1, 2, 6, 3)
    for number, at in enumerate(kills):
        with pytest.raises(Killed):
            worker(url, Deadly(at), TRIALS, kind=kind, mode="resume" if number else "new").work()
    assert worker(url, Score(), TRIALS, kind=kind, mode="resume").work() == "trials"
    assert table_of(study_of(url)) == table_of(in_memory(kind, TRIALS))
    states = Counter(trial.state for trial in study_of(url).trials)
    assert states == {TrialState.COMPLETE: TRIALS, TrialState.FAIL: len(kills)}


@pytest.mark.parametrize("kind", ["nsga2", "nsga3", "tpe"])
def test_samplers_learn_what_keeps_the_limits(kind: str) -> None:
    """Against drawing at random, where a quarter of the networks keep the limit."""
    macs = sorted(Costs().cost(network).macs for network in networks())
    shares = {}
    for name in (kind, "random"):
        last = in_memory(name, 80, budget=Budget(macs=macs[len(macs) // 4])).trials[40:]
        shares[name] = sum(is_feasible(trial) for trial in last) / len(last)
    assert shares[kind] > shares["random"] + 0.15, shares


class Forgetful(Score):
    """Has no memory for networks of three blocks."""

    def estimate(self, architecture: Any) -> Figure:
        if len(architecture.blocks) == 3:
            raise MemoryError("too large")
        return super().estimate(architecture)


@pytest.mark.parametrize("kind", ["nsga2", "tpe"])
def test_the_share_of_networks_that_cannot_be_judged_falls(kind: str) -> None:
    """Against drawing at random, and although those networks would have the best figures."""
    shares = {}
    for name in (kind, "random"):
        last = in_memory(name, 80, accuracy=Forgetful()).trials[40:]
        shares[name] = sum("reason" in trial.user_attrs for trial in last) / len(last)
    assert shares[kind] < 0.6 * shares["random"], shares


def test_children_inherit_parameters_that_only_some_networks_have() -> None:
    """Of a parent in each layout; Optuna's own NSGA-II would draw all but the layout at random."""
    plain = next(network for network in networks() if len(network.blocks) == 3)
    pyramid = next(network for network in networks() if len(network.stages) == 2)
    objective = Objective(small(), NAMES, Budget(), Score())
    study = optuna.create_study(directions=objective.directions)
    for network in (plain, pyramid) * 3:
        params, distributions = genomes()[network]
        told, noted = {"digest": network.digest}, {"NSGAIISampler:generation": 0}
        study.add_trial(
            optuna.create_trial(
                values=[1.0, 1.0], params=params, distributions=distributions, user_attrs=told, system_attrs=noted
            )
        )
    changed = {}
    for kind in ("nsga2", "random"):
        counts = []
        for seed in range(40):
            proposer = Proposer(study, objective, making(kind, objective), seed)
            proposer.refresh()
            params, _ = genomes()[proposer.next()[0]]
            if params["layout"] == "plain":
                counts.append(sum(params.get(name) != value for name, value in genomes()[plain][0].items()))
        assert len(counts) > 10 and min(counts) > 0
        changed[kind] = sum(counts) / len(counts)
    assert changed["nsga2"] < 0.65 * changed["random"], changed


def test_nothing_is_evaluated_twice_and_a_space_comes_to_its_end() -> None:
    tiny = {**DOCUMENT, "layouts": {"pyramid": DOCUMENT["layouts"]["pyramid"]}}
    space = Space.parse(tiny, shared_rules(), "tiny")
    accuracy = Score()
    in_memory("nsga2", 10 * space.size, accuracy=accuracy, space=space)
    assert len(accuracy.seen) == len(set(accuracy.seen)) == space.size == 18


def test_given_networks_are_evaluated_first_and_belong_to_the_first_generation(url: str) -> None:
    given = [networks()[5], networks()[77], networks()[5]]
    one = worker(url, Score(), 8)
    one.worker._proposer.start_from(given)
    one.work()
    rows = results_of(study_of(url), small(), NAMES)
    assert [row["origin"] for row in rows] == ["start", "start", *["sampler"] * 6]
    assert [row["digest"] for row in rows[:2]] == [network.digest for network in given[:2]]
    generations = [trial.system_attrs.get("NSGAIISampler:generation") for trial in study_of(url).trials]
    assert generations == [0] * 6 + [1] * 2, "so that their children can be proposed"


def test_workers_propose_different_networks_at_the_same_time(url: str) -> None:
    proposals = []
    for number in range(4):
        one = worker(url, Score(), 8, mode="join", number=number, kind="random")
        one.worker._proposer.refresh()
        proposals.append(one.worker._proposer.next()[0].digest)
    assert len(set(proposals)) == 4


def test_seeds_depend_on_each_part() -> None:
    assert len({seed_of(0, 1), seed_of(1, 0), seed_of(0, 1, 0), seed_of(0, 2), seed_of(0, 12), seed_of(0, 1, 2)}) == 6
    assert seed_of(3, 4) == seed_of(3, 4) < 2**32


def test_a_study_can_be_read_without_this_program(url: str) -> None:
    """As optuna-dashboard does: plain names, attributes in JSON, the front of feasible trials."""
    worker(url, Score(), 8, budget=Budget(macs=10**6)).work()
    study = study_of(url)
    table = study.trials_dataframe()
    assert {"values_0", "values_1", "params_layout", "user_attrs_digest", "user_attrs_params"} <= set(table.columns)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert all(is_feasible(trial) for trial in study.best_trials)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"target": "gpu", "seed": 7}, "seed: 0 -> 7; target: 'cpu' -> 'gpu'"),
        ({"data": {"fingerprint": "ab"}}, "data: added"),
    ],
)
def test_a_study_of_another_search_is_not_taken_up(url: str, change: dict[str, Any], told: str) -> None:
    objective = Objective(small(), NAMES, Budget(), Score())
    opened(url, objective)
    opened(url, objective, "resume")
    with pytest.raises(InputError, match=f"the study was started with other facts: {told}"):
        opened(url, objective, "resume", **change)


def test_each_difference_is_named(url: str) -> None:
    objective = Objective(small(), NAMES, Budget(), Score())
    opened(url, objective)
    other = facts()
    other["space"] = {"sha256": "00", "document": {**DOCUMENT, "classes": 11}}
    other["versions"] = {**other["versions"], "optuna": "4.9"}
    with pytest.raises(InputError) as refusal:
        open_study(url, "study", ["maximize", "maximize"], other, Dead(objective), "resume")
    told = str(refusal.value.rule)
    for part in ("space.document.classes: 10 -> 11", "versions.optuna: ", "directions: ", "space.sha256"):
        assert part in told
    with pytest.raises(InputError) as refusal:
        open_study(url, "study", objective.directions, other, Dead(objective), "resume", allow=["space"])
    assert "space" not in refusal.value.rule and "versions.optuna" in refusal.value.rule


def test_new_and_resume_say_when_it_is_the_other(url: str) -> None:
    objective = Objective(small(), NAMES, Budget(), Score())
    with pytest.raises(InputError, match="no such study: 'study'"):
        opened(url, objective, "resume")
    opened(url, objective)
    with pytest.raises(InputError, match="a study of this name exists: choose another name, or resume: 'study'"):
        opened(url, objective)
    with pytest.raises(InputError, match=r"no such study: 'studi' \(nearest: study\)"):
        opened(url, objective, "resume", name="studi")
    assert not opened(url, objective, "join").made


def test_a_study_of_another_program_is_refused(url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("nas.searching.study.SETTLED_S", 0.0)
    optuna.create_study(study_name="study", storage=url, directions=["maximize", "minimize"])
    with pytest.raises(InputError, match="the study was not made by this program"):
        opened(url, Objective(small(), NAMES, Budget(), Score()), "resume")


@pytest.mark.parametrize("damage", ["text", "cut", "version", "attribute"])
def test_a_damaged_study_and_one_of_another_version_are_one_message(url: str, damage: str) -> None:
    objective = Objective(small(), NAMES, Budget(), Score())
    opened(url, objective)
    file = sqlite_file(url)
    assert file is not None
    if damage == "text":
        file.write_text("this is no database, though it is rather long\n" * 100)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    else:
        with sqlalchemy.create_engine(url).begin() as connection:
            change = {
                "version": "update alembic_version set version_num = 'v9.0.0'",
                "attribute": "update study_user_attributes set value_json = '{\"half'",
            }
            connection.execute(sqlalchemy.text(change[damage]))
    with pytest.raises(InputError) as refusal:
        opened(url, objective, "resume")
    assert str(file) in str(refusal.value) and "\n" not in str(refusal.value)
    if damage == "version":
        assert "another version of Optuna" in str(refusal.value)


def test_places_where_no_study_can_be_are_one_message(tmp_path: Path) -> None:
    objective = Objective(small(), NAMES, Budget(), Score())
    for address, rule in (
        (f"sqlite:///{tmp_path}/missing/study.db", "the folder of the study's file does not exist"),
        ("sqlite:////proc/study.db", "refuses"),
        ("nonsense", "a storage is an address such as"),
        ("oracel://me:secret@host/name", "no such kind of storage"),
        ("postgresql://me:secret@127.0.0.1:1/name?connect_timeout=1", "refuses"),
    ):
        with pytest.raises(InputError, match=rule) as refusal:
            opened(address, objective)
        assert "secret" not in str(refusal.value)


def test_passwords_are_masked_and_folders_have_a_default(tmp_path: Path) -> None:
    assert masked("postgresql://me:secret@host/name") == "postgresql://me:***@host/name"
    assert masked("postgresql://host/name?password=secret&sslmode=require") == "postgresql://host/name?sslmode=require"
    assert "secret" not in masked("post gres://me:secret@host/name")
    assert storage_url(None, tmp_path) == f"sqlite:///{tmp_path}/study.db"
    assert storage_url("postgresql://host/name", tmp_path) == "postgresql://host/name"
    assert sqlite_file("sqlite://") is None and sqlite_file("postgresql://host/name") is None


def test_several_processes_may_make_the_same_study_at_once(url: str) -> None:
    code = (
        "import sys; from nas.searching.study import open_study;"
        "o = open_study(sys.argv[1], 'study', ['maximize', 'minimize'], {'a': 1}, lambda *_: None, 'join');"
        "print(o.made)"
    )
    command = [sys.executable, "-c", code, url]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = [process.communicate(timeout=100)[0].strip() for process in started]
    assert sorted(told) == ["False", "False", "False", "True"]
    assert study_of(url).user_attrs["search"] == {"a": 1}


# -- a whole search ---------------------------------------------------------------------------------------------------


def config_of(tmp_path: Path, **others: Any) -> Any:
    from nas.core.yamlfile import dump_yaml

    (tmp_path / "small.yaml").write_text(dump_yaml(DOCUMENT))
    return load_config(None, [], {"space": str(tmp_path / "small.yaml"), "population": 6, "sampler": "nsga2", **others})


def test_a_search_from_a_configuration(tmp_path: Path) -> None:
    from nas.core.space import write_architecture

    inside, outside = networks()[9], Space.parse({**DOCUMENT, "classes": 11}, shared_rules(), "o").sample(Random(0))
    for name, network in (("inside", inside), ("outside", outside)):
        (tmp_path / f"{name}.yaml").write_text(write_architecture(network))
    start = [str(tmp_path / "inside.yaml"), str(tmp_path / "outside.yaml")]
    config = config_of(tmp_path, trials=6, budget="1GMACs, 9 ms", accuracy="macs", start=start)
    told: list[int] = []
    found = run_search(config, tmp_path, latency=Board(), told=lambda known: told.append(known.finished))
    assert (found.end, found.signal, found.objectives) == ("trials", None, ["accuracy", "latency_ms"])
    assert found.directions == ["maximize", "minimize"] and told == [1, 2, 3, 4, 5, 6]
    assert found.notices == [f"start: {start[1]} is not in the space"]
    assert found.rows[0]["digest"] == inside.digest
    assert len(found.rows) == 6 and all(row["feasible"] and row["accuracy"] > 0 for row in found.rows)

    more = config_of(tmp_path, trials=8, budget="1GMACs, 9 ms", accuracy="macs", start=start)
    assert len(run_search(more, tmp_path, "resume", latency=Board()).rows) == 8
    other = config_of(tmp_path, trials=8, budget="2GMACs, 9 ms", accuracy="params")
    with pytest.raises(InputError, match=r"budget: '1 GMACs, 9 ms' -> '2 GMACs, 9 ms'; .*accuracy.name"):
        run_search(other, tmp_path, "resume", latency=Board())


def test_a_budget_that_no_network_keeps_is_refused_with_the_smallest(tmp_path: Path) -> None:
    config = config_of(tmp_path, trials=6, budget="1kMACs", objectives=["accuracy", "macs"], accuracy="macs")
    with pytest.raises(InputError, match=r"budget: no network of the space keeps this limit: the smallest has .* macs"):
        run_search(config, tmp_path)
    assert not (tmp_path / "study.db").exists()


def test_configurations_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a number of trials or a time"):
        load_config()
    with pytest.raises(InputError, match=r"unknown key: 'trails' \(nearest: trials"):
        load_config(None, ["trails=3"])
    with pytest.raises(InputError, match="each objective is named once"):
        load_config(None, ["trials=3", "objectives=[macs, macs]"])
    with pytest.raises(InputError, match="unknown unit"):
        load_config(None, ["trials=3"], {"budget": "3 parsecs"})
    with pytest.raises(InputError, match="--set population=1"):
        load_config(None, ["population=1", "trials=3"])
    (tmp_path / "a.yaml").write_text("trials: 5\nsampler: tpe\n")
    config = load_config(str(tmp_path / "a.yaml"), ["seed=3"], {"trials": 7, "budget": "2GFLOPs"})
    assert (config.trials, config.sampler, config.seed, config.limits) == (7, "tpe", 3, Budget(macs=2 * 10**9))


def test_names_agree() -> None:
    assert set(get_args(ObjectiveName)) == set(DIRECTIONS)
    with pytest.raises(InputError, match=r"unknown sampler: 'nsga' \(nearest: nsga2"):
        sampler("nsga", small())
    assert {*SEEDED, "random", "gp"} == set(SAMPLERS)
