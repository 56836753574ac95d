"""The benchmarks of latency: what they make of measurements, and that they run on something tiny."""

import json
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from nas.bench import main
from nas.benching import clock, latency, predictor
from nas.latency import device
from nas.latency.profile import plan
from nas.model.spaces import load_named_space
from tests.latency.imagined import filled


def test_the_variation_of_a_clock() -> None:
    rows = [
        {"ratio": ratio, "absolute_ms": ms, "loaded": loaded, "busy": busy, "minute": minute}
        for minute, (ratio, ms, loaded, busy) in enumerate(
            [(1.0, 10.0, False, False), (1.0, 20.0, True, True), (1.0, 10.0, False, True), (1.0, 12.0, True, True)]
        )
    ]
    found = clock.figures(rows)
    assert found["cv"] == 0 and found["cv_absolute"] > 0.3
    assert found["busy_noticed"] and found["busy_otherwise"] == 1
    assert (found["repeats"], found["minutes"]) == (4, 3)
    rows[1]["busy"] = False
    assert not clock.figures(rows)["busy_noticed"]
    assert not clock.figures([row for row in rows if not row["loaded"]])["busy_noticed"], "nothing was to be noticed"


def test_errors_of_predictions() -> None:
    found = predictor.errors([1.0, 2.1, 3.0, 5.0], [1.0, 2.0, 3.0, 4.0])
    assert found["median_error"] == pytest.approx(0.025)
    assert found["mean_error"] == pytest.approx(0.3 / 4)
    assert found["within_10"] == 0.75 and found["spearman"] == 1


def test_clock_runs(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["clock", "--repeats", "5", "--minutes", "0.02", "--seconds", "0.4", "--network", "deit_tiny", "--json"]
    assert main(options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["repeats"] == 5 and found["cv"] > 0
    assert [row["loaded"] for row in found["rows"]] == [False, False, True, False, False]


def test_latency_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "ceilings", partial(device.ceilings, seconds=0.2))
    report = tmp_path / "report.md"
    options = ["latency", "--only", "deit_tiny,evit_deit_small_k7", "--batches", "1", "--seconds", "0.5"]
    assert main([*options, "--report", str(report), "--json"]) == 0
    tiny, evit = json.loads(capsys.readouterr().out)["rows"]
    assert tiny["ms"] > 0 and 0.2 < tiny["ratio_to_timm"] < 5 and tiny["ratio_to_base"] is None
    assert evit["base"] == "deit_small" and evit["ratio_to_base"] > 0.3 and evit["published_ratio"] == 1.5
    assert evit["ratio_to_timm"] is None and evit["batch"] == 1
    assert "| deit_tiny | 1 |" in report.read_text() and "timm" in report.read_text()


def test_predictor_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Held-out networks are really measured; the table is that of an imagined device."""
    path = tmp_path / "table.csv"
    filled(islice(plan(load_named_space("digits")), 250)).write(path)
    options = ["predictor", "--space", "digits", "--heldout", "2", "--table", str(path)]
    assert main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["heldout"] == 2 == len(found["networks"]) and found["measured_networks"] >= 8
    assert set(found["baselines"]) == {"flops", "sum", "linear", "boosting"}
    assert found["median_error"] >= 0 and found["device_minutes"] >= 0
    assert all(row["ms"] > 0 and row["predicted"] > 0 for row in found["networks"])


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["latency", "--batches", "0"], "batches"),
        (["latency", "--only", "deit_tinny"], "deit_tiny"),
        (["clock", "--repeats", "1"], "two measurements"),
        (["predictor", "--space", "mixd"], "mixed"),
    ],
)
def test_bad_input(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and words in capsys.readouterr().err
    assert latency.HELP
