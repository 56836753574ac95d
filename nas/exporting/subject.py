"""Subject: the network that is exported, with what is known of it."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.model.network import Network

LONGEST_NAME = 100
STEADY = 2e-5  # between outputs in float32 and in float64, times the largest where that is above 1
ASKED = 20  # images, for each that is wanted


@dataclass(frozen=True)
class Subject:
    """One network to export.

    name          a legal name of a file: see `legal_name`
    architecture  of the network
    network       in eval mode, on the CPU, in float32, not fused; targets leave it as it is (they work on copies)
    figures       what a search knows of it (a row of nas.reporting.finished); {} where nothing is known
    source        where architecture and weights come from, in words and commands, for card and manifest; where the
                  training data is known, `data` says how images are normalised (nas.exporting.weights)
    trained       False where the weights are random
    """

    name: str
    architecture: Architecture
    network: Network
    figures: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    trained: bool = True

    def __post_init__(self) -> None:
        if self.name != legal_name(self.name):
            rule = f"an export's name is 1 to {LONGEST_NAME} of A-Z a-z 0-9 . _ - and starts with no . or -"
            raise InputError(rule, self.name)
        tensors = [*self.network.parameters(), *self.network.buffers()]
        plain = all(t.device.type == "cpu" and (t.dtype == torch.float32 or not t.is_floating_point()) for t in tensors)
        if self.network.training or self.network.fused or not plain:
            raise ValueError("a network is exported in eval mode, on the CPU, in float32, not fused")

    def images(self, batch: int = 2, seed: int = 0) -> Tensor:
        """Noise (batch, channels, input, input), standard normal: the input of every check, a function of the seed."""
        side = self.architecture.input
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, self.architecture.channels, side, side, generator=generator)

    def steady(self, batch: int = 2, seed: int = 0) -> Tensor:
        """Images as those of `images`, but none whose outputs hang on the last bits of a sum.

        Where a network drops tokens, two may be so close in rank that a file which adds in another order, and is right,
        drops the other. Such an image has other outputs in float64, and the next one is taken in its place. They are
        plain noise where a network has hardly any other images, or has an operator that float64 does not run in.
        """
        exact, found = copy.deepcopy(self.network).double(), []
        for image in self.images(ASKED * batch, seed).split(1):
            with torch.inference_mode():
                plain = self.network(image)
                try:
                    apart = (exact(image.double()) - plain).abs().max()
                except RuntimeError:
                    break
            if apart <= STEADY * plain.abs().max().clamp(min=1):
                found.append(image)
            if len(found) == batch:
                return torch.cat(found)
        return self.images(batch, seed)


def legal_name(text: str) -> str:
    """A legal name made of a text: what is not A-Z a-z 0-9 . _ - becomes _, of the end so many are kept."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)[-LONGEST_NAME:].lstrip(".-") or "network"
