"""Run folders and whole files: provenance, checksums, and faults that leave what was there."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.core import runs
from nas.core.errors import InputError
from nas.core.runs import differences, new_run, open_run, read_json, write_json, write_whole

CONFIG = {"space": "tiny", "budget": {"macs": 2_000_000_000}, "dims": [64, 128]}


def test_a_run_tells_where_it_came_from(tmp_path: Path) -> None:
    run = new_run(tmp_path / "runs", "first", CONFIG, ["nas.search", "--seed", "3"], seed=3)
    assert run.path == tmp_path / "runs" / "first"
    assert open_run(run.path) == run
    assert run.config == CONFIG
    told = run.provenance
    assert told["command"] == ["nas.search", "--seed", "3"]
    assert told["seed"] == 3
    assert datetime.fromisoformat(told["created"]).utcoffset() == timedelta(0)
    assert set(told["nas"]) == {"version", "git_commit", "git_dirty"}
    assert told["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert told["machine"]["cpu"]
    assert told["machine"]["cores"] >= told["machine"]["cores_usable"] >= 1
    assert set(told["packages"]) <= {"torch", "timm", "optuna"}


def test_versions_are_read_without_importing_the_packages(tmp_path: Path) -> None:
    code = f"from nas.core.runs import new_run; new_run({str(tmp_path)!r}, None, {{}}, [])"
    modules = _python(f"import sys; {code}; print(*sys.modules)").stdout.split()
    assert not {"torch", "timm", "optuna", "numpy"} & set(modules)


def test_default_names_are_utc_time_and_differ(tmp_path: Path) -> None:
    names = {new_run(tmp_path, None, {}, []).path.name for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", name) for name in names)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "/abs", "-x", ".x", "a\0", "a b", "x" * 101, "é"])
def test_names_that_leave_the_folder_or_a_shell_word_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="a run's name"):
        new_run(tmp_path, name, {}, [])
    assert not list(tmp_path.iterdir())


def test_an_occupied_folder_is_refused_unless_resumed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    first = new_run(tmp_path, "empty", CONFIG, ["first"], seed=1)
    (first.path / "results.txt").write_text("kept")
    with pytest.raises(InputError, match="empty: the folder of a new run is empty"):
        new_run(tmp_path, "empty", {}, ["second"])
    for command in ("second", "third"):
        again = new_run(tmp_path, "empty", {"other": 1}, [command], resume=True)
    assert (again.config, again.provenance["seed"], again.provenance["command"]) == (CONFIG, 1, ["first"])
    assert [r["command"] for r in again.provenance["resumed"]] == [["second"], ["third"]]
    assert (first.path / "results.txt").read_text() == "kept"
    assert new_run(tmp_path, "fresh", {}, [], resume=True).path.is_dir()


def test_a_folder_that_is_no_run_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"run\.json"):
        new_run(tmp_path, "other", {}, [], resume=True)
    write_json(tmp_path / "other" / "run.json", [1])
    with pytest.raises(InputError, match="not the record of a run"):
        open_run(tmp_path / "other")
    new_run(tmp_path, "search-a", {}, [])
    with pytest.raises(InputError, match=r"no such run \(nearest: search-a\)"):
        open_run(tmp_path / "serch-a")


def test_a_root_that_cannot_hold_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file in place of the folder")
    with pytest.raises(InputError, match=r"file.x: the folder cannot be made \(Not a directory\)"):
        new_run(tmp_path / "file", "x", {}, [])
    with pytest.raises(InputError, match="cannot be made"):
        new_run(tmp_path, "file", {}, [])


def test_passwords_are_not_written(tmp_path: Path) -> None:
    url = "postgresql://nas:s3cr@et@host:5432/db"
    run = new_run(
        tmp_path, "x", {"storage": url, "plain": "a:b@c"}, ["--storage", url, "pg://h/db?password=s3cret&x=1"]
    )
    assert "s3cr" not in (run.path / "run.json").read_text()
    assert run.config == {"storage": "postgresql://nas:***@host:5432/db", "plain": "a:b@c"}
    assert run.provenance["command"][2] == "pg://h/db?password=***&x=1"
    assert differences(run.config, {"storage": url, "plain": "a:b@c"}) == []


def test_differences_are_named_one_by_one() -> None:
    before = {"space": {"name": "tiny", "old": 1}, "seed": 1, "same": [1, 2], "dims": (1, 2)}
    after = {"space": {"name": "small", "new": 1}, "seed": 2, "same": [1, 2], "dims": [1, 2]}
    assert differences(before, after) == [
        "space.name: 'tiny' -> 'small'",
        "space.old: removed",
        "space.new: added",
        "seed: 1 -> 2",
    ]


def test_git_state_is_that_of_the_checkout_that_tracks_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "elsewhere")
    assert runs._git_state(tmp_path / "code.py") == (None, None)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {"HOME": str(tmp_path)}

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, env=environment)

    code = tmp_path / "code.py"
    code.write_text("1")
    git("init")
    assert runs._git_state(code) == (None, None)
    git("add", "code.py")
    git("commit", "-m", "one")
    commit, dirty = runs._git_state(code)
    assert commit is not None
    assert re.fullmatch("[0-9a-f]{40,64}", commit)
    assert dirty is False
    code.write_text("2")
    assert runs._git_state(code) == (commit, True)


def test_write_whole_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"old", "new é", b"", b"x" * 3_000_000):
        write_whole(path, data)
        assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o600 == 0o600


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_fault_leaves_the_old_file_and_names_path_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "table.json"
    write_json(path, {"old": 1})

    def fail(*arguments: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(InputError) as refused:
            write_json(path, {"new": 2})
    assert str(refused.value) == f"{path}: the file cannot be written ({os.strerror(code)})"
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_in_the_middle(tmp_path: Path) -> None:
    """A real limit of the system, on the size of a file: the first part is written, then the write fails."""
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from nas.core.errors import exit_on_input_error\n"
        "from nas.core.runs import write_whole\n"
        f"exit_on_input_error(write_whole)({str(path)!r}, b'x' * 100_000)"
    )
    done = _python(code, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {path}: the file cannot be written (File too large)\n"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_removes_the_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(file: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", b"new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path: Path, call: str) -> None:
    path = tmp_path / "file"
    write_json(path, "old")
    code = (
        "import os, signal\n"
        "from nas.core.runs import write_json\n"
        "real_write = os.write\n"
        "def die(*arguments):\n"
        f"    if {call!r} == 'write': real_write(arguments[0], bytes(arguments[1])[:10])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"os.{call} = die\n"
        f"write_json({str(path)!r}, 'new')"
    )
    assert _python(code, check=False).returncode == -9
    assert read_json(path) == "old"
    write_json(path, "after")
    assert read_json(path) == "after"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file in place of a folder")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x", tmp_path / "missing" / "x", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot be written") as refused:
            write_whole(path, b"data")
        assert refused.value.place == str(path)
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=5), v, max_size=4),
    max_leaves=10,
)


@given(value=_JSON)
@settings(max_examples=50, deadline=None)
def test_json_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    again = read_json(path)
    assert again == value
    assert json.dumps(again) == json.dumps(value)


def test_json_refuses_what_would_not_read_back(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    for value in (math.nan, [math.inf], {1: "a", "1": "b"}):
        with pytest.raises(InputError, match="cannot be written as JSON"):
            write_json(path, value)
    assert not path.exists()
    write_json(path, {2: (1, 2), 10: None})
    assert read_json(path) == {"2": [1, 2], "10": None}


def test_every_truncation_and_every_flipped_bit_that_matters_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    value = {"latency_ms": 12.5, "name": "tiny", "rows": [1, 2, -3e-7], "none": None}
    write_json(path, value)
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        for damaged in (whole[:position], bytes(flipped)):
            path.write_bytes(damaged)
            try:
                assert read_json(path) == value  # white space only
            except InputError as error:
                refused += 1
                assert "damaged or was altered" in error.rule
                assert error.place == str(path)
    assert refused > 1.5 * len(whole)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"content": 1}',
        '{"sha256": "0", "content": NaN}',
        '{"sha256": "0", "content": 1e999}',
        '{"sha256": "0", "content": {"a": 1, "a": 2}}',
        '{"sha256": null, "content": 1}',
        '{"sha256": "0", "content": 1, "content": 1}',
        '{"sha256": "0", "content": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"sha256": "0", "content": ' + "1" * 10_000 + "}",
    ],
)
def test_files_that_are_not_ours_are_refused_with_one_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "value.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"value\.json: the file is damaged or was altered"):
        read_json(path)


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_json(tmp_path / "missing.json")
    with pytest.raises(InputError, match="Is a directory"):
        read_json(tmp_path)
    with pytest.raises(InputError, match="not legal"):
        read_json("no\0path")
    (tmp_path / "binary").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(InputError, match="damaged"):
        read_json(tmp_path / "binary")
    monkeypatch.setattr(runs, "MAX_JSON_BYTES", 2)
    with pytest.raises(InputError, match="at most 2 bytes"):
        read_json(tmp_path / "binary")


def _python(code: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=check, timeout=60, env=environment
    )


def test_a_run_killed_while_its_record_was_written_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".0123456789abcdef.tmp").write_text("half")
    assert new_run(tmp_path, "run", {"a": 1}, []).config == {"a": 1}
