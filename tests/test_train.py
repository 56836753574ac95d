"""The door nas.train: one command, and one message for whatever cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.core.runs import read_json
from nas.train import main
from tests.doors import refused

QUICK = ["--steps", "2", "--set", "batch=4", "--set", "size=16", "--set", "calibration=8"]
SPACE = """
input: 16
channels: 1
classes: 10
stages:
  - {embed: patch(size=8), dim: [8, 16], blocks: [{mixer: depthwise, feedforward: mlp(ratio=1)}]}
head: mean
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("little.yaml").write_text(SPACE)
    return tmp_path


def test_a_supernet_is_trained_and_one_of_its_networks_fine_tuned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "little.yaml", *QUICK, "--name", "one"]) == 0
    assert "test_accuracy_largest" in capsys.readouterr().out
    Path("small.yaml").write_text(SPACE.replace("[8, 16]", "8"))
    assert main(["--arch", "small.yaml", "--init", "runs/one", *QUICK, "--name", "two"]) == 0
    assert read_json("runs/two/result.json")["finished"]


def test_a_run_goes_on_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "little.yaml", *QUICK, "--minutes", "1e-9", "--name", "one"]) == 0
    assert not read_json("runs/one/result.json")["finished"]
    assert main(["--name", "one", "--resume", "--minutes", "5"]) == 0
    assert read_json("runs/one/result.json")["finished"]
    refused(main, ["--name", "one", "--resume", "--seed", "7"])
    assert "seed: 0 -> 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--resume"], "--name"),
        (["--name", "none", "--resume"], "no such run"),
        (["--space", "digitz"], "nearest: digits"),
        (["--data", "digitz"], "nearest: digits"),
        (["--arch", "deit_tinyy"], "nearest: deit_tiny"),
        (["--init", "runs/none"], "no such run"),
        (["--init", "timm:no_such_network"], "no_such_network"),
        (["--set", "optimisation.lr=1"], "nearest: optimization"),
        (["--set", "optimization.lr=fast"], "optimization.lr"),
        (["--set", "batch=100000"], "a batch has 1 to"),
        (["--set", "networks.strategy=batch", "--set", "networks.random=9"], "image of its own"),
        (["--config", "none.yaml"], "no such file"),
        (["--device", "toaster"], "no such device"),
        (["--device", "cuda:99"], "no such CUDA device"),
    ],
)
def test_what_cannot_be_done_is_one_message(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(main, ["--space", "little.yaml", *QUICK, *given])
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
