"""The state of a training run as named tensors and plain values, for a checkpoint, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nas.core.errors import InputError

Tensors = dict[str, Tensor]


def of_module(name: str, module: nn.Module) -> Tensors:
    """Parameters and persistent buffers."""
    return {f"{name}:{key}": value.detach() for key, value in module.state_dict().items()}


def into_module(name: str, module: nn.Module, tensors: Tensors) -> None:
    """The reverse of `of_module`, in place."""
    prefix = f"{name}:"
    found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    try:
        module.load_state_dict(found)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise InputError(f"the checkpoint's {name} is of another network ({first[:200]})") from None


def of_optimizer(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """What the optimiser keeps for each parameter, and the numbers of its groups."""
    saved = optimizer.state_dict()
    tensors: Tensors = {}
    plain: dict[str, Any] = {"groups": [_numbers(group) for group in saved["param_groups"]], "state": {}}
    for index, values in saved["state"].items():
        rest = {}
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer:{index}:{key}"] = value
            else:
                rest[key] = value
        plain["state"][str(index)] = rest
    return tensors, plain


def into_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, plain: dict[str, Any]) -> None:
    """The reverse of `of_optimizer`, for an optimiser over the same parameters."""
    whole = optimizer.state_dict()
    if len(plain["groups"]) != len(whole["param_groups"]):
        raise InputError("the checkpoint is of an optimiser with other groups of parameters")
    for group, numbers in zip(whole["param_groups"], plain["groups"], strict=True):
        group.update(numbers)
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in plain["state"].items()}
    for name, value in tensors.items():
        kind, _, rest = name.partition(":")
        if kind == "optimizer":
            index, _, key = rest.partition(":")
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**whole, "state": state})


def _numbers(group: dict[str, Any]) -> dict[str, Any]:
    """The entries of a group that may change while it works; the rest comes from the configuration."""
    return {key: value for key, value in group.items() if type(value) in (int, float)}
