"""Where the figures of a run go: JSON lines in its folder always; TensorBoard, wandb or trackio beside them on request.

A step counts finished steps, as a checkpoint's does: what is logged at step n is known once n steps are done, and a run
that goes on from the checkpoint of step n logs from n + 1 on.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from nas.core.errors import InputError, nearest
from nas.core.runs import read_json, write_json

LOG = "log.jsonl"
MAX_LINE = 1_000_000  # bytes
PROJECT = "nas"  # of wandb-style trackers; the run has its folder's name

Value = float | int | str | None


class Tracker(Protocol):
    """Takes the configuration once, then values at steps that never go down, then the end."""

    def start(self, config: Mapping[str, Any]) -> None: ...

    def log(self, step: int, values: Mapping[str, Value]) -> None: ...

    def close(self) -> None: ...


def open_trackers(
    names: Sequence[str],
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    resume_step: int | None = None,
    rank: int = 0,
) -> Tracker:
    """The trackers of a run, started. `resume_step` is that of the checkpoint that it goes on from, 0 without one.

    None is a fresh run, whose folder has no log yet. A run that goes back by itself closes its trackers and opens them
    again. Other ranks than 0 track nothing.
    """
    for name in names:
        if name not in _BESIDE:
            raise InputError("no such tracker", name, nearest=nearest(name, _BESIDE))
    place = Path(folder)
    beside = {name: _BESIDE[name](name, place, resume_step) for name in names if rank == 0}
    log = JsonLines(place / LOG, resume_step) if rank == 0 else None
    trackers = _All(log, beside)
    trackers.start(config)
    return trackers


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a run's log; a torn last line is left out. InputError if another is damaged."""
    return [line for _, line in _lines(Path(path))]


class JsonLines:
    """One line a call: `{"step": 3, "time": 1750000000.0, "loss": 0.25}`; a number that is not finite is null.

    Lines go to the system whole and unsynced: a kill loses nothing, a power cut the last ones. On opening with a
    `resume_step`, a torn last line and all lines of later steps are cut off.
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int | None, clock: Callable[[], float] = time.time):
        self.path = Path(path)
        self._clock = clock
        self._last = 0 if resume_step is None else resume_step
        with self._told():
            held = self.path.exists() and self.path.stat().st_size > 0
            if held and resume_step is None:
                raise InputError("a fresh run has no log yet: resume, or choose another folder", place=str(self.path))
            if held:
                os.truncate(self.path, _length(self.path, self._last))
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def start(self, config: Mapping[str, Any]) -> None:
        """Nothing: run.json has the configuration."""

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        if step < self._last:
            raise ValueError(f"step {step} after {self._last}: a run that goes back opens its trackers again")
        if reserved := {"step", "time"} & set(values):
            raise ValueError(f"names that every line has: {sorted(reserved)}")
        self._last = step
        line = {
            "step": step,
            "time": round(self._clock(), 3),
            **{name: _plain(value) for name, value in values.items()},
        }
        rest = memoryview(f"{json.dumps(line, allow_nan=False)}\n".encode())
        if len(rest) > MAX_LINE:
            raise ValueError(f"a line of a log has at most {MAX_LINE} bytes")
        with self._told():
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def close(self) -> None:
        with self._told():
            os.close(self._file)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"the log cannot be written ({error.strerror})", place=str(self.path)) from error


class TensorBoard:
    """Numbers as scalars in `tensorboard/` of the run; what was logged beyond the resumed step is purged."""

    def __init__(self, name: str, folder: Path, resume_step: int | None):
        module = _needed("torch.utils.tensorboard", name, "tensorboard")
        purge = None if resume_step is None else resume_step + 1
        self._writer = module.SummaryWriter(log_dir=str(folder / "tensorboard"), purge_step=purge)

    def start(self, config: Mapping[str, Any]) -> None:
        self._writer.add_text("config", f"```\n{json.dumps(config, indent=2, default=str)}\n```")

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbStyle:
    """wandb, and trackio, which takes the same calls. A resumed run goes on under its name.

    wandb finds it by an identity that the run's folder keeps, and ignores steps that it has already; trackio finds it
    by its name, and shows the steps between the checkpoint and the kill twice.
    """

    def __init__(self, name: str, folder: Path, resume_step: int | None):
        self._module = _needed(name, name, name)
        self._options: dict[str, Any] = {
            "project": PROJECT,
            "name": folder.resolve().name,
            "resume": "never" if resume_step is None else "allow",
        }
        if name == "wandb":
            self._options |= {"id": _identity(folder / "wandb.json"), "dir": str(folder)}

    def start(self, config: Mapping[str, Any]) -> None:
        self._module.init(config=dict(config), **self._options)

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        self._module.log({name: value for name, value in values.items() if value is not None}, step=step)

    def close(self) -> None:
        self._module.finish()


_BESIDE: dict[str, Callable[[str, Path, int | None], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": WandbStyle,
    "wandb": WandbStyle,
}


class _All:
    """The log, whose failure ends the run, and those beside it, which are left out once they fail: they are copies."""

    def __init__(self, log: JsonLines | None, beside: dict[str, Tracker]):
        self._log, self._beside = log, beside

    def start(self, config: Mapping[str, Any]) -> None:
        for name, tracker in self._beside.items():
            try:
                tracker.start(config)
            except Exception as error:  # whatever a service raises; at the start somebody is there to read it
                raise InputError(f"the tracker cannot start ({type(error).__name__}: {error})", value=name) from error

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        if self._log is not None:
            self._log.log(step, values)
        self._each("log", lambda tracker: tracker.log(step, values))

    def close(self) -> None:
        self._each("close", lambda tracker: tracker.close())
        if self._log is not None:
            self._log.close()

    def _each(self, what: str, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._beside.items()):
            try:
                call(tracker)
            except Exception as error:  # a service that is down must not end a training of days
                del self._beside[name]
                told = f"{name} failed to {what} and is left out from here on ({type(error).__name__}: {error})"
                warnings.warn(told, RuntimeWarning, stacklevel=4)


def _plain(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _length(path: Path, step: int) -> int:
    """The bytes of the lines up to a step."""
    length = 0
    for end, line in _lines(path):
        if line["step"] > step:
            break
        length = end
    return length


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a log, each with the byte that it ends before; without the last if it has no end."""
    end = 0
    with open(path, "rb") as file:
        for number, data in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
            if not data.endswith(b"\n") and len(data) <= MAX_LINE:
                return
            end += len(data)
            try:
                line = json.loads(data)
                if type(line["step"]) is not int:
                    raise ValueError("no step")
            except (ValueError, TypeError, KeyError, RecursionError):
                raise InputError("a line of the log is damaged", value=number, place=str(path)) from None
            yield end, line


def _needed(module: str, name: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        rule = f"the tracker needs the package {package} (pip install {package}; {error})"
        raise InputError(rule, value=name) from None


def _identity(path: Path) -> str:
    """The name that a service knows the run by, kept in its folder: folders of equal names are other runs."""
    if not path.exists():
        write_json(path, secrets.token_hex(8))
    return str(read_json(path))
