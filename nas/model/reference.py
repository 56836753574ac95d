"""Reference networks: published networks as architecture files, with the figures that their authors printed.

The `reference` key of a file:

    reference:
      paper: "Touvron et al., ICML 2021, https://arxiv.org/abs/2012.12877"
      params_m: "5.7"        # as printed, so that its precision is known; null where none was printed
      gmacs: "1.3"           # the papers' FLOPs, multiply-accumulates
      top1: 72.2             # ImageNet-1k, percent; null where none was printed
      source: README of the authors' repository
      timm: deit_tiny_patch16_224     # timm's name, where timm has it
      timm_args: {num_classes: 1000}  # further arguments of timm.create_model
      weights: vit                    # the file in nas/model/timm_weights that maps timm's weights
      measured: {params_m: "5.717", gmacs: "1.254"}   # the authors' own code counted, to the digits given
      off: {gmacs: "omits attention products"}        # which printed figures their own code does not have, and why
      macs_without_attention: true    # the printed GMACs leave attention products out
      speed: {base: deit_small, ratio: 1.5, source: ...}  # how much faster than another it was published to be
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nas.core.architecture import Architecture
from nas.core.data import data_folder
from nas.core.errors import InputError, nearest
from nas.core.space import Space
from nas.model.costs import Costs
from nas.model.network import Network
from nas.model.spaces import shared_rules
from nas.model.timm_weights import load_timm


@dataclasses.dataclass(frozen=True)
class Reference:
    """A published network. Figures are texts as printed."""

    name: str
    architecture: Architecture
    paper: str
    source: str
    params_m: str | None = None
    gmacs: str | None = None
    top1: float | None = None
    timm: str | None = None
    timm_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str | None = None
    measured: dict[str, str] = dataclasses.field(default_factory=dict)
    off: dict[str, str] = dataclasses.field(default_factory=dict)
    speed: dict[str, Any] = dataclasses.field(default_factory=dict)
    macs_without_attention: bool = False
    note: str = ""


def reference_names() -> list[str]:
    """Every reference network, in alphabetical order."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_reference(name: str) -> Reference:
    """A reference network by its file's name."""
    path = _folder() / f"{name}.yaml"
    if not path.is_file():
        raise InputError("unknown reference network", value=name, nearest=nearest(name, reference_names()))
    space = Space.load(path, shared_rules())
    fields = {field.name for field in dataclasses.fields(Reference)} - {"name", "architecture"}
    for key in space.notes:
        if key not in fields:
            raise InputError("unknown key", value=key, place=f"{path.name}: reference", nearest=nearest(key, fields))
    for key in ("paper", "source"):
        if key not in space.notes:
            raise InputError(f"a reference network says its {key}", value=key, place=f"{path.name}: reference")
    if space.name != name:
        raise InputError("a reference network is named as its file", value=space.name, place=path.name)
    return Reference(name=name, architecture=space.only(), **space.notes)


def named_network(name: str) -> Architecture:
    """An architecture file, or a reference network by name."""
    if name.endswith((".yaml", ".yml")):
        return Space.load(name, shared_rules()).only()
    return load_reference(name).architecture


class Figure(NamedTuple):
    """A figure that a file states, ours beside it, and whether they agree as the file says they do."""

    name: str
    stated: str
    value: float
    holds: bool


def figures(reference: Reference) -> list[Figure]:
    """Published and measured figures against the exact cost. A figure said to be off must really be off."""
    cost = Costs().cost(reference.architecture)
    published = cost.macs - cost.attention if reference.macs_without_attention else cost.macs
    found = []
    for name, unit, count, measured in (
        ("params_m", 1e6, cost.params, cost.params),
        ("gmacs", 1e9, published, cost.macs),
    ):
        printed = getattr(reference, name)
        if printed is not None:
            off = name in reference.off
            holds = agrees(count, printed, unit) != off and (not off or name in reference.measured)
            found.append(Figure(f"published {name}", printed, count / unit, holds))
        if name in reference.measured:
            stated = reference.measured[name]
            found.append(Figure(f"measured {name}", stated, measured / unit, agrees(measured, stated, unit)))
    return found


def timm_twin(reference: Reference, seed: int = 0) -> tuple[Network, nn.Module]:
    """Our network and timm's with the same random weights, both in eval mode.

    Norms, scales, biases and statistics are moved away from 0 and 1, so that a swapped one shows.
    """
    import timm  # takes seconds

    assert reference.timm is not None and reference.weights is not None
    torch.manual_seed(seed)
    theirs = timm.create_model(reference.timm, pretrained=False, **reference.timm_args).eval()
    with torch.no_grad():
        for module in theirs.modules():
            for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if name == "running_var":
                    tensor.uniform_(0.5, 1.5)
                elif name == "running_mean" or (tensor.dim() <= 1 and tensor.is_floating_point()):
                    tensor.add_(0.1 * torch.randn_like(tensor))
    ours = Network(reference.architecture, init=False).eval()
    load_timm(ours, theirs.state_dict(), reference.weights)
    return ours, theirs


def agrees(value: int, printed: str, unit: float) -> bool:
    """Whether a count equals a printed figure (in `unit`s) to its own precision, be it rounded or cut off."""
    step = 10.0 ** -len(printed.partition(".")[2])
    excess = value / unit - float(printed)
    return -step / 2 <= excess * (1 - 1e-12) < step


def _folder() -> Path:
    return data_folder("search_spaces") / "reference"
