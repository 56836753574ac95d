"""The door nas.search: from one command to a front in files, and one message for whatever cannot be done."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.core.runs import open_run, read_json
from nas.core.space import Space
from nas.model.reference import named_network
from nas.model.spaces import load_named_space, shared_rules
from nas.search import main
from nas.searching import commands
from nas.train import main as train
from nas.training.evaluating import evaluate
from nas.training.start import open_for, trained
from tests.doors import refused

QUICK = ["--space", "digits", "--trials", "14", "--set", "front=2"]
FORMULAS = [*QUICK, "--accuracy", "depth_width", "--set", "objectives=[accuracy,macs]", "--target", "gpu"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder runs/ of a finished search named `one`."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        assert main([*FORMULAS, "--name", "one"]) == 0
    return folder / "runs"


@pytest.fixture(autouse=True)
def elsewhere(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, and no pictures, which take longer than these searches: `finished` has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "report", lambda finished: None)
    return tmp_path


@pytest.fixture
def one(finished: Path, elsewhere: Path) -> Path:
    """A copy of the finished search, runs/one here."""
    shutil.copytree(finished, "runs")
    return Path("runs/one")


def front_of(name: str) -> list[dict[str, str]]:
    with open(f"runs/{name}/front.csv", newline="") as file:
        return list(csv.DictReader(file))


def rows_of(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(f"runs/{name}/trials.json")["rows"]
    return rows


def test_a_search_ends_with_a_front_that_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--target", "cpu:eager", "--budget", "30MMACs", "--name", "one", "--set", "front=1"]) == 0
    shown = capsys.readouterr().out
    front = front_of("one")
    assert len(front) == 1
    space = load_named_space("digits")
    for row in front:
        assert named_network(f"runs/one/{row['file']}") in space
        assert float(row["macs"]) <= 30e6 and float(row["accuracy_sigma"]) > 0 and row["estimator"] == "prior"
        assert float(row["measured_low"]) <= float(row["measured_ms"]) <= float(row["measured_high"])
        assert f"{float(row['measured_ms']):.2f}" in shown and row["file"] in shown
    assert open_run("runs/one").config["budget"] == "30MMACs"
    assert len(rows_of("one")) == 14
    assert "30 MMACs" in shown and "table" in shown, "the budget in words, and where latencies come from"
    assert "python -m nas.export runs/one --pick N --to onnx" in shown


def test_a_search_writes_its_picture_and_its_report(one: Path) -> None:
    assert all(row["digest"][:10] in (one / "report/report.html").read_text() for row in front_of("one"))
    assert (one / "report/pareto.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_front(one: Path) -> None:
    assert main([*FORMULAS, "--seed", "0", "--name", "two"]) == 0
    assert front_of("one") == front_of("two")


def test_a_device_that_is_not_here_is_estimated_and_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    """No GPU and no table of one: that is told with every figure, and nothing is refused."""
    assert main([*QUICK, "--trials", "8", "--target", "gpu", "--name", "one"]) == 0
    shown = capsys.readouterr().out
    assert "estimated, not measured" in shown and "not in this machine" in shown
    assert front_of("one")[0]["measured_ms"] == ""


def test_a_finished_search_answers_other_budgets(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of("one")
    limit = sorted(row["macs"] for row in rows)[len(rows) // 2]
    assert main(["--from-table", "runs/one", "--budget", f"{limit}MACs"]) == 0
    best = max((row for row in rows if row["macs"] <= limit), key=lambda row: row["accuracy"])
    shown = capsys.readouterr().out
    assert f"trial {best['trial']}," in shown and json.loads(shown.splitlines()[-1]) == best["architecture"]
    assert f"python -m nas.export runs/one --pick {best['digest'][:12]} --to onnx" in shown
    refused(main, ["--from-table", "runs/one", "--budget", "1MACs"])
    assert "no network of the run keeps this budget" in capsys.readouterr().err


def test_a_search_goes_on(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FORMULAS, "--name", "parts", "--trials", "9"]) == 0
    assert main(["--name", "parts", "--resume", "--trials", "14"]) == 0
    assert [row["digest"] for row in rows_of("one")] == [row["digest"] for row in rows_of("parts")]
    refused(main, ["--name", "parts", "--resume", "--seed", "5"])
    assert "seed: 0 -> 5" in capsys.readouterr().err


# -- what cannot be done ----------------------------------------------------------------------------------------------


def told_once(capsys: pytest.CaptureFixture[str], message: str) -> None:
    told = capsys.readouterr().err
    lines = [line for line in told.strip().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0] and "Traceback" not in told, told


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--budget", "1kMACs"], "no network of the space keeps this limit: the smallest has"),
        (["--budget", "0 MACs"], "a budget is above zero"),
        (["--budget", "2 bananas"], "bananas"),
        (["--target", "tpu"], "tpu"),
        (["--target", "cuda:99"], "no table"),
        (["--accuracy", "oracle"], "unknown accuracy estimator"),
        (["--space", "digitz"], "nearest: digits"),
        (["--set", "trails=5"], "nearest: trials"),
        (["--set", "objectives=[accuracy,accuracy]"], "named once"),
        (["--set", "ladder=[{accuracy: oracle}]"], "unknown accuracy estimator"),
        (["--set", "ladder=[{accuracy: supernet}]"], "give its folder"),
        (["--set", "launcher=slurm"], "jobs on several machines share a database"),
        (["--accuracy", "supernet"], "give its folder"),
        (["--resume"], "--name"),
        (["--name", "none", "--resume"], "no such run"),
        (["--storage", "sqlite:///there/is/no/folder/x.db", "--name", "one"], "folder"),
        (["--from-table", "runs/none", "--budget", "1GMACs"], "no such run"),
        (["--from-table", "runs/none"], "give a budget"),
    ],
)
def test_what_cannot_be_done_is_one_message(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(main, [*FORMULAS, *given])
    told_once(capsys, message)


def test_the_name_of_a_search_that_never_began_is_free(capsys: pytest.CaptureFixture[str]) -> None:
    refused(main, [*FORMULAS, "--budget", "1kMACs", "--name", "one"])
    told_once(capsys, "the smallest has")
    assert not Path("runs/one").exists()


def test_a_folder_that_cannot_be_written(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "runs").write_text("a file")
    refused(main, [*FORMULAS, "--name", "one"])
    told_once(capsys, "cannot be made")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def of_another_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as study, study:
        study.execute("update alembic_version set version_num = 'v9.0.0'")


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("study.db", cut, "study.db"),
        ("study.db", of_another_version, "another version of Optuna"),
        ("run.json", cut, "damaged or was altered"),
    ],
)
def test_a_damaged_run_is_one_message(
    one: Path, file: str, damage: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (one / "trials.json").read_bytes()
    damage(one / file)
    refused(main, ["--name", "one", "--resume", "--trials", "30"])
    told_once(capsys, message)
    assert (one / "trials.json").read_bytes() == before


def test_a_full_disk_is_one_message_and_the_search_goes_on_later(
    one: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full when the front is to be written; the study's own file: tests/searching/test_workers.py."""
    expected, write = front_of("one"), os.write

    def full(file: int, data: Any) -> int:
        if b'"notices"' in bytes(data[:2000]):  # trials.json
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        refused(main, ["--name", "one", "--resume"])
    told_once(capsys, "trials.json: the file cannot be written (No space left on device)")
    assert main(["--name", "one", "--resume"]) == 0
    assert front_of("one") == expected


