"""Workers: signals, kills, hangs, dead and overtaken workers, full and read-only storages. Nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from nas.core.errors import InputError
from nas.searching.results import Known, results_of
from nas.searching.run import run_processes
from nas.searching.storage import storage_url
from nas.searching.workers import DEATHS
from tests.searching.fakes import NAMES, ROOT, Figure, Score, small, worker

END_S = 10.0  # in which a worker ends after a signal


@pytest.fixture
def url(tmp_path: Path) -> str:
    return storage_url(None, tmp_path)


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended with the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start(running: list[subprocess.Popen[str]], url: str, trials: int, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.searching.fakes", url, "study", str(trials), *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.append(process)
    return process


def wait_for(process: subprocess.Popen[str], line: str, times: int = 1) -> None:
    """Until the process has printed a line that begins so, that often."""
    assert process.stdout is not None
    for text in process.stdout:
        times -= text.startswith(line)
        if not times:
            return
    raise AssertionError(f"it ended: {process.stderr.read() if process.stderr else ''}")


def study_of(url: str) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=url)


def digests(url: str) -> list[str]:
    return [row["digest"] for row in results_of(study_of(url), small(), NAMES)]


def states(url: str) -> Counter[str]:
    return Counter(trial.state.name for trial in study_of(url).trials)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a search of ten networks that nothing disturbs evaluates."""
    url = storage_url(None, tmp_path_factory.mktemp("whole"))
    worker(url, Score(), 10).work()
    return digests(url)


@pytest.mark.parametrize(("number", "behave"), [(2, "sleep"), (15, "compute")])
def test_a_signal_ends_a_worker_soon_and_its_network_goes_back(
    url: str, whole: list[str], running: Any, number: int, behave: str
) -> None:
    """In the middle of an evaluation, also of one that does not return to Python."""
    process = start(running, url, 10, "--behave", f"{behave}:4", "--end-s", "1")
    wait_for(process, "begins", 4)
    time.sleep(0.3)
    process.send_signal(number)
    begun = time.monotonic()
    process.communicate(timeout=60)
    assert time.monotonic() - begun < END_S
    assert process.returncode == 128 + number
    assert states(url) == {"COMPLETE": 3, "FAIL": 1, "WAITING": 1}
    assert worker(url, Score(), 10, mode="resume").work() == "trials"
    assert digests(url) == whole
    assert states(url) == {"COMPLETE": 10, "FAIL": 1}


def test_a_worker_that_is_killed_is_taken_up_at_once(url: str, whole: list[str], running: Any) -> None:
    """Nobody else is on this machine, so there is no heartbeat to wait for."""
    process = start(running, url, 10, "--behave", "die:4")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert states(url) == {"COMPLETE": 3, "RUNNING": 1}
    begun = time.monotonic()
    assert worker(url, Score(), 10, mode="resume").work() == "trials"
    assert digests(url) == whole
    assert time.monotonic() - begun < END_S
    assert states(url) == {"COMPLETE": 10, "FAIL": 1}


def test_two_workers_share_a_file_and_one_takes_over_from_the_other(url: str, running: Any) -> None:
    one = start(running, url, 8, "--worker", "1", "--behave", "die:2", "--pause", "0.1")
    two = start(running, url, 8, "--worker", "2", "--pause", "0.3")
    assert one.wait(100) == -signal.SIGKILL
    assert two.wait(100) == 0
    worker(url, Score(), 8, mode="join", wait=True).work()
    counted = states(url)
    assert counted["COMPLETE"] in (8, 9) and counted["FAIL"] == 1 and set(counted) == {"COMPLETE", "FAIL"}
    failed = next(trial for trial in study_of(url).trials if trial.state is TrialState.FAIL)
    again = [trial for trial in study_of(url).trials if trial.system_attrs.get("retry_history") == [failed.number]]
    assert [trial.state for trial in again] == [TrialState.COMPLETE]
    assert len(set(digests(url))) == len(digests(url))


class Killing(Score):
    """Its process dies whenever it judges the second network."""

    def estimate(self, architecture: Any) -> Figure:
        figure = super().estimate(architecture)
        if architecture.digest == self.victim:
            raise Gone
        return figure

    victim = ""


class Gone(BaseException):
    """As kill -9, for all that the storage sees."""


def test_a_network_that_kills_each_worker_is_given_up_with_the_reason(url: str, whole: list[str]) -> None:
    accuracy = Killing()
    accuracy.victim = whole[1]
    for time_ in range(DEATHS):
        with pytest.raises(Gone):
            worker(url, accuracy, 6, mode="resume" if time_ else "new").work()
    assert worker(url, accuracy, 6, mode="resume").work() == "trials"
    assert accuracy.seen.count(whole[1]) == DEATHS
    rows = results_of(study_of(url), small(), NAMES)
    given_up = [row for row in rows if not row["feasible"]]
    assert [row["digest"] for row in given_up] == [whole[1]] and len(rows) == 6
    assert given_up[0]["reason"] == f"crashed: {DEATHS} processes ended while they judged it"
    assert given_up[0]["accuracy"] is None and given_up[0]["macs"] > 0


