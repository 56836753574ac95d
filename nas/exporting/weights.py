"""Weights of a network that is exported: those of a run of nas.train, or fresh ones from a seed.

Of a run, the network is taken out of its supernet (which of a run of one network is that network), and batch norms get
their statistics on the run's training images, as the accuracy that was reported had them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.runs import open_run
from nas.core.space import Space
from nas.model.network import Network
from nas.model.spaces import shared_rules
from nas.training.config import TrainConfig
from nas.training.data.randomness import seeded
from nas.training.evaluating import has_batch_norm, recalibrate
from nas.training.start import open_for, trained


class Weighted(NamedTuple):
    """A network with weights in eval mode, where they come from, and whether they were trained."""

    network: Network
    source: dict[str, Any]
    trained: bool


Giver = Callable[[Architecture], Weighted]


def of_run(folder: str | Path) -> Giver:
    """What gives networks the weights of a run; one of other classes, channels or size of images is made for its data.

    InputError, with the first difference, for a network that is not in the run's space.
    """
    run, giver = open_run(folder), trained(folder)
    command = shlex.join(run.provenance.get("command", []))

    def give(architecture: Architecture) -> Weighted:
        wanted = _for_data(architecture, giver.space)
        try:
            network = giver.supernet.extract(wanted)
        except InputError as error:
            raise error.with_place(f"the weights of {folder}") from None
        source: dict[str, Any] = {"weights": f"{folder}, step {giver.step}", "weights_command": command}
        if has_batch_norm(network):
            images = recalibrate(network, open_for(giver.config), giver.config.calibration)
            source["batch_norms"] = f"estimated again on {images} training images"
        source["data"] = _data(giver.config, wanted)
        if wanted != architecture:
            source["made_for"] = f"{wanted.classes} classes, {wanted.channels} channels, {wanted.input} pixels"
        return Weighted(network.eval(), source, True)

    return give


def random(seed: int) -> Giver:
    """What gives networks fresh weights, a function of the seed."""

    def give(architecture: Architecture) -> Weighted:
        with seeded(seed):
            network = Network(architecture)
        return Weighted(network.eval(), {"weights": f"random, of seed {seed}: nothing was trained"}, False)

    return give


def _for_data(architecture: Architecture, space: Space) -> Architecture:
    """The architecture as a run trains it: with the classes, channels and image size of its data."""
    template = space.template
    document = {**architecture.to_dict(), "classes": template.classes, "channels": template.channels}
    if len(template.input) == 1:
        document["input"] = template.input[0]
    return Space.parse(document, shared_rules(), "the network").only()


def _data(config: TrainConfig, architecture: Architecture) -> dict[str, Any]:
    """The training data: its name, and what timm's transforms do to an image; other data comes normalised."""
    from nas.training.data.timm_data import WHOLE_BELOW, TimmData, normalisation

    known: dict[str, Any] = {"name": config.data}
    if config.data.startswith(TimmData.names):
        mean, deviation = normalisation(architecture.channels)
        crop = 0.875 if architecture.input >= WHOLE_BELOW else 1.0
        known.update(mean=list(mean), std=list(deviation), crop_pct=crop)
    return known
