"""The space around a trained network: it holds the network itself, and smaller ones that are slices of it."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from nas.core.architecture import NONE, Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.core.yamlfile import dump_yaml, parse_yaml
from nas.model.costs import Costs
from nas.model.elastic import RIGID, Elastic, elastic_document, elastic_space, fill, whole
from nas.model.importance import scores_of, sort_units
from nas.model.network import Network
from nas.model.reference import load_reference
from nas.model.spaces import shared_rules
from nas.model.supernet import Supernet

HEADS, HIDDEN = 4, 32
LAYERS = [f"stages.0.blocks.{i}.{kind}" for i in range(4) for kind in ("mixer", "feedforward")]


def plain(**block: Any) -> Architecture:
    stage = {
        "embed": "patch(size=4)",
        "dim": 16,
        "class_token": True,
        "position": "learned",
        "blocks": [{"repeat": 4, "mixer": f"softmax(heads={HEADS})", "feedforward": "mlp(ratio=2)", **block}],
    }
    document = {"input": 16, "classes": 5, "stages": [stage], "head": "class_token"}
    return Space.parse(document, shared_rules(), "test").only()


def network_of(architecture: Architecture) -> Network:
    torch.manual_seed(0)
    network = Network(architecture).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def filled(network: Network, elastic: Elastic, droppable: list[str]) -> tuple[Supernet, Architecture]:
    supernet = Supernet(elastic_space(network.architecture, elastic, droppable)).eval()
    return supernet, fill(supernet, network)


def images(side: int = 16) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def changed(architecture: Architecture, number: int, **block: Any) -> Architecture:
    """The architecture with another block at a place."""
    document = architecture.to_dict()
    blocks = [entry for entry in document["stages"][0]["blocks"] for _ in range(entry.get("repeat", 1))]
    blocks = [{key: value for key, value in entry.items() if key != "repeat"} for entry in blocks]
    blocks[number] = {**blocks[number], **block}
    document["stages"][0]["blocks"] = blocks
    return Space.parse(document, shared_rules(), "changed").only()


@pytest.mark.parametrize("block", [{}, {"layer_scale": 0.5}, {"position": "rotary(kind=mixed)"}, {"norm": "rms"}])
def test_the_whole_network_is_in_the_space_with_the_same_bits(block: dict[str, Any]) -> None:
    network = network_of(plain(**block))
    supernet, architecture = filled(network, Elastic(), LAYERS)
    assert architecture in supernet.space and architecture == whole(network.architecture)
    with torch.no_grad():
        assert torch.equal(supernet.bind(architecture)(images()), network(images()))
    assert Costs().cost(architecture) == Costs().cost(network.architecture)


def test_the_file_says_what_may_vary() -> None:
    document = elastic_document(plain(), Elastic(hidden=[1.0, 0.8, 0.3]), ["stages.0.blocks.2.mixer"], "mine")
    assert document["name"] == "mine" and (document["classes"], document["input"]) == (5, 16)
    blocks = document["stages"][0]["blocks"]
    assert len(blocks) == 4
    assert blocks[0] == {
        "mixer": "softmax(heads=[4, 3, 2], head_dim=4)",
        "feedforward": "mlp(hidden=[32, 24, 8])",
    }
    assert blocks[2]["mixer"] == ["softmax(heads=[4, 3, 2], head_dim=4)", "none"]
    assert blocks[1]["reduction"] == ["none", "evit(keep=[0.9, 0.7, 0.5])", "tome(r=[2, 4])"]
    assert [("reduction" in block) for block in blocks] == [False, True, True, True]
    again = Space.parse(parse_yaml(dump_yaml(document), "file"), shared_rules(), "file")
    assert again.size == elastic_space(plain(), Elastic(hidden=[1.0, 0.8, 0.3]), ["stages.0.blocks.2.mixer"]).size
    assert elastic_space(plain(), RIGID).size == 1


def test_a_layer_left_out_is_the_identity_and_the_others_keep_their_weights() -> None:
    network = network_of(plain())
    supernet, architecture = filled(network, Elastic(keep=[], merge=[]), LAYERS)
    shorter = changed(changed(architecture, 1, mixer="none", feedforward="none"), 2, mixer="none")
    expected = copy.deepcopy(network)
    stage: Any = expected.stages[0]
    stage.blocks[1] = nn.Identity()
    stage.blocks[2].mixer = None
    with torch.no_grad():
        assert torch.equal(supernet.bind(shorter)(images()), expected(images()))
        assert not torch.equal(expected(images()), network(images()))


def test_units_without_effect_stand_last_and_leave_without_a_trace() -> None:
    """Heads and hidden units whose output nothing reads: after sorting, the narrower network is the whole one."""
    network = network_of(plain())
    block: Any = network.get_submodule("stages.0.blocks.1")
    with torch.no_grad():
        block.mixer.attention.out.weight[:, 4:12] = 0  # heads 1 and 2 of 4
        block.feedforward.down.weight[:, ::2] = 0
        expected = network(images())
        sort_units(network, scores_of(network))
        supernet, architecture = filled(network, Elastic(), [])
        narrow = changed(
            architecture, 1, mixer="softmax(heads=2, head_dim=4)", feedforward=f"mlp(hidden={HIDDEN // 2})"
        )
        torch.testing.assert_close(supernet.bind(narrow)(images()), expected, atol=1e-5, rtol=1e-5)
        other = changed(architecture, 2, mixer="softmax(heads=2, head_dim=4)")
        assert (supernet.bind(other)(images()) - expected).abs().max() > 1e-3
    assert Costs().cost(narrow).macs < Costs().cost(architecture).macs


def test_networks_of_the_space_run_and_are_slices() -> None:
    network = network_of(plain())
    supernet, architecture = filled(network, Elastic(), LAYERS)
    limit, chance, seen = Costs().cost(architecture), Random(0), set()
    for _ in range(40):
        sampled = supernet.space.sample(chance)
        with torch.no_grad():
            logits = supernet.bind(sampled)(images())
            assert logits.isfinite().all() and torch.equal(logits, supernet.extract(sampled)(images()))
        assert Costs().cost(sampled).params <= limit.params
        seen |= {spec.name for block in sampled.blocks for spec in (block.mixer, block.feedforward, block.reduction)}
    assert {"softmax", "mlp", "evit", "tome", "none"} <= seen


def test_a_position_that_is_for_the_mixer_keeps_it() -> None:
    document = elastic_document(plain(position="rotary"), Elastic(), LAYERS)
    for block in document["stages"][0]["blocks"]:
        assert isinstance(block["mixer"], str) and block["feedforward"][1] == "none"


def test_layers_of_a_joint_residual_stay() -> None:
    document = elastic_document(plain(residual="joint"), Elastic(), LAYERS)
    assert all(isinstance(block["mixer"], str) for block in document["stages"][0]["blocks"])


def test_reductions_stand_where_they_are_asked_for() -> None:
    document = elastic_document(plain(), Elastic(reduce_at=[3], keep=[0.5], merge=[]))
    assert [block.get("reduction") for block in document["stages"][0]["blocks"]] == [
        None,
        None,
        None,
        ["none", "evit(keep=[0.5])"],
    ]
    with pytest.raises(InputError, match="0 to 3"):
        elastic_document(plain(), Elastic(reduce_at=[4]))


def test_a_reduction_that_is_there_stays() -> None:
    architecture = plain(reduction="tome(r=2)")
    assert all(block.reduction is not NONE for block in elastic_space(architecture, Elastic()).sample(Random(0)).blocks)


@pytest.mark.parametrize(
    "name", ["swin_tiny", "pvt_v2_b1", "rope_mixed_vit_small", "deit_tiny_distilled", "convnext_tiny"]
)
def test_published_networks_have_a_space_around_them(name: str) -> None:
    architecture = load_reference(name).architecture
    every = [
        f"stages.{i}.blocks.{j}.{kind}"
        for i, stage in enumerate(architecture.stages)
        for j in range(len(stage.blocks))
        for kind in ("mixer", "feedforward")
    ]
    space = elastic_space(architecture, Elastic(), every, name)
    assert whole(architecture) in space and space.size > 1e4
    assert Costs().cost(whole(architecture)) == Costs().cost(architecture)


@pytest.mark.parametrize(
    "wrong", [{"heads": [0.5]}, {"hidden": []}, {"heads": [1.0, 0.0]}, {"keep": [1.5]}, {"drop": 2.0}, {"dept": 1}]
)
def test_wrong_choices_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Elastic(**wrong)


def test_weights_of_another_network_are_refused() -> None:
    supernet = Supernet(elastic_space(plain(), Elastic()))
    with pytest.raises(InputError):
        fill(supernet, network_of(plain(norm="rms")))
