"""Folder: an export appears whole, with a checksum of every file, and is refused when a byte of it is another.

It is made beside its place under a hidden name, synced, and then exchanged with what was there; so a full disk, a kill
or a power cut leaves the earlier export, and whatever a killed process left is cleared away by the next export. Only an
export is ever replaced: a folder that holds anything else is refused.

manifest.json lists size and SHA-256 of every other file and has a checksum of its own. These find damage and what was
added or altered by chance or carelessness; they are no signature.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas.core.errors import InputError
from nas.core.runs import read_json, sync_folder, write_json

MANIFEST = "manifest.json"
FORMAT = 1
MADE_BY_PYTHON = "__pycache__"  # beside a module that a user imports; replaced with the export, and told by `verify`
_HIDDEN = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.(?P<kind>new|old)")
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """An empty hidden folder, which is exchanged with `place` when the block ends well, and else removed."""
    place = place.absolute()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder cannot be made ({error.strerror})", place=str(place.parent)) from None
    with _alone(place.parent):
        _clear(place.parent)
        refuse_other(place)
        made = _hidden(place, "new")
        try:
            made.mkdir()
            yield made
            _sync(made)
            _put(made, place)
        except OSError as error:
            raise InputError(f"the export cannot be written ({error.strerror or error})", place=str(place)) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)


def refuse_other(place: Path) -> None:
    """InputError where a folder to be replaced is not an export, or holds files that are not of it."""
    if not place.is_symlink() and not place.exists():
        return
    if place.is_symlink() or not place.is_dir():
        raise InputError("an export is a folder: choose another place for it", place=str(place))
    if not any(place.iterdir()):
        return
    rule = "only an earlier export is replaced, and this folder holds something else"
    try:
        listed = _listed(place)
    except InputError as error:
        raise InputError(f"{rule} ({error.rule})", place=str(place)) from None
    foreign = [name for name in _names(place) if name not in listed and MADE_BY_PYTHON not in Path(name).parts]
    if foreign:
        raise InputError(rule, foreign[0], str(place))


def write_manifest(folder: Path, told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """List every file of a folder, beside what is told of the whole; the list."""
    files = {name: _sum(folder / name) for name in _names(folder)}
    write_json(folder / MANIFEST, {"format": FORMAT, **told, "files": files})
    return files


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of an export tells; InputError where there is none or it was altered."""
    told = read_json(folder / MANIFEST)
    files = told.get("files") if isinstance(told, dict) else None
    known = files.values() if isinstance(files, dict) else [None]
    if not all(isinstance(each, dict) and {"sha256", "bytes"} <= each.keys() for each in known):
        raise InputError("not the manifest of an export", place=str(folder / MANIFEST))
    if told.get("format") != FORMAT:
        rule = f"another version wrote this export: this one reads format {FORMAT}"
        raise InputError(rule, told.get("format"), str(folder / MANIFEST))
    return told


def verify(folder: str | os.PathLike[str]) -> list[str]:
    """What is wrong with an export, a line each, by name: missing, changed or added files. Nothing of it is loaded."""
    folder = Path(folder)
    try:
        listed = read_manifest(folder)["files"]
    except InputError as error:
        return [str(error)]
    there, problems = set(_names(folder)), []
    for name, known in sorted(listed.items()):
        path = folder / name
        if name not in there:
            problems.append(f"{name}: missing")
        elif path.is_symlink() or not path.is_file():
            problems.append(f"{name}: not a plain file")
        elif path.stat().st_size != known["bytes"]:
            problems.append(f"{name}: {path.stat().st_size} bytes instead of {known['bytes']}")
        elif _sum(path)["sha256"] != known["sha256"]:
            problems.append(f"{name}: altered (another checksum)")
    return problems + [f"{name}: not part of the export" for name in sorted(there - listed.keys())]


def joint_sum(files: dict[str, dict[str, Any]], under: str) -> tuple[str, str]:
    """Path and SHA-256 of what lies in a sub-folder: of its only file, or of the list that sha256sum prints of it."""
    inside = {name: known["sha256"] for name, known in sorted(files.items()) if name.startswith(f"{under}/")}
    if len(inside) == 1:
        (only,) = inside.items()
        return only
    lines = "".join(f"{digest}  {name.removeprefix(f'{under}/')}\n" for name, digest in inside.items())
    return under, hashlib.sha256(lines.encode()).hexdigest()


def _listed(folder: Path) -> set[str]:
    return {MANIFEST, *read_manifest(folder)["files"]}


def _names(folder: Path) -> list[str]:
    """Everything in a folder that is no folder, by its path in it; links are not followed, the manifest is left out."""
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            found.append(path.relative_to(folder).as_posix())
    return sorted(name for name in found if name != MANIFEST)


def _sum(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": os.fstat(file.fileno()).st_size}


def _sync(folder: Path) -> None:
    """Everything on the disk, files before folders."""
    for inside, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync_folder(Path(inside) / name)  # a file is synced as a folder is
        sync_folder(Path(inside))


def _put(made: Path, place: Path) -> None:
    """Exchange two folders in one step where the system can, else move one away and the other in."""
    if not place.exists():
        os.rename(made, place)
    elif _exchange(made, place):
        shutil.rmtree(made)
    else:
        old = _hidden(place, "old")
        os.rename(place, old)  # killed after this, the next export puts it back
        try:
            os.rename(made, place)
        except OSError:
            os.rename(old, place)
            raise
        shutil.rmtree(old)
    sync_folder(place.parent)


def _exchange(one: Path, two: Path) -> bool:
    """Whether the system exchanged two folders in one step (Linux, on most file systems)."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(call(_HERE, os.fsencode(one), _HERE, os.fsencode(two), ctypes.c_uint(_EXCHANGE)) == 0)


def _clear(parent: Path) -> None:
    """Remove what killed exports left; an old one whose place is empty was about to be replaced and goes back."""
    for path in sorted(parent.iterdir()):
        match = _HIDDEN.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_dir():
            continue
        if match["kind"] == "old" and not (parent / match["name"]).exists():
            os.rename(path, parent / match["name"])
        else:
            shutil.rmtree(path)


def _hidden(place: Path, kind: str) -> Path:
    return place.parent / f".{place.name}.{secrets.token_hex(8)}.{kind}"


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """One export at a time in a folder: a lock of this process, which its end lets go."""
    folder = os.open(parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise InputError("another process exports into this folder", place=str(parent)) from None
            # a file system without locks: go on without
        yield
    finally:
        os.close(folder)
