"""The ladder: who is promoted, what is kept, and that the right networks are found for a few dear judgements."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nas.core.architecture import Architecture
from nas.core.data import data_folder
from nas.core.errors import InputError
from nas.core.runs import read_json
from nas.core.space import Space
from nas.model.costs import Costs
from nas.model.spaces import shared_rules
from nas.reporting.finished import Row
from nas.reporting.pareto import hypervolume
from nas.searching import ladder
from nas.searching.config import Rung, load_config
from nas.searching.front import evenly, members
from nas.searching.ladder import Climbed, Judging, climb, promoted
from tests.forked import ranks
from tests.searching.fakes import ROOT, Figure, networks, score

OBJECTIVES = ["accuracy", "macs"]
RUNGS = [Rung(accuracy="middle", keep=9), Rung(accuracy="dear", keep=4)]


def row_of(network: Architecture, accuracy: float | None, macs: float = 1.0) -> Row:
    """A row of a search, as nas.reporting.finished has it."""
    return {
        **{"digest": network.digest, "architecture": network.to_dict(), "reason": None, "feasible": True},
        **{"excess": {}, "accuracy": accuracy, "accuracy_sigma": 1.0, "macs": macs},
    }


def rows_of(count: int = 30) -> list[Row]:
    return [row_of(network, len(network.blocks), Costs().cost(network).macs) for network in networks()[:count]]


class Judge:
    """What the rungs of a test say, and which networks each was asked for."""

    def __init__(self, figure: Callable[[str, Architecture], float]):
        self._figure = figure
        self.asked: list[tuple[str, str]] = []

    @contextmanager
    def make(self, rung: Rung) -> Iterator[Any]:
        judge = self

        class At:
            def estimate(self, architecture: Architecture) -> Figure:
                judge.asked.append((rung.name, architecture.digest))
                return Figure(judge._figure(rung.name, architecture), 0.5)

        yield At()

    @property
    def judging(self) -> Judging:
        return Judging(self.make, lambda rung: {"rung": rung.name})


def climbed(rows: Sequence[Row], folder: Path, judge: Judge, rungs: Sequence[Rung] = RUNGS) -> Climbed:
    folder.mkdir(exist_ok=True)
    return climb(rows, OBJECTIVES, "cheap", rungs, folder, judge.judging)


def usual(name: str, architecture: Architecture) -> float:
    return score(architecture) + (10.0 if name == "dear" else 0.0)


def ranked(rows: Sequence[Row]) -> list[list[Row]]:
    """Ranks by definition: nobody of a rank is better in one and as good in all than who is left."""
    left, levels = list(rows), []
    while left:
        levels.append([one for one in left if not any(beats(two, one) for two in left)])
        left = [row for row in left if row not in levels[-1]]
    return levels


def beats(two: Row, one: Row) -> bool:
    pairs = [(row["accuracy"], -row["macs"]) for row in (two, one)]
    return pairs[0] != pairs[1] and all(a >= b for a, b in zip(*pairs, strict=True))


@pytest.mark.parametrize("most", [1, 2, 7, 20, 200])
def test_networks_are_promoted_by_rank_and_evenly_along_the_last(most: int) -> None:
    chance = Random(most)
    rows = [row_of(network, chance.randint(0, 9), chance.randint(0, 9)) for network in networks()[:60]]
    chosen = promoted(rows, OBJECTIVES, most)
    assert len(chosen) == min(most, 60) and len({row["digest"] for row in chosen}) == len(chosen)
    for level in ranked(rows):
        inside = [row for row in chosen if row in level]
        if len(inside) < len(level):  # the last: its ends, and nobody of the ranks below
            macs = [row["macs"] for row in level]
            if len(inside) > 1:
                assert {min(macs), max(macs)} <= {row["macs"] for row in inside}
            assert len([row for row in chosen if row not in level]) + len(inside) == len(chosen) == most
            break


def test_what_is_taken_of_a_list_lies_evenly_along_it() -> None:
    assert [evenly(range(9), most) for most in (0, 1, 3)] == [[], [4], [0, 4, 8]] and evenly("ab", 3) == ["a", "b"]


def test_figures_of_two_rungs_are_never_in_one_front(tmp_path: Path) -> None:
    found = climbed(rows_of(), tmp_path, Judge(usual))
    by = {row["digest"]: network for row, network in zip(found.rows, networks(), strict=False)}
    judged = [row for row in found.rows if row["accuracy"] is not None]
    assert len(judged) == 4 and found.signal is None
    assert found.told == "networks judged: 30 by cheap, 9 by middle, 4 by dear"
    for row in found.rows:
        network = by[row["digest"]]
        expected = {"cheap": float(len(network.blocks)), "middle": score(network), "dear": score(network) + 10}
        assert row["rungs"] == {name: expected[name] for name in row["rungs"]}
        last = "dear" in row["rungs"]
        assert (row["accuracy"], row["accuracy_sigma"]) == ((expected["dear"], 0.5) if last else (None, None))
    assert {row["digest"] for row in members(found.rows, OBJECTIVES, 16)} <= {row["digest"] for row in judged}


def test_networks_over_a_limit_or_without_a_figure_are_not_promoted(tmp_path: Path) -> None:
    rows = rows_of(6)
    rows[0]["excess"], rows[1]["accuracy"] = {"macs": 0.1}, None
    judge = Judge(usual)
    found = climbed(rows, tmp_path, judge, [Rung(accuracy="dear", keep=10)])
    assert {digest for _, digest in judge.asked} == {row["digest"] for row in rows[2:]}
    assert found.rows[1]["rungs"] == {} and found.rows[0]["accuracy"] is None


def test_a_rung_judges_a_third_where_nothing_is_told(tmp_path: Path) -> None:
    found = climbed(rows_of(20), tmp_path, Judge(usual), [Rung(accuracy="middle"), Rung(accuracy="dear")])
    assert found.told == "networks judged: 20 by cheap, 7 by middle, 3 by dear"


def test_a_network_that_cannot_be_judged_has_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    tried: list[str] = []

    def failing(name: str, architecture: Architecture) -> float:
        tried.append(architecture.digest)
        if len(tried) == 2:
            raise MemoryError("too large")
        return float("nan") if len(tried) == 3 else usual(name, architecture)

    found = climbed(rows_of(), tmp_path, Judge(failing))
    lost = {row["digest"]: row for row in found.rows if row["reason"]}
    assert [lost[digest]["reason"] for digest in tried[1:3]] == [
        "middle: out of memory: too large",
        "middle: not finite: the estimate is nan",
    ]
    assert all(not row["feasible"] and row["accuracy"] is None for row in lost.values()) and len(lost) == 2
    assert sum(row["accuracy"] is not None for row in found.rows) == 4
    none = climbed(rows_of(), tmp_path / "x", Judge(lambda name, network: float("inf")))
    assert all(row["accuracy"] is None for row in none.rows) and none.told.endswith("0 by dear")


class Killed(BaseException):
    """As kill -9, for all that the folder sees."""


@pytest.mark.parametrize("at", [1, 5, 10])
def test_a_ladder_that_is_killed_goes_on_where_it_was(tmp_path: Path, at: int) -> None:
    """In the first network, within a rung, and at the first of the next rung."""
    rows, whole = rows_of(), Judge(usual)
    expected = climbed(rows, tmp_path / "whole", whole)

    def deadly(name: str, architecture: Architecture) -> float:
        if len(first.asked) == at:
            raise Killed
        return usual(name, architecture)

    first, second = Judge(deadly), Judge(usual)
    with pytest.raises(Killed):
        climbed(rows, tmp_path / "parts", first)
    again = climbed(rows, tmp_path / "parts", second)
    assert again == expected
    assert first.asked[:-1] + second.asked == whole.asked, "nothing is judged twice"
    third = Judge(usual)
    assert climbed(rows, tmp_path / "parts", third) == expected and not third.asked


SLOW = """
import sys, time
from pathlib import Path
from tests.searching.test_ladder import Judge, climbed, rows_of, usual

