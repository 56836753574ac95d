"""Gradient norm of an untrained network.

Source: Abdelfattah et al., "Zero-cost proxies for lightweight NAS", ICLR 2021, https://arxiv.org/abs/2101.08134: the
sum over layers of the Euclidean norm of the loss's gradient by the layer's weights, on one batch.
Limits: of labels and images it needs little, on noise it is as good; weights without a gradient do not count.
"""

from __future__ import annotations

from collections.abc import Iterable

from nas.accuracy._passes import Weight, batch, built, loss_gradients
from nas.accuracy.base import Estimate, Estimator
from nas.core.architecture import Architecture


class GradientNorm(Estimator):
    about = "norm of the loss's gradient at initial weights (Abdelfattah et al., ICLR 2021)"
    kind = "proxy"
    cost = "one forward and backward pass"

    def measure(self, architecture: Architecture) -> Estimate:
        return Estimate(gradient_norm(loss_gradients(built(self.setting, architecture), *batch(self.setting))))


def gradient_norm(weights: Iterable[Weight]) -> float:
    """The sum of the norms."""
    return sum(float(weight.gradient.norm()) for weight in weights)
