"""Reference networks against their published figures and against timm: counts to the digit, outputs within 1e-5.

Choose some with NAS_REFERENCE, a comma-separated list of names.
"""

from __future__ import annotations

import os

import pytest
import torch

from nas.model.costs import Costs
from nas.model.counting import count
from nas.model.network import skeleton
from nas.model.reference import agrees, figures, load_reference, reference_names, timm_twin

CHOSEN = set(filter(None, os.environ.get("NAS_REFERENCE", "").split(",")))
NAMES = [name for name in reference_names() if not CHOSEN or name in CHOSEN]
IN_TIMM = [name for name in NAMES if load_reference(name).timm]


@pytest.mark.parametrize("name", NAMES)
def test_figures(name: str) -> None:
    found = figures(load_reference(name))
    assert found, "some figure holds the network"
    assert not [figure for figure in found if not figure.holds]


@pytest.mark.parametrize("name", NAMES)
def test_cost_is_the_count(name: str) -> None:
    architecture = load_reference(name).architecture
    counted = count(skeleton(architecture), (3, architecture.input, architecture.input))
    cost = Costs().cost(architecture)
    assert (cost.macs, cost.params) == (counted.macs, counted.params)


@pytest.mark.parametrize("name", IN_TIMM)
def test_equals_timm(name: str) -> None:
    reference = load_reference(name)
    ours, theirs = timm_twin(reference)
    side = reference.architecture.input
    image = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected, found = theirs(image), ours(image)
    assert expected.std() > 1e-3, "the comparison sees something"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    cost, counted = Costs().cost(reference.architecture), count(theirs, (3, side, side))
    assert (cost.macs, cost.params) == (counted.macs, counted.params)


def test_printed_precision() -> None:
    assert agrees(5_717_416, "5.7", 1e6) and agrees(5_790_000, "5.7", 1e6) and agrees(4_599_000_000, "4.6", 1e9)
    assert not agrees(5_810_000, "5.7", 1e6) and not agrees(5_600_000, "5.7", 1e6)
