"""The bank of a supernet: which tensors it has, how large, where each module's lie in it, and what they hold at first.

A key is the place of the module, then the operator's family or name, then the part's own name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.core.architecture import NONE
from nas.core.space import Space
from nas.core.spec import Spec
from nas.model.stages import Scale
from nas.ops.base import Crop, Operator, leading
from nas.ops.catalogue import Catalogue
from nas.ops.parts.init import init_weights
from nas.ops.parts.norms import make_norm
from nas.ops.placements import Placement, placements

JOINING = ("class_token", "distill_token", "registers")


class Slot(NamedTuple):
    """One tensor of a module: where it sits, and where it lives in the bank."""

    module: nn.Module
    name: str
    key: str
    crop: Crop
    shape: tuple[int, ...]


def slots(path: str, module: nn.Module) -> Iterator[Slot]:
    """Every tensor of a module tree with its bank key: place, then family or operator, then the part's own name."""
    if isinstance(module, Operator):
        name = type(module).__module__.rpartition(".")[2]
        for inner_path, inner in module.named_modules():
            for local, tensor in _state(inner):
                full = f"{inner_path}.{local}" if inner_path else local
                share = module.share(full)
                owner = module.family if full.partition(".")[0] in module.shared else name
                yield Slot(inner, local, f"{path}.{owner}.{share.key}", share.crop, tuple(tensor.shape))
        return
    for local, tensor in _state(module):
        owner = path if local in JOINING else f"{path}.{type(module).__name__}"  # norms of another type are others
        yield Slot(module, local, f"{owner}.{local}", leading, tuple(tensor.shape))
    for name, child in module.named_children():
        yield from slots(f"{path}.{name}" if path else name, child)


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and persistent buffers of one module, not of its children."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            yield name, buffer


def initial(space: Space, operators: Catalogue) -> dict[str, Tensor]:
    """Bank tensors of the largest shape that any option at a place needs, filled from the largest instance."""
    shapes: dict[str, tuple[int, ...]] = {}
    largest: dict[str, tuple[int, Placement, str]] = {}
    made: dict[Placement, list[tuple[str, tuple[int, ...]]]] = {}
    for path, placement in placements(space, operators):
        if placement not in made:
            with torch.device("meta"):
                made[placement] = [(slot.key, slot.shape) for slot in slots("", _module(placement, operators))]
        for key, shape in made[placement]:
            full = path + key
            known = shapes.get(full, shape)
            if len(known) != len(shape):
                raise ValueError(f"{full}: shapes {known} and {shape} cannot share one bank tensor; override share()")
            shapes[full] = tuple(map(max, known, shape))
            size = math.prod(shape)
            if full not in largest or size > largest[full][0]:
                largest[full] = (size, placement, key)
    by_maker: dict[tuple[str, Placement], dict[str, str]] = {}
    for full, (_, placement, key) in largest.items():
        by_maker.setdefault((full.removesuffix(key), placement), {})[key] = full
    bank: dict[str, Tensor] = {}
    for (_, placement), wanted in by_maker.items():
        module = _module(placement, operators)
        module.apply(init_weights)
        if isinstance(module, Operator):
            module.init()
        for slot in slots("", module):
            if slot.key in wanted:
                full = wanted[slot.key]
                bank[full] = _grown(getattr(slot.module, slot.name), shapes[full])
    return {key: bank[key] for key in shapes}


def _grown(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor with at least this shape: what lies outside is drawn with its spread, or repeats its last value."""
    if tuple(tensor.shape) == tuple(shape):
        return tensor
    value = tensor.detach()
    if value.dim() >= 2:
        full = torch.empty(shape, dtype=value.dtype).normal_(std=float(value.std()) if value.numel() > 1 else 0.02)
    else:
        full = torch.full(shape, float(value.flatten()[-1]), dtype=value.dtype)
    leading(full, value.shape).copy_(value)
    return nn.Parameter(full) if isinstance(tensor, nn.Parameter) else full


def _module(placement: Placement, operators: Catalogue) -> nn.Module:
    """The module of a placement: an operator, a norm, a scale, or tokens that join."""
    kind, value, site = placement.kind, placement.value, placement.site
    if kind == "norm":
        return make_norm(value, site.dim)
    if kind == "scale":
        return Scale(site.dim, value)
    if kind in JOINING:
        holder = nn.Module()
        holder.register_parameter(kind, nn.Parameter(0.02 * torch.randn(1, value, site.dim)))
        return holder
    assert isinstance(value, Spec) and value is not NONE
    return operators.get(kind, value.name)(site, **dict(placement.context), **dict(value.knobs))
