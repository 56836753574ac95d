"""Run folders, and files that appear whole and are read back only if unaltered."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from nas import __version__
from nas.core.errors import InputError, nearest

RUN_FILE = "run.json"
MAX_JSON_BYTES = 256_000_000
PACKAGES = ("torch", "timm", "optuna")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")  # what a killed `write_whole` leaves
_PASSWORD = re.compile(r"((?<=://)[^/:@\s]*:)[^/\s]+(?=@)|([?&]password=)[^&\s]+", re.IGNORECASE)


@dataclass(frozen=True)
class Run:
    """The folder of one run and what its run.json says: command, config, seed, code, machine, packages."""

    path: Path
    provenance: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration that the run was started with, passwords in URLs masked."""
        return dict(self.provenance["config"])


def new_run(
    root: str | os.PathLike[str],
    name: str | None,
    config: dict[str, Any],
    command: list[str],
    *,
    seed: int | None = None,
    resume: bool = False,
) -> Run:
    """Make `root/name/` with its run.json; without a name, one of UTC time and four random digits.

    A folder that already holds something is refused, unless `resume`: then its run.json must be sound, is kept, and
    gets this command added to `resumed`. Whether the configuration may differ is the caller's to say: `differences`.
    """
    made_name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}" if name is None else name
    if not _NAME.fullmatch(made_name):
        raise InputError("a run's name is 1 to 100 of A-Z a-z 0-9 . _ - and starts with no . or -", value=made_name)
    path = Path(root) / made_name
    try:
        path.mkdir(parents=True, exist_ok=True)
        occupied = any(not _TEMPORARY.fullmatch(inside.name) for inside in path.iterdir())
    except OSError as error:
        raise InputError(f"the folder cannot be made ({error.strerror})", place=str(path)) from None
    created = datetime.now(UTC).isoformat(timespec="seconds")
    if not occupied:
        provenance = {"command": command, "config": config, "seed": seed, "created": created, **environment()}
    elif resume:
        provenance = dict(open_run(path).provenance)
        again = {"command": command, "created": created, **environment()}
        provenance["resumed"] = [*provenance.get("resumed", []), again]
    else:
        raise InputError("the folder of a new run is empty: choose another name, or resume", place=str(path))
    write_json(path / RUN_FILE, _masked(provenance))
    return open_run(path)


def open_run(path: str | os.PathLike[str]) -> Run:
    """The run of an existing folder; InputError if there is none or its run.json is not sound."""
    folder = Path(path)
    if not folder.is_dir():
        siblings = folder.parent.iterdir() if folder.parent.is_dir() else ()
        names = [p.name for p in siblings if (p / RUN_FILE).is_file()]
        raise InputError("no such run", place=str(folder), nearest=nearest(folder.name, names))
    provenance = read_json(folder / RUN_FILE)
    if not isinstance(provenance, dict) or not isinstance(provenance.get("config"), dict):
        raise InputError("not the record of a run", place=str(folder / RUN_FILE))
    return Run(folder, provenance)


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Where two configurations differ, one line each: `space.name: 'tiny' -> 'small'`; passwords are masked in both."""
    return list(_differences(_masked(before), _masked(after), place))


def _differences(before: Any, after: Any, place: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(k for k in after if k not in before)]:
            inner = f"{place}.{key}" if place else str(key)
            if key not in before or key not in after:
                yield f"{inner}: {'added' if key in after else 'removed'}"
            else:
                yield from _differences(before[key], after[key], inner)
    elif before != after:
        yield f"{place}: {before!r} -> {after!r}"


def write_whole(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file so that it is the old one or the new one at every moment, also through a kill or a power cut.

    Writes beside, syncs, replaces, syncs the folder. On failure the old file stands, the temporary is removed, and
    InputError names the path and the system's reason. Text is written as UTF-8. A symbolic link is replaced.
    """
    target = Path(path)
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        try:
            _write_synced(temporary, data.encode("utf-8") if isinstance(data, str) else data)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise InputError(f"the file cannot be written ({error.strerror or error})", place=str(target)) from error


def _write_synced(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync a folder
            raise
    finally:
        os.close(folder)


def read_bounded(path: str | os.PathLike[str], most: int, what: str) -> bytes:
    """The bytes of a file of at most so many; InputError, with `what` it should be, if it is longer or unreadable."""
    place = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror})", place=place) from None
    except ValueError as error:  # a NUL in the path
        raise InputError(f"the path is not legal ({error})", place=place) from None
    if len(data) > most:
        raise InputError(f"{what} has at most {most} bytes", place=place)
    return data


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON value whole, with the SHA-256 of its canonical form beside it in the file.

    Tuples become lists. InputError for non-finite numbers and for keys that become equal as text.
    """
    try:
        content = _strict_loads(json.dumps(value, allow_nan=False))
    except ValueError as error:
        raise InputError(f"the value cannot be written as JSON ({error})", place=os.fspath(path)) from None
    envelope = {"sha256": _checksum(content), "content": content}
    write_whole(path, json.dumps(envelope, allow_nan=False, indent=1) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value of a file that `write_json` wrote; InputError if it is missing, truncated, altered or over 256 MB."""
    place = os.fspath(path)
    data = read_bounded(path, MAX_JSON_BYTES, "a JSON file")
    try:
        envelope = _strict_loads(data.decode("utf-8"))
        if not isinstance(envelope, dict) or set(envelope) != {"sha256", "content"}:
            raise ValueError("no checksum")
        if envelope["sha256"] != _checksum(envelope["content"]):
            raise ValueError("the checksum differs")
    except (ValueError, RecursionError) as error:
        reason = str(error) or "nested too deeply"
        raise InputError(f"the file is damaged or was altered ({reason})", place=place) from None
    return envelope["content"]


def _checksum(content: Any) -> str:
    canonical = json.dumps(content, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _strict_loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is given twice")
    return made


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")


def _masked(value: Any) -> Any:
    """The value with the passwords of URLs (`scheme://user:password@host`, `?password=`) replaced by ***."""
    if isinstance(value, str):
        return _PASSWORD.sub(r"\1\2***", value)
    if isinstance(value, (list, tuple)):
        return [_masked(v) for v in value]
    return {k: _masked(v) for k, v in value.items()} if isinstance(value, dict) else value


def environment() -> dict[str, Any]:
    """Code, machine and package versions; None for what cannot be told. Imports none of the packages."""
    commit, dirty = _git_state(Path(__file__).resolve())
    return {
        "nas": {"version": __version__, "git_commit": commit, "git_dirty": dirty},
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "cores_usable": usable_cores(),
        },
        "packages": {name: _version(name) for name in PACKAGES if _version(name) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int | None:
    """The cores that this process may use; None where the system does not tell."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on every system
        return os.cpu_count()


def _git_state(file: Path) -> tuple[str | None, bool | None]:
    """(commit, whether anything differs from it) of the checkout that tracks this file, else (None, None)."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {"GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=variables)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # an installed copy inside another project's checkout is not ours
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None
