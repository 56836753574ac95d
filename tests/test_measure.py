"""The door `python -m nas.measure`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nas.latency import commands
from nas.latency.table import read_table
from nas.measure import main

SMALL = """\
name: small
input: 32
channels: 1
classes: 10
stages:
  - embed: patch(size=4)
    dim: 32
    class_token: true
    blocks:
      - {repeat: 2, mixer: softmax(heads=2), feedforward: mlp}
head: class_token
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_TABLES", str(tmp_path / "tables"))
    return tmp_path


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_one_network_measured_and_estimated(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "ONE", commands.ONE._replace(max_pairs=40))
    (folder / "small.yaml").write_text(SMALL)
    found = json.loads(run(["--target", "cpu:eager", "--network", str(folder / "small.yaml"), "--json"], capsys))
    assert found["measured"]["ms"] > 0 and found["failed"] == ""
    assert found["measured"]["low"] <= found["measured"]["ratio"] <= found["measured"]["high"]
    assert found["target"] == "cpu:eager:precision=fp32,batch=1,threads=1"
    assert found["estimated" if "estimated" in found["source"] else "predicted"]["ms"] > 0


def test_tables_are_listed_damaged_ones_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tables").mkdir()
    (folder / "tables" / "torn.csv").write_text("# nas latency table\n# format: 1\n# dev")
    assert "DAMAGED" in run(["--list"], capsys)
    rows = json.loads(run(["--list", "--json"], capsys))["tables"]
    assert [row["damaged"] != "" for row in rows if row["file"].endswith("torn.csv")] == [True]


def test_times_of_another_tool_become_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "small.yaml").write_text(SMALL)
    (folder / "times.csv").write_text("architecture,ms\nsmall.yaml,12.5\n")
    given = ["--import", str(folder / "times.csv"), "--device", "My board", "--target", "cpu:executorch"]
    assert "My board" in run(given, capsys)
    (path,) = (folder / "tables").glob("*.csv")
    table = read_table(path)
    assert table.header.device.name == "My board" and table.header.target.runtime == "executorch"
    assert [table.ms(row) for row in table.networks()] == [12.5]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--target", "cpx"], ["unknown device", "cpx"]),
        (["--target", "cpu:egaer"], ["runtime", "egaer", "eager"]),
        (["--target", "cpu:eager", "--minutes", "-1"], ["minutes"]),
        (["--target", "cpu:eager", "--space", "mixd"], ["unknown space", "mixed"]),
        (["--target", "cpu:eager", "--network", "deit_smal"], ["unknown reference network", "deit_small"]),
        (["--target", "cuda:77", "--minutes", "1"], ["device of this machine"]),
        (["--import", "nowhere.csv", "--device", "Board", "--target", "cpu:openvino"], ["nowhere.csv"]),
        (["--import", "times.csv", "--target", "cpu:openvino"], ["--device"]),
        (["--import", "times.csv", "--device", "Board"], ["runtime"]),
        (["--target", "cpu:eager", "--network", "deit_tiny", "--allow-mismatch", "colour"], ["mismatch", "colour"]),
    ],
)
def test_bad_input_ends_with_one_message(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert all(word in message for word in words), message
    assert len(message.strip().splitlines()) == 1


def test_bad_input_from_outside() -> None:
    """As a person sees it: exit code 2, one line, no traceback."""
    command = [sys.executable, "-m", "nas.measure", "--target", "cpu:egaer"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "egaer" in done.stderr and len(done.stderr.strip().splitlines()) == 1
