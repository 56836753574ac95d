"""Subjects: what is timed, made from a JSON description: a whole network, one of its operators, or a network of timm's.

An operator is timed with the very state that reaches it in a network (phases, bias, previous block, lost and merged
tokens): the network runs once on noise and what enters the operator is kept. So every runtime times every operator in
the same way, as a module from tensors to tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.core.architecture import Architecture
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.model.network import Network
from nas.model.spaces import shared_rules
from nas.ops.base import Operator
from nas.ops.tokens import Tokens

# The fixed reference of every measurement: two blocks of DeiT-Ti. Changing it makes every table another.
REFERENCE = {
    "name": "clock_reference",
    "stages": [
        {
            "embed": "patch(size=16)",
            "dim": 192,
            "class_token": True,
            "position": "learned",
            "blocks": [{"mixer": "softmax(heads=3, head_dim=64)", "feedforward": "mlp(ratio=4)", "repeat": 2}],
        }
    ],
    "head": "class_token",
}


class Subject(NamedTuple):
    """A module in eval mode on the CPU and the tensors that it takes."""

    module: nn.Module
    inputs: tuple[Tensor, ...]


def reference(batch: int = 1) -> Subject:
    """The fixed reference network."""
    return of_network(read(REFERENCE, "the clock's reference"), batch)


def subject(description: dict[str, Any], batch: int = 1) -> Subject:
    """{"network": architecture}, with "operator": its path for one of it, or {"timm": name, "arguments": {...}}."""
    torch.manual_seed(0)
    if "timm" in description:
        import timm  # takes seconds
        from timm.utils.model import reparameterize_model

        if not timm.is_model(description["timm"]):
            names = nearest(description["timm"], timm.list_models())
            raise InputError("timm has no such network", value=description["timm"], nearest=names)
        network = timm.create_model(description["timm"], pretrained=False, **description.get("arguments", {})).eval()
        network = reparameterize_model(network)  # as deployed, where it has branches to fold
        size: tuple[int, ...] = network.default_cfg["input_size"]  # type: ignore[index, assignment]
        return Subject(network, (torch.randn(batch, *size),))
    architecture = read(description["network"], "the network to measure")
    if "operator" in description:
        return operators(architecture, batch, {description["operator"]})[description["operator"]]
    return of_network(architecture, batch)


def read(document: dict[str, Any], place: str) -> Architecture:
    """The architecture of a document."""
    return Space.parse(document, shared_rules(), place).only()


def of_network(architecture: Architecture, batch: int = 1) -> Subject:
    """A network as it is deployed: extracted, fused, in eval mode."""
    network = Network(architecture).eval().fuse()
    return Subject(network, (_noise(architecture, batch),))


def operators(architecture: Architecture, batch: int = 1, wanted: set[str] | None = None) -> dict[str, Subject]:
    """Operators of a network by path, each with what entered it in one pass."""
    network = of_network(architecture, batch)
    places = {name: module for name, module in network.module.named_modules() if isinstance(module, Operator)}
    if wanted is not None and not wanted <= places.keys():
        raise InputError("the network has no such operator", value=", ".join(sorted(wanted - places.keys())))
    found: dict[str, Subject] = {}
    handles = []
    for name, module in places.items():
        if wanted is None or name in wanted:

            def keep(module: nn.Module, arguments: tuple[Any, ...], name: str = name) -> None:
                if name not in found:
                    found[name] = piece(module, arguments)

            handles.append(module.register_forward_pre_hook(keep))
    with torch.no_grad():
        network.module(*network.inputs)
    for handle in handles:
        handle.remove()
    return found


def piece(module: nn.Module, arguments: tuple[Any, ...]) -> Subject:
    """An operator and the arguments that entered it, as a module from tensors to tensors."""
    leaves: list[Tensor] = []
    form = tuple(_take(argument, leaves) for argument in arguments)
    return Subject(Piece(module, form).eval(), tuple(leaf.clone() for leaf in leaves))


class Piece(nn.Module):
    """One operator, called as in its network with the tensors put back in their places."""

    def __init__(self, operator: nn.Module, form: tuple[Any, ...]):
        super().__init__()
        self.operator = operator
        self.form = form

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        result = self.operator(*(_put(part, leaves) for part in self.form))
        made = {id(tensor): tensor for tensor in _tensors(result)}  # each once, and not what only passes through
        passed = {id(leaf) for leaf in leaves}
        return tuple(tensor for number, tensor in made.items() if number not in passed)


class _Place(NamedTuple):
    """Where a tensor stood, by its number."""

    number: int


def _take(value: Any, leaves: list[Tensor]) -> Any:
    """The value with its tensors replaced by places; the tensors go to the list, each once."""
    if isinstance(value, Tensor):
        for number, leaf in enumerate(leaves):
            if leaf is value:
                return _Place(number)
        leaves.append(value)
        return _Place(len(leaves) - 1)
    if isinstance(value, Tokens):
        made = copy.copy(value)
        for name, inner in vars(value).items():
            setattr(made, name, _take(inner, leaves))
        return made
    if isinstance(value, dict):
        return {name: _take(inner, leaves) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_take(inner, leaves) for inner in value)
    return value


def _put(value: Any, leaves: tuple[Tensor, ...]) -> Any:
    """The reverse of `_take`."""
    if isinstance(value, _Place):
        return leaves[value.number]
    if isinstance(value, Tokens):
        return value.replace(**{name: _put(inner, leaves) for name, inner in vars(value).items()})
    if isinstance(value, dict):
        return {name: _put(inner, leaves) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_put(inner, leaves) for inner in value)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a result: the features, and what a state carries on."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Tokens):
        for inner in vars(value).values():
            yield from _tensors(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _tensors(inner)


def _noise(architecture: Architecture, batch: int) -> Tensor:
    side = architecture.input
    return torch.randn(batch, architecture.channels, side, side, generator=torch.Generator().manual_seed(0))
