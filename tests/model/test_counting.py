"""The count of a real pass, by hand, and the formulas of whole networks against it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.model.costs import Costs
from nas.model.counting import count
from nas.model.network import Network, skeleton
from nas.model.reference import load_reference
from nas.model.spaces import load_named_space, space_names


def test_deit_tiny_by_hand() -> None:
    dim, patches, classes, blocks = 192, 14 * 14, 1000, 12
    tokens = patches + 1
    attention = 2 * tokens * tokens * dim
    block = 4 * tokens * dim * dim + attention + 2 * tokens * dim * 4 * dim
    macs = patches * 3 * 16 * 16 * dim + blocks * block + dim * classes
    assert macs == 1_253_683_200
    architecture = load_reference("deit_tiny").architecture
    counted, cost = count(skeleton(architecture), (3, 224, 224)), Costs().cost(architecture)
    assert counted.macs == cost.macs == macs
    assert cost.attention == blocks * attention
    assert counted.params == cost.params == 5_717_416
    # The widest product: the feed-forward from its hidden layer, or to it; attention reads q, k, v and writes as much.
    assert (
        counted.activation == cost.activation == max(5 * tokens * dim, 4 * tokens * dim, 3 * 224 * 224 + patches * dim)
    )


class Call(nn.Module):
    """A function of a batch as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    "module, shape, macs, params, activation",
    [
        (nn.Linear(6, 4), (3, 5, 6), 15 * 24, 28, 15 * 10),
        (nn.Conv2d(4, 8, 3, padding=1), (4, 5, 6), 30 * 9 * 32, 296, 30 * 12),
        (nn.Conv2d(4, 4, 3, stride=2, groups=4), (4, 7, 7), 9 * 9 * 4, 40, 4 * (49 + 9)),
        (Call(lambda x: x @ x.transpose(-1, -2)), (2, 3, 5), 2 * 9 * 5, 0, 2 * (30 + 9)),
        (Call(lambda x: F.scaled_dot_product_attention(x, x, x)), (2, 3, 5), 2 * 2 * 9 * 5, 0, 4 * 30),
        (Call(lambda x: x.softmax(dim=-1).exp() * 2), (2, 3, 5), 0, 0, 0),
    ],
    ids=["linear", "convolution", "depthwise", "product", "attention", "elementwise"],
)
def test_single_operations_by_hand(
    module: nn.Module, shape: tuple[int, ...], macs: int, params: int, activation: int
) -> None:
    counted = count(module, shape)
    assert (counted.macs, counted.params, counted.activation) == (macs, params, activation)


def test_counting_leaves_the_network_as_it_is() -> None:
    network = Network(load_named_space("digits").sample(Random(0))).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count(network, (1, 32, 32))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", space_names())
def test_formulas_equal_the_count(name: str) -> None:
    space, chance, costs = load_named_space(name), Random(11), Costs()
    for _ in range(6):
        architecture = space.sample(chance)
        side, cost = architecture.input, costs.cost(architecture)
        counted = count(skeleton(architecture), (architecture.channels, side, side))
        assert (cost.macs, cost.params, cost.activation) == (counted.macs, counted.params, counted.activation)
        assert 0 <= cost.attention <= cost.macs
