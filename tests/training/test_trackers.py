"""The log of a run has each step once, also after a kill and a resume; other trackers are optional copies."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nas.core.errors import InputError
from nas.training.trackers import LOG, JsonLines, open_trackers, read_log

CONFIG = {"space": "tiny", "networks": {"random": 2}}


def write_steps(path: Path, first: int, last: int, resume_step: int | None = None) -> None:
    tracker = JsonLines(path, resume_step, clock=lambda: 1.25)
    for step in range(first, last + 1):
        tracker.log(step, {"loss": 1 / step})
    tracker.close()


def test_lines_read_back(tmp_path: Path) -> None:
    tracker = JsonLines(tmp_path / LOG, None, clock=lambda: 12.3456)
    tracker.start(CONFIG)
    tracker.log(0, {"accuracy": 0.1})
    tracker.log(
        1, {"loss": 0.1 + 0.2, "images": 32, "network": "é\n", "none": None, "bad": math.nan, "worse": -math.inf}
    )
    tracker.log(1, {})
    tracker.close()
    assert read_log(tmp_path / LOG) == [
        {"step": 0, "time": 12.346, "accuracy": 0.1},
        {"step": 1, "time": 12.346, "loss": 0.1 + 0.2, "images": 32, "network": "é\n", "none": None}
        | {"bad": None, "worse": None},
        {"step": 1, "time": 12.346},
    ]
    for line in (tmp_path / LOG).read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_a_line_is_there_once_it_is_logged(tmp_path: Path) -> None:
    tracker = JsonLines(tmp_path / LOG, None)
    for step in range(3):
        tracker.log(step, {"loss": 1.0})
        assert [line["step"] for line in read_log(tmp_path / LOG)] == list(range(step + 1))
    tracker.close()


@pytest.mark.parametrize("resume_step", [0, 4, 7, 10, 12])
def test_a_resumed_run_has_each_step_once(tmp_path: Path, resume_step: int) -> None:
    write_steps(tmp_path / LOG, 1, 10)
    whole = (tmp_path / LOG).read_bytes()
    write_steps(tmp_path / LOG, resume_step + 1, 15, resume_step)
    steps = [line["step"] for line in read_log(tmp_path / LOG)]
    assert steps == [step for step in range(1, 16) if step <= 10 or step > resume_step]
    if resume_step < 10:
        assert (tmp_path / LOG).read_bytes().startswith(whole)


def test_every_torn_tail_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / LOG
    write_steps(path, 1, 3)
    whole = path.read_bytes()
    two = whole[: whole.rindex(b"\n", 0, -1) + 1]
    for length in range(len(two), len(whole)):
        path.write_bytes(whole[:length])
        assert [line["step"] for line in read_log(path)] == [1, 2]
        write_steps(path, 3, 3, 2)
        assert path.read_bytes() == whole
    path.write_bytes(whole + bytes(4096))  # a file system that gave the room but not the bytes
    write_steps(path, 4, 4, 3)
    assert [line["step"] for line in read_log(path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("line", [b"{", b"[]", b"3", b'{"loss": 1}', b'{"step": "1"}', b'{"step": true}', b"\xff", b""])
def test_a_damaged_line_among_others_is_refused_with_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / LOG
    write_steps(path, 1, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], line + b"\n", *lines[1:]]))
    before = path.read_bytes()
    for ask in (lambda: read_log(path), lambda: JsonLines(path, 3)):
        with pytest.raises(InputError, match=r"log\.jsonl: a line of the log is damaged: 2"):
            ask()
    assert path.read_bytes() == before


def test_a_fresh_run_does_not_write_into_another_log(tmp_path: Path) -> None:
    write_steps(tmp_path / LOG, 1, 3)
    with pytest.raises(InputError, match="a fresh run has no log yet"):
        JsonLines(tmp_path / LOG, None)
    assert len(read_log(tmp_path / LOG)) == 3
    write_steps(tmp_path / LOG, 1, 2, 0)
    assert len(read_log(tmp_path / LOG)) == 2


def test_steps_do_not_go_down_and_names_are_not_taken_twice(tmp_path: Path) -> None:
    tracker = JsonLines(tmp_path / LOG, 5)
    tracker.log(6, {})
    with pytest.raises(ValueError, match="step 5 after 6"):
        tracker.log(5, {})
    with pytest.raises(ValueError, match="names that every line has"):
        tracker.log(7, {"time": 3})
    tracker.close()
    assert [line["step"] for line in read_log(tmp_path / LOG)] == [6]


def test_a_full_disk_is_told_and_what_was_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = JsonLines(tmp_path / LOG, None)
    tracker.log(1, {"loss": 1.0})
    real = os.write

    def filling(file: int, data: Any) -> int:
        monkeypatch.setattr(os, "write", full)
        return real(file, bytes(data)[:5])

    def full(file: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", filling)
    with pytest.raises(InputError, match=r"log\.jsonl: the log cannot be written \(No space left on device\)"):
        tracker.log(2, {"loss": 1.0})
    assert [line["step"] for line in read_log(tmp_path / LOG)] == [1]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the log cannot be written"):
        open_trackers([], tmp_path / "missing", CONFIG)


class FakeService(ModuleType):
    """A module with wandb's calls that writes down what it was asked."""

    def __init__(self, name: str):
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []
        self.broken = ""

    def _call(self, name: str, what: Any) -> None:
        if name == self.broken:
            raise ConnectionError("no route")
        self.calls.append((name, what))

    def init(self, **options: Any) -> None:
        self._call("init", options)

    def log(self, values: dict[str, Any], step: int) -> None:
        self._call("log", (step, values))

    def finish(self) -> None:
        self._call("finish", None)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    """The same fake under both names."""
    fake = FakeService("service")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_gets_the_run_and_is_resumed_under_its_name(tmp_path: Path, service: FakeService, name: str) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    for resume_step in (None, 2):
        tracker = open_trackers([name], folder, CONFIG, resume_step)
        for step in (1, 2) if resume_step is None else (3,):
            tracker.log(step, {"loss": 0.5, "none": None})
        tracker.close()
    starts = [options for call, options in service.calls if call == "init"]
    assert [options["resume"] for options in starts] == ["never", "allow"]
    for options in starts:
        assert (options["project"], options["name"], options["config"]) == ("nas", "first", CONFIG)
        assert set(options) - {"project", "name", "config", "resume"} == ({"id", "dir"} if name == "wandb" else set())
    assert starts[0].get("id") == starts[1].get("id")
    assert [what for call, what in service.calls if call == "log"] == [(step, {"loss": 0.5}) for step in (1, 2, 3)]
    assert [call for call, _ in service.calls].count("finish") == 2
    assert [line["step"] for line in read_log(folder / LOG)] == [1, 2, 3]


