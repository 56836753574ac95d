"""Importance of attention heads and hidden units, and the order that puts the most important first.

A supernet slices leading heads and leading hidden units. In a trained network the leading ones are any; sorted by
importance they are the ones to keep. A permutation of heads (rows of q, k and v, columns of the output projection, what
else belongs to a head) or of hidden units (rows of the first layer, columns of the second) changes no output.

Scores: of the weights alone, or by the first-order effect of leaving a unit out on a loss over images (Michel et al.,
"Are sixteen heads really better than one?", NeurIPS 2019, https://arxiv.org/abs/1905.10650; Molchanov et al.,
"Importance estimation for neural network pruning", CVPR 2019, https://arxiv.org/abs/1906.10771).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.core.architecture import NONE, Architecture, Block
from nas.core.errors import InputError
from nas.model.network import Network
from nas.model.stages import BlockModule, Scale
from nas.ops.base import Mixer
from nas.ops.catalogue import Catalogue, catalogue
from nas.ops.parts.attention import Projections

# What belongs to a head beside the projections, and along which dimension heads lie. Mixers and positions that are not
# here are left as they are: their heads are not interchangeable, or nobody looked.
OF_HEADS: dict[str, dict[str, int]] = {
    "softmax": {},
    "window": {"bias.table": 0},
    "grid_window": {"bias.table": 0},
    "spatial_reduction": {},
    "mask_unit": {},
}
OF_POSITIONS: dict[str, dict[str, int]] = {
    "none": {},
    "peg": {},
    "rotary": {"learned": 1},
    "relative_bias": {"table": 0, "from_prefix": 0, "to_prefix": 0, "among_prefix": 0},
}
OF_HIDDEN = {"mlp": ("up",), "mlp_depthwise": ("up", "depthwise"), "gated": ("gate", "up")}
OVER_HEADS = frozenset({"output", "class_attention"})  # what a block leaves that is summed over heads


Members = list[tuple[Tensor, int]]


class Units(NamedTuple):
    """The interchangeable units of one module: heads of a mixer or hidden units of a feed-forward.

    members: every tensor that has a part for each unit, with the dimension along which they follow one another.
    The module computes scale * closing(f(entering(norm(x)))), where f keeps units apart.
    """

    place: str  # "stages.0.blocks.3.mixer"
    number: int
    members: tuple[tuple[Tensor, int], ...]
    norm: nn.Module
    entering: nn.Linear
    closing: nn.Linear
    scale: nn.Module


def interchangeable_heads(block: Block, following: Block | None, operators: Catalogue) -> bool:
    """Whether the heads of a block's mixer may change places: nothing but the mixer itself tells them apart."""
    if block.mixer.name not in OF_HEADS or block.position.name not in OF_POSITIONS:
        return False
    if following is None or following.mixer is NONE:
        return True
    reader = operators.get("mixer", following.mixer.name)
    assert issubclass(reader, Mixer)
    return reader.reads_previous | reader.uses_previous <= OVER_HEADS


def interchangeable_hidden(block: Block) -> bool:
    """Whether hidden units of a block's feed-forward may change places, and leave without a change to the others."""
    return block.feedforward.name in OF_HIDDEN and block.feedforward.get("norm") != "hidden"


def units_of(network: Network) -> list[Units]:
    """The units of every module whose units are interchangeable, in order of the blocks."""
    if network.fused:
        raise InputError("importance is read before a network is fused")
    operators, found = catalogue(), []
    for number, stage in enumerate(network.architecture.stages):
        for depth, block in enumerate(stage.blocks):
            place = f"stages.{number}.blocks.{depth}"
            module = network.get_submodule(place)
            assert isinstance(module, BlockModule)
            following = stage.blocks[depth + 1] if depth + 1 < len(stage.blocks) else None
            if interchangeable_heads(block, following, operators):
                found.append(_heads(f"{place}.mixer", block, module))
            if interchangeable_hidden(block):
                found.append(_hidden(f"{place}.feedforward", block, module))
    return found


def _heads(place: str, block: Block, module: BlockModule) -> Units:
    mixer = module.mixer
    assert mixer is not None
    attention = mixer.get_submodule("attention")
    assert isinstance(attention, Projections)
    members: Members = [(value, 0) for layer in (attention.q, attention.k, attention.v) for value in layer.parameters()]
    members.append((attention.out.weight, 1))
    members += _named(mixer, OF_HEADS[block.mixer.name])
    if module.position is not None:
        members += _named(module.position, OF_POSITIONS[block.position.name])
    scale = module.scale2 if module.joint else module.scale1
    return Units(place, attention.heads, tuple(members), module.norm1, attention.v, attention.out, scale)


