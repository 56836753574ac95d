"""Folders of exports: whole or not at all, and refused when a byte is another."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nas.core.errors import InputError
from nas.core.runs import read_json, write_json, write_whole
from nas.exporting import folder as folders
from nas.exporting.folder import MANIFEST, joint_sum, read_manifest, replacing, verify, write_manifest

ROOT = Path(__file__).resolve().parents[2]


def written(place: Path, content: str) -> dict[str, dict[str, Any]]:
    """An export of three files."""
    with replacing(place) as made:
        write_whole(made / "one", content)
        (made / "target").mkdir()
        write_whole(made / "target" / "two", content * 1000)
        write_whole(made / "three", "the same")
        return write_manifest(made, {"name": "test"})


def contents(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_an_export_is_sound_and_the_same_every_time(tmp_path: Path) -> None:
    files = written(tmp_path / "a", "x")
    written(tmp_path / "deep" / "er" / "b", "x")
    assert verify(tmp_path / "a") == verify(tmp_path / "deep" / "er" / "b") == []
    assert contents(tmp_path / "a") == contents(tmp_path / "deep" / "er" / "b")
    assert set(files) == {"one", "target/two", "three"} and read_manifest(tmp_path / "a")["name"] == "test"
    assert joint_sum(files, "target") == ("target/two", files["target/two"]["sha256"])
    printed = subprocess.run(["sha256sum", "one", "three"], cwd=tmp_path / "a", capture_output=True).stdout
    both = {f"sub/{name}": files[name] for name in ("three", "one")}
    assert joint_sum(both, "sub") == ("sub", hashlib.sha256(printed).hexdigest())


@pytest.mark.parametrize("exchange", [True, False])
def test_an_export_replaces_an_earlier_one(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(folders, "_exchange", lambda one, two: False)
    (tmp_path / "a").mkdir()  # an empty folder is no loss
    written(tmp_path / "a", "x")
    (tmp_path / "a" / "target" / "__pycache__").mkdir()
    (tmp_path / "a" / "target" / "__pycache__" / "two.pyc").write_bytes(b"left by an import")
    (tmp_path / "a" / "one").write_text("damaged: a new export is the cure")
    written(tmp_path / "a", "y")
    assert verify(tmp_path / "a") == [] and (tmp_path / "a" / "one").read_text() == "y"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_nothing_but_an_export_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    written(tmp_path / "a", "x")
    (tmp_path / "a" / "notes").write_text("mine as well")
    for name, said in (
        ("thesis", "holds something else"),
        ("file", "is a folder"),
        ("link", "is a folder"),
        ("a", "notes"),
    ):
        with pytest.raises(InputError, match=said):
            written(tmp_path / name, "y")
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "mine" and (tmp_path / "a" / "one").read_text() == "x"


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "replace", "mkdir"])
def test_a_full_disk_leaves_the_earlier_export(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at the first, second, ... call of the system that writes; every one is told with its reason."""
    place, real, calls, failed = tmp_path / "a", getattr(os, call), [0], 0
    monkeypatch.setattr(folders, "_exchange", lambda one, two: False)

    def full(*arguments: Any, **named: Any) -> Any:
        calls[0] -= 1
        if not calls[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **named)

    for at in range(1, 100):
        written(place, "x")
        before = contents(place)
        calls[0] = at
        monkeypatch.setattr(os, call, full)
        try:
            written(place, "y")
        except InputError as error:
            assert "No space left on device" in str(error)
            failed += 1
            whole = verify(place) == [] and (place / "one").read_text() == "y"  # all but the last sync was done
            assert contents(place) == before or (whole and call == "fsync")
        finally:
            monkeypatch.setattr(os, call, real)
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        if calls[0] > 0:  # there are not so many
            break
    assert failed and verify(place) == [] and (place / "one").read_text() == "y"


def test_an_export_that_was_moved_away_when_it_was_killed_goes_back(tmp_path: Path) -> None:
    written(tmp_path / "a", "x")
    written(tmp_path / "b", "y")
    before = contents(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / ".a.0123456789abcdef.old")
    (tmp_path / ".a.0123456789abcdef.new").mkdir()
    (tmp_path / "b").rename(tmp_path / ".b.0123456789abcdef.old")
    written(tmp_path / "b", "z")
    assert contents(tmp_path / "a") == before and (tmp_path / "b" / "one").read_text() == "z"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


ENDLESS = """
import sys
from pathlib import Path
from tests.exporting.test_folder import written
for number in range(10**6):
    written(Path(sys.argv[1]), str(number % 10))
    if not number:
        print("first", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_any_moment_there_is_one_whole_export(tmp_path: Path) -> None:
    place, chance = tmp_path / "a", random.Random(0)
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", ENDLESS, str(place)], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"first\n"
        time.sleep(chance.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert verify(place) == []
        assert len({(place / "one").read_text(), (place / "target" / "two").read_text()[:1]}) == 1
    written(place, "last")
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "what killed exports left is gone"


def test_one_export_at_a_time(tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process exports"):
            written(tmp_path / "a", "x")
    finally:
        os.close(held)
    written(tmp_path / "a", "x")


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_every_change_is_found_by_name_and_nothing_is_loaded(tmp_path: Path) -> None:
    place = tmp_path / "a"
    written(place, "x")
    (place / "one").write_text("z")
    (place / "target" / "two").write_text("x")
    (place / "three").unlink()
    (place / "weights.pkl").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    (place / "target" / "link").symlink_to("/etc/passwd")
    assert verify(place) == [
        "one: altered (another checksum)",
        "target/two: 1 bytes instead of 1000",
        "three: missing",
        "target/link: not part of the export",
        "weights.pkl: not part of the export",
    ]
    assert not (tmp_path / "ran").exists()
    (place / "three").symlink_to("one")
    assert "three: not a plain file" in verify(place)


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told["files"].update({"../outside": {"sha256": "0", "bytes": 1}}),
        lambda told: told.update(format=2),
        lambda told: told.update(files=["one"]),
        lambda told: told["files"].update(one={"sha256": 1}),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(change: Any, tmp_path: Path) -> None:
    written(tmp_path / "a", "x")
    told = read_json(tmp_path / "a" / MANIFEST)
    change(told)
    write_json(tmp_path / "a" / MANIFEST, told)  # with a right checksum
    assert len(verify(tmp_path / "a")) == 1


def test_a_damaged_manifest_and_none(tmp_path: Path) -> None:
    assert len(verify(tmp_path)) == 1
    written(tmp_path / "a", "x")
    data = (tmp_path / "a" / MANIFEST).read_text()
    (tmp_path / "a" / MANIFEST).write_text(data.replace("test", "text"))
    assert "checksum" in verify(tmp_path / "a")[0]
