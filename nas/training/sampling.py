"""Sampling: which networks a step trains, each a function of (seed, step) alone.

single    one random network (Guo et al., "Single path one-shot", ECCV 2020, https://arxiv.org/abs/1904.00420)
sandwich  the largest, the smallest and random ones (Yu et al., "Universally slimmable networks", ICCV 2019,
          https://arxiv.org/abs/1903.05134)
batch     random ones, each on its own part of the batch (Liao et al., "Searching for efficient multi-stage vision
          transformers", 2021, https://arxiv.org/abs/2109.00642)

Random networks are drawn by `Space.sample`, balanced over operators. `balanced` draws a number of multiply-accumulates
first, uniformly (as Wang et al., "AttentiveNAS", CVPR 2021, https://arxiv.org/abs/2011.09011, do from a table), then a
network near it: random draws crowd in one part of the range, and its ends would be trained the least. A band keeps to
networks of so many; a sandwich's largest and smallest are then the known ones nearest to its ends. Where random draws
miss, a known network near the number is changed by chance; known are those on ways from the extremes into the middle.
"""

from __future__ import annotations

import math
import re
from functools import cached_property
from random import Random
from typing import NamedTuple

from nas.core.architecture import Architecture
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.core.units import format_count, parse_budget
from nas.model.costs import Costs
from nas.model.extremes import extremes
from nas.training.data.randomness import derived

STRATEGIES = ("single", "sandwich", "batch")
TRIES = 4  # networks drawn for one in the band, or near the number wanted
SLACK = 0.02  # of the range: near enough to the number wanted
NEAR = 8  # known networks of which one is taken where no random one was near, and changed
CHANGES = 3  # tried on it
CHAINS = 3  # ways from each end of the range on which networks are got to know, once a run
CHAIN = 80  # networks on each
SOUGHT = 200  # further ones at most, where few are in the band