class Overtaken(Score):
    """While it judges the third network, another process fails its trial, as for a stopped heartbeat."""

    def __init__(self, url: str, end: Any):
        super().__init__()
        self._url, self._end = url, end

    def estimate(self, architecture: Any) -> Figure:
        figure = super().estimate(architecture)
        if len(self.seen) == 3:
            study = study_of(self._url)
            study.tell(study.trials[-1].number, **self._end)
        return figure


@pytest.mark.parametrize("end", [{"state": TrialState.FAIL}, {"values": [1.0, 2.0]}])
def test_a_trial_that_another_worker_ended_is_left_to_it(url: str, end: dict[str, Any]) -> None:
    assert worker(url, Overtaken(url, end), 6).work() == "trials"
    counted = states(url)
    assert counted["COMPLETE"] == 6 and counted["RUNNING"] == 0 and counted["WAITING"] == 0
    numbers = [trial.number for trial in study_of(url).trials]
    assert numbers == list(range(len(numbers)))


class Faulty(Score):
    def estimate(self, architecture: Any) -> Figure:
        raise InputError("no such weights")


def test_an_error_of_the_program_ends_the_search_and_the_next_goes_on(url: str, whole: list[str]) -> None:
    with pytest.raises(InputError, match="no such weights"):
        worker(url, Faulty(), 10).work()
    assert worker(url, Score(), 10, mode="resume").work() == "trials"
    assert digests(url) == whole


def test_time_ends_a_search_and_what_is_known_is_told(url: str) -> None:
    told: list[tuple[int, int]] = []

    def tell(known: Known) -> None:
        told.append((known.finished, known.running))

    assert worker(url, Score(), None, seconds=0.5, told=tell).work() == "time"
    assert told == [(number, 0) for number in range(1, len(told) + 1)] and told
    assert states(url) == {"COMPLETE": len(told)}
    with pytest.raises(InputError, match="a number of trials or a time"):
        worker(url, Score(), None, mode="resume").work()


# -- storages that refuse ---------------------------------------------------------------------------------------------


class Filling(Score):
    """The disk is full from the fourth network on."""

    def __init__(self, fill: Any):
        super().__init__()
        self._fill = fill

    def estimate(self, architecture: Any) -> Figure:
        figure = super().estimate(architecture)
        if len(self.seen) == 4:
            self._fill()
        return figure


def test_a_full_disk_is_one_message_and_nothing_is_lost(url: str, whole: list[str]) -> None:
    accuracy = Filling(lambda: None)
    one = worker(url, accuracy, 10)

    def fill() -> None:
        engine = one.worker._opened.storage.engine

        @sqlalchemy.event.listens_for(engine, "begin")
        def limit(connection: Any) -> None:
            connection.exec_driver_sql("PRAGMA max_page_count = 1")  # as many as there are already

    accuracy._fill = fill
    with pytest.raises(InputError, match=r"the study's storage refuses .*full") as refusal:
        one.work()
    assert "\n" not in str(refusal.value)
    assert worker(url, Score(), 10, mode="resume").work() == "trials"
    assert digests(url) == whole


def test_a_study_that_cannot_be_written_is_one_message(url: str, tmp_path: Path) -> None:
    worker(url, Score(), 3).work()
    address = f"sqlite:///file:{tmp_path}/study.db?mode=ro&uri=true"
    with pytest.raises(InputError, match=r"the study's storage refuses .*readonly"):
        worker(address, Score(), 6, mode="resume").work()
    assert len(digests(url)) == 3


# -- several processes ------------------------------------------------------------------------------------------------


def test_processes_are_run_to_their_end_and_signals_passed_on(tmp_path: Path) -> None:
    assert run_processes([[sys.executable, "-c", "pass"], [sys.executable, "-c", "raise SystemExit(2)"]]) is None
    with pytest.raises(InputError, match=r"every worker ended with an error: \[2, 2\]"):
        run_processes([[sys.executable, "-c", "raise SystemExit(2)"]] * 2)
    code = (
        "import os, signal, sys, threading\n"
        "from nas.searching.run import run_processes\n"
        "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "wait = 'import signal, sys; signal.signal(15, lambda *_: (open(sys.argv[1], chr(119)), sys.exit(143)));"
        " signal.pause()'\n"
        "print(run_processes([[sys.executable, '-c', wait, path] for path in sys.argv[1:]]))\n"
    )
    paths = [str(tmp_path / name) for name in ("one", "two")]
    done = subprocess.run([sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout == "15\n", done.stderr
    assert all(os.path.exists(path) for path in paths)
