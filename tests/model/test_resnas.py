"""ViT-ResNAS, the published system closest to this one: its networks to the digit, and its Tiny space."""

from __future__ import annotations

import math
import random

import pytest

from nas.core.architecture import Architecture
from nas.model.costs import Costs
from nas.model.counting import count
from nas.model.network import skeleton
from nas.model.reference import load_reference
from nas.model.spaces import load_named_space

# Totals of the authors' own estimator (network_utils/compute_flop_mac.py). It counts every linear layer, convolution
# and attention product and no norm, bias or pooling: the rules of nas.core.cost, so that no correction is needed.
MACS = {
    "vit_res_tiny": 1_794_378_240,
    "vit_resnas_tiny": 1_782_630_272,
    "vit_resnas_small": 2_845_501_856,
    "vit_resnas_medium": 4_513_135_936,
}
# Parameters of the authors' networks without the patch head, which serves their training only.
PARAMS = {
    "vit_res_tiny": 42_012_736,
    "vit_resnas_tiny": 40_793_552,
    "vit_resnas_small": 63_724_108,
    "vit_resnas_medium": 96_442_672,
}
OPTIONS = 4 * 7  # heads and hidden widths of a block


@pytest.mark.parametrize("name", MACS)
def test_published_networks_to_the_digit(name: str) -> None:
    cost = Costs().cost(load_reference(name).architecture)
    assert cost.macs == MACS[name]
    assert cost.params == PARAMS[name]


def test_the_winner_stands_within_the_search_budget() -> None:
    assert 0.975 <= MACS["vit_resnas_tiny"] / MACS["vit_res_tiny"] <= 1


def test_tiny_space_has_its_closed_form_size() -> None:
    widths, stages = 5**3, sum(OPTIONS**depth for depth in range(3, 7)) ** 3
    assert load_named_space("resnas").size == widths * stages
    # The authors' encoding is larger: it says which block is removed (all are alike, so the network is the same) and
    # keeps heads and hidden width of removed blocks, about 10^30.9 encodings.
    assert round(math.log10(widths * (OPTIONS * 2 * OPTIONS) ** 9), 1) == 30.9


def test_tiny_space_holds_the_winner_and_nothing_wider() -> None:
    space = load_named_space("resnas")
    assert load_reference("vit_resnas_tiny").architecture in space
    assert load_reference("vit_resnas_small").architecture not in space
    chance = random.Random(0)
    for architecture in (space.sample(chance, uniform=True) for _ in range(20)):
        depths, dims = zip(*((len(stage.blocks), stage.dim) for stage in architecture.stages), strict=True)
        assert all(3 <= depth <= 6 for depth in depths)
        assert list(dims) == sorted(dims)


def test_cost_is_the_count_over_the_space() -> None:
    space, chance = load_named_space("resnas"), random.Random(1)
    for _ in range(3):
        architecture: Architecture = space.sample(chance)
        counted, cost = count(skeleton(architecture), (3, 224, 224)), Costs().cost(architecture)
        assert (cost.macs, cost.params) == (counted.macs, counted.params)