def _hidden(place: str, block: Block, module: BlockModule) -> Units:
    feedforward = module.feedforward
    assert feedforward is not None
    layers = [feedforward.get_submodule(name) for name in OF_HIDDEN[block.feedforward.name]]
    up, down = feedforward.get_submodule("up"), feedforward.get_submodule("down")
    assert isinstance(up, nn.Linear) and isinstance(down, nn.Linear)
    members: Members = [(value, 0) for layer in layers for value in layer.parameters()]
    members.append((down.weight, 1))
    return Units(place, up.out_features, tuple(members), module.norm2, up, down, module.scale2)


def _named(module: nn.Module, dims: Mapping[str, int]) -> Members:
    """The parameters of these names that a module has."""
    return [(value, dims[name]) for name, value in module.named_parameters() if name in dims]


@torch.no_grad()
def weight_scores(units: Units) -> Tensor:
    """Scores (number) of the weights alone: the Frobenius norm of each unit's product of entering and closing layer.

    The affine part of the norm before, the bias, and the LayerScale behind are multiplied in. For a hidden unit it is
    the norm of its row times that of its column.
    """
    enter: Tensor = units.entering.weight
    leave: Tensor = units.closing.weight
    shift: Tensor = torch.zeros_like(enter[:, 0]) if units.entering.bias is None else units.entering.bias
    affine = dict(units.norm.named_parameters())
    if "bias" in affine:
        shift = shift + enter @ affine["bias"]
    if "weight" in affine:
        enter = enter * affine["weight"]
    if isinstance(units.scale, Scale):
        leave = leave * units.scale.weight[:, None]
    rows = torch.cat((enter, shift[:, None]), dim=1).unflatten(0, (units.number, -1))
    columns = leave.unflatten(1, (units.number, -1))
    inner = torch.einsum("uwc,uvc->uwv", rows, rows) * torch.einsum("cuw,cuv->uwv", columns, columns)
    return inner.sum(dim=(1, 2)).clamp(min=0).sqrt()


def taylor_scores(
    network: Network, units: Iterable[Units], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Scores (number) by place: the mean over images of how much, to first order, leaving the unit out changes the
    cross-entropy. The network runs in eval mode and is left in the mode it had; no gradient is kept."""
    listed, training, images = list(units), network.training, 0
    taken: dict[str, Tensor] = {}
    scores = {one.place: torch.zeros(one.number, device=one.closing.weight.device) for one in listed}

    def keep(place: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            taken[place] = inputs[0]

        return hook

    hooks = [one.closing.register_forward_pre_hook(keep(one.place)) for one in listed]
    network.eval()
    try:
        for shown, labels in batches:
            with torch.enable_grad():
                loss = F.cross_entropy(network(shown), labels, reduction="sum")
                gradients = torch.autograd.grad(loss, [taken[one.place] for one in listed])
            for one, gradient in zip(listed, gradients, strict=True):
                effect = (taken[one.place].detach() * gradient).unflatten(-1, (one.number, -1)).sum(dim=-1)
                scores[one.place] += effect.reshape(len(shown), -1, one.number).sum(dim=1).abs().sum(dim=0)
            images += len(shown)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(training)
    if not images:
        raise InputError("scores by their effect on a loss need images")
    return {place: score / images for place, score in scores.items()}


def scores_of(network: Network, batches: Iterable[tuple[Tensor, Tensor]] | None = None) -> dict[str, Tensor]:
    """Scores of all units by place, of the weights alone or, with batches of images and labels, by their effect."""
    units = units_of(network)
    if batches is None:
        return {one.place: weight_scores(one) for one in units}
    return taylor_scores(network, units, batches)


@torch.no_grad()
def sort_units(network: Network, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the units of every place with scores in order, the highest first, in place; equal ones keep their order.

    Returns the order by place: which old unit stands where. The function of the network stays what it was.
    """
    orders: dict[str, Tensor] = {}
    for one in units_of(network):
        if one.place not in scores:
            continue
        order = scores[one.place].argsort(descending=True, stable=True)
        for tensor, dim in one.members:
            apart = tensor.unflatten(dim, (one.number, -1))
            tensor.copy_(apart.index_select(dim, order.to(tensor.device)).flatten(dim, dim + 1))
        orders[one.place] = order
    return orders


def least_important(architecture: Architecture, scores: Mapping[str, Tensor], share: float) -> list[str]:
    """Places of the mixers and the feed-forwards to leave out first: this share of each stage's, rounded down.

    A module's score is the sum over its units; it is compared with those of the same kind and stage. The first block of
    a stage stays: it reads what the embedding gives.
    """
    chosen: list[str] = []
    for number, stage in enumerate(architecture.stages):
        for kind in ("mixer", "feedforward"):
            places = [f"stages.{number}.blocks.{depth}.{kind}" for depth in range(1, len(stage.blocks))]
            ranked = sorted((float(scores[place].sum()), place) for place in places if place in scores)
            chosen += [place for _, place in ranked[: int(share * len(stage.blocks) + 1e-9)]]
    return chosen
