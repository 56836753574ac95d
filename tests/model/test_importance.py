"""Heads and hidden units in order of importance: the function stays, and scores are what they say they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.importance import least_important, scores_of, sort_units, taylor_scores, units_of, weight_scores
from nas.model.network import Network
from nas.model.spaces import shared_rules

MLP = "mlp(ratio=2)"
BLOCKS: dict[str, list[dict[str, Any]]] = {
    "softmax": [{"mixer": "softmax(heads=4)", "feedforward": MLP, "layer_scale": 0.5}],
    "wide heads": [{"mixer": "softmax(heads=3, head_dim=4, qkv_bias=False)", "feedforward": "mlp(hidden=10)"}],
    "rotary": [{"mixer": "softmax(heads=4)", "position": "rotary(kind=mixed)", "feedforward": MLP}],
    "axial": [{"mixer": "softmax(heads=4)", "position": "rotary", "feedforward": MLP}],
    "relative": [{"mixer": "softmax(heads=4)", "position": "relative_bias", "feedforward": MLP}],
    "window": [{"mixer": "window(size=2, shift=True, heads=4)", "feedforward": MLP}],
    "flat window": [{"mixer": "window(size=2, heads=4, relative=False)", "feedforward": MLP}],
    "grid window": [{"mixer": "grid_window(size=2, heads=4)", "feedforward": MLP}],
    "pyramid": [{"mixer": "spatial_reduction(heads=4, ratio=2)", "position": "peg", "feedforward": "mlp_depthwise"}],
    "linear": [{"mixer": "spatial_reduction(heads=4, kind=linear, pooled=2)", "feedforward": "mlp_depthwise"}],
    "mask unit": [{"mixer": "mask_unit(unit=2, heads=4)", "feedforward": "gated(ratio=2)"}],
    "gated": [{"mixer": "softmax(heads=4)", "feedforward": "gated(ratio=2, norm=input)"}],
    "joint": [{"mixer": "softmax(heads=4)", "feedforward": MLP, "residual": "joint", "layer_scale": 0.5}],
    "batch norm": [{"mixer": "softmax(heads=4)", "feedforward": MLP, "norm": "batch"}],
    "reduced": [{"mixer": "softmax(heads=4)", "feedforward": MLP, "reduction": "tome(r=4)"}],
}
BARE = {"window", "flat window", "grid window", "mask unit", "pyramid", "linear", "joint"}


def architecture_of(blocks: list[dict[str, Any]], token: bool = True) -> Architecture:
    stage = {"embed": "patch(size=4)", "dim": 16, "class_token": token, "blocks": blocks}
    document = {"input": 16, "classes": 5, "stages": [stage], "head": "class_token" if token else "mean"}
    return Space.parse(document, shared_rules(), "test").only()


def network_of(blocks: list[dict[str, Any]], token: bool = True) -> Network:
    """A network whose every parameter and statistic is away from 0 and 1."""
    torch.manual_seed(0)
    network = Network(architecture_of(blocks, token)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", BLOCKS)
def test_another_order_is_the_same_function(kind: str) -> None:
    network = network_of([*BLOCKS[kind], *BLOCKS[kind]], token=kind not in BARE)
    scores = {one.place: torch.arange(float(one.number)) for one in units_of(network)}
    assert set(scores) == {f"stages.0.blocks.{i}.{part}" for i in (0, 1) for part in ("mixer", "feedforward")}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        expected = network(images())
        orders = sort_units(network, scores)
        found = network(images())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert all(order.tolist() == sorted(order.tolist(), reverse=True) for order in orders.values())
    moved = {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {
        name
        for name in before
        if ".mixer.attention." in name or ".feedforward." in name or "position.learned" in name or "bias.table" in name
        # what is not a unit's stays
        if not name.endswith(("out.bias", "down.bias")) and ".norm." not in name
    } | {name for name in before if ".position." in name and kind in ("rotary", "relative")}


@pytest.mark.parametrize("kind", ["softmax", "rotary", "window", "pyramid", "gated"])
def test_only_the_function_of_all_units_together_stays(kind: str) -> None:
    """A tensor that is left out of the permutation shows: the comparison above can fail."""
    network = network_of(BLOCKS[kind], token=kind not in BARE)
    units = units_of(network)[0]
    with torch.no_grad():
        expected = network(images())
        for tensor, dim in units.members[1:]:
            tensor.copy_(tensor.unflatten(dim, (units.number, -1)).flip(dim).flatten(dim, dim + 1))
        assert (network(images()) - expected).abs().max() > 1e-3


def test_units_stand_from_the_most_to_the_least_important() -> None:
    network = network_of(BLOCKS["softmax"])
    sort_units(network, scores_of(network))
    for score in scores_of(network).values():
        assert (score[:-1] >= score[1:] * (1 - 1e-6)).all() and score[0] > score[-1]
    assert all(order.tolist() == sorted(order.tolist()) for order in sort_units(network, scores_of(network)).values())


def test_equal_scores_keep_the_order_and_places_without_scores_stay() -> None:
    network = network_of(BLOCKS["softmax"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    orders = sort_units(network, {"stages.0.blocks.0.mixer": torch.ones(4)})
    assert {place: order.tolist() for place, order in orders.items()} == {"stages.0.blocks.0.mixer": [0, 1, 2, 3]}
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_weight_scores_are_norms_of_products() -> None:
    network = network_of(BLOCKS["softmax"])
    heads, hidden = units_of(network)
    block: Any = network.get_submodule("stages.0.blocks.0")
    v, out, norm, scale = (block.mixer.attention.v, block.mixer.attention.out, block.norm1, block.scale1.weight)
    for head, score in enumerate(weight_scores(heads)):
        rows = slice(4 * head, 4 * head + 4)
        entering = torch.cat((v.weight * norm.weight, (v.weight @ norm.bias + v.bias)[:, None]), dim=1)[rows]
        product = torch.diag(scale) @ out.weight[:, rows] @ entering
        torch.testing.assert_close(score, product.norm())
    up, down = block.feedforward.up, block.feedforward.down
    entering = torch.cat((up.weight * block.norm2.weight, (up(block.norm2.bias))[:, None]), dim=1)
    leaving = block.scale2.weight[:, None] * down.weight
    torch.testing.assert_close(weight_scores(hidden), entering.norm(dim=1) * leaving.norm(dim=0))


def test_taylor_scores_are_the_derivative_by_a_gate() -> None:
    """Each unit's output times a gate of 1: the absolute derivative of an image's loss, averaged over images."""
    network = network_of([*BLOCKS["softmax"], *BLOCKS["rotary"]]).train()
    labels = torch.tensor([0, 3, 4])
    batches = [(images()[:2], labels[:2]), (images()[2:], labels[2:])]
    found = taylor_scores(network, units_of(network), batches)
    assert network.training and all(parameter.grad is None for parameter in network.parameters())
    network.eval()
    for one in units_of(network):
        total = torch.zeros(one.number)
        for image, label in zip(images(), labels, strict=True):
            gate = torch.ones(one.number, requires_grad=True)
            width = one.closing.in_features // one.number
            hook = one.closing.register_forward_pre_hook(
                lambda _, inputs, gate=gate, width=width: (inputs[0] * gate.repeat_interleave(width),)
            )
            loss = F.cross_entropy(network(image[None]), label[None])
            total += torch.autograd.grad(loss, gate)[0].abs()
            hook.remove()
        torch.testing.assert_close(found[one.place], total / 3, rtol=1e-4, atol=1e-6)
        assert total.std() > 0
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_taylor_scores_need_images() -> None:
    network = network_of(BLOCKS["softmax"])
    with pytest.raises(InputError, match="need images"):
        scores_of(network, [])


@pytest.mark.parametrize(
    "blocks",
    [
        [{"mixer": "gated_positional(heads=4)"}],  # heads with a place each
        [{"mixer": "token_mlp", "feedforward": "gated(ratio=2, norm=hidden)"}],  # a norm over the hidden units
        [{"feedforward": "inverted(ratio=2)"}],
    ],
)
def test_what_is_not_interchangeable_is_left_alone(blocks: list[dict[str, Any]]) -> None:
    assert not units_of(network_of(blocks, token=False))


def test_heads_that_the_next_block_tells_apart_stay() -> None:
    softmax, plain = {"mixer": "softmax(heads=4)"}, {"mixer": "skip_attention"}
    told = network_of([softmax, {"mixer": "residual_logits(heads=4)"}, softmax, plain], token=False)
    assert [one.place for one in units_of(told)] == ["stages.0.blocks.2.mixer"]
    with torch.no_grad():
        expected = told(images())
        sort_units(told, {"stages.0.blocks.2.mixer": torch.arange(4.0)})
        torch.testing.assert_close(told(images()), expected, atol=1e-5, rtol=1e-5)


def test_a_fused_network_is_refused() -> None:
    with pytest.raises(InputError, match="before a network is fused"):
        units_of(network_of(BLOCKS["softmax"]).fuse())


def test_the_least_important_layers_of_each_kind_and_stage() -> None:
    first = {"embed": "patch(size=4)", "dim": 16, "blocks": [{"repeat": 4, "mixer": "softmax(heads=4)"}]}
    second = {"embed": "patch_merging", "dim": 32, "blocks": [{"repeat": 3, "feedforward": MLP}]}
    document = {"input": 16, "classes": 5, "stages": [first, second], "head": "mean"}
    architecture = Space.parse(document, shared_rules(), "test").only()
    scores = {f"stages.0.blocks.{i}.mixer": torch.tensor([s, 1.0]) for i, s in enumerate((0.0, 3.0, 1.0, 2.0))}
    scores |= {f"stages.1.blocks.{i}.feedforward": torch.tensor([s]) for i, s in enumerate((1.0, 9.0, 8.0))}
    half = least_important(architecture, scores, 0.5)
    assert half == [f"stages.{at}" for at in ("0.blocks.2.mixer", "0.blocks.3.mixer", "1.blocks.2.feedforward")]
    assert least_important(architecture, scores, 0.0) == []
    every = least_important(architecture, scores, 1.0)
    assert len(every) == 5 and not any(".blocks.0." in place for place in every)


def test_modules_without_parameters_of_their_own_are_told_apart_from_units() -> None:
    network = network_of(BLOCKS["linear"], token=False)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    members = {names[id(tensor)] for one in units_of(network) for tensor, _ in one.members}
    assert not any("mixer.reduce" in name or "norm" in name for name in members)
    assert isinstance(network.get_submodule("stages.0.blocks.0.feedforward.depthwise"), nn.Conv2d)
    assert any("depthwise" in name for name in members)