def test_runs_of_one_name_in_two_places_are_two_for_a_service(tmp_path: Path, service: FakeService) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "same").mkdir(parents=True)
        open_trackers(["wandb"], tmp_path / place / "same", CONFIG).close()
    first, second = (options["id"] for call, options in service.calls if call == "init")
    assert first != second


def test_a_service_that_fails_is_left_out_and_the_log_goes_on(tmp_path: Path, service: FakeService) -> None:
    tracker = open_trackers(["trackio"], tmp_path, CONFIG)
    tracker.log(1, {"loss": 1.0})
    service.broken = "log"
    with pytest.warns(RuntimeWarning, match=r"trackio failed to log and is left out .*ConnectionError: no route"):
        tracker.log(2, {"loss": 1.0})
    service.broken = ""
    tracker.log(3, {"loss": 1.0})
    tracker.close()
    assert [call for call, _ in service.calls] == ["init", "log"]
    assert [line["step"] for line in read_log(tmp_path / LOG)] == [1, 2, 3]


def test_a_service_that_cannot_start_is_told(tmp_path: Path, service: FakeService) -> None:
    service.broken = "init"
    with pytest.raises(InputError, match=r"the tracker cannot start \(ConnectionError: no route\): 'wandb'"):
        open_trackers(["wandb"], tmp_path, CONFIG)


class FakeWriter:
    made: list[FakeWriter] = []

    def __init__(self, log_dir: str, purge_step: int | None):
        self.log_dir, self.purge_step = log_dir, purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.text, self.closed = "", False
        FakeWriter.made.append(self)

    def add_text(self, name: str, text: str) -> None:
        self.text = text

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_numbers_and_purges_what_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = FakeWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setattr(FakeWriter, "made", [])
    for resume_step in (None, 1):
        tracker = open_trackers(["tensorboard"], tmp_path, CONFIG, resume_step)
        tracker.log(2, {"loss": 0.5, "images": 3, "network": "tiny", "none": None})
        tracker.close()
    first, second = FakeWriter.made
    assert (first.purge_step, second.purge_step) == (None, 2)
    assert first.log_dir == second.log_dir == str(tmp_path / "tensorboard")
    assert first.scalars == [("loss", 0.5, 2), ("images", 3, 2)]
    assert '"space": "tiny"' in first.text
    assert first.closed


def test_tensorboard_for_real(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resume_step, steps in ((None, (1, 2, 3)), (1, (2, 3, 4))):
        tracker = open_trackers(["tensorboard"], tmp_path, CONFIG, resume_step)
        for step in steps:
            tracker.log(step, {"loss": 1 / step + (resume_step or 0)})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("tensorboard", "torch.utils.tensorboard", "tensorboard"), ("wandb",) * 3, ("trackio",) * 3],
)
def test_a_missing_package_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"the tracker needs the package {package} \(pip install {package}"):
        open_trackers([name], tmp_path, CONFIG)
    assert not list(tmp_path.iterdir())


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such tracker: 'wand' \(nearest: wandb"):
        open_trackers(["wand"], tmp_path, CONFIG)


def test_other_ranks_track_nothing(tmp_path: Path, service: FakeService) -> None:
    tracker = open_trackers(["wandb"], tmp_path, CONFIG, rank=1)
    tracker.log(1, {"loss": 1.0})
    tracker.close()
    assert not list(tmp_path.iterdir())
    assert service.calls == []