class Draw(NamedTuple):
    """A network to train, why, and on which part of the batch: the `part`th of `parts` equal ones, in order."""

    architecture: Architecture
    role: str  # largest, smallest or random
    part: int = 0
    parts: int = 1

    def rows(self, count: int) -> slice:
        """The rows of a batch of `count`; the parts' lengths differ by one at most, and no row is left out."""
        return slice(self.part * count // self.parts, (self.part + 1) * count // self.parts)


class Sized(NamedTuple):
    """A network and its multiply-accumulates."""

    architecture: Architecture
    macs: int


class Draws:
    """The networks of every step. `networks`: random ones a step; `single` takes one whatever it says.

    band: "1GMACs-2GMACs", or (low, high) in multiply-accumulates, both included. Where no network in the band is found
    in a few tries, the nearest of those is taken. A space of one network is trained on whole batches, once a step.
    """

    def __init__(
        self,
        space: Space,
        strategy: str,
        seed: int,
        networks: int = 2,
        band: str | tuple[float, float] | None = None,
        balanced: bool = False,
    ):
        if strategy not in STRATEGIES:
            raise InputError("unknown strategy", value=strategy, nearest=nearest(strategy, STRATEGIES))
        if networks < 1:
            raise InputError("at least one network is drawn a step", value=networks)
        self.space, self.strategy, self.seed = space, strategy, seed
        self.networks = 1 if strategy == "single" else networks
        self.balanced = balanced
        self._costs = Costs()
        self._band = parse_band(band) if isinstance(band, str) else band
        if self._band is not None:
            self._check(*self._band)

    def at(self, step: int) -> tuple[Draw, ...]:
        """The networks of a step; the largest of a sandwich first, as it may teach the others."""
        if self._single is not None:
            return (Draw(self._single, "largest"),)
        drawn = [self._draw(Random(derived("network", self.seed, step, number))) for number in range(self.networks)]
        if self.strategy == "sandwich":
            smallest, largest = self.ends
            return (Draw(largest, "largest"), Draw(smallest, "smallest"), *(Draw(one, "random") for one in drawn))
        return tuple(Draw(one, "random", part, len(drawn)) for part, one in enumerate(drawn))

    def macs(self, architecture: Architecture) -> int:
        """Multiply-accumulates of one image."""
        return self._costs.cost(architecture).macs

    @cached_property
    def ends(self) -> tuple[Architecture, Architecture]:
        """The smallest and the largest network that are trained."""
        smallest, largest, _ = extremes(self.space)
        if self._band is None:
            return smallest, largest
        low, high = (min(self._known, key=lambda one: (self._outside(one), abs(one.macs - end))) for end in self._band)
        return low.architecture, high.architecture

    @cached_property
    def _range(self) -> tuple[int, int]:
        """Of multiply-accumulates, over the whole space."""
        smallest, largest, _ = extremes(self.space)
        return self.macs(smallest), self.macs(largest)

    @cached_property
    def _single(self) -> Architecture | None:
        """The only network of a space of one."""
        first, other = (self.space.sample(Random(number)) for number in range(2))
        return first if first == other and self.space.size == 1 else None

    def _draw(self, chance: Random) -> Architecture:
        if self._band is None and not self.balanced:
            return self.space.sample(chance)
        bottom, top = self._range
        low, high = self._band or (bottom, top)
        target = chance.uniform(max(low, bottom), min(high, top))
        slack = SLACK * (top - bottom) if self.balanced else math.inf

        def away(network: Sized) -> tuple[float, float]:
            """Macs outside the band, then those from the target beyond what is near enough."""
            return self._outside(network), max(abs(network.macs - target) - slack, 0)

        for _ in range(TRIES):
            held = self._sized(self.space.sample(chance))
            if away(held) == (0, 0):
                return held.architecture
        near = sorted(self._known, key=lambda one: (*away(one), abs(one.macs - target)))[:NEAR]
        held = chance.choice([one for one in near if away(one) == (0, 0)] or near[:1])
        for _ in range(CHANGES):
            child = self._sized(self.space.mutate(held.architecture, chance))
            held = child if away(child) <= away(held) else held
        return held.architecture

    @cached_property
    def _known(self) -> list[Sized]:
        """Networks over the whole range: random ones, and those on ways of single changes down and up from its ends."""
        chance = Random(derived("known", self.seed))
        smallest, largest, _ = extremes(self.space)
        known = [self._sized(self.space.sample(chance)) for _ in range(CHAIN)]
        for end, sign in ((largest, 1), (smallest, -1)) * CHAINS:
            held = self._sized(end)
            known.append(held)
            for _ in range(CHAIN):
                child = self._sized(self.space.mutate(held.architecture, chance))
                held = child if sign * child.macs <= sign * held.macs else held
                known.append(child)
        return self._sought(list(dict.fromkeys(known)), chance)

    def _sought(self, known: list[Sized], chance: Random) -> list[Sized]:
        """With changes of those nearest to the band, while few are in it."""
        for _ in range(SOUGHT if self._band else 0):
            near = sorted(known, key=self._outside)[:NEAR]
            if not self._outside(near[-1]):
                break
            child = self._sized(self.space.mutate(chance.choice(near).architecture, chance))
            if child not in near:
                known.append(child)
        return known

    def _outside(self, one: Sized) -> float:
        """Macs from the band."""
        low, high = self._band or (0, math.inf)
        return max(low - one.macs, one.macs - high, 0)

    def _sized(self, architecture: Architecture) -> Sized:
        return Sized(architecture, self.macs(architecture))

    def _check(self, low: float, high: float) -> None:
        """Refuse a band that no network of the space is in."""
        if not 0 <= low <= high:
            raise InputError("a band goes from its low to its high end", value=_text(low, high), place="band")
        bottom, top = self._range
        if high < bottom or low > top:
            rule = f"networks of {self.space.name} have {_text(bottom, top)}"
            raise InputError(rule, value=_text(low, high), place="band")


def parse_band(text: str, place: str = "band") -> tuple[int, int]:
    """(low, high) of a text such as `1GMACs-2GMACs` or `300MFLOPs - 1.2GFLOPs` (multiply-accumulates, both)."""
    found = re.fullmatch(r"(.*[A-Za-z]{3})\s*-\s*(.+)", text.strip())
    if found is None:
        raise InputError("a band is two numbers of MACs with a line between, as in 1GMACs-2GMACs", text, place)
    limits = []
    for end in found.groups():
        budget = parse_budget(end, place)
        if budget.macs is None or len(budget.limits()) > 1:
            raise InputError("a band is of multiply-accumulates, as in 1GMACs-2GMACs", end, place)
        limits.append(budget.macs)
    return limits[0], limits[1]


def _text(low: float, high: float) -> str:
    return f"{format_count(low)}MACs to {format_count(high)}MACs"
