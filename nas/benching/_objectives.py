"""Objectives for the comparison of samplers: tables of accuracies, inherited weights, and a formula that is neither.

The formula is `synthetic`: no network was trained for it. It is what accuracies are like as far as a sampler can tell:
it saturates with size, operators help or harm by themselves, with their neighbours and by their depth, and the rest is
noise that stays the same for a network. Its effects are drawn from a hash, so that nobody chose them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from nas.accuracy.truth import load_truth, truth_names
from nas.core.architecture import Architecture
from nas.core.cost import Cost
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.costs import Costs
from nas.model.spaces import load_named_space

OPERATOR, PAIR, PLACE, OWN = 1.5, 1.0, 1.0, 0.5  # standard deviations of effects, in points


def synthetic(architecture: Architecture, cost: Cost) -> float:
    """Points of 100. The first table to read when a sampler is worked on; it says nothing about vision transformers."""
    size = 1.5 * math.log(cost.params / 1e4) + 1.0 * math.log(cost.macs / 1e6)
    blocks = architecture.blocks
    count = max(1, len(blocks))
    effects = sum(OPERATOR * _normal("stage", str(s.embed), str(s.position), s.dim) for s in architecture.stages)
    previous = ""
    for depth, block in enumerate(blocks):
        mixer = str(block.mixer)
        parts = (mixer, str(block.feedforward), str(block.position), str(block.reduction))
        own = sum(_normal(part) + 0.5 * _normal(part.partition("(")[0]) for part in parts)
        there = _normal(int(3 * depth / count), mixer.partition("(")[0])
        effects += (OPERATOR * own + PAIR * _normal(previous, mixer) + PLACE * there) / math.sqrt(count)
        previous = mixer
    rugged = OWN * _normal(architecture.digest)
    return 100.0 / (1.0 + math.exp(-0.25 * (5.0 + size + effects + rugged)))


@lru_cache(maxsize=100_000)
def _normal(*parts: Any) -> float:
    """A standard normal number that depends on the parts alone."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    first, second = (int.from_bytes(digest[i : i + 8], "big") / 2.0**64 for i in (0, 8))
    return math.sqrt(-2.0 * math.log(1.0 - first)) * math.cos(2.0 * math.pi * second)


class Known(NamedTuple):
    """An objective: the networks of a space, and the accuracy of each (points or percent, more is better)."""

    name: str
    about: str
    space: Space
    accuracy: Callable[[Architecture], float]


def objective(text: str) -> Known:
    """`synthetic[:SPACE]`; `supernet:RUN`, the networks of a run of nas.train with the weights that they inherit; or
    `TRUTH[:COLUMN]`, a shipped ground truth that knows every network of its space."""
    name, _, detail = text.partition(":")
    if name == "supernet":
        return _inherited(detail)
    if name == "synthetic":
        space, costs = load_named_space(detail or "digits"), Costs()
        return Known(
            f"synthetic-{space.name}",
            "synthetic: a formula of operators, neighbours and size; no network was trained",
            space,
            lambda architecture: synthetic(architecture, costs.cost(architecture)),
        )
    truth = load_truth(name)
    column = detail or truth.columns[0]
    architectures, values = truth.known(column)
    table = {found.digest: value for found, value in zip(architectures, values, strict=True)}
    if truth.header.space is None:
        raise InputError("samplers are compared on a ground truth with a space", value=name)
    space = load_named_space(truth.header.space)
    if space.size != len(table):
        rule = f"the table is to know all {space.size} networks of the space {space.name}, and knows"
        raise InputError(rule, value=len(table), place=name)
    return Known(f"{name}-{column}", truth.header.about, space, lambda architecture: table[architecture.digest])


def _inherited(folder: str) -> Known:
    """Each network is measured once, on the search split, and kept in the folder where searches keep theirs."""
    from nas.training.evaluating import Evaluator
    from nas.training.start import open_for, trained

    if not folder:
        raise InputError("inherited weights are those of a run of nas.train: give its folder, as in supernet:RUN")
    giver = trained(folder)
    data = open_for(giver.config)
    evaluator = Evaluator(giver.supernet, data, "search", f"{folder}/evaluations", giver.config.calibration)
    return Known(
        f"supernet-{giver.space.name}",
        f"weights inherited from a supernet after {giver.step} steps, on {data.length('search')} images of {data.name}",
        giver.space,
        lambda architecture: 100.0 * evaluator.of(architecture).accuracy,
    )


def complete_truths() -> list[str]:
    """The shipped ground truths that know every network of their space."""
    found = []
    for name in truth_names():
        truth = load_truth(name)
        if truth.header.space is not None:
            known = len(truth.known(truth.columns[0])[0])
            if known == load_named_space(truth.header.space).size:
                found.append(name)
    return found
