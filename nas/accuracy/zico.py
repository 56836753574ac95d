"""ZiCo: how large gradients are relative to how much they differ between batches.

Source: Li et al., "ZiCo: zero-shot NAS via inverse coefficient of variation on gradients", ICLR 2023,
https://arxiv.org/abs/2301.11300: over layers the sum of log(sum over weights of mean |g| / deviation of g), mean and
deviation being over batches. The deviation is that of the signed gradients, as in the authors' code; weights whose
gradients do not differ are left out. The setting's images are split into batches.
Limits: as those of the gradient norm; needs two images a batch where the network has batch norms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nas.accuracy._passes import batch, built, loss_gradients
from nas.accuracy.base import Estimate, Estimator, Unscorable
from nas.core.architecture import Architecture
from nas.core.errors import InputError

BATCHES = 2  # as in the paper


class ZiCo(Estimator):
    about = "inverse coefficient of variation of gradients (ZiCo, Li et al., ICLR 2023)"
    kind = "proxy"
    cost = "one forward and backward pass, in two halves"

    def measure(self, architecture: Architecture) -> Estimate:
        images, labels = batch(self.setting)
        if len(images) < 2 * BATCHES:
            raise InputError(f"ZiCo needs {2 * BATCHES} images", value=len(images), place="setting")
        network = built(self.setting, architecture)
        halves = zip(images.tensor_split(BATCHES), labels.tensor_split(BATCHES), strict=True)
        found = [{w.name: w.gradient for w in loss_gradients(network, *half)} for half in halves]
        layers = [torch.stack([gradients[name] for gradients in found]) for name in found[0]]
        return Estimate(inverse_variation(layers))


def inverse_variation(layers: Sequence[Tensor]) -> float:
    """The score of gradients (batches, ...) of each layer."""
    logarithms = []
    for gradients in layers:
        deviation = (gradients - gradients.mean(dim=0)).square_().mean(dim=0).sqrt_()  # torch's own takes far longer
        terms = torch.where(deviation > 0, gradients.abs().mean(dim=0) / deviation, 0.0)
        ratio = float(terms.sum(dtype=torch.float64))
        if ratio > 0:
            logarithms.append(math.log(ratio))
    if not logarithms:
        raise Unscorable("the gradients of different batches are the same")
    return sum(logarithms)
