"""SNIP: how much the loss would change if each weight of the untrained network were removed.

Source: Lee et al., "SNIP", ICLR 2019, https://arxiv.org/abs/1810.02340, summed over weights as Abdelfattah et al. do
(https://arxiv.org/abs/2101.08134): the sum of |weight * gradient of the loss| on one batch.
Limits: as those of the gradient norm.
"""

from __future__ import annotations

from collections.abc import Iterable

from nas.accuracy._passes import Weight, batch, built, loss_gradients
from nas.accuracy.base import Estimate, Estimator
from nas.core.architecture import Architecture


class Snip(Estimator):
    about = "sum of |weight * gradient| at initial weights (SNIP, Lee et al., ICLR 2019)"
    kind = "proxy"
    cost = "one forward and backward pass"

    def measure(self, architecture: Architecture) -> Estimate:
        return Estimate(saliency(loss_gradients(built(self.setting, architecture), *batch(self.setting))))


def saliency(weights: Iterable[Weight]) -> float:
    """The sum of the saliencies."""
    return sum(float((weight.value * weight.gradient).abs().sum()) for weight in weights)
