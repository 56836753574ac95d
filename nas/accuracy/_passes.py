"""Passes that several proxies share: the network with fresh weights, and its gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.accuracy.base import Setting, Unscorable
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.network import Network
from nas.model.spaces import shared_rules
from nas.ops.parts.cells import SampleNorm
from nas.ops.parts.norms import RmsNorm

NORMS = (nn.LayerNorm, RmsNorm, SampleNorm)  # batch norms are told apart: they act by what they have seen


class Weight(NamedTuple):
    """A weight matrix, kernel or table of a network, its gradient, and the module path with its name."""

    name: str
    value: Tensor
    gradient: Tensor


def seed_of(seed: int, architecture: Architecture, use: str = "weights") -> int:
    """The seed of one use for one network."""
    text = f"{seed} {use} {architecture.digest}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def built(setting: Setting, architecture: Architecture) -> Network:
    """The network with fresh weights, as it is deployed (tokens are dropped, not masked), on the setting's device.

    Batch norms have seen no data, so they take the statistics of the batch. torch's generator is left as it was.
    """
    setting.check(architecture)
    made = at_side(architecture, setting.images.shape[-1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(setting.seed, architecture))
        network = Network(made).eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    return network.to(setting.device)


def at_side(architecture: Architecture, side: int) -> Architecture:
    """The architecture for images of `side` pixels; Unscorable where its operators do not stand there."""
    if side == architecture.input:
        return architecture
    try:
        return Space.parse({**architecture.to_dict(), "input": side}, shared_rules(), f"{side} pixels").only()
    except InputError as error:
        raise Unscorable(f"the network cannot be built for images of {side} pixels ({error})") from error


def batch(setting: Setting) -> tuple[Tensor, Tensor]:
    """Images and labels on the device."""
    return setting.images.to(setting.device), setting.labels.to(setting.device)


def loss_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[Weight]:
    """Gradients of the mean cross entropy of these images, by weight."""
    return _gradients(network, F.cross_entropy(network(images), labels))


class FlowNorm(nn.Module):
    """A norm through which positive flow stays positive: nothing is subtracted, and the root mean square it divides by
    (over channels, or over the whole sample) is a constant to the gradient.

    Without any norm the scores of attention leave the range of numbers; with a layer norm equal channels give zero, and
    what comes before a norm has no flow, because the result does not depend on its scale.
    """

    def __init__(self, whole: bool):
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        over = tuple(range(1, x.dim())) if self.whole else (-1,)
        return x / x.detach().square().mean(dim=over, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny).sqrt()


def flow_gradients(network: nn.Module, images: Tensor) -> list[Weight]:
    """Gradients of the summed logits of one image of ones like these, every parameter set to its absolute value.

    In double precision, because products over layers grow. Batch norms keep their initial statistics (an identity), and
    the norms of transformers are replaced by `FlowNorm`. It changes the network.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, NORMS):
                setattr(module, name, FlowNorm(whole=isinstance(child, SampleNorm)))
    network.eval().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    return _gradients(network, network(torch.ones_like(images[:1], dtype=torch.float64)).sum())


def _gradients(network: nn.Module, loss: Tensor) -> list[Weight]:
    named = list(_weights(network))
    found = torch.autograd.grad(loss, [value for _, value in named], allow_unused=True)
    pairs = zip(named, found, strict=True)
    weights = [Weight(name, value.detach(), gradient) for (name, value), gradient in pairs if gradient is not None]
    if not weights:
        raise Unscorable("no weight of the network has a gradient")
    return weights


def _weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters of two dimensions or more: norms, biases and scales are left out, as the proxies do.

    Weights without a gradient (a score that only chooses tokens) are left out later.
    """
    for name, parameter in network.named_parameters():
        if parameter.dim() >= 2:
            yield name, parameter
