"""Checkpoints of a run: one folder a step, which appears whole, is checked when read, and is never unpickled.

`step-000000120/` holds `tensors.safetensors` and `manifest.json`: the step, the caller's state, size and SHA-256 of the
tensors' file, and versions. It is written beside under a hidden name, synced, and renamed, so a kill, a power cut or a
full disk leaves what was there; only then are older ones removed. A step that is saved again (by a run that went back)
gets a number behind its name and replaces the first only once it stands.

One process writes: rank 0 of a group, and a lock refuses a second run in the same folder. Tensors are copied to the
host and written in the calling thread; reading holds the file in memory beside its tensors.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from nas import __version__
from nas.core.errors import InputError
from nas.core.runs import read_bounded, read_json, sync_folder, write_json

FORMAT = 1
TENSORS, MANIFEST, LOCK = "tensors.safetensors", "manifest.json", ".lock"
DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
)
_STEP = re.compile(r"step-(\d{9,18})(?:-(\d{1,9}))?")
_HIDDEN = re.compile(r"\.step-[0-9-]+\.[0-9a-f]{16}\.tmp")
_KEYS = {"format", "step", "state", "tensors", "aliases", "versions", "created"}


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds. `step` is the number of steps that were done."""

    step: int
    tensors: dict[str, Tensor]
    state: Any
    path: Path


class Checkpoints:
    """The checkpoints in a folder, of which the newest `keep` stay.

    `problems` says, after `latest`, which newer ones were passed over and why.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3, rank: int = 0):
        if keep < 1:
            raise InputError("at least one checkpoint is kept", value=keep)
        self.folder = Path(folder)
        self.keep = keep
        self.rank = rank
        self.problems: list[str] = []
        self._lock: int | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Any) -> Path | None:
        """Write a checkpoint; its folder, or None on other ranks than 0, which write nothing.

        `state` is any JSON value with finite numbers. Names for the very same tensor are written once and read back as
        one tensor; tensors that overlap in part are refused, for they would not come back as they were. Strides are
        not kept. What has a later step is removed: the run went back, and its later past is void.
        """
        if not 0 <= step < 10**18:
            raise InputError("the step of a checkpoint is 0 to 1e18 - 1", value=step)
        if self.rank != 0:
            return None
        own, aliases = _owned(tensors)
        with _told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._remove_leftovers()
            again = [1 + serial for known, serial, _ in self._found() if known == step]
            name = f"step-{step:09d}" + (f"-{max(again)}" if again else "")
            final, temporary = self.folder / name, self._hidden(name)
            try:
                temporary.mkdir()
                save_file(own, temporary / TENSORS)
                sync_folder(temporary / TENSORS)  # a file is synced as a folder is
                _write_manifest(temporary, step, state, aliases)
                shutil.copymode(temporary / MANIFEST, temporary / TENSORS)  # safetensors leaves it to the owner alone
                os.rename(temporary, final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            sync_folder(self.folder)
            self._remove_outdated(step, final)
        return final

    def latest(self) -> Saved | None:
        """The newest sound checkpoint; None if there is none, which is not a fresh start where `problems` says more.

        InputError if the newest was written in a format that this version does not know.
        """
        self.problems = []
        for _, _, path in reversed(self._found()):
            try:
                manifest = _manifest(path)
            except InputError as error:
                self.problems.append(str(error))
                continue
            _check_format(manifest, path)
            try:
                return _read(path, manifest)
            except InputError as error:
                self.problems.append(str(error))
        return None

    def load(self, step: int) -> Saved:
        """The checkpoint of a step; InputError if there is none, with those there are, or it is not sound, and why."""
        found = [path for known, _, path in self._found() if known == step]
        if not found:
            steps = sorted(self.steps, key=lambda known: abs(known - step))
            raise InputError("no checkpoint of this step", step, str(self.folder), map(str, steps[:3]))
        manifest = _manifest(found[-1])
        _check_format(manifest, found[-1])
        return _read(found[-1], manifest)

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, sound or not, in order."""
        return sorted({step for step, _, _ in self._found()})

    def close(self) -> None:
        """Let another process write here. The end of this process does so too."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _found(self) -> list[tuple[int, int, Path]]:
        """Step, number of the writing, and folder, oldest first."""
        with _told(self.folder, "read"):
            paths = list(self.folder.iterdir()) if self.folder.is_dir() else []
        named = [(match, path) for path in paths if (match := _STEP.fullmatch(path.name)) and not path.is_symlink()]
        return sorted((int(match[1]), int(match[2] or 0), path) for match, path in named)

    def _take_lock(self) -> None:
        """Be the one process that writes here: a lock of the process, which its forked workers do not inherit."""
        if self._lock is not None:
            return
        file = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(file)
                raise InputError("another process writes its checkpoints here", place=str(self.folder)) from None
            # a file system without locks: go on without
        self._lock = file

    def _hidden(self, name: str) -> Path:
        return self.folder / f".{name}.{secrets.token_hex(8)}.tmp"

    def _remove_leftovers(self) -> None:
        """What writers and removers that were killed left behind."""
        for path in self.folder.iterdir():
            if _HIDDEN.fullmatch(path.name) and not path.is_symlink():
                shutil.rmtree(path)

    def _remove_outdated(self, step: int, final: Path) -> None:
        """All but the newest `keep` that look sound; hidden first, so that none is ever seen half removed."""
        sound = 0
        for known, _, path in reversed(self._found()):
            superseded = known > step or (known == step and path != final)
            if superseded or sound >= self.keep:
                hidden = self._hidden(path.name)
                os.rename(path, hidden)
                shutil.rmtree(hidden)
            else:
                sound += _looks_sound(path)


def _owned(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors as safetensors takes them, and the further names of those that have several."""
    first: dict[tuple[Any, ...], str] = {}
    own: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or name == "__metadata__":
            raise InputError("a checkpoint holds tensors by name, and __metadata__ is none", value=name)
        if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in DTYPES:
            what = f"{name}: {tensor.dtype} {tensor.layout} on {tensor.device}"
            raise InputError("a checkpoint holds dense tensors with memory, of a plain dtype", value=what)
        value = tensor.detach().resolve_conj().resolve_neg()
        same = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if value.numel() and same in first:
            aliases[name] = first[same]
        else:
            first[same] = name
            own[name] = value
    _refuse_overlaps(own)
    return {name: value.cpu().contiguous() for name, value in own.items()}, aliases