# -- trained weights --------------------------------------------------------------------------------------------------

SPACE = """
input: 16
channels: 1
classes: 10
stages:
  - {embed: patch(size=8), dim: [8, 16], blocks: [{mixer: [depthwise, additive], feedforward: "mlp(ratio=[1, 2])"}]}
head: mean
"""


def test_a_ladder_from_formulas_over_inherited_weights_to_short_training(capsys: pytest.CaptureFixture[str]) -> None:
    """Inherited from a supernet: the accuracy of the network taken out of it. Then after training it further."""
    Path("little.yaml").write_text(SPACE)
    told = ["--steps", "3", "--set", "batch=8", "--set", "size=16", "--set", "calibration=8", "--name", "supernet"]
    assert train(["--space", "little.yaml", *told]) == 0
    searched = ["--set", "run=runs/supernet", "--set", "objectives=[accuracy,macs]", "--target", "gpu"]
    rungs = "ladder=[{accuracy: supernet, keep: 4}, {accuracy: short_training, steps: 2, keep: 2}]"
    formulas = ["--accuracy", "depth_width", "--trials", "8", "--name", "one"]
    capsys.readouterr()
    assert main([*searched, *formulas, "--set", rungs]) == 0
    shown = capsys.readouterr().out
    rows, giver = rows_of("one"), trained("runs/supernet")
    assert Counter(len(row["rungs"]) for row in rows) == {1: 4, 2: 2, 3: 2}
    for row in rows:
        if "supernet" in row["rungs"]:
            network = giver.supernet.extract(Space.parse(row["architecture"], shared_rules()).only())
            own = evaluate(network, open_for(giver.config), "search")
            assert row["rungs"]["supernet"] == pytest.approx(100 * own.accuracy)
        assert row["accuracy"] == row["rungs"].get("short_training:2")
    front = front_of("one")
    assert {row["estimator"] for row in front} == {"short_training:2"}
    assert "accuracy (short_training:2, top-1 %)" in shown and "by supernet" in shown
    assert "networks judged: 8 by depth_width, 4 by supernet, 2 by short_training:2" in shown

    kept = {path: path.stat().st_mtime_ns for path in Path("runs/one/ladder").iterdir()}
    assert main(["--name", "one", "--resume"]) == 0 and front_of("one") == front
    assert {path: path.stat().st_mtime_ns for path in Path("runs/one/ladder").iterdir()} == kept and len(kept) == 2
