"""The door nas.search: from one command to a front in files, and one message for whatever cannot be done."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from nas.core.runs import open_run, read_json
from nas.core.space import Space
from nas.model.reference import named_network
from nas.model.spaces import load_named_space, shared_rules
from nas.search import main
from nas.train import main as train
from nas.training.evaluating import evaluate
from nas.training.start import open_for, trained
from tests.doors import refused

QUICK = ["--space", "digits", "--trials", "24", "--set", "front=2"]
FORMULAS = [*QUICK, "--accuracy", "depth_width", "--set", "objectives=[accuracy,macs]"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(name: str) -> list[dict[str, str]]:
    with open(f"runs/{name}/front.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_search_ends_with_a_front_that_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--target", "cpu:eager", "--budget", "30MMACs", "--name", "one"]) == 0
    shown = capsys.readouterr().out
    rows = rows_of("one")
    assert 1 <= len(rows) <= 2
    space = load_named_space("digits")
    for row in rows:
        assert named_network(row["architecture"]) in space
        assert float(row["macs"]) <= 30e6 and float(row["accuracy_sigma"]) > 0
        assert float(row["measured_low"]) <= float(row["measured_ms"]) <= float(row["measured_high"])
        assert f"{float(row['measured_ms']):.2f}" in shown and row["architecture"] in shown
    assert Path("runs/one/front.png").read_bytes().startswith(b"\x89PNG")
    assert open_run("runs/one").config["budget"] == "30MMACs"
    assert len(read_json("runs/one/trials.json")["rows"]) == 24
    assert "30 MMACs" in shown and "table" in shown, "the budget in words, and where latencies come from"


def test_the_same_seed_gives_the_same_front() -> None:
    for name in ("one", "two"):
        assert main([*FORMULAS, "--target", "gpu", "--seed", "4", "--name", name]) == 0
    one, two = ([{k: v for k, v in row.items() if k != "architecture"} for row in rows_of(n)] for n in ("one", "two"))
    assert one == two


def test_a_device_that_is_not_here_is_estimated_and_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--target", "gpu", "--name", "one"]) == 0
    shown = capsys.readouterr().out
    assert "estimated, not measured" in shown and "not in this machine" in shown
    assert rows_of("one")[0]["measured_ms"] == ""


def test_a_finished_search_answers_other_budgets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FORMULAS, "--target", "gpu", "--name", "one"]) == 0
    rows = read_json("runs/one/trials.json")["rows"]
    limit = sorted(row["macs"] for row in rows)[len(rows) // 2]
    capsys.readouterr()
    assert main(["--from-table", "runs/one", "--budget", f"{limit}MACs"]) == 0
    best = max((row for row in rows if row["macs"] <= limit), key=lambda row: row["accuracy"])
    shown = capsys.readouterr().out
    assert f"trial {best['trial']}," in shown and json.loads(shown.splitlines()[-1]) == best["architecture"]
    refused(main, ["--from-table", "runs/one", "--budget", "1MACs"])
    assert "no network of the run keeps this budget" in capsys.readouterr().err


def test_a_search_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FORMULAS, "--target", "gpu", "--name", "whole"]) == 0
    short = [*FORMULAS, "--target", "gpu", "--name", "parts"]
    assert main([*short, "--trials", "9"]) == 0
    assert main(["--name", "parts", "--resume", "--trials", "24"]) == 0
    one, two = ([row["digest"] for row in read_json(f"runs/{n}/trials.json")["rows"]] for n in ("whole", "parts"))
    assert one == two
    refused(main, ["--name", "parts", "--resume", "--seed", "5"])
    assert "seed: 0 -> 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--budget", "1kMACs"], "no network of the space keeps this limit: the smallest has"),
        (["--budget", "2 bananas"], "bananas"),
        (["--target", "tpu"], "tpu"),
        (["--accuracy", "oracle"], "unknown accuracy estimator"),
        (["--space", "digitz"], "nearest: digits"),
        (["--set", "trails=5"], "nearest: trials"),
        (["--set", "objectives=[accuracy,accuracy]"], "named once"),
        (["--accuracy", "supernet"], "give its folder"),
        (["--resume"], "--name"),
        (["--name", "none", "--resume"], "no such run"),
        (["--storage", "sqlite:///there/is/no/folder/x.db", "--name", "one"], "folder"),
        (["--from-table", "runs/none", "--budget", "1GMACs"], "cannot be read"),
        (["--from-table", "runs/none"], "give a budget"),
    ],
)
def test_what_cannot_be_done_is_one_message(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(main, [*FORMULAS, "--target", "gpu", *given])
    told = capsys.readouterr().err
    assert message in told and len(told.strip().splitlines()) == 1 and "Traceback" not in told


def test_a_folder_that_cannot_be_written(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "runs").write_text("a file")
    refused(main, [*FORMULAS, "--target", "gpu", "--name", "one"])
    assert "cannot be made" in capsys.readouterr().err


SPACE = """
input: 16
channels: 1
classes: 10
stages:
  - {embed: patch(size=8), dim: [8, 16], blocks: [{mixer: [depthwise, additive], feedforward: "mlp(ratio=[1, 2])"}]}
head: mean
"""


def test_networks_are_judged_by_trained_weights() -> None:
    """Inherited from a supernet: the accuracy of the network taken out of it. Then after training it further."""
    Path("little.yaml").write_text(SPACE)
    told = ["--steps", "3", "--set", "batch=8", "--set", "size=16", "--set", "calibration=8", "--name", "supernet"]
    assert train(["--space", "little.yaml", *told]) == 0
    trained_run = ["--set", "run=runs/supernet", "--set", "objectives=[accuracy,macs]", "--target", "gpu"]
    assert main([*trained_run, "--accuracy", "supernet", "--trials", "8", "--name", "one"]) == 0
    giver = trained("runs/supernet")
    for row in read_json("runs/one/trials.json")["rows"]:
        architecture = Space.parse(row["architecture"], shared_rules()).only()
        own = evaluate(giver.supernet.extract(architecture), open_for(giver.config), "search")
        assert row["accuracy"] == pytest.approx(100 * own.accuracy)
    short = ["--accuracy", "short_training", "--set", "steps=2", "--trials", "2", "--name", "two"]
    assert main([*trained_run, *short]) == 0
    assert all(0 <= row["accuracy"] <= 100 for row in read_json("runs/two/trials.json")["rows"])