def _refuse_overlaps(tensors: Mapping[str, Tensor]) -> None:
    last: dict[torch.device, tuple[int, str]] = {}
    for name, value in sorted(tensors.items(), key=lambda item: item[1].data_ptr()):
        if value.numel() == 0:
            continue
        reach = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True)) + 1
        end, other = last.get(value.device, (0, ""))
        if value.data_ptr() < end:
            raise InputError("tensors of a checkpoint share all of their memory or none", value=f"{other} and {name}")
        last[value.device] = (value.data_ptr() + reach * value.element_size(), name)


def _write_manifest(folder: Path, step: int, state: Any, aliases: dict[str, str]) -> None:
    with open(folder / TENSORS, "rb") as file:
        size, digest = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    manifest = {
        "format": FORMAT,
        "step": step,
        "state": state,
        "tensors": {"bytes": size, "sha256": digest},
        "aliases": aliases,
        "versions": {"nas": __version__, "torch": torch.__version__, "safetensors": metadata.version("safetensors")},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / MANIFEST, manifest)


def _manifest(path: Path) -> dict[str, Any]:
    found = read_json(path / MANIFEST)
    if not isinstance(found, dict) or type(found.get("format")) is not int:
        raise InputError("not the manifest of a checkpoint", place=str(path / MANIFEST))
    return found


def _check_format(manifest: dict[str, Any], path: Path) -> None:
    if manifest["format"] > FORMAT:
        rule = f"a newer version wrote this checkpoint: this one reads formats up to {FORMAT}"
        raise InputError(rule, value=manifest["format"], place=str(path / MANIFEST))


def _read(path: Path, manifest: dict[str, Any]) -> Saved:
    """The checkpoint in a folder, every byte checked."""
    step = int(_STEP.fullmatch(path.name)[1])  # type: ignore[index] # only folders of such names come here
    told = (manifest["format"], manifest.get("step"), type(manifest.get("aliases")))
    if set(manifest) != _KEYS or told != (FORMAT, step, dict):
        raise InputError("the manifest is not this checkpoint's", place=str(path / MANIFEST))
    if not _looks_sound(path):
        raise InputError("the file is missing or not as long as it was written", place=str(path / TENSORS))
    data = read_bounded(path / TENSORS, manifest["tensors"]["bytes"], "the tensors' file")
    if hashlib.sha256(data).hexdigest() != manifest["tensors"]["sha256"]:
        raise InputError("the file is damaged or was altered (the checksum differs)", place=str(path / TENSORS))
    try:
        tensors = load(data)
        tensors |= {name: tensors[kept] for name, kept in manifest["aliases"].items()}
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"no tensors can be read from the file ({error})", place=str(path / TENSORS)) from None
    return Saved(step, tensors, manifest["state"], path)


def _looks_sound(path: Path) -> bool:
    """Whether the manifest can be read and the file beside it has its length; the checksum is not looked at."""
    try:
        return bool((path / TENSORS).stat().st_size == _manifest(path)["tensors"]["bytes"])
    except (InputError, OSError, KeyError, TypeError):
        return False


@contextmanager
def _told(folder: Path, what: str = "written") -> Iterator[None]:
    """What the system refuses as InputError with the folder and the reason."""
    try:
        yield
    except InputError as error:
        raise InputError(error.rule, error.value, str(folder), error.nearest) from error.__cause__
    except (OSError, SafetensorError) as error:
        raise InputError(f"a checkpoint cannot be {what} ({_reason(error)})", place=str(folder)) from error


def _reason(error: Exception) -> str:
    """The system's words; safetensors gives its number in a text of its own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(number[1])) if number else str(error)