def slow(name, network):
    time.sleep(0.1)
    return usual(name, network)

climbed(rows_of(), Path(sys.argv[1]), Judge(slow))
"""


def test_a_process_that_is_killed_loses_nothing_that_it_has_judged(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path / "one")], cwd=ROOT, stderr=subprocess.DEVNULL)
    kept: dict[str, Any] = {}
    while len(kept) < 3:
        assert process.poll() is None
        time.sleep(0.02)
        for path in tmp_path.glob("one/ladder/*.json"):
            kept = read_json(path)["networks"]
    process.kill()
    process.wait()
    judge, whole = Judge(usual), Judge(usual)
    assert climbed(rows_of(), tmp_path / "one", judge) == climbed(rows_of(), tmp_path / "two", whole)
    assert not {digest for name, digest in judge.asked if name == "middle"} & kept.keys()


def test_a_signal_ends_a_ladder_and_it_goes_on(tmp_path: Path) -> None:
    ranks(1, tmp_path, _ended_by_a_signal, tmp_path)  # a process of its own, which takes its signals itself


def _ended_by_a_signal(folder: Path) -> None:
    def slow(name: str, architecture: Architecture) -> float:
        if len(judge.asked) == 3:
            signal.raise_signal(signal.SIGTERM)
        return usual(name, architecture)

    judge, again = Judge(slow), Judge(usual)
    assert climbed(rows_of(), folder, judge).signal == signal.SIGTERM
    assert climbed(rows_of(), folder, again).signal is None
    assert judge.asked[:2] + again.asked[:1] == judge.asked, "the one at hand is judged again, those before are not"


def test_figures_are_kept_under_what_they_depend_on(tmp_path: Path) -> None:
    rung = Rung(accuracy="dear", keep=2)
    ladder.Kept(tmp_path, rung, {"steps": 1}).put("ab", {"value": 1.0, "sigma": None})
    assert ladder.Kept(tmp_path, rung, {"steps": 2}).get("ab") is None
    assert ladder.Kept(tmp_path, rung, {"steps": 1}).get("ab") == {"value": 1.0, "sigma": None}
    (path,) = (tmp_path / "ladder").iterdir()
    assert read_json(path)["of"] == {"steps": 1}
    path.write_text(path.read_text().replace("1.0", "2.0"))
    with pytest.raises(InputError, match="damaged or was altered"):
        ladder.Kept(tmp_path, rung, {"steps": 1})


def test_a_search_that_came_to_its_end_is_not_gone_on_with_before_its_ladder(tmp_path: Path) -> None:
    config = load_config(None, ["trials=5", "minutes=2"])
    assert ladder.begun(tmp_path, config) is None
    ladder.note_begin(tmp_path, config, "time")
    assert ladder.begun(tmp_path, config) == "time"
    assert ladder.begun(tmp_path, load_config(None, ["trials=6", "minutes=2"])) is None, "it is to search longer"
    ladder.note_end(tmp_path)
    assert ladder.begun(tmp_path, config) is None


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["ladder=[{accuracy: prior}]"], "each rung has another estimator"),
        (["ladder=[{accuracy: naswot}, {accuracy: naswot}]"], "each rung has another estimator"),
        (["ladder=[{accuracy: naswot}]", "objectives=[macs, params]"], "a ladder judges accuracy"),
        (["ladder=[{accuracy: naswot, kept: 3}]"], "unknown key"),
        (["ladder=[{accuracy: naswot, keep: 0}]"], "greater than 0"),
    ],
)
def test_ladders_that_are_none_are_refused(told: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(None, ["trials=5", *told])
    steps = "ladder=[{accuracy: short_training, steps: 9}, {accuracy: short_training, steps: 99}]"
    config = load_config(None, ["trials=5", steps])
    assert [rung.name for rung in config.ladder] == ["short_training:9", "short_training:99"]


def test_a_ladder_finds_the_front_of_a_known_table(tmp_path: Path) -> None:
    """Every sixth network of a table with accuracies that were measured: two noisy figures, then 24 true ones."""
    with open(data_folder("search_spaces") / "truth" / "digits_small.csv", newline="") as file:
        lines = list(csv.DictReader(file))[::6]
    documents = {line["digest"]: json.loads(line["architecture"]) for line in lines}
    true = {line["digest"]: float(line["inherited"]) for line in lines}
    known = [Space.parse(document, shared_rules()).only() for document in documents.values()]
    macs = {network.digest: float(Costs().cost(network).macs) for network in known}

    def noisy(name: str, digest: str) -> float:
        return true[digest] + Random(f"{name} {digest}").gauss(0, {"cheap": 6.0, "middle": 2.0, "dear": 0.0}[name])

    def covered(digests: Sequence[str]) -> float:
        points = [[true[digest], macs[digest]] for digest in digests]
        return hypervolume(points, ["maximize", "minimize"], (min(true.values()), max(macs.values())))

    rows = [row_of(network, noisy("cheap", network.digest), macs[network.digest]) for network in known]
    rungs = [Rung(accuracy="middle", keep=96), Rung(accuracy="dear", keep=24)]
    found = climbed(rows, tmp_path, Judge(lambda name, network: noisy(name, network.digest)), rungs)
    best = [row["digest"] for row in members(found.rows, OBJECTIVES, 24)]
    straight = covered([row["digest"] for row in promoted(rows, OBJECTIVES, 24)])
    chance = covered(Random(0).sample(list(true), 24))
    whole = covered(list(true))
    assert whole - covered(best) < min(0.02 * whole, 0.7 * (whole - straight), 0.1 * (whole - chance))
