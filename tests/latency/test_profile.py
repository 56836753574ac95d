"""What a profile measures, in which order, and that it goes on where it stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from nas.core.space import Space
from nas.latency.clock import Limits
from nas.latency.device import this_device
from nas.latency.profile import CHUNK, PER_CHUNK, Progress, new_table, plan, profile
from nas.latency.row import key_of
from nas.latency.subject import REFERENCE
from nas.latency.table import Table, read_table
from nas.latency.target import Target
from nas.measure import main
from nas.model.plan import places_of
from nas.model.spaces import load_named_space
from nas.ops.catalogue import catalogue


@pytest.fixture(scope="module")
def digits() -> Space:
    return load_named_space("digits")


class FakeWorker:
    """Replies at once, and notes what it was asked."""

    def __init__(self, failing: str = "") -> None:
        self.asked: list[dict[str, Any]] = []
        self.failing = failing

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        self.asked.append(request)
        assert limit_s > request["limits"]["seconds"]
        if self.failing and self.failing in json.dumps(request["subject"].get("operator", "")):
            return {"failed": "out of memory", "why": "too large"}
        reading = {"ratio": 0.5, "low": 0.49, "high": 0.51, "spread": 0.01, "ms": 1.0, "reference_ms": 2.0, "pairs": 20}
        rest = {"seconds": 0.1, "settled": True, "others": 0.0, "drift": 0.0, "repeated": 0, "notes": []}
        return {"reading": {**reading, **rest}, "peak_mb": 1.0, "energy_mj": None}


def empty() -> Table:
    target = Target()
    return Table.new(target, this_device(target), {"torch": "2.15.0"}, "reference", 2.0, 100)


def test_the_plan_is_a_function_of_space_and_seed(digits: Space) -> None:
    first, again, other = (list(islice(plan(digits, seed), 100)) for seed in (3, 3, 4))
    assert [work.key for work in first] == [work.key for work in again] != [work.key for work in other]


def test_every_place_is_what_its_network_has_there(digits: Space) -> None:
    for work in islice(plan(digits), 150):
        if work.place is not None:
            assert work.place in list(places_of(catalogue(), work.architecture))
            assert work.description == {"network": work.architecture.to_dict(), "operator": work.place.path}
        else:
            assert work.key == key_of("network", work.architecture.digest)


def test_nothing_twice_and_every_operator_early(digits: Space) -> None:
    works = list(islice(plan(digits), 2 * (CHUNK + PER_CHUNK)))
    assert len({work.key for work in works}) == len(works)
    early = Counter((w.place.kind, w.place.spec.name) for w in works if w.place is not None)
    networks = [work.architecture for work in islice(plan(digits), 900)]
    occurring = {(place.kind, place.spec.name) for network in networks for place in places_of(catalogue(), network)}
    assert set(early) == occurring
    assert sum(work.place is None for work in works) == 2 * PER_CHUNK


def test_a_profile_goes_on_where_it_stopped(digits: Space, tmp_path: Path) -> None:
    path, worker = tmp_path / "table.csv", FakeWorker()
    seen: list[Progress] = []
    first = profile(empty(), path, islice(plan(digits), 30), worker, 5, seen.append)  # type: ignore[arg-type]
    assert len(worker.asked) == len(first.rows) == len(seen) == 30
    assert read_table(path).rows == first.rows
    second = profile(read_table(path), path, islice(plan(digits), 50), worker, 5)  # type: ignore[arg-type]
    assert len(worker.asked) == len(second.rows) == 50


def test_what_failed_is_kept_and_not_tried_again(digits: Space, tmp_path: Path) -> None:
    path, worker = tmp_path / "table.csv", FakeWorker(failing="mixer")
    table = profile(empty(), path, islice(plan(digits), 40), worker, 5)  # type: ignore[arg-type]
    bad = [row for row in table.rows.values() if row.failed_because]
    assert bad and all(row.kind == "mixer" and "out of memory" in row.failed_because for row in bad)
    again = FakeWorker()
    profile(read_table(path), path, islice(plan(digits), 40), again, 5)  # type: ignore[arg-type]
    assert not again.asked


def test_time_that_is_up_ends_a_profile(digits: Space, tmp_path: Path) -> None:
    worker = FakeWorker()
    table = profile(empty(), tmp_path / "table.csv", plan(digits), worker, 1e-9)  # type: ignore[arg-type]
    assert len(table.rows) == len(worker.asked) == 1


def test_a_new_table_measures_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"macs_per_second": 1e9, "bytes_per_second": 1e9}
    monkeypatch.setattr("nas.latency.profile.ceilings", lambda target: peaks)
    worker = FakeWorker()
    table = new_table(Target(), worker, "the command")  # type: ignore[arg-type]
    assert worker.asked[0]["subject"] == {"network": REFERENCE}
    assert table.header.reference_ms == 2.0 and table.header.command == "the command"
    assert table.header.device == this_device(Target())


SHORT = Limits(tolerance=1.0, min_pairs=6, max_pairs=6, seconds=1.0)
BEGIN = ["--target", "cpu:eager", "--space", "digits", "--minutes"]
KILLED = f"""
import sys
from functools import partial
from nas.latency import profile
from nas.latency.clock import Limits
from nas.measure import main
profile.LONG = profile.ROW = profile.WHOLE = {SHORT}
profile.ceilings = partial(profile.ceilings, seconds=0.2)
sys.exit(main([*{BEGIN}, "5"]))
"""


def test_killed_in_the_middle_nothing_measured_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real door and real measurements, though short: kill -9, then the same command goes on."""
    environment = {**os.environ, "NAS_TABLES": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        table = waited(tmp_path, 12, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    before = read_table(table)
    assert len(before.rows) >= 12
    monkeypatch.setenv("NAS_TABLES", str(tmp_path))
    for name in ("ROW", "WHOLE"):
        monkeypatch.setattr(f"nas.latency.profile.{name}", SHORT)
    assert main([*BEGIN, "0.01"]) == 0
    assert "going on with" in capsys.readouterr().out
    after = read_table(table)
    assert len(after.rows) > len(before.rows)
    assert all(after.rows[key] == row for key, row in before.rows.items())


def waited(folder: Path, rows: int, process: subprocess.Popen[bytes]) -> Path:
    """The table, as soon as it has so many rows."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        assert process.poll() is None, process.stderr and process.stderr.read()
        for path in folder.glob("*.csv"):
            if len(read_table(path).rows) >= rows:
                return path
        time.sleep(0.1)
    raise AssertionError("no table in time")
