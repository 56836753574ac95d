"""The door nas.report: from a run to its report, and one message for whatever cannot be shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas.report import main
from tests.doors import refused
from tests.reporting.made_runs import finished, on_disk, usual_rows


def test_it_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = on_disk(tmp_path, "one")
    assert main([str(run.path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == str(run.path / "report" / "report.html") and all(Path(line).is_file() for line in shown)
    assert {Path(line).name for line in shown} == {path.name for path in (run.path / "report").iterdir()}


def test_several_runs_and_formats_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [on_disk(tmp_path, name) for name in ("one", "two")]
    folders = [str(run.path) for run in runs]
    assert main([*folders, "--out", str(tmp_path / "both"), "--format", " SVG,", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"report.html", "pareto.svg", "front.tex"} <= set(found) and "pareto.png" not in found
    assert all(Path(path).parent == tmp_path / "both" and Path(path).is_file() for path in found.values())
    refused(main, folders)
    assert "--out: a report of several runs" in capsys.readouterr().err


def test_what_cannot_be_shown_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = on_disk(tmp_path, "finished")
    begun = on_disk(tmp_path, "begun")
    (begun.path / "trials.json").unlink()
    damaged = on_disk(tmp_path, "damaged")
    text = (damaged.path / "trials.json").read_text()
    (damaged.path / "trials.json").write_text(text.replace("60.0", "99.0", 1))
    other = on_disk(tmp_path, "other", finished(tmp_path / "other", usual_rows(), unit="score"))
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ([tmp_path / "finishd"], "no such run (nearest: finished"),
        ([begun.path], "no finished search"),
        ([damaged.path], "the file is damaged or was altered (the checksum differs)"),
        ([run.path, other.path, "--out", tmp_path / "x"], "one unit of accuracy"),
        ([run.path, run.path, "--out", tmp_path / "x"], "each run is given once"),
        ([run.path, "--format", "png,gif"], "unknown format of pictures: 'gif'"),
        ([run.path, "--format", ","], "a picture has a format"),
        ([run.path, "--out", tmp_path / "file"], "the report cannot be written"),
    ):
        refused(main, [str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert message in shown.err and len(shown.err.splitlines()) == 1 and not shown.out, shown.err
    assert not (tmp_path / "x").exists()


def test_no_torch_is_needed(tmp_path: Path) -> None:
    import subprocess
    import sys

    run = on_disk(tmp_path, "one")
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['optuna'] = None; sys.modules['timm'] = None\n"
        f"from nas.report import main; main([{str(run.path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (run.path / "report" / "report.html").is_file()
