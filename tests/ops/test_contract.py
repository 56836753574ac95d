"""Every operator found in the folders is held to the same contract, in small spaces built around it.

Choose some with NAS_CONTRACT, a comma-separated list of `kind:name` or `name`.
"""

from __future__ import annotations

import inspect
import os
import random
import re

import pytest
import torch
from torch import nn

from nas.core.architecture import Architecture
from nas.core.space import Space
from nas.model.around import spaces_around
from nas.model.costs import Costs
from nas.model.counting import count
from nas.model.network import Network
from nas.model.program import exported
from nas.model.supernet import Supernet
from nas.ops.base import Operator
from nas.ops.catalogue import catalogue

OPERATORS = catalogue()
CHOSEN = set(filter(None, os.environ.get("NAS_CONTRACT", "").split(",")))
EVERY = [
    pytest.param(kind, name, id=f"{kind}:{name}")
    for kind, name, _ in OPERATORS.every()
    if not CHOSEN or name in CHOSEN or f"{kind}:{name}" in CHOSEN
]


@pytest.mark.parametrize("kind, name", EVERY)
def test_documented(kind: str, name: str) -> None:
    cls = OPERATORS.get(kind, name)
    text = inspect.getdoc(inspect.getmodule(cls)) or ""
    assert re.search(r"https?://|arXiv", text), "the docstring links the paper"
    assert "Limits:" in text, "the docstring says its limits"
    assert len(inspect.getsource(inspect.getmodule(cls)).splitlines()) <= 200  # type: ignore[arg-type]
    assert all(text and reason for text, reason in cls.limits.items())


@pytest.mark.parametrize("kind, name", EVERY)
def test_contract(kind: str, name: str) -> None:
    operators = OPERATORS
    cls = operators.get(kind, name)
    chance = random.Random(1)
    for number, space in enumerate(spaces_around(operators, kind, name)):
        torch.manual_seed(number)
        supernet = Supernet(space, operators).eval()
        for _ in range(2):
            architecture = space.sample(chance)
            assert architecture in space
            network = supernet.extract(architecture)
            side = architecture.input
            image = torch.randn(2, 3, side, side)
            check_cost(cls, architecture, network)
            logits = check_slice(supernet, architecture, network, image)
            check_no_trace(network, image, logits)
            if number < 3:
                check_gradients(cls, supernet, architecture, image)
        if number < 2 and "export" not in cls.limits:
            check_export(network, image)


def check_cost(cls: type[Operator], architecture: Architecture, network: Network) -> None:
    counted = count(network, (3, architecture.input, architecture.input), "cpu")
    cost = Costs(OPERATORS).cost(architecture)
    assert (cost.macs, cost.params) == (counted.macs, counted.params)
    assert 0 <= cost.attention <= cost.macs
    if "activation" not in cls.limits:
        assert cost.activation == counted.activation


def check_slice(supernet: Supernet, architecture: Architecture, network: Network, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        bound, own = supernet.bind(architecture)(image), network(image)
    assert own.shape == (image.shape[0], architecture.classes)
    assert torch.isfinite(own).all()
    assert torch.equal(bound, own), "slice and extracted network differ"
    return own


def check_no_trace(network: Network, image: torch.Tensor, logits: torch.Tensor) -> None:
    before = {name: set(vars(module)) for name, module in network.named_modules()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        again = network(image)
    assert torch.equal(again, logits), "a second pass gives another result"
    assert before == {name: set(vars(module)) for name, module in network.named_modules()}
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def check_gradients(cls: type[Operator], supernet: Supernet, architecture: Architecture, image: torch.Tensor) -> None:
    """Gradients reach every parameter of the slice and nothing else of the bank."""
    supernet.zero_grad(set_to_none=True)
    network = supernet.bind(architecture, train=True)
    randomise(network)
    total = sum(logits.square().mean() for _, logits in network.forward_exits(image))
    total.backward()  # type: ignore[union-attr]
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    silent = [
        name for name in silent if not any(re.search(pattern, name) for pattern in cls.limits if pattern not in KEYS)
    ]
    assert not silent, f"no gradient: {silent}"
    reached = sum(int((p.grad != 0).sum()) for p in supernet.parameters() if p.grad is not None)
    assert reached <= sum(p.numel() for p in network.parameters())
    sliced = sum(int((p.grad != 0).sum()) for p in network.parameters() if p.grad is not None)
    assert reached == sliced, "a gradient fell outside the slice"
    supernet.bind(architecture)


KEYS = ("activation", "export", "gradient")


def randomise(network: nn.Module) -> None:
    """Move zero and constant weights, which would hide a missing path."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))


def check_export(network: Network, image: torch.Tensor) -> None:
    with torch.no_grad():
        program = exported(network, (image,)).module()
        assert torch.allclose(program(image), network(image), atol=1e-5, rtol=1e-4)


def test_every_kind_is_found() -> None:
    assert {kind for kind, _, _ in OPERATORS.every()} == {
        "embed",
        "position",
        "mixer",
        "feedforward",
        "reduction",
        "exit",
        "head",
    }


def test_spaces_offer_what_is_legal() -> None:
    space = spaces_around(OPERATORS, "mixer", "softmax")[0]
    assert isinstance(space, Space) and space.size >= 2
