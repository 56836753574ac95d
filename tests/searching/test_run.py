"""A search by several processes, from its command: nothing is lost or done twice, and one of them writes the front."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from nas.core.runs import new_run, open_run, read_json
from nas.search import main
from nas.searching import commands
from tests.searching.fakes import ROOT

FORMULAS = ["--space", "digits", "--accuracy", "depth_width", "--set", "objectives=[accuracy,macs]", "--target", "gpu"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the test's own, and no report, which takes longer than these searches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "report", lambda finished: None)


def rows_of(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(f"runs/{name}/trials.json")["rows"]
    return rows


def states(path: str) -> Counter[str]:
    """Of the trials of a study in a file, which is only read: another process may be about to make it."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as study:
        return Counter(state for (state,) in study.execute("select state from trials"))


@pytest.mark.timeout(200)
def test_two_workers_of_which_one_is_killed_find_every_network_once() -> None:
    trials, study = 40, "runs/one/study.db"
    command = [sys.executable, "-m", "nas.search", *FORMULAS, "--name", "one", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command += ["--set", "sampler=random", "--trials", str(trials)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        while process.poll() is None:
            time.sleep(0.05)
            workers = psutil.Process(process.pid).children()
            with contextlib.suppress(sqlite3.Error, psutil.NoSuchProcess):  # the study is not there yet
                if len(workers) == 2 and states(study)["COMPLETE"] > 10:
                    workers[0].send_signal(signal.SIGKILL)
                    break
        shown, _ = process.communicate(timeout=150)
    finally:
        process.kill()
    assert process.returncode == 0 and "front.csv" in shown
    assert not any(worker.is_running() for worker in workers) and len(workers) == 2
    counted = states(study)
    assert trials <= counted["COMPLETE"] <= trials + 2 and set(counted) <= {"COMPLETE", "FAIL"}
    assert counted["FAIL"] <= 1, "the network that the killed worker had at hand"
    rows = rows_of("one")
    assert len({row["digest"] for row in rows}) == len(rows) >= trials - 2


def test_who_joins_a_search_leaves_its_front_to_who_began_it(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*FORMULAS, "--trials", "4", "--storage", f"sqlite:///{Path.cwd()}/shared.db", "--name", "one"]
    assert main(command) == 0
    front = Path("runs/one/front.csv").stat().st_mtime_ns
    assert main([*command, "--trials", "6"]) == 0
    assert "6 networks; who began the search writes its front" in capsys.readouterr().out
    assert Path("runs/one/front.csv").stat().st_mtime_ns == front and len(rows_of("one")) == 4
    assert main(["--name", "one", "--resume", "--trials", "6"]) == 0 and len(rows_of("one")) == 6


def test_workers_are_given_the_password_that_no_file_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*FORMULAS, "--trials", "2", "--storage", f"sqlite:///{Path.cwd()}/shared.db", "--name", "one"]) == 0
    config = open_run("runs/one").config
    secret = "postgresql://me:secret@127.0.0.1:1/name"
    two = new_run("runs", "two", {**config, "storage": secret, "trials": 4}, ["test"])
    assert "secret" not in (two.path / "run.json").read_text()
    monkeypatch.setenv(commands.STORAGE, config["storage"])
    assert commands.join(two.path, 1) == 0
    assert states("shared.db")["COMPLETE"] >= 4
