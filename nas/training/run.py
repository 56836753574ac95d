"""A whole run: its folder, data, start and training; what the door and benchmarks call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas.core.errors import InputError
from nas.core.runs import differences, new_run, open_run, write_json
from nas.training.config import TrainConfig
from nas.training.distributed import Group
from nas.training.loop import Training
from nas.training.start import open_for, start, write_space

RESULT = "result.json"
MAY_CHANGE = ("minutes", "workers", "device", "data_root", "save_every", "keep", "evaluate_every", "trackers")


def train(
    config: TrainConfig,
    root: str | Path,
    name: str | None,
    command: list[str],
    group: Group,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
    shown: bool = True,
    test: bool = True,
) -> dict[str, Any]:
    """Train in `root/name/` on this process of a group; the figures, which also stand in its result.json.

    test: whether the test split is looked at, at the end. A search never does.
    """
    stored = config.model_dump(mode="json")
    if resume:
        _same_run(Path(root) / str(name), stored)
    data = open_for(config)
    begun = start(config, data)
    made: str | None = None
    if group.rank == 0:
        folder = new_run(root, name, stored, command, seed=config.seed, resume=resume).path
        write_space(folder, begun.document)
        made = str(folder)
        for note in begun.notes:
            say(note)
    folder = Path(group.agree(made))
    figures = Training(config, begun, data, folder, group).run(resume, shown, test)
    result = {"run": str(folder), **figures}
    if group.rank == 0:
        write_json(folder / RESULT, result)
    return result


def _same_run(folder: Path, stored: dict[str, Any]) -> None:
    """Refuse to go on with a run under another configuration, but for what changes no weight."""
    changed = differences(open_run(folder).config, stored)
    refused = [line for line in changed if not line.startswith(tuple(f"{key}" for key in MAY_CHANGE))]
    if refused:
        raise InputError("a run goes on as it began; these differ", value="; ".join(refused), place=str(folder))
