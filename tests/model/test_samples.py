"""A few random networks of every shipped space, through the checks of `python -m nas.bench samples`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import torch

from nas.benching import samples
from nas.model.costs import Costs
from nas.model.network import Network
from nas.model.spaces import load_named_space, space_names
from nas.model.supernet import Supernet

ONE = {"tiny", "resnas", "mixed"}  # blocks of one kind in all networks; or networks that take long


@pytest.mark.parametrize("name", space_names())
def test_random_networks(shipped: Callable[[str], Supernet], name: str) -> None:
    """Built, run, of the predicted cost, equal through torch.export, bit-equal after extraction."""
    torch.manual_seed(0)
    space, chance = load_named_space(name), Random(31)
    for _ in range(1 if name in ONE else 2):
        architecture = space.sample(chance)
        assert samples.check(shipped(name), architecture) == {}, architecture.to_dict()


def test_the_checks_find_faults(shipped: Callable[[str], Supernet], monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(0)
    architecture = min((load_named_space("digits").sample(chance) for _ in range(20)), key=lambda one: len(one.blocks))
    supernet = shipped("digits")
    cost = Costs.cost
    monkeypatch.setattr(Costs, "cost", lambda self, one: cost(self, one)._replace(macs=1))
    assert list(samples.check(supernet, architecture)) == ["cost"]
    monkeypatch.undo()

    monkeypatch.setattr(Network, "init_weights", lambda self: self.get_classifier().weight.data.fill_(torch.nan))
    assert "built" in samples.check(supernet, architecture)
    monkeypatch.undo()

    forward, calls = Network.forward, iter(range(100))
    monkeypatch.setattr(Network, "forward", lambda self, image: forward(self, image) + next(calls))
    assert set(samples.check(supernet, architecture)) == {"extracted", "exported"}
    monkeypatch.undo()

    monkeypatch.setattr(Network, "forward", lambda self, image: forward(self, image)[:, :-1])
    assert "logits of shape (2, 9)" in samples.check(supernet, architecture)["ran"]


def test_failures_are_shown_with_their_network() -> None:
    passed = dict.fromkeys(samples.CHECKS, 1)
    failure = {"faults": {"cost": "macs 1 is counted as 2"}, "network": "head: mean\n"}
    row = {"space": "here", "networks": 2, **passed, "failures": [failure], "seconds": 1.0}
    text = samples.table({"spaces": [row]})
    assert text.splitlines()[0].split() == ["space", "networks", *samples.CHECKS, "seconds"]
    assert "here: cost: macs 1 is counted as 2\nhead: mean" in text
