"""A search on a real PostgreSQL server: four workers, one killed, the server restarted: nothing lost or done twice."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nas.searching.results import results_of
from tests.searching.fakes import NAMES, ROOT, Score, small, worker

USER = "postgres"  # the server refuses to run as root
TRIALS = 24
PASSWORD = "not-to-be-seen"


def binaries() -> Path | None:
    """The newest installed server's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("pg_ctl")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Server:
    """A PostgreSQL server of its own on loopback, in a folder that goes with the test."""

    def __init__(self, folder: Path, programs: Path):
        self._programs, self._data = programs, folder / "data"
        self._as = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []
        if self._as:
            shutil.chown(folder, USER, USER)
        with socket.socket() as line:
            line.bind(("127.0.0.1", 0))
            self.port = line.getsockname()[1]
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "-D", str(self._data), "-U", "searcher", "-A", "scram-sha-256", f"--pwfile={secret}")
        self._log = self._data / "log"
        self.control("start")

    @property
    def url(self) -> str:
        return f"postgresql://searcher:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def control(self, *what: str) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", str(self._log), "-o", options, *what)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._programs / program), *arguments]
        done = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
        assert done.returncode == 0, done.stdout.decode()


@pytest.fixture
def server() -> Iterator[Server]:
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    pytest.importorskip("psycopg", reason="psycopg, which reaches PostgreSQL, is not installed")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be entered by their owner alone
        made = Server(Path(folder), programs)
        yield made
        made.control("stop", "-m", "immediate")


@pytest.mark.timeout(280)
def test_four_workers_one_killed_and_the_server_restarted(server: Server) -> None:
    def start(number: int) -> subprocess.Popen[str]:
        options = ["--worker", str(number), "--pause", "0.15", *(["--behave", "die:3"] if number == 1 else [])]
        command = [sys.executable, "-m", "tests.searching.fakes", server.url, "study", str(TRIALS), *options]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    workers = [start(number) for number in range(1, 5)]
    try:
        assert workers[0].wait(100) == -signal.SIGKILL
        time.sleep(0.5)
        server.control("restart", "-m", "fast")
        told = [process.communicate(timeout=150) for process in workers]
    finally:
        for process in workers:
            process.kill()
    assert [process.returncode for process in workers] == [-signal.SIGKILL, 0, 0, 0], [err for _, err in told]
    worker(server.url, Score(), TRIALS, mode="join", wait=True).work()

    study = optuna.load_study(study_name="study", storage=server.url)
    trials = study.get_trials()
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.FAIL}
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert TRIALS <= len(complete) <= TRIALS + 4
    judged = {trial.user_attrs["digest"] for trial in complete}
    assert sorted(row["digest"] for row in results_of(study, small(), NAMES)) == sorted(judged)
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    begun = {trial.user_attrs["digest"] for trial in failed if "digest" in trial.user_attrs}
    assert begun <= judged, "a network of a lost worker was lost"
    killed = [line.split()[1] for line in told[0][0].splitlines() if line.startswith("begins")][-1]
    (dead,) = [trial for trial in failed if trial.user_attrs.get("digest") == killed]
    again = [trial for trial in trials if dead.number in trial.system_attrs.get("retry_history", [])]
    assert [trial.state for trial in again] == [TrialState.COMPLETE], "the dead worker's trial was finished by another"
    assert not any(PASSWORD in out + err for out, err in told)
