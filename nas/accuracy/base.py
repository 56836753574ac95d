"""The protocol of accuracy estimators: what they are given, what they answer, and how their answers are compared."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.model.costs import Costs

KINDS = ("trivial", "proxy", "prior", "learned", "trained")
UNITS = ("score", "top-1 %")


class Unscorable(Exception):
    """This estimator has no figure for this network, and why: one line for the table or the trial's constraint."""


@dataclass(frozen=True)
class Estimate:
    """A finite figure, higher is better; sigma is its standard deviation in the same unit, where it is known.

    parts: figures that mean something only beside those of other networks. Where there are several, `comparable` joins
    them over the networks that are compared, and `value` is what can be said of one network alone.
    """

    value: float
    sigma: float | None = None
    parts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for figure in (self.value, self.sigma or 0.0, *self.parts):
            if not math.isfinite(figure):
                raise Unscorable(f"the figure is not finite ({figure})")


@dataclass(frozen=True, eq=False)
class Setting:
    """What estimators work with: a small batch of images (B, C, S, S) with labels (B,), a seed and a device.

    Networks are made for images of S pixels: where that is not an architecture's own size, it is scored as it would be
    built for S, which keeps widths, depths and operators and shortens the token sequence. Fresh weights depend on
    (seed, architecture) alone, never on what was scored before. What is trained has a run of nas.train to start from,
    a number of steps, and a folder that keeps results.
    """

    images: Tensor
    labels: Tensor
    seed: int = 0
    device: str = "cpu"
    run: str | None = None
    steps: int = 200
    cache: str | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if len(shape) != 4 or shape[0] < 2 or shape[2] != shape[3] or not self.images.is_floating_point():
            raise InputError("a setting has at least two square images (B, C, S, S)", value=shape)
        if tuple(self.labels.shape) != shape[:1] or self.labels.dtype != torch.int64 or int(self.labels.min()) < 0:
            raise InputError("a setting has one label (int64, from 0) an image", value=tuple(self.labels.shape))

    @classmethod
    def noise(
        cls, side: int, channels: int = 3, classes: int = 1000, count: int = 8, seed: int = 0, device: str = "cpu"
    ) -> Setting:
        """Normal noise with random labels, for where there is no data."""
        chance = torch.Generator().manual_seed(seed)
        images = torch.randn(count, channels, side, side, generator=chance)
        return cls(images, torch.randint(classes, (count,), generator=chance), seed, device)

    def check(self, architecture: Architecture) -> None:
        """Refuse images that the network cannot read, and labels that it does not have."""
        if self.images.shape[1] != architecture.channels:
            rule = f"the network reads images of {architecture.channels} channels"
            raise InputError(rule, value=self.images.shape[1], place="setting")
        if int(self.labels.max()) >= architecture.classes:
            rule = f"the network has {architecture.classes} classes"
            raise InputError(rule, value=int(self.labels.max()), place="setting: labels")


class Estimator(ABC):
    """Turns an architecture into a figure.

    about  one line: what it is, with its source
    kind   trivial (a formula of shapes), proxy (an untrained network), prior (fitted on published accuracies; its
           constructor takes `without`, what it is not to have seen), learned (fitted during the search: `observe`),
           trained (weights that were trained)
    unit   "score" (an order and nothing more) or "top-1 %"
    cost   what one network costs, in passes of the setting's batch
    """

    about: ClassVar[str]
    kind: ClassVar[str]
    unit: ClassVar[str] = "score"
    cost: ClassVar[str]

    def __init__(self, setting: Setting):
        self.setting = setting

    @cached_property
    def costs(self) -> Costs:
        """Exact costs; those of operators are kept from network to network."""
        return Costs()

    @abstractmethod
    def measure(self, architecture: Architecture) -> Estimate:
        """The figure of one network; Unscorable where there is none."""

    def estimate(self, architecture: Architecture) -> Estimate:
        """The figure of one network. Unscorable with the reason where there is none, InputError for a wrong setting."""
        try:
            return self.measure(architecture)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise Unscorable(f"a matrix cannot be decomposed ({str(error).splitlines()[0]})") from error
        except torch.OutOfMemoryError as error:
            raise Unscorable("not enough memory on the device") from error

    def rank(self, architectures: Sequence[Architecture]) -> list[float]:
        """Figures that are comparable within this list, higher is better."""
        return comparable([self.estimate(architecture) for architecture in architectures])


def comparable(estimates: Sequence[Estimate]) -> list[float]:
    """Values of estimates of one estimator, comparable within the list.

    Those with several parts are joined by the non-linear rank aggregation of AZ-NAS (Lee and Ham, CVPR 2024,
    https://arxiv.org/abs/2403.19232): the sum over parts of log(rank / n), rank n the best, equal figures sharing their
    mean rank. A network that is bad in one part falls further than one that is middling in all.
    """
    if not estimates or len(estimates[0].parts) < 2:
        return [estimate.value for estimate in estimates]
    columns = [_ranks(column) for column in zip(*(estimate.parts for estimate in estimates), strict=True)]
    return [sum(math.log(rank / len(estimates)) for rank in row) for row in zip(*columns, strict=True)]


def _ranks(values: Sequence[float]) -> list[float]:
    """Rank of each, 1 the smallest; equal values share the mean of their ranks."""
    from scipy.stats import rankdata

    return [float(rank) for rank in rankdata(values)]
