"""Zen-score: how strongly the features of a Gaussian network answer to a small change of a Gaussian image.

Source: Lin et al., "Zen-NAS", ICCV 2021, https://arxiv.org/abs/2102.01063: with normal weights, the logarithm of the
mean distance between the features of x and of x + 0.01 e, x and e normal, plus the logarithm of the deviation that each
batch norm divides by, so that norms do not hide how much the layers before them amplify.
Vision transformers have layer norms: they are counted the same way, by the deviation over channels. Linear layers and
convolutions get weights of deviation 1 and no biases; other parameters keep their initial values.
Limits: residual links stay (the paper removes them), because operators carry links of their own; only the shape of the
setting's images is used. Where tokens are chosen, a small change may choose others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.accuracy._passes import NORMS, built, seed_of
from nas.accuracy.base import Estimate, Estimator, Unscorable
from nas.core.architecture import Architecture
from nas.ops.parts.cells import SampleNorm
from nas.ops.parts.norms import RmsNorm, TokenBatchNorm

STEP = 0.01
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


class Zen(Estimator):
    about = "sensitivity of a Gaussian network's features (Zen-score, Lin et al., ICCV 2021)"
    kind = "proxy"
    cost = "two forward passes"

    def measure(self, architecture: Architecture) -> Estimate:
        network, setting = built(self.setting, architecture), self.setting
        chance = torch.Generator().manual_seed(seed_of(setting.seed, architecture, "zen"))
        make_gaussian(network, chance)
        x, step = (torch.randn(setting.images.shape, generator=chance).to(setting.device) for _ in range(2))
        with torch.no_grad():
            with deviations(network) as found:
                features = network.forward_features(x)
            changed = network.forward_features(x + STEP * step)
        distance = float((changed - features).double().flatten(1).norm(dim=1).mean())
        if not (distance > 0 and all(deviation > 0 for deviation in found)):
            raise Unscorable("the features do not answer to a change of the image")
        return Estimate(math.log(distance) + sum(map(math.log, found)))


@torch.no_grad()
def make_gaussian(network: nn.Module, chance: torch.Generator) -> None:
    """Weights of deviation 1 and no biases in linear layers and convolutions."""
    for module in network.modules():
        if isinstance(module, LAYERS):
            module.weight.copy_(torch.randn(module.weight.shape, generator=chance))
            if module.bias is not None:
                module.bias.zero_()


@contextmanager
def deviations(network: nn.Module) -> Iterator[list[float]]:
    """What the norms of a network divide by, in the order of their calls, while this is open."""
    found: list[float] = []

    def note(module: nn.Module, inputs: Any) -> None:
        found.append(deviation(module, inputs[0]))

    hooks = [m.register_forward_pre_hook(note) for m in network.modules() if isinstance(m, (*NORMS, _BatchNorm))]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def deviation(norm: nn.Module, x: Tensor) -> float:
    """The root of the mean of the variances that a norm divides by."""
    x = x.double()
    if isinstance(norm, RmsNorm):
        return float(x.square().mean().sqrt())
    if isinstance(norm, nn.LayerNorm):
        over: tuple[int, ...] = (-1,)
    elif isinstance(norm, SampleNorm):
        over = tuple(range(1, x.dim()))
    else:
        channel = x.dim() - 1 if isinstance(norm, TokenBatchNorm) else 1
        over = tuple(dim for dim in range(x.dim()) if dim != channel)
    return float(x.var(dim=over, correction=0).mean().sqrt())
