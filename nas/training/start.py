"""Where a run starts: its space and a supernet with fresh, inherited or timm's weights; the supernet of a finished run.

A run's folder holds run.json (configuration and provenance), space.yaml (the space as it was trained) and checkpoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.runs import open_run, write_whole
from nas.core.space import Space
from nas.core.yamlfile import dump_yaml, load_yaml
from nas.model.reference import named_network
from nas.model.spaces import shared_rules, space_document
from nas.model.supernet import Supernet
from nas.training.checkpoints import Checkpoints
from nas.training.config import TrainConfig
from nas.training.data import open_data
from nas.training.data.base import Data
from nas.training.data.randomness import seeded
from nas.training.evaluating import calibration_batches
from nas.training.pretrained import elastic_supernet
from nas.training.state import into_module

SPACE_FILE = "space.yaml"
CHECKPOINTS = "checkpoints"
TIMM = "timm:"


class Start(NamedTuple):
    """A space, its file, a supernet, and what there is to say of the weights."""

    space: Space
    document: dict[str, Any]
    supernet: Supernet
    notes: list[str]


class Trained(NamedTuple):
    """The supernet of a run as its newest sound checkpoint has it."""

    space: Space
    supernet: Supernet
    step: int
    config: TrainConfig
    notes: list[str]


def open_for(config: TrainConfig) -> Data:
    """The data of a run, of the size and channels that its networks read; those of timm's adapt to the data's."""
    size, channels = config.size, None
    if not _from_timm(config):
        document = _document(config)
        channels, input = document.get("channels", 3), document.get("input", 224)
        size = size or (max(input) if isinstance(input, list) else input)
    return open_data(config.data, size, channels, seed=config.data_seed, root=config.data_root)


def start(config: TrainConfig, data: Data) -> Start:
    """The supernet that a run begins with, on the CPU; fresh weights are a function of the seed."""
    changes = {"classes": data.classes, "channels": data.channels, "input": data.size}
    if _from_timm(config):
        name = str(config.init).removeprefix(TIMM)
        batches = calibration_batches(data, config.importance) if config.importance else None
        made = elastic_supernet(name, config.elastic, **changes, batches=batches, seed=config.seed)
        return Start(made.space, made.document, made.supernet, made.notes)
    document = {**_document(config), **changes}
    space = Space.parse(document, shared_rules(), config.arch or config.space)
    with seeded(config.seed):
        supernet = Supernet(space)
    if config.init is None:
        return Start(space, document, supernet, [])
    return Start(space, document, supernet, _inherit(supernet, trained(config.init), config))


def _from_timm(config: TrainConfig) -> bool:
    if config.init is None or not config.init.startswith(TIMM):
        return False
    if config.arch is not None:
        raise InputError("a run starts from timm's network or trains one architecture, not both", config.arch)
    return True


def _document(config: TrainConfig) -> dict[str, Any]:
    """The file of the space, or of the architecture that is trained alone."""
    if config.arch is None:
        return space_document(config.space)
    return {"name": Path(config.arch).stem, **named_network(config.arch).to_dict()}


def trained(folder: str | Path) -> Trained:
    """Open a run of nas.train; the averaged weights where it keeps them."""
    run = open_run(folder)
    config = TrainConfig.model_validate(run.config)
    document = load_yaml(run.path / SPACE_FILE)
    space = Space.parse(document, shared_rules(), str(run.path / SPACE_FILE))
    checkpoints = Checkpoints(run.path / CHECKPOINTS, config.keep)
    saved = checkpoints.latest()
    if saved is None:
        raise InputError("the run has no sound checkpoint yet", place=str(run.path), value=checkpoints.problems)
    supernet = Supernet(space)
    name = "ema" if any(key.startswith("ema:") for key in saved.tensors) else "supernet"
    into_module(name, supernet, saved.tensors)
    return Trained(space, supernet.eval(), saved.step, config, list(checkpoints.problems))


def write_space(folder: Path, document: dict[str, Any]) -> None:
    """Keep the space beside the run's checkpoints."""
    write_whole(folder / SPACE_FILE, dump_yaml(document))


def _inherit(supernet: Supernet, giver: Trained, config: TrainConfig) -> list[str]:
    """Copy the weights of a run: of one of its networks, or of its whole bank."""
    if config.arch is None:
        return _copied(giver.supernet.state_dict(), supernet.state_dict(), str(config.init))
    network = supernet.bind(supernet.space.only())
    given = giver.supernet.extract(_as_given(network.architecture, giver.space))
    return _copied(given.state_dict(), network.state_dict(), str(config.init))


def _as_given(wanted: Architecture, space: Space) -> Architecture:
    """The architecture with the number of classes of the run that it comes from."""
    document = {**wanted.to_dict(), "classes": space.template.classes}
    return Space.parse(document, shared_rules(), "the network").only()


@torch.no_grad()
def _copied(given: dict[str, Tensor], own: dict[str, Tensor], place: str) -> list[str]:
    """Copy in place what has a counterpart of the same shape; say what stays fresh. Nothing alike is refused."""
    fresh = []
    for name, tensor in own.items():
        if name in given and given[name].shape == tensor.shape:
            tensor.copy_(given[name])
        else:
            fresh.append(name)
    if len(fresh) == len(own):
        raise InputError("no weight of the run fits this space", place=place)
    return [f"{len(own) - len(fresh)} tensors of {place}, {len(fresh)} fresh: {', '.join(fresh[:6])}"] if fresh else []
