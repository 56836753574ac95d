"""Small networks that tests of export share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nas.core.architecture import Architecture
from nas.core.space import Space
from nas.exporting.subject import Subject
from nas.model.network import Network
from nas.model.spaces import shared_rules

BLOCK: dict[str, Any] = {"repeat": 2, "mixer": "softmax(heads=2)", "feedforward": "mlp(ratio=2)"}
STAGE: dict[str, Any] = {"embed": "patch(size=4)", "dim": 16, "class_token": True, "position": "learned"}


def plain(stage: dict[str, Any] | None = None, block: dict[str, Any] | None = None, **more: Any) -> Architecture:
    """A plain vision transformer of 16 pixels, with changes to its stage, its blocks, or the whole."""
    stages = [{**STAGE, **(stage or {}), "blocks": [{**BLOCK, **(block or {})}]}]
    return parsed({"input": 16, "classes": 5, "stages": stages, "head": "class_token", **more})


def pyramid() -> Architecture:
    """Two stages, with batch norms."""
    blocks = [{"mixer": "depthwise(kernel=3)", "feedforward": "mlp(ratio=2)"}]
    stages = [
        {"embed": "stem_halving(convs=1)", "dim": 8, "blocks": blocks},
        {"embed": "patch_merging", "dim": 16, "blocks": [*blocks, BLOCK]},
    ]
    return parsed({"input": 16, "classes": 5, "channels": 1, "stages": stages, "head": "mean"})


def reducing(reduction: str) -> Architecture:
    """One stage with an exit, and a reduction of tokens that acts twice."""
    block = {**BLOCK, "repeat": 1}
    blocks = [{**block, "exit": "linear(threshold=0.4)"}, *([{**block, "reduction": reduction}] * 2)]
    stages = [{**STAGE, "blocks": blocks}]
    return parsed({"input": 16, "classes": 5, "stages": stages, "head": "class_token"})


def parsed(document: dict[str, Any]) -> Architecture:
    return Space.parse(document, shared_rules(), "test").only()


def subject(architecture: Architecture, name: str = "network", **more: Any) -> Subject:
    """The network with weights, norms and statistics away from 0 and 1, so that a swapped one shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(architecture).eval()
        moved(network)
    figures = {"macs": 1000, "params": 100, **more.pop("figures", {})}
    return Subject(name, architecture, network, figures, **{"trained": False, **more})


@torch.no_grad()
def moved(network: nn.Module) -> None:
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and tensor.dim() <= 1:
            tensor.add_(0.1 * torch.randn_like(tensor))
