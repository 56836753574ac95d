"""The shipped spaces: sizes by closed form, bounds, and that every option they list can be taken."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest
import torch

from nas.core.architecture import Architecture
from nas.core.data import data_folder
from nas.core.space import Space, write_architecture
from nas.core.yamlfile import load_yaml, parse_yaml
from nas.model.costs import Costs
from nas.model.network import Network
from nas.model.spaces import load_named_space, shared_rules, space_names
from nas.ops.catalogue import catalogue
from nas.ops.parts.norms import norm_cost
from nas.ops.placements import Placement, placements


def test_tiny_has_the_size_of_autoformer() -> None:
    """Three widths; heads and ratio, two values each, for every block of 12, 13 or 14."""
    assert load_named_space("tiny").size == 3 * (4**12 + 4**13 + 4**14)


def test_tiny_has_the_parameters_of_autoformer() -> None:
    space, chance = load_named_space("tiny"), Random(0)
    for _ in range(20):
        network = space.sample(chance)
        assert Costs().cost(network).params == autoformer_parameters(network)


def autoformer_parameters(network: Architecture) -> int:
    """Weights and biases by the layers of the paper: patches, table, blocks, norm, classifier."""
    dim, count = network.stages[0].dim, 0
    for block in network.stages[0].blocks:
        inner, hidden = 64 * block.mixer.get("heads", 3), int(block.feedforward.get("ratio", 4.0) * dim)
        attention = 3 * (dim + 1) * inner + (inner + 1) * dim
        count += 4 * dim + attention + (dim + 1) * hidden + (hidden + 1) * dim
    patches = (3 * 16 * 16 + 1) * dim
    return patches + (1 + 1 + 14 * 14) * dim + count + 2 * dim + (dim + 1) * 1000


def test_digits_stays_under_a_million_parameters() -> None:
    """No network has more than the largest option of every place of its layout together."""
    document = load_yaml(data_folder("search_spaces") / "digits.yaml")
    assert isinstance(document, dict)
    for name, layout in document["layouts"].items():
        space = Space.parse({**document, "layouts": {name: layout}}, shared_rules(), name)
        largest: dict[tuple[str, str], int] = defaultdict(int)
        for path, placement in placements(space, catalogue()):
            key = (path, placement.kind)
            largest[key] = max(largest[key], parameters(placement))
        assert sum(largest.values()) < 1_000_000, name


def parameters(placement: Placement) -> int:
    """Of one module."""
    kind, value, site = placement.kind, placement.value, placement.site
    if kind == "norm":
        return norm_cost(value, site.dim).params
    if kind in ("class_token", "distill_token", "registers"):
        return int(value) * site.dim
    if kind == "scale":
        return site.dim
    return catalogue().get(kind, value.name).cost(site, **dict(placement.context), **dict(value.knobs)).params


def test_digits_runs() -> None:
    space, chance = load_named_space("digits"), Random(1)
    for _ in range(6):
        network = space.sample(chance)
        assert 2 <= len(network.blocks) <= 6
        with torch.no_grad():
            logits = Network(network).eval()(torch.randn(2, 1, 32, 32))
        assert logits.shape == (2, 10) and torch.isfinite(logits).all()


@pytest.mark.parametrize("name", space_names())
def test_every_option_can_be_taken(name: str) -> None:
    """Each operator and knob that a shipped space lists stands in some legal network of it."""
    space = load_named_space(name)
    taken = {(kind, value) for _, kind, values, _ in space.reachable() for value in values}
    listed = set()
    for layout in space.template.layouts.values():
        listed |= {("head", head) for head in layout.head}
        for stage in layout.stages:
            listed |= {("stage.embed", embed) for embed in stage.embed}
            listed |= {("stage.position", position) for position in stage.position}
            for block in stage.blocks:
                for kind in ("position", "reduction", "mixer", "feedforward", "exit"):
                    listed |= {(kind, spec) for spec in getattr(block, kind)}
    assert not sorted(f"{kind}: {spec}" for kind, spec in listed - taken)


@pytest.mark.parametrize("name", space_names())
def test_samples_are_networks_of_the_space(name: str) -> None:
    space, chance = load_named_space(name), Random(2)
    for uniform in (False, True):
        network = space.sample(chance, uniform)
        assert network in space
        assert Costs().cost(network).params > 0
        text = write_architecture(network)
        assert Space.parse(parse_yaml(text, name), shared_rules()).only() == network
