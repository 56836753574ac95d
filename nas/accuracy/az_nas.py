"""AZ-NAS: four properties of an untrained network, joined by their ranks among the networks compared.

Source: Lee and Ham, "AZ-NAS: assembling zero-cost proxies for network architecture search", CVPR 2024,
https://arxiv.org/abs/2403.19232. Of the features after each block, rows being tokens:
  expressivity   the entropy of the normalised eigenvalues of the features' covariance, summed over blocks
  progressivity  the smallest increase of that entropy from one stage's last block to the next stage's; a network of one
                 stage has none (0), and the authors' code for vision transformers leaves it out
  trainability   the mean over blocks of 2 - s - 1 / s, s the largest singular value of the map that carries gradients
                 back through a block, estimated from random signs sent back once: at most 0, reached at s = 1
  complexity     multiply-accumulates
`parts` are these four; `nas.accuracy.base.comparable` joins them over a list. Of one network alone, `value` is their
plain sum with the complexity as its logarithm, in which expressivity, and so depth, decides: a stand-in, not the
paper's score.
Limits: a block that changes the number of tokens or the width has no square map and does not count for trainability; a
network in which none is left gets 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nas.accuracy._passes import batch, built, seed_of
from nas.accuracy.base import Estimate, Estimator, Unscorable
from nas.core.architecture import Architecture
from nas.model.network import Network

FLOOR = 1e-8  # of an eigenvalue's share, and of a singular value, as small as makes no difference


class AzNas(Estimator):
    about = "expressivity, progressivity, trainability and complexity by rank (AZ-NAS, Lee and Ham, CVPR 2024)"
    kind = "proxy"
    cost = "one forward and backward pass, and two decompositions a block"

    def measure(self, architecture: Architecture) -> Estimate:
        network, (images, _) = built(self.setting, architecture), batch(self.setting)
        stages = block_features(network, images)
        entropies = [[entropy(features.detach()) for features in stage] for stage in stages if stage]
        if not entropies:
            raise Unscorable("the network has no blocks")
        chance = torch.Generator().manual_seed(seed_of(self.setting.seed, architecture, "az_nas"))
        ends = [stage[-1] for stage in entropies]
        expressivity = sum(map(sum, entropies))
        progressivity = min((after - before for before, after in itertools.pairwise(ends)), default=0.0)
        steps = trainability(stages, chance)
        macs = self.costs.cost(architecture).macs
        value = expressivity + progressivity + steps + math.log(macs)
        return Estimate(value, parts=(expressivity, progressivity, steps, macs))


def block_features(network: Network, images: Tensor) -> list[list[Tensor]]:
    """The tokens (B, P + N, C) after each block, by stage, with what autograd needs to go back from one to another."""
    found: list[list[Tensor]] = []
    hooks = []
    for stage in network.stages:
        kept: list[Tensor] = []
        found.append(kept)
        for block in stage.blocks:  # type: ignore[union-attr]
            hooks.append(block.register_forward_hook(lambda module, inputs, tokens, kept=kept: kept.append(tokens.x)))
    try:
        network.forward_features(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def entropy(features: Tensor) -> float:
    """Entropy (nats) of the shares of the covariance's eigenvalues, of rows (..., C)."""
    rows = features.flatten(0, -2)
    rows = rows - rows.mean(dim=0)
    eigenvalues = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp(min=0).double()
    shares = eigenvalues / eigenvalues.sum()
    return float(-(shares * (shares + FLOOR).log()).sum())


def trainability(stages: Sequence[Sequence[Tensor]], chance: torch.Generator) -> float:
    """The mean over neighbouring features of 2 - s - 1 / s."""
    scores = []
    for stage in stages:
        for before, after in itertools.pairwise(stage):
            if before.shape != after.shape:
                continue
            signs = (2 * torch.randint(2, after.shape, generator=chance) - 1).to(after.device, after.dtype)
            (back,) = torch.autograd.grad(after, before, signs, retain_graph=True)
            matrix = back.flatten(0, 1).T @ signs.flatten(0, 1) / signs.flatten(0, 1).shape[0]
            largest = max(float(torch.linalg.matrix_norm(matrix, 2)), FLOOR)
            scores.append(2 - largest - 1 / largest)
    return sum(scores) / len(scores) if scores else 0.0
