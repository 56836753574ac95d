"""What the door `nas.export` does: choose networks, give them weights, write, check and time every target."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from nas.core.errors import InputError
from nas.core.runs import write_whole
from nas.core.space import write_architecture
from nas.exporting import weights
from nas.exporting.card import RANDOM, card
from nas.exporting.checking import largest_difference, measured
from nas.exporting.choosing import Choice, Picked, choose, counted
from nas.exporting.folder import MADE_BY_PYTHON, joint_sum, replacing, verify, write_manifest
from nas.exporting.reading import ARCHITECTURE, WEIGHTS, read_network
from nas.exporting.subject import Subject
from nas.exporting.targets import Refused, missing, target, targets
from nas.reporting.text import text_table

CARD = "README.md"
USUAL, ALL = "timm,python", "all"

Say = Callable[[str], None]
_distributions = cache(importlib.metadata.packages_distributions)  # reads the lists of files of all that is installed


@dataclass(frozen=True)
class Request:
    """What is to leave, in which forms, to where.

    to       names of targets with commas, or `all`; what was named must succeed, of the others the reason is told
    weights  a training run, in place of the one that the search knows
    out      the export's folder; of a whole front, the folder of its exports
    seconds  of measuring, for each target; 0 measures nothing
    seed     of weights, where there are none
    push     a repository of the Hugging Face hub for the timm folder
    """

    run: str | None = None
    arch: str | None = None
    picked: Picked = field(default_factory=Picked)
    to: str | None = None
    weights: str | None = None
    out: str | None = None
    seconds: float = 2.0
    seed: int = 0
    push: str | None = None


def export(request: Request, say: Say) -> dict[str, Any]:
    """Export everything that was asked for; what came out, for JSON."""
    names, strict = _targets(request, say)
    choices = choose(request.run, request.arch, request.picked)
    givers: dict[str | None, weights.Giver] = {}
    done = []
    for choice in choices:
        run = request.weights or choice.weights
        if run not in givers:
            givers[run] = weights.random(request.seed) if run is None else weights.of_run(run)
        subject = _subject(choice, givers[run])
        if not subject.trained:
            say(f"WARNING {RANDOM.strip('*')} Give weights: --weights TRAINRUN")
        folder = choice.root / choice.label
        if request.out is not None:
            folder = Path(request.out) / choice.label if request.picked.front else Path(request.out)
        done.append({**_one(subject, folder, names, strict, request.seconds, say), "network": choice.label})
        if request.push is not None:
            say(_pushed(subject, folder, request.push))
    lines = [{**line, "network": each["network"]} for each in done for line in each.pop("targets")]
    return {"targets": lines, "exports": done}


def check(folder: str) -> list[str]:
    """What is wrong with an export: see nas.exporting.folder.verify. The network is read where all files are sound."""
    problems = verify(folder)
    if not problems:
        try:
            read_network(folder)
        except InputError as error:
            problems = [str(error)]
    return problems


def table(result: dict[str, Any]) -> str:
    """What came out, for a terminal."""
    head = ["network", "target", "largest difference", "latency ms", "eager ms", "path"]
    rows = [
        [
            line["network"],
            line["target"],
            f"{line['max_diff']:.1e}",
            *("-" if line[key] is None else f"{line[key]:.3f}" for key in ("latency_ms", "eager_ms")),
            line["path"],
        ]
        for line in result["targets"]
    ]
    return text_table(head, rows)


def _targets(request: Request, say: Say) -> tuple[list[str], bool]:
    """Names of targets, and whether each must succeed: it must where a person named it."""
    strict = request.to not in (None, ALL)
    words = [word.strip() for word in (request.to or USUAL).split(",")]
    names = list(targets()) if request.to == ALL else list(dict.fromkeys(words))
    if request.push is not None and "timm" not in names:
        raise InputError("what is pushed is the timm folder: --to timm", request.to, "--push")
    here = []
    for name in names:
        absent = missing(name)
        if absent and strict:
            raise InputError("the target needs packages that are not installed", f"{name}: {' '.join(absent)}")
        if absent:
            say(f"{name}: left out, not installed: {' '.join(absent)}")
        else:
            here.append(name)
    return here, strict


def _subject(choice: Choice, give: weights.Giver) -> Subject:
    """The network with its weights and all that is known of it."""
    weighted = give(choice.architecture)
    architecture = weighted.network.architecture
    figures = {**choice.figures, **(counted(architecture) if architecture != choice.architecture else {})}
    source = {**choice.source, **weighted.source}
    return Subject(choice.name, architecture, weighted.network, figures, source, weighted.trained)


def _one(subject: Subject, folder: Path, names: list[str], strict: bool, seconds: float, say: Say) -> dict[str, Any]:
    """Write one export; it stands in its place only once every target that is in it answers as the network does."""
    from safetensors.torch import save

    told: dict[str, dict[str, Any]] = {}
    with replacing(folder) as made:
        write_whole(made / ARCHITECTURE, write_architecture(subject.architecture, subject.name))
        state = {name: value.contiguous() for name, value in subject.network.state_dict().items()}
        write_whole(made / WEIGHTS, save(state, metadata={"format": "pt"}))
        for name in names:
            try:
                told[name] = _target(name, subject, made / name, seconds)
            except Refused as error:
                if strict:
                    raise InputError(f"{name} cannot hold this network: {error}", place=subject.name) from error
                shutil.rmtree(made / name)
                say(f"{name}: left out: {error}")
        apart = {name: line["max_diff"] for name, line in told.items()}
        write_whole(made / CARD, card(subject, apart))
        for cache in list(made.rglob(MADE_BY_PYTHON)):  # of modules that were run to be checked
            shutil.rmtree(cache)
        files = write_manifest(made, _manifest(subject, apart))
    for name, line in told.items():
        path, line["sha256"] = joint_sum(files, name)
        line["path"] = str(folder / path)
        for note in line["notes"]:
            say(f"{name}: {note}")
    say(f"{subject.name}: {folder}")
    return {"path": str(folder), "trained": subject.trained, "targets": list(told.values())}


def _target(name: str, subject: Subject, folder: Path, seconds: float) -> dict[str, Any]:
    """Write one target, run it, and time it."""
    folder.mkdir()
    target(name).write(subject, folder)
    line: dict[str, Any] = {"target": name, "max_diff": largest_difference(name, subject, folder)}
    reading = measured(name, subject, folder, seconds) if seconds > 0 else None
    line["latency_ms"] = None if reading is None else reading.ms
    line["eager_ms"] = None if reading is None else reading.reference_ms
    line["notes"] = [] if reading is None else list(reading.notes)  # what disturbed the measurement
    return line


def _manifest(subject: Subject, apart: dict[str, float]) -> dict[str, Any]:
    """What the manifest tells beside the files; no time of day and no latency, so that it is the same every time."""
    needed = {"torch", "safetensors", *(package for name in apart for package in target(name).PACKAGES)}
    known = _distributions()
    named = {known[package][0] for package in needed if package in known}
    return {
        "name": subject.name,
        "architecture": subject.architecture.digest,
        "trained": subject.trained,
        "source": subject.source,
        "figures": {key: value for key, value in subject.figures.items() if key != "architecture"},
        "targets": {name: {"max_diff": value, "tolerance": target(name).TOLERANCE} for name, value in apart.items()},
        "packages": {name: importlib.metadata.version(name) for name in sorted(named)},
    }


def _pushed(subject: Subject, folder: Path, repository: str) -> str:
    """Send the timm model to the hub, as safetensors alone; needs the network and a login of huggingface_hub."""
    from nas.exporting.pushing import push

    return f"{subject.name}: pushed to {push(subject, folder, repository)}"
