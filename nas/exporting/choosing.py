"""Choosing: which networks leave, of a search, of a training run, or of a file, with what is known of each."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.accuracy.supernet import of_accuracy
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.runs import open_run, read_json
from nas.core.space import Space
from nas.core.units import parse_budget
from nas.exporting.subject import legal_name
from nas.model.costs import Costs
from nas.model.reference import named_network
from nas.model.spaces import shared_rules
from nas.reporting.finished import Finished, Row, open_finished
from nas.training.config import TrainConfig
from nas.training.run import RESULT
from nas.training.start import SPACE_FILE, open_for

FOLDER = "export"
SHORT = 12  # digits of a hash in a folder's name
FEWEST = 6  # digits of a hash by which a network is picked
_UNDER = re.compile(r"\s*acc(uracy)?\s+under\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Picked:
    """Which of a search's networks: by number or hash, the best under a budget, or the whole front."""

    pick: str | None = None
    best: str | None = None
    front: bool = False

    @property
    def ways(self) -> int:
        """In how many ways it is said."""
        return (self.pick is not None) + (self.best is not None) + self.front


@dataclass(frozen=True)
class Choice:
    """A network that leaves.

    label    of its folder among others of the run
    name     of the export
    root     the folder of exports
    figures  a row of nas.reporting.finished, or what a training run knows; MACs and parameters always
    source   where it comes from, in words and commands
    weights  the run that its weights are of, or None
    """

    label: str
    name: str
    architecture: Architecture
    root: Path
    figures: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None


def choose(run: str | None, arch: str | None, picked: Picked) -> list[Choice]:
    """The networks; InputError where what was said does not single them out."""
    if run is None:
        if arch is None or picked.ways:
            raise InputError("say which network: a run, or --arch FILE")
        return [_of_file(arch)]
    if (Path(run) / SPACE_FILE).is_file():
        if picked.ways:
            raise InputError("--pick, --best and --front are of a search; a training run has its network", place=run)
        return [_of_training(Path(run), arch)]
    if arch is not None or picked.ways != 1:
        rule = "of a search, say which network: --pick NUMBER or HASH, --best BUDGET, or --front"
        raise InputError(rule, place=run)
    return _of_search(open_finished(run), picked)


def _of_search(finished: Finished, picked: Picked) -> list[Choice]:
    if picked.front:
        if not finished.front:
            raise InputError("the search has no front", place=str(finished.path))
        return [_row(finished, row, str(row["number"])) for row in finished.front]
    if picked.best is not None:
        row = finished.best_under(parse_budget(_UNDER.sub("", picked.best)))
        return [_row(finished, _member(finished, row), None)]
    pick = str(picked.pick)
    if pick.isdecimal() and len(pick) < FEWEST:
        return [_row(finished, finished.member(int(pick)), str(int(pick)))]
    if not re.fullmatch(rf"[0-9a-f]{{{FEWEST},64}}", pick):
        raise InputError(f"--pick takes a number of the front, or at least {FEWEST} digits of a hash", pick)
    return [_row(finished, _member(finished, finished.row(pick)), None)]


def _member(finished: Finished, row: Row) -> Row:
    """The row as a member of the front, with what was measured, where it is one."""
    return next((member for member in finished.front if member["digest"] == row["digest"]), row)


def _row(finished: Finished, row: Row, label: str | None) -> Choice:
    place = f"{finished.path}: {row['digest'][:SHORT]}"
    architecture = Space.parse(row["architecture"], shared_rules(), place).only()
    label = label or row["digest"][:SHORT]
    about, provenance = finished.about, finished.provenance
    source = {
        "run": str(finished.path),
        "command": shlex.join(provenance.get("command", [])),
        "seed": provenance.get("seed"),
        "created": provenance.get("created"),
        "code": (provenance.get("nas") or {}).get("git_commit"),
        "machine": (provenance.get("machine") or {}).get("cpu"),
        **{key: about[key] for key in ("accuracy", "unit", "latency", "target", "budget")},
    }
    figures = {**{key: value for key, value in row.items() if key != "outline"}, **counted(architecture)}
    weights = provenance["config"].get("run")
    name = legal_name(f"{finished.path.resolve().name}_{label}")
    return Choice(label, name, architecture, finished.path / FOLDER, figures, source, weights)


def _of_training(folder: Path, arch: str | None) -> Choice:
    """The only network of a run of one, or the named one of its supernet."""
    provenance = open_run(folder).provenance
    space = Space.load(folder / SPACE_FILE, shared_rules())
    if arch is None and space.size > 1:
        rule = "the run trained a supernet: say which of its networks, --arch FILE"
        raise InputError(rule, f"{space.size} networks", str(folder))
    architecture = space.only() if arch is None else named_network(arch)
    file = arch or f"{folder}/{SPACE_FILE}"
    source = {"run": str(folder), "created": provenance.get("created"), "architecture": file}
    figures = counted(architecture)
    if space.size == 1:
        figures |= _reached(folder)
        source |= {"accuracy": "the search split, with these weights", "unit": "top-1 %"}
    label = architecture.digest[:SHORT] if arch is None else legal_name(Path(arch).stem)
    name = legal_name(f"{folder.resolve().name}_{label}")
    return Choice(label, name, architecture, folder / FOLDER, figures, source, str(folder))


def _of_file(arch: str) -> Choice:
    architecture, name = named_network(arch), legal_name(Path(arch).stem)
    return Choice(name, name, architecture, Path(FOLDER), counted(architecture), {"architecture": arch})


def counted(architecture: Architecture) -> dict[str, Any]:
    """What formulas say exactly."""
    cost = Costs().cost(architecture)
    return {"macs": cost.macs, "params": cost.params}


def _reached(folder: Path) -> dict[str, Any]:
    """The accuracies at the end of a run of one network, in percent; {} where it has not come to its end."""
    if not (folder / RESULT).is_file():
        return {}
    told = read_json(folder / RESULT)
    images = open_for(TrainConfig.model_validate(open_run(folder).config)).length("search")
    found = of_accuracy(told["search_accuracy_largest"], images)
    reached: dict[str, Any] = {"accuracy": found.value, "accuracy_sigma": found.sigma}
    if "test_accuracy_largest" in told:
        reached["test_accuracy"] = 100 * told["test_accuracy_largest"]
    return reached
